//! Staying awake for a moment where more is expected: waking a sleeping core costs ten times what most answers take.
//!
//! Nothing here blocks: a spinning task wakes itself and goes to the back of its thread's queue each time, and its
//! thread to the back of the core's. Where that gives the core to somebody else's long work, spinning stops for a while.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long an actor that was called from another thread waits for the next call, and such a caller for its answer.
pub(super) const CALL_SPIN: Duration = Duration::from_micros(20);
/// How long a thread on which an actor was started waits for the next start, and who asked for it for the answer.
pub(in crate::supervisor) const START_SPIN: Duration = Duration::from_micros(60);
/// The pause after spinning in vain, so that at most a tenth of a thread's time is spent so.
const PAUSE_AFTER_VAIN: Duration = Duration::from_micros(200);
/// A thread that was off its core for this long shares it with others.
const PREEMPTED: Duration = Duration::from_micros(100);
/// How long not to spin on a contested core: a woken thread runs at once, a yielding one last.
const CONTESTED_PAUSE: Duration = Duration::from_millis(50);

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

fn is_paused(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}

/// One step of spinning until then; false: time to sleep.
fn step(task: &mut Context<'_>, now: Instant, until: Instant) -> bool {
    if now >= until || is_paused(NOT_BEFORE.get(), now) {
        return false;
    }
    std::thread::yield_now();
    if now.elapsed() > PREEMPTED {
        NOT_BEFORE.set(Some(Instant::now() + CONTESTED_PAUSE));
    }
    task.waker().wake_by_ref();
    true
}

/// An actor's mailbox between two calls.
#[derive(Default)]
pub(super) struct BusyPoll {
    until: Option<Instant>,
    not_before: Option<Instant>,
}

impl BusyPoll {
    /// The task has nothing to do. `called`: whether it had since the last time this was asked.
    pub fn idle(&mut self, task: &mut Context<'_>, called: impl Fn() -> bool) {
        if self.until.is_none() && !called() {
            return;
        }
        let now = Instant::now();
        let until = match self.until {
            Some(until) if now < until => until,
            Some(_) if !called() => {
                self.not_before = Some(now + PAUSE_AFTER_VAIN);
                self.until = None;
                return;
            }
            _ if is_paused(self.not_before, now) => return,
            _ => now + CALL_SPIN,
        };
        self.until = step(task, now, until).then_some(until);
    }
}

/// An asker's wait for an answer from another thread.
pub(super) struct ReplySpin {
    until: Option<Instant>,
}

impl ReplySpin {
    pub fn answer(now: Instant) -> Option<ReplySpin> {
        let others = ASKS.get();
        if others == 0 && !allowed() {
            return None;
        }
        ASKS.set(others + 1);
        let alone = others == 0 && !is_paused(NO_ASK_BEFORE.get(), now);
        Some(ReplySpin { until: alone.then(|| now + CALL_SPIN) })
    }
    /// False: time to sleep. A thread with several asks under way has its work from the answers, and need not spin.
    pub fn goes_on(&mut self, task: &mut Context<'_>) -> bool {
        let Some(until) = self.until.filter(|_| ASKS.get() <= 1) else { return false };
        let now = Instant::now();
        let on = step(task, now, until);
        if !on {
            NO_ASK_BEFORE.set(Some(now + PAUSE_AFTER_VAIN));
            self.until = None;
        }
        on
    }
}

impl Drop for ReplySpin {
    fn drop(&mut self) {
        ASKS.set(ASKS.get().saturating_sub(1)); // it may have moved here from another thread
    }
}

/// Waits for `event`, the first `moment` of it without letting the thread sleep.
pub(in crate::supervisor) async fn spin_then_wait<F: Future>(event: F, moment: Duration) -> F::Output {
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
