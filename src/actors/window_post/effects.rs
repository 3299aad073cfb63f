//! The I/O behind each command: read the chain, prove, verify, hand over. Every function is one attempt; none retries.

use super::batch::{Outcome, ReadyProof, Submission};
use super::outbox::{PostMessage, PostMessages, Taken};
use super::settings::WindowPostSettings;
use super::{batching, recoveries, schedule};
use crate::actors::sector_files::SectorFiles;
use crate::chain::miner_messages::{self, MinerCall, comm_r};
use crate::chain::network_rules::{self, Limits, NetworkRules};
use crate::chain::types::{DeadlineInfo, PoStProof, SectorOnChainInfo, TipSet, TipSetKey};
use crate::chain::{Address, ChainEpoch, randomness};
use crate::proofs::{ActorId, Job, Output, PostSector, Prover, PublicSector, Task};
use crate::rpc::full_node::rules::RulesAt;
use crate::rpc::full_node::{FullNode, RandomnessTag};
use futures::StreamExt;
use fvm_ipld_bitfield::BitField;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A sector whose file system does not answer within this is left out of the proof.
const FILE_CHECK: Duration = Duration::from_secs(10);
const FILE_CHECKS_AT_ONCE: usize = 32;
/// To verify a proof takes milliseconds; a prover that hangs must not take the window with it.
const VERIFY: Duration = Duration::from_secs(120);
/// A prover that reports unreadable sectors again and again is broken otherwise.
const SKIP_ROUNDS: usize = 5;

pub type Why = String;

/// The parts that all attempts share.
pub struct Effects {
    pub miner: Address,
    pub actor_id: ActorId,
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub files: Arc<dyn SectorFiles>,
    pub outbox: Arc<dyn PostMessages>,
    /// The folder where provers leave results, so that they are found again after a crash.
    pub jobs: Option<PathBuf>,
    pub settings: WindowPostSettings,
    block_delay: OnceLock<Duration>,
    rules: Arc<RulesAt>,
}

/// An operator's number, 0 for as many as may be, within the network's limit: it refuses the whole message otherwise.
fn within(wanted: usize, limit: usize) -> usize {
    if wanted == 0 { limit } else { wanted.min(limit) }
}

fn why(error: impl std::fmt::Display) -> Why {
    error.to_string()
}

