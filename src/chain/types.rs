//! The full node's types, in the shapes of Lotus' JSON-RPC (`api/api_full.go`, `chain/types`).
//!
//! Optional where a node may leave a field out or send `null`. Amounts are attoFIL, epochs are heights.

pub use super::f3::{F3Lease, F3Manifest, F3Progress};
use super::lotus_json as lj;
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use num_bigint::BigInt;
use serde::{Deserialize, Deserializer, Serialize};

/// The blocks' CIDs; empty means "the heaviest tipset" where a method allows it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, Default)]
#[serde(transparent)]
pub struct TipSetKey(#[serde(with = "lj::cids")] pub Vec<Cid>);

/// An unsigned message (`chain/types/message.go`). JSON carries its `CID` beside the fields; reading ignores it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct Message {
    #[serde(default)]
    pub version: u64,
    #[serde(with = "lj::address")]
    pub to: Address,
    #[serde(with = "lj::address")]
    pub from: Address,
    #[serde(default)]
    pub nonce: u64,
    #[serde(with = "lj::token")]
    pub value: TokenAmount,
    #[serde(default)]
    pub gas_limit: i64,
    #[serde(default, with = "lj::token")]
    pub gas_fee_cap: TokenAmount,
    #[serde(default, with = "lj::token")]
    pub gas_premium: TokenAmount,
    pub method: u64,
    /// CBOR; base64 on the wire.
    #[serde(default, with = "lj::bytes")]
    pub params: Vec<u8>,
}

/// 1 = secp256k1, 2 = BLS (`go-state-types/crypto`).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Signature {
    #[serde(rename = "Type")]
    pub kind: u8,
    #[serde(with = "lj::bytes")]
    pub data: Vec<u8>,
}

