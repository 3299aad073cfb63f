//! The messages that a node's storage takes: small answers about large files, which themselves never leave.

use crate::proofs::{ActorId, Bytes32};
use crate::rpc::bridge::{codec, ids};
use crate::supervisor::Message;
use crate::supervisor::wire::{WireError, WireForm};
use serde::{Deserialize, Serialize};

/// Which of these sectors a proof could read here.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Has {
    pub miner: ActorId,
    pub sectors: Vec<u64>,
}

/// A sector in neither list has no files here.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct HasAnswer {
    pub here: Vec<u64>,
    /// Their disk did not say in time whether it has them.
    pub unknown: Vec<u64>,
}

impl Message for Has {
    type Reply = HasAnswer;
    const WIRE: Option<WireForm<Self>> =
        Some(codec::form(ids::STORAGE_HAS, 2).with_previous(codec::previous::<Self, HasV1>()));
}

/// Schema 1: the reply lists what is here.
#[derive(Serialize, Deserialize)]
pub struct HasV1 {
    miner: ActorId,
    sectors: Vec<u64>,
}

impl codec::Earlier<Has> for HasV1 {
    type Reply = Vec<u64>;

    fn upgrade(self) -> Has {
        let HasV1 { miner, sectors } = self;
        Has { miner, sectors }
    }

    fn downgrade(message: &Has) -> Result<HasV1, WireError> {
        let Has { miner, sectors } = message.clone();
        Ok(HasV1 { miner, sectors })
    }

    fn upgrade_reply(here: Vec<u64>) -> HasAnswer {
        HasAnswer { here, unknown: Vec::new() }
    }

    fn downgrade_reply(reply: &HasAnswer) -> Result<Vec<u64>, WireError> {
        Ok(reply.here.clone())
    }
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
