//! A redb file: opening with a check, and opening again after a disk error. Behind the store and the devnet's chain.

use super::error::{Result, StoreError};
use super::overlay::OverlayBackend;
use crate::util::host::{Disk, disk};
use redb::backends::FileBackend;
use redb::{BackendError, Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

/// Up to this size every page's checksum is verified at the start; it takes milliseconds.
const CHECKED_AT_OPEN: u64 = 256 << 20;
const CACHE: usize = 16 << 20;

type Opener = Box<dyn Fn(&Path) -> std::result::Result<Database, redb::DatabaseError> + Send + Sync>;

pub(crate) struct Db {
    path: PathBuf,
    opener: Opener,
    /// `None` after a disk error: redb refuses everything that follows one, so the file is opened anew.
    open: RwLock<Option<Database>>,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Db> {
        Db::open_with(
            path,
            Box::new(|path| Database::builder().set_cache_size(CACHE).create_with_backend(Allocated::open(path)?)),
        )
    }

    pub(super) fn open_with(path: &Path, opener: Opener) -> Result<Db> {
        let db = open_checked(path, &opener)?;
        Ok(Db { path: path.to_owned(), opener, open: RwLock::new(Some(db)) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        let answer = self.with(|db| {
            let tx = db.begin_read().map_err(|e| StoreError::of(&self.path, e))?;
            f(&tx).map_err(|e| self.at_path(e))
        });
        self.reopen_after(&answer);
        answer
    }

    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        // Only errors of the disk, not those of `f`, put the file in doubt.
        let mut disk = Ok(());
        let answer = self.with(|db| {
            // redb's default durability: commit returns after fsync.
            let tx = db.begin_write().map_err(|e| StoreError::of(&self.path, e)).inspect_err(|_| disk = Err(()))?;
            let answer = f(&tx)?;
            tx.commit().map_err(|e| StoreError::of(&self.path, e)).inspect_err(|_| disk = Err(()))?;
            Ok(answer)
        });
        if disk.is_err() || (answer.is_err() && self.poisoned()) {
            self.close();
        }
        answer
    }

    fn with<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&Database) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let guard = self.opened()?;
        match guard.as_ref() {
            Some(db) => f(db),
            None => Err(StoreError::Io(format!("{}: closed by an error of another write", self.path.display())).into()),
        }
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>> {
        let guard = self.open.read().unwrap_or_else(|e| e.into_inner());
        if guard.is_some() {
            return Ok(guard);
        }
        drop(guard);
        let mut write = self.open.write().unwrap_or_else(|e| e.into_inner());
        if write.is_none() {
            // Closed by an error, so not cleanly: redb itself verifies all of it while it recovers.
            *write = Some(unpanicked(&self.path, || (self.opener)(&self.path))?);
        }
        drop(write);
        Ok(self.open.read().unwrap_or_else(|e| e.into_inner()))
    }

    /// True when redb has latched an I/O error and would refuse every later write.
    fn poisoned(&self) -> bool {
        let guard = self.open.read().unwrap_or_else(|e| e.into_inner());
        guard.as_ref().is_some_and(|db| match db.begin_write() {
            Ok(tx) => tx.abort().is_err(),
            Err(_) => true,
        })
    }

    fn reopen_after<T>(&self, answer: &Result<T>) {
        if matches!(answer, Err(StoreError::Io(_) | StoreError::Full { .. })) {
            self.close();
        }
    }

    fn close(&self) {
        let mut guard = self.open.write().unwrap_or_else(|e| e.into_inner());
        *guard = None;
    }

    fn at_path(&self, e: StoreError) -> StoreError {
        match e {
            StoreError::Io(why) => StoreError::Io(format!("{}: {why}", self.path.display())),
            e => e,
        }
    }
}

/// The check works on a copy of what it would change: a damaged file stays as it was found.
fn open_checked(path: &Path, opener: &Opener) -> Result<Database> {
    let size = std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
    let sound = size == 0 || size > CHECKED_AT_OPEN || unpanicked(path, || check_untouched(path))?;
    let mut db = unpanicked(path, || opener(path))?;
    if !sound {
        tracing::warn!(path = %path.display(), "store was not closed cleanly; repaired");
        unpanicked(path, || db.check_integrity())?;
    }
    Ok(db)
}

fn check_untouched(path: &Path) -> std::result::Result<bool, redb::DatabaseError> {
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut db = Database::builder().set_cache_size(CACHE).create_with_backend(OverlayBackend::new(file)?)?;
    db.check_integrity()
}

/// A file that makes redb panic is as damaged as one that it refuses.
fn unpanicked<T>(path: &Path, f: impl FnOnce() -> std::result::Result<T, redb::DatabaseError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(done) => done.map_err(|e| StoreError::opening(path, e)),
        Err(_) => Err(StoreError::damaged(path, "unreadable structure")),
    }
}

/// A file whose blocks are the disk's as far as it reaches: what is written within it needs no space any more, so that a
/// disk that others have filled does not refuse the next record, such as a WindowPoSt's message. redb grows a file by its
/// own size, so that about half of it is free at most times.
#[derive(Debug)]
struct Allocated {
    inner: FileBackend,
    file: File,
    /// Holds the file.
    folder: PathBuf,
}

/// Bytes of a disk that are not allocated ahead: proofs' results, logs and other stores need them. A sixteenth of a small
/// disk.
const RESERVE: u64 = 256 << 20;

/// Whether `missing` bytes may be taken ahead of need.
fn leaves_reserve(disk: Disk, missing: u64) -> bool {
    disk.free >= missing.saturating_add(RESERVE.min(disk.size / 16))
}

impl Allocated {
    fn open(path: &Path) -> std::result::Result<Allocated, redb::DatabaseError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let backend = Allocated { file: file.try_clone()?, inner: FileBackend::new(file)?, folder };
        backend.allocate(backend.inner.len()?);
        Ok(backend)
    }

    /// Blocks come with each write, as without this, on a file system that cannot, or where the last bytes would go.
    fn allocate(&self, len: u64) {
        let has = self.file.metadata().map_or(0, |file| file.blocks().saturating_mul(512));
        let missing = len.saturating_sub(has);
        let Ok(len) = i64::try_from(len) else { return };
        if missing > 0 && leaves_reserve(disk(&self.folder), missing) {
            // Beyond the end of the file it keeps its size; `set_len` gives it the new one.
            let keep_size = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = nix::fcntl::fallocate(&self.file, keep_size, 0, len);
        }
    }
}

impl StorageBackend for Allocated {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.inner.len()? {
            self.allocate(len);
        }
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
    // redb keeps a second process out by them; a backend that leaves them out locks nothing.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_of_a_disk_are_not_taken_ahead() {
        let (large, small) = (1 << 40, 16 << 20);
        for (free, size, missing, may) in [
            (RESERVE + 99, large, 100, false),
            (RESERVE + 100, large, 100, true),
            (RESERVE + 101, large, 100, true),
            ((1 << 20) + 99, small, 100, false),
            ((1 << 20) + 100, small, 100, true),
            (u64::MAX, large, u64::MAX, true),
            (0, 0, 1, false),
        ] {
            assert_eq!(leaves_reserve(Disk { free, size }, missing), may, "{free} of {size}, {missing}");
        }
    }

    #[test]
    fn a_store_has_the_blocks_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bulkhead.redb");
        let _db = Db::open(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert!(file.blocks() * 512 >= file.len(), "{} blocks of {} bytes", file.blocks(), file.len());
    }
}
