//! The proof of one chunk, and the search for the sectors that spoil it.

use super::chunks;
use super::effects::Why;
use super::memory::ChunkFailure;
use super::proving::{Attempt, VERIFY};
use crate::proofs::{Job, Output, ProverError, PublicSector, Task, result};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// A verification that ends without a verdict is begun again so often.
const VERIFY_TRIES: usize = 3;
/// When this many parts of a chunk that fails have failed and none was proven, no sector is to blame.
const HOPELESS: usize = 6;
/// A chunk whose prover crashed so often is searched like one that fails.
const CRASHES: u32 = 2;
/// A chunk that fails as a whole so often, and not in its halves, is proven without the second one.
const WHOLE_FAILURES: u32 = 3;
const WRONG: &str = "what was read of it does not prove its CommR";

/// How the proof of a chunk ended.
pub(super) enum ChunkEnd {
    Proof(Vec<u8>),
    /// To be proven without these sectors, each with the reason.
    Without(BTreeMap<u64, String>),
    /// The other chunks are to be proven without any of it; what was read of it may be good.
    Hopeless(Vec<u64>, Why),
}

/// How a proof over a part of a chunk ended.
enum PartEnd {
    Proof(Vec<u8>),
    /// The vanilla proofs of these sectors are wrong.
    Wrong(Vec<u64>),
    /// The library refuses what it was given, or the proof does not verify.
    Failed(Why),
    /// The prover crashed: on what it was given, or for a reason of the host's.
    Crashed(Why),
    /// Its time was over.
    TooLong,
}

/// The chunks around the one that is proven.
#[derive(Clone, Copy)]
pub(super) struct ChunkPlace {
    /// One before it was proven in this attempt.
    pub others: bool,
    /// Chunks after it.
    pub to_come: usize,
}

impl ChunkPlace {
    /// Proofs to be made after the present one: the chunk's own, and one for each that comes.
    fn proofs_after(self) -> u32 {
        u32::try_from(self.to_come).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Whether a part may be proven, if it takes as long as `took`: with one more to find the sector, and those after it.
    fn is_time(self, left: Duration, took: Duration) -> bool {
        left > took.saturating_mul(self.proofs_after().saturating_add(2))
    }
}

impl Attempt<'_> {
    pub(super) async fn prove_chunk(&self, numbers: Vec<u64>, place: ChunkPlace) -> Result<ChunkEnd, Why> {
        let (end, took) = self.prove_part(&numbers, self.left()).await?;
        let error = match end {
            PartEnd::Proof(proof) => {
                if let Some(took) = took {
                    self.effects.chunk_took(took);
                }
                return Ok(ChunkEnd::Proof(proof));
            }
            PartEnd::Wrong(bad) => {
                return Ok(ChunkEnd::Without(bad.into_iter().map(|number| (number, WRONG.to_string())).collect()));
            }
            PartEnd::TooLong => return Err("the window closes before the proof is made".to_string()),
            PartEnd::Crashed(error) => match self.failed(ChunkFailure::Crash, &numbers) < CRASHES {
                true => return Err(error),
                false => error,
            },
            PartEnd::Failed(error) => error,
        };
        match numbers.len() {
            1 => self.hopeless(numbers, place, error),
            _ => self.bisect(numbers, place, error, took.unwrap_or_default()).await,
        }
    }

    fn failed(&self, failure: ChunkFailure, numbers: &[u64]) -> u32 {
        self.effects.memory.failed(self.di.close, failure, numbers)
    }

    /// Nothing of the chunk can be proven. Unless another was proven just now, the host may fail for a while; when it fails
    /// again, the others are proven without it.
    fn hopeless(&self, numbers: Vec<u64>, place: ChunkPlace, error: Why) -> Result<ChunkEnd, Why> {
        let again = self.failed(ChunkFailure::Hopeless, &numbers) > 1;
        if place.others || again { Ok(ChunkEnd::Hopeless(numbers, error)) } else { Err(error) }
    }

