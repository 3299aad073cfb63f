//! The StorageMiner API's port to the node behind it.

use super::orders::{MessageOrder, MessageState, Order, Plan};
use super::types::SectorInfo;
use crate::chain::types::{TipSet, Version};
use crate::rpc::auth::Perm;
use crate::rpc::full_node::pool::view::PoolChange;
use async_trait::async_trait;
use fvm_shared::address::Address;
use serde::Deserialize;
use serde_json::Value;

/// Why a call has no result; the text goes to the caller as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    #[error("sector {0} is not known to this miner; `sectors list` shows those that are")]
    NoSuchSector(u64),
    #[error("there is no pool of full nodes here")]
    NoPool,
    #[error("{0} is not the miner of this node")]
    OtherMiner(String),
    /// An actor restarts or its mailbox is full: the same call may succeed later.
    #[error("{what} cannot answer now: {why}; try again")]
    Unavailable { what: &'static str, why: String },
    #[error("{0}")]
    Failed(String),
}

/// A sector's number and state, for lists and counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectorBrief {
    pub number: u64,
    /// Lotus' name: `PreCommit1`, `WaitSeed`, `Proving`, ….
    pub state: String,
}

/// The page of sectors that is asked for.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(default, deny_unknown_fields)]
pub struct SectorsAsked {
    /// The lowest number that is wanted.
    pub from: u64,
    /// At most so many; 0, or more than [`SectorsAsked::MOST`]: as many as a page holds.
    pub most: u32,
}

impl SectorsAsked {
    pub const FIRST: SectorsAsked = SectorsAsked { from: 0, most: 0 };
    /// Rows of a page: each has some 250 bytes of JSON.
    pub const MOST: usize = 5000;

    pub fn bounded(self) -> usize {
        match self.most as usize {
            0 => SectorsAsked::MOST,
            most => most.min(SectorsAsked::MOST),
        }
    }
}

/// The reports of the `Bulkhead.*` methods; each is JSON of the concern that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    Info,
    Tree,
    /// The pool of full nodes.
    Daemons,
    /// Owner, worker, control addresses: keys, balances, what is proposed.
    Actor,
    /// The sectors of all nodes by pages, and the nodes that did not answer.
    Sectors(SectorsAsked),
    /// Nodes, agents and worker processes that seal.
    SealingWorkers,
    /// The sealing tasks that run or wait, at all of them.
    SealingJobs,
    ProvingInfo,
    ProvingDeadlines,
    WindowPost,
    WinningPost,
    F3,
    Market,
}

/// The node, to its API. Every call has a deadline inside its implementation.
#[async_trait]
pub trait MinerBackend: Send + Sync + 'static {
    fn miner(&self) -> Address;
    async fn sector_size(&self) -> Result<u64, BackendError>;
    /// The tipset that the provider would mine on.
    async fn mining_base(&self) -> Result<TipSet, BackendError>;
    /// Allocates a number and starts a committed-capacity sector: durable when it returns.
    async fn pledge_sector(&self) -> Result<u64, BackendError>;
    /// In order of numbers.
    async fn sectors(&self) -> Result<Vec<SectorBrief>, BackendError>;
    async fn sector(&self, number: u64, on_chain: bool) -> Result<SectorInfo, BackendError>;
    /// Lotus' names: `Mining`, `Sealing`, `SectorStorage`, `Markets`.
    fn subsystems(&self) -> Vec<String>;
    fn version(&self) -> Version;
    /// Begins an orderly stop; returns at once.
    fn shutdown(&self);
    /// The messages of an order; nothing is sent.
    async fn check_order(&self, order: &Order) -> Result<Plan, BackendError>;
    /// Gives the messages of the order to the message sender: durable when it returns, under these keys. The same
    /// `request` again is the same order, never a second one.
    async fn order(&self, order: &Order, request: &str) -> Result<Vec<String>, BackendError>;
    async fn message_state(&self, key: &str) -> Result<MessageState, BackendError>;
    /// The open messages, the oldest first, at most so many: the message sender's list.
    async fn messages(&self, most: u32) -> Result<Value, BackendError>;
    /// Raises a message's fee at once. `max_fee`: FIL, its bound from now on; `None` = as it is.
    async fn replace_message(&self, key: &str, max_fee: Option<&str>) -> Result<MessageOrder, BackendError>;
    /// Takes a message back, if it has not landed.
    async fn cancel_message(&self, key: &str) -> Result<MessageOrder, BackendError>;
    /// Changes the pool of full nodes until the process ends; what was changed.
    async fn change_daemons(&self, _change: PoolChange) -> Result<String, BackendError> {
        Err(BackendError::NoPool)
    }
    /// The value of `FULLNODE_API_POOL_INFO` for this pool, tokens included.
    async fn daemons_auth(&self) -> Result<String, BackendError> {
        Err(BackendError::NoPool)
    }
    /// The value of `FULLNODE_API_INFO` with which others use this pool as one node, with a token of `perm`.
    async fn daemons_api_info(&self, _perm: Perm) -> Result<String, BackendError> {
        Err(BackendError::NoPool)
    }
    async fn report(&self, report: ReportKind) -> Result<Value, BackendError>;
}
