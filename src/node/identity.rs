//! Whose node this is: the repo's store, and the network and miner that it was made for.

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
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("full node {node}: miner {miner} cannot be read: {why}")]
    Miner { node: String, miner: String, why: String },
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
        let store = Store::open(&repo.join("bulkhead.redb"))?;
        let kept = store.get::<Kept>(KEY)?;
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
                let kept =
                    Kept { network: params.network_name, miner: miner.to_string(), sector_size: info.sector_size };
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
