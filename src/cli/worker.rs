//! `bulkhead worker`: takes sealing tasks of an agent and runs them on the storage that both share.

use super::agent::{miner_id, sector_size};
use super::signals::Signals;
use super::{CliError, Context, seams};
use crate::actors::seal_worker::MARK;
use crate::actors::seal_worker::hand::Hand;
use crate::actors::seal_worker::messages::{Join, Slots};
use crate::proofs::{ChildProver, ProverPools};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client::RpcClient;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The agent, <token>:/ip4/../tcp/../http; its files `token` and `api` have both [default: $AGENT_API_INFO or $MINER_AGENT_APIINFO]
    #[arg(long, value_name = "TOKEN:ADDRESS")]
    pub agent: Option<String>,
    /// The agent's storage, mounted under the same path as there
    #[arg(long, env = "WORKER_PATH", value_name = "DIR")]
    pub storage: PathBuf,
    /// The miner that the agent works for
    #[arg(long, env = "MINER_ADDR", value_name = "t01000")]
    pub miner: String,
    /// Size of the miner's sectors: 2KiB, 8MiB, 512MiB, 32GiB, 64GiB, or in bytes
    #[arg(long, env = "SECTOR_SIZE", value_name = "SIZE", default_value = "32GiB")]
    pub sector_size: String,
    /// Tasks that write empty pieces, at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub add_piece: u32,
    /// PC1 tasks at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pc1: u32,
    /// PC2 tasks at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pc2: u32,
    /// C1 and C2 tasks at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub commit: u32,
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let named = args.agent.clone().map(|text| ("--agent", text));
    let named = named.or_else(|| env("AGENT_API_INFO").map(|text| ("AGENT_API_INFO", text)));
    let named = named.or_else(|| env("MINER_AGENT_APIINFO").map(|text| ("MINER_AGENT_APIINFO", text)));
    let Some((name, text)) = named else {
        let how = "set AGENT_API_INFO to <token>:<address>; the agent's folder has both in its files `token` and `api`";
        return Err(CliError::Usage(format!("no agent is named: {how}")));
    };
    let info = ApiInfo::parse(name, &text).map_err(|e| CliError::Usage(e.to_string()))?;
    let size = sector_size(&args.sector_size)?;
    let slots = Slots { add_piece: args.add_piece, pc1: args.pc1, pc2: args.pc2, commit: args.commit };
    let join = Join {
        id: hex::encode(rand::random::<[u8; 8]>()),
        name: worker_name(),
        miner: miner_id(&args.miner)?,
        sector_size: size,
        storage: mark(&args.storage)?,
        slots,
    };
    if slots.commit > 0 {
        seams::keys_ready(&cx.config.proving.parameter_cache, size)?;
    }
    let mut provers = seams::provers(&cx.config)?;
    provers.pools = ProverPools { seal: slots.total() as usize, ..ProverPools::default() };
    let hand = Hand {
        agent: RpcClient::new(&info, "v0").map_err(|e| CliError::Failed(e.to_string()))?,
        join,
        storage: std::path::absolute(&args.storage).unwrap_or(args.storage),
        prover: Arc::new(ChildProver::new(provers)),
    };
    let signals = Signals::install()?;
    tokio::select! {
        ended = hand.run() => ended.map_err(|e| CliError::Failed(e.to_string())),
        signal = signals.first() => {
            tracing::info!("{signal}: leaving; the agent gives the tasks to others");
            Ok(())
        }
    }
}

fn mark(storage: &std::path::Path) -> Result<String, CliError> {
    let path = storage.join(MARK);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        let how = "WORKER_PATH must be the agent's own folder, mounted under the same path as there";
        CliError::Failed(format!("{}: {e}; {how}", path.display()))
    })?;
    Ok(text.trim().to_owned())
}

/// For people: host and process.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
