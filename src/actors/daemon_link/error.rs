//! Why a head feed ended.

use crate::rpc::full_node::FullNodeError;
use std::time::Duration;

#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    #[error("full node {node} is on network {found}, this provider is for {expected}; check FULLNODE_API_INFO")]
    WrongNetwork { node: String, expected: String, found: String },
    #[error("no full node is configured for this network; set FULLNODE_API_INFO")]
    NoNode,
    #[error("full node {node}: the channel of head changes was closed")]
    Closed { node: String },
    #[error("full node {node}: no head change within {after:?}")]
    Silent { node: String, after: Duration },
    #[error("full node {node} is not used any more; heads come from {better}")]
    Left { node: String, better: String },
    #[error(transparent)]
    Node(#[from] FullNodeError),
}
