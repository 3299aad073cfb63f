//! A prover's work for each task: calls into the proofs library. Runs in the prover child, never in the node.

use crate::task::{ActorId, Bytes32, Output, PostSector, PublicSector, Task};
use crate::vanilla;
pub use crate::vanilla::{SectorRead, comm_r_of, passes};
use anyhow::{Context, Result, anyhow, bail, ensure};
use filecoin_proofs::pieces::zero_padding;
use filecoin_proofs_api::post::{
    generate_fallback_sector_challenges, generate_single_vanilla_proof, generate_window_post_with_vanilla,
    generate_winning_post_sector_challenge, generate_winning_post_with_vanilla,
};
use filecoin_proofs_api::seal::{
    SealCommitPhase1Output, SealPreCommitPhase1Output, SealPreCommitPhase2Output, add_piece, clear_cache,
    seal_commit_phase1, seal_commit_phase2, seal_pre_commit_phase1, seal_pre_commit_phase2,
};
use filecoin_proofs_api::{
    PieceInfo, PoStType, PrivateReplicaInfo, ProverId, PublicReplicaInfo, RegisteredPoStProof, RegisteredSealProof,
    SectorId, UnpaddedBytesAmount,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static TAINTED: AtomicBool = AtomicBool::new(false);

/// The library has panicked in this process and may hold a poisoned lock: the process should take no further task.
pub fn tainted() -> bool {
    TAINTED.load(Ordering::Relaxed)
}

/// Says what the task is at, for logs and `tree`.
pub type Progress<'a> = &'a dyn Fn(&str);

/// Runs a task to its end in this process.
pub fn execute(task: Task, progress: Progress) -> Result<Output, String> {
    run(task, progress).map_err(|e| format!("{e:#}"))
}

fn run(task: Task, progress: Progress) -> Result<Output> {
    match task {
        Task::AddPiece { proof_type, unsealed_path } => {
            let comm_p = write_zero_sector(seal_proof(proof_type)?, &unsealed_path)?;
            Ok(Output::Piece { comm_p })
        }
        Task::Pc1 { proof_type, cache_dir, unsealed_path, sealed_path, miner, number, ticket } => {
            let proof = seal_proof(proof_type)?;
            fresh_dir(&cache_dir)?;
            make_parent(&sealed_path)?;
            File::create(&sealed_path).with_context(|| path_text(&sealed_path))?;
            let out = seal_pre_commit_phase1(
                proof,
                &cache_dir,
                &unsealed_path,
                &sealed_path,
                prover_id(miner),
                SectorId::from(number),
                ticket,
                &[zero_piece(proof)?],
            )?;
            Ok(Output::Phase1(serde_json::to_vec(&Pc1Output { unsealed_path, library: out })?))
        }
        Task::Pc2 { pc1, cache_dir, sealed_path } => {
            let pc1: Pc1Output = serde_json::from_slice(&pc1).context("the output of PC1 cannot be read")?;
            restore_after_interrupted_pc2(&pc1.unsealed_path, &cache_dir, &sealed_path)?;
            let out = seal_pre_commit_phase2(pc1.library, &cache_dir, &sealed_path)?;
            fs::remove_file(cache_dir.join(PC2_MARKER))?;
            Ok(Output::Pc2 { comm_r: out.comm_r, comm_d: out.comm_d })
        }
        Task::C1 { proof_type, cache_dir, sealed_path, miner, number, ticket, seed, comm_r, comm_d } => {
            let registered_proof = seal_proof(proof_type)?;
            let out = seal_commit_phase1(
                &cache_dir,
                &sealed_path,
                prover_id(miner),
                SectorId::from(number),
                ticket,
                seed,
                SealPreCommitPhase2Output { registered_proof, comm_r, comm_d },
                &[zero_piece(registered_proof)?],
            )?;
            Ok(Output::Phase1(serde_json::to_vec(&out)?))
        }
        Task::C2 { c1, miner, number } => {
            let c1: SealCommitPhase1Output = serde_json::from_slice(&c1).context("the output of C1 cannot be read")?;
            Ok(Output::Proof(seal_commit_phase2(c1, prover_id(miner), SectorId::from(number))?.proof))
        }
        Task::Finalize { cache_dir } => {
            clear_cache(&cache_dir)?;
            Ok(Output::Done)
        }
        Task::WinningPost { proof_type, miner, randomness, sectors } => {
            post(post_proof(proof_type, PoStType::Winning)?, miner, randomness, sectors, progress)
        }
        Task::WindowPost { proof_type, miner, randomness, sectors } => {
            post(post_proof(proof_type, PoStType::Window)?, miner, randomness, sectors, progress)
        }
        Task::VerifySeal { proof_type, miner, number, ticket, seed, comm_r, comm_d, proof } => {
            verify_seal(proof_type, miner, number, ticket, seed, comm_r, comm_d, &proof).map(Output::Verified)
        }
        Task::VerifyWindowPost { proof_type, miner, randomness, sectors, proof } => {
            verify_window_post(proof_type, miner, randomness, &sectors, &proof).map(Output::Verified)
        }
        Task::WinningChallenge { proof_type, miner, randomness, sector_count } => {
            winning_challenge(proof_type, miner, randomness, sector_count).map(Output::Challenged)
        }
        Task::PostChallenges { proof_type, miner, randomness, sectors } => {
            let challenges = challenges(any_post_proof(proof_type)?, miner, randomness, sectors.into_iter())?;
            Ok(Output::Challenges(challenges.into_iter().map(|(id, places)| (id.into(), places)).collect()))
        }
        Task::Vanilla { proof_type, sectors } => {
            progress("reading challenged sectors");
            Ok(Output::Vanilla(read_sectors(proof_type, sectors, vanilla::PATIENCE)?))
        }
        Task::PostFromVanilla { proof_type, miner, randomness, proofs } => {
            ensure!(!proofs.is_empty(), "no sectors to prove");
            // The order of the proof is the order of numbers.
            let proofs: BTreeMap<u64, Vec<u8>> = proofs.into_iter().collect();
            let (numbers, vanilla): (Vec<u64>, Vec<Vec<u8>>) = proofs.into_iter().unzip();
            let proof = any_post_proof(proof_type)?;
            from_vanilla(proof, miner, in_field(randomness), &vanilla, progress).or_else(|failed| {
                // A vanilla proof that is wrong sinks all the others: name it.
                progress("looking for the sector that fails");
                let challenges = challenges(proof, miner, randomness, numbers.iter().copied())?;
                let bad = vanilla::wrong(proof, &numbers, &vanilla, &challenges);
                if bad.is_empty() { Err(failed) } else { Ok(Output::Skipped(bad)) }
            })
        }
    }
}

/// Is this seal proof right? An unreadable proof is an error, a wrong one `false`.
#[allow(clippy::too_many_arguments)]
pub fn verify_seal(
    proof_type: i64,
    miner: ActorId,
    number: u64,
    ticket: Bytes32,
    seed: Bytes32,
    comm_r: Bytes32,
    comm_d: Bytes32,
    proof: &[u8],
) -> Result<bool> {
    let registered = seal_proof(proof_type)?;
    filecoin_proofs_api::seal::verify_seal(
        registered,
        comm_r,
        comm_d,
        prover_id(miner),
        SectorId::from(number),
        ticket,
        seed,
        proof,
    )
}

/// Is this WindowPoSt right for exactly these sectors?
pub fn verify_window_post(
    proof_type: i64,
    miner: ActorId,
    randomness: Bytes32,
    sectors: &[PublicSector],
    proof: &[u8],
) -> Result<bool> {
    let registered = post_proof(proof_type, PoStType::Window)?;
    let replicas = public_replicas(registered, sectors);
    filecoin_proofs_api::post::verify_window_post(
        &in_field(randomness),
        &[(registered, proof)],
        &replicas,
        prover_id(miner),
    )
}

/// Is this WinningPoSt right for the sectors that were challenged?
pub fn verify_winning_post(
    proof_type: i64,
    miner: ActorId,
    randomness: Bytes32,
    sectors: &[PublicSector],
    proof: &[u8],
) -> Result<bool> {
    let registered = post_proof(proof_type, PoStType::Winning)?;
    let replicas = public_replicas(registered, sectors);
    filecoin_proofs_api::post::verify_winning_post(&in_field(randomness), proof, &replicas, prover_id(miner))
}

/// Which of `sector_count` sectors a WinningPoSt with this randomness challenges, as indices.
pub fn winning_challenge(proof_type: i64, miner: ActorId, randomness: Bytes32, sector_count: u64) -> Result<Vec<u64>> {
    ensure!(sector_count > 0, "no sectors to challenge");
    let registered = post_proof(proof_type, PoStType::Winning)?;
    generate_winning_post_sector_challenge(registered, &in_field(randomness), sector_count, prover_id(miner))
}

/// PC1's output as PC2 needs it.
#[derive(Serialize, Deserialize)]
struct Pc1Output {
    unsealed_path: PathBuf,
    library: SealPreCommitPhase1Output,
}

/// Lies in the cache folder while PC2 encodes the replica in place.
const PC2_MARKER: &str = "pc2-started";

/// PC2 turns the data in `sealed_path` into the replica in place. Killed half way and run again it would encode twice, so
/// a second run starts from the unsealed data.
fn restore_after_interrupted_pc2(unsealed: &Path, cache_dir: &Path, sealed: &Path) -> Result<()> {
    let marker = cache_dir.join(PC2_MARKER);
    if marker.exists() {
        for entry in fs::read_dir(cache_dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let of_pc2 =
                ["tree-c", "tree-r-last"].iter().any(|t| name.contains(t)) || name == "p_aux" || name == "t_aux";
            if of_pc2 {
                fs::remove_file(&path)?;
            }
        }
        fs::copy(unsealed, sealed).with_context(|| path_text(unsealed))?;
    }
    File::create(&marker).and_then(|f| f.sync_all()).with_context(|| path_text(&marker))
}

fn write_zero_sector(proof: RegisteredSealProof, path: &Path) -> Result<Bytes32> {
    make_parent(path)?;
    let size = UnpaddedBytesAmount::from(proof.sector_size());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(path).with_context(|| path_text(path))?;
    let (piece, _) = add_piece(proof, io::repeat(0).take(size.0), &mut file, size, &[])?;
    file.sync_all()?;
    Ok(piece.commitment)
}

/// A committed-capacity sector is one piece of zeros.
fn zero_piece(proof: RegisteredSealProof) -> Result<PieceInfo> {
    zero_padding(proof.sector_size().into())
}

/// Reads sectors for a proof. A sector that is missing from the answer is late: when none was answered for `patience`,
/// the reading ends.
pub fn read_sectors(
    proof_type: i64,
    sectors: Vec<(PostSector, Vec<u64>)>,
    patience: Duration,
) -> Result<Vec<SectorRead>> {
    vanilla::read(any_post_proof(proof_type)?, sectors, patience)
}

/// Proves one sector after the other in the vanilla sense first: those that cannot be read are named, not fatal.
fn post(
    proof: RegisteredPoStProof,
    miner: ActorId,
    randomness: Bytes32,
    sectors: Vec<PostSector>,
    progress: Progress,
) -> Result<Output> {
    ensure!(!sectors.is_empty(), "no sectors to prove");
    let sectors: BTreeMap<u64, PostSector> = sectors.into_iter().map(|s| (s.number, s)).collect();
    let challenges = challenges(proof, miner, randomness, sectors.keys().copied())?;
    let mut vanilla = Vec::with_capacity(sectors.len());
    let mut skipped = Vec::new();
    progress("reading challenged sectors");
    for (number, sector) in &sectors {
        let id = SectorId::from(*number);
        let of_sector = challenges.get(&id).ok_or_else(|| anyhow!("no challenges for sector {number}"))?;
        match vanilla_proof(proof, id, sector, of_sector) {
            Ok(bytes) => vanilla.push(bytes),
            Err(why) => {
                tracing::warn!("sector {number} cannot be proven: {why:#}");
                skipped.push(*number);
            }
        }
    }
    if !skipped.is_empty() {
        return Ok(Output::Skipped(skipped));
    }
    from_vanilla(proof, miner, in_field(randomness), &vanilla, progress)
}

/// The challenges of a WindowPoSt depend on a sector's place among all: the order of the proof is the order of numbers.
fn challenges(
    proof: RegisteredPoStProof,
    miner: ActorId,
    randomness: Bytes32,
    sectors: impl Iterator<Item = u64>,
) -> Result<BTreeMap<SectorId, Vec<u64>>> {
    let mut numbers: Vec<u64> = sectors.collect();
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(!numbers.is_empty(), "no sectors to prove");
    let ids: Vec<SectorId> = numbers.into_iter().map(SectorId::from).collect();
    Ok(generate_fallback_sector_challenges(proof, &in_field(randomness), &ids, prover_id(miner))?.into_iter().collect())
}

fn from_vanilla(
    proof: RegisteredPoStProof,
    miner: ActorId,
    randomness: Bytes32,
    vanilla: &[Vec<u8>],
    progress: Progress,
) -> Result<Output> {
    progress("computing the proof");
    let prover = prover_id(miner);
    let mut proofs = match proof.typ() {
        PoStType::Winning => generate_winning_post_with_vanilla(proof, &randomness, prover, vanilla)?,
        PoStType::Window => generate_window_post_with_vanilla(proof, &randomness, prover, vanilla)?,
    };
    match proofs.pop() {
        Some((_, bytes)) if proofs.is_empty() => Ok(Output::Proof(bytes)),
        _ => bail!("the proofs library gave other than one proof"),
    }
}

/// The process must end after this task: a thread of it hangs on a disk.
pub(crate) fn taint() {
    TAINTED.store(true, Ordering::Relaxed);
}

pub(crate) fn vanilla_proof(
    proof: RegisteredPoStProof,
    id: SectorId,
    sector: &PostSector,
    challenges: &[u64],
) -> Result<Vec<u8>> {
    let size = fs::metadata(&sector.sealed_path).with_context(|| path_text(&sector.sealed_path))?.len();
    let want = u64::from(proof.sector_size());
    ensure!(size == want, "{} has {size} bytes, not {want}", sector.sealed_path.display());
    File::open(&sector.sealed_path).with_context(|| path_text(&sector.sealed_path))?;
    let replica = PrivateReplicaInfo::new(proof, sector.comm_r, sector.cache_dir.clone(), sector.sealed_path.clone());
    // A truncated tree file makes the library panic; to this task it is one more unreadable sector.
    let read = std::panic::catch_unwind(|| generate_single_vanilla_proof(proof, id, &replica, challenges))
        .unwrap_or_else(|_| {
            taint();
            Err(anyhow!("the proofs library panicked on its files"))
        })?;
    vanilla::check_comm_r(proof, &read, &sector.comm_r)?;
    Ok(read)
}

fn public_replicas(proof: RegisteredPoStProof, sectors: &[PublicSector]) -> BTreeMap<SectorId, PublicReplicaInfo> {
    sectors.iter().map(|s| (SectorId::from(s.number), PublicReplicaInfo::new(proof, s.comm_r))).collect()
}

/// Randomness as an element of the scalar field, as every implementation cuts it before a PoSt.
pub fn in_field(mut randomness: Bytes32) -> Bytes32 {
    randomness[31] &= 0x3f;
    randomness
}

/// The payload of the miner's ID address, padded with zeros.
pub fn prover_id(miner: ActorId) -> ProverId {
    let mut id = ProverId::default();
    let (mut rest, mut i) = (miner, 0);
    while rest >= 0x80 {
        id[i] = rest as u8 | 0x80;
        rest >>= 7;
        i += 1;
    }
    id[i] = rest as u8;
    id
}

/// The network's RegisteredSealProof number.
pub fn seal_proof(number: i64) -> Result<RegisteredSealProof> {
    use RegisteredSealProof::*;
    Ok(match number {
        0 => StackedDrg2KiBV1,
        1 => StackedDrg8MiBV1,
        2 => StackedDrg512MiBV1,
        3 => StackedDrg32GiBV1,
        4 => StackedDrg64GiBV1,
        5 => StackedDrg2KiBV1_1,
        6 => StackedDrg8MiBV1_1,
        7 => StackedDrg512MiBV1_1,
        8 => StackedDrg32GiBV1_1,
        9 => StackedDrg64GiBV1_1,
        10 => StackedDrg2KiBV1_1_Feat_SyntheticPoRep,
        11 => StackedDrg8MiBV1_1_Feat_SyntheticPoRep,
        12 => StackedDrg512MiBV1_1_Feat_SyntheticPoRep,
        13 => StackedDrg32GiBV1_1_Feat_SyntheticPoRep,
        14 => StackedDrg64GiBV1_1_Feat_SyntheticPoRep,
        15 => StackedDrg2KiBV1_2_Feat_NonInteractivePoRep,
        16 => StackedDrg8MiBV1_2_Feat_NonInteractivePoRep,
        17 => StackedDrg512MiBV1_2_Feat_NonInteractivePoRep,
        18 => StackedDrg32GiBV1_2_Feat_NonInteractivePoRep,
        19 => StackedDrg64GiBV1_2_Feat_NonInteractivePoRep,
        other => bail!("unknown seal proof type {other}"),
    })
}

/// The network's RegisteredPoStProof number, which must be of the given kind.
pub fn post_proof(number: i64, kind: PoStType) -> Result<RegisteredPoStProof> {
    use RegisteredPoStProof::*;
    let proof = match number {
        0 => StackedDrgWinning2KiBV1,
        1 => StackedDrgWinning8MiBV1,
        2 => StackedDrgWinning512MiBV1,
        3 => StackedDrgWinning32GiBV1,
        4 => StackedDrgWinning64GiBV1,
        5 => StackedDrgWindow2KiBV1,
        6 => StackedDrgWindow8MiBV1,
        7 => StackedDrgWindow512MiBV1,
        8 => StackedDrgWindow32GiBV1,
        9 => StackedDrgWindow64GiBV1,
        10 => StackedDrgWindow2KiBV1_2,
        11 => StackedDrgWindow8MiBV1_2,
        12 => StackedDrgWindow512MiBV1_2,
        13 => StackedDrgWindow32GiBV1_2,
        14 => StackedDrgWindow64GiBV1_2,
        other => bail!("unknown PoSt proof type {other}"),
    };
    ensure!(proof.typ() == kind, "PoSt proof type {number} is not for {kind:?}");
    Ok(proof)
}

/// Accepts a number of either kind.
fn any_post_proof(number: i64) -> Result<RegisteredPoStProof> {
    post_proof(number, if is_winning(number) { PoStType::Winning } else { PoStType::Window })
}

/// The first five PoSt proof numbers are WinningPoSt's.
pub fn is_winning(post_proof: i64) -> bool {
    post_proof < 5
}

fn fresh_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).with_context(|| path_text(dir)),
        _ => {}
    }
    fs::create_dir_all(dir).with_context(|| path_text(dir))
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(dir) => fs::create_dir_all(dir).with_context(|| path_text(dir)),
        None => Ok(()),
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
