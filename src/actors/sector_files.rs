//! Where a sector's files lie, for the concerns that prove them.

use crate::proofs::{ActorId, PostSector};
use std::path::PathBuf;

/// Finds the files that a PoSt reads. Calls may block on a disk: run them off the actor's thread.
pub trait SectorFiles: Send + Sync + 'static {
    /// Where the files of `number` belong, there or not.
    fn locate(&self, number: u64) -> SectorPaths;

    /// Whether a proof can be expected to read them.
    fn readable(&self, number: u64, sector_size: u64) -> bool {
        let paths = self.locate(number);
        let sealed = std::fs::metadata(&paths.sealed).is_ok_and(|file| file.is_file() && file.len() == sector_size);
        sealed && paths.cache.join("p_aux").is_file() && paths.cache.join("t_aux").is_file()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorPaths {
    pub sealed: PathBuf,
    pub cache: PathBuf,
}

impl SectorPaths {
    pub fn post_sector(self, number: u64, comm_r: [u8; 32]) -> PostSector {
        PostSector { number, comm_r, cache_dir: self.cache, sealed_path: self.sealed }
    }
}

/// The repo of one node: `sectors/sealed/s-t01000-1`, `sectors/cache/s-t01000-1`, under Lotus' names.
#[derive(Clone, Debug)]
pub struct RepoSectors {
    pub sectors: PathBuf,
    pub miner: ActorId,
}

impl SectorFiles for RepoSectors {
    fn locate(&self, number: u64) -> SectorPaths {
        let name = format!("s-t0{}-{number}", self.miner);
        SectorPaths { sealed: self.sectors.join("sealed").join(&name), cache: self.sectors.join("cache").join(&name) }
    }
}
