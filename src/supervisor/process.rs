//! OS processes as supervised actors: started by one long-lived thread, stopped with their whole group, reaped, and
//! their end told as an [`Exit`].

use super::actor::{Actor, Handler, Message};
use super::exit::Exit;
use super::exit::StartError;
use super::policy::Restart;
use super::shell::{Cx, Ref};
use super::spec::ChildSpec;
use crate::util::lock;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Signals and reaps a process; safe after it was reaped, when its number may be somebody else's.
pub struct ProcessHandle {
    state: Mutex<State>,
    oom_before: Option<u64>,
}

struct State {
    child: Child,
    reaped: Option<ExitStatus>,
    /// We killed it, so SIGKILL does not mean that memory ran out.
    killed: bool,
    /// It was done: being killed is no fault.
    retired: bool,
}

impl ProcessHandle {
    /// The child must lead a process group of its own: see [`arm`].
    pub fn new(child: Child) -> ProcessHandle {
        let state = State { child, reaped: None, killed: false, retired: false };
        ProcessHandle { state: Mutex::new(state), oom_before: oom_kills() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    /// `false` once it ended.
    pub fn alive(&self) -> bool {
        let mut state = self.lock();
        if state.reaped.is_none() {
            state.reaped = state.child.try_wait().ok().flatten();
        }
        state.reaped.is_none()
    }

    /// SIGKILL to its process group.
    pub fn kill(&self) {
        let mut state = self.lock();
        if state.reaped.is_none() {
            state.killed = true;
            signal_group(&state.child, libc::SIGKILL);
        }
    }

    /// As [`ProcessHandle::kill`], of one that is not needed any more: its end counts as normal.
    pub fn retire(&self) {
        self.lock().retired = true;
        self.kill();
    }

    /// SIGTERM to its process group.
    fn ask_to_end(&self) {
        let state = self.lock();
        if state.reaped.is_none() {
            signal_group(&state.child, libc::SIGTERM);
        }
    }

    /// Waits for the end without holding the lock that [`ProcessHandle::kill`] needs, and takes what is left of its
    /// group with it. Also says whether it was we who killed it. Several may wait.
    pub fn reap(&self) -> io::Result<(ExitStatus, bool)> {
        let pid = self.pid();
        let mut waited = Ok(());
        if self.lock().reaped.is_none() {
            // SAFETY: an all-zero siginfo_t is valid; waitid fills it. WNOWAIT leaves the zombie, and so the number.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                while libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT) == -1 {
                    let e = io::Error::last_os_error();
                    if e.kind() != io::ErrorKind::Interrupted {
                        waited = Err(e); // somebody else reaped it meanwhile, or nobody can
                        break;
                    }
                }
            }
        }
        let mut state = self.lock();
        let status = match state.reaped {
            Some(status) => status,
            None => {
                waited?;
                signal_group(&state.child, libc::SIGKILL); // its own children; it is a zombie itself
                state.child.wait()?
            }
        };
        state.reaped = Some(status);
        Ok((status, state.killed))
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let state = self.lock();
        if state.reaped.is_some() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: a system call on a number that is still the child's: it is not reaped, and the lock is held.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, state.child.id(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new and owned here.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// How it ended; waits for that.
    pub fn exit(&self) -> Exit {
        self.exit_since(self.oom_before)
    }

    /// As [`ProcessHandle::exit`]; `oom_before`: [`oom_kills`] when what it was doing began.
    pub fn exit_since(&self, oom_before: Option<u64>) -> Exit {
        let oom = |before, after| matches!((before, after), (Some(b), Some(a)) if a > b);
        match self.reap() {
            Ok(_) if self.lock().retired => Exit::Normal,
            Ok((status, killed)) => exit_of(status, killed, oom(oom_before, oom_kills())),
            Err(why) => Exit::Failed(format!("how the process ended cannot be told: {why}")),
        }
    }
}

fn signal_group(child: &Child, signal: i32) {
    // SAFETY: the child leads its own group and is not reaped, so the number is still its own.
    unsafe { libc::kill(-(child.id() as i32), signal) };
}

/// The exit reason of a process. `oom`: the kernel counted an out-of-memory kill meanwhile.
pub fn exit_of(status: ExitStatus, killed_by_us: bool, oom: bool) -> Exit {
    match (status.signal(), status.code()) {
        (Some(libc::SIGABRT), _) => Exit::Aborted,
        (Some(libc::SIGSEGV | libc::SIGBUS), _) => Exit::Segfault,
        (Some(libc::SIGKILL), _) if killed_by_us => Exit::Killed,
        (Some(libc::SIGKILL), _) if oom => Exit::OutOfMemory,
        (Some(signal), _) => Exit::Signal(signal),
        (None, Some(0)) => Exit::Normal,
        (None, Some(code)) => Exit::Code(code),
        (None, None) => Exit::Failed("the process ended, nobody knows how".into()),
    }
}

type SpawnJob = Box<dyn FnOnce() + Send>;

/// Runs `start` on the one long-lived thread that starts processes: the kernel's parent-death signal follows the
/// thread that forked, not the process.
pub fn on_spawner<T: Send + 'static>(start: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    static SPAWNER: OnceLock<Mutex<Sender<SpawnJob>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<SpawnJob>();
        let _ = std::thread::Builder::new().name("proc-spawner".into()).spawn(move || {
            for job in queue {
                job();
            }
        });
        Mutex::new(jobs)
    });
    let (reply, answer) = channel();
    let job: SpawnJob = Box::new(move || drop(reply.send(start())));
    // A lost job drops its reply channel, which is seen below.
    let _ = lock(spawner).send(job);
    answer.recv().map_err(|_| io::Error::other("the thread that starts processes is gone"))?
}

