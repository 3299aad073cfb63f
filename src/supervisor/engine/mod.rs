//! OTP's supervision rules without I/O: an event goes in, commands come out. One engine is one supervisor.

mod calls;
mod child;
mod rules;
#[cfg(test)]
mod tests;
mod upgrade;
mod work;

pub use calls::{AdminError, ChildCounts};
pub(super) use calls::{CallAnswer, SupervisorCall};
pub(super) use child::{ChildPhase, Held, Key, Serial};

use super::exit::Exit;
use super::policy::{AutoShutdown, BudgetSpent, Restart, RestartBackoff, Shutdown, Strategy};
use child::{Child, Ending};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use upgrade::Upgrade;

/// How long a killed child may take to be gone before its thread is given up.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(1);

/// A child spec, as far as the rules need it.
#[derive(Clone, Debug)]
pub(super) struct ChildRules {
    pub restart: Restart,
    pub shutdown: Shutdown,
    pub significant: bool,
    pub supervisor: bool,
    pub start_timeout: Duration,
    /// False: a first start that fails is tried again, and the supervisor comes up without it; and what holds it down never
    /// ends its supervisor.
    pub required: bool,
}

/// A supervisor spec, as far as the rules need it.
#[derive(Clone, Debug)]
pub(super) struct Flags {
    pub strategy: Strategy,
    pub intensity: u32,
    pub period: Duration,
    pub backoff: RestartBackoff,
    pub budget_spent: BudgetSpent,
    pub auto_shutdown: AutoShutdown,
    pub dynamic: Option<usize>,
}

/// A start that failed: where in the tree, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub path: String,
    pub why: String,
}

/// How a supervisor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exit(Exit),
    /// It never came up: a child failed to start.
    NotStarted(StartFailure),
}

#[derive(Debug)]
pub(super) enum Event<P> {
    /// Start the children, in order.
    Begin,
    Started {
        key: Key,
        serial: Serial,
    },
    StartFailed {
        key: Key,
        serial: Serial,
        why: StartFailure,
    },
    /// Its start chose not to run.
    Ignored {
        key: Key,
        serial: Serial,
    },
    Down {
        key: Key,
        serial: Serial,
        exit: Exit,
    },
    /// The watchdog found it stuck.
    Hung {
        key: Key,
        what: String,
    },
    /// The thread it ran on was given up.
    Lost {
        key: Key,
        serial: Serial,
    },
    /// A deadline of [`Engine::next_deadline`] has come.
    Tick,
    /// Stop all children in reverse order, then end with that reason.
    Stop(Exit),
    /// End at once.
    Kill,
    Call {
        ticket: u64,
        call: SupervisorCall<P>,
    },
}

#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Start {
        key: Key,
        serial: Serial,
    },
    /// Ask it to end in order.
    Stop {
        key: Key,
    },
    Kill {
        key: Key,
    },
    /// It did not die: forget its thread.
    Abandon {
        key: Key,
    },
    Reply {
        ticket: u64,
        result: Result<CallAnswer, AdminError>,
    },
    /// The spec is forgotten.
    Removed {
        key: Key,
    },
    /// All children of the spec are up, but those that need not be and wait for another try.
    Up,
    /// The last command.
    End(End),
}

