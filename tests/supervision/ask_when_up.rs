//! Asks that wait for an actor between two incarnations: served by the next one, handed back at the deadline, never too many.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(60);
const BRIEFLY: Duration = Duration::from_millis(50);
const BOUND: usize = 4;

struct Worker;
impl Actor for Worker {}

enum Do {
    Say,
    Panic,
    /// Waits for a permit, then panics.
    PanicAtTheGate(Arc<Semaphore>),
}
impl Message for Do {
    type Reply = u64;
}
impl Handler<Do> for Worker {
    async fn handle(&mut self, what: Do, cx: &Cx<Self>) -> Result<u64, Exit> {
        match what {
            Do::Say => Ok(cx.incarnation()),
            Do::Panic => panic!("as told"),
            Do::PanicAtTheGate(gate) => {
                gate.acquire().await.unwrap().forget();
                panic!("as told")
            }
        }
    }
}

/// `first` waits in its start for a permit each time; `second` starts after it, and restarts with it.
struct Fixture {
    tree: Tree,
    first: Ref<Worker>,
    second: Ref<Worker>,
    gate: Arc<Semaphore>,
}

fn specs(gate: &Arc<Semaphore>, first: &Ref<Worker>, second: &Ref<Worker>) -> SupervisorSpec {
    let gate = gate.clone();
    let gated = ChildSpec::actor("first", first, move |_| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.map_err(|e| StartError(e.to_string()))?.forget();
            Ok(Worker)
        }
    });
    let waits = ChildSpec::actor("second", second, |_| async { Ok(Worker) });
    let root = SupervisorSpec::new("root").strategy(Strategy::RestForOne).backoff(RestartBackoff::NONE);
    root.intensity(10, SOON).child(gated).child(waits)
}

fn refs() -> (Ref<Worker>, Ref<Worker>) {
    (Ref::new("/first", BOUND), Ref::new("/second", BOUND))
}

async fn fixture() -> Fixture {
    let ((first, second), gate) = (refs(), Arc::new(Semaphore::new(1)));
    let spec = specs(&gate, &first, &second);
    let tree = tokio::task::spawn_blocking(move || Tree::start(spec)).await.unwrap().unwrap();
    Fixture { tree, first, second, gate }
}

impl Fixture {
    /// `second` is between two incarnations, for as long as the test likes.
    async fn second_is_away(&self) {
        assert!(matches!(self.first.ask(Do::Panic, SOON).await, Err(CallError::Panicked)));
        let away = async {
            while !matches!(self.second.ask(Do::Say, SOON).await, Err(CallError::Restarting(_))) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, away).await.expect("it stops with its neighbour");
    }
    fn dead(&self, reason: DeadReason) -> u64 {
        let counts = self.tree.dead_letters().counts();
        counts.into_iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }
    /// As many tasks wait for `second` as are given, and are about to.
    fn ask_second(&self, n: usize) -> Vec<tokio::task::JoinHandle<Result<u64, CallError<Do>>>> {
        let ask = |_| {
            let second = self.second.clone();
            tokio::spawn(async move { second.ask_when_up(Do::Say, SOON).await })
        };
        (0..n).map(ask).collect()
    }
}

#[tokio::test]
async fn the_next_incarnation_answers() {
    let f = fixture().await;
    assert_eq!(f.second.ask_when_up(Do::Say, SOON).await.unwrap(), 1, "one that is up is asked at once");
    f.second_is_away().await;
    let before = f.dead(DeadReason::Restarting);
    let asked = f.ask_second(BOUND);
    tokio::task::yield_now().await;
    f.gate.add_permits(1);
    for one in asked {
        assert_eq!(one.await.unwrap().unwrap(), 2);
    }
    assert_eq!(f.dead(DeadReason::Restarting), before, "what waits is no dead letter");
    f.tree.shutdown().await;
}

