//! The distributed miner's hosts over etcd, each started with its flags: one gives out numbers, two seal. No number comes
//! twice, lists are complete from everywhere, and a host that is away is named.

use crate::support::etcd::{Etcds, free_ports};
use crate::support::operator::{Said, say, text};
use crate::support::placement::{NodeProcess, Plan, World, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A command of the operator's at that host.
async fn asked(node: &NodeProcess, command: &'static [&'static str]) -> Said {
    let repo = node.plan.repo.clone();
    let run = move || say(&[command, &["--json", "--repo", text(&repo)]].concat(), &[]);
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn read(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// Each of these hosts is asked for that many sectors, all at once; the numbers that came at once. For the others the wish
/// is stored, and the number follows.
async fn pledge(hosts: [&NodeProcess; 2], each: usize) -> Vec<u64> {
    let one = |host| async move {
        match NodeProcess::call(host, "Filecoin.PledgeSector", vec![]).await {
            Ok(pledged) => pledged["Number"].as_u64(),
            Err(why) => {
                assert!(why.contains("the pledge is stored"), "{why}");
                None
            }
        }
    };
    let all = futures::future::join_all(hosts.into_iter().flat_map(|host| (0..each).map(move |_| one(host)))).await;
    all.into_iter().flatten().collect()
}

/// Number -> (state, host), and how many in each state.
type Known = (BTreeMap<u64, (String, String)>, Value);

/// The numbers that `sectors list` prints.
fn listed(said: &Said) -> Vec<u64> {
    read(said).as_array().unwrap().iter().map(|row| row["number"].as_u64().unwrap()).collect()
}

/// What `sectors list`, the API and `info` say of the sectors at a host; `None` while one that seals does not answer.
async fn known(node: &NodeProcess) -> Option<Known> {
    let list = node.call("Bulkhead.Sectors", vec![]).await.ok()?;
    let said = asked(node, &["sectors", "list"]).await;
    if !said.status.success() || list["missing_shards"] != json!([]) {
        return None;
    }
    let row = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap().to_string();
        (row["number"].as_u64().unwrap(), (text("state"), text("node")))
    };
    let rows = list["sectors"].as_array().unwrap();
    let sectors: BTreeMap<_, _> = rows.iter().map(row).collect();
    assert_eq!(sectors.len(), rows.len(), "a number twice: {list}");
    // Asked one after the other: a number may have come in between.
    if !listed(&said).iter().eq(sectors.keys()) {
        return None;
    }
    Some((sectors, read(&asked(node, &["info"]).await.ok())["sectors"].clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_seal_with_the_numbers_of_one_and_lists_are_complete() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let at = format!("--sclisten=127.0.0.1:{}", free_ports(1)[0]);
    let plan = |name: &str, flags: [&str; 4]| -> Plan {
        world.plan(name, None).configured(&etcds.keys(), &[flags.as_slice(), &[&at]].concat())
    };
    let post_flags = ["--window-post=true", "--winning-post=true", "--p2p=false", "--sctype=alloce"];
    let seal_flags = ["--window-post=false", "--winning-post=false", "--p2p=true", "--sctype=get"];
    let mut post = plan("post", post_flags).start_here();
    let (first, second) = (plan("seal-1", seal_flags).start_here(), plan("seal-2", seal_flags).start_here());
    for (host, shard) in [(&first, "seal-1"), (&second, "seal-2")] {
        let path = format!("/t01000/seal-scheduler/{shard}");
        eventually("its seal scheduler", || async { host.runs().await.filter(|runs| runs.contains(&path)) }).await;
    }

    let mut numbers = pledge([&first, &second], 2).await;
    // The one that gives out numbers dies and comes back while it is asked.
    let (more, ()) = tokio::join!(pledge([&first, &second], 1), async {
        post.kill();
        post = post.plan.clone().start_here();
    });
    numbers.extend(more);
    let once: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(once.len(), numbers.len(), "a number twice: {numbers:?}");

    // From every host the same whole list.
    let mut lists = Vec::new();
    for host in [&post, &first, &second] {
        let all_proving = eventually("every sector proving", || async {
            let known = known(host).await?;
            // Those whose number followed are there too.
            (known.0.len() == 6 && known.0.values().all(|(state, _)| state == "Proving")).then_some(known)
        })
        .await;
        assert!(once.iter().all(|number| all_proving.0.contains_key(number)), "asked at {}", host.name());
        for shard in ["seal-1", "seal-2"] {
            assert_eq!(all_proving.0.values().filter(|(_, node)| node == shard).count(), 3, "{:?}", all_proving.0);
        }
        assert_eq!(all_proving.1, json!({ "Proving": 6 }), "asked at {}", host.name());
        lists.push(all_proving.0);
    }
    assert!(lists.windows(2).all(|two| two[0] == two[1]), "{lists:?}");
    eventually("a window proven", || async { post.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;
    let runs = post.runs().await.unwrap();
    assert!(!runs.iter().any(|concern| concern.contains("seal-scheduler")), "a PoSt miner seals nothing: {runs:?}");

    // A host that is away: named, what the others have is there, and the command says that it is not all.
    second.stop().await;
    for host in [&post, &first] {
        let said = eventually("the other host is missed", || async {
            let said = asked(host, &["sectors", "list"]).await;
            (said.status.code() == Some(1)).then_some(said)
        })
        .await;
        said.refused(1, &["seal-2"]);
        let list = host.call("Bulkhead.Sectors", vec![]).await.unwrap();
        assert_eq!(list["missing_shards"][0]["node"], "seal-2", "{list}");
        let of_first = list["sectors"].as_array().unwrap().iter().filter(|row| row["node"] == "seal-1").count();
        assert_eq!((of_first, listed(&said).len()), (3, 3), "{list}");
        let info = read(&asked(host, &["info"]).await.ok());
        assert_eq!(
            (&info["sectors"], &info["missing_shards"][0]["node"]),
            (&json!({ "Proving": 3 }), &json!("seal-2"))
        );
    }
    post.kill();
    first.stop().await;
    world.end().await;
}
