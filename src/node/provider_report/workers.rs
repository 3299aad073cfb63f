//! The rows of sealing workers: nodes, agents, and the worker processes of agents.

use crate::actors::seal_agent::messages::{AgentReport, GetAgentReport as AgentAsked};
use crate::actors::seal_scheduler::messages::{SealingSummary, Slots, Summary as SealingAsked};
use crate::node::backend::{self, NodeBackend};
use crate::node::shards::{Gathered, MissingShard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// For one agent, which may be far away.
const AGENT_WITHIN: Duration = Duration::from_secs(3);

/// `s-t01000-7-pc1-2` -> `pc1`.
pub(super) fn task_of(job: &str) -> &str {
    job.rsplit('-').nth(1).unwrap_or(job)
}

pub(super) async fn agents(node: &NodeBackend) -> Vec<(String, Result<AgentReport, String>)> {
    // A provider without a directory has none, which is no error.
    let Ok(seen) = node.agents.seen() else { return Vec::new() };
    let asked = seen.into_iter().map(|agent| async move {
        let report = agent.worker.ask(AgentAsked, AGENT_WITHIN).await.map_err(|e| e.to_string());
        (agent.name, report)
    });
    futures::future::join_all(asked).await
}

/// A sealing worker as `info` shows it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Worker {
    /// The node, or the agent.
    pub at: String,
    /// `node`, `agent` or `worker` (a process of that agent).
    pub kind: String,
    pub name: String,
    /// Kind of task -> how many it runs and may run; for a worker process only what runs.
    pub slots: BTreeMap<String, Slots>,
    /// Tasks that wait there.
    pub queued: u64,
    /// Bytes; an agent's.
    pub free_disk: Option<u64>,
    /// Milliseconds since a worker process was last heard.
    pub silent_for: Option<u64>,
    /// Why nothing more is known.
    pub error: Option<String>,
}

/// A row for each node that seals, for each agent, and for each worker process of an agent.
pub fn workers(nodes: &Gathered<SealingSummary>, agents: &[(String, Result<AgentReport, String>)]) -> Vec<Worker> {
    let mut rows = Vec::new();
    for (node, summary) in &nodes.found {
        let slots = summary.slots.clone();
        rows.push(Worker { at: node.clone(), kind: "node".into(), name: node.clone(), slots, ..Worker::default() });
    }
    for MissingShard { node, why } in &nodes.missing {
        let error = Some(why.clone());
        rows.push(Worker { at: node.clone(), kind: "node".into(), name: node.clone(), error, ..Worker::default() });
    }
    for (agent, report) in agents {
        let row = Worker { at: agent.clone(), kind: "agent".into(), name: agent.clone(), ..Worker::default() };
        match report {
            Ok(report) => {
                rows.extend(workers_of(agent, report));
            }
            Err(why) => rows.push(Worker { error: Some(why.clone()), ..row }),
        }
    }
    rows
}

pub async fn all_workers(node: &NodeBackend) -> Vec<Worker> {
    let nodes = node.shards.gather(backend::DEADLINE, || SealingAsked);
    let (nodes, agents) = tokio::join!(nodes, agents(node));
    workers(&nodes, &agents)
}

/// An agent, and its worker processes.
pub fn workers_of(agent: &str, report: &AgentReport) -> Vec<Worker> {
    let slots = |running: &[String], pc1: Option<u64>| {
        let mut slots = BTreeMap::<String, Slots>::new();
        slots.extend(pc1.map(|all| ("pc1".to_string(), Slots { used: 0, all })));
        running.iter().for_each(|job| slots.entry(task_of(job).to_string()).or_default().used += 1);
        slots
    };
    let running: Vec<String> = report.workers.iter().flat_map(|worker| worker.running.clone()).collect();
    let own = Worker {
        at: agent.to_string(),
        kind: "agent".into(),
        name: agent.to_string(),
        slots: slots(&running, Some(report.slots)),
        queued: report.queued,
        free_disk: Some(report.free_disk),
        ..Worker::default()
    };
    let process = report.workers.iter().map(|worker| Worker {
        at: agent.to_string(),
        kind: "worker".into(),
        name: worker.name.clone(),
        slots: slots(&worker.running, None),
        silent_for: Some(worker.silent_for),
        ..Worker::default()
    });
    std::iter::once(own).chain(process).collect()
}
