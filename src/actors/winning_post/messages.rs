//! The messages that WinningPoSt takes.

use crate::chain::ChainEpoch;
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};

/// Blocks won, and how the last rounds went.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct WinningInfo;

impl Message for WinningInfo {
    type Reply = WinningReport;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::WINNING_INFO, 1));
}

/// Epochs after which a block that is not on chain is given up by who counts.
pub const LOST_AFTER: ChainEpoch = 5;

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct WinningReport {
    pub miner: String,
    /// Blocks that the node accepted, over restarts.
    pub blocks_accepted: u64,
    /// Blocks that were seen in a tipset of the chain, over restarts.
    pub blocks_on_chain: u64,
    /// Blocks of the epochs that are remembered that were made, and are not on chain [`LOST_AFTER`] epochs later.
    #[serde(default)]
    pub blocks_lost: u64,
    /// The round under way.
    pub running: Option<ChainEpoch>,
    /// The latest last.
    pub rounds: Vec<RoundReport>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RoundReport {
    pub round: ChainEpoch,
    pub base: ChainEpoch,
    pub nulls: u64,
    pub outcome: RoundOutcome,
    pub took_ms: u64,
}

impl RoundOutcome {
    /// As its JSON names it.
    pub fn name(&self) -> &'static str {
        match self {
            RoundOutcome::NotEligible { .. } => "not_eligible",
            RoundOutcome::Lost => "lost",
            RoundOutcome::Won { .. } => "won",
            RoundOutcome::Late { .. } => "late",
            RoundOutcome::Refused { .. } => "refused",
            RoundOutcome::Failed { .. } => "failed",
        }
    }
}

/// How a round ended.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum RoundOutcome {
    /// The miner may not mine: no power yet, or too little.
    NotEligible { why: String },
    /// Drawn no win.
    Lost,
    /// The node accepted the block; `cid` is known once the block is on chain.
    Won { win_count: i64, cid: Option<String> },
    /// The chain moved on first.
    Late { why: String },
    /// The slash filter or the node refused the block.
    Refused { why: String },
    /// Something did not work.
    Failed { why: String },
}