/// The present activity of the supervisor as a whole.
#[derive(Debug)]
enum Work {
    /// Before [`Event::Begin`].
    Idle,
    /// The ordered first start.
    Beginning,
    Running,
    /// A group restart (one_for_all, rest_for_one) of the children from `from` on.
    Group {
        from: Key,
        stage: WorkStage,
        delay: Duration,
    },
    Closing {
        end: End,
        /// All have been asked to stop.
        asked: bool,
    },
    Ended,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum WorkStage {
    Stopping,
    Waiting { until: Instant },
    Starting,
}

pub(super) struct Engine<P> {
    path: String,
    flags: Flags,
    children: BTreeMap<Key, Child<P>>,
    ids: HashMap<Arc<str>, Key>,
    next_key: Key,
    timers: BTreeSet<(Instant, Key)>,
    /// Keys by phase, so that a step costs no walk over ten thousand children.
    alive: BTreeSet<Key>,
    moving: BTreeSet<Key>,
    queued: BTreeSet<Key>,
    work: Work,
    /// When restarts were asked for, no older than the period.
    window: VecDeque<Instant>,
    /// Crashes seen while the supervisor was busy with an ordered start or a group restart: their turn comes after it.
    deferred: VecDeque<Key>,
    out: Vec<Command>,
    /// Children whose phase changed in this step.
    touched: Vec<Key>,
    /// Specs that will replace the present ones as soon as no ordered start or group restart is under way.
    upgrades: VecDeque<Upgrade<P>>,
    /// New keys by an upgrade in this step.
    rekeyed: Option<Vec<(Option<Key>, Key)>>,
    jitter: f64,
}

impl<P> Engine<P> {
    pub fn new(path: impl Into<String>, flags: Flags) -> Engine<P> {
        Engine {
            path: path.into(),
            flags,
            children: BTreeMap::new(),
            ids: HashMap::new(),
            next_key: 1,
            timers: BTreeSet::new(),
            alive: BTreeSet::new(),
            moving: BTreeSet::new(),
            queued: BTreeSet::new(),
            work: Work::Idle,
            window: VecDeque::new(),
            deferred: VecDeque::new(),
            out: Vec::new(),
            touched: Vec::new(),
            upgrades: VecDeque::new(),
            rekeyed: None,
            jitter: 0.0,
        }
    }

    /// A child of the supervisor's spec, in its order; before [`Event::Begin`].
    pub fn add(&mut self, id: Arc<str>, rules: ChildRules, payload: P) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(id.clone(), key);
        self.children.insert(key, Child::new(id, rules, payload));
        key
    }

    /// The one way in. `jitter` in -1..=1 moves any backoff that this step begins.
    pub fn step(&mut self, now: Instant, ev: Event<P>, jitter: f64) -> Vec<Command> {
        self.jitter = jitter;
        match ev {
            Event::Begin => {
                for key in self.keys_from(0) {
                    self.set(key, ChildPhase::Queued { ticket: None }, None);
                }
                self.work = Work::Beginning;
            }
            Event::Started { key, serial } => self.started(now, key, serial),
            Event::Ignored { key, serial } if self.is_current(key, serial) => self.ignored(now, key),
            Event::StartFailed { key, serial, why } if self.is_current(key, serial) => self.gone(now, key, Err(why)),
            Event::Down { key, serial, exit } if self.is_current(key, serial) => self.gone(now, key, Ok(exit)),
            Event::Lost { key, serial } if self.is_current(key, serial) && self.is_alive(key) => self.lost(now, key),
            Event::Ignored { .. } | Event::StartFailed { .. } | Event::Down { .. } | Event::Lost { .. } => {}
            Event::Hung { key, what } => self.hung(now, key, what),
            Event::Tick => self.tick(now),
            Event::Stop(exit) => self.close(End::Exit(exit)),
            Event::Kill => self.kill_all(now),
            Event::Call { ticket, call } => self.call(now, ticket, call),
        }
        self.advance(now);
        std::mem::take(&mut self.out)
    }

