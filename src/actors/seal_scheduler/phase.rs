//! The states of a sector, one row each: its number in stored and sent bytes, its rank among sectors that could go on, what
//! it does next, and the pool that bounds how many do so at once. The names are Lotus'.

use crate::store::numbered::{self, Numbered};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sector's next action.
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
        match self {
            Action::PollPreCommit
            | Action::PollSeed
            | Action::PollCommit
            | Action::SendPreCommit
            | Action::SendCommit => true,
            Action::Describe
            | Action::AddPiece
            | Action::DrawTicket
            | Action::Pc1
            | Action::Pc2
            | Action::C1
            | Action::C2
            | Action::Verify
            | Action::Finalize
            | Action::RemoveFiles
            | Action::Retry
            | Action::Nothing => false,
        }
    }
    /// Needs to know the head.
    pub fn needs_head(self) -> bool {
        self.is_poll() || self == Action::DrawTicket
    }
}

/// A bound on how many sectors of a state run at once; states of one pool share its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    AddPiece,
    Pc1,
    Pc2,
    C1,
    C2,
    Finalize,
    Unlimited,
}

/// One row of the table of states.
pub(super) struct Row {
    pub number: u32,
    pub name: &'static str,
    /// The highest goes first, so that sectors finish before others begin. Nothing stored depends on it.
    pub rank: u32,
    pub action: Action,
    pub pool: Pool,
}

macro_rules! states {
    ($($(#[$doc:meta])* $phase:ident = $number:literal, rank $rank:literal, $action:ident, $pool:ident;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Phase {
            $($(#[$doc])* $phase,)*
        }

        impl Phase {
            pub(super) fn row(self) -> &'static Row {
                match self {
                    $(Phase::$phase => &Row {
                        number: $number,
                        name: stringify!($phase),
                        rank: $rank,
                        action: Action::$action,
                        pool: Pool::$pool,
                    },)*
                }
            }
        }

        impl Numbered for Phase {
            const TYPE: &'static str = "Phase";
            const ALL: &'static [Phase] = &[$(Phase::$phase),*];
            const NAMES: &'static [&'static str] = &[$(stringify!($phase)),*];
            fn number(self) -> u32 {
                self.row().number
            }
            fn name(self) -> &'static str {
                self.row().name
            }
        }
    };
}

// A new state takes the next free number, whatever its place in a sector's life; its rank says that place. The number is in
// every stored sector: never change one, never use one again. `tests::the_table_of_states` pins them.
states! {
    /// It has a number, nothing else yet; waits for its turn under `max_sealing`.
    Allocated = 0, rank 0, Describe, Unlimited;
    AddPiece = 1, rank 10, AddPiece, AddPiece;
    GetTicket = 2, rank 20, DrawTicket, Unlimited;
    PreCommit1 = 3, rank 30, Pc1, Pc1;
    PreCommit2 = 4, rank 40, Pc2, Pc2;
    PreCommitting = 5, rank 50, SendPreCommit, Unlimited;
    PreCommitWait = 6, rank 60, PollPreCommit, Unlimited;
    WaitSeed = 7, rank 70, PollSeed, Unlimited;
    /// C1 and C2 are Lotus' `Committing`.
    Commit1 = 8, rank 80, C1, C1;
    Commit2 = 9, rank 90, C2, C2;
    /// Our own check of the proof before it costs gas.
    VerifySeal = 10, rank 100, Verify, Unlimited;
    SubmitCommit = 11, rank 110, SendCommit, Unlimited;
    CommitWait = 12, rank 120, PollCommit, Unlimited;
    FinalizeSector = 13, rank 130, Finalize, Finalize;
    Proving = 14, rank 140, Nothing, Unlimited;
    AddPieceFailed = 15, rank 150, Retry, Unlimited;
    SealPreCommit1Failed = 16, rank 160, Retry, Unlimited;
    SealPreCommit2Failed = 17, rank 170, Retry, Unlimited;
    PreCommitFailed = 18, rank 180, Retry, Unlimited;
    ComputeProofFailed = 19, rank 190, Retry, Unlimited;
    CommitFailed = 20, rank 200, Retry, Unlimited;
    FinalizeFailed = 21, rank 210, Retry, Unlimited;
    Removing = 22, rank 220, RemoveFiles, Unlimited;
    Removed = 23, rank 230, Nothing, Unlimited;
}

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        numbered::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Phase {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Phase, D::Error> {
        numbered::deserialize(from)
    }
}

