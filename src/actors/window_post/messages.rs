//! What WindowPoSt can be asked.

use super::batch::Phase;
use super::poster::DeadlineRun;
use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use crate::rpc::bridge::{codec, ids};
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use serde::{Deserialize, Serialize};

/// What is due, under way, done and missed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct WindowPostInfo;

impl Message for WindowPostInfo {
    type Reply = WindowPostReport;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::WINDOW_POST_INFO, 1));
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

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct BatchReport {
    pub partitions: Vec<u64>,
    /// `waiting proving proved submitting landed nothing missed`
    pub phase: String,
    pub attempt: u32,
    pub message: Option<String>,
    pub landed_at: Option<ChainEpoch>,
    /// Why it was missed, or the last failure.
    pub error: Option<String>,
}

impl From<&DeadlineRun> for DeadlineReport {
    fn from(run: &DeadlineRun) -> DeadlineReport {
        let batches = run.batches.iter().flatten().map(|batch| {
            let (message, landed_at, missed) = match &batch.phase {
                Phase::Submitting { key, .. } => (Some(key.clone()), None, None),
                Phase::Landed { key, at, .. } => (Some(key.clone()), Some(*at), None),
                Phase::Missed { why } => (None, None, Some(why.clone())),
                Phase::Waiting | Phase::Proving | Phase::Proved(_) | Phase::Nothing => (None, None, None),
            };
            BatchReport {
                partitions: batch.partitions.clone(),
                phase: batch.phase.name().to_string(),
                attempt: batch.attempt,
                message,
                landed_at,
                error: missed.or_else(|| batch.last_error.clone()),
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
