//! A node behind several full nodes: one that is dead from the start, what `bulkhead daemons` shows and changes, the pool as
//! others use it.

use crate::support::operator::*;
use serde_json::json;

#[test]
fn a_dead_node_of_the_pool_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (chain_dir, repo) = (dir.path().join("devnet"), dir.path().join("repo"));
    let chain = Chain::start(&chain_dir);
    chain.init(&repo);
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let dead_info = format!("t.o.k:/ip4/127.0.0.1/tcp/{}/http", dead.port());
    let node = up(&repo, &format!("{dead_info},{}", chain.api_info()));
    let daemons = |args: &[&str]| typed(&repo, &[&["fpool"], args].concat());

    let nodes = until("the dead node is known", || {
        let nodes = ask(&repo, &["daemons", "nodes"]);
        (nodes[0]["disabled"].is_string() && nodes[1]["head"].is_i64()).then_some(nodes)
    });
    assert_eq!((&nodes[0]["addr"], &nodes[1]["disabled"]), (&json!(dead.to_string()), &json!(null)), "{nodes:#}");
    let shown = daemons(&["nodes"]).ok();
    shows(&shown, &["Node ", ", host ", "Status: {Primary:(", "Epochs:(Head:", "Not used: "]);
    until("the head feed of the other", || {
        let info = ask(&repo, &["info"]);
        (!info.to_string().contains("is away")).then_some(())
    });

    let list = daemons(&["api", "list"]).ok();
    assert!(list.out.starts_with("Cate"), "{list}");
    shows(&list, &["StateMinerInfo", "OneBySeedRound", "all"]);
    shows(&daemons(&["api", "types"]).ok(), &["chain\n", "mpool\n", "wallet\n"]);
    daemons(&["api", "set", "--api=ChainHead", "--key=policy", "--val=OneByIndexAsc"]).ok();
    daemons(&["api", "set", "--api=ChainHead", "--key=policy", "--val=Luck"]).refused(1, &["OneBySeedRound"]);
    daemons(&["config", "set", "--key=MaxSyncBehind", "--val=1"]).ok();
    shows(&daemons(&["config", "show"]).ok(), &["MaxSyncBehind    1", "DefaultPolicy    OneBySeedRound"]);
    let nid = nodes[1]["id"].as_str().unwrap();
    daemons(&["primary", "set", "--seed=t01000", &format!("--nid={nid}")]).ok();
    shows(&daemons(&["primary", "list"]).ok(), &["t01000", nid, "running"]);
    shows(
        &daemons(&["auth", "api-pool-info"]).ok(),
        &["FULLNODE_API_USE_POOL=true\n", "FULLNODE_API_POOL_INFO=", &dead_info],
    );

    let actor = format!("root/chain/nodes/{dead}");
    shows(&typed(&repo, &["tree", "--inspect", &actor]).ok(), &["breakers", "cannot reach it"]);
    daemons(&["node", "set", &format!("--nid={}", nodes[0]["id"].as_str().unwrap()), "--key=status", "--val=exit"])
        .ok();
    daemons(&["node", "set", &format!("--nid={nid}"), "--key=status", "--val=pause"]).refused(1, &["last node"]);
    daemons(&["node", "add", &format!("--api=/ip4/127.0.0.1/tcp/{}/http", dead.port()), "--token=t.o.k"]).ok();
    let again = ask(&repo, &["daemons", "nodes"]);
    assert_eq!(again.as_array().map(Vec::len), Some(2), "{again:#}");
    assert!(again[0]["primary"].as_bool() == Some(true), "{again:#}");

    // Info says which nodes there are; the subsystem's lines come and go with its level.
    shows(&typed(&repo, &["info"]).ok(), &[&format!("{dead}: not used: "), ": used, asked first, epoch "]);
    shows(&typed(&repo, &["log", "list"]).ok(), &["fullpool\n", "wdpost\n"]);
    let change = |value: &str| daemons(&["config", "set", "--key=MaxSyncBehind", &format!("--val={value}")]).ok();
    let logged = |text: &str| node.err().contains(text);
    change("41");
    until("the change is logged", || logged("MaxSyncBehind is 41").then_some(()));
    let level = |level: &str| typed(&repo, &["log", "set-level", "--system=fullpool", level]);
    shows(&level("warn").ok(), &["fullpool: warn\n"]);
    change("42");
    level("info").ok();
    change("43");
    until("the change is logged", || logged("MaxSyncBehind is 43").then_some(()));
    assert!(!logged("MaxSyncBehind is 42"), "below the level");
    level("loud").refused(1, &["trace, debug, info"]);
    typed(&repo, &["log", "set-level", "--system=fulpool", "warn"]).refused(1, &["fulpool", "log list"]);
}

#[test]
fn the_pool_is_one_full_node_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let (chain_dir, repo, other) = (dir.path().join("devnet"), dir.path().join("repo"), dir.path().join("other"));
    let chain = Chain::start(&chain_dir);
    chain.init(&repo);
    let _node = up(&repo, &chain.api_info());
    let api_info = |more: &[&str]| typed(&repo, &[&["fpool", "auth", "api-info"], more].concat()).ok().out;
    let line = api_info(&[]);
    let info = line.trim().strip_prefix("FULLNODE_API_INFO=").unwrap_or_else(|| panic!("{line}"));

    // Another provider makes its miner through it, with the line as it was printed.
    let init = |line: &str, repo: &std::path::Path| {
        say(&["init", "--repo", text(repo), "--sector-size", "2KiB"], &[("FULLNODE_API_INFO", line)])
    };
    init(&api_info(&["--perm=read"]), &dir.path().join("reader")).refused(1, &["missing permission"]);
    init(info.trim_start_matches(|c| c != ':').trim_start_matches(':'), &dir.path().join("stranger"))
        .refused(1, &["missing permission"]);
    typed(&repo, &["fpool", "auth", "api-info", "--perm=all"]).refused(2, &["read, write, sign or admin"]);
    let said = init(&line, &other).ok();
    assert!(said.out.contains("t01001"), "{said}");

    // It runs on the pool of the provider that MINER_API_INFO names, and on no other full node.
    let of_repo = |name: &str| std::fs::read_to_string(repo.join(name)).unwrap();
    let miner_api = format!("{}:{}", of_repo("token"), of_repo("api"));
    let args = ["run", "--repo", text(&other), "--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let alone = [("MINER_API_INFO", miner_api.as_str()), ANY_POOL_PORT, ("FULLNODE_MINER_API_PRIORITY", "false")];
    say(&args, &alone).refused(1, &["no full node is named"]);
    let mut second = Running::start(&args, &alone[..2]);
    second.says("the node is up");
    until("heads by way of the first", || {
        let nodes = ask(&other, &["daemons", "nodes"]);
        (nodes[0]["head"].as_i64() > Some(0)).then_some(())
    });

    // A token of the pool is none of the provider.
    let token = info.split(':').next().unwrap();
    let as_miner = format!("{token}:{}", of_repo("api"));
    say(&["info"], &[("MINER_API_INFO", &as_miner)]).refused(1, &["token"]);
}
