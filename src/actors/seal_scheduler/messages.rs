//! The seal scheduler's public protocol.

use super::phase::Phase;
use super::sector::Sector;
use crate::supervisor::Message;
use crate::supervisor::wire::{WireError, WireForm};
use crate::wire::codec::{self, Earlier};
use crate::wire::ids;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seal one sector of committed capacity. The request key names the wish: asked again, the same sector answers.
/// The wish is durable when this answers, also when no number could be had yet.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Pledge {
    pub request: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum PledgeAnswer {
    Sector(u64),
    /// Stored; a number follows by itself. Ask again with the same key to learn it.
    Waiting(String),
    /// Not stored.
    Refused(String),
}

impl Message for Pledge {
    type Reply = PledgeAnswer;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::PLEDGE, 1));
}

/// Sectors in order of numbers. An answer for all of a large miner's is longer than a message between nodes may be: ask by
/// pages.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct List {
    /// The lowest number that is wanted.
    pub from: u64,
    /// At most so many; `u32::MAX`: all, whatever they take.
    pub most: u32,
}

impl List {
    pub const ALL: List = List { from: 0, most: u32::MAX };
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SectorPage {
    pub sectors: Vec<SectorSummary>,
    /// There are others, of higher numbers.
    pub more: bool,
}

impl Message for List {
    type Reply = SectorPage;
    const WIRE: Option<WireForm<Self>> =
        Some(codec::form(ids::LIST, 2).with_previous(codec::previous::<Self, ListV1>()));
}

/// [`List`] as it was: all of them. Whoever asks an older node for a page gets those before `from`, too.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ListV1;

impl Earlier<List> for ListV1 {
    type Reply = Vec<SectorSummary>;

    fn upgrade(self) -> List {
        List::ALL
    }

    fn downgrade(_: &List) -> Result<ListV1, WireError> {
        Ok(ListV1)
    }

    fn upgrade_reply(sectors: Vec<SectorSummary>) -> SectorPage {
        SectorPage { sectors, more: false }
    }

    fn downgrade_reply(reply: &SectorPage) -> Result<Vec<SectorSummary>, WireError> {
        Ok(reply.sectors.clone())
    }
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Status {
    pub number: u64,
}

impl Message for Status {
    type Reply = Option<SectorDetail>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::SECTOR_STATUS, 1));
}

/// Stop sealing a sector and delete its files. What the chain knows of it stays.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Remove {
    pub number: u64,
    pub why: String,
    /// Needed for a sector that is proving: without its files it becomes faulty.
    pub even_if_proving: bool,
}

impl Message for Remove {
    type Reply = Result<(), String>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::REMOVE, 1));
}

/// How many sectors are in which state, and what runs: an answer whose size does not grow with the sectors.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Summary;

impl Message for Summary {
    type Reply = SealingSummary;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::SEALING_SUMMARY, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct SealingSummary {
    pub states: BTreeMap<String, u64>,
    /// Sectors that failed and wait to be tried again.
    pub failing: u64,
    /// Pledges that have no number yet.
    pub unnumbered: u64,
    /// Kind of task -> tasks under way at this node, and how many may be.
    pub slots: BTreeMap<String, Slots>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Slots {
    pub used: u64,
    pub all: u64,
}

/// The tasks under way, for `sealing jobs`.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Tasks;

impl Message for Tasks {
    type Reply = Vec<SealingTask>;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::SEALING_TASKS, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct SealingTask {
    pub sector: u64,
    /// `ap pc1 pc2 c1 c2 verify fin rm`
    pub task: String,
    /// Unix milliseconds.
    pub since: u64,
    /// The agent that has the sector's files; `None`: the scheduler's node.
    pub agent: Option<String>,
    /// How long it took for the sector before it here; `None`: not known.
    pub last_took_ms: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SectorSummary {
    pub number: u64,
    pub phase: Phase,
    /// Unix milliseconds of the entry into the phase.
    pub since: u64,
    /// A task or a question to the chain is under way.
    pub working: bool,
    /// The agent that has its files; `None`: the scheduler's node.
    pub location: Option<String>,
    /// Why it waits or last failed.
    pub reason: Option<String>,
    /// Unix milliseconds.
    pub retry_at: Option<u64>,
}

impl SectorSummary {
    /// Why it failed, until it has got over that. An ordinary wait has no failure.
    pub fn failure(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.retry_at.is_some())
    }

    /// The event that it waits for in the ordinary course of sealing.
    pub fn waits_for(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.retry_at.is_none())
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SectorDetail {
    pub summary: SectorSummary,
    /// The journal record: tickets, commitments, epochs, timings, log.
    pub sector: Sector,
    /// Milliseconds in each phase.
    pub durations: Vec<(Phase, u64)>,
}
