//! `bulkhead proving info|deadlines|recover-faults`.

use super::actor::{Sending, carry_out};
use super::client::NodeClient;
use super::render::{deadlines::deadlines, facts::facts, proving};
use super::{CliError, Context};
use crate::node::api_views::{DeadlineRow, ProvingInfo};
use crate::rpc::api::Order;
use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Are there faults, may the node be restarted now; the open deadline, the next one, the last rounds
    Info {
        /// Everything that WindowPoSt and WinningPoSt report
        #[arg(long)]
        all: bool,
    },
    /// Every deadline: partitions, sectors, faults, what is proven
    Deadlines,
    /// Declare faulty sectors recovered, to be proven with the next window of their deadline
    RecoverFaults {
        #[arg(value_name = "SECTOR", required = true, help = "Numbers of faulty sectors")]
        sectors: Vec<u64>,
        #[command(flatten)]
        sending: Sending,
    },
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Info { all } => {
            let answer: Value = node.call("Bulkhead.ProvingInfo", vec![]).await?;
            let proving: ProvingInfo = parse("Bulkhead.ProvingInfo", &answer)?;
            let mut info = json!({ "proving": answer });
            if all || cx.out.json {
                info["window_post"] = part(&node, "Bulkhead.WindowPost").await;
                info["winning_post"] = part(&node, "Bulkhead.WinningPost").await;
            }
            cx.out.answer(&info, |info| {
                let rest = match all {
                    true => json!({ "window_post": info["window_post"], "winning_post": info["winning_post"] }),
                    false => return proving::info(&proving, false),
                };
                format!("{}\n{}", proving::info(&proving, true), facts(&rest))
            });
        }
        Command::RecoverFaults { sectors, sending } => {
            carry_out(Order::RecoverFaults { sectors }, sending, &node, &cx).await?;
        }
        Command::Deadlines => {
            let answer: Value = node.call("Bulkhead.ProvingDeadlines", vec![]).await?;
            let rows: Vec<DeadlineRow> = parse("Bulkhead.ProvingDeadlines", &answer)?;
            cx.out.answer(&answer, |_| deadlines(&rows));
        }
    }
    Ok(())
}

/// The report of one part; one that is off or does not answer takes no other along.
async fn part(node: &NodeClient, method: &str) -> Value {
    let answer: Result<Value, CliError> = node.call(method, vec![]).await;
    answer.unwrap_or_else(|e| json!({ "unavailable": e.to_string() }))
}

fn parse<T: DeserializeOwned>(method: &str, answer: &Value) -> Result<T, CliError> {
    T::deserialize(answer).map_err(|e| CliError::Failed(format!("{method} answered something else than expected: {e}")))
}
