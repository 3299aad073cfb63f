//! Proofs that did not get on chain in time, each told once: a line at ERROR with the reason.

use super::batch::BatchPhase;
use super::machine::DeadlineRun;
use crate::chain::ChainEpoch;
use std::collections::HashSet;

/// The missed proofs that were told: Open of their deadline, and the batch.
#[derive(Debug, Default)]
pub struct MissedLog(HashSet<(ChainEpoch, usize)>);

impl MissedLog {
    /// The misses that an earlier incarnation has told.
    pub fn with<'a>(runs: impl Iterator<Item = &'a DeadlineRun>) -> MissedLog {
        let mut log = MissedLog::default();
        runs.for_each(|run| drop(log.newly(run)));
        log
    }

    /// The proofs of this deadline that are missed since the last look: partitions and reason.
    pub fn newly<'a>(&mut self, run: &'a DeadlineRun) -> Vec<(Vec<u64>, &'a str)> {
        let mut found = Vec::new();
        for (index, batch) in run.batches.iter().flatten().enumerate() {
            let place = (run.di.open, index);
            match &batch.phase {
                BatchPhase::Missed { why } if self.0.insert(place) => {
                    found.push((batch.partitions.clone(), why.as_str()));
                }
                BatchPhase::Missed { .. } => {}
                // A reorg has opened it again.
                _ => drop(self.0.remove(&place)),
            }
        }
        found
    }

    pub fn forget(&mut self, open: ChainEpoch) {
        self.0.retain(|(of, _)| *of != open);
    }

    /// A missed proof costs a day's reward and more: nobody has to look for it.
    pub fn tell(&mut self, run: &DeadlineRun) {
        for (partitions, why) in self.newly(run) {
            let (deadline, close) = (run.di.index, run.di.close);
            tracing::error!(deadline, ?partitions, close, "WindowPoSt missed: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Batch;
    use super::*;
    use crate::chain::types::DeadlineInfo;

    #[test]
    fn a_missed_proof_is_told_once_and_again_after_a_reorg() {
        let missed = || BatchPhase::Missed { why: "too late".into() };
        let run = |phases: Vec<BatchPhase>| DeadlineRun {
            di: DeadlineInfo { open: 7, ..DeadlineInfo::default() },
            batches: Some(phases.into_iter().map(|phase| Batch { phase, ..Batch::new(vec![3]) }).collect()),
            plan_error: None,
            plan_job: None,
            plan_failures: 0,
            plan_not_before: std::time::Duration::ZERO,
        };
        let mut log = MissedLog::default();
        let told = |log: &mut MissedLog, phases| log.newly(&run(phases)).len();
        assert_eq!(told(&mut log, vec![BatchPhase::Proving, BatchPhase::Waiting]), 0);
        assert_eq!(log.newly(&run(vec![BatchPhase::Proving, missed()])), [(vec![3], "too late")]);
        assert_eq!(told(&mut log, vec![missed(), missed()]), 1, "the other one");
        assert_eq!(told(&mut log, vec![missed(), BatchPhase::Waiting]), 0);
        assert_eq!(told(&mut log, vec![missed(), missed()]), 1, "opened by a reorg, and missed again");
        assert_eq!(MissedLog::with([&run(vec![missed()])].into_iter()).newly(&run(vec![missed()])).len(), 0);
    }
}
