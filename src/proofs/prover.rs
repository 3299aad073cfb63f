//! [`Prover`] on child processes: pools with reserved slots, warm PoSt children, adoption of finished results.
//!
//! WinningPoSt, WindowPoSt, sealing and verification each have slots of their own, so that proving never waits behind
//! sealing; sealing children are niced, so that a PoSt also wins the cores. A child that dies is replaced by the next task.

use super::gpu::{self, Gpu, GpuLease};
use super::pools::{ProverPool, ProverPools, Slot, Slots};
use super::process::{Process, ProverLaunch, error_of, oom_kills};
use super::wire::{FromChild, PipeError, ToChild};
use super::{Job, Output, Prover, ProverError, child, keys, result, tmp};
use crate::supervisor::SupervisorRef;
use crate::supervisor::process::{OsProcess, ProcessHandle};
use crate::util::lock;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

#[derive(Clone, Debug)]
pub struct ChildConfig {
    /// The `bulkhead` binary.
    pub exe: PathBuf,
    pub args: Vec<OsString>,
    /// On top of this process's environment, which passes through (`RUST_LOG`, `FIL_PROOFS_*`).
    pub env: Vec<(OsString, OsString)>,
    /// Children write their log lines as JSON, as the node does.
    pub json_logs: bool,
    /// Holds the children's private TMPDIRs; made if missing.
    pub tmp_root: PathBuf,
    pub pools: ProverPools,
    /// The GPU slots of this host.
    pub gpu: Gpu,
    /// Added to sealing children's niceness.
    pub seal_nice: i32,
    /// A child that says nothing for this long, heartbeats included, is hung.
    pub silence: Duration,
}

impl ChildConfig {
    /// This very binary, the process's own parameter cache, temporary folders under `TMPDIR` or the repo.
    pub fn current_exe(repo: &Path, json_logs: bool) -> io::Result<Self> {
        let config = Self::with_exe(std::env::current_exe()?);
        Ok(ChildConfig { tmp_root: tmp::tmp_root(repo, std::env::var_os("TMPDIR")), json_logs, ..config })
    }

    pub fn with_exe(exe: PathBuf) -> Self {
        ChildConfig {
            exe,
            args: vec!["prover".into()],
            env: [(keys::CACHE_VARIABLE.into(), keys::cache_dir().into())]
                .into_iter()
                .chain(built_in_settings())
                .collect(),
            json_logs: false,
            tmp_root: std::env::temp_dir(),
            pools: ProverPools::default(),
            gpu: Gpu::none(),
            seal_nice: 8,
            silence: Duration::from_secs(120),
        }
    }

    fn launch(&self, pool: ProverPool, gpu: Option<u32>) -> ProverLaunch {
        let sealing = pool == ProverPool::Seal;
        let log_format = if self.json_logs { child::JSON } else { "pretty" };
        ProverLaunch {
            exe: self.exe.clone(),
            // so that `ps` tells a sealing child from one that proves
            args: self.args.iter().cloned().chain([pool.name().into()]).collect(),
            env: (self.env.iter().cloned())
                .chain([(child::LOG_FORMAT_VARIABLE.into(), log_format.into())])
                .chain(gpu.into_iter().flat_map(gpu::visible))
                .collect(),
            gpu,
            tmp_root: self.tmp_root.clone(),
            nice: if sealing { self.seal_nice } else { 0 },
            // sealing can be repeated, a missed PoSt costs; the node itself is the last to go
            oom_score_adj: if sealing { 800 } else { 300 },
        }
    }
}

/// Settings of the proofs library that turn on what this build has and a host may use; what the operator has set stays.
fn built_in_settings() -> impl Iterator<Item = (OsString, OsString)> {
    // The library's PC1 on several cores has three producers beside the core that seals.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let on = [
        ("FIL_PROOFS_USE_MULTICORE_SDR", cfg!(feature = "multicore-sdr") && cores >= 4),
        ("FIL_PROOFS_USE_GPU_COLUMN_BUILDER", gpu::BUILT_IN),
        ("FIL_PROOFS_USE_GPU_TREE_BUILDER", gpu::BUILT_IN),
    ];
    let wanted = on.into_iter().filter(|(name, on)| *on && std::env::var_os(name).is_none());
    wanted.map(|(name, _)| (name.into(), "1".into()))
}

