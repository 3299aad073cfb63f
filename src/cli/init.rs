//! `bulkhead init`: creates a miner actor through the power actor, or adopts one, and makes a repo its home.
//!
//! The signed message is on disk before it is pushed: a run that was cut short goes on with the same message, so that
//! one `init` never makes two miners.

use super::output::print_error;
use super::{CliError, Context, wiring};
use crate::actors::daemon_link::follow::check_network;
use crate::chain::lotus_json as lj;
use crate::chain::miner_messages::{self, MinerCall};
use crate::chain::types::{Message, SignedMessage, TipSetKey};
use crate::chain::{Address, ChainEpoch, TokenAmount, network, proof_types};
use crate::config::values::{format_size, parse_sector_size};
use crate::config::{Config, example};
use crate::failpoint;
use crate::rpc::full_node::{FullNode, MessageVerdict};
use crate::util::{Mode, write_durably};
use cid::Cid;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Tipsets on top of the message before its result counts, as Lotus does.
const CONFIDENCE: ChainEpoch = 5;

fn address(text: &str) -> Result<Address, String> {
    lj::address::parse(text)
}

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Owner of the new miner: an account in the full node's wallet [default: the wallet's default address]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub owner: Option<Address>,
    /// Worker of the new miner: a BLS account (t3..) in the full node's wallet [default: the owner]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub worker: Option<Address>,
    /// 2KiB, 8MiB, 512MiB, 32GiB or 64GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_sector_size, required_unless_present = "actor")]
    pub sector_size: Option<u64>,
    /// Adopt this miner instead of creating one
    #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with_all = ["owner", "worker", "sector_size"])]
    pub actor: Option<Address>,
}

pub enum WantedMiner {
    Create { owner: Option<Address>, worker: Option<Address>, sector_size: u64 },
    Adopt(Address),
}

/// The miner that the repo belongs to now.
#[derive(Serialize, Clone, Debug)]
pub struct Initialised {
    pub miner: String,
    pub owner: String,
    pub worker: String,
    pub sector_size: u64,
    pub repo: PathBuf,
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    let wanted = match (args.actor, args.sector_size) {
        (Some(actor), _) => WantedMiner::Adopt(actor),
        (None, Some(sector_size)) => WantedMiner::Create { owner: args.owner, worker: args.worker, sector_size },
        (None, None) => return Err(CliError::Usage("--sector-size or --actor is missing".to_string())),
    };
    if let WantedMiner::Create { sector_size, .. } = &wanted {
        // before anything costs gas
        wiring::keys_ready(&cx.config.proving.parameter_cache, *sector_size)?;
    }
    let node = wiring::full_node(&cx.config)?;
    check_network(node.as_ref(), None).await.map_err(|e| CliError::Failed(e.to_string()))?;
    let done = init(&wanted, &cx.config, node.as_ref(), CONFIDENCE, &|line| print_error(line)).await?;
    cx.out.answer(&done, |d| {
        format!(
            "{} is the home of {} (owner {}, worker {}, {} sectors); start it with `bulkhead run`",
            d.repo.display(),
            d.miner,
            d.owner,
            d.worker,
            format_size(d.sector_size)
        )
    });
    Ok(())
}

/// Also the devnet's way to its first miner. `confidence`: tipsets on top of CreateMiner before it counts.
pub async fn init(
    wanted: &WantedMiner,
    config: &Config,
    node: &dyn FullNode,
    confidence: ChainEpoch,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Initialised, CliError> {
    if let (Some(miner), WantedMiner::Create { .. }) = (&config.node.miner, wanted) {
        let repo = config.repo.display();
        return Err(CliError::Failed(format!(
            "{repo} belongs to miner {miner} already; use another --repo for a new one"
        )));
    }
    network::use_network(&node.state_network_name().await?);
    let miner = match wanted {
        WantedMiner::Adopt(miner) => *miner,
        WantedMiner::Create { owner, worker, sector_size } => {
            create(*owner, *worker, *sector_size, config, node, confidence, say).await?
        }
    };
    let head = TipSetKey::default();
    let miner = node.state_lookup_id(&miner, &head).await?;
    let info = node.state_miner_info(&miner, &head).await?;
    let worker_key = node.state_account_key(&info.worker, &head).await?;
    if !node.wallet_has(&worker_key).await? {
        return Err(CliError::Failed(format!(
            "the wallet of full node {} does not hold {worker_key}, the key of {miner}'s worker {}; import it there first",
            node.name(),
            info.worker
        )));
    }
    wiring::keys_ready(&config.proving.parameter_cache, info.sector_size)?;
    failpoint::hit("init", "created");
    example::set_miner(config, &miner.to_string())?;
    remove(&pending_file(&config.repo))?;
    Ok(Initialised {
        miner: miner.to_string(),
        owner: info.owner.to_string(),
        worker: info.worker.to_string(),
        sector_size: info.sector_size,
        repo: config.repo.clone(),
    })
}

/// On disk from before the push until the repo has its miner.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct PendingMiner {
    message: SignedMessage,
}

