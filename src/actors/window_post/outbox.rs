//! What WindowPoSt needs of the message sender: hand a message over once, see what became of it.

use super::batch::PostStatus;
use crate::chain::{Address, TokenAmount};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq)]
pub struct PostMessage {
    /// The message sender takes the same key once, however often it is given.
    pub key: String,
    pub to: Address,
    pub method: u64,
    pub params: Vec<u8>,
    pub max_fee: TokenAmount,
}

#[async_trait]
pub trait PostMessages: Send + Sync + 'static {
    /// Returns once the message is durable with the sender.
    async fn enqueue(&self, message: PostMessage) -> Result<(), String>;
    async fn status(&self, key: &str) -> Result<PostStatus, String>;
}
