//! The real parts of a devnet, put together.

use super::Dirs;
use super::drive::{ReportKeys, Stage};
use super::progress::Progress;
use crate::cli::CliError;
use crate::config::Config;
use async_trait::async_trait;

pub struct Real {
    config: Config,
    dirs: Dirs,
}

impl Real {
    pub fn new(config: Config, dirs: Dirs) -> Real {
        Real { config, dirs }
    }

    fn not_wired(&self, what: &str) -> CliError {
        CliError::Failed(format!(
            "{what} of {} at {}: not wired yet",
            self.dirs.root.display(),
            self.config.devnet.listen
        ))
    }
}

#[async_trait]
impl Stage for Real {
    async fn keys(&self, _report: ReportKeys<'_>) -> Result<String, CliError> {
        Err(self.not_wired("keys"))
    }
    async fn chain(&self) -> Result<String, CliError> {
        Err(self.not_wired("chain"))
    }
    async fn miner(&self) -> Result<String, CliError> {
        Err(self.not_wired("miner"))
    }
    async fn node(&self) -> Result<String, CliError> {
        Err(self.not_wired("node"))
    }
    async fn look(&self, last: &Progress) -> Progress {
        last.clone()
    }
    async fn ended(&self) -> Result<(), CliError> {
        std::future::pending().await
    }
    async fn stop(&self) {}
}
