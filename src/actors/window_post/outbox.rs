//! The message sender in WindowPoSt's terms: hand a message over once, read its status.

use super::batch::PostStatus;
use crate::actors::message_sender::Outbox;
use crate::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use crate::chain::{Address, ChainEpoch, TokenAmount};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq)]
pub struct PostMessage {
    /// The message sender takes the same key once, however often it is given.
    pub key: String,
    pub to: Address,
    pub method: u64,
    pub params: Vec<u8>,
    /// Epoch from which the message is of no use: the deadline's Close, or the cutoff of a declaration.
    pub closes: ChainEpoch,
}

/// The message sender's answer about a message that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It had one of this key already: whose it is and what is in it, only the chain can say.
    Known,
}

#[async_trait]
pub trait PostMessages: Send + Sync + 'static {
    /// Returns once the message is durable with the sender.
    async fn enqueue(&self, message: PostMessage) -> Result<Taken, String>;
    async fn status(&self, key: &str) -> Result<PostStatus, String>;
}

/// In the message sender's terms.
#[async_trait]
impl<S: Outbox> PostMessages for S {
    async fn enqueue(&self, message: PostMessage) -> Result<Taken, String> {
        let PostMessage { key, to, method, params, closes } = message;
        // The sender's settings bound the fee, so that a bound that is raised holds for messages that wait already.
        let (value, max_fee) = (TokenAmount::default(), TokenAmount::default());
        let enqueue = Enqueue { key, to, method, params, value, max_fee, from: None, closes: Some(closes) };
        match Outbox::enqueue(self, enqueue).await? {
            EnqueueAnswer::Accepted => Ok(Taken::New),
            EnqueueAnswer::Known(_) => Ok(Taken::Known),
            EnqueueAnswer::Refused(why) => Err(format!("the message sender takes no message: {why}")),
        }
    }

    async fn status(&self, key: &str) -> Result<PostStatus, String> {
        Ok(match Outbox::status(self, key).await? {
            MessageStatus::Unknown => PostStatus::Unknown,
            MessageStatus::Queued { why_waiting } => PostStatus::Unsent { why: why_waiting },
            MessageStatus::Pushed { .. } => PostStatus::Waiting,
            MessageStatus::Landed { epoch, .. } => PostStatus::Landed { at: epoch },
            MessageStatus::Failed { exit_code, error } => {
                PostStatus::Failed { why: format!("exit code {exit_code}: {error}") }
            }
        })
    }
}
