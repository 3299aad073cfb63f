//! The duration of each phase: marks as they are passed, and the summary at the end. Pure; times are Unix milliseconds.

use super::progress::{PROVING, Progress};
use crate::cli::render::table::{Align, table};
use crate::cli::render::time::elapsed;
use serde::Serialize;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Timeline {
    start: u64,
    /// Steps of the start that have ended: keys, chain, miner, node.
    steps: Vec<(&'static str, u64)>,
    sectors: Vec<SectorTimes>,
    first_window_post: Option<u64>,
    first_block: Option<u64>,
}

#[derive(Clone, Debug)]
struct SectorTimes {
    number: u64,
    states: Vec<(String, u64)>,
}

/// A row of the summary.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub phase: String,
    /// How long it took.
    pub ms: u64,
    /// When it ended, from the start of the command; the total has no later.
    pub at_ms: u64,
}

impl Timeline {
    pub fn new(start: u64) -> Timeline {
        Timeline { start, ..Default::default() }
    }

    pub fn step_done(&mut self, step: &'static str, now: u64) {
        self.steps.push((step, now));
    }

    pub fn observe(&mut self, p: &Progress, now: u64) {
        for s in &p.sectors {
            let known = match self.sectors.iter().position(|k| k.number == s.number) {
                Some(i) => &mut self.sectors[i],
                None => {
                    self.sectors.push(SectorTimes { number: s.number, states: vec![] });
                    let last = self.sectors.len() - 1;
                    &mut self.sectors[last]
                }
            };
            if !s.states.is_empty() {
                known.states = s.states.clone();
            } else if known.states.last().is_none_or(|(name, _)| *name != s.state) {
                known.states.push((s.state.clone(), s.since));
            }
        }
        if p.window_posts_accepted > 0 {
            self.first_window_post.get_or_insert(now);
        }
        if p.blocks_won > 0 {
            self.first_block.get_or_insert(now);
        }
    }

    pub fn rows(&self, now: u64) -> Vec<Row> {
        let at = |t: u64| t.saturating_sub(self.start);
        let mut rows = Vec::new();
        let mut before = self.start;
        for (step, done) in &self.steps {
            rows.push(Row { phase: step.to_string(), ms: done.saturating_sub(before), at_ms: at(*done) });
            before = *done;
        }
        // the first sector that got there tells the story; a resumed one had its phases in an earlier run
        let first =
            self.sectors.iter().find(|s| s.states.iter().any(|(name, _)| name == PROVING)).or(self.sectors.first());
        if let Some(sector) = first {
            for pair in sector.states.windows(2) {
                let [(name, from), (_, to)] = pair else { continue };
                if name == PROVING {
                    break;
                }
                let earlier = if *from < self.start { ", earlier run" } else { "" };
                let phase = format!("sector {}: {name}{earlier}", sector.number);
                rows.push(Row { phase, ms: to.saturating_sub(*from), at_ms: at(*to) });
            }
        }
        for (phase, mark) in
            [("first WindowPoSt accepted", self.first_window_post), ("first block on chain", self.first_block)]
        {
            rows.extend(mark.map(|t| Row { phase: phase.to_string(), ms: at(t), at_ms: at(t) }));
        }
        rows.push(Row { phase: "total".to_string(), ms: at(now), at_ms: at(now) });
        rows
    }
}

pub fn summary(rows: &[Row]) -> String {
    let columns = [("PHASE", Align::Left), ("TOOK", Align::Right), ("DONE AT", Align::Right)];
    let time = |ms: u64| elapsed(Duration::from_millis(ms));
    table(&columns, &rows.iter().map(|r| vec![r.phase.clone(), time(r.ms), time(r.at_ms)]).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::progress::SectorProgress;
    use super::*;

    fn look(states: &[(&str, u64)], window_posts_accepted: u64, blocks_won: u64) -> Progress {
        let states: Vec<(String, u64)> = states.iter().map(|(s, at)| (s.to_string(), *at)).collect();
        let (state, since) = states.last().cloned().unwrap_or_default();
        let sectors = vec![SectorProgress { number: 0, state, since, states }];
        Progress { sectors, window_posts_accepted, blocks_won, ..Default::default() }
    }

    #[test]
    fn a_whole_run() {
        let mut t = Timeline::new(10_000);
        for (step, at) in [("keys", 10_100), ("chain", 11_000), ("miner", 15_000), ("node", 16_000)] {
            t.step_done(step, at);
        }
        let states = [("Packing", 16_500), ("PreCommit1", 16_600), ("WaitSeed", 20_000), ("Proving", 110_000)];
        t.observe(&look(&states[..2], 0, 0), 17_000);
        t.observe(&look(&states, 0, 1), 111_000);
        t.observe(&look(&states, 1, 2), 140_000);
        t.observe(&look(&states, 2, 3), 150_000);
        let expected = "\
PHASE                           TOOK     DONE AT
keys                           0.1 s       0.1 s
chain                          0.9 s       1.0 s
miner                          4.0 s       5.0 s
node                           1.0 s       6.0 s
sector 0: Packing              0.1 s       6.6 s
sector 0: PreCommit1           3.4 s      10.0 s
sector 0: WaitSeed          1 m 30 s  1 m 40 s
first WindowPoSt accepted   2 m 10 s  2 m 10 s
first block on chain        1 m 41 s  1 m 41 s
total                       2 m 21 s  2 m 21 s
";
        let squeeze =
            |s: &str| s.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(squeeze(&summary(&t.rows(151_000))), squeeze(expected));
    }

    #[test]
    fn without_history_looks_make_the_phases_and_an_earlier_run_is_named() {
        let mut t = Timeline::new(10_000);
        let one = |state: &str, since| {
            let mut p = look(&[(state, since)], 0, 0);
            p.sectors[0].states.clear();
            p
        };
        t.observe(&one("PreCommit1", 9_000), 10_000);
        t.observe(&one("PreCommit1", 9_000), 11_000);
        t.observe(&one("PreCommit2", 12_000), 12_000);
        let rows = t.rows(13_000);
        assert_eq!(rows[0], Row { phase: "sector 0: PreCommit1, earlier run".into(), ms: 3000, at_ms: 2000 });
        assert_eq!(rows.len(), 2);
        assert_eq!(Timeline::new(5).rows(4), [Row { phase: "total".into(), ms: 0, at_ms: 0 }]);
    }
}
