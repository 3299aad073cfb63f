//! The pool of full nodes as text, in the columns of the pool's manual.

use super::table::{Align, table};
use crate::rpc::full_node::pool::Status;
use crate::rpc::full_node::pool::view::{ApiRow, ConfigView, NodeRow, PrimaryRow};

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Pause => "pause",
    }
}

pub fn nodes(nodes: &[NodeRow]) -> String {
    let mut text = String::new();
    for node in nodes {
        text += &format!("Node {}, host {}[{}]\n", node.id, node.host, node.addr);
        text += &format!(
            "Status: {{Primary:({}, {}), Calls:({}), Epochs:(Head:{}, Behind:{}), Peers:(Message:{}, Block:{})}}\n",
            node.primary,
            node.primary_of,
            node.calls,
            known(node.head),
            known(node.behind),
            known(node.message_peers),
            known(node.block_peers),
        );
        match (&node.disabled, &node.warning) {
            _ if node.status == Status::Pause => text += "Not used: paused\n",
            (Some(why), _) => text += &format!("Not used: {why}\n"),
            (None, Some(why)) => text += &format!("Used for want of a better one: {why}\n"),
            (None, None) => {}
        }
        if !node.sealing {
            text += "Takes no methods whose filter is sealing\n";
        }
    }
    text
}

pub fn apis(apis: &[ApiRow]) -> String {
    let columns = [
        ("Cate", Align::Left),
        ("Api", Align::Left),
        ("CallId", Align::Right),
        ("Filter", Align::Left),
        ("Policy", Align::Left),
        ("NoHang", Align::Left),
        ("Timeout", Align::Left),
    ];
    let row = |api: &ApiRow| {
        vec![
            api.category.clone(),
            api.api.clone(),
            api.calls.to_string(),
            api.filter.clone(),
            api.policy.clone(),
            api.no_hang.to_string(),
            api.timeout.clone(),
        ]
    };
    table(&columns, &apis.iter().map(row).collect::<Vec<_>>())
}

pub fn primaries(primaries: &[PrimaryRow]) -> String {
    let columns = [("Seed", Align::Left), ("Node", Align::Left), ("Status", Align::Left)];
    let row = |primary: &PrimaryRow| {
        let node = format!("{}(id={}, addr={})", primary.host, primary.node, primary.addr);
        vec![primary.seed.clone(), node, status(primary.status).to_string()]
    };
    table(&columns, &primaries.iter().map(row).collect::<Vec<_>>())
}

pub fn config(config: &ConfigView) -> String {
    format!(
        "DefaultPolicy    {}\nPrimarySeed      {}\nMaxSyncBehind    {}\nMaxBehindDiff    {}\nMinMessagePeers  {}\nMinBlockPeers    {}\nAgreement        {}\n",
        config.default_policy,
        known(config.primary_seed),
        config.max_sync_behind,
        config.max_behind_diff,
        config.min_message_peers,
        config.min_block_peers,
        config.agreement,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_as_in_the_manual() {
        let node = NodeRow {
            id: "3241a41f-46ce-4a6d-ab1e-35d39162c59f".into(),
            host: "daemon_3".into(),
            addr: "192.168.2.3:1234".into(),
            status: Status::Running,
            disabled: None,
            warning: None,
            primary: true,
            primary_of: 2,
            calls: 20929,
            head: Some(11106),
            behind: Some(0),
            message_peers: Some(1),
            block_peers: None,
            sealing: true,
        };
        let manual = "Node 3241a41f-46ce-4a6d-ab1e-35d39162c59f, host daemon_3[192.168.2.3:1234]\n\
                      Status: {Primary:(true, 2), Calls:(20929), Epochs:(Head:11106, Behind:0), Peers:(Message:1, Block:-)}\n";
        assert_eq!(nodes(std::slice::from_ref(&node)), manual);
        let paused = NodeRow { status: Status::Pause, ..node.clone() };
        assert_eq!(nodes(&[paused]), format!("{manual}Not used: paused\n"));
        let away = NodeRow { disabled: Some("refused".into()), ..node };
        assert_eq!(nodes(&[away]), format!("{manual}Not used: refused\n"));
    }
}
