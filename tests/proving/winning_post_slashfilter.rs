//! Two blocks at one epoch are a fault: the second is refused, also by the incarnation after a kill.

use crate::support::scripted::*;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::winning_post::messages::{RoundOutcome, WinningInfo, WinningReport};
use bulkhead::actors::winning_post::settings::{TokioClock, WinningPostSettings};
use bulkhead::actors::winning_post::{WinningPost, WinningPostDeps};
use bulkhead::chain::types::{MiningBaseInfo, TipSet};
use bulkhead::chain::{Address, ChainEpoch};
use bulkhead::store::Store;
use bulkhead::supervisor::*;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct House {
    tree: Tree,
    winning_post: Ref<WinningPost>,
    node: Arc<ScriptedNode>,
    prover: Arc<ScriptedProver>,
    _dir: tempfile::TempDir,
}

/// The clock stands a moment before the time of epoch 11.
fn house() -> House {
    house_at(1_000_330_000 - 20)
}

/// The clock's milliseconds; epoch 11 is at 1,000,330 s.
fn house_at(began: u64) -> House {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(ScriptedNode::default());
    *node.base_info.lock().unwrap() = Some(MiningBaseInfo { beacon_entries: vec![], ..base_info(1_000_000) });
    let (began, prover) = (Duration::from_millis(began), Arc::new(ScriptedProver::default()));
    let deps = WinningPostDeps {
        miner: Address::new_id(1000),
        node: node.clone(),
        prover: prover.clone(),
        files: Arc::new(ScriptedFiles::default()),
        store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(),
        clock: Arc::new(TokioClock { began, at: tokio::time::Instant::now() }),
        settings: WinningPostSettings::default(),
    };
    let winning_post = Ref::new("/t01000/winning-post", 64);
    let child = ChildSpec::actor("winning_post", &winning_post, move |cx| WinningPost::start(cx, deps.clone()));
    let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child)).unwrap();
    House { tree, winning_post, node, prover, _dir: dir }
}

