//! How a command reaches the rest of the crate: thin, so that the commands themselves stay free of wiring.

use super::CliError;
use crate::chain::proof_types;
use crate::chain::types::SignedMessage;
use crate::config::{Config, LogFormat, Priority};
use crate::proofs::ChildConfig;
use crate::proofs::gpu::{self, Gpu};
use crate::proofs::keys::{self, Condition, KeyPhase};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client;
use crate::rpc::full_node::pool::calls::PooledCalls;
use crate::rpc::full_node::pool::entries::PoolEntry;
use crate::rpc::full_node::pool::judge::Bounds;
use crate::rpc::full_node::pool::routes::{self, RouteChange, Routes};
use crate::rpc::full_node::pool::{NodePool, PoolSettings};
use crate::rpc::full_node::{FullNode, HttpFullNode};
use cid::Cid;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// A row of `bulkhead keys`.
#[derive(Serialize, Clone, Debug)]
pub struct KeyRow {
    pub key: String,
    pub file: String,
    pub bytes: u64,
    pub state: String,
    pub ok: bool,
}

/// The progress of key generation: `done` of `total` curve points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStep {
    pub key: String,
    pub phase: String,
    pub done: u64,
    pub total: u64,
}

/// One proof in this process; before any runtime is made.
pub fn prover_main() -> ExitCode {
    crate::proofs::child::main()
}

/// How this node's provers are started.
pub fn provers(config: &Config) -> Result<ChildConfig, CliError> {
    let json = config.node.log_format == LogFormat::Json;
    let provers = ChildConfig::current_exe(&config.repo, json);
    let provers = provers.map_err(|e| CliError::Failed(format!("the prover's binary: {e}")))?;
    Ok(ChildConfig { gpu: gpu_slots(config), ..provers })
}

