//! Where a sector's files are: on this node, or on another whose storage says so.

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
const ASK: Duration = Duration::from_secs(8);
/// What a node said of its disks stands for so long.
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
    /// Those that are registered now, this node excepted.
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
pub enum Home {
    Here,
    Node(StorageNode),
    Nowhere,
}

/// What is known of where sectors are. Cheap to share; nothing in it is durable.
pub struct Index {
    dirs: SectorDirs,
    storages: Arc<dyn Storages>,
    known: Mutex<HashMap<u64, (String, Instant)>>,
}

impl Index {
    pub fn new(dirs: SectorDirs, storages: Arc<dyn Storages>) -> Index {
        Index { dirs, storages, known: Mutex::default() }
    }

    pub fn dirs(&self) -> &SectorDirs {
        &self.dirs
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, (String, Instant)>> {
        lock(&self.known)
    }

    /// For each sector its home. Nodes that do not answer in time have nothing, unless they said so shortly before.
    pub async fn find(&self, numbers: &[u64]) -> BTreeMap<u64, Home> {
        let nodes = self.storages.seen();
        let mut homes: BTreeMap<u64, Home> = numbers.iter().map(|n| (*n, Home::Nowhere)).collect();
        if nodes.is_empty() {
            // Nobody else could have them.
            homes.values_mut().for_each(|home| *home = Home::Here);
            return homes;
        }
        let (dirs, all) = (self.dirs.clone(), numbers.to_vec());
        let here = tokio::task::spawn_blocking(move || {
            all.into_iter().filter(|n| dirs.sealed(*n).exists()).collect::<Vec<u64>>()
        });
        let here = tokio::time::timeout(ASK, here).await.ok().and_then(Result::ok).unwrap_or_default();
        here.into_iter().for_each(|n| drop(homes.insert(n, Home::Here)));
        let missing = |homes: &BTreeMap<u64, Home>| -> Vec<u64> {
            homes.iter().filter(|(_, h)| matches!(h, Home::Nowhere)).map(|(n, _)| *n).collect()
        };
        for number in missing(&homes) {
            let said = self.known().get(&number).cloned().filter(|(_, when)| when.elapsed() < FRESH);
            let node = said.and_then(|(name, _)| nodes.iter().find(|node| node.name == name));
            if let Some(node) = node {
                homes.insert(number, Home::Node(node.clone()));
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
                match node.storage.ask(Has { miner, sectors: batch.to_vec() }, ASK).await {
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
                *home = Home::Node(node.clone());
            }
        }
        homes
    }

    /// What a node said is not true any more.
    pub fn forget(&self, number: u64) {
        self.known().remove(&number);
    }
}

/// The files of sectors wherever they are; those elsewhere can be proven, not opened.
pub struct FarFiles(pub Arc<Index>);

impl SectorFiles for FarFiles {
    fn locate(&self, number: u64) -> SectorPaths {
        self.0.dirs.locate(number)
    }

    fn readable(&self, number: u64, sector_size: u64) -> bool {
        if self.0.dirs.sealed(number).exists() {
            return self.0.dirs.readable(number, sector_size);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return false };
        matches!(runtime.block_on(self.0.find(&[number])).get(&number), Some(Home::Node(_)))
    }
}
