//! Ordered start, reverse stop, and what each kind of shutdown does to a running actor.

use bulkhead::supervisor::*;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const SOON: Duration = Duration::from_secs(20);

type Journal = Arc<Mutex<Vec<String>>>;

struct Writer {
    id: &'static str,
    journal: Journal,
    /// How long `stopping` takes.
    stop_takes: Duration,
}
impl Writer {
    fn write(&self, what: &str) {
        self.journal.lock().unwrap().push(format!("{what} {}", self.id));
    }
}
impl Actor for Writer {
    async fn started(&mut self, _: &Cx<Self>) -> Result<(), Exit> {
        tokio::task::yield_now().await;
        self.write("start");
        Ok(())
    }
    async fn stopping(&mut self, _: &Cx<Self>) {
        self.write("stopping");
        tokio::time::sleep(self.stop_takes).await;
        self.write("stopped");
    }
}
impl Drop for Writer {
    fn drop(&mut self) {
        self.write("drop");
    }
}

/// Says that it has begun, waits, then writes.
struct Work(oneshot::Sender<()>, oneshot::Receiver<()>);
impl Message for Work {
    type Reply = ();
}
impl Handler<Work> for Writer {
    async fn handle(&mut self, Work(begun, done): Work, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = begun.send(());
        let _ = done.await;
        self.write("worked");
        Ok(())
    }
}

fn child(id: &'static str, address: &Ref<Writer>, journal: &Journal, stop_takes: Duration) -> ChildSpec {
    let journal = journal.clone();
    ChildSpec::actor(id, address, move |_| {
        let journal = journal.clone();
        async move { Ok(Writer { id, journal, stop_takes }) }
    })
}
fn simple(id: &'static str, journal: &Journal) -> ChildSpec {
    child(id, &Ref::new(format!("/{id}"), 4), journal, Duration::ZERO)
}
fn lines(journal: &Journal) -> Vec<String> {
    journal.lock().unwrap().clone()
}

#[tokio::test]
async fn starts_in_order_and_stops_in_reverse_through_the_whole_tree() {
    let journal = Journal::default();
    let inner = SupervisorSpec::new("inner")
        .strategy(Strategy::RestForOne)
        .child(simple("b", &journal))
        .child(simple("c", &journal).on(Thread::Dedicated));
    let root = SupervisorSpec::new("root")
        .child(simple("a", &journal))
        .child(ChildSpec::supervisor(inner))
        .child(simple("d", &journal).on(Thread::Shared("other")));
    let tree = Tree::start(root).unwrap();
    assert_eq!(lines(&journal), ["start a", "start b", "start c", "start d"]);
    let paths: Vec<String> = tree.snapshot().into_iter().map(|row| row.path).collect();
    assert_eq!(paths, ["root", "root/a", "root/inner", "root/inner/b", "root/inner/c", "root/d"]);
    assert!(tree.snapshot().iter().all(|row| row.state == ActorState::Up));
    journal.lock().unwrap().clear();
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
    let expected: Vec<String> = ["d", "c", "b", "a"]
        .iter()
        .flat_map(|id| ["stopping", "stopped", "drop"].map(|w| format!("{w} {id}")))
        .collect();
    assert_eq!(lines(&journal), expected);
    assert!(tree.snapshot().iter().all(|row| row.state == ActorState::Stopped));
    assert_eq!(tree.shutdown().await, Exit::Shutdown, "again is the same");
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_running() {
    let journal = Journal::default();
    let bad = ChildSpec::actor("bad", &Ref::<Writer>::new("/bad", 1), |_| async { Err(StartError("no disk".into())) });
    let inner = SupervisorSpec::new("inner").child(simple("b", &journal)).child(bad);
    let root = SupervisorSpec::new("root")
        .child(simple("a", &journal))
        .child(ChildSpec::supervisor(inner))
        .child(simple("never", &journal));
    let error = Tree::start(root).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "root/inner/bad did not start: no disk");
    let log = lines(&journal);
    assert!(log.starts_with(&["start a".into(), "start b".into()]));
    assert!(log.contains(&"drop a".to_string()) && log.contains(&"drop b".to_string()));
    assert!(!log.iter().any(|line| line.contains("never")));
}

