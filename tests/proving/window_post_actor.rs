//! The WindowPoSt actor in a tree: a panic costs one attempt, a restart costs no second proof, a window ends landed.

use crate::support::scripted::*;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::window_post::batch::PostStatus;
use bulkhead::actors::window_post::messages::{WindowPostInfo, WindowPostReport};
use bulkhead::actors::window_post::settings::WindowPostSettings;
use bulkhead::actors::window_post::{WindowPost, WindowPostDeps};
use bulkhead::chain::{Address, ChainEpoch};
use bulkhead::proofs::{Output, ProverError, Task};
use bulkhead::store::Store;
use bulkhead::supervisor::*;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct House {
    tree: Tree,
    window_post: Ref<WindowPost>,
    node: Arc<ScriptedNode>,
    prover: Arc<ScriptedProver>,
    outbox: Arc<ScriptedOutbox>,
    _dir: tempfile::TempDir,
}

fn house(configure: impl FnOnce(&ScriptedNode, &ScriptedProver)) -> House {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(ScriptedNode::default());
    *node.deadline.lock().unwrap() = Some(mainnet());
    *node.partitions.lock().unwrap() = Some(vec![partition(&[1, 2], &[], &[])]);
    let (prover, outbox) = (Arc::new(ScriptedProver::default()), Arc::new(ScriptedOutbox::default()));
    configure(&node, &prover);
    let deps = WindowPostDeps {
        miner: Address::new_id(1000),
        node: node.clone(),
        prover: prover.clone(),
        reader: Arc::new(ScriptedFiles::default()),
        outbox: outbox.clone(),
        store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(),
        jobs: None,
        settings: WindowPostSettings { retry_first: Duration::from_millis(1), ..Default::default() },
    };
    let window_post = Ref::new("/t01000/window-post", 64);
    let child = ChildSpec::actor("window_post", &window_post, move |cx| WindowPost::start(cx, deps.clone()));
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child);
    House { tree: Tree::start(root).unwrap(), window_post, node, prover, outbox, _dir: dir }
}

impl House {
    /// Returns once the next incarnation runs.
    async fn kill(&self) {
        assert!(self.tree.kill("root/window_post"));
        while self.tree.info("root/window_post").unwrap().incarnation != 2 {
            tokio::task::yield_now().await;
        }
    }
    /// The node's head, and the feed's word of it.
    async fn head(&self, height: ChainEpoch) {
        self.head_among(0, height).await;
    }
    /// The same, with that many blocks of others in it.
    async fn head_among(&self, others: u64, height: ChainEpoch) {
        let tipset = among(others, tipset(&format!("a{height}"), height, &format!("a{}", height - 1)));
        *self.node.head.lock().unwrap() = Some(tipset.clone());
        let update = HeadUpdate { tipset: Arc::new(tipset), reverted_to: None };
        let mut told = self.window_post.tell(update);
        while let Err(CallError::Restarting(update) | CallError::NotRunning(update)) = told {
            tokio::task::yield_now().await;
            told = self.window_post.tell(update);
        }
        told.unwrap();
    }
    /// The phase of deadline 0's batch, once it is that.
    async fn until(&self, phase: &str) -> WindowPostReport {
        let wait = async {
            loop {
                if let Ok(report) = self.window_post.ask(WindowPostInfo, SOON).await
                    && report.deadlines.first().is_some_and(|d| d.batches.iter().any(|b| b.phase == phase))
                {
                    return report;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never {phase}"))
    }
    fn proofs(&self) -> usize {
        let jobs = self.prover.jobs.lock().unwrap();
        jobs.iter().filter(|job| matches!(job.task, Task::PostFromVanilla { .. })).count()
    }
    fn landed(&self, at: ChainEpoch) {
        let key = self.outbox.sent.lock().unwrap()[0].key.clone();
        self.outbox.status.lock().unwrap().insert(key, PostStatus::Landed { at });
    }
}

#[tokio::test]
async fn a_window_from_challenge_to_landed() {
    let h = house(|_, _| {});
    h.head(1).await;
    h.until("proved").await;
    h.head(3).await;
    h.until("proved").await;
    assert!(h.outbox.sent.lock().unwrap().is_empty(), "not before Open + 4");
    h.head(4).await;
    let report = h.until("submitting").await;
    assert_eq!(report.deadlines[0].batches[0].message.as_deref(), Some("wdpost-t01000-0-p0-1"));
    let mut height = 4;
    while h.outbox.sent.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    h.landed(5);
    let landed = loop {
        height += 1;
        h.head(height).await;
        let report = h.window_post.ask(WindowPostInfo, SOON).await.unwrap();
        if report.deadlines[0].batches[0].phase == "landed" {
            break report;
        }
        assert!(height < 50_000, "never landed");
    };
    assert_eq!(landed.deadlines[0].batches[0].landed_at, Some(5));
    assert_eq!(h.outbox.sent.lock().unwrap().iter().filter(|m| m.key.contains("-0-p0-")).count(), 1);
    h.tree.shutdown().await;
}

#[tokio::test]
async fn a_panic_and_a_crashed_prover_cost_an_attempt_each() {
    let h = house(|node, prover| {
        // The first read of partitions is the plan.
        *node.panics_with.lock().unwrap() = Some("a bug in the plan".into());
        prover.script.lock().unwrap().push_back(Err(ProverError::Segfault { task: "WindowPoSt".into() }));
    });
    h.head(1).await;
    let report = h.until("proved").await;
    assert_eq!(report.deadlines[0].batches[0].attempt, 2);
    assert_eq!(h.proofs(), 2);
    let info = h.tree.info("root/window_post").unwrap();
    assert_eq!((info.incarnation, info.restarts), (1, 0), "the actor lives through all of it");
    h.tree.shutdown().await;
}

#[tokio::test]
async fn a_restart_does_not_prove_twice() {
    let h = house(|_, _| {});
    h.head(1).await;
    h.until("proved").await;
    h.kill().await;
    h.head(2).await;
    h.until("proved").await;
    h.head(5).await;
    h.until("submitting").await;
    assert_eq!(h.proofs(), 1);
    assert_eq!(h.tree.info("root/window_post").unwrap().restarts, 1);
    h.tree.shutdown().await;
}

#[tokio::test]
async fn sectors_that_cannot_be_read_leave_the_proof() {
    let h = house(|_, prover| prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![1]))));
    h.head(1).await;
    h.until("proved").await;
    assert_eq!(h.prover.proven(), [2]);
    h.tree.shutdown().await;
}

/// As on the main network: five blocks an epoch that come one after another, each a new head; and an upgrade's epoch, at
/// which the node computes nothing for a caller.
#[tokio::test]
async fn heads_that_grow_and_refusals_for_the_moment_cost_no_second_proof() {
    let h = house(|node, _| {
        let refused = ["state_miner_partitions", "state_miner_sectors", "state_get_randomness_from_beacon"];
        *node.not_now.lock().unwrap() = refused.map(|method| (method, 2)).into();
    });
    let mut height = 0;
    while h.proofs() == 0 {
        assert!(height < 50_000, "never proven");
        height += 1;
        for others in 0..5 {
            h.head_among(others, height.min(3)).await;
        }
        h.window_post.ask(WindowPostInfo, SOON).await.unwrap();
    }
    h.until("proved").await;
    for others in 0..5 {
        h.head_among(others, 5).await;
    }
    h.until("submitting").await;
    assert_eq!(h.proofs(), 1);
    assert_eq!(h.prover.proven(), [1, 2], "and no sector is left out");
    assert!(h.node.not_now.lock().unwrap().values().all(|left| *left == 0));
    h.tree.shutdown().await;
}
