//! The proof of the present round, apart from the round: one that is abandoned is left to finish, so that the warm prover
//! survives, and a round that needs the same proof (its base was replaced) takes it over.

use crate::proofs::{Job, Output, Prover, ProverError, Task};
use crate::util::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

type Proved = Result<Output, ProverError>;

/// A prover that has not proven anything yet is waited for so many times as long: on a busy machine, one that is killed
/// while it loads its parameters is replaced by one that loads them again, and no round is ever in time.
const COLD: u32 = 60;

/// Runs one proof at a time.
pub struct ProofRuns {
    prover: Arc<dyn Prover>,
    /// For how long another proof waits for one that was abandoned, before that one's prover is killed: about what a
    /// fresh prover needs to load its parameters.
    patience: Duration,
    last: Mutex<Option<ProofRun>>,
    /// The prover's process has made a proof: its parameters are loaded.
    warm: Arc<AtomicBool>,
}

/// A proof under way, or done. Dropping it ends it, and with it the prover that computes it.
struct ProofRun {
    task: Task,
    result: watch::Receiver<Option<Proved>>,
    work: AbortHandle,
}

impl Drop for ProofRun {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl ProofRuns {
    pub fn new(prover: Arc<dyn Prover>, patience: Duration) -> ProofRuns {
        ProofRuns { prover, patience, last: Mutex::new(None), warm: Arc::default() }
    }

    /// Dropping the future abandons the proof and does not stop it.
    pub async fn run(&self, job: Job) -> Proved {
        let mut result = match self.known(&job.task) {
            Some(result) => result,
            None => {
                self.wait_for_abandoned().await;
                self.begin(job)
            }
        };
        let proved = result.wait_for(Option::is_some).await.map(|proved| proved.clone());
        let gone =
            || ProverError::NotStarted { task: "WinningPoSt".into(), why: "its run ended without a result".into() };
        proved.ok().flatten().unwrap_or_else(|| Err(gone()))
    }

    /// The same proof, unless it failed. Sectors that could not be read are no proof either: by now they may be.
    fn known(&self, task: &Task) -> Option<watch::Receiver<Option<Proved>>> {
        let last = lock(&self.last);
        let run = last.as_ref().filter(|run| run.task == *task)?;
        let failed = matches!(&*run.result.borrow(), Some(Err(_) | Ok(Output::Skipped(_))));
        (!failed && (run.result.borrow().is_some() || !run.work.is_finished())).then(|| run.result.clone())
    }

    async fn wait_for_abandoned(&self) {
        let running = lock(&self.last).as_ref().map(|run| run.result.clone());
        let Some(mut running) = running else { return };
        let patience = if self.warm.load(Ordering::Relaxed) { self.patience } else { self.patience * COLD };
        if tokio::time::timeout(patience, running.wait_for(Option::is_some)).await.is_err() {
            tracing::info!("the proof of an abandoned round goes on too long: its prover is replaced");
        }
    }

