//! The real parts of a devnet, put together.

use super::Dirs;
use super::drive::{ReportKeys, Stage};
use super::progress::{Deadline, Head, KeyProgress, Power, Progress, Sector};
use crate::cli::init::{Wanted, init};
use crate::cli::{CliError, run, seams};
use crate::config::Config;
use crate::devnet::tree::{ChainServer, ServerConfig, WhereIs};
use crate::devnet::{Devnet, tree};
use crate::node::Node;
use crate::rpc::api_info::ApiInfo;
use crate::rpc::auth::{Auth, Perm};
use crate::rpc::full_node::{FullNode, HttpFullNode};
use crate::supervisor::{ActorInfo, Exit, Ref, Tree};
use async_trait::async_trait;
use num_traits::ToPrimitive;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Test sectors: the only size whose keys can be made here.
const SECTOR_SIZE: u64 = 2048;
/// The devnet's chain reorganises only when told to.
const CONFIDENCE: i64 = 1;
const DEADLINE: Duration = Duration::from_secs(5);

pub struct Real {
    config: Mutex<Config>,
    dirs: Dirs,
    chain: OnceLock<Chain>,
    node: OnceLock<Node>,
}

struct Chain {
    devnet: Arc<Devnet>,
    tree: Tree,
    /// How the provider reaches it: over TCP, as any full node.
    info: ApiInfo,
    node: Arc<dyn FullNode>,
}

impl Real {
    pub fn new(config: Config, dirs: Dirs) -> Real {
        Real { config: Mutex::new(config), dirs, chain: OnceLock::new(), node: OnceLock::new() }
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn chain_is_up(&self) -> Result<&Chain, CliError> {
        self.chain.get().ok_or_else(|| CliError::Bug("the devnet's chain was not started".to_string()))
    }
}

/// Runs what blocks on a thread of its own; a panic in it is a bug to report, not to die of.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| CliError::Bug(e.to_string()))
}

fn failed(e: impl std::fmt::Display) -> CliError {
    CliError::Failed(e.to_string())
}

#[async_trait]
impl Stage for Real {
    async fn keys(&self, report: ReportKeys<'_>) -> Result<String, CliError> {
        let cache = self.config().proving.parameter_cache;
        let (tell, mut told) = tokio::sync::watch::channel(None);
        let made = blocking({
            let cache = cache.clone();
            move || {
                seams::keys_generate(&cache, SECTOR_SIZE, &|step| {
                    tell.send_replace(Some(KeyProgress { name: step.key, done: step.done, total: step.total }));
                })
            }
        });
        tokio::pin!(made);
        let rows = loop {
            tokio::select! {
                rows = &mut made => break rows??,
                Ok(()) = told.changed() => report(told.borrow_and_update().clone()),
            }
        };
        report(None);
        Ok(format!("{} proving keys for 2 KiB test sectors in {}", rows.len(), cache.display()))
    }

