//! The provider as a scraper and `info` see it: head, power, sectors by state, deadlines, blocks, messages, balances. The
//! node puts it together on each head; whoever reads it asks nobody.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Every part may be missing: its owner did not answer, and [`ProviderReport::unavailable`] says why.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ProviderReport {
    /// Unix seconds at which it was put together; 0: never yet.
    pub at: u64,
    pub miner: String,
    pub chain: Option<ChainPart>,
    pub network: Option<NetworkPart>,
    pub power: Option<PowerPart>,
    /// attoFIL by account: `miner_available`, `worker`, `owner`, `control-0`, ..
    pub balances: BTreeMap<String, String>,
    /// State -> number, over all seal schedulers that answered.
    pub sectors: Option<BTreeMap<String, u64>>,
    pub sealing: Option<SealingPart>,
    pub proving: Option<ProvingPart>,
    pub blocks: Option<BlocksPart>,
    pub f3: Option<F3Part>,
    pub messages: Option<MessagesPart>,
    /// Part -> why it is missing or incomplete.
    pub unavailable: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ChainPart {
    /// The newest head that came; `None` before the first.
    pub epoch: Option<i64>,
    /// Unix seconds of its blocks.
    pub head_at: Option<u64>,
    pub block_delay_secs: Option<u64>,
    /// The least time from a head's block time to its arrival, of the last ones, in milliseconds. Negative: this host's clock
    /// is behind the chain's. `None` before the first head was pushed.
    pub clock_offset_ms: Option<i64>,
    /// Heads are pushed by the full node; false while they are asked for, or do not come.
    pub subscribed: bool,
    pub full_nodes: u64,
    /// The number that answer, are of the right network, and are not behind.
    pub usable: u64,
    /// The full nodes one by one, in the order of the pool.
    pub pool: Vec<FullNodePart>,
}

/// One full node of the pool.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct FullNodePart {
    pub host: String,
    /// `host:port`.
    pub addr: String,
    /// Calls go to it, and heads may come from it.
    pub used: bool,
    /// Why it is not used, or is used for want of a better one only; `None`: nothing is wrong with it.
    pub why: Option<String>,
    /// It is asked first.
    pub primary: bool,
    /// Epoch of its head; `None`: it did not tell.
    pub head: Option<i64>,
    /// Epochs behind the best node.
    pub behind: Option<i64>,
    /// Since the process started.
    pub calls: u64,
}

/// The network's version, and its next upgrade.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct NetworkPart {
    pub version: u32,
    /// The name of the upgrade that began the version.
    pub name: String,
    /// Whether this program knows the version's rules.
    pub known: bool,
    /// `None`: the full node tells of none.
    pub next_upgrade: Option<UpgradePart>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct UpgradePart {
    pub name: String,
    pub epoch: i64,
    /// Until then; `None` while the block delay is unknown.
    pub seconds: Option<u64>,
    pub ready: bool,
    /// The reasons why not; empty when ready.
    pub because: Vec<String>,
}

impl UpgradePart {
    /// One line: `Solstice at epoch 6470279: ready`.
    pub fn line(&self) -> String {
        let UpgradePart { name, epoch, because, .. } = self;
        match self.ready {
            true => format!("{name} at epoch {epoch}: ready"),
            false => format!("{name} at epoch {epoch}: not ready because {}", because.join("; ")),
        }
    }
}

/// Bytes. Network figures are for the share.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct PowerPart {
    pub raw: String,
    pub quality_adjusted: String,
    pub network_raw: String,
    pub network_quality_adjusted: String,
    pub has_min_power: bool,
    /// Blocks that this power wins on average; 0 with too little to win any. `None`: the block delay is unknown.
    pub expected_blocks_per_day: Option<f64>,
}

impl PowerPart {
    /// The part of the network's quality-adjusted power, from 0 to 1.
    pub fn share(&self) -> f64 {
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        match number(&self.network_quality_adjusted) {
            0.0 => 0.0,
            all => number(&self.quality_adjusted) / all,
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct SealingPart {
    /// Sectors that failed and wait to be tried again.
    pub failing: u64,
    /// Pledges that have no sector number yet.
    pub unnumbered: u64,
    /// Kind of task -> tasks under way, at this provider's nodes and agents.
    pub running: BTreeMap<String, u64>,
    /// Tasks that wait at agents.
    pub queued: u64,
    pub agents: u64,
    /// Worker processes of agents.
    pub workers: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ProvingPart {
    /// Sectors of the chain's partitions.
    pub live: u64,
    pub faulty: u64,
    pub recovering: u64,
    /// The open deadline; `None` before the first proving period.
    pub deadline: Option<u64>,
    pub closes_at: Option<i64>,
    /// Partitions of the open deadline.
    pub to_prove: u64,
    pub proven: u64,
    /// Deadlines that closed lately (within the epochs for which WindowPoSt keeps its records) with every proof on chain.
    pub met: u64,
    /// And those of which a proof was missing.
    pub missed: u64,
    /// Sectors that the proofs of those and of the open deadlines leave out.
    pub left_out: u64,
    /// Live sectors of the chain that no seal scheduler has in its records: of an adopted miner. `None`: not every one answered.
    pub unrecorded: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct BlocksPart {
    /// Over restarts.
    pub accepted: u64,
    pub on_chain: u64,
    /// The number of remembered ones that were made, and are not on chain a few epochs later.
    pub lost: u64,
    /// Outcome -> how many of the last rounds.
    pub rounds: BTreeMap<String, u64>,
}

/// Participation in fast finality.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct F3Part {
    /// `participating`, `disabled`, `failing`, ..
    pub state: String,
    /// The instance at the last answer, and the last one of the lease.
    pub instance: Option<u64>,
    pub lease_to: Option<u64>,
    /// Failed tries in a row.
    pub failures: u32,
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct MessagesPart {
    /// Not signed yet.
    pub queued: u64,
    /// Signed, and not final on chain.
    pub pushed: u64,
    /// Epochs since the oldest of the latter was pushed last.
    pub oldest_epochs: Option<u64>,
    /// The oldest that is not signed, and why it waits.
    pub waiting: Option<WaitingMessage>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct WaitingMessage {
    pub key: String,
    pub why: String,
}
