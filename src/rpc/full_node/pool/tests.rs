//! The pool's decisions: who is asked first, what a round of checks changes, what an operator may set.

use super::view::PoolChange;
use super::*;

fn pool(nodes: usize) -> NodePool {
    let entries: Vec<PoolEntry> =
        (0..nodes).map(|n| PoolEntry::parse("X", &format!("t:/ip4/10.0.0.{n}/tcp/1234/http:d{n}")).unwrap()).collect();
    NodePool::new(&entries, PoolSettings::default())
}

fn asked(pool: &NodePool, method: &str, seed: &str) -> Vec<String> {
    pool.plan(method, seed).nodes.iter().map(|member| member.host.clone()).collect()
}

fn at(node: usize, height: i64) -> Health {
    Health { height: Some(height), ..Health::of(&format!("10.0.0.{node}:1234")) }
}

fn set(pool: &NodePool, key: &str, value: &str) -> Result<String, String> {
    pool.apply(PoolChange::SetConfig { key: key.into(), value: value.into() })
}

#[test]
fn each_miner_has_its_primary_and_keeps_it() {
    let pool = pool(3);
    for (seed, expected) in
        [("t01000", ["d1", "d2", "d0"]), ("f01002", ["d0", "d1", "d2"]), ("t01003", ["d1", "d2", "d0"])]
    {
        assert_eq!(asked(&pool, "Filecoin.MpoolPush", seed), expected, "{seed}");
    }
    let wallet = asked(&pool, "MpoolPush", "t3abc");
    assert_eq!(asked(&pool, "StateMinerInfo", "t3abc"), wallet, "the same for every method");
    // Another node that is away changes no primary; its own coming back gives it back.
    pool.report(vec![Health { error: Some("refused".into()), ..at(0, 0) }]);
    assert_eq!(asked(&pool, "MpoolPush", "t01000"), ["d1", "d2"]);
    pool.report(vec![at(0, 5), Health { error: Some("refused".into()), ..at(1, 0) }]);
    assert_eq!(asked(&pool, "MpoolPush", "t01000"), ["d2"], "d0 was seen well once only");
    pool.report(vec![at(0, 5), at(1, 5)]);
    pool.report(vec![at(0, 5), at(1, 5)]);
    assert_eq!(asked(&pool, "MpoolPush", "t01000"), ["d1", "d2", "d0"]);
    set(&pool, "PrimarySeed", "2").unwrap();
    assert_eq!(asked(&pool, "MpoolPush", "t01000"), ["d2", "d0", "d1"]);
    let id = pool.members()[0].id.clone();
    pool.apply(PoolChange::SetPrimary { seed: "t01000".into(), id }).unwrap();
    assert_eq!(asked(&pool, "MpoolPush", "t01000"), ["d0", "d1", "d2"]);
    assert_eq!(asked(&pool, "MpoolPush", "t01002"), ["d2", "d0", "d1"], "bound alone");
}

