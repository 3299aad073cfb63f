//! The real parts of a devnet, put together: keys, the chain, its first miner, the node.

use super::args::Dirs;
use super::poller::{Poller, Provider};
use super::progress::{KeyProgress, Progress};
use super::run_loop::{ReportKeys, Stage};
use crate::chain::lotus_json::address;
use crate::cli::client::NodeClient;
use crate::cli::init::{self, WantedMiner};
use crate::cli::wiring::KeyStep;
use crate::cli::wiring::{self, KeyRow};
use crate::cli::{CliError, launch, run};
use crate::config::Config;
use crate::config::values::format_size;
use crate::node::Node;
use crate::node::identity::NewStore;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// The one size for which keys can be generated.
const SECTOR_SIZE: u64 = 2048;
/// The name of the pledge that every devnet starts with.
const FIRST_SECTOR: &str = "devnet-first-sector";

pub struct Real {
    dirs: Dirs,
    new_store: NewStore,
    up: Mutex<Up>,
}

/// The parts that are up so far.
struct Up {
    config: Config,
    chain: Option<launch::Chain>,
    node: Option<Arc<Node>>,
    poller: Option<Poller>,
}

impl Real {
    pub fn new(config: Config, dirs: Dirs, new_store: NewStore) -> Real {
        Real { dirs, new_store, up: Mutex::new(Up { config, chain: None, node: None, poller: None }) }
    }
}

/// Names the file with the token, never the token: the text goes to logs.
fn chain_text(chain: &launch::Chain) -> String {
    let file = chain.api_info_file.display();
    format!("at {}; to use it: export FULLNODE_API_INFO=\"$(cat '{file}')\"", chain.info.name())
}

#[async_trait]
impl Stage for Real {
    async fn keys(&self, report: ReportKeys<'_>) -> Result<String, CliError> {
        let cache = self.up.lock().await.config.proving.parameter_cache.clone();
        let (tell, mut steps) = watch::channel(None::<KeyStep>);
        let make = move || wiring::keys_generate(&cache, SECTOR_SIZE, &|step| drop(tell.send_replace(Some(step))));
        let mut work = tokio::task::spawn_blocking(make);
        let rows: Vec<KeyRow> = loop {
            tokio::select! {
                done = &mut work => break done.map_err(|e| CliError::Bug(format!("key generation: {e}")))??,
                Ok(()) = steps.changed() => {
                    let step = steps.borrow_and_update().clone().filter(|s| s.total > 0);
                    report(step.map(|s| KeyProgress { name: s.key, done: s.done, total: s.total }));
                }
            }
        };
        let bytes = rows.iter().map(|row| row.bytes).sum();
        Ok(format!("{} of 2 KiB test sectors, {}", rows.len(), format_size(bytes)))
    }

    async fn chain(&self) -> Result<String, CliError> {
        let mut up = self.up.lock().await;
        let chain = launch::chain(&up.config.devnet, &self.dirs.chain).await?;
        up.config.full_node.api_info = Some(chain.info.secret_text());
        up.poller = Some(Poller::new(wiring::full_node(&up.config)?, None));
        let text = chain_text(&chain);
        up.chain = Some(chain);
        Ok(text)
    }

    async fn miner(&self) -> Result<String, CliError> {
        let mut up = self.up.lock().await;
        if let Some(miner) = &up.config.node.miner {
            return Ok(format!("{miner}, from an earlier run"));
        }
        let chain = wiring::full_node(&up.config)?;
        let wanted = WantedMiner::Create { owner: None, worker: None, sector_size: SECTOR_SIZE };
        // a chain of one process does not fork away a message that is on it
        let made = init::init(&wanted, &up.config, chain.as_ref(), 0, &|line| tracing::info!("{line}")).await?;
        up.config.node.miner = Some(made.miner.clone());
        Ok(format!("{} (owner {}, worker {})", made.miner, made.owner, made.worker))
    }

    async fn node(&self) -> Result<String, CliError> {
        let mut up = self.up.lock().await;
        run::ready(&up.config)?;
        let miner = up.config.node.miner.clone().unwrap_or_default();
        let miner = address::parse(&miner).map_err(CliError::Failed)?;
        let on =
            up.chain.as_ref().ok_or_else(|| CliError::Bug("the devnet has a node before it has a chain".into()))?;
        let started = Arc::new(launch::node_on(on, &up.config, self.new_store).await?);
        // in `up` before anything can fail, so that `stop` finds it
        up.node = Some(started.clone());
        // the same wish at every start, so that it is one sector however often the process dies
        let first =
            started.backend.pledge(FIRST_SECTOR.to_string()).await.map_err(|e| CliError::Failed(e.to_string()))?;
        let text = format!("up, its first sector is {first}");
        let node = NodeClient::at_repo(&up.config)?;
        let chain = wiring::full_node(&up.config)?;
        up.poller = Some(Poller::new(chain, Some(Provider { miner, node })));
        Ok(format!("{text}; look inside with: bulkhead --repo {} tree", self.dirs.node.display()))
    }

    async fn look(&self, last: &Progress) -> Progress {
        let mut up = self.up.lock().await;
        let devnet = up.config.devnet.clone();
        match &mut up.poller {
            Some(poller) => {
                poller.look(last, |power| if power { devnet.block_delay } else { devnet.warmup_delay }).await
            }
            None => last.clone(),
        }
    }

    async fn ended(&self) -> Result<(), CliError> {
        // cloned, so that waiting holds no lock
        let (node, chain) = {
            let up = self.up.lock().await;
            (up.node.clone(), up.chain.as_ref().map(|chain| chain.tree.clone()))
        };
        let node = async {
            match node {
                Some(node) => node.ended().await,
                None => std::future::pending().await,
            }
        };
        let chain = async {
            match chain {
                Some(tree) => tree.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = node => run::outcome(exit),
            exit = chain => run::outcome(exit),
        }
    }

    async fn stop(&self) {
        let (node, chain) = {
            let mut up = self.up.lock().await;
            (up.node.take(), up.chain.take())
        };
        // the node first: it may still want to tell the chain something
        if let Some(node) = node {
            node.stop().await;
        }
        if let Some(chain) = chain {
            chain.tree.shutdown().await;
        }
    }
}