/// A task that a child has now.
#[derive(Clone, Debug)]
pub struct RunningJob {
    pub pid: u32,
    pub pool: ProverPool,
    pub task: &'static str,
    pub since: Instant,
    /// The child has said that it has the task.
    pub started: bool,
    /// The child's last word on what it does.
    pub progress: Option<String>,
}

/// Runs tasks in `bulkhead prover` children.
pub struct ChildProver {
    shared: Arc<ProverState>,
}

struct ProverState {
    config: ChildConfig,
    slots: Slots,
    idle: Mutex<BTreeMap<ProverPool, Vec<Process>>>,
    running: Mutex<BTreeMap<u64, RunningJob>>,
    next_id: AtomicU64,
    /// The supervisor that shows the children.
    tree: OnceLock<SupervisorRef>,
}

impl ChildProver {
    pub fn new(config: ChildConfig) -> Self {
        tmp::sweep(&config.tmp_root);
        let slots = Slots::new(config.pools);
        ChildProver {
            shared: Arc::new(ProverState {
                config,
                slots,
                idle: Mutex::default(),
                running: Mutex::default(),
                next_id: AtomicU64::new(0),
                tree: OnceLock::new(),
            }),
        }
    }

    /// The running jobs, oldest first.
    pub fn running(&self) -> Vec<RunningJob> {
        lock(&self.shared.running).values().cloned().collect()
    }

    /// Warm children that wait for a task: pool and process id.
    pub fn idle(&self) -> Vec<(ProverPool, u32)> {
        let idle = lock(&self.shared.idle);
        idle.iter().flat_map(|(pool, ps)| ps.iter().map(|p| (*pool, p.handle().pid()))).collect()
    }
}

/// Ends the child when the future that waits for it goes: nobody needs its result, which is no fault of the child's.
struct KillOnDrop(Arc<Mutex<Killable>>);

impl KillOnDrop {
    fn end(&self, how: fn(&ProcessHandle)) {
        let mut k = lock(&self.0);
        k.abandoned = true;
        if let Some(handle) = k.handle.take() {
            how(&handle);
        }
    }
}

#[derive(Default)]
struct Killable {
    handle: Option<Arc<ProcessHandle>>,
    /// Nobody waits any more; a child that is only now being started dies at once.
    abandoned: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.end(ProcessHandle::retire);
    }
}

#[async_trait]
impl Prover for ChildProver {
    fn show_in(&self, provers: SupervisorRef) {
        let _ = self.shared.tree.set(provers); // a second tree shows none
    }

    fn resize(&self, pools: ProverPools) {
        self.shared.slots.resize(pools);
    }

    /// A finished result in `job_dir` is adopted without a child; see [`result`].
    /// `max_runtime` runs from when a slot is free.
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        self.run_timed(job).await.0
    }

    async fn run_timed(&self, job: Job) -> (Result<Output, ProverError>, Option<Duration>) {
        let name = job.task.name();
        let not_started = |why: String| (Err(ProverError::NotStarted { task: name.into(), why }), None);
        if let Some(dir) = job.job_dir.clone() {
            let task = job.task.clone();
            let found = tokio::task::spawn_blocking(move || result::find(&dir, &task)).await;
            if let Ok(Some(output)) = found {
                return (Ok(output), None);
            }
        }
        let pool = ProverPool::of(&job.task);
        // reserved per pool: never closed, so this only waits
        let slot = match self.shared.slots.acquire(pool).await {
            Ok(slot) => slot,
            Err(e) => return not_started(e.to_string()),
        };
        let asked = Instant::now();
        let gpu = self.shared.config.gpu.lease(&job.task, job.max_runtime).await;
        // A proof that has a deadline has less left of it now.
        let waited = if job.task.is_post() { asked.elapsed() } else { Duration::ZERO };
        let killable = Arc::new(Mutex::new(Killable::default()));
        let guard = KillOnDrop(killable.clone());
        let (reply, answer) = oneshot::channel();
        let shared = self.shared.clone();
        let max_runtime = job.max_runtime.saturating_sub(waited);
        // A thread, not a runtime's task: it belongs to no arbiter and outlives the caller until the child is reaped.
        let thread = std::thread::Builder::new()
            .name(format!("prover-{}", pool.name()))
            .spawn(move || shared.serve(pool, job, (slot, gpu), &killable, reply));
        if let Err(e) = thread {
            return not_started(e.to_string());
        }
        let began = Instant::now();
        match tokio::time::timeout(max_runtime, answer).await {
            Ok(Ok(outcome)) => (outcome, Some(began.elapsed())),
            Ok(Err(_)) => not_started("the thread that runs it is gone".into()),
            Err(_) => {
                guard.end(ProcessHandle::kill);
                (Err(ProverError::Hung { task: name.into(), after: max_runtime }), Some(began.elapsed()))
            }
        }
    }
}

