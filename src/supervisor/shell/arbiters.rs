//! The threads actors run on: an actix system for the supervisors, arbiters for the actors.

use super::super::cell::lock;
use super::super::exit::catch;
use super::super::spec::Thread;
use super::linger::{STEP, awhile};
use actix_rt::{Arbiter, ArbiterHandle, System};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{self, UnboundedSender};

/// The arbiter that an incarnation was put on.
#[derive(Clone)]
pub(in crate::supervisor) struct Place {
    pub id: u64,
    pub name: String,
    dedicated: bool,
    handle: ArbiterHandle,
    starts: UnboundedSender<Start>,
}

type Start = Box<dyn FnOnce() + Send>;

impl Place {
    /// Runs `f` there. False: that thread is gone.
    pub fn run(&self, f: impl FnOnce() + Send + 'static) -> bool {
        self.starts.send(Box::new(f)).is_ok()
    }
}

/// Lives on the control thread, where actix can make arbiters.
#[derive(Default)]
pub(in crate::supervisor) struct Arbiters {
    shared: RefCell<HashMap<&'static str, Place>>,
    next: RefCell<u64>,
}

impl Arbiters {
    pub fn place(&self, thread: &Thread, path: &str) -> io::Result<Place> {
        match thread {
            Thread::Dedicated => self.open(path.rsplit('/').next().unwrap_or(path), true),
            Thread::Shared(name) => {
                if let Some(place) = self.shared.borrow().get(name) {
                    return Ok(place.clone());
                }
                let place = self.open(name, false)?;
                self.shared.borrow_mut().insert(name, place.clone());
                Ok(place)
            }
        }
    }

    fn open(&self, name: &str, dedicated: bool) -> io::Result<Place> {
        let handle = Arbiter::try_new()?.handle();
        let label = name.to_string();
        let (starts, mut rx) = mpsc::unbounded_channel::<Start>(); // a supervisor sends one a start
        handle.spawn_fn(move || {
            // Not the arbiter's own commands, whose every sending is a system call.
            actix_rt::spawn(async move {
                while let Some(start) = awhile(rx.recv(), STEP).await {
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
        let mut next = self.next.borrow_mut();
        *next += 1;
        Ok(Place { id: *next, name: name.to_string(), dedicated, handle, starts })
    }

    /// The incarnation there has ended.
    pub fn release(&self, place: &Place) {
        if place.dedicated {
            place.handle.stop();
        }
    }

    /// That thread is stuck: nobody is put there any more, and it ends should it ever come back.
    pub fn abandon(&self, place: &Place) {
        self.shared.borrow_mut().retain(|_, p| p.id != place.id);
        place.handle.stop();
    }
}

/// Runs `main` as an actix system on a thread of its own; the system and its arbiters stop when `main` is done.
pub(in crate::supervisor) fn run_system<F, Fut>(name: &str, main: F) -> io::Result<()>
where
    F: FnOnce(Rc<Arbiters>) -> Fut + Send + 'static,
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
        system.block_on(main(Rc::new(Arbiters::default())));
        System::current().stop();
        let _ = system.run();
    })?;
    let _ = up.recv(); // an error: the sender was dropped, which is the signal
    lock(&failed).take().map_or(Ok(()), Err)
}
