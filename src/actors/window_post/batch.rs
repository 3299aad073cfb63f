//! One batch of partitions of one deadline: a small state machine from Waiting to Landed.

use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A proof that was verified and waits to be sent, or was sent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReadyProof {
    /// Each proven partition with the sectors that the proof leaves out.
    pub partitions: Vec<(u64, Vec<u64>)>,
    pub proof_type: i64,
    pub proof: Vec<u8>,
    /// The randomness that it was made on; when the chain no longer draws it, the proof is worthless.
    pub randomness: [u8; 32],
}

/// How far the message of a submission is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Parameters are made and given to the message sender; not acknowledged yet.
    Sending,
    /// The message sender holds it.
    Queued,
    /// It failed on chain: see whether the partitions are proven all the same.
    Checking,
    /// The message sender held one of this key before it was given ours.
    Known,
    /// That one landed: see whether the partitions are proven by it.
    KnownLanded { at: ChainEpoch },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum BatchPhase {
    /// For the challenge to be deep enough, for a free slot, or for a pause after a failure to end.
    Waiting,
    Proving,
    /// Waits for Open + confidence.
    Proved(ReadyProof),
    Submitting {
        proof: ReadyProof,
        key: String,
        sent: Sent,
    },
    Landed {
        proof: ReadyProof,
        key: String,
        at: ChainEpoch,
    },
    Nothing,
    Missed {
        why: String,
    },
}

impl BatchPhase {
    pub fn name(&self) -> &'static str {
        match self {
            BatchPhase::Waiting => "waiting",
            BatchPhase::Proving => "proving",
            BatchPhase::Proved(_) => "proved",
            BatchPhase::Submitting { .. } => "submitting",
            BatchPhase::Landed { .. } => "landed",
            BatchPhase::Nothing => "nothing",
            BatchPhase::Missed { .. } => "missed",
        }
    }
}

/// How an attempt to prove ended. A crash is never "nothing to prove".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Proved(ReadyProof),
    Failed(String),
    Crashed(String),
}

/// How an attempt to hand a proof to the message sender ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    Queued,
    /// The message sender had one of this key already.
    Known,
    /// The chain draws another challenge than the one that was proven.
    Stale(String),
    Failed(String),
}

/// The fate of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostStatus {
    Unknown,
    /// A node holds it.
    Waiting,
    /// No node holds it.
    Unsent {
        why: String,
    },
    Landed {
        at: ChainEpoch,
    },
    Failed {
        why: String,
    },
}

/// Which job of the shell works for a batch; a result that carries another number is of an aborted one.
pub type JobId = u64;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub partitions: Vec<u64>,
    pub phase: BatchPhase,
    /// Proofs begun.
    pub attempt: u32,
    /// Messages made.
    pub submission: u32,
    /// Messages that failed on chain.
    pub refused: u32,
    pub last_error: Option<String>,
    /// Failures in a row; sets the next pause.
    #[serde(skip)]
    pub failures: u32,
    #[serde(skip)]
    pub not_before: Duration,
    #[serde(skip)]
    pub job: Option<JobId>,
    #[serde(skip)]
    pub watched_at: Option<ChainEpoch>,
}

/// A transition's effects besides the new phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Nothing changed that must survive.
    Same,
    Save,
    /// Save, and end that job.
    Abort(Option<JobId>),
}

impl Batch {
    pub fn new(partitions: Vec<u64>) -> Batch {
        Batch {
            partitions,
            phase: BatchPhase::Waiting,
            attempt: 0,
            submission: 0,
            refused: 0,
            last_error: None,
            failures: 0,
            not_before: Duration::ZERO,
            job: None,
            watched_at: None,
        }
    }

    /// After a restart no job runs. A proof that was under way is begun again under the same number, so that the
    /// prover finds the job's folder and adopts what it holds.
    pub fn restored(mut self) -> Batch {
        if self.phase == BatchPhase::Proving {
            self.phase = BatchPhase::Waiting;
            self.attempt = self.attempt.saturating_sub(1);
        }
        self
    }

    fn fail(&mut self, why: String, now: Duration, pause: impl Fn(u32) -> Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause(self.failures);
        self.last_error = Some(why);
    }

