//! Room for a sector: what those under way still write, and how old a ticket may be when PC1 begins. Pure.

use super::phase::Phase;
use super::sector::Sector;
use crate::actors::seal_agent::disk;
use crate::actors::sector_files::{SectorDirs, Writing};
use crate::chain::{ChainEpoch, proof_types};
use crate::util::host::Memory;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// The moment from which on a run did not wait for its turn any more; `None`: not known, and when it was handed over counts.
#[derive(Clone, Debug, Default)]
pub struct Began(Rc<Cell<Option<Instant>>>);

impl Began {
    pub fn set(&self, at: Instant) {
        self.0.set(Some(at));
    }

    pub fn get(&self) -> Option<Instant> {
        self.0.get()
    }
}

/// Bytes that a step of a sector under way writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    pub number: u64,
    pub writing: Writing,
    /// As if the step had written nothing yet.
    pub bytes: u64,
}

/// Bytes that sectors under way have been promised, as if the steps they are in had written nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// On this node's disk.
    pub here: Vec<Promise>,
    /// By agent; an agent counts as free what these steps have written.
    pub agents: BTreeMap<String, u64>,
}

impl Promised {
    /// The promises to all sectors but one, which asks for room itself.
    pub fn of<'a>(sectors: impl Iterator<Item = &'a Sector>, but: u64) -> Promised {
        let mut all = Promised::default();
        for sector in sectors.filter(|sector| sector.number != but) {
            let bytes = unwritten(sector);
            match (&sector.location, writing(sector.phase)) {
                _ if bytes == 0 => {}
                (None, Some(writing)) => all.here.push(Promise { number: sector.number, writing, bytes }),
                (None, None) => {}
                (Some(agent), _) => *all.agents.entry(agent.clone()).or_default() += bytes,
            }
        }
        all
    }

    /// Bytes that are promised on this node's disk and not written yet: the rest is not free any more.
    pub fn unwritten_here(&self, dirs: &SectorDirs) -> u64 {
        let left = |p: &Promise| p.bytes.saturating_sub(dirs.written(p.number, p.writing));
        self.here.iter().map(left).fold(0, u64::saturating_add)
    }
}

/// The files that a sector's step writes; `None`: none to speak of.
fn writing(phase: Phase) -> Option<Writing> {
    match phase {
        Phase::Allocated | Phase::AddPiece | Phase::AddPieceFailed => Some(Writing::Piece),
        Phase::GetTicket | Phase::PreCommit1 | Phase::SealPreCommit1Failed => Some(Writing::Layers),
        Phase::PreCommit2 | Phase::SealPreCommit2Failed => Some(Writing::Trees),
        Phase::PreCommitting
        | Phase::PreCommitWait
        | Phase::PreCommitFailed
        | Phase::WaitSeed
        | Phase::Commit1
        | Phase::Commit2
        | Phase::VerifySeal
        | Phase::ComputeProofFailed
        | Phase::SubmitCommit
        | Phase::CommitWait
        | Phase::CommitFailed
        | Phase::FinalizeSector
        | Phase::FinalizeFailed
        | Phase::Proving
        | Phase::Removing
        | Phase::Removed => None,
    }
}

/// Bytes that a sector still writes, as if the phase it is in had written nothing yet.
pub fn unwritten(sector: &Sector) -> u64 {
    let size = sector.seal_proof.and_then(proof_types::sector_size).unwrap_or(0);
    let all = disk(size);
    match writing(sector.phase) {
        // Its room is looked for when it gets its place.
        Some(Writing::Piece) if sector.location.is_none() => 0,
        Some(Writing::Piece) => all,
        Some(Writing::Layers) => all.saturating_sub(size),
        // The trees of columns and of the replica.
        Some(Writing::Trees) => size.saturating_mul(3) / 2,
        None => 0,
    }
}

/// `None`: there is room. Else why not, in one sentence.
pub fn no_room(sector_size: u64, free: u64, promised: u64, keep: u64) -> Option<String> {
    let need = disk(sector_size);
    let wanted = need.saturating_add(promised).saturating_add(keep);
    (free < wanted).then(|| {
        format!(
            "no room on the disk for the {need} bytes of a sector, beside what those under way still write and the {keep} that stay free for proofs and messages (sealing.keep_free)"
        )
    })
}

/// `None`: there is memory for `need` bytes. `promised`: what the tasks under way may take in all.
pub fn no_memory(need: u64, memory: &Memory, promised: u64) -> Option<String> {
    let left = memory.left(promised);
    (left < need).then(|| {
        let (need, available, left) = (need >> 20, memory.available >> 20, left >> 20);
        format!(
            "waits for memory: it may take {need} MiB, {available} MiB are available, {left} MiB beside what the tasks under way may still take"
        )
    })
}

