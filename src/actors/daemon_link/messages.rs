//! What the daemon link tells the rest of the node.

use crate::chain::ChainEpoch;
use crate::chain::types::TipSet;
use crate::supervisor::Message;
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
