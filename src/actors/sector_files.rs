//! The paths of a sector's files and a job's results: one layout for the concern that makes them and those that prove
//! them.

use crate::proofs::{ActorId, PostSector, tasks};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A sector as the chain has it, to be looked for on the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorCheck {
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// On chain. The files that give it are those to prove from: the sealed replica, or an update of it (snap).
    pub comm_r: [u8; 32],
}

/// Why a sector's files are not to be proven from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unprovable {
    /// They are missing, damaged, or not those of the chain.
    Bad(String),
    /// The disk or the share failed for now, or this process has no descriptor left: it may be asked again.
    Passing(String),
}

impl Unprovable {
    fn of(path: &Path, error: &io::Error) -> Unprovable {
        let why = format!("{}: {error}", path.display());
        if tasks::passes(error) { Unprovable::Passing(why) } else { Unprovable::Bad(why) }
    }

    pub fn why(&self) -> &str {
        match self {
            Unprovable::Bad(why) | Unprovable::Passing(why) => why,
        }
    }
}

/// Finds the files that a PoSt reads. Calls may block on a disk for ever: run them through
/// [`PathChecks`](super::path_checks::PathChecks).
pub trait SectorFiles: Send + Sync + 'static {
    /// The paths of the sealed replica of `number`, whether they exist or not.
    fn locate(&self, number: u64) -> SectorPaths;

    /// The paths of the replica that an update (snap) of `number` made, whether they exist or not.
    fn locate_update(&self, number: u64) -> SectorPaths;

    /// The storage path that holds the files of `number`: a disk or a share that hangs as a whole.
    fn storage_path(&self, number: u64) -> PathBuf;

    /// Whether there are files of `number` here at all.
    fn present(&self, number: u64) -> bool {
        [self.locate(number), self.locate_update(number)].iter().any(|paths| paths.sealed.is_file())
    }

    /// The files that a proof of this sector can be expected to read, or why there are none.
    fn check(&self, sector: &SectorCheck) -> Result<SectorPaths, Unprovable> {
        let sealed = self.locate(sector.number);
        let why = match sealed.check(sector) {
            Ok(()) => return Ok(sealed),
            Err(why) => why,
        };
        let update = self.locate_update(sector.number);
        let there = match fs::metadata(&update.sealed) {
            Ok(_) => update.check(sector),
            Err(error) if tasks::passes(&error) => Err(Unprovable::of(&update.sealed, &error)),
            Err(_) => return Err(why),
        };
        there.map(|()| update).map_err(|of_update| {
            let both = format!("{}; its update: {}", why.why(), of_update.why());
            match (why, of_update) {
                (Unprovable::Bad(_), Unprovable::Bad(_)) => Unprovable::Bad(both),
                _ => Unprovable::Passing(both),
            }
        })
    }
}

/// The files that a step of sealing writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// AddPiece: the unsealed data.
    Piece,
    /// PC1: the layers, and the copy that is to be encoded.
    Layers,
    /// PC2: the trees of columns and of the replica.
    Trees,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorPaths {
    pub sealed: PathBuf,
    pub cache: PathBuf,
}

impl SectorPaths {
    /// Size of the replica, and CommR as `p_aux` gives it.
    fn check(&self, sector: &SectorCheck) -> Result<(), Unprovable> {
        let of = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| Unprovable::of(&path, &error)
        };
        let bad = |why: String| Err(Unprovable::Bad(why));
        let file = fs::metadata(&self.sealed).map_err(of(&self.sealed))?;
        if !file.is_file() || file.len() != sector.size {
            return bad(format!("{} has {} bytes, not {}", self.sealed.display(), file.len(), sector.size));
        }
        let t_aux = self.cache.join("t_aux");
        fs::metadata(&t_aux).map_err(of(&t_aux))?;
        let p_aux = self.cache.join("p_aux");
        let bytes = fs::read(&p_aux).map_err(of(&p_aux))?;
        let found = tasks::comm_r_of(&bytes).map_err(|e| Unprovable::Bad(format!("{}: {e}", p_aux.display())))?;
        if found != sector.comm_r {
            let (found, chain) = (hex::encode(found), hex::encode(sector.comm_r));
            return bad(format!("{} gives CommR {found}, the chain has {chain}", p_aux.display()));
        }
        Ok(())
    }

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
    pub fn update(&self, number: u64) -> PathBuf {
        self.sectors.join("update").join(self.name(number))
    }
    pub fn update_cache(&self, number: u64) -> PathBuf {
        self.sectors.join("update-cache").join(self.name(number))
    }
    /// Bytes on disk of what a step writes.
    pub fn written(&self, number: u64, writing: Writing) -> u64 {
        use std::os::unix::fs::MetadataExt;
        // Files that are mapped are as long as they will be from the start: blocks count.
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.blocks().saturating_mul(512));
        let cache = |wanted: fn(&str) -> bool| -> u64 {
            let files = fs::read_dir(self.cache(number)).into_iter().flatten().flatten();
            files.filter(|file| file.file_name().to_str().is_some_and(wanted)).map(|file| size(&file.path())).sum()
        };
        match writing {
            Writing::Piece => size(&self.unsealed(number)),
            Writing::Layers => size(&self.sealed(number)).saturating_add(cache(|_| true)),
            Writing::Trees => cache(|name| name.starts_with("sc-02-data-tree-c") || name.contains("tree-r")),
        }
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
        remove(&self.update(number))?;
        remove(&self.update_cache(number))?;
        self.remove_jobs(number)
    }
}

