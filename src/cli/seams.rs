//! How a command reaches the rest of the crate: thin, so that the commands themselves stay free of wiring.

use super::CliError;
use super::keys::KeyStep;
use crate::chain::types::SignedMessage;
use crate::config::Config;
use crate::proofs::keys::{self, Condition, KeyPhase};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::full_node::{FullNode, HttpFullNode};
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

/// The embedded chain, in this process.
#[async_trait]
pub trait RunningChain: Send + Sync {
    /// `<token>:/ip4/../tcp/../http`, with a token of admin permission.
    fn api_info(&self) -> String;
    /// Durable when it returns.
    async fn stop(&self);
}

/// One proof in this process; before any runtime is made.
pub fn prover_main() -> ExitCode {
    crate::proofs::child::main()
}

pub fn keys_list(cache: &Path) -> Result<Vec<KeyRow>, CliError> {
    let row = |k: keys::KeyStatus| {
        let (bytes, state, ok) = match k.condition {
            Condition::Complete { bytes } => (bytes, "complete".to_string(), true),
            Condition::Absent => (0, "missing".to_string(), false),
            Condition::NeedsVk(why) => (0, format!("needs its verifying key: {why}"), false),
            Condition::Damaged(why) => (0, format!("damaged: {why}"), false),
        };
        KeyRow { key: k.key.name().to_string(), file: file_name(&k.params), bytes, state, ok }
    };
    Ok(keys::list(cache).map_err(failed)?.into_iter().map(row).collect())
}

/// Makes what is missing. `report` is called from any thread.
pub fn keys_generate(
    cache: &Path,
    sector_size: u64,
    report: &(dyn Fn(KeyStep) + Sync),
) -> Result<Vec<KeyRow>, CliError> {
    keys::ensure(cache, sector_size, &|p| {
        let phase = match p.phase {
            KeyPhase::Waiting => "waits for another process",
            KeyPhase::Counting => "reads the circuit",
            KeyPhase::Points => "points",
            KeyPhase::Syncing => "goes to disk",
            KeyPhase::Done => "done",
        };
        report(KeyStep { key: p.key.to_string(), phase: phase.to_string(), done: p.done, total: p.total });
    })
    .map_err(failed)?;
    keys_list(cache)
}

/// Reads every key in full.
pub fn keys_check(cache: &Path) -> Result<Vec<KeyRow>, CliError> {
    let listed = keys_list(cache)?;
    let reports = keys::check(cache).map_err(failed)?;
    let row = |(k, report): (KeyRow, keys::CheckReport)| {
        let ok = report.problems.is_empty();
        let state = if ok { "good".to_string() } else { report.problems.join("; ") };
        KeyRow { ok, state, bytes: report.bytes, ..k }
    };
    Ok(listed.into_iter().zip(reports).map(row).collect())
}

fn failed(e: impl std::fmt::Display) -> CliError {
    CliError::Failed(e.to_string())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
pub fn message_cid(signed: &SignedMessage) -> Result<Cid, CliError> {
    crate::chain::cbor::signed_message_cid(signed).map_err(failed)
}

/// The full node that the configuration names; connects at the first call.
pub fn full_node(config: &Config) -> Result<Arc<dyn FullNode>, CliError> {
    let Some(info) = &config.full_node.api_info else {
        return Err(CliError::NoFullNode { file: config.config_file() });
    };
    let info = ApiInfo::parse("FULLNODE_API_INFO", info).map_err(failed)?;
    Ok(Arc::new(HttpFullNode::new(info)?))
}

/// Opens or makes the chain in `dir` and serves it at `config.devnet.listen`.
pub async fn start_chain(_config: &Config, _dir: &Path) -> Result<Box<dyn RunningChain>, CliError> {
    Err(CliError::Failed("devnet: not wired yet".to_string()))
}

/// Builds the tree and starts it; the caller holds the repo's lock. Dropped before it is done, it leaves nothing running.
pub async fn start_node(_config: &Config) -> Result<Box<dyn RunningNode>, CliError> {
    Err(CliError::Failed("run: not wired yet".to_string()))
}
