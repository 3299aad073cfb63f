//! One prover child as an OS process: how it is started, killed, reaped, and what its end means.

use super::ProverError;
use super::wire::{self, CHILD_IN, CHILD_OUT, FromChild, ToChild, WireError};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Launch {
    pub exe: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// Holds the child's private TMPDIR (bellperson keeps its locks there).
    pub tmp_root: PathBuf,
    /// 0..=19; proofs that have a deadline run at 0.
    pub nice: i32,
    /// -1000..=1000; whom the kernel kills first when memory runs out.
    pub oom_score_adj: i32,
}

/// A started child and the node's ends of its pipes.
pub struct Process {
    to: File,
    from: File,
    handle: Arc<Handle>,
    tmp: PathBuf,
    /// Has answered at least one task: its death while idle is not the next task's fault.
    pub used: bool,
}

/// Kills; safe after the child was reaped, when its number may be somebody else's.
pub struct Handle {
    state: Mutex<State>,
}

struct State {
    child: Child,
    reaped: Option<ExitStatus>,
    /// We killed it, so SIGKILL does not mean that memory ran out.
    killed: bool,
}

impl Handle {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    /// SIGKILL to the child's process group.
    pub fn kill(&self) {
        let mut state = self.lock();
        if state.reaped.is_none() {
            state.killed = true;
            // SAFETY: the child leads its own group and is not reaped, so the number is still its own.
            unsafe { libc::kill(-(state.child.id() as i32), libc::SIGKILL) };
        }
    }

    /// Waits for the end without holding the lock that [`Handle::kill`] needs.
    fn reap(&self) -> io::Result<(ExitStatus, bool)> {
        let pid = self.pid();
        if self.lock().reaped.is_none() {
            // SAFETY: an all-zero siginfo_t is valid; waitid fills it. WNOWAIT leaves the zombie, and so the number.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                while libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT) == -1 {
                    let e = io::Error::last_os_error();
                    if e.kind() != io::ErrorKind::Interrupted {
                        return Err(e);
                    }
                }
            }
        }
        let mut state = self.lock();
        let status = match state.reaped {
            Some(status) => status,
            None => state.child.wait()?,
        };
        state.reaped = Some(status);
        Ok((status, state.killed))
    }
}

impl Process {
    /// Starts a child on the one long-lived spawner thread: the kernel's parent-death signal follows the thread that
    /// forked, not the process.
    pub fn start(launch: &Launch) -> io::Result<Self> {
        let launch = launch.clone();
        let (reply, answer) = channel();
        spawner().send(Box::new(move || {
            let _ = reply.send(start_here(&launch));
        }));
        answer.recv().map_err(|_| io::Error::other("the thread that starts provers is gone"))?
    }

    pub fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }

    /// `false` once it ended.
    pub fn alive(&self) -> bool {
        let mut state = self.handle.lock();
        if state.reaped.is_none() {
            state.reaped = state.child.try_wait().ok().flatten();
        }
        state.reaped.is_none()
    }

    pub fn send(&mut self, message: &ToChild) -> Result<(), WireError> {
        wire::send(&mut self.to, message)
    }

    /// The next frame; `None` when nothing came for `silence`.
    pub fn receive(&mut self, silence: Duration) -> Result<Option<FromChild>, WireError> {
        let mut fds = [nix::poll::PollFd::new(self.from.as_fd(), nix::poll::PollFlags::POLLIN)];
        let timeout = nix::poll::PollTimeout::try_from(silence).unwrap_or(nix::poll::PollTimeout::MAX);
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) => Ok(None),
            Ok(_) => wire::receive(&mut self.from).map(Some),
            Err(nix::errno::Errno::EINTR) => Ok(Some(FromChild::Heartbeat)),
            Err(e) => Err(WireError::Io(e.into())),
        }
    }

    /// Its pipe is closed: waits for its end (a child that closed the pipe and lives is killed) and says how it came.
    pub fn end(&mut self) -> End {
        if !self.ended_soon() {
            self.handle.kill();
        }
        match self.handle.reap() {
            Ok((status, killed_by_us)) => End { code: status.code(), signal: status.signal(), killed_by_us },
            Err(_) => End { code: None, signal: None, killed_by_us: false },
        }
    }

    /// Whether it has ended, given the moment that lies between a closed pipe and a finished exit.
    pub fn ended_soon(&self) -> bool {
        // SAFETY: a system call on a number; the child is not reaped while `self` lives, or `alive` says so.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.handle.pid(), 0) };
        if fd < 0 {
            return !self.alive();
        }
        // SAFETY: new and owned here.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        matches!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(5000u16)), Ok(n) if n > 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.kill();
        let _ = self.handle.reap();
        let _ = fs::remove_dir_all(&self.tmp);
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub killed_by_us: bool,
}

impl End {
    /// The error for the task that it was running. `oom`: the kernel counted an out-of-memory kill meanwhile.
    pub fn error(self, task: &str, oom: bool) -> ProverError {
        let task = task.to_string();
        match (self.signal, self.code) {
            (Some(libc::SIGABRT), _) => ProverError::Aborted { task },
            (Some(libc::SIGSEGV | libc::SIGBUS), _) => ProverError::Segfault { task },
            (Some(libc::SIGKILL), _) if oom && !self.killed_by_us => ProverError::OutOfMemory { task },
            (Some(signal), _) => ProverError::Killed { task, signal },
            (None, Some(code)) => ProverError::Failed { task, why: format!("the prover ended with exit code {code}") },
            (None, None) => ProverError::Failed { task, why: "the prover ended, nobody knows how".into() },
        }
    }
}

