//! A prover for PoSts over sectors wherever their files are: other nodes send what the challenges read, small, and the
//! proof is made here. A sector whose node does not send it in time is skipped and named, like one that cannot be read.

use super::index::{Location, SectorIndex, StorageNode};
use super::messages::{Challenged, Vanilla, VanillaAnswer};
use crate::actors::sector_files::SectorFiles;
use crate::proofs::{ActorId, Bytes32, Job, Output, PostSector, Prover, ProverError, Task, tasks};
use crate::supervisor::SupervisorRef;
use async_trait::async_trait;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions for the same sectors.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// The longest that storages elsewhere may take.
const LONGEST: Duration = Duration::from_secs(120);
/// Sectors in one question: an answer must fit a message. A sector of 32 GiB gives about 25 KB for a window, 150 KB for a
/// block.
const WINDOW_BATCH: usize = 16;
const WINNING_BATCH: usize = 2;
/// Questions to one node at a time.
const AT_ONCE: usize = 4;

pub struct RemoteSectorProver {
    pub inner: Arc<dyn Prover>,
    pub index: Arc<SectorIndex>,
}

/// One PoSt.
struct Post {
    proof_type: i64,
    miner: ActorId,
    randomness: Bytes32,
    sectors: BTreeMap<u64, PostSector>,
}

#[async_trait]
impl Prover for RemoteSectorProver {
    fn show_in(&self, provers: SupervisorRef) {
        self.inner.show_in(provers);
    }

    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        let (Task::WindowPost { proof_type, miner, randomness, sectors }
        | Task::WinningPost { proof_type, miner, randomness, sectors }) = &job.task
        else {
            return self.inner.run(job).await;
        };
        let numbers: Vec<u64> = sectors.iter().map(|s| s.number).collect();
        let homes = self.index.find(&numbers).await;
        if !homes.values().any(|home| matches!(home, Location::Node(_))) {
            return self.inner.run(job).await;
        }
        let sectors = sectors.iter().map(|s| (s.number, s.clone())).collect();
        let post = Post { proof_type: *proof_type, miner: *miner, randomness: *randomness, sectors };
        self.post(post, homes, &job).await
    }
}

impl RemoteSectorProver {
    async fn post(&self, post: Post, homes: BTreeMap<u64, Location>, job: &Job) -> Result<Output, ProverError> {
        let began = Instant::now();
        let Post { proof_type, miner, randomness, .. } = post;
        let left = || job.max_runtime.saturating_sub(began.elapsed());
        let task =
            Task::PostChallenges { proof_type, miner, randomness, sectors: post.sectors.keys().copied().collect() };
        let challenges = match self.inner.run(Job { task, job_dir: None, max_runtime: left() }).await? {
            Output::Challenges(challenges) => challenges,
            other => return Err(odd("PostChallenges", &other)),
        };
        // Two thirds of the time are for the proof itself.
        let until = began + (job.max_runtime / 3).min(LONGEST);
        let mut here = Vec::new();
        let mut far: BTreeMap<String, (StorageNode, Vec<Challenged>)> = BTreeMap::new();
        let mut proofs: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (number, places) in challenges {
            let Some(sector) = post.sectors.get(&number) else { continue };
            match homes.get(&number) {
                Some(Location::Node(node)) => {
                    let challenged = Challenged { number, comm_r: sector.comm_r, places };
                    far.entry(node.name.clone()).or_insert_with(|| (node.clone(), Vec::new())).1.push(challenged);
                }
                Some(Location::Here) => here.push((self.at_home(sector), places)),
                Some(Location::Nowhere) | None => tracing::warn!("sector {number}: no storage has its files"),
            }
        }
        let ours = async {
            if here.is_empty() {
                return Ok(Vec::new());
            }
            let task = Task::Vanilla { proof_type, sectors: here };
            match self.inner.run(Job { task, job_dir: None, max_runtime: left() }).await? {
                Output::Vanilla(answers) => Ok(answers),
                other => Err(odd("Vanilla", &other)),
            }
        };
        let theirs =
            futures::future::join_all(far.into_values().map(|(node, sectors)| self.ask(node, &post, sectors, until)));
        let (ours, theirs) = futures::join!(ours, theirs);
        for (number, answer) in ours?.into_iter().chain(theirs.into_iter().flatten()) {
            match answer {
                Ok(proof) => drop(proofs.insert(number, proof)),
                Err(why) => tracing::warn!("sector {number} cannot be proven: {why}"),
            }
        }
        let skipped: Vec<u64> = post.sectors.keys().filter(|n| !proofs.contains_key(n)).copied().collect();
        if !skipped.is_empty() {
            skipped.iter().for_each(|n| self.index.forget(*n));
            return Ok(Output::Skipped(skipped));
        }
        let task = Task::PostFromVanilla { proof_type, miner, randomness, proofs: proofs.into_iter().collect() };
        self.inner.run(Job { task, job_dir: job.job_dir.clone(), max_runtime: left() }).await
    }

    fn at_home(&self, sector: &PostSector) -> PostSector {
        self.index.dirs().locate(sector.number).post_sector(sector.number, sector.comm_r)
    }

    /// The proofs of one node's sectors that arrive before `until`.
    async fn ask(
        &self,
        node: StorageNode,
        post: &Post,
        sectors: Vec<Challenged>,
        until: Instant,
    ) -> Vec<(u64, Result<Vec<u8>, String>)> {
        let size = if tasks::is_winning(post.proof_type) { WINNING_BATCH } else { WINDOW_BATCH };
        let node = &node;
        let batches: Vec<Vec<Challenged>> = sectors.chunks(size).map(<[_]>::to_vec).collect();
        let answers = batches.into_iter().map(|batch| async move {
            let numbers: Vec<u64> = batch.iter().map(|s| s.number).collect();
            let question = Vanilla { miner: post.miner, proof_type: post.proof_type, sectors: batch };
            match tokio::time::timeout_at(until, ask_until_ready(node, question)).await {
                Ok(answer) => answer,
                Err(_) => {
                    let why = format!("the storage of {} did not answer in time", node.name);
                    numbers.into_iter().map(|n| (n, Err(why.clone()))).collect()
                }
            }
        });
        futures::stream::iter(answers).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.concat()
    }
}

/// Asks again until the answer is ready; the caller sets the limit.
async fn ask_until_ready(node: &StorageNode, question: Vanilla) -> Vec<(u64, Result<Vec<u8>, String>)> {
    loop {
        match node.storage.ask(question.clone(), ASK_TIMEOUT).await {
            Ok(VanillaAnswer::Ready(answers)) => return answers,
            Ok(VanillaAnswer::NotYet) => {}
            Err(e) => tracing::warn!(node = node.name, "its storage: {e}"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

fn odd(task: &str, output: &Output) -> ProverError {
    ProverError::Failed { task: task.into(), why: format!("the prover answered {output:?}") }
}
