//! How a command reaches the rest of the crate: thin, so that the commands themselves stay free of wiring.

use super::CliError;
use super::keys::KeyStep;
use crate::chain::types::SignedMessage;
use crate::config::Config;
use crate::rpc::full_node::FullNode;
use crate::supervisor::Exit;
use async_trait::async_trait;
use cid::Cid;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// A row of `bulkhead keys`.
#[derive(Serialize, Clone, Debug)]
pub struct KeyRow {
    pub key: String,
    pub file: String,
    pub bytes: u64,
    pub state: String,
    pub ok: bool,
}

/// A node that runs in this process.
#[async_trait]
pub trait RunningNode: Send + Sync {
    /// Completes when the tree has ended: an orderly stop (admin HTTP), or its restart budget is spent.
    async fn ended(&self) -> Exit;
    /// Stops the tree in reverse order.
    async fn stop(&self) -> Exit;
}

/// One proof in this process; before any runtime is made.
pub fn prover_main() -> ExitCode {
    crate::proofs::child::main()
}

pub fn keys_list(_cache: &Path) -> Result<Vec<KeyRow>, CliError> {
    Err(CliError::Failed("keys: not wired yet".to_string()))
}

/// Makes what is missing. `report` is called from any thread.
pub fn keys_generate(
    _cache: &Path,
    _sector_size: u64,
    _report: &(dyn Fn(KeyStep) + Sync),
) -> Result<Vec<KeyRow>, CliError> {
    Err(CliError::Failed("keys: not wired yet".to_string()))
}

pub fn keys_check(_cache: &Path) -> Result<Vec<KeyRow>, CliError> {
    Err(CliError::Failed("keys: not wired yet".to_string()))
}

/// Whether a sector of that size can be proven here: the files that the proofs library would open are there.
pub fn keys_ready(cache: &Path, sector_size: u64) -> Result<(), CliError> {
    use filecoin_proofs_api::{RegisteredPoStProof as Post, RegisteredSealProof as Seal};
    let (name, seal, winning, window) = match sector_size {
        0x800 => ("2KiB", Seal::StackedDrg2KiBV1_1, Post::StackedDrgWinning2KiBV1, Post::StackedDrgWindow2KiBV1_2),
        0x80_0000 => ("8MiB", Seal::StackedDrg8MiBV1_1, Post::StackedDrgWinning8MiBV1, Post::StackedDrgWindow8MiBV1_2),
        0x2000_0000 => {
            ("512MiB", Seal::StackedDrg512MiBV1_1, Post::StackedDrgWinning512MiBV1, Post::StackedDrgWindow512MiBV1_2)
        }
        0x8_0000_0000 => {
            ("32GiB", Seal::StackedDrg32GiBV1_1, Post::StackedDrgWinning32GiBV1, Post::StackedDrgWindow32GiBV1_2)
        }
        0x10_0000_0000 => {
            ("64GiB", Seal::StackedDrg64GiBV1_1, Post::StackedDrgWinning64GiBV1, Post::StackedDrgWindow64GiBV1_2)
        }
        other => return Err(CliError::Usage(format!("--sector-size {other}: no such sector size"))),
    };
    let files = [seal.cache_params_path(), winning.cache_params_path(), window.cache_params_path()];
    for file in files {
        // by name: the library's folder is read once per process
        let file = cache.join(
            file.map_err(|e| CliError::Failed(format!("proving keys for {name} sectors: {e:#}")))?
                .file_name()
                .unwrap_or_default(),
        );
        if !file.is_file() {
            let how = match sector_size {
                0x800 => "make it with `bulkhead keys generate`".to_string(),
                _ => format!(
                    "fetch the published keys there (`lotus fetch-params {name}`); generated keys are for 2KiB test sectors only"
                ),
            };
            return Err(CliError::Failed(format!(
                "no proving key for {name} sectors: {} is missing; {how}",
                file.display()
            )));
        }
    }
    Ok(())
}

/// The CID that the chain knows a signed message by.
pub fn message_cid(_signed: &SignedMessage) -> Result<Cid, CliError> {
    Err(CliError::Failed("message CIDs: not wired yet".to_string()))
}

/// The full node that the configuration names.
pub fn full_node(config: &Config) -> Result<Arc<dyn FullNode>, CliError> {
    match &config.full_node.api_info {
        Some(_) => Err(CliError::Failed("full node: not wired yet".to_string())),
        None => Err(CliError::NoFullNode { file: config.config_file() }),
    }
}

/// Takes the repo's lock, builds the tree and starts it.
pub async fn start_node(config: &Config) -> Result<Box<dyn RunningNode>, CliError> {
    let Some(info) = &config.full_node.api_info else {
        return Err(CliError::NoFullNode { file: config.config_file() });
    };
    let info = ApiInfo::parse("FULLNODE_API_INFO", info).map_err(failed)?;
    Ok(Box::new(start(config, NodeSettings::of(config), &info).await?))
}

/// The node of `config`'s repo, behind the full node of `info`.
pub async fn start(config: &Config, settings: NodeSettings, info: &ApiInfo) -> Result<Node, CliError> {
    let Some(miner) = &config.node.miner else {
        return Err(CliError::NotInitialised { repo: config.repo.clone() });
    };
    let miner = crate::chain::lotus_json::address::parse(miner).map_err(CliError::Failed)?;
    let link = || -> Result<Arc<dyn FullNode>, CliError> { Ok(Arc::new(HttpFullNode::new(info.clone())?)) };
    let links = Links { chain: link()?, proving: link()?, sealing: link()?, markets: link()?, admin: link()? };
    let identity = Identity::establish(&config.repo, miner, &links.chain).await.map_err(failed)?;
    keys_ready(&config.proving.parameter_cache, identity.sector_size)?;
    let provers = ChildConfig::current_exe().map_err(|e| failed(format!("the prover's binary: {e}")))?;
    let prover = Arc::new(ChildProver::new(provers));
    tokio::task::spawn_blocking(move || Node::start(settings, identity, links, prover))
        .await
        .map_err(|e| CliError::Bug(e.to_string()))?
        .map_err(failed)
}

#[async_trait]
impl RunningNode for Node {
    async fn ended(&self) -> Exit {
        Node::ended(self).await
    }
    async fn stop(&self) -> Exit {
        Node::stop(self).await
    }
}

/// The devnet's part of the configuration in the chain's own terms; what has no key keeps the chain's default.
pub fn devnet_settings(config: &crate::config::Devnet) -> DevnetSettings {
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
        ..DevnetSettings::default()
    }
}
