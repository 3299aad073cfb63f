//! `bulkhead messages ..`: the messages that the node sends, until the chain has them.

use super::client::NodeClient;
use super::render::messages as render;
use super::{CliError, Context};
use crate::actors::message_sender::messages::MessageList;
use crate::rpc::api::{MessageOrder, MessageState};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The open messages, the oldest first: what each offers, and why it waits
    List {
        /// Rows at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        most: u32,
    },
    /// Raise a message's fee at once, within its bound
    Replace {
        #[arg(value_name = "KEY", help = "The message's key, as `messages list` shows it")]
        key: String,
        /// FIL that its gas may cost at most from now on (fee cap x gas limit)
        #[arg(long, value_name = "FIL")]
        max_fee: Option<String>,
    },
    /// Take a message back: one that is signed gives its nonce to a transfer of nothing
    Cancel {
        #[arg(value_name = "KEY", help = "The message's key, as `messages list` shows it")]
        key: String,
    },
    /// One message: is it on chain, or why not
    Status {
        #[arg(value_name = "KEY", help = "The message's key, as the command that ordered it has told it")]
        key: String,
    },
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::List { most } => {
            let answer: Value = node.call("Bulkhead.Messages", vec![json!(most)]).await?;
            let list = MessageList::deserialize(&answer).map_err(|e| {
                CliError::Failed(format!("Bulkhead.Messages answered something else than expected: {e}"))
            })?;
            cx.out.answer(&answer, |_| render::list(&list));
        }
        Command::Replace { key, max_fee } => {
            let answer: MessageOrder = node.call("Bulkhead.MessageReplace", vec![json!(key), json!(max_fee)]).await?;
            answered(&key, "replaced", answer, &cx)?;
        }
        Command::Cancel { key } => {
            let answer: MessageOrder = node.call("Bulkhead.MessageCancel", vec![json!(key)]).await?;
            answered(&key, "cancelled", answer, &cx)?;
        }
        Command::Status { key } => {
            let state: MessageState = node.call("Bulkhead.MessageStatus", vec![json!(key)]).await?;
            if state == MessageState::Unknown {
                return Err(CliError::Failed(format!("no message {key}: it never was, or is forgotten after a week")));
            }
            cx.out.answer(&state, |state| render::status(&key, state));
        }
    }
    Ok(())
}

fn answered(key: &str, what: &str, answer: MessageOrder, cx: &Context) -> Result<(), CliError> {
    match answer {
        MessageOrder::Unknown => Err(CliError::Failed(format!("no open message {key}; see `bulkhead messages list`"))),
        MessageOrder::Finished { message } => {
            Err(CliError::Failed(format!("not {what}, it is too late: {}", render::status(key, &message))))
        }
        MessageOrder::Ordered { .. } | MessageOrder::Withdrawn | MessageOrder::NotSigned => {
            cx.out.answer(&answer, |answer| render::answered(key, what, answer));
            Ok(())
        }
    }
}
