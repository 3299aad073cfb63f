//! The sectors on a node's disks, for proofs that are made elsewhere: says what is here, and reads what a PoSt challenges.
//!
//! [`messages`] is the protocol; [`SectorIndex`] finds where a sector is, [`RemoteSectorProver`] is a prover for sectors wherever they
//! are. The reading is done by a prover process: a hung or damaged disk is that process's end, not the node's.

mod index;
pub mod messages;
mod remote_prover;

pub use index::{Location, NoStorages, RemoteFiles, SectorIndex, StorageNode, Storages};
pub use remote_prover::RemoteSectorProver;

use crate::actors::sector_files::{SectorDirs, SectorFiles};
use crate::chain::proof_types;
use crate::proofs::{ActorId, Job, Output, Prover, Task};
use crate::supervisor::{Actor, Cx, Exit, Export, ExportOf, Handler, Message, Ref};
use messages::{Challenged, Has, Vanilla, VanillaAnswer};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A directory that does not answer within this holds nothing that can be proven.
const LOOK: Duration = Duration::from_secs(5);
/// Reading a batch of challenged sectors; a disk that takes longer is as good as gone for a PoSt.
const READ: Duration = Duration::from_secs(60);
/// Reading one sector alone, after a batch with it failed.
const READ_ONE: Duration = Duration::from_secs(10);
/// An answer is kept for askers whose connection broke.
const KEEP: Duration = Duration::from_secs(60);
/// Questions at a time; more are an asker's bug.
const MOST: usize = 256;

#[derive(Clone)]
pub struct StorageDeps {
    /// Holds `sectors/`.
    pub repo: PathBuf,
    pub prover: Arc<dyn Prover>,
}

enum Read {
    UnderWay,
    Done(VanillaAnswer, Instant),
}

/// The actor; one per node, `/NODE/storage`.
pub struct Storage {
    deps: StorageDeps,
    reads: HashMap<[u8; 32], Read>,
}

/// The address of a node's storage.
pub fn path(node: &str) -> String {
    format!("/{node}/storage")
}

/// The messages that other processes may send.
pub fn export(storage: &Ref<Storage>) -> ExportOf<Storage> {
    Export::of(storage).message::<Has>().message::<Vanilla>()
}

impl Storage {
    pub fn new(deps: StorageDeps) -> Storage {
        Storage { deps, reads: HashMap::new() }
    }

    fn dirs(&self, miner: ActorId) -> SectorDirs {
        SectorDirs::of_repo(&self.deps.repo, miner)
    }
}

impl Actor for Storage {}

struct ReadDone {
    key: [u8; 32],
    answer: VanillaAnswer,
}
impl Message for ReadDone {
    type Reply = ();
}

impl Handler<Has> for Storage {
    async fn handle(&mut self, ask: Has, _: &Cx<Self>) -> Result<Vec<u64>, Exit> {
        let dirs = self.dirs(ask.miner);
        let look = tokio::task::spawn_blocking(move || {
            let there = |n: &u64| {
                let size = std::fs::metadata(dirs.sealed(*n)).map_or(0, |m| m.len());
                proof_types::size_name(size).is_some() && dirs.readable(*n, size)
            };
            ask.sectors.into_iter().filter(there).collect()
        });
        Ok(tokio::time::timeout(LOOK, look).await.ok().and_then(Result::ok).unwrap_or_default())
    }
}

impl Handler<Vanilla> for Storage {
    async fn handle(&mut self, ask: Vanilla, cx: &Cx<Self>) -> Result<VanillaAnswer, Exit> {
        self.reads.retain(|_, read| !matches!(read, Read::Done(_, since) if since.elapsed() > KEEP));
        let key = key_of(&ask);
        match self.reads.get(&key) {
            Some(Read::Done(answer, _)) => return Ok(answer.clone()),
            Some(Read::UnderWay) => return Ok(VanillaAnswer::NotYet),
            None if self.reads.len() >= MOST => return Ok(VanillaAnswer::NotYet),
            None => {}
        }
        self.reads.insert(key, Read::UnderWay);
        let (dirs, prover) = (self.dirs(ask.miner), self.deps.prover.clone());
        cx.spawn(
            async move { ReadDone { key, answer: VanillaAnswer::Ready(read(&dirs, prover.as_ref(), ask).await) } },
        );
        Ok(VanillaAnswer::NotYet)
    }
}

impl Handler<ReadDone> for Storage {
    async fn handle(&mut self, done: ReadDone, _: &Cx<Self>) -> Result<(), Exit> {
        self.reads.insert(done.key, Read::Done(done.answer, Instant::now()));
        Ok(())
    }
}

fn key_of(ask: &Vanilla) -> [u8; 32] {
    let text = serde_json::to_vec(ask).unwrap_or_default();
    let hash = blake2b_simd::Params::new().hash_length(32).hash(&text);
    let mut key = [0; 32];
    key.copy_from_slice(hash.as_bytes());
    key
}

/// All at once; where that fails as a whole, one after another, so that one bad disk costs its own sectors only.
async fn read(dirs: &SectorDirs, prover: &dyn Prover, ask: Vanilla) -> Vec<(u64, Result<Vec<u8>, String>)> {
    let numbers: Vec<u64> = ask.sectors.iter().map(|s| s.number).collect();
    let each = |s: Challenged| (dirs.locate(s.number).post_sector(s.number, s.comm_r), s.places);
    let sectors: Vec<_> = ask.sectors.into_iter().map(each).collect();
    let proof_type = ask.proof_type;
    let job = |sectors, max_runtime| Job { task: Task::Vanilla { proof_type, sectors }, job_dir: None, max_runtime };
    match prover.run(job(sectors.clone(), READ)).await {
        Ok(Output::Vanilla(answers)) => return answers,
        Ok(other) => return numbers.into_iter().map(|n| (n, Err(format!("the prover answered {other:?}")))).collect(),
        Err(e) if sectors.len() == 1 => return numbers.into_iter().map(|n| (n, Err(e.to_string()))).collect(),
        Err(e) => tracing::warn!("a batch of {} sectors: {e}; reading them one by one", sectors.len()),
    }
    let mut answers = Vec::with_capacity(sectors.len());
    for sector in sectors {
        let number = sector.0.number;
        match prover.run(job(vec![sector], READ_ONE)).await {
            Ok(Output::Vanilla(answer)) => answers.extend(answer),
            Ok(other) => answers.push((number, Err(format!("the prover answered {other:?}")))),
            Err(e) => answers.push((number, Err(e.to_string()))),
        }
    }
    answers
}
