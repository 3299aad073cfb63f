//! A key on disk: is it whole, is it ours to make, written so that a reader never sees half of one.

use super::condition::{Condition, KeyError};
use crate::util::{Mode, sync_folder, write_durably};
use bulkhead_proofs::circuits::Key;
use bulkhead_proofs::generator::vk_bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The files of one key in a parameter cache.
pub struct Files {
    pub params: PathBuf,
    pub vk: PathBuf,
    pub meta: PathBuf,
    dir: PathBuf,
}

impl Files {
    pub fn of(key: Key, dir: &Path) -> Result<Self, KeyError> {
        let [params, vk, meta] = key.file_names().map_err(|why| KeyError::Library { key: key.name(), why })?;
        Ok(Files { params: dir.join(params), vk: dir.join(vk), meta: dir.join(meta), dir: dir.into() })
    }

    /// The parameters while they are being written. One fixed name: the next run throws a left-over away.
    pub fn part(&self) -> PathBuf {
        with_suffix(&self.params, ".part")
    }

    fn lock(&self) -> PathBuf {
        with_suffix(&self.params, ".lock")
    }

    /// The state of the files, by structure: lengths must add up to the file's size and the verifying keys must agree.
    pub fn condition(&self) -> Condition {
        let layout = match Layout::read(&self.params) {
            Ok(Some(layout)) => layout,
            Ok(None) => return Condition::Damaged("the parameter file is incomplete".into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Condition::Absent,
            Err(e) => return Condition::Damaged(e.to_string()),
        };
        match fs::read(&self.vk) {
            Ok(vk) if vk == layout.vk => {}
            Ok(_) => return Condition::NeedsVk("the verifying key is not the one in the parameters".into()),
            Err(e) => return Condition::NeedsVk(format!("the verifying key cannot be read: {e}")),
        }
        match fs::read(&self.meta).map(|m| serde_json::from_slice::<serde_json::Value>(&m)) {
            Ok(Ok(v)) if v["sector_size"] == 2048 => Condition::Complete { bytes: layout.bytes },
            _ => Condition::NeedsVk("the metadata file is absent or wrong".into()),
        }
    }

    /// Writes verifying key and metadata from what the parameters contain.
    pub fn complete(&self) -> io::Result<()> {
        let layout = Layout::read(&self.params)?.ok_or_else(|| io::Error::other("the parameters are not whole"))?;
        self.write_small(&layout.vk)
    }

    pub fn write_small(&self, vk: &[u8]) -> io::Result<()> {
        write_durably(&self.vk, vk, Mode::Public)?;
        write_durably(&self.meta, br#"{"sector_size":2048}"#, Mode::Public)
    }

    /// Removes whatever is there and is no key.
    pub fn clear(&self) -> io::Result<()> {
        for path in [&self.params, &self.vk, &self.meta, &self.part()] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the finished `.part` file the parameters, last, so that parameters never stand without their verifying key.
    pub fn publish(&self, vk: &[u8]) -> io::Result<()> {
        self.write_small(vk)?;
        fs::rename(self.part(), &self.params)?;
        sync_folder(&self.dir)
    }

    /// The lock that stands for "this key is being made"; held as long as the file is open.
    pub fn open_lock(&self) -> io::Result<KeyLock> {
        let path = self.lock();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        Ok(KeyLock { file })
    }
}

/// flock on `<params>.lock`: gone with the process that holds it.
pub struct KeyLock {
    file: File,
}

impl KeyLock {
    pub fn try_take(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    pub fn take(&self) -> io::Result<()> {
        self.file.lock()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

const G1: u64 = 96;
const G2: u64 = 192;

/// The offsets of the sections of a parameter file.
pub struct Layout {
    pub vk: Vec<u8>,
    /// (offset, points, bytes per point) of h, l, a, b_g1, b_g2.
    pub sections: [(u64, u64, u64); 5],
    pub bytes: u64,
}

impl Layout {
    /// `None`: the lengths in the file do not add up to its size.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let ic_at = vk_bytes(0) - 4;
        let Some(inputs) = length_at(&mut file, ic_at, bytes)? else { return Ok(None) };
        let mut at = vk_bytes(inputs as usize);
        let mut sections = [(0, 0, 0); 5];
        for (section, size) in sections.iter_mut().zip([G1, G1, G1, G1, G2]) {
            let Some(points) = length_at(&mut file, at, bytes)? else { return Ok(None) };
            *section = (at + 4, points, size);
            at += 4 + points * size;
        }
        let empty = inputs == 0 || sections.iter().any(|s| s.1 == 0);
        if at != bytes || empty {
            return Ok(None);
        }
        let mut vk = vec![0; vk_bytes(inputs as usize) as usize];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut vk)?;
        // an unfinished file opens with zeros: the verifying key is written last
        if vk[..G1 as usize].iter().all(|b| *b == 0) {
            return Ok(None);
        }
        Ok(Some(Layout { vk, sections, bytes }))
    }
}

fn length_at(file: &mut File, at: u64, bytes: u64) -> io::Result<Option<u64>> {
    if at + 4 > bytes {
        return Ok(None);
    }
    let mut len = [0; 4];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut len)?;
    Ok(Some(u64::from(u32::from_be_bytes(len))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the right structure; the points are noise.
    fn params(inputs: u32, points: u32) -> Vec<u8> {
        let mut f = vec![7; vk_bytes(0) as usize - 4];
        f.extend(inputs.to_be_bytes());
        f.resize(f.len() + inputs as usize * 96, 8);
        for size in [G1, G1, G1, G1, G2] {
            f.extend(points.to_be_bytes());
            f.resize(f.len() + points as usize * size as usize, 9);
        }
        f
    }

    fn layout(bytes: &[u8]) -> Option<Layout> {
        let f = tempfile::NamedTempFile::new().unwrap();
        fs::write(f.path(), bytes).unwrap();
        Layout::read(f.path()).unwrap()
    }

    #[test]
    fn a_byte_less_or_more_is_no_key() {
        let whole = params(2, 3);
        let l = layout(&whole).unwrap();
        assert_eq!(l.bytes as usize, whole.len());
        assert_eq!(l.vk, whole[..l.vk.len()]);
        assert!(layout(&whole[..whole.len() - 1]).is_none());
        let mut more = whole.clone();
        more.push(0);
        assert!(layout(&more).is_none());
    }

    #[test]
    fn every_prefix_of_a_key_is_no_key() {
        let whole = params(1, 1);
        for n in 0..whole.len() {
            assert!(layout(&whole[..n]).is_none(), "{n} bytes");
        }
    }

    #[test]
    fn empty_sections_and_an_unwritten_head_are_no_key() {
        assert!(layout(&params(2, 0)).is_none());
        assert!(layout(&params(0, 2)).is_none());
        let mut unwritten = params(2, 2);
        unwritten[..96].fill(0);
        assert!(layout(&unwritten).is_none());
    }

    #[test]
    fn lengths_that_lie_do_not_allocate() {
        let mut huge = params(1, 1);
        let at = vk_bytes(0) as usize - 4;
        huge[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(layout(&huge).is_none());
    }
}
