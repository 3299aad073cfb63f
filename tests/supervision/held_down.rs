//! Children that are not up and end nothing: crash loops that are held down, first starts that fail, and those that
//! another process has fenced off.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Far more than a loaded machine needs.
const SOON: Duration = Duration::from_secs(60);
/// Between two tries of what is held down.
const AGAIN: Duration = Duration::from_millis(200);

struct Worker;
impl Actor for Worker {}

/// Ends with that reason.
struct End(Exit);
impl Message for End {
    type Reply = ();
}
impl Handler<End> for Worker {
    async fn handle(&mut self, End(exit): End, _: &Cx<Self>) -> Result<(), Exit> {
        Err(exit)
    }
}

struct Ping;
impl Message for Ping {
    type Reply = u64;
}
impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

fn worker(id: &str, address: &Ref<Worker>) -> ChildSpec {
    ChildSpec::actor(id, address, |_| async { Ok(Worker) })
}

/// Holds down what needs more than `restarts`.
fn holding(id: &str, restarts: u32) -> SupervisorSpec {
    SupervisorSpec::new(id)
        .backoff(RestartBackoff { first: Duration::from_millis(1), cap: AGAIN, reset_after: SOON })
        .intensity(restarts, SOON)
        .on_budget_spent(BudgetSpent::HoldDown { escalate_after: None })
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

fn row(tree: &Tree, path: &str) -> ActorInfo {
    tree.info(path).unwrap()
}

#[tokio::test]
async fn a_crash_loop_is_held_down_with_its_reason_while_everything_else_runs_on() {
    let (bad, sibling, proving) = (Ref::new("/bad", 4), Ref::new("/sibling", 4), Ref::new("/proving", 4));
    let group = holding("group", 2).strategy(Strategy::RestForOne);
    let root = SupervisorSpec::new("root")
        .intensity(0, SOON)
        .child(ChildSpec::supervisor(group.child(worker("bad", &bad)).child(worker("sibling", &sibling))))
        .child(ChildSpec::supervisor(SupervisorSpec::new("proving").child(worker("w", &proving))));
    let tree = Tree::start(root).unwrap();
    let held = || row(&tree, "root/group/bad").held;
    let mut ends = 0;
    while held().is_none() {
        let up = || Some(row(&tree, "root/group/bad")).filter(|row| row.state == ActorState::Up);
        until("it is up, or held", || held().is_some() || up().is_some()).await;
        let Some(before) = up() else { continue };
        ends += u32::from(bad.tell(End(Exit::failed("poison"))).is_ok());
        let after = |row: ActorInfo| row.incarnation > before.incarnation;
        until("the next one, or none", || held().is_some() || up().is_some_and(after)).await;
    }
    assert!(ends >= 3, "{ends}");
    let why = held().unwrap();
    assert!(why.contains("more than 2 restarts within 60s") && why.contains("failed: poison"), "{why}");
    assert_eq!(row(&tree, "root/group/bad").state, ActorState::Restarting);
    until("the sibling is up", || row(&tree, "root/group/sibling").state == ActorState::Up).await;
    let (sibling_runs, others) = (sibling.ask(Ping, SOON).await.unwrap(), proving.ask(Ping, SOON).await.unwrap());
    // Tried again, and again it crashes: the group stays, and so does whoever is beside it.
    for _ in 0..5 {
        until("another try", || row(&tree, "root/group/bad").state == ActorState::Up).await;
        assert_eq!(held(), None, "it is up");
        bad.tell(End(Exit::failed("poison"))).unwrap();
        until("it is held again", || held().is_some()).await;
    }
    assert_eq!(sibling.ask(Ping, SOON).await.unwrap(), sibling_runs);
    assert_eq!(proving.ask(Ping, SOON).await.unwrap(), others);
    assert_eq!((row(&tree, "root/group").restarts, tree.ended()), (0, None));
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_first_start_that_may_fail_leaves_its_reason_in_the_tree_until_it_works() {
    let (late, last) = (Ref::new("/late", 4), Ref::new("/last", 4));
    let repaired = Arc::new(AtomicBool::new(false));
    let works = repaired.clone();
    let start = move |_| {
        let works = works.load(Ordering::Relaxed);
        async move { if works { Ok(Worker) } else { Err(StartError("the key is damaged".into())) } }
    };
    let group = holding("group", 3).child(ChildSpec::actor("late", &late, start).may_start_later());
    let root =
        SupervisorSpec::new("root").intensity(0, SOON).child(ChildSpec::supervisor(group)).child(worker("last", &last));
    let tree = Tree::start(root).expect("a start without it");
    assert_eq!(last.ask(Ping, SOON).await.unwrap(), 1);
    until("it is held", || row(&tree, "root/group/late").held.is_some()).await;
    let down = row(&tree, "root/group/late");
    assert_eq!(down.state, ActorState::Restarting);
    assert!(down.held.as_ref().is_some_and(|why| why.contains("the key is damaged")), "{:?}", down.held);
    assert!(matches!(late.tell(Ping), Err(CallError::Restarting(_))));
    repaired.store(true, Ordering::Relaxed);
    until("it is up", || row(&tree, "root/group/late").state == ActorState::Up).await;
    assert_eq!((row(&tree, "root/group/late").held, row(&tree, "root/group").restarts), (None, 0));
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
    // One that is needed ends the start, as ever.
    let start = |_| async { Err(StartError("no".into())) };
    let needed = ChildSpec::actor("needed", &Ref::<Worker>::new("/needed", 4), start);
    let refused = Tree::start(holding("root", 3).child(needed)).err().unwrap();
    assert_eq!(refused.to_string(), "root/needed did not start: no");
}

/// A right that another process can take.
struct Lease(AtomicBool);
impl EpochSource for Lease {
    fn epoch_base(&self) -> u64 {
        0
    }
    fn holds(&self, _: u64) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[tokio::test]
async fn being_fenced_off_spends_no_budget_and_waits_for_a_decision() {
    let (a, b) = (Ref::new("/a", 4), Ref::new("/b", 4));
    let lease = Arc::new(Lease(AtomicBool::new(true)));
    // Not one restart may be needed, here or above.
    let group = SupervisorSpec::new("group")
        .intensity(0, SOON)
        .child(worker("a", &a).under(lease.clone()))
        .child(worker("b", &b));
    let tree = Tree::start(SupervisorSpec::new("root").intensity(0, SOON).child(ChildSpec::supervisor(group))).unwrap();
    let group = tree.supervisor("root/group").unwrap();
    let held = || row(&tree, "root/group/a").held;
    let stands_by = |why: &str| {
        let held = held().unwrap_or_default();
        assert!(held.starts_with("stands by, fenced off") && held.contains(why), "{held}");
        let exit = row(&tree, "root/group/a").last_exit;
        assert!(matches!(&exit, Some(Exit::Fenced(text)) if text.contains(why)), "{exit:?}");
    };
    // It says so itself, from what a store answered.
    a.tell(End(Exit::Fenced("epoch 8 has it".into()))).unwrap();
    until("it stands by", || held().is_some()).await;
    stands_by("epoch 8 has it");
    group.restart_child("a").await.unwrap();
    // It does not know, and its tenure has ended.
    lease.0.store(false, Ordering::Release);
    a.tell(End(Exit::failed("a write was refused"))).unwrap();
    until("it stands by", || held().is_some()).await;
    stands_by("a write was refused");
    assert_eq!(b.ask(Ping, SOON).await.unwrap(), 1, "nobody else is touched");
    assert_eq!((row(&tree, "root/group").restart_budget_used, tree.ended()), (Some(0), None));
    // Whoever decides ends it.
    group.try_terminate_child("a").await.unwrap();
    assert_eq!((held(), row(&tree, "root/group/a").state), (None, ActorState::Stopped));
    // A panic is a fault, whoever holds the lease.
    group.restart_child("a").await.unwrap();
    a.tell(End(Exit::Panicked("x".into()))).unwrap();
    assert!(matches!(tree.wait().await, Exit::ShutdownWith(why) if why.starts_with("restart budget spent")));
}

#[test]
fn another_node_of_an_older_version_can_read_the_exit() {
    assert_eq!(Exit::Fenced("x".into()).on_the_wire(), Exit::ShutdownWith("fenced off: x".into()));
    for exit in [Exit::Normal, Exit::NodeDown, Exit::Failed("x".into())] {
        assert_eq!(exit.clone().on_the_wire(), exit);
    }
}
