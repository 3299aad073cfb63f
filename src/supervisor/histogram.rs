//! How long an actor's messages took: a few atomics per actor, read by anyone.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds; what is longer is counted in one more bucket.
pub const HANDLE_BOUNDS_US: [u64; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// One in this many messages that never await is timed, and stands for all: the clock costs more than most of them
/// take. Messages that await are all timed.
pub(super) const SAMPLE: u32 = 16;

/// Handle times since the node started.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct HandleTimes {
    /// One more than [`HANDLE_BOUNDS_US`]; not cumulative.
    pub buckets: Vec<u64>,
    pub sum_us: u64,
}

#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; HANDLE_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// A message that stands for `weight`.
    pub fn observe(&self, took: Duration, weight: u32) {
        let us = took.as_micros() as u64;
        let bucket = HANDLE_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(HANDLE_BOUNDS_US.len());
        self.buckets[bucket].fetch_add(weight.into(), Ordering::Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(weight.into()), Ordering::Relaxed);
    }

    pub fn read(&self) -> HandleTimes {
        HandleTimes {
            buckets: self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (us, bucket) in [(0, 0), (10, 0), (11, 1), (1_000, 2), (10_000_000, 6), (10_000_001, 7)] {
            let times = Histogram::default();
            times.observe(Duration::from_micros(us), 3);
            let read = times.read();
            assert_eq!((read.buckets[bucket], read.sum_us), (3, 3 * us), "{us}");
            assert_eq!(read.buckets.iter().sum::<u64>(), 3);
        }
    }
}
