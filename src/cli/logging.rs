//! Log lines (tracing) to stderr or a file, and panics as log lines.
//!
//! A thread of its own writes them: whoever logs waits for no terminal, pipe or disk, least of all the supervisors.

use super::CliError;
use super::lossy::Lossy;
use crate::config::LogFormat;
use crate::util::{lock, log_levels};
use std::any::Any;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

pub enum To {
    Stderr,
    /// Appended; for a terminal that shows something else.
    File(PathBuf),
}

/// The writing thread, until [`flush`].
static WRITER: Mutex<Option<Lossy>> = Mutex::new(None);

type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>;

pub fn init(configured: &str, format: LogFormat, to: To) -> Result<(), CliError> {
    let filter = configured;
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        CliError::Usage(format!("--log-level {filter:?}: not a log filter such as info or warn,bulkhead=debug: {e}"))
    })?;
    let (out, colour): (Box<dyn Write + Send>, bool) = match to {
        To::Stderr => (Box::new(std::io::stderr()), std::io::IsTerminal::is_terminal(&std::io::stderr())),
        To::File(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let file = file.map_err(|e| CliError::Failed(format!("log file {}: {e}", path.display())))?;
            (Box::new(file), false)
        }
    };
    let lossy = Lossy::new(out, format);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lossy.lines()).with_ansi(colour);
    let (set, refilter): (_, Refilter) = match format {
        LogFormat::Pretty => {
            let builder = builder.with_target(true).compact().with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())))
        }
    };
    // a second call (tests in one process) keeps the first subscriber
    if set.is_ok() {
        let refilter = move |filter: &str| {
            let new = EnvFilter::try_new(filter).map_err(|e| format!("{filter:?} is not a log filter: {e}"))?;
            refilter(new)
        };
        log_levels::begin(configured, Box::new(refilter));
        *lock(&WRITER) = Some(lossy);
    }
    Ok(())
}

/// Writes what is still to be written, for a second at most: what nobody reads must not keep the process.
pub fn flush() {
    drop(lock(&WRITER).take());
}

/// Panics become log lines with place and thread; whoever catches them decides what follows.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("?").to_string();
        tracing::error!(target: "bulkhead::panic", %thread, %place, "panic: {}", panic_text(info.payload()));
    }));
}

pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_string())
}
