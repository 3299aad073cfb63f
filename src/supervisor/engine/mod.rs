//! OTP's supervision rules without I/O: an event goes in, commands come out. One engine is one supervisor.

mod calls;
mod child;
#[cfg(test)]
mod tests;

pub use calls::{AdminError, ChildCounts};
pub(super) use calls::{Answer, Call};
pub(super) use child::{Key, Phase as ChildPhase, Serial};

use super::exit::Exit;
use super::spec::{AutoShutdown, Backoff, Restart, Shutdown, Strategy};
use child::{Child, Ending, Phase};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a killed child may take to be gone before its thread is given up.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(1);

/// What the rules need to know of a child spec.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub restart: Restart,
    pub shutdown: Shutdown,
    pub significant: bool,
    pub supervisor: bool,
    pub start_timeout: Duration,
}

/// What the rules need to know of a supervisor spec.
#[derive(Clone, Debug)]
pub(super) struct Flags {
    pub strategy: Strategy,
    pub intensity: u32,
    pub period: Duration,
    pub backoff: Backoff,
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
pub(super) enum Ev<P> {
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
        call: Call<P>,
    },
}

#[derive(Debug, PartialEq)]
pub(super) enum Cmd {
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
        result: Result<Answer, AdminError>,
    },
    /// The spec is forgotten.
    Removed {
        key: Key,
    },
    /// All children of the spec are up.
    Up,
    /// The last command.
    End(End),
}

/// What the supervisor as a whole is doing.
#[derive(Debug)]
enum Work {
    /// Before [`Ev::Begin`].
    Idle,
    /// The ordered first start.
    Beginning,
    Running,
    /// A group restart (one_for_all, rest_for_one) of the children from `from` on.
    Group {
        from: Key,
        stage: Stage,
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
enum Stage {
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
    out: Vec<Cmd>,
    /// Children whose phase changed in this step.
    touched: Vec<Key>,
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
            jitter: 0.0,
        }
    }

