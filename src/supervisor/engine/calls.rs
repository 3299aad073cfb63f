//! OTP's administrative calls on a supervisor: start, terminate, restart, delete, count, which.

use super::child::{Child, ChildPhase, Ending, Held, Key, Upgrade};
use super::{CallTicket, ChildRules, Engine, Flags, Work, WorkStage};
use crate::supervisor::exit::Exit;
use crate::supervisor::policy::Restart;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
pub(in crate::supervisor) enum SupervisorCall<P> {
    Start {
        id: Arc<str>,
        rules: ChildRules,
        payload: P,
    },
    Terminate {
        id: String,
    },
    Restart {
        id: String,
    },
    /// Stop in order and start again; one that does not run is started. One call, because its caller may be part of
    /// what is stopped.
    Renew {
        id: String,
    },
    Delete {
        id: String,
    },
    /// Kill the present incarnation; the restart rule applies.
    Kill {
        id: String,
    },
    /// Go on by another spec.
    Upgrade {
        flags: Flags,
        children: Vec<(Arc<str>, ChildRules, P)>,
    },
    Count,
    Which,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum CallAnswer {
    Done,
    /// The start chose not to run: OTP's `{ok, undefined}`.
    Ignored,
    Count(ChildCounts),
    /// Id, and whether it is up; `None` while it restarts.
    Which(Vec<(String, Option<bool>)>),
}

/// OTP's `count_children`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildCounts {
    pub specs: usize,
    pub active: usize,
    pub supervisors: usize,
    pub workers: usize,
}

/// Why an administrative call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    #[error("no such child")]
    NotFound,
    #[error("a child of that id is there, but not running: restart or delete it")]
    AlreadyPresent,
    #[error("a child of that id runs already")]
    AlreadyStarted,
    #[error("the supervisor has as many children as it may")]
    MaxChildren,
    #[error("the child is running: terminate it first")]
    Running,
    #[error("the child is being restarted")]
    Restarting,
    #[error("the child is not running")]
    NotRunning,
    #[error("not on a dynamic supervisor, nor of a temporary child: those are forgotten when they end")]
    Dynamic,
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    #[error("the supervisor is not running")]
    NoSupervisor,
    #[error("a supervisor takes no messages that could be held back: suspend its children")]
    NotAWorker,
    #[error("the root has nobody above it: stop the node instead")]
    Root,
    #[error("{0}")]
    Start(String),
}

impl<P> Engine<P> {
    pub(super) fn call(&mut self, now: Instant, ticket: u64, call: SupervisorCall<P>) {
        let result = match call {
            SupervisorCall::Start { id, rules, payload } => self.call_start(now, ticket, id, rules, payload),
            SupervisorCall::Terminate { id } => self.find(&id).and_then(|key| self.call_terminate(now, ticket, key)),
            SupervisorCall::Restart { id } => self.find(&id).and_then(|key| self.call_restart(now, ticket, key)),
            SupervisorCall::Renew { id } => self.find(&id).and_then(|key| self.call_renew(now, ticket, key)),
            SupervisorCall::Delete { id } => self.find(&id).and_then(|key| self.call_delete(key)),
            SupervisorCall::Kill { id } => self.find(&id).and_then(|key| self.call_kill(now, key)),
            SupervisorCall::Upgrade { flags, children } => self.call_upgrade(Upgrade { ticket, flags, children }),
            SupervisorCall::Count => Ok(Some(CallAnswer::Count(self.count()))),
            SupervisorCall::Which => Ok(Some(CallAnswer::Which(self.which()))),
        };
        match result {
            Ok(Some(answer)) => self.reply(ticket, Ok(answer)),
            Ok(None) => {} // the answer comes when the thing is done
            Err(why) => self.reply(ticket, Err(why)),
        }
    }

    fn find(&self, id: &str) -> Result<Key, AdminError> {
        self.key_of(id).ok_or(AdminError::NotFound)
    }