fn pending_file(repo: &Path) -> PathBuf {
    repo.join("init.json")
}

async fn create(
    owner: Option<Address>,
    worker: Option<Address>,
    sector_size: u64,
    config: &Config,
    node: &dyn FullNode,
    confidence: ChainEpoch,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Address, CliError> {
    let head = TipSetKey::default();
    let network = node.state_get_network_params().await?;
    let version = node.state_network_version(&head).await?;
    let proof = proof_types::window_post_proof(sector_size, version)
        .ok_or_else(|| CliError::Usage(format!("--sector-size {sector_size}: no such sector size")))?;
    if !proof_types::takes(&network.supported_proof_types, sector_size) {
        let size = format_size(sector_size);
        return Err(CliError::Failed(format!(
            "network {} takes no sectors of {size} (--sector-size)",
            network.network_name
        )));
    }
    let path = pending_file(&config.repo);
    let signed = match read_pending(&path)? {
        Some(pending) => {
            say("going on with the message that an earlier init has signed");
            pending.message
        }
        None => {
            let owner = match owner {
                Some(owner) => owner,
                None => node.wallet_default_address().await?.ok_or_else(|| {
                    CliError::Usage(format!(
                        "--owner is missing: the wallet of full node {} has no default address",
                        node.name()
                    ))
                })?,
            };
            let worker = worker.unwrap_or(owner);
            let from = node.state_account_key(&owner, &head).await?;
            if !node.wallet_has(&from).await? {
                return Err(CliError::Failed(format!(
                    "--owner {owner}: the wallet of full node {} does not hold its key",
                    node.name()
                )));
            }
            let message = create_miner(from, worker, proof, creation_deposit(node).await?)?;
            let mut message = node.gas_estimate_message_gas(&message, &TokenAmount::default(), &head).await?;
            message.nonce = node.mpool_get_nonce(&from).await?;
            let message = node.wallet_sign_message(&from, &message).await?;
            let text = serde_json::to_vec_pretty(&PendingMiner { message: message.clone() })
                .map_err(|e| CliError::Bug(format!("a signed message cannot be written: {e}")))?;
            let fail = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
            std::fs::create_dir_all(&config.repo).map_err(fail)?;
            write_durably(&path, &text, Mode::Private).map_err(fail)?;
            failpoint::hit("init", "signed");
            message
        }
    };
    // the pool of a full node that has it already answers with its CID or with an error; what counts is the chain
    let cid = match node.mpool_push(&signed).await {
        Ok(cid) => cid,
        Err(e) if e.is_transient() => return Err(e.into()),
        Err(e) => match find_pushed(node, &signed).await? {
            Some(cid) => cid,
            None => {
                return Err(CliError::Failed(format!(
                    "{e}; the message is kept in {}: remove that file to begin anew",
                    path.display()
                )));
            }
        },
    };
    failpoint::hit("init", "pushed");
    say(&format!("CreateMiner is sent ({cid}), waiting for the chain"));
    let block = Duration::from_secs(network.block_delay_secs.max(1));
    let receipt = wait(node, &cid, confidence, block).await?;
    if receipt.exit_code != 0 {
        remove(&path)?;
        return Err(CliError::Failed(format!(
            "the network refused CreateMiner with exit code {} (message {cid})",
            receipt.exit_code
        )));
    }
    let (id, _robust) = miner_messages::created_miner(&receipt.return_data)
        .map_err(|e| CliError::Failed(format!("full node {}: {e}", node.name())))?;
    Ok(id)
}

/// A message that an earlier run has pushed: still pending, or its nonce is used up by it.
async fn find_pushed(node: &dyn FullNode, signed: &SignedMessage) -> Result<Option<Cid>, CliError> {
    let cid = message_cid(signed)?;
    let pending = node.mpool_pending(&TipSetKey::default()).await?;
    if pending.iter().any(|m| m.message == signed.message) {
        return Ok(Some(cid));
    }
    // A node that never saw the message calls that an error: it is not pushed either way.
    match node.state_search_msg(&TipSetKey::default(), &cid, -1, false).await {
        Err(e) if e.is_transient() => Err(e.into()),
        found => Ok(found.ok().flatten().map(|_| cid)),
    }
}

async fn wait(
    node: &dyn FullNode,
    cid: &Cid,
    confidence: ChainEpoch,
    block: Duration,
) -> Result<crate::chain::types::MessageReceipt, CliError> {
    let (started, limit) = (Instant::now(), (block * 60).max(Duration::from_secs(120)));
    let mut seen = None;
    loop {
        let head = node.chain_head().await?;
        if seen != Some(head.height) {
            seen = Some(head.height);
            let found = match node.state_search_msg(&head.key(), cid, -1, true).await {
                Err(e) if e.of_message() == Some(MessageVerdict::NotHere) => None,
                found => found?,
            };
            if let Some(found) = found.filter(|f| head.height >= f.height + confidence) {
                return Ok(found.receipt);
            }
        }
        if started.elapsed() > limit {
            return Err(CliError::Failed(format!(
                "CreateMiner ({cid}) is not on chain after {} s; the same command goes on waiting for it",
                limit.as_secs()
            )));
        }
        // another process's chain: its next tipset is what this waits for
        tokio::time::sleep((block / 4).clamp(Duration::from_millis(200), Duration::from_secs(5))).await;
    }
}

fn create_miner(owner: Address, worker: Address, proof: i64, deposit: TokenAmount) -> Result<Message, CliError> {
    // peer and addresses are set when the market's host starts
    let call = miner_messages::create_miner(owner, worker, proof, vec![], vec![]);
    let MinerCall { method, params } = call.map_err(|e| CliError::Bug(e.to_string()))?;
    Ok(Message {
        version: 0,
        to: miner_messages::POWER_ACTOR,
        from: owner,
        nonce: 0,
        value: deposit,
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method,
        params,
    })
}

/// The deposit that CreateMiner must carry, plus a hundredth, because it moves until the message lands: the rest stays
/// with the miner. A node without the method is older than FIP-0077, when there was no deposit.
async fn creation_deposit(node: &dyn FullNode) -> Result<TokenAmount, CliError> {
    match node.state_miner_creation_deposit(&TipSetKey::default()).await {
        Ok(deposit) => Ok(TokenAmount::from_atto((deposit.atto() * 101u8 + 99u8) / 100u8)),
        Err(e) if e.is_missing_method() => Ok(TokenAmount::default()),
        Err(e) => Err(e.into()),
    }
}

/// A signed BLS message has the CID of its unsigned form, another one that of its signed form; the message sender's
/// encoding is the network's, so it is asked for there.
fn message_cid(signed: &SignedMessage) -> Result<Cid, CliError> {
    wiring::message_cid(signed)
}

fn read_pending(path: &Path) -> Result<Option<PendingMiner>, CliError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CliError::Failed(format!("{}: {e}", path.display()))),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        CliError::Failed(format!(
            "{}: not a message that an earlier init has signed ({e}); move it away to begin anew",
            path.display()
        ))
    })
}

