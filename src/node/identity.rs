//! Whose node this is: the repo's lock, its store, and the network and miner that it was made for.

use crate::actors::daemon_link::follow::check_network;
use crate::chain::Address;
use crate::chain::types::TipSetKey;
use crate::rpc::full_node::FullNode;
use crate::store::{Record, Store, StoreError, Token};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{}: another node runs in this repo (process {pid}); stop it with `bulkhead stop`, or use another --repo", repo.display())]
    Locked { repo: PathBuf, pid: String },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{}: this repo was made for miner {kept}, the configuration says {asked}", repo.display())]
    OtherMiner { repo: PathBuf, kept: String, asked: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] crate::actors::daemon_link::LinkError),
    #[error("full node {node}: miner {miner} cannot be read: {why}")]
    Miner { node: String, miner: String, why: String },
}

/// Held for the life of the process; the kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct RepoLock {
    _file: nix::fcntl::Flock<File>,
}

impl RepoLock {
    pub fn take(repo: &Path) -> Result<RepoLock, IdentityError> {
        use std::io::Write;
        let path = repo.join("repo.lock");
        let fail = |e: std::io::Error| IdentityError::File { path: path.clone(), why: e.to_string() };
        std::fs::create_dir_all(repo).map_err(fail)?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(fail)?;
                write!(file, "{}", std::process::id()).map_err(fail)?;
                Ok(RepoLock { _file: file })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let pid = std::fs::read_to_string(&path).unwrap_or_default();
                Err(IdentityError::Locked { repo: repo.to_path_buf(), pid })
            }
            Err((_, errno)) => Err(fail(errno.into())),
        }
    }
}

/// What the full node said of network and miner, kept so that a node also starts while its full node is away.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Kept {
    network: String,
    miner: String,
    sector_size: u64,
}

impl Record for Kept {
    const TABLE: &'static str = "identity";
}

const KEY: &str = "node";

/// A repo that is ours alone, and whose it is.
pub struct Identity {
    pub lock: RepoLock,
    pub store: Store,
    pub miner: Address,
    pub sector_size: u64,
    pub network: String,
}

impl Identity {
    /// The first start needs the full node; later ones go by what it said then, and refuse a node of another network.
    pub async fn establish(repo: &Path, miner: Address, node: &Arc<dyn FullNode>) -> Result<Identity, IdentityError> {
        let lock = RepoLock::take(repo)?;
        let store = Store::open(&repo.join("bulkhead.redb"))?;
        let kept = store.get::<Kept>(KEY)?;
        if let Some(kept) = &kept
            && kept.miner != miner.to_string()
        {
            return Err(IdentityError::OtherMiner {
                repo: repo.to_path_buf(),
                kept: kept.miner.clone(),
                asked: miner.to_string(),
            });
        }
        let expected = kept.as_ref().map(|k| k.network.as_str());
        let kept = match (check_network(node.as_ref(), expected).await, kept) {
            (Ok(params), None) => {
                let info = node.state_miner_info(&miner, &TipSetKey::default()).await.map_err(|e| {
                    IdentityError::Miner { node: node.name(), miner: miner.to_string(), why: e.to_string() }
                })?;
                let kept =
                    Kept { network: params.network_name, miner: miner.to_string(), sector_size: info.sector_size };
                store.put(&Token { path: "node".into(), epoch: 0 }, KEY, &kept)?;
                kept
            }
            (Ok(_), Some(kept)) => kept,
            (Err(wrong @ crate::actors::daemon_link::LinkError::WrongNetwork { .. }), _) => return Err(wrong.into()),
            (Err(away), Some(kept)) => {
                tracing::warn!(error = %away, "the full node is away; starting with what it said before");
                kept
            }
            (Err(away), None) => return Err(away.into()),
        };
        Ok(Identity { lock, store, miner, sector_size: kept.sector_size, network: kept.network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_a_repo() {
        let dir = tempfile::tempdir().unwrap();
        let first = RepoLock::take(dir.path()).unwrap();
        let refused = RepoLock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another node runs") && refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        RepoLock::take(dir.path()).unwrap();
    }
}
