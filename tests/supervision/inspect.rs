//! What an actor shows of its state, when, to whom, and what it costs it: nothing, whatever goes wrong with it.

use bulkhead::supervisor::*;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(50);
const PATH: &str = "root/shows";

/// What the tests hold of the actor.
struct Shared {
    gate: Semaphore,
    thread: (Mutex<bool>, Condvar),
    looks: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Mood {
    Shows,
    Panics,
    ShowsTooMuch,
    ShowsNothing,
}

struct Shows {
    shared: Arc<Shared>,
    mood: Mood,
    handled: u32,
}

impl Actor for Shows {
    fn inspect(&self) -> Option<Value> {
        self.shared.looks.fetch_add(1, Ordering::Relaxed);
        match self.mood {
            Mood::Shows => Some(json!({ "handled": self.handled })),
            Mood::Panics => panic!("not presentable"),
            Mood::ShowsTooMuch => Some(Value::String("x".repeat(256 << 10))),
            Mood::ShowsNothing => None,
        }
    }
}

enum Do {
    Count,
    WaitAtTheGate,
    HoldTheThread,
    Become(Mood),
}
impl Message for Do {
    type Reply = u64;
}
impl Handler<Do> for Shows {
    async fn handle(&mut self, what: Do, cx: &Cx<Self>) -> Result<u64, Exit> {
        match what {
            Do::Count => {}
            Do::WaitAtTheGate => self.shared.gate.acquire().await.unwrap().forget(),
            Do::HoldTheThread => {
                let (open, woken) = &self.shared.thread;
                drop(woken.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            }
            Do::Become(mood) => self.mood = mood,
        }
        self.handled += 1;
        Ok(cx.incarnation())
    }
}

struct Fixture {
    tree: Tree,
    actor: Ref<Shows>,
    shared: Arc<Shared>,
}

fn fixture(mood: Mood) -> Fixture {
    let shared = Arc::new(Shared { gate: Semaphore::new(0), thread: Default::default(), looks: AtomicUsize::new(0) });
    let actor = Ref::new("/shows", 256);
    let for_each = shared.clone();
    let spec = ChildSpec::actor("shows", &actor, move |_| {
        let shared = for_each.clone();
        async move { Ok(Shows { shared, mood, handled: 0 }) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(spec)).unwrap();
    Fixture { tree, actor, shared }
}

impl Fixture {
    async fn suspended(&self, wanted: bool) {
        let is = async {
            while self.tree.info(PATH).unwrap().suspended != wanted {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(SOON, is).await.expect("suspended or resumed");
    }
    async fn at_the_gate(&self) {
        let is = async {
            // Inside without a message it is while it starts.
            while !self.tree.info(PATH).unwrap().busy_message.is_some_and(|message| message.ends_with("Do")) {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(SOON, is).await.expect("at the gate");
    }
    /// All that was sent to the actor's control lane before has arrived there.
    async fn control_lane_is_empty(&self) {
        assert!(self.tree.suspend(PATH));
        self.suspended(true).await;
        assert!(self.tree.resume(PATH));
        self.suspended(false).await;
    }
}

#[tokio::test]
async fn it_is_shown_after_the_handler_in_hand_and_ahead_of_the_mailbox() {
    let f = fixture(Mood::Shows);
    f.actor.tell(Do::WaitAtTheGate).unwrap();
    for _ in 0..100 {
        f.actor.tell(Do::Count).unwrap();
    }
    f.at_the_gate().await;
    let (tree, last) = (f.tree.clone(), f.actor.clone());
    let asked = tokio::spawn(async move { tree.inspect(PATH, SOON).await });
    tokio::task::yield_now().await; // by now the order is in its control lane
    f.shared.gate.add_permits(1);
    let seen = asked.await.unwrap().unwrap();
    assert_eq!((seen.state, seen.stale, seen.epoch), (json!({ "handled": 1 }), false, 1));
    last.ask(Do::Count, SOON).await.unwrap();
    assert_eq!(f.tree.inspect(PATH, SOON).await.unwrap().state, json!({ "handled": 102 }), "the others went on");
    f.tree.shutdown().await;
}

#[tokio::test]
async fn many_askings_are_one_look() {
    let f = fixture(Mood::Shows);
    f.actor.tell(Do::WaitAtTheGate).unwrap();
    f.at_the_gate().await;
    let mut asked: Vec<_> = (0..100).map(|_| Box::pin(f.tree.inspect(PATH, SOON))).collect();
    for one in &mut asked {
        assert!(futures::poll!(one.as_mut()).is_pending(), "the handler is in hand");
    }
    f.control_lane_is_empty().await;
    f.shared.gate.add_permits(1);
    for one in asked {
        assert_eq!(one.await.unwrap().state, json!({ "handled": 1 }));
    }
    assert_eq!(f.shared.looks.load(Ordering::Relaxed), 1);
    f.tree.shutdown().await;
}

#[tokio::test]
async fn one_that_does_not_answer_has_its_last_answer_shown_as_stale() {
    let f = fixture(Mood::Shows);
    f.actor.tell(Do::HoldTheThread).unwrap();
    f.at_the_gate().await;
    assert_eq!(f.tree.inspect(PATH, BRIEFLY).await, Err(InspectError::Silent(BRIEFLY)), "nothing was shown before");
    let open = |open| {
        *f.shared.thread.0.lock().unwrap() = open;
        f.shared.thread.1.notify_all();
    };
    open(true);
    f.actor.ask(Do::Count, SOON).await.unwrap();
    let fresh = f.tree.inspect(PATH, SOON).await.unwrap();
    assert_eq!((fresh.state, fresh.stale), (json!({ "handled": 2 }), false));
    open(false);
    f.actor.tell(Do::HoldTheThread).unwrap();
    // Until it has gone under, it still answers.
    let stale = async {
        loop {
            let seen = f.tree.inspect(PATH, BRIEFLY).await.unwrap();
            if seen.stale {
                return seen;
            }
        }
    };
    let stale = tokio::time::timeout(SOON, stale).await.unwrap();
    assert_eq!((stale.state, stale.epoch), (json!({ "handled": 2 }), 1));
    assert!(stale.age_ms >= 50, "{}", stale.age_ms);
    assert!(f.tree.inspected(PATH, Duration::ZERO).is_none(), "too old for whoever wants it new");
    assert!(f.tree.inspected(PATH, SOON).is_some());
    open(true);
    f.tree.shutdown().await;
    let after = f.tree.inspect(PATH, SOON).await.unwrap();
    assert!(after.stale, "what has ended is not waited for");
}

#[tokio::test]
async fn a_panic_while_it_shows_is_told_and_ends_nothing() {
    let f = fixture(Mood::Panics);
    let seen = f.tree.inspect(PATH, SOON).await.unwrap();
    let why = seen.error.unwrap();
    assert!(why.contains("not presentable") && why.contains("supervision/inspect.rs") && !seen.stale, "{why}");
    assert_eq!(seen.state, Value::Null);
    assert_eq!(f.actor.ask(Do::Become(Mood::ShowsTooMuch), SOON).await.unwrap(), 1, "the same incarnation");
    let why = f.tree.inspect(PATH, SOON).await.unwrap().error.unwrap();
    assert!(why.contains("more than"), "{why}");
    assert_eq!(f.actor.ask(Do::Become(Mood::Shows), SOON).await.unwrap(), 1);
    let seen = f.tree.inspect(PATH, SOON).await.unwrap();
    assert_eq!((seen.state, seen.error), (json!({ "handled": 2 }), None));
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_suspended_actor_shows_and_who_has_nothing_to_show_says_so() {
    let f = fixture(Mood::Shows);
    assert!(f.tree.suspend(PATH));
    f.suspended(true).await;
    f.actor.tell(Do::Become(Mood::ShowsNothing)).unwrap();
    assert_eq!(f.tree.inspect(PATH, SOON).await.unwrap().state, json!({ "handled": 0 }));
    assert_eq!(f.tree.info(PATH).unwrap().mailbox_depth, 1, "it stays suspended");
    assert!(f.tree.resume(PATH));
    f.actor.ask(Do::Count, SOON).await.unwrap();
    assert_eq!(f.tree.inspect(PATH, SOON).await, Err(InspectError::ShowsNothing));
    assert_eq!(f.tree.inspect("root", SOON).await, Err(InspectError::NotAWorker));
    assert_eq!(f.tree.inspect("root/nobody", SOON).await, Err(InspectError::NotFound));
    f.tree.shutdown().await;
}
