//! The messages that WindowPoSt takes.

use super::batch::{Batch, BatchPhase};
use super::chunks::{self, LeftOut, SectorState};
use super::effects::LeftOutSectors;
use super::machine::DeadlineRun;
use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Asks for the deadlines that are due, under way, done and missed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct WindowPostInfo;

impl Message for WindowPostInfo {
    type Reply = WindowPostReport;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::WINDOW_POST_INFO, 1));
}

/// How the deadlines went that closed lately: an answer of the same size however many there are.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct WindowPostSummary;

impl Message for WindowPostSummary {
    type Reply = Closed;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::WINDOW_POST_SUMMARY, 1));
}

/// Deadlines that closed within the epochs for which records are kept, and had something to prove.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Closed {
    /// Every proof is on chain.
    pub met: u64,
    /// A proof is missing.
    pub missed: u64,
}

impl Closed {
    /// A deadline whose last message is still looked for counts as neither.
    pub fn of<'a>(runs: impl Iterator<Item = &'a DeadlineRun>, height: ChainEpoch) -> Closed {
        let mut closed = Closed::default();
        for run in runs.filter(|run| run.di.close <= height) {
            let phases = || run.batches.iter().flatten().map(|batch| &batch.phase);
            if phases().any(|phase| matches!(phase, BatchPhase::Missed { .. })) {
                closed.missed += 1;
            } else if phases().any(|phase| matches!(phase, BatchPhase::Landed { .. }))
                && phases().all(|phase| matches!(phase, BatchPhase::Landed { .. } | BatchPhase::Nothing))
            {
                closed.met += 1;
            }
        }
        closed
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct WindowPostReport {
    pub miner: String,
    /// The head that was last seen; `None` before the first.
    pub height: Option<ChainEpoch>,
    pub current: Option<DeadlineInfo>,
    /// In the order of Open.
    pub deadlines: Vec<DeadlineReport>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct DeadlineReport {
    pub index: u64,
    pub challenge: ChainEpoch,
    pub open: ChainEpoch,
    pub close: ChainEpoch,
    /// Not yet known which partitions are due.
    pub planning: bool,
    pub error: Option<String>,
    pub batches: Vec<BatchReport>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct BatchReport {
    pub partitions: Vec<u64>,
    /// `waiting proving proved submitting landed nothing missed`
    pub phase: String,
    pub attempt: u32,
    pub message: Option<String>,
    pub landed_at: Option<ChainEpoch>,
    /// Why it was missed, or the last failure.
    pub error: Option<String>,
    /// Sectors that its proof leaves out, by reason; while it is proven also those that are late.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

impl DeadlineReport {
    pub fn of(run: &DeadlineRun, left_out: &LeftOutSectors) -> DeadlineReport {
        let batches = run.batches.iter().flatten().map(|batch| {
            let (message, landed_at, missed) = match &batch.phase {
                BatchPhase::Submitting { key, .. } => (Some(key.clone()), None, None),
                BatchPhase::Landed { key, at, .. } => (Some(key.clone()), Some(*at), None),
                BatchPhase::Missed { why } => (None, None, Some(why.clone())),
                BatchPhase::Waiting | BatchPhase::Proving | BatchPhase::Proved(_) | BatchPhase::Nothing => {
                    (None, None, None)
                }
            };
            BatchReport {
                partitions: batch.partitions.clone(),
                phase: batch.phase.name().to_string(),
                attempt: batch.attempt,
                message,
                landed_at,
                error: missed.or_else(|| batch.last_error.clone()),
                left_out: left_out_of(run, batch, left_out),
            }
        });
        DeadlineReport {
            index: run.di.index,
            challenge: run.di.challenge,
            open: run.di.open,
            close: run.di.close,
            planning: run.batches.is_none(),
            error: run.plan_error.clone(),
            batches: batches.collect(),
        }
    }
}

/// An earlier run of this node may have proven it: then the proof tells which sectors it leaves out, but not why.
fn left_out_of(run: &DeadlineRun, batch: &Batch, left_out: &LeftOutSectors) -> Vec<LeftOut> {
    let known = left_out.of(run.di.open, &batch.partitions);
    let proof = match &batch.phase {
        BatchPhase::Proved(proof) | BatchPhase::Submitting { proof, .. } | BatchPhase::Landed { proof, .. } => proof,
        BatchPhase::Waiting | BatchPhase::Proving | BatchPhase::Nothing | BatchPhase::Missed { .. } => return known,
    };
    let skipped: BTreeMap<u64, SectorState> = match known.is_empty() {
        true => proof.partitions.iter().flat_map(|(_, skipped)| skipped).map(|n| (*n, before_restart())).collect(),
        false => return known,
    };
    chunks::left_out(&skipped)
}

fn before_restart() -> SectorState {
    SectorState::LeftOut("left out before this node started; see its log".to_string())
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Batch, ReadyProof};
    use super::*;

    #[test]
    fn a_deadline_counts_once_it_is_closed_and_by_all_of_its_batches() {
        let proof = ReadyProof { partitions: vec![], proof_type: 0, proof: vec![], randomness: [0; 32] };
        let landed = || BatchPhase::Landed { proof: proof.clone(), key: "k".into(), at: 5 };
        let missed = || BatchPhase::Missed { why: "w".into() };
        let run = |close, phases: Vec<BatchPhase>| DeadlineRun {
            di: DeadlineInfo { close, ..DeadlineInfo::default() },
            batches: Some(phases.into_iter().map(|phase| Batch { phase, ..Batch::new(vec![0]) }).collect()),
            plan_error: None,
            plan_job: None,
            plan_failures: 0,
            plan_not_before: std::time::Duration::ZERO,
        };
        let table = [
            (run(10, vec![landed()]), (1, 0)),
            (run(10, vec![landed(), BatchPhase::Nothing]), (1, 0)),
            (run(10, vec![landed(), missed()]), (0, 1)),
            (run(10, vec![BatchPhase::Nothing]), (0, 0)),
            (run(10, vec![]), (0, 0)),
            (run(10, vec![landed(), BatchPhase::Proving]), (0, 0)),
            (run(11, vec![landed()]), (0, 0)),
        ];
        for (run, (met, missed)) in &table {
            assert_eq!(Closed::of([run].into_iter(), 10), Closed { met: *met, missed: *missed }, "{run:?}");
        }
        assert_eq!(Closed::of(table.iter().map(|(run, _)| run), 10), Closed { met: 2, missed: 1 });
    }
}
