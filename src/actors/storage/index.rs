//! Finds a sector's files: on this node, or on another whose storage lists them.

use super::Storage;
use super::local_reader::LocalReader;
use super::messages::Has;
use crate::proofs::ActorId;
use crate::supervisor::Ref;
use crate::util::lock;
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Over a WAN, and with a look at the disk in it.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a node's answer about its disks is trusted.
const FRESH: Duration = Duration::from_secs(30);
/// Sectors in one question.
const BATCH: usize = 10_000;

/// Another node with a storage.
#[derive(Clone)]
pub struct StorageNode {
    pub name: String,
    pub storage: Ref<Storage>,
}

pub trait Storages: Send + Sync + 'static {
    /// The storages that are registered now, without this node's.
    fn seen(&self) -> Vec<StorageNode>;
}

/// A node that is alone.
pub struct NoStorages;

impl Storages for NoStorages {
    fn seen(&self) -> Vec<StorageNode> {
        Vec::new()
    }
}

/// For one process: storages that were put there by hand.
impl Storages for Vec<StorageNode> {
    fn seen(&self) -> Vec<StorageNode> {
        self.clone()
    }
}

#[derive(Clone)]
pub enum Location {
    Here,
    Node(StorageNode),
    /// Every storage said that it has no files of it.
    Nowhere,
    /// Nobody has it of those that answered; why others did not.
    Unknown(String),
}

/// A cache of sector locations. Nothing in it is durable.
pub struct SectorIndex {
    miner: ActorId,
    storages: Arc<dyn Storages>,
    known: Mutex<HashMap<u64, (String, Instant)>>,
}

impl SectorIndex {
    pub fn new(miner: ActorId, storages: Arc<dyn Storages>) -> SectorIndex {
        SectorIndex { miner, storages, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, (String, Instant)>> {
        lock(&self.known)
    }

    /// For each sector its home. Nodes that do not answer in time have nothing, unless they said so shortly before.
    pub async fn find(&self, local: &LocalReader, numbers: &[u64]) -> BTreeMap<u64, Location> {
        let nodes = self.storages.seen();
        if nodes.is_empty() {
            // Nobody else could have them.
            return numbers.iter().map(|n| (*n, Location::Here)).collect();
        }
        let here = local.present(numbers).await.into_iter().map(|here| match here {
            Ok(true) => Location::Here,
            Ok(false) => Location::Nowhere,
            Err(why) => Location::Unknown(why),
        });
        let mut homes: BTreeMap<u64, Location> = numbers.iter().copied().zip(here).collect();
        let missing = |homes: &BTreeMap<u64, Location>| -> Vec<u64> {
            let without = |home: &Location| matches!(home, Location::Nowhere | Location::Unknown(_));
            homes.iter().filter(|(_, home)| without(home)).map(|(n, _)| *n).collect()
        };
        for number in missing(&homes) {
            let said = self.known().get(&number).cloned().filter(|(_, when)| when.elapsed() < FRESH);
            let node = said.and_then(|(name, _)| nodes.iter().find(|node| node.name == name));
            if let Some(node) = node {
                homes.insert(number, Location::Node(node.clone()));
            }
        }
        let unknown = missing(&homes);
        if unknown.is_empty() {
            return homes;
        }
        let unknown = &unknown;
        let miner = self.miner;
        let answers = join_all(nodes.iter().map(|node| async move {
            let (mut had, mut silent) = (Vec::new(), false);
            for batch in unknown.chunks(BATCH) {
                match node.storage.ask(Has { miner, sectors: batch.to_vec() }, ASK_TIMEOUT).await {
                    Ok(some) => had.extend(some),
                    Err(e) => {
                        tracing::warn!(node = node.name, "its storage does not say what it has: {e}");
                        silent = true;
                        break;
                    }
                }
            }
            (node, had, silent)
        }))
        .await;
        let silent: Vec<&str> =
            answers.iter().filter(|(_, _, silent)| *silent).map(|(node, _, _)| node.name.as_str()).collect();
        let silent = silent.join(", ");
        let mut known = self.known();
        for (node, had, _) in answers {
            for number in had {
                let Some(home) = homes.get_mut(&number) else { continue };
                known.insert(number, (node.name.clone(), Instant::now()));
                *home = Location::Node(node.clone());
            }
        }
        if !silent.is_empty() {
            let nowhere = homes.values_mut().filter(|home| matches!(home, Location::Nowhere));
            nowhere.for_each(|home| *home = Location::Unknown(format!("the storage of {silent} does not answer")));
        }
        homes
    }

    /// Drops a cached location that proved wrong.
    pub fn forget(&self, number: u64) {
        self.known().remove(&number);
    }
}
