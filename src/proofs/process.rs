//! One prover child as an OS process: how it is started, killed, reaped, and what its end means.

use super::ProverError;
use super::tmp::PrivateTmp;
use super::wire::{self, CHILD_IN, CHILD_OUT, FromChild, PipeError, ToChild};
use crate::supervisor::Exit;
use crate::supervisor::process::{self, ProcessHandle, Setup};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub use crate::supervisor::process::oom_kills;

/// How a child is started.
#[derive(Clone, Debug)]
pub struct ProverLaunch {
    pub exe: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// Holds the child's private TMPDIR (bellperson keeps its locks there).
    pub tmp_root: PathBuf,
    /// 0..=19; proofs that have a deadline run at 0.
    pub nice: i32,
    /// -1000..=1000; whom the kernel kills first when memory runs out.
    pub oom_score_adj: i32,
    /// The one GPU that it sees, by `env`; `None`: all.
    pub gpu: Option<u32>,
}

/// A started child and the node's ends of its pipes.
pub struct Process {
    to: File,
    from: File,
    handle: Arc<ProcessHandle>,
    /// Removed after the child has been reaped.
    _tmp: PrivateTmp,
    /// Has answered at least one task: its death while idle is not the next task's fault.
    pub used: bool,
    /// The one GPU that it sees; `None`: all.
    pub gpu: Option<u32>,
}

impl Process {
    /// Starts a child on the one long-lived spawner thread: the kernel's parent-death signal follows the thread that
    /// forked, not the process.
    pub fn start(launch: &ProverLaunch) -> io::Result<Self> {
        let launch = launch.clone();
        process::on_spawner(move || start_here(&launch))
    }

    pub fn handle(&self) -> Arc<ProcessHandle> {
        self.handle.clone()
    }

    /// `false` once it ended.
    pub fn alive(&self) -> bool {
        self.handle.alive()
    }

    pub fn send(&mut self, message: &ToChild) -> Result<(), PipeError> {
        wire::send(&mut self.to, message)
    }

    /// The next frame; `None` when nothing came for `silence`.
    pub fn receive(&mut self, silence: Duration) -> Result<Option<FromChild>, PipeError> {
        let mut fds = [nix::poll::PollFd::new(self.from.as_fd(), nix::poll::PollFlags::POLLIN)];
        let timeout = nix::poll::PollTimeout::try_from(silence).unwrap_or(nix::poll::PollTimeout::MAX);
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) => Ok(None),
            Ok(_) => wire::receive(&mut self.from).map(Some),
            Err(nix::errno::Errno::EINTR) => Ok(Some(FromChild::Heartbeat)),
            Err(e) => Err(PipeError::Io(e.into())),
        }
    }

    /// Its pipe is closed: waits for its end (a child that closed the pipe and lives is killed) and says how it came.
    /// `oom_before`: [`oom_kills`] when its task began.
    pub fn end(&mut self, oom_before: Option<u64>) -> Exit {
        if !self.ended_soon() {
            self.handle.kill();
        }
        self.handle.exit_since(oom_before)
    }

    /// Whether it has ended, given the moment that lies between a closed pipe and a finished exit.
    pub fn ended_soon(&self) -> bool {
        let Ok(pidfd) = self.handle.pidfd() else { return !self.alive() };
        let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        matches!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(5000u16)), Ok(n) if n > 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.retire();
        if self.ended_soon() {
            let _ = self.handle.reap();
            return;
        }
        // A process in a call to a disk that hangs dies when that call returns: its slot does not wait for it.
        let handle = self.handle.clone();
        let reaper = std::thread::Builder::new().name("prover-reaper".into());
        if let Err(error) = reaper.spawn(move || drop(handle.reap())) {
            tracing::warn!(%error, "a prover that hangs is not waited for");
        }
    }
}

/// The error of the task that a prover was running when it ended.
pub fn error_of(exit: Exit, task: &str) -> ProverError {
    let task = task.to_string();
    match exit {
        Exit::Aborted => ProverError::Aborted { task },
        Exit::Segfault => ProverError::Segfault { task },
        Exit::OutOfMemory => ProverError::OutOfMemory { task },
        Exit::Killed => ProverError::Killed { task, signal: libc::SIGKILL },
        Exit::Signal(signal) => ProverError::Killed { task, signal },
        Exit::Normal => ProverError::Failed { task, why: "the prover ended with exit code 0".into() },
        Exit::Code(code) => ProverError::Failed { task, why: format!("the prover ended with exit code {code}") },
        other => ProverError::Failed { task, why: format!("how the prover ended cannot be told: {other}") },
    }
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

fn start_here(launch: &ProverLaunch) -> io::Result<Process> {
    let tmp = PrivateTmp::make(&launch.tmp_root)?;
    let (to, child_in) = pipe(false)?;
    let (from, child_out) = pipe(true)?;
    let (in_fd, out_fd) = (child_in.as_raw_fd(), child_out.as_raw_fd());

    let mut command = Command::new(&launch.exe);
    command.args(&launch.args).envs(launch.env.iter().cloned()).env("TMPDIR", tmp.path());
    command.stdin(Stdio::null());
    // Logs: whatever the library prints on stdout belongs beside stderr.
    command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    let fds = vec![(in_fd, CHILD_IN), (out_fd, CHILD_OUT)];
    process::arm(&mut command, Setup { nice: launch.nice, oom_score_adj: launch.oom_score_adj, fds });
    let spawned = command.spawn();
    drop((child_in, child_out));
    let handle = Arc::new(ProcessHandle::new(spawned?));
    // SAFETY: the descriptors are owned and handed over.
    let (to, from) = unsafe { (File::from_raw_fd(to.into_raw_fd()), File::from_raw_fd(from.into_raw_fd())) };
    Ok(Process { to, from, handle, _tmp: tmp, used: false, gpu: launch.gpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_reason() {
        use crate::supervisor::process::exit_of;
        use std::os::unix::process::ExitStatusExt;
        let killed = |signal| std::process::ExitStatus::from_raw(signal);
        let task = || "C2".to_string();
        for (signal, by_us, oom, want) in [
            (libc::SIGABRT, false, false, ProverError::Aborted { task: task() }),
            (libc::SIGSEGV, false, false, ProverError::Segfault { task: task() }),
            (libc::SIGKILL, false, true, ProverError::OutOfMemory { task: task() }),
            (libc::SIGKILL, false, false, ProverError::Killed { task: task(), signal: 9 }),
            (libc::SIGKILL, true, true, ProverError::Killed { task: task(), signal: 9 }),
            (libc::SIGTERM, false, true, ProverError::Killed { task: task(), signal: 15 }),
        ] {
            assert_eq!(error_of(exit_of(killed(signal), by_us, oom), "C2"), want);
        }
        for code in [0, 3] {
            let error = error_of(exit_of(killed(code << 8), false, false), "C2");
            assert!(error.to_string().contains(&format!("exit code {code}")), "{error}");
        }
    }
}
