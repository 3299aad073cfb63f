//! The wallet that signs for a miner, as a trait: a local keystore can stand in for the full node's.

use crate::chain::Address;
use crate::chain::types::{Message, Signature, SignedMessage};
use crate::rpc::full_node::{FullNode, FullNodeError};
use async_trait::async_trait;
use std::sync::Arc;

/// Every `who` and `key` is a key address.
#[async_trait]
pub trait Wallet: Send + Sync + 'static {
    /// `message` is complete (nonce, gas); `who` is its sender.
    async fn sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError>;

    /// Signs the bytes as they are.
    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, FullNodeError>;

    /// Whether it can sign for that key address.
    async fn has_key(&self, _who: &Address) -> Result<bool, FullNodeError> {
        Ok(true)
    }
}

/// The wallet of the full node (`WalletSignMessage`, `WalletSign`, `WalletHas`).
pub struct NodeWallet(pub Arc<dyn FullNode>);

#[async_trait]
impl Wallet for NodeWallet {
    async fn sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError> {
        self.0.wallet_sign_message(who, message).await
    }

    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, FullNodeError> {
        self.0.wallet_sign(key, bytes).await
    }

    async fn has_key(&self, who: &Address) -> Result<bool, FullNodeError> {
        match self.0.wallet_has(who).await {
            Err(FullNodeError::NoSuchMethod { .. }) => Ok(true), // signing will tell
            answer => answer,
        }
    }
}
