//! One process per repo: an flock on `<repo>/repo.lock`, gone with the process however it ends.

use super::ConfigError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Held until dropped. Close-on-exec (std's default), so that a prover that outlives the node does not keep the repo locked.
#[derive(Debug)]
pub struct RepoLock {
    _file: Flock<File>,
}

impl RepoLock {
    /// Makes the folder if it is missing.
    pub fn take(repo: &Path) -> Result<RepoLock, ConfigError> {
        let path = repo.join("repo.lock");
        let fail = |why: String| ConfigError::Lock { path: path.clone(), why };
        std::fs::create_dir_all(repo).map_err(|e| fail(e.to_string()))?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| fail(e.to_string()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // for people; the lock itself is the flock
                let _ = file.set_len(0).and_then(|()| write!(&mut *file, "{}", std::process::id()));
                Ok(RepoLock { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let who = pid
                    .trim()
                    .parse::<u32>()
                    .map_or_else(|_| "another process".to_string(), |p| format!("process {p}"));
                Err(ConfigError::Locked { repo: repo.to_path_buf(), who })
            }
            Err((_, e)) => Err(fail(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("new");
        let first = RepoLock::take(&repo).unwrap();
        let error = RepoLock::take(&repo).unwrap_err().to_string();
        let pid = format!("process {}", std::process::id());
        assert!(error.contains(&pid) && error.contains("new"), "{error}");
        drop(first);
        RepoLock::take(&repo).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(RepoLock::take(&dir.path().join("file")), Err(ConfigError::Lock { .. })));
    }
}
