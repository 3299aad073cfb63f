//! `bulkhead info`: what the running node is and how it does.

use super::client::NodeClient;
use super::render::facts::facts;
use super::{CliError, Context};
use serde_json::Value;

pub async fn run(cx: Context) -> Result<(), CliError> {
    let info: Value = NodeClient::open(&cx)?.call("Bulkhead.Info", vec![]).await?;
    cx.out.answer(&info, facts);
    Ok(())
}