    async fn chain(&self) -> Result<String, CliError> {
        let (config, dir) = (self.config(), self.dirs.chain.clone());
        let chain = blocking(move || {
            std::fs::create_dir_all(&dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
            let devnet = Devnet::open(&dir, seams::devnet_settings(&config.devnet)).map_err(failed)?;
            let auth = Arc::new(Auth::open(&dir).map_err(failed)?);
            let token = auth.token(&Perm::ALL).map_err(failed)?;
            let server = Ref::<ChainServer>::new("/devnet/json-rpc", 16);
            let config = ServerConfig { listen: config.devnet.listen, dir, auth };
            let tree = Tree::start(tree::spec(devnet.clone(), config, &server)).map_err(failed)?;
            Ok::<_, CliError>((devnet, tree, server, token))
        });
        let (devnet, tree, server, token) = chain.await??;
        let addr = server.ask(WhereIs, DEADLINE).await.map_err(failed)?;
        let info = ApiInfo::local(addr, Some(token));
        let node: Arc<dyn FullNode> = Arc::new(HttpFullNode::new(info.clone())?);
        let (name, head) = (node.state_network_name().await?, node.chain_head().await?);
        let said = format!("{name} at epoch {}, Filecoin.* JSON-RPC on {addr}", head.height);
        if self.chain.set(Chain { devnet, tree, info, node }).is_err() {
            return Err(CliError::Bug("the devnet's chain was started twice".to_string()));
        }
        Ok(said)
    }

    async fn miner(&self) -> Result<String, CliError> {
        let chain = self.chain_is_up()?;
        let config = self.config();
        if let Some(miner) = &config.node.miner {
            return Ok(format!("{miner}, of an earlier run"));
        }
        let (owner, worker) = chain.devnet.accounts();
        let wanted = Wanted::Create { owner: Some(owner), worker: Some(worker), sector_size: SECTOR_SIZE };
        let done =
            init(&wanted, &config, chain.node.as_ref(), CONFIDENCE, &|line| tracing::info!("{line}")).await?;
        self.config.lock().unwrap_or_else(|e| e.into_inner()).node.miner = Some(done.miner.clone());
        Ok(format!("{} (owner {}, worker {})", done.miner, done.owner, done.worker))
    }

    async fn node(&self) -> Result<String, CliError> {
        let chain = self.chain_is_up()?;
        let config = self.config();
        let mut settings = crate::node::settings::NodeSettings::of(&config).for_devnet();
        settings.beside = Some(chain.tree.clone());
        let node = seams::start(&config, settings, &chain.info).await?;
        if node.backend.sector_summaries().await.map_err(failed)?.is_empty() {
            node.backend.pledge("devnet-first-sector".to_string()).await.map_err(failed)?;
        }
        let said = format!("{} actors are up; `bulkhead --repo {} tree` shows them", node.tree.snapshot().len(), config.repo.display());
        if self.node.set(node).is_err() {
            return Err(CliError::Bug("the devnet's node was started twice".to_string()));
        }
        Ok(said)
    }

    async fn look(&self, last: &Progress) -> Progress {
        let mut seen = last.clone();
        let Some(chain) = self.chain.get() else { return seen };
        let config = self.config();
        if let Ok(head) = chain.node.chain_head().await {
            let powered = seen.power.is_some_and(|p| p.miner > 0);
            let delay = if powered { config.devnet.block_delay } else { config.devnet.warmup_delay };
            seen.head = Some(Head { height: head.height, delay });
        }
        if let Some(node) = self.node.get() {
            look_at(node, &mut seen).await;
            let rows = [chain.tree.snapshot(), node.tree.snapshot()].concat();
            (seen.restarts, seen.last_restart) = restarts(&rows);
        }
        seen
    }

    async fn ended(&self) -> Result<(), CliError> {
        let Some(chain) = self.chain.get() else { return std::future::pending().await };
        let node_ended = async {
            match self.node.get() {
                Some(node) => node.ended().await,
                None => std::future::pending().await,
            }
        };
        let exit = tokio::select! {
            exit = node_ended => exit,
            exit = chain.tree.wait() => exit,
        };
        run::outcome(exit)
    }

    async fn stop(&self) {
        if let Some(node) = self.node.get() {
            node.stop().await;
        }
        if let Some(chain) = self.chain.get() {
            chain.tree.shutdown().await;
        }
    }
}

/// Everything that can be told now; the rest stays as it was.
async fn look_at(node: &Node, seen: &mut Progress) {
    let backend = &node.backend;
    if let Ok(list) = backend.sector_summaries().await {
        let mut sectors = Vec::new();
        for summary in list {
            let states = match backend.sector_detail(summary.number).await {
                Ok(Some(detail)) => {
                    detail.sector.timings.iter().map(|t| (t.phase.to_string(), t.started)).collect()
                }
                Ok(None) | Err(_) => Vec::new(),
            };
            sectors.push(Sector {
                number: summary.number,
                state: summary.phase.to_string(),
                since: summary.since,
                states,
            });
        }
        seen.sectors = sectors;
    }
    if let Ok(report) = backend.window_post().await {
        let landed = report.deadlines.iter().flat_map(|d| &d.batches).filter(|b| b.phase == "landed").count() as u64;
        // Old records are dropped; what was accepted stays accepted.
        seen.window_posts_accepted = seen.window_posts_accepted.max(landed);
        seen.deadline = report.current.map(|now| {
            let run = report.deadlines.iter().find(|d| d.open == now.open);
            let batches = run.map(|d| d.batches.as_slice()).unwrap_or_default();
            let partitions = |of: &dyn Fn(&str) -> bool| {
                batches.iter().filter(|b| of(&b.phase)).map(|b| b.partitions.len() as u64).sum()
            };
            Deadline {
                index: now.index,
                of: now.w_post_period_deadlines,
                open: now.open,
                close: now.close,
                partitions: partitions(&|_| true),
                proven: partitions(&|phase| phase == "landed"),
            }
        });
    }
    if let Ok(report) = backend.winning_post().await {
        seen.blocks_won = report.blocks_on_chain;
    }
    let head = crate::chain::types::TipSetKey::default();
    if let Ok(power) = backend.full_node().state_miner_power(&node.miner, &head).await {
        let bytes = |n: &num_bigint::BigInt| n.to_u64().unwrap_or(u64::MAX);
        seen.power = Some(Power {
            miner: bytes(&power.miner_power.quality_adj_power),
            total: bytes(&power.total_power.quality_adj_power),
        });
    }
}

/// Restarts of the whole tree, and the latest of them in words.
fn restarts(rows: &[ActorInfo]) -> (u64, Option<String>) {
    let latest = rows.iter().filter(|r| r.restarts > 0).max_by_key(|r| r.last_exit_at);
    let words = latest.map(|row| {
        let why = row.last_exit.as_ref().map_or_else(String::new, |exit: &Exit| crate::cli::render::tree::exit_text(exit));
        format!("{}: {why}", row.path)
    });
    (rows.iter().filter(|r| r.kind == "worker").map(|r| r.restarts).sum(), words)
}
