//! The bridge's counters: traffic, and everything it refused, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why something from outside was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A PeerId that is not on the allow-list.
    UnknownPeer,
    /// No greeting, another cluster, or no version in common.
    Hello,
    /// A process that has a successor.
    OldBoot,
    /// A connection of a rank that is there already.
    Twice,
    /// A length prefix over the limit.
    TooLong,
    /// Bytes that are no frame.
    Malformed,
    /// A call number that was there already.
    Replayed,
    /// An answer to nothing that was asked.
    UnknownAsk,
    /// A path under which nothing is exported.
    UnknownPath,
    /// A message or schema that its actor does not take, or that cannot be read.
    UnknownMessage,
    /// Another epoch than the actor is held under.
    Fenced,
    /// A tell to a full mailbox, or to an actor that does not run.
    Undelivered,
    /// A frame that does not belong where it came.
    Misplaced,
    /// More monitors or asks than one peer may have.
    TooMany,
    /// It asks and does not read the answers: its connection is closed.
    Unread,
}

impl Refusal {
    pub const ALL: [Refusal; 15] = [
        Refusal::UnknownPeer,
        Refusal::Hello,
        Refusal::OldBoot,
        Refusal::Twice,
        Refusal::TooLong,
        Refusal::Malformed,
        Refusal::Replayed,
        Refusal::UnknownAsk,
        Refusal::UnknownPath,
        Refusal::UnknownMessage,
        Refusal::Fenced,
        Refusal::Undelivered,
        Refusal::Misplaced,
        Refusal::TooMany,
        Refusal::Unread,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::UnknownPeer => "unknown_peer",
            Refusal::Hello => "hello",
            Refusal::OldBoot => "old_boot",
            Refusal::Twice => "twice",
            Refusal::TooLong => "too_long",
            Refusal::Malformed => "malformed",
            Refusal::Replayed => "replayed",
            Refusal::UnknownAsk => "unknown_ask",
            Refusal::UnknownPath => "unknown_path",
            Refusal::UnknownMessage => "unknown_message",
            Refusal::Fenced => "fenced",
            Refusal::Undelivered => "undelivered",
            Refusal::Misplaced => "misplaced",
            Refusal::TooMany => "too_many",
            Refusal::Unread => "unread",
        }
    }
}

/// Counters of one peer, or of all that never became one.
#[derive(Debug, Default)]
pub struct Counters {
    refused: [AtomicU64; Refusal::ALL.len()],
    pub frames_in: AtomicU64,
    pub frames_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub lives: AtomicU64,
}

impl Counters {
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }
    /// The reasons that occurred.
    pub fn all_refused(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.into_iter().map(|why| (why, self.refused(why))).filter(|(_, n)| *n > 0).collect()
    }
}
