//! The head feed over five full nodes that fail two at a time, each with each fault, on a chain with forks and empty epochs:
//! 1,000 heads, or `BULKHEAD_POOL_HEADS`; none lost, none told twice.

use crate::support::scripted::tipset;
use async_trait::async_trait;
use bulkhead::actors::daemon_link::follow::follow;
use bulkhead::actors::daemon_link::messages::{FeedStatus, HeadUpdate};
use bulkhead::actors::daemon_link::node::check;
use bulkhead::actors::daemon_link::pool::{Health, Pool};
use bulkhead::actors::daemon_link::settings::LinkSettings;
use bulkhead::chain::types::{HeadChange, HeadChangeType, NetworkParams, TipSet, TipSetKey};
use bulkhead::rpc::full_node::{FullNode, FullNodeError, GossipPeers, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Of an epoch. All other times here are as much shorter than a network's.
const EPOCH: Duration = Duration::from_millis(4);
const NODES: usize = 5;
/// Epochs that a fault lasts.
const FAULT_LASTS: usize = 12;
/// A call's deadline, of the HTTP client.
const DEADLINE: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
    Behind,
    Fork,
    Garbage,
    Unauthorized,
    BadGateway,
    Null,
    Slow,
    ClosesSockets,
    NoPeers,
    Restarted,
}

const FAULTS: [Fault; 12] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Behind,
    Fault::Fork,
    Fault::Garbage,
    Fault::Unauthorized,
    Fault::BadGateway,
    Fault::Null,
    Fault::Slow,
    Fault::ClosesSockets,
    Fault::NoPeers,
    Fault::Restarted,
];

/// All tipsets there are, and the chain that most of the nodes agree on.
#[derive(Default)]
struct World {
    canonical: Vec<TipSet>,
    weights: HashMap<TipSetKey, i64>,
    tipsets: HashMap<TipSetKey, TipSet>,
}

impl World {
    fn make(&mut self, name: &str, height: i64, parent: &TipSet, weight: i64) -> TipSet {
        let mut made = tipset(name, height, "");
        made.blocks[0].parents = parent.cids.clone();
        self.weights.insert(made.key(), weight);
        self.tipsets.insert(made.key(), made.clone());
        made
    }
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Its own chain above the common one, oldest first.
    fork: Vec<TipSet>,
    head: Option<TipSet>,
    channels: Vec<mpsc::Sender<Vec<HeadChange>>>,
}

struct Node {
    name: String,
    world: Arc<Mutex<World>>,
    state: Mutex<State>,
}

impl Node {
    fn fault(&self) -> Option<Fault> {
        self.state.lock().unwrap().fault
    }

    async fn reached(&self, method: &'static str) -> Result<()> {
        let (node, why) = (self.name.clone(), "broken".to_string());
        match self.fault() {
            Some(Fault::Killed) => return Err(FullNodeError::Unreachable { node, why }),
            Some(Fault::BadGateway) => return Err(FullNodeError::Unreachable { node, why: "502".into() }),
            Some(Fault::Unauthorized) => return Err(FullNodeError::Unauthorized { node, method, why }),
            Some(Fault::Garbage) => return Err(FullNodeError::BadAnswer { node, method, why }),
            Some(Fault::Null) if method != "StateGetNetworkParams" => {
                return Err(FullNodeError::BadAnswer { node, method, why: "null".into() });
            }
            Some(Fault::Frozen) => {
                sleep(DEADLINE).await;
                return Err(FullNodeError::Timeout { node, method, after: DEADLINE });
            }
            Some(Fault::Slow) => sleep(Duration::from_millis(1)).await,
            _ => {}
        }
        Ok(())
    }

    /// Begins or ends a fault. A process that ends takes its channels with it; a frozen one keeps them.
    fn becomes(&self, fault: Option<Fault>) {
        let mut state = self.state.lock().unwrap();
        state.fault = fault;
        state.fork.clear();
        let keeps = [Fault::Frozen, Fault::Fork, Fault::Slow, Fault::NoPeers, Fault::ClosesSockets];
        if fault.is_some_and(|fault| !keeps.contains(&fault)) {
            state.channels.clear();
        }
    }

