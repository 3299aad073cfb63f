//! The inside of a prover child (`bulkhead prover`): reads tasks from fd 3, answers on fd 4, one at a time.
//!
//! stdout and stderr are the proofs library's logs, never protocol.

use super::wire::{self, CHILD_IN, CHILD_OUT, FromChild, PipeError, ToChild};
use super::{Output, Task, result, tasks};
use crate::util::lock;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a busy child says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// How the node writes its log lines, which a child's lines stand between: the variable of `node.log_format`.
pub const LOG_FORMAT_VARIABLE: &str = "BULKHEAD_NODE_LOG_FORMAT";
pub const JSON: &str = "json";

/// The end of a pipe that only this process uses.
type Out = Arc<Mutex<File>>;

/// The body of `bulkhead prover`. Ends with success when the node closes the pipe.
pub fn main() -> ExitCode {
    for fd in [CHILD_IN, CHILD_OUT] {
        // SAFETY: fcntl on a number; a closed one is answered with an error.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            eprintln!("bulkhead prover is started by a bulkhead node, not by hand: file descriptor {fd} is not open");
            return ExitCode::from(2);
        }
    }
    // std's handler for stack overflows swallows a SIGSEGV that was sent. Here every one ends the process, as it says.
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: restores the default action before any thread exists.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    init_logs();
    // SAFETY: both are open (checked above), given to this process by its parent, and owned here alone.
    let (mut from, out) = unsafe { (File::from_raw_fd(CHILD_IN), File::from_raw_fd(CHILD_OUT)) };
    let out: Out = Arc::new(Mutex::new(out));
    match serve(&mut from, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("bulkhead prover: {e}");
            ExitCode::from(3)
        }
    }
}

fn init_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // a second logger in a test process is no reason to stop
    let _ = match std::env::var(LOG_FORMAT_VARIABLE).is_ok_and(|format| format == JSON) {
        true => builder.json().try_init(),
        false => builder.compact().try_init(),
    };
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: "bulkhead::panic", %place, "panic: {}", panic_text(info.payload()));
    }));
}

fn say(out: &Out, message: &FromChild) -> Result<(), PipeError> {
    wire::send(&mut *lock(out), message)
}

fn serve(from: &mut File, out: &Out) -> Result<(), PipeError> {
    say(out, &FromChild::Ready)?;
    loop {
        let ToChild::Run { task, job_dir } = match wire::receive(from) {
            Ok(message) => message,
            Err(PipeError::Closed) => return Ok(()),
            Err(e) => return Err(e),
        };
        say(out, &FromChild::Started)?;
        let beat = Heartbeat::start(out.clone());
        let progress = |text: &str| {
            // a broken pipe shows in the answer
            let _ = say(out, &FromChild::Progress(text.into()));
        };
        let ran = catch_unwind(AssertUnwindSafe(|| tasks::execute(task.clone(), &progress)));
        drop(beat);
        match ran {
            Ok(Ok(output)) => say(out, &told(keep(&task, job_dir.as_deref(), output), tasks::tainted()))?,
            Ok(Err(why)) => say(out, &FromChild::Failed { why, spent: tasks::tainted() })?,
            Err(panic) => {
                // The library may hold a poisoned lock now (its GPU lock is one): this process has done its last task.
                let why = format!("panicked: {}", panic_text(panic.as_ref()));
                say(out, &FromChild::Failed { why, spent: true })?;
                return Ok(());
            }
        }
        if tasks::tainted() {
            return Ok(());
        }
    }
}

/// The node must know with the answer that no other task may be given here: a process with a thread that hangs on a disk
/// may live on, its pipes open, long after it ended its work.
fn told(answer: FromChild, tainted: bool) -> FromChild {
    match answer {
        FromChild::Output(output) if tainted => FromChild::Last(output),
        FromChild::Failed { why, .. } if tainted => FromChild::Failed { why, spent: true },
        answer => answer,
    }
}

/// The result, once it is in its folder. A PoSt has a deadline and can be made again: it is given also when it cannot be kept.
fn keep(task: &Task, job_dir: Option<&Path>, output: Output) -> FromChild {
    let Some(dir) = job_dir else { return FromChild::Output(output) };
    match result::keep(dir, task, &output) {
        Ok(()) => FromChild::Output(output),
        Err(error) if task.is_post() => {
            tracing::warn!(dir = %dir.display(), %error, "a PoSt is not kept; it is made again if this process's node dies");
            FromChild::Output(output)
        }
        Err(e) => {
            let dir = dir.display();
            let why = format!("the result cannot be written to {dir}: {e}; free space or fix the folder");
            FromChild::Failed { why, spent: false }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(s), _) => s,
        (_, Some(s)) => s,
        _ => "with something that is no text",
    }
}

/// Sends heartbeats until dropped, from its own thread: a proof keeps all others busy.
struct Heartbeat {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heartbeat {
    fn start(out: Out) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(HEARTBEAT) {
                if say(&out, &FromChild::Heartbeat).is_err() {
                    return;
                }
            }
        });
        // without the thread the parent's deadline still stands
        Heartbeat { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_says_so_with_its_answer() {
        let output = || FromChild::Output(Output::Done);
        let failed = |spent| FromChild::Failed { why: "w".into(), spent };
        assert_eq!([told(output(), false), told(output(), true)], [output(), FromChild::Last(Output::Done)]);
        assert_eq!([told(failed(false), false), told(failed(false), true)], [failed(false), failed(true)]);
    }

    #[test]
    fn a_post_that_cannot_be_kept_is_given_and_a_sealing_step_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("job"), folder.path().join("file/job"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        let post = Task::WindowPost { proof_type: 10, miner: 1000, randomness: [0; 32], sectors: vec![] };
        let seal = Task::C2 { c1: vec![1], miner: 1000, number: 7 };
        let output = Output::Proof(vec![9]);
        for (task, dir, given) in [
            (&post, None, true),
            (&post, Some(&good), true),
            (&post, Some(&bad), true),
            (&seal, Some(&good), true),
            (&seal, Some(&bad), false),
        ] {
            let answer = keep(task, dir.map(|dir| dir.as_path()), output.clone());
            assert_eq!(matches!(answer, FromChild::Output(_)), given, "{} {dir:?}", task.name());
            assert_eq!(dir == Some(&good), dir.is_some_and(|dir| result::find(dir, task).is_some()));
        }
    }
}
