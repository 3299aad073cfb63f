//! The I/O behind each command: read the chain, prove, verify, hand over. Every function is one attempt; none retries.

use super::batch::{Outcome, ReadyProof, Submission};
use super::batching;
use super::chunks::LeftOut;
use super::memory::AttemptMemory;
use super::outbox::{PostMessage, PostMessages, Taken};
use super::reads::KeptReads;
use super::settings::WindowPostSettings;
use super::trials::Trials;
use crate::actors::sector_reads::SectorReader;
use crate::chain::miner_messages::{self, MinerCall};
use crate::chain::types::{DeadlineInfo, PoStProof, TipSet, TipSetKey};
use crate::chain::{Address, ChainEpoch, randomness};
use crate::proofs::{ActorId, Prover};
use crate::rpc::full_node::{FullNode, RandomnessTag};
use crate::util::lock;
use fvm_ipld_bitfield::BitField;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub type Why = String;

/// The parts that all attempts share.
pub struct Effects {
    pub miner: Address,
    pub actor_id: ActorId,
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub reader: Arc<dyn SectorReader>,
    pub outbox: Arc<dyn PostMessages>,
    /// The folder where provers leave results, so that they are found again after a crash.
    pub jobs: Option<PathBuf>,
    pub settings: WindowPostSettings,
    pub(super) kept: Arc<KeptReads>,
    pub left_out: Arc<LeftOutSectors>,
    pub(super) trials: Arc<Trials>,
    pub(super) memory: Arc<AttemptMemory>,
    /// Milliseconds that the last chunk's proof took to compute; 0 before the first.
    last_chunk: Arc<AtomicU64>,
    block_delay: OnceLock<Duration>,
}

/// Open of a window, and a batch's partitions.
type BatchKey = (ChainEpoch, Vec<u64>);

/// Which sectors the proofs of open and recent windows leave out, and those that are late while it is being proven.
#[derive(Default)]
pub struct LeftOutSectors {
    batches: Mutex<BTreeMap<BatchKey, Vec<LeftOut>>>,
}

impl LeftOutSectors {
    pub fn set(&self, open: ChainEpoch, partitions: &[u64], left_out: Vec<LeftOut>) {
        lock(&self.batches).insert((open, partitions.to_vec()), left_out);
    }

    pub fn of(&self, open: ChainEpoch, partitions: &[u64]) -> Vec<LeftOut> {
        lock(&self.batches).get(&(open, partitions.to_vec())).cloned().unwrap_or_default()
    }

    fn forget(&self, open: ChainEpoch) {
        lock(&self.batches).retain(|(of, _), _| *of != open);
    }
}

pub(super) fn why(error: impl std::fmt::Display) -> Why {
    error.to_string()
}

