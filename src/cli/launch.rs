//! The trees inside this process: a node, and the devnet's chain beside it.

use super::{CliError, wiring};
use crate::chain::lotus_json::address;
use crate::config::{Config, DevnetConfig};
use crate::devnet::tree::{ChainServer, ServerConfig};
use crate::devnet::{Devnet, DevnetSettings, tree};
use crate::node::identity::{Identity, NewStore};
use crate::node::settings::NodeSettings;
use crate::node::settings::Origin;
use crate::node::{Links, Node};
use crate::proofs::ChildProver;
use crate::rpc::api_info::ApiInfo;
use crate::rpc::auth::{Auth, Perm};
use crate::rpc::full_node::pool::entries::PoolEntry;
use crate::rpc::full_node::pool::{NodePool, PoolSettings};
use crate::rpc::server_actor::WhereIs;
use crate::supervisor::{ActorInfo, ActorState, Ref, Tree};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn failed(e: impl std::fmt::Display) -> CliError {
    CliError::Failed(e.to_string())
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| CliError::Bug(e.to_string()))?
}

/// The embedded chain: its actors, and how a provider reaches it over TCP.
pub struct Chain {
    pub tree: Tree,
    pub info: ApiInfo,
    /// The file that holds `info` as `FULLNODE_API_INFO` takes it.
    pub api_info_file: PathBuf,
}

pub async fn chain(config: &DevnetConfig, dir: &Path) -> Result<Chain, CliError> {
    let (settings, listen, dir) = (devnet_settings(config), config.listen, dir.to_path_buf());
    let api_info_file = dir.join(tree::API_INFO_FILE);
    let (tree, server, token) = blocking(move || {
        std::fs::create_dir_all(&dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
        let devnet = Devnet::open(&dir, settings).map_err(failed)?;
        let auth = Arc::new(Auth::open(&dir).map_err(failed)?);
        let token = auth.token(&Perm::ALL).map_err(failed)?;
        let server = Ref::<ChainServer>::new("/devnet/json-rpc", 16);
        let config = ServerConfig { listen, dir, auth };
        let tree = Tree::start(tree::spec(devnet, config, &server)).map_err(failed)?;
        Ok((tree, server, token))
    })
    .await?;
    let addr = server.ask(WhereIs, Duration::from_secs(5)).await.map_err(|error| {
        let why = |actor: ActorInfo| Some((actor.path, actor.held.or(actor.last_exit.map(|exit| exit.to_string()))?));
        let down = tree.snapshot().into_iter().filter(|actor| actor.state != ActorState::Up).find_map(why);
        failed(match down {
            Some((path, why)) => format!("the chain's API is not up: {path}: {why}"),
            None => format!("the chain's API is not up: {error}"),
        })
    })?;
    Ok(Chain { tree, info: ApiInfo::local(addr, Some(token)), api_info_file })
}

/// Builds the tree and starts it. The caller holds the repo's lock.
pub async fn node(config: &Config, origin: Option<Arc<dyn Origin>>, new: NewStore) -> Result<Node, CliError> {
    let pool = wiring::node_pool(config)?;
    node_behind(config, NodeSettings { origin, ..NodeSettings::of(config) }, &pool, new).await
}

/// As [`node`], on the devnet's chain; the chain's actors are shown beside the node's.
pub async fn node_on(chain: &Chain, config: &Config, new: NewStore) -> Result<Node, CliError> {
    let settings = NodeSettings { beside: Some(chain.tree.clone()), ..NodeSettings::of(config).for_devnet() };
    let pool = NodePool::new(&[PoolEntry::of(chain.info.clone())], PoolSettings::default());
    node_behind(config, settings, &pool, new).await
}

async fn node_behind(
    config: &Config,
    settings: NodeSettings,
    pool: &NodePool,
    new: NewStore,
) -> Result<Node, CliError> {
    let Some(miner) = &config.node.miner else {
        return Err(CliError::NotInitialised { repo: config.repo.clone() });
    };
    let miner = address::parse(miner).map_err(CliError::Failed)?;
    let seed = miner.to_string();
    let link = || wiring::pooled(pool, &seed);
    let links = Links { chain: link(), proving: link(), sealing: link(), markets: link(), admin: link() };
    let identity = Identity::establish_with(&config.repo, miner, &links.chain, new).await.map_err(failed)?;
    wiring::keys_ready(&config.proving.parameter_cache, identity.sector_size)?;
    let provers = wiring::provers(config)?;
    let prover = Arc::new(ChildProver::new(provers));
    blocking(move || Node::start(settings, identity, links, prover).map_err(failed)).await
}

/// The devnet's part of the configuration in the chain's own terms; what has no key keeps the chain's default.
fn devnet_settings(config: &DevnetConfig) -> DevnetSettings {
    DevnetSettings {
        network_name: config.network_name.clone(),
        block_delay: config.block_delay,
        warmup_delay: config.warmup_delay,
        deadlines: config.deadlines,
        challenge_window: config.challenge_window,
        challenge_lookback: config.challenge_lookback,
        fault_cutoff: config.fault_cutoff,
        pre_commit_challenge_delay: config.pre_commit_challenge_delay,
        chain_finality: config.chain_finality,
        winning_lookback: config.winning_lookback,
        dispute_window: config.dispute_window,
        account_fil: config.account_fil,
        upgrade_epoch: config.upgrade_epoch,
        ..DevnetSettings::default()
    }
}
