//! One attempt at the proof of a batch. First the sectors are read; a prover's slot is taken for each chunk once its
//! sectors are there. A sector that spoils a chunk is found and left out.

use super::batch::ReadyProof;
use super::chunks::{self, NextChunk, SectorState};
use super::effects::{Effects, Why, why};
use super::{batching, reads, schedule};
use crate::actors::sector_reads::{ReadRequest, SectorRead, WantedSector};
use crate::chain::miner_messages::comm_r;
use crate::chain::types::{DeadlineInfo, TipSet};
use crate::proofs::{Bytes32, Job, Output, ProverError, PublicSector, Task, result};
use fvm_ipld_bitfield::BitField;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// To verify a proof takes milliseconds; a prover that hangs must not take the window with it.
const VERIFY: Duration = Duration::from_secs(120);
/// A verification that ends without a verdict is begun again so often.
const VERIFY_TRIES: usize = 3;
/// The first window proof type whose challenges do not depend on which other sectors are proven (FIP-0061).
const FIRST_INDEPENDENT: i64 = 10;
/// When this many parts of a chunk that fails have failed and none was proven, no sector is to blame.
const HOPELESS: usize = 6;

/// A batch under proof.
struct Attempt<'a> {
    effects: &'a Effects,
    di: &'a DeadlineInfo,
    partitions: &'a [u64],
    proof_type: i64,
    randomness: Bytes32,
    /// CommR of each sector.
    comm_r: BTreeMap<u64, Bytes32>,
    close_at: Instant,
}

/// How the proof of a chunk ended.
enum ChunkEnd {
    Proof(Vec<u8>),
    /// To be proven without these sectors, each with the reason.
    Without(BTreeMap<u64, String>),
}

impl Effects {
    /// `None`: nothing to prove.
    pub(super) async fn try_prove(
        &self,
        di: &DeadlineInfo,
        wanted: &[u64],
        head: &TipSet,
    ) -> Result<Option<ReadyProof>, Why> {
        let began = Instant::now();
        let key = head.key();
        let state = self.node.state_miner_partitions(&self.miner, di.index, &key).await.map_err(why)?;
        let info = self.node.state_miner_info(&self.miner, &key).await.map_err(why)?;
        let randomness = self.challenge(di, &key).await?;
        let close_at = began + schedule::time_left(head.height, di, self.block_delay().await?);
        self.kept.drop_closed(head.height);

        let mut due: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for index in wanted {
            let partition = usize::try_from(*index).ok().and_then(|index| state.get(index));
            let partition = partition.ok_or_else(|| format!("deadline {} has no partition {index}", di.index))?;
            let sectors: Vec<u64> = batching::to_prove(partition).iter().collect();
            if !sectors.is_empty() {
                due.insert(*index, sectors);
            }
        }
        if due.is_empty() {
            return Ok(None);
        }
        let numbers = BitField::try_from_bits(due.values().flatten().copied()).map_err(why)?;
        let on_chain = self.node.state_miner_sectors(&self.miner, Some(&numbers), &key).await.map_err(why)?;
        let mut comm_rs: BTreeMap<u64, Bytes32> = BTreeMap::new();
        let mut sectors: BTreeMap<u64, SectorState> = BTreeMap::new();
        for sector in on_chain.iter().filter(|sector| numbers.get(sector.sector_number)) {
            let number = sector.sector_number;
            match comm_r(&sector.sealed_cid) {
                Ok(comm_r) => {
                    comm_rs.insert(number, comm_r);
                    sectors.insert(number, SectorState::Pending(None));
                }
                Err(e) => drop(sectors.insert(number, SectorState::LeftOut(e.to_string()))),
            }
        }
        if let Some(number) = numbers.iter().find(|number| !sectors.contains_key(number)) {
            return Err(format!("the node did not tell about sector {number}"));
        }
        let attempt = Attempt {
            effects: self,
            di,
            partitions: wanted,
            proof_type: info.window_post_proof_type,
            randomness,
            comm_r: comm_rs,
            close_at,
        };
        let size = match attempt.proof_type >= FIRST_INDEPENDENT {
            true => usize::try_from(info.window_post_partition_sectors).unwrap_or(usize::MAX),
            false => usize::MAX,
        };
        let proof = attempt.prove(&mut sectors, size).await;
        self.tell_left_out(di, wanted, &sectors);
        let proof = proof?;
        self.kept.drop_sectors(di.close, numbers.iter());
        // A partition of which nothing is left is not in the proof.
        let is_out = |number: &u64| !matches!(sectors.get(number), Some(SectorState::Read));
        let partitions = due.iter().filter_map(|(index, sectors)| {
            let out: Vec<u64> = sectors.iter().copied().filter(is_out).collect();
            (out.len() < sectors.len()).then_some((*index, out))
        });
        let partitions = partitions.collect();
        Ok(Some(ReadyProof { partitions, proof_type: attempt.proof_type, proof, randomness }))
    }

