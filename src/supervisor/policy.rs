//! The choices of a spec among OTP's rules: when a child is restarted, how it is stopped, what its end does to others.

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
    /// That child is held down: it is tried again, alone, after each [`Backoff::cap`], and its siblings run on. Each child
    /// has the whole budget for itself.
    HoldDown {
        /// The supervisor ends after all when a child that it requires (not [`may_start_later`](super::ChildSpec::may_start_later)) was not up for
        /// [`Backoff::reset_after`] in so long; `None`: never.
        escalate_after: Option<Duration>,
    },
}

/// Exponential, with jitter; resets after `reset_after` of uptime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub cap: Duration,
    pub reset_after: Duration,
}

impl Backoff {
    /// Restarts at once: for tests and for children whose start is cheap and harmless.
    pub const NONE: Backoff = Backoff { first: Duration::ZERO, cap: Duration::ZERO, reset_after: Duration::ZERO };

    /// The wait before the restart that follows `failures` earlier ones; `jitter` in -1..=1 moves it by a fifth.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX));
        doubled.min(self.cap).mul_f64(1.0 + 0.2 * jitter.clamp(-1.0, 1.0))
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
