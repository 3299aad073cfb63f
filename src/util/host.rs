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
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return 0 };
    // SAFETY: an all-zero statvfs is a valid value of that plain C struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a NUL and the struct lives through the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut stat) } {
        0 => (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64),
        _ => 0,
    }
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
    fn free_disk_is_that_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_disk(dir.path()) > 0);
        assert_eq!(free_disk(&dir.path().join("missing")), 0);
    }
}
