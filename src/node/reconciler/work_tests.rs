//! WinningPoSt and its companion in fast finality under one lease, in a real tree: they come up together, go together, and
//! what becomes of the companion is nothing to WinningPoSt.

use super::*;
use crate::node::concern::Concern;
use crate::node::tree::leased_child;
use crate::store::Store;
use crate::supervisor::{
    Actor, ActorInfo, ChildSpec, Cx, Exit, Fence, Handler, Message, Ref, RestartBackoff, SupervisorSpec,
};

use std::sync::Mutex;

const WINNING: &str = "root/proving/winning_post";
const F3: &str = "root/finality/f3";
const SOON: Duration = Duration::from_secs(60);

/// The group that WinningPoSt restarts while it is stopped.
type OnStop = Arc<Mutex<Option<SupervisorRef>>>;

struct Main(OnStop);
impl Actor for Main {
    async fn stopping(&mut self, _cx: &Cx<Self>) {
        let finality = crate::util::lock(&self.0).take();
        if let Some(finality) = finality {
            finality.restart_child("f3").await.expect("f3 was stopped, and starts again");
        }
    }
}

struct Side;
impl Actor for Side {}

/// Whether the companion may act.
struct May;
impl Message for May {
    type Reply = bool;
}
impl Handler<May> for Side {
    async fn handle(&mut self, _: May, cx: &Cx<Self>) -> Result<bool, Exit> {
        Ok(cx.pass().check().is_ok())
    }
}
struct Panics;
impl Message for Panics {
    type Reply = ();
}
impl Handler<Panics> for Side {
    async fn handle(&mut self, _: Panics, _cx: &Cx<Self>) -> Result<(), Exit> {
        panic!("asked to")
    }
}

struct Stage {
    tree: Tree,
    cell: TreeCell,
    slot: Arc<LeaseSlot>,
    side: Ref<Side>,
    on_stop: OnStop,
    miner: Address,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.redb")).unwrap();
        let miner = Address::new_id(1000);
        let slot = Arc::new(LeaseSlot::new(Concern::WinningPost, Concern::WinningPost.path(&miner, None)));
        let (main, side, on_stop) = (Ref::new("/main", 8), Ref::new("/side", 8), OnStop::default());
        let stops = on_stop.clone();
        let main = leased_child("winning_post".into(), &slot, &main, move |_, _| {
            let main = Main(stops.clone());
            async move { Ok(main) }
        });
        let companion = leased_child("f3".into(), &slot, &side, |_, _| async { Ok(Side) });
        let group = |name: &str, child| {
            ChildSpec::supervisor(SupervisorSpec::new(name).backoff(RestartBackoff::NONE).child(child))
        };
        let root = SupervisorSpec::new("root").child(group("proving", main)).child(group("finality", companion));
        let tree = Tree::start(root).unwrap();
        let cell = TreeCell::default();
        let _ = cell.set(tree.downgrade());
        Stage { tree, cell, slot, side, on_stop, miner, store, _dir: dir }
    }

    async fn enter(&self, epoch: u64) {
        self.slot.acquired(HeldLease::sole(epoch, self.store.clone()));
        assert_eq!(enter(&self.miner, &self.cell, &self.slot).await, PhaseEvent::Entered(true));
    }

    async fn leave(&self) {
        assert_eq!(leave(&self.miner, &self.cell, &self.slot, false).await, PhaseEvent::Left);
        self.slot.vacate();
    }

    fn row(&self, path: &str) -> ActorInfo {
        self.tree.info(path).unwrap()
    }

    fn up(&self) -> [bool; 2] {
        [WINNING, F3].map(|path| self.row(path).state == ActorState::Up)
    }

    /// Whether the companion, once it is up, may act under the present hold.
    async fn may(&self) -> bool {
        self.side.ask_when_up(May, SOON).await.ok().unwrap()
    }
}

#[tokio::test]
async fn the_companion_runs_where_winning_post_is_held_and_its_panic_costs_winning_post_nothing() {
    let stage = Stage::new();
    assert_eq!(stage.up(), [false, false], "not held");
    for epoch in [5, 6] {
        stage.enter(epoch).await;
        assert!(stage.may().await && stage.up() == [true, true], "epoch {epoch}");
        let before = (stage.row(WINNING).incarnation, stage.row(F3).incarnation);
        assert!(stage.side.ask(Panics, SOON).await.is_err());
        assert!(stage.may().await, "it is up again");
        let after = (stage.row(WINNING).incarnation, stage.row(F3).incarnation);
        assert_eq!((after.0, after.1 > before.1), (before.0, true), "WinningPoSt was not restarted with it");
        stage.leave().await;
        assert_eq!(stage.up(), [false, false], "gone with the hold");
    }
}

/// Else a companion of the hold before stands there for good, and may do nothing under the next.
#[tokio::test]
async fn a_companion_that_starts_while_winning_post_is_stopped_ends_with_the_hold() {
    let stage = Stage::new();
    stage.enter(5).await;
    *crate::util::lock(&stage.on_stop) = stage.tree.supervisor("root/finality");
    stage.leave().await;
    assert!(crate::util::lock(&stage.on_stop).is_none(), "it was restarted in between");
    assert_eq!(stage.up(), [false, false]);
    stage.enter(6).await;
    assert!(stage.may().await, "the companion is the new hold's");
    stage.leave().await;
}
