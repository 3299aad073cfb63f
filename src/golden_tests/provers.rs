//! Bytes between a node and its provers.

use super::{r, text};
use crate::proofs::wire::{FromChild, ToChild};
use crate::proofs::{Output, PostSector, ProverError, PublicSector, Task};
use std::time::Duration;

fn post_sector() -> PostSector {
    PostSector { number: 7, comm_r: [3; 32], cache_dir: "c".into(), sealed_path: "s".into() }
}

/// Bytes of [`post_sector`].
fn post() -> String {
    format!("07{}01630173", r(3))
}

pinned! { task: Task {
    0 = Task::AddPiece { .. } => Task::AddPiece { proof_type: 5, unsealed_path: "u".into() }, "000a0175";
    1 = Task::Pc1 { .. } =>
        Task::Pc1 {
            proof_type: 5, cache_dir: "c".into(), unsealed_path: "u".into(), sealed_path: "s".into(),
            miner: 1000, number: 7, ticket: [1; 32],
        },
        format!("010a016301750173fbe80307{}", r(1));
    2 = Task::Pc2 { .. } =>
        Task::Pc2 { pc1: vec![9], cache_dir: "c".into(), sealed_path: "s".into() }, "02010901630173";
    3 = Task::C1 { .. } =>
        Task::C1 {
            proof_type: 5, cache_dir: "c".into(), sealed_path: "s".into(), miner: 1000, number: 7,
            ticket: [1; 32], seed: [2; 32], comm_r: [3; 32], comm_d: [4; 32],
        },
        format!("030a01630173fbe80307{}{}{}{}", r(1), r(2), r(3), r(4));
    4 = Task::C2 { .. } => Task::C2 { c1: vec![9], miner: 1000, number: 7 }, "040109fbe80307";
    5 = Task::Finalize { .. } => Task::Finalize { cache_dir: "c".into() }, "050163";
    6 = Task::WinningPost { .. } =>
        Task::WinningPost { proof_type: 0, miner: 1000, randomness: [1; 32], sectors: vec![post_sector()] },
        format!("0600fbe803{}01{}", r(1), post());
    7 = Task::WindowPost { .. } =>
        Task::WindowPost { proof_type: 10, miner: 1000, randomness: [1; 32], sectors: vec![post_sector()] },
        format!("0714fbe803{}01{}", r(1), post());
    8 = Task::VerifySeal { .. } =>
        Task::VerifySeal {
            proof_type: 5, miner: 1000, number: 7, ticket: [1; 32], seed: [2; 32], comm_r: [3; 32],
            comm_d: [4; 32], proof: vec![9],
        },
        format!("080afbe80307{}{}{}{}0109", r(1), r(2), r(3), r(4));
    9 = Task::VerifyWindowPost { .. } =>
        Task::VerifyWindowPost {
            proof_type: 10, miner: 1000, randomness: [1; 32],
            sectors: vec![PublicSector { number: 7, comm_r: [3; 32] }], proof: vec![9],
        },
        format!("0914fbe803{}0107{}0109", r(1), r(3));
    10 = Task::WinningChallenge { .. } =>
        Task::WinningChallenge { proof_type: 0, miner: 1000, randomness: [1; 32], sector_count: 3 },
        format!("0a00fbe803{}03", r(1));
    11 = Task::PostChallenges { .. } =>
        Task::PostChallenges { proof_type: 10, miner: 1000, randomness: [1; 32], sectors: vec![7] },
        format!("0b14fbe803{}0107", r(1));
    12 = Task::Vanilla { .. } =>
        Task::Vanilla { proof_type: 10, sectors: vec![(post_sector(), vec![5])] }, format!("0c1401{}0105", post());
    13 = Task::PostFromVanilla { .. } =>
        Task::PostFromVanilla { proof_type: 10, miner: 1000, randomness: [1; 32], proofs: vec![(7, vec![9])] },
        format!("0d14fbe803{}01070109", r(1));
} }
pinned! { output: Output {
    0 = Output::Piece { .. } => Output::Piece { comm_p: [1; 32] }, format!("00{}", r(1));
    1 = Output::Phase1(_) => Output::Phase1(vec![9]), "010109";
    2 = Output::Pc2 { .. } => Output::Pc2 { comm_r: [3; 32], comm_d: [4; 32] }, format!("02{}{}", r(3), r(4));
    3 = Output::Proof(_) => Output::Proof(vec![9]), "030109";
    4 = Output::Skipped(_) => Output::Skipped(vec![7]), "040107";
    5 = Output::Verified(_) => Output::Verified(true), "0501";
    6 = Output::Challenged(_) => Output::Challenged(vec![7]), "060107";
    7 = Output::Done => Output::Done, "07";
    8 = Output::Challenges(_) => Output::Challenges(vec![(7, vec![5])]), "0801070105";
    9 = Output::Vanilla(_) =>
        Output::Vanilla(vec![(7, Ok(vec![9])), (8, Err(text()))]), "09020700010908010178";
} }
pinned! { prover_error: ProverError {
    0 = ProverError::Failed { .. } => ProverError::Failed { task: text(), why: text() }, "0001780178";
    1 = ProverError::Aborted { .. } => ProverError::Aborted { task: text() }, "010178";
    2 = ProverError::Segfault { .. } => ProverError::Segfault { task: text() }, "020178";
    3 = ProverError::OutOfMemory { .. } => ProverError::OutOfMemory { task: text() }, "030178";
    4 = ProverError::Killed { .. } => ProverError::Killed { task: text(), signal: 9 }, "04017812";
    5 = ProverError::Hung { .. } => ProverError::Hung { task: text(), after: Duration::from_secs(9) }, "0501780900";
    6 = ProverError::NotStarted { .. } => ProverError::NotStarted { task: text(), why: text() }, "0601780178";
} }
pinned! { to_child: ToChild {
    0 = ToChild::Run { .. } => ToChild::Run { task: Task::Finalize { cache_dir: "c".into() }, job_dir: None }, "0005016300";
} }
pinned! { from_child: FromChild {
    0 = FromChild::Ready => FromChild::Ready, "00";
    1 = FromChild::Started => FromChild::Started, "01";
    2 = FromChild::Heartbeat => FromChild::Heartbeat, "02";
    3 = FromChild::Progress(_) => FromChild::Progress(text()), "030178";
    4 = FromChild::Output(_) => FromChild::Output(Output::Done), "0407";
    5 = FromChild::Failed { .. } => FromChild::Failed { why: text(), spent: true }, "05017801";
    6 = FromChild::Last(_) => FromChild::Last(Output::Done), "0607";
} }
