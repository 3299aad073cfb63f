//! Staying awake for a moment where more is expected: waking a sleeping core costs ten times what most answers take.
//!
//! Nothing here blocks: a lingering task wakes itself and goes to the back of its thread's queue each time, and its
//! thread to the back of the core's. Where that gives the core to somebody else's long work, lingering stops for a while.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long an actor that was called from another thread waits for the next call, and such a caller for its answer.
pub(super) const CHAT: Duration = Duration::from_micros(20);
/// How long a thread on which an actor was started waits for the next start, and who asked for it for the answer.
pub(in crate::supervisor) const STEP: Duration = Duration::from_micros(60);
/// After waiting in vain: at most a tenth of a thread's time is spent so.
const REST: Duration = Duration::from_micros(200);
/// A core that was away for so long is wanted by others.
const AWAY: Duration = Duration::from_micros(100);
/// A sleeping thread is scheduled at once when it is woken, a yielding one after the others' time slices.
const CONTESTED: Duration = Duration::from_millis(50);

thread_local! {
    static NOT_BEFORE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Asks under way to other threads.
    static ASKS: Cell<u32> = const { Cell::new(0) };
    static NO_ASK_BEFORE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Tells threads apart: an address within the present one, so never 0.
pub(crate) fn here() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// Whether a task that wakes itself costs nothing else here: on a runtime of many threads it would wake its neighbours.
pub(in crate::supervisor) fn allowed() -> bool {
    Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

fn rests(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}

/// One step of lingering until then; false: time to sleep.
fn step(task: &mut Context<'_>, now: Instant, until: Instant) -> bool {
    if now >= until || rests(NOT_BEFORE.get(), now) {
        return false;
    }
    std::thread::yield_now();
    if now.elapsed() > AWAY {
        NOT_BEFORE.set(Some(Instant::now() + CONTESTED));
    }
    task.waker().wake_by_ref();
    true
}

/// An actor's mailbox between two calls.
#[derive(Default)]
pub(super) struct Linger {
    until: Option<Instant>,
    not_before: Option<Instant>,
}

impl Linger {
    /// The task has nothing to do. `called`: whether it had since the last time this was asked.
    pub fn idle(&mut self, task: &mut Context<'_>, called: impl Fn() -> bool) {
        if self.until.is_none() && !called() {
            return;
        }
        let now = Instant::now();
        let until = match self.until {
            Some(until) if now < until => until,
            Some(_) if !called() => {
                self.not_before = Some(now + REST);
                self.until = None;
                return;
            }
            _ if rests(self.not_before, now) => return,
            _ => now + CHAT,
        };
        self.until = step(task, now, until).then_some(until);
    }
}

/// An asker's wait for an answer from another thread.
pub(super) struct Expect {
    until: Option<Instant>,
}

impl Expect {
    pub fn answer(now: Instant) -> Option<Expect> {
        let others = ASKS.get();
        if others == 0 && !allowed() {
            return None;
        }
        ASKS.set(others + 1);
        let alone = others == 0 && !rests(NO_ASK_BEFORE.get(), now);
        Some(Expect { until: alone.then(|| now + CHAT) })
    }
    /// False: time to sleep. A thread with several asks under way has its work from the answers, and need not linger.
    pub fn goes_on(&mut self, task: &mut Context<'_>) -> bool {
        let Some(until) = self.until.filter(|_| ASKS.get() <= 1) else { return false };
        let now = Instant::now();
        let on = step(task, now, until);
        if !on {
            NO_ASK_BEFORE.set(Some(now + REST));
            self.until = None;
        }
        on
    }
}

impl Drop for Expect {
    fn drop(&mut self) {
        ASKS.set(ASKS.get().saturating_sub(1)); // it may have moved here from another thread
    }
}

/// Waits for `event`, the first `moment` of it without letting the thread sleep.
pub(in crate::supervisor) async fn awhile<F: Future>(event: F, moment: Duration) -> F::Output {
    let mut event = pin!(event);
    let mut until = None;
    poll_fn(|task| {
        let polled = event.as_mut().poll(task);
        if polled.is_pending() {
            match until {
                Some(until) => {
                    step(task, Instant::now(), until);
                }
                None => {
                    until = Some(Instant::now() + moment);
                    task.waker().wake_by_ref(); // the thread's other tasks first: what was just set going is one of them
                }
            }
        }
        polled
    })
    .await
}
