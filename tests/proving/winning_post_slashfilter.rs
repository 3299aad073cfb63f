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
    _dir: tempfile::TempDir,
}

/// The clock stands a moment before the time of epoch 11.
fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(ScriptedNode::default());
    *node.base_info.lock().unwrap() = Some(MiningBaseInfo { beacon_entries: vec![], ..base_info(1_000_000) });
    let began = Duration::from_millis(1_000_330_000 - 20);
    let deps = WinningPostDeps {
        miner: Address::new_id(1000),
        node: node.clone(),
        prover: Arc::new(ScriptedProver::default()),
        files: Arc::new(ScriptedFiles::default()),
        store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(),
        clock: Arc::new(TokioClock { began, at: tokio::time::Instant::now() }),
        settings: WinningPostSettings::default(),
    };
    let winning_post = Ref::new("/t01000/winning-post", 64);
    let child = ChildSpec::actor("winning_post", &winning_post, move |cx| WinningPost::start(cx, deps.clone()));
    let tree = Tree::start(SupervisorSpec::new("root").backoff(Backoff::NONE).child(child)).unwrap();
    House { tree, winning_post, node, _dir: dir }
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
