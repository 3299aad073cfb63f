//! `sealing jobs`: what is being computed for which sector, and where. Pure but for [`of_provider`].

use super::backend::{DEADLINE, NodeBackend};
use crate::actors::seal_agent::messages::{AgentTask, Tasks as AgentTasks};
use crate::actors::seal_scheduler::messages::{SealingTask, Tasks};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// For one agent, which may be far away.
const AGENT_WITHIN: Duration = Duration::from_secs(3);

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct JobRow {
    pub sector: u64,
    /// `ap pc1 pc2 c1 c2 verify fin rm`
    pub task: String,
    /// `running`, `queued`, `done` (the scheduler has yet to fetch the result), `failed`.
    pub state: String,
    /// The node or agent that has the sector's files.
    pub at: String,
    /// An agent's worker process that has it; `agent`: the agent itself.
    pub worker: Option<String>,
    /// Unix milliseconds: when it began, at an agent when it was handed over.
    pub since: u64,
    /// How long the last task of that kind took at that node.
    pub last_took_ms: Option<u64>,
    pub error: Option<String>,
}

/// The answer of `Bulkhead.SealingJobs`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Jobs {
    pub jobs: Vec<JobRow>,
    /// Nodes and agents that gave no answer, with the reason.
    pub missing: Vec<(String, String)>,
}

pub fn at_agent(agent: &str, task: AgentTask) -> JobRow {
    JobRow {
        sector: task.sector,
        task: task.task,
        state: task.state,
        at: agent.to_string(),
        worker: task.worker,
        since: task.accepted,
        last_took_ms: None,
        error: task.error,
    }
}

/// A scheduler knows that an agent has a task, the agent how it does: where both tell of one, it is the agent's row.
pub fn merge(nodes: Vec<(String, Vec<SealingTask>)>, agents: Vec<(String, Vec<AgentTask>)>) -> Vec<JobRow> {
    let mut rows: Vec<JobRow> = agents
        .into_iter()
        .flat_map(|(agent, tasks)| tasks.into_iter().map(move |task| at_agent(&agent, task)))
        .collect();
    for (node, tasks) in nodes {
        for task in tasks {
            let at = task.agent.unwrap_or_else(|| node.clone());
            let same = |row: &&mut JobRow| row.at == at && row.sector == task.sector && row.task == task.task;
            match rows.iter_mut().find(same) {
                Some(known) => known.last_took_ms = task.last_took_ms,
                None => rows.push(JobRow {
                    sector: task.sector,
                    task: task.task,
                    state: "running".to_string(),
                    at,
                    worker: None,
                    since: task.since,
                    last_took_ms: task.last_took_ms,
                    error: None,
                }),
            }
        }
    }
    rows.sort_by(|a, b| (&a.at, a.sector).cmp(&(&b.at, b.sector)));
    rows
}

pub async fn of_provider(node: &NodeBackend) -> Jobs {
    let agents = node.agents.seen().unwrap_or_default().into_iter().map(|agent| async move {
        let tasks = agent.worker.ask(AgentTasks, AGENT_WITHIN).await.map_err(|e| e.to_string());
        (agent.name, tasks)
    });
    let (nodes, agents) = tokio::join!(node.shards.gather(DEADLINE, || Tasks), futures::future::join_all(agents));
    let mut missing: Vec<(String, String)> = nodes.missing.into_iter().map(|m| (m.node, m.why)).collect();
    let mut told = Vec::new();
    for (agent, tasks) in agents {
        match tasks {
            Ok(tasks) => told.push((agent, tasks)),
            Err(why) => missing.push((agent, why)),
        }
    }
    Jobs { jobs: merge(nodes.found, told), missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_at_an_agent_is_one_row_and_says_who_has_it() {
        let task = |sector, task: &str, agent: Option<&str>| SealingTask {
            sector,
            task: task.into(),
            since: 5,
            agent: agent.map(Into::into),
            last_took_ms: Some(9),
        };
        let nodes = vec![(
            "host-a".to_string(),
            vec![task(2, "c2", None), task(1, "pc1", Some("agent-a")), task(3, "pc1", Some("agent-b"))],
        )];
        let there = AgentTask {
            id: "s-t01000-1-pc1-1".into(),
            sector: 1,
            task: "pc1".into(),
            state: "queued".into(),
            accepted: 7,
            ..AgentTask::default()
        };
        let rows = merge(nodes, vec![("agent-a".to_string(), vec![there])]);
        let short: Vec<_> =
            rows.iter().map(|r| (r.at.as_str(), r.sector, r.state.as_str(), r.since, r.last_took_ms)).collect();
        assert_eq!(
            short,
            [
                ("agent-a", 1, "queued", 7, Some(9)),
                ("agent-b", 3, "running", 5, Some(9)),
                ("host-a", 2, "running", 5, Some(9))
            ],
            "agent-b did not answer: what its scheduler knows stands"
        );
    }
}
