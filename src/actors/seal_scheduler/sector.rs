//! A sector as it is journaled: phase, what each phase made, attempts, timings, log.

use super::phase::Phase;
use crate::store::Record;
use serde::{Deserialize, Serialize};

/// Randomness and the epoch that it was drawn at.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    pub value: [u8; 32],
    pub epoch: i64,
}

/// How often each phase was entered. Part of the names of jobs and messages: one entry, one job folder, one message.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    pub add_piece: u32,
    pub pc1: u32,
    pub pc2: u32,
    pub pre_commit: u32,
    pub c1: u32,
    pub c2: u32,
    pub verify: u32,
    pub commit: u32,
    pub finalize: u32,
}

/// Failures in a row, for backoff and for giving a phase up; a success clears its count.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fails {
    pub add_piece: u32,
    pub pc1: u32,
    pub pc2: u32,
    pub pre_commit: u32,
    pub c1: u32,
    pub c2: u32,
    pub commit: u32,
    pub finalize: u32,
    pub invalid_proofs: u32,
}

/// A failure state leaves by itself.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Unix milliseconds.
    pub at: u64,
    pub into: Phase,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub phase: Phase,
    /// Unix milliseconds.
    pub started: u64,
    pub ended: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Unix milliseconds.
    pub at: u64,
    pub phase: Phase,
    pub text: String,
}

const LOG_LINES: usize = 200;
const TIMINGS: usize = 100;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Sector {
    pub number: u64,
    /// The pledge that asked for it.
    pub request: String,
    pub created: u64,
    pub phase: Phase,
    /// `RegisteredSealProof`.
    pub seal_proof: Option<i64>,
    pub ticket: Option<Drawn>,
    pub pc1: Vec<u8>,
    pub comm_r: Option<[u8; 32]>,
    pub comm_d: Option<[u8; 32]>,
    pub pre_commit_epoch: Option<i64>,
    pub seed: Option<Drawn>,
    pub proof: Vec<u8>,
    pub activation: Option<i64>,
    pub attempts: Attempts,
    pub fails: Fails,
    pub retry: Option<Retry>,
    /// A pause inside a phase: something outside (full node, disk, a killed prover) must come back first.
    pub wait_until: Option<u64>,
    /// Since which epoch the pre-commit is missing on chain.
    pub gone_since: Option<i64>,
    /// Why it waits or last failed.
    pub reason: Option<String>,
    pub timings: Vec<Timing>,
    pub log: Vec<LogLine>,
    /// The agent that has its files; `None`: this node.
    pub location: Option<String>,
}

impl Record for Sector {
    const TABLE: &'static str = "sectors";
    const SCHEMA: u16 = 2;

    fn read_older(schema: u16, body: &[u8]) -> Option<Result<Sector, String>> {
        (schema == 1).then(|| SectorV1::read(body))
    }
}

/// Before there were agents: all fields but the last.
#[derive(Deserialize)]
struct SectorV1 {
    number: u64,
    request: String,
    created: u64,
    phase: Phase,
    seal_proof: Option<i64>,
    ticket: Option<Drawn>,
    pc1: Vec<u8>,
    comm_r: Option<[u8; 32]>,
    comm_d: Option<[u8; 32]>,
    pre_commit_epoch: Option<i64>,
    seed: Option<Drawn>,
    proof: Vec<u8>,
    activation: Option<i64>,
    attempts: Attempts,
    fails: Fails,
    retry: Option<Retry>,
    wait_until: Option<u64>,
    gone_since: Option<i64>,
    reason: Option<String>,
    timings: Vec<Timing>,
    log: Vec<LogLine>,
}

impl SectorV1 {
    fn read(body: &[u8]) -> Result<Sector, String> {
        let old: SectorV1 = crate::store::read_body(body)?;
        Ok(Sector {
            number: old.number,
            request: old.request,
            created: old.created,
            phase: old.phase,
            seal_proof: old.seal_proof,
            ticket: old.ticket,
            pc1: old.pc1,
            comm_r: old.comm_r,
            comm_d: old.comm_d,
            pre_commit_epoch: old.pre_commit_epoch,
            seed: old.seed,
            proof: old.proof,
            activation: old.activation,
            attempts: old.attempts,
            fails: old.fails,
            retry: old.retry,
            wait_until: old.wait_until,
            gone_since: old.gone_since,
            reason: old.reason,
            timings: old.timings,
            log: old.log,
            location: None,
        })
    }
}

