//! Typed configuration: defaults < file < environment < flags.
//!
//! * [`keys`] — every key described once: default, kind, environment variable, what it is for. All else follows from that table.
//! * [`kind`] — what a key takes. [`change`] — what a new reading changes, and which of it takes effect at once.
//! * [`values`] — how durations and sizes are written.
//! * [`load`](mod@load) — the layers put on one another.
//! * [`cluster`] — what a provider on several hosts needs; `documented` reads the names of files that operators bring along.
//! * [`lotus`] — what lotus-miner's operators have already: its variables and its file.
//! * [`lock`] — one process per repo.
//! * [`example`] — the annotated file (`config/bulkhead.toml`) and how `init` writes into a repo's own.

pub mod change;
pub mod cluster;
mod documented;
mod error;
pub mod example;
pub mod keys;
pub mod kind;
pub mod load;
pub mod lock;
pub mod lotus;
mod translated;
pub mod values;

pub use cluster::{Cluster, DirectoryConfig, DirectoryKind, PeerConfig, PlacementConfig};
pub use error::{ConfigError, Source};
pub use load::{Loaded, Overrides, Reading, load};
pub use lock::RepoLock;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use values::{duration, optional};

/// Everything that can be set. [`Config::default`] is the table of [`keys`] read as a file.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's folder; not a key of the file, which lies in it: `--repo`, `BULKHEAD_PATH`, `~/.bulkhead`.
    #[serde(skip)]
    pub repo: PathBuf,
    pub node: NodeConfig,
    pub full_node: FullNodeConfig,
    pub proving: Proving,
    pub sealing: Sealing,
    pub market: Market,
    pub fees: Fees,
    pub addresses: Addresses,
    pub cluster: Cluster,
    pub placement: PlacementConfig,
    pub api: Listen,
    pub admin: Listen,
    pub devnet: DevnetConfig,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The miner actor; `init` sets it.
    #[serde(with = "optional")]
    pub miner: Option<String>,
    pub log: String,
    pub log_format: LogFormat,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Pretty,
    Json,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FullNodeConfig {
    /// `<token>:/ip4/../tcp/../http`.
    #[serde(with = "optional")]
    pub api_info: Option<String>,
    /// `<token>:<address>:<hostname>`, several.
    #[serde(with = "optional")]
    pub pool_info: Option<String>,
    pub use_pool: bool,
    #[serde(with = "optional")]
    pub primary_seed: Option<String>,
    pub default_policy: String,
    /// `<method>=<policy>,<nohang>,<timeout>`.
    pub routes: Vec<String>,
    pub max_sync_behind: i64,
    pub max_behind_diff: i64,
    pub min_message_peers: u64,
    pub min_block_peers: u64,
    pub agreement: bool,
    /// `127.0.0.1:2245`; `None`: the pool is not served.
    #[serde(with = "optional")]
    pub listen: Option<String>,
    pub miner_api_priority: Priority,
}

/// Whether the pool of the node at `MINER_API_INFO` is used.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// It is, where no full node is named.
    Auto,
    /// Before the full nodes that are named.
    True,
    False,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Proving {
    pub parameter_cache: PathBuf,
    pub challenge_confidence: i64,
    pub submit_confidence: i64,
    pub max_partitions: usize,
    /// Epochs; 0: any number.
    pub max_head_lag: u64,
    /// 0: as many as the driver shows.
    pub gpu_slots: u32,
    /// Empty: a folder in memory.
    pub gpu_locks: String,
    pub parallel: usize,
    pub f3: Switch,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Sealing {
    /// 0 = no limit.
    pub max_sealing: usize,
    /// Epochs.
    pub sector_lifetime: i64,
    pub ticket_lookback: i64,
    pub seed_confidence: i64,
    pub pc1: usize,
    pub pc2: usize,
    pub c2: usize,
    /// MiB.
    pub keep_free: u64,
    pub place: SealPlace,
}

/// The place where new sectors are sealed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SealPlace {
    Here,
    Agents,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Market {
    pub listen: String,
    pub max_connections: u32,
    /// attoFIL per GiB and epoch.
    pub price: String,
    pub verified_price: String,
}

/// Decimal FIL; each has passed its key's check.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Fees {
    pub window_post: String,
    pub pre_commit: String,
    pub commit: String,
    pub other: String,
    pub maximize_window_post_fee_cap: bool,
}

/// Lotus' `[Addresses]`: from which of the miner's control addresses what is sent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    pub pre_commit_control: Vec<String>,
    pub commit_control: Vec<String>,
    pub terminate_control: Vec<String>,
    pub deal_publish_control: Vec<String>,
    pub disable_owner_fallback: bool,
    pub disable_worker_fallback: bool,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub listen: SocketAddr,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DevnetConfig {
    pub listen: SocketAddr,
    pub network_name: String,
    #[serde(with = "duration")]
    pub block_delay: Duration,
    #[serde(with = "duration")]
    pub warmup_delay: Duration,
    pub deadlines: u64,
    pub challenge_window: i64,
    pub challenge_lookback: i64,
    pub fault_cutoff: i64,
    pub pre_commit_challenge_delay: i64,
    pub chain_finality: i64,
    pub winning_lookback: i64,
    pub dispute_window: i64,
    pub account_fil: u64,
    pub upgrade_epoch: i64,
}

impl DevnetConfig {
    /// Epochs in which every deadline comes up once.
    pub fn proving_period(&self) -> i64 {
        self.deadlines as i64 * self.challenge_window
    }
}

impl Config {
    pub fn lock_file(&self) -> PathBuf {
        self.repo.join("repo.lock")
    }
    pub fn config_file(&self) -> PathBuf {
        self.repo.join("config.toml")
    }
    pub fn store_file(&self) -> PathBuf {
        self.repo.join("bulkhead.redb")
    }
    pub fn token_file(&self) -> PathBuf {
        self.repo.join("token")
    }
    /// Holds the address of the running node's StorageMiner JSON-RPC (a multiaddr, as Lotus writes it).
    pub fn api_file(&self) -> PathBuf {
        self.repo.join("api")
    }
    /// Holds the address of the running node's admin HTTP (`host:port`).
    pub fn admin_file(&self) -> PathBuf {
        self.repo.join("admin")
    }
}