#[tokio::test]
async fn one_that_has_yet_to_start_is_waited_for() {
    let ((first, second), gate) = (refs(), Arc::new(Semaphore::new(0)));
    assert!(matches!(second.ask_when_up(Do::Say, SOON).await, Err(CallError::NotRunning(Do::Say))), "no tree has it");
    let spec = specs(&gate, &first, &second);
    let starting = tokio::task::spawn_blocking(move || Tree::start(spec));
    // Until the tree has it, nobody will start it.
    let answer = async {
        let mut opened = false;
        loop {
            let mut asked = std::pin::pin!(second.ask_when_up(Do::Say, SOON));
            match futures::poll!(asked.as_mut()) {
                std::task::Poll::Ready(early) => assert!(matches!(early, Err(CallError::NotRunning(_)))),
                std::task::Poll::Pending => {
                    if !std::mem::replace(&mut opened, true) {
                        gate.add_permits(1);
                    }
                    return asked.await;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::time::timeout(SOON, answer).await.unwrap().unwrap(), 1);
    starting.await.unwrap().unwrap().shutdown().await;
}

#[tokio::test]
async fn at_the_deadline_the_message_comes_back() {
    let f = fixture().await;
    f.second_is_away().await;
    let before = f.dead(DeadReason::Restarting);
    let back = f.second.ask_when_up(Do::Say, BRIEFLY).await;
    assert!(matches!(back, Err(CallError::Restarting(Do::Say))), "{back:?}");
    assert_eq!(f.dead(DeadReason::Restarting), before + 1);
    f.gate.add_permits(1);
    assert_eq!(f.second.ask_when_up(Do::Say, SOON).await.unwrap(), 2, "nothing is left behind");
    f.tree.shutdown().await;
}

#[tokio::test]
async fn no_more_wait_than_the_mailbox_takes() {
    let f = fixture().await;
    f.second_is_away().await;
    let asked = f.ask_second(BOUND);
    tokio::task::yield_now().await;
    let full = f.second.ask_when_up(Do::Say, SOON).await;
    assert!(matches!(full, Err(CallError::Full(Do::Say))), "{full:?}");
    assert_eq!(f.dead(DeadReason::Full), 1);
    asked[0].abort();
    tokio::task::yield_now().await;
    let again = f.ask_second(1).remove(0);
    tokio::task::yield_now().await;
    f.gate.add_permits(1);
    assert_eq!(again.await.unwrap().unwrap(), 2, "who gives up makes room");
    for one in asked.into_iter().skip(1) {
        assert_eq!(one.await.unwrap().unwrap(), 2);
    }
    f.tree.shutdown().await;
}

#[tokio::test]
async fn who_waits_hears_when_it_will_not_come() {
    let f = fixture().await;
    f.second_is_away().await;
    let asked = f.ask_second(BOUND);
    tokio::task::yield_now().await;
    let (root, gate) = (f.tree.supervisor("root").unwrap(), f.gate.clone());
    let stopping = tokio::spawn(async move { root.terminate_child("second").await });
    for one in asked {
        let answer = one.await.unwrap();
        assert!(matches!(answer, Err(CallError::NotRunning(Do::Say))), "{answer:?}");
    }
    gate.add_permits(1);
    stopping.await.unwrap().unwrap();
    f.tree.shutdown().await;
}

/// Takes its time to stop.
struct Slow(Arc<Semaphore>);
impl Actor for Slow {
    async fn stopping(&mut self, _: &Cx<Self>) {
        let _ = self.0.acquire().await;
    }
}
impl Handler<Do> for Slow {
    async fn handle(&mut self, _: Do, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

#[tokio::test]
async fn what_stops_for_good_is_not_waited_for() {
    let (slow, gate): (Ref<Slow>, _) = (Ref::new("/slow", BOUND), Arc::new(Semaphore::new(0)));
    let its = gate.clone();
    let spec = ChildSpec::actor("slow", &slow, move |_| {
        let gate = its.clone();
        async move { Ok(Slow(gate)) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(spec.shutdown(Shutdown::Infinity))).unwrap();
    assert_eq!(slow.ask_when_up(Do::Say, SOON).await.unwrap(), 1);
    let (root, stops) = (tree.supervisor("root").unwrap(), tree.clone());
    let stopping = tokio::spawn(async move { root.terminate_child("slow").await });
    let hears = async {
        while stops.info("root/slow").unwrap().state != ActorState::Stopping {
            tokio::task::yield_now().await;
        }
        slow.ask_when_up(Do::Say, 2 * SOON).await
    };
    let back = tokio::time::timeout(SOON, hears).await.expect("while it stops");
    assert!(matches!(back, Err(CallError::NotRunning(Do::Say))), "{back:?}");
    gate.add_permits(1);
    stopping.await.unwrap().unwrap();
    tree.shutdown().await;
}

/// What waited behind a message that panics was not begun: it goes to the next incarnation. The one that panicked does not.
#[tokio::test]
async fn what_was_not_begun_is_asked_again_and_nothing_else() {
    let f = fixture().await;
    let gate = Arc::new(Semaphore::new(0));
    let (second, its) = (f.second.clone(), gate.clone());
    let panics = tokio::spawn(async move { second.ask_when_up(Do::PanicAtTheGate(its), SOON).await });
    tokio::task::yield_now().await;
    let asked = f.ask_second(2);
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert!(matches!(panics.await.unwrap(), Err(CallError::Panicked)));
    for one in asked {
        assert_eq!(one.await.unwrap().unwrap(), 2, "the poison is not in the second one");
    }
    f.tree.shutdown().await;
}
