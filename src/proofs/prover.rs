//! [`Prover`] on child processes: pools with reserved slots, warm PoSt children, adoption of finished results.
//!
//! WinningPoSt, WindowPoSt, sealing and verification each have slots of their own, so that proving never waits behind
//! sealing; sealing children are niced, so that a PoSt also wins the cores. A child that dies is replaced by the next task.

use super::process::{Process, ProverLaunch, oom_kills};
use super::wire::{FromChild, PipeError, ToChild};
use super::{Job, Output, Prover, ProverError, Task, child, keys, result, tasks, tmp};
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Which slots a task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProverPool {
    Winning,
    Window,
    /// Reading for a WindowPoSt: disks may hang, and the provers' slots are taken only once a partition is read.
    Read,
    Seal,
    Verify,
}

pub const POOLS: [ProverPool; 5] =
    [ProverPool::Winning, ProverPool::Window, ProverPool::Read, ProverPool::Seal, ProverPool::Verify];

impl ProverPool {
    pub fn of(task: &Task) -> Self {
        match task {
            // the challenge comes right before the proof, in the same round
            Task::WinningPost { .. } | Task::WinningChallenge { .. } => ProverPool::Winning,
            Task::WindowPost { .. } => ProverPool::Window,
            Task::PostFromVanilla { proof_type, .. } => match tasks::is_winning(*proof_type) {
                true => ProverPool::Winning,
                false => ProverPool::Window,
            },
            Task::PostChallenges { proof_type, .. } | Task::Vanilla { proof_type, .. } => {
                match tasks::is_winning(*proof_type) {
                    true => ProverPool::Winning,
                    false => ProverPool::Read,
                }
            }
            Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => ProverPool::Verify,
            Task::AddPiece { .. }
            | Task::Pc1 { .. }
            | Task::Pc2 { .. }
            | Task::C1 { .. }
            | Task::C2 { .. }
            | Task::Finalize { .. } => ProverPool::Seal,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ProverPool::Winning => "winning",
            ProverPool::Window => "window",
            ProverPool::Read => "read",
            ProverPool::Seal => "seal",
            ProverPool::Verify => "verify",
        }
    }

    /// Its children stay, with parameters and tables in memory. A sealing child gives its gigabytes back.
    fn warm(self) -> bool {
        self != ProverPool::Seal
    }
}

/// Children that may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProverPools {
    pub winning: usize,
    pub window: usize,
    /// Storage paths that are read at a time.
    pub read: usize,
    pub seal: usize,
    pub verify: usize,
}

impl Default for ProverPools {
    fn default() -> Self {
        ProverPools { winning: 1, window: 1, read: 4, seal: 1, verify: 1 }
    }
}

impl ProverPools {
    /// At least one: a pool without slots would wait for ever.
    fn slots(&self, pool: ProverPool) -> usize {
        match pool {
            ProverPool::Winning => self.winning,
            ProverPool::Window => self.window,
            ProverPool::Read => self.read,
            ProverPool::Seal => self.seal,
            ProverPool::Verify => self.verify,
        }
        .max(1)
    }
}

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
            env: vec![(keys::CACHE_VARIABLE.into(), keys::cache_dir().into())],
            json_logs: false,
            tmp_root: std::env::temp_dir(),
            pools: ProverPools::default(),
            seal_nice: 8,
            silence: Duration::from_secs(120),
        }
    }

    fn launch(&self, pool: ProverPool) -> ProverLaunch {
        let sealing = pool == ProverPool::Seal;
        let log_format = if self.json_logs { child::JSON } else { "pretty" };
        ProverLaunch {
            exe: self.exe.clone(),
            // so that `ps` tells a sealing child from one that proves
            args: self.args.iter().cloned().chain([pool.name().into()]).collect(),
            env: self.env.iter().cloned().chain([(child::LOG_FORMAT_VARIABLE.into(), log_format.into())]).collect(),
            tmp_root: self.tmp_root.clone(),
            nice: if sealing { self.seal_nice } else { 0 },
            // sealing can be repeated, a missed PoSt costs; the node itself is the last to go
            oom_score_adj: if sealing { 800 } else { 300 },
        }
    }
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
    slots: BTreeMap<ProverPool, Arc<Semaphore>>,
    idle: Mutex<BTreeMap<ProverPool, Vec<Process>>>,
    running: Mutex<BTreeMap<u64, RunningJob>>,
    next_id: AtomicU64,
    /// The supervisor that shows the children.
    tree: OnceLock<SupervisorRef>,
}

impl ChildProver {
    pub fn new(config: ChildConfig) -> Self {
        tmp::sweep(&config.tmp_root);
        let slots = POOLS.into_iter().map(|p| (p, Arc::new(Semaphore::new(config.pools.slots(p))))).collect();
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

/// Kills the child when the future that waits for it goes.
struct KillOnDrop(Arc<Mutex<Killable>>);

#[derive(Default)]
struct Killable {
    handle: Option<Arc<ProcessHandle>>,
    /// Nobody waits any more; a child that is only now being started dies at once.
    abandoned: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let mut k = lock(&self.0);
        k.abandoned = true;
        if let Some(handle) = k.handle.take() {
            handle.kill();
        }
    }
}

#[async_trait]
impl Prover for ChildProver {
    fn show_in(&self, provers: SupervisorRef) {
        let _ = self.shared.tree.set(provers); // a second tree shows none
    }

