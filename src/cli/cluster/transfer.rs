//! `cluster import` and `cluster export`: a miner's state from a repo into etcd, and back.

use crate::cli::{CliError, Context};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Do it although there is state at the destination already; what is there is replaced
    #[arg(long)]
    pub replace: bool,
}

pub async fn import(_args: Args, _cx: &Context) -> Result<(), CliError> {
    Err(CliError::NoClusterFeature)
}

pub async fn export(_args: Args, _cx: &Context) -> Result<(), CliError> {
    Err(CliError::NoClusterFeature)
}
