//! Operator settings of the link to full nodes.

use crate::util::Backoff;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct LinkSettings {
    /// The network that this provider is for; another one is refused. `None` takes what the node says.
    pub network: Option<String>,
    /// Block delays without a word on the channel after which it is taken for dead and made anew.
    pub silent_block_delays: u32,
    /// Pause after a connection failed; doubles up to `retry_cap`.
    pub retry_first: Duration,
    pub retry_cap: Duration,
    /// Between two health checks of each node.
    pub check_every: Duration,
    /// For a whole check of one node.
    pub check_within: Duration,
    /// A node this many epochs behind the best one is not used.
    pub max_behind: i64,
    /// Epochs that the head may lag the clock; beyond it nothing is mined on it, and the node is not ready. 0: any number.
    pub max_lag: u64,
    /// Between two health checks while that is so.
    pub check_lagging_every: Duration,
    /// Tipsets fetched at most to fill one gap; beyond it the feed jumps to the new head.
    pub max_gap: usize,
    /// Tipsets remembered, to tell how far a reorganisation goes back.
    pub remembered: usize,
    /// Time since the Unix epoch, against which the chain's is measured.
    pub clock: WallClock,
}

/// Reads the time since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(pub fn() -> Duration);

/// Which clock is read is no part of what an operator sets.
impl PartialEq for WallClock {
    fn eq(&self, _: &WallClock) -> bool {
        true
    }
}

impl Default for LinkSettings {
    fn default() -> Self {
        LinkSettings {
            network: None,
            silent_block_delays: 4,
            retry_first: Duration::from_millis(500),
            retry_cap: Duration::from_secs(30),
            check_every: Duration::from_secs(15),
            check_within: Duration::from_secs(20),
            max_behind: 2,
            max_lag: 10,
            check_lagging_every: Duration::from_secs(2),
            max_gap: 120,
            remembered: 900,
            clock: WallClock(crate::util::time::since_epoch),
        }
    }
}

impl LinkSettings {
    /// A check that is older tells nothing of its node any more: more than two are missing.
    pub fn stale_after(&self) -> Duration {
        self.check_within + self.check_every * 2
    }

    pub fn pause(&self, failures: u32) -> Duration {
        Backoff::doubling(self.retry_first, self.retry_cap).after(failures)
    }
}
