//! Five full nodes over real sockets, each in turn killed, frozen, behind, on a lighter fork, answering nonsense, slow, cutting its
//! connections: while one is healthy no call fails, and each head comes once and in order.
//!
//! `BULKHEAD_POOL_HEADS` heads (default 500).

use crate::pool_calls::{SEED, pool};
use crate::support::full_node::samples;
use crate::support::scripted::tipset;
use async_trait::async_trait;
use bulkhead::actors::daemon_link::follow::follow;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::daemon_link::node::check;
use bulkhead::actors::daemon_link::pool::{Health, Pool};
use bulkhead::actors::daemon_link::settings::LinkSettings;
use bulkhead::chain::ChainEpoch;
use bulkhead::chain::types::*;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::pool::calls::PooledCalls;
use bulkhead::rpc::full_node::{FullNode, FullNodeError, HttpFullNode, Result};
use bulkhead::rpc::server::{ServerHandle, Service, serve};
use cid::Cid;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

const NODES: usize = 5;
const SOON: Duration = Duration::from_secs(60);

/// The fault of a node; all but the last three are its connections'.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Killed,
    Frozen,
    /// Every connection gets these bytes.
    Answers(&'static str),
    /// Five seconds before each connection goes on.
    Slow,
    /// Connections are cut after a few messages.
    Cuts,
    /// Its head is that many epochs behind.
    Behind(usize),
    /// Its heads are of a fork of its own, lighter at the same height.
    Fork,
    /// Every call ends with an error of the node's.
    Errors,
}

const FAULTS: [Fault; 12] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Answers("SSH-2.0-OpenSSH_9.2\r\n"),
    Fault::Answers("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"),
    Fault::Answers("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"),
    Fault::Answers("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad"),
    Fault::Answers("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"result\":null}"),
    Fault::Slow,
    Fault::Cuts,
    Fault::Behind(20),
    Fault::Fork,
    Fault::Errors,
];

/// The chain that all nodes have: the tipset of height n is the n-th.
type Main = Arc<Mutex<Vec<TipSet>>>;

struct View {
    main: Main,
    fault: watch::Sender<Fault>,
    feeds: Mutex<Vec<mpsc::Sender<Vec<HeadChange>>>>,
    /// Nonces of the messages that were pushed here.
    pushed: Mutex<Vec<u64>>,
}

fn forked(height: ChainEpoch) -> TipSet {
    tipset(&format!("fork {height}"), height, &format!("a{}", height - 1))
}

impl View {
    fn fault(&self) -> Fault {
        *self.fault.borrow()
    }

    fn head(&self) -> TipSet {
        let main = self.main.lock().unwrap();
        match self.fault() {
            Fault::Behind(epochs) => main[main.len().saturating_sub(1 + epochs)].clone(),
            Fault::Fork => forked(main.len() as ChainEpoch - 1),
            _ => main[main.len() - 1].clone(),
        }
    }

    fn push_head(&self) {
        let head = self.head();
        let behind = matches!(self.fault(), Fault::Behind(_));
        let change = HeadChange { kind: HeadChangeType::Apply, val: head };
        self.feeds.lock().unwrap().retain(|feed| behind || feed.try_send(vec![change.clone()]).is_ok());
    }

    fn verdict<T>(&self, method: &'static str, answer: T) -> Result<T> {
        match self.fault() {
            Fault::Errors => Err(FullNodeError::Rpc {
                node: "here".into(),
                method,
                code: 1,
                message: "loading tipset bafy: block not found".into(),
            }),
            _ => Ok(answer),
        }
    }
}

#[async_trait]
impl FullNode for View {
    fn name(&self) -> String {
        "view".into()
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.verdict("ChainHead", self.head())
    }
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        let (tell, heads) = mpsc::channel(4096);
        let current = HeadChange { kind: HeadChangeType::Current, val: self.head() };
        tell.try_send(vec![current]).unwrap();
        self.feeds.lock().unwrap().push(tell);
        Ok(heads)
    }
    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        let main = self.main.lock().unwrap();
        let found = main.iter().rev().find(|tipset| tipset.cids == key.0).cloned();
        let fork = main.iter().map(|tipset| forked(tipset.height)).find(|tipset| tipset.cids == key.0);
        let message = "loading tipset: block not found".to_string();
        let none = FullNodeError::Rpc { node: "here".into(), method: "ChainGetTipSet", code: 1, message };
        self.verdict("ChainGetTipSet", found.or(fork).ok_or(none)?)
    }
    async fn chain_tip_set_weight(&self, key: &TipSetKey) -> Result<num_bigint::BigInt> {
        let main = self.main.lock().unwrap();
        let weight = main.iter().rev().find(|tipset| tipset.cids == key.0).map_or(1, |tipset| 1000 + tipset.height);
        self.verdict("ChainTipSetWeight", weight.into())
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        let params = NetworkParams {
            network_name: "devnet".into(),
            block_delay_secs: 1,
            consensus_miner_min_power: 0.into(),
            supported_proof_types: vec![],
            pre_commit_challenge_delay: 10,
            fork_upgrade_params: serde_json::Value::Null,
            eip155_chain_id: 0,
            genesis_timestamp: 0,
        };
        self.verdict("StateGetNetworkParams", params)
    }
    async fn mpool_push(&self, message: &SignedMessage) -> Result<Cid> {
        self.verdict("MpoolPush", ())?;
        self.pushed.lock().unwrap().push(message.message.nonce);
        Ok(tipset("message", 1, "none").cids[0])
    }
}

