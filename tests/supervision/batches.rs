//! Tells that come together from another process are handled as if they had come one by one.

use bulkhead::supervisor::wire::WireForm;
use bulkhead::supervisor::*;
use bulkhead::wire::codec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);
const PATH: &str = "root/noting";
/// What the bridge brings at most at a time.
const MANY: u32 = 64;

/// Notes down what it is told. Outlives its incarnations.
#[derive(Clone)]
struct Shared {
    notes: Arc<Mutex<Vec<u32>>>,
    gate: Arc<Semaphore>,
    unreadable: Arc<AtomicUsize>,
}

struct Noting(Shared);
impl Actor for Noting {
    fn inspect(&self) -> Option<Value> {
        Some(json!(self.0.notes.lock().unwrap().len()))
    }
}

/// Those above 1000 wait at the gate, those above 2000 panic, those above 3000 are its end.
#[derive(Serialize, Deserialize, Debug)]
struct Note(u32);
impl Message for Note {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 1));
}
impl Handler<Note> for Noting {
    async fn handle(&mut self, Note(it): Note, _: &Cx<Self>) -> Result<(), Exit> {
        match it {
            0..=1000 => {}
            1001..=2000 => self.0.gate.acquire().await.unwrap().forget(),
            2001..=3000 => panic!("told to"),
            _ => return Err(Exit::Normal),
        }
        self.0.notes.lock().unwrap().push(it);
        Ok(())
    }
}

struct Fixture {
    tree: Tree,
    actor: Ref<Noting>,
    export: Export,
    shared: Shared,
    on_unreadable: OnUnreadable,
}

