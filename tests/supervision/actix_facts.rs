//! How actix 0.13.5 really behaves: each test justifies a workaround in `src/supervisor/`, and speaks up when an upgrade changes it.

use crate::support::test_of_this_file;
use actix::prelude::*;
use actix::{Actor, Context, Handler};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Counts what actix calls; optionally panics or asks to go on.
#[derive(Clone, Default)]
struct Seen {
    stopping: Arc<AtomicU32>,
    stopped: Arc<AtomicU32>,
    handled: Arc<AtomicU32>,
    go_on: bool,
    panic_in_stopped: bool,
}
impl Actor for Seen {
    type Context = Context<Self>;
    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.stopping.fetch_add(1, SeqCst);
        if self.go_on { Running::Continue } else { Running::Stop }
    }
    fn stopped(&mut self, _: &mut Context<Self>) {
        self.stopped.fetch_add(1, SeqCst);
        assert!(!self.panic_in_stopped, "a second panic");
    }
}

struct Boom;
impl Message for Boom {
    type Result = ();
}
impl Handler<Boom> for Seen {
    type Result = ();
    fn handle(&mut self, _: Boom, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}
struct Count;
impl Message for Count {
    type Result = ();
}
impl Handler<Count> for Seen {
    type Result = ();
    fn handle(&mut self, _: Count, _: &mut Context<Self>) {
        self.handled.fetch_add(1, SeqCst);
    }
}

fn system<T>(work: impl Future<Output = T>) -> T {
    System::new().block_on(work)
}
/// Lets every task of this thread run.
async fn turns(n: usize) {
    for _ in 0..n {
        tokio::task::yield_now().await;
    }
}

#[test]
fn panic_closes_mailbox_arbiter_survives() {
    system(async {
        let a = Seen::default().start();
        assert!(matches!(a.send(Boom).await, Err(MailboxError::Closed)));
        assert!(!a.connected(), "nothing restarts it");
        let b = Seen::default();
        let handled = b.handled.clone();
        b.start().send(Count).await.unwrap();
        assert_eq!(handled.load(SeqCst), 1, "the thread goes on");
    });
}

#[test]
fn panic_runs_stopping_and_stopped_on_drop() {
    system(async {
        let seen = Seen::default();
        let a = seen.clone().start();
        let _ = a.send(Boom).await;
        turns(4).await;
        assert_eq!((seen.stopping.load(SeqCst), seen.stopped.load(SeqCst)), (1, 1));
    });
}

#[test]
fn panic_then_stopping_continue() {
    system(async {
        let seen = Seen { go_on: true, ..Seen::default() };
        let a = seen.clone().start();
        a.do_send(Boom);
        a.do_send(Count);
        turns(8).await;
        assert_eq!(seen.handled.load(SeqCst), 1, "handled on the state that panicked");
    });
}

#[test]
fn panic_in_stopped_aborts() {
    const CHILD: &str = "ACTIX_FACTS_ABORT";
    if std::env::var_os(CHILD).is_some() {
        system(async {
            let seen = Seen { panic_in_stopped: true, ..Seen::default() };
            let a = seen.start();
            let _ = a.send(Boom).await;
            turns(8).await;
        });
        return;
    }
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me)
        .args(["--exact", test_of_this_file!("panic_in_stopped_aborts"), "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status:?}");
}

#[test]
fn terminate_before_drop_skips_hooks() {
    system(async {
        let seen = Seen { panic_in_stopped: true, ..Seen::default() };
        let context = Context::new();
        let address = context.address();
        let mut life = context.into_future(seen.clone());
        address.do_send(Boom);
        let waker = std::task::Waker::noop();
        let mut task = std::task::Context::from_waker(waker);
        assert!(catch_unwind(AssertUnwindSafe(|| Pin::new(&mut life).poll(&mut task).is_ready())).is_err());
        ActorContext::terminate(life.ctx());
        drop(life);
        assert_eq!((seen.stopping.load(SeqCst), seen.stopped.load(SeqCst)), (0, 0));
    });
}

/// Stops itself as soon as it starts, so many times.
struct Stops {
    starts: Arc<AtomicUsize>,
}
const HOT: usize = 100_000;
impl Actor for Stops {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.starts.fetch_add(1, SeqCst) < HOT {
            ctx.stop();
        }
    }
}
impl Supervised for Stops {}

