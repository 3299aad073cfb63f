//! Calls through a pool of full nodes: a node that fails a call, in whatever way, is passed over before the caller notices.

use crate::support::full_node::*;
use bulkhead::chain::Address;
use bulkhead::chain::types::{BlockMsg, TipSetKey};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::Perm;
use bulkhead::rpc::full_node::pool::calls::PooledCalls;
use bulkhead::rpc::full_node::pool::entries::PoolEntry;
use bulkhead::rpc::full_node::pool::judge::Health;
use bulkhead::rpc::full_node::pool::view::PoolChange;
use bulkhead::rpc::full_node::pool::{NodePool, PoolSettings};
use bulkhead::rpc::full_node::{FullNode, FullNodeError, HttpFullNode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The miner's number modulo two or three nodes is 0: the first is asked first.
pub const SEED: &str = "t01002";

pub fn pool(nodes: &[ApiInfo]) -> NodePool {
    let entries: Vec<PoolEntry> = nodes.iter().cloned().map(PoolEntry::of).collect();
    NodePool::new(&entries, PoolSettings::default())
}

fn node(pool: &NodePool) -> Arc<dyn FullNode> {
    Arc::new(HttpFullNode::pooled(PooledCalls::new(pool.clone(), SEED)))
}

pub fn all(served: &Served) -> ApiInfo {
    served.info(Some(&Perm::ALL))
}

/// Answers every request with these bytes and closes; with none it never answers.
pub async fn answering(bytes: Option<&'static str>) -> ApiInfo {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(bytes) = bytes else {
                held.push(stream);
                continue;
            };
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    ApiInfo::local(addr, None)
}

pub async fn refusing() -> ApiInfo {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    ApiInfo::local(listener.local_addr().expect("address"), None)
}

#[tokio::test]
async fn a_broken_node_is_passed_over() {
    let good = Served::start();
    let bad = [
        ("refuses", refusing().await),
        ("garbage", answering(Some("SSH-2.0-OpenSSH_9.2\r\n")).await),
        ("html", answering(Some("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")).await),
        ("401", answering(Some("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")).await),
        ("502", answering(Some("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad")).await),
        ("null", answering(Some("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"result\":null}")).await),
        ("cut off", answering(Some("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"jsonrpc\":")).await),
        ("hangs", answering(None).await),
    ];
    for (what, bad) in bad {
        let pool = pool(&[bad.clone(), all(&good)]);
        let began = Instant::now();
        let head = node(&pool).chain_head().await;
        assert_eq!(head.map(|head| head.height).map_err(|e| e.to_string()), Ok(good_height()), "{what}");
        assert!(began.elapsed() < Duration::from_secs(8), "{what}: {:?}", began.elapsed());
        assert!(pool.members()[0].calls() == 1, "{what}: it was asked first");
    }
}

fn good_height() -> i64 {
    let head: bulkhead::chain::types::TipSet =
        serde_json::from_value(samples()["ChainHead"].clone()).expect("a tipset");
    head.height
}

#[tokio::test]
async fn what_one_node_does_not_know_another_may() {
    let (first, second) = (Served::start(), Served::start());
    let pool = pool(&[all(&first), all(&second)]);
    let node = node(&pool);
    let miner = Address::new_id(1000);
    for (code, message) in [
        (1, "loading tipset bafy: block not found"),
        (1, "failed to load miner actor: actor not found"),
        (-32002, "refusing explicit call due to state fork at epoch"),
        (-32601, "Method not found"),
    ] {
        let verdict = json!({"error": {"code": code, "message": message}});
        first.node.set("StateMinerPower", verdict.clone());
        assert!(node.state_miner_power(&miner, &TipSetKey::default()).await.is_ok(), "{message}");
        // All say it: then it is the answer.
        let good = samples()["StateMinerPower"].clone();
        second.node.set("StateMinerPower", verdict);
        let said = node.state_miner_power(&miner, &TipSetKey::default()).await.expect_err(message);
        assert!(said.is_missing_method() || said.to_string().contains(message), "{said}");
        second.node.set("StateMinerPower", good);
    }
    // A verdict on what was asked is the answer of the pool: nobody else is asked.
    first.node.set("StateMinerPower", json!({"error": {"code": 7, "message": "nonce too low"}}));
    let before = second.node.calls_of("StateMinerPower").len();
    let said = node.state_miner_power(&miner, &TipSetKey::default()).await;
    assert!(matches!(said, Err(FullNodeError::Rpc { code: 7, .. })), "{said:?}");
    assert_eq!(second.node.calls_of("StateMinerPower").len(), before);
}