fn gpu_slots(config: &Config) -> Gpu {
    let count = match config.proving.gpu_slots {
        0 => gpu::detected(),
        count => count,
    };
    let folder = match config.proving.gpu_locks.as_str() {
        "" => gpu::default_folder(),
        folder => folder.into(),
    };
    if count > 0 {
        tracing::info!(slots = count, folder = %folder.display(), "GPU slots, shared with the other processes of this host");
    }
    Gpu::slots(count, folder)
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
    let name = proof_types::size_name(sector_size);
    let name = name.ok_or_else(|| CliError::Usage(format!("--sector-size {sector_size}: no such sector size")))?;
    let files =
        keys::files_of(sector_size).map_err(|e| CliError::Failed(format!("proving keys for {name} sectors: {e:#}")))?;
    for file in files {
        // by name: the library's folder is read once per process
        let file = cache.join(file.file_name().unwrap_or_default());
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

/// How long the provider at `MINER_API_INFO` may take to tell how its pool is reached.
const ASK_MINER_WITHIN: Duration = Duration::from_secs(10);

/// The configuration with the pool of the provider at `MINER_API_INFO` among its full nodes, where that is asked for: the
/// first of them, in front of those that are named here.
pub async fn with_miner_pool(mut config: Config) -> Result<Config, CliError> {
    let named = config.full_node.api_info.is_some() || config.full_node.pool_info.is_some();
    let wanted = match config.full_node.miner_api_priority {
        Priority::Auto => !named,
        Priority::True => true,
        Priority::False => false,
    };
    let miner = std::env::var("MINER_API_INFO").ok().filter(|info| wanted && !info.trim().is_empty());
    let Some(miner) = miner else {
        return if named { Ok(config) } else { Err(CliError::NoFullNode { file: config.config_file() }) };
    };
    let miner = ApiInfo::parse("environment variable MINER_API_INFO", &miner).map_err(failed)?;
    let asked = client::call::<String>(
        &miner,
        "v0",
        "Bulkhead.DaemonsApiInfo",
        vec![serde_json::json!("admin")],
        ASK_MINER_WITHIN,
    );
    match asked.await {
        Ok(pool) => {
            let own =
                config.full_node.api_info.take().map(|own| format!(",{}", ApiInfo::pasted(&own))).unwrap_or_default();
            config.full_node.api_info = Some(format!("{pool}{own}"));
            Ok(config)
        }
        // The nodes that are named here do without it.
        Err(why) if named => {
            tracing::warn!("the pool of the provider at MINER_API_INFO is not used: {why}");
            Ok(config)
        }
        Err(why) => Err(CliError::Failed(format!(
            "no full node is named here, and the provider at MINER_API_INFO does not tell how its pool is reached: {why}; set FULLNODE_API_INFO, or start that provider first"
        ))),
    }
}

/// The full nodes that the configuration names, as a pool.
pub fn node_pool(config: &Config) -> Result<NodePool, CliError> {
    let full_node = &config.full_node;
    let listed = |variable: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        PoolEntry::parse_list(variable, text).map_err(failed)
    };
    let mut entries = listed("FULLNODE_API_INFO", &full_node.api_info)?;
    match full_node.use_pool {
        true => {
            for entry in listed("FULLNODE_API_POOL_INFO", &full_node.pool_info)? {
                match entries.iter_mut().find(|known| known.info.name() == entry.info.name()) {
                    Some(known) => known.host = entry.host,
                    None => entries.push(entry),
                }
            }
        }
        false => entries.truncate(1),
    }
    if entries.is_empty() {
        return Err(CliError::NoFullNode { file: config.config_file() });
    }
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut routes =
        Routes { default_policy: full_node.default_policy.parse().map_err(CliError::Failed)?, ..Routes::default() };
    for route in &full_node.routes {
        let (method, route) = route.split_once('=').unwrap_or((route, ""));
        let change = RouteChange::parse(route).map_err(|why| failed(format!("full_node.routes: {method}: {why}")))?;
        routes.changes.insert(method.to_string(), change);
    }
    routes.changes.extend(routes::of_variables(variables).map_err(CliError::Failed)?);
    let bounds = Bounds {
        max_sync_behind: full_node.max_sync_behind,
        max_behind_diff: full_node.max_behind_diff,
        min_message_peers: full_node.min_message_peers,
        min_block_peers: full_node.min_block_peers,
    };
    let primary_seed = full_node.primary_seed.as_ref().and_then(|seed| seed.parse().ok());
    Ok(NodePool::new(&entries, PoolSettings { bounds, routes, primary_seed, agreement: full_node.agreement }))
}

/// A caller's own connections to the pool. `seed`: the miner whose primary is asked first.
pub fn pooled(pool: &NodePool, seed: &str) -> Arc<dyn FullNode> {
    Arc::new(HttpFullNode::pooled(PooledCalls::new(pool.clone(), seed)))
}

/// The full nodes that the configuration names; connects at the first call.
pub fn full_node(config: &Config) -> Result<Arc<dyn FullNode>, CliError> {
    let seed = config.node.miner.as_deref().unwrap_or_default();
    Ok(pooled(&node_pool(config)?, seed))
}

/// How the configuration reaches etcd.
#[cfg(feature = "cluster")]
pub fn etcd_config(config: &Config) -> Result<crate::rpc::directory::etcd::EtcdConfig, CliError> {
    use crate::rpc::directory::etcd::{EtcdConfig, Tls};
    let cluster = &config.cluster;
    let (ca, cert, key) = cluster.etcd_tls();
    let tls = ca.as_ref().map(|ca| Tls::from_files(ca, cert.as_deref().zip(key.as_deref())));
    Ok(EtcdConfig {
        user: cluster.etcd_user.clone().zip(cluster.etcd_password.clone()),
        tls: tls.transpose().map_err(|e| CliError::Failed(e.to_string()))?,
        ttl: cluster.lease_ttl,
        ..EtcdConfig::new(cluster.name.clone(), cluster.etcd.clone())
    })
}
