//! The message sender's port, for every concern that sends messages.

use super::Engine;
use super::messages::{Enqueue, EnqueueAnswer, MessageStatus, Status};
use crate::supervisor::{Handler, Ref};
use async_trait::async_trait;
use std::time::Duration;

/// Answers come from the sender's store; the deadline covers its restart, which is waited for.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The sender as another concern sees it: it owns a message from the answer on. An `Err` says that it did not answer.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    async fn enqueue(&self, message: Enqueue) -> Result<EnqueueAnswer, String>;
    async fn status(&self, key: &str) -> Result<MessageStatus, String>;
}

#[async_trait]
impl<A: Handler<Enqueue> + Handler<Status>> Outbox for Ref<A> {
    async fn enqueue(&self, message: Enqueue) -> Result<EnqueueAnswer, String> {
        self.ask_when_up(message, ASK_TIMEOUT).await.map_err(|e| format!("message sender: {e}"))
    }
    async fn status(&self, key: &str) -> Result<MessageStatus, String> {
        self.ask_when_up(Status { key: key.to_owned() }, ASK_TIMEOUT).await.map_err(|e| format!("message sender: {e}"))
    }
}

/// Without the actor: for tests and benches.
#[async_trait]
impl Outbox for Engine {
    async fn enqueue(&self, message: Enqueue) -> Result<EnqueueAnswer, String> {
        Engine::enqueue(self, &message).map_err(|e| e.to_string())
    }
    async fn status(&self, key: &str) -> Result<MessageStatus, String> {
        Engine::status(self, key).map_err(|e| e.to_string())
    }
}
