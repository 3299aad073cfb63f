//! A prover for WinningPoSts over sectors wherever their files are: what is elsewhere is read there, and the proof is made
//! here. A sector that cannot be read in time is skipped and named.

use super::index::Location;
use super::post_reader::PostReader;
use crate::actors::sector_reads::{ReadRequest, SectorRead, WantedSector};
use crate::proofs::{Job, Output, Prover, ProverError, Task};
use crate::supervisor::SupervisorRef;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub struct RemoteSectorProver {
    pub inner: Arc<dyn Prover>,
    pub reader: Arc<PostReader>,
}

#[async_trait]
impl Prover for RemoteSectorProver {
    fn show_in(&self, provers: SupervisorRef) {
        self.inner.show_in(provers);
    }

    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        let Task::WinningPost { sectors, .. } = &job.task else { return self.inner.run(job).await };
        let numbers: Vec<u64> = sectors.iter().map(|s| s.number).collect();
        let homes = self.reader.index.find(&self.reader.local, &numbers).await;
        if homes.values().all(|home| matches!(home, Location::Here)) {
            return self.inner.run(job).await;
        }
        self.post(homes, job).await
    }
}

impl RemoteSectorProver {
    async fn post(&self, homes: BTreeMap<u64, Location>, job: Job) -> Result<Output, ProverError> {
        let began = Instant::now();
        let max_runtime = job.max_runtime;
        let left = || max_runtime.saturating_sub(began.elapsed());
        let Task::WinningPost { proof_type, miner, randomness, sectors } = job.task else {
            return self.inner.run(job).await;
        };
        let numbers: Vec<u64> = sectors.iter().map(|s| s.number).collect();
        let task = Task::PostChallenges { proof_type, miner, randomness, sectors: numbers.clone() };
        let challenges = match self.inner.run(Job { task, job_dir: None, max_runtime: left() }).await? {
            Output::Challenges(challenges) => challenges,
            other => return Err(odd("PostChallenges", &other)),
        };
        let mut places: BTreeMap<u64, Vec<u64>> = challenges.into_iter().collect();
        let wanted = sectors.iter().filter_map(|sector| {
            let places = places.remove(&sector.number)?;
            Some(WantedSector { number: sector.number, comm_r: sector.comm_r, places })
        });
        // Two thirds of the time are for the proof itself.
        let request = ReadRequest { miner, proof_type, sectors: wanted.collect(), until: began + max_runtime / 3 };
        let (tell, mut answers) = mpsc::unbounded_channel();
        self.reader.read_at(homes, request, &tell).await;
        drop(tell);
        let mut proofs: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while let Some((number, answer)) = answers.recv().await {
            match answer {
                SectorRead::Proof(proof) => drop(proofs.insert(number, proof)),
                SectorRead::Unreadable(why) | SectorRead::Late(why) => {
                    tracing::warn!("sector {number} cannot be proven: {why}");
                }
            }
        }
        let skipped: Vec<u64> = numbers.into_iter().filter(|n| !proofs.contains_key(n)).collect();
        if !skipped.is_empty() {
            return Ok(Output::Skipped(skipped));
        }
        let task = Task::PostFromVanilla { proof_type, miner, randomness, proofs: proofs.into_iter().collect() };
        self.inner.run(Job { task, job_dir: job.job_dir, max_runtime: left() }).await
    }
}

fn odd(task: &str, output: &Output) -> ProverError {
    ProverError::Failed { task: task.into(), why: format!("the prover answered {output:?}") }
}
