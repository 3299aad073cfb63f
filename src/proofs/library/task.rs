//! Proof tasks and their outputs, as they cross the pipe to a prover and lie in job folders.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The actor ID of a miner address, as proofs want it.
pub type ActorId = u64;
/// 32 bytes: ticket, seed, challenge randomness, CommD, CommR.
pub type Bytes32 = [u8; 32];

/// One sector as PoSt needs it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PostSector {
    pub number: u64,
    pub comm_r: Bytes32,
    pub cache_dir: PathBuf,
    pub sealed_path: PathBuf,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PublicSector {
    pub number: u64,
    pub comm_r: Bytes32,
}

/// A request to a prover. `proof_type` is the network's RegisteredSealProof / RegisteredPoStProof number (seal V1_1 2
/// KiB = 5; winning 2 KiB = 0; window V1_1 2 KiB = 10).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Task {
    /// Writes a CC (all-zero) unsealed file.
    AddPiece {
        proof_type: i64,
        unsealed_path: PathBuf,
    },
    Pc1 {
        proof_type: i64,
        cache_dir: PathBuf,
        unsealed_path: PathBuf,
        sealed_path: PathBuf,
        miner: ActorId,
        number: u64,
        ticket: Bytes32,
    },
    /// `pc1` is the output of [`Task::Pc1`].
    Pc2 {
        pc1: Vec<u8>,
        cache_dir: PathBuf,
        sealed_path: PathBuf,
    },
    C1 {
        proof_type: i64,
        cache_dir: PathBuf,
        sealed_path: PathBuf,
        miner: ActorId,
        number: u64,
        ticket: Bytes32,
        seed: Bytes32,
        comm_r: Bytes32,
        comm_d: Bytes32,
    },
    /// `c1` is the output of [`Task::C1`].
    C2 {
        c1: Vec<u8>,
        miner: ActorId,
        number: u64,
    },
    /// Drops what proving does not need from the cache.
    Finalize {
        cache_dir: PathBuf,
    },
    WinningPost {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        sectors: Vec<PostSector>,
    },
    /// Reads and proves in one. A node reads first ([`Task::Vanilla`]) and takes the prover's slot late
    /// ([`Task::PostFromVanilla`]); this one is for comparisons with that.
    WindowPost {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        sectors: Vec<PostSector>,
    },
    VerifySeal {
        proof_type: i64,
        miner: ActorId,
        number: u64,
        ticket: Bytes32,
        seed: Bytes32,
        comm_r: Bytes32,
        comm_d: Bytes32,
        proof: Vec<u8>,
    },
    VerifyWindowPost {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        sectors: Vec<PublicSector>,
        proof: Vec<u8>,
    },
    /// `proof_type` winning; which of `sector_count` sectors a WinningPoSt challenges.
    WinningChallenge {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        sector_count: u64,
    },
    /// `proof_type` winning or window, here and below; which places of each sector a PoSt over all of them reads.
    PostChallenges {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        sectors: Vec<u64>,
    },
    /// The challenged places of sectors whose files are here, with their Merkle paths: what a PoSt needs of a sector.
    Vanilla {
        proof_type: i64,
        sectors: Vec<(PostSector, Vec<u64>)>,
    },
    /// A PoSt over sectors whose files need not be here.
    PostFromVanilla {
        proof_type: i64,
        miner: ActorId,
        randomness: Bytes32,
        proofs: Vec<(u64, Vec<u8>)>,
    },
}

impl Task {
    /// A proof of spacetime: small, made again in the time that it took, and worthless after its deadline.
    pub fn is_post(&self) -> bool {
        matches!(self, Task::WinningPost { .. } | Task::WindowPost { .. } | Task::PostFromVanilla { .. })
    }

    /// The name that an operator knows: a PoSt has it wherever its sectors were read.
    pub fn name(&self) -> &'static str {
        match self {
            Task::AddPiece { .. } => "AddPiece",
            Task::Pc1 { .. } => "PC1",
            Task::Pc2 { .. } => "PC2",
            Task::C1 { .. } => "C1",
            Task::C2 { .. } => "C2",
            Task::Finalize { .. } => "Finalize",
            Task::WinningPost { .. } => "WinningPoSt",
            Task::WindowPost { .. } => "WindowPoSt",
            Task::VerifySeal { .. } => "VerifySeal",
            Task::VerifyWindowPost { .. } => "VerifyWindowPoSt",
            Task::WinningChallenge { .. } => "WinningChallenge",
            Task::PostChallenges { .. } => "PostChallenges",
            Task::Vanilla { .. } => "Vanilla",
            Task::PostFromVanilla { proof_type, .. } if crate::tasks::is_winning(*proof_type) => "WinningPoSt",
            Task::PostFromVanilla { .. } => "WindowPoSt",
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Output {
    /// AddPiece: the piece commitment (CommP of the whole sector).
    Piece {
        comm_p: Bytes32,
    },
    /// PC1, C1: opaque, for the next phase.
    Phase1(Vec<u8>),
    Pc2 {
        comm_r: Bytes32,
        comm_d: Bytes32,
    },
    /// C2, Winning-, WindowPoSt.
    Proof(Vec<u8>),
    /// A PoSt could not read these sectors, or what was read of them is wrong: prove without them.
    Skipped(Vec<u64>),
    Verified(bool),
    Challenged(Vec<u64>),
    Done,
    /// PostChallenges: sector and places.
    Challenges(Vec<(u64, Vec<u64>)>),
    /// Vanilla: for each sector its proof, or why it cannot be read. One that is missing was not read in time.
    Vanilla(Vec<(u64, Result<Vec<u8>, String>)>),
}
