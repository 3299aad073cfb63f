//! Messages that were not handled: counted per reason, the last ones kept to look at.

use crate::util::lock;
use crate::util::time::unix_secs;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many letters the ring keeps.
pub const RING: usize = 1024;

/// Why a message was not handled.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// It was queued when the incarnation ended.
    ActorEnded,
    /// The asker had given up before its turn came.
    Expired,
    /// The mailbox was full; the sender has the message.
    Full,
    /// Nobody ran there; the sender has the message.
    NotRunning,
    /// The actor was between two incarnations; the sender has the message.
    Restarting,
    /// Its node is down or cannot be reached.
    NodeDown,
    /// The other process does not take it, or the actor is held under another epoch.
    Refused,
}

const REASONS: [DeadReason; 7] = [
    DeadReason::ActorEnded,
    DeadReason::Expired,
    DeadReason::Full,
    DeadReason::NotRunning,
    DeadReason::Restarting,
    DeadReason::NodeDown,
    DeadReason::Refused,
];

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct DeadLetter {
    /// The address it went to.
    pub to: String,
    /// The message's type.
    pub message: String,
    pub reason: DeadReason,
    /// Unix seconds.
    pub at: u64,
}

#[derive(Default)]
pub struct DeadLetters {
    counts: [AtomicU64; REASONS.len()],
    ring: Mutex<VecDeque<DeadLetter>>,
}

impl DeadLetters {
    pub(super) fn record(&self, to: &Arc<str>, message: &'static str, reason: DeadReason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        let letter = DeadLetter { to: to.to_string(), message: message.to_string(), reason, at: unix_secs() };
        let mut ring = lock(&self.ring);
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(letter);
    }

    pub fn count(&self, reason: DeadReason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    pub fn counts(&self) -> Vec<(DeadReason, u64)> {
        REASONS.iter().map(|r| (*r, self.count(*r))).collect()
    }

    /// The last [`RING`] letters, oldest first.
    pub fn recent(&self) -> Vec<DeadLetter> {
        lock(&self.ring).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_and_the_counts_keep_all() {
        let letters = DeadLetters::default();
        let to: Arc<str> = "/a".into();
        for n in 0..RING as u64 + 1 {
            letters.record(&to, if n == 0 { "first" } else { "later" }, DeadReason::Full);
        }
        assert_eq!(letters.count(DeadReason::Full), RING as u64 + 1);
        assert_eq!(letters.count(DeadReason::Expired), 0);
        let recent = letters.recent();
        assert_eq!(recent.len(), RING);
        assert!(recent.iter().all(|l| l.message == "later"));
    }
}
