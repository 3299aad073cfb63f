//! The holder of a concern.

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub node: String,
    #[serde(with = "super::text")]
    pub peer_id: PeerId,
    pub boot: u64,
    /// The fencing epoch: grows with every holder.
    pub epoch: u64,
}
