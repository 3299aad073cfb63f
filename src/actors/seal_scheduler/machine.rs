//! The sector state machine: pure. What happened -> the next record; the record alone says what to do (`plan.rs`).
//!
//! Every failure state carries the time and the phase of its retry: none waits for a person or a restart.

use super::phase::Phase;
use super::plan::has_come;
use super::sector::{Drawn, Retry, Sector};
use crate::chain::ChainEpoch;
use crate::util::Backoff;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Described {
        seal_proof: i64,
    },
    /// Its files will be at that agent from now on.
    Placed(String),
    /// The agent takes no new sector: full, drained, or another miner's.
    AgentRefused(String),
    PieceAdded,
    TicketDrawn(Drawn),
    Pc1Done(Vec<u8>),
    Pc2Done {
        comm_r: [u8; 32],
        comm_d: [u8; 32],
    },
    /// The message is durable with the sender.
    PreCommitSent,
    /// The chain holds our pre-commit.
    PreCommitOnChain {
        epoch: i64,
    },
    /// The message ended with another exit code than 0.
    PreCommitRefused {
        exit_code: i64,
        error: String,
    },
    TicketTooOld,
    /// The chain does not show the pre-commit that it had.
    PreCommitGone {
        head: i64,
    },
    /// The chain will never take this number from us: it holds another sealed CID, or the pre-commit expired.
    NumberSpent(String),
    SeedDrawn {
        seed: Drawn,
        pre_commit_epoch: i64,
    },
    C1Done,
    C2Done(Vec<u8>),
    SealVerified(bool),
    CommitSent,
    /// The chain holds the proven sector, deep enough.
    CommitOnChain {
        activation: i64,
    },
    CommitRefused {
        exit_code: i64,
        error: String,
    },
    Finalized,
    FilesRemoved,
    /// `transient`: the prover was killed or could not start; says nothing of the sector.
    TaskFailed {
        error: String,
        transient: bool,
    },
    /// Something that had to be asked did not answer.
    NoAnswer(String),
    /// The host lacks disk or memory for it. Says nothing of the sector: its whole queue waits.
    NoRoom(String),
    /// Asked, nothing new.
    NotYet(String),
    /// Nothing new, and nothing before the head is at that epoch: it is not asked about again until then.
    NotBefore {
        epoch: ChainEpoch,
        why: String,
    },
    /// The time of a retry has come.
    RetryDue,
    RemoveRequested(String),
}

impl Event {
    /// Why the try came to nothing; `None`: it did not, or there was none.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Event::NoAnswer(why) | Event::AgentRefused(why) | Event::TaskFailed { error: why, .. } => Some(why),
            _ => None,
        }
    }

    /// The epoch before which there is nothing new; `None`: at any head there may be.
    pub(super) fn not_before(&self) -> Option<ChainEpoch> {
        match self {
            Event::NotBefore { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }
}

/// Further effects of a transition.
#[derive(Clone, Debug, PartialEq)]
pub enum FollowUp {
    /// The number is lost; seal the same capacity under a new one.
    PledgeAgain { request: String },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// First wait after a failure, doubling up to the cap, in ms.
    pub retry_first: u64,
    pub retry_cap: u64,
    /// First wait inside a phase after a soft failure or a silent node, in ms; doubles up to `transient_cap`.
    pub transient_wait: u64,
    pub transient_cap: u64,
    /// Times that a task is tried again before the phase before it is redone (PC1: the sector is removed); of C2 the tries.
    pub tries: u32,
    /// Epochs for which a pre-commit must be missing before it counts as expired.
    pub gone_after: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            retry_first: 60_000,
            retry_cap: 600_000,
            transient_wait: 5_000,
            transient_cap: 120_000,
            tries: 3,
            gone_after: 20,
        }
    }
}

/// Milliseconds to wait after the `fails`-th failure in a row.
pub fn backoff(rules: &Rules, fails: u32) -> u64 {
    Backoff::doubling_ms(rules.retry_first, rules.retry_cap).after_ms(fails)
}

