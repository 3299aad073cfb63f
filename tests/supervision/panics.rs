//! A panic anywhere in an actor ends that incarnation only, exactly once, and its supervisor starts a fresh one.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(20);

/// Where to panic; the first incarnation only, unless told by message.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Where {
    Handler,
    HandlerAfterAwait,
    Spawned,
    Timer,
    Drop,
    DropAfterPanic,
    Exit,
}

struct Panicky {
    drop: bool,
    /// Reset by a restart: state is always rebuilt.
    count: u32,
    starts: Arc<AtomicU32>,
}

struct Boom(Where);
impl Message for Boom {
    type Reply = ();
}
struct Tick;
impl Message for Tick {
    type Reply = ();
}
struct Count;
impl Message for Count {
    type Reply = (u32, u64);
}

impl Actor for Panicky {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        assert!(cx.incarnation() >= 1);
        Ok(())
    }
}
impl Handler<Boom> for Panicky {
    async fn handle(&mut self, Boom(place): Boom, cx: &Cx<Self>) -> Result<(), Exit> {
        self.count += 1;
        match place {
            Where::Handler => panic!("in the handler"),
            Where::HandlerAfterAwait => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                panic!("after an await")
            }
            Where::Spawned => cx.spawn_detached(async { panic!("in spawned work") }),
            Where::Timer => cx.tell_after(Duration::from_millis(1), Tick),
            Where::Drop => {
                self.drop = true;
                return Err(Exit::Normal);
            }
            Where::DropAfterPanic => {
                self.drop = true;
                panic!("in the handler, and again in drop")
            }
            Where::Exit => return Err(Exit::failed("no more")),
        }
        Ok(())
    }
}
impl Handler<Tick> for Panicky {
    async fn handle(&mut self, _: Tick, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("in a timer")
    }
}
impl Handler<Count> for Panicky {
    async fn handle(&mut self, _: Count, cx: &Cx<Self>) -> Result<(u32, u64), Exit> {
        self.count += 1;
        Ok((self.count, cx.incarnation()))
    }
}
impl Drop for Panicky {
    fn drop(&mut self) {
        if self.drop {
            panic!("in drop");
        }
    }
}

struct House {
    tree: Tree,
    victim: Ref<Panicky>,
    sibling: Ref<Panicky>,
    starts: Arc<AtomicU32>,
    sibling_starts: Arc<AtomicU32>,
}

fn child(id: &str, address: &Ref<Panicky>, starts: &Arc<AtomicU32>) -> ChildSpec {
    let starts = starts.clone();
    ChildSpec::actor(id, address, move |_| {
        let starts = starts.clone();
        async move { Ok(Panicky { drop: false, count: 0, starts }) }
    })
}

fn house() -> House {
    let (victim, sibling) = (Ref::new("/victim", 16), Ref::new("/sibling", 16));
    let (starts, sibling_starts) = <(Arc<AtomicU32>, Arc<AtomicU32>)>::default();
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .child(child("victim", &victim, &starts))
        .child(child("sibling", &sibling, &sibling_starts));
    House { tree: Tree::start(root).unwrap(), victim, sibling, starts, sibling_starts }
}

