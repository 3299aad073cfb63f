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
    super::output::print_error("error: prover: not wired yet");
    ExitCode::from(2)
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
pub async fn start_node(_config: &Config) -> Result<Box<dyn RunningNode>, CliError> {
    Err(CliError::Failed("run: not wired yet".to_string()))
}