/// By rank; the number only tells two of the same rank apart.
impl Ord for Phase {
    fn cmp(&self, other: &Phase) -> std::cmp::Ordering {
        (self.row().rank, self.row().number).cmp(&(other.row().rank, other.row().number))
    }
}

impl PartialOrd for Phase {
    fn partial_cmp(&self, other: &Phase) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().name)
    }
}

impl Phase {
    /// The next action of a sector in this state; the state alone decides, so that a restart goes on where the journal
    /// ends.
    pub fn action(self) -> Action {
        self.row().action
    }
    pub(super) fn rank(self) -> u32 {
        self.row().rank
    }
    pub fn pool(self) -> Pool {
        self.row().pool
    }
    /// Nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Proving | Phase::Removed)
    }
    /// Counts against `max_sealing`.
    pub fn is_sealing(self) -> bool {
        !self.is_final() && self != Phase::Allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of the bytes that every version has written: a line here never changes. A new state is a new
    /// line.
    #[test]
    fn the_table_of_states() {
        let pinned = "\
            0 Allocated Describe Unlimited, 1 AddPiece AddPiece AddPiece, 2 GetTicket DrawTicket Unlimited, \
            3 PreCommit1 Pc1 Pc1, 4 PreCommit2 Pc2 Pc2, 5 PreCommitting SendPreCommit Unlimited, \
            6 PreCommitWait PollPreCommit Unlimited, 7 WaitSeed PollSeed Unlimited, 8 Commit1 C1 C1, 9 Commit2 C2 C2, \
            10 VerifySeal Verify Unlimited, 11 SubmitCommit SendCommit Unlimited, 12 CommitWait PollCommit Unlimited, \
            13 FinalizeSector Finalize Finalize, 14 Proving Nothing Unlimited, 15 AddPieceFailed Retry Unlimited, \
            16 SealPreCommit1Failed Retry Unlimited, 17 SealPreCommit2Failed Retry Unlimited, \
            18 PreCommitFailed Retry Unlimited, 19 ComputeProofFailed Retry Unlimited, 20 CommitFailed Retry Unlimited, \
            21 FinalizeFailed Retry Unlimited, 22 Removing RemoveFiles Unlimited, 23 Removed Nothing Unlimited";
        let mut table: Vec<&Row> = Phase::ALL.iter().map(|phase| phase.row()).collect();
        table.sort_by_key(|row| row.number);
        let lines: Vec<String> =
            table.iter().map(|row| format!("{} {} {:?} {:?}", row.number, row.name, row.action, row.pool)).collect();
        assert_eq!(lines.join(", "), pinned);
    }

    #[test]
    fn a_state_has_the_byte_and_the_name_that_it_always_had() {
        let config = bincode::config::standard();
        for phase in Phase::ALL {
            let bytes = bincode::serde::encode_to_vec(phase, config).unwrap();
            assert_eq!(bytes, [phase.number() as u8], "{phase}");
            assert_eq!(bincode::serde::decode_from_slice(&bytes, config).unwrap(), (*phase, 1));
            let json = serde_json::to_value(phase).unwrap();
            assert_eq!(json, format!("{phase:?}"), "and the name is the variant's");
            assert_eq!(serde_json::from_value::<Phase>(json).unwrap(), *phase);
        }
    }

    /// In the order of a sector's life, each before what follows from it; files that must go make room for all others.
    #[test]
    fn what_is_further_has_the_higher_rank() {
        use Phase::*;
        let life = [
            Allocated,
            AddPiece,
            GetTicket,
            PreCommit1,
            PreCommit2,
            PreCommitting,
            PreCommitWait,
            WaitSeed,
            Commit1,
            Commit2,
            VerifySeal,
            SubmitCommit,
            CommitWait,
            FinalizeSector,
            Removing,
        ];
        assert!(life.is_sorted_by(|a, b| a.rank() < b.rank()));
    }
}