impl Effects {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        miner: Address,
        node: Arc<dyn FullNode>,
        prover: Arc<dyn Prover>,
        files: Arc<dyn SectorFiles>,
        outbox: Arc<dyn PostMessages>,
        jobs: Option<PathBuf>,
        settings: WindowPostSettings,
    ) -> Result<Effects, Why> {
        let actor_id = miner.id().map_err(|_| format!("miner {miner}: give its ID address (t01000)"))?;
        let (block_delay, rules) = (OnceLock::new(), Arc::default());
        Ok(Effects { miner, actor_id, node, prover, files, outbox, jobs, settings, block_delay, rules })
    }

    pub fn with_settings(&self, settings: WindowPostSettings) -> Effects {
        Effects {
            miner: self.miner,
            actor_id: self.actor_id,
            node: self.node.clone(),
            prover: self.prover.clone(),
            files: self.files.clone(),
            outbox: self.outbox.clone(),
            jobs: self.jobs.clone(),
            settings,
            block_delay: self.block_delay.clone(),
            rules: self.rules.clone(),
        }
    }

    /// The miner in durable names: how an address prints depends on the network that is set in the process.
    pub fn name(&self) -> String {
        format!("t0{}", self.actor_id)
    }

    async fn block_delay(&self) -> Result<Duration, Why> {
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
        let max = within(self.settings.max_partitions, self.limits(&key).await.posted_partitions);
        Ok(batching::batches(&due, max, self.settings.single_recovering_partition))
    }

    /// The network's limits at that tipset. A node that does not tell its version costs no proof: those of the newest one.
    async fn limits(&self, key: &TipSetKey) -> Limits {
        let rules = self.rules.rules(self.node.as_ref(), key).await;
        rules.unwrap_or_else(|_| NetworkRules::of(network_rules::NEWEST)).limits
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
    async fn challenge(&self, di: &DeadlineInfo, key: &TipSetKey) -> Result<[u8; 32], Why> {
        let tag = RandomnessTag::WindowedPoStChallengeSeed;
        let entropy = miner_messages::entropy(&self.miner).map_err(why)?;
        let drawn = self.node.state_get_randomness_from_beacon(tag, di.challenge, &entropy, key).await.map_err(why)?;
        let seed = <[u8; 32]>::try_from(drawn).map_err(|got| format!("randomness of {} bytes", got.len()))?;
        Ok(randomness::fr32_safe(seed))
    }

    /// One attempt at the proof of a batch, verified before it is returned.
    pub async fn prove(&self, di: &DeadlineInfo, partitions: &[u64], attempt: u32, head: &TipSet) -> Outcome {
        match self.try_prove(di, partitions, attempt, head).await {
            Ok(Some(proof)) => Outcome::Proved(proof),
            Ok(None) => Outcome::Nothing,
            Err(why) => Outcome::Failed(why),
        }
    }

    async fn try_prove(
        &self,
        di: &DeadlineInfo,
        wanted: &[u64],
        attempt: u32,
        head: &TipSet,
    ) -> Result<Option<ReadyProof>, Why> {
        let key = head.key();
        let state = self.node.state_miner_partitions(&self.miner, di.index, &key).await.map_err(why)?;
        let info = self.node.state_miner_info(&self.miner, &key).await.map_err(why)?;
        let randomness = self.challenge(di, &key).await?;
        let max_runtime = schedule::time_left(head.height, di, self.block_delay().await?);

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
        let on_chain: BTreeMap<u64, SectorOnChainInfo> = on_chain.into_iter().map(|s| (s.sector_number, s)).collect();
        if let Some(number) = due.values().flatten().find(|number| !on_chain.contains_key(number)) {
            return Err(format!("the node did not tell about sector {number}"));
        }

        let mut skipped = self.unreadable(due.values().flatten().copied(), info.sector_size).await;
        for _ in 0..SKIP_ROUNDS {
            let sectors: Vec<PostSector> = due
                .values()
                .flatten()
                .filter(|number| !skipped.contains(number))
                .map(|number| {
                    let comm_r = comm_r(&on_chain[number].sealed_cid).map_err(|e| format!("sector {number}: {e}"))?;
                    Ok(self.files.locate(*number).post_sector(*number, comm_r))
                })
                .collect::<Result<_, Why>>()?;
            if sectors.is_empty() {
                return Err(format!("none of the {} sectors of partitions {wanted:?} can be read", numbers.len()));
            }
            let public: Vec<PublicSector> =
                sectors.iter().map(|s| PublicSector { number: s.number, comm_r: s.comm_r }).collect();
            let proof_type = info.window_post_proof_type;
            let task = Task::WindowPost { proof_type, miner: self.actor_id, randomness, sectors };
            let job_dir = self.job_dir(di, wanted, attempt, &task);
            let proof = match self.prover.run(Job { task, job_dir, max_runtime }).await.map_err(why)? {
                Output::Proof(proof) => proof,
                Output::Skipped(bad) => {
                    let before = skipped.len();
                    skipped.extend(bad.iter().filter(|number| numbers.get(**number)));
                    if skipped.len() == before {
                        return Err(format!("the prover skips sectors {bad:?}, which it was not given"));
                    }
                    tracing::warn!(deadline = di.index, ?bad, "proving without sectors that cannot be read");
                    continue;
                }
                other => return Err(format!("WindowPoSt answered {other:?}")),
            };
            self.verify(proof_type, randomness, public, proof.clone()).await?;
            // A partition of which nothing is left is not in the proof.
            let partitions = due.iter().filter_map(|(index, sectors)| {
                let out: Vec<u64> = sectors.iter().copied().filter(|number| skipped.contains(number)).collect();
                (out.len() < sectors.len()).then_some((*index, out))
            });
            return Ok(Some(ReadyProof { partitions: partitions.collect(), proof_type, proof, randomness }));
        }
        Err(format!("the prover still skips sectors after {SKIP_ROUNDS} rounds: {skipped:?}"))
    }

    /// The network takes a window proof unseen and lets others dispute it: never send one that we would dispute.
    async fn verify(
        &self,
        proof_type: i64,
        randomness: [u8; 32],
        sectors: Vec<PublicSector>,
        proof: Vec<u8>,
    ) -> Result<(), Why> {
        let task = Task::VerifyWindowPost { proof_type, miner: self.actor_id, randomness, sectors, proof };
        match self.prover.run(Job { task, job_dir: None, max_runtime: VERIFY }).await.map_err(why)? {
            Output::Verified(true) => Ok(()),
            Output::Verified(false) => Err("our own proof does not verify; it is not sent".to_string()),
            other => Err(format!("VerifyWindowPoSt answered {other:?}")),
        }
    }

    async fn unreadable(&self, numbers: impl Iterator<Item = u64>, sector_size: u64) -> BTreeSet<u64> {
        let checks = numbers.map(|number| {
            let files = self.files.clone();
            async move {
                let check = tokio::task::spawn_blocking(move || files.readable(number, sector_size));
                let readable = tokio::time::timeout(FILE_CHECK, check).await.is_ok_and(|done| done.unwrap_or(false));
                (!readable).then_some(number)
            }
        });
        futures::stream::iter(checks)
            .buffer_unordered(FILE_CHECKS_AT_ONCE)
            .filter_map(|n| async move { n })
            .collect()
            .await
    }

    /// The task is part of the name: a result is adopted only for exactly what would be asked now.
    fn job_dir(&self, di: &DeadlineInfo, partitions: &[u64], attempt: u32, task: &Task) -> Option<PathBuf> {
        let text = serde_json::to_vec(task).ok()?;
        let hash = blake2b_simd::Params::new().hash_length(8).hash(&text).to_hex();
        let first = partitions.first().copied().unwrap_or_default();
        let name = format!("wdpost-{}-{}-{first}-{attempt}-{hash}", self.name(), di.open);
        Some(self.jobs.as_ref()?.join(name))
    }

    /// Removes what provers left for a deadline that is over.
    pub fn forget_jobs(&self, open: ChainEpoch) {
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
        let tag = RandomnessTag::PoStChainCommit;
        let commit = self.node.state_get_randomness_from_tickets(tag, di.open, &[], &at).await.map_err(why)?;
        let partitions = proof.partitions.iter().map(|(index, skipped)| {
            let skipped = BitField::try_from_bits(skipped.iter().copied()).map_err(why)?;
            Ok((*index, skipped))
        });
        let partitions = partitions.collect::<Result<Vec<_>, Why>>()?;
        let proofs = [PoStProof { post_proof: proof.proof_type, proof_bytes: proof.proof.clone() }];
        let call = miner_messages::submit_windowed_post(di.index, partitions, &proofs, di.open, commit);
        Ok(match self.enqueue(key.to_string(), call.map_err(why)?).await? {
            Taken::New => Submission::Queued,
            Taken::Known => Submission::Known,
        })
    }

    async fn enqueue(&self, key: String, MinerCall { method, params }: MinerCall) -> Result<Taken, Why> {
        let max_fee = self.settings.max_fee.clone();
        self.outbox.enqueue(PostMessage { key, to: self.miner, method, params, max_fee }).await
    }

    /// Declares recovered what is faulty in `target` but readable again. Returns how many faulty sectors remain.
    pub async fn recover(&self, target: &DeadlineInfo, head: &TipSet) -> Result<usize, Why> {
        let key = head.key();
        let partitions = self.node.state_miner_partitions(&self.miner, target.index, &key).await.map_err(why)?;
        let undeclared = recoveries::undeclared(&partitions);
        if undeclared.is_empty() {
            return Ok(0);
        }
        let info = self.node.state_miner_info(&self.miner, &key).await.map_err(why)?;
        let faulty: BTreeSet<u64> = undeclared.iter().flat_map(|(_, faults)| faults.iter()).collect();
        let unreadable = self.unreadable(faulty.iter().copied(), info.sector_size).await;
        let readable: BTreeSet<u64> = faulty.difference(&unreadable).copied().collect();
        let max = within(self.settings.max_recovery_partitions, self.limits(&key).await.addressed_partitions);
        for declaration in recoveries::declarations(target.index, &undeclared, &readable, max) {
            let count = declaration.len();
            let call = miner_messages::declare_faults_recovered(declaration).map_err(why)?;
            let hash = blake2b_simd::Params::new().hash_length(8).hash(&call.params).to_hex();
            let name = format!("recover-{}-{}-{hash}", self.name(), target.open);
            tracing::info!(deadline = target.index, partitions = count, "declaring recoveries");
            self.enqueue(name, call).await?;
        }
        Ok(unreadable.len())
    }
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn more_than_the_network_takes_is_never_asked_for() {
        let got = [0, 1, 2, 3, 4, 300].map(|wanted| within(wanted, 3));
        assert_eq!(got, [3, 1, 2, 3, 3, 3]);
    }
}
