//! Deadlines of those who wait for an answer: one thread for the whole process wakes them when their time has come.
//!
//! Almost all are answered long before. So setting one is a few nanoseconds and reads no clock: an entry in one of a few
//! tables, a thread mostly having one for itself. The timer thread sleeps until the earliest deadline that it saw when it last
//! looked, and is woken for an earlier one only. It needs no runtime, and serves callers on any.

use super::super::exit::catch;
use crate::util::lock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

static TABLES: [Table; 16] = [const { Table(Mutex::new(Entries { waiting: Vec::new(), free: Vec::new() })) }; 16];

/// The timer thread's next wake-up, ns since [`zero`]; `NEVER` during a scan, so new entries wake it.
static NEXT_SCAN: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;

/// The timer thread scans at least this often; nobody is woken later than that.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// On a cache line of its own.
#[repr(align(128))]
struct Table(Mutex<Entries>);

struct Entries {
    waiting: Vec<Option<Entry>>,
    /// Which of them are `None`.
    free: Vec<usize>,
}

impl Entries {
    fn add(&mut self, entry: Entry) -> usize {
        if let Some(place) = self.free.pop() {
            self.waiting[place] = Some(entry);
            return place;
        }
        self.waiting.push(Some(entry));
        self.waiting.len() - 1
    }
    fn remove(&mut self, place: usize) -> Option<Entry> {
        self.free.push(place);
        self.waiting[place].take()
    }
}

struct Entry {
    until: Instant,
    /// `None`: its time has come.
    waker: Option<Waker>,
}

/// One who waits; forgotten when it is dropped.
pub(super) struct Deadline {
    table: &'static Table,
    place: usize,
}

impl Deadline {
    pub fn set(until: Instant, task: &Context<'_>) -> Deadline {
        thread_local!(static MINE: usize = {
            static THREADS: AtomicUsize = AtomicUsize::new(0);
            THREADS.fetch_add(1, Ordering::Relaxed) % TABLES.len()
        });
        let table = &TABLES[MINE.with(|mine| *mine)];
        let place = lock(&table.0).add(Entry { until, waker: Some(task.waker().clone()) });
        let at = nanos(until);
        if at < NEXT_SCAN.load(Ordering::Acquire) {
            NEXT_SCAN.fetch_min(at, Ordering::AcqRel);
            timer_thread().unpark();
        }
        Deadline { table, place }
    }

    /// If not, `task` is woken when it has.
    pub fn has_passed(&self, task: &Context<'_>) -> bool {
        let mut entries = lock(&self.table.0);
        let Some(Entry { waker: Some(waker), .. }) = &mut entries.waiting[self.place] else { return true };
        if !waker.will_wake(task.waker()) {
            let before = std::mem::replace(waker, task.waker().clone());
            drop(entries);
            drop(before); // whatever that sets off, it finds the table free
        }
        false
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let entry = lock(&self.table.0).remove(self.place);
        drop(entry); // as above
    }
}

fn zero() -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(Instant::now)
}

fn nanos(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(zero()).as_nanos()).unwrap_or(NEVER)
}

fn timer_thread() -> &'static Thread {
    static TIMER_THREAD: OnceLock<Thread> = OnceLock::new();
    TIMER_THREAD.get_or_init(|| {
        let timer_thread = thread::Builder::new().name("ask-deadlines".into()).spawn(|| {
            loop {
                keep();
            }
        });
        timer_thread.expect("a thread for the deadlines of asks").thread().clone()
    })
}

/// Wakes whoever's time has come, then sleeps until the next one's.
fn keep() {
    NEXT_SCAN.store(NEVER, Ordering::Release);
    let (now, mut next, mut due) = (Instant::now(), NEVER, Vec::new());
    for table in &TABLES {
        for entry in lock(&table.0).waiting.iter_mut().flatten() {
            if entry.until <= now {
                due.extend(entry.waker.take());
            } else {
                next = next.min(nanos(entry.until));
            }
        }
    }
    for waker in due {
        if let Err(what) = catch(|| waker.wake()) {
            tracing::error!(%what, "waking an asker");
        }
    }
    match NEXT_SCAN.fetch_min(next, Ordering::AcqRel).min(next) {
        NEVER => thread::park(),
        at => thread::park_timeout(Duration::from_nanos(at.saturating_sub(nanos(now))).max(TIMER_GRANULARITY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    #[test]
    fn each_is_woken_at_its_time_whatever_order_they_were_set_in() {
        let begin = Instant::now();
        let after = |millis| {
            thread::spawn(move || {
                let until = begin + Duration::from_millis(millis);
                let mut deadline = None;
                futures::executor::block_on(poll_fn(|task| {
                    let deadline = deadline.get_or_insert_with(|| Deadline::set(until, task));
                    if deadline.has_passed(task) { Poll::Ready(()) } else { Poll::Pending }
                }));
                assert!(until <= Instant::now(), "{millis} ms");
            })
        };
        // A later one first: the timer thread sleeps for that one already when the others come.
        let all: Vec<_> = [300, 100, 20, 200, 0, 20].map(after).into();
        all.into_iter().for_each(|waits| waits.join().unwrap());
    }

    #[test]
    fn places_are_used_again() {
        let mut entries = Entries { waiting: Vec::new(), free: Vec::new() };
        let entry = || Entry { until: Instant::now(), waker: None };
        for _ in 0..100 {
            let (one, other) = (entries.add(entry()), entries.add(entry()));
            assert!(one != other && entries.waiting.len() == 2);
            assert!(entries.remove(one).is_some() && entries.remove(other).is_some());
        }
    }
}
