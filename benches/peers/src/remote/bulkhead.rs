//! Bulkhead's bridge, the whole of it: path, fencing header, deadline, supervised actor behind a bounded mailbox.

use super::load::{Caller, Lost, drive};
use super::plan::{Plan, Sample, Work};
use super::substream::{multiaddr, peer_and_address, server_key};
use crate::wire::codec::form;
use crate::bridge::{Bridge, BridgeConfig, EpochGate, PeerState};
use crate::measure::p50_p99;
use crate::supervisor::wire::WireForm;
use crate::supervisor::*;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATH: &str = "/bench/echo";
const MAILBOX: usize = 1 << 14;
const DEADLINE: Duration = Duration::from_secs(60);
/// What the actor is held under, as a lease's would be.
const EPOCH: u64 = 42;
/// R4's.
const CLIENTS: u8 = 100;

#[derive(Default)]
struct Echoes {
    seen: u64,
}
impl Actor for Echoes {}

#[derive(Serialize, Deserialize)]
struct Echo(Bytes);
#[derive(Serialize, Deserialize)]
struct Note(Bytes);
#[derive(Serialize, Deserialize)]
struct Seen;
#[derive(Serialize, Deserialize)]
struct Hang;

impl Message for Echo {
    type Reply = Bytes;
    const WIRE: Option<WireForm<Echo>> = Some(form(0xbe01, 1));
}
impl Message for Note {
    type Reply = ();
    const WIRE: Option<WireForm<Note>> = Some(form(0xbe02, 1));
}
impl Message for Seen {
    type Reply = u64;
    const WIRE: Option<WireForm<Seen>> = Some(form(0xbe03, 1));
}
impl Message for Hang {
    type Reply = ();
    const WIRE: Option<WireForm<Hang>> = Some(form(0xbe04, 1));
}

impl Handler<Echo> for Echoes {
    async fn handle(&mut self, Echo(payload): Echo, _: &Cx<Self>) -> Result<Bytes, Exit> {
        Ok(payload)
    }
}
impl Handler<Note> for Echoes {
    async fn handle(&mut self, _: Note, _: &Cx<Self>) -> Result<(), Exit> {
        self.seen += 1;
        Ok(())
    }
}
impl Handler<Seen> for Echoes {
    async fn handle(&mut self, _: Seen, _: &Cx<Self>) -> Result<u64, Exit> {
        Ok(self.seen)
    }
}
impl Handler<Hang> for Echoes {
    async fn handle(&mut self, _: Hang, _: &Cx<Self>) -> Result<(), Exit> {
        std::future::pending().await
    }
}

fn child(id: &str, to: &Ref<Echoes>, thread: &'static str) -> ChildSpec {
    ChildSpec::actor(id, to, |_| async { Ok(Echoes::default()) }).on(Thread::Shared(thread))
}

fn client_key(n: u8) -> Keypair {
    let mut seed = [9; 32];
    seed[0] = n;
    Keypair::ed25519_from_bytes(seed).expect("32 bytes")
}

fn config(key: Keypair) -> BridgeConfig {
    BridgeConfig::new(key, "bench")
}

pub async fn serve(bind: &str, ready: impl FnOnce(String)) {
    let to = Ref::new(PATH, MAILBOX);
    let _tree = Tree::start(SupervisorSpec::new("root").child(child("echo", &to, "bench"))).expect("a tree");
    let bridge =
        Bridge::start(BridgeConfig { listen: vec![multiaddr(bind)], ..config(server_key()) }).expect("a bridge");
    let export = Export::of(&to).message::<Echo>().message::<Note>().message::<Seen>().message::<Hang>();
    bridge.export(export.done().expect("four numbers"), EpochGate::at(EPOCH));
    bridge.allow((0..CLIENTS).map(|n| client_key(n).public().to_peer_id()));
    let mut events = bridge.events();
    while bridge.listening().is_empty() {
        let _ = events.changed().await;
    }
    ready(format!("{}/p2p/{}", bridge.listening()[0], bridge.peer_id()));
    std::future::pending().await
}

#[derive(Clone)]
struct Client(Arc<Inner>);

struct Inner {
    bridge: Bridge,
    server: PeerId,
    to: Ref<Echoes>,
}

