//! The choices of a spec among OTP's rules: when a child is restarted, how it is stopped, what its end does to others.

use crate::util::Backoff;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    Permanent,
    Transient,
    Temporary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    BrutalKill,
    Timeout(Duration),
    Infinity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    OneForOne,
    OneForAll,
    RestForOne,
}

/// Whether a supervisor ends by itself once significant children have ended by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    Never,
    AnySignificant,
    AllSignificant,
}

/// The fate of a child that asks for more restarts than its supervisor's budget has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetSpent {
    /// OTP's rule: the supervisor ends, and with it all its children.
    Escalate,
    /// That child is held down: it is tried again, alone, after each [`RestartBackoff::cap`], and its siblings run on. Each child
    /// has the whole budget for itself.
    HoldDown {
        /// The supervisor ends after all when a child that it requires (not [`may_start_later`](super::ChildSpec::may_start_later)) was not up for
        /// [`RestartBackoff::reset_after`] in so long; `None`: never.
        escalate_after: Option<Duration>,
    },
}

/// Exponential, with jitter; resets after `reset_after` of uptime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestartBackoff {
    pub first: Duration,
    pub cap: Duration,
    pub reset_after: Duration,
}

impl RestartBackoff {
    /// Restarts at once: for tests and for children whose start is cheap and harmless.
    pub const NONE: RestartBackoff =
        RestartBackoff { first: Duration::ZERO, cap: Duration::ZERO, reset_after: Duration::ZERO };

    /// The wait before the restart that follows `failures` earlier ones; `jitter` in -1..=1 moves it by a fifth.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let waits = Backoff::doubling(self.first, self.cap).jitter(0.2);
        waits.after_by_chance(failures.saturating_add(1), jitter)
    }
}

/// The thread on which an actor's handlers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thread {
    /// An arbiter of that name, shared with the actors that name it too.
    Shared(&'static str),
    /// An arbiter of its own: for actors that touch files or FFI.
    Dedicated,
}
