//! The command line of `bulkhead devnet`, and its folders.

use super::progress::ExitAfter;
use crate::cli::context::{Global, overrides};
use crate::cli::run;
use crate::config::{ConfigError, Overrides, load};
use std::path::PathBuf;

#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Folder of the chain and of the node [default: <repo>/devnet]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Time between two epochs once the provider has power [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub block_delay: Option<String>,
    /// Time between two epochs before that [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub warmup_delay: Option<String>,
    /// Address of the chain's JSON-RPC [default: 127.0.0.1:1234]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Start with network version 28 and migrate to 29 after this epoch [default: 29 from the start]
    #[arg(long, value_name = "EPOCH")]
    pub upgrade_epoch: Option<i64>,
    /// Only the chain: no miner, no node
    #[arg(long)]
    pub chain_only: bool,
    /// Stop, with a summary, once this is reached
    #[arg(long, value_name = "WHAT", conflicts_with = "chain_only")]
    pub exit_after: Option<ExitAfter>,
    #[command(flatten)]
    pub node: run::Args,
}

/// The paths of a devnet, which is one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    pub root: PathBuf,
    pub chain: PathBuf,
    /// The provider's repo: `bulkhead --repo <this> tree` looks into it.
    pub node: PathBuf,
    /// Log lines go here while a terminal shows progress.
    pub log: PathBuf,
}

impl Dirs {
    pub fn of(root: PathBuf) -> Dirs {
        Dirs { chain: root.join("chain"), node: root.join("node"), log: root.join("devnet.log"), root }
    }
}

impl Args {
    pub fn dirs(&self, global: &Global, env: &dyn Fn(&str) -> Option<String>) -> Result<Dirs, ConfigError> {
        Ok(Dirs::of(match &self.dir {
            Some(dir) => dir.clone(),
            None => load::repo(global.repo.as_deref(), env)?.join("devnet"),
        }))
    }

    /// The node's repo is the devnet's `node` folder; its `config.toml` holds [devnet] too.
    pub fn overrides(&self, global: &Global, env: &dyn Fn(&str) -> Option<String>) -> Result<Overrides, ConfigError> {
        let base = Overrides { repo: Some(self.dirs(global, env)?.node), ..overrides(global) };
        Ok(self
            .node
            .overrides(base)
            .flag("devnet.block_delay", "--block-delay", self.block_delay.as_ref())
            .flag("devnet.warmup_delay", "--warmup-delay", self.warmup_delay.as_ref())
            .flag("devnet.listen", "--listen", self.listen.as_ref())
            .flag("devnet.upgrade_epoch", "--upgrade-epoch", self.upgrade_epoch.as_ref()))
    }
}
