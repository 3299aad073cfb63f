//! WindowPoSt's way to the message sender.

use crate::actors::message_sender::MessageSender;
use crate::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus, Status};
use crate::actors::window_post::batch::PostStatus;
use crate::actors::window_post::outbox::{PostMessage, PostMessages};
use crate::chain::TokenAmount;
use crate::supervisor::Ref;
use async_trait::async_trait;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

#[async_trait]
impl PostMessages for Ref<MessageSender> {
    async fn enqueue(&self, message: PostMessage) -> Result<(), String> {
        let PostMessage { key, to, method, params, max_fee } = message;
        let message = Enqueue { key, to, method, params, value: TokenAmount::default(), max_fee, from: None };
        match self.ask(message, DEADLINE).await {
            Ok(EnqueueAnswer::Accepted | EnqueueAnswer::Known(_)) => Ok(()),
            Ok(EnqueueAnswer::Refused(why)) => Err(why),
            Err(e) => Err(format!("message sender: {e}")),
        }
    }

    async fn status(&self, key: &str) -> Result<PostStatus, String> {
        let status = self.ask(Status { key: key.to_string() }, DEADLINE).await;
        Ok(match status.map_err(|e| format!("message sender: {e}"))? {
            MessageStatus::Unknown => PostStatus::Unknown,
            MessageStatus::Queued { .. } | MessageStatus::Pushed { .. } => PostStatus::Waiting,
            MessageStatus::Landed { epoch, .. } => PostStatus::Landed { at: epoch },
            MessageStatus::Failed { exit_code, error } => {
                PostStatus::Failed { why: format!("exit {exit_code}: {error}") }
            }
        })
    }
}