    /// What the node does at a new epoch.
    fn epoch(&self, round: usize) {
        let mut world = self.world.lock().unwrap();
        let mut state = self.state.lock().unwrap();
        let tip = world.canonical.last().unwrap().clone();
        let head = match state.fault {
            Some(Fault::Killed | Fault::Frozen) => return,
            Some(Fault::Behind) => world.canonical[world.canonical.len().saturating_sub(21)].clone(),
            Some(Fault::Fork) => {
                let parent = state.fork.last().or(state.head.as_ref()).unwrap().clone();
                if parent.height >= tip.height {
                    return;
                }
                let name = format!("{} {round}", self.name);
                let made = world.make(&name, tip.height, &parent, 1000 * tip.height - 500);
                state.fork.push(made.clone());
                made
            }
            _ => tip,
        };
        let Some(before) = state.head.replace(head.clone()) else { return };
        let batch = path(&world, before, head);
        state.channels.retain(|channel| channel.try_send(batch.clone()).is_ok());
        if state.fault == Some(Fault::ClosesSockets) {
            state.channels.clear();
        }
    }
}

/// Reverts, then applies.
fn path(world: &World, mut from: TipSet, mut to: TipSet) -> Vec<HeadChange> {
    let parent = |of: &TipSet| world.tipsets[&TipSetKey(of.blocks[0].parents.clone())].clone();
    let (mut reverts, mut applies) = (vec![], vec![]);
    while from.cids != to.cids {
        if from.height >= to.height {
            let below = parent(&from);
            reverts.push(HeadChange { kind: HeadChangeType::Revert, val: std::mem::replace(&mut from, below) });
        } else {
            let below = parent(&to);
            applies.push(HeadChange { kind: HeadChangeType::Apply, val: std::mem::replace(&mut to, below) });
        }
    }
    applies.reverse();
    reverts.into_iter().chain(applies).collect()
}

#[async_trait]
impl FullNode for Node {
    fn name(&self) -> String {
        self.name.clone()
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.reached("ChainHead").await?;
        Ok(self.state.lock().unwrap().head.clone().unwrap())
    }
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        self.reached("ChainNotify").await?;
        let (sender, receiver) = mpsc::channel(64);
        let mut state = self.state.lock().unwrap();
        let val = state.head.clone().unwrap();
        sender.try_send(vec![HeadChange { kind: HeadChangeType::Current, val }]).unwrap();
        if state.fault != Some(Fault::ClosesSockets) {
            state.channels.push(sender);
        }
        Ok(receiver)
    }
    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        self.reached("ChainGetTipSet").await?;
        Ok(self.world.lock().unwrap().tipsets[key].clone())
    }
    async fn chain_tip_set_weight(&self, key: &TipSetKey) -> Result<num_bigint::BigInt> {
        self.reached("ChainTipSetWeight").await?;
        Ok(self.world.lock().unwrap().weights[key].into())
    }
    async fn gossip_peers(&self) -> Result<Option<GossipPeers>> {
        self.reached("NetPubsubScores").await?;
        let peers = if self.fault() == Some(Fault::NoPeers) { 0 } else { 9 };
        Ok(Some(GossipPeers { messages: peers, blocks: peers }))
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.reached("StateGetNetworkParams").await?;
        Ok(NetworkParams {
            network_name: "devnet".into(),
            block_delay_secs: 30,
            consensus_miner_min_power: 0.into(),
            supported_proof_types: vec![],
            pre_commit_challenge_delay: 10,
            fork_upgrade_params: serde_json::Value::Null,
            eip155_chain_id: 0,
            genesis_timestamp: 0,
        })
    }
}

/// The chain as a subscriber knows it from what it was told.
#[derive(Default)]
struct Told {
    chain: Vec<Arc<TipSet>>,
    /// Why what it was told is no chain.
    wrong: Vec<String>,
}

impl Told {
    fn hear(&mut self, update: HeadUpdate) {
        if let Some(to) = update.reverted_to {
            while self.chain.last().is_some_and(|tipset| tipset.height > to) {
                self.chain.pop();
            }
        }
        if self.chain.last().is_some_and(|last| last.cids == update.tipset.cids) {
            // Taken back to a head that was told: it is the only one that comes a second time.
            if update.reverted_to.is_none() {
                self.wrong.push(format!("{} came twice", update.tipset.height));
            }
            return;
        }
        let follows = self.chain.last().is_none_or(|last| last.cids == update.tipset.blocks[0].parents);
        if !follows {
            let last = self.chain.last().map(|last| last.height);
            self.wrong.push(format!("{} after {last:?}, back to {:?}", update.tipset.height, update.reverted_to));
        }
        self.chain.push(update.tipset);
    }
}