#[tokio::test]
async fn what_acts_is_never_sent_twice_and_a_block_goes_to_all() {
    let (first, second) = (Served::start(), Served::start());
    let cut = answering(Some("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"jsonrpc\":")).await;
    let broken = node(&pool(&[cut, all(&second)]));
    let said = broken.wallet_new("bls").await;
    assert!(matches!(said, Err(FullNodeError::Unreachable { .. })), "{said:?}");
    assert_eq!(second.node.calls_of("WalletNew"), Vec::<Value>::new(), "the first may have made a key");

    let node = node(&pool(&[all(&first), all(&second)]));
    let block: BlockMsg = serde_json::from_value(samples()["MinerCreateBlock"].clone()).expect("a block");
    node.sync_submit_block(&block).await.expect("taken");
    for served in [&first, &second] {
        let at = Instant::now();
        while served.node.calls_of("SyncSubmitBlock").is_empty() {
            assert!(at.elapsed() < Duration::from_secs(10), "the block never came");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn without_a_node_a_call_waits_or_fails_at_once_as_it_is_told() {
    let (first, second) = (Served::start(), Served::start());
    let pool = pool(&[all(&first), all(&second)]);
    let down = |served: &Served| Health { error: Some("refused".into()), ..Health::of(&all(served).name()) };
    pool.report(vec![down(&first), down(&second)]);
    let waiting = node(&pool);
    let waits = tokio::spawn(async move { waiting.chain_head().await });
    pool.apply(PoolChange::SetApi { api: "Version".into(), key: "nohang".into(), value: "true".into() }).expect("set");
    let said = node(&pool).version().await.expect_err("no node").to_string();
    assert!(said.contains("no full node can be used") && said.contains("refused"), "{said}");
    assert!(!waits.is_finished());
    for _ in 0..2 {
        pool.report(vec![Health { height: Some(5), ..Health::of(&all(&second).name()) }]);
    }
    assert!(waits.await.expect("no panic").is_ok(), "it goes on by itself");
    assert_eq!(first.node.calls_of("ChainHead"), Vec::<Value>::new());
}

#[tokio::test]
async fn a_round_stays_with_one_node() {
    let (first, second) = (Served::start(), Served::start());
    let pool = pool(&[all(&first), all(&second)]);
    let pinned = node(&pool).pinned_for("Filecoin.MinerGetBaseInfo").expect("pinned");
    first.node.set("StateMinerPower", json!({"error": {"code": 1, "message": "actor not found"}}));
    pool.report(vec![Health { error: Some("refused".into()), ..Health::of(&all(&first).name()) }]);
    let said = pinned.state_miner_power(&Address::new_id(1000), &TipSetKey::default()).await;
    assert!(matches!(said, Err(FullNodeError::Rpc { .. })), "{said:?}");
    assert_eq!(second.node.calls_of("StateMinerPower"), Vec::<Value>::new());
    // With no node to use it is still one: an F3 lease at whichever comes back first would be a second one.
    pool.report(vec![Health { error: Some("refused".into()), ..Health::of(&all(&second).name()) }]);
    let pinned = node(&pool).pinned_for("Filecoin.F3Participate").expect("pinned");
    assert_eq!(pinned.name(), all(&first).name());
}

fn head_at(height: i64, weight: &str) -> Value {
    let mut head = as_json(&FixedNode::tip_set(height));
    head["Blocks"][0]["ParentWeight"] = json!(weight);
    head
}

#[tokio::test]
async fn the_head_of_a_caller_never_goes_back_for_another_nodes_lag() {
    let (first, second, third) = (Served::start(), Served::start(), Served::start());
    let pool = pool(&[all(&first), all(&second), all(&third)]);
    let caller = node(&pool);
    let down = |served: &Served| {
        pool.report(vec![Health { error: Some("refused".into()), ..Health::of(&all(served).name()) }]);
    };
    let height = async |caller: &Arc<dyn FullNode>| caller.chain_head().await.expect("a head").height;
    for (served, head) in
        [(&first, head_at(100, "1000")), (&second, head_at(99, "990")), (&third, head_at(100, "1000"))]
    {
        served.node.set("ChainHead", head);
    }
    assert_eq!(height(&caller).await, 100);
    down(&first);
    assert_eq!(height(&caller).await, 100);
    assert_eq!([&second, &third].map(|served| served.node.calls_of("ChainHead").len()), [1, 1], "the next was asked");
    assert_eq!(height(&node(&pool)).await, 99, "another caller has seen nothing");
    down(&third);
    assert_eq!(height(&caller).await, 100, "the last one again: all others are behind");
    second.node.set("ChainHead", head_at(99, "1001"));
    assert_eq!(height(&caller).await, 99, "a heavier chain is no step back");
    second.node.set("ChainHead", head_at(98, "900"));
    assert_eq!(height(&caller).await, 98, "the chain itself went back, by the word of the same node");
}

#[tokio::test]
async fn what_is_to_be_agreed_counts_when_two_nodes_say_the_same() {
    use bulkhead::rpc::full_node::RandomnessTag::WindowedPoStChallengeSeed as TAG;
    let nodes = [Served::start(), Served::start(), Served::start()];
    let pool = pool(&nodes.each_ref().map(all));
    let caller = node(&pool);
    let says = |of: usize, bytes: u8| {
        let answer = bulkhead::chain::lotus_json::WholeBytes(vec![bytes; 32]);
        nodes[of].node.set("StateGetRandomnessFromBeacon", json!(answer));
    };
    let draw = async |caller: &Arc<dyn FullNode>| {
        let drawn = caller.state_get_randomness_from_beacon(TAG, 5, &[], &TipSetKey::default()).await;
        drawn.map(|bytes| bytes[0]).map_err(|e| e.to_string())
    };
    (0..3).for_each(|of| says(of, [7, 8, 8][of]));
    assert_eq!(draw(&caller).await, Ok(7), "it is off unless it is set");
    pool.apply(PoolChange::SetConfig { key: "Agreement".into(), value: "true".into() }).expect("set");
    assert_eq!(draw(&caller).await, Ok(8));
    // A round that is pinned to the one that is alone goes on where the others agree.
    let pinned = caller.pinned_for("Filecoin.MinerGetBaseInfo").expect("pinned");
    assert_eq!((pinned.name(), draw(&pinned).await), (all(&nodes[0]).name(), Ok(8)));
    assert_ne!(pinned.name(), all(&nodes[0]).name());
    let before = nodes[2].node.calls_of("StateGetRandomnessFromBeacon").len();
    says(0, 8);
    assert_eq!(draw(&caller).await, Ok(8));
    assert_eq!(nodes[2].node.calls_of("StateGetRandomnessFromBeacon").len(), before, "two are enough");
    (0..3).for_each(|of| says(of, of as u8));
    let said = draw(&caller).await.expect_err("three answers");
    assert!(said.contains("no two full nodes agree") && said.contains(&all(&nodes[1]).name()), "{said}");
    // Those that fail have no voice.
    for served in &nodes[1..] {
        served.node.set("StateGetRandomnessFromBeacon", json!({"error": {"code": 1, "message": "block not found"}}));
    }
    assert_eq!(draw(&caller).await, Ok(0));
}

#[tokio::test]
async fn a_node_that_comes_back_with_another_token_is_called_with_that_one() {
    let (first, second) = (Served::start(), Served::start());
    let pool = pool(&[all(&second), ApiInfo { token: Some("stale".into()), ..all(&first) }]);
    pool.apply(PoolChange::SetApi { api: "Version".into(), key: "policy".into(), value: "OneByIndexDesc".into() })
        .expect("set");
    let caller = node(&pool);
    caller.version().await.expect("the other one's");
    assert_eq!(first.node.calls_of("Version").len(), 0, "refused");
    let id = pool.members()[1].id.clone();
    pool.apply(PoolChange::SetNode { id, key: "status".into(), value: "exit".into() }).expect("out");
    pool.apply(PoolChange::AddNode { node: all(&first).secret_text() }).expect("in");
    caller.version().await.expect("answered");
    assert_eq!(first.node.calls_of("Version").len(), 1);
}

#[tokio::test]
async fn a_method_that_fails_at_a_node_is_seen_there_also_where_it_is_the_only_one() {
    let pool = pool(&[refusing().await]);
    let caller = node(&pool);
    for failures in 1..=5 {
        caller.version().await.expect_err("refused");
        let breakers = pool.members()[0].breakers();
        let found = breakers.iter().map(|b| (b.method.as_str(), b.failures, b.open)).collect::<Vec<_>>();
        assert_eq!(found, [("Version", failures, failures == 5)]);
    }
    let waits = tokio::time::timeout(Duration::from_secs(20), pool.members()[0].suspected()).await;
    assert!(waits.is_ok(), "it is checked before its time");
}
