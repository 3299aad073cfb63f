//! The threads actors run on: an actix system for the supervisors, arbiters for the actors.

use super::super::exit::catch;
use super::super::policy::Thread;
use super::busy_poll::{START_SPIN, spin_then_wait};
use crate::util::lock;
use actix_rt::{Arbiter, ArbiterHandle, System};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{self, UnboundedSender};

/// The arbiter that an incarnation was put on.
#[derive(Clone)]
pub(in crate::supervisor) struct ArbiterSlot {
    pub id: u64,
    pub name: Arc<str>,
    dedicated: bool,
    handle: ArbiterHandle,
    thread_state: Arc<ThreadState>,
    starts: UnboundedSender<Start>,
}

type Start = Box<dyn FnOnce() + Send>;

impl ArbiterSlot {
    /// Runs `f` there. False: that thread is gone.
    pub fn run(&self, f: impl FnOnce() + Send + 'static) -> bool {
        self.starts.send(Box::new(f)).is_ok()
    }
}

/// The state of an arbiter's thread: running, given up, ended.
struct ThreadState {
    state: AtomicU8,
    /// How many threads of the tree were given up and have not ended.
    zombies: Arc<AtomicU64>,
}

const RUNS: u8 = 0;
const GIVEN_UP: u8 = 1;
const ENDED: u8 = 2;

impl ThreadState {
    /// How many zombies there are with this one; `None`: it is counted already, or has ended after all.
    fn give_up(&self) -> Option<u64> {
        let zombies = self.zombies.fetch_add(1, Ordering::AcqRel) + 1; // first, so that its end finds it counted
        match self.state.compare_exchange(RUNS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(zombies),
            Err(_) => {
                self.zombies.fetch_sub(1, Ordering::AcqRel);
                None
            }
        }
    }
    fn end(&self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == GIVEN_UP {
            self.zombies.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Held by the thread itself: dropped when nothing more can run there, blocking work that it began included.
struct ThreadEndGuard(Arc<ThreadState>);

impl Drop for ThreadEndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

thread_local! {
    static THREAD_END: RefCell<Option<ThreadEndGuard>> = const { RefCell::new(None) };
}

pub(in crate::supervisor) struct Arbiters {
    system: System,
    shared: Mutex<HashMap<&'static str, ArbiterSlot>>,
    next: AtomicU64,
    zombies: Arc<AtomicU64>,
}

impl Arbiters {
    /// For the present system. `zombies` counts the threads that were given up and have not ended.
    fn new(zombies: Arc<AtomicU64>) -> Arbiters {
        Arbiters { system: System::current(), shared: Mutex::default(), next: AtomicU64::default(), zombies }
    }

    pub fn place(&self, thread: &Thread, path: &str) -> io::Result<ArbiterSlot> {
        match thread {
            Thread::Dedicated => self.open(path.rsplit('/').next().unwrap_or(path), true),
            Thread::Shared(name) => {
                let mut shared = lock(&self.shared);
                if let Some(place) = shared.get(name) {
                    return Ok(place.clone());
                }
                let place = self.open(name, false)?;
                shared.insert(name, place.clone());
                Ok(place)
            }
        }
    }

    fn open(&self, name: &str, dedicated: bool) -> io::Result<ArbiterSlot> {
        let handle = self.arbiter()?;
        let label = name.to_string();
        let (starts, mut rx) = mpsc::unbounded_channel::<Start>(); // a supervisor sends one a start
        let thread_state = Arc::new(ThreadState { state: AtomicU8::new(RUNS), zombies: self.zombies.clone() });
        let mine = thread_state.clone();
        handle.spawn_fn(move || {
            THREAD_END.with(|guard| *guard.borrow_mut() = Some(ThreadEndGuard(mine)));
            // Not the arbiter's own commands, whose every sending is a system call.
            actix_rt::spawn(async move {
                while let Some(start) = spin_then_wait(rx.recv(), START_SPIN).await {
                    if let Err(what) = catch(start) {
                        tracing::error!(%what, "a start"); // the order it had was dropped, which reports it
                    }
                }
            });
            // For top and gdb; the kernel cuts it at 15 bytes.
            if let Ok(label) = std::ffi::CString::new(label) {
                let _ = nix::sys::prctl::set_name(&label);
            }
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(ArbiterSlot { id, name: name.into(), dedicated, handle, thread_state, starts })
    }

    /// actix makes one on a thread of its system only: anybody else borrows such a thread for that.
    fn arbiter(&self) -> io::Result<ArbiterHandle> {
        if System::try_current().is_some_and(|here| here.id() == self.system.id()) {
            return Ok(Arbiter::try_new()?.handle());
        }
        std::thread::scope(|scope| {
            let make = || {
                System::set_current(self.system.clone());
                Ok(Arbiter::try_new()?.handle())
            };
            let maker = std::thread::Builder::new().spawn_scoped(scope, make)?;
            maker.join().unwrap_or_else(|_| Err(io::Error::other("the arbiter's maker panicked")))
        })
    }

    /// The incarnation there has ended.
    pub fn release(&self, place: &ArbiterSlot) {
        if place.dedicated {
            place.handle.stop();
        }
    }

    /// That thread is stuck: it ends should it ever come back. How many are, if it was not counted before.
    pub fn give_up(&self, place: &ArbiterSlot) -> Option<u64> {
        self.abandon(place);
        place.thread_state.give_up()
    }

    /// Nobody is put there any more.
    pub fn abandon(&self, place: &ArbiterSlot) {
        lock(&self.shared).retain(|_, p| p.id != place.id);
        place.handle.stop();
    }
}

/// Runs `main` as an actix system on a thread of its own; the system and its arbiters stop when `main` is done.
pub(in crate::supervisor) fn run_system<F, Fut>(name: &str, zombies: Arc<AtomicU64>, main: F) -> io::Result<()>
where
    F: FnOnce(Arbiters) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let failed: Arc<Mutex<Option<io::Error>>> = Arc::default();
    let (ready, up) = std::sync::mpsc::channel::<()>();
    let seen = failed.clone();
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let system = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => System::with_tokio_rt(move || runtime),
            Err(why) => {
                *lock(&seen) = Some(why);
                return;
            }
        };
        drop(ready);
        system.block_on(main(Arbiters::new(zombies)));
        System::current().stop();
        let _ = system.run();
    })?;
    let _ = up.recv(); // an error: the sender was dropped, which is the signal
    lock(&failed).take().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_a_zombie_from_when_it_was_given_up_until_it_ends() {
        // (what happens to it, in order; what each giving up says; zombies at the end)
        let give = |thread_state: &ThreadState| thread_state.give_up();
        let end = |thread_state: &ThreadState| {
            thread_state.end();
            None
        };
        type Step = fn(&ThreadState) -> Option<u64>;
        type Case<'a> = (&'a [Step], &'a [Option<u64>], u64);
        let cases: [Case<'_>; 5] = [
            (&[give], &[Some(1)], 1),
            (&[give, give], &[Some(1), None], 1),
            (&[give, end], &[Some(1), None], 0),
            (&[end, give], &[None, None], 0),
            (&[give, end, end, give], &[Some(1), None, None, None], 0),
        ];
        for (n, (steps, said, left)) in cases.into_iter().enumerate() {
            let thread_state = ThreadState { state: AtomicU8::new(RUNS), zombies: Arc::default() };
            let heard: Vec<_> = steps.iter().map(|step| step(&thread_state)).collect();
            assert_eq!((heard.as_slice(), thread_state.zombies.load(Ordering::Relaxed)), (said, left), "{n}");
        }
    }
}