    /// When to step with [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Instant> {
        let child = self.timers.first().map(|(at, _)| *at);
        let group = match &self.work {
            Work::Group { stage: WorkStage::Waiting { until }, .. } => Some(*until),
            _ => None,
        };
        child.into_iter().chain(group).min()
    }

    pub fn payload(&self, key: Key) -> Option<&P> {
        self.children.get(&key).map(|c| &c.payload)
    }

    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.children.values().map(|c| &c.payload)
    }

    pub fn phase(&self, key: Key) -> Option<&ChildPhase> {
        self.children.get(&key).map(|c| &c.phase)
    }

    pub fn serial(&self, key: Key) -> Option<Serial> {
        self.children.get(&key).map(|c| c.serial)
    }

    pub fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    /// A child on its way down after which a successor will be started, by the restart rule or with its group.
    pub fn comes_back(&self, key: Key) -> bool {
        match (self.phase(key), &self.work) {
            (Some(ChildPhase::Ending(_)), Work::Closing { .. }) => false,
            (Some(ChildPhase::Ending(Ending { renew: Some(_), .. })), _) => true,
            (Some(ChildPhase::Ending(e)), Work::Group { from, .. }) => {
                e.by_rule || (key >= *from && e.tickets.is_empty())
            }
            (Some(ChildPhase::Ending(e)), _) => e.by_rule,
            _ => false,
        }
    }
    /// Children whose phase changed since the last call.
    pub fn take_touched(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.touched)
    }

    /// In start order the keys before and after an upgrade in the last step; `None` for children that are new.
    pub fn take_rekeyed(&mut self) -> Option<Vec<(Option<Key>, Key)>> {
        self.rekeyed.take()
    }

    /// Why that child waits for longer than a restart does; `None`: it runs, or its restart is a matter of its backoff.
    pub fn held(&self, key: Key) -> Option<&Held> {
        self.children.get(&key)?.held.as_ref()
    }

    /// Restarts that count now, and how many may. Where each child has the budget for itself: of the child with the most.
    pub fn budget(&self, now: Instant) -> (usize, u32) {
        let counted = |window: &VecDeque<Instant>| {
            window.iter().filter(|t| now.saturating_duration_since(**t) <= self.flags.period).count()
        };
        let used = match self.flags.budget_spent {
            BudgetSpent::Escalate => counted(&self.window),
            BudgetSpent::HoldDown { .. } => self.children.values().map(|c| counted(&c.restarts)).max().unwrap_or(0),
        };
        (used, self.flags.intensity)
    }

    fn keys_from(&self, from: Key) -> Vec<Key> {
        self.children.range(from..).map(|(k, _)| *k).collect()
    }

    fn is_current(&self, key: Key, serial: Serial) -> bool {
        self.serial(key) == Some(serial)
    }

    fn is_alive(&self, key: Key) -> bool {
        self.phase(key).is_some_and(ChildPhase::is_alive)
    }

    fn set(&mut self, key: Key, phase: ChildPhase, timer: Option<Instant>) -> ChildPhase {
        let Some(child) = self.children.get_mut(&key) else { return ChildPhase::Idle };
        if let Some(at) = child.timer.take() {
            self.timers.remove(&(at, key));
        }
        if let Some(at) = timer {
            child.timer = Some(at);
            self.timers.insert((at, key));
        }
        let before = std::mem::replace(&mut child.phase, phase);
        if !matches!(child.phase, ChildPhase::Backoff | ChildPhase::Starting { .. } | ChildPhase::Queued { .. }) {
            child.held = None;
        }
        self.classify(key);
        self.touched.push(key);
        before
    }

    fn classify(&mut self, key: Key) {
        let Some(child) = self.children.get(&key) else { return };
        let classes = [
            (&mut self.alive, child.phase.is_alive()),
            (&mut self.moving, child.phase.is_moving()),
            (&mut self.queued, matches!(child.phase, ChildPhase::Queued { .. })),
        ];
        for (class, member) in classes {
            if member {
                class.insert(key)
            } else {
                class.remove(&key)
            };
        }
    }

    /// The last running child at or after `from` in start order, and whether it is already stopping.
    fn last_alive(&self, from: Key) -> Option<(Key, bool)> {
        let key = *self.alive.range(from..).next_back()?;
        Some((key, matches!(self.phase(key), Some(ChildPhase::Ending(_)))))
    }

    fn remove(&mut self, key: Key) {
        self.set(key, ChildPhase::Idle, None);
        if let Some(child) = self.children.remove(&key) {
            self.ids.remove(&child.id);
            self.out.push(Command::Removed { key });
        }
    }

    /// A child that is done for good: a temporary one, or any of a dynamic supervisor, is forgotten.
    fn settle(&mut self, key: Key) {
        let Some(child) = self.children.get(&key) else { return };
        let grouped = matches!(self.work, Work::Group { from, stage: WorkStage::Stopping, .. } if key >= from);
        if child.rules.restart == Restart::Temporary || self.flags.dynamic.is_some() {
            self.remove(key);
        } else if grouped && !child.parked {
            self.set(key, ChildPhase::Queued { ticket: None }, None);
        } else {
            self.set(key, ChildPhase::Idle, None);
        }
    }

    fn start(&mut self, now: Instant, key: Key, ticket: Option<CallTicket>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.serial += 1;
        child.blameless = false;
        let serial = child.serial;
        let limit = now.checked_add(child.rules.start_timeout);
        self.set(key, ChildPhase::Starting { ticket }, limit);
        self.out.push(Command::Start { key, serial });
    }

    fn reply(&mut self, ticket: u64, result: Result<CallAnswer, AdminError>) {
        self.out.push(Command::Reply { ticket, result });
    }
}

/// A call that waits for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallTicket {
    pub id: u64,
    /// Forget the spec if the start fails: start_child does, restart_child does not.
    pub forget: bool,
}
