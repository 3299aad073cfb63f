//! `bulkhead init`: creates a miner actor through the power actor, or adopts one, and makes a repo its home.
//!
//! The signed message is on disk before it is pushed: a run that was cut short goes on with the same message, so that
//! one `init` never makes two miners.

use super::output::print_error;
use super::{CliError, Context, seams};
use crate::actors::daemon_link::follow::check_network;
use crate::chain::lotus_json as lj;
use crate::chain::types::{Message, SignedMessage, TipSetKey};
use crate::chain::{Address, ChainEpoch, TokenAmount};
use crate::config::values::{format_size, parse_sector_size};
use crate::config::{Config, example};
use crate::failpoint;
use crate::rpc::full_node::FullNode;
use cid::Cid;
use fil_actor_power_state::v18::{CreateMinerParams, CreateMinerReturn};
use fvm_shared::sector::RegisteredPoStProof;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Of the power actor (`f04`).
const CREATE_MINER: u64 = 2;
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

pub enum Wanted {
    Create { owner: Option<Address>, worker: Option<Address>, sector_size: u64 },
    Adopt(Address),
}

/// What the repo belongs to now.
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
        (Some(actor), _) => Wanted::Adopt(actor),
        (None, Some(sector_size)) => Wanted::Create { owner: args.owner, worker: args.worker, sector_size },
        (None, None) => return Err(CliError::Usage("--sector-size or --actor is missing".to_string())),
    };
    if let Wanted::Create { sector_size, .. } = &wanted {
        // before anything costs gas
        seams::keys_ready(&cx.config.proving.parameter_cache, *sector_size)?;
    }
    let node = seams::full_node(&cx.config)?;
    let network = check_network(node.as_ref(), None).await.map_err(|e| CliError::Failed(e.to_string()))?.network_name;
    lj::address::print_as_on(&network);
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
    wanted: &Wanted,
    config: &Config,
    node: &dyn FullNode,
    confidence: ChainEpoch,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Initialised, CliError> {
    if let (Some(miner), Wanted::Create { .. }) = (&config.node.miner, wanted) {
        let repo = config.repo.display();
        return Err(CliError::Failed(format!(
            "{repo} belongs to miner {miner} already; use another --repo for a new one"
        )));
    }
    let miner = match wanted {
        Wanted::Adopt(miner) => *miner,
        Wanted::Create { owner, worker, sector_size } => {
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
    seams::keys_ready(&config.proving.parameter_cache, info.sector_size)?;
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
struct Pending {
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
    let proof = window_post_proof(sector_size, version)
        .ok_or_else(|| CliError::Usage(format!("--sector-size {sector_size}: no such sector size")))?;
    if !takes(&network.supported_proof_types, sector_size) {
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
            let message = create_miner(from, worker, proof)?;
            let mut message = node.gas_estimate_message_gas(&message, &TokenAmount::default(), &head).await?;
            message.nonce = node.mpool_get_nonce(&from).await?;
            let message = node.wallet_sign_message(&from, &message).await?;
            let text = serde_json::to_vec_pretty(&Pending { message: message.clone() })
                .map_err(|e| CliError::Bug(format!("a signed message cannot be written: {e}")))?;
            let fail = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
            std::fs::create_dir_all(&config.repo).map_err(fail)?;
            example::write_durably(&path, &text).map_err(fail)?;
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
    let made: CreateMinerReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).map_err(|e| {
        CliError::Failed(format!("full node {}: the return value of CreateMiner cannot be read: {e}", node.name()))
    })?;
    Ok(made.id_address)
}

/// A message that an earlier run has pushed: still pending, or its nonce is used up by it.
async fn find_pushed(node: &dyn FullNode, signed: &SignedMessage) -> Result<Option<Cid>, CliError> {
    let cid = message_cid(signed)?;
    let pending = node.mpool_pending(&TipSetKey::default()).await?;
    if pending.iter().any(|m| m.message == signed.message) {
        return Ok(Some(cid));
    }
    Ok(node.state_search_msg(&TipSetKey::default(), &cid, -1, false).await?.map(|_| cid))
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
            let found = node.state_search_msg(&head.key(), cid, -1, true).await?;
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

fn create_miner(owner: Address, worker: Address, window_post_proof: i64) -> Result<Message, CliError> {
    let params = CreateMinerParams {
        owner,
        worker,
        window_post_proof_type: RegisteredPoStProof::from(window_post_proof),
        // set when the market's host starts
        peer: vec![],
        multiaddrs: vec![],
    };
    let params =
        fvm_ipld_encoding::to_vec(&params).map_err(|e| CliError::Bug(format!("CreateMiner cannot be encoded: {e}")))?;
    Ok(Message {
        version: 0,
        to: Address::new_id(4),
        from: owner,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: CREATE_MINER,
        params,
    })
}

/// A signed BLS message has the CID of its unsigned form, another one that of its signed form; the message sender's
/// encoding is the network's, so it is asked for there.
fn message_cid(signed: &SignedMessage) -> Result<Cid, CliError> {
    seams::message_cid(signed)
}

/// Position of a sector size in the network's proof-type numbers.
fn size_index(sector_size: u64) -> Option<i64> {
    // 2 KiB, 8 MiB, 512 MiB, 32 GiB, 64 GiB: the order of RegisteredSealProof and RegisteredPoStProof
    [2 << 10, 8 << 20, 512 << 20, 32 << 30, 64 << 30].iter().position(|s| *s == sector_size).map(|i| i as i64)
}

/// From network version 19 on the V1_1 types (10..14), before it the older ones (5..9).
fn window_post_proof(sector_size: u64, network_version: u32) -> Option<i64> {
    size_index(sector_size).map(|i| i + if network_version >= 19 { 10 } else { 5 })
}

/// A node that names no types takes any: the network will say.
fn takes(supported_seal_proofs: &[i64], sector_size: u64) -> bool {
    // five sizes each of V1, V1_1, synthetic and non-interactive
    supported_seal_proofs.is_empty() || supported_seal_proofs.iter().any(|p| Some(p % 5) == size_index(sector_size))
}

fn read_pending(path: &Path) -> Result<Option<Pending>, CliError> {
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

    #[test]
    fn proof_types_follow_size_and_network_version() {
        assert_eq!(window_post_proof(2 << 10, 28), Some(10));
        assert_eq!(window_post_proof(2 << 10, 19), Some(10));
        assert_eq!(window_post_proof(2 << 10, 18), Some(5));
        assert_eq!(window_post_proof(32 << 30, 28), Some(13));
        assert_eq!(window_post_proof(64 << 30, 28), Some(14));
        assert_eq!(window_post_proof(2049, 28), None);
    }

    #[test]
    fn a_network_takes_the_sizes_of_its_seal_proofs() {
        assert!(takes(&[5], 2 << 10) && takes(&[], 2 << 10) && takes(&[8, 9], 32 << 30));
        assert!(!takes(&[8, 9], 2 << 10) && !takes(&[5], 32 << 30) && !takes(&[5], 2047));
    }

    #[test]
    fn the_message_decodes_as_the_power_actor_reads_it() {
        let (owner, worker) = (Address::new_id(100), Address::new_id(101));
        let message = create_miner(owner, worker, 10).unwrap();
        assert_eq!((message.to, message.from, message.method), (Address::new_id(4), owner, 2));
        let params: CreateMinerParams = fvm_ipld_encoding::from_slice(&message.params).unwrap();
        assert_eq!((params.owner, params.worker), (owner, worker));
        assert_eq!(i64::from(params.window_post_proof_type), 10);
    }

    #[test]
    fn a_pending_message_survives_a_restart_and_junk_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = pending_file(dir.path());
        assert!(read_pending(&path).unwrap().is_none());
        let message = create_miner(Address::new_id(100), Address::new_id(100), 10).unwrap();
        let signature = crate::chain::types::Signature { kind: 2, data: vec![7; 96] };
        let pending = Pending { message: SignedMessage { message, signature } };
        example::write_durably(&path, &serde_json::to_vec(&pending).unwrap()).unwrap();
        assert_eq!(read_pending(&path).unwrap(), Some(pending));
        std::fs::write(&path, b"{").unwrap();
        assert!(read_pending(&path).unwrap_err().to_string().contains("init.json"));
    }
}
