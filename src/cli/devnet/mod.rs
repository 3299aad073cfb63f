//! `bulkhead devnet`: an embedded chain and a whole provider in one process, and what a person sees of it.
//!
//! * [`progress`] — what is going on, as a value; what changed between two of them; when to exit. Pure.
//! * [`timeline`] — durations per phase. Pure.
//! * [`screen`] — live in a terminal, lines without one, JSON lines with `--json`.
//! * [`run_loop`] — keys, chain, miner, node, then a look at it once a second until it is enough.
//! * [`setup`] — the real parts behind that; [`poller`](mod@poller) — what is read of them, over the same APIs as anyone's.

pub mod poller;
pub mod progress;
pub mod run_loop;
pub mod screen;
pub mod setup;
pub mod timeline;

use super::args::Global;
use super::{CliError, Context, logging, run, signals::Signals};
use crate::config::{ConfigError, Overrides, RepoLock, load};
use progress::ExitAfter;
use screen::Show;
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
        let base = Overrides { repo: Some(self.dirs(global, env)?.node), ..super::overrides(global) };
        Ok(self
            .node
            .overrides(base)
            .flag("devnet.block_delay", "--block-delay", self.block_delay.as_ref())
            .flag("devnet.warmup_delay", "--warmup-delay", self.warmup_delay.as_ref())
            .flag("devnet.listen", "--listen", self.listen.as_ref())
            .flag("devnet.upgrade_epoch", "--upgrade-epoch", self.upgrade_epoch.as_ref()))
    }
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    // `overrides` made the repo out of the devnet's folder
    let root = cx.config.repo.parent().map(PathBuf::from).unwrap_or_else(|| cx.config.repo.clone());
    let dirs = Dirs::of(root);
    // the whole folder: the chain's store and the node's repo have one owner
    let _locks = (RepoLock::take(&dirs.root)?, RepoLock::take(&dirs.node)?);
    let (show, log_to) = match Show::pick(cx.out.json) {
        show if show.is_live() => (show, logging::To::File(dirs.log.clone())),
        show => (show, logging::To::Stderr),
    };
    logging::init(&cx.config.node.log, cx.config.node.log_format, log_to)?;
    crate::rpc::descriptors::raise();
    let signals = Signals::install()?;
    let stage = setup::Real::new(cx.config, dirs, args.node.new_store());
    run_loop::drive(&stage, &args, show, &signals, run_loop::POLL_INTERVAL).await
}
