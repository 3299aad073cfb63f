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
    use crate::store::Store;

    if cx.config.cluster.etcd.is_empty() {
        return Err(CliError::Failed(format!(
            "cluster.etcd names no endpoint, so there is nothing to repair: set it in {}",
            cx.config.config_file().display()
        )));
    }
    let failed = |e: crate::rpc::directory::DirectoryError| CliError::Failed(e.to_string());
    let connection = Connection::new(crate::cli::wiring::etcd_config(&cx.config)?).map_err(failed)?;
    let (mirror, without) = copy_of(Store::open_existing(&cx.config.store_file()));
    if let Some(why) = without {
        crate::cli::output::print_error(&why);
    }
    let options = RepairOptions {
        dry_run: args.dry_run,
        check: crate::actors::records::check,
        mirror: mirror.as_ref(),
        drop: args.drop.as_deref(),
    };
    let found = repair(&connection, &options).await.map_err(failed)?;
    let line = |one: &Repaired| match &one.done {
        Some(done) => format!("{}: {}: {done}", one.key, one.why),
        None => format!("{}: {}", one.key, one.why),
    };
    cx.out.answer(&found, |found| match found.is_empty() {
        true => "nothing is damaged".to_string(),
        false => found.iter().map(line).collect::<Vec<_>>().join("\n"),
    });
    match args.drop.filter(|key| !found.iter().any(|one| one.key == *key)) {
        Some(key) => Err(CliError::Failed(format!("--drop {key}: no row of that key is damaged; it stays as it is"))),
        None => Ok(()),
    }
}

/// This host's copy of the cluster's rows, where it can be read, and the sentence that says why it is not used otherwise: what
/// etcd's history has is repaired all the same.
#[cfg(feature = "cluster")]
fn copy_of(
    opened: Result<crate::store::Store, crate::store::StoreError>,
) -> (Option<crate::store::Store>, Option<String>) {
    use crate::store::StoreError;
    match opened {
        Ok(store) => (Some(store), None),
        // Open while the node runs.
        Err(StoreError::Missing { .. } | StoreError::Locked { .. }) => (None, None),
        Err(why) => (None, Some(format!("repaired from etcd's history alone, without this host's copy: {why}"))),
    }
}
