//! The messages that a node's storage takes: small answers about large files, which themselves never leave.

use crate::proofs::{ActorId, Bytes32};
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};

/// Which of these sectors a proof could read here.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Has {
    pub miner: ActorId,
    pub sectors: Vec<u64>,
}

impl Message for Has {
    type Reply = Vec<u64>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::STORAGE_HAS, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Challenged {
    pub number: u64,
    pub comm_r: Bytes32,
    /// The offsets that the PoSt reads.
    pub places: Vec<u64>,
}

/// The challenged places of these sectors with their Merkle paths. The same question again gets the same answer, so an
/// asker may ask until it is ready.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Vanilla {
    pub miner: ActorId,
    /// `RegisteredPoStProof`.
    pub proof_type: i64,
    pub sectors: Vec<Challenged>,
}

impl Message for Vanilla {
    type Reply = VanillaAnswer;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::STORAGE_VANILLA, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum VanillaAnswer {
    /// Being read: ask again.
    NotYet,
    /// For each sector its vanilla proof, or why it cannot be read. One that is missing is late: it may be asked for again.
    Ready(Vec<(u64, Result<Vec<u8>, String>)>),
}
