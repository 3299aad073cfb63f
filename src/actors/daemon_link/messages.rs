//! The messages of the daemon link to the rest of the node.

use super::follow::FeedStatus;
use super::pool::Health;
use crate::chain::ChainEpoch;
use crate::chain::types::TipSet;
use crate::rpc::bridge::{codec, ids};
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
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