    /// A finished result in `job_dir` is adopted without a child; see [`result`].
    /// `max_runtime` runs from when a slot is free.
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        let name = job.task.name();
        let not_started = |why: String| ProverError::NotStarted { task: name.into(), why };
        if let Some(dir) = job.job_dir.clone() {
            let task = job.task.clone();
            let found = tokio::task::spawn_blocking(move || result::find(&dir, &task)).await;
            if let Ok(Some(output)) = found {
                return Ok(output);
            }
        }
        let pool = ProverPool::of(&job.task);
        // reserved per pool: never closed, so this only waits
        let slot = self.shared.slots[&pool].clone().acquire_owned().await.map_err(|e| not_started(e.to_string()))?;
        let killable = Arc::new(Mutex::new(Killable::default()));
        let guard = KillOnDrop(killable.clone());
        let (reply, answer) = oneshot::channel();
        let shared = self.shared.clone();
        let max_runtime = job.max_runtime;
        // A thread, not a runtime's task: it belongs to no arbiter and outlives the caller until the child is reaped.
        std::thread::Builder::new()
            .name(format!("prover-{}", pool.name()))
            .spawn(move || shared.serve(pool, job, slot, &killable, reply))
            .map_err(|e| not_started(e.to_string()))?;
        let answer = tokio::time::timeout(max_runtime, answer).await;
        drop(guard);
        match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(not_started("the thread that runs it is gone".into())),
            Err(_) => Err(ProverError::Hung { task: name.into(), after: max_runtime }),
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
        slot: OwnedSemaphorePermit,
        killable: &Mutex<Killable>,
        reply: oneshot::Sender<JobOutcome>,
    ) {
        let name = job.task.name();
        let message = ToChild::Run { task: job.task, job_dir: job.job_dir };
        let mut outcome = None;
        while outcome.is_none() {
            let process = match self.take_idle(pool) {
                Some(process) => Ok(process),
                None => self.start(pool),
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
        drop(slot);
        if let Some(outcome) = outcome {
            let _ = reply.send(outcome);
        }
    }

    fn start(&self, pool: ProverPool) -> io::Result<Process> {
        let process = Process::start(&self.config.launch(pool))?;
        if let Some(tree) = self.tree.get() {
            let handle = process.handle();
            tree.begin_child(OsProcess::adopted(format!("{}-{}", pool.name(), handle.pid()), handle));
        }
        Ok(process)
    }

    fn take_idle(&self, pool: ProverPool) -> Option<Process> {
        loop {
            let process = lock(&self.idle).get_mut(&pool)?.pop()?;
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
        let end = process.end();
        let oom = matches!((oom_before, oom_kills()), (Some(before), Some(after)) if after > before);
        end.error(name, oom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proving_has_slots_that_sealing_cannot_take() {
        let c2 = Task::C2 { c1: vec![], miner: 1, number: 1 };
        let post = |w| match w {
            true => Task::WinningPost { proof_type: 0, miner: 1, randomness: [0; 32], sectors: vec![] },
            false => Task::WindowPost { proof_type: 10, miner: 1, randomness: [0; 32], sectors: vec![] },
        };
        let pools = [ProverPool::of(&c2), ProverPool::of(&post(true)), ProverPool::of(&post(false))];
        assert_eq!(pools, [ProverPool::Seal, ProverPool::Winning, ProverPool::Window]);
    }

    #[test]
    fn children_are_told_how_the_node_logs() {
        for (json_logs, format) in [(false, "pretty"), (true, "json")] {
            let config = ChildConfig { json_logs, ..ChildConfig::with_exe("/x".into()) };
            let told =
                config.launch(ProverPool::Seal).env.into_iter().rfind(|(name, _)| name == child::LOG_FORMAT_VARIABLE);
            assert_eq!(told.map(|(_, value)| value), Some(format.into()));
        }
    }

    #[test]
    fn no_pool_is_without_a_slot() {
        let none = ProverPools { winning: 0, window: 0, read: 0, seal: 0, verify: 0 };
        assert!(POOLS.into_iter().all(|p| none.slots(p) == 1));
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there() {
        let prover = ChildProver::new(ChildConfig::with_exe("/nonexistent/bulkhead".into()));
        let job = Job {
            task: Task::Finalize { cache_dir: "/nonexistent".into() },
            job_dir: None,
            max_runtime: Duration::from_secs(60),
        };
        let error = prover.run(job).await.unwrap_err();
        assert!(matches!(error, ProverError::NotStarted { .. }), "{error}");
        assert!(error.to_string().contains("/nonexistent/bulkhead"), "{error}");
    }
}