#[tokio::test]
async fn no_head_is_lost_or_told_twice_while_one_node_is_healthy() {
    let world = Arc::new(Mutex::new(World::default()));
    {
        let mut world = world.lock().unwrap();
        let genesis = world.make("genesis", 0, &TipSet { cids: vec![], blocks: vec![], height: -1 }, 0);
        world.canonical.push(genesis);
    }
    let state = || State { head: world.lock().unwrap().canonical.last().cloned(), ..State::default() };
    let of = |index| Node { name: format!("n{index}"), world: world.clone(), state: Mutex::new(state()) };
    let nodes: Vec<Arc<Node>> = (0..NODES).map(|index| Arc::new(of(index))).collect();
    let ms = Duration::from_millis;
    let settings = LinkSettings {
        retry_first: ms(1),
        retry_cap: ms(2),
        check_every: ms(2),
        check_within: ms(3),
        max_lag: 0,
        ..LinkSettings::default()
    };
    let pool = Pool::new(nodes.iter().map(|node| node.clone() as Arc<dyn FullNode>).collect(), &settings);
    let mut tasks = tokio::task::JoinSet::new();
    for node in nodes.iter().cloned() {
        let (pool, settings) = (pool.clone(), settings.clone());
        tasks.spawn(async move {
            loop {
                let found = timeout(settings.check_within, check(&*node, &settings)).await;
                let silent = || Health { error: Some("no answer".into()), ..Health::of(&node.name) };
                pool.shared().report(vec![found.unwrap_or_else(|_| silent())]);
                sleep(settings.check_every).await;
            }
        });
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let follows = Arc::new(Mutex::new(None));
    let (hears, followed, now) = (told.clone(), pool.clone(), follows.clone());
    tasks.spawn(async move {
        let publish = |status: &FeedStatus| now.lock().unwrap().clone_from(&status.node);
        follow(&followed, &settings, move |update| hears.lock().unwrap().hear(update), publish).await;
    });

    while told.lock().unwrap().chain.is_empty() {
        sleep(EPOCH).await;
    }
    let heads = std::env::var("BULKHEAD_POOL_HEADS").map_or(1_000, |heads| heads.parse().unwrap());
    let mut worst = (0, String::new());
    for round in 1..=heads {
        if round % FAULT_LASTS == 0 {
            let turn = round / FAULT_LASTS;
            nodes.iter().filter(|node| node.fault().is_some()).for_each(|node| node.becomes(None));
            // The one that the feed follows has each fault, and beside it each of the others.
            let first = nodes.iter().position(|node| Some(&node.name) == follows.lock().unwrap().as_ref()).unwrap();
            nodes[first].becomes(Some(FAULTS[turn % FAULTS.len()]));
            let second = (first + 1 + turn % (NODES - 1)) % NODES;
            nodes[second].becomes(Some(FAULTS[(turn / FAULTS.len() + 3 + turn) % FAULTS.len()]));
        }
        {
            let mut world = world.lock().unwrap();
            // A block that lost its race is taken back; an epoch stays empty now and then.
            let lost = if round % 97 == 0 { world.canonical.pop() } else { None };
            let parent = world.canonical.last().unwrap().clone();
            let height = lost.map_or(parent.height, |lost| lost.height) + if round % 50 == 0 { 2 } else { 1 };
            let made = world.make(&format!("c{round}"), height, &parent, 1000 * height);
            world.canonical.push(made);
        }
        nodes.iter().for_each(|node| node.epoch(round));
        sleep(EPOCH).await;
        let (tip, told) = (world.lock().unwrap().canonical.last().cloned().unwrap(), told.lock().unwrap());
        assert_eq!(told.wrong, Vec::<String>::new(), "round {round}");
        let late = tip.height - told.chain.last().map_or(0, |last| last.height);
        if late > worst.0 {
            let faults: Vec<_> = nodes.iter().map(|node| node.fault()).collect();
            worst = (late, format!("round {round}: {faults:?}"));
        }
    }
    // The last faults are over: the whole chain comes, by itself.
    nodes.iter().for_each(|node| node.becomes(None));
    nodes.iter().for_each(|node| node.epoch(0));
    let expected: Vec<_> = world.lock().unwrap().canonical.iter().map(|tipset| tipset.cids.clone()).collect();
    let whole = async {
        while !told.lock().unwrap().chain.iter().map(|tipset| &tipset.cids).eq(&expected) {
            sleep(EPOCH).await;
        }
    };
    let came = timeout(Duration::from_secs(20), whole).await;
    let told = told.lock().unwrap();
    assert!(came.is_ok(), "{} of {} tipsets: {:?}", told.chain.len(), expected.len(), told.wrong);
    assert_eq!(told.wrong, Vec::<String>::new());
    println!("{heads} heads; at most {} epochs late ({})", worst.0, worst.1);
    assert!(worst.0 < FAULT_LASTS as i64, "{} epochs late: {}", worst.0, worst.1);
}
