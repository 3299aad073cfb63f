//! The paths of a sector's files and a job's results: one layout for the concern that makes them and those that prove
//! them.

use crate::proofs::{ActorId, PostSector};
use std::io;
use std::path::{Path, PathBuf};

/// Finds the files that a PoSt reads. Calls may block on a disk: run them off the actor's thread.
pub trait SectorFiles: Send + Sync + 'static {
    /// The paths of the files of `number`, whether they exist or not.
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

/// The folders of one node's repo: `sectors/sealed/s-t01000-1`, .., under Lotus' names, and the jobs' results.
#[derive(Clone, Debug)]
pub struct SectorDirs {
    /// Holds `unsealed/`, `sealed/`, `cache/`.
    pub sectors: PathBuf,
    pub jobs: PathBuf,
    pub miner: ActorId,
}

impl SectorDirs {
    /// The layout of a repo.
    pub fn of_repo(repo: &Path, miner: ActorId) -> SectorDirs {
        SectorDirs { sectors: repo.join("sectors"), jobs: repo.join("jobs"), miner }
    }

    /// `s-t01000-1`
    pub fn name(&self, number: u64) -> String {
        format!("s-t0{}-{number}", self.miner)
    }
    pub fn unsealed(&self, number: u64) -> PathBuf {
        self.sectors.join("unsealed").join(self.name(number))
    }
    pub fn sealed(&self, number: u64) -> PathBuf {
        self.sectors.join("sealed").join(self.name(number))
    }
    pub fn cache(&self, number: u64) -> PathBuf {
        self.sectors.join("cache").join(self.name(number))
    }
    pub fn job(&self, number: u64, phase: &str, attempt: u32) -> PathBuf {
        self.jobs.join(format!("{}-{phase}-{attempt}", self.name(number)))
    }

    /// An error names the folder.
    pub fn create(&self) -> io::Result<()> {
        let folders = ["unsealed", "sealed", "cache"].map(|kind| self.sectors.join(kind));
        folders.iter().chain([&self.jobs]).try_for_each(|folder| {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
            std::fs::create_dir_all(folder).map_err(named)
        })
    }

    pub fn remove_jobs(&self, number: u64) -> io::Result<()> {
        let prefix = format!("{}-", self.name(number));
        let entries = match std::fs::read_dir(&self.jobs) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    pub fn remove_unsealed(&self, number: u64) -> io::Result<()> {
        remove(&self.unsealed(number))
    }

    pub fn remove_all(&self, number: u64) -> io::Result<()> {
        remove(&self.unsealed(number))?;
        remove(&self.sealed(number))?;
        remove(&self.cache(number))?;
        self.remove_jobs(number)
    }
}

impl SectorFiles for SectorDirs {
    fn locate(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: self.sealed(number), cache: self.cache(number) }
    }
}

/// File or folder, there or not.
fn remove(path: &Path) -> io::Result<()> {
    let gone = |e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) };
    match std::fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => std::fs::remove_dir_all(path).or_else(gone),
        Ok(_) => std::fs::remove_file(path).or_else(gone),
        Err(e) => gone(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["sectors", "jobs"] {
            let repo = dir.path().join(format!("with-{name}"));
            std::fs::create_dir(&repo).expect("a repo");
            std::fs::write(repo.join(name), "no folder").expect("a file");
            let why = SectorDirs::of_repo(&repo, 1000).create().expect_err("a file is in the way").to_string();
            assert!(why.contains(&repo.join(name).display().to_string()), "{why}");
        }
    }
}
