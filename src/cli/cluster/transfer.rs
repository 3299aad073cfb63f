//! `cluster import` and `cluster export`: a miner's state from a repo into etcd, and back.

use crate::cli::{CliError, Context};

#[derive(clap::Args, Debug, Default)]
pub struct Import {
    /// Replace rows that the cluster has already
    #[arg(long)]
    pub overwrite: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(clap::Args, Debug, Default)]
pub struct Export {
    /// The node whose rows count where two differ
    #[arg(long, value_name = "NODE")]
    pub prefer: Option<String>,
    /// Replace rows that the repo has already
    #[arg(long)]
    pub overwrite: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(not(feature = "cluster"))]
mod imp {
    use super::*;

    pub async fn import(_: Import, _: &Context) -> Result<(), CliError> {
        Err(CliError::NoClusterFeature)
    }
    pub async fn export(_: Export, _: &Context) -> Result<(), CliError> {
        Err(CliError::NoClusterFeature)
    }
}

#[cfg(feature = "cluster")]
mod imp {
    use super::*;
    use crate::cli::wiring::etcd_config;
    use crate::config::{Config, RepoLock};
    use crate::store::etcd::EtcdReplica;
    use crate::store::transfer::{self, ExportOptions, ImportOptions, TransferError, TransferReport};
    use crate::store::{self, Store};
    use std::path::Path;

    pub async fn import(args: Import, cx: &Context) -> Result<(), CliError> {
        let options = ImportOptions {
            shard: cx.config.cluster.node_name(),
            miner: cx.config.node.miner.clone(),
            overwrite: args.overwrite,
            dry_run: args.dry_run,
        };
        let report =
            with_both(&cx.config, Store::open_existing, move |repo, cluster| transfer::import(repo, cluster, &options))
                .await?;
        cx.out.answer(&report, |report| told(report, "into the cluster"));
        Ok(())
    }

    pub async fn export(args: Export, cx: &Context) -> Result<(), CliError> {
        let options = ExportOptions { prefer: args.prefer, overwrite: args.overwrite, dry_run: args.dry_run };
        let report =
            with_both(&cx.config, Store::open, move |repo, cluster| transfer::export(cluster, repo, &options)).await?;
        cx.out.answer(&report, |report| told(report, "into this repo"));
        Ok(())
    }

    /// The repo belongs to us meanwhile, and the network's time passes on a thread of its own.
    async fn with_both(
        config: &Config,
        open: fn(&Path) -> store::Result<Store>,
        work: impl FnOnce(&Store, &EtcdReplica) -> Result<TransferReport, TransferError> + Send + 'static,
    ) -> Result<TransferReport, CliError> {
        if config.cluster.etcd.is_empty() {
            return Err(CliError::Failed(format!(
                "cluster.etcd names no endpoint: set it in {}, or take a join token (`bulkhead cluster join`)",
                config.config_file().display()
            )));
        }
        let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
        let _lock = RepoLock::take(&config.repo)?;
        let etcd = etcd_config(config)?;
        let options = etcd.store().map_err(|e| failed(&e))?;
        let file = config.store_file();
        let done = tokio::task::spawn_blocking(move || {
            let cluster = EtcdReplica::new(options).map_err(|e| CliError::Failed(e.to_string()))?;
            let repo = open(&file).map_err(|e| CliError::Failed(e.to_string()))?;
            work(&repo, &cluster).map_err(|e| CliError::Failed(e.to_string()))
        });
        done.await.map_err(|e| CliError::Bug(e.to_string()))?
    }

    fn told(report: &TransferReport, to: &str) -> String {
        let mut text = String::new();
        for row in &report.tables {
            text += &format!("{} {}: {}\n", row.scope, row.table, row.rows);
        }
        for (table, rows) in &report.left {
            text += &format!("stays behind: {table}: {rows}\n");
        }
        let done = if report.dry_run { "would be written" } else { "written" };
        text + &format!("{} rows {done} {to}, {} were there already", report.written, report.unchanged)
    }
}

pub use imp::{export, import};
