//! The inside of a prover child (`bulkhead prover`): reads tasks from fd 3, answers on fd 4, one at a time.
//!
//! stdout and stderr are the proofs library's logs, never protocol.

use super::wire::{self, CHILD_IN, CHILD_OUT, FromChild, ToChild, WireError};
use super::{result, tasks};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a busy child says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// How the node writes its log lines, which a child's lines stand between: the variable of `node.log_format`.
pub const LOG_FORMAT_VARIABLE: &str = "BULKHEAD_NODE_LOG_FORMAT";
pub const JSON: &str = "json";

/// The end of a pipe that only this process uses.
type Out = Arc<Mutex<File>>;

/// What `bulkhead prover` does. Ends with success when the node closes the pipe.
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

fn say(out: &Out, message: &FromChild) -> Result<(), WireError> {
    wire::send(&mut *out.lock().unwrap_or_else(PoisonError::into_inner), message)
}

fn serve(from: &mut File, out: &Out) -> Result<(), WireError> {
    say(out, &FromChild::Ready)?;
    loop {
        let ToChild::Run { task, job_dir } = match wire::receive(from) {
            Ok(message) => message,
            Err(WireError::Closed) => return Ok(()),
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
            Ok(Ok(output)) => {
                let kept = match &job_dir {
                    Some(dir) => result::keep(dir, &task, &output).map_err(|e| {
                        format!("the result cannot be written to {}: {e}; free space or fix the folder", dir.display())
                    }),
                    None => Ok(()),
                };
                match kept {
                    Ok(()) => say(out, &FromChild::Output(output))?,
                    Err(why) => say(out, &FromChild::Failed { why, spent: false })?,
                }
            }
            Ok(Err(why)) => say(out, &FromChild::Failed { why, spent: false })?,
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
