//! `bulkhead tree`: the supervision tree of the running node, from its admin HTTP (answers when all else hangs).

use super::client::NodeClient;
use super::render::{time::unix_now, tree::tree};
use super::{CliError, Context};
use crate::supervisor::ActorInfo;

pub async fn run(cx: Context) -> Result<(), CliError> {
    let actors: Vec<ActorInfo> = NodeClient::open(&cx)?.admin_get("/actors").await?;
    cx.out.answer(&actors, |actors| tree(actors, unix_now()));
    Ok(())
}
