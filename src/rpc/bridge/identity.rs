//! The node's identity on the bridge: an ed25519 key in the repo, whose public half is the PeerId.

use super::BridgeError;
use crate::util::{Mode, write_durably};
use libp2p::identity::Keypair;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub const FILE: &str = "bridge.key";

/// Reads the key of the repo at `repo`, or makes one the first time.
pub fn load_or_make(repo: &Path) -> Result<Keypair, BridgeError> {
    let path = repo.join(FILE);
    let broken = |why: String| BridgeError::Key { path: path.clone(), why };
    match File::open(&path) {
        Ok(file) => {
            let mode = file.metadata().map_err(|e| broken(e.to_string()))?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(broken(format!(
                    "others may read it (mode {mode:o}): chmod 600 it, or remove it for a new identity"
                )));
            }
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes).map_err(|e| broken(e.to_string()))?;
            Keypair::from_protobuf_encoding(&bytes)
                .map_err(|e| broken(format!("{e}: restore it from a backup, or remove it for a new identity")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path).map_err(|e| broken(e.to_string())),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// Whole or not at all: a crash must not leave half a key.
fn make(path: &Path) -> io::Result<Keypair> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding().map_err(io::Error::other)?;
    write_durably(path, &bytes, Mode::Private)?;
    Ok(key)
}