/// The next answer of an incarnation after `before`, asking again while it restarts.
async fn reborn(victim: &Ref<Panicky>, before: u64) -> (u32, u64) {
    tokio::time::timeout(SOON, async {
        loop {
            match victim.ask(Count, SOON).await {
                Ok((count, incarnation)) if incarnation > before => return (count, incarnation),
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("a new incarnation")
}

#[tokio::test]
async fn each_place_gives_one_restart_with_fresh_state_and_no_one_else_notices() {
    for place in [
        Where::Handler,
        Where::HandlerAfterAwait,
        Where::Spawned,
        Where::Timer,
        Where::Drop,
        Where::DropAfterPanic,
        Where::Exit,
    ] {
        let h = house();
        h.sibling.ask(Count, SOON).await.unwrap();
        let answer = h.victim.ask(Boom(place), SOON).await;
        match place {
            Where::Handler | Where::HandlerAfterAwait | Where::DropAfterPanic => {
                assert!(matches!(answer, Err(CallError::Panicked)), "{place:?}: {answer:?}");
            }
            Where::Spawned | Where::Timer => assert!(answer.is_ok(), "{place:?}: {answer:?}"),
            Where::Drop => assert!(matches!(answer, Err(CallError::Exited(Exit::Normal))), "{place:?}: {answer:?}"),
            Where::Exit => assert!(matches!(answer, Err(CallError::Exited(Exit::Failed(_)))), "{place:?}: {answer:?}"),
        }
        assert_eq!(reborn(&h.victim, 1).await, (1, 2), "{place:?}");
        assert_eq!(h.starts.load(Ordering::SeqCst), 2, "{place:?}");
        let info = h.tree.info("root/victim").unwrap();
        assert_eq!((info.incarnation, info.restarts), (2, 1), "{place:?}");
        let exit = info.last_exit.unwrap();
        match place {
            Where::Exit => assert_eq!(exit, Exit::Failed("no more".into())),
            _ => assert!(
                matches!(&exit, Exit::Panicked(why) if why.contains("supervision/panics.rs")),
                "{place:?}: {exit}"
            ),
        }
        assert_eq!(h.sibling.ask(Count, SOON).await.unwrap(), (2, 1), "{place:?}: the sibling kept its state");
        assert_eq!(h.sibling_starts.load(Ordering::SeqCst), 1);
        assert_eq!(h.tree.shutdown().await, Exit::Shutdown);
    }
}

struct BadStart;
impl Actor for BadStart {}

#[tokio::test]
async fn a_panic_in_the_factory_or_in_started_is_a_failed_start() {
    struct BadStarted;
    impl Actor for BadStarted {
        async fn started(&mut self, _: &Cx<Self>) -> Result<(), Exit> {
            panic!("in started")
        }
    }
    let address = Ref::<BadStart>::new("/a", 1);
    let root = || SupervisorSpec::new("root");
    let spec = ChildSpec::actor("a", &address, |_| async { panic!("in the factory") });
    match Tree::start(root().child(spec)) {
        Err(TreeError::Start { path, why }) => {
            assert_eq!(path, "root/a");
            assert!(why.0.contains("in the factory at "), "{why}");
        }
        other => panic!("{:?}", other.map(drop)),
    }
    // A panic before the factory's first await, outside its future, is caught as well.
    let spec = ChildSpec::actor("a", &address, |cx: Cx<BadStart>| {
        assert!(cx.path().is_empty(), "outside the future");
        async { Ok(BadStart) }
    });
    assert!(matches!(Tree::start(root().child(spec)), Err(TreeError::Start { why, .. }) if why.0.contains("outside")));
    let address = Ref::<BadStarted>::new("/b", 1);
    let spec = ChildSpec::actor("b", &address, |_| async { Ok(BadStarted) });
    assert!(
        matches!(Tree::start(root().child(spec)), Err(TreeError::Start { why, .. }) if why.0.contains("in started"))
    );
}

#[tokio::test]
async fn a_panic_in_started_at_a_restart_counts_and_is_tried_again() {
    struct Second(Arc<AtomicU32>);
    impl Actor for Second {
        async fn started(&mut self, _: &Cx<Self>) -> Result<(), Exit> {
            // The second and third starts fail.
            assert!(!(1..=2).contains(&self.0.fetch_add(1, Ordering::SeqCst)), "not this time");
            Ok(())
        }
    }
    impl Handler<Count> for Second {
        async fn handle(&mut self, _: Count, cx: &Cx<Self>) -> Result<(u32, u64), Exit> {
            Ok((0, cx.incarnation()))
        }
    }
    let starts = Arc::new(AtomicU32::new(0));
    let counter = starts.clone();
    let address = Ref::new("/a", 4);
    let spec = ChildSpec::actor("a", &address, move |_| {
        let counter = counter.clone();
        async move { Ok(Second(counter)) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(spec)).unwrap();
    assert!(tree.kill("root/a"));
    let incarnation = tokio::time::timeout(SOON, async {
        loop {
            match address.ask(Count, SOON).await {
                Ok((_, n)) if n > 1 => return n,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(incarnation.await.unwrap(), 4);
    let root = tree.info("root").unwrap();
    assert_eq!((root.restart_budget_used, root.restart_budget), (Some(3), Some(3)));
    tree.shutdown().await;
}

/// A message whose own destructor tells.
struct Noisy(mpsc::UnboundedSender<()>);
impl Message for Noisy {
    type Reply = ();
}
impl Drop for Noisy {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
impl Handler<Noisy> for Panicky {
    async fn handle(&mut self, _: Noisy, _: &Cx<Self>) -> Result<(), Exit> {
        Ok(())
    }
}

#[tokio::test]
async fn what_was_queued_behind_a_panic_comes_back_to_askers_and_is_counted() {
    let (victim, starts) = (Ref::new("/victim", 2000), Arc::default());
    let root = SupervisorSpec::new("root").child(child("victim", &victim, &starts));
    let tree = Tree::start(root).unwrap();
    let (tx, mut dropped) = mpsc::unbounded_channel();
    // A long await in the handler keeps the queue behind it.
    victim.tell(Boom(Where::HandlerAfterAwait)).unwrap();
    for _ in 0..1000 {
        victim.tell(Noisy(tx.clone())).unwrap();
    }
    let asked = victim.ask(Count, SOON).await;
    match asked {
        Err(CallError::Restarting(Count)) => {}
        other => panic!("the queued ask was answered {other:?}"),
    }
    for _ in 0..1000 {
        tokio::time::timeout(SOON, dropped.recv()).await.unwrap().unwrap();
    }
    assert_eq!(tree.dead_letters().count(DeadReason::ActorEnded), 1001);
    assert_eq!(tree.info("root/victim").unwrap().mailbox_depth, 0);
    tree.shutdown().await;
}

#[tokio::test]
async fn a_panic_on_request_ends_one_incarnation_and_no_supervisor() {
    let starts = Arc::new(AtomicU32::new(0));
    let address: Ref<Panicky> = Ref::new("/drill", 16);
    let counted = starts.clone();
    let child = ChildSpec::actor("drill", &address, move |_cx| {
        let starts = counted.clone();
        async move { Ok(Panicky { drop: false, count: 0, starts }) }
    });
    let group = SupervisorSpec::new("group").child(child).backoff(RestartBackoff::NONE);
    let tree = Tree::start(SupervisorSpec::new("root").child(ChildSpec::supervisor(group))).unwrap();
    for no_worker in ["root", "root/group", "root/group/other", ""] {
        assert!(!tree.panic(no_worker), "{no_worker}");
    }
    assert!(tree.panic("root/group/drill"));
    let back = async {
        while starts.load(Ordering::SeqCst) < 2 || tree.info("root/group/drill").unwrap().state != ActorState::Up {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, back).await.unwrap();
    let row = tree.info("root/group/drill").unwrap();
    assert!(matches!(&row.last_exit, Some(Exit::Panicked(why)) if why.starts_with("panicked on request (drill)")));
    assert_eq!((row.restarts, tree.info("root/group").unwrap().restarts), (1, 0));
    assert_eq!(address.ask(Count, SOON).await.unwrap(), (1, 2), "its successor answers, with a state of its own");
    tree.shutdown().await;
}

/// Panics when it is dropped.
struct Mine;
impl Drop for Mine {
    fn drop(&mut self) {
        panic!("a mine")
    }
}
struct Hold(std::sync::mpsc::Sender<()>, Mine);
impl Message for Hold {
    type Reply = ();
}
struct Mined(#[allow(dead_code)] Mine);
impl Message for Mined {
    type Reply = ();
}
impl Handler<Hold> for Panicky {
    async fn handle(&mut self, hold: Hold, cx: &Cx<Self>) -> Result<(), Exit> {
        for _ in 0..2 {
            let mine = Mine;
            cx.spawn_detached(async move {
                std::future::pending::<()>().await;
                drop(mine);
            });
        }
        hold.0.send(()).unwrap();
        std::future::pending().await
    }
}
impl Handler<Mined> for Panicky {
    async fn handle(&mut self, _: Mined, _: &Cx<Self>) -> Result<(), Exit> {
        Ok(())
    }
}

#[tokio::test]
async fn destructors_that_all_panic_end_one_incarnation_only() {
    let (address, starts) = (Ref::new("/mined", 8), Arc::new(AtomicU32::new(0)));
    let child = ChildSpec::actor("mined", &address, {
        let starts = starts.clone();
        move |_| {
            let starts = starts.clone();
            async move { Ok(Panicky { drop: false, count: 0, starts }) }
        }
    });
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON).child(child);
    let tree = Tree::start(root).unwrap();
    let (began, begun) = std::sync::mpsc::channel();
    address.tell(Hold(began, Mine)).unwrap();
    begun.recv().unwrap();
    // In the handler in hand, in spawned work, and in three messages that wait.
    for _ in 0..3 {
        address.tell(Mined(Mine)).unwrap();
    }
    assert!(tree.kill("root/mined"));
    tokio::time::timeout(SOON, async {
        while !matches!(address.ask(Count, SOON).await, Ok((_, 2))) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a successor");
    assert_eq!(tree.info("root/mined").unwrap().last_exit, Some(Exit::Killed));
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}
