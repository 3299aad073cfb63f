//! `bulkhead messages ..`: the messages that the node sends, until the chain has them.

use super::client::NodeClient;
use super::render::messages as render;
use super::{CliError, Context};
use crate::rpc::api::MessageState;
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// One message: is it on chain, or why not
    Status {
        #[arg(value_name = "KEY", help = "The message's key, as the command that ordered it has told it")]
        key: String,
    },
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
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