/// JSON carries its `CID`: the unsigned message's for BLS, the signed one's otherwise.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct SignedMessage {
    pub message: Message,
    pub signature: Signature,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Ticket {
    #[serde(rename = "VRFProof", with = "lj::bytes")]
    pub vrf_proof: Vec<u8>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct ElectionProof {
    pub win_count: i64,
    #[serde(rename = "VRFProof", with = "lj::bytes")]
    pub vrf_proof: Vec<u8>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct BeaconEntry {
    pub round: u64,
    #[serde(with = "lj::bytes")]
    pub data: Vec<u8>,
}

/// A Winning- or WindowPoSt proof with its `RegisteredPoStProof` number.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct PoStProof {
    #[serde(rename = "PoStProof")]
    pub post_proof: i64,
    #[serde(with = "lj::bytes")]
    pub proof_bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct BlockHeader {
    #[serde(with = "lj::address")]
    pub miner: Address,
    pub ticket: Option<Ticket>,
    pub election_proof: Option<ElectionProof>,
    #[serde(with = "lj::nullable")]
    pub beacon_entries: Vec<BeaconEntry>,
    #[serde(rename = "WinPoStProof", with = "lj::nullable")]
    pub win_post_proof: Vec<PoStProof>,
    #[serde(with = "lj::cids")]
    pub parents: Vec<Cid>,
    #[serde(with = "lj::bigint")]
    pub parent_weight: BigInt,
    pub height: ChainEpoch,
    #[serde(with = "lj::cid")]
    pub parent_state_root: Cid,
    #[serde(with = "lj::cid")]
    pub parent_message_receipts: Cid,
    #[serde(with = "lj::cid")]
    pub messages: Cid,
    #[serde(rename = "BLSAggregate")]
    pub bls_aggregate: Option<Signature>,
    /// Unix seconds.
    pub timestamp: u64,
    pub block_sig: Option<Signature>,
    pub fork_signaling: u64,
    #[serde(with = "lj::token")]
    pub parent_base_fee: TokenAmount,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct TipSet {
    #[serde(with = "lj::cids")]
    pub cids: Vec<Cid>,
    /// Never empty: a tipset without blocks is refused when it is read.
    #[serde(deserialize_with = "at_least_one_block")]
    pub blocks: Vec<BlockHeader>,
    pub height: ChainEpoch,
}

fn at_least_one_block<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<BlockHeader>, D::Error> {
    match Option::<Vec<BlockHeader>>::deserialize(d)? {
        Some(blocks) if !blocks.is_empty() => Ok(blocks),
        _ => Err(serde::de::Error::custom("a tipset without blocks")),
    }
}

impl TipSet {
    pub fn key(&self) -> TipSetKey {
        TipSetKey(self.cids.clone())
    }
    /// The block with the smallest ticket comes first, as Lotus sorts them.
    pub fn min_ticket_block(&self) -> &BlockHeader {
        &self.blocks[0]
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum HeadChangeType {
    Current,
    Apply,
    Revert,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct HeadChange {
    #[serde(rename = "Type")]
    pub kind: HeadChangeType,
    pub val: TipSet,
}

/// `StateMinerProvingDeadline` (`go-state-types/dline`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "PascalCase")]
pub struct DeadlineInfo {
    pub current_epoch: ChainEpoch,
    pub period_start: ChainEpoch,
    pub index: u64,
    pub open: ChainEpoch,
    pub close: ChainEpoch,
    pub challenge: ChainEpoch,
    pub fault_cutoff: ChainEpoch,
    #[serde(rename = "WPoStPeriodDeadlines")]
    pub w_post_period_deadlines: u64,
    #[serde(rename = "WPoStProvingPeriod")]
    pub w_post_proving_period: ChainEpoch,
    #[serde(rename = "WPoStChallengeWindow")]
    pub w_post_challenge_window: ChainEpoch,
    #[serde(rename = "WPoStChallengeLookback")]
    pub w_post_challenge_lookback: ChainEpoch,
    pub fault_declaration_cutoff: ChainEpoch,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct Deadline {
    #[serde(with = "lj::bitfield")]
    pub post_submissions: BitField,
    #[serde(default, with = "lj::nullable")]
    pub disputable_proof_count: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct Partition {
    #[serde(with = "lj::bitfield")]
    pub all_sectors: BitField,
    #[serde(with = "lj::bitfield")]
    pub faulty_sectors: BitField,
    #[serde(with = "lj::bitfield")]
    pub recovering_sectors: BitField,
    #[serde(with = "lj::bitfield")]
    pub live_sectors: BitField,
    #[serde(with = "lj::bitfield")]
    pub active_sectors: BitField,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct MinerInfo {
    #[serde(with = "lj::address")]
    pub owner: Address,
    #[serde(with = "lj::address")]
    pub worker: Address,
    #[serde(default, with = "lj::opt_address")]
    pub new_worker: Option<Address>,
    #[serde(default, with = "lj::addresses")]
    pub control_addresses: Vec<Address>,
    #[serde(default, with = "lj::nullable")]
    pub worker_change_epoch: ChainEpoch,
    /// libp2p peer id, base58; `null` when none is set.
    #[serde(default)]
    pub peer_id: Option<String>,
    /// Binary multiaddresses, base64.
    #[serde(default, with = "lj::nullable")]
    pub multiaddrs: Vec<String>,
    #[serde(rename = "WindowPoStProofType")]
    pub window_post_proof_type: i64,
    pub sector_size: u64,
    #[serde(rename = "WindowPoStPartitionSectors")]
    pub window_post_partition_sectors: u64,
    #[serde(default, with = "lj::nullable")]
    pub consensus_fault_elapsed: ChainEpoch,
    /// The owner that was proposed and has not confirmed.
    #[serde(default, with = "lj::null_address")]
    pub pending_owner_address: Option<Address>,
    /// Withdrawals go to it; `None`: the node does not tell.
    #[serde(default, with = "lj::opt_address")]
    pub beneficiary: Option<Address>,
}

/// The funds of a miner actor, by `StateReadState`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinerFunds {
    /// The actor's balance: all of the rest is part of it.
    pub balance: TokenAmount,
    pub pre_commit_deposits: TokenAmount,
    pub initial_pledge: TokenAmount,
    /// Rewards that vest.
    pub vesting: TokenAmount,
    /// Its debt to the network; paid before anything can be withdrawn.
    pub fee_debt: TokenAmount,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Claim {
    #[serde(with = "lj::bigint")]
    pub raw_byte_power: BigInt,
    #[serde(with = "lj::bigint")]
    pub quality_adj_power: BigInt,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct MinerPower {
    pub miner_power: Claim,
    pub total_power: Claim,
    pub has_min_power: bool,
}

/// `SectorOnChainInfo`; what nodes may leave out is optional.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorOnChainInfo {
    pub sector_number: u64,
    pub seal_proof: i64,
    #[serde(rename = "SealedCID", with = "lj::cid")]
    pub sealed_cid: Cid,
    /// Only older nodes tell them.
    #[serde(rename = "DealIDs", default, with = "lj::nullable", skip_serializing_if = "Vec::is_empty")]
    pub deal_ids: Vec<u64>,
    pub activation: ChainEpoch,
    pub expiration: ChainEpoch,
    #[serde(default, with = "lj::opt_token")]
    pub initial_pledge: Option<TokenAmount>,
    #[serde(default, with = "lj::opt_token")]
    pub expected_day_reward: Option<TokenAmount>,
    #[serde(default, with = "lj::opt_token")]
    pub expected_storage_pledge: Option<TokenAmount>,
    #[serde(default, with = "lj::nullable")]
    pub power_base_epoch: ChainEpoch,
    #[serde(rename = "SectorKeyCID", default, with = "lj::opt_cid")]
    pub sector_key_cid: Option<Cid>,
    #[serde(default, with = "lj::nullable")]
    pub flags: u64,
    #[serde(default, with = "lj::opt_token")]
    pub daily_fee: Option<TokenAmount>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPreCommitInfo {
    pub seal_proof: i64,
    pub sector_number: u64,
    #[serde(rename = "SealedCID", with = "lj::cid")]
    pub sealed_cid: Cid,
    pub seal_rand_epoch: ChainEpoch,
    #[serde(rename = "DealIDs", default, with = "lj::nullable")]
    pub deal_ids: Vec<u64>,
    pub expiration: ChainEpoch,
    #[serde(rename = "UnsealedCid", default, with = "lj::opt_cid")]
    pub unsealed_cid: Option<Cid>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPreCommitOnChainInfo {
    pub info: SectorPreCommitInfo,
    #[serde(with = "lj::token")]
    pub pre_commit_deposit: TokenAmount,
    pub pre_commit_epoch: ChainEpoch,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct SectorLocation {
    pub deadline: u64,
    pub partition: u64,
}

/// `StateGetNetworkParams`. Zero or empty: the node does not tell.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkParams {
    #[serde(with = "lj::nullable")]
    pub network_name: String,
    #[serde(with = "lj::nullable")]
    pub block_delay_secs: u64,
    #[serde(with = "lj::bigint")]
    pub consensus_miner_min_power: BigInt,
    #[serde(with = "lj::nullable")]
    pub supported_proof_types: Vec<i64>,
    #[serde(with = "lj::nullable")]
    pub pre_commit_challenge_delay: ChainEpoch,
    pub fork_upgrade_params: serde_json::Value,
    #[serde(rename = "Eip155ChainID", with = "lj::nullable")]
    pub eip155_chain_id: u64,
    #[serde(with = "lj::nullable")]
    pub genesis_timestamp: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct OnChainActor {
    #[serde(with = "lj::cid")]
    pub code: Cid,
    #[serde(with = "lj::cid")]
    pub head: Cid,
    pub nonce: u64,
    #[serde(with = "lj::token")]
    pub balance: TokenAmount,
    #[serde(default, with = "lj::null_address")]
    pub delegated_address: Option<Address>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct MessageReceipt {
    pub exit_code: i64,
    #[serde(rename = "Return", default, with = "lj::bytes")]
    pub return_data: Vec<u8>,
    pub gas_used: i64,
    #[serde(default, with = "lj::opt_cid")]
    pub events_root: Option<Cid>,
}

/// `StateSearchMsg` / `StateWaitMsg`. `tip_set` is the tipset that executed it, `height` its epoch.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct MsgLookup {
    #[serde(with = "lj::cid")]
    pub message: Cid,
    pub receipt: MessageReceipt,
    #[serde(default)]
    pub return_dec: serde_json::Value,
    pub tip_set: TipSetKey,
    pub height: ChainEpoch,
}

/// One of the sectors that a WinningPoSt challenges.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct ExtendedSectorInfo {
    pub seal_proof: i64,
    pub sector_number: u64,
    #[serde(default, with = "lj::opt_cid")]
    pub sector_key: Option<Cid>,
    #[serde(rename = "SealedCID", with = "lj::cid")]
    pub sealed_cid: Cid,
}

/// `MinerGetBaseInfo`; the call answers `null` when the miner may not mine at all.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct MiningBaseInfo {
    #[serde(with = "lj::bigint")]
    pub miner_power: BigInt,
    #[serde(with = "lj::bigint")]
    pub network_power: BigInt,
    #[serde(with = "lj::nullable")]
    pub sectors: Vec<ExtendedSectorInfo>,
    #[serde(with = "lj::address")]
    pub worker_key: Address,
    pub sector_size: u64,
    pub prev_beacon_entry: BeaconEntry,
    #[serde(with = "lj::nullable")]
    pub beacon_entries: Vec<BeaconEntry>,
    pub eligible_for_mining: bool,
}

/// `MinerCreateBlock` takes it; the node signs the block with the worker's key.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct BlockTemplate {
    #[serde(with = "lj::address")]
    pub miner: Address,
    pub parents: TipSetKey,
    pub ticket: Ticket,
    pub eproof: ElectionProof,
    #[serde(with = "lj::nullable")]
    pub beacon_values: Vec<BeaconEntry>,
    #[serde(with = "lj::nullable")]
    pub messages: Vec<SignedMessage>,
    pub epoch: ChainEpoch,
    pub timestamp: u64,
    #[serde(rename = "WinningPoStProof", with = "lj::nullable")]
    pub winning_post_proof: Vec<PoStProof>,
}

/// `SyncSubmitBlock` takes it.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct BlockMsg {
    pub header: BlockHeader,
    #[serde(default, with = "lj::cids")]
    pub bls_messages: Vec<Cid>,
    #[serde(default, with = "lj::cids")]
    pub secpk_messages: Vec<Cid>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    #[serde(with = "lj::nullable")]
    pub version: String,
    #[serde(rename = "APIVersion", with = "lj::nullable")]
    pub api_version: u64,
    /// Seconds; zero where the node does not tell (a storage provider's own API).
    #[serde(with = "lj::nullable")]
    pub block_delay: u64,
}
