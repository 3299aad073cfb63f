//! A panic in the market's swarm, or a kill, ends that actor's incarnation only; the next one has the same peer id and ask.

use async_trait::async_trait;
use bls_signatures::{PrivateKey, Serialize as _};
use bulkhead::actors::deal_handler::ask::{AskBasis, StoredAsk};
use bulkhead::actors::deal_handler::{
    AskSigner, AskStore, DealHandler, MarketConfig, MarketDeps, MarketInfo, MarketReport, MarketSettings, PanicHost,
    child,
};
use bulkhead::store::{StoreError, Token};
use bulkhead::supervisor::{Exit, Ref, SupervisorSpec, Tree};
use fvm_shared::address::Address;
use fvm_shared::crypto::signature::{Signature, SignatureType};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINER: Address = Address::new_id(1000);

/// A worker's key in this process; `away` makes rounds fail as they do without a full node.
struct Worker {
    key: PrivateKey,
    away: AtomicBool,
    signed: AtomicU64,
}

#[async_trait]
impl AskSigner for Worker {
    async fn standing(&self) -> Result<AskBasis, String> {
        if self.away.load(SeqCst) {
            return Err("full node 127.0.0.1:1: cannot reach it".into());
        }
        Ok(AskBasis { height: 100, worker: Address::new_id(101) })
    }
    async fn sign(&self, _: &Address, bytes: &[u8]) -> Result<Signature, String> {
        self.signed.fetch_add(1, SeqCst);
        Ok(Signature { sig_type: SignatureType::BLS, bytes: self.key.sign(bytes).as_bytes() })
    }
}

#[derive(Default)]
struct Book(Mutex<Option<StoredAsk>>);

impl AskStore for Book {
    fn load(&self, _: &Address) -> Result<Option<StoredAsk>, StoreError> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn save(&self, _: &Token, _: &Address, ask: &StoredAsk) -> Result<(), StoreError> {
        *self.0.lock().unwrap() = Some(ask.clone());
        Ok(())
    }
}

struct Node {
    tree: Tree,
    market: Ref<DealHandler>,
    worker: Arc<Worker>,
    _dir: tempfile::TempDir,
}

fn start(away: bool) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate(&mut rand::rngs::OsRng);
    let worker = Arc::new(Worker { key, away: AtomicBool::new(away), signed: AtomicU64::new(0) });
    let market = Ref::<DealHandler>::new("/t01000/market", 256);
    let config = MarketConfig {
        miner: MINER,
        key_path: dir.path().join("libp2p.key"),
        sector_size: 2048,
        settings: MarketSettings::default(),
    };
    let deps = MarketDeps { signer: worker.clone(), book: Arc::new(Book::default()) };
    let markets = SupervisorSpec::new("root").child(child(config, deps, &market));
    let tree = Tree::start(markets).unwrap();
    Node { tree, market, worker, _dir: dir }
}

/// Asks until the report is as wanted.
async fn report(node: &Node, what: &str, want: impl Fn(&MarketReport) -> bool) -> MarketReport {
    let mut last = None;
    let asked = async {
        loop {
            if let Ok(report) = node.market.ask(MarketInfo, Duration::from_secs(5)).await {
                if want(&report) {
                    return report;
                }
                last = Some(report);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), asked).await {
        Ok(report) => report,
        Err(_) => panic!("{what}: {last:?} {:?}", node.tree.snapshot()),
    }
}

fn row(node: &Node) -> bulkhead::supervisor::ActorInfo {
    node.tree.snapshot().into_iter().find(|row| row.path.contains("deal_handler")).unwrap()
}

#[tokio::test]
async fn a_panic_and_a_kill_bring_the_same_market_back() {
    let node = start(false);
    let first = report(&node, "an ask", |r| r.ask.is_some()).await;
    assert_eq!(first.ask.as_ref().unwrap().seq_no, 0);
    assert!(first.addrs[0].starts_with("/ip4/127.0.0.1/tcp/") && first.addrs[0].ends_with(&first.peer_id));

    node.market.ask(PanicHost, Duration::from_secs(5)).await.unwrap();
    let second = report(&node, "a new host", |r| r.addrs != first.addrs && r.ask.is_some()).await;
    assert_eq!((&second.peer_id, &second.ask), (&first.peer_id, &first.ask));
    assert!(matches!(row(&node).last_exit, Some(Exit::Panicked(why)) if why.contains("drill")));

    assert!(node.tree.kill(&row(&node).path));
    let third = report(&node, "a new host", |r| r.addrs != second.addrs && r.ask.is_some()).await;
    assert_eq!((&third.peer_id, &third.ask), (&first.peer_id, &first.ask));
    assert_eq!((row(&node).restarts, row(&node).last_exit), (2, Some(Exit::Killed)));
    assert_eq!(node.worker.signed.load(SeqCst), 1, "an ask that holds is not signed again");

    let addr = third.addrs[0].split('/').nth(4).unwrap().parse::<u16>().unwrap();
    node.tree.shutdown().await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", addr)).is_err(), "an orderly stop closes the port");
}

#[tokio::test]
async fn without_a_full_node_the_market_is_up_and_asks_again() {
    let node = start(true);
    let waiting = report(&node, "an error", |r| r.ask_error.is_some()).await;
    assert!(waiting.ask.is_none() && waiting.ask_error.unwrap().contains("cannot reach it"));
    assert_eq!(row(&node).restarts, 0);
    node.worker.away.store(false, SeqCst);
    let signed = report(&node, "an ask", |r| r.ask.is_some()).await;
    assert_eq!(signed.ask_error, None);
    node.tree.shutdown().await;
}
