//! How a bridge is set up, and what it tells of a peer.

use super::counters::Refusal;
use super::link::Bounds;
use super::session::{PeerState, SessionTiming};
use crate::util::time::since_epoch;
use crate::wire::codec;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;

/// For the bridge's own bodies: faults, downs, goodbyes.
pub(super) const BODY: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<65536>,
> = bincode::config::standard().with_limit::<65536>();

#[derive(Clone)]
pub struct BridgeConfig {
    pub key: Keypair,
    /// The listen addresses; empty: others are only dialled. `/ip4/0.0.0.0/tcp/7400`; with QUIC also
    /// `/udp/7400/quic-v1`.
    pub listen: Vec<Multiaddr>,
    pub quic: bool,
    pub cluster: String,
    pub timing: SessionTiming,
    /// The longest frame that is taken or sent.
    pub max_frame: u32,
    pub bounds: Bounds,
    /// Grows from start to start of a node.
    pub boot: u64,
    /// Other versions of the protocol than this build's: for tests of rolling upgrades.
    #[doc(hidden)]
    pub versions: Option<(u8, u8)>,
}

impl BridgeConfig {
    pub fn new(key: Keypair, cluster: impl Into<String>) -> BridgeConfig {
        BridgeConfig {
            key,
            listen: Vec::new(),
            quic: false,
            cluster: cluster.into(),
            timing: SessionTiming::default(),
            max_frame: codec::BODY_LIMIT as u32 + 4096, // and its header
            bounds: Bounds::default(),
            boot: u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX),
            versions: None,
        }
    }
}

/// A peer at this moment.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub peer: PeerId,
    pub state: PeerState,
    /// The boot number of its present process.
    pub boot: Option<u64>,
    pub rtt: Option<Duration>,
    pub pending: usize,
    /// Bytes that wait on the control lane and on the message lane.
    pub queued: [u64; 2],
    pub frames_in: u64,
    pub lives: u64,
    pub refused: Vec<(Refusal, u64)>,
}
