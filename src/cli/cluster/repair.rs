//! `cluster repair`: what etcd has of this cluster and no node can read.

use crate::cli::{CliError, Context};

#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// Only say what is wrong
    #[arg(long)]
    pub dry_run: bool,
    /// Take away this row, which cannot be read, with what only it says
    #[arg(long, value_name = "KEY")]
    pub drop: Option<String>,
}

#[cfg(not(feature = "cluster"))]
pub async fn run(_: Args, _: &Context) -> Result<(), CliError> {
    Err(CliError::NoClusterFeature)
}

#[cfg(feature = "cluster")]
pub async fn run(args: Args, cx: &Context) -> Result<(), CliError> {
    use crate::rpc::directory::etcd::Connection;
    use crate::rpc::directory::etcd::repair::{RepairOptions, Repaired, repair};
    use crate::store::{Store, StoreError};

    if cx.config.cluster.etcd.is_empty() {
        return Err(CliError::Failed(format!(
            "cluster.etcd names no endpoint, so there is nothing to repair: set it in {}",
            cx.config.config_file().display()
        )));
    }
    let failed = |e: crate::rpc::directory::DirectoryError| CliError::Failed(e.to_string());
    let connection = Connection::new(crate::cli::wiring::etcd_config(&cx.config)?).map_err(failed)?;
    // Open while the node runs: then there is etcd's history alone.
    let mirror = match Store::open_existing(&cx.config.store_file()) {
        Ok(store) => Some(store),
        Err(StoreError::Missing { .. } | StoreError::Locked { .. }) => None,
        Err(error) => return Err(CliError::Failed(error.to_string())),
    };
    let options = RepairOptions {
        dry_run: args.dry_run,
        check: crate::actors::records::check,
        mirror: mirror.as_ref(),
        drop: args.drop.as_deref(),
    };
    let found = repair(&connection, &options).await.map_err(failed)?;
    if let Some(key) = args.drop.filter(|key| !found.iter().any(|one| one.key == *key)) {
        return Err(CliError::Failed(format!("--drop {key}: no row of that key is damaged; nothing was taken away")));
    }
    let line = |one: &Repaired| match &one.done {
        Some(done) => format!("{}: {}: {done}", one.key, one.why),
        None => format!("{}: {}", one.key, one.why),
    };
    cx.out.answer(&found, |found| match found.is_empty() {
        true => "nothing is damaged".to_string(),
        false => found.iter().map(line).collect::<Vec<_>>().join("\n"),
    });
    Ok(())
}
