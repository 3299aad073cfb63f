//! Decides which of its tasks a worker process may run, and when it must stop: pure.
//!
//! A task starts once a heartbeat that named it was answered, and ends three quarters of a lease after the last
//! answered heartbeat was *sent*: the agent counts from its arrival, which is later. Nothing else extends it, because
//! nothing else extends the agent's lease.

use super::messages::ReportResult;
use super::resources;
use crate::actors::seal_jobs::{JobFailed, SealJob};
use crate::chain::proof_types;
use crate::proofs::Output;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Assignments {
    lease: Duration,
    /// When the last heartbeat that was answered had been sent.
    heard: Instant,
    tasks: BTreeMap<String, Task>,
    /// Bytes of memory that each task may take.
    memory: BTreeMap<String, u64>,
    heartbeat_due: Instant,
    report_due: Instant,
}

enum Task {
    /// Taken; whether it is ours still, the next heartbeat says.
    Waits(Box<SealJob>),
    Runs,
    /// Touches no file any more.
    Done(Result<Output, JobFailed>),
}

impl Assignments {
    pub fn new(lease: Duration, now: Instant) -> Assignments {
        Assignments {
            lease,
            heard: now,
            tasks: BTreeMap::new(),
            memory: BTreeMap::new(),
            heartbeat_due: now,
            report_due: now,
        }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    pub fn joined(&mut self, lease: Duration, now: Instant) {
        self.lease = lease;
        self.heartbeat_due = now;
    }

    pub fn taken(&mut self, job: SealJob, now: Instant) {
        let size = proof_types::sector_size(job.proof_type).unwrap_or(0);
        self.memory.insert(job.id(), resources::memory(job.step.kind(), size));
        // The same one anew: the agent takes what runs here for lost, and the heartbeat says so first.
        self.tasks.entry(job.id()).or_insert(Task::Waits(Box::new(job)));
        self.heartbeat_due = now;
    }

    /// Bytes of memory that what waits or runs here may take in all.
    pub fn promised(&mut self) -> u64 {
        let tasks = &self.tasks;
        self.memory.retain(|id, _| matches!(tasks.get(id), Some(Task::Waits(_) | Task::Runs)));
        self.memory.values().sum()
    }

    pub fn heartbeat_due(&self) -> Instant {
        self.heartbeat_due
    }

    /// The tasks that a heartbeat sent now names.
    pub fn beat(&mut self, now: Instant) -> Vec<String> {
        self.heartbeat_due = now + self.lease / 4;
        self.tasks.keys().cloned().collect()
    }

    /// A heartbeat was answered; `lost` are not ours now. Returns (to start, to stop).
    pub fn heartbeat_answered(
        &mut self,
        sent: Instant,
        named: &[String],
        lost: &[String],
    ) -> (Vec<SealJob>, Vec<String>) {
        self.heard = self.heard.max(sent);
        let ended = lost.iter().filter(|id| self.tasks.remove(*id).is_some()).cloned().collect();
        let mut begun = Vec::new();
        for id in named {
            if let Some(task @ Task::Waits(_)) = self.tasks.get_mut(id)
                && let Task::Waits(job) = std::mem::replace(task, Task::Runs)
            {
                begun.push(*job);
            }
        }
        // The agent is there.
        self.report_due = self.report_due.min(self.heard);
        (begun, ended)
    }

    pub fn heartbeat_failed(&mut self, now: Instant) {
        self.heartbeat_due = now + self.lease / 8;
    }

    /// When what runs must end.
    pub fn deadline(&self) -> Option<Instant> {
        let runs = self.tasks.values().any(|task| matches!(task, Task::Runs));
        runs.then(|| self.heard + self.lease * 3 / 4)
    }

    /// At the deadline: what runs, to be ended. Results are kept: the agent decides whether they count.
    pub fn overdue(&mut self, now: Instant) -> Vec<String> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let runs = self.tasks.extract_if(.., |_, task| matches!(task, Task::Runs));
        runs.map(|(id, _)| id).collect()
    }

    pub fn done(&mut self, id: &str, result: Result<Output, JobFailed>, now: Instant) {
        if let Some(task) = self.tasks.get_mut(id) {
            *task = Task::Done(result);
            self.report_due = now;
        }
    }

    /// The time from which [`Assignments::report`] is worth a call; `None`: no result waits.
    pub fn report_due(&self) -> Option<Instant> {
        self.tasks.values().any(|task| matches!(task, Task::Done(_))).then_some(self.report_due)
    }

    pub fn report(&self, worker: &str) -> Option<ReportResult> {
        self.tasks.iter().find_map(|(id, task)| match task {
            Task::Done(result) => Some(ReportResult { id: worker.to_owned(), job: id.clone(), result: result.clone() }),
            Task::Waits(_) | Task::Runs => None,
        })
    }

