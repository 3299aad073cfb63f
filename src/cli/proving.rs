//! `bulkhead proving info|deadlines`.

use super::client::NodeClient;
use super::render::{deadlines::deadlines, facts::facts};
use super::{CliError, Context};
use crate::node::report::DeadlineRow;
use clap::Subcommand;
use serde::Deserialize;
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Where the proving period stands, and how proving does
    Info,
    /// Every deadline: partitions, sectors, faults, what is proven
    Deadlines,
}

/// `Bulkhead.ProvingDeadlines`: the rows, with or without the index of the one that is open.
#[derive(Deserialize)]
#[serde(untagged)]
enum DeadlinesAnswer {
    Rows(Vec<DeadlineRow>),
    With { current: Option<u64>, deadlines: Vec<DeadlineRow> },
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Info => {
            let window_post: Value = node.call("Bulkhead.WindowPost", vec![]).await?;
            let winning_post: Value = node.call("Bulkhead.WinningPost", vec![]).await?;
            let info = serde_json::json!({ "window_post": window_post, "winning_post": winning_post });
            cx.out.answer(&info, facts);
        }
        Command::Deadlines => {
            let answer: Value = node.call("Bulkhead.ProvingDeadlines", vec![]).await?;
            let (current, rows) = match DeadlinesAnswer::deserialize(&answer) {
                Ok(DeadlinesAnswer::Rows(rows)) => (None, rows),
                Ok(DeadlinesAnswer::With { current, deadlines }) => (current, deadlines),
                Err(e) => {
                    let why = format!("Bulkhead.ProvingDeadlines answered something else than expected: {e}");
                    return Err(CliError::Failed(why));
                }
            };
            cx.out.answer(&answer, |_| deadlines(&rows, current));
        }
    }
    Ok(())
}
