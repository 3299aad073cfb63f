//! The end of a child: who is restarted when, and when there were too many restarts.

use super::child::{ChildPhase, Ending, Held, Key, Serial};
use super::{
    AdminError, CallAnswer, CallTicket, End, Engine, EngineCommand, KILL_GRACE, StartFailure, Work, WorkStage,
};
use crate::supervisor::exit::Exit;
use crate::supervisor::policy::{AutoShutdown, BudgetSpent, Restart, Strategy};
use std::time::{Duration, Instant};

/// How long a fenced child stands by before it is tried again, should nobody have decided about it.
pub(super) const STAND_BY: Duration = Duration::from_secs(30);

impl<P> Engine<P> {
    pub(super) fn started(&mut self, now: Instant, key: Key, serial: Serial) {
        if !self.is_current(key, serial) {
            return;
        }
        // An Ending child may report that it came up: it is on its way down all the same.
        if let Some(ChildPhase::Starting { ticket }) = self.phase(key) {
            let ticket = *ticket;
            self.set(key, ChildPhase::Up { since: now }, None);
            if let Some(t) = ticket {
                self.reply(t.id, Ok(CallAnswer::Done));
            }
        }
    }

    /// Its start chose not to run: not a failure, and nothing to restart. OTP keeps the spec of all but a temporary child.
    pub(super) fn ignored(&mut self, now: Instant, key: Key) {
        if let Some(ChildPhase::Starting { ticket }) = self.phase(key) {
            let ticket = *ticket;
            self.settle(key);
            if let Some(t) = ticket {
                self.reply(t.id, Ok(CallAnswer::Ignored));
            }
        } else {
            self.gone(now, key, Ok(Exit::Ignored)); // it was on its way down already
        }
    }

    /// An incarnation is over: `Err` if it never came up.
    pub(super) fn gone(&mut self, now: Instant, key: Key, how: Result<Exit, StartFailure>) {
        if !self.is_alive(key) {
            return; // told twice: what it waits for now, with its timer, stays
        }
        let closing = matches!(self.work, Work::Closing { .. });
        match self.set(key, ChildPhase::Idle, None) {
            ChildPhase::Starting { ticket } => {
                if let (None, Ok(Exit::Fenced(why))) = (ticket, &how) {
                    return if closing {
                        self.settle(key)
                    } else {
                        self.exited(now, key, Exit::Fenced(why.clone()), now)
                    };
                }
                if let Ok(Exit::Fenced(why)) = &how {
                    let why = self.failure(key, &format!("fenced off: {why}"));
                    return self.start_failed(now, key, ticket, why);
                }
                let why = how.err().unwrap_or_else(|| self.failure(key, "it ended during its start"));
                self.start_failed(now, key, ticket, why);
            }
            ChildPhase::Up { since } => {
                let exit = how.unwrap_or_else(|f| Exit::Failed(f.why));
                if closing { self.settle(key) } else { self.exited(now, key, exit, since) }
            }
            ChildPhase::Ending(ending) => {
                let Ending { by_rule, was_start, start_ticket, exit, mut tickets, since, renew, killed: _ } = ending;
                if !by_rule || closing {
                    self.settle(key);
                    self.start_was_stopped(start_ticket);
                    // Who asked for the end hears of it before what another asked for begins.
                    for ticket in std::mem::take(&mut tickets) {
                        self.reply(ticket, Ok(CallAnswer::Done));
                    }
                    if let Some(ticket) = renew {
                        self.renew(now, key, ticket);
                    }
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
                    self.reply(ticket, Ok(CallAnswer::Done));
                }
            }
            ChildPhase::Idle | ChildPhase::Queued { .. } | ChildPhase::Dead | ChildPhase::Backoff => {} // not alive: see above
        }
    }

    /// Tells the caller of that start about its end.
    pub(super) fn start_was_stopped(&mut self, ticket: Option<CallTicket>) {
        if let Some(t) = ticket {
            self.reply(t.id, Err(AdminError::Start("it was stopped during its start".into())));
        }
    }

    pub(super) fn failure(&self, key: Key, why: &str) -> StartFailure {
        let id = self.children.get(&key).map(|c| c.id.to_string()).unwrap_or_default();
        StartFailure { path: format!("{}/{id}", self.path), why: why.to_string() }
    }

