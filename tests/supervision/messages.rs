//! Sending: bounds, deadlines, order, and what becomes of messages that nobody can handle.

use bulkhead::supervisor::*;
use std::time::Duration;
use tokio::sync::oneshot;

const SOON: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Log {
    seen: Vec<u32>,
}
impl Actor for Log {}

struct Note(u32);
impl Message for Note {
    type Reply = ();
}
struct Read;
impl Message for Read {
    type Reply = Vec<u32>;
}
/// Says that it has begun, then keeps the actor busy, without its thread, until told.
struct Wait(oneshot::Sender<()>, oneshot::Receiver<()>);
impl Message for Wait {
    type Reply = ();
}
struct Spawn(u32);
impl Message for Spawn {
    type Reply = ();
}
struct WhoAmI;
impl Message for WhoAmI {
    type Reply = Token;
}

impl Handler<Note> for Log {
    async fn handle(&mut self, Note(n): Note, _: &Cx<Self>) -> Result<(), Exit> {
        self.seen.push(n);
        Ok(())
    }
}
impl Handler<Read> for Log {
    async fn handle(&mut self, _: Read, _: &Cx<Self>) -> Result<Vec<u32>, Exit> {
        Ok(self.seen.clone())
    }
}
impl Handler<Wait> for Log {
    async fn handle(&mut self, Wait(begun, done): Wait, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = begun.send(());
        let _ = done.await;
        Ok(())
    }
}
impl Handler<Spawn> for Log {
    async fn handle(&mut self, Spawn(n): Spawn, cx: &Cx<Self>) -> Result<(), Exit> {
        for i in 0..n {
            cx.spawn(async move { Note(i) });
        }
        Ok(())
    }
}
impl Handler<WhoAmI> for Log {
    async fn handle(&mut self, _: WhoAmI, cx: &Cx<Self>) -> Result<Token, Exit> {
        Ok(cx.token())
    }
}

fn spec(address: &Ref<Log>) -> ChildSpec {
    ChildSpec::actor("log", address, |_| async { Ok(Log::default()) })
}

fn house(bound: usize) -> (Tree, Ref<Log>) {
    let address = Ref::new("/log", bound);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(spec(&address));
    (Tree::start(root).unwrap(), address)
}

/// Keeps the actor busy until the sender is used; its mailbox is empty then.
async fn busy(log: &Ref<Log>) -> oneshot::Sender<()> {
    let (done, wait) = oneshot::channel();
    let (begun, seen) = oneshot::channel();
    log.tell(Wait(begun, wait)).unwrap();
    seen.await.unwrap();
    done
}

#[tokio::test]
async fn an_address_is_usable_before_and_after_its_tree() {
    let address = Ref::new("/log", 4);
    assert!(matches!(address.tell(Note(7)), Err(CallError::NotRunning(Note(7)))));
    assert!(matches!(address.ask(Read, SOON).await, Err(CallError::NotRunning(Read))));
    for _ in 0..2 {
        let tree = Tree::start(SupervisorSpec::new("root").child(spec(&address))).unwrap();
        address.tell(Note(1)).unwrap();
        assert_eq!(address.ask(Read, SOON).await.unwrap(), [1], "fresh state");
        assert_eq!(tree.shutdown().await, Exit::Shutdown);
        let error = address.tell(Note(7)).unwrap_err();
        assert!(matches!(error, CallError::NotRunning(Note(7))), "{error:?}");
        assert_eq!(error.to_string(), "the actor is not running");
    }
}