#[test]
fn started_stop_hot_loop() {
    system(async {
        let starts = Arc::new(AtomicUsize::new(0));
        let (ticks, mine) = (Rc::new(RefCell::new(Vec::new())), starts.clone());
        let seen = ticks.clone();
        let watched = starts.clone();
        actix_rt::spawn(async move {
            for _ in 0..1000 {
                seen.borrow_mut().push(watched.load(SeqCst));
                tokio::task::yield_now().await;
            }
        });
        let _keep = Supervisor::start(move |_| Stops { starts: mine });
        turns(1100).await;
        let between = ticks.borrow().iter().filter(|n| (1..HOT).contains(*n)).count();
        assert!(starts.load(SeqCst) > HOT);
        assert_eq!(between, 0, "no other task ran between the first start and the last");
    });
}

struct Cancels {
    fired: Arc<AtomicBool>,
    lives: u32,
}
impl Actor for Cancels {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        self.lives += 1;
        if self.lives == 2 {
            let fired = self.fired.clone();
            ctx.run_later(Duration::from_millis(1), move |_, _| fired.store(true, SeqCst));
        }
    }
}
impl Supervised for Cancels {}
impl Handler<Boom> for Cancels {
    type Result = ();
    fn handle(&mut self, _: Boom, ctx: &mut Context<Self>) {
        let first = ctx.run_later(Duration::from_secs(3600), |_, _| ());
        ctx.cancel_future(first);
        ctx.stop();
    }
}

#[test]
fn stale_cancel_after_restart() {
    system(async {
        let fired = Arc::new(AtomicBool::new(false));
        let mine = fired.clone();
        let a = Supervisor::start(move |_| Cancels { fired: mine, lives: 0 });
        a.send(Boom).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!fired.load(SeqCst), "the new life's first timer was cancelled by the old one");
    });
}

#[derive(Default)]
struct Orders {
    seen: Rc<RefCell<Vec<u32>>>,
}
struct Note(u32);
impl Message for Note {
    type Result = ();
}
impl Actor for Orders {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        (1..=3).for_each(|n| ctx.notify(Note(n)));
    }
}
impl Handler<Note> for Orders {
    type Result = ();
    fn handle(&mut self, Note(n): Note, _: &mut Context<Self>) {
        self.seen.borrow_mut().push(n);
    }
}

#[test]
fn notify_order() {
    system(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let _keep = Orders { seen: seen.clone() }.start();
        turns(8).await;
        assert_eq!(*seen.borrow(), [1, 3, 2]);
    });
}

/// Never gets to its mailbox: its first message waits for ever.
struct Blocked;
impl Actor for Blocked {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(1);
        ctx.wait(actix::fut::wrap_future::<_, Self>(std::future::pending()));
    }
}
impl Handler<Count> for Blocked {
    type Result = ();
    fn handle(&mut self, _: Count, _: &mut Context<Self>) {}
}

#[test]
fn clone_defeats_bound() {
    system(async {
        let a = Blocked.start();
        turns(4).await;
        let accepted = (0..100).filter(|_| a.clone().try_send(Count).is_ok()).count();
        assert_eq!(accepted, 100, "capacity 1");
    });
}

/// As [`Blocked`] until it is told; then it counts.
struct Gated {
    open: Option<tokio::sync::oneshot::Receiver<()>>,
    handled: Rc<std::cell::Cell<usize>>,
}
impl Actor for Gated {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(1);
        let open = self.open.take().unwrap();
        ctx.wait(actix::fut::wrap_future::<_, Self>(async { drop(open.await) }));
    }
}
impl Handler<Count> for Gated {
    type Result = ();
    fn handle(&mut self, _: Count, _: &mut Context<Self>) {
        self.handled.set(self.handled.get() + 1);
    }
}

#[test]
fn send_never_waits() {
    system(async {
        let (gate, open) = tokio::sync::oneshot::channel();
        let handled = Rc::new(std::cell::Cell::new(0));
        let a = Gated { open: Some(open), handled: handled.clone() }.start();
        turns(4).await;
        let mut sends: Vec<_> = (0..100).map(|_| Box::pin(a.send(Count))).collect();
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        for send in &mut sends {
            assert!(send.as_mut().poll(&mut task).is_pending());
        }
        // Not polled again: one that waited for room would never get its message into a mailbox of capacity 1.
        gate.send(()).unwrap();
        turns(200).await;
        assert_eq!(handled.get(), 100, "each has pushed its message past the bound");
        for send in sends {
            send.await.unwrap();
        }
    });
}

