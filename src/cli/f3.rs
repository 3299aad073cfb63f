//! `bulkhead f3 status`: participation in fast finality.

use super::client::NodeClient;
use super::render::facts::facts;
use super::{CliError, Context};
use clap::Subcommand;
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The lease under which the full node signs for the miner in fast finality
    Status,
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Status => {
            let report: Value = node.call("Bulkhead.F3Status", vec![]).await?;
            cx.out.answer(&report, facts);
        }
    }
    Ok(())
}
