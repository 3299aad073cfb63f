//! The owner of this node: the repo's store, and the network and miner that it was made for.

use crate::actors::daemon_link::LinkError;
use crate::actors::daemon_link::follow::check_network;
use crate::chain::lotus_json::address;
use crate::chain::types::TipSetKey;
use crate::chain::{Address, network};
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::store::{Record, Store, StoreError, Token};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{}: this repo was made for miner {kept}, the configuration says {asked}", repo.display())]
    OtherMiner { repo: PathBuf, kept: String, asked: String },
    /// Without it nobody knows which sectors were half sealed, and which messages were on their way.
    #[error(
        "{}: it is {}, but a node of this repo was up before ({} is there): put a backup of it there, or bring it back from \
         etcd with `bulkhead cluster export`; if neither has it, --new-store begins a new one: proven sectors are found on \
         chain, what was being sealed or sent is lost unless etcd has it",
        store.display(), if store.exists() { "empty" } else { "missing" }, trace.display()
    )]
    StoreGone { store: PathBuf, trace: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("full node {node}: miner {miner} cannot be read: {why}")]
    Miner { node: String, miner: String, why: String },
}

/// Network and miner as the full node told them, stored so that a node also starts while its full node is away.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct CachedIdentity {
    network: String,
    miner: String,
    sector_size: u64,
}

impl Record for CachedIdentity {
    const TABLE: &'static str = "identity";
}

const KEY: &str = "node";

/// The behaviour of a start where the repo's store is missing or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewStore {
    /// Begins one in a repo that no node ran in; elsewhere the store was lost, which is refused.
    #[default]
    FirstStart,
    /// Begins one: `--new-store`.
    Always,
}

/// Left in the repo by a node that was up. Nothing else makes them; `init` does not.
const TRACES: [&str; 3] = ["jobs", "api", "admin"];

fn open_store(repo: &Path, new: NewStore) -> Result<Store, IdentityError> {
    let store = repo.join("bulkhead.redb");
    if Store::is_missing(&store) {
        let trace = TRACES.iter().map(|name| repo.join(name)).find(|trace| trace.exists());
        match (trace, new) {
            (None, _) => {}
            (Some(trace), NewStore::FirstStart) => return Err(IdentityError::StoreGone { store, trace }),
            (Some(_), NewStore::Always) => {
                tracing::warn!(store = %store.display(), "a new store is begun where one was lost, as ordered");
            }
        }
    }
    let store = Store::open(&store)?;
    store.check_rows(crate::actors::records::check);
    Ok(store)
}

/// The repo's store, and whose it is. The caller holds the repo's lock.
pub struct Identity {
    pub store: Store,
    pub miner: Address,
    pub sector_size: u64,
    pub network: String,
}

impl Identity {
    /// The first start needs the full node; later ones go by what it said then, and refuse a node of another network.
    pub async fn establish(repo: &Path, miner: Address, node: &Arc<dyn FullNode>) -> Result<Identity, IdentityError> {
        Identity::establish_with(repo, miner, node, NewStore::FirstStart).await
    }

    pub async fn establish_with(
        repo: &Path,
        miner: Address,
        node: &Arc<dyn FullNode>,
        new: NewStore,
    ) -> Result<Identity, IdentityError> {
        let store = open_store(repo, new)?;
        let kept = store.get::<CachedIdentity>(KEY)?;
        if let Some(kept) = &kept
            // the prefix (f or t) is the network's and says nothing
            && address::parse(&kept.miner).as_ref() != Ok(&miner)
        {
            return Err(IdentityError::OtherMiner {
                repo: repo.to_path_buf(),
                kept: kept.miner.clone(),
                asked: miner.to_string(),
            });
        }
        if let Some(kept) = &kept {
            network::use_network(&kept.network);
        }
        let expected = kept.as_ref().map(|k| k.network.as_str());
        let checked = check_network(node.as_ref(), expected).await;
        if checked.is_ok() {
            may_sign(node.as_ref(), &miner).await?;
        }
        let kept = match (checked, kept) {
            (Ok(params), None) => {
                let info = node.state_miner_info(&miner, &TipSetKey::default()).await.map_err(|e| {
                    IdentityError::Miner { node: node.name(), miner: miner.to_string(), why: e.to_string() }
                })?;
                network::use_network(&params.network_name);
                let kept = CachedIdentity {
                    network: params.network_name,
                    miner: miner.to_string(),
                    sector_size: info.sector_size,
                };
                store.put(&Token { path: "node".into(), epoch: 0 }, KEY, &kept)?;
                kept
            }
            (Ok(_), Some(kept)) => kept,
            // A wrong network or token does not pass by itself.
            (
                Err(wrong @ (LinkError::WrongNetwork { .. } | LinkError::Node(FullNodeError::Unauthorized { .. }))),
                _,
            ) => {
                return Err(wrong.into());
            }
            (Err(away), Some(kept)) => {
                tracing::warn!(error = %away, "the full node is away; starting with what it said before");
                kept
            }
            (Err(away), None) => return Err(away.into()),
        };
        Ok(Identity { store, miner, sector_size: kept.sector_size, network: kept.network })
    }
}

/// A token that may only read would be found out when the first message or block has to be signed: too late.
async fn may_sign(node: &dyn FullNode, miner: &Address) -> Result<(), IdentityError> {
    let head = TipSetKey::default();
    let asked = async {
        let info = node.state_miner_info(miner, &head).await?;
        let key = node.state_account_key(&info.worker, &head).await?;
        Ok((node.wallet_has(&key).await?, key))
    };
    match asked.await {
        Err(refused @ FullNodeError::Unauthorized { .. }) => return Err(LinkError::from(refused).into()),
        Err(error) => tracing::warn!(%error, "the worker's key was not found out"),
        Ok((false, key)) => {
            tracing::warn!(node = node.name(), %key, "the full node's wallet does not hold the worker's key: import it, nothing can be signed");
        }
        Ok((true, _)) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_store_is_replaced_only_when_ordered() {
        let begun = |trace: Option<&str>, file: Option<&[u8]>, new: NewStore| {
            let repo = tempfile::tempdir().unwrap();
            if let Some(trace) = trace {
                std::fs::write(repo.path().join(trace), "x").unwrap();
            }
            if let Some(bytes) = file {
                std::fs::write(repo.path().join("bulkhead.redb"), bytes).unwrap();
            }
            open_store(repo.path(), new).map(|_| ()).map_err(|e| e.to_string())
        };
        for file in [None, Some(&b""[..])] {
            assert_eq!(begun(None, file, NewStore::FirstStart), Ok(()), "a first start");
            // What `init` and `cluster join` leave is no trace of a node.
            assert_eq!(begun(Some("config.toml"), file, NewStore::FirstStart), Ok(()));
            for trace in TRACES {
                let refused = begun(Some(trace), file, NewStore::FirstStart).unwrap_err();
                let which = if file.is_some() { "is empty" } else { "is missing" };
                for part in [which, trace, "backup", "`bulkhead cluster export`", "--new-store"] {
                    assert!(refused.contains(part), "{part}: {refused}");
                }
                assert_eq!(begun(Some(trace), file, NewStore::Always), Ok(()));
            }
        }
    }
}
