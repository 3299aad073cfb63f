//! `bulkhead worker`: takes sealing tasks of an agent and runs them on the storage that both share.

use super::agent::{miner_id, sector_size};
use super::signals::Signals;
use super::{CliError, Context, wiring};
use crate::actors::seal_agent::MARK;
use crate::actors::seal_agent::messages::{Join, Slots};
use crate::actors::seal_agent::worker::Worker;
use crate::proofs::{ChildProver, ProverPools};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::auth::WORKER_TOKEN;
use crate::rpc::client::RpcClient;
use crate::rpc::descriptors;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The agent's API, /ip4/../tcp/../http [default: $AGENT_API_INFO or $MINER_AGENT_APIINFO, else what the file `api` in --storage holds]
    #[arg(long, value_name = "ADDRESS")]
    pub agent: Option<String>,
    /// The file that holds the workers' token, where AGENT_API_INFO holds none [default: `worker-token` in --storage]
    #[arg(long, env = "AGENT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
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
    descriptors::raise();
    let info = agent_info(&args, |name| std::env::var(name).ok().filter(|v| !v.is_empty()))?;
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
        wiring::keys_ready(&cx.config.proving.parameter_cache, size)?;
    }
    let mut provers = wiring::provers(&cx.config)?;
    provers.pools = ProverPools { seal: slots.total() as usize, ..ProverPools::default() };
    let hand = Worker {
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

/// Where the agent is, and the token for it: none has to stand on the command line, which every user of the host can read.
fn agent_info(args: &Args, env: impl Fn(&str) -> Option<String>) -> Result<ApiInfo, CliError> {
    let named = args.agent.clone().map(|text| ("--agent", text));
    let named = named.or_else(|| env("AGENT_API_INFO").map(|text| ("AGENT_API_INFO", text)));
    let named = named.or_else(|| env("MINER_AGENT_APIINFO").map(|text| ("MINER_AGENT_APIINFO", text)));
    let (name, text) = match named {
        Some((name, text)) => (name.to_string(), text),
        None => {
            let file = args.storage.join("api");
            let how = "give the agent's address in --agent or AGENT_API_INFO";
            let text = std::fs::read_to_string(&file)
                .map_err(|e| CliError::Usage(format!("no agent is named, and {}: {e}; {how}", file.display())))?;
            (file.display().to_string(), text)
        }
    };
    let info = ApiInfo::parse(&name, &text).map_err(|e| CliError::Usage(e.to_string()))?;
    if info.token.is_some() {
        if name == "--agent" {
            tracing::warn!(
                "the token in --agent can be read by every user of this host: leave it out, or set AGENT_API_INFO"
            );
        }
        return Ok(info);
    }
    let file = args.token_file.clone().unwrap_or_else(|| args.storage.join(WORKER_TOKEN));
    let token = std::fs::read_to_string(&file).map_err(|e| {
        let how = "the agent leaves the token of its workers in its folder; name the file with --token-file or AGENT_TOKEN_FILE";
        CliError::Failed(format!("{}: {e}; {how}", file.display()))
    })?;
    let token = token.trim().to_string();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CliError::Failed(format!("{}: it holds no token", file.display())));
    }
    Ok(ApiInfo { token: Some(token), ..info })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_from_the_variable_or_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("api", "/ip4/127.0.0.1/tcp/1/http");
        write(WORKER_TOKEN, "shared\n");
        write("mine", "own");
        write("empty", " \n");
        let own = dir.path().join("mine");
        let address = "/ip4/127.0.0.1/tcp/2/http";
        let with = format!("variable:{address}");
        // (--agent, AGENT_API_INFO, --token-file), (port, token)
        type Case<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a std::path::Path>, Option<(u16, &'a str)>);
        let cases: [Case<'_>; 7] = [
            (None, None, None, Some((1, "shared"))),
            (Some(address), None, None, Some((2, "shared"))),
            (None, Some(address), None, Some((2, "shared"))),
            (None, Some(&with), None, Some((2, "variable"))),
            (Some(address), Some("other:/ip4/127.0.0.1/tcp/3/http"), Some(&own), Some((2, "own"))),
            (None, None, Some(&dir.path().join("absent")), None),
            (None, None, Some(&dir.path().join("empty")), None),
        ];
        for (agent, variable, token_file, want) in cases {
            let args = Args {
                agent: agent.map(str::to_string),
                token_file: token_file.map(PathBuf::from),
                storage: dir.path().to_path_buf(),
                miner: "t01000".into(),
                sector_size: "2KiB".into(),
                add_piece: 1,
                pc1: 1,
                pc2: 1,
                commit: 1,
            };
            let env = |name: &str| variable.filter(|_| name == "AGENT_API_INFO").map(str::to_string);
            descriptors::raise();
            let info = agent_info(&args, env).ok();
            let got = info.as_ref().map(|info| (info.port, info.token.as_deref().unwrap_or_default()));
            assert_eq!(got, want, "{agent:?} {variable:?} {token_file:?}");
        }
    }
}
