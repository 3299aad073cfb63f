//! Feed, message sender, WindowPoSt and WinningPoSt on the embedded chain: power comes, stays, and wins a block.

use crate::support::devnet::*;
use async_trait::async_trait;
use bulkhead::actors::daemon_link::pool::Pool;
use bulkhead::actors::daemon_link::settings::LinkSettings;
use bulkhead::actors::daemon_link::{HeadFeed, Subscribers};
use bulkhead::actors::message_sender::{MessageSender, NodeWallet, SenderDeps, SenderSettings};
use bulkhead::actors::sector_files::{SectorFiles, SectorPaths};
use bulkhead::actors::sector_reads::{Answers, ReadRequest, SectorRead, SectorReader};
use bulkhead::actors::window_post::messages::{WindowPostInfo, WindowPostReport};
use bulkhead::actors::window_post::settings::WindowPostSettings;
use bulkhead::actors::window_post::{WindowPost, WindowPostDeps};
use bulkhead::actors::winning_post::messages::{WinningInfo, WinningReport};
use bulkhead::actors::winning_post::settings::{Clock, WinningPostSettings};
use bulkhead::actors::winning_post::{WinningPost, WinningPostDeps};
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task};
use bulkhead::rpc::full_node::FullNode;
use bulkhead::store::Store;
use bulkhead::supervisor::*;
use fvm_shared::bigint::BigInt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Makes what the chain's scripted verifier takes for good; counts.
#[derive(Default)]
struct GoodProver {
    window_proofs: AtomicUsize,
}

#[async_trait]
impl Prover for GoodProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        match job.task {
            Task::VerifyWindowPost { proof, .. } => Ok(Output::Verified(proof == GOOD)),
            Task::PostChallenges { sectors, .. } => {
                Ok(Output::Challenges(sectors.into_iter().map(|n| (n, vec![1])).collect()))
            }
            Task::PostFromVanilla { .. } => {
                self.window_proofs.fetch_add(1, Ordering::SeqCst);
                Ok(Output::Proof(GOOD.to_vec()))
            }
            _ => Ok(Output::Proof(GOOD.to_vec())),
        }
    }
}

#[derive(Default)]
struct Files {
    gone: AtomicBool,
}

impl SectorFiles for Files {
    fn locate(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: format!("{number}").into(), cache: format!("{number}").into() }
    }
    fn locate_update(&self, number: u64) -> SectorPaths {
        self.locate(number)
    }
    fn storage_path(&self, _number: u64) -> PathBuf {
        "sectors".into()
    }
}

#[async_trait]
impl SectorReader for Files {
    async fn read(&self, request: ReadRequest, answers: &Answers) {
        for sector in request.sectors {
            let read = match self.gone.load(Ordering::SeqCst) {
                true => SectorRead::Unreadable("its file is gone".into()),
                false => SectorRead::Proof(vec![1]),
            };
            answers.send((sector.number, read)).unwrap();
        }
    }
}

/// Unix seconds, set by the test.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn unix(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

struct Provider {
    net: Net,
    tree: Tree,
    window_post: Ref<WindowPost>,
    winning_post: Ref<WinningPost>,
    prover: Arc<GoodProver>,
    files: Arc<Files>,
    clock: Arc<Hand>,
    _dir: tempfile::TempDir,
}

/// A miner with one committed sector, and its proving concerns.
async fn provider() -> Provider {
    let net = Net::start().await;
    net.seal(1).await;
    let node: Arc<dyn FullNode> = net.devnet.clone();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("bulkhead.redb")).unwrap();
    let (prover, files, clock) =
        (Arc::new(GoodProver::default()), Arc::new(Files::default()), Arc::new(Hand::default()));
    let miner = net.miner;

    let sender: Ref<MessageSender> = Ref::new("/t01000/message-sender", 256);
    let window_post: Ref<WindowPost> = Ref::new("/t01000/window-post", 256);
    let winning_post: Ref<WinningPost> = Ref::new("/t01000/winning-post", 256);
    let feed: Ref<HeadFeed> = Ref::new("/head-feed", 16);

    let window_deps = WindowPostDeps {
        miner,
        node: node.clone(),
        prover: prover.clone(),
        reader: files.clone(),
        outbox: Arc::new(sender.clone()),
        store: store.clone(),
        jobs: None,
        // The test's epochs last milliseconds.
        settings: WindowPostSettings {
            retry_first: Duration::from_millis(1),
            retry_cap: Duration::from_millis(5),
            ..Default::default()
        },
    };
    let winning_deps = WinningPostDeps {
        miner,
        node: node.clone(),
        prover: prover.clone(),
        files: files.clone(),
        store: store.clone(),
        clock: clock.clone(),
        settings: WinningPostSettings { propagation: Some(Duration::ZERO), ..Default::default() },
    };
    let settings = LinkSettings { network: Some(net.settings.network_name.clone()), ..Default::default() };
    let pool = Pool::new(vec![node.clone()], &settings);
    let heads = [sender.recipient(), window_post.recipient(), winning_post.recipient()];
    let heads: Subscribers = Arc::new(move || heads.to_vec());
    let sender_deps = move || SenderDeps {
        node: node.clone(),
        wallet: Arc::new(NodeWallet(node.clone())),
        store: store.clone(),
        miner,
        settings: SenderSettings::default(),
    };
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .intensity(100_000, Duration::from_secs(60))
        .child(ChildSpec::actor("message_sender", &sender, move |cx| MessageSender::start(cx, sender_deps())))
        .child(ChildSpec::actor("window_post", &window_post, move |cx| WindowPost::start(cx, window_deps.clone())))
        .child(ChildSpec::actor("winning_post", &winning_post, move |cx| WinningPost::start(cx, winning_deps.clone())))
        .child(ChildSpec::actor("head_feed", &feed, move |cx| {
            HeadFeed::start(cx, pool.clone(), heads.clone(), settings.clone())
        }));
    let tree = Tree::start(root).unwrap();
    Provider { net, tree, window_post, winning_post, prover, files, clock, _dir: dir }
}

