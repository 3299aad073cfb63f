//! Finds a sector's files: on this node, or on another whose storage lists them.

use super::Storage;
use super::local_reader::LocalReader;
use super::messages::{Has, HasAnswer};
use crate::proofs::ActorId;
use crate::supervisor::Ref;
use crate::util::lock;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// The storages of a cluster, without this node's.
#[derive(Clone, Default)]
pub struct Seen {
    /// Registered now. A storage that restarts, or whose record was lost, is missing for a while.
    pub nodes: Vec<StorageNode>,
    /// Why `nodes` may be out of date; `None`: the directory is in contact.
    pub trouble: Option<String>,
}

pub trait Storages: Send + Sync + 'static {
    /// `None`: there is no cluster, files are on this node or nowhere.
    fn seen(&self) -> Option<Seen>;
}

/// A node that is alone.
pub struct NoStorages;

impl Storages for NoStorages {
    fn seen(&self) -> Option<Seen> {
        None
    }
}

/// For one process: storages that were put there by hand.
impl Storages for Vec<StorageNode> {
    fn seen(&self) -> Option<Seen> {
        Some(Seen { nodes: self.clone(), trouble: None })
    }
}

#[derive(Clone)]
pub enum Location {
    Here,
    Node(StorageNode),
    /// Nobody says that it has it, and why somebody may have it all the same: in a cluster never an end.
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

    /// For each sector its home. Alone, every sector is here: nobody else could have it. In a cluster one that nobody has
    /// may be on a host that is about to register again, so that it is late, never lost.
    pub async fn find(&self, local: &LocalReader, numbers: &[u64]) -> BTreeMap<u64, Location> {
        let Some(Seen { nodes, trouble }) = self.storages.seen() else {
            return numbers.iter().map(|n| (*n, Location::Here)).collect();
        };
        let mut homes: BTreeMap<u64, Location> = BTreeMap::new();
        let mut wanted: Vec<u64> = Vec::new();
        let mut whys: HashMap<u64, String> = HashMap::new();
        for (number, here) in numbers.iter().copied().zip(local.present(numbers).await) {
            match here {
                Ok(true) => drop(homes.insert(number, Location::Here)),
                Ok(false) => wanted.push(number),
                Err(why) => {
                    wanted.push(number);
                    whys.insert(number, why);
                }
            }
        }
        wanted.retain(|number| {
            let said = self.known().get(number).cloned().filter(|(_, when)| when.elapsed() < FRESH);
            let node = said.and_then(|(name, _)| nodes.iter().find(|node| node.name == name));
            if let Some(node) = node {
                homes.insert(*number, Location::Node(node.clone()));
            }
            node.is_none()
        });
        if wanted.is_empty() {
            return homes;
        }
        let answers = join_all(nodes.iter().map(|node| self.ask(node, &wanted))).await;
        let wanted: BTreeSet<u64> = wanted.into_iter().collect();
        let mut silent: Vec<&str> = Vec::new();
        for (node, (said, whole)) in nodes.iter().zip(answers) {
            if !whole {
                silent.push(&node.name);
            }
            let mut known = self.known();
            for number in said.here.into_iter().filter(|number| wanted.contains(number)) {
                known.insert(number, (node.name.clone(), Instant::now()));
                homes.insert(number, Location::Node(node.clone()));
            }
            for number in said.unknown {
                whys.insert(number, format!("a disk of {} does not answer", node.name));
            }
        }
        let nobody = match (trouble, silent.is_empty()) {
            (Some(trouble), _) => trouble,
            (None, false) => format!("the storage of {} does not answer", silent.join(", ")),
            (None, true) => "no storage that is registered has its files".to_string(),
        };
        for number in wanted {
            let why = whys.remove(&number).unwrap_or_else(|| nobody.clone());
            homes.entry(number).or_insert(Location::Unknown(why));
        }
        homes
    }

    /// A storage's answer about these sectors; false: it did not answer for all of them.
    async fn ask(&self, node: &StorageNode, numbers: &[u64]) -> (HasAnswer, bool) {
        let mut said = HasAnswer::default();
        for batch in numbers.chunks(BATCH) {
            match node.storage.ask(Has { miner: self.miner, sectors: batch.to_vec() }, ASK_TIMEOUT).await {
                Ok(HasAnswer { here, unknown }) => {
                    said.here.extend(here);
                    said.unknown.extend(unknown);
                }
                Err(e) => {
                    tracing::warn!(node = node.name, "its storage does not say what it has: {e}");
                    return (said, false);
                }
            }
        }
        (said, true)
    }

    /// Drops a cached location that proved wrong.
    pub fn forget(&self, number: u64) {
        self.known().remove(&number);
    }
}
