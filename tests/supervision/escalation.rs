//! A spent restart budget goes up the tree, and out of it at the root; dynamic children.

use bulkhead::supervisor::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Worker;
impl Actor for Worker {}
struct Crash;
impl Message for Crash {
    type Reply = ();
}
struct Ping;
impl Message for Ping {
    type Reply = u64;
}
impl Handler<Crash> for Worker {
    async fn handle(&mut self, _: Crash, _: &Cx<Self>) -> Result<(), Exit> {
        Err(Exit::failed("told to"))
    }
}
impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

fn worker(id: &str, address: &Ref<Worker>) -> ChildSpec {
    ChildSpec::actor(id, address, |_| async { Ok(Worker) })
}
fn strict(id: &str, intensity: u32) -> SupervisorSpec {
    SupervisorSpec::new(id).backoff(RestartBackoff::NONE).intensity(intensity, Duration::from_secs(3600))
}

async fn ping(address: &Ref<Worker>, after: u64) -> u64 {
    tokio::time::timeout(SOON, async {
        loop {
            match address.ask(Ping, SOON).await {
                Ok(n) if n > after => return n,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("an incarnation that answers")
}

#[tokio::test]
async fn a_spent_budget_restarts_the_subtree_and_then_ends_the_tree() {
    let (a, b, out) = (Ref::new("/a", 4), Ref::new("/b", 4), Ref::new("/out", 4));
    let inner = strict("inner", 1).child(worker("a", &a)).child(worker("b", &b));
    let root = strict("root", 1).child(worker("out", &out)).child(ChildSpec::supervisor(inner));
    let tree = Tree::start(root).unwrap();
    a.ask(Crash, SOON).await.unwrap_err();
    assert_eq!(ping(&a, 1).await, 2);
    assert_eq!(ping(&b, 0).await, 1, "one_for_one");
    a.ask(Crash, SOON).await.unwrap_err();
    // The second crash is one too many: inner ends, root starts it anew, with all its children.
    assert_eq!((ping(&a, 2).await, ping(&b, 1).await, ping(&out, 0).await), (3, 2, 1));
    let inner = tree.info("root/inner").unwrap();
    assert_eq!((inner.incarnation, inner.restarts, inner.restart_budget_used), (2, 1, Some(0)), "a new budget");
    assert!(matches!(inner.last_exit, Some(Exit::ShutdownWith(why)) if why.contains("restart budget spent")));
    assert_eq!(tree.info("root").unwrap().restart_budget_used, Some(1));
    assert!(tree.ended().is_none());
    for n in [3, 4] {
        a.ask(Crash, SOON).await.unwrap_err();
        if n == 3 {
            ping(&a, n).await;
        }
    }
    match tokio::time::timeout(SOON, tree.wait()).await.unwrap() {
        Exit::ShutdownWith(why) => assert!(why.contains("last inner"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(out.tell(Ping), Err(CallError::NotRunning(Ping))));
    assert!(tree.snapshot().iter().all(|row| row.state == ActorState::Stopped));
}

#[tokio::test]
async fn one_for_all_replaces_every_sibling() {
    let (a, b) = (Ref::new("/a", 4), Ref::new("/b", 4));
    let root = strict("root", 3).strategy(Strategy::OneForAll).child(worker("a", &a)).child(worker("b", &b));
    let tree = Tree::start(root).unwrap();
    b.ask(Crash, SOON).await.unwrap_err();
    assert_eq!((ping(&a, 1).await, ping(&b, 1).await), (2, 2));
    tree.shutdown().await;
}

#[tokio::test]
async fn dynamic_children_come_go_and_are_bounded() {
    let root = SupervisorSpec::new("root").child(ChildSpec::supervisor(strict("jobs", 5).dynamic(2)));
    let tree = Tree::start(root).unwrap();
    let jobs = tree.supervisor("root/jobs").unwrap();
    assert!(tree.supervisor("root/nobody").is_none());
    let refs: Vec<Ref<Worker>> = (0..3).map(|n| Ref::new(format!("/job/{n}"), 4)).collect();
    jobs.start_child(worker("0", &refs[0])).await.unwrap();
    assert_eq!(ping(&refs[0], 0).await, 1);
    assert!(jobs.try_start_child(worker("0", &refs[1])).await == Err(AdminError::AlreadyStarted));
    let twice = jobs.start_child(worker("x", &refs[0])).await.unwrap_err();
    assert!(twice.0.contains("address"), "{twice}");
    jobs.start_child(worker("1", &refs[1])).await.unwrap();
    assert_eq!(jobs.try_start_child(worker("2", &refs[2])).await, Err(AdminError::MaxChildren));
    let counts = jobs.count_children().await.unwrap();
    assert_eq!((counts.specs, counts.active, counts.supervisors, counts.workers), (1, 2, 0, 2));
    refs[1].ask(Crash, SOON).await.unwrap_err();
    assert_eq!(ping(&refs[1], 1).await, 2, "dynamic children are restarted by the same rules");
    jobs.terminate_child("0").await.unwrap();
    assert!(matches!(refs[0].tell(Ping), Err(CallError::NotRunning(_))));
    assert!(tree.info("root/jobs/0").is_none());
    assert_eq!(jobs.try_terminate_child("0").await, Err(AdminError::NotFound));
    // The address is free again, and its epochs go on where they were.
    jobs.start_child(worker("again", &refs[0])).await.unwrap();
    assert_eq!(ping(&refs[0], 0).await, 2);
    let bad = ChildSpec::actor("bad", &refs[2], |_| async { Err(StartError("no".into())) });
    jobs.terminate_child("1").await.unwrap();
    assert_eq!(jobs.start_child(bad).await.unwrap_err().0, "no");
    assert_eq!(jobs.which_children().await.unwrap(), [("again".to_string(), Some(true))]);
    tree.shutdown().await;
    assert_eq!(jobs.count_children().await, Err(AdminError::NoSupervisor));
}

#[tokio::test]
async fn a_tree_of_many_children_starts_and_stops() {
    let root = SupervisorSpec::new("root").child(ChildSpec::supervisor(strict("jobs", 5).dynamic(2_000)));
    let tree = Tree::start(root).unwrap();
    let jobs = tree.supervisor("root/jobs").unwrap();
    let starts = (0..2_000).map(|n| {
        let jobs = jobs.clone();
        async move { jobs.start_child(worker(&n.to_string(), &Ref::new(format!("/job/{n}"), 1))).await }
    });
    assert!(futures::future::join_all(starts).await.iter().all(Result::is_ok));
    assert_eq!(tree.snapshot().len(), 2_002);
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

/// A right that cannot be looked up.
struct Broken;
impl EpochSource for Broken {
    fn epoch_base(&self) -> u64 {
        panic!("on purpose")
    }
    fn holds(&self, _: u64) -> bool {
        true
    }
}

#[tokio::test]
async fn a_panic_inside_a_supervisor_is_its_end_and_the_one_above_restarts_it() {
    let root = strict("root", 1).child(ChildSpec::supervisor(strict("inner", 1).dynamic(4)));
    let tree = Tree::start(root).unwrap();
    let inner = tree.supervisor("root/inner").unwrap();
    let (a, orphan) = (Ref::new("/a", 4), Ref::new("/orphan", 4));
    inner.start_child(worker("orphan", &orphan)).await.unwrap();
    let under_broken = worker("a", &a).under(std::sync::Arc::new(Broken));
    // What panics is carried out on the caller's own thread, and yet is not its panic.
    assert!(matches!(inner.try_start_child(under_broken).await, Err(AdminError::NoSupervisor)));
    let b = Ref::new("/b", 4);
    tokio::time::timeout(SOON, async {
        while inner.start_child(worker("b", &b)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the next incarnation");
    assert_eq!(b.ask(Ping, SOON).await.unwrap(), 1);
    let last = tree.info("root/inner").unwrap().last_exit;
    assert!(matches!(&last, Some(Exit::Panicked(what)) if what.starts_with("on purpose")), "{last:?}");
    let over = async { while orphan.ask(Ping, SOON).await.is_ok() {} };
    tokio::time::timeout(SOON, over).await.expect("nothing runs on without its supervisor");
    tree.shutdown().await;
}
