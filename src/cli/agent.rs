//! `bulkhead agent`: seals for a manager that may be far away; its workers share its storage.

use super::run::outcome;
use super::signals::Signals;
use super::{CliError, Context, wiring};
use crate::actors::seal_agent::AgentSettings;
use crate::actors::seal_agent::messages::Slots;
use crate::config::values::parse_sector_size;
use crate::config::{Config, DirectoryKind, RepoLock};
use crate::node::agent::{AgentConfig, AgentNode};
use crate::proofs::{ActorId, ChildProver, ProverPools};
use crate::rpc::bridge::SessionTiming;
use crate::rpc::directory::Directory;
use crate::rpc::server_actor::WhereIs;
use libp2p::Multiaddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args, Debug, Clone, Default)]
pub struct Args {
    /// Name in the directory [default: cluster.node, or agent-<host>]
    #[arg(long, env = "BULKHEAD_AGENT_NAME")]
    pub name: Option<String>,
    /// Leave every task to workers, also while none has joined
    #[arg(long)]
    pub no_own_work: bool,
    /// Only work for this miner [default: whoever sends the first sector]
    #[arg(long, env = "MINER_ADDR", value_name = "t01000")]
    pub miner: Option<String>,
    /// Only take sectors of this size [default: that of the first sector]
    #[arg(long, env = "SECTOR_SIZE", value_name = "SIZE")]
    pub sector_size: Option<String>,
}

