//! Queues that stand still because the host lacks disk or memory: one look for all that wait, and no sector is charged. Pure.

use super::phase::{Action, Pool};
use super::plan::has_come;
use crate::actors::seal_jobs::StepKind;
use std::collections::{BTreeMap, BTreeSet};

/// The key under which failures are counted: a sector, or a queue that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tried {
    Sector(u64),
    Room(Pool),
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tried::Sector(number) => write!(f, "sector {number}"),
            Tried::Room(pool) => write!(f, "room for {pool:?}"),
        }
    }
}

/// The queues that wait for room, until when, in Unix milliseconds.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<Pool, u64>);

impl Holds {
    pub fn hold(&mut self, pool: Pool, until: u64) {
        self.0.insert(pool, until);
    }

    /// A task has ended: what it took may be free.
    pub fn look_again(&mut self) {
        self.0.clear();
    }

    pub fn at(&self, now: u64) -> BTreeSet<Pool> {
        self.0.iter().filter(|(_, until)| !has_come(**until, now)).map(|(pool, _)| *pool).collect()
    }

    /// The next end of a hold after `now`.
    pub fn next_time(&self, now: u64) -> Option<u64> {
        self.0.values().copied().filter(|until| *until > now).min()
    }
}

/// The step of an action that takes memory.
pub(super) fn step_of(action: Action) -> Option<StepKind> {
    match action {
        Action::AddPiece => Some(StepKind::AddPiece),
        Action::Pc1 => Some(StepKind::Pc1),
        Action::Pc2 => Some(StepKind::Pc2),
        Action::C1 => Some(StepKind::C1),
        Action::C2 => Some(StepKind::C2),
        Action::Describe
        | Action::DrawTicket
        | Action::SendPreCommit
        | Action::PollPreCommit
        | Action::PollSeed
        | Action::Verify
        | Action::SendCommit
        | Action::PollCommit
        | Action::Finalize
        | Action::RemoveFiles
        | Action::Retry
        | Action::Nothing => None,
    }
}