/// Epochs that are left for PC1 before its ticket is of no use; at most 0: draw another one. `pc1_took`: how long the last
/// PC1 took; a reserve of it is kept, of half the time that a ticket lasts once it is drawn `lookback` epochs back at most.
pub fn epochs_left(
    ticket: ChainEpoch,
    head: ChainEpoch,
    max_age: ChainEpoch,
    lookback: ChainEpoch,
    pc1_took: Option<Duration>,
    block_delay: Duration,
) -> ChainEpoch {
    let reserve = match (pc1_took, block_delay.as_millis()) {
        (Some(took), delay) if delay > 0 => i64::try_from(took.as_millis().div_ceil(delay)).unwrap_or(i64::MAX),
        (None | Some(_), _) => 0,
    };
    let left = ticket.saturating_add(max_age).saturating_sub(head);
    let kept = left.saturating_sub(reserve.min((max_age - lookback).max(0) / 2));
    // One that was drawn just now is as good as another that would be drawn instead.
    if head.saturating_sub(ticket) <= lookback { kept.max(1) } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(number: u64, phase: Phase, agent: Option<&str>) -> Sector {
        let mut s = Sector::new(number, "r", 0);
        s.seal_proof = Some(5);
        s.enter(phase, 0, "test");
        s.location = agent.map(str::to_string);
        s
    }

    #[test]
    fn what_is_promised_is_counted_where_it_will_be_written() {
        let all = [
            sector(1, Phase::PreCommit1, None),
            sector(2, Phase::PreCommit2, None),
            sector(3, Phase::Commit2, None),
            sector(4, Phase::Proving, None),
            sector(5, Phase::GetTicket, Some("a")),
            sector(6, Phase::AddPiece, Some("a")),
            sector(7, Phase::AddPiece, None),
            sector(8, Phase::SealPreCommit1Failed, None),
        ];
        let (whole, size) = (disk(2048), 2048);
        let promised = Promised::of(all.iter(), 8);
        let dir = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(dir.path(), 1000);
        assert_eq!(promised.unwritten_here(&dirs), whole - size + size * 3 / 2);
        assert_eq!(promised.agents, BTreeMap::from([("a".to_string(), 2 * whole - size)]));
        assert_eq!(Promised::of(all.iter(), 1).unwritten_here(&dirs), whole - size + size * 3 / 2);

        // What a running PC1 has written is not promised any more: the free disk is smaller by it already.
        dirs.create().unwrap();
        std::fs::create_dir_all(dirs.cache(1)).unwrap();
        std::fs::write(dirs.cache(1).join("sc-02-data-layer-1.dat"), vec![1; 8192]).unwrap();
        assert_eq!(promised.unwritten_here(&dirs), (whole - size - 8192) + size * 3 / 2);
        // PC2 finds the layers there, and promised its trees only.
        std::fs::create_dir_all(dirs.cache(2)).unwrap();
        std::fs::write(dirs.cache(2).join("sc-02-data-layer-1.dat"), vec![1; 65536]).unwrap();
        assert_eq!(promised.unwritten_here(&dirs), (whole - size - 8192) + size * 3 / 2);
        std::fs::write(dirs.cache(2).join("sc-02-data-tree-c.dat"), vec![1; 65536]).unwrap();
        std::fs::write(dirs.cache(1).join("sc-02-data-layer-2.dat"), vec![1; 65536]).unwrap();
        assert_eq!(promised.unwritten_here(&dirs), 0, "more than was thought takes nothing from the others");
    }

    #[test]
    fn memory_is_refused_at_its_boundary_and_what_is_held_counts_once() {
        for (available, promised, children, room) in [
            (100, 0, 0, true),
            (99, 0, 0, false),
            (150, 50, 0, true),
            (149, 50, 0, false),
            (120, 50, 30, true),
            (119, 50, 30, false),
            (100, 50, 80, true),
        ] {
            let memory = Memory { available, children };
            assert_eq!(no_memory(100, &memory, promised).is_none(), room, "{memory:?} {promised}");
        }
    }

    #[test]
    fn room_is_refused_at_its_boundary() {
        let need = disk(2048);
        for (free, room) in [(need + 149, false), (need + 150, true), (need + 151, true), (0, false)] {
            assert_eq!(no_room(2048, free, 100, 50).is_none(), room, "{free}");
        }
        assert!(no_room(2048, u64::MAX, u64::MAX, 1).is_none(), "the sum does not wrap round");
        assert!(no_room(2048, u64::MAX - 1, u64::MAX, 1).is_some());
    }

    #[test]
    fn a_ticket_is_worn_before_pc1_could_end() {
        let secs = Duration::from_secs;
        for (head, took, left) in [
            (1000, None, 100),
            (1099, None, 1),
            (1100, None, 0),
            (1000, Some(secs(600)), 80),
            (1079, Some(secs(600)), 1),
            (1080, Some(secs(600)), 0),
            (1000, Some(secs(601)), 79),
            // A PC1 that takes longer than a ticket lasts must be tried all the same.
            (1000, Some(secs(100_000)), 50),
        ] {
            assert_eq!(epochs_left(1000, head, 100, 0, took, secs(30)), left, "{head} {took:?}");
        }
        // Drawn 90 back of 100: a long PC1 leaves it its turn, or another would be drawn for ever.
        assert_eq!(epochs_left(910, 1000, 100, 90, Some(secs(100_000)), secs(30)), 5);
        assert_eq!(epochs_left(900, 1000, 100, 100, Some(secs(100_000)), secs(30)), 1);
        assert_eq!(epochs_left(1000, 1000, 100, 0, Some(secs(600)), Duration::ZERO), 100, "the delay is not known");
    }
}
