//! The messages of the daemon link to the rest of the node.

use super::pool::Health;
use crate::chain::ChainEpoch;
use crate::chain::types::TipSet;
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The chain has a new head. Every tipset of the canonical chain comes once, in order, gaps filled.
#[derive(Clone, Debug)]
pub struct HeadUpdate {
    pub tipset: Arc<TipSet>,
    /// Set when tipsets were taken back first: the height of the last tipset that both chains share.
    pub reverted_to: Option<ChainEpoch>,
}

impl Message for HeadUpdate {
    type Reply = ();
}

/// How the head feed stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct FeedInfo;

impl Message for FeedInfo {
    type Reply = FeedStatus;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::FEED_INFO, 1));
}

/// How the full nodes are.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct PoolInfo;

impl Message for PoolInfo {
    type Reply = Vec<Health>;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::POOL_INFO, 1));
}

/// How the feed stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct FeedStatus {
    /// The node that is followed now.
    pub node: Option<String>,
    pub network: Option<String>,
    pub block_delay_secs: Option<u64>,
    /// False while heads come from polling.
    pub subscribed: bool,
    /// Heads are asked for, and come, because the node cannot push them.
    #[serde(default)]
    pub polling: bool,
    pub height: Option<i64>,
    /// Unix seconds of the blocks of that head.
    #[serde(default)]
    pub head_at: Option<u64>,
    /// The least time from a head's block time to its arrival, of the last that were pushed, in milliseconds. Negative: this
    /// host's clock is behind the chain's. `None` before the first.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// The fault of this host's clock; `None`: none.
    #[serde(default)]
    pub clock_skew: Option<String>,
    pub subscriptions: u64,
    pub last_error: Option<String>,
}
