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

/// When a sector may act: `None` when only an event from outside (or nothing) can move it.
pub fn due_at(s: &Sector) -> Option<u64> {
    match s.phase.action() {
        Action::Nothing => None,
        Action::Retry => s.retry.map(|r| r.at),
        _ => Some(s.wait_until.unwrap_or(0)),
    }
}