/// One actor at work when the shutdown comes: what it gets to do, by its spec.
async fn shutdown_at_work(shutdown: Shutdown, finish: bool, stop_takes: Duration) -> (Vec<String>, Duration, bool) {
    let journal = Journal::default();
    let address = Ref::new("/a", 4);
    let spec = child("a", &address, &journal, stop_takes).shutdown(shutdown);
    let tree = Tree::start(SupervisorSpec::new("root").child(spec)).unwrap();
    let (begun, seen) = oneshot::channel();
    let (done, wait) = oneshot::channel();
    let to = address.clone();
    let asked = tokio::spawn(async move { to.ask(Work(begun, wait), SOON).await });
    seen.await.unwrap();
    let at = Instant::now();
    let ending = tokio::spawn({
        let tree = tree.clone();
        async move { tree.shutdown().await }
    });
    while tree.info("root/a").is_some_and(|row| row.state == ActorState::Up) {
        tokio::task::yield_now().await;
    }
    if finish {
        let _ = done.send(());
    } else {
        std::mem::forget(done);
    }
    assert_eq!(ending.await.unwrap(), Exit::Shutdown);
    (lines(&journal), at.elapsed(), asked.await.unwrap().is_ok())
}

#[tokio::test]
async fn the_handler_in_hand_finishes_and_stopping_runs() {
    for shutdown in [Shutdown::Timeout(SOON), Shutdown::Infinity] {
        let (log, _, answered) = shutdown_at_work(shutdown, true, Duration::from_millis(20)).await;
        assert_eq!(log, ["start a", "worked a", "stopping a", "stopped a", "drop a"], "{shutdown:?}");
        assert!(answered);
    }
}

#[tokio::test]
async fn past_its_time_it_is_killed() {
    let limit = Duration::from_millis(200);
    let (log, took, answered) = shutdown_at_work(Shutdown::Timeout(limit), false, Duration::ZERO).await;
    assert_eq!(log, ["start a", "drop a"], "the handler never ended");
    assert!(took >= limit && !answered);
    let (log, took, answered) = shutdown_at_work(Shutdown::Timeout(limit), true, Duration::from_secs(3600)).await;
    assert_eq!(log, ["start a", "worked a", "stopping a", "drop a"], "stopping never ended");
    assert!(took >= limit && answered);
}

#[tokio::test]
async fn brutal_kill_asks_nobody() {
    let (log, _, answered) = shutdown_at_work(Shutdown::BrutalKill, false, Duration::ZERO).await;
    assert_eq!(log, ["start a", "drop a"]);
    assert!(!answered);
}

/// Ends itself, in order.
struct Leave;
impl Message for Leave {
    type Reply = ();
}
impl Handler<Leave> for Writer {
    async fn handle(&mut self, _: Leave, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.exit(Exit::Normal);
        Ok(())
    }
}

#[tokio::test]
async fn a_transient_actor_that_leaves_stays_away() {
    let journal = Journal::default();
    let address = Ref::new("/a", 4);
    let spec = child("a", &address, &journal, Duration::ZERO).restart(Restart::Transient);
    let tree = Tree::start(SupervisorSpec::new("root").child(spec)).unwrap();
    address.ask(Leave, SOON).await.unwrap();
    while tree.info("root/a").unwrap().state != ActorState::Stopped {
        tokio::task::yield_now().await;
    }
    assert_eq!(lines(&journal), ["start a", "stopping a", "stopped a", "drop a"]);
    assert!(matches!(address.tell(Leave), Err(CallError::NotRunning(_))));
    let row = tree.info("root/a").unwrap();
    assert_eq!((row.last_exit, row.incarnation, row.restarts), (Some(Exit::Normal), 1, 0));
    let root = tree.supervisor("root").unwrap();
    root.restart_child("a").await.unwrap();
    assert!(address.tell(Leave).is_ok());
    tree.shutdown().await;
}
