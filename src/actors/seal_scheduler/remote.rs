//! A sector's step at the agent that has its files: handed over until it is taken, asked for until it is done. What runs
//! there goes on while we are away; coming back, the same step has the same name.

use super::agent_selection::{self, AgentLoad};
use super::ports::Agents;
use super::room::{Began, Promised};
use crate::actors::seal_agent::SealAgent;
use crate::actors::seal_agent::messages::{Acknowledge, GetAgentReport, JobState, JobStatus, Run, RunAnswer, TakeBack};
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

/// Runs `job` at `name` to its end. `begin_by`: after that it is of no use to begin it. `began` is set to when it was last
/// seen to wait for its turn there.
pub async fn run(agents: &dyn Agents, name: &str, job: &SealJob, begin_by: Option<Instant>, began: &Began) -> Remote {
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
    began.set(Instant::now());
    loop {
        tokio::time::sleep(wait).await;
        wait = POLLS.next(wait);
        match worker.ask(JobStatus { job: job.id() }, ASK_TIMEOUT).await {
            Ok(JobState::Queued) if begin_by.is_some_and(|by| Instant::now() >= by) => {
                // Left there it would take a worker for hours, for a ticket that is of no use.
                match worker.ask(TakeBack { job: job.id() }, ASK_TIMEOUT).await {
                    Ok(false) => unanswered = 0, // it has begun meanwhile
                    // An agent of an earlier version keeps it until the next job of the sector.
                    Ok(true) | Err(_) => return Remote::Late,
                }
            }
            Ok(JobState::Queued) => {
                unanswered = 0;
                began.set(Instant::now());
            }
            Ok(JobState::Running { .. }) => unanswered = 0,
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

#[cfg(test)]
mod tests {
    use super::super::ports::Agent;
    use super::*;
    use crate::actors::seal_agent::{AgentDeps, AgentSettings};
    use crate::actors::seal_jobs::SealStep;
    use crate::proofs::{Job, Prover, ProverError};
    use crate::store::Store;
    use crate::supervisor::{ChildSpec, SupervisorSpec, Thread, Tree};
    use std::sync::Arc;

    struct Idle;

    #[async_trait::async_trait]
    impl Prover for Idle {
        async fn run(&self, _: Job) -> Result<Output, ProverError> {
            std::future::pending().await
        }
    }

    fn job(number: u64) -> SealJob {
        let step = SealStep::Pc1 { ticket: [1; 32] };
        SealJob { miner: 1000, number, proof_type: 5, attempt: 1, step, max_runtime: Duration::from_secs(600) }
    }

    #[tokio::test]
    async fn a_job_that_would_begin_too_late_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let worker: Ref<SealAgent> = Ref::new("/a/seal-worker", 64);
        let deps = AgentDeps {
            store: Store::open(&dir.path().join("agent.redb")).unwrap(),
            prover: Arc::new(Idle),
            repo: dir.path().to_path_buf(),
            settings: AgentSettings::default(),
            changed: Default::default(),
        };
        let child = ChildSpec::actor("seal_worker", &worker, move |cx| SealAgent::start(cx, deps.clone()));
        let tree = Tree::start(SupervisorSpec::new("root").child(child.on(Thread::Dedicated))).unwrap();
        let agents = vec![Agent { name: "a".into(), drained: false, worker: worker.clone() }];
        // The one slot is taken for ever.
        worker.ask(Run { job: job(1) }, ASK_TIMEOUT).await.unwrap();
        let began = Began::default();
        let ended = run(&agents, "a", &job(2), Some(Instant::now()), &began).await;
        assert!(matches!(ended, Remote::Late));
        let state = async |number| worker.ask(JobStatus { job: job(number).id() }, ASK_TIMEOUT).await.unwrap();
        assert_eq!(state(2).await, JobState::Unknown, "no worker begins it when the slot is free");
        // What has begun goes on.
        assert!(!worker.ask(TakeBack { job: job(1).id() }, ASK_TIMEOUT).await.unwrap());
        assert!(matches!(state(1).await, JobState::Running { .. }));
        tree.shutdown().await;
    }
}