type JobOutcome = Result<Output, ProverError>;

/// How a conversation about one task ended.
enum Talk {
    Done(JobOutcome),
    /// The child took the task to its grave, or answered and cannot take another.
    Spent(JobOutcome),
    /// A child that was idle had died before it got the task.
    WasDead,
}

impl ProverState {
    fn serve(
        &self,
        pool: ProverPool,
        job: Job,
        held: (Slot, Option<GpuLease>),
        killable: &Mutex<Killable>,
        reply: oneshot::Sender<JobOutcome>,
    ) {
        let name = job.task.name();
        let gpu = held.1.as_ref().and_then(GpuLease::pinned_to);
        let message = ToChild::Run { task: job.task, job_dir: job.job_dir };
        let mut outcome = None;
        while outcome.is_none() {
            let process = match self.take_idle(pool, gpu) {
                Some(process) => Ok(process),
                None => self.start(pool, gpu),
            };
            let mut process = match process {
                Ok(process) => process,
                Err(e) => {
                    let why = format!("{}: {e}", self.config.exe.display());
                    outcome = Some(Err(ProverError::NotStarted { task: name.into(), why }));
                    break;
                }
            };
            {
                let mut k = lock(killable);
                k.handle = Some(process.handle());
                if k.abandoned {
                    break; // dropping the process kills and reaps it
                }
            }
            let id = self.register(&process, pool, name);
            let talk = self.talk(&mut process, name, &message, id);
            lock(&self.running).remove(&id);
            // from here a late kill must not hit a child that has the next task
            lock(killable).handle = None;
            match talk {
                Talk::Done(done) => {
                    if pool.warm() && !lock(killable).abandoned {
                        process.used = true;
                        lock(&self.idle).entry(pool).or_default().push(process);
                    }
                    outcome = Some(done);
                }
                Talk::Spent(done) => outcome = Some(done),
                Talk::WasDead => {}
            }
        }
        // The child is idle or reaped: only now may the next one start.
        drop(held);
        if let Some(outcome) = outcome {
            let _ = reply.send(outcome);
        }
    }

    fn start(&self, pool: ProverPool, gpu: Option<u32>) -> io::Result<Process> {
        let process = Process::start(&self.config.launch(pool, gpu))?;
        if let Some(tree) = self.tree.get() {
            let handle = process.handle();
            tree.begin_child(OsProcess::adopted(format!("{}-{}", pool.name(), handle.pid()), handle));
        }
        Ok(process)
    }

    /// A warm child that sees that GPU alone; `None`: one that sees all. Where none waits, the oldest of those that see
    /// another one goes, so that no more stay warm than there are slots, each with its parameters in memory.
    fn take_idle(&self, pool: ProverPool, gpu: Option<u32>) -> Option<Process> {
        loop {
            let slots = self.slots.size(pool);
            let mut idle = lock(&self.idle);
            let waiting = idle.get_mut(&pool)?;
            let Some(place) = waiting.iter().rposition(|process| process.gpu == gpu) else {
                let over = (waiting.len() + 1).saturating_sub(slots).min(waiting.len());
                let oldest: Vec<Process> = waiting.drain(..over).collect();
                drop(idle);
                drop(oldest); // kills them, and waits for their end
                return None;
            };
            let process = waiting.remove(place);
            drop(idle);
            if process.alive() {
                return Some(process);
            }
        }
    }