#[tokio::test]
async fn the_bound_is_the_bound_however_many_addresses_there_are() {
    let (tree, log) = house(3);
    let done = busy(&log).await;
    for n in 0..3 {
        log.clone().tell(Note(n)).unwrap();
    }
    for _ in 0..100 {
        assert!(matches!(log.clone().tell(Note(9)), Err(CallError::Full(Note(9)))));
        assert!(matches!(log.recipient().tell(Note(9)), Err(CallError::Full(Note(9)))));
        assert!(matches!(log.ask(Read, SOON).await, Err(CallError::Full(Read))));
    }
    let info = tree.info("root/log").unwrap();
    assert_eq!((info.mailbox_depth, info.mailbox_bound), (3, 3));
    assert!(info.busy_message.unwrap().ends_with("Wait"));
    done.send(()).unwrap();
    let seen = loop {
        match log.ask(Read, SOON).await {
            Ok(seen) => break seen,
            Err(CallError::Full(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(tree.info("root/log").unwrap().mailbox_depth, 0);
    assert!(tree.dead_letters().count(DeadReason::Full) >= 300);
    tree.shutdown().await;
}

#[tokio::test]
async fn an_actors_own_finished_work_is_never_refused() {
    let (tree, log) = house(1);
    log.ask(Spawn(100), SOON).await.unwrap();
    let seen = loop {
        match log.ask(Read, SOON).await {
            Ok(seen) if seen.len() == 100 => break seen,
            Ok(_) | Err(CallError::Full(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!((0..100).all(|n| seen.contains(&n)));
    tree.shutdown().await;
}

#[tokio::test]
async fn an_ask_that_gave_up_is_not_handled() {
    let (tree, log) = house(8);
    let done = busy(&log).await;
    let late = log.ask(Read, Duration::from_millis(5)).await;
    assert!(matches!(late, Err(CallError::Timeout)), "{late:?}");
    log.tell(Note(1)).unwrap();
    done.send(()).unwrap();
    assert_eq!(log.ask(Read, SOON).await.unwrap(), [1]);
    assert_eq!(tree.dead_letters().count(DeadReason::Expired), 1);
    let letter = tree.dead_letters().recent().pop().unwrap();
    assert!(letter.to == "/log" && letter.message.ends_with("Read"), "{letter:?}");
    tree.shutdown().await;
}

#[tokio::test]
async fn a_kill_interrupts_the_handler_and_frees_the_asker() {
    let (tree, log) = house(8);
    let (begun, seen) = oneshot::channel();
    let (_never, wait) = oneshot::channel();
    let to = log.clone();
    let asked = tokio::spawn(async move { to.ask(Wait(begun, wait), SOON).await });
    seen.await.unwrap();
    let asker = log.clone();
    let queued = tokio::spawn(async move { asker.ask(Read, SOON).await });
    while tree.info("root/log").unwrap().mailbox_depth == 0 {
        tokio::task::yield_now().await;
    }
    assert!(tree.kill("root/log"));
    let answer = asked.await.unwrap();
    assert!(matches!(answer, Err(CallError::Exited(Exit::Killed))), "{answer:?}");
    let answer = queued.await.unwrap();
    assert!(matches!(answer, Err(CallError::Restarting(Read))), "{answer:?}");
    assert!(!tree.kill("root/nobody") && !tree.kill("root") && !tree.kill(""));
    tree.shutdown().await;
}

#[test]
fn asks_need_no_runtime_of_the_askers() {
    let (tree, log) = house(8);
    let seen = std::thread::scope(|s| {
        let plain = s.spawn(|| {
            futures::executor::block_on(async {
                log.tell(Note(1)).unwrap();
                let timed_out = log.recipient::<Read>().ask(Read, Duration::ZERO).await;
                assert!(matches!(timed_out, Ok(_) | Err(CallError::Timeout)));
                log.ask(Read, SOON).await.unwrap()
            })
        });
        plain.join().unwrap()
    });
    assert_eq!(seen, [1]);
    assert_eq!(futures::executor::block_on(tree.shutdown()), Exit::Shutdown);
}

#[tokio::test]
async fn one_senders_messages_keep_their_order() {
    let (tree, log) = house(100_000);
    for n in 0..50_000 {
        log.tell(Note(n)).unwrap();
    }
    let seen = log.ask(Read, SOON).await.unwrap();
    assert!(seen.iter().copied().eq(0..50_000));
    tree.shutdown().await;
}

#[tokio::test]
async fn tokens_grow_with_each_incarnation_from_the_given_base() {
    let address = Ref::<Log>::new("/log", 4);
    let mut last = 0;
    for boot in 1u64..=2 {
        let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(spec(&address));
        let tree = Tree::start_with(root, TreeOptions { epoch_base: boot << 32, ..TreeOptions::default() }).unwrap();
        for _ in 0..2 {
            let token = loop {
                match address.ask(WhoAmI, SOON).await {
                    Ok(token) if token.epoch > last => break token,
                    _ => tokio::task::yield_now().await,
                }
            };
            assert_eq!(&*token.path, "/log");
            assert_eq!(token.epoch >> 32, boot);
            assert_eq!(tree.info("root/log").unwrap().epoch, token.epoch);
            last = token.epoch;
            tree.kill("root/log");
        }
        tree.shutdown().await;
    }
}

#[tokio::test]
async fn a_suspended_actor_queues_and_goes_on_when_resumed() {
    let (tree, log) = house(8);
    assert!(tree.suspend("root/log"));
    // The order is on its way; once a message stays in the queue, it has arrived.
    let mut n = 0;
    while tree.info("root/log").unwrap().mailbox_depth == 0 {
        log.ask(Note(n), Duration::from_millis(50)).await.ok();
        n += 1;
    }
    assert!(matches!(log.ask(Read, Duration::from_millis(50)).await, Err(CallError::Timeout)));
    assert!(tree.resume("root/log"));
    assert!(log.ask(Read, SOON).await.is_ok());
    tree.shutdown().await;
}

#[tokio::test]
async fn messages_queue_while_the_actor_starts() {
    let address = Ref::<Log>::new("/log", 8);
    let to = address.clone();
    let started = ChildSpec::actor("log", &address, move |cx: Cx<Log>| {
        let to = to.clone();
        async move {
            cx.myself().tell(Note(1)).map_err(|e| StartError(e.to_string()))?;
            to.tell(Note(2)).map_err(|e| StartError(e.to_string()))?;
            cx.tell_after(Duration::ZERO, Note(3));
            Ok(Log::default())
        }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(started)).unwrap();
    let seen = loop {
        let seen = address.ask(Read, SOON).await.unwrap();
        if seen.len() == 3 {
            break seen;
        }
    };
    assert_eq!(seen, [1, 2, 3]);
    tree.shutdown().await;
}
