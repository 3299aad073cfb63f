//! Looks at files on threads of their own, a few for each storage path: a disk or a share that hangs costs its own
//! sectors and these threads, never another path's sectors and no thread that something else waits for.

use crate::util::lock;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How patient the checks of one path are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckLimits {
    /// Threads of one storage path.
    pub threads: usize,
    /// A path that answered nothing for this long hangs.
    pub patience: Duration,
    /// Checks of one path that may wait; more are refused as late.
    pub queue: usize,
    /// A look at which sectors are there takes this at most: somebody waits for all of its answers together.
    pub look: Duration,
}

impl Default for CheckLimits {
    fn default() -> Self {
        CheckLimits { threads: 16, patience: Duration::from_secs(10), queue: 100_000, look: Duration::from_secs(5) }
    }
}

/// A thread without work ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// Storage paths that are told apart; those beyond share the threads of one.
const PATHS: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The checker threads of all storage paths.
pub struct PathChecks {
    limits: CheckLimits,
    paths: Mutex<HashMap<PathBuf, Arc<PathPool>>>,
}

struct PathPool {
    limits: CheckLimits,
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads in a check.
    busy: usize,
    /// When a check last ended, or the first began.
    last_end: Instant,
}

impl PathChecks {
    pub fn new(limits: CheckLimits) -> PathChecks {
        PathChecks { limits, paths: Mutex::default() }
    }

    /// The checks of this process: every concern learns at once that a path hangs.
    pub fn of_process() -> Arc<PathChecks> {
        static SHARED: OnceLock<Arc<PathChecks>> = OnceLock::new();
        SHARED.get_or_init(|| Arc::new(PathChecks::new(CheckLimits::default()))).clone()
    }

    pub fn limits(&self) -> CheckLimits {
        self.limits
    }

    fn pool(&self, path: &Path) -> Arc<PathPool> {
        let mut paths = lock(&self.paths);
        let path = if paths.len() < PATHS { path } else { Path::new("") };
        let new = || {
            let state = PoolState { queue: VecDeque::new(), threads: 0, busy: 0, last_end: Instant::now() };
            Arc::new(PathPool { limits: self.limits, state: Mutex::new(state), work: Condvar::new() })
        };
        paths.entry(path.to_path_buf()).or_insert_with(new).clone()
    }

    /// All threads of the path hang in a check. It is over as soon as one of them comes back: they are the probe.
    pub fn hangs(&self, path: &Path) -> bool {
        lock(&self.paths).get(path).is_some_and(|pool| lock(&pool.state).hangs(&self.limits))
    }

    /// The answers in the order of `jobs`; `None`: the path hangs, or this check does.
    pub async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        jobs: Vec<impl FnOnce() -> T + Send + 'static>,
    ) -> Vec<Option<T>> {
        self.run_within(path, jobs, Duration::MAX).await
    }

    /// As [`PathChecks::run`], with what is answered within `limit`: one check that hangs keeps no other answer back.
    pub async fn run_within<T: Send + 'static>(
        &self,
        path: &Path,
        jobs: Vec<impl FnOnce() -> T + Send + 'static>,
        limit: Duration,
    ) -> Vec<Option<T>> {
        let began = Instant::now();
        let pool = self.pool(path);
        let mut out: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
        let (tell, mut answers) = mpsc::unbounded_channel(); // as many answers as jobs
        let asked = Asked(Arc::new(AtomicBool::new(true)));
        let wrapped = jobs.into_iter().enumerate().map(|(index, job)| {
            let (tell, wanted) = (tell.clone(), asked.0.clone());
            Box::new(move || {
                if wanted.load(Ordering::Relaxed) {
                    let _ = tell.send((index, job())); // an asker that left wants no answer
                }
            }) as Job
        });
        if !pool.submit(wrapped.collect()) {
            return out;
        }
        drop(tell);
        let patience = || self.limits.patience.min(limit.saturating_sub(began.elapsed()));
        while let Ok(Some((index, answer))) = tokio::time::timeout(patience(), answers.recv()).await {
            out[index] = Some(answer);
        }
        out
    }
}

/// Once it goes, the checks that still wait are not made.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl PoolState {
    fn hangs(&self, limits: &CheckLimits) -> bool {
        self.busy >= limits.threads.max(1) && self.last_end.elapsed() >= limits.patience
    }
}

