//! The next action of a journaled sector, and the choice of those that may start now: pure.

use super::phase::{Action, Phase, Pool};
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

/// One sector's place in the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub number: u64,
    pub phase: Phase,
    /// Its files are at an agent, which has limits of its own.
    pub away: bool,
}

/// Which candidates start now. `running` are the pools of what is under way at this node, `sealing` the sectors under way.
/// The highest rank goes first, then the lowest number.
pub fn admit(mut candidates: Vec<Candidate>, running: &[Pool], sealing: usize, limits: &Limits) -> Vec<Candidate> {
    candidates.sort_by_key(|c| (std::cmp::Reverse(c.phase.rank()), c.number));
    let mut running = running.to_vec();
    let mut sealing = sealing;
    candidates.retain(|c| {
        let pool = c.phase.pool();
        if c.phase == Phase::Allocated {
            if limits.max_sealing != 0 && sealing >= limits.max_sealing {
                return false;
            }
            sealing += 1;
        }
        if c.away {
            return true;
        }
        let busy = running.iter().filter(|r| **r == pool).count();
        if limits.of(pool).is_some_and(|limit| busy >= limit.max(1)) {
            return false;
        }
        running.push(pool);
        true
    });
    candidates
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

    fn c(number: u64, phase: Phase) -> Candidate {
        Candidate { number, phase, away: false }
    }

    fn admitted(candidates: &[Candidate], running: &[Pool], sealing: usize, limits: Limits) -> Vec<u64> {
        admit(candidates.to_vec(), running, sealing, &limits).into_iter().map(|c| c.number).collect()
    }

    #[test]
    fn one_c2_at_a_time_and_the_furthest_first() {
        let all = [c(1, Phase::PreCommit1), c(3, Phase::Commit2), c(2, Phase::Commit2), c(4, Phase::WaitSeed)];
        assert_eq!(admitted(&all, &[], 4, Limits::default()), [2, 4, 1]);
        assert_eq!(admitted(&all, &[Pool::C2], 4, Limits::default()), [4, 1]);
        assert_eq!(admitted(&all, &[Pool::C2], 4, Limits { c2: 2, ..Limits::default() }), [2, 4, 1]);
        assert_eq!(admitted(&all, &[], 4, Limits { c2: 0, ..Limits::default() }), [2, 4, 1], "0 would stop for ever");
    }

    #[test]
    fn what_runs_at_an_agent_takes_no_slot_here() {
        let away = |number| Candidate { away: true, ..c(number, Phase::PreCommit1) };
        let all = [away(1), c(2, Phase::PreCommit1), away(3), c(4, Phase::PreCommit1)];
        assert_eq!(admitted(&all, &[], 4, Limits::default()), [1, 2, 3]);
        assert_eq!(admitted(&all, &[Pool::Pc1], 4, Limits::default()), [1, 3]);
    }

    #[test]
    fn max_sealing_holds_new_sectors_back_at_its_boundary() {
        let new = [c(1, Phase::Allocated), c(2, Phase::Allocated)];
        for (sealing, want) in [(1, vec![1, 2]), (2, vec![1]), (3, vec![]), (4, vec![])] {
            assert_eq!(admitted(&new, &[], sealing, Limits { max_sealing: 3, ..Limits::default() }), want, "{sealing}");
        }
        assert_eq!(admitted(&new, &[], 1000, Limits::default()), [1, 2]);
    }
}