impl Effects {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        miner: Address,
        node: Arc<dyn FullNode>,
        prover: Arc<dyn Prover>,
        reader: Arc<dyn SectorReader>,
        outbox: Arc<dyn PostMessages>,
        jobs: Option<PathBuf>,
        settings: WindowPostSettings,
    ) -> Result<Effects, Why> {
        let actor_id = miner.id().map_err(|_| format!("miner {miner}: give its ID address (t01000)"))?;
        Ok(Effects {
            miner,
            actor_id,
            node,
            prover,
            reader,
            outbox,
            jobs,
            settings,
            kept: Arc::default(),
            left_out: Arc::default(),
            trials: Arc::default(),
            memory: Arc::default(),
            last_chunk: Arc::default(),
            block_delay: OnceLock::new(),
        })
    }

    pub fn with_settings(&self, settings: WindowPostSettings) -> Effects {
        Effects {
            miner: self.miner,
            actor_id: self.actor_id,
            node: self.node.clone(),
            prover: self.prover.clone(),
            reader: self.reader.clone(),
            outbox: self.outbox.clone(),
            jobs: self.jobs.clone(),
            settings,
            kept: self.kept.clone(),
            left_out: self.left_out.clone(),
            trials: self.trials.clone(),
            memory: self.memory.clone(),
            last_chunk: self.last_chunk.clone(),
            block_delay: self.block_delay.clone(),
        }
    }

    /// The miner in durable names: how an address prints depends on the network that is set in the process.
    pub fn name(&self) -> String {
        format!("t0{}", self.actor_id)
    }

    pub(super) fn last_chunk(&self) -> Duration {
        Duration::from_millis(self.last_chunk.load(Ordering::Relaxed))
    }

    pub(super) fn chunk_took(&self, took: Duration) {
        self.last_chunk.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) async fn block_delay(&self) -> Result<Duration, Why> {
        if let Some(known) = self.block_delay.get() {
            return Ok(*known);
        }
        let params = self.node.state_get_network_params().await.map_err(why)?;
        Ok(*self.block_delay.get_or_init(|| Duration::from_secs(params.block_delay_secs.max(1))))
    }

    /// The partitions to prove, in batches. Empty: nothing is due.
    pub async fn plan(&self, di: &DeadlineInfo, head: &TipSet) -> Result<Vec<Vec<u64>>, Why> {
        let key = head.key();
        let partitions = self.node.state_miner_partitions(&self.miner, di.index, &key).await.map_err(why)?;
        let done = if head.height >= di.open { self.proven_on_chain(di, &key).await? } else { BitField::new() };
        let due = batching::due(&partitions, &done);
        let max = batching::partition_limit(self.settings.max_partitions);
        Ok(batching::batches(&due, max, self.settings.single_recovering_partition))
    }

    async fn proven_on_chain(&self, di: &DeadlineInfo, key: &TipSetKey) -> Result<BitField, Why> {
        let deadlines = self.node.state_miner_deadlines(&self.miner, key).await.map_err(why)?;
        let deadline = usize::try_from(di.index).ok().and_then(|index| deadlines.into_iter().nth(index));
        Ok(deadline.ok_or_else(|| format!("the node knows no deadline {}", di.index))?.post_submissions)
    }

    /// Does the chain count all these partitions as proven in the open window?
    pub async fn check(&self, di: &DeadlineInfo, partitions: &[u64], head: &TipSet) -> Result<bool, Why> {
        let proven = self.proven_on_chain(di, &head.key()).await?;
        Ok(partitions.iter().all(|partition| proven.get(*partition)))
    }

    /// The challenge of a deadline as the prover wants it: a field element, so the two highest bits are dropped.
    pub(super) async fn challenge(&self, di: &DeadlineInfo, key: &TipSetKey) -> Result<[u8; 32], Why> {
        let tag = RandomnessTag::WindowedPoStChallengeSeed;
        let entropy = miner_messages::entropy(&self.miner).map_err(why)?;
        let drawn = self.node.state_get_randomness_from_beacon(tag, di.challenge, &entropy, key).await.map_err(why)?;
        let seed = <[u8; 32]>::try_from(drawn).map_err(|got| format!("randomness of {} bytes", got.len()))?;
        Ok(randomness::fr32_safe(seed))
    }

    /// One attempt at the proof of a batch, verified before it is returned.
    pub async fn prove(&self, di: &DeadlineInfo, partitions: &[u64], head: &TipSet) -> Outcome {
        match self.try_prove(di, partitions, head).await {
            Ok(Some(proof)) => Outcome::Proved(proof),
            Ok(None) => Outcome::Nothing,
            Err(why) => Outcome::Failed(why),
        }
    }

    /// Removes what provers left for a deadline that is over.
    pub fn forget_jobs(&self, open: ChainEpoch) {
        self.left_out.forget(open);
        let Some(jobs) = &self.jobs else { return };
        let prefix = format!("wdpost-{}-{open}-", self.name());
        for entry in std::fs::read_dir(jobs).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a finished job's folder");
            }
        }
    }

    /// Makes the message of a proof and hands it over.
    pub async fn submit(&self, di: &DeadlineInfo, proof: &ReadyProof, key: &str, head: &TipSet) -> Submission {
        match self.try_submit(di, proof, key, head).await {
            Ok(result) => result,
            Err(why) => Submission::Failed(why),
        }
    }

    async fn try_submit(
        &self,
        di: &DeadlineInfo,
        proof: &ReadyProof,
        key: &str,
        head: &TipSet,
    ) -> Result<Submission, Why> {
        let at = head.key();
        if self.challenge(di, &at).await? != proof.randomness {
            return Ok(Submission::Stale("the chain has another challenge than the one proven".to_string()));
        }
        // As far back as the network takes it, so that no reorganisation of the window's first epochs makes it void.
        let (tag, epoch) = (RandomnessTag::PoStChainCommit, di.challenge);
        let commit = self.node.state_get_randomness_from_tickets(tag, epoch, &[], &at).await.map_err(why)?;
        let partitions = proof.partitions.iter().map(|(index, skipped)| {
            let skipped = BitField::try_from_bits(skipped.iter().copied()).map_err(why)?;
            Ok((*index, skipped))
        });
        let partitions = partitions.collect::<Result<Vec<_>, Why>>()?;
        let proofs = [PoStProof { post_proof: proof.proof_type, proof_bytes: proof.proof.clone() }];
        let call = miner_messages::submit_windowed_post(di.index, partitions, &proofs, epoch, commit);
        Ok(match self.enqueue(key.to_string(), call.map_err(why)?, di.close).await? {
            Taken::New => Submission::Queued,
            Taken::Known => Submission::Known,
        })
    }

    pub(super) async fn enqueue(
        &self,
        key: String,
        MinerCall { method, params }: MinerCall,
        closes: ChainEpoch,
    ) -> Result<Taken, Why> {
        self.outbox.enqueue(PostMessage { key, to: self.miner, method, params, closes }).await
    }
}