fn remove(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CliError::Failed(format!("{}: {e}", path.display()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fil_actor_power_state::v18::CreateMinerParams;

    #[test]
    fn the_message_decodes_as_the_power_actor_reads_it() {
        let (owner, worker) = (Address::new_id(100), Address::new_id(101));
        let message = create_miner(owner, worker, 10, TokenAmount::from_whole(1)).unwrap();
        assert_eq!((message.to, message.from, message.method), (Address::new_id(4), owner, 2));
        assert_eq!(message.value, TokenAmount::from_whole(1));
        let params: CreateMinerParams = fvm_ipld_encoding::from_slice(&message.params).unwrap();
        assert_eq!((params.owner, params.worker), (owner, worker));
        assert_eq!(i64::from(params.window_post_proof_type), 10);
    }

    #[test]
    fn a_pending_message_survives_a_restart_and_junk_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = pending_file(dir.path());
        assert!(read_pending(&path).unwrap().is_none());
        let message = create_miner(Address::new_id(100), Address::new_id(100), 10, TokenAmount::default()).unwrap();
        let signature = crate::chain::types::Signature { kind: 2, data: vec![7; 96] };
        let pending = PendingMiner { message: SignedMessage { message, signature } };
        write_durably(&path, &serde_json::to_vec(&pending).unwrap(), Mode::Private).unwrap();
        assert_eq!(read_pending(&path).unwrap(), Some(pending));
        std::fs::write(&path, b"{").unwrap();
        assert!(read_pending(&path).unwrap_err().to_string().contains("init.json"));
    }
}
