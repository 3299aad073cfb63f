//! The channel between an incarnation and its supervisor.

use super::super::engine::{Key, Serial, StartFailure};
use super::super::exit::Exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Orders to an incarnation; they overtake its mailbox. Each supervisor sends at most a handful per incarnation.
#[derive(Debug)]
pub(in crate::supervisor) enum Ctl {
    Stop {
        /// A successor will be started: what its callers hear meanwhile.
        again: bool,
    },
    Kill,
    Drill(Drill),
    /// See [`Pause`].
    Pause,
    /// See [`Tree::inspect`](crate::supervisor::Tree::inspect).
    Inspect,
}

/// Whether it may begin messages, as it was last ordered. However often that changes while its thread is stuck, at most
/// one order to look waits.
#[derive(Default)]
pub(in crate::supervisor) struct Pause {
    wanted: AtomicBool,
    told: AtomicBool,
}

impl Pause {
    /// True: it has yet to be told to look.
    pub fn want(&self, pause: bool) -> bool {
        self.wanted.store(pause, Ordering::Release);
        !self.told.swap(true, Ordering::AcqRel)
    }
    pub fn look(&self) -> bool {
        self.told.swap(false, Ordering::AcqRel);
        self.wanted.load(Ordering::Acquire)
    }
}

/// Fails on request, in the middle of a turn, as a handler would.
#[derive(Debug, Clone, Copy)]
pub(in crate::supervisor) enum Drill {
    Panic,
    /// Keep the thread until it is given up and a successor is up.
    Hang,
}

#[derive(Debug)]
pub(in crate::supervisor) enum ChildReport {
    Started,
    NotStarted(StartFailure),
    /// Its start chose not to run.
    Ignored,
    Down(Exit),
}

/// A supervisor's inbox; boxed so that the shell need not know the supervisor.
pub(in crate::supervisor) type ReportSink = Arc<dyn Fn(Key, Serial, ChildReport) + Send + Sync>;

/// Guarantees one end per incarnation: dropped unfinished, it reports that the incarnation was killed.
pub(in crate::supervisor) struct Reporter {
    pub key: Key,
    pub serial: Serial,
    /// In the tree.
    pub path: Arc<str>,
    tell: ReportSink,
    up: bool,
    done: bool,
    /// Set by the supervisor when it gave this incarnation up.
    abandoned: Arc<AtomicBool>,
}

impl Reporter {
    pub fn new(tell: ReportSink, key: Key, serial: Serial, path: Arc<str>, abandoned: Arc<AtomicBool>) -> Reporter {
        Reporter { key, serial, path, tell, up: false, done: false, abandoned }
    }
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
    /// See [`Reporter::is_abandoned`]; for what asks it more often.
    pub fn abandoned(&self) -> Arc<AtomicBool> {
        self.abandoned.clone()
    }
    pub fn started(&mut self) {
        self.up = true;
        (self.tell)(self.key, self.serial, ChildReport::Started);
    }
    /// The end; further calls do nothing.
    pub fn ended(&mut self, exit: Exit) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let news = if self.up || matches!(exit, Exit::Fenced(_)) {
            ChildReport::Down(exit)
        } else if exit == Exit::Ignored {
            ChildReport::Ignored
        } else {
            let why = match exit {
                Exit::Failed(why) => why, // the factory's own words
                other => other.to_string(),
            };
            ChildReport::NotStarted(StartFailure { path: self.path.to_string(), why })
        };
        (self.tell)(self.key, self.serial, news);
    }
    pub fn not_started(&mut self, why: StartFailure) {
        if !std::mem::replace(&mut self.done, true) {
            (self.tell)(self.key, self.serial, ChildReport::NotStarted(why));
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.ended(Exit::Killed);
    }
}

/// All that one incarnation is started with.
pub(in crate::supervisor) struct StartOrder {
    pub epoch: u64,
    pub report: Reporter,
    pub ctl: UnboundedReceiver<Ctl>,
    pub pause: Arc<Pause>,
    /// For an orderly end of its own accord; the supervisor times its own orders itself.
    pub stop_within: Option<std::time::Duration>,
    /// Says from the exit whether the restart rule will start a successor: for the errors its callers get meanwhile.
    pub restarts_after: fn(&Exit) -> bool,
    pub thread: Arc<str>,
}

pub(in crate::supervisor) type CtlSender = UnboundedSender<Ctl>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_order_to_look_waits_and_the_last_wish_counts() {
        let pause = Pause::default();
        for last in [true, false] {
            assert!(pause.want(!last), "the first one is told");
            assert!(!pause.want(true) && !pause.want(last));
            assert_eq!(pause.look(), last);
        }
    }
}
