//! The attempts' memory of the proofs of open windows: which chunks failed and how, and which batches
//! have waited for their late sectors. In memory: after a restart it is learnt again.

use crate::chain::ChainEpoch;
use crate::util::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// How a chunk failed without a sector to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChunkFailure {
    /// Its prover crashed.
    Crash,
    /// None of its parts could be proven.
    Hopeless,
    /// Its parts can be proven, together they cannot.
    Whole,
}

#[derive(Default)]
pub(super) struct AttemptMemory {
    /// By Close.
    windows: Mutex<BTreeMap<ChainEpoch, WindowMemory>>,
}

#[derive(Default)]
struct WindowMemory {
    failures: BTreeMap<(ChunkFailure, Vec<u64>), u32>,
    /// Batches by their partitions.
    waited: BTreeSet<Vec<u64>>,
}

impl AttemptMemory {
    /// Counts a failure of the chunk of these sectors; returns how many of that kind there were, this one included.
    pub fn failed(&self, close: ChainEpoch, failure: ChunkFailure, sectors: &[u64]) -> u32 {
        let mut windows = lock(&self.windows);
        let failures = &mut windows.entry(close).or_default().failures;
        let count = failures.entry((failure, sectors.to_vec())).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// The time for the late sectors of this batch has been waited for once.
    pub fn wait_is_over(&self, close: ChainEpoch, partitions: &[u64]) {
        lock(&self.windows).entry(close).or_default().waited.insert(partitions.to_vec());
    }

    pub fn has_waited(&self, close: ChainEpoch, partitions: &[u64]) -> bool {
        lock(&self.windows).get(&close).is_some_and(|window| window.waited.contains(partitions))
    }

    /// Windows that are closed at `height`.
    pub fn drop_closed(&self, height: ChainEpoch) {
        lock(&self.windows).retain(|close, _| *close > height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_by_window_kind_and_chunk_and_are_dropped_with_the_window() {
        let memory = AttemptMemory::default();
        use ChunkFailure::*;
        assert_eq!([1, 2].map(|_| memory.failed(60, Crash, &[1, 2])), [1, 2]);
        assert_eq!((memory.failed(60, Crash, &[1]), memory.failed(60, Hopeless, &[1, 2])), (1, 1));
        assert_eq!(memory.failed(120, Crash, &[1, 2]), 1);
        memory.wait_is_over(120, &[0, 1]);
        memory.drop_closed(60);
        assert_eq!((memory.failed(60, Crash, &[1, 2]), memory.failed(120, Crash, &[1, 2])), (1, 2));
        assert!(memory.has_waited(120, &[0, 1]) && !memory.has_waited(120, &[0]) && !memory.has_waited(60, &[0, 1]));
    }
}
