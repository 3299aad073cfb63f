//! `cluster repair`: what etcd has of this cluster and no node can read.

use crate::cli::{CliError, Context};

#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// Only say what is wrong
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(not(feature = "cluster"))]
pub async fn run(_: Args, _: &Context) -> Result<(), CliError> {
    Err(CliError::NoClusterFeature)
}

#[cfg(feature = "cluster")]
pub async fn run(args: Args, cx: &Context) -> Result<(), CliError> {
    use crate::rpc::directory::etcd::Connection;
    use crate::rpc::directory::etcd::repair::{Repaired, repair};

    if cx.config.cluster.etcd.is_empty() {
        return Err(CliError::Failed(format!(
            "cluster.etcd names no endpoint, so there is nothing to repair: set it in {}",
            cx.config.config_file().display()
        )));
    }
    let failed = |e: crate::rpc::directory::DirectoryError| CliError::Failed(e.to_string());
    let connection = Connection::new(crate::cli::wiring::etcd_config(&cx.config)?).map_err(failed)?;
    let found = repair(&connection, args.dry_run).await.map_err(failed)?;
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
