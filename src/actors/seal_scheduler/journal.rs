//! The sectors of a journal as they are kept in memory: whole while something is to be done for them, in brief once they
//! are final; and how many are where.

use super::messages::SectorSummary;
use super::phase::Phase;
use super::sector::Sector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many sectors are where; kept up to date with each change, so that asking costs nothing.
#[derive(Default)]
pub(super) struct Census {
    pub phases: BTreeMap<Phase, u64>,
    pub failing: u64,
    /// Sectors that count against `max_sealing`.
    pub sealing: usize,
}

impl Census {
    fn count(&mut self, kept: &Kept) {
        let phase = kept.phase();
        *self.phases.entry(phase).or_default() += 1;
        self.failing += u64::from(kept.is_failing());
        self.sealing += usize::from(phase.is_sealing());
    }
    fn forget(&mut self, kept: &Kept) {
        let phase = kept.phase();
        if let Some(count) = self.phases.get_mut(&phase) {
            *count = count.saturating_sub(1);
        }
        self.failing = self.failing.saturating_sub(u64::from(kept.is_failing()));
        self.sealing = self.sealing.saturating_sub(usize::from(phase.is_sealing()));
    }
}

enum Kept {
    Whole(Box<Sector>),
    /// The record is on disk only.
    Brief(Brief),
}

/// A sector for which nothing more is to be done, as far as a list shows it.
struct Brief {
    phase: Phase,
    /// Unix milliseconds of the entry into the phase.
    since: u64,
    location: Option<Arc<str>>,
}

impl Kept {
    fn phase(&self) -> Phase {
        match self {
            Kept::Whole(sector) => sector.phase,
            Kept::Brief(brief) => brief.phase,
        }
    }
    /// Agrees with [`SectorSummary::failure`].
    fn is_failing(&self) -> bool {
        matches!(self, Kept::Whole(sector) if sector.reason.is_some() && retry_at(sector).is_some())
    }
}

fn retry_at(sector: &Sector) -> Option<u64> {
    sector.retry.map(|retry| retry.at).or(sector.wait_until)
}

fn since(sector: &Sector) -> u64 {
    sector.timings.last().map_or(sector.created, |timing| timing.started)
}

#[derive(Default)]
pub(super) struct Sectors {
    kept: BTreeMap<u64, Kept>,
    pub census: Census,
    /// The agents that have files, each name once.
    names: Vec<Arc<str>>,
}

impl Sectors {
    /// Takes the record in the place of the one before.
    pub fn put(&mut self, sector: Sector) {
        let number = sector.number;
        let kept = match sector.phase.is_final() && sector.reason.is_none() {
            true => Kept::Brief(Brief {
                phase: sector.phase,
                since: since(&sector),
                location: sector.location.as_deref().map(|agent| self.name(agent)),
            }),
            false => Kept::Whole(Box::new(sector)),
        };
        self.census.count(&kept);
        if let Some(old) = self.kept.insert(number, kept) {
            self.census.forget(&old);
        }
    }

    fn name(&mut self, agent: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| known.as_ref() == agent) {
            return known.clone();
        }
        let name: Arc<str> = agent.into();
        self.names.push(name.clone());
        name
    }

    /// The record, if it is kept in memory: nothing is to be done for the others.
    pub fn whole(&self, number: u64) -> Option<&Sector> {
        match self.kept.get(&number)? {
            Kept::Whole(sector) => Some(sector),
            Kept::Brief(_) => None,
        }
    }

    pub fn phase(&self, number: u64) -> Option<Phase> {
        self.kept.get(&number).map(Kept::phase)
    }

    /// The records that are kept in memory.
    pub fn all_whole(&self) -> impl Iterator<Item = &Sector> {
        self.kept.values().filter_map(|kept| match kept {
            Kept::Whole(sector) => Some(&**sector),
            Kept::Brief(_) => None,
        })
    }

    pub fn summary(&self, number: u64, working: bool) -> Option<SectorSummary> {
        self.kept.get(&number).map(|kept| summary(number, kept, working))
    }

    /// In order of numbers.
    pub fn summaries(&self, working: impl Fn(u64) -> bool) -> Vec<SectorSummary> {
        self.kept.iter().map(|(number, kept)| summary(*number, kept, working(*number))).collect()
    }
}

fn summary(number: u64, kept: &Kept, working: bool) -> SectorSummary {
    match kept {
        Kept::Whole(sector) => SectorSummary {
            number,
            phase: sector.phase,
            since: since(sector),
            working,
            reason: sector.reason.clone(),
            location: sector.location.clone(),
            retry_at: retry_at(sector),
        },
        Kept::Brief(brief) => SectorSummary {
            number,
            phase: brief.phase,
            since: brief.since,
            working,
            reason: None,
            location: brief.location.as_deref().map(str::to_owned),
            retry_at: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::seal_scheduler::sector::Retry;

    #[test]
    fn a_final_sector_is_kept_in_brief_and_says_the_same_in_a_list() {
        let mut sectors = Sectors::default();
        let sealing = Sector { location: Some("agent-a".into()), ..Sector::new(1, "r", 5) };
        sectors.put(sealing.clone());
        assert!(sectors.whole(1).is_some());
        assert_eq!((sectors.census.sealing, sectors.census.phases[&Phase::Allocated]), (0, 1));
        for (phase, whole) in
            [(Phase::PreCommit1, true), (Phase::Proving, false), (Phase::Removing, true), (Phase::Removed, false)]
        {
            let mut sector = sealing.clone();
            sector.enter(phase, 9, "test");
            sectors.put(sector.clone());
            assert_eq!((sectors.whole(1).is_some(), sectors.phase(1)), (whole, Some(phase)));
            let told = sectors.summary(1, false).unwrap();
            assert_eq!((told.phase, told.since, told.location.as_deref()), (phase, 9, Some("agent-a")));
            assert_eq!(sectors.census.sealing, usize::from(whole));
            assert_eq!(sectors.census.phases.values().sum::<u64>(), 1, "{:?}", sectors.census.phases);
        }
        let mut failed = sealing;
        failed.enter(Phase::SealPreCommit1Failed, 10, "test");
        (failed.reason, failed.retry) = (Some("disk".into()), Some(Retry { at: 20, into: Phase::PreCommit1 }));
        sectors.put(failed);
        assert_eq!((sectors.census.failing, sectors.names.len()), (1, 1));
        assert_eq!(sectors.summary(1, true).unwrap().failure(), Some("disk"));
    }
}
