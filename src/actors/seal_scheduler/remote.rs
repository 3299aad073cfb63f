//! A sector's step at the agent that has its files: handed over until it is taken, asked for until it is done. What runs
//! there goes on while we are away; coming back, the same step has the same name.

use super::agent_selection::{self, AgentLoad};
use super::ports::Agents;
use super::room::Promised;
use crate::actors::seal_agent::SealAgent;
use crate::actors::seal_agent::messages::{Acknowledge, GetAgentReport, JobState, JobStatus, Run, RunAnswer};
use crate::actors::seal_jobs::{JobFailed, SealJob};
use crate::chain::proof_types;
use crate::proofs::{ActorId, Output};
use crate::supervisor::Ref;
use crate::util::Backoff;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// Over a WAN, and while the agent writes its journal.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two questions about a running step; the first come sooner.
const POLLS: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(3));
/// Questions in a row that go unanswered before the sector says so.
const UNANSWERED_LIMIT: u32 = 3;

pub enum Remote {
    Done(Output),
    Failed(JobFailed),
    /// The agent cannot be reached; the step may well run.
    NoAnswer(String),
    Refused(String),
    /// It still waits for its turn there and would begin too late.
    Late,
}

/// Runs `job` at `name` to its end. `begin_by`: after that it is of no use to begin it.
pub async fn run(agents: &dyn Agents, name: &str, job: &SealJob, begin_by: Option<Instant>) -> Remote {
    let worker = match find(agents, name) {
        Ok(worker) => worker,
        Err(why) => return Remote::NoAnswer(why),
    };
    let silent = |e: &dyn std::fmt::Display| Remote::NoAnswer(format!("agent {name}: {e}"));
    match worker.ask(Run { job: job.clone() }, ASK_TIMEOUT).await {
        Ok(RunAnswer::Accepted) => {}
        Ok(RunAnswer::Refused(why)) => return Remote::Refused(format!("agent {name}: {why}")),
        Err(e) => return silent(&e),
    }
    let (mut wait, mut unanswered) = (POLLS.first, 0);
    loop {
        tokio::time::sleep(wait).await;
        wait = POLLS.next(wait);
        match worker.ask(JobStatus { job: job.id() }, ASK_TIMEOUT).await {
            Ok(JobState::Queued) if begin_by.is_some_and(|by| Instant::now() >= by) => return Remote::Late,
            Ok(JobState::Queued | JobState::Running { .. }) => unanswered = 0,
            Ok(JobState::Done(output)) => return Remote::Done(output),
            Ok(JobState::Failed(failed)) => {
                // A later try has a name of its own, or begins this one again.
                let _ = worker.tell(Acknowledge { job: job.id() });
                return Remote::Failed(failed);
            }
            Ok(JobState::Unknown) => return silent(&"it does not know the step any more; handing it over again"),
            Err(e) => {
                unanswered += 1;
                if unanswered >= UNANSWERED_LIMIT {
                    return silent(&e);
                }
            }
        }
    }
}

fn find(agents: &dyn Agents, name: &str) -> Result<Ref<SealAgent>, String> {
    let seen = agents.seen()?;
    let found = seen.into_iter().find(|agent| agent.name == name);
    found.map(|agent| agent.worker).ok_or_else(|| {
        format!("can not found any server: agent {name}, which has the sector's files, is not registered")
    })
}

/// The agent that gets a new sector. `promised`: what sectors on their way there will still write.
pub async fn choose(
    agents: &dyn Agents,
    miner: ActorId,
    proof_type: i64,
    promised: &Promised,
) -> Result<String, String> {
    let size =
        proof_types::sector_size(proof_type).ok_or_else(|| format!("seal proof type {proof_type} is unknown"))?;
    let offers = agents.seen()?.into_iter().map(|agent| async move {
        let mut report = agent.worker.ask(GetAgentReport, ASK_TIMEOUT).await.map_err(|e| e.to_string());
        if let (Ok(report), Some(bytes)) = (&mut report, promised.agents.get(&agent.name)) {
            report.free_disk = report.free_disk.saturating_sub(*bytes);
        }
        AgentLoad { name: agent.name, drained: agent.drained, report }
    });
    agent_selection::choose(&join_all(offers).await, miner, size)
}
