//! The input of every command: the flags that all have, the configuration, where answers go.

use super::output::Out;
use crate::config::{Config, Overrides, Reading};
use clap::Args;
use std::path::PathBuf;

/// The input of every command.
pub struct Context {
    pub config: Config,
    /// The sources of that configuration.
    pub reading: Reading,
    pub out: Out,
    /// `--repo` was given: it beats MINER_API_INFO.
    pub repo_given: bool,
}

/// The flags that every command has.
pub fn overrides(global: &Global) -> Overrides {
    Overrides { repo: global.repo.clone(), file: global.config.clone(), ..Overrides::default() }
        .flag("node.log", "--log-level", global.log_level.as_ref())
        .flag("node.log_format", "--log-format", global.log_format.as_ref())
}

/// Apart from a command's own options in its help.
const GLOBAL: &str = "Global options";

#[derive(Args, Debug, Clone, Default)]
pub struct Global {
    /// The node's folder [default: $BULKHEAD_PATH, $LOTUS_MINER_PATH, $LOTUS_STORAGE_PATH or ~/.bulkhead]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub repo: Option<PathBuf>,
    /// Configuration file [default: <repo>/config.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
    /// Log filter, such as info or warn,bulkhead::actors::window_post=debug [default: $RUST_LOG or info]
    #[arg(long, global = true, value_name = "FILTER", help_heading = GLOBAL)]
    pub log_level: Option<String>,
    /// pretty or json
    #[arg(long, global = true, value_name = "FORMAT", help_heading = GLOBAL)]
    pub log_format: Option<String>,
    /// Print JSON instead of text
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
}
