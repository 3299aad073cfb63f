//! A handler that blocks its thread: found, killed, its thread given up, a successor serving, the old one fenced.

use bulkhead::supervisor::*;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Far more than a loaded machine needs.
const SOON: Duration = Duration::from_secs(120);

struct Worker;
impl Actor for Worker {}
/// Blocks the thread until told; sends the token it acts under before and after.
struct Block {
    until: Arc<Mutex<mpsc::Receiver<()>>>,
    report: mpsc::Sender<Token>,
}
impl Message for Block {
    type Reply = ();
}
struct Ping;
impl Message for Ping {
    type Reply = Token;
}
impl Handler<Block> for Worker {
    async fn handle(&mut self, m: Block, cx: &Cx<Self>) -> Result<(), Exit> {
        let _ = m.report.send(cx.token());
        let _ = m.until.lock().unwrap().recv();
        let _ = m.report.send(cx.token());
        Ok(())
    }
}
impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, cx: &Cx<Self>) -> Result<Token, Exit> {
        Ok(cx.token())
    }
}

impl Handler<Down> for Worker {
    async fn handle(&mut self, _: Down, _: &Cx<Self>) -> Result<(), Exit> {
        Ok(())
    }
}
struct Panic;
impl Message for Panic {
    type Reply = ();
}
impl Handler<Panic> for Worker {
    async fn handle(&mut self, _: Panic, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("asked to")
    }
}

fn worker(id: &str, address: &Ref<Worker>) -> ChildSpec {
    ChildSpec::actor(id, address, |_| async { Ok(Worker) }).hang_after(Duration::from_secs(3))
}