    /// Finds the sectors without which the rest can be proven: in halves, as far as the time goes; a part for which it does
    /// not is left out whole. `took`: the failed proof, which the library may have refused before it computed anything.
    async fn bisect(&self, numbers: Vec<u64>, place: ChunkPlace, error: Why, took: Duration) -> Result<ChunkEnd, Why> {
        let (deadline, count) = (self.di.index, numbers.len());
        tracing::warn!(deadline, count, %error, "a proof fails: looking for the sectors that spoil it");
        let mut parts = VecDeque::from(chunks::halves(numbers.clone()));
        let (mut bad, mut failed, mut proven) = (BTreeMap::new(), 0, false);
        let mut took = took.max(self.effects.last_chunk());
        while let Some(part) = parts.pop_front() {
            let end = match place.is_time(self.left(), took) {
                true => {
                    // Where nothing was measured yet, a part is given no more than leaves as much for each proof after it.
                    let limit = self.left() / place.proofs_after().saturating_add(1);
                    let (end, this) = self.prove_part(&part, limit).await?;
                    took = took.max(this.unwrap_or_default());
                    end
                }
                false => PartEnd::TooLong,
            };
            let why = match end {
                PartEnd::Proof(_) => {
                    proven = true;
                    continue;
                }
                PartEnd::Wrong(wrong) => {
                    proven = true;
                    bad.extend(wrong.into_iter().map(|number| (number, WRONG.to_string())));
                    continue;
                }
                PartEnd::Failed(why) | PartEnd::Crashed(why) => why,
                PartEnd::TooLong => "no time is left to look closer".to_string(),
            };
            failed += 1;
            if !proven && failed >= HOPELESS {
                break;
            }
            if part.len() == 1 || !place.is_time(self.left(), took) {
                let why = format!("a proof with it fails: {why}");
                bad.extend(part.into_iter().map(|number| (number, why.clone())));
            } else {
                parts.extend(chunks::halves(part));
            }
        }
        if !proven {
            return self.hopeless(numbers, place, error);
        }
        if bad.is_empty() {
            // Again at once would end the same way: the next attempt comes after a pause.
            if self.failed(ChunkFailure::Whole, &numbers) < WHOLE_FAILURES {
                return Err(error);
            }
            let [_, second] = chunks::halves(numbers);
            let why = format!("a proof with it and the sectors before it fails: {error}");
            bad = second.into_iter().map(|number| (number, why.clone())).collect();
        }
        Ok(ChunkEnd::Without(bad))
    }

    /// One proof over these sectors, verified, and the time that it took to compute. An error is one of the host: no sector
    /// is to blame.
    async fn prove_part(&self, numbers: &[u64], limit: Duration) -> Result<(PartEnd, Option<Duration>), Why> {
        let began = Instant::now();
        let task = || Task::PostFromVanilla {
            proof_type: self.proof_type,
            miner: self.effects.actor_id,
            randomness: self.randomness,
            proofs: self.effects.kept.proofs(self.di.close, numbers),
        };
        let job_dir = self.job_dir(numbers);
        let job = Job { task: task(), job_dir: job_dir.clone(), max_runtime: limit };
        if !matches!(&job.task, Task::PostFromVanilla { proofs, .. } if proofs.len() == numbers.len()) {
            return Err("what was read is gone; reading again".to_string());
        }
        let (ran, took) = self.effects.prover.run_timed(job).await;
        let proof = match ran {
            Ok(Output::Proof(proof)) => proof,
            Ok(Output::Skipped(bad)) => {
                let known: Vec<u64> = bad.iter().copied().filter(|number| numbers.contains(number)).collect();
                return match known.is_empty() {
                    true => Err(format!("the prover skips sectors {bad:?}, which it was not given")),
                    false => Ok((PartEnd::Wrong(known), took)),
                };
            }
            Ok(other) => return Err(format!("WindowPoSt answered {other:?}")),
            Err(ProverError::Failed { why, .. }) => return Ok((PartEnd::Failed(why), took)),
            Err(error @ (ProverError::Segfault { .. } | ProverError::Aborted { .. })) => {
                return Ok((PartEnd::Crashed(error.to_string()), took));
            }
            Err(ProverError::Hung { .. }) if began.elapsed() >= limit => return Ok((PartEnd::TooLong, took)),
            Err(error) => return Err(error.to_string()),
        };
        if self.verify(numbers, proof.clone()).await? {
            return Ok((PartEnd::Proof(proof), took));
        }
        // A proof that is wrong must not be adopted again.
        if let Some(dir) = job_dir
            && let Err(error) = result::forget(&dir, &task())
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a wrong proof");
        }
        Ok((PartEnd::Failed("our own proof does not verify; it is not sent".to_string()), took))
    }

    /// The network takes a window proof unseen and lets others dispute it: never send one that we would dispute.
    pub(super) async fn verify(&self, numbers: &[u64], proof: Vec<u8>) -> Result<bool, Why> {
        let sectors: Vec<PublicSector> =
            numbers.iter().map(|number| PublicSector { number: *number, comm_r: self.comm_r[number] }).collect();
        let (proof_type, miner, randomness) = (self.proof_type, self.effects.actor_id, self.randomness);
        let task = Task::VerifyWindowPost { proof_type, miner, randomness, sectors, proof };
        let mut last = String::new();
        for _ in 0..VERIFY_TRIES {
            let max_runtime = VERIFY.min(self.left());
            match self.effects.prover.run(Job { task: task.clone(), job_dir: None, max_runtime }).await {
                Ok(Output::Verified(verdict)) => return Ok(verdict),
                Ok(other) => last = format!("VerifyWindowPoSt answered {other:?}"),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// Named after exactly what is asked, whichever attempt asks it: a finished proof is adopted until its window is over.
    fn job_dir(&self, numbers: &[u64]) -> Option<PathBuf> {
        let mut hash = blake2b_simd::Params::new().hash_length(8).to_state();
        hash.update(&self.proof_type.to_le_bytes()).update(&self.randomness);
        for number in numbers {
            hash.update(&number.to_le_bytes()).update(&self.comm_r[number]);
        }
        let first = self.partitions.first().copied().unwrap_or_default();
        let name = format!("wdpost-{}-{}-{first}-{}", self.effects.name(), self.di.open, hash.finalize().to_hex());
        Some(self.effects.jobs.as_ref()?.join(name))
    }
}
