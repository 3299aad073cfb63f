//! The full node as each group reaches it.

use crate::rpc::full_node::FullNode;
use std::sync::Arc;

/// One connection a group: a group that floods or breaks its own leaves the others' alone.
pub struct Links {
    pub chain: Arc<dyn FullNode>,
    pub proving: Arc<dyn FullNode>,
    pub sealing: Arc<dyn FullNode>,
    pub markets: Arc<dyn FullNode>,
    pub admin: Arc<dyn FullNode>,
}
