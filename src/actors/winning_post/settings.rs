//! Operator settings of WinningPoSt, and its clock.

use crate::chain::ChainEpoch;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq)]
pub struct WinningPostSettings {
    /// Time after a base's own block time before a round on it begins, so that all its blocks are here.
    /// `None`: a third of the block delay (10 s on networks with 30 s).
    pub propagation: Option<Duration>,
    /// Epochs for which own blocks are remembered against consensus faults; not less than the chain's finality.
    pub remember: ChainEpoch,
    /// Rounds that `WinningInfo` shows.
    pub rounds_shown: usize,
}

impl Default for WinningPostSettings {
    fn default() -> Self {
        WinningPostSettings { propagation: None, remember: 900, rounds_shown: 50 }
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
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
