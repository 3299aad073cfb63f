//! The inside of `bulkhead worker`: joins an agent, takes tasks that it has room for, runs them on the shared storage.
//!
//! A worker whose heartbeats fail stops its tasks before its lease expires (`assignments`). No call blocks another: one that
//! hangs delays neither heartbeats nor the deadline.

use super::assignments::Assignments;
use super::messages::{Heartbeat, HeartbeatAnswer, Join, Joined, TakeAnswer, TakeTask};
use super::worker_api::{BEAT, FINISH, JOIN, LONGEST_WAIT, TAKE};
use crate::actors::seal_jobs::{JobFailed, SealJob, carry_out};
use crate::actors::sector_files::SectorDirs;
use crate::proofs::{Output, Prover};
use crate::rpc::client::{CallErrorKind, RpcCallError, RpcClient};
use crate::util::host;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two tries to reach an agent that is away.
const RETRY_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Nothing that waiting would mend.
    #[error("agent {agent} refuses this worker: {why}")]
    Refused { agent: String, why: String },
    #[error(transparent)]
    Call(#[from] RpcCallError),
}

/// Calls to an agent.
#[async_trait]
pub trait AgentCalls: Send + Sync {
    fn name(&self) -> &str;
    async fn call(&self, method: &str, param: Value, within: Duration) -> Result<Value, RpcCallError>;
}

#[async_trait]
impl AgentCalls for RpcClient {
    fn name(&self) -> &str {
        self.node()
    }

    async fn call(&self, method: &str, param: Value, within: Duration) -> Result<Value, RpcCallError> {
        RpcClient::call(self, method, vec![param], within).await
    }
}

/// A worker process.
pub struct Worker<A = RpcClient> {
    pub agent: A,
    pub join: Join,
    /// The shared storage.
    pub storage: PathBuf,
    pub prover: Arc<dyn Prover>,
}

struct Finished {
    job: String,
    /// `None`: it was ended.
    result: Option<Result<Output, JobFailed>>,
}

enum Asked {
    Joined(Duration),
    Took(Result<TakeAnswer, RpcCallError>),
}

/// A heartbeat on its way.
struct HeartbeatResult {
    sent: Instant,
    named: Vec<String>,
    answer: Result<HeartbeatAnswer, RpcCallError>,
}

/// The running tasks.
#[derive(Default)]
struct RunningTasks {
    tasks: JoinSet<Finished>,
    /// Dropping the sender ends the task.
    cancel: BTreeMap<String, oneshot::Sender<()>>,
}

impl<A: AgentCalls> Worker<A> {
    async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<R, RpcCallError> {
        let bad = |e: serde_json::Error| RpcCallError {
            node: self.agent.name().to_owned(),
            method: method.to_owned(),
            kind: CallErrorKind::BadAnswer(e.to_string()),
        };
        let value = serde_json::to_value(message).map_err(bad)?;
        serde_json::from_value(self.agent.call(method, value, within).await?).map_err(bad)
    }