/// How a process is set up between fork and exec.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// 0..=19.
    pub nice: i32,
    /// -1000..=1000; whom the kernel kills first when memory runs out.
    pub oom_score_adj: i32,
    /// Descriptors that it gets, `(ours, its number)`; ours must be higher than all of its.
    pub fds: Vec<(RawFd, RawFd)>,
}

/// Makes what `command` starts the leader of a group, killed with the thread that starts it (so start it on
/// [`on_spawner`]), without a core file, and with no descriptor of ours but stdio and those of `setup`.
pub fn arm(command: &mut Command, setup: Setup) {
    let parent = std::process::id() as i32;
    let oom = setup.oom_score_adj.to_string().into_bytes();
    let first_closed = setup.fds.iter().map(|(_, to)| to + 1).max().unwrap_or(3).max(3) as libc::c_uint;
    // SAFETY: between fork and exec only system calls on memory that was prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            libc::setpgid(0, 0);
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            // the parent may have died before the line above
            if libc::getppid() != parent {
                libc::_exit(1);
            }
            let core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &core);
            if setup.nice != 0 {
                libc::setpriority(libc::PRIO_PROCESS, 0, setup.nice);
            }
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, oom.as_ptr().cast(), oom.len());
                libc::close(fd);
            }
            for (from, to) in &setup.fds {
                if libc::dup2(*from, *to) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            // Everything else the node has open stays with the node. Marked, not closed: std reports a failed exec on one.
            libc::syscall(libc::SYS_close_range, first_closed, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Out-of-memory kills that the kernel has counted in our control group. `None` without cgroup v2.
pub fn oom_kills() -> Option<u64> {
    let group = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|l| l.strip_prefix("0::"))?;
    let events =
        fs::read_to_string(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).join("memory.events"));
    parse_oom_kills(&events.ok()?)
}

fn parse_oom_kills(events: &str) -> Option<u64> {
    events.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// A program that a child spec runs.
#[derive(Clone, Debug)]
pub struct Program {
    pub exe: PathBuf,
    pub args: Vec<OsString>,
    /// On top of this process's environment.
    pub env: Vec<(OsString, OsString)>,
    pub nice: i32,
    pub oom_score_adj: i32,
}

impl Program {
    fn start(&self) -> io::Result<ProcessHandle> {
        let program = self.clone();
        on_spawner(move || {
            let mut command = Command::new(&program.exe);
            command.args(&program.args).envs(program.env).stdin(Stdio::null());
            arm(&mut command, Setup { nice: program.nice, oom_score_adj: program.oom_score_adj, fds: Vec::new() });
            command.spawn().map(ProcessHandle::new)
        })
    }
}

/// A process as an actor. The incarnation ends when the process does, for the reason that its status says; an orderly
/// stop sends SIGTERM and waits for it; whatever ends the incarnation kills what is left of the process' group.
pub struct OsProcess {
    handle: Arc<ProcessHandle>,
}

impl OsProcess {
    /// Each incarnation runs the program anew.
    pub fn child(id: impl Into<String>, address: &Ref<OsProcess>, program: Program) -> ChildSpec {
        ChildSpec::actor(id, address, move |_| {
            let program = program.clone();
            async move {
                let exe = program.exe.display().to_string();
                OsProcess::run(program).await.map_err(|e| StartError(format!("{exe}: {e}")))
            }
        })
    }

    /// The process has its owner before anybody waits for it: a start that is given up meanwhile leaves none behind.
    async fn run(program: Program) -> io::Result<OsProcess> {
        let start = move || program.start().map(|handle| OsProcess { handle: Arc::new(handle) });
        tokio::task::spawn_blocking(start).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// A process that somebody else started and uses: in the tree while it lives, killed by what kills its row.
    pub fn adopted(id: impl Into<String>, handle: Arc<ProcessHandle>) -> ChildSpec {
        let id = id.into();
        let address = Ref::new(format!("/process/{id}"), 4);
        ChildSpec::actor(id, &address, move |_| {
            let handle = handle.clone();
            async move { Ok(OsProcess { handle }) }
        })
        .restart(Restart::Temporary)
        .fleeting()
    }
}

/// The process id.
#[derive(Clone, Copy, Debug)]
pub struct Pid;
impl Message for Pid {
    type Reply = u32;
}

struct Ended;
impl Message for Ended {
    type Reply = ();
}

async fn ended(handle: &ProcessHandle) {
    // No descriptor: it has been reaped, or the system has none of these; the exit is then waited for where it is read.
    let Ok(pidfd) = handle.pidfd() else { return };
    // SAFETY: the descriptor is owned by the registration from here on, so it stays open as long as that.
    if let Ok(fd) = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) } {
        let _ = fd.readable().await;
    }
}