    fn enter(&mut self, phase: BatchPhase) {
        self.phase = phase;
        self.failures = 0;
        self.not_before = Duration::ZERO;
    }

    /// The chain went back to `to` and stands at `height` now.
    pub fn revert(&mut self, to: ChainEpoch, height: ChainEpoch, di: &DeadlineInfo) -> Persist {
        let challenge_gone = to < di.challenge;
        let next = match &self.phase {
            BatchPhase::Waiting | BatchPhase::Nothing => return Persist::Same,
            // Nothing can be sent any more; whether what was sent lands again is for its receipt to say.
            BatchPhase::Landed { proof, key, at } if height >= di.close && to < *at => {
                BatchPhase::Submitting { proof: proof.clone(), key: key.clone(), sent: Sent::Queued }
            }
            _ if height >= di.close => return Persist::Same,
            BatchPhase::Proving | BatchPhase::Proved(_) if challenge_gone => BatchPhase::Waiting,
            BatchPhase::Proving | BatchPhase::Proved(_) => return Persist::Same,
            // The message commits to the ticket at Challenge: one that the chain still has leaves it good.
            BatchPhase::Submitting { .. } if challenge_gone => BatchPhase::Waiting,
            BatchPhase::Submitting { .. } => return Persist::Same,
            BatchPhase::Landed { .. } if challenge_gone => BatchPhase::Waiting,
            BatchPhase::Landed { proof, key, at } if to < *at => {
                BatchPhase::Submitting { proof: proof.clone(), key: key.clone(), sent: Sent::Queued }
            }
            BatchPhase::Landed { .. } => return Persist::Same,
            BatchPhase::Missed { .. } => BatchPhase::Waiting,
        };
        self.watched_at = None;
        self.enter(next);
        Persist::Abort(self.job.take())
    }

    /// The head is at Close or later. `watch_until`: from then on a message that has not landed is given up.
    pub fn close(&mut self, height: ChainEpoch, watch_until: ChainEpoch) -> Persist {
        let error = self.last_error.as_deref().unwrap_or("no failure was seen");
        let why = match &self.phase {
            BatchPhase::Landed { .. } | BatchPhase::Nothing | BatchPhase::Missed { .. } => return Persist::Same,
            BatchPhase::Waiting => format!("no proof before Close; last error: {error}"),
            BatchPhase::Proving => "the proof was not ready at Close".to_string(),
            BatchPhase::Proved(_) => format!("a proof was ready but was not sent before Close; last error: {error}"),
            BatchPhase::Submitting { sent: Sent::Sending, .. } => {
                format!("the message could not be queued before Close; last error: {error}")
            }
            // It may have landed in the window's last epochs: the receipt decides.
            BatchPhase::Submitting { sent: Sent::Queued | Sent::Known, .. } if height < watch_until => {
                return Persist::Same;
            }
            BatchPhase::Submitting { key, sent: Sent::Queued | Sent::Known, .. } => {
                format!("message {key} did not land before Close; last error: {error}")
            }
            BatchPhase::Submitting { sent: Sent::Checking, .. } => format!("the message failed on chain: {error}"),
            // As in `watched`: its receipt counts now.
            BatchPhase::Submitting { proof, key, sent: Sent::KnownLanded { at } } => {
                let landed = BatchPhase::Landed { proof: proof.clone(), key: key.clone(), at: *at };
                self.enter(landed);
                return Persist::Abort(self.job.take());
            }
        };
        self.enter(BatchPhase::Missed { why });
        Persist::Abort(self.job.take())
    }

    pub fn proven(&mut self, outcome: Outcome, now: Duration, pause: impl Fn(u32) -> Duration) -> Persist {
        self.job = None;
        match outcome {
            Outcome::Nothing => self.enter(BatchPhase::Nothing),
            Outcome::Proved(proof) => self.enter(BatchPhase::Proved(proof)),
            Outcome::Failed(why) => {
                self.phase = BatchPhase::Waiting;
                self.fail(why, now, pause);
            }
            Outcome::Crashed(why) => {
                self.phase = BatchPhase::Waiting;
                self.fail(format!("crashed: {why}"), now, pause);
            }
        }
        Persist::Save
    }