impl PathPool {
    /// False: the path hangs, or too much waits for it already.
    fn submit(self: &Arc<Self>, jobs: Vec<Job>) -> bool {
        let mut state = lock(&self.state);
        if state.hangs(&self.limits) || state.queue.len() + jobs.len() > self.limits.queue {
            return false;
        }
        if state.busy == 0 {
            state.last_end = Instant::now();
        }
        state.queue.extend(jobs);
        let wanted = (state.busy + state.queue.len()).min(self.limits.threads.max(1));
        for _ in state.threads..wanted {
            let pool = self.clone();
            match std::thread::Builder::new().name("path-check".into()).spawn(move || pool.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    tracing::warn!(%error, "no thread for a look at a storage path");
                    break;
                }
            }
        }
        let some = state.threads > 0;
        drop(state);
        self.work.notify_all();
        some
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            match state.queue.pop_front() {
                Some(job) => {
                    state.busy += 1;
                    drop(state);
                    // a check that panics is one without an answer
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                    state = lock(&self.state);
                    state.busy -= 1;
                    state.last_end = Instant::now();
                }
                None => {
                    let (again, waited) = self.work.wait_timeout(state, IDLE).unwrap_or_else(|e| e.into_inner());
                    state = again;
                    if waited.timed_out() && state.queue.is_empty() {
                        state.threads -= 1;
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn checks(threads: usize) -> PathChecks {
        PathChecks::new(CheckLimits {
            threads,
            patience: Duration::from_millis(100),
            queue: 1000,
            ..Default::default()
        })
    }

    #[tokio::test]
    async fn a_hung_path_costs_its_own_checks_only_and_comes_back_by_itself() {
        let checks = checks(2);
        let (hung, healthy) = (Path::new("/hung"), Path::new("/healthy"));
        let (release, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let wait = |gate: &Arc<Mutex<std::sync::mpsc::Receiver<()>>>| {
            let gate = gate.clone();
            move || {
                let _ = lock(&gate).recv();
            }
        };
        let stuck: Vec<_> = (0..600).map(|_| wait(&gate)).collect();
        let (stuck, fine) =
            tokio::join!(checks.run(hung, stuck), checks.run(healthy, (0..40).map(|n| move || n).collect()));
        assert!(stuck.iter().all(Option::is_none));
        assert_eq!(fine, (0..40).map(Some).collect::<Vec<_>>());
        assert!(checks.hangs(hung) && !checks.hangs(healthy));

        // The breaker is open: refused at once, without another thread.
        let began = Instant::now();
        assert_eq!(checks.run(hung, vec![|| 1]).await, [None]);
        assert!(began.elapsed() < Duration::from_millis(90), "{:?}", began.elapsed());

        drop(release);
        while checks.hangs(hung) {
            tokio::task::yield_now().await;
        }
        assert_eq!(checks.run(hung, vec![|| 1]).await, [Some(1)]);
        let threads = lock(&checks.pool(hung).state).threads;
        assert!(threads <= 2, "{threads} threads");
    }

    #[tokio::test]
    async fn one_hung_file_leaves_the_other_threads_working() {
        let checks = checks(2);
        let path = Path::new("/p");
        let (_release, gate) = channel::<()>();
        let mut jobs: Vec<Box<dyn FnOnce() -> u32 + Send>> = vec![Box::new(move || gate.recv().map_or(0, |_| 1))];
        jobs.extend((0..50u32).map(|n| Box::new(move || n) as Box<dyn FnOnce() -> u32 + Send>));
        let answers = checks.run(path, jobs).await;
        assert_eq!(answers[0], None);
        assert_eq!(answers[1..].iter().flatten().count(), 50);
        assert!(!checks.hangs(path), "one of two threads is free");
    }

    #[tokio::test]
    async fn a_panic_is_a_check_without_an_answer() {
        // The text of a panic takes its time on a busy machine.
        let checks = PathChecks::new(CheckLimits { threads: 1, ..Default::default() });
        let jobs: Vec<Box<dyn FnOnce() -> u32 + Send>> = vec![Box::new(|| panic!("a bug")), Box::new(|| 2)];
        assert_eq!(checks.run(Path::new("/p"), jobs).await, [None, Some(2)]);
    }
}
