//! `bulkhead tree`: the supervision tree of the running node, from its admin HTTP (answers when all else hangs); with
//! `--all` that of every node of its cluster, which it asks over the bridge; with `--inspect` one actor's inner state.

use super::client::NodeClient;
use super::render::{time::unix_now, tree::tree};
use super::{CliError, Context};
use crate::rpc::admin::TreeRow;
use crate::rpc::admin::cluster::NodeRow;
use crate::supervisor::Inspection;
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The trees of all nodes of the cluster
    #[arg(long)]
    pub all: bool,
    /// What one actor shows of its inner state: a path such as root/proving/window_post
    #[arg(long, value_name = "PATH", conflicts_with = "all")]
    pub inspect: Option<String>,
}

/// A node that does not show its tree is named, with the reason.
#[derive(Serialize)]
struct NodeTree {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    actors: Option<Vec<TreeRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    let client = NodeClient::open(&cx)?;
    if let Some(path) = &args.inspect {
        let seen: Inspection = client.admin_get(&format!("/actors/{path}/inspect")).await?;
        cx.out.answer(&seen, inspection);
        return Ok(());
    }
    if !args.all {
        let actors: Vec<TreeRow> = match client.has_admin() {
            true => client.admin_get("/actors").await?,
            false => client.call("Bulkhead.Tree", vec![]).await?,
        };
        cx.out.answer(&actors, |actors| tree(actors, unix_now()));
        return Ok(());
    }
    let nodes: Vec<NodeRow> = client.admin_get("/nodes").await?;
    let asked = nodes.iter().map(|node| {
        let (client, name) = (&client, node.name.clone());
        async move {
            match client.admin_get::<Vec<TreeRow>>(&format!("/nodes/{name}/actors")).await {
                Ok(actors) => NodeTree { node: name, actors: Some(actors), error: None },
                Err(why) => NodeTree { node: name, actors: None, error: Some(why.to_string()) },
            }
        }
    });
    let trees = futures::future::join_all(asked).await;
    cx.out.answer(&trees, |trees| render(trees));
    Ok(())
}

fn inspection(seen: &Inspection) -> String {
    let age = seen.age_ms / 1000;
    let when = if seen.stale { format!("no answer now; shown {age} s ago") } else { "now".to_string() };
    let state = match &seen.error {
        Some(why) => why.clone(),
        None => serde_json::to_string_pretty(&seen.state).unwrap_or_default(), // a value is always text
    };
    format!("{}, epoch {}, {when}\n{state}\n", seen.path, seen.epoch)
}

fn render(trees: &[NodeTree]) -> String {
    let now = unix_now();
    let one = |one: &NodeTree| match (&one.actors, &one.error) {
        (Some(actors), _) => format!("{}\n{}", one.node, tree(actors, now)),
        (None, why) => format!("{}\n{}\n", one.node, why.as_deref().unwrap_or("no answer")),
    };
    trees.iter().map(one).collect::<Vec<_>>().join("\n")
}