impl House {
    /// Returns once the next incarnation runs.
    async fn kill(&self) {
        assert!(self.tree.kill("root/winning_post"));
        while self.tree.info("root/winning_post").unwrap().incarnation != 2 {
            tokio::task::yield_now().await;
        }
    }
    async fn head(&self, tipset: TipSet) {
        let mut told = self.winning_post.tell(HeadUpdate { tipset: Arc::new(tipset), reverted_to: None });
        while let Err(CallError::Restarting(update) | CallError::NotRunning(update)) = told {
            tokio::task::yield_now().await;
            told = self.winning_post.tell(update);
        }
        told.unwrap();
    }
    async fn until(&self, what: impl Fn(&WinningReport) -> bool) -> WinningReport {
        let wait = async {
            loop {
                match self.winning_post.ask(WinningInfo, SOON).await {
                    Ok(report) if what(&report) => return report,
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the report that was waited for")
    }
    /// Waits for something that the doubles show.
    async fn reaches(&self, what: &str, is: impl Fn(&House) -> bool) {
        let wait = async {
            while !is(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }
    fn submitted(&self) -> Vec<ChainEpoch> {
        self.node.submitted.lock().unwrap().iter().map(|block| block.header.height).collect()
    }
}

fn won(report: &WinningReport) -> bool {
    report.rounds.last().is_some_and(|round| matches!(round.outcome, RoundOutcome::Won { .. }))
}

fn refused(report: &WinningReport) -> Option<String> {
    match &report.rounds.last()?.outcome {
        RoundOutcome::Refused { why } => Some(why.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_block_is_won_and_seen_on_chain() {
    let h = house();
    h.head(tipset("a10", 10, "a9")).await;
    let report = h.until(won).await;
    assert_eq!((report.blocks_accepted, report.blocks_on_chain), (1, 0));
    let mut ours = tipset("ours", 11, "a10");
    ours.blocks[0].miner = Address::new_id(1000);
    h.head(ours).await;
    let report = h.until(|report| report.blocks_on_chain == 1).await;
    assert_eq!(report.blocks_accepted, 1);
    let RoundOutcome::Won { cid, .. } = &report.rounds[0].outcome else { panic!("{report:?}") };
    assert_eq!(cid.as_deref(), Some(crate::support::scripted::cid("ours").to_string().as_str()));
    h.tree.shutdown().await;
}

#[tokio::test]
async fn no_second_block_at_an_epoch_before_and_after_a_kill() {
    let h = house();
    h.head(tipset("a10", 10, "a9")).await;
    h.until(won).await;
    assert_eq!(h.submitted(), [11]);

    h.kill().await;
    // The chain has another tipset at epoch 10: another block for epoch 11 would come of it.
    h.head(tipset("b10", 10, "a9")).await;
    let report = h.until(|report| refused(report).is_some()).await;
    assert!(refused(&report).unwrap().contains("double-fork"), "{report:?}");
    assert_eq!(report.blocks_accepted, 1, "counted over restarts");

    // Nor one on a parent of epoch 11 that leaves ours out.
    let mut others = tipset("c11", 11, "b10");
    others.blocks[0].timestamp -= 30; // its round is due now
    h.head(others).await;
    let grinding = |report: &WinningReport| refused(report).is_some_and(|why| why.contains("parent-grinding"));
    h.until(grinding).await;
    assert_eq!(h.submitted(), [11]);
    h.tree.shutdown().await;
}

/// A head of the round's own height, of another miner.
fn theirs() -> TipSet {
    tipset("theirs", 11, "a10")
}

fn late(report: &WinningReport) -> bool {
    report.rounds.iter().any(|round| matches!(round.outcome, RoundOutcome::Late { .. }))
}

/// As Lotus does: blocks are taken until the propagation delay is over.
#[tokio::test]
async fn a_finished_block_is_sent_although_a_head_of_its_height_came_first() {
    let h = house_at(1_000_330_000 - 400);
    h.head(tipset("a10", 10, "a9")).await;
    h.reaches("the block is made", |h| h.node.count("miner_create_block") == 1).await;
    h.head(theirs()).await;
    let report = h.until(won).await;
    assert_eq!((h.submitted(), late(&report)), (vec![11], false), "{report:?}");
    h.tree.shutdown().await;
}

#[tokio::test]
async fn a_proof_goes_on_beside_a_head_of_its_height() {
    let h = house();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *h.prover.gate.lock().unwrap() = Some(gate.clone());
    h.head(tipset("a10", 10, "a9")).await;
    h.reaches("the proof", |h| h.prover.jobs.lock().unwrap().len() == 1).await;
    h.head(theirs()).await;
    // Once the head is handled, another message is answered.
    h.until(|report| report.running == Some(11)).await;
    gate.add_permits(1);
    h.until(won).await;
    assert_eq!(h.submitted(), [11]);
    h.tree.shutdown().await;
}

#[tokio::test]
async fn an_abandoned_round_leaves_its_prover_alive_and_its_proof_to_whoever_needs_the_same() {
    let h = house();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *h.prover.gate.lock().unwrap() = Some(gate.clone());
    h.head(tipset("a10", 10, "a9")).await;
    h.reaches("the proof", |h| h.prover.jobs.lock().unwrap().len() == 1).await;
    // Its base is replaced: the round is made anew on the other, with the proof that is under way.
    h.head(tipset("b10", 10, "a9")).await;
    h.until(late).await;
    h.reaches("another round", |h| h.node.count("miner_get_base_info") == 2).await;
    gate.add_permits(1);
    h.until(won).await;
    let proofs = h.prover.jobs.lock().unwrap().len();
    assert_eq!((proofs, h.prover.dropped.load(std::sync::atomic::Ordering::SeqCst)), (1, 0));
    assert_eq!(h.node.submitted.lock().unwrap()[0].header.parents, [cid("b10")]);
    h.tree.shutdown().await;
}

/// Restarted at 0, in sync, or hung: a base as old as that is nobody's.
#[tokio::test]
async fn a_head_that_lags_the_clock_is_not_mined_on() {
    let h = house_at(1_000_331_000 + 600_000);
    h.head(tipset("a10", 10, "a9")).await;
    let trouble = |h: &House| h.tree.info("root/winning_post").unwrap().trouble;
    h.reaches("it to be said", |h| trouble(h).is_some_and(|why| why.contains("lags the clock"))).await;
    assert_eq!(h.node.count("miner_get_base_info"), 0);
    // In sync: epoch 30 is at 1,000,900 s.
    h.head(tipset("a30", 30, "a29")).await;
    h.until(won).await;
    assert_eq!((h.submitted(), trouble(&h)), (vec![31], None));
    h.tree.shutdown().await;
}

/// Killed wherever it waits: at most one block of an epoch ever reaches the node.
#[tokio::test]
async fn killed_at_any_point_it_never_sends_two_blocks_of_one_epoch() {
    // Where it hangs when it is killed, and whether the next incarnation may still make the block.
    let points = [
        ("miner_get_base_info", true),
        ("wallet_sign", true),
        ("proof", true),
        ("mpool_select", true),
        ("miner_create_block", true),
        ("sync_submit_block", false),
        ("submitted", false),
    ];
    for (point, again) in points {
        let h = house();
        match point {
            "proof" => *h.prover.gate.lock().unwrap() = Some(Arc::new(tokio::sync::Semaphore::new(0))),
            method => drop(h.node.hangs.lock().unwrap().insert(method)),
        }
        h.head(tipset("a10", 10, "a9")).await;
        let reached = |h: &House| match point {
            "proof" => h.prover.jobs.lock().unwrap().len() == 1,
            method => h.node.count(method) > 0,
        };
        h.reaches(point, reached).await;
        h.kill().await;
        *h.prover.gate.lock().unwrap() = None;
        h.node.hangs.lock().unwrap().clear();
        h.head(tipset("b10", 10, "a9")).await;
        let report = h.until(|report| won(report) || refused(report).is_some()).await;
        assert_eq!(won(&report), again, "killed at {point}: {report:?}");
        let submitted = h.submitted();
        assert!(submitted.len() <= 1, "killed at {point}: blocks of epochs {submitted:?}");
        h.tree.shutdown().await;
    }
}