impl SectorFiles for SectorDirs {
    fn locate(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: self.sealed(number), cache: self.cache(number) }
    }

    fn locate_update(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: self.update(number), cache: self.update_cache(number) }
    }

    /// The folder of the repo, or where a link of the sector's leads.
    fn storage_path(&self, number: u64) -> PathBuf {
        let links = [self.sealed(number), self.cache(number), self.update(number)];
        let target = links.iter().find_map(|link| fs::read_link(link).ok());
        // <path>/sealed/s-t01000-1
        let path = target.and_then(|target| Some(target.parent()?.parent()?.to_path_buf()));
        path.unwrap_or_else(|| self.sectors.clone())
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

    /// A replica of `size` bytes whose `p_aux` is all `seed`; returns its CommR.
    fn make(paths: &SectorPaths, size: usize, seed: u8) -> [u8; 32] {
        fs::create_dir_all(&paths.cache).unwrap();
        fs::create_dir_all(paths.sealed.parent().unwrap()).unwrap();
        fs::write(&paths.sealed, vec![0; size]).unwrap();
        fs::write(paths.cache.join("t_aux"), "").unwrap();
        fs::write(paths.cache.join("p_aux"), [seed; 64]).unwrap();
        tasks::comm_r_of(&[seed; 64]).unwrap()
    }

    #[test]
    fn the_files_with_the_chains_comm_r_are_taken() {
        let repo = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(repo.path(), 1000);
        let check = |number, comm_r| dirs.check(&SectorCheck { number, size: 2048, comm_r });
        let sealed = make(&dirs.locate(1), 2048, 1);
        assert_eq!(check(1, sealed), Ok(dirs.locate(1)));
        let Unprovable::Bad(why) = check(1, [7; 32]).unwrap_err() else { panic!("it never passes") };
        assert!(why.contains("gives CommR") && why.contains(&hex::encode([7; 32])), "{why}");

        // Snapped: the chain has the update's CommR, and before that message landed the sealed one's.
        let update = make(&dirs.locate_update(1), 2048, 2);
        assert_ne!(sealed, update);
        assert_eq!(check(1, update), Ok(dirs.locate_update(1)));
        assert_eq!(check(1, sealed), Ok(dirs.locate(1)));
        fs::remove_file(dirs.sealed(1)).unwrap();
        assert_eq!(check(1, update), Ok(dirs.locate_update(1)), "the sector's key was released");
        assert!(dirs.present(1) && !dirs.present(2));
    }

    #[test]
    fn what_is_missing_or_cut_is_named() {
        let repo = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(repo.path(), 1000);
        let comm_r = make(&dirs.locate(1), 2048, 1);
        let why = || match dirs.check(&SectorCheck { number: 1, size: 2048, comm_r }).unwrap_err() {
            Unprovable::Bad(why) => why,
            passing => panic!("it never passes: {passing:?}"),
        };
        fs::write(dirs.cache(1).join("p_aux"), [1; 63]).unwrap();
        assert!(why().contains("63 bytes"), "{}", why());
        fs::remove_file(dirs.cache(1).join("p_aux")).unwrap();
        assert!(why().contains("p_aux"), "{}", why());
        fs::remove_file(dirs.cache(1).join("t_aux")).unwrap();
        assert!(why().contains("t_aux"), "{}", why());
        fs::write(dirs.sealed(1), [0; 2047]).unwrap();
        assert!(why().contains("has 2047 bytes, not 2048"), "{}", why());
    }

    /// A link that leads nowhere for now (EIO, ESTALE of a share: here ELOOP) says nothing of the sector.
    #[test]
    fn an_error_that_passes_is_told_from_a_file_that_is_missing() {
        let repo = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(repo.path(), 1000);
        let comm_r = make(&dirs.locate(1), 2048, 1);
        let passing = || match dirs.check(&SectorCheck { number: 1, size: 2048, comm_r }) {
            Err(Unprovable::Passing(why)) => why,
            other => panic!("{other:?}"),
        };
        let in_a_loop = |path: &Path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink(path, path).unwrap();
        };
        let p_aux = dirs.cache(1).join("p_aux");
        in_a_loop(&p_aux);
        assert!(passing().contains("p_aux"), "{}", passing());
        in_a_loop(&dirs.sealed(1));
        assert!(passing().contains("sealed"), "{}", passing());
        // The sealed replica is gone for good; its update may be there.
        fs::remove_file(dirs.sealed(1)).unwrap();
        fs::create_dir_all(dirs.update(1).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(dirs.update(1), dirs.update(1)).unwrap();
        assert!(passing().contains("its update"), "{}", passing());
    }

    #[test]
    fn a_link_leads_to_its_own_storage_path() {
        let repo = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(repo.path(), 1000);
        dirs.create().unwrap();
        std::os::unix::fs::symlink("/mnt/disk7/sealed/s-t01000-1", dirs.sealed(1)).unwrap();
        assert_eq!(dirs.storage_path(1), Path::new("/mnt/disk7"));
        assert_eq!(dirs.storage_path(2), dirs.sectors);
    }

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
