//! A file for redb to look at: what redb writes stays in memory, so that checking a damaged file does not change it.

use crate::util::lock;
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

const PAGE: u64 = 4096;

#[derive(Debug)]
pub(super) struct OverlayBackend {
    file: FileBackend,
    over: Mutex<Overlay>,
}

/// The bytes that lie over the file.
#[derive(Debug)]
struct Overlay {
    len: u64,
    /// The file's own bytes count up to here only: it was cut.
    cut: u64,
    /// Whole pages by their number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl OverlayBackend {
    pub(super) fn new(file: File) -> Result<OverlayBackend, DatabaseError> {
        let file = FileBackend::new(file)?;
        let len = file.len()?;
        Ok(OverlayBackend { file, over: Mutex::new(Overlay { len, cut: len, pages: BTreeMap::new() }) })
    }

    fn over(&self) -> MutexGuard<'_, Overlay> {
        lock(&self.over)
    }

    fn page(&self, over: &Overlay, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = over.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE as usize];
        let of_file = over.cut.saturating_sub(number * PAGE).min(PAGE) as usize;
        self.file.read(number * PAGE, &mut page[..of_file])?;
        Ok(page)
    }
}

/// The pieces of a range: page number, where in the page, where in the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % PAGE) as usize;
        let size = (PAGE as usize - start).min(len - done);
        let piece = (at / PAGE, start..start + size, done..done + size);
        done += size;
        (size > 0).then_some(piece)
    })
}

impl StorageBackend for OverlayBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > over.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, in_page, in_out) in pieces(offset, out.len()) {
            out[in_out].copy_from_slice(&self.page(&over, number)?[in_page]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        if len < over.len {
            over.cut = over.cut.min(len);
            over.pages.split_off(&len.div_ceil(PAGE));
            if let Some(last) = over.pages.get_mut(&(len / PAGE)) {
                last[(len % PAGE) as usize..].fill(0);
            }
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        for (number, in_page, in_data) in pieces(offset, data.len()) {
            let mut page = self.page(&over, number)?;
            page[in_page].copy_from_slice(&data[in_data]);
            over.pages.insert(number, page);
        }
        over.len = over.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The locks are the file's: a database that another process has open is not looked at.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_back_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let original: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &original).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let over = OverlayBackend::new(file).unwrap();
        let mut expected = original.clone();
        for (at, len) in [(0, 1), (4095, 1), (4096, 1), (4095, 2), (100, 9_000), (9_999, 1), (9_999, 2), (20_000, 5)] {
            let data = vec![0xee; len];
            over.write(at as u64, &data).unwrap();
            expected.resize(expected.len().max(at + len), 0);
            expected[at..at + len].copy_from_slice(&data);
        }
        over.set_len(5_000).unwrap();
        over.set_len(12_000).unwrap();
        expected.truncate(5_000);
        expected.resize(12_000, 0);
        let mut read = vec![1; 12_000];
        over.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        assert!(over.read(11_999, &mut [0; 1]).is_ok() && over.read(11_999, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), original);
    }
}
