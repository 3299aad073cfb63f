//! Finds a sector's files: on this node, or on another whose storage lists them.

use super::Storage;
use super::messages::Has;
use crate::actors::sector_files::{SectorDirs, SectorFiles, SectorPaths};
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
    Nowhere,
}

/// A cache of sector locations. Cheap to share; nothing in it is durable.
pub struct SectorIndex {
    dirs: SectorDirs,
    storages: Arc<dyn Storages>,
    known: Mutex<HashMap<u64, (String, Instant)>>,
}

impl SectorIndex {
    pub fn new(dirs: SectorDirs, storages: Arc<dyn Storages>) -> SectorIndex {
        SectorIndex { dirs, storages, known: Mutex::default() }
    }

    pub fn dirs(&self) -> &SectorDirs {
        &self.dirs
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, (String, Instant)>> {
        lock(&self.known)
    }

    /// For each sector its home. Nodes that do not answer in time have nothing, unless they said so shortly before.
    pub async fn find(&self, numbers: &[u64]) -> BTreeMap<u64, Location> {
        let nodes = self.storages.seen();
        let mut homes: BTreeMap<u64, Location> = numbers.iter().map(|n| (*n, Location::Nowhere)).collect();
        if nodes.is_empty() {
            // Nobody else could have them.
            homes.values_mut().for_each(|home| *home = Location::Here);
            return homes;
        }
        let (dirs, all) = (self.dirs.clone(), numbers.to_vec());
        let here = tokio::task::spawn_blocking(move || {
            all.into_iter().filter(|n| dirs.sealed(*n).exists()).collect::<Vec<u64>>()
        });
        let here = tokio::time::timeout(ASK_TIMEOUT, here).await.ok().and_then(Result::ok).unwrap_or_default();
        here.into_iter().for_each(|n| drop(homes.insert(n, Location::Here)));
        let missing = |homes: &BTreeMap<u64, Location>| -> Vec<u64> {
            homes.iter().filter(|(_, h)| matches!(h, Location::Nowhere)).map(|(n, _)| *n).collect()
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
        let miner = self.dirs.miner;
        let answers = join_all(nodes.iter().map(|node| async move {
            let mut had = Vec::new();
            for batch in unknown.chunks(BATCH) {
                match node.storage.ask(Has { miner, sectors: batch.to_vec() }, ASK_TIMEOUT).await {
                    Ok(some) => had.extend(some),
                    Err(e) => {
                        tracing::warn!(node = node.name, "its storage does not say what it has: {e}");
                        break;
                    }
                }
            }
            (node, had)
        }))
        .await;
        let mut known = self.known();
        for (node, had) in answers {
            for number in had {
                let Some(home) = homes.get_mut(&number) else { continue };
                known.insert(number, (node.name.clone(), Instant::now()));
                *home = Location::Node(node.clone());
            }
        }
        homes
    }

    /// Drops a cached location that proved wrong.
    pub fn forget(&self, number: u64) {
        self.known().remove(&number);
    }
}

/// The files of sectors wherever they are; those elsewhere can be proven, not opened.
pub struct RemoteFiles(pub Arc<SectorIndex>);

impl SectorFiles for RemoteFiles {
    fn locate(&self, number: u64) -> SectorPaths {
        self.0.dirs.locate(number)
    }

    fn readable(&self, number: u64, sector_size: u64) -> bool {
        if self.0.dirs.sealed(number).exists() {
            return self.0.dirs.readable(number, sector_size);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return false };
        matches!(runtime.block_on(self.0.find(&[number])).get(&number), Some(Location::Node(_)))
    }
}
