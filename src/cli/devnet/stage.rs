//! The real parts of a devnet, put together: keys, the chain, its first miner, the node.

use super::Dirs;
use super::drive::{ReportKeys, Stage};
use super::look::{Looker, Provider};
use super::progress::{KeyProgress, Progress};
use crate::chain::lotus_json::address;
use crate::cli::client::NodeClient;
use crate::cli::init::{self, Wanted};
use crate::cli::keys::KeyStep;
use crate::cli::seams::{self, KeyRow, RunningChain, RunningNode};
use crate::cli::sectors::SectorId;
use crate::cli::{CliError, run};
use crate::config::Config;
use crate::config::values::format_size;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// The one size for which keys can be generated.
const SECTOR_SIZE: u64 = 2048;

pub struct Real {
    dirs: Dirs,
    up: Mutex<Up>,
}

/// What is up so far.
struct Up {
    config: Config,
    chain: Option<Box<dyn RunningChain>>,
    node: Option<Arc<dyn RunningNode>>,
    looker: Option<Looker>,
}

impl Real {
    pub fn new(config: Config, dirs: Dirs) -> Real {
        Real { dirs, up: Mutex::new(Up { config, chain: None, node: None, looker: None }) }
    }
}

#[async_trait]
impl Stage for Real {
    async fn keys(&self, report: ReportKeys<'_>) -> Result<String, CliError> {
        let cache = self.up.lock().await.config.proving.parameter_cache.clone();
        let (tell, mut steps) = watch::channel(None::<KeyStep>);
        let make = move || seams::keys_generate(&cache, SECTOR_SIZE, &|step| drop(tell.send_replace(Some(step))));
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
        let chain = seams::start_chain(&up.config, &self.dirs.chain).await?;
        up.config.full_node.api_info = Some(chain.api_info());
        up.looker = Some(Looker::new(seams::full_node(&up.config)?, None));
        let text = format!("FULLNODE_API_INFO={}", chain.api_info());
        up.chain = Some(chain);
        Ok(text)
    }

    async fn miner(&self) -> Result<String, CliError> {
        let mut up = self.up.lock().await;
        if let Some(miner) = &up.config.node.miner {
            return Ok(format!("{miner}, from an earlier run"));
        }
        let chain = seams::full_node(&up.config)?;
        let wanted = Wanted::Create { owner: None, worker: None, sector_size: SECTOR_SIZE };
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
        up.node = Some(Arc::from(seams::start_node(&up.config).await?));
        let node = NodeClient::at_repo(&up.config)?;
        let sectors: Option<Vec<u64>> = node.call("Filecoin.SectorsList", vec![]).await?;
        let sectors = sectors.unwrap_or_default();
        let text = match sectors.is_empty() {
            true => {
                let id: SectorId = node.call("Filecoin.PledgeSector", vec![]).await?;
                format!("up, sector {} is pledged", id.number)
            }
            false => format!("up, goes on with {} sectors", sectors.len()),
        };
        let chain = seams::full_node(&up.config)?;
        up.looker = Some(Looker::new(chain, Some(Provider { miner, node })));
        Ok(format!("{text}; look inside with: bulkhead --repo {} tree", self.dirs.node.display()))
    }

    async fn look(&self, last: &Progress) -> Progress {
        let mut up = self.up.lock().await;
        let devnet = up.config.devnet.clone();
        match &mut up.looker {
            Some(looker) => {
                looker.look(last, |power| if power { devnet.block_delay } else { devnet.warmup_delay }).await
            }
            None => last.clone(),
        }
    }

    async fn ended(&self) -> Result<(), CliError> {
        // cloned, so that waiting holds no lock
        let node = self.up.lock().await.node.clone();
        match node {
            Some(node) => run::outcome(node.ended().await),
            None => std::future::pending().await,
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
            chain.stop().await;
        }
    }
}