fn fixture(mailbox: usize) -> Fixture {
    let shared = Shared { notes: Arc::default(), gate: Arc::new(Semaphore::new(0)), unreadable: Arc::default() };
    let actor = Ref::new("/noting", mailbox);
    let of_each = shared.clone();
    let spec = ChildSpec::actor("noting", &actor, move |_| {
        let shared = of_each.clone();
        async move { Ok(Noting(shared)) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(spec)).unwrap();
    let export = Export::of(&actor).message::<Note>().done().unwrap();
    let unreadable = shared.unreadable.clone();
    let on_unreadable: OnUnreadable = Arc::new(move || {
        unreadable.fetch_add(1, Ordering::Relaxed);
    });
    Fixture { tree, actor, export, shared, on_unreadable }
}

impl Fixture {
    fn bring(&self, notes: impl IntoIterator<Item = u32>) -> usize {
        self.bring_bytes(&notes.into_iter().map(body).collect::<Vec<_>>())
    }
    fn bring_bytes(&self, bodies: &[Vec<u8>]) -> usize {
        let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        self.export.deliver_batch(1, 1, &bodies, &self.on_unreadable)
    }
    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let waiting = async {
            while !is() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}: it is {:?}", self.notes()));
    }
    async fn at_the_gate(&self) {
        self.until("at the gate", || self.info().busy_message.is_some_and(|message| message.ends_with("Note"))).await;
    }
    fn info(&self) -> ActorInfo {
        self.tree.info(PATH).unwrap()
    }
    fn notes(&self) -> Vec<u32> {
        self.shared.notes.lock().unwrap().clone()
    }
    fn dead(&self, reason: DeadReason) -> u64 {
        self.tree.dead_letters().count(reason)
    }
}

fn body(note: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&Note(note), &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn they_keep_their_order_among_themselves_and_with_others() {
    let f = fixture(1000);
    f.actor.tell(Note(1001)).unwrap();
    f.at_the_gate().await;
    assert_eq!(f.bring(0..MANY), MANY as usize);
    f.actor.tell(Note(MANY)).unwrap();
    assert_eq!(f.bring(MANY + 1..2 * MANY), MANY as usize - 1);
    assert_eq!(f.info().mailbox_depth, 2 * MANY as usize, "each has a place of its own");
    f.shared.gate.add_permits(1);
    f.actor.ask(Note(500), SOON).await.unwrap();
    let all: Vec<u32> = [1001].into_iter().chain(0..2 * MANY).chain([500]).collect();
    assert_eq!(f.notes(), all);
    assert_eq!(f.info().mailbox_depth, 0);
    f.tree.shutdown().await;
}

#[tokio::test]
async fn as_many_are_taken_as_the_mailbox_has_room_for() {
    let f = fixture(10);
    f.actor.tell(Note(1001)).unwrap();
    f.at_the_gate().await;
    f.actor.tell(Note(0)).unwrap();
    assert_eq!(f.bring(1..MANY), 9);
    assert_eq!(f.bring(10..MANY), 0);
    assert!(matches!(f.actor.tell(Note(0)), Err(CallError::Full(_))));
    f.shared.gate.add_permits(1);
    f.until("all handled", || f.notes().len() == 11).await;
    assert_eq!(f.bring(10..19), 9);
    f.actor.ask(Note(19), SOON).await.unwrap();
    assert_eq!(f.notes()[1..], (0..20).collect::<Vec<u32>>());
    f.tree.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_awaits_holds_up_those_behind_it() {
    let f = fixture(1000);
    assert_eq!(f.bring([1, 1001, 2, 1002, 3]), 5);
    for (permits, so_far) in [(0, vec![1]), (1, vec![1, 1001, 2]), (1, vec![1, 1001, 2, 1002, 3])] {
        f.shared.gate.add_permits(permits);
        f.until("as far as the gate", || f.notes() == so_far).await;
    }
    f.tree.shutdown().await;
}

#[tokio::test]
async fn between_two_of_them_the_actor_shows_itself_and_is_suspended() {
    let f = fixture(1000);
    assert_eq!(f.bring([1001].into_iter().chain(1..MANY)), MANY as usize);
    f.at_the_gate().await;
    assert!(f.tree.suspend(PATH));
    f.until("suspended", || f.info().suspended).await;
    f.shared.gate.add_permits(1);
    f.until("the one in hand", || f.notes() == [1001]).await;
    assert_eq!(f.tree.inspect(PATH, SOON).await.unwrap().state, json!(1));
    assert_eq!(f.info().mailbox_depth, MANY as usize - 1);
    assert!(f.tree.resume(PATH));
    f.until("the others", || f.notes().len() == MANY as usize).await;
    f.tree.shutdown().await;
}

#[tokio::test]
async fn those_behind_its_end_are_dead_letters() {
    type End = fn(&Fixture);
    let ends: [(&str, u32, End); 3] =
        [("panic", 2001, |_| ()), ("exit", 3001, |_| ()), ("kill", 1001, |f| assert!(f.tree.kill(PATH)))];
    for (name, third, end) in ends {
        let f = fixture(1000);
        assert_eq!(f.bring([1, 2, third, 4, 5, 6]), 6, "{name}");
        f.until(name, || f.notes().len() == 2).await;
        end(&f);
        f.until("another incarnation", || f.info().epoch == 2 && f.info().state == ActorState::Up).await;
        assert_eq!(f.dead(DeadReason::ActorEnded), 3, "{name}");
        assert_eq!(f.info().mailbox_depth, 0, "{name}");
        assert_eq!(f.bring([7, 8]), 2, "{name}");
        f.actor.ask(Note(9), SOON).await.unwrap();
        assert_eq!(f.notes(), [1, 2, 7, 8, 9], "{name}");
        f.tree.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_no_message_is_counted_and_left_out() {
    let f = fixture(1000);
    let bodies = [body(1), vec![], body(2), [body(3), vec![0]].concat(), body(4), vec![0xff; 9]];
    assert_eq!(f.bring_bytes(&bodies), 6);
    f.actor.ask(Note(5), SOON).await.unwrap();
    assert_eq!(f.notes(), [1, 2, 4, 5]);
    assert_eq!(f.shared.unreadable.load(Ordering::Relaxed), 3);
    assert_eq!((f.info().mailbox_depth, f.info().restarts), (0, 0));
    f.tree.shutdown().await;
}

#[tokio::test]
async fn nothing_is_taken_that_another_call_must_refuse() {
    let f = fixture(1000);
    let bodies = [&body(1)[..], &body(2)[..]];
    assert_eq!(f.export.deliver_batch(2, 1, &bodies, &f.on_unreadable), 0, "another message");
    assert_eq!(f.export.deliver_batch(1, 2, &bodies, &f.on_unreadable), 0, "another schema");
    f.tree.shutdown().await;
    assert_eq!(f.bring([1, 2]), 0, "it does not run");
    assert!(f.notes().is_empty());
}
