//! `bulkhead proving info|deadlines`.

use super::client::NodeClient;
use super::render::{deadlines::deadlines, facts::facts};
use super::{CliError, Context};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Where the proving period stands, and how proving does
    Info,
    /// Every deadline: partitions, sectors, faults, what is proven
    Deadlines,
}

/// A row of `Bulkhead.ProvingDeadlines`.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct DeadlineRow {
    pub index: u64,
    pub open: Option<i64>,
    pub close: Option<i64>,
    pub partitions: u64,
    pub sectors: u64,
    pub faulty: u64,
    pub recovering: u64,
    /// Partitions of this deadline that are proven in the present period.
    pub proven: u64,
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Info => {
            let info: Value = node.call("Bulkhead.ProvingInfo", ()).await?;
            cx.out.answer(&info, facts);
        }
        Command::Deadlines => {
            let rows: Vec<DeadlineRow> = node.call("Bulkhead.ProvingDeadlines", ()).await?;
            cx.out.answer(&rows, |rows| deadlines(rows, None));
        }
    }
    Ok(())
}