    fn begin(&self, job: Job) -> watch::Receiver<Option<Proved>> {
        let (tell, result) = watch::channel(None);
        let (prover, task) = (self.prover.clone(), job.task.clone());
        // The one before ends first: its prover has the only slot.
        let mut last = lock(&self.last);
        let killed = last.take().is_some_and(|run| run.result.borrow().is_none());
        if killed {
            self.warm.store(false, Ordering::Relaxed);
        }
        let warm = self.warm.clone();
        // A round's length says nothing of how long parameters take to load.
        let cold = if warm.load(Ordering::Relaxed) { Duration::ZERO } else { self.patience * COLD };
        let job = Job { max_runtime: job.max_runtime.max(cold), ..job };
        let work = tokio::spawn(async move {
            let proved = prover.run(job).await;
            match &proved {
                Ok(Output::Proof(_)) => warm.store(true, Ordering::Relaxed),
                // No proof was computed.
                Ok(_) => {}
                // It may have taken the process with it.
                Err(_) => warm.store(false, Ordering::Relaxed),
            }
            drop(tell.send(Some(proved)));
        })
        .abort_handle();
        *last = Some(ProofRun { task, result: result.clone(), work });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    /// Each proof takes one permit; counts those that were begun and those that were dropped on the way.
    #[derive(Default)]
    struct Slow {
        go: Option<Arc<Semaphore>>,
        begun: Mutex<u32>,
        ended: Mutex<u32>,
        finished: Mutex<u32>,
        /// The results that come first, instead of a proof, the last of them first.
        first: Mutex<Vec<Proved>>,
        /// How long each might have taken.
        bounds: Mutex<Vec<Duration>>,
    }
    struct Ends<'a>(&'a Slow);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            *lock(&self.0.ended) += 1;
        }
    }
    #[async_trait]
    impl Prover for Slow {
        async fn run(&self, job: Job) -> Proved {
            *lock(&self.begun) += 1;
            lock(&self.bounds).push(job.max_runtime);
            let _ends = Ends(self);
            if let Some(go) = &self.go {
                go.acquire().await.unwrap().forget();
            }
            *lock(&self.finished) += 1;
            let first = lock(&self.first).pop();
            first.unwrap_or(Ok(Output::Proof(vec![7])))
        }
    }

    fn job(seed: u8) -> Job {
        let task = Task::WinningPost { proof_type: 0, miner: 1, randomness: [seed; 32], sectors: vec![] };
        Job { task, job_dir: None, max_runtime: Duration::from_secs(60) }
    }

    fn slow(patience: Duration) -> (Arc<Slow>, Arc<Semaphore>, ProofRuns) {
        let go = Arc::new(Semaphore::new(0));
        let slow = Arc::new(Slow { go: Some(go.clone()), ..Slow::default() });
        let runs = ProofRuns::new(slow.clone(), patience);
        (slow, go, runs)
    }

    async fn abandoned(runs: &ProofRuns, seed: u8) {
        assert!(tokio::time::timeout(Duration::from_millis(10), runs.run(job(seed))).await.is_err());
    }

    #[tokio::test]
    async fn an_abandoned_proof_goes_on_and_the_same_one_takes_it_over() {
        let (slow, go, runs) = slow(Duration::from_secs(60));
        abandoned(&runs, 1).await;
        assert_eq!((*lock(&slow.begun), *lock(&slow.ended)), (1, 0), "its prover lives");
        go.add_permits(1);
        assert_eq!(runs.run(job(1)).await.unwrap(), Output::Proof(vec![7]));
        assert_eq!(runs.run(job(1)).await.unwrap(), Output::Proof(vec![7]), "also once it is done");
        assert_eq!(*lock(&slow.begun), 1, "proven once");
    }

    /// A disk or a host that was late for the first base of a round may be in time for the next.
    #[tokio::test]
    async fn what_was_not_proven_is_tried_again_by_a_round_whose_base_is_replaced() {
        let failed = ProverError::NotStarted { task: "WinningPoSt".into(), why: "no memory".into() };
        for missed in [Ok(Output::Skipped(vec![3])), Err(failed)] {
            let prover = Arc::new(Slow { first: Mutex::new(vec![missed.clone()]), ..Slow::default() });
            let runs = ProofRuns::new(prover.clone(), Duration::from_secs(60));
            assert_eq!(runs.run(job(1)).await.is_ok(), missed.is_ok());
            assert_eq!(runs.run(job(1)).await.unwrap(), Output::Proof(vec![7]), "after {missed:?}");
            assert_eq!(*lock(&prover.begun), 2);
        }
    }

    /// Killed at a round's end it would load them again in the next one, for ever.
    #[tokio::test]
    async fn a_cold_prover_has_more_time_than_a_round_and_a_warm_one_has_not() {
        let patience = Duration::from_secs(20);
        let broken = ProverError::NotStarted { task: "WinningPoSt".into(), why: "no memory".into() };
        // The last of them first.
        let first = Mutex::new(vec![Err(broken), Ok(Output::Proof(vec![7]))]);
        let prover = Arc::new(Slow { first, ..Slow::default() });
        let runs = ProofRuns::new(prover.clone(), patience);
        for seed in 0..3 {
            let _ = runs.run(job(seed)).await;
        }
        let (round, cold) = (job(0).max_runtime, patience * COLD);
        assert!(round < cold);
        assert_eq!(*lock(&prover.bounds), [cold, round, cold], "and again after a failure");
    }

    /// Else a busy machine has a cold prover in every round, and wins nothing until it is idle.
    #[tokio::test]
    async fn a_prover_that_loads_its_parameters_is_not_replaced_by_another_that_does() {
        let patience = Duration::from_millis(20);
        let (slow, go, runs) = slow(patience);
        abandoned(&runs, 1).await;
        assert!(tokio::time::timeout(patience * 5, runs.run(job(2))).await.is_err(), "the round waits");
        assert_eq!((*lock(&slow.begun), *lock(&slow.ended)), (1, 0), "the first prover lives");
        go.add_permits(2);
        assert_eq!(runs.run(job(3)).await.unwrap(), Output::Proof(vec![7]));
        assert_eq!((*lock(&slow.begun), *lock(&slow.finished)), (2, 2), "its proof was waited for");
        // Warm by now: one that hangs is replaced soon.
        abandoned(&runs, 4).await;
        let began = std::time::Instant::now();
        let release = async {
            while *lock(&slow.begun) < 4 {
                tokio::task::yield_now().await;
            }
            assert!(began.elapsed() < patience * COLD);
            go.add_permits(1);
        };
        let (proved, ()) = tokio::join!(runs.run(job(5)), release);
        assert!(proved.is_ok() && *lock(&slow.finished) == 3);
    }

    #[tokio::test]
    async fn another_proof_waits_a_moment_for_an_abandoned_one_then_ends_it() {
        // It is ready before the patience ends, or not.
        for (patience, ready, finished) in [(Duration::from_secs(60), true, 2), (Duration::from_millis(20), false, 1)] {
            let (slow, go, runs) = slow(patience);
            abandoned(&runs, 1).await;
            let release = async {
                go.add_permits(usize::from(ready));
                while *lock(&slow.begun) < 2 {
                    tokio::task::yield_now().await;
                }
                go.add_permits(1);
            };
            let (proved, ()) = tokio::join!(runs.run(job(2)), release);
            assert_eq!(proved.unwrap(), Output::Proof(vec![7]));
            assert_eq!((*lock(&slow.ended), *lock(&slow.finished)), (2, finished), "patience {patience:?}");
        }
    }

    #[tokio::test]
    async fn nothing_goes_on_once_nobody_can_ask_for_it() {
        let (slow, _go, runs) = slow(Duration::from_secs(60));
        abandoned(&runs, 1).await;
        drop(runs);
        while *lock(&slow.ended) == 0 {
            tokio::task::yield_now().await;
        }
    }
}
