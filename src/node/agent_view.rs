//! An agent's answers to an operator: `info`, `tree`, `sealing workers` and `sealing jobs`, besides the methods of its
//! workers.

use super::provider_report::workers_of;
use super::sealing_report::{Jobs, at_agent};
use crate::actors::seal_agent::SealAgent;
use crate::actors::seal_agent::messages::{GetAgentReport, Tasks};
use crate::actors::seal_agent::worker_api::WorkerApi;
use crate::rpc::auth::Perm;
use crate::rpc::directory::Directory;
use crate::rpc::server::{ExtraMethods, RpcError};
use crate::supervisor::{ActorInfo, Handler, Message, WeakTree};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Everything is in the actor's memory.
const WITHIN: Duration = Duration::from_secs(5);

pub struct AgentMethods {
    pub worker_api: WorkerApi,
    pub name: String,
    pub directory: Arc<dyn Directory>,
    /// Known once the tree has started.
    pub tree: Arc<OnceLock<WeakTree>>,
}

const INFO: &str = "Bulkhead.Info";
const TREE: &str = "Bulkhead.Tree";
const WORKERS: &str = "Bulkhead.SealingWorkers";
const JOBS: &str = "Bulkhead.SealingJobs";

impl AgentMethods {
    async fn ask<M: Message>(&self, message: M) -> Result<M::Reply, RpcError>
    where
        SealAgent: Handler<M>,
    {
        let answer = self.worker_api.worker.ask(message, WITHIN).await;
        answer.map_err(|e| RpcError::verdict(format!("the agent's seal-worker: {e}")))
    }

    fn actors(&self) -> Vec<ActorInfo> {
        self.tree.get().and_then(WeakTree::upgrade).map(|tree| tree.snapshot()).unwrap_or_default()
    }

    async fn info(&self) -> Result<Value, RpcError> {
        let (report, tasks) = (self.ask(GetAgentReport).await?, self.ask(Tasks).await?);
        let failed = tasks.iter().filter(|task| task.state == "failed").count();
        let view = self.directory.view().borrow().clone();
        let mut troubles: Vec<String> =
            self.actors().iter().filter_map(|row| Some(format!("{}: {}", row.path, row.trouble.as_ref()?))).collect();
        if !view.in_contact {
            troubles.push("etcd is out of reach: schedulers that do not know this agent yet do not find it".into());
        }
        if report.slots == 0 {
            troubles.push("no worker has joined, and it does not work itself: start `bulkhead worker`".into());
        }
        Ok(json!({
            "agent": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "miner": report.miner.map(|id| format!("t0{id}")),
            "sector_size": report.sector_size,
            "troubles": troubles,
            "sectors": report.sectors,
            "tasks": { "queued": report.queued, "failed": failed, "all": tasks.len() },
            "free_disk": report.free_disk,
            "works_itself": report.works_itself,
            "workers": workers_of(&self.name, &report),
        }))
    }

    async fn answer(&self, method: &str) -> Result<Value, RpcError> {
        let json = |value: serde_json::Result<Value>| value.map_err(|e| RpcError::verdict(e.to_string()));
        match method {
            INFO => self.info().await,
            TREE => json(serde_json::to_value(self.actors())),
            WORKERS => json(serde_json::to_value(workers_of(&self.name, &self.ask(GetAgentReport).await?))),
            _ => {
                let tasks = self.ask(Tasks).await?;
                let jobs = tasks.into_iter().map(|task| at_agent(&self.name, task)).collect();
                json(serde_json::to_value(Jobs { jobs, missing: Vec::new() }))
            }
        }
    }
}

#[async_trait]
impl ExtraMethods for AgentMethods {
    fn permission(&self, method: &str) -> Option<Perm> {
        match method {
            INFO | TREE | WORKERS | JOBS => Some(Perm::Read),
            other => self.worker_api.permission(other),
        }
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        match method {
            INFO | TREE | WORKERS | JOBS => Some(self.answer(method).await),
            other => self.worker_api.call(other, params).await,
        }
    }
}