    pub(super) fn start_failed(&mut self, now: Instant, key: Key, ticket: Option<CallTicket>, why: StartFailure) {
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
            Work::Beginning if self.children.get(&key).is_some_and(|c| c.rules.required) => {
                self.close(End::NotStarted(why))
            }
            Work::Beginning if self.children.get(&key).is_some_and(|c| c.rules.restart == Restart::Temporary) => {
                self.settle(key)
            }
            _ => {
                self.restart(now, key, &format!("did not start: {}", why.why));
                if let Some(child) = self.children.get_mut(&key).filter(|c| matches!(c.phase, ChildPhase::Backoff)) {
                    child.held.get_or_insert(Held::NotStarted(why.why));
                }
            }
        }
    }

    /// A child that was up has ended by itself.
    pub(super) fn exited(&mut self, now: Instant, key: Key, exit: Exit, since: Instant) {
        let reset_after = self.flags.backoff.reset_after;
        let Some(child) = self.children.get_mut(&key) else { return };
        if now.saturating_duration_since(since) >= reset_after {
            child.failures = 0;
            child.unstable_since = None;
        }
        child.exit = Some(exit);
        match &self.work {
            // It would have been stopped anyway.
            Work::Group { from, stage: WorkStage::Stopping, .. } if key >= *from => self.settle(key),
            Work::Running => self.apply_rule(now, key),
            _ => {
                self.set(key, ChildPhase::Dead, None);
                self.deferred.push_back(key);
            }
        }
    }

    pub(super) fn apply_rule(&mut self, now: Instant, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let exit = child.exit.take().unwrap_or(Exit::Normal);
        if let (Exit::Fenced(why), Restart::Permanent | Restart::Transient) = (&exit, child.rules.restart) {
            let why = why.clone();
            return self.hold(key, now + STAND_BY, Held::Fenced(why));
        }
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
            self.close(End::Exit(Exit::Shutdown));
        }
    }

    /// It is tried again then, alone, whatever the strategy; its siblings run on.
    fn hold(&mut self, key: Key, until: Instant, why: Held) {
        self.set(key, ChildPhase::Backoff, Some(until));
        if let Some(child) = self.children.get_mut(&key) {
            child.held = Some(why);
        }
    }

    /// A restart is called for: it counts, and one too many within the period ends the supervisor, or holds the child down.
    pub(super) fn restart(&mut self, now: Instant, key: Key, why: &str) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if std::mem::take(&mut child.blameless) {
            let delay = self.flags.backoff.delay(child.failures, self.jitter);
            return self.begin_again(now, key, delay);
        }
        let unstable = now.saturating_duration_since(*child.unstable_since.get_or_insert(now));
        let (within, restarts) = (self.flags.period, self.flags.intensity);
        let window = match self.flags.budget_spent {
            BudgetSpent::Escalate => &mut self.window,
            BudgetSpent::HoldDown { .. } => &mut child.restarts,
        };
        window.push_back(now);
        while window.front().is_some_and(|t| now.saturating_duration_since(*t) > within) {
            window.pop_front();
        }
        if window.len() > restarts as usize {
            let limit = match self.flags.budget_spent {
                BudgetSpent::Escalate => Some(Duration::ZERO),
                BudgetSpent::HoldDown { escalate_after } => escalate_after.filter(|_| child.rules.required),
            };
            if limit.is_some_and(|limit| unstable >= limit) {
                let why =
                    format!("restart budget spent: more than {restarts} within {within:?}; last {}: {why}", child.id);
                self.settle(key);
                return self.close(End::Exit(Exit::ShutdownWith(why)));
            }
            child.failures = child.failures.saturating_add(1);
            let until = now + self.flags.backoff.delay(u32::MAX, self.jitter);
            return self.hold(key, until, Held::CrashLoop { restarts, within, last: why.to_string() });
        }
        let delay = self.flags.backoff.delay(child.failures, self.jitter);
        child.failures = child.failures.saturating_add(1);
        self.begin_again(now, key, delay);
    }

    fn begin_again(&mut self, now: Instant, key: Key, delay: Duration) {
        match self.flags.strategy {
            // The ordered first start goes on with the next one meanwhile.
            _ if matches!(self.work, Work::Beginning) => {
                self.set(key, ChildPhase::Backoff, Some(now + delay));
            }
            Strategy::OneForOne if delay.is_zero() => self.start(now, key, None),
            Strategy::OneForOne => {
                self.set(key, ChildPhase::Backoff, Some(now + delay));
            }
            Strategy::OneForAll => self.group(0, delay),
            Strategy::RestForOne => self.group(key, delay),
        }
        if let Some(ChildPhase::Idle) = self.phase(key) {
            self.set(key, ChildPhase::Queued { ticket: None }, None);
        }
    }

    pub(super) fn hung(&mut self, now: Instant, key: Key, what: String) {
        let (was_start, start_ticket, since) = match self.phase(key) {
            Some(ChildPhase::Up { since }) => (false, None, Some(*since)),
            Some(ChildPhase::Starting { ticket }) => (true, *ticket, None),
            // It will not stop in order any more, however long it may take for that.
            Some(ChildPhase::Ending(ending)) if !ending.killed => {
                let ending = ending.clone();
                return self.kill(now, key, ending);
            }
            _ => return,
        };
        let ending = Ending { was_start, start_ticket, since, exit: Some(Exit::Hung(what)), ..Ending::by_rule() };
        self.kill(now, key, ending);
    }

    /// Kills it now; a child that is not gone after [`KILL_GRACE`] is abandoned.
    pub(super) fn kill(&mut self, now: Instant, key: Key, ending: Ending) {
        let supervisor = self.children.get(&key).is_some_and(|c| c.rules.supervisor);
        // A supervisor kills its own children and abandons the stuck ones itself: it is given the time for that.
        let grace = if supervisor { KILL_GRACE * 16 } else { KILL_GRACE };
        self.set(key, ChildPhase::Ending(Ending { killed: true, ..ending }), Some(now + grace));
        self.out.push(EngineCommand::Kill { key });
    }

    /// Somebody else got stuck on its thread. One who was on the way down by its own fault still answers for it.
    pub(super) fn lost(&mut self, now: Instant, key: Key) {
        let own_fault = matches!(self.phase(key), Some(ChildPhase::Ending(ending)) if ending.by_rule);
        if let Some(child) = self.children.get_mut(&key) {
            child.blameless = !own_fault;
        }
        self.abandon(now, key);
    }

    pub(super) fn abandon(&mut self, now: Instant, key: Key) {
        self.out.push(EngineCommand::Abandon { key });
        if let Some(child) = self.children.get_mut(&key) {
            child.serial += 1; // whatever the abandoned one still reports is void
        }
        self.gone(now, key, Ok(Exit::Hung("it did not end after it was killed, so its thread was given up".into())));
    }
}
