//! One prover child as an OS process: how it is started, killed, reaped, and what its end means.

use super::ProverError;
use super::tmp::PrivateTmp;
use super::wire::{self, CHILD_IN, CHILD_OUT, FromChild, PipeError, ToChild};
use crate::supervisor::process::{self, ProcessHandle, Setup};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
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
    pub fn end(&mut self) -> ProcessEnd {
        if !self.ended_soon() {
            self.handle.kill();
        }
        match self.handle.reap() {
            Ok((status, killed_by_us)) => ProcessEnd { code: status.code(), signal: status.signal(), killed_by_us },
            Err(_) => ProcessEnd { code: None, signal: None, killed_by_us: false },
        }
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

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub killed_by_us: bool,
}

impl ProcessEnd {
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
    Ok(Process { to, from, handle, _tmp: tmp, used: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_reason() {
        let end = |signal, code, killed_by_us| ProcessEnd { signal, code, killed_by_us };
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
}