/// Exit code of a message whose proof or params the actor refused (`ErrIllegalArgument`).
const ILLEGAL_ARGUMENT: i64 = 16;

/// The record after `event`. An event that the phase does not expect changes nothing but the log.
pub fn next(before: &Sector, event: Event, now: u64, rules: &Rules) -> (Sector, Option<FollowUp>) {
    use Event as E;
    use Phase as P;
    let mut s = before.clone();
    match (before.phase, event) {
        (P::Removed | P::Removing, E::RemoveRequested(_)) => {}
        (_, E::RemoveRequested(why)) => s.enter(P::Removing, now, format!("removed by the operator: {why}")),

        (_, E::NoAnswer(why)) => pause(&mut s, now, rules, why),
        (_, E::NoRoom(why)) => s.reason = Some(why),
        (_, E::TaskFailed { error, transient: true }) => pause(&mut s, now, rules, error),
        (_, E::NotYet(why) | E::NotBefore { why, .. }) => {
            // It was asked, so the failure that it paused for is over.
            s.wait_until = None;
            s.reason = Some(why);
        }

        (P::Allocated, E::Described { seal_proof }) => {
            s.seal_proof = Some(seal_proof);
            s.enter(P::AddPiece, now, format!("seal proof type {seal_proof}"));
        }
        (P::AddPiece, E::Placed(agent)) => {
            s.note(now, format!("goes to agent {agent}"));
            s.location = Some(agent);
        }
        // Nothing of it is there yet: another agent may take it.
        (P::AddPiece, E::AgentRefused(why)) => {
            s.location = None;
            pause(&mut s, now, rules, why);
        }
        (_, E::AgentRefused(why)) => pause(&mut s, now, rules, why),
        (P::AddPiece, E::PieceAdded) => {
            s.fails.add_piece = 0;
            s.enter(P::GetTicket, now, "piece of zeros added");
        }
        (P::AddPiece, E::TaskFailed { error, .. }) => {
            s.fails.add_piece += 1;
            let fails = s.fails.add_piece;
            fail(&mut s, P::AddPieceFailed, P::AddPiece, fails, error, now, rules);
        }
        (P::GetTicket, E::TicketDrawn(ticket)) => {
            s.ticket = Some(ticket);
            s.enter(P::PreCommit1, now, format!("ticket of epoch {}", ticket.epoch));
        }
        (P::PreCommit1, E::Pc1Done(output)) => {
            s.pc1 = output;
            s.fails.pc1 = 0;
            s.enter(P::PreCommit2, now, "PC1 done");
        }
        (P::PreCommit1, E::TaskFailed { error, .. }) => {
            s.fails.pc1 += 1;
            let fails = s.fails.pc1;
            if fails > rules.tries {
                s.enter(P::Removing, now, format!("PC1 failed {fails} times, given up: {error}"));
            } else {
                fail(&mut s, P::SealPreCommit1Failed, P::PreCommit1, fails, error, now, rules);
            }
        }
        (P::PreCommit2, E::Pc2Done { comm_r, comm_d }) => {
            s.comm_r = Some(comm_r);
            s.comm_d = Some(comm_d);
            s.fails.pc2 = 0;
            s.enter(P::PreCommitting, now, format!("PC2 done, CommR {}", hex::encode(comm_r)));
        }
        (P::PreCommit2, E::TaskFailed { error, .. }) => {
            s.fails.pc2 += 1;
            let fails = s.fails.pc2;
            let redo = fails > rules.tries;
            if redo {
                s.fails.pc2 = 0;
            }
            let into = if redo { P::PreCommit1 } else { P::PreCommit2 };
            fail(&mut s, P::SealPreCommit2Failed, into, fails, error, now, rules);
        }

        (P::PreCommitting, E::PreCommitSent) => s.enter(P::PreCommitWait, now, "pre-commit message handed over"),
        (P::PreCommitting | P::PreCommitWait, E::PreCommitOnChain { epoch }) => {
            s.pre_commit_epoch = Some(epoch);
            s.fails.pre_commit = 0;
            s.gone_since = None;
            s.enter(P::WaitSeed, now, format!("pre-commit on chain at epoch {epoch}"));
        }
        (P::PreCommit1, E::TicketTooOld) => {
            s.ticket = None;
            s.enter(P::GetTicket, now, "the ticket would be too old after PC1: a new one first");
        }
        (P::PreCommitting, E::TicketTooOld) => {
            s.ticket = None;
            s.pre_commit_epoch = None; // the chain was asked: it has none
            s.enter(P::GetTicket, now, "the ticket is too old for a pre-commit: a new one, and PC1 again");
        }
        (P::PreCommitWait, E::PreCommitRefused { exit_code, error }) => {
            s.fails.pre_commit += 1;
            let fails = s.fails.pre_commit;
            let why = format!("pre-commit refused, exit code {exit_code}: {error}");
            fail(&mut s, P::PreCommitFailed, P::PreCommitting, fails, why, now, rules);
        }

        (P::WaitSeed, E::SeedDrawn { seed, pre_commit_epoch }) => {
            s.seed = Some(seed);
            s.pre_commit_epoch = Some(pre_commit_epoch);
            s.gone_since = None;
            s.enter(P::Commit1, now, format!("seed of epoch {}", seed.epoch));
        }
        (P::Commit1, E::C1Done) => {
            s.fails.c1 = 0;
            s.enter(P::Commit2, now, "C1 done");
        }
        (P::Commit1, E::TaskFailed { error, .. }) => {
            s.fails.c1 += 1;
            let fails = s.fails.c1;
            // C1 reads what PC1 and PC2 wrote: when it keeps failing, that is damaged.
            let redo = fails > rules.tries;
            if redo {
                s.fails.c1 = 0;
            }
            let into = if redo { P::PreCommit1 } else { P::Commit1 };
            fail(&mut s, P::ComputeProofFailed, into, fails, error, now, rules);
        }
        (P::Commit2, E::C2Done(proof)) => {
            s.proof = proof;
            s.fails.c2 = 0;
            s.enter(P::VerifySeal, now, "C2 done");
        }
        (P::Commit2, E::TaskFailed { error, .. }) => {
            s.fails.c2 += 1;
            let fails = s.fails.c2;
            // Not once more on what C1 wrote: C2 is the longest of the tasks.
            let into = if fails >= rules.tries { P::Commit1 } else { P::Commit2 };
            fail(&mut s, P::ComputeProofFailed, into, fails, error, now, rules);
        }
        (P::VerifySeal, E::SealVerified(true)) => s.enter(P::SubmitCommit, now, "the proof verifies"),
        (P::VerifySeal, E::SealVerified(false)) => {
            invalid(&mut s, P::ComputeProofFailed, "our own check refused the proof".into(), now, rules)
        }
        (P::VerifySeal, E::TaskFailed { error, .. }) => {
            s.fails.c2 += 1;
            let fails = s.fails.c2;
            fail(&mut s, P::ComputeProofFailed, P::VerifySeal, fails, error, now, rules);
        }

        (P::SubmitCommit, E::CommitSent) => s.enter(P::CommitWait, now, "prove-commit message handed over"),
        (P::SubmitCommit, E::PreCommitOnChain { epoch }) => {
            s.pre_commit_epoch = Some(epoch);
            s.gone_since = None;
            s.enter(P::WaitSeed, now, format!("a reorg moved the pre-commit to epoch {epoch}: new seed"));
        }
        (P::CommitWait, E::CommitRefused { exit_code: ILLEGAL_ARGUMENT, error }) => {
            invalid(&mut s, P::CommitFailed, format!("prove-commit refused, exit code 16: {error}"), now, rules)
        }
        (P::CommitWait, E::CommitRefused { exit_code, error }) => {
            s.fails.commit += 1;
            let fails = s.fails.commit;
            let why = format!("prove-commit refused, exit code {exit_code}: {error}");
            fail(&mut s, P::CommitFailed, P::SubmitCommit, fails, why, now, rules);
        }
        (
            P::PreCommitting | P::PreCommitWait | P::WaitSeed | P::SubmitCommit | P::CommitWait,
            E::CommitOnChain { activation },
        ) => {
            s.activation = Some(activation);
            s.fails.commit = 0;
            s.enter(P::FinalizeSector, now, format!("proven on chain, activation epoch {activation}"));
        }
        (P::WaitSeed | P::SubmitCommit, E::PreCommitGone { head }) => match before.gone_since {
            Some(since) if head >= since + rules.gone_after => {
                return spent(s, format!("pre-commit gone from the chain since epoch {since}: expired"), now);
            }
            Some(since) => {
                s.reason = Some(format!("the chain shows no pre-commit since epoch {since}"));
            }
            None => {
                s.gone_since = Some(head);
                s.note(now, format!("the chain shows no pre-commit at epoch {head}"));
            }
        },
        (P::PreCommitting | P::PreCommitWait | P::WaitSeed | P::SubmitCommit | P::CommitWait, E::NumberSpent(why)) => {
            return spent(s, why, now);
        }

        (P::FinalizeSector, E::Finalized) => {
            s.fails.finalize = 0;
            // Large, and of no use once the sector is proven.
            s.pc1 = Vec::new();
            s.enter(P::Proving, now, "finalized");
        }
        (P::FinalizeSector, E::TaskFailed { error, .. }) => {
            s.fails.finalize += 1;
            let fails = s.fails.finalize;
            fail(&mut s, P::FinalizeFailed, P::FinalizeSector, fails, error, now, rules);
        }

        (P::Removing, E::FilesRemoved) => s.enter(P::Removed, now, "files removed"),
        (P::Removing, E::TaskFailed { error, .. }) => pause(&mut s, now, rules, error),

        (_, E::RetryDue) if before.retry.is_some_and(|r| has_come(r.at, now)) => {
            if let Some(retry) = before.retry {
                s.enter(retry.into, now, "trying again");
            }
        }
        (_, event) => s.note(now, format!("received unexpected event {}", event.name())),
    }
    (s, None)
}

