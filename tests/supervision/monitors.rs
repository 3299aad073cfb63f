//! Monitors: one Down for each end of what was watched, never two, never none.

use bulkhead::supervisor::*;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Worker;
impl Actor for Worker {}

/// Hands what it is told on to the test.
struct Watcher(tokio::sync::mpsc::UnboundedSender<Down>);
impl Actor for Watcher {}
impl Handler<Down> for Watcher {
    async fn handle(&mut self, down: Down, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(down);
        Ok(())
    }
}

enum Do {
    Panic,
    Exit(Exit),
    Block(Arc<Mutex<mpsc::Receiver<()>>>, mpsc::Sender<()>),
}
impl Message for Do {
    type Reply = ();
}
impl Handler<Do> for Worker {
    async fn handle(&mut self, what: Do, _: &Cx<Self>) -> Result<(), Exit> {
        match what {
            Do::Panic => panic!("as told"),
            Do::Exit(exit) => Err(exit),
            Do::Block(until, began) => {
                let _ = began.send(());
                let _ = until.lock().unwrap().recv();
                Ok(())
            }
        }
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

struct Fixture {
    tree: Tree,
    worker: Ref<Worker>,
    watcher: Ref<Watcher>,
    downs: tokio::sync::mpsc::UnboundedReceiver<Down>,
}

/// `mailbox` is the watcher's.
fn fixture(restart: Restart, mailbox: usize) -> Fixture {
    let (worker, watcher) = (Ref::new("/worker", 4), Ref::new("/watcher", mailbox));
    let (tell, downs) = tokio::sync::mpsc::unbounded_channel();
    let group = SupervisorSpec::new("group").backoff(RestartBackoff::NONE).intensity(9, SOON).child(
        ChildSpec::actor("worker", &worker, |_| async { Ok(Worker) })
            .restart(restart)
            .hang_after(Duration::from_secs(1))
            .on(Thread::Dedicated),
    );
    let root = SupervisorSpec::new("root").child(ChildSpec::supervisor(group)).child(ChildSpec::actor(
        "watcher",
        &watcher,
        move |_| {
            let tell = tell.clone();
            async move { Ok(Watcher(tell)) }
        },
    ));
    Fixture { tree: Tree::start(root).unwrap(), worker, watcher, downs }
}

impl Fixture {
    async fn next(&mut self) -> Down {
        tokio::time::timeout(SOON, self.downs.recv()).await.expect("a Down").unwrap()
    }
    async fn up(&self, after: u64) -> u64 {
        loop {
            match self.worker.ask(Ping, SOON).await {
                Ok(n) if n > after => return n,
                _ => tokio::task::yield_now().await,
            }
        }
    }
    /// Nothing more comes: what would have been sent before the answer to this is there by then.
    async fn no_more(&mut self) {
        let down = Down { path: "last".into(), incarnation: 0, reason: Exit::Normal };
        self.watcher.ask(down.clone(), SOON).await.unwrap();
        assert_eq!(self.next().await, down);
        assert!(self.downs.try_recv().is_err());
    }
}

#[tokio::test]
async fn every_end_of_an_incarnation_is_told_once() {
    let mut f = fixture(Restart::Permanent, 64);
    let ends = [
        (Do::Panic, None),
        (Do::Exit(Exit::Normal), Some(Exit::Normal)),
        (Do::Exit(Exit::failed("x")), Some(Exit::failed("x"))),
    ];
    let mut seen = 0;
    for (how, reason) in ends {
        seen = f.up(seen).await;
        let two = [f.worker.monitor(f.watcher.recipient()), f.worker.monitor(f.watcher.recipient())];
        assert_eq!(two[0].watchers(), 2);
        f.worker.tell(how).unwrap();
        for _ in 0..2 {
            let down = f.next().await;
            assert_eq!((down.path.as_str(), down.incarnation), ("/worker", seen));
            match &reason {
                Some(reason) => assert_eq!(&down.reason, reason),
                None => assert!(matches!(&down.reason, Exit::Panicked(why) if why.starts_with("as told"))),
            }
        }
        f.no_more().await;
    }
    f.up(seen).await;
    let _kept = f.tree.monitor("root/group/worker", f.watcher.recipient()).unwrap();
    assert!(f.tree.kill("root/group/worker"));
    let down = f.next().await;
    assert_eq!((down.path.as_str(), down.reason), ("root/group/worker", Exit::Killed));
    f.no_more().await;
    assert!(f.tree.monitor("root/nobody", f.watcher.recipient()).is_none());
    f.tree.shutdown().await;
}

#[tokio::test]
async fn what_is_down_already_is_told_at_once() {
    let mut f = fixture(Restart::Transient, 64);
    let never = Ref::<Worker>::new("/never", 1);
    let _m = never.monitor(f.watcher.recipient());
    assert_eq!(f.next().await, Down { path: "/never".into(), incarnation: 0, reason: Exit::NotRunning });
    let first = f.worker.monitor(f.watcher.recipient());
    f.worker.tell(Do::Exit(Exit::Normal)).unwrap();
    assert_eq!(f.next().await.reason, Exit::Normal);
    let _second = f.worker.monitor(f.watcher.recipient());
    assert_eq!(f.next().await, Down { path: "/worker".into(), incarnation: 1, reason: Exit::NotRunning });
    drop(first);
    f.no_more().await;
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_monitor_that_was_taken_back_tells_nothing() {
    let mut f = fixture(Restart::Permanent, 64);
    f.up(0).await;
    f.worker.monitor(f.watcher.recipient()).demonitor();
    drop(f.worker.monitor(f.watcher.recipient()));
    let kept = f.worker.monitor(f.watcher.recipient());
    assert_eq!(kept.watchers(), 1);
    f.worker.tell(Do::Panic).unwrap();
    f.next().await;
    f.up(1).await;
    f.no_more().await;
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_full_mailbox_does_not_lose_a_down() {
    let mut f = fixture(Restart::Permanent, 1);
    f.up(0).await;
    let many: Vec<Monitor> = (0..100).map(|_| f.worker.monitor(f.watcher.recipient())).collect();
    assert!(f.tree.suspend("root/watcher"));
    f.worker.tell(Do::Panic).unwrap();
    f.up(1).await;
    assert!(f.tree.resume("root/watcher"));
    for _ in 0..100 {
        assert_eq!(f.next().await.incarnation, 1);
    }
    drop(many);
    f.no_more().await;
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_given_up_thread_is_told_once_and_not_again_when_it_wakes_up() {
    let mut f = fixture(Restart::Permanent, 64);
    f.up(0).await;
    let _m = f.worker.monitor(f.watcher.recipient());
    let (free, until) = mpsc::channel();
    let (tell, began) = mpsc::channel();
    f.worker.tell(Do::Block(Arc::new(Mutex::new(until)), tell)).unwrap();
    began.recv().unwrap();
    let down = f.next().await;
    assert!(matches!(down.reason, Exit::Hung(_)) && down.incarnation == 1, "{down:?}");
    f.up(1).await;
    let _next = f.worker.monitor(f.watcher.recipient());
    free.send(()).unwrap();
    let gone = async {
        while f.tree.zombies() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the thread comes back and ends");
    f.no_more().await;
    f.worker.tell(Do::Panic).unwrap();
    assert_eq!(f.next().await.incarnation, 2);
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_supervisor_can_be_watched_too() {
    let mut f = fixture(Restart::Permanent, 64);
    let _m = f.tree.monitor("root/group", f.watcher.recipient()).unwrap();
    for n in 1..=10 {
        f.up(n - 1).await;
        f.worker.tell(Do::Panic).unwrap();
    }
    let down = f.next().await;
    assert_eq!(down.path, "root/group");
    assert!(matches!(&down.reason, Exit::ShutdownWith(why) if why.starts_with("restart budget")), "{down:?}");
    f.tree.shutdown().await;
}