    /// Works until it is refused; dropping the future ends what runs.
    pub async fn run(&self) -> Result<(), WorkerError> {
        let lease = self.joined().await?;
        let mut assignments = Assignments::new(lease, Instant::now());
        let mut running = RunningTasks::default();
        let mut asking: BoxFuture<'_, Result<Asked, WorkerError>> =
            Box::pin(self.take(Duration::ZERO, assignments.promised()));
        let mut beating: Option<BoxFuture<'_, HeartbeatResult>> = None;
        let mut reporting: Option<BoxFuture<'_, (String, Result<bool, RpcCallError>)>> = None;
        loop {
            let (deadline, report_due) = (assignments.deadline(), assignments.report_due());
            tokio::select! {
                () = at(deadline) => {
                    for id in assignments.overdue(Instant::now()) {
                        tracing::warn!(job = id, "given up: the agent did not hear of this worker for most of a lease");
                        running.cancel.remove(&id);
                    }
                }
                asked = &mut asking => asking = match asked? {
                    Asked::Joined(lease) => {
                        assignments.joined(lease, Instant::now());
                        Box::pin(self.take(Duration::ZERO, assignments.promised()))
                    }
                    Asked::Took(Ok(TakeAnswer::JoinFirst)) => Box::pin(async { self.joined().await.map(Asked::Joined) }),
                    Asked::Took(Ok(TakeAnswer::Nothing)) => Box::pin(self.take(Duration::ZERO, assignments.promised())),
                    Asked::Took(Ok(TakeAnswer::Job(job))) => {
                        assignments.taken(*job, Instant::now());
                        Box::pin(self.take(Duration::ZERO, assignments.promised()))
                    }
                    Asked::Took(Err(e)) => {
                        tracing::warn!("{e}");
                        Box::pin(self.take(RETRY_DELAY.min(assignments.lease() / 4), assignments.promised()))
                    }
                },
                Some(done) = running.tasks.join_next() => {
                    if let Ok(Finished { job, result: Some(result) }) = done {
                        running.cancel.remove(&job);
                        assignments.done(&job, result, Instant::now());
                    }
                }
                () = sleep_until(assignments.heartbeat_due().into()), if beating.is_none() => {
                    let sent = Instant::now();
                    beating = Some(Box::pin(self.beat(sent, assignments.beat(sent), assignments.lease() / 4)));
                }
                heartbeat_answered = some(&mut beating) => {
                    beating = None;
                    self.heard(heartbeat_answered, &mut assignments, &mut running);
                }
                () = at(report_due), if reporting.is_none() => {
                    reporting = assignments.report(&self.join.id).map(|finish| -> BoxFuture<'_, _> {
                        Box::pin(async move { (finish.job.clone(), self.call(FINISH, &finish, ANSWER_TIMEOUT).await) })
                    });
                }
                (job, told) = some(&mut reporting) => {
                    reporting = None;
                    match told {
                        Ok(counted) => {
                            tracing::info!(job, counted, "reported");
                            assignments.reported(&job);
                        }
                        Err(e) => {
                            tracing::warn!("{e}");
                            assignments.report_failed(Instant::now());
                        }
                    }
                }
            }
        }
    }

    /// `promised`: bytes of memory that the tasks here may take in all.
    async fn take(&self, pause: Duration, promised: u64) -> Result<Asked, WorkerError> {
        tokio::time::sleep(pause).await;
        let take = TakeTask { id: self.join.id.clone(), memory: host::memory().left(promised) };
        Ok(Asked::Took(self.call(TAKE, &take, LONGEST_WAIT + ANSWER_TIMEOUT).await))
    }

    /// Waits for an agent that is away.
    async fn joined(&self) -> Result<Duration, WorkerError> {
        loop {
            match self.call::<Result<Joined, String>>(JOIN, &self.join, ANSWER_TIMEOUT).await {
                Ok(Ok(Joined { lease })) => {
                    tracing::info!(agent = self.agent.name(), "joined");
                    return Ok(Duration::from_millis(lease.max(100)));
                }
                Ok(Err(why)) => return Err(WorkerError::Refused { agent: self.agent.name().to_owned(), why }),
                Err(e) if matches!(e.kind, CallErrorKind::Unreachable(_) | CallErrorKind::Timeout(_)) => {
                    tracing::warn!("{e}; trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn beat(&self, sent: Instant, named: Vec<String>, within: Duration) -> HeartbeatResult {
        let beat = Heartbeat { id: self.join.id.clone(), running: named.clone() };
        HeartbeatResult { sent, named, answer: self.call(BEAT, &beat, within).await }
    }

    fn heard(&self, heartbeat_answered: HeartbeatResult, assignments: &mut Assignments, running: &mut RunningTasks) {
        match heartbeat_answered.answer {
            // That it wants us to join anew, it also answers whoever asks it for a task; we always do.
            Ok(HeartbeatAnswer { lost, .. }) => {
                let (begun, ended) =
                    assignments.heartbeat_answered(heartbeat_answered.sent, &heartbeat_answered.named, &lost);
                for id in ended {
                    tracing::warn!(job = id, "taken away by the agent");
                    running.cancel.remove(&id);
                }
                begun.into_iter().for_each(|job| self.begin(job, running));
            }
            Err(e) => {
                tracing::warn!("{e}");
                assignments.heartbeat_failed(Instant::now());
            }
        }
    }

    fn begin(&self, job: SealJob, running: &mut RunningTasks) {
        let id = job.id();
        tracing::info!(job = id, "begun");
        let (cancel, cancelled) = oneshot::channel::<()>();
        running.cancel.insert(id.clone(), cancel);
        let (dirs, prover) = (SectorDirs::of_repo(&self.storage, job.miner), self.prover.clone());
        running.tasks.spawn(async move {
            // One that panics is reported as well: else the agent would wait for it as long as this worker lives.
            let work = AssertUnwindSafe(carry_out(&job, &dirs, prover.as_ref(), None)).catch_unwind();
            let result = tokio::select! {
                result = work => Some(result.unwrap_or_else(|panic| Err(crashed(panic.as_ref())))),
                _ = cancelled => None,
            };
            Finished { job: id, result }
        });
    }
}

/// A panic says nothing of the sector: a thread that the host did not give, a fault of this program.
fn crashed(panic: &(dyn std::any::Any + Send)) -> JobFailed {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".to_string());
    JobFailed { error: format!("the worker panicked: {text}"), transient: true }
}

/// Never where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn some<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
