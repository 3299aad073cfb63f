//! The agent's HTTP side for its workers: JSON-RPC methods that ask the actor; waiting for a task happens here.

use super::messages::{GetAgentReport, Heartbeat, Join, ReportResult, TakeAnswer, TakeTask};
use super::{ASK_TIMEOUT, SealAgent};
use crate::rpc::auth::Perm;
use crate::rpc::server::{ExtraMethods, RpcError};
use crate::supervisor::{Handler, Message, Ref};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A worker that waits for a task is answered after this long at the latest.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

pub struct WorkerApi {
    pub worker: Ref<SealAgent>,
    /// See [`super::AgentDeps::changed`].
    pub changed: watch::Receiver<u64>,
    /// `Filecoin.Version`'s answer.
    pub version: String,
}

pub const JOIN: &str = "Filecoin.AgentJoin";
pub const TAKE: &str = "Filecoin.AgentTake";
pub const BEAT: &str = "Filecoin.AgentBeat";
pub const FINISH: &str = "Filecoin.AgentFinish";
pub const INFO: &str = "Filecoin.AgentInfo";
const VERSION: &str = "Filecoin.Version";

#[async_trait]
impl ExtraMethods for WorkerApi {
    fn permission(&self, method: &str) -> Option<Perm> {
        match method {
            JOIN | TAKE | BEAT | FINISH => Some(Perm::Worker),
            INFO | VERSION => Some(Perm::Read),
            _ => None,
        }
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        Some(match method {
            JOIN => self.pass::<Join>(params).await,
            TAKE => self.take(params).await,
            BEAT => self.pass::<Heartbeat>(params).await,
            FINISH => self.pass::<ReportResult>(params).await,
            INFO => self.ask(GetAgentReport).await.and_then(json),
            VERSION => Ok(serde_json::json!({ "Version": self.version })),
            _ => return None,
        })
    }
}

impl WorkerApi {
    async fn ask<M: Message>(&self, message: M) -> Result<M::Reply, RpcError>
    where
        SealAgent: Handler<M>,
    {
        let answer = self.worker.ask_when_up(message, ASK_TIMEOUT).await;
        answer.map_err(|e| RpcError::verdict(format!("the agent's seal-worker: {e}")))
    }

    async fn pass<M: Message<Reply: Serialize> + DeserializeOwned>(&self, params: Vec<Value>) -> Result<Value, RpcError>
    where
        SealAgent: Handler<M>,
    {
        self.ask(one::<M>(params)?).await.and_then(json)
    }

    async fn take(&self, params: Vec<Value>) -> Result<Value, RpcError> {
        let take: TakeTask = one(params)?;
        let until = Instant::now() + LONGEST_WAIT;
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            let answer = self.ask(take.clone()).await?;
            let left = until.saturating_duration_since(Instant::now());
            if answer != TakeAnswer::Nothing || left.is_zero() {
                return json(answer);
            }
            // Either ends in one more look; the last one answers.
            let _ = tokio::time::timeout(left, changed.changed()).await;
        }
    }
}

fn one<T: DeserializeOwned>(params: Vec<Value>) -> Result<T, RpcError> {
    let [value] = <[Value; 1]>::try_from(params)
        .map_err(|p| RpcError::invalid_params(format!("{} parameters, not 1", p.len())))?;
    serde_json::from_value(value).map_err(|e| RpcError::invalid_params(e.to_string()))
}

fn json(answer: impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(answer).map_err(|e| RpcError::verdict(e.to_string()))
}