#[test]
fn routes_are_set_while_the_pool_is_used() {
    let pool = pool(3);
    let api = |key: &str, value: &str| {
        pool.apply(PoolChange::SetApi { api: "ChainHead".into(), key: key.into(), value: value.into() })
    };
    api("policy", "OneByIndexDesc").unwrap();
    assert_eq!(asked(&pool, "Filecoin.ChainHead", "t01000"), ["d2", "d1", "d0"]);
    api("policy", "OneByIdRound").unwrap();
    let first = |_| asked(&pool, "ChainHead", "t01000")[0].clone();
    assert_eq!(
        (0..4).map(first).collect::<Vec<_>>(),
        ["d1", "d2", "d0", "d1"],
        "the second call goes on from the first"
    );
    assert!(api("policy", "Luck").unwrap_err().contains("OneBySeedRound"));
    assert!(api("colour", "red").unwrap_err().contains("policy, filter, nohang, timeout"));
    let id = pool.members()[1].id.clone();
    let node = |key: &str, value: &str| {
        pool.apply(PoolChange::SetNode { id: id.clone(), key: key.into(), value: value.into() })
    };
    node("sealing", "false").unwrap();
    assert_eq!(asked(&pool, "StateMinerInfo", "t01000"), ["d1", "d2", "d0"]);
    pool.apply(PoolChange::SetApi { api: "StateMinerInfo".into(), key: "filter".into(), value: "sealing".into() })
        .unwrap();
    assert_eq!(asked(&pool, "StateMinerInfo", "t01000"), ["d2", "d0"]);
    set(&pool, "DefaultPolicy", "OneByIndexAsc").unwrap();
    assert_eq!(asked(&pool, "StateMinerPower", "t01000"), ["d0", "d1", "d2"]);
    for (key, value, part) in [
        ("Colour", "red", "MaxSyncBehind"),
        ("MaxBehindDiff", "-1", "negative"),
        ("MinBlockPeers", "x", "whole number"),
    ] {
        assert!(set(&pool, key, value).unwrap_err().contains(part), "{key}");
    }
    set(&pool, "MaxBehindDiff", "0").unwrap();
    pool.report(vec![at(0, 9), at(1, 10), at(2, 10)]);
    assert_eq!(asked(&pool, "StateMinerPower", "t01000"), ["d1", "d2"]);
    let apis = pool.view("t01000").apis;
    let head = apis.iter().find(|api| api.api == "ChainHead").unwrap();
    assert_eq!((head.calls, head.policy.as_str(), head.timeout.as_str()), (5, "OneByIdRound", "0s"));
}

#[test]
fn nodes_are_paused_added_and_removed_but_never_the_last() {
    let pool = pool(2);
    let node = |id: &str, key: &str, value: &str| {
        pool.apply(PoolChange::SetNode { id: id.into(), key: key.into(), value: value.into() })
    };
    node("d0", "status", "pause").unwrap();
    assert_eq!(asked(&pool, "ChainHead", "t01000"), ["d1"]);
    for value in ["pause", "exit"] {
        assert!(node("d1", "status", value).unwrap_err().contains("last node"), "{value}");
    }
    assert!(node("d7", "status", "pause").unwrap_err().contains("daemons nodes"));
    assert!(node("d0", "status", "maybe").unwrap_err().contains("running, pause or exit"));
    let add = |node: &str| pool.apply(PoolChange::AddNode { node: node.into() });
    add("tok:/ip4/192.168.1.6/tcp/1234/http:d9").unwrap();
    assert!(add("u:/ip4/192.168.1.6/tcp/1234/http").unwrap_err().contains("already"));
    let said = add("sesame").unwrap_err();
    assert!(said.contains("--api") && !add("tok3n:/ip9/1").unwrap_err().contains("tok3n"), "{said}");
    assert_eq!(asked(&pool, "ChainHead", "t01000"), ["d1", "d9"]);
    node("d1", "status", "exit").unwrap();
    assert_eq!(pool.view("t01000").nodes.iter().map(|node| node.host.clone()).collect::<Vec<_>>(), ["d0", "d9"]);
    node("d0", "status", "running").unwrap();
    assert_eq!(pool.secret_text(), "t:/ip4/10.0.0.0/tcp/1234/http:d0,tok:/ip4/192.168.1.6/tcp/1234/http:d9");
}

#[test]
fn the_feed_follows_the_heaviest_chain_and_leaves_a_node_that_is_not_used() {
    let pool = pool(3);
    assert_eq!(pool.best().as_deref(), Some("10.0.0.0:1234"), "nothing is known yet");
    let weighing = |node, height, weight: &str| Health { weight: Some(weight.into()), ..at(node, height) };
    pool.report(vec![weighing(0, 12, "90"), weighing(1, 11, "100"), weighing(2, 11, "100")]);
    assert_eq!(pool.best().as_deref(), Some("10.0.0.1:1234"), "of equals the first");
    pool.exclude("10.0.0.1:1234", "another network".into());
    assert!(!pool.is_used("10.0.0.1:1234") && pool.is_used("10.0.0.2:1234"));
    assert_eq!(pool.best().as_deref(), Some("10.0.0.2:1234"));
}
