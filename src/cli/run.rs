//! `bulkhead run` and `bulkhead stop`.

use super::client::NodeClient;
use super::launch;
use super::miner_flags::MinerFlags;
use super::render::tree::exit_text;
use super::signals::Signals;
use super::wiring;
use super::{CliError, Context};
use crate::config::values::{format_duration, parse_duration};
use crate::config::{Config, ConfigError, DirectoryKind, Overrides, Reading, RepoLock};
use crate::node::identity::NewStore;
use crate::node::settings::Origin;
use crate::supervisor::Exit;
use crate::util::log_levels;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args, Debug, Clone, Default)]
pub struct Args {
    /// Address of the StorageMiner JSON-RPC [default: 127.0.0.1:2345]
    #[arg(long, value_name = "IP:PORT")]
    pub api_listen: Option<String>,
    /// Address of the admin HTTP [default: 127.0.0.1:2346]
    #[arg(long, value_name = "IP:PORT")]
    pub admin_listen: Option<String>,
    /// Address of the market's libp2p host, a multiaddr [default: /ip4/127.0.0.1/tcp/0]
    #[arg(long, value_name = "MULTIADDR")]
    pub market_listen: Option<String>,
    /// Begin a new store where this repo's is missing or empty: sectors that were being sealed are lost
    #[arg(long)]
    pub new_store: bool,
    #[command(flatten)]
    pub miner: MinerFlags,
}

impl Args {
    pub fn new_store(&self) -> NewStore {
        if self.new_store { NewStore::Always } else { NewStore::FirstStart }
    }

    pub fn overrides(&self, base: Overrides) -> Overrides {
        self.miner
            .overrides(base)
            .flag("api.listen", "--api-listen", self.api_listen.as_ref())
            .flag("admin.listen", "--admin-listen", self.admin_listen.as_ref())
            .flag("market.listen", "--market-listen", self.market_listen.as_ref())
    }
}

#[derive(clap::Args, Debug)]
pub struct StopArgs {
    /// How long to wait for the node to end; 0s: ask only
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = |s: &str| parse_duration(s).ok_or("a duration such as 30s or 2m"))]
    pub wait: Duration,
}

pub async fn run(new: NewStore, cx: Context) -> Result<(), CliError> {
    crate::rpc::descriptors::raise();
    ready(&cx.config)?;
    let config = &wiring::with_miner_pool(cx.config.clone()).await?;
    let _lock = RepoLock::take(&config.repo)?;
    let signals = Signals::install()?;
    let mut hangups = Signals::hangups()?;
    let node = launch::node(config, Some(Arc::new(FromFile::new(&cx))), new).await?;
    tracing::info!(repo = %config.repo.display(), miner = config.node.miner, "the node is up");
    for (actor, why) in node.backend.held_down() {
        tracing::error!(actor, "not up yet, tried again: {why}");
    }
    let reload = async {
        while hangups.recv().await.is_some() {
            let _ = node.reloader.reload("SIGHUP").await; // what came of it is in the audit log
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        name = signals.first() => {
            tracing::info!("{name}: stopping in order; once more to leave at once");
            node.stop().await;
            Ok(())
        }
        exit = node.ended() => outcome(exit),
        () = reload => Ok(()), // never
    }
}

/// The configuration of this process: the file as it is when it is read, environment and flags as they were.
struct FromFile {
    started_with: Config,
    reading: Reading,
}

impl FromFile {
    fn new(cx: &Context) -> FromFile {
        FromFile { started_with: cx.config.clone(), reading: cx.reading.clone() }
    }
}

impl Origin for FromFile {
    fn started_with(&self) -> &Config {
        &self.started_with
    }
    fn read(&self) -> Result<Config, ConfigError> {
        self.reading.read().map(|loaded| loaded.config)
    }
    fn log(&self, filter: &str) -> Result<(), String> {
        log_levels::configure(filter).map_err(|e| e.to_string())
    }
}

/// Checks what must be known before a tree is worth building.
pub fn ready(config: &Config) -> Result<(), CliError> {
    if config.node.miner.is_none() {
        return Err(CliError::NotInitialised { repo: config.repo.clone() });
    }
    if config.cluster.kind() == DirectoryKind::Etcd && !cfg!(feature = "cluster") {
        return Err(CliError::NoClusterFeature);
    }
    Ok(())
}

/// How a tree that ended by itself ends the process.
pub fn outcome(exit: Exit) -> Result<(), CliError> {
    match exit {
        Exit::Normal | Exit::Shutdown => Ok(()),
        exit => Err(CliError::Escalated(exit_text(&exit))),
    }
}

pub async fn stop(args: StopArgs, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    node.admin_post("/stop").await?;
    let started = Instant::now();
    let mut gone = false;
    while !gone && started.elapsed() < args.wait {
        // asked of another process: nothing here could be awaited instead
        tokio::time::sleep(Duration::from_millis(100)).await;
        gone = node.is_gone().await;
    }
    if !gone && !args.wait.is_zero() {
        let wait = format_duration(args.wait);
        return Err(CliError::Failed(format!(
            "the node has not ended within {wait}; `bulkhead tree` shows what it waits for"
        )));
    }
    cx.out.answer(&serde_json::json!({ "stopped": gone }), |_| {
        if gone { "stopped" } else { "asked to stop" }.to_string()
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_orderly_end_is_exit_0() {
        let code = |exit| outcome(exit).err().map(|e| e.exit_code());
        assert_eq!(code(Exit::Normal), None);
        assert_eq!(code(Exit::Shutdown), None);
        for exit in [
            Exit::ShutdownWith("intensity".into()),
            Exit::Failed("x".into()),
            Exit::Panicked("x".into()),
            Exit::Killed,
            Exit::Hung("x".into()),
        ] {
            assert_eq!(code(exit), Some(70));
        }
    }
}
