//! The sectors of a journal as they are kept in memory: whole while something is to be done for them, in brief once they
//! are final; and how many are where.

use super::messages::{SectorPage, SectorSummary};
use super::phase::Phase;
use super::sector::Sector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The texts and figures of a page; half of what a message between nodes may hold.
const PAGE_BYTES: usize = 512 << 10;
/// A sector in a page without its texts, at most.
const ROW_BYTES: usize = 64;

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
    /// The numbers of those that are whole: few, whatever the number of sectors.
    whole: BTreeSet<u64>,
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
        match kept {
            Kept::Whole(_) => drop(self.whole.insert(number)),
            Kept::Brief(_) => drop(self.whole.remove(&number)),
        }
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

    /// The records that are kept in memory, in order of numbers.
    pub fn all_whole(&self) -> impl Iterator<Item = &Sector> {
        self.whole.iter().filter_map(|number| self.whole(*number))
    }

    pub fn summary(&self, number: u64, working: bool) -> Option<SectorSummary> {
        self.kept.get(&number).map(|kept| summary(number, kept, working))
    }

    /// In order of numbers, as many as one message between nodes holds; all that are left, where no number is given.
    pub fn page(&self, from: u64, most: u32, working: impl Fn(u64) -> bool) -> SectorPage {
        let (mut page, mut bytes) = (SectorPage::default(), 0);
        for (number, kept) in self.kept.range(from..) {
            let sector = summary(*number, kept, working(*number));
            let texts = [&sector.reason, &sector.location].map(|text| text.as_ref().map_or(0, String::len));
            bytes += ROW_BYTES + texts[0] + texts[1];
            let full = page.sectors.len() as u64 >= u64::from(most) || (bytes > PAGE_BYTES && !page.sectors.is_empty());
            if most < u32::MAX && full {
                page.more = true;
                break;
            }
            page.sectors.push(sector);
        }
        page
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
    use crate::wire::codec;

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
            assert_eq!(sectors.all_whole().count(), usize::from(whole));
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

    /// All of them at once are no message between nodes any more: a body has 1 MiB at most.
    #[test]
    fn a_hundred_thousand_sectors_are_listed_by_pages_that_fit_in_a_message() {
        const ALL: u64 = 100_000;
        let mut sectors = Sectors::default();
        for number in (0..ALL).map(|n| 2 * n) {
            let mut sector = Sector::new(number, "r", 1_700_000_000_000);
            // Some thousand fail, with long reasons.
            let phase = if number % 40 == 0 { Phase::CommitFailed } else { Phase::Proving };
            sector.enter(phase, 1_700_000_000_000, "test");
            sector.reason = (phase == Phase::CommitFailed).then(|| "the full node refuses it; ".repeat(80));
            sectors.put(sector);
        }
        let bytes = |page: &SectorPage| {
            let mut bytes = Vec::new();
            codec::encode(page, &mut bytes).map(|()| bytes.len())
        };
        assert!(bytes(&sectors.page(0, u32::MAX, |_| false)).is_err(), "the whole list is refused");
        let (mut next, mut told, mut pages) = (0, Vec::new(), 0);
        loop {
            let page = sectors.page(next, 1000, |_| false);
            assert!(bytes(&page).unwrap() < codec::BODY_LIMIT && page.sectors.len() <= 1000);
            told.extend(page.sectors.iter().map(|sector| sector.number));
            pages += 1;
            next = told.last().unwrap() + 1;
            if !page.more {
                break;
            }
        }
        assert_eq!(told, (0..ALL).map(|n| 2 * n).collect::<Vec<_>>());
        assert!((100..=200).contains(&pages), "{pages}");
        assert!(sectors.page(2 * ALL, 1000, |_| false) == SectorPage::default(), "past the end");
        let one = sectors.page(7, 1, |_| false);
        assert_eq!((one.sectors[0].number, one.sectors.len(), one.more), (8, 1, true));
    }
}
