//! The scripted chain's state, and how it misbehaves.

use super::{fil, miner};
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, ChainEpoch, TokenAmount};
use bulkhead::devnet::Wording;
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

#[derive(Clone, Debug)]
pub struct Executed {
    pub cid: Cid,
    pub message: Message,
    pub exit_code: i64,
    pub height: ChainEpoch,
}

#[derive(Default)]
pub struct Chain {
    pub height: ChainEpoch,
    /// Network version 29 from here on, 28 before.
    pub solstice: ChainEpoch,
    /// The node tells the height of that upgrade beforehand.
    pub announced: bool,
    /// The miner actor's available balance.
    pub available: TokenAmount,
    pub nonces: HashMap<Address, u64>,
    pub mempool: Vec<SignedMessage>,
    pub executed: Vec<Executed>,
    pub allocated: BTreeSet<u64>,
    pub pre_commits: BTreeMap<u64, SectorPreCommitOnChainInfo>,
    pub sectors: BTreeMap<u64, SectorOnChainInfo>,
    /// Nobody answers.
    pub down: bool,
    /// Messages below this premium stay in the mempool.
    pub min_premium: TokenAmount,
    /// What the base fee takes: a message whose cap is lower is in no block.
    pub base_fee: TokenAmount,
    /// By key address; of all others the chain has `RICH`.
    pub balances: HashMap<Address, TokenAmount>,
    /// The miner's control addresses: ID and key.
    pub controls: Vec<(u64, Address)>,
    /// Key addresses that the wallet cannot sign for.
    pub keyless: HashSet<Address>,
    /// No block, hence no mempool, takes more.
    pub block_gas: i64,
    /// Gas limits of the next estimates; 1000 where none is given.
    pub gas_limits: Vec<i64>,
    /// Messages are executed whatever their params are.
    pub plain: bool,
    /// No answer to a push; the node has not got the message.
    pub down_for_pushes: bool,
    /// What was pushed and not taken.
    pub refused: Vec<SignedMessage>,
    pub estimate_error: Option<String>,
    pub push_error: Option<String>,
    /// `MpoolGetNonce` is the one after the last that the mempool has, as on Forest; else the first that it lacks, as on Lotus.
    pub pool_counts_from_the_last: bool,
    /// No `MpoolPending`, as on some nodes.
    pub blind_mempool: bool,
    /// Exit codes for the next messages of a method.
    pub exits: Vec<(u64, i64)>,
    pub pushes: u64,
    pub pushed: Vec<SignedMessage>,
    /// Method -> how often it was called.
    pub calls: BTreeMap<&'static str, u64>,
    /// The CIDs that this node has ever held; of all others it knows nothing.
    pub held: HashSet<Cid>,
    /// Whose words refusals are in.
    pub wording: Wording,
    /// Addresses without an account on chain.
    pub strangers: HashSet<Address>,
    /// Heads at which no migration is computed for a caller (code -32002): those before an upgrade's epoch.
    pub forks: BTreeSet<ChainEpoch>,
    /// Every question for an account's key is refused with this.
    pub account_key_error: Option<String>,
    /// Blocks of others beside the one in each tipset.
    pub other_blocks: u64,
}

impl Chain {
    pub fn tipset(&self, height: ChainEpoch) -> TipSet {
        let mut tipset = tipset(height);
        tipset.blocks[0].parent_base_fee = self.base_fee.clone();
        for other in 0..self.other_blocks {
            tipset.cids.push(cid_of(&format!("block {height} of {other}")));
            let block = BlockHeader { miner: Address::new_id(2000 + other), ..tipset.blocks[0].clone() };
            tipset.blocks.push(block);
        }
        tipset
    }
}

pub(super) fn cid_of(text: &str) -> Cid {
    Cid::new_v1(0x71, Code::Blake2b256.digest(text.as_bytes()))
}

pub fn tipset(height: ChainEpoch) -> TipSet {
    let any = cid_of("any");
    let block = BlockHeader {
        miner: miner(),
        ticket: None,
        election_proof: None,
        beacon_entries: vec![],
        win_post_proof: vec![],
        parents: vec![],
        parent_weight: 0.into(),
        height,
        parent_state_root: any,
        parent_message_receipts: any,
        messages: any,
        bls_aggregate: None,
        timestamp: 0,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: fil(100),
    };
    TipSet { cids: vec![cid_of(&format!("block {height}"))], blocks: vec![block], height }
}

impl Chain {
    /// The height of a tipset; of an unknown one, that of the head.
    pub(super) fn height_of(&self, key: &TipSetKey) -> ChainEpoch {
        (0..=self.height).rev().find(|height| self.tipset(*height).key() == *key).unwrap_or(self.height)
    }
    /// `ForkUpgradeParams`: an upgrade's height is the last epoch of the version before.
    pub(super) fn upgrades(&self) -> serde_json::Value {
        match self.announced {
            true => serde_json::json!({ "UpgradeSolsticeHeight": self.solstice - 1 }),
            false => serde_json::Value::Null,
        }
    }
}
