//! Views of the sectors and of what runs for them, for people and other actors.

use super::super::messages::{List, SealingSummary, SealingTask, SectorDetail, SectorPage, SectorSummary, Slots};
use super::super::phase::{Action, Pool};
use super::super::sector::Sector;
use super::{Driver, RunningAction};
use std::collections::BTreeMap;

/// Pledges without a number that an inspection names.
const SHOWN: usize = 100;

impl Driver {
    /// All sectors.
    pub fn list(&self) -> Vec<SectorSummary> {
        let List { from, most } = List::ALL;
        self.page(from, most).sectors
    }

    pub fn page(&self, from: u64, most: u32) -> SectorPage {
        self.sectors.page(from, most, |number| self.running.contains_key(&number))
    }

    pub fn detail(&self, number: u64, now: u64) -> Option<SectorDetail> {
        let mut summary = self.sectors.summary(number, self.running.contains_key(&number))?;
        let sector = match self.sector(number) {
            Ok(Some(sector)) => sector,
            unread => {
                let why = unread.err().map_or_else(|| "it is not on disk".to_owned(), |e| e.to_string());
                tracing::error!(sector = number, %why, "the record of a sector cannot be read");
                summary.reason = Some(format!("its record cannot be read: {why}"));
                Sector { phase: summary.phase, ..Sector::new(number, "", summary.since) }
            }
        };
        let durations = sector.durations(now);
        Some(SectorDetail { summary, sector, durations })
    }

    pub fn counts(&self) -> SealingSummary {
        let mut slots = BTreeMap::<String, Slots>::new();
        let limited = [
            (Action::AddPiece, Pool::AddPiece),
            (Action::Pc1, Pool::Pc1),
            (Action::Pc2, Pool::Pc2),
            (Action::C1, Pool::C1),
            (Action::C2, Pool::C2),
            (Action::Finalize, Pool::Finalize),
        ];
        for (action, pool) in limited {
            let (Some(task), Some(all)) = (action.task(), self.limits.of(pool)) else { continue };
            slots.insert(task.to_string(), Slots { used: 0, all: all as u64 });
        }
        let here = self.running.values().filter(|running| !running.away);
        for slot in here.filter_map(|running| running.action.task()) {
            slots.entry(slot.to_string()).or_default().used += 1;
        }
        let states = self.sectors.census.phases.iter().filter(|(_, count)| **count > 0);
        SealingSummary {
            states: states.map(|(phase, count)| (phase.to_string(), *count)).collect(),
            failing: self.sectors.census.failing,
            unnumbered: self.unnumbered.len() as u64,
            slots,
        }
    }

    /// In order of sectors.
    pub fn tasks(&self) -> Vec<SealingTask> {
        let row = |(number, running): (&u64, &RunningAction)| {
            Some(SealingTask {
                sector: *number,
                task: running.action.task()?.to_string(),
                since: running.since,
                agent: self.sectors.whole(*number).and_then(|sector| sector.location.clone()),
                last_took_ms: self.took.get(&running.action).copied(),
            })
        };
        let mut tasks: Vec<SealingTask> = self.running.iter().filter_map(row).collect();
        tasks.sort_by_key(|task| task.sector);
        tasks
    }

    /// For a person: what runs, how many sectors are where, what waits for what.
    pub fn show(&self) -> serde_json::Value {
        let phases: BTreeMap<String, u64> = self
            .sectors
            .census
            .phases
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(phase, n)| (phase.to_string(), *n))
            .collect();
        let [times, epochs, heads, turns] = self.ready.waiting();
        let running: BTreeMap<u64, serde_json::Value> = self
            .running
            .iter()
            .map(|(n, r)| {
                (*n, serde_json::json!({ "action": format!("{:?}", r.action), "run": r.run, "away": r.away }))
            })
            .collect();
        let held: BTreeMap<u64, u64> = self.paces.iter().filter_map(|(n, pace)| Some((*n, pace.held?))).collect();
        serde_json::json!({
            "limits": self.limits, "sectors": phases, "running": running,
            "pledges_without_number": self.unnumbered(SHOWN), "held_after_failed_writes": held,
            "wait": { "for_a_time": times, "for_an_epoch": epochs, "for_a_head": heads, "for_their_turn": turns },
            "looked_at": self.ready.looked_at(),
        })
    }
}