    fn call_start(
        &mut self,
        now: Instant,
        ticket: u64,
        id: Arc<str>,
        rules: ChildRules,
        payload: P,
    ) -> Result<Option<CallAnswer>, AdminError> {
        if let Some(phase) = self.key_of(&id).and_then(|key| self.phase(key)) {
            return Err(if phase.is_alive() { AdminError::AlreadyStarted } else { AdminError::AlreadyPresent });
        }
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return Err(AdminError::ShuttingDown);
        }
        if self.flags.dynamic.is_some_and(|max| self.children.len() >= max) {
            return Err(AdminError::MaxChildren);
        }
        let key = self.add(id, rules, payload);
        self.begin(now, key, CallTicket { id: ticket, forget: true });
        Ok(None)
    }

    /// Starts it now, or, when the supervisor is busy with an ordered start, in its turn at the end of that.
    fn begin(&mut self, now: Instant, key: Key, ticket: CallTicket) {
        if matches!(self.work, Work::Running) {
            self.start(now, key, Some(ticket));
        } else {
            self.set(key, ChildPhase::Queued { ticket: Some(ticket) }, None);
        }
    }

    fn call_terminate(&mut self, now: Instant, ticket: u64, key: Key) -> Result<Option<CallAnswer>, AdminError> {
        if let (Work::Group { from, stage: WorkStage::Stopping, .. }, Some(child)) =
            (&self.work, self.children.get_mut(&key))
            && key >= *from
        {
            child.parked = true;
        }
        self.take_back_start(key);
        if self.is_alive(key) {
            self.stop(now, key, vec![ticket]);
            return Ok(None);
        }
        self.settle(key);
        Ok(Some(CallAnswer::Done))
    }

    /// Tells the caller of a start that has not begun that it will not.
    fn take_back_start(&mut self, key: Key) {
        let asked = match self.children.get_mut(&key).map(|c| &mut c.phase) {
            Some(ChildPhase::Queued { ticket }) => ticket.take().map(|t| t.id),
            Some(ChildPhase::Ending(ending)) => ending.renew.take(),
            _ => None,
        };
        if let Some(id) = asked {
            self.reply(id, Err(AdminError::Start("it was terminated before its turn came".into())));
        }
    }

    fn call_renew(&mut self, now: Instant, ticket: u64, key: Key) -> Result<Option<CallAnswer>, AdminError> {
        if self.flags.dynamic.is_some()
            || self.children.get(&key).is_some_and(|c| c.rules.restart == Restart::Temporary)
        {
            return Err(AdminError::Dynamic);
        }
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return Err(AdminError::ShuttingDown);
        }
        if matches!(self.phase(key), Some(ChildPhase::Ending(ending)) if ending.renew.is_some()) {
            return Err(AdminError::Restarting);
        }
        if self.is_alive(key) {
            self.stop(now, key, Vec::new());
            if let Some(ChildPhase::Ending(ending)) = self.children.get_mut(&key).map(|c| &mut c.phase) {
                ending.renew = Some(ticket);
            }
        } else {
            self.take_back_start(key);
            self.begin(now, key, CallTicket { id: ticket, forget: false });
        }
        Ok(None)
    }

    /// Starts a child again after the end that a renewal waited for.
    pub(super) fn renew(&mut self, now: Instant, key: Key, ticket: u64) {
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            self.reply(ticket, Err(AdminError::ShuttingDown));
        } else if self.children.contains_key(&key) {
            self.begin(now, key, CallTicket { id: ticket, forget: false });
        } else {
            self.reply(ticket, Err(AdminError::NotFound)); // by another spec it is a temporary child now
        }
    }

    fn call_restart(&mut self, now: Instant, ticket: u64, key: Key) -> Result<Option<CallAnswer>, AdminError> {
        if self.flags.dynamic.is_some() {
            return Err(AdminError::Dynamic);
        }
        if !self.held(key).is_some_and(Held::may_be_started) || !matches!(self.phase(key), Some(ChildPhase::Backoff)) {
            self.must_be_idle(key)?;
        }
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return Err(AdminError::ShuttingDown);
        }
        self.begin(now, key, CallTicket { id: ticket, forget: false });
        Ok(None)
    }

    fn call_delete(&mut self, key: Key) -> Result<Option<CallAnswer>, AdminError> {
        if self.flags.dynamic.is_some() {
            return Err(AdminError::Dynamic);
        }
        self.must_be_idle(key)?;
        self.remove(key);
        Ok(Some(CallAnswer::Done))
    }

    fn must_be_idle(&self, key: Key) -> Result<(), AdminError> {
        match self.phase(key) {
            Some(ChildPhase::Idle) => Ok(()),
            Some(phase) if phase.is_restarting() => Err(AdminError::Restarting),
            Some(_) => Err(AdminError::Running),
            None => Err(AdminError::NotFound),
        }
    }

    fn call_kill(&mut self, now: Instant, key: Key) -> Result<Option<CallAnswer>, AdminError> {
        match self.phase(key) {
            Some(ChildPhase::Up { since }) => {
                let since = Some(*since);
                self.kill(now, key, Ending { since, exit: Some(Exit::Killed), ..Ending::by_rule() });
                Ok(Some(CallAnswer::Done))
            }
            Some(ChildPhase::Starting { ticket }) => {
                let start_ticket = *ticket;
                let exit = Some(Exit::Killed);
                self.kill(now, key, Ending { was_start: true, start_ticket, exit, ..Ending::by_rule() });
                Ok(Some(CallAnswer::Done))
            }
            Some(phase) if phase.is_restarting() => Err(AdminError::Restarting),
            Some(_) => Err(AdminError::NotRunning),
            None => Err(AdminError::NotFound),
        }
    }

    pub(super) fn count(&self) -> ChildCounts {
        let of = |test: &dyn Fn(&Child<P>) -> bool| self.children.values().filter(|c| test(c)).count();
        ChildCounts {
            specs: if self.flags.dynamic.is_some() { 1 } else { self.children.len() },
            active: of(&|c| c.phase.is_alive()),
            supervisors: of(&|c| c.rules.supervisor),
            workers: of(&|c| !c.rules.supervisor),
        }
    }

    fn which(&self) -> Vec<(String, Option<bool>)> {
        let state = |p: &ChildPhase| if p.is_restarting() { None } else { Some(p.is_alive()) };
        self.children.values().map(|c| (c.id.to_string(), state(&c.phase))).collect()
    }
}
