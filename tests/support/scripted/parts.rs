//! A prover, sector files and an outbox that answer what a test told them.

use super::*;
use bulkhead::actors::sector_files::{SectorFiles, SectorPaths};
use bulkhead::actors::sector_reads::{Answers, ReadRequest, SectorRead, SectorReader};
use bulkhead::actors::window_post::batch::PostStatus;
use bulkhead::actors::window_post::outbox::{PostMessage, PostMessages, Taken};
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task};
use std::path::PathBuf;

/// Answers tasks from a script, then with a proof; notes what it was asked.
#[derive(Default)]
pub struct ScriptedProver {
    /// Answers to proofs, before the normal ones.
    pub script: Mutex<VecDeque<std::result::Result<Output, ProverError>>>,
    /// Answers to verifications, before the normal ones.
    pub verdicts: Mutex<VecDeque<std::result::Result<Output, ProverError>>>,
    pub jobs: Mutex<Vec<Job>>,
    pub verdict: Mutex<Option<bool>>,
    /// The library refuses every proof with one of these sectors, and does not say which.
    pub poison: Mutex<BTreeSet<u64>>,
    /// A proof with one of these sectors crashes its process.
    pub crashes: Mutex<BTreeSet<u64>>,
    /// A proof of more sectors fails, whichever they are; 0: of any number.
    pub most_together: std::sync::atomic::AtomicUsize,
    /// The time of a proof that is refused for nothing; one that is refused is refused at once.
    pub takes: Mutex<std::time::Duration>,
    /// Each proof takes one of its permits; `None`: at once.
    pub gate: Mutex<Option<std::sync::Arc<tokio::sync::Semaphore>>>,
    /// Proofs that were dropped before their end.
    pub dropped: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

/// Counts a proof that is dropped.
struct CountsDrop(std::sync::Arc<std::sync::atomic::AtomicUsize>, bool);
impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(usize::from(self.1), Ordering::SeqCst);
    }
}

#[async_trait]
impl Prover for ScriptedProver {
    async fn run(&self, job: Job) -> std::result::Result<Output, ProverError> {
        let (task, max_runtime) = (job.task.clone(), job.max_runtime);
        self.jobs.lock().unwrap().push(job);
        match task {
            Task::PostChallenges { sectors, .. } => {
                return Ok(Output::Challenges(sectors.into_iter().map(|n| (n, vec![n, n + 1])).collect()));
            }
            Task::VerifyWindowPost { .. } => {
                let scripted = self.verdicts.lock().unwrap().pop_front();
                return scripted.unwrap_or(Ok(Output::Verified(self.verdict.lock().unwrap().unwrap_or(true))));
            }
            Task::PostFromVanilla { ref proofs, .. } => {
                let with = |bad: &Mutex<BTreeSet<u64>>| {
                    let bad = bad.lock().unwrap();
                    proofs.iter().any(|(number, _)| bad.contains(number))
                };
                // As the proofs library does: the sectors are not named.
                let most = self.most_together.load(Ordering::SeqCst);
                if with(&self.poison) || (most > 0 && proofs.len() > most) {
                    let why = "partitioned vanilla proofs failed to verify".to_string();
                    return Err(ProverError::Failed { task: "WindowPoSt".into(), why });
                }
                if with(&self.crashes) {
                    return Err(ProverError::Segfault { task: "WindowPoSt".into() });
                }
                let takes = *self.takes.lock().unwrap();
                if !takes.is_zero() {
                    let hung = ProverError::Hung { task: "WindowPoSt".into(), after: max_runtime };
                    tokio::time::sleep(takes.min(max_runtime)).await;
                    if takes > max_runtime {
                        return Err(hung);
                    }
                }
            }
            _ => {}
        }
        let gate = self.gate.lock().unwrap().clone();
        let mut dropped = CountsDrop(self.dropped.clone(), true);
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        dropped.1 = false;
        self.script.lock().unwrap().pop_front().unwrap_or(Ok(Output::Proof(vec![42; 192])))
    }
}

/// The sectors of a proof.
pub fn sectors_of(task: &Task) -> Option<Vec<u64>> {
    match task {
        Task::PostFromVanilla { proofs, .. } => Some(proofs.iter().map(|(number, _)| *number).collect()),
        Task::WindowPost { sectors, .. } | Task::WinningPost { sectors, .. } => {
            Some(sectors.iter().map(|sector| sector.number).collect())
        }
        _ => None,
    }
}

impl ScriptedProver {
    /// The sectors of each proof asked for.
    pub fn asked(&self) -> Vec<Vec<u64>> {
        self.jobs.lock().unwrap().iter().filter_map(|job| sectors_of(&job.task)).collect()
    }
    /// The sectors of the last proof asked for.
    pub fn proven(&self) -> Vec<u64> {
        self.asked().pop().unwrap_or_default()
    }
}

/// All sectors can be read but those that are named.
#[derive(Default)]
pub struct ScriptedFiles {
    pub missing: Mutex<BTreeSet<u64>>,
    /// Late so many times, then there.
    pub late: Mutex<HashMap<u64, u32>>,
    /// The sectors of each request.
    pub asked: Mutex<Vec<Vec<u64>>>,
    /// The places of the last request, sector by sector.
    pub places: Mutex<Vec<Vec<u64>>>,
}

impl SectorFiles for ScriptedFiles {
    fn locate(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: format!("sealed/{number}").into(), cache: format!("cache/{number}").into() }
    }
    fn locate_update(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: format!("update/{number}").into(), cache: format!("update-cache/{number}").into() }
    }
    fn storage_path(&self, _number: u64) -> PathBuf {
        "sectors".into()
    }
}

#[async_trait]
impl SectorReader for ScriptedFiles {
    async fn read(&self, request: ReadRequest, answers: &Answers) {
        self.asked.lock().unwrap().push(request.sectors.iter().map(|sector| sector.number).collect());
        *self.places.lock().unwrap() = request.sectors.iter().map(|sector| sector.places.clone()).collect();
        for sector in request.sectors {
            let mut late = self.late.lock().unwrap();
            let left = late.get_mut(&sector.number).filter(|left| **left > 0);
            let answer = if let Some(left) = left {
                *left -= 1;
                SectorRead::Late("its host sleeps".into())
            } else if self.missing.lock().unwrap().contains(&sector.number) {
                SectorRead::Unreadable("no such file".into())
            } else {
                SectorRead::Proof(sector.number.to_le_bytes().to_vec())
            };
            answers.send((sector.number, answer)).unwrap();
        }
    }
}

#[derive(Default)]
pub struct ScriptedOutbox {
    pub sent: Mutex<Vec<PostMessage>>,
    pub status: Mutex<HashMap<String, PostStatus>>,
    pub refuse: Mutex<bool>,
}

#[async_trait]
impl PostMessages for ScriptedOutbox {
    async fn enqueue(&self, message: PostMessage) -> std::result::Result<Taken, String> {
        if *self.refuse.lock().unwrap() {
            return Err("the queue is full".into());
        }
        let mut sent = self.sent.lock().unwrap();
        if sent.iter().any(|known| known.key == message.key) {
            return Ok(Taken::Known);
        }
        sent.push(message);
        Ok(Taken::New)
    }
    async fn status(&self, key: &str) -> std::result::Result<PostStatus, String> {
        let known = self.sent.lock().unwrap().iter().any(|message| message.key == key);
        let default = if known { PostStatus::Waiting } else { PostStatus::Unknown };
        Ok(self.status.lock().unwrap().get(key).cloned().unwrap_or(default))
    }
}