    pub fn reported(&mut self, id: &str) {
        self.tasks.remove(id);
    }

    pub fn report_failed(&mut self, now: Instant) {
        self.report_due = now + self.lease / 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::seal_jobs::SealStep;

    const LEASE: Duration = Duration::from_secs(30);

    fn job(number: u64) -> SealJob {
        let (step, max_runtime) = (SealStep::AddPiece, Duration::from_secs(60));
        SealJob { miner: 1000, number, proof_type: 5, attempt: 1, step, max_runtime }
    }

    /// A worker that runs jobs 1 and 2, which a heartbeat sent at `at` seconds named.
    fn running(start: Instant, at: u64) -> Assignments {
        let mut assignments = Assignments::new(LEASE, start);
        let sent = start + Duration::from_secs(at);
        assignments.taken(job(1), sent);
        assignments.taken(job(2), sent);
        let named = assignments.beat(sent);
        let (begun, ended) = assignments.heartbeat_answered(sent, &named, &[]);
        assert_eq!((begun.len(), ended.len()), (2, 0));
        assignments
    }

    #[test]
    fn memory_is_promised_until_a_task_is_done() {
        let start = Instant::now();
        let mut assignments = running(start, 0);
        let each = resources::memory(job(1).step.kind(), 2048);
        assert_eq!(assignments.promised(), 2 * each);
        assignments.done(&job(1).id(), Ok(Output::Done), start);
        assert_eq!(assignments.promised(), each);
        assignments.taken(job(3), start);
        assert_eq!(assignments.promised(), 2 * each, "what waits for its heartbeat will take it, too");
    }

    #[test]
    fn a_task_begins_once_a_heartbeat_that_named_it_was_answered_and_not_with_its_loss() {
        let start = Instant::now();
        let mut assignments = Assignments::new(LEASE, start);
        let before = assignments.beat(start);
        assignments.taken(job(1), start);
        assignments.taken(job(2), start);
        assert_eq!(assignments.heartbeat_due(), start, "asked at once");
        assert!(assignments.heartbeat_answered(start, &before, &[]).0.is_empty(), "that one did not name it");
        assert_eq!(assignments.deadline(), None, "what only waits touches no file");
        let named = assignments.beat(start);
        let (begun, ended) = assignments.heartbeat_answered(start, &named, &[job(2).id()]);
        assert_eq!((begun, ended), (vec![job(1)], vec![job(2).id()]));
    }

    #[test]
    fn what_runs_ends_three_quarters_of_a_lease_after_the_last_answered_heartbeat_was_sent() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut assignments = running(start, 0);
        // A task is done and its report is taken, other reports hang: none of it says that the others live.
        assignments.done(&job(1).id(), Ok(Output::Done), at(7.0));
        assignments.reported(&job(1).id());
        assignments.report_failed(at(22.0));
        assignments.beat(at(7.5));
        assignments.heartbeat_failed(at(15.0));
        assert_eq!(assignments.deadline(), Some(at(22.5)));
        assert!(assignments.overdue(at(22.4)).is_empty());
        // The answer to a heartbeat counts from when that was sent.
        let named = assignments.beat(at(14.0));
        assignments.heartbeat_answered(at(14.0), &named, &[]);
        assert_eq!(assignments.deadline(), Some(at(36.5)));
        // Joining anew is no heartbeat.
        assignments.joined(LEASE, at(30.0));
        assert_eq!(assignments.overdue(at(36.5)), [job(2).id()]);
        assert_eq!(assignments.deadline(), None);
        assert_eq!(assignments.beat(at(37.0)), [""; 0], "let go");
    }

    #[test]
    fn results_outlive_the_lease_until_the_agent_took_them_or_does_not_want_them() {
        let start = Instant::now();
        let late = start + 2 * LEASE;
        let mut assignments = running(start, 0);
        assignments.done(&job(1).id(), Ok(Output::Done), start);
        assignments.done(&job(2).id(), Ok(Output::Done), start);
        assert!(assignments.overdue(late).is_empty());
        let report = assignments.report("w").unwrap();
        assert_eq!(report, ReportResult { id: "w".into(), job: job(1).id(), result: Ok(Output::Done) });
        assignments.report_failed(late);
        assert_eq!(assignments.report_due(), Some(late + LEASE / 4));
        // An answered heartbeat: the agent is back.
        let named = assignments.beat(late);
        assignments.heartbeat_answered(late, &named, &[job(1).id()]);
        assert_eq!(assignments.report_due(), Some(late));
        assert_eq!(assignments.report("w").unwrap().job, job(2).id());
        assignments.reported(&job(2).id());
        assert_eq!((assignments.report_due(), assignments.report("w")), (None, None));
    }
}