    /// Says in the log and in the report which sectors a proof leaves out, and why.
    fn tell_left_out(&self, di: &DeadlineInfo, partitions: &[u64], sectors: &BTreeMap<u64, SectorState>) {
        let left_out = chunks::left_out(sectors);
        for group in &left_out {
            let (deadline, why, count) = (di.index, &group.why, group.count);
            tracing::warn!(deadline, ?partitions, %why, count, sectors = ?group.first, "left out of the window proof");
        }
        self.left_out.set(di.open, partitions, left_out);
    }
}

impl Attempt<'_> {
    fn left(&self) -> Duration {
        self.close_at.saturating_duration_since(Instant::now())
    }

    fn read_until(&self, sectors: usize, size: usize) -> Instant {
        let chunks = sectors.div_ceil(size.min(sectors).max(1));
        Instant::now() + schedule::time_to_read(self.left(), self.effects.last_chunk(), chunks)
    }

    async fn prove(&self, sectors: &mut BTreeMap<u64, SectorState>, size: usize) -> Result<Vec<u8>, Why> {
        let (mut done, mut proof, mut proven) = (0, Vec::new(), Vec::new());
        // Challenges of the older proof types change with each sector that is left out: then all is read anew.
        loop {
            let alive = sectors.iter().filter(|(_, state)| !matches!(state, SectorState::LeftOut(_)));
            let alive: Vec<u64> = alive.map(|(number, _)| *number).collect();
            if alive.is_empty() {
                let partitions = self.partitions;
                return Err(format!("none of the {} sectors of partitions {partitions:?} can be read", sectors.len()));
            }
            let mut places = self.challenges(&alive).await?;
            let mut wanted = Vec::new();
            for number in &alive {
                let places = places.remove(number).ok_or_else(|| format!("no challenges for sector {number}"))?;
                let comm_r = self.comm_r[number];
                let kept = self.effects.kept.has(self.di.close, *number, &comm_r, &places);
                sectors.insert(*number, if kept { SectorState::Read } else { SectorState::Pending(None) });
                if !kept {
                    wanted.push(WantedSector { number: *number, comm_r, places });
                }
            }
            let again = self.round(sectors, size, wanted, &mut done, &mut proof, &mut proven).await?;
            if !again {
                break;
            }
        }
        if proven.is_empty() {
            let partitions = self.partitions;
            return Err(format!("none of the {} sectors of partitions {partitions:?} can be read", sectors.len()));
        }
        if done > 1 {
            // The chunks' proofs are the batch's proof in a row; what is sent is verified as the network would.
            if !self.verify(&proven, proof.clone()).await? {
                return Err("our own proof does not verify; it is not sent".to_string());
            }
        }
        Ok(proof)
    }

    /// Reads and proves until all is done; true: the challenges have to be drawn again.
    async fn round(
        &self,
        sectors: &mut BTreeMap<u64, SectorState>,
        size: usize,
        wanted: Vec<WantedSector>,
        done: &mut usize,
        proof: &mut Vec<u8>,
        proven: &mut Vec<u64>,
    ) -> Result<bool, Why> {
        let places: BTreeMap<u64, Vec<u64>> = wanted.iter().map(|s| (s.number, s.places.clone())).collect();
        let mut reading = !wanted.is_empty();
        let until = self.read_until(sectors.len(), size);
        let request = ReadRequest { miner: self.effects.actor_id, proof_type: self.proof_type, sectors: wanted, until };
        let (tell, mut answers) = mpsc::unbounded_channel();
        let read = reads::read_all(self.effects.reader.as_ref(), request, &tell);
        tokio::pin!(read);
        let mut chunk: Option<std::pin::Pin<Box<_>>> = None;
        let mut in_proof = Vec::new();
        let out = |sectors: &BTreeMap<u64, SectorState>| {
            sectors.values().filter(|state| matches!(state, SectorState::LeftOut(_))).count()
        };
        let out_before = out(sectors);
        loop {
            if chunk.is_none() {
                match chunks::next(sectors, *done, size) {
                    NextChunk::Prove(numbers) if size == usize::MAX && reading => drop(numbers),
                    NextChunk::Prove(numbers) => {
                        in_proof = numbers.clone();
                        chunk = Some(Box::pin(self.prove_chunk(numbers, *done > 0)));
                    }
                    NextChunk::Done if !reading => return Ok(false),
                    NextChunk::Done | NextChunk::Wait => {}
                }
            }
            let end = async {
                match chunk.as_mut() {
                    Some(chunk) => chunk.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((number, answer)) = answers.recv() => {
                    let mut late = self.answered(sectors, &places, number, answer);
                    while let Ok((number, answer)) = answers.try_recv() {
                        late |= self.answered(sectors, &places, number, answer);
                    }
                    if late {
                        self.effects.left_out.set(self.di.open, self.partitions, chunks::left_out(sectors));
                    }
                }
                late = &mut read, if reading => {
                    reading = false;
                    while let Ok((number, answer)) = answers.try_recv() {
                        self.answered(sectors, &places, number, answer);
                    }
                    for (number, why) in late {
                        sectors.insert(number, SectorState::LeftOut(format!("late: {why}")));
                    }
                    if size == usize::MAX && out(sectors) > out_before {
                        return Ok(true);
                    }
                }
                end = end => {
                    chunk = None;
                    match end? {
                        ChunkEnd::Proof(bytes) => {
                            *done += 1;
                            proof.extend(bytes);
                            proven.append(&mut in_proof);
                        }
                        ChunkEnd::Without(bad) => {
                            self.effects.kept.drop_sectors(self.di.close, bad.keys().copied());
                            for (number, why) in bad {
                                sectors.insert(number, SectorState::LeftOut(why));
                            }
                            if size == usize::MAX {
                                return Ok(true);
                            }
                        }
                    }
                }
            }
        }
    }

    /// True: a sector is late that was not before.
    fn answered(
        &self,
        sectors: &mut BTreeMap<u64, SectorState>,
        places: &BTreeMap<u64, Vec<u64>>,
        number: u64,
        answer: SectorRead,
    ) -> bool {
        let (Some(comm_r), Some(places)) = (self.comm_r.get(&number), places.get(&number)) else { return false };
        let state = match answer {
            SectorRead::Proof(proof) => {
                self.effects.kept.keep(self.di.close, number, *comm_r, places.clone(), proof);
                SectorState::Read
            }
            SectorRead::Unreadable(why) => SectorState::LeftOut(why),
            SectorRead::Late(why) => {
                let before = sectors.insert(number, SectorState::Pending(Some(why)));
                return before == Some(SectorState::Pending(None));
            }
        };
        sectors.insert(number, state);
        false
    }

    async fn challenges(&self, numbers: &[u64]) -> Result<BTreeMap<u64, Vec<u64>>, Why> {
        let (proof_type, miner, randomness) = (self.proof_type, self.effects.actor_id, self.randomness);
        let task = Task::PostChallenges { proof_type, miner, randomness, sectors: numbers.to_vec() };
        let job = Job { task, job_dir: None, max_runtime: VERIFY.min(self.left()) };
        match self.effects.prover.run(job).await.map_err(why)? {
            Output::Challenges(challenges) => Ok(challenges.into_iter().collect()),
            other => Err(format!("PostChallenges answered {other:?}")),
        }
    }

    /// `others`: a chunk before this one was proven.
    async fn prove_chunk(&self, numbers: Vec<u64>, others: bool) -> Result<ChunkEnd, Why> {
        let began = Instant::now();
        match self.prove_part(&numbers).await? {
            PartEnd::Proof(proof) => {
                self.effects.chunk_took(began.elapsed());
                Ok(ChunkEnd::Proof(proof))
            }
            PartEnd::Wrong(bad) => {
                let why = "what was read of it does not prove its CommR";
                Ok(ChunkEnd::Without(bad.into_iter().map(|number| (number, why.to_string())).collect()))
            }
            PartEnd::Failed(error) if numbers.len() == 1 && !others => Err(error),
            PartEnd::Failed(error) if numbers.len() == 1 => {
                Ok(ChunkEnd::Without([(numbers[0], format!("a proof with it fails: {error}"))].into()))
            }
            PartEnd::Failed(error) => self.bisect(numbers, error, began.elapsed()).await,
        }
    }

    /// Finds the sectors without which the rest can be proven: in halves, as far as the time goes; a part for which it does
    /// not is left out whole.
    async fn bisect(&self, numbers: Vec<u64>, error: Why, took: Duration) -> Result<ChunkEnd, Why> {
        let (deadline, count) = (self.di.index, numbers.len());
        tracing::warn!(deadline, count, %error, "a proof fails: looking for the sectors that spoil it");
        let mut parts = VecDeque::from(chunks::halves(numbers));
        let (mut bad, mut failed, mut proven) = (BTreeMap::new(), 0, false);
        while let Some(part) = parts.pop_front() {
            let end = match self.left() > took.saturating_mul(3) {
                true => self.prove_part(&part).await?,
                false => PartEnd::Failed("no time is left to look closer".to_string()),
            };
            match end {
                PartEnd::Proof(_) => proven = true,
                PartEnd::Wrong(wrong) => {
                    proven = true;
                    let why = "what was read of it does not prove its CommR";
                    bad.extend(wrong.into_iter().map(|number| (number, why.to_string())));
                }
                PartEnd::Failed(why) => {
                    failed += 1;
                    if !proven && failed >= HOPELESS {
                        return Err(error);
                    }
                    if part.len() == 1 || self.left() <= took.saturating_mul(3) {
                        let why = format!("a proof with it fails: {why}");
                        bad.extend(part.into_iter().map(|number| (number, why.clone())));
                    } else {
                        parts.extend(chunks::halves(part));
                    }
                }
            }
        }
        if !proven { Err(error) } else { Ok(ChunkEnd::Without(bad)) }
    }

    /// One proof over these sectors, verified. An error is one of the prover or of the host: no sector is to blame.
    async fn prove_part(&self, numbers: &[u64]) -> Result<PartEnd, Why> {
        let task = || Task::PostFromVanilla {
            proof_type: self.proof_type,
            miner: self.effects.actor_id,
            randomness: self.randomness,
            proofs: self.effects.kept.proofs(self.di.close, numbers),
        };
        let job_dir = self.job_dir(numbers);
        let job = Job { task: task(), job_dir: job_dir.clone(), max_runtime: self.left() };
        if !matches!(&job.task, Task::PostFromVanilla { proofs, .. } if proofs.len() == numbers.len()) {
            return Err("what was read is gone; reading again".to_string());
        }
        let proof = match self.effects.prover.run(job).await {
            Ok(Output::Proof(proof)) => proof,
            Ok(Output::Skipped(bad)) => {
                let known: Vec<u64> = bad.iter().copied().filter(|number| numbers.contains(number)).collect();
                return match known.is_empty() {
                    true => Err(format!("the prover skips sectors {bad:?}, which it was not given")),
                    false => Ok(PartEnd::Wrong(known)),
                };
            }
            Ok(other) => return Err(format!("WindowPoSt answered {other:?}")),
            Err(ProverError::Failed { why, .. }) => return Ok(PartEnd::Failed(why)),
            Err(error) => return Err(error.to_string()),
        };
        if self.verify(numbers, proof.clone()).await? {
            return Ok(PartEnd::Proof(proof));
        }
        // A proof that is wrong must not be adopted again.
        if let Some(dir) = job_dir
            && let Err(error) = result::forget(&dir, &task())
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a wrong proof");
        }
        Ok(PartEnd::Failed("our own proof does not verify; it is not sent".to_string()))
    }

    /// The network takes a window proof unseen and lets others dispute it: never send one that we would dispute.
    async fn verify(&self, numbers: &[u64], proof: Vec<u8>) -> Result<bool, Why> {
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

/// How a proof over a part of a chunk ended.
enum PartEnd {
    Proof(Vec<u8>),
    /// The vanilla proofs of these sectors are wrong.
    Wrong(Vec<u64>),
    /// The library refuses what it was given, or the proof does not verify.
    Failed(String),
}
