//! `bulkhead sectors pledge|list|status`: over the StorageMiner methods that lotus-miner has.

use super::client::NodeClient;
use super::render::sectors as render;
use super::{CliError, Context};
use clap::Subcommand;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Seal one more sector without deals
    Pledge,
    /// Every sector and its state
    List,
    /// One sector
    Status {
        /// The sector's number
        #[arg(value_name = "N")]
        number: u64,
        /// Every step that it took, with times
        #[arg(long)]
        log: bool,
    },
}

/// `abi.SectorID`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorId {
    pub miner: u64,
    pub number: u64,
}

/// What we read of Lotus' `api.SectorInfo`.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorInfo {
    #[serde(rename = "SectorID")]
    pub sector_id: u64,
    pub state: String,
    #[serde(default, deserialize_with = "cid_text")]
    pub comm_r: Option<String>,
    #[serde(default, deserialize_with = "cid_text")]
    pub comm_d: Option<String>,
    #[serde(default)]
    pub ticket: Option<Randomness>,
    #[serde(default)]
    pub seed: Option<Randomness>,
    #[serde(default, deserialize_with = "cid_text")]
    pub pre_commit_msg: Option<String>,
    #[serde(default, deserialize_with = "cid_text")]
    pub commit_msg: Option<String>,
    #[serde(default)]
    pub activation: i64,
    #[serde(default)]
    pub expiration: i64,
    #[serde(default)]
    pub last_err: String,
    #[serde(default, deserialize_with = "nullable")]
    pub log: Vec<LogEntry>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct Randomness {
    #[serde(default)]
    pub epoch: i64,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct LogEntry {
    #[serde(default)]
    pub kind: String,
    /// Unix seconds.
    #[serde(default)]
    pub timestamp: u64,
    #[serde(default)]
    pub message: String,
}

/// A row of `sectors list`.
#[derive(Serialize, Clone, Debug)]
pub struct SectorLine {
    pub number: u64,
    pub state: String,
    pub activation: i64,
    pub expiration: i64,
    pub last_error: String,
}

/// The nodes of the miner whose seal schedulers gave no answer.
#[derive(Deserialize)]
struct AllShards {
    missing_shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    node: String,
    why: String,
}

/// `{"/": "bafy.."}` or null.
fn cid_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(d)?;
    Ok(value.and_then(|v| v.get("/").and_then(Value::as_str).map(str::to_string)))
}

fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Pledge => {
            let id: SectorId = node.call("Filecoin.PledgeSector", vec![]).await?;
            cx.out.answer(&id, |id| {
                format!("sector {} is being sealed; watch it with `bulkhead sectors status {0} --log`", id.number)
            });
        }
        Command::List => {
            let numbers: Option<Vec<u64>> = node.call("Filecoin.SectorsList", vec![]).await?;
            let mut lines = Vec::new();
            for number in numbers.unwrap_or_default() {
                let s: SectorInfo = node.call("Filecoin.SectorsStatus", vec![number.into(), false.into()]).await?;
                lines.push(SectorLine {
                    number,
                    state: s.state,
                    activation: s.activation,
                    expiration: s.expiration,
                    last_error: s.last_err,
                });
            }
            let all: AllShards = node.call("Bulkhead.Sectors", vec![]).await?;
            cx.out.answer(&lines, |lines| render::list(lines));
            // After what there is, and as a failure: a script must not take a part of the list for all of it.
            if !all.missing_shards.is_empty() {
                let each = all.missing_shards.iter().map(|shard| format!("{} ({})", shard.node, shard.why));
                let each: Vec<_> = each.collect();
                return Err(CliError::Failed(format!("the sectors of these nodes are missing: {}", each.join(", "))));
            }
        }
        Command::Status { number, log } => {
            // with --json the node's answer goes through as it is, unknown fields included
            let value: Value = node.call("Filecoin.SectorsStatus", vec![number.into(), true.into()]).await?;
            let info: SectorInfo = serde_json::from_value(value.clone()).map_err(|e| {
                CliError::Failed(format!("Filecoin.SectorsStatus answered something else than expected: {e}"))
            })?;
            cx.out.answer(&value, |_| render::status(&info, log));
        }
    }
    Ok(())
}
