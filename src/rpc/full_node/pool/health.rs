//! The result of the last check of a node of the pool.

use crate::chain::ChainEpoch;
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// The result of a node's last check.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Health {
    pub node: String,
    /// `None` before the first check and after a failed one.
    pub height: Option<ChainEpoch>,
    /// Unix seconds of the blocks of that head.
    #[serde(default)]
    pub head_at: Option<u64>,
    /// Seconds; of its network.
    #[serde(default)]
    pub block_delay_secs: Option<u64>,
    /// Unix seconds of its genesis block; `None`: it does not tell.
    #[serde(default)]
    pub genesis_at: Option<u64>,
    /// Epochs that its head is beyond what the chain can have reached: see [`super::ahead`]. `None`: it can have.
    #[serde(default)]
    pub ahead: Option<ChainEpoch>,
    pub error: Option<String>,
    /// Another network than the configured one: not used.
    pub wrong_network: bool,
    /// Weight of its head's chain, in digits; `None`: it does not tell.
    #[serde(default)]
    pub weight: Option<String>,
    /// Epochs that it has left to sync by its own word; `None`: it does not tell.
    #[serde(default)]
    pub sync_behind: Option<ChainEpoch>,
    /// Peers that pass on messages; `None`: it does not tell.
    #[serde(default)]
    pub message_peers: Option<u64>,
    #[serde(default)]
    pub block_peers: Option<u64>,
    /// Why it is not used; `None`: it is.
    #[serde(default)]
    pub disabled: Option<String>,
    /// Why it would not be used if there were a better one.
    #[serde(default)]
    pub warning: Option<String>,
}

impl Health {
    pub fn of(node: &str) -> Health {
        Health { node: node.to_string(), ..Health::default() }
    }

    pub fn weight(&self) -> Option<BigInt> {
        self.weight.as_ref()?.parse().ok()
    }
}
