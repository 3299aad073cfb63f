//! Room for a sector: what those under way still write, and how old a ticket may be when PC1 begins. Pure.

use super::phase::Phase;
use super::sector::Sector;
use crate::actors::seal_agent::disk;
use crate::chain::{ChainEpoch, proof_types};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes that sectors under way have been promised and have not written yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// On this node's disk.
    pub here: u64,
    /// By agent.
    pub agents: BTreeMap<String, u64>,
}

impl Promised {
    /// The promises to all sectors but one, which asks for room itself.
    pub fn of<'a>(sectors: impl Iterator<Item = &'a Sector>, but: u64) -> Promised {
        let mut all = Promised::default();
        for sector in sectors.filter(|sector| sector.number != but) {
            let bytes = unwritten(sector);
            match &sector.location {
                _ if bytes == 0 => {}
                None => all.here = all.here.saturating_add(bytes),
                Some(agent) => *all.agents.entry(agent.clone()).or_default() += bytes,
            }
        }
        all
    }
}

/// Bytes that a sector still writes, as if the phase it is in had written nothing yet.
pub fn unwritten(sector: &Sector) -> u64 {
    let size = sector.seal_proof.and_then(proof_types::sector_size).unwrap_or(0);
    let all = disk(size);
    match sector.phase {
        // Its room is looked for when it gets its place.
        Phase::Allocated | Phase::AddPiece | Phase::AddPieceFailed => match &sector.location {
            Some(_) => all,
            None => 0,
        },
        Phase::GetTicket | Phase::PreCommit1 | Phase::SealPreCommit1Failed => all.saturating_sub(size),
        // The trees of columns and of the replica.
        Phase::PreCommit2 | Phase::SealPreCommit2Failed => size.saturating_mul(3) / 2,
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
        | Phase::Removed => 0,
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
        assert_eq!(promised.here, whole - size + size * 3 / 2);
        assert_eq!(promised.agents, BTreeMap::from([("a".to_string(), 2 * whole - size)]));
        assert_eq!(Promised::of(all.iter(), 1).here, whole - size + size * 3 / 2);
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