#[test]
fn send_dropped_is_skipped() {
    system(async {
        let seen = Seen::default();
        let a = seen.clone().start();
        drop(a.send(Count));
        a.send(Count).await.unwrap();
        assert_eq!(seen.handled.load(SeqCst), 1);
    });
}

struct Sync1;
impl Actor for Sync1 {
    type Context = SyncContext<Self>;
}
impl Handler<Boom> for Sync1 {
    type Result = ();
    fn handle(&mut self, _: Boom, _: &mut SyncContext<Self>) {
        panic!("on purpose");
    }
}

impl Handler<Count> for Sync1 {
    type Result = ();
    fn handle(&mut self, _: Count, _: &mut SyncContext<Self>) {}
}

#[test]
fn sync_arbiter_last_worker_panic() {
    system(async {
        // (workers, whether a message that harms nobody is served after one of them panicked)
        for (workers, served) in [(1, false), (2, true)] {
            let a = SyncArbiter::start(workers, || Sync1);
            a.send(Count).await.unwrap();
            assert!(a.send(Boom).await.is_err());
            assert_eq!(a.send(Count).await.is_ok(), served, "{workers} workers");
            turns(8).await;
            // The pool is empty: that message panicked in the task that feeds it, and the address is dead for good.
            assert_eq!(matches!(a.send(Count).await, Err(MailboxError::Closed)), !served, "{workers} workers");
        }
    });
}

/// Tells itself the next message from each, so that its mailbox is never empty.
struct Flooded {
    left: u32,
    each: u32,
    since: u32,
}
impl Actor for Flooded {
    type Context = Context<Self>;
}
impl Handler<Count> for Flooded {
    type Result = ();
    fn handle(&mut self, _: Count, ctx: &mut Context<Self>) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        self.since += 1;
        ctx.address().do_send(Count);
        if self.since == self.each {
            self.since = 0;
            ctx.wait(actix::fut::wrap_future::<_, Self>(tokio::task::yield_now()));
        }
    }
}

/// How often a neighbour on the thread ran while an actor handled 100,000 messages.
fn neighbours_turns(each: u32) -> usize {
    system(async move {
        let a = Flooded { left: 100_000, each, since: 0 }.start();
        let turns = Rc::new(std::cell::Cell::new(0));
        let mine = turns.clone();
        actix_rt::spawn(async move {
            loop {
                mine.set(mine.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        // Behind the flood in the same mailbox, so that it comes back when the flood is over.
        a.do_send(Count);
        let before = turns.get();
        let _ = a.send(Count).await;
        while a.send(Left).await.unwrap() > 0 {}
        turns.get() - before
    })
}
struct Left;
impl Message for Left {
    type Result = u32;
}
impl Handler<Left> for Flooded {
    type Result = u32;
    fn handle(&mut self, _: Left, _: &mut Context<Self>) -> u32 {
        self.left
    }
}

#[test]
fn flood_starves_neighbours_and_yield_budget_keeps_them() {
    assert!(neighbours_turns(u32::MAX) < 100);
    assert!(neighbours_turns(64) > 1000);
}

#[test]
fn arbiter_drop_waits_spawn_blocking() {
    let done = Arc::new(AtomicBool::new(false));
    let mine = done.clone();
    system(async move {
        let (begun, seen) = std::sync::mpsc::channel();
        let arbiter = Arbiter::new();
        arbiter.spawn_fn(move || {
            tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                mine.store(true, SeqCst);
            });
        });
        seen.recv().unwrap();
        arbiter.stop();
        arbiter.join().unwrap();
    });
    assert!(done.load(SeqCst), "the thread ended only after its blocking work");
}

#[test]
fn start_off_localset_panics() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (started, arbiter) = runtime.block_on(async {
        tokio::spawn(async {
            let started = catch_unwind(|| drop(Seen::default().start())).is_err();
            (started, catch_unwind(|| drop(Arbiter::new())).is_err())
        })
        .await
        .unwrap()
    });
    assert!(started && arbiter);
}