impl Provider {
    /// Ends an actor; returns once its next incarnation runs.
    async fn kill(&self, path: &str) {
        let before = self.tree.info(path).unwrap().incarnation;
        assert!(self.tree.kill(path));
        while self.tree.info(path).unwrap().incarnation == before {
            tokio::task::yield_now().await;
        }
    }

    /// One more block; returns when WindowPoSt has seen the head and no attempt of it is under way.
    async fn step(&self) -> WindowPostReport {
        let head = self.net.devnet.chain_head().await.unwrap();
        // So that a round on the new head is due at once.
        let then = head.blocks[0].timestamp + 20;
        self.clock.0.store(then, Ordering::SeqCst);
        self.net.devnet.set_time(then * 1000);
        self.net.step().await;
        let seen = async {
            loop {
                let head = self.net.devnet.chain_head().await.unwrap().height;
                let report = self.window_post.ask(WindowPostInfo, SOON).await;
                let idle = |r: &WindowPostReport| {
                    let batches = || r.deadlines.iter().flat_map(|d| &d.batches);
                    batches().all(|b| b.phase != "proving") && r.deadlines.iter().all(|d| !d.planning)
                };
                match report {
                    Ok(report) if report.height == Some(head) && idle(&report) => return report,
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(SOON, seen).await.expect("WindowPoSt keeps up with the chain")
    }

    async fn until(&self, what: &str, done: impl Fn(&WindowPostReport, &BigInt) -> bool) -> WindowPostReport {
        for _ in 0..400 {
            let report = self.step().await;
            if done(&report, &self.net.power().await) {
                return report;
            }
        }
        panic!("never {what}: {:?}", self.window_post.ask(WindowPostInfo, SOON).await.ok());
    }
}

fn phases(report: &WindowPostReport, phase: &str) -> usize {
    report.deadlines.iter().flat_map(|d| &d.batches).filter(|b| b.phase == phase).count()
}

#[tokio::test]
async fn window_proofs_give_power_and_keep_it() {
    let p = provider().await;
    p.until("with power", |_, power| *power == BigInt::from(2048)).await;
    // Two more periods: every window is proven once, none is missed.
    let report = p.until("landed thrice", |report, _| phases(report, "landed") >= 3).await;
    assert_eq!(phases(&report, "missed"), 0, "{report:#?}");
    assert_eq!(p.net.power().await, BigInt::from(2048));
    let made = p.prover.window_proofs.load(Ordering::SeqCst);
    let landed = phases(&report, "landed");
    assert!(made <= landed + 1, "{made} proofs for {landed} windows");
    p.tree.shutdown().await;
}

#[tokio::test]
async fn lost_files_cost_the_power_and_their_return_brings_it_back() {
    let p = provider().await;
    p.until("with power", |_, power| *power == BigInt::from(2048)).await;
    p.files.gone.store(true, Ordering::SeqCst);
    p.until("faulty", |report, power| *power == BigInt::from(0) && phases(report, "missed") >= 1).await;
    p.files.gone.store(false, Ordering::SeqCst);
    p.until("recovered", |_, power| *power == BigInt::from(2048)).await;
    p.tree.shutdown().await;
}

#[tokio::test]
async fn a_provider_with_power_wins_a_block_that_the_chain_takes() {
    let p = provider().await;
    p.until("with power", |_, power| *power == BigInt::from(2048)).await;
    let mut last = WinningReport::default();
    for _ in 0..200 {
        p.step().await;
        last = p.winning_post.ask(WinningInfo, SOON).await.unwrap();
        if last.blocks_on_chain > 0 {
            break;
        }
        // Let the round end before the chain moves on.
        while last.running.is_some() {
            tokio::task::yield_now().await;
            last = p.winning_post.ask(WinningInfo, SOON).await.unwrap();
        }
    }
    assert!(last.blocks_on_chain > 0, "{last:#?}");
    p.tree.shutdown().await;
}

#[tokio::test]
async fn kills_at_every_head_cost_no_window() {
    let p = provider().await;
    p.until("with power", |_, power| *power == BigInt::from(2048)).await;
    let victims = ["root/window_post", "root/message_sender", "root/head_feed"];
    let mut landed = 0;
    for turn in 0..400 {
        p.kill(victims[turn % 3]).await;
        let report = p.step().await;
        assert_eq!(phases(&report, "missed"), 0, "{report:#?}");
        landed = phases(&report, "landed");
        if landed >= 3 {
            break;
        }
    }
    assert!(landed >= 3, "{landed} windows landed");
    assert_eq!(p.net.power().await, BigInt::from(2048));
    p.tree.shutdown().await;
}

#[tokio::test]
async fn reorganisations_cost_no_window() {
    let p = provider().await;
    p.until("with power", |_, power| *power == BigInt::from(2048)).await;
    let mut landed = 0;
    for turn in 1..400u64 {
        // In the middle of a window: a message that is taken back just before Close cannot land again.
        let di = p.net.deadline().await;
        if (4..=5).contains(&(di.current_epoch - di.open)) {
            p.net.devnet.reorg(1 + turn % 3).unwrap();
        }
        let report = p.step().await;
        assert_eq!(phases(&report, "missed"), 0, "{report:#?}");
        landed = phases(&report, "landed");
        if landed >= 3 {
            break;
        }
    }
    assert!(landed >= 3, "{landed} windows landed");
    p.tree.shutdown().await;
}