impl Actor for OsProcess {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let handle = self.handle.clone();
        cx.spawn(async move {
            ended(&handle).await;
            Ended
        });
        Ok(())
    }

    async fn stopping(&mut self, _: &Cx<Self>) {
        self.handle.ask_to_end();
        ended(&self.handle).await;
    }
}

impl Handler<Ended> for OsProcess {
    async fn handle(&mut self, _: Ended, _: &Cx<Self>) -> Result<(), Exit> {
        let handle = self.handle.clone();
        let exit = tokio::task::spawn_blocking(move || handle.exit()).await;
        Err(exit.unwrap_or_else(Exit::failed))
    }
}

impl Handler<Pid> for OsProcess {
    async fn handle(&mut self, _: Pid, _: &Cx<Self>) -> Result<u32, Exit> {
        Ok(self.handle.pid())
    }
}

impl Drop for OsProcess {
    fn drop(&mut self) {
        if !self.handle.alive() {
            return;
        }
        self.handle.kill();
        let handle = self.handle.clone();
        // Reaped elsewhere: one that is stuck in the kernel must not hold up the thread. Without a thread it stays a zombie.
        let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || drop(handle.reap()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_reason() {
        // As wait(2) gives it: the signal in the low bits, the exit code above them.
        let status = |signal: i32, code: i32| ExitStatus::from_raw(code << 8 | signal);
        for (signal, code, by_us, oom, want) in [
            (0, 0, false, false, Exit::Normal),
            (0, 3, false, false, Exit::Code(3)),
            (libc::SIGABRT, 0, false, false, Exit::Aborted),
            (libc::SIGSEGV, 0, false, true, Exit::Segfault),
            (libc::SIGBUS, 0, false, false, Exit::Segfault),
            (libc::SIGKILL, 0, false, true, Exit::OutOfMemory),
            (libc::SIGKILL, 0, true, true, Exit::Killed),
            (libc::SIGKILL, 0, false, false, Exit::Signal(9)),
            (libc::SIGTERM, 0, true, true, Exit::Signal(15)),
        ] {
            assert_eq!(exit_of(status(signal, code), by_us, oom), want, "{signal} {code}");
        }
    }

    #[test]
    fn a_start_that_nobody_waits_for_leaves_no_process() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let mark = format!("3600.{}", std::process::id());
        let program = Program {
            exe: "sleep".into(),
            args: vec![mark.clone().into()],
            env: Vec::new(),
            nice: 0,
            oom_score_adj: 0,
        };
        runtime.block_on(async {
            let mut start = Box::pin(OsProcess::run(program));
            assert!(futures::poll!(start.as_mut()).is_pending());
            drop(start);
            tokio::task::spawn_blocking(|| ()).await.unwrap(); // its turn comes after the start's
        });
        let runs = || {
            let lines = fs::read_dir("/proc").unwrap().flatten().map(|e| fs::read(e.path().join("cmdline")));
            lines.flatten().any(|line| line.split(|b| *b == 0).any(|arg| arg == mark.as_bytes()))
        };
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while runs() {
            assert!(std::time::Instant::now() < until, "it is left behind");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_kernels_count_is_read() {
        assert_eq!(parse_oom_kills("low 0\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(parse_oom_kills("low 0\n"), None);
        assert_eq!(parse_oom_kills("oom_kill x\n"), None);
    }
}
