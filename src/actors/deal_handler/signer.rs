//! The deal handler's ports: the worker's signature, and a durable place for the ask.

use super::ask::{AskBasis, SignedStorageAsk, StoredAsk};
use crate::actors::wallet::Wallet;
use crate::rpc::full_node::FullNode;
use crate::store::{Record, Store, StoreError, Token};
use async_trait::async_trait;
use fvm_shared::address::Address;
use fvm_shared::crypto::signature::{Signature, SignatureType};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Signs asks in the miner's name.
#[async_trait]
pub trait AskSigner: Send + Sync + 'static {
    async fn standing(&self) -> Result<AskBasis, String>;
    /// Signs the bytes as they are with `key`, the worker of [`AskSigner::standing`].
    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, String>;
}

/// Through the miner's wallet.
pub struct WalletSigner {
    pub node: Arc<dyn FullNode>,
    pub wallet: Arc<dyn Wallet>,
    pub miner: Address,
}

#[async_trait]
impl AskSigner for WalletSigner {
    async fn standing(&self) -> Result<AskBasis, String> {
        let head = self.node.chain_head().await.map_err(|e| e.to_string())?;
        let key = head.key();
        let info = self.node.state_miner_info(&self.miner, &key).await.map_err(|e| e.to_string())?;
        let worker = self.node.state_account_key(&info.worker, &key).await.map_err(|e| e.to_string())?;
        Ok(AskBasis { height: head.height, worker })
    }

    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, String> {
        let signature = self.wallet.sign(key, bytes).await.map_err(|e| e.to_string())?;
        let sig_type = match signature.kind {
            1 => SignatureType::Secp256k1,
            2 => SignatureType::BLS,
            other => return Err(format!("{}: WalletSign gave a signature of unknown type {other}", self.node.name())),
        };
        Ok(Signature { sig_type, bytes: signature.data })
    }
}

/// Keeps the last signed ask, so that sequence numbers grow over restarts.
pub trait AskStore: Send + Sync + 'static {
    fn load(&self, miner: &Address) -> Result<Option<StoredAsk>, StoreError>;
    /// Durable when it returns.
    fn save(&self, token: &Token, miner: &Address, ask: &StoredAsk) -> Result<(), StoreError>;
}

/// The ask as clients get it (DAG-CBOR), and who signed it.
#[derive(Serialize, Deserialize)]
pub struct AskRecord {
    signed: Vec<u8>,
    signer: Vec<u8>,
}

impl Record for AskRecord {
    const TABLE: &'static str = "market_ask";
}

fn corrupt(miner: &Address, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { table: AskRecord::TABLE, key: book_key(miner), why: why.to_string() }
}

/// The key uses the actor id, which is the same under every network prefix.
fn book_key(miner: &Address) -> String {
    miner.id().map_or_else(|_| hex::encode(miner.to_bytes()), |id| id.to_string())
}

impl AskStore for Store {
    fn load(&self, miner: &Address) -> Result<Option<StoredAsk>, StoreError> {
        let Some(record) = self.get::<AskRecord>(&book_key(miner))? else { return Ok(None) };
        let signed: SignedStorageAsk = fvm_ipld_encoding::from_slice(&record.signed).map_err(|e| corrupt(miner, e))?;
        let signer = Address::from_bytes(&record.signer).map_err(|e| corrupt(miner, e))?;
        Ok(Some(StoredAsk { signed, signer }))
    }

    fn save(&self, token: &Token, miner: &Address, ask: &StoredAsk) -> Result<(), StoreError> {
        let signed = fvm_ipld_encoding::to_vec(&ask.signed).map_err(|e| corrupt(miner, e))?;
        self.put(token, &book_key(miner), &AskRecord { signed, signer: ask.signer.to_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::StorageAsk;
    use super::*;
    use fvm_shared::econ::TokenAmount;

    #[test]
    fn the_ask_is_found_again_by_its_miner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("bulkhead.redb")).unwrap();
        let miner = Address::new_id(1000);
        let token = Token { path: "/t01000/market".into(), epoch: 1 };
        assert_eq!(AskStore::load(&store, &miner).unwrap(), None);
        let ask = |seq_no| StoredAsk {
            signed: SignedStorageAsk {
                ask: StorageAsk {
                    price: TokenAmount::from_whole(1),
                    verified_price: TokenAmount::from_atto(0),
                    min_piece_size: 256,
                    max_piece_size: 2048,
                    miner,
                    timestamp: 1,
                    expiry: 2,
                    seq_no,
                },
                signature: Signature { sig_type: SignatureType::Secp256k1, bytes: vec![1; 65] },
            },
            signer: Address::new_bls(&[7; 48]).unwrap(),
        };
        for seq_no in [0, 1] {
            store.save(&token, &miner, &ask(seq_no)).unwrap();
            assert_eq!(AskStore::load(&store, &miner).unwrap(), Some(ask(seq_no)));
        }
        assert_eq!(AskStore::load(&store, &Address::new_id(1001)).unwrap(), None);
    }
}
