//! Shapes of Lotus' StorageMiner API (`api/api_storage.go`): Go's field names, `null` for what is not there yet.

use crate::chain::lotus_json as lj;
use cid::Cid;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// `abi.SectorID`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct SectorId {
    pub miner: u64,
    pub number: u64,
}

/// Ticket or seed: 32 bytes and the epoch that they are from; empty and 0 before they are drawn.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "PascalCase")]
pub struct SealRandomness {
    #[serde(with = "lj::bytes")]
    pub value: Vec<u8>,
    pub epoch: ChainEpoch,
}

/// One line of `sectors status --log`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "PascalCase")]
pub struct SectorLog {
    pub kind: String,
    /// Unix seconds.
    pub timestamp: u64,
    pub trace: String,
    pub message: String,
}

/// `abi.PieceInfo`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct PieceInfo {
    pub size: u64,
    #[serde(rename = "PieceCID", with = "lj::cid")]
    pub piece_cid: Cid,
}

/// `DealInfo` is null for the filler of a committed-capacity sector.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPiece {
    pub piece: PieceInfo,
    #[serde(default)]
    pub deal_info: serde_json::Value,
}

/// The answer of `SectorsStatus`. The part from `seal_proof` on is filled from the chain when the caller asks for it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "PascalCase")]
pub struct SectorInfo {
    #[serde(rename = "SectorID")]
    pub sector_id: u64,
    pub state: String,
    #[serde(default, with = "lj::opt_cid")]
    pub comm_d: Option<Cid>,
    #[serde(default, with = "lj::opt_cid")]
    pub comm_r: Option<Cid>,
    #[serde(default, with = "lj::bytes")]
    pub proof: Vec<u8>,
    #[serde(default, with = "lj::nullable")]
    pub deals: Vec<u64>,
    #[serde(default, with = "lj::nullable")]
    pub pieces: Vec<SectorPiece>,
    pub ticket: SealRandomness,
    pub seed: SealRandomness,
    #[serde(default, with = "lj::opt_cid")]
    pub pre_commit_msg: Option<Cid>,
    #[serde(default, with = "lj::opt_cid")]
    pub commit_msg: Option<Cid>,
    pub retries: u64,
    pub to_upgrade: bool,
    #[serde(default, with = "lj::opt_cid")]
    pub replica_update_message: Option<Cid>,
    /// Why it last failed, until it has got over that.
    pub last_err: String,
    /// The event that it waits for in the ordinary course of sealing; Lotus has no such field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
    #[serde(default, with = "lj::nullable")]
    pub log: Vec<SectorLog>,
    pub seal_proof: i64,
    pub activation: ChainEpoch,
    pub expiration: ChainEpoch,
    #[serde(with = "lj::bigint")]
    pub deal_weight: BigInt,
    #[serde(with = "lj::bigint")]
    pub verified_deal_weight: BigInt,
    #[serde(with = "lj::token")]
    pub initial_pledge: TokenAmount,
    pub on_time: ChainEpoch,
    pub early: ChainEpoch,
}

impl SectorInfo {
    /// A sector of which nothing is known yet but its state.
    pub fn new(number: u64, state: impl Into<String>) -> SectorInfo {
        SectorInfo {
            sector_id: number,
            state: state.into(),
            comm_d: None,
            comm_r: None,
            proof: Vec::new(),
            deals: Vec::new(),
            pieces: Vec::new(),
            ticket: SealRandomness::default(),
            seed: SealRandomness::default(),
            pre_commit_msg: None,
            commit_msg: None,
            retries: 0,
            to_upgrade: false,
            replica_update_message: None,
            last_err: String::new(),
            waits_for: String::new(),
            log: Vec::new(),
            seal_proof: 0,
            activation: 0,
            expiration: 0,
            deal_weight: BigInt::from(0),
            verified_deal_weight: BigInt::from(0),
            initial_pledge: TokenAmount::from_atto(0),
            on_time: 0,
            early: 0,
        }
    }
}