    fn register(&self, process: &Process, pool: ProverPool, task: &'static str) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let pid = process.handle().pid();
        lock(&self.running)
            .insert(id, RunningJob { pid, pool, task, since: Instant::now(), started: false, progress: None });
        id
    }

    fn talk(&self, process: &mut Process, name: &str, message: &ToChild, id: u64) -> Talk {
        let task = || name.to_string();
        let oom_before = oom_kills();
        let mut started = false;
        if let Err(e) = process.send(message) {
            return match e {
                // A pipe that is broken already: how the child ended says more.
                PipeError::Io(_) | PipeError::Closed if process.used => Talk::WasDead,
                PipeError::Io(_) | PipeError::Closed => Talk::Spent(Err(self.post_mortem(process, name, oom_before))),
                other => Talk::Spent(Err(ProverError::Failed { task: task(), why: other.to_string() })),
            };
        }
        loop {
            match process.receive(self.config.silence) {
                Ok(Some(FromChild::Ready | FromChild::Heartbeat)) => {}
                Ok(Some(FromChild::Started)) => {
                    started = true;
                    if let Some(running) = lock(&self.running).get_mut(&id) {
                        running.started = true;
                    }
                }
                Ok(Some(FromChild::Progress(text))) => {
                    if let Some(running) = lock(&self.running).get_mut(&id) {
                        running.progress = Some(text);
                    }
                }
                Ok(Some(FromChild::Output(output))) => return Talk::Done(Ok(output)),
                Ok(Some(FromChild::Last(output))) => return Talk::Spent(Ok(output)),
                Ok(Some(FromChild::Failed { why, spent })) => {
                    let failed = Err(ProverError::Failed { task: task(), why });
                    return if spent { Talk::Spent(failed) } else { Talk::Done(failed) };
                }
                Ok(None) => {
                    process.handle().kill();
                    return Talk::Spent(Err(ProverError::Hung { task: task(), after: self.config.silence }));
                }
                Err(PipeError::Closed | PipeError::Io(_)) if process.used && !started => return Talk::WasDead,
                Err(PipeError::Closed | PipeError::Io(_)) => {
                    return Talk::Spent(Err(self.post_mortem(process, name, oom_before)));
                }
                Err(e @ (PipeError::TooLarge(_) | PipeError::Garbage(_))) => {
                    // Cut off in a frame means that it died; anything else is a child that talks nonsense.
                    let died = matches!(e, PipeError::Garbage(_)) && process.ended_soon();
                    process.handle().kill();
                    if died {
                        return Talk::Spent(Err(self.post_mortem(process, name, oom_before)));
                    }
                    return Talk::Spent(Err(ProverError::Failed { task: task(), why: format!("the prover sent {e}") }));
                }
            }
        }
    }

    /// The pipe is closed: the child has ended or is about to.
    fn post_mortem(&self, process: &mut Process, name: &str, oom_before: Option<u64>) -> ProverError {
        error_of(process.end(oom_before), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_told_how_the_node_logs() {
        for (json_logs, format) in [(false, "pretty"), (true, "json")] {
            let config = ChildConfig { json_logs, ..ChildConfig::with_exe("/x".into()) };
            let told = config
                .launch(ProverPool::Seal, None)
                .env
                .into_iter()
                .rfind(|(name, _)| name == child::LOG_FORMAT_VARIABLE);
            assert_eq!(told.map(|(_, value)| value), Some(format.into()));
        }
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there() {
        let prover = ChildProver::new(ChildConfig::with_exe("/nonexistent/bulkhead".into()));
        let job = Job {
            task: crate::proofs::Task::Finalize { cache_dir: "/nonexistent".into() },
            job_dir: None,
            max_runtime: Duration::from_secs(60),
        };
        let error = prover.run(job).await.unwrap_err();
        assert!(matches!(error, ProverError::NotStarted { .. }), "{error}");
        assert!(error.to_string().contains("/nonexistent/bulkhead"), "{error}");
    }
}
