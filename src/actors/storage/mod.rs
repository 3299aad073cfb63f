//! The sectors on a node's disks, for proofs that are made elsewhere: says what is here, and reads what a PoSt challenges.
//!
//! [`messages`] is the protocol; [`SectorIndex`] finds where a sector is, [`PostReader`] reads sectors wherever they are, and
//! [`RemoteSectorProver`] proves them. The reading is done by a prover process: a damaged disk is that process's end, not
//! the node's.

mod breaker;
mod index;
mod local_reader;
pub mod messages;
mod post_reader;
mod remote_prover;
#[cfg(test)]
mod tests;

pub use index::{Location, NoStorages, SectorIndex, Seen, StorageNode, Storages};
pub use local_reader::LocalReader;
pub use post_reader::PostReader;
pub use remote_prover::RemoteSectorProver;

use crate::actors::sector_reads::{ReadRequest, SectorRead, SectorReader, WantedSector};
use crate::proofs::{ActorId, Prover};
use crate::supervisor::{Actor, Cx, Exit, Export, ExportOf, Handler, Message, Ref};
use messages::{Challenged, Has, HasAnswer, Vanilla, VanillaAnswer};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Reading a batch of challenged sectors; what is not read by then is asked for again.
const READ: Duration = Duration::from_secs(60);
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
    /// One for each miner that was asked for.
    readers: HashMap<ActorId, Arc<LocalReader>>,
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
        Storage { deps, readers: HashMap::new(), reads: HashMap::new() }
    }

    fn reader(&mut self, miner: ActorId) -> Arc<LocalReader> {
        if self.readers.len() >= MOST {
            self.readers.clear();
        }
        let new = || Arc::new(local_reader::of_repo(&self.deps.repo, miner, self.deps.prover.clone()));
        self.readers.entry(miner).or_insert_with(new).clone()
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
    async fn handle(&mut self, ask: Has, _: &Cx<Self>) -> Result<HasAnswer, Exit> {
        let look = self.reader(ask.miner).present(&ask.sectors).await;
        let mut answer = HasAnswer::default();
        for (number, here) in ask.sectors.into_iter().zip(look) {
            match here {
                Ok(true) => answer.here.push(number),
                Ok(false) => {}
                Err(_) => answer.unknown.push(number),
            }
        }
        Ok(answer)
    }
}

impl Handler<Vanilla> for Storage {
    async fn handle(&mut self, ask: Vanilla, cx: &Cx<Self>) -> Result<VanillaAnswer, Exit> {
        self.reads.retain(|_, read| !matches!(read, Read::Done(_, since) if since.elapsed() > KEEP));
        let key = key_of(&ask);
        match self.reads.get(&key) {
            Some(Read::Done(answer, _)) => {
                let answer = answer.clone();
                // One in which sectors are late is told once: the same question then reads them again.
                if matches!(&answer, VanillaAnswer::Ready(read) if read.len() < ask.sectors.len()) {
                    self.reads.remove(&key);
                }
                return Ok(answer);
            }
            Some(Read::UnderWay) => return Ok(VanillaAnswer::NotYet),
            None if self.reads.len() >= MOST => return Ok(VanillaAnswer::NotYet),
            None => {}
        }
        self.reads.insert(key, Read::UnderWay);
        let reader = self.reader(ask.miner);
        cx.spawn(async move { ReadDone { key, answer: VanillaAnswer::Ready(read(&reader, ask).await) } });
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

/// The answer leaves out sectors that are late.
async fn read(reader: &LocalReader, ask: Vanilla) -> Vec<(u64, Result<Vec<u8>, String>)> {
    let Vanilla { miner, proof_type, sectors } = ask;
    let wanted = |Challenged { number, comm_r, places }| WantedSector { number, comm_r, places };
    let sectors = sectors.into_iter().map(wanted).collect();
    let (tell, mut answers) = mpsc::unbounded_channel();
    reader.read(ReadRequest { miner, proof_type, sectors, until: tokio::time::Instant::now() + READ }, &tell).await;
    drop(tell);
    let mut read = Vec::new();
    while let Some((number, answer)) = answers.recv().await {
        match answer {
            SectorRead::Proof(proof) => read.push((number, Ok(proof))),
            SectorRead::Unreadable(why) => read.push((number, Err(why))),
            SectorRead::Late(_) => {}
        }
    }
    read
}
