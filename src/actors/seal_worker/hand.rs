//! The inside of `bulkhead worker`: joins an agent, takes tasks that it has room for, runs them on the shared storage.
//!
//! A worker that cannot say that it lives ends its tasks before its lease does (`duty`). Nothing here waits for anything
//! else: a call that hangs holds up neither heartbeats nor the clock that ends tasks.

use super::desk::{BEAT, FINISH, JOIN, LONGEST_WAIT, TAKE};
use super::duty::Duty;
use super::messages::{Beat, BeatAnswer, Join, Joined, Take, TakeAnswer};
use crate::actors::seal_jobs::{JobFailed, SealJob, carry_out};
use crate::actors::sector_files::SectorDirs;
use crate::proofs::{Output, Prover};
use crate::rpc::client::{CallError, CallErrorKind, RpcClient};
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

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

/// Calls to an agent.
#[async_trait]
pub trait AgentCalls: Send + Sync {
    fn name(&self) -> &str;
    async fn call(&self, method: &str, param: Value, within: Duration) -> Result<Value, CallError>;
}

#[async_trait]
impl AgentCalls for RpcClient {
    fn name(&self) -> &str {
        self.node()
    }

    async fn call(&self, method: &str, param: Value, within: Duration) -> Result<Value, CallError> {
        RpcClient::call(self, method, vec![param], within).await
    }
}

/// A worker process.
pub struct Hand<A = RpcClient> {
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
    Took(Result<TakeAnswer, CallError>),
}

/// A heartbeat on its way.
struct Beaten {
    sent: Instant,
    named: Vec<String>,
    answer: Result<BeatAnswer, CallError>,
}

/// What runs.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Finished>,
    /// Dropping the sender ends the task.
    cancel: BTreeMap<String, oneshot::Sender<()>>,
}

impl<A: AgentCalls> Hand<A> {
    async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<R, CallError> {
        let bad = |e: serde_json::Error| CallError {
            node: self.agent.name().to_owned(),
            method: method.to_owned(),
            kind: CallErrorKind::BadAnswer(e.to_string()),
        };
        let value = serde_json::to_value(message).map_err(bad)?;
        serde_json::from_value(self.agent.call(method, value, within).await?).map_err(bad)
    }