async fn ping(address: &Ref<Worker>, after: u64) -> Token {
    tokio::time::timeout(SOON, async {
        loop {
            match address.ask(Ping, Duration::from_millis(100)).await {
                Ok(token) if token.epoch > after => return token,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("an incarnation that answers")
}

#[tokio::test]
async fn a_blocked_thread_is_given_up_and_its_actors_go_on_elsewhere() {
    let (stuck, neighbour, far) = (Ref::new("/stuck", 4), Ref::new("/neighbour", 4), Ref::new("/far", 4));
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .intensity(9, Duration::from_secs(60))
        .child(worker("stuck", &stuck))
        .child(worker("neighbour", &neighbour))
        .child(worker("far", &far).on(Thread::Dedicated));
    let tree = Tree::start(root).unwrap();
    let (free, until) = mpsc::channel();
    let (report, tokens) = mpsc::channel();
    stuck.tell(Block { until: Arc::new(Mutex::new(until)), report }).unwrap();
    let old = tokens.recv().unwrap();
    assert_eq!(ping(&far, 0).await.epoch, 1);
    assert!(tree.info("root/stuck").unwrap().busy_message.unwrap().ends_with("Block"));
    let new = ping(&stuck, old.epoch).await;
    assert_eq!((old.epoch, new.epoch), (1, 2));
    assert_eq!(ping(&neighbour, 1).await.epoch, 2, "it was on the same thread");
    assert_eq!(ping(&far, 0).await.epoch, 1, "it was not");
    assert!(matches!(tree.info("root/stuck").unwrap().last_exit, Some(Exit::Hung(_))));
    assert!(tree.zombies() >= 1);
    // The old one wakes up: it still acts under its old token, and takes nothing from its successor.
    free.send(()).unwrap();
    assert_eq!(tokens.recv().unwrap(), old);
    assert_eq!(tokens.recv(), Err(mpsc::RecvError), "the old incarnation is gone");
    for _ in 0..100 {
        assert_eq!(stuck.ask(Ping, SOON).await.unwrap().epoch, 2);
    }
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_blocked_thread_does_not_hold_up_a_kill_or_the_shutdown() {
    let (stuck, other) = (Ref::new("/stuck", 4), Ref::new("/other", 4));
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .child(worker("other", &other))
        .child(worker("stuck", &stuck).hang_after(SOON).on(Thread::Dedicated).shutdown(Shutdown::BrutalKill));
    let tree = Tree::start(root).unwrap();
    let (_keep, until) = mpsc::channel();
    let (report, tokens) = mpsc::channel();
    let until = Arc::new(Mutex::new(until));
    stuck.tell(Block { until, report: report.clone() }).unwrap();
    tokens.recv().unwrap();
    assert!(tree.kill("root/stuck"));
    assert_eq!(ping(&stuck, 1).await.epoch, 2);
    let (_keep_too, until) = mpsc::channel();
    stuck.tell(Block { until: Arc::new(Mutex::new(until)), report }).unwrap();
    tokens.recv().unwrap();
    let ticks = tree.watchdog_ticks();
    assert_eq!(tokio::time::timeout(SOON, tree.shutdown()).await.unwrap(), Exit::Shutdown);
    assert!(tree.watchdog_ticks() > ticks, "the watchdog went on");
    assert_eq!(tree.zombies(), 2);
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    tokio::time::timeout(SOON, async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn a_thread_that_comes_back_is_no_zombie_any_more() {
    let address = Ref::new("/stuck", 4);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON);
    let options = TreeOptions { max_zombies: 1, ..TreeOptions::default() };
    let tree = Tree::start_with(root.child(worker("stuck", &address)), options).unwrap();
    // More hangs than stuck threads are allowed, but one at a time.
    for hang in 1..=3 {
        let (free, until_then) = mpsc::channel();
        let (report, tokens) = mpsc::channel();
        address.tell(Block { until: Arc::new(Mutex::new(until_then)), report }).unwrap();
        tokens.recv().unwrap();
        assert!(tree.kill("root/stuck"));
        assert_eq!(ping(&address, hang).await.epoch, hang + 1);
        assert_eq!(tree.zombies(), 1);
        free.send(()).unwrap();
        until("the thread is gone", || tree.zombies() == 0).await;
    }
    assert_eq!(tree.ended(), None);
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_hang_on_request_takes_the_course_of_a_real_one() {
    let (stuck, neighbour) = (Ref::new("/stuck", 4), Ref::new("/neighbour", 4));
    // The neighbour on the thread may not be restarted even once for a fault of its own.
    let beside =
        SupervisorSpec::new("beside").backoff(RestartBackoff::NONE).intensity(0, SOON).child(worker("w", &neighbour));
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .intensity(1, SOON)
        .child(ChildSpec::supervisor(beside))
        .child(worker("stuck", &stuck));
    let options = TreeOptions { hang_after: Some(Duration::from_secs(1)), ..TreeOptions::default() };
    let tree = Tree::start_with(root, options).unwrap();
    for no_worker in ["root", "root/beside", "root/nobody"] {
        assert!(!tree.hang(no_worker), "{no_worker}");
    }
    assert!(tree.hang("root/stuck"));
    assert_eq!(ping(&stuck, 1).await.epoch, 2);
    assert_eq!(ping(&neighbour, 1).await.epoch, 2, "on the same thread, in a group without a budget");
    let exit = |path: &str| tree.info(path).unwrap().last_exit;
    assert!(matches!(exit("root/stuck"), Some(Exit::Hung(_))), "{:?}", exit("root/stuck"));
    assert!(matches!(exit("root/beside/w"), Some(Exit::Hung(_))));
    until("the thread is gone", || tree.zombies() == 0).await;
    assert_eq!((tree.info("root").unwrap().restart_budget_used, exit("root/beside")), (Some(1), None));
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_start_that_waited_on_a_given_up_thread_takes_nothing_from_its_successor() {
    let (stuck, other, watcher) = (Ref::new("/stuck", 4), Ref::new("/other", 4), Ref::new("/watcher", 4));
    let wait = Duration::from_secs(1);
    let backoff = RestartBackoff { first: wait, cap: wait, reset_after: SOON };
    let root = SupervisorSpec::new("root")
        .backoff(backoff)
        .intensity(9, SOON)
        .child(worker("watcher", &watcher).on(Thread::Dedicated))
        .child(worker("stuck", &stuck).on(Thread::Shared("io")))
        .child(worker("other", &other).on(Thread::Shared("io")));
    let tree = Tree::start(root).unwrap();
    other.tell(Panic).unwrap();
    until("it waits for its restart", || tree.info("root/other").unwrap().state == ActorState::Restarting).await;
    let (free, until_then) = mpsc::channel();
    let (report, tokens) = mpsc::channel();
    stuck.tell(Block { until: Arc::new(Mutex::new(until_then)), report }).unwrap();
    tokens.recv().unwrap();
    // Its second start is queued behind the stuck one and given up with it; the third is elsewhere.
    assert_eq!(ping(&other, 2).await.epoch, 3);
    let monitor = other.monitor(watcher.recipient());
    assert_eq!(monitor.watchers(), 1);
    free.send(()).unwrap();
    until("the thread is gone", || tree.zombies() == 0).await;
    assert_eq!(monitor.watchers(), 1, "nobody was told of an end");
    assert_eq!(other.ask(Ping, SOON).await.unwrap().epoch, 3);
    assert_eq!(tree.info("root/other").unwrap().epoch, 3);
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_thread_that_comes_back_leaves_its_successor_alone() {
    let address = Ref::new("/stuck", 4);
    let hang_after = Duration::from_secs(1);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON);
    let tree = Tree::start(root.child(worker("stuck", &address).hang_after(hang_after))).unwrap();
    let (free, until_then) = mpsc::channel();
    let (report, tokens) = mpsc::channel();
    address.tell(Block { until: Arc::new(Mutex::new(until_then)), report }).unwrap();
    tokens.recv().unwrap();
    assert_eq!(ping(&address, 1).await.epoch, 2);
    until("it is idle", || tree.info("root/stuck").unwrap().busy_message.is_none()).await;
    free.send(()).unwrap();
    until("the thread is gone", || tree.zombies() == 0).await;
    let (before, rounds) = (tree.watchdog_ticks(), 3 * hang_after.as_millis() as u64 / 250);
    until("the watchdog has looked", || tree.watchdog_ticks() > before + rounds).await;
    let row = tree.info("root/stuck").unwrap();
    assert_eq!((row.incarnation, row.busy_message), (2, None), "it did nothing meanwhile");
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

/// Says under which epoch it was handled.
struct Note(mpsc::Sender<u64>);
impl Message for Note {
    type Reply = u64;
}
impl Handler<Note> for Worker {
    async fn handle(&mut self, Note(seen): Note, cx: &Cx<Self>) -> Result<u64, Exit> {
        let epoch = cx.token().epoch;
        let _ = seen.send(epoch);
        Ok(epoch)
    }
}

/// As [`Block`], then goes on after an await.
struct BlockAndGoOn(Block);
impl Message for BlockAndGoOn {
    type Reply = ();
}
impl Handler<BlockAndGoOn> for Worker {
    async fn handle(&mut self, BlockAndGoOn(m): BlockAndGoOn, cx: &Cx<Self>) -> Result<(), Exit> {
        let _ = m.report.send(cx.token());
        let _ = m.until.lock().unwrap().recv();
        tokio::task::yield_now().await;
        let _ = m.report.send(cx.token());
        Ok(())
    }
}

#[tokio::test]
async fn a_given_up_incarnation_handles_nothing_of_its_mailbox_when_its_thread_wakes() {
    for goes_on in [false, true] {
        let address = Ref::new("/stuck", 16);
        let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON);
        let tree = Tree::start(root.child(worker("stuck", &address).hang_after(SOON))).unwrap();
        let (free, until_then) = mpsc::channel();
        let (report, tokens) = mpsc::channel();
        let block = Block { until: Arc::new(Mutex::new(until_then)), report };
        let caller = address.clone();
        let in_hand = tokio::spawn(async move {
            match goes_on {
                true => caller.ask(BlockAndGoOn(block), SOON).await.map_err(CallError::drop_message),
                false => caller.ask(block, SOON).await.map_err(CallError::drop_message),
            }
        });
        let old = tokio::task::spawn_blocking(move || (tokens.recv().unwrap(), tokens)).await.unwrap();
        let (old, tokens) = old;
        // Ten tells and an ask wait behind it.
        let (seen, handled) = mpsc::channel();
        for _ in 0..10 {
            address.tell(Note(seen.clone())).unwrap();
        }
        let (caller, last) = (address.clone(), Note(seen));
        let asked = tokio::spawn(async move { caller.ask(last, SOON).await.map_err(CallError::drop_message) });
        until("the ask waits too", || tree.info("root/stuck").unwrap().mailbox_depth == 11).await;
        assert!(tree.kill("root/stuck"));
        assert_eq!(ping(&address, old.epoch).await.epoch, 2);
        free.send(()).unwrap();
        until("the thread is gone", || tree.zombies() == 0).await;
        let heard = asked.await.unwrap();
        assert!(matches!(heard, Err(CallError::Restarting(()))), "nobody handled it: {heard:?}");
        let heard = in_hand.await.unwrap();
        assert!(matches!(heard, Err(CallError::Exited(Exit::Hung(_)))), "its state is gone: {heard:?}");
        assert_eq!(handled.iter().count(), 0, "nothing was handled under the old epoch");
        let late = tokens.iter().count();
        assert_eq!(late, usize::from(!goes_on), "after an await it does not go on");
        assert_eq!(address.ask(Ping, SOON).await.unwrap().epoch, 2);
        assert_eq!(tree.shutdown().await, Exit::Shutdown);
    }
}