type SpawnJob = Box<dyn FnOnce() + Send>;

struct Spawner(Mutex<Sender<SpawnJob>>);

impl Spawner {
    fn send(&self, job: SpawnJob) {
        // a lost job drops its reply channel, which the caller sees
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    }
}

fn spawner() -> &'static Spawner {
    static SPAWNER: OnceLock<Spawner> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<SpawnJob>();
        let _ = std::thread::Builder::new().name("prover-spawner".into()).spawn(move || {
            for job in queue {
                job();
            }
        });
        Spawner(Mutex::new(jobs))
    })
}

/// A pipe; the child's end has a number that dup2 onto 3 and 4 cannot hit.
fn pipe(child_writes: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (ours, theirs) = if child_writes { (read, write) } else { (write, read) };
    // SAFETY: duplicates an open descriptor; the result is new and owned here.
    let high = unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) };
    if high == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok((ours, unsafe { OwnedFd::from_raw_fd(high) }))
}

fn start_here(launch: &Launch) -> io::Result<Process> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let tmp = launch.tmp_root.join(format!("{TMP_PREFIX}{}-{n}", std::process::id()));
    fs::create_dir_all(&tmp)?;
    let (to, child_in) = pipe(false)?;
    let (from, child_out) = pipe(true)?;
    let (in_fd, out_fd) = (child_in.as_raw_fd(), child_out.as_raw_fd());
    let parent = std::process::id() as i32;
    let oom = launch.oom_score_adj.to_string().into_bytes();
    let nice = launch.nice;

    let mut command = Command::new(&launch.exe);
    command.args(&launch.args).envs(launch.env.iter().cloned()).env("TMPDIR", &tmp);
    command.stdin(Stdio::null());
    // Logs: whatever the library prints on stdout belongs beside stderr.
    command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
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
            if nice != 0 {
                libc::setpriority(libc::PRIO_PROCESS, 0, nice);
            }
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, oom.as_ptr().cast(), oom.len());
                libc::close(fd);
            }
            if libc::dup2(in_fd, CHILD_IN) == -1 || libc::dup2(out_fd, CHILD_OUT) == -1 {
                return Err(io::Error::last_os_error());
            }
            // Everything else the node has open stays with the node. Marked, not closed: std reports a failed exec on one.
            libc::syscall(libc::SYS_close_range, 5, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
    let spawned = command.spawn();
    drop((child_in, child_out));
    let child = match spawned {
        Ok(child) => child,
        Err(e) => {
            let _ = fs::remove_dir_all(&tmp);
            return Err(e);
        }
    };
    let state = State { child, reaped: None, killed: false };
    // SAFETY: the descriptors are owned and handed over.
    let (to, from) = unsafe { (File::from_raw_fd(to.into_raw_fd()), File::from_raw_fd(from.into_raw_fd())) };
    Ok(Process { to, from, handle: Arc::new(Handle { state: Mutex::new(state) }), tmp, used: false })
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
const TMP_PREFIX: &str = "bulkhead-prover-";

/// Removes the TMPDIRs of provers whose node is gone.
pub fn sweep_tmp(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(TMP_PREFIX)) else { continue };
        let Some(pid) = rest.split('-').next().and_then(|p| p.parse::<i32>().ok()) else { continue };
        // SAFETY: signal 0 only asks whether the process exists.
        let gone =
            unsafe { libc::kill(pid, 0) } == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
        if gone {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_reason() {
        let end = |signal, code, killed_by_us| End { signal, code, killed_by_us };
        let task = || "C2".to_string();
        for (end, oom, want) in [
            (end(Some(libc::SIGABRT), None, false), false, ProverError::Aborted { task: task() }),
            (end(Some(libc::SIGSEGV), None, false), false, ProverError::Segfault { task: task() }),
            (end(Some(libc::SIGKILL), None, false), true, ProverError::OutOfMemory { task: task() }),
            (end(Some(libc::SIGKILL), None, false), false, ProverError::Killed { task: task(), signal: 9 }),
            (end(Some(libc::SIGKILL), None, true), true, ProverError::Killed { task: task(), signal: 9 }),
            (end(Some(libc::SIGTERM), None, false), true, ProverError::Killed { task: task(), signal: 15 }),
        ] {
            assert_eq!(end.error("C2", oom), want);
        }
        let exit = end(None, Some(3), false).error("C2", false);
        assert!(exit.to_string().contains("exit code 3"), "{exit}");
    }

    #[test]
    fn the_kernels_count_is_read() {
        assert_eq!(parse_oom_kills("low 0\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(parse_oom_kills("low 0\n"), None);
        assert_eq!(parse_oom_kills("oom_kill x\n"), None);
    }

    #[test]
    fn temporary_folders_of_the_dead_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let mut gone = Command::new("true").spawn().unwrap();
        let dead = gone.id();
        gone.wait().unwrap();
        let [of_dead, of_living, other] =
            [format!("{TMP_PREFIX}{dead}-0"), format!("{TMP_PREFIX}{}-0", std::process::id()), "other".into()]
                .map(|n| root.path().join(n));
        for d in [&of_dead, &of_living, &other] {
            fs::create_dir(d).unwrap();
        }
        sweep_tmp(root.path());
        assert!(!of_dead.exists() && of_living.exists() && other.exists());
    }
}