    pub fn submitted(&mut self, result: Submission, now: Duration, pause: impl Fn(u32) -> Duration) -> Persist {
        self.job = None;
        let BatchPhase::Submitting { proof, key, .. } = &self.phase else { return Persist::Same };
        match result {
            Submission::Queued | Submission::Known => {
                let (proof, key) = (proof.clone(), key.clone());
                let sent = if result == Submission::Known { Sent::Known } else { Sent::Queued };
                self.watched_at = None;
                self.enter(BatchPhase::Submitting { proof, key, sent });
                Persist::Save
            }
            Submission::Stale(why) => {
                self.enter(BatchPhase::Waiting);
                self.last_error = Some(why);
                Persist::Save
            }
            // Stays `Sending`: goes out again under the same key.
            Submission::Failed(why) => {
                self.fail(why, now, pause);
                Persist::Same
            }
        }
    }

    /// `result` is an error when the message sender could not be asked.
    pub fn watched(&mut self, result: Result<PostStatus, String>, height: ChainEpoch, di: &DeadlineInfo) -> Persist {
        self.job = None;
        let closed = height >= di.close;
        let BatchPhase::Submitting { proof, key, sent } = &mut self.phase else { return Persist::Same };
        match result {
            Ok(PostStatus::Waiting) => Persist::Same,
            Ok(PostStatus::Unsent { why }) => {
                self.last_error = Some(format!("its message waits: {why}"));
                Persist::Same
            }
            Err(why) => {
                self.last_error = Some(why);
                Persist::Same
            }
            // The message sender does not know it (its store was lost): hand it over again under the same key.
            Ok(PostStatus::Unknown) => {
                *sent = Sent::Sending;
                Persist::Save
            }
            // Our head is not past it yet, and its state would not show it.
            Ok(PostStatus::Landed { at }) if *sent == Sent::Known && !closed && height <= at => Persist::Same,
            // Once the window is closed its state is gone, and nothing could be sent: then the receipt counts.
            Ok(PostStatus::Landed { at }) if *sent == Sent::Known && !closed => {
                *sent = Sent::KnownLanded { at };
                Persist::Save
            }
            Ok(PostStatus::Landed { at }) => {
                let landed = BatchPhase::Landed { proof: proof.clone(), key: key.clone(), at };
                self.enter(landed);
                Persist::Save
            }
            Ok(PostStatus::Failed { why }) => {
                self.refused = self.refused.saturating_add(1);
                if closed {
                    let why = format!("message {key} failed on chain: {why}");
                    self.enter(BatchPhase::Missed { why });
                } else {
                    *sent = Sent::Checking;
                    self.last_error = Some(why);
                }
                Persist::Save
            }
        }
    }

    /// A message failed, or another of its key landed; `proven`: whether the chain counts the partitions as proven all the same.
    pub fn checked(
        &mut self,
        proven: Result<bool, String>,
        height: ChainEpoch,
        now: Duration,
        pause: impl Fn(u32) -> Duration,
    ) -> Persist {
        self.job = None;
        let (proof, key, known) = match &self.phase {
            BatchPhase::Submitting { proof, key, sent: Sent::Checking } => (proof, key, None),
            BatchPhase::Submitting { proof, key, sent: Sent::KnownLanded { at } } => (proof, key, Some(*at)),
            _ => return Persist::Same,
        };
        match proven {
            Ok(true) => {
                let at = known.unwrap_or(height);
                let landed = BatchPhase::Landed { proof: proof.clone(), key: key.clone(), at };
                self.enter(landed);
                Persist::Save
            }
            // The first time the cause may be a reorganised commit ticket: the proof may go again. Then prove anew.
            Ok(false) => {
                let next = if self.refused <= 1 { BatchPhase::Proved(proof.clone()) } else { BatchPhase::Waiting };
                let other = known.map(|at| format!("message {key} landed at {at} and proves something else"));
                let why = other.or_else(|| self.last_error.clone()).unwrap_or_default();
                self.phase = next;
                self.failures = self.refused;
                self.fail(why, now, pause);
                Persist::Save
            }
            Err(why) => {
                self.fail(why, now, pause);
                Persist::Same
            }
        }
    }
}
