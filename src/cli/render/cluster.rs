//! Tables of a cluster: nodes, leases, and both with what an operator should know first.

use super::table::{Align, table};
use crate::rpc::admin::cluster::{ClusterReport, NodeRow};
use crate::rpc::directory::record::NodeKind;

pub fn status(report: &ClusterReport) -> String {
    let mut text =
        format!("cluster {} ({}), asked of {}\n{}\n", report.cluster, report.directory, report.node, contact(report));
    if let Some(trouble) = &report.etcd_trouble {
        text += &format!("{trouble}\n");
    }
    for trouble in report.troubles.iter().chain(&report.unreadable) {
        text += &format!("{trouble}\n");
    }
    text += &format!("\n{}\n{}", nodes(&report.nodes), leases(report));
    for (concern, node) in &report.moves {
        text += &format!("\nordered: {concern} to {node}");
    }
    text
}

fn contact(report: &ClusterReport) -> String {
    let seconds = report.for_seconds;
    match report.in_contact {
        true => format!("in contact for {seconds} s"),
        false => format!("OUT OF CONTACT for {seconds} s: what follows is the last that was known"),
    }
}

pub fn nodes(rows: &[NodeRow]) -> String {
    let columns = [
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("ROLES", Align::Left),
        ("HOLDS", Align::Left),
        ("VERSION", Align::Left),
        ("PEER ID", Align::Left),
    ];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|node| {
            let drained = if node.drained { ", drained" } else { "" };
            let roles = match node.kind {
                NodeKind::Agent => "agent".to_string(),
                NodeKind::Node => list(node.roles.iter().map(|role| role.name().to_string())),
            };
            vec![
                node.name.clone(),
                format!("{}{drained}", node.state),
                roles,
                list(node.holds.iter().map(|concern| short(concern).to_string())),
                node.version.clone(),
                node.peer_id.clone(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

pub fn leases(report: &ClusterReport) -> String {
    let columns = [("CONCERN", Align::Left), ("NODE", Align::Left), ("EPOCH", Align::Right), ("LEASE", Align::Left)];
    let held = report.leases.iter().map(|lease| {
        let state = lease.state.clone().unwrap_or_else(|| if lease.here { "held" } else { "" }.to_string());
        vec![lease.concern.clone(), lease.node.clone(), lease.epoch.to_string(), state]
    });
    let vacant =
        report.vacant.iter().map(|concern| vec![concern.clone(), "nobody".into(), String::new(), "vacant".into()]);
    table(&columns, &held.chain(vacant).collect::<Vec<_>>())
}

/// The miner is the same everywhere.
fn short(concern: &str) -> &str {
    concern.trim_start_matches('/').split_once('/').map_or(concern, |(_, rest)| rest)
}

fn list(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::admin::cluster::LeaseRow;

    #[test]
    fn a_cluster_that_lost_contact_says_so_first() {
        let node = |name: &str, state: &str, holds: &[&str]| NodeRow {
            name: name.into(),
            peer_id: format!("12D3{name}"),
            kind: NodeKind::Node,
            roles: ["window-post".parse().unwrap(), "sealing".parse().unwrap()].into(),
            state: state.into(),
            drained: name == "b",
            boot: 1,
            version: "0.1.0".into(),
            addrs: vec![],
            api: None,
            admin: None,
            holds: holds.iter().map(|s| s.to_string()).collect(),
        };
        let report = ClusterReport {
            cluster: "main".into(),
            node: "a".into(),
            directory: "etcd".into(),
            in_contact: false,
            for_seconds: 12,
            nodes: vec![node("a", "here", &["/t01000/window-post"]), node("b", "down", &[])],
            leases: vec![LeaseRow {
                concern: "/t01000/window-post".into(),
                node: "a".into(),
                epoch: 41,
                here: true,
                state: Some("unproven".into()),
            }],
            moves: [("/t01000/window-post".to_string(), "b".to_string())].into(),
            vacant: vec!["/t01000/winning-post".into()],
            etcd_bytes: Some(1),
            etcd_trouble: Some("etcd is full".into()),
            troubles: vec!["nobody holds /t01000/winning-post".into()],
            unreadable: vec!["what etcd has under X cannot be read".into()],
        };
        let expected = "\
cluster main (etcd), asked of a
OUT OF CONTACT for 12 s: what follows is the last that was known
etcd is full
nobody holds /t01000/winning-post
what etcd has under X cannot be read

NODE  STATE          ROLES                HOLDS        VERSION  PEER ID
a     here           window-post sealing  window-post  0.1.0    12D3a
b     down, drained  window-post sealing  -            0.1.0    12D3b

CONCERN               NODE    EPOCH  LEASE
/t01000/window-post   a          41  unproven
/t01000/winning-post  nobody         vacant

ordered: /t01000/window-post to b";
        assert_eq!(status(&report), expected);
    }
}
