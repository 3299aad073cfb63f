//! The challenged places of many sectors, read in parallel; and whether a vanilla proof is the one that the chain expects.

use crate::task::{Bytes32, PostSector};
use crate::tasks::{taint, vanilla_proof};
use anyhow::{Context, Result, ensure};
use filecoin_hashers::poseidon::{PoseidonDomain, PoseidonFunction};
use filecoin_hashers::{Domain, HashFunction, Hasher};
use filecoin_proofs::{FallbackPoStSectorProof, with_shape};
use filecoin_proofs_api::{RegisteredPoStProof, SectorId};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use storage_proofs_core::merkle::{MerkleProofTrait, MerkleTreeTrait};

/// Sectors that are read at a time. A task's sectors lie on one storage path; this keeps a disk's or a server's queue full.
const READS_AT_ONCE: usize = 16;
/// When no sector was answered for this long, those that remain are late: their disk hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A sector's number, and its vanilla proof or why there is none.
pub type SectorRead = (u64, Result<Vec<u8>, String>);

/// Reads sectors for a proof. A sector that is missing from the answer is late: its disk hangs, or failed for now.
pub(crate) fn read(
    proof: RegisteredPoStProof,
    sectors: Vec<(PostSector, Vec<u64>)>,
    patience: Duration,
) -> Result<Vec<SectorRead>> {
    let pool = readers()?;
    let (tell, answers) = channel();
    for (sector, places) in sectors {
        let tell = tell.clone();
        pool.spawn(move || {
            let read = vanilla_proof(proof, SectorId::from(sector.number), &sector, &places);
            let passing = |e: &anyhow::Error| e.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(passes));
            match read {
                Err(e) if passing(&e) => tracing::warn!("sector {} cannot be read for now: {e:#}", sector.number),
                // nobody listens any more once the task was given up
                read => drop(tell.send((sector.number, read.map_err(|e| format!("{e:#}"))))),
            }
        });
    }
    drop(tell);
    let mut read = Vec::new();
    loop {
        match answers.recv_timeout(patience) {
            Ok(answer) => read.push(answer),
            Err(RecvTimeoutError::Disconnected) => return Ok(read),
            Err(RecvTimeoutError::Timeout) => {
                taint();
                return Ok(read);
            }
        }
    }
}

/// An error of the disk, the share or this process, after which the same file may be read: not that it is missing.
pub fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    // Invalid input: the map of a file that is empty.
    let of_the_file = matches!(error.kind(), NotFound | NotADirectory | IsADirectory | PermissionDenied | InvalidInput);
    error.raw_os_error().is_some() && !of_the_file
}

/// Threads of their own: the proofs library's pool has one for each core, and a disk answers many readers at once.
fn readers() -> Result<&'static ThreadPool> {
    static READERS: OnceLock<ThreadPool> = OnceLock::new();
    if let Some(pool) = READERS.get() {
        return Ok(pool);
    }
    let pool = ThreadPoolBuilder::new().num_threads(READS_AT_ONCE).thread_name(|n| format!("read-{n}")).build()?;
    Ok(READERS.get_or_init(|| pool))
}

/// CommR of a sector's files, from its `p_aux`: CommC and the root of its last tree.
pub fn comm_r_of(p_aux: &[u8]) -> Result<Bytes32> {
    ensure!(p_aux.len() == 64, "p_aux has {} bytes, not 64", p_aux.len());
    let (comm_c, root) = (PoseidonDomain::try_from_bytes(&p_aux[..32])?, PoseidonDomain::try_from_bytes(&p_aux[32..])?);
    let mut comm_r = [0; 32];
    comm_r.copy_from_slice(PoseidonFunction::hash2(&comm_c, &root).as_ref());
    Ok(comm_r)
}

/// The files that a vanilla proof was read from have another CommR than the chain: no proof with it would verify.
pub(crate) fn check_comm_r(proof: RegisteredPoStProof, vanilla: &[u8], comm_r: &Bytes32) -> Result<()> {
    let size = u64::from(proof.sector_size());
    with_shape!(size, check_comm_r_of, vanilla, comm_r)
}

fn check_comm_r_of<Tree: 'static + MerkleTreeTrait>(vanilla: &[u8], comm_r: &Bytes32) -> Result<()> {
    let (found, _) = commitment::<Tree>(vanilla)?;
    let found: &[u8] = found.as_ref();
    ensure!(
        found == comm_r.as_slice(),
        "its files have CommR {}, the chain has {}",
        hex_of(found),
        hex_of(comm_r.as_slice())
    );
    Ok(())
}

type DomainOf<Tree> = <<Tree as MerkleTreeTrait>::Hasher as Hasher>::Domain;

/// CommR as a vanilla proof's commitments give it.
fn commitment<Tree: 'static + MerkleTreeTrait>(
    vanilla: &[u8],
) -> Result<(DomainOf<Tree>, FallbackPoStSectorProof<Tree>)> {
    let read: FallbackPoStSectorProof<Tree> = bincode1::deserialize(vanilla).context("not a vanilla proof")?;
    let sector = read.vanilla_proof.sectors.first().context("a vanilla proof of no sector")?;
    let root = sector.inclusion_proofs.first().context("a vanilla proof of no challenge")?.root();
    let found = <Tree::Hasher as Hasher>::Function::hash2(&sector.comm_c, &root);
    Ok((found, read))
}

/// The sectors whose vanilla proof is not of their commitment and challenges.
pub(crate) fn wrong(
    proof: RegisteredPoStProof,
    numbers: &[u64],
    vanilla: &[Vec<u8>],
    challenges: &BTreeMap<SectorId, Vec<u64>>,
) -> Vec<u64> {
    let size = u64::from(proof.sector_size());
    let right = |number: u64, vanilla: &[u8]| -> Result<()> {
        let places = challenges.get(&SectorId::from(number)).context("no challenges")?;
        with_shape!(size, check_whole, number, vanilla, places)
    };
    let pairs: Vec<(u64, &Vec<u8>)> = numbers.iter().copied().zip(vanilla).collect();
    let check = |(number, vanilla): (u64, &Vec<u8>)| match right(number, vanilla) {
        Ok(()) => None,
        Err(why) => {
            tracing::warn!("the vanilla proof of sector {number} is wrong: {why:#}");
            Some(number)
        }
    };
    pairs.into_par_iter().filter_map(check).collect()
}

fn check_whole<Tree: 'static + MerkleTreeTrait>(number: u64, vanilla: &[u8], places: &[u64]) -> Result<()> {
    let (found, read) = commitment::<Tree>(vanilla)?;
    ensure!(read.sector_id == SectorId::from(number), "it is of sector {}", u64::from(read.sector_id));
    let (found, stated): (&[u8], &[u8]) = (found.as_ref(), read.comm_r.as_ref());
    ensure!(found == stated, "its commitments give CommR {}, not {}", hex_of(found), hex_of(stated));
    let proofs = &read.vanilla_proof.sectors[0].inclusion_proofs;
    ensure!(proofs.len() == places.len(), "it has {} places, not {}", proofs.len(), places.len());
    for (proof, place) in proofs.iter().zip(places) {
        let right = proof.root() == proofs[0].root() && proof.validate(*place as usize);
        ensure!(right, "its Merkle path of place {place} is wrong");
    }
    Ok(())
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