    /// A child of the supervisor's spec, in its order; before [`Ev::Begin`].
    pub fn add(&mut self, id: Arc<str>, rules: Rules, payload: P) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(id.clone(), key);
        self.children.insert(key, Child::new(id, rules, payload));
        key
    }

    /// The one way in. `jitter` in -1..=1 moves any backoff that this step begins.
    pub fn step(&mut self, now: Instant, ev: Ev<P>, jitter: f64) -> Vec<Cmd> {
        self.jitter = jitter;
        match ev {
            Ev::Begin => {
                for key in self.keys_from(0) {
                    self.set(key, Phase::Queued { ticket: None }, None);
                }
                self.work = Work::Beginning;
            }
            Ev::Started { key, serial } => self.started(now, key, serial),
            Ev::StartFailed { key, serial, why } if self.is_current(key, serial) => self.gone(now, key, Err(why)),
            Ev::Down { key, serial, exit } if self.is_current(key, serial) => self.gone(now, key, Ok(exit)),
            Ev::Lost { key, serial } if self.is_current(key, serial) && self.is_alive(key) => self.abandon(now, key),
            Ev::StartFailed { .. } | Ev::Down { .. } | Ev::Lost { .. } => {}
            Ev::Hung { key, what } => self.hung(now, key, what),
            Ev::Tick => self.tick(now),
            Ev::Stop(exit) => self.close(now, End::Exit(exit)),
            Ev::Kill => self.kill_all(now),
            Ev::Call { ticket, call } => self.call(now, ticket, call),
        }
        self.advance(now);
        std::mem::take(&mut self.out)
    }

    /// When to step with [`Ev::Tick`].
    pub fn next_deadline(&self) -> Option<Instant> {
        let child = self.timers.first().map(|(at, _)| *at);
        let group = match &self.work {
            Work::Group { stage: Stage::Waiting { until }, .. } => Some(*until),
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
    pub fn phase(&self, key: Key) -> Option<&Phase> {
        self.children.get(&key).map(|c| &c.phase)
    }
    pub fn serial(&self, key: Key) -> Option<Serial> {
        self.children.get(&key).map(|c| c.serial)
    }
    pub fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }
    /// Children whose phase changed since the last call.
    pub fn take_touched(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.touched)
    }
    /// Restarts that count now, and how many may.
    pub fn budget(&self, now: Instant) -> (usize, u32) {
        let used = self.window.iter().filter(|t| now.saturating_duration_since(**t) <= self.flags.period).count();
        (used, self.flags.intensity)
    }

    fn keys_from(&self, from: Key) -> Vec<Key> {
        self.children.range(from..).map(|(k, _)| *k).collect()
    }

    fn is_current(&self, key: Key, serial: Serial) -> bool {
        self.serial(key) == Some(serial)
    }
    fn is_alive(&self, key: Key) -> bool {
        self.phase(key).is_some_and(Phase::is_alive)
    }

    fn set(&mut self, key: Key, phase: Phase, timer: Option<Instant>) -> Phase {
        let Some(child) = self.children.get_mut(&key) else { return Phase::Idle };
        if let Some(at) = child.timer.take() {
            self.timers.remove(&(at, key));
        }
        if let Some(at) = timer {
            child.timer = Some(at);
            self.timers.insert((at, key));
        }
        let classes = [
            (&mut self.alive, phase.is_alive()),
            (&mut self.moving, phase.is_moving()),
            (&mut self.queued, matches!(phase, Phase::Queued { .. })),
        ];
        for (class, member) in classes {
            if member {
                class.insert(key)
            } else {
                class.remove(&key)
            };
        }
        self.touched.push(key);
        std::mem::replace(&mut child.phase, phase)
    }

    /// Of the children from `from` on that may run: the last in start order, and whether it is on its way down already.
    fn last_alive(&self, from: Key) -> Option<(Key, bool)> {
        let key = *self.alive.range(from..).next_back()?;
        Some((key, matches!(self.phase(key), Some(Phase::Ending(_)))))
    }

    fn remove(&mut self, key: Key) {
        self.set(key, Phase::Idle, None);
        if let Some(child) = self.children.remove(&key) {
            self.ids.remove(&child.id);
            self.out.push(Cmd::Removed { key });
        }
    }

    /// A child that is done for good: a temporary one, or any of a dynamic supervisor, is forgotten.
    fn settle(&mut self, key: Key) {
        let Some(child) = self.children.get(&key) else { return };
        if child.rules.restart == Restart::Temporary || self.flags.dynamic.is_some() {
            self.remove(key);
        } else {
            self.set(key, Phase::Idle, None);
        }
    }

    fn start(&mut self, now: Instant, key: Key, ticket: Option<Ticket>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.serial += 1;
        let serial = child.serial;
        let limit = now.checked_add(child.rules.start_timeout);
        self.set(key, Phase::Starting { ticket }, limit);
        self.out.push(Cmd::Start { key, serial });
    }

    fn reply(&mut self, ticket: u64, result: Result<Answer, AdminError>) {
        self.out.push(Cmd::Reply { ticket, result });
    }

    fn started(&mut self, now: Instant, key: Key, serial: Serial) {
        if !self.is_current(key, serial) {
            return;
        }
        // An Ending child may report that it came up: it is on its way down all the same.
        if let Some(Phase::Starting { ticket }) = self.phase(key) {
            let ticket = *ticket;
            self.set(key, Phase::Up { since: now }, None);
            if let Some(t) = ticket {
                self.reply(t.id, Ok(Answer::Done));
            }
        }
    }

    /// An incarnation is over: `Err` if it never came up.
    fn gone(&mut self, now: Instant, key: Key, how: Result<Exit, StartFailure>) {
        let closing = matches!(self.work, Work::Closing { .. });
        match self.set(key, Phase::Idle, None) {
            Phase::Starting { ticket } => {
                let why = how.err().unwrap_or_else(|| self.failure(key, "it ended during its start"));
                self.start_failed(now, key, ticket, why);
            }
            Phase::Up { since } => {
                let exit = how.unwrap_or_else(|f| Exit::Failed(f.why));
                if closing { self.settle(key) } else { self.exited(now, key, exit, since) }
            }
            Phase::Ending(ending) => {
                let Ending { by_rule, was_start, start_ticket, exit, tickets, since, .. } = ending;
                if !by_rule || closing {
                    self.settle(key);
                } else if was_start {
                    let why = match &exit {
                        Some(e) => self.failure(key, &e.to_string()),
                        None => how.err().unwrap_or_else(|| self.failure(key, "it ended during its start")),
                    };
                    self.start_failed(now, key, start_ticket, why);
                } else {
                    let exit = exit.unwrap_or_else(|| how.unwrap_or_else(|f| Exit::Failed(f.why)));
                    self.exited(now, key, exit, since.unwrap_or(now));
                }
                for ticket in tickets {
                    self.reply(ticket, Ok(Answer::Done));
                }
            }
            // Not running: nothing can have ended. Put back what was there.
            other => {
                self.set(key, other, None);
            }
        }
    }

    fn failure(&self, key: Key, why: &str) -> StartFailure {
        let id = self.children.get(&key).map(|c| c.id.to_string()).unwrap_or_default();
        StartFailure { path: format!("{}/{id}", self.path), why: why.to_string() }
    }

    fn start_failed(&mut self, now: Instant, key: Key, ticket: Option<Ticket>, why: StartFailure) {
        if let Some(ticket) = ticket {
            // Asked for by a call: the caller decides, not the restart rule. OTP keeps the spec after a failed restart_child only.
            if ticket.forget {
                self.remove(key)
            } else {
                self.settle(key)
            }
            return self.reply(ticket.id, Err(AdminError::Start(why.why)));
        }
        match self.work {
            Work::Closing { .. } => self.settle(key),
            Work::Beginning => self.close(now, End::NotStarted(why)),
            _ => self.restart(now, key, &format!("did not start: {}", why.why)),
        }
    }

    /// A child that was up has ended by itself.
    fn exited(&mut self, now: Instant, key: Key, exit: Exit, since: Instant) {
        let reset_after = self.flags.backoff.reset_after;
        let Some(child) = self.children.get_mut(&key) else { return };
        if now.saturating_duration_since(since) >= reset_after {
            child.failures = 0;
        }
        child.exit = Some(exit);
        match &self.work {
            // It would have been stopped anyway.
            Work::Group { from, stage: Stage::Stopping, .. } if key >= *from => {}
            Work::Running => self.apply_rule(now, key),
            _ => {
                self.set(key, Phase::Dead, None);
                self.deferred.push_back(key);
            }
        }
    }

    fn apply_rule(&mut self, now: Instant, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let exit = child.exit.take().unwrap_or(Exit::Normal);
        let again = match child.rules.restart {
            Restart::Permanent => true,
            Restart::Transient => exit.is_abnormal(),
            Restart::Temporary => false,
        };
        if again {
            return self.restart(now, key, &exit.to_string());
        }
        let significant = child.rules.significant;
        self.settle(key);
        let over = significant
            && match self.flags.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => {
                    !self.children.values().any(|c| c.rules.significant && c.phase.is_wanted())
                }
            };
        if over {
            self.close(now, End::Exit(Exit::Shutdown));
        }
    }

    /// A restart is called for: it counts, and one too many within the period ends the supervisor.
    fn restart(&mut self, now: Instant, key: Key, why: &str) {
        self.window.push_back(now);
        while self.window.front().is_some_and(|t| now.saturating_duration_since(*t) > self.flags.period) {
            self.window.pop_front();
        }
        let Some(child) = self.children.get_mut(&key) else { return };
        if self.window.len() > self.flags.intensity as usize {
            let why = format!(
                "restart budget spent: more than {} within {:?}; last {}: {why}",
                self.flags.intensity, self.flags.period, child.id
            );
            self.settle(key);
            return self.close(now, End::Exit(Exit::ShutdownWith(why)));
        }
        let delay = self.flags.backoff.delay(child.failures, self.jitter);
        child.failures = child.failures.saturating_add(1);
        match self.flags.strategy {
            Strategy::OneForOne if delay.is_zero() => self.start(now, key, None),
            Strategy::OneForOne => {
                self.set(key, Phase::Backoff, Some(now + delay));
            }
            Strategy::OneForAll => self.group(0, delay),
            Strategy::RestForOne => self.group(key, delay),
        }
        if let Some(Phase::Idle) = self.phase(key) {
            self.set(key, Phase::Queued { ticket: None }, None);
        }
    }

    fn group(&mut self, from: Key, delay: Duration) {
        self.work = Work::Group { from, stage: Stage::Stopping, delay };
    }

    fn hung(&mut self, now: Instant, key: Key, what: String) {
        let (was_start, start_ticket, since) = match self.phase(key) {
            Some(Phase::Up { since }) => (false, None, Some(*since)),
            Some(Phase::Starting { ticket }) => (true, *ticket, None),
            _ => return,
        };
        let ending = Ending { was_start, start_ticket, since, exit: Some(Exit::Hung(what)), ..Ending::by_rule() };
        self.kill(now, key, ending);
    }

    /// Kills it now; a child that is not gone after [`KILL_GRACE`] is abandoned.
    fn kill(&mut self, now: Instant, key: Key, ending: Ending) {
        let supervisor = self.children.get(&key).is_some_and(|c| c.rules.supervisor);
        // A supervisor kills its own children and abandons the stuck ones itself: it is given the time for that.
        let grace = if supervisor { KILL_GRACE * 16 } else { KILL_GRACE };
        self.set(key, Phase::Ending(Ending { killed: true, ..ending }), Some(now + grace));
        self.out.push(Cmd::Kill { key });
    }

    fn abandon(&mut self, now: Instant, key: Key) {
        self.out.push(Cmd::Abandon { key });
        if let Some(child) = self.children.get_mut(&key) {
            child.serial += 1; // whatever the abandoned one still reports is void
        }
        self.gone(now, key, Ok(Exit::Hung("it did not end after it was killed, so its thread was given up".into())));
    }

    /// Begins an orderly stop of a child that lives.
    fn stop(&mut self, now: Instant, key: Key, tickets: Vec<u64>) {
        let Some(child) = self.children.get(&key) else { return };
        let shutdown = child.rules.shutdown;
        let ending = Ending { tickets, ..Ending::ordered() };
        match (&child.phase, shutdown) {
            (Phase::Up { .. }, Shutdown::Timeout(limit)) => {
                self.set(key, Phase::Ending(ending), now.checked_add(limit));
                self.out.push(Cmd::Stop { key });
            }
            (Phase::Up { .. }, Shutdown::Infinity) => {
                self.set(key, Phase::Ending(ending), None);
                self.out.push(Cmd::Stop { key });
            }
            (Phase::Starting { .. }, _) if child.rules.supervisor => {
                self.set(key, Phase::Ending(ending), None);
                self.out.push(Cmd::Stop { key });
            }
            (Phase::Up { .. }, Shutdown::BrutalKill) | (Phase::Starting { .. }, _) => {
                if let Phase::Starting { ticket: Some(t) } = child.phase {
                    self.reply(t.id, Err(AdminError::Start("it was stopped during its start".into())));
                }
                self.kill(now, key, ending);
            }
            // A child that was being killed for a fault is now being stopped: the restart rule no longer applies.
            (Phase::Ending(_), _) => {
                if let Some(Phase::Ending(e)) = self.children.get_mut(&key).map(|c| &mut c.phase) {
                    e.by_rule = false;
                    e.tickets.extend(ending.tickets);
                }
            }
            (Phase::Idle | Phase::Queued { .. } | Phase::Backoff | Phase::Dead, _) => {}
        }
    }

    fn close(&mut self, _now: Instant, end: End) {
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return;
        }
        self.deferred.clear();
        for key in self.keys_from(0) {
            match self.phase(key) {
                Some(Phase::Queued { ticket: Some(t) }) => {
                    let id = t.id;
                    self.set(key, Phase::Idle, None);
                    self.reply(id, Err(AdminError::ShuttingDown));
                }
                Some(Phase::Queued { .. } | Phase::Backoff | Phase::Dead) => {
                    self.set(key, Phase::Idle, None);
                }
                _ => {}
            }
        }
        self.work = Work::Closing { end, asked: false };
    }

    fn kill_all(&mut self, now: Instant) {
        self.close(now, End::Exit(Exit::Killed));
        for key in self.keys_from(0) {
            let killed = matches!(self.phase(key), Some(Phase::Ending(e)) if e.killed);
            if !killed && self.is_alive(key) {
                let tickets = match self.set(key, Phase::Idle, None) {
                    Phase::Ending(e) => e.tickets,
                    _ => Vec::new(),
                };
                self.kill(now, key, Ending { tickets, ..Ending::ordered() });
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            match self.phase(key) {
                Some(Phase::Starting { ticket }) => {
                    let start_ticket = *ticket;
                    let limit = self.children.get(&key).map_or(Duration::ZERO, |c| c.rules.start_timeout);
                    let exit = Some(Exit::Failed(format!("its start took longer than {limit:?}")));
                    self.kill(now, key, Ending { was_start: true, start_ticket, exit, ..Ending::by_rule() });
                }
                Some(Phase::Backoff) => self.start(now, key, None),
                Some(Phase::Ending(e)) if e.killed => self.abandon(now, key),
                Some(Phase::Ending(e)) => {
                    let ending = e.clone();
                    self.kill(now, key, ending);
                }
                Some(Phase::Idle | Phase::Queued { .. } | Phase::Up { .. } | Phase::Dead) | None => {
                    self.timers.remove(&(at, key));
                }
            }
        }
    }

    /// Does whatever the present work allows next, until it must wait for an event.
    fn advance(&mut self, now: Instant) {
        loop {
            let again = match &self.work {
                Work::Idle | Work::Ended => false,
                Work::Beginning => self.start_next(now, 0),
                Work::Running => match self.deferred.pop_front() {
                    Some(key) => {
                        if let Some(Phase::Dead) = self.phase(key) {
                            self.set(key, Phase::Idle, None);
                            self.apply_rule(now, key);
                        }
                        true
                    }
                    None => false,
                },
                Work::Group { from, stage, delay } => {
                    let (from, stage, delay) = (*from, *stage, *delay);
                    self.advance_group(now, from, stage, delay)
                }
                Work::Closing { end, asked } => {
                    let (end, asked) = (end.clone(), *asked);
                    self.advance_close(now, end, asked)
                }
            };
            if !again {
                return;
            }
        }
    }

    /// Starts the next queued child from `from` on, one at a time. True: all are up, and the supervisor now runs.
    fn start_next(&mut self, now: Instant, from: Key) -> bool {
        if self.moving.range(from..).next().is_some() {
            return false;
        }
        let next = self.queued.range(from..).next().and_then(|key| match self.phase(*key) {
            Some(Phase::Queued { ticket }) => Some((*key, *ticket)),
            _ => None,
        });
        if let Some((key, ticket)) = next {
            self.start(now, key, ticket);
            return false;
        }
        if matches!(self.work, Work::Beginning) {
            self.out.push(Cmd::Up);
        }
        self.work = Work::Running;
        true
    }

    fn advance_group(&mut self, now: Instant, from: Key, stage: Stage, delay: Duration) -> bool {
        match stage {
            Stage::Stopping => {
                if let Some((key, ending)) = self.last_alive(from) {
                    if !ending {
                        self.stop(now, key, Vec::new());
                    }
                    return false;
                }
                for key in self.keys_from(from) {
                    let Some(child) = self.children.get(&key) else { continue };
                    let asked = matches!(child.phase, Phase::Queued { ticket: Some(_) });
                    if child.rules.restart == Restart::Temporary && !asked {
                        self.remove(key);
                    } else if !asked {
                        self.set(key, Phase::Queued { ticket: None }, None);
                    }
                }
                let stage = if delay.is_zero() { Stage::Starting } else { Stage::Waiting { until: now + delay } };
                self.work = Work::Group { from, stage, delay };
                true
            }
            Stage::Waiting { until } if now < until => false,
            Stage::Waiting { .. } => {
                self.work = Work::Group { from, stage: Stage::Starting, delay };
                true
            }
            Stage::Starting => self.start_next(now, from),
        }
    }

    fn advance_close(&mut self, now: Instant, end: End, asked: bool) -> bool {
        if self.flags.dynamic.is_some() {
            // Dynamic children have no order among themselves: they stop side by side.
            if !asked {
                for key in self.alive.iter().copied().collect::<Vec<_>>() {
                    if !matches!(self.phase(key), Some(Phase::Ending(_))) {
                        self.stop(now, key, Vec::new());
                    }
                }
                self.work = Work::Closing { end: end.clone(), asked: true };
            }
            if !self.alive.is_empty() {
                return false;
            }
        } else if let Some((key, ending)) = self.last_alive(0) {
            if !ending {
                self.stop(now, key, Vec::new());
            }
            return false;
        }
        self.work = Work::Ended;
        self.out.push(Cmd::End(end));
        false
    }
}

/// A call that waits for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub id: u64,
    /// Forget the spec if the start fails: start_child does, restart_child does not.
    pub forget: bool,
}
