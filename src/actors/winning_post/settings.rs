//! Operator settings of WinningPoSt, and its clock.

use crate::chain::ChainEpoch;
use crate::util::time::since_epoch;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq)]
pub struct WinningPostSettings {
    /// Time after a base's own block time before a round on it begins, so that all its blocks are here.
    /// `None`: a third of the block delay (10 s on networks with 30 s).
    pub propagation: Option<Duration>,
    /// Epochs that the head may lag the clock for a round to begin on it; 0: any number, for a network on which nobody else
    /// mines.
    pub max_lag: u64,
    /// For how long a proof waits for that of an abandoned round, before its prover is killed for the slot.
    pub abandoned_proof: Duration,
    /// Epochs for which own blocks are remembered against consensus faults; not less than the chain's finality.
    pub remember: ChainEpoch,
    /// Rounds that `WinningInfo` shows.
    pub rounds_shown: usize,
}

impl Default for WinningPostSettings {
    fn default() -> Self {
        WinningPostSettings {
            propagation: None,
            max_lag: 10,
            abandoned_proof: Duration::from_secs(2),
            remember: 900,
            rounds_shown: 50,
        }
    }
}

/// Wall-clock time, as block timestamps have it.
pub trait Clock: Send + Sync + 'static {
    /// Since the Unix epoch.
    fn unix(&self) -> Duration;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix(&self) -> Duration {
        since_epoch()
    }
}

/// Moves with tokio's clock, which tests pause.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    pub began: Duration,
    pub at: Instant,
}

impl Clock for TokioClock {
    fn unix(&self) -> Duration {
        self.began + self.at.elapsed()
    }
}
