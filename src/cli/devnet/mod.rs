//! `bulkhead devnet`: an embedded chain and a whole provider in one process, and what a person sees of it.
//!
//! * [`progress`] — what is going on, as a value; what changed between two of them; when to exit. Pure.
//! * [`timeline`] — durations per phase. Pure.
//! * [`screen`] — live in a terminal, lines without one, JSON lines with `--json`.
//! * [`run_loop`] — keys, chain, miner, node, then a look at it once a second until it is enough.
//! * [`setup`] — the real parts behind that; [`poller`](mod@poller) — what is read of them, over the same APIs as anyone's.

pub mod args;
pub mod poller;
pub mod progress;
pub mod run_loop;
pub mod screen;
pub mod setup;
pub mod timeline;

use super::{CliError, Context, logging, signals::Signals};
use crate::config::RepoLock;
pub use args::{Args, Dirs};
use screen::Show;
use std::path::PathBuf;

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
