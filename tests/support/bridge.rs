//! Nodes for the bridge's tests: an actor under a tree, exported, and a bridge on a loopback port.

use bulkhead::rpc::bridge::{Bridge, BridgeConfig, EpochGate, PeerState, SessionTiming, codec};
use bulkhead::supervisor::wire::WireForm;
use bulkhead::supervisor::*;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;

/// What must come comes within this, on any machine.
pub const SOON: Duration = Duration::from_secs(30);
pub const PATH: &str = "/t01000/sum";

/// Adds up.
pub struct Sum {
    pub total: u64,
}
impl Actor for Sum {}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub struct Add(pub u64);
impl Message for Add {
    type Reply = u64;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 3));
}
/// Answered with what came.
#[derive(Serialize, Deserialize)]
pub struct Echo(pub Vec<u8>);
impl Message for Echo {
    type Reply = Vec<u8>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(2, 1));
}
/// Never answered, until the actor ends.
#[derive(Serialize, Deserialize)]
pub struct Hang;
impl Message for Hang {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::control(3, 1));
}
#[derive(Serialize, Deserialize)]
pub struct Crash;
impl Message for Crash {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::control(4, 1));
}
/// Has a wire form and is not exported.
#[derive(Serialize, Deserialize, Debug)]
pub struct Secret;
impl Message for Secret {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(5, 1));
}

impl Handler<Add> for Sum {
    async fn handle(&mut self, Add(n): Add, _: &Cx<Self>) -> Result<u64, Exit> {
        self.total += n;
        Ok(self.total)
    }
}
impl Handler<Echo> for Sum {
    async fn handle(&mut self, Echo(bytes): Echo, _: &Cx<Self>) -> Result<Vec<u8>, Exit> {
        Ok(bytes)
    }
}
impl Handler<Hang> for Sum {
    async fn handle(&mut self, _: Hang, _: &Cx<Self>) -> Result<(), Exit> {
        std::future::pending().await
    }
}
impl Handler<Crash> for Sum {
    async fn handle(&mut self, _: Crash, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("told to")
    }
}
impl Handler<Secret> for Sum {
    async fn handle(&mut self, _: Secret, _: &Cx<Self>) -> Result<(), Exit> {
        Ok(())
    }
}

/// Small enough that tests need not wait long, large enough for a loaded machine.
pub fn quick() -> SessionTiming {
    SessionTiming {
        heartbeat: Duration::from_millis(200),
        suspect: Duration::from_secs(1),
        down: Duration::from_secs(3),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_millis(500),
        courtesy: Duration::from_millis(20),
    }
}

pub fn config() -> BridgeConfig {
    let mut config = BridgeConfig::new(Keypair::generate_ed25519(), "test");
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.timing = quick();
    config
}

pub struct Node {
    pub bridge: Bridge,
    pub tree: Tree,
    pub home: Ref<Sum>,
    /// The epoch that `home` is held under; 0: none.
    pub held: Arc<AtomicU64>,
}

pub fn serve(bridge: &Bridge, mailbox: usize) -> (Tree, Ref<Sum>, Arc<AtomicU64>) {
    let home = Ref::new(PATH, mailbox);
    let child = ChildSpec::actor("sum", &home, |_| async { Ok(Sum { total: 0 }) });
    let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child)).unwrap();
    let export = Export::of(&home).message::<Add>().message::<Echo>().message::<Hang>().message::<Crash>();
    let held = Arc::new(AtomicU64::new(0));
    bridge.export(export.done().unwrap(), EpochGate::of(held.clone()));
    (tree, home, held)
}

pub fn node(config: BridgeConfig) -> Node {
    let bridge = Bridge::start(config).unwrap();
    let (tree, home, held) = serve(&bridge, 1 << 16);
    Node { bridge, tree, home, held }
}

impl Node {
    pub fn id(&self) -> PeerId {
        self.bridge.peer_id()
    }
    /// The actor at `peer`, as this node sees it.
    pub fn away(&self, peer: PeerId) -> Ref<Sum> {
        far(&self.bridge, peer, 0)
    }
}

pub fn far(bridge: &Bridge, peer: PeerId, epoch: u64) -> Ref<Sum> {
    let away = Ref::new(PATH, 16);
    away.route_to(Some(bridge.carrier(peer, epoch)));
    away
}

pub async fn until(bridge: &Bridge, what: &str, mut is: impl FnMut() -> bool) {
    let mut events = bridge.events();
    let wait = async {
        while !is() {
            // Counters change without an event.
            let _ = tokio::time::timeout(Duration::from_millis(20), events.changed()).await;
        }
    };
    if tokio::time::timeout(SOON, wait).await.is_err() {
        panic!("never: {what}; peers: {:?}", bridge.peers());
    }
}

pub async fn address(bridge: &Bridge) -> Multiaddr {
    until(bridge, "it listens", || !bridge.listening().is_empty()).await;
    bridge.listening()[0].clone()
}

pub async fn up(bridge: &Bridge, peer: PeerId) {
    until(bridge, "the peer is up", || bridge.state(peer) == PeerState::Up).await;
}

/// The first knows where the second is.
pub async fn join(a: &Bridge, b: &Bridge) {
    a.allow([b.peer_id()]);
    b.allow([a.peer_id()]);
    a.know(b.peer_id(), vec![address(b).await]);
    up(a, b.peer_id()).await;
    up(b, a.peer_id()).await;
}

/// Keeps the notices it gets.
pub struct Watcher {
    pub to: mpsc::UnboundedSender<Down>,
}
impl Actor for Watcher {}
impl Handler<Down> for Watcher {
    async fn handle(&mut self, down: Down, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.to.send(down);
        Ok(())
    }
}

pub fn watcher() -> (Tree, Ref<Watcher>, mpsc::UnboundedReceiver<Down>) {
    let (to, from) = mpsc::unbounded_channel();
    let me = Ref::new("/watcher", 64);
    let child = ChildSpec::actor("watcher", &me, move |_| {
        let to = to.clone();
        async { Ok(Watcher { to }) }
    });
    (Tree::start(SupervisorSpec::new("watchers").child(child)).unwrap(), me, from)
}
