//! The limits on what runs at once, and when a journaled sector may act: pure.

use super::phase::{Action, Pool};
use super::sector::Sector;

/// How many of each may run at once.
#[derive(serde::Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sectors past `Allocated` and not final; 0 = no limit.
    pub max_sealing: usize,
    pub add_piece: usize,
    pub pc1: usize,
    pub pc2: usize,
    pub c1: usize,
    pub c2: usize,
    pub finalize: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_sealing: 0, add_piece: 1, pc1: 1, pc2: 1, c1: 1, c2: 1, finalize: 1 }
    }
}

impl Limits {
    /// `None`: not limited.
    pub fn of(&self, pool: Pool) -> Option<usize> {
        match pool {
            Pool::AddPiece => Some(self.add_piece),
            Pool::Pc1 => Some(self.pc1),
            Pool::Pc2 => Some(self.pc2),
            Pool::C1 => Some(self.c1),
            Pool::C2 => Some(self.c2),
            Pool::Finalize => Some(self.finalize),
            Pool::Unlimited => None,
        }
    }
}

/// Milliseconds beyond every wait that the rules ask for.
pub const LONGEST_WAIT: u64 = 3_600_000;

/// Whether that time, in Unix milliseconds, has come. One that is further away than any wait was set before the host's clock
/// was put back, and would be waited for until the clock is there again.
pub fn has_come(at: u64, now: u64) -> bool {
    at <= now || at > now.saturating_add(LONGEST_WAIT)
}

/// When a sector may act: `None` when only an event from outside (or nothing) can move it.
pub fn due_at(s: &Sector) -> Option<u64> {
    match s.phase.action() {
        Action::Nothing => None,
        Action::Retry => s.retry.map(|r| r.at),
        _ => Some(s.wait_until.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_come_at_its_moment_or_when_the_clock_was_put_back() {
        let now = 10 * LONGEST_WAIT;
        for (at, come) in [
            (0, true),
            (now, true),
            (now + 1, false),
            (now + LONGEST_WAIT, false),
            (now + LONGEST_WAIT + 1, true),
            (u64::MAX, true),
        ] {
            assert_eq!(has_come(at, now), come, "{at}");
        }
        assert!(!has_come(u64::MAX, u64::MAX - 1));
    }
}
