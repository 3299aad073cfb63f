//! The chain's methods beside those of every full node, for the JSON-RPC server.

use super::Devnet;
use crate::chain::lotus_json::{self as lj, WholeAddress, WholeAddresses, WholeCid, WholeToken};
use crate::chain::types::{Message, TipSetKey};
use crate::rpc::auth::Perm;
use crate::rpc::server::{ExtraMethods, RpcError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::sync::Arc;

pub struct DevnetMethods(pub Arc<Devnet>);

const READ: [&str; 14] = [
    "Filecoin.ChainGetGenesis",
    "Filecoin.ChainGetBlock",
    "Filecoin.ChainGetBlockMessages",
    "Filecoin.ChainGetParentReceipts",
    "Filecoin.ChainGetParentMessages",
    "Filecoin.ChainGetMessage",
    "Filecoin.ChainReadObj",
    "Filecoin.ChainHasObj",
    "Filecoin.BeaconGetEntry",
    "Filecoin.StateListMiners",
    "Filecoin.StateReadState",
    "Filecoin.StateMinerCreationDeposit",
    "Filecoin.StateCall",
    "Filecoin.SyncState",
];

/// A key as Lotus writes one: `{"Type":"bls","PrivateKey":<base64>}`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyInfo {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(with = "lj::bytes")]
    private_key: Vec<u8>,
}

#[async_trait]
impl ExtraMethods for DevnetMethods {
    fn permission(&self, method: &str) -> Option<Perm> {
        match method {
            "Filecoin.WalletImport" | "Filecoin.WalletExport" => Some(Perm::Admin),
            "Filecoin.WalletSetDefault" => Some(Perm::Write),
            _ => READ.contains(&method).then_some(Perm::Read),
        }
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        self.permission(method)?;
        Some(self.answer(method, Params { method, list: params }).await)
    }
}

impl DevnetMethods {
    async fn answer(&self, method: &str, p: Params<'_>) -> Result<Value, RpcError> {
        let chain = &self.0;
        let cid = |at| p.get::<WholeCid>(at).map(|c| c.0);
        let who = |at| p.get::<WholeAddress>(at).map(|a| a.0);
        match method {
            "Filecoin.ChainGetGenesis" => json(chain.chain_get_genesis().await?),
            "Filecoin.ChainGetBlock" => json(chain.chain_get_block(&cid(0)?).await?),
            "Filecoin.ChainGetBlockMessages" => json(chain.chain_get_block_messages(&cid(0)?).await?),
            "Filecoin.ChainGetParentReceipts" => json(chain.chain_get_parent_receipts(&cid(0)?).await?),
            "Filecoin.ChainGetParentMessages" => json(chain.chain_get_parent_messages(&cid(0)?).await?),
            "Filecoin.ChainGetMessage" => json(chain.chain_get_message(&cid(0)?).await?),
            "Filecoin.ChainReadObj" => json(chain.chain_read_obj(&cid(0)?).await?),
            "Filecoin.ChainHasObj" => json(chain.chain_has_obj(&cid(0)?).await?),
            "Filecoin.BeaconGetEntry" => json(chain.beacon_get_entry(p.get(0)?).await?),
            "Filecoin.StateListMiners" => json(WholeAddresses(chain.state_list_miners(&p.key(0)?).await?)),
            "Filecoin.StateReadState" => json(chain.state_read_state(&who(0)?, &p.key(1)?).await?),
            "Filecoin.StateMinerCreationDeposit" => {
                json(WholeToken(chain.state_miner_creation_deposit(&p.key(0)?).await?))
            }
            "Filecoin.StateCall" => json(chain.state_call(&p.get::<Message>(0)?, &p.key(1)?).await?),
            "Filecoin.SyncState" => json(chain.sync_state().await?),
            "Filecoin.WalletImport" => {
                let key: KeyInfo = p.get(0)?;
                json(WholeAddress(chain.wallet_import(&key.kind, &key.private_key).await?))
            }
            "Filecoin.WalletExport" => json(chain.wallet_export(&who(0)?).await?),
            "Filecoin.WalletSetDefault" => json(chain.wallet_set_default(&who(0)?).await?),
            other => Err(RpcError::no_method(other)),
        }
    }
}

fn json(answer: impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(answer).map_err(|e| RpcError::verdict(e.to_string()))
}

struct Params<'a> {
    method: &'a str,
    list: Vec<Value>,
}

impl Params<'_> {
    fn get<T: DeserializeOwned>(&self, at: usize) -> Result<T, RpcError> {
        let value = self.list.get(at).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|e| RpcError::invalid_params(format!("{}: parameter {}: {e}", self.method, at + 1)))
    }

    /// `null`, or left out: the heaviest tipset.
    fn key(&self, at: usize) -> Result<TipSetKey, RpcError> {
        Ok(self.get::<Option<TipSetKey>>(at)?.unwrap_or_default())
    }
}