impl Sector {
    pub fn new(number: u64, request: &str, now: u64) -> Sector {
        Sector {
            number,
            request: request.to_owned(),
            created: now,
            phase: Phase::Allocated,
            seal_proof: None,
            ticket: None,
            pc1: Vec::new(),
            comm_r: None,
            comm_d: None,
            pre_commit_epoch: None,
            seed: None,
            proof: Vec::new(),
            activation: None,
            attempts: Attempts::default(),
            fails: Fails::default(),
            retry: None,
            wait_until: None,
            gone_since: None,
            reason: None,
            timings: vec![Timing { phase: Phase::Allocated, started: now, ended: None }],
            log: vec![LogLine { at: now, phase: Phase::Allocated, text: format!("number {number} for {request}") }],
            location: None,
        }
    }

    /// Message keys: the same entry into a phase always has the same key.
    pub fn pre_commit_key(&self) -> String {
        format!("precommit-{}-{}", self.number, self.attempts.pre_commit)
    }
    pub fn commit_key(&self) -> String {
        format!("provecommit-{}-{}", self.number, self.attempts.commit)
    }

    /// Enters a phase: a new attempt of what it does.
    pub(super) fn enter(&mut self, phase: Phase, now: u64, text: impl Into<String>) {
        if let Some(last) = self.timings.last_mut() {
            last.ended = Some(now);
        }
        if self.timings.len() == TIMINGS {
            self.timings.remove(1);
        }
        self.timings.push(Timing { phase, started: now, ended: phase.is_final().then_some(now) });
        let a = &mut self.attempts;
        let count = match phase {
            Phase::AddPiece => Some(&mut a.add_piece),
            Phase::PreCommit1 => Some(&mut a.pc1),
            Phase::PreCommit2 => Some(&mut a.pc2),
            Phase::PreCommitting => Some(&mut a.pre_commit),
            Phase::Commit1 => Some(&mut a.c1),
            Phase::Commit2 => Some(&mut a.c2),
            Phase::VerifySeal => Some(&mut a.verify),
            Phase::SubmitCommit => Some(&mut a.commit),
            Phase::FinalizeSector => Some(&mut a.finalize),
            _ => None,
        };
        if let Some(count) = count {
            *count += 1;
        }
        self.phase = phase;
        self.wait_until = None;
        self.retry = None;
        self.reason = None;
        self.note(now, text);
    }

    pub(super) fn note(&mut self, now: u64, text: impl Into<String>) {
        if self.log.len() >= LOG_LINES {
            // The first line says where the sector came from; the next oldest goes.
            self.log.remove(1);
        }
        self.log.push(LogLine { at: now, phase: self.phase, text: text.into() });
    }

    /// Milliseconds spent in each phase so far, in the order of first entry; repeated phases add up.
    pub fn durations(&self, now: u64) -> Vec<(Phase, u64)> {
        let mut sums: Vec<(Phase, u64)> = Vec::new();
        for t in &self.timings {
            let spent = t.ended.unwrap_or(now).saturating_sub(t.started);
            match sums.iter_mut().find(|(p, _)| *p == t.phase) {
                Some((_, sum)) => *sum += spent,
                None => sums.push((t.phase, spent)),
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_there_were_agents_is_read() {
        let sector = Sector { pc1: vec![1, 2], comm_r: Some([3; 32]), ..Sector::new(7, "r", 5) };
        let mut bytes = bincode::serde::encode_to_vec(&sector, bincode::config::standard()).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the location is its end");
        assert_eq!(Sector::read_older(1, &bytes), Some(Ok(sector)));
        assert!(Sector::read_older(1, &bytes[1..]).is_some_and(|read| read.is_err()));
        assert_eq!(Sector::read_older(0, &bytes), None);
    }
}
