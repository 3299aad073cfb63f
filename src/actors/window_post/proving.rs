//! One attempt at the proof of a batch. First the sectors are read; a prover's slot is taken for each chunk once its
//! sectors are there. A sector that spoils a chunk is found and left out ([`parts`](super::parts)).

use super::batch::ReadyProof;
use super::chunks::{self, NextChunk, SectorState};
use super::effects::{Effects, Why, why};
use super::parts::{ChunkEnd, ChunkPlace};
use super::{batching, reads, schedule};
use crate::actors::sector_reads::{ReadRequest, SectorRead, WantedSector};
use crate::chain::miner_messages::comm_r;
use crate::chain::types::{DeadlineInfo, TipSet};
use crate::proofs::{Bytes32, Job, Output, Task};
use fvm_ipld_bitfield::BitField;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// To verify a proof takes milliseconds; a prover that hangs must not take the window with it.
pub(super) const VERIFY: Duration = Duration::from_secs(120);
/// The first window proof type whose challenges do not depend on which other sectors are proven (FIP-0061).
const FIRST_INDEPENDENT: i64 = 10;

/// A batch under proof.
pub(super) struct Attempt<'a> {
    pub effects: &'a Effects,
    pub di: &'a DeadlineInfo,
    pub partitions: &'a [u64],
    pub proof_type: i64,
    pub randomness: Bytes32,
    /// CommR of each sector.
    pub comm_r: BTreeMap<u64, Bytes32>,
    close_at: Instant,
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
        self.memory.drop_closed(head.height);

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
    pub(super) fn left(&self) -> Duration {
        self.close_at.saturating_duration_since(Instant::now())
    }

    fn read_until(&self, sectors: usize, size: usize) -> Instant {
        let chunks = sectors.div_ceil(size.min(sectors).max(1));
        let waited = size != usize::MAX && self.effects.memory.has_waited(self.di.close, self.partitions);
        Instant::now() + schedule::time_to_read(self.left(), self.effects.last_chunk(), chunks, waited)
    }

    fn nothing_to_prove(&self, sectors: &BTreeMap<u64, SectorState>) -> Why {
        let why = chunks::left_out(sectors).into_iter().next().map_or_else(String::new, |group| group.why);
        format!("none of the {} sectors of partitions {:?} can be proven: {why}", sectors.len(), self.partitions)
    }

    async fn prove(&self, sectors: &mut BTreeMap<u64, SectorState>, size: usize) -> Result<Vec<u8>, Why> {
        let (mut done, mut proof, mut proven) = (0, Vec::new(), Vec::new());
        // Challenges of the older proof types change with each sector that is left out: then all is read anew.
        loop {
            let alive = sectors.iter().filter(|(_, state)| !matches!(state, SectorState::LeftOut(_)));
            let alive: Vec<u64> = alive.map(|(number, _)| *number).collect();
            if alive.is_empty() {
                return Err(self.nothing_to_prove(sectors));
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
            return Err(self.nothing_to_prove(sectors));
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
                        let chunks = (sectors.len() - out(sectors)).div_ceil(size.max(1));
                        let place = ChunkPlace { others: *done > 0, to_come: chunks.saturating_sub(*done + 1) };
                        chunk = Some(Box::pin(self.prove_chunk(numbers, place)));
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
                    if !late.is_empty() {
                        self.effects.memory.wait_is_over(self.di.close, self.partitions);
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
                        ChunkEnd::Hopeless(numbers, why) => {
                            let why = SectorState::LeftOut(format!("a proof with it fails: {why}"));
                            sectors.extend(numbers.into_iter().map(|number| (number, why.clone())));
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
}