async fn connect(address: &str, n: u64) -> Result<Client, Lost> {
    let (server, address) = peer_and_address(address)?;
    let bridge = Bridge::start(config(client_key(n as u8)))?;
    bridge.allow([server]);
    bridge.know(server, vec![address]);
    let to = Ref::new(PATH, MAILBOX);
    to.route_to(Some(bridge.carrier(server, EPOCH)));
    let mut events = bridge.events();
    while bridge.state(server) != PeerState::Up {
        events.changed().await?;
    }
    Ok(Client(Arc::new(Inner { bridge, server, to })))
}

fn lost<M>(error: CallError<M>) -> Lost {
    Lost(error.to_string())
}

impl Caller for Client {
    const HEALS: bool = true;

    async fn ask(&self, payload: Bytes) -> Result<usize, Lost> {
        Ok(self.0.to.ask(Echo(payload), DEADLINE).await.map_err(lost)?.len())
    }
    async fn tell(&self, payload: Bytes) -> Result<u64, Lost> {
        let (mut note, mut waited) = (Note(payload), 0);
        loop {
            match self.0.to.tell(note) {
                Ok(()) => return Ok(waited),
                Err(CallError::Full(back)) => note = back,
                Err(error) => return Err(lost(error)),
            }
            waited += 1;
            self.0.bridge.room(self.0.server).await;
        }
    }
    async fn seen(&self) -> Result<u64, Lost> {
        self.0.to.ask(Seen, DEADLINE).await.map_err(lost)
    }
    async fn hang(&self) -> Lost {
        match self.0.to.ask(Hang, DEADLINE).await {
            Err(error) => lost(error),
            Ok(()) => Lost("answered".into()),
        }
    }
}

pub async fn call(plan: Plan) -> Vec<Sample> {
    let address = plan.address.clone();
    if let Work::Moved { times, other_node } = plan.work {
        return moved(&address, times, other_node).await.unwrap_or_else(|Lost(why)| vec![Sample::Failed { why }]);
    }
    drive(plan, move |n| {
        let address = address.clone();
        async move { connect(&address, n).await }
    })
    .await
}

/// Runs [`body`] on its own thread, as an actor's code does.
struct Asker;
impl Actor for Asker {}

struct Run {
    to: Ref<Echoes>,
    times: u64,
}
impl Message for Run {
    type Reply = (Vec<u64>, f64);
}
impl Handler<Run> for Asker {
    async fn handle(&mut self, run: Run, _: &Cx<Self>) -> Result<(Vec<u64>, f64), Exit> {
        Ok(body(&run.to, run.times).await)
    }
}

/// R5's test body: knows nothing of where the actor runs.
async fn body(to: &Ref<Echoes>, times: u64) -> (Vec<u64>, f64) {
    let payload = Bytes::from(vec![7; 32]);
    let mut nanos = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        let echoed = to.ask(Echo(payload.clone()), DEADLINE).await;
        assert!(echoed.is_ok_and(|echoed| echoed == payload));
        nanos.push(begin.elapsed().as_nanos() as u64);
    }
    let begin = Instant::now();
    let asking = async || {
        for _ in 0..times / 8 {
            let echoed = to.ask(Echo(payload.clone()), DEADLINE).await;
            assert!(echoed.is_ok_and(|echoed| echoed == payload));
        }
    };
    let mut all: FuturesUnordered<_> = (0..64).map(|_| asking()).collect();
    while all.next().await.is_some() {}
    (nanos, (times / 8 * 64) as f64 / begin.elapsed().as_secs_f64())
}

async fn moved(address: &str, times: u64, other_node: bool) -> Result<Vec<Sample>, Lost> {
    let (asker, same, other) =
        (Ref::new("/bench/asker", 4), Ref::new("/bench/same", 1024), Ref::new("/bench/other", 1024));
    let root = SupervisorSpec::new("root")
        .child(child("same", &same, "bench"))
        .child(child("other", &other, "other"))
        .child(ChildSpec::actor("asker", &asker, |_| async { Ok(Asker) }).on(Thread::Shared("bench")));
    let _tree = Tree::start(root)?;
    let client = connect(address, 0).await?;
    let far = client.0.to.clone();
    let places = match other_node {
        true => vec![("on another node (network namespace)", far)],
        false => vec![("on the same arbiter", same), ("on another arbiter", other), ("in another process", far)],
    };
    let mut samples = Vec::new();
    for (place, to) in places {
        let (nanos, per_second) = asker.ask(Run { to, times }, DEADLINE).await.map_err(lost)?;
        let (p50, p99) = p50_p99(nanos);
        samples.push(Sample::Moved { place: place.into(), p50_us: p50 / 1e3, p99_us: p99 / 1e3, per_second });
    }
    Ok(samples)
}