    /// Works until it is refused; dropping the future ends what runs.
    pub async fn run(&self) -> Result<(), HandError> {
        let lease = self.joined().await?;
        let mut duty = Duty::new(lease, Instant::now());
        let mut running = Running::default();
        let mut asking: BoxFuture<'_, Result<Asked, HandError>> = Box::pin(self.take(Duration::ZERO));
        let mut beating: Option<BoxFuture<'_, Beaten>> = None;
        let mut reporting: Option<BoxFuture<'_, (String, Result<bool, CallError>)>> = None;
        loop {
            let (deadline, report_due) = (duty.deadline(), duty.report_due());
            tokio::select! {
                () = at(deadline) => {
                    for id in duty.overdue(Instant::now()) {
                        tracing::warn!(job = id, "given up: the agent did not hear of this worker for most of a lease");
                        running.cancel.remove(&id);
                    }
                }
                asked = &mut asking => asking = match asked? {
                    Asked::Joined(lease) => {
                        duty.joined(lease, Instant::now());
                        Box::pin(self.take(Duration::ZERO))
                    }
                    Asked::Took(Ok(TakeAnswer::JoinFirst)) => Box::pin(async { self.joined().await.map(Asked::Joined) }),
                    Asked::Took(Ok(TakeAnswer::Nothing)) => Box::pin(self.take(Duration::ZERO)),
                    Asked::Took(Ok(TakeAnswer::Job(job))) => {
                        duty.taken(*job, Instant::now());
                        Box::pin(self.take(Duration::ZERO))
                    }
                    Asked::Took(Err(e)) => {
                        tracing::warn!("{e}");
                        Box::pin(self.take(AGAIN.min(duty.lease() / 4)))
                    }
                },
                Some(done) = running.tasks.join_next() => {
                    if let Ok(Finished { job, result: Some(result) }) = done {
                        running.cancel.remove(&job);
                        duty.done(&job, result, Instant::now());
                    }
                }
                () = sleep_until(duty.beat_due().into()), if beating.is_none() => {
                    let sent = Instant::now();
                    beating = Some(Box::pin(self.beat(sent, duty.beat(sent), duty.lease() / 4)));
                }
                beaten = some(&mut beating) => {
                    beating = None;
                    self.heard(beaten, &mut duty, &mut running);
                }
                () = at(report_due), if reporting.is_none() => {
                    reporting = duty.report(&self.join.id).map(|finish| -> BoxFuture<'_, _> {
                        Box::pin(async move { (finish.job.clone(), self.call(FINISH, &finish, ANSWER).await) })
                    });
                }
                (job, told) = some(&mut reporting) => {
                    reporting = None;
                    match told {
                        Ok(counted) => {
                            tracing::info!(job, counted, "reported");
                            duty.reported(&job);
                        }
                        Err(e) => {
                            tracing::warn!("{e}");
                            duty.report_failed(Instant::now());
                        }
                    }
                }
            }
        }
    }

    async fn take(&self, pause: Duration) -> Result<Asked, HandError> {
        tokio::time::sleep(pause).await;
        let take = Take { id: self.join.id.clone(), memory: free_memory() };
        Ok(Asked::Took(self.call(TAKE, &take, LONGEST_WAIT + ANSWER).await))
    }

    /// Waits for an agent that is away.
    async fn joined(&self) -> Result<Duration, HandError> {
        loop {
            match self.call::<Result<Joined, String>>(JOIN, &self.join, ANSWER).await {
                Ok(Ok(Joined { lease })) => {
                    tracing::info!(agent = self.agent.name(), "joined");
                    return Ok(Duration::from_millis(lease.max(100)));
                }
                Ok(Err(why)) => return Err(HandError::Refused { agent: self.agent.name().to_owned(), why }),
                Err(e) if matches!(e.kind, CallErrorKind::Unreachable(_) | CallErrorKind::Timeout(_)) => {
                    tracing::warn!("{e}; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn beat(&self, sent: Instant, named: Vec<String>, within: Duration) -> Beaten {
        let beat = Beat { id: self.join.id.clone(), running: named.clone() };
        Beaten { sent, named, answer: self.call(BEAT, &beat, within).await }
    }

    fn heard(&self, beaten: Beaten, duty: &mut Duty, running: &mut Running) {
        match beaten.answer {
            // That it wants us to join anew, it also answers whoever asks it for a task; we always do.
            Ok(BeatAnswer { lost, .. }) => {
                let (begun, ended) = duty.beaten(beaten.sent, &beaten.named, &lost);
                for id in ended {
                    tracing::warn!(job = id, "taken away by the agent");
                    running.cancel.remove(&id);
                }
                begun.into_iter().for_each(|job| self.begin(job, running));
            }
            Err(e) => {
                tracing::warn!("{e}");
                duty.beat_failed(Instant::now());
            }
        }
    }

    fn begin(&self, job: SealJob, running: &mut Running) {
        let id = job.id();
        tracing::info!(job = id, "begun");
        let (cancel, cancelled) = oneshot::channel::<()>();
        running.cancel.insert(id.clone(), cancel);
        let (dirs, prover) = (SectorDirs::of_repo(&self.storage, job.miner), self.prover.clone());
        running.tasks.spawn(async move {
            let result = tokio::select! {
                result = carry_out(&job, &dirs, prover.as_ref(), None) => Some(result),
                _ = cancelled => None,
            };
            Finished { job: id, result }
        });
    }
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

/// Bytes that the machine can still give; all there is to know where /proc is not there.
pub fn free_memory() -> u64 {
    let read = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = read.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

#[cfg(test)]
#[path = "hand_tests.rs"]
mod tests;
