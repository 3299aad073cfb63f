//! Temporary folders of provers: private, with names that nobody can take first, swept once their node is gone.

use std::ffi::OsString;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PREFIX: &str = "bulkhead-prover-";
/// A new folder that a sweep took before it was locked is made again, this often at most.
const ATTEMPTS: usize = 8;

/// The folder for provers' temporary files: `TMPDIR` where it is set (a fast disk), else the repo. Never `/tmp` by
/// default, which others may write to.
pub fn tmp_root(repo: &Path, variable: Option<OsString>) -> PathBuf {
    match variable.filter(|v| !v.is_empty()) {
        Some(folder) => folder.into(),
        None => repo.join("tmp"),
    }
}

/// One child's TMPDIR, mode 0700. Removed when dropped; after a crash of the node by the next node's [`sweep`], which
/// the lock tells from a folder in use, across PID namespaces too.
pub struct PrivateTmp {
    dir: TempDir,
    /// flock on the folder; gone with this process however it ends. Close-on-exec, so the child does not hold it.
    _lock: File,
}

impl PrivateTmp {
    /// In `root`; where that is full or read-only in the system's own folder, because proving goes on without a repo.
    pub fn make(root: &Path) -> io::Result<PrivateTmp> {
        PrivateTmp::make_in(root).or_else(|e| {
            let system = std::env::temp_dir();
            tracing::warn!("{}: {e}; the prover's temporary folder goes to {}", root.display(), system.display());
            PrivateTmp::make_in(&system)
        })
    }

    fn make_in(root: &Path) -> io::Result<PrivateTmp> {
        fs::create_dir_all(root)?;
        for _ in 0..ATTEMPTS {
            // a new random name by mkdir, which neither follows nor reuses what is there
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(16)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(root)?;
            let lock = match File::open(dir.path()) {
                Ok(lock) => lock,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            match lock.try_lock() {
                Ok(()) if dir.path().exists() => return Ok(PrivateTmp { dir, _lock: lock }),
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                // a file system without locks for folders (NFS): nobody can sweep there
                Err(TryLockError::Error(_)) => return Ok(PrivateTmp { dir, _lock: lock }),
            }
        }
        Err(io::Error::other(format!("{}: temporary folders disappear as soon as they are made", root.display())))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes folders of provers whose node is gone: our own ones that nobody has locked.
pub fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    // SAFETY: geteuid always succeeds.
    let me = unsafe { libc::geteuid() };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours_by_name =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|rest| !names_living(rest));
        // of the entry itself: a link is never followed
        let ours = ours_by_name && entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == me);
        if !ours {
            continue;
        }
        if let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Earlier versions locked nothing and named the folder after the node's process: `<pid>-<number>`.
fn names_living(rest: &str) -> bool {
    let pid = rest.split_once('-').and_then(|(pid, _)| pid.parse::<i32>().ok()).filter(|pid| *pid > 0);
    // signal 0 only asks whether the process exists
    pid.is_some_and(|pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_under_tmpdir_else_under_the_repo() {
        let table = [(None, "/r/tmp"), (Some(""), "/r/tmp"), (Some("/fast"), "/fast")];
        for (variable, root) in table {
            assert_eq!(tmp_root(Path::new("/r"), variable.map(OsString::from)), PathBuf::from(root));
        }
    }

    #[test]
    fn a_folder_is_private_new_and_gone_when_dropped() {
        let root = tempfile::tempdir().unwrap();
        let made: Vec<PrivateTmp> = (0..3).map(|_| PrivateTmp::make(&root.path().join("tmp")).unwrap()).collect();
        for tmp in &made {
            let name = tmp.path().file_name().unwrap().to_str().unwrap().to_string();
            assert_eq!(fs::metadata(tmp.path()).unwrap().mode() & 0o777, 0o700);
            let guess = name.strip_prefix(PREFIX).unwrap();
            assert!(guess.len() == 16 && !guess.contains(&std::process::id().to_string()), "{name} can be guessed");
            fs::write(tmp.path().join("in use"), "").unwrap();
        }
        let paths: Vec<PathBuf> = made.iter().map(|tmp| tmp.path().to_owned()).collect();
        assert!(paths[0] != paths[1] && paths[1] != paths[2]);
        drop(made);
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn a_repo_that_takes_nothing_does_not_keep_a_prover_from_starting() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let tmp = PrivateTmp::make(&file.join("tmp")).unwrap();
        assert!(tmp.path().starts_with(std::env::temp_dir()));
    }

    #[test]
    fn only_our_folders_that_nobody_holds_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let held = PrivateTmp::make(root.path()).unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let [of_dead, of_living] = [gone.id(), std::process::id()].map(|pid| format!("{PREFIX}{pid}-0"));
        let names = [
            &format!("{PREFIX}dead"),
            "other",
            &format!("{PREFIX}file"),
            &format!("{PREFIX}link"),
            &of_dead,
            &of_living,
        ];
        let [dead, other, file, link, of_dead, of_living] = names.map(|n| root.path().join(n));
        fs::create_dir_all(dead.join("deep")).unwrap();
        for folder in [&other, &of_dead, &of_living] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        sweep(root.path());
        assert!(!dead.exists() && !of_dead.exists(), "nobody holds them");
        assert!(of_living.exists(), "a node of before folders were locked");
        assert!(held.path().exists() && other.exists() && file.exists() && link.is_symlink());
        assert!(outside.path().join("precious").exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }
}