/// The agent's folder: `--repo`, else as document 2 has it.
pub fn repo(flag: Option<&std::path::Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, CliError> {
    let named = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || named("HOME").ok_or_else(|| CliError::Usage("HOME is not set: give --repo".into()));
    let path =
        match flag.map(PathBuf::from).or_else(|| named("BULKHEAD_AGENT_PATH")).or_else(|| named("LOTUS_AGENT_PATH")) {
            Some(path) => path,
            None => return Ok(home()?.join(".bulkhead-agent")),
        };
    // A shell does not expand `~` in LOTUS_AGENT_PATH="~/x".
    Ok(match path.strip_prefix("~") {
        Ok(rest) => home()?.join(rest),
        Err(_) => path,
    })
}

pub fn miner_id(text: &str) -> Result<ActorId, CliError> {
    let parsed = crate::chain::lotus_json::address::parse(text.trim());
    parsed
        .ok()
        .and_then(|a| a.id().ok())
        .ok_or_else(|| CliError::Usage(format!("MINER_ADDR {text:?}: give the miner's ID address, such as t01000")))
}

pub fn sector_size(text: &str) -> Result<u64, CliError> {
    parse_sector_size(text.trim()).map_err(|why| CliError::Usage(format!("SECTOR_SIZE {text:?}: {why}")))
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    crate::rpc::descriptors::raise();
    let config = &cx.config;
    let _lock = RepoLock::take(&config.repo)?;
    let signals = Signals::install()?;
    let agent = agent_config(&args, config)?;
    if let Some(bytes) = agent.settings.sector_size.filter(|_| agent.settings.own_work) {
        wiring::keys_ready(&config.proving.parameter_cache, bytes)?;
    }
    let slots = agent.settings.slots;
    let mut provers = wiring::provers(config)?;
    provers.pools = ProverPools { seal: slots.total() as usize, ..ProverPools::default() };
    let directory = directory(config).await?;
    let name = agent.name.clone();
    let started =
        tokio::task::spawn_blocking(move || AgentNode::start(agent, Arc::new(ChildProver::new(provers)), directory));
    let node = started.await.map_err(|e| CliError::Bug(e.to_string()))?.map_err(|e| CliError::Failed(e.to_string()))?;
    // Without it the agent serves its disks, and its own provers work; the log has said why.
    let api = node.api.ask(WhereIs, Duration::from_secs(5)).await.ok().map(tracing::field::display);
    tracing::info!(agent = name, api, peer = %node.bridge.peer_id(), repo = %config.repo.display(), "the agent is up");
    tokio::select! {
        signal = signals.first() => {
            tracing::info!("{signal}: stopping in order; once more to leave at once");
            node.stop().await;
            Ok(())
        }
        exit = node.ended() => outcome(exit),
    }
}

fn agent_config(args: &Args, config: &Config) -> Result<AgentConfig, CliError> {
    let cluster = &config.cluster;
    let name = args.name.clone().or_else(|| cluster.node.clone()).unwrap_or(format!("agent-{}", cluster.node_name()));
    let addrs = |texts: &[String]| -> Result<Vec<Multiaddr>, CliError> {
        let parse = |text: &String| text.parse().map_err(|e| CliError::Failed(format!("cluster.listen {text:?}: {e}")));
        texts.iter().map(parse).collect()
    };
    let timing = SessionTiming {
        heartbeat: cluster.heartbeat,
        suspect: cluster.suspect,
        down: cluster.down,
        ..SessionTiming::default()
    };
    let slots = Slots {
        add_piece: 1,
        pc1: config.sealing.pc1 as u32,
        pc2: config.sealing.pc2 as u32,
        commit: config.sealing.c2 as u32,
    };
    Ok(AgentConfig {
        name,
        cluster: cluster.name.clone(),
        repo: std::path::absolute(&config.repo).unwrap_or_else(|_| config.repo.clone()),
        listen: addrs(&cluster.listen)?,
        announce: addrs(&cluster.announce)?,
        timing,
        api_listen: config.api.listen,
        settings: AgentSettings {
            miner: args.miner.as_deref().filter(|m| !m.is_empty()).map(miner_id).transpose()?,
            sector_size: args.sector_size.as_deref().filter(|s| !s.is_empty()).map(sector_size).transpose()?,
            own_work: !args.no_own_work,
            slots,
            ..AgentSettings::default()
        },
    })
}

/// An agent without etcd would be found by nobody.
async fn directory(config: &Config) -> Result<Arc<dyn Directory>, CliError> {
    match config.cluster.kind() {
        DirectoryKind::Etcd => etcd(config).await,
        DirectoryKind::Local | DirectoryKind::Static => Err(CliError::Failed(format!(
            "client: no endpoints available: set [SealAgent] EtcdAddrs in {}",
            config.config_file().display()
        ))),
    }
}

#[cfg(feature = "cluster")]
async fn etcd(config: &Config) -> Result<Arc<dyn Directory>, CliError> {
    use crate::rpc::directory::etcd::Etcd;
    let failed =
        |e: crate::rpc::directory::DirectoryError| CliError::Failed(format!("client: no endpoints available: {e}"));
    let at = wiring::etcd_config(config)?;
    Ok(Arc::new(Etcd::connect_or_wait(at).await.map_err(failed)?))
}

#[cfg(not(feature = "cluster"))]
async fn etcd(_: &Config) -> Result<Arc<dyn Directory>, CliError> {
    Err(CliError::NoClusterFeature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_found_as_the_agents_of_the_document_find_it() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        };
        let home: &[(&str, &str)] = &[("HOME", "/h")];
        assert_eq!(repo(None, &env(home)).unwrap(), PathBuf::from("/h/.bulkhead-agent"));
        assert_eq!(repo(None, &env(&[("HOME", "/h"), ("LOTUS_AGENT_PATH", "~/a")])).unwrap(), PathBuf::from("/h/a"));
        let both: &[(&str, &str)] = &[("LOTUS_AGENT_PATH", "/l"), ("BULKHEAD_AGENT_PATH", "/b")];
        assert_eq!(repo(None, &env(both)).unwrap(), PathBuf::from("/b"));
        assert_eq!(repo(Some("/f".as_ref()), &env(both)).unwrap(), PathBuf::from("/f"));
        assert!(repo(None, &env(&[])).is_err());
    }

    #[test]
    fn miner_and_size_are_what_the_document_names_them() {
        assert_eq!(miner_id("t0101").unwrap(), 101);
        assert!(miner_id("t3qkymqyh2v").unwrap_err().to_string().contains("ID address"));
        assert_eq!(sector_size("32GiB").unwrap(), 32 << 30);
        assert!(sector_size("1024").unwrap_err().to_string().starts_with("SECTOR_SIZE \"1024\""));
    }
}
