//! The inside of `bulkhead worker`: joins an agent, takes tasks that it has room for, runs them on the shared storage.
//!
//! A worker that cannot say that it lives ends its tasks before its lease does: two never write the same files.

use super::desk::{BEAT, FINISH, JOIN, LONGEST_WAIT, TAKE};
use super::messages::{Beat, BeatAnswer, Finish, Join, Joined, Take, TakeAnswer};
use crate::actors::seal_jobs::{JobFailed, SealJob, carry_out};
use crate::actors::sector_files::SectorDirs;
use crate::proofs::{Output, Prover};
use crate::rpc::client::{CallError, CallErrorKind, RpcClient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const ANSWER: Duration = Duration::from_secs(15);
/// Between two tries to reach an agent that is away.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum HandError {
    /// Nothing that waiting would mend.
    #[error("agent {agent} refuses this worker: {why}")]
    Refused { agent: String, why: String },
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A worker process.
pub struct Hand {
    pub agent: RpcClient,
    pub join: Join,
    /// The shared storage.
    pub storage: PathBuf,
    pub prover: Arc<dyn Prover>,
}

struct Finished {
    job: String,
    result: Option<Result<Output, JobFailed>>,
}

/// What runs now, and what waits to be reported.
struct Work {
    tasks: JoinSet<Finished>,
    /// Dropping the sender ends the task.
    cancel: BTreeMap<String, oneshot::Sender<()>>,
    unreported: Vec<Finish>,
    /// When the agent last heard of us.
    heard: Instant,
}

impl Hand {
    async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<R, CallError> {
        let value = serde_json::to_value(message).unwrap_or_default();
        self.agent.call(method, vec![value], within).await
    }

    /// Works until it is refused; `stop` ends it after what runs was given up.
    pub async fn run(&self) -> Result<(), HandError> {
        let mut lease = self.joined().await?;
        let mut work =
            Work { tasks: JoinSet::new(), cancel: BTreeMap::new(), unreported: Vec::new(), heard: Instant::now() };
        let mut beats = tokio::time::interval(lease / 4);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let taking = self.take();
        tokio::pin!(taking);
        loop {
            tokio::select! {
                answer = &mut taking => {
                    match answer {
                        Ok(TakeAnswer::Job(job)) => self.begin(*job, &mut work),
                        Ok(TakeAnswer::Nothing) => {}
                        Ok(TakeAnswer::JoinFirst) => lease = self.joined().await?,
                        Err(e) => {
                            tracing::warn!("{e}");
                            tokio::time::sleep(AGAIN.min(lease / 4)).await;
                        }
                    }
                    taking.set(self.take());
                }
                Some(done) = work.tasks.join_next() => {
                    if let Ok(Finished { job, result: Some(result) }) = done {
                        work.unreported.push(Finish { id: self.join.id.clone(), job, result });
                        self.report(&mut work).await;
                    }
                }
                _ = beats.tick() => {
                    self.report(&mut work).await;
                    if self.beat(&mut work, lease).await {
                        lease = self.joined().await?;
                    }
                }
            }
        }
    }

    async fn take(&self) -> Result<TakeAnswer, CallError> {
        let take = Take { id: self.join.id.clone(), memory: free_memory() };
        self.call(TAKE, &take, LONGEST_WAIT + ANSWER).await
    }

    /// Waits for an agent that is away.
    async fn joined(&self) -> Result<Duration, HandError> {
        loop {
            match self.call::<Result<Joined, String>>(JOIN, &self.join, ANSWER).await {
                Ok(Ok(Joined { lease })) => {
                    tracing::info!(agent = self.agent.node(), "joined");
                    return Ok(Duration::from_millis(lease.max(100)));
                }
                Ok(Err(why)) => return Err(HandError::Refused { agent: self.agent.node().to_owned(), why }),
                Err(e) if matches!(e.kind, CallErrorKind::Unreachable(_) | CallErrorKind::Timeout(_)) => {
                    tracing::warn!("{e}; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn begin(&self, job: SealJob, work: &mut Work) {
        let id = job.id();
        tracing::info!(job = id, "begun");
        let (cancel, cancelled) = oneshot::channel::<()>();
        work.cancel.insert(id.clone(), cancel);
        let (dirs, prover) = (SectorDirs::of_repo(&self.storage, job.miner), self.prover.clone());
        work.tasks.spawn(async move {
            let result = tokio::select! {
                result = carry_out(&job, &dirs, prover.as_ref(), None) => Some(result),
                _ = cancelled => None,
            };
            Finished { job: id, result }
        });
    }

    /// What cannot be reported now is kept, and the task counts as running.
    async fn report(&self, work: &mut Work) {
        while let Some(finish) = work.unreported.last() {
            match self.call::<bool>(FINISH, finish, ANSWER).await {
                Ok(counted) => {
                    let how = if finish.result.is_ok() { "done" } else { "failed" };
                    tracing::info!(job = finish.job, counted, how, "reported");
                    work.cancel.remove(&finish.job);
                    work.unreported.pop();
                    work.heard = Instant::now();
                }
                Err(e) => {
                    tracing::warn!("{e}");
                    return;
                }
            }
        }
    }

    /// Answers whether the agent wants us to join anew.
    async fn beat(&self, work: &mut Work, lease: Duration) -> bool {
        let beat = Beat { id: self.join.id.clone(), running: work.cancel.keys().cloned().collect() };
        let sent = Instant::now();
        match self.call::<BeatAnswer>(BEAT, &beat, lease / 4).await {
            Ok(answer) => {
                work.heard = sent;
                for id in answer.lost {
                    tracing::warn!(job = id, "taken away by the agent");
                    work.give_up(&id);
                }
                answer.join_first
            }
            Err(e) => {
                tracing::warn!("{e}");
                // The next beat may come too late.
                if work.heard.elapsed() + lease / 4 >= lease {
                    for id in work.cancel.keys().cloned().collect::<Vec<_>>() {
                        tracing::warn!(job = id, "given up: the agent was not reached for a lease");
                        work.give_up(&id);
                    }
                }
                false
            }
        }
    }
}

impl Work {
    fn give_up(&mut self, id: &str) {
        self.cancel.remove(id);
        self.unreported.retain(|f| f.job != id);
    }
}

/// Bytes that the machine can still give; all there is to know where /proc is not there.
pub fn free_memory() -> u64 {
    let read = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = read.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}
