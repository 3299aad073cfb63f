//! The market host's own libp2p key: a file in the repo, mode 0600, made once, so that the peer id stays the same.

use crate::util::{Mode, write_durably};
use libp2p::identity::Keypair;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("libp2p key {path}: {why}")]
    Io { path: String, why: std::io::Error },
    #[error(
        "libp2p key {path}: not a libp2p private key ({why}); restore the file, or remove it to start with a new peer id"
    )]
    Corrupt { path: String, why: String },
}

/// A key takes 68 bytes; anything much longer is another file.
const MAX_LEN: u64 = 4096;

/// Reads the key at `path`, or makes one there; durable before it is used.
pub fn load_or_create(path: &Path) -> Result<Keypair, HostKeyError> {
    let io = |why| HostKeyError::Io { path: path.display().to_string(), why };
    match fs::File::open(path) {
        Ok(file) => {
            let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "the libp2p key was open to others; set to 0600");
                file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
            }
            let mut bytes = Vec::new();
            file.take(MAX_LEN).read_to_end(&mut bytes).map_err(io)?;
            Keypair::from_protobuf_encoding(&bytes)
                .map_err(|e| HostKeyError::Corrupt { path: path.display().to_string(), why: e.to_string() })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => create(path).map_err(io),
        Err(e) => Err(io(e)),
    }
}

fn create(path: &Path) -> std::io::Result<Keypair> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().map_err(std::io::Error::other)?;
    write_durably(path, &bytes, Mode::Private)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libp2p.key");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let first = load_or_create(&path).unwrap().public().to_peer_id();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public().to_peer_id(), first);
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_file_that_is_no_key_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libp2p.key");
        for bytes in [b"".as_slice(), b"nonsense", &[0xff; 9000]] {
            fs::write(&path, bytes).unwrap();
            let text = load_or_create(&path).unwrap_err().to_string();
            assert!(text.contains("libp2p.key") && text.contains("remove it"), "{text}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        let missing = load_or_create(&dir.path().join("no/such/libp2p.key")).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