fn fail(s: &mut Sector, state: Phase, into: Phase, fails: u32, error: String, now: u64, rules: &Rules) {
    let wait = backoff(rules, fails);
    s.enter(state, now, format!("{error}; again from {into} in {} s", wait.div_ceil(1000)));
    s.reason = Some(error);
    s.retry = Some(Retry { at: now + wait, into });
}

/// A first invalid proof is made again from the seed on; a second one says that the sealed data is wrong.
fn invalid(s: &mut Sector, state: Phase, why: String, now: u64, rules: &Rules) {
    s.fails.invalid_proofs += 1;
    let count = s.fails.invalid_proofs;
    let into = if count > 1 { Phase::PreCommit1 } else { Phase::WaitSeed };
    if count > 1 {
        s.fails.invalid_proofs = 0;
    }
    fail(s, state, into, count, why, now, rules);
}

fn pause(s: &mut Sector, now: u64, rules: &Rules, why: String) {
    s.wait_until = Some(now + rules.transient_wait);
    if s.reason.as_ref() != Some(&why) {
        s.note(now, why.clone());
        s.reason = Some(why);
    }
}

/// Pre-commits spend their number for good; the capacity is pledged again.
fn spent(mut s: Sector, why: String, now: u64) -> (Sector, Option<FollowUp>) {
    s.enter(Phase::Removing, now, format!("number {} is spent: {why}; pledged again", s.number));
    let request = format!("{}+{}", s.request, s.number);
    (s, Some(FollowUp::PledgeAgain { request }))
}
