//! `bulkhead sectors pledge|list|status`: over the StorageMiner methods that lotus-miner has.

use super::client::NodeClient;
use super::output::print_error;
use super::render::sectors as render;
use super::render::time::unix_now;
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

/// The fields that we read of Lotus' `api.SectorInfo`.
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
    #[serde(default)]
    pub waits_for: String,
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
    /// 0: not on chain yet, or not known.
    pub activation: i64,
    pub expiration: i64,
    /// Empty while nothing is wrong.
    pub last_error: String,
    /// Unix milliseconds of the entry into the state.
    pub since: u64,
    pub node: String,
    pub waits_for: String,
}

/// What `Bulkhead.Sectors` answers.
#[derive(Deserialize)]
struct SectorsPage {
    sectors: Vec<Row>,
    /// The number to go on with; `None`: this is the last page.
    next: Option<u64>,
    /// The nodes of the miner whose seal schedulers gave no answer.
    missing_shards: Vec<ShardSectors>,
    height: Option<i64>,
    block_delay_secs: Option<u64>,
    /// Why activation and expiration are not known.
    chain_error: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    number: u64,
    state: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    since: u64,
    activation: Option<i64>,
    expiration: Option<i64>,
    failure: Option<String>,
    waits_for: Option<String>,
}

#[derive(Deserialize)]
struct ShardSectors {
    node: String,
    why: String,
}

impl From<Row> for SectorLine {
    fn from(row: Row) -> SectorLine {
        SectorLine {
            number: row.number,
            state: row.state,
            activation: row.activation.unwrap_or_default(),
            expiration: row.expiration.unwrap_or_default(),
            last_error: row.failure.unwrap_or_default(),
            since: row.since,
            node: row.node,
            waits_for: row.waits_for.unwrap_or_default(),
        }
    }
}

/// `{"/": "bafy.."}` or null.
fn cid_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(d)?;
    Ok(value.and_then(|v| v.get("/").and_then(Value::as_str).map(str::to_string)))
}

fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Page by page, with what the last one says of the chain and of the nodes.
async fn all_sectors(node: &NodeClient) -> Result<(Vec<SectorLine>, SectorsPage), CliError> {
    let (mut lines, mut from) = (Vec::new(), None);
    loop {
        // The first page is what every version of the node answers.
        let asked = from.map(|from: u64| serde_json::json!({ "from": from })).into_iter().collect();
        let mut page: SectorsPage = node.call("Bulkhead.Sectors", asked).await?;
        lines.extend(std::mem::take(&mut page.sectors).into_iter().map(SectorLine::from));
        match page.next.filter(|next| from.is_none_or(|from| *next > from)) {
            Some(next) => from = Some(next),
            None => return Ok((lines, page)),
        }
    }
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
            let (lines, all) = all_sectors(&node).await?;
            let clock = render::Clock { now: unix_now(), height: all.height, block_delay_secs: all.block_delay_secs };
            cx.out.answer(&lines, |lines| render::list(lines, &clock));
            if let Some(why) = &all.chain_error {
                print_error(&format!("activation and expiration are not known, the full node does not answer: {why}"));
            }
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