/// A node behind a gate that has its fault; the address stays.
struct Node {
    view: Arc<View>,
    info: ApiInfo,
    _server: ServerHandle,
}

async fn node(main: &Main) -> Node {
    let view = Arc::new(View {
        main: main.clone(),
        fault: watch::Sender::new(Fault::None),
        feeds: Mutex::default(),
        pushed: Mutex::default(),
    });
    let auth = Arc::new(Auth::with_secret(vec![7; 32]));
    let token = auth.token(&Perm::ALL).unwrap();
    let server = serve("127.0.0.1:0".parse().unwrap(), Service::of_node(view.clone(), auth)).unwrap();
    let gate = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = gate.local_addr().unwrap();
    let (behind, fault) = (server.addr(), view.fault.subscribe());
    tokio::spawn(async move {
        while let Ok((stream, _)) = gate.accept().await {
            tokio::spawn(pass(stream, behind, fault.clone()));
        }
    });
    Node { view, info: ApiInfo::local(addr, Some(token)), _server: server }
}

/// One connection, until the fault changes.
async fn pass(mut stream: TcpStream, behind: SocketAddr, mut fault: watch::Receiver<Fault>) {
    let now = *fault.borrow_and_update();
    let course = async {
        match now {
            Fault::Killed => return,
            Fault::Frozen => return std::future::pending().await,
            Fault::Answers(bytes) => {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Fault::Slow => sleep(Duration::from_secs(5)).await,
            Fault::None | Fault::Cuts | Fault::Behind(_) | Fault::Fork | Fault::Errors => {}
        }
        let Ok(mut server) = TcpStream::connect(behind).await else { return };
        if now != Fault::Cuts {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            return;
        }
        let ((mut from, mut to), (mut back, mut forth)) = (stream.split(), server.split());
        let answers = async {
            let mut buffer = [0; 16 << 10];
            for _ in 0..4 {
                match back.read(&mut buffer).await {
                    Ok(n) if n > 0 && to.write_all(&buffer[..n]).await.is_ok() => {}
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = answers => {}
            _ = tokio::io::copy(&mut from, &mut forth) => {}
        }
    };
    tokio::select! {
        () = course => return,
        _ = fault.changed() => {}
    }
    // A frozen process keeps its connections and says nothing more.
    while *fault.borrow_and_update() == Fault::Frozen && now != Fault::Frozen {
        if fault.changed().await.is_err() {
            return;
        }
    }
    drop(stream);
}

/// The chain as the subscriber of the feed knows it: each head leads on from the one before.
#[derive(Default)]
struct Heard(Vec<(ChainEpoch, Vec<Cid>)>);

impl Heard {
    fn head(&mut self, update: &HeadUpdate) {
        if let Some(to) = update.reverted_to {
            self.0.retain(|(height, _)| *height <= to);
        }
        let (height, key) = (update.tipset.height, update.tipset.cids.clone());
        match self.0.last() {
            Some((_, last)) if *last == key => assert!(update.reverted_to.is_some(), "{height} came twice"),
            Some((last, parent)) => {
                assert_eq!(update.tipset.blocks[0].parents, *parent, "{height} does not lead on from {last}");
                self.0.push((height, key));
            }
            None => self.0.push((height, key)),
        }
    }
}

struct Calls {
    made: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Callers that never pause; one that gets an error ends the test.
fn callers(node: &Arc<dyn FullNode>) -> Calls {
    let made = Arc::new(AtomicU64::new(0));
    let reader = {
        let (node, made) = (node.clone(), made.clone());
        tokio::spawn(async move {
            loop {
                node.chain_head().await.expect("a head");
                node.state_get_network_params().await.expect("the network");
                made.fetch_add(2, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let pusher = {
        let (node, made) = (node.clone(), made.clone());
        let mut message: SignedMessage = serde_json::from_value(samples()["MpoolPending"][0].clone()).unwrap();
        tokio::spawn(async move {
            for nonce in 0.. {
                message.message.nonce = nonce;
                node.mpool_push(&message).await.expect("it is taken");
                made.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        })
    };
    Calls { made, tasks: vec![reader, pusher] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_node_is_healthy_no_call_fails_and_no_head_is_lost() {
    let heads: usize = std::env::var("BULKHEAD_POOL_HEADS").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let genesis = (0..30).map(|height| tipset(&format!("a{height}"), height, &format!("a{}", height - 1)));
    let main: Main = Arc::new(Mutex::new(genesis.collect()));
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(node(&main).await);
    }
    let shared = pool(&nodes.iter().map(|node| node.info.clone()).collect::<Vec<_>>());
    let often = Duration::from_millis(100);
    let settings = LinkSettings {
        silent_block_delays: 1,
        retry_first: Duration::from_millis(5),
        retry_cap: Duration::from_millis(50),
        check_every: often,
        check_lagging_every: often,
        check_within: Duration::from_secs(1),
        max_lag: 0,
        max_gap: 5000, // a second of these epochs is hundreds of them
        ..Default::default()
    };
    let link = Pool::of(shared.clone());
    let checks: Vec<_> = link
        .nodes()
        .into_iter()
        .map(|node| {
            let (shared, settings) = (shared.clone(), settings.clone());
            tokio::spawn(async move {
                loop {
                    let failed = || Health { error: Some("silent".into()), ..Health::of(&node.name()) };
                    let found = timeout(settings.check_within, check(&*node, &settings)).await;
                    shared.report(vec![found.unwrap_or_else(|_| failed())]);
                    sleep(settings.check_every).await;
                }
            })
        })
        .collect();
    let (tell, mut told) = mpsc::unbounded_channel();
    let feed = tokio::spawn(async move {
        follow(&link, &settings, |update| drop(tell.send(update)), |_| {}).await;
    });
    let caller: Arc<dyn FullNode> = Arc::new(HttpFullNode::pooled(PooledCalls::new(shared.clone(), SEED)));
    let calls = callers(&caller);

    let mut heard = Heard::default();
    let turns: Vec<(usize, Fault)> =
        (0..NODES).flat_map(|n| FAULTS.iter().enumerate().map(move |(k, fault)| ((n + k) % NODES, *fault))).collect();
    let each = (heads / turns.len()).max(2);
    for (which, fault) in turns {
        let before = calls.made.load(Ordering::Relaxed);
        nodes[which].view.fault.send_replace(fault);
        for _ in 0..each {
            {
                let mut main = main.lock().unwrap();
                let height = main.len() as ChainEpoch;
                main.push(tipset(&format!("a{height}"), height, &format!("a{}", height - 1)));
            }
            nodes.iter().for_each(|node| node.view.push_head());
            sleep(Duration::from_millis(4)).await;
        }
        let last = main.lock().unwrap().last().unwrap().cids.clone();
        let arrives = async {
            while heard.0.last().is_none_or(|(_, key)| *key != last) {
                heard.head(&told.recv().await.expect("the feed runs"));
            }
        };
        let arrived = timeout(SOON, arrives).await;
        assert!(arrived.is_ok(), "{fault:?} of node {which}: no head; {:#?}", shared.health());
        for task in &calls.tasks {
            assert!(!task.is_finished(), "a call failed under {fault:?} of node {which}");
        }
        let moves = async {
            while calls.made.load(Ordering::Relaxed) < before + 3 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(SOON, moves).await.is_ok(), "no call got through under {fault:?} of node {which}");
        nodes[which].view.fault.send_replace(Fault::None);
    }
    let told_all: Vec<ChainEpoch> = heard.0.iter().map(|(height, _)| *height).collect();
    let from = told_all[0];
    assert_eq!(told_all, (from..from + told_all.len() as ChainEpoch).collect::<Vec<_>>(), "each height once");
    calls.tasks.iter().chain(&checks).for_each(|task| task.abort());
    feed.abort();

    // Messages: none is left out, and no node got a later one before an earlier one.
    let mut all: Vec<u64> = Vec::new();
    for node in &nodes {
        let pushed = node.view.pushed.lock().unwrap();
        let mut firsts: Vec<u64> = Vec::new();
        pushed.iter().for_each(|nonce| {
            if !firsts.contains(nonce) {
                firsts.push(*nonce)
            }
        });
        assert!(firsts.is_sorted(), "{firsts:?}");
        all.extend(firsts);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
}
