//! The port through which a PoSt reads sectors, wherever their files are.

use crate::proofs::{ActorId, Bytes32};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One sector, and what to read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSector {
    pub number: u64,
    /// On chain; files of another one are not read.
    pub comm_r: Bytes32,
    /// The offsets that the challenges read, in leaves.
    pub places: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    pub miner: ActorId,
    /// `RegisteredPoStProof`.
    pub proof_type: i64,
    pub sectors: Vec<WantedSector>,
    /// A sector that is not read by then is late.
    pub until: Instant,
}

/// The answer about one sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorRead {
    /// Its vanilla proof.
    Proof(Vec<u8>),
    /// Its files are missing, damaged or not those of the chain; it is left out.
    Unreadable(String),
    /// Its disk or host gave no answer yet; it may be asked for again.
    Late(String),
}

/// The way of the answers: each sector's goes as soon as it is known.
pub type Answers = mpsc::UnboundedSender<(u64, SectorRead)>;

#[async_trait]
pub trait SectorReader: Send + Sync + 'static {
    /// Asks once for each sector; returns when every one has its answer. Sends at most one answer for a sector.
    async fn read(&self, request: ReadRequest, answers: &Answers);
}
