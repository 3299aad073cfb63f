//! A prover for tests about scheduling and time: answers from a script, proves nothing.

use super::{Job, Output, Prover, ProverError, Task};
use crate::util::lock;
use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// One call's answer.
#[derive(Clone, Debug)]
pub struct Step {
    /// On tokio's clock, so a paused one works.
    pub after: Duration,
    pub answer: Answer,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Now(Result<Output, ProverError>),
    /// Never: until the job's `max_runtime`, then [`ProverError::Hung`].
    Hang,
    /// The call panics.
    Panic,
    /// As unscripted.
    Default,
}

impl Step {
    pub fn ok(output: Output) -> Self {
        Step { after: Duration::ZERO, answer: Answer::Now(Ok(output)) }
    }
    pub fn error(error: ProverError) -> Self {
        Step { after: Duration::ZERO, answer: Answer::Now(Err(error)) }
    }
    pub fn hang() -> Self {
        Step { after: Duration::ZERO, answer: Answer::Hang }
    }
    /// The default answer, later.
    pub fn slow(after: Duration) -> Self {
        Step { after, answer: Answer::Default }
    }
}

/// Steps by [`Task::name`] are used up in order; after them every call gets the task's default answer.
pub struct ScriptedProver {
    state: Mutex<State>,
    calls: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    script: HashMap<&'static str, VecDeque<Step>>,
    calls: Vec<Task>,
    running: usize,
}

impl Default for ScriptedProver {
    fn default() -> Self {
        ScriptedProver { state: Mutex::default(), calls: watch::Sender::new(0) }
    }
}

impl ScriptedProver {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The next call of this task that has no step yet takes this one.
    pub fn then(&self, task: &'static str, step: Step) -> &Self {
        self.state().script.entry(task).or_default().push_back(step);
        self
    }

    /// All tasks asked for, in order.
    pub fn calls(&self) -> Vec<Task> {
        self.state().calls.clone()
    }

    /// Names of all tasks asked for, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.state().calls.iter().map(Task::name).collect()
    }

    /// Calls that have not answered and were not dropped.
    pub fn running(&self) -> usize {
        self.state().running
    }

    /// Waits until this task was asked for at least `n` times.
    pub async fn called(&self, task: &str, n: usize) {
        let mut calls = self.calls.subscribe();
        // the sender lives as long as self, so waiting cannot fail
        let _ = calls.wait_for(|_| self.names().iter().filter(|name| **name == task).count() >= n).await;
    }
}

struct ScriptedRun<'a>(&'a ScriptedProver);

impl Drop for ScriptedRun<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

#[async_trait]
impl Prover for ScriptedProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        let name = job.task.name();
        let step = {
            let mut state = self.state();
            state.calls.push(job.task.clone());
            state.running += 1;
            state.script.get_mut(name).and_then(VecDeque::pop_front).unwrap_or(Step::slow(Duration::ZERO))
        };
        let _running = ScriptedRun(self);
        self.calls.send_modify(|n| *n += 1);
        let answer = async {
            if !step.after.is_zero() {
                tokio::time::sleep(step.after).await;
            }
            match step.answer {
                Answer::Now(answer) => answer,
                Answer::Default => Ok(default_output(&job.task)),
                Answer::Hang => std::future::pending().await,
                Answer::Panic => panic!("as scripted"),
            }
        };
        match tokio::time::timeout(job.max_runtime, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ProverError::Hung { task: name.into(), after: job.max_runtime }),
        }
    }
}

/// Something of the right shape.
pub fn default_output(task: &Task) -> Output {
    match task {
        Task::AddPiece { .. } => Output::Piece { comm_p: [1; 32] },
        Task::Pc1 { .. } => Output::Phase1(b"pc1".to_vec()),
        Task::Pc2 { .. } => Output::Pc2 { comm_r: [2; 32], comm_d: [3; 32] },
        Task::C1 { .. } => Output::Phase1(b"c1".to_vec()),
        Task::C2 { .. } | Task::WinningPost { .. } | Task::WindowPost { .. } => Output::Proof(vec![4; 192]),
        Task::Finalize { .. } => Output::Done,
        Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => Output::Verified(true),
        Task::WinningChallenge { .. } => Output::Challenged(vec![0]),
        Task::PostChallenges { sectors, .. } => Output::Challenges(sectors.iter().map(|n| (*n, vec![*n])).collect()),
        Task::Vanilla { sectors, .. } => {
            Output::Vanilla(sectors.iter().map(|(s, _)| (s.number, Ok(vec![5; 8]))).collect())
        }
        Task::PostFromVanilla { .. } => Output::Proof(vec![4; 192]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(max_runtime: Duration) -> Job {
        let task = Task::Finalize { cache_dir: "c".into() };
        Job { task, job_dir: None, max_runtime }
    }

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn steps_in_order_then_defaults() {
        let p = ScriptedProver::new();
        let crash = ProverError::Segfault { task: "Finalize".into() };
        p.then("Finalize", Step::error(crash.clone())).then("Finalize", Step::hang());
        assert_eq!(p.run(job(LONG)).await, Err(crash));
        assert_eq!(p.run(job(SHORT)).await, Err(ProverError::Hung { task: "Finalize".into(), after: SHORT }));
        assert_eq!(p.run(job(LONG)).await, Ok(Output::Done));
        assert_eq!(p.names(), ["Finalize"; 3]);
        p.called("Finalize", 3).await;
        assert_eq!(p.running(), 0);
    }

    #[tokio::test]
    async fn a_slow_answer_within_and_past_the_limit() {
        let p = ScriptedProver::new();
        p.then("Finalize", Step::slow(SHORT)).then("Finalize", Step::slow(LONG));
        assert_eq!(p.run(job(LONG)).await, Ok(Output::Done));
        assert!(matches!(p.run(job(SHORT)).await, Err(ProverError::Hung { .. })));
    }
}
