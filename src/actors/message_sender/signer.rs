//! The signer as a trait, so that a local keystore can replace the full node's wallet.

use crate::chain::Address;
use crate::chain::types::{Message, SignedMessage};
use crate::rpc::full_node::{FullNode, FullNodeError};
use async_trait::async_trait;
use std::sync::Arc;

#[async_trait]
pub trait Signer: Send + Sync + 'static {
    /// `message` is complete (nonce, gas); `who` is its sender's key address.
    async fn sign(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError>;

    /// Whether it can sign for that key address.
    async fn has_key(&self, _who: &Address) -> Result<bool, FullNodeError> {
        Ok(true)
    }
}

/// The wallet of the full node (`WalletSignMessage`).
pub struct NodeWallet(pub Arc<dyn FullNode>);

#[async_trait]
impl Signer for NodeWallet {
    async fn sign(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError> {
        self.0.wallet_sign_message(who, message).await
    }

    async fn has_key(&self, who: &Address) -> Result<bool, FullNodeError> {
        match self.0.wallet_has(who).await {
            Err(FullNodeError::NoSuchMethod { .. }) => Ok(true), // signing will tell
            answer => answer,
        }
    }
}
