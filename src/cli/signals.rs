//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once. SIGHUP: a reload.

use super::CliError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Cheap to clone; every clone sees the first signal.
#[derive(Clone)]
pub struct Signals {
    first: watch::Receiver<Option<&'static str>>,
}

impl Signals {
    /// Takes both signals over for the rest of the process.
    pub fn install() -> Result<Signals, CliError> {
        let fail = |e: std::io::Error| CliError::Failed(format!("cannot take over SIGINT and SIGTERM: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let (tell, first) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let (name, code) = tokio::select! {
                    _ = interrupt.recv() => ("SIGINT", 130),
                    _ = terminate.recv() => ("SIGTERM", 143),
                };
                if tell.borrow().is_some() {
                    super::output::print_error(&format!(
                        "{name} again: leaving at once; the state on disk is complete"
                    ));
                    std::process::exit(code);
                }
                tell.send_replace(Some(name));
            }
        });
        Ok(Signals { first })
    }

    /// SIGHUP, which no longer ends the process.
    pub fn hangups() -> Result<Signal, CliError> {
        let fail = |e: std::io::Error| CliError::Failed(format!("cannot take over SIGHUP: {e}"));
        signal(SignalKind::hangup()).map_err(fail)
    }

    /// Never: for tests and commands without signals.
    pub fn never() -> Signals {
        let (tell, first) = watch::channel(None);
        std::mem::forget(tell);
        Signals { first }
    }

    /// Completes with the signal's name.
    pub async fn first(&self) -> &'static str {
        let mut first = self.first.clone();
        loop {
            if let Some(name) = *first.borrow_and_update() {
                return name;
            }
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
