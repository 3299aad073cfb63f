//! What a journaled sector needs next, and which of many may start now: pure.

use super::sector::{Phase, Sector};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Describe,
    AddPiece,
    DrawTicket,
    Pc1,
    Pc2,
    SendPreCommit,
    PollPreCommit,
    PollSeed,
    C1,
    C2,
    Verify,
    SendCommit,
    PollCommit,
    Finalize,
    RemoveFiles,
    /// A failure state: wait for its retry time.
    Retry,
    Nothing,
}

/// The phase alone decides, so that a restart goes on where the journal ends.
pub fn action(phase: Phase) -> Action {
    match phase {
        Phase::Allocated => Action::Describe,
        Phase::AddPiece => Action::AddPiece,
        Phase::GetTicket => Action::DrawTicket,
        Phase::PreCommit1 => Action::Pc1,
        Phase::PreCommit2 => Action::Pc2,
        Phase::PreCommitting => Action::SendPreCommit,
        Phase::PreCommitWait => Action::PollPreCommit,
        Phase::WaitSeed => Action::PollSeed,
        Phase::Commit1 => Action::C1,
        Phase::Commit2 => Action::C2,
        Phase::VerifySeal => Action::Verify,
        Phase::SubmitCommit => Action::SendCommit,
        Phase::CommitWait => Action::PollCommit,
        Phase::FinalizeSector => Action::Finalize,
        Phase::Removing => Action::RemoveFiles,
        Phase::AddPieceFailed
        | Phase::SealPreCommit1Failed
        | Phase::SealPreCommit2Failed
        | Phase::PreCommitFailed
        | Phase::ComputeProofFailed
        | Phase::CommitFailed
        | Phase::FinalizeFailed => Action::Retry,
        Phase::Proving | Phase::Removed => Action::Nothing,
    }
}

impl Action {
    /// The name of a task that computes or moves files; `None` for questions and messages.
    pub fn task(self) -> Option<&'static str> {
        match self {
            Action::AddPiece => Some("ap"),
            Action::Pc1 => Some("pc1"),
            Action::Pc2 => Some("pc2"),
            Action::C1 => Some("c1"),
            Action::C2 => Some("c2"),
            Action::Verify => Some("verify"),
            Action::Finalize => Some("fin"),
            Action::RemoveFiles => Some("rm"),
            Action::Describe
            | Action::DrawTicket
            | Action::SendPreCommit
            | Action::PollPreCommit
            | Action::PollSeed
            | Action::SendCommit
            | Action::PollCommit
            | Action::Retry
            | Action::Nothing => None,
        }
    }
    /// Asked once a head.
    pub fn is_poll(self) -> bool {
        matches!(self, Action::PollPreCommit | Action::PollSeed | Action::PollCommit)
    }
    /// Needs to know the head.
    pub fn needs_head(self) -> bool {
        self.is_poll() || matches!(self, Action::DrawTicket | Action::SendPreCommit | Action::SendCommit)
    }
}

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
    pub fn of(&self, action: Action) -> Option<usize> {
        match action {
            Action::AddPiece => Some(self.add_piece),
            Action::Pc1 => Some(self.pc1),
            Action::Pc2 => Some(self.pc2),
            Action::C1 => Some(self.c1),
            Action::C2 => Some(self.c2),
            Action::Finalize => Some(self.finalize),
            _ => None,
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

/// Which candidates start now. `running` are the actions under way at this node, `sealing` the sectors under way. What is furthest
/// goes first, so that sectors finish before others begin; then the lowest number.
pub fn admit(mut candidates: Vec<Candidate>, running: &[Action], sealing: usize, limits: &Limits) -> Vec<Candidate> {
    candidates.sort_by_key(|c| (std::cmp::Reverse(c.phase), c.number));
    let mut running = running.to_vec();
    let mut sealing = sealing;
    candidates.retain(|c| {
        let action = action(c.phase);
        if c.phase == Phase::Allocated {
            if limits.max_sealing != 0 && sealing >= limits.max_sealing {
                return false;
            }
            sealing += 1;
        }
        if c.away {
            return true;
        }
        let busy = running.iter().filter(|r| **r == action).count();
        if limits.of(action).is_some_and(|limit| busy >= limit.max(1)) {
            return false;
        }
        running.push(action);
        true
    });
    candidates
}

/// When a sector may act: `None` when only an event from outside (or nothing) can move it.
pub fn due_at(s: &Sector) -> Option<u64> {
    match action(s.phase) {
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

    fn admitted(candidates: &[Candidate], running: &[Action], sealing: usize, limits: Limits) -> Vec<u64> {
        admit(candidates.to_vec(), running, sealing, &limits).into_iter().map(|c| c.number).collect()
    }

    #[test]
    fn one_c2_at_a_time_and_the_furthest_first() {
        let all = [c(1, Phase::PreCommit1), c(3, Phase::Commit2), c(2, Phase::Commit2), c(4, Phase::WaitSeed)];
        assert_eq!(admitted(&all, &[], 4, Limits::default()), [2, 4, 1]);
        assert_eq!(admitted(&all, &[Action::C2], 4, Limits::default()), [4, 1]);
        assert_eq!(admitted(&all, &[Action::C2], 4, Limits { c2: 2, ..Limits::default() }), [2, 4, 1]);
        assert_eq!(admitted(&all, &[], 4, Limits { c2: 0, ..Limits::default() }), [2, 4, 1], "0 would stop for ever");
    }

    #[test]
    fn what_runs_at_an_agent_takes_no_slot_here() {
        let away = |number| Candidate { away: true, ..c(number, Phase::PreCommit1) };
        let all = [away(1), c(2, Phase::PreCommit1), away(3), c(4, Phase::PreCommit1)];
        assert_eq!(admitted(&all, &[], 4, Limits::default()), [1, 2, 3]);
        assert_eq!(admitted(&all, &[Action::Pc1], 4, Limits::default()), [1, 3]);
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
