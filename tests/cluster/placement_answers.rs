//! The same calls have the same answers wherever the concerns run: all in one process, divided over two, or over two hosts
//! that are network namespaces. The calling code is the same; only the placement differs.

use crate::support::etcd::Etcds;
use crate::support::placement::{NodeProcess, Plan, World, eventually, forward};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Every concern takes part in what is asked for here; what differs from run to run is left out.
async fn answers(nodes: &[NodeProcess]) -> Vec<Value> {
    // At the last node: with two, that is the one with the seal scheduler, whose numbers come from the other.
    let sealer = nodes.last().expect("a node");
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let pledged =
            eventually("a pledge", || async { sealer.call("Filecoin.PledgeSector", vec![]).await.ok() }).await;
        numbers.push(pledged["Number"].clone());
    }
    let mut all = Vec::new();
    for node in nodes {
        all.push(asked_at(node, &numbers).await);
    }
    all
}

async fn asked_at(node: &NodeProcess, numbers: &[Value]) -> Value {
    // Sealed: allocator, scheduler and message sender have done their part, wherever they are.
    let sealed = node.wants("both sectors proving", "Bulkhead.Sectors", |list| {
        let rows = list["sectors"].as_array()?;
        (rows.len() == 2 && rows.iter().all(|row| row["state"] == "Proving")).then(|| {
            let rows: Vec<_> = rows.iter().map(|row| json!([row["number"], row["state"]])).collect();
            json!({ "rows": rows, "missing": list["missing_shards"] })
        })
    });
    let sealed = sealed.await;
    let listed = node.call("Filecoin.SectorsList", vec![]).await.unwrap();
    let status = node.call("Filecoin.SectorsStatus", vec![json!(1), json!(true)]).await.unwrap();
    let messages = ["PreCommitMsg", "CommitMsg"].map(|field| !status[field].is_null());
    let windows =
        eventually("a window landed", || async { node.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;
    let rounds = |report: &Value| report["rounds"].as_array().filter(|rounds| !rounds.is_empty()).map(|_| ());
    node.wants("a round of WinningPoSt", "Bulkhead.WinningPost", rounds).await;
    let asks = |report: &Value| report["ask"]["price"].as_str().map(str::to_string);
    let price = node.wants("a signed storage ask", "Bulkhead.Market", asks).await;
    let deadlines = node.call("Bulkhead.ProvingDeadlines", vec![]).await.unwrap();
    let rows = deadlines.as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["current"] == true).count(), 1, "the open one is marked: {deadlines}");
    let late = |row: &&Value| row["state"] == "closed" && row["proven"] != row["to_prove"];
    assert_eq!(rows.iter().find(late), None, "what was proven says so after the close");
    let proving = node.call("Bulkhead.ProvingInfo", vec![]).await.unwrap();
    assert!(proving["restart"]["safe"].is_boolean() && proving["open_deadline"].is_object(), "{proving}");
    let workers = node.call("Bulkhead.SealingWorkers", vec![]).await.unwrap();
    assert!(workers[0]["slots"]["c2"]["all"].as_u64() > Some(0), "{workers}");
    let sectors: u64 = deadlines.as_array().unwrap().iter().filter_map(|row| row["sectors"].as_u64()).sum();
    let info = node.call("Bulkhead.Info", vec![]).await.unwrap();
    let unknown = node.call("Filecoin.SectorsStatus", vec![json!(99), json!(false)]).await.unwrap_err();
    json!({
        "address": node.call("Filecoin.ActorAddress", vec![]).await.unwrap(),
        "numbers": numbers,
        "sealed": sealed,
        "listed": listed,
        "messages": messages,
        "missed": windows.1,
        "price": price,
        "sectors_on_chain": sectors,
        "info": [info["sectors"].clone(), info["miner"].clone(), info["missing_shards"].clone()],
        "unknown": unknown.contains("sector 99 is not known"),
    })
}

async fn end(world: World, nodes: Vec<NodeProcess>) {
    for node in nodes {
        node.stop().await;
    }
    world.end().await;
}

/// Sector numbers and windows at one node, sealing and messages at the other: each needs the other for its work.
fn divided(plan: impl Fn(&str) -> Plan) -> [Plan; 2] {
    let first = plan("a").roles(&["window-post", "markets", "allocator"]);
    [first, plan("b").roles(&["winning-post", "sealing", "daemon-link"])]
}

async fn in_one_process() -> Value {
    let world = World::start().await;
    let nodes = vec![world.plan("alone", None).start_here()];
    let mut all = answers(&nodes).await;
    end(world, nodes).await;
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_concern_answers_the_same_in_one_process_and_in_two() {
    let expected = in_one_process().await;
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let nodes: Vec<_> = divided(|name| world.plan(name, Some(&etcds))).map(Plan::start_here).into();
    for (node, answer) in nodes.iter().zip(answers(&nodes).await) {
        assert_eq!(answer, expected, "asked at {}", node.name());
    }
    end(world, nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_concern_answers_the_same_on_two_hosts() {
    let Some(lan) = crate::support::netns::lan(2) else { return };
    let (world, etcds) = (World::start().await, Etcds::single().await);
    // The chain and etcd listen on the loopback of this host: the others reach them through its address on their network.
    let here = IpAddr::V4(lan.uplink());
    let mut etcd = Vec::new();
    for endpoint in etcds.endpoints() {
        let at = endpoint.trim_start_matches("http://").parse().unwrap();
        etcd.push(format!("http://{}", forward(here, at).await));
    }
    let program = std::env::current_exe().unwrap();
    let mut nodes = Vec::new();
    for (plan, host) in divided(|name| world.plan(name, Some(&etcds))).into_iter().zip(&lan.hosts) {
        let full_node = forward(here, plan.full_node).await;
        let plan = Plan { bind: host.addr.into(), full_node, etcd: Some(etcd.clone()), ..plan };
        nodes.push(plan.start(host.command(&program)));
    }
    let expected = in_one_process().await;
    for (node, answer) in nodes.iter().zip(answers(&nodes).await) {
        assert_eq!(answer, expected, "asked at {}", node.name());
    }
    end(world, nodes).await;
}
