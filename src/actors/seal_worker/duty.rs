//! What a worker process may do with the tasks it was given, and when it must stop: pure.
//!
//! A task is begun once a heartbeat that named it was answered, and ended when three quarters of a lease went by since
//! the last answered heartbeat was *sent*: the agent counts from when it came in, which is later. Nothing else extends
//! it, because nothing else extends the agent's lease.

use super::messages::Finish;
use crate::actors::seal_jobs::{JobFailed, SealJob};
use crate::proofs::Output;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Duty {
    lease: Duration,
    /// When the last heartbeat that was answered had been sent.
    heard: Instant,
    tasks: BTreeMap<String, Task>,
    beat_due: Instant,
    report_due: Instant,
}

enum Task {
    /// Taken; whether it is ours still, the next heartbeat says.
    Waits(Box<SealJob>),
    Runs,
    /// Touches no file any more.
    Done(Result<Output, JobFailed>),
}

impl Duty {
    pub fn new(lease: Duration, now: Instant) -> Duty {
        Duty { lease, heard: now, tasks: BTreeMap::new(), beat_due: now, report_due: now }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    pub fn joined(&mut self, lease: Duration, now: Instant) {
        self.lease = lease;
        self.beat_due = now;
    }

    pub fn taken(&mut self, job: SealJob, now: Instant) {
        // The same one anew: the agent takes what runs here for lost, and the heartbeat says so first.
        self.tasks.entry(job.id()).or_insert(Task::Waits(Box::new(job)));
        self.beat_due = now;
    }

    pub fn beat_due(&self) -> Instant {
        self.beat_due
    }

    /// What a heartbeat that is sent now names.
    pub fn beat(&mut self, now: Instant) -> Vec<String> {
        self.beat_due = now + self.lease / 4;
        self.tasks.keys().cloned().collect()
    }

    /// Sent at `sent` with `named`, answered with `lost`. What is to be begun, and what ended.
    pub fn beaten(&mut self, sent: Instant, named: &[String], lost: &[String]) -> (Vec<SealJob>, Vec<String>) {
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

    pub fn beat_failed(&mut self, now: Instant) {
        self.beat_due = now + self.lease / 8;
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

    /// From when on [`Duty::report`] is worth a call.
    pub fn report_due(&self) -> Option<Instant> {
        self.tasks.values().any(|task| matches!(task, Task::Done(_))).then_some(self.report_due)
    }

    pub fn report(&self, worker: &str) -> Option<Finish> {
        self.tasks.iter().find_map(|(id, task)| match task {
            Task::Done(result) => Some(Finish { id: worker.to_owned(), job: id.clone(), result: result.clone() }),
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
    fn running(start: Instant, at: u64) -> Duty {
        let mut duty = Duty::new(LEASE, start);
        let sent = start + Duration::from_secs(at);
        duty.taken(job(1), sent);
        duty.taken(job(2), sent);
        let named = duty.beat(sent);
        let (begun, ended) = duty.beaten(sent, &named, &[]);
        assert_eq!((begun.len(), ended.len()), (2, 0));
        duty
    }

    #[test]
    fn a_task_begins_once_a_heartbeat_that_named_it_was_answered_and_not_with_its_loss() {
        let start = Instant::now();
        let mut duty = Duty::new(LEASE, start);
        let before = duty.beat(start);
        duty.taken(job(1), start);
        duty.taken(job(2), start);
        assert_eq!(duty.beat_due(), start, "asked at once");
        assert!(duty.beaten(start, &before, &[]).0.is_empty(), "that one did not name it");
        assert_eq!(duty.deadline(), None, "what only waits touches no file");
        let named = duty.beat(start);
        let (begun, ended) = duty.beaten(start, &named, &[job(2).id()]);
        assert_eq!((begun, ended), (vec![job(1)], vec![job(2).id()]));
    }

    #[test]
    fn what_runs_ends_three_quarters_of_a_lease_after_the_last_answered_heartbeat_was_sent() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut duty = running(start, 0);
        // A task is done and its report is taken, other reports hang: none of it says that the others live.
        duty.done(&job(1).id(), Ok(Output::Done), at(7.0));
        duty.reported(&job(1).id());
        duty.report_failed(at(22.0));
        duty.beat(at(7.5));
        duty.beat_failed(at(15.0));
        assert_eq!(duty.deadline(), Some(at(22.5)));
        assert!(duty.overdue(at(22.4)).is_empty());
        // The answer to a heartbeat counts from when that was sent.
        let named = duty.beat(at(14.0));
        duty.beaten(at(14.0), &named, &[]);
        assert_eq!(duty.deadline(), Some(at(36.5)));
        // Joining anew is no heartbeat.
        duty.joined(LEASE, at(30.0));
        assert_eq!(duty.overdue(at(36.5)), [job(2).id()]);
        assert_eq!(duty.deadline(), None);
        assert_eq!(duty.beat(at(37.0)), [""; 0], "let go");
    }

    #[test]
    fn results_outlive_the_lease_until_the_agent_took_them_or_does_not_want_them() {
        let start = Instant::now();
        let late = start + 2 * LEASE;
        let mut duty = running(start, 0);
        duty.done(&job(1).id(), Ok(Output::Done), start);
        duty.done(&job(2).id(), Ok(Output::Done), start);
        assert!(duty.overdue(late).is_empty());
        let report = duty.report("w").unwrap();
        assert_eq!(report, Finish { id: "w".into(), job: job(1).id(), result: Ok(Output::Done) });
        duty.report_failed(late);
        assert_eq!(duty.report_due(), Some(late + LEASE / 4));
        // An answered heartbeat: the agent is back.
        let named = duty.beat(late);
        duty.beaten(late, &named, &[job(1).id()]);
        assert_eq!(duty.report_due(), Some(late));
        assert_eq!(duty.report("w").unwrap().job, job(2).id());
        duty.reported(&job(2).id());
        assert_eq!((duty.report_due(), duty.report("w")), (None, None));
    }
}
