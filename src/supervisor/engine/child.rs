//! One child in the engine's books: its phase is the whole truth about it.

use crate::supervisor::exit::Exit;
use crate::supervisor::policy::{AutoShutdown, BudgetSpent, Restart, RestartBackoff, Shutdown, Strategy};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A child's place in its supervisor's start order.
pub(in crate::supervisor) type Key = u64;
/// Which incarnation of a child: reports of any other are void.
pub(in crate::supervisor) type Serial = u64;

#[derive(Clone, Debug)]
pub(in crate::supervisor) enum ChildPhase {
    /// Not running, spec kept: OTP's `undefined`.
    Idle,
    /// Its turn in an ordered start will come.
    Queued {
        ticket: Option<CallTicket>,
    },
    Starting {
        ticket: Option<CallTicket>,
    },
    Up {
        since: Instant,
    },
    /// It ended while its supervisor was busy: the restart rule will be applied.
    Dead,
    /// Waits for its restart.
    Backoff,
    /// Asked or forced to end.
    Ending(Ending),
}

impl ChildPhase {
    /// There is, or may be, a thing that runs.
    pub fn is_alive(&self) -> bool {
        matches!(self, ChildPhase::Starting { .. } | ChildPhase::Up { .. } | ChildPhase::Ending(_))
    }
    /// On its way up or down: an ordered start waits for it.
    pub fn is_moving(&self) -> bool {
        matches!(self, ChildPhase::Starting { .. } | ChildPhase::Ending(_))
    }
    /// It runs or will run without anyone asking.
    pub fn is_wanted(&self) -> bool {
        !matches!(self, ChildPhase::Idle)
    }
    /// OTP's `restarting`.
    pub fn is_restarting(&self) -> bool {
        matches!(self, ChildPhase::Queued { .. } | ChildPhase::Dead | ChildPhase::Backoff)
    }
}

#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Ending {
    pub killed: bool,
    /// The restart rule applies afterwards: it ends for a fault. Otherwise on its supervisor's or an operator's order.
    pub by_rule: bool,
    pub was_start: bool,
    pub start_ticket: Option<CallTicket>,
    pub since: Option<Instant>,
    /// The true reason, where it is not the one that the child will report.
    pub exit: Option<Exit>,
    /// Calls that wait for the end.
    pub tickets: Vec<u64>,
    /// A call that waits for the start which is to follow.
    pub renew: Option<u64>,
}

impl Ending {
    pub fn ordered() -> Ending {
        Ending {
            killed: false,
            by_rule: false,
            was_start: false,
            start_ticket: None,
            since: None,
            exit: None,
            tickets: Vec::new(),
            renew: None,
        }
    }
    pub fn by_rule() -> Ending {
        Ending { by_rule: true, ..Ending::ordered() }
    }
}

/// Why a child is not up and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Held {
    /// Its last start failed.
    NotStarted(String),
    /// It has used up the restart budget, in a supervisor that goes on without it.
    CrashLoop { restarts: u32, within: Duration, last: String },
    /// Another process holds what it does: whoever decides about that starts or ends it.
    Fenced(String),
}

impl Held {
    /// Whether a call may start it before its time has come.
    pub fn may_be_started(&self) -> bool {
        match self {
            Held::NotStarted(_) => false,
            Held::CrashLoop { .. } | Held::Fenced(_) => true,
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Held::NotStarted(why) => write!(f, "did not start: {why}"),
            Held::CrashLoop { restarts, within, last } => {
                write!(
                    f,
                    "more than {restarts} restarts within {within:?}, so it is held down between tries; last: {last}"
                )
            }
            Held::Fenced(why) => write!(f, "stands by, fenced off: {why}"),
        }
    }
}

pub(super) struct Child<P> {
    pub id: Arc<str>,
    pub rules: ChildRules,
    pub payload: P,
    pub phase: ChildPhase,
    pub timer: Option<Instant>,
    pub serial: Serial,
    /// Restarts since it last was up for long enough: the exponent of the backoff.
    pub failures: u32,
    /// When it was restarted, no longer ago than the period; where each child has the budget for itself.
    pub restarts: VecDeque<Instant>,
    /// The time since which it has not been up for long enough; `None`: it has, or never failed.
    pub unstable_since: Option<Instant>,
    /// Set while it is not up and waits longer than its backoff.
    pub held: Option<Held>,
    /// The last exit that the restart rule has not seen yet.
    pub exit: Option<Exit>,
    /// Terminated by a call while its group is being stopped: the group's start passes it over.
    pub parked: bool,
    /// Ended because another actor hung their thread: uses no restart budget.
    pub blameless: bool,
}

impl<P> Child<P> {
    pub fn new(id: Arc<str>, rules: ChildRules, payload: P) -> Child<P> {
        Child {
            id,
            rules,
            payload,
            phase: ChildPhase::Idle,
            timer: None,
            serial: 0,
            failures: 0,
            restarts: VecDeque::new(),
            unstable_since: None,
            held: None,
            exit: None,
            parked: false,
            blameless: false,
        }
    }
}

/// A call that waits for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct CallTicket {
    pub id: u64,
    /// Forget the spec if the start fails: start_child does, restart_child does not.
    pub forget: bool,
}

/// A child spec, as far as the rules need it.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct ChildRules {
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
pub(in crate::supervisor) struct Flags {
    pub strategy: Strategy,
    pub intensity: u32,
    pub period: Duration,
    pub backoff: RestartBackoff,
    pub budget_spent: BudgetSpent,
    pub auto_shutdown: AutoShutdown,
    pub dynamic: Option<usize>,
}

pub(in crate::supervisor) struct Upgrade<P> {
    pub ticket: u64,
    pub flags: Flags,
    pub children: Vec<(Arc<str>, ChildRules, P)>,
}
