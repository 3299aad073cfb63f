//! Operator settings of WindowPoSt. Epochs are counts of block delays.

use crate::chain::ChainEpoch;
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize, Clone, Debug, PartialEq)]
pub struct WindowPostSettings {
    /// Epochs after Challenge before a proof begins: how deep the challenge must be. Scaled down for short windows.
    pub challenge_confidence: ChainEpoch,
    /// Epochs after Open before the proof is sent: the chain refuses one that a reorganisation brings before Open. Scaled
    /// down for short windows.
    pub submit_confidence: ChainEpoch,
    /// Epochs before Close from which no new proof begins, because its message could not be on chain in time.
    pub landing_time: ChainEpoch,
    /// Partitions in one message; 0 or more than 3: as many as the network takes (`posted_partitions_max`).
    pub max_partitions: usize,
    /// A partition with recovering sectors gets a message of its own: it is the likeliest to fail.
    pub single_recovering_partition: bool,
    /// Partitions in one declaration of recoveries; 0: as many as the network takes.
    pub max_recovery_partitions: usize,
    /// Proofs at a time, one more batch is read ahead. They are started in the order in which their deadlines close.
    pub parallel: usize,
    /// First pause after a failed proof or submission; doubles up to `retry_cap`.
    pub retry_first: Duration,
    pub retry_cap: Duration,
    /// Epochs after Close for which a deadline's record is kept: the time in which its proof can be disputed.
    pub keep_after_close: ChainEpoch,
}

impl Default for WindowPostSettings {
    fn default() -> Self {
        WindowPostSettings {
            challenge_confidence: 1,
            submit_confidence: 4,
            landing_time: 1,
            max_partitions: 3,
            single_recovering_partition: false,
            max_recovery_partitions: 0,
            parallel: 1,
            retry_first: Duration::from_secs(1),
            retry_cap: Duration::from_secs(60),
            keep_after_close: 1800,
        }
    }
}
