//! The bridge: the same actors in other processes and on other hosts, over libp2p's transports.
//!
//! One connection per peer, two lanes on it. Frames say which actor, which message, under which epoch, how long the asker
//! waits; nothing is repeated, so a message arrives once or not at all. What is wrong is refused and counted.
//!
//! Decisions are pure: [`frame`], [`hello`], [`session`], [`pending`]. `hub` and `driver` do what those say.

mod busy_poll;
pub mod codec;
mod counters;
mod driver;
mod exports;
pub mod frame;
mod handshake_limits;
mod hello;
mod hub;
pub mod identity;
pub mod ids;
mod inbox;
mod later;
mod link;
mod muxer;
mod peer;
mod pending;
mod session;
mod transport;

use crate::util::time::since_epoch;
pub use counters::{Counters, Refusal};
pub use exports::{EpochGate, HeldEpoch};
pub use hello::{Hello, HelloError};
pub use link::Bounds;
pub use session::{PeerState, SessionTiming};

use crate::supervisor::Export;
use crate::supervisor::wire::{Carrier, WireLane};
use crate::util::lock;
use hub::{Hub, HubState};
use libp2p::core::transport::{ListenerId, Transport};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use peer::PeerCarrier;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// For the bridge's own bodies: faults, downs, goodbyes.
const BODY: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<65536>,
> = bincode::config::standard().with_limit::<65536>();

#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("the bridge's key {path}: {why}", path = path.display())]
    Key { path: PathBuf, why: String },
    #[error(
        "the bridge cannot listen on {address}: {why}; set an address of this host with cluster.listen (flag --sclisten)"
    )]
    Listen { address: Multiaddr, why: String },
    #[error(
        "cluster.listen asks for QUIC, and this build has none: listen on TCP (/ip4/0.0.0.0/tcp/2347), or build it with `--features cluster`"
    )]
    NoQuic,
    #[error("the bridge cannot make its noise keys: {0}")]
    Noise(String),
    #[error("no thread for the bridge: {0}")]
    Thread(std::io::Error),
}

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

/// A node's end of all its connections. Dropped, it says goodbye and ends.
pub struct Bridge {
    shared: Arc<HubState>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bridge {
    /// Listens, on a thread of its own, and lets nobody in yet: see [`Bridge::allow`].
    pub fn start(config: BridgeConfig) -> Result<Bridge, BridgeError> {
        let me = config.key.public().to_peer_id();
        let (shared, from_conns) = HubState::new(config, me);
        let shared = Arc::new(shared);
        let (tx, rx) = std::sync::mpsc::channel();
        let ours = shared.clone();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tx.send(Err(BridgeError::Thread(error)))),
            };
            runtime.block_on(async move {
                match prepare(&ours) {
                    Ok(hub) => {
                        let _ = tx.send(Ok(())); // whoever started us waits
                        hub.run(from_conns).await;
                    }
                    Err(error) => drop(tx.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name("bridge".into()).spawn(run).map_err(BridgeError::Thread)?;
        let died = || BridgeError::Thread(std::io::Error::other("it ended at once"));
        rx.recv().unwrap_or_else(|_| Err(died()))?;
        Ok(Bridge { shared, thread: Some(thread) })
    }

    pub fn peer_id(&self) -> PeerId {
        self.shared.me
    }
    pub fn boot(&self) -> u64 {
        self.shared.boot
    }
    /// The addresses it listens on, as far as they are known yet: see [`Bridge::events`].
    pub fn listening(&self) -> Vec<Multiaddr> {
        lock(&self.shared.listening).clone()
    }

    /// Lets other nodes reach an actor, while it is held under the gate's epoch. Export before [`Bridge::allow`]: a peer is
    /// told once, when it connects, which schemas are read here, and sends its latest of a message that it was not told of.
    pub fn export(&self, export: Export, gate: EpochGate) {
        self.shared.exports.set(export, gate);
    }
    pub fn withdraw(&self, path: &str) {
        self.shared.exports.remove(path);
    }

    /// Replaces the list of peers that may connect, and are dialled where an address is known. Others are cut off.
    pub fn allow(&self, peers: impl IntoIterator<Item = PeerId>) {
        self.shared.allow.replace(peers.into_iter().collect::<HashSet<_>>());
        self.shared.changed.notify_one();
    }
    /// Sets the addresses at which a peer can be dialled; none: it is waited for.
    pub fn know(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let before = lock(&self.shared.known).insert(peer, addresses.clone());
        if before.as_ref() != Some(&addresses) {
            self.shared.changed.notify_one();
        }
    }

    /// Brings messages to the peer's actors that are held under `epoch`; 0: whatever they are held under.
    pub fn carrier(&self, peer: PeerId, epoch: u64) -> Box<dyn Carrier> {
        Box::new(PeerCarrier { peer: self.shared.peer(peer), epoch })
    }

    /// Resolves when tells to the peer are taken again, or its connection is gone: for a sender that got `Full`.
    pub async fn room(&self, peer: PeerId) {
        let peer_session = self.shared.peer(peer).peer_session.load_full();
        if let Some(peer_session) = peer_session {
            let link = peer_session.link.load_full();
            link.room(WireLane::Message).await;
        }
    }

    pub fn state(&self, peer: PeerId) -> PeerState {
        *lock(&self.shared.peer(peer).state)
    }
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<PeerInfo> = lock(&self.shared.peers).values().map(|peer| peer.info()).collect();
        peers.sort_by_key(|info| info.peer);
        peers
    }
    /// Refusals of those who never became a peer.
    pub fn strangers(&self) -> Vec<(Refusal, u64)> {
        self.shared.strangers.all_refused()
    }
    /// Changes whenever a peer's state or an address does.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.shared.events.subscribe()
    }

    /// Says goodbye to all and waits until that is written.
    pub async fn shutdown(mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await; // a panic there was reported there
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.changed.notify_one();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop();
    }
}

fn prepare(shared: &Arc<HubState>) -> Result<Hub, BridgeError> {
    let config = &shared.config;
    if config.quic && !cfg!(feature = "cluster") {
        return Err(BridgeError::NoQuic);
    }
    let (allow, strangers) = (shared.allow.clone(), shared.strangers.clone());
    let mut transport = transport::build(&config.key, config.quic, config.timing.down, allow, strangers)
        .map_err(|e| BridgeError::Noise(e.to_string()))?;
    for address in &config.listen {
        let why = |e: libp2p::TransportError<std::io::Error>| BridgeError::Listen {
            address: address.clone(),
            why: crate::util::listen_error(e),
        };
        transport.listen_on(ListenerId::next(), address.clone()).map_err(why)?;
    }
    Ok(Hub::new(shared.clone(), transport))
}
