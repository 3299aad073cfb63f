//! The host's resources: free disk, and what an error says that the host lacks.

use std::path::Path;

/// Something that the host did not give; says nothing of the work that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    Disk,
    Memory,
    /// Open files of the process or the host.
    Descriptors,
    /// Threads or processes.
    Threads,
}

/// The resource that a text of the operating system, of Rust's or of a C++ library says is missing.
pub fn lack(text: &str) -> Option<Lack> {
    let code = |number: u32| {
        ["os error ", "code: ", "errno "].iter().any(|mark| {
            let after = text.split(&format!("{mark}{number}")).nth(1);
            after.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    // A socket that has nothing yet says the same: only what was to be started counts.
    let starts = says(&["thread", "spawn", "fork"]);
    if code(28) || code(122) || says(&["No space left on device", "no storage space", "Disk quota exceeded"]) {
        Some(Lack::Disk)
    } else if code(12) || says(&["Cannot allocate memory", "memory allocation of", "std::bad_alloc", "out of memory"]) {
        Some(Lack::Memory)
    } else if code(24) || code(23) || says(&["Too many open files"]) {
        Some(Lack::Descriptors)
    } else if starts && (code(11) || says(&["Resource temporarily unavailable"])) {
        Some(Lack::Threads)
    } else {
        None
    }
}

/// Bytes; 0 where it cannot be told.
pub fn free_disk(folder: &Path) -> u64 {
    disk(folder).free
}

/// The disk of a folder, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    pub size: u64,
}

/// Zeros where it cannot be told.
pub fn disk(folder: &Path) -> Disk {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return Disk::default() };
    // SAFETY: an all-zero statvfs is a valid value of that plain C struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a NUL and the struct lives through the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut stat) } {
        0 => {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize as u64);
            Disk { free: bytes(stat.f_bavail as u64), size: bytes(stat.f_blocks as u64) }
        }
        _ => Disk::default(),
    }
}

/// The host's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The host can still give it; all there is where that is not known.
    pub available: u64,
    /// Resident in this process' children.
    pub children: u64,
}

impl Memory {
    /// The rest once the children that were promised `promised` bytes in all have taken them.
    pub fn left(&self, promised: u64) -> u64 {
        self.available.saturating_sub(promised.saturating_sub(self.children))
    }
}

pub fn memory() -> Memory {
    let read = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = read.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Memory { available: kib.map_or(u64::MAX, |kib| kib << 10), children: children_hold() }
}

/// Resident bytes of the processes whose parent is this one.
fn children_hold() -> u64 {
    let (ours, page) = (std::process::id().to_string(), nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE));
    let page = page.ok().flatten().and_then(|page| u64::try_from(page).ok()).unwrap_or(4096);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let held = |folder: std::fs::DirEntry| {
        // `pid (name) state ppid ..`, and the name may hold anything.
        let stat = std::fs::read_to_string(folder.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        (*fields.get(1)? == ours).then_some(())?;
        fields.get(21)?.parse::<u64>().ok()
    };
    let numbered = |folder: &std::fs::DirEntry| folder.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    processes.filter(numbered).filter_map(held).sum::<u64>().saturating_mul(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_lacks_is_told_from_its_words() {
        for (text, want) in [
            ("PC1: No space left on device (os error 28)", Some(Lack::Disk)),
            ("Os { code: 28, kind: StorageFull, message: \"No space left on device\" }", Some(Lack::Disk)),
            ("write: Disk quota exceeded (os error 122)", Some(Lack::Disk)),
            ("mmap: Cannot allocate memory (os error 12)", Some(Lack::Memory)),
            ("memory allocation of 34359738368 bytes failed", Some(Lack::Memory)),
            ("open: Too many open files (os error 24)", Some(Lack::Descriptors)),
            ("failed to spawn thread: Resource temporarily unavailable (os error 11)", Some(Lack::Threads)),
            ("read: Resource temporarily unavailable (os error 11)", None),
            ("os error 283", None),
            ("os error 2", None),
            ("invalid replica", None),
        ] {
            assert_eq!(lack(text), want, "{text}");
        }
    }

    #[test]
    fn what_children_hold_is_seen_and_promised_once() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = memory();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.available > 0 && seen.children > 0, "{seen:?}");
        let memory = Memory { available: 100, children: 30 };
        assert_eq!([0, 30, 31, 130, 200].map(|promised| memory.left(promised)), [100, 100, 99, 0, 0]);
    }

    #[test]
    fn free_disk_is_that_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_disk(dir.path()) > 0);
        assert_eq!(free_disk(&dir.path().join("missing")), 0);
    }
}
