//! `bulkhead cluster`: who is in it, who holds what, and an operator's orders. What a running node knows comes from its admin
//! HTTP; [`join`], [`transfer`] and [`forget`] work on a repo, [`repair`] on the cluster's etcd.

pub mod forget;
pub mod join;
pub mod repair;
pub mod transfer;

use super::client::NodeClient;
use super::render::cluster as render;
use super::{CliError, Context};
use crate::rpc::admin::cluster::{ClusterReport, NodeRow};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The whole of it: nodes, who holds what, what is ordered, since when the directory is out of reach
    Status,
    /// Every node: roles, what it holds, how the bridge to it does
    Nodes,
    /// Who holds each concern, under which epoch
    Leases,
    /// Let a node hold a concern, such as window-post or /t01000/window-post
    Move {
        /// Its path, or the last part of it; `cluster leases` lists them
        concern: String,
        /// The node that is to hold it; `cluster nodes` lists them
        node: String,
    },
    /// Let a node hand over what others can take, and take nothing; before it is restarted, say
    Drain {
        /// The node that hands over [default: the node that is asked]
        node: Option<String>,
        /// It may take again
        #[arg(long)]
        undo: bool,
    },
    /// This node's PeerId, for the [[cluster.peer]] of others; made at the first time
    Id,
    /// A text with which a new host joins: which cluster, which etcd. Treat it as a password where etcd asks for one
    JoinToken,
    /// Make this repo a node of the cluster that a join token names
    Join(join::Args),
    /// Bring the state of this repo into the cluster's etcd; no node of the miner may run
    Import(transfer::Import),
    /// Bring the cluster's state of the miner into this repo, so that it runs alone again; no node of the miner may run
    Export(transfer::Export),
    /// After etcd was put back to an earlier state: go on with what it has, also where this stopped node knows of later
    /// writes; a copy of the node's store is kept
    ForgetEpochs,
    /// Put right what etcd has of this cluster and no node can read, so that its concerns can be held again; nodes may run
    Repair(repair::Args),
}

/// The commands that ask a running node.
pub async fn ask(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Status => {
            let report: ClusterReport = node.admin_get("/cluster").await?;
            cx.out.answer(&report, render::status);
        }
        Command::Nodes => {
            let rows: Vec<NodeRow> = node.admin_get("/nodes").await?;
            cx.out.answer(&rows, |rows| render::nodes(rows));
        }
        Command::Leases => {
            let report: ClusterReport = node.admin_get("/cluster").await?;
            cx.out.answer(&report.leases, |_| render::leases(&report));
        }
        Command::Move { concern, node: to } => {
            let path = format!("/cluster/move/{}/{}", segment(&to)?, path_of(&concern)?);
            node.admin_post(&path).await?;
            let answer = json!({ "order": "move", "concern": concern, "node": to });
            cx.out.answer(&answer, |_| {
                format!("ordered: {concern} to {to}; `bulkhead cluster leases` shows when it is there")
            });
        }
        Command::Drain { node: asked, undo } => {
            let name = match asked {
                Some(name) => name,
                None => node.admin_get::<ClusterReport>("/cluster").await?.node,
            };
            let order = if undo { "undrain" } else { "drain" };
            node.admin_post(&format!("/cluster/{order}/{}", segment(&name)?)).await?;
            cx.out.answer(&json!({ "order": order, "node": name }), |_| match undo {
                true => format!("{name} may take concerns again"),
                false => format!(
                    "{name} hands over what others can take; `bulkhead cluster nodes` shows what it holds still"
                ),
            });
        }
        Command::Id
        | Command::JoinToken
        | Command::Join(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::ForgetEpochs
        | Command::Repair(_) => {
            return Err(CliError::Bug("a command on a repo was sent to a running node".to_string()));
        }
    }
    Ok(())
}

/// Names of nodes and concerns have no letter that a URL would read otherwise; what has one is none of them.
fn segment(name: &str) -> Result<&str, CliError> {
    match crate::rpc::directory::is_name(name) {
        true => Ok(name),
        false => Err(CliError::Usage(format!("{name:?} is no node's name; `bulkhead cluster nodes` lists them"))),
    }
}

fn path_of(concern: &str) -> Result<&str, CliError> {
    let bare = concern.trim_start_matches('/');
    match !bare.is_empty() && bare.split('/').all(crate::rpc::directory::is_name) {
        true => Ok(bare),
        false => Err(CliError::Usage(format!("{concern:?} is no concern; `bulkhead cluster leases` lists them"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_parts_of_a_url() {
        for (text, good) in [("host-a", true), ("a/b", false), ("", false), ("..", false), ("a?b", false)] {
            assert_eq!(segment(text).is_ok(), good, "{text:?}");
        }
        for (text, path) in [
            ("window-post", Some("window-post")),
            ("/t01000/window-post", Some("t01000/window-post")),
            ("/", None),
            ("a//b", None),
            ("a/../b", None),
            ("a b", None),
        ] {
            assert_eq!(path_of(text).ok(), path, "{text:?}");
        }
    }
}
