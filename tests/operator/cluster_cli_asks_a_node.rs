//! `cluster status|nodes|leases|move|drain` and `tree --all` against a node's admin HTTP: the real binary, real sockets.

use arc_swap::ArcSwap;
use bulkhead::rpc::admin::cluster::{ClusterReport, Here, OwnConcern, PeerRow, PeersReport, RemoteTreeError};
use bulkhead::rpc::admin::{AdminConfig, AdminHandle, AdminViews, ClusterView, TreeView, only, start};
use bulkhead::rpc::directory::{DirectoryError, Holder, NodeRecord, PlacementOrder, View};
use bulkhead::supervisor::{ActorInfo, ActorState, Exit};
use futures::future::BoxFuture;
use libp2p::PeerId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const TOKEN: &str = "the-token";
const WINDOW: &str = "/t01000/window-post";
/// Nobody holds it.
const WINNING: &str = "/t01000/winning-post";

/// host-a is asked; host-b answers for its tree; host-c does not.
struct Three {
    view: View,
    orders: Mutex<Vec<PlacementOrder>>,
}

fn actor(path: &str) -> ActorInfo {
    let row = json!({
        "path": path, "kind": "worker", "state": "up", "incarnation": 1, "restarts": 0,
        "mailbox_depth": 0, "mailbox_bound": 16, "last_exit": null, "last_exit_at": null,
    });
    serde_json::from_value(row).unwrap()
}

impl Three {
    fn new() -> Three {
        let mut view = View { in_contact: true, ..View::empty(Instant::now()) };
        for (name, boot) in [("host-a", 1), ("host-b", 2), ("host-c", 3)] {
            view.nodes.insert(name.into(), Arc::new(NodeRecord::new(name, PeerId::random(), boot)));
        }
        let b = &view.nodes["host-b"];
        let holder = Holder { node: b.name.clone(), peer_id: b.peer_id, boot: b.boot, epoch: 41 };
        view.holders.insert(WINDOW.into(), holder);
        Three { view, orders: Mutex::default() }
    }
}

impl ClusterView for Three {
    fn node(&self) -> String {
        "host-a".into()
    }
    fn holders(&self, _: &str) -> BTreeMap<String, String> {
        [("root/there".to_string(), "host-b".to_string()), ("root/away".to_string(), "host-b".to_string())].into()
    }
    fn report(&self) -> ClusterReport {
        let here = Here {
            cluster: "test",
            node: "host-a",
            directory: "etcd",
            now: Instant::now(),
            links: [(self.view.nodes["host-b"].peer_id, "up".to_string())].into(),
            own: vec![
                OwnConcern { path: WINDOW.into(), lease: None, failure: None },
                OwnConcern { path: WINNING.into(), lease: None, failure: Some("X cannot be read".into()) },
            ],
        };
        ClusterReport::of(&self.view, &here)
    }
    fn peers(&self) -> PeersReport {
        let peer = PeerRow {
            peer_id: self.view.nodes["host-b"].peer_id.to_string(),
            node: Some("host-b".into()),
            state: "up".into(),
            boot: Some(2),
            rtt_us: Some(900),
            pending: 0,
            queued_control: 0,
            queued_messages: 0,
            refused: [("fenced".to_string(), 3)].into(),
        };
        PeersReport { peers: vec![peer], strangers: [("unknown_peer".to_string(), 1)].into() }
    }
    fn actors_of(&self, node: &str) -> BoxFuture<'static, Result<Vec<ActorInfo>, RemoteTreeError>> {
        let answer = match node {
            "host-b" => Ok(vec![actor("root"), actor("root/there")]),
            _ => Err(RemoteTreeError::NoAnswer { node: node.into(), why: "no answer within 1 s".into() }),
        };
        Box::pin(std::future::ready(answer))
    }
    fn full_nodes_of(&self, node: &str) -> BoxFuture<'static, Result<Value, RemoteTreeError>> {
        let answer = match node {
            "host-b" => Ok(json!({ "feed": { "height": 7 }, "full_nodes": [] })),
            _ => Err(RemoteTreeError::NoAnswer { node: node.into(), why: "no answer within 1 s".into() }),
        };
        Box::pin(std::future::ready(answer))
    }
    fn order(&self, order: PlacementOrder) -> BoxFuture<'static, Result<(), DirectoryError>> {
        let known = |node: &str| self.view.nodes.contains_key(node);
        let answer = match &order {
            PlacementOrder::Move { node, .. } | PlacementOrder::Drain { node } | PlacementOrder::Undrain { node }
                if !known(node) =>
            {
                Err(DirectoryError::UnknownNode { node: node.clone(), known: "host-a, host-b, host-c".into() })
            }
            PlacementOrder::Move { concern, node } if node == "host-b" => {
                let why = "it does not have the role window-post".to_string();
                Err(DirectoryError::CannotTake { node: node.clone(), concern: concern.clone(), why })
            }
            _ => {
                self.orders.lock().unwrap().push(order);
                Ok(())
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

struct Trees(Option<Arc<Three>>);

impl TreeView for Trees {
    fn snapshot(&self) -> Vec<ActorInfo> {
        let mut away = actor("root/away");
        (away.state, away.last_exit) = (ActorState::Stopped, Some(Exit::Ignored));
        vec![actor("root"), actor("root/here"), away]
    }
    fn kill(&self, _: &str) -> bool {
        false
    }
    fn cluster(&self) -> Option<Arc<dyn ClusterView>> {
        self.0.clone().map(|three| -> Arc<dyn ClusterView> { three })
    }
}

struct Node {
    http: AdminHandle,
    repo: tempfile::TempDir,
}

fn node(cluster: Option<Arc<Three>>) -> Node {
    let views = AdminViews {
        tree: Arc::new(Trees(cluster)),
        info: Arc::new(ArcSwap::from_pointee(Value::Null)),
        critical: vec![],
        stop: Arc::new(|| {}),
    };
    let config = AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), allow: only(TOKEN.into()) };
    let http = start(config, views).unwrap();
    let repo = tempfile::tempdir().unwrap();
    std::fs::write(repo.path().join("admin"), http.addr().to_string()).unwrap();
    std::fs::write(repo.path().join("token"), TOKEN).unwrap();
    Node { http, repo }
}

impl Node {
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.env_clear().env("HOME", self.repo.path()).arg("--repo").arg(self.repo.path()).args(args);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    }
    #[track_caller]
    fn refuses(&self, args: &[&str], code: i32, part: &str) {
        let (got, out, err) = self.run(args);
        assert!(
            got == code
                && out.is_empty()
                && err.lines().count() == 1
                && err.contains(part)
                && !err.contains("HTTP status"),
            "{args:?}: {got} {err}"
        );
    }
}

#[test]
fn a_node_of_three_shows_nodes_leases_and_trees() {
    let node = node(Some(Arc::new(Three::new())));
    let status = node.says(&["cluster", "status"]);
    for part in ["cluster test (etcd), asked of host-a", "in contact for", "host-c", WINDOW, "41"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let lines: Vec<&str> = status.lines().collect();
    assert_eq!(lines[2], "nobody holds /t01000/winning-post: X cannot be read", "{status}");
    let report: Value = serde_json::from_str(&node.says(&["cluster", "status", "--json"])).unwrap();
    assert_eq!((&report["node"], &report["leases"][0]["epoch"]), (&json!("host-a"), &json!(41)));
    let rows: Value = serde_json::from_str(&node.says(&["cluster", "nodes", "--json"])).unwrap();
    let states: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["here", "up", "unknown"]);
    assert!(node.says(&["cluster", "leases"]).contains("host-b"));

    let trees = node.says(&["tree", "--all"]);
    for part in ["host-a\n", "here", "host-b\n", "there", "host-c\n", "no answer within 1 s"] {
        assert!(trees.contains(part), "{part}: {trees}");
    }
    assert!(trees.contains("away  held by host-b"), "{trees}");
    assert!(node.says(&["tree"]).contains("away  held by host-b"), "{}", node.says(&["tree"]));
    let trees: Value = serde_json::from_str(&node.says(&["tree", "--all", "--json"])).unwrap();
    assert_eq!((&trees[0]["actors"][2]["held_by"], trees[1]["actors"][1].get("held_by")), (&json!("host-b"), None));
    assert_eq!(trees[1]["actors"][1]["path"], "root/there");
    assert!(trees[2]["actors"].is_null() && trees[2]["error"].as_str().unwrap().contains("host-c"));
}

#[test]
fn orders_reach_the_directory_and_bad_ones_say_why() {
    let three = Arc::new(Three::new());
    let node = node(Some(three.clone()));
    node.says(&["cluster", "move", "window-post", "host-c"]);
    node.says(&["cluster", "drain"]);
    node.says(&["cluster", "drain", "host-b", "--undo"]);
    let orders = three.orders.lock().unwrap().clone();
    let moved = PlacementOrder::Move { concern: WINDOW.into(), node: "host-c".into() };
    assert_eq!(
        orders,
        [moved, PlacementOrder::Drain { node: "host-a".into() }, PlacementOrder::Undrain { node: "host-b".into() }]
    );
    node.refuses(&["cluster", "move", "lunch", "host-c"], 1, WINDOW);
    node.refuses(&["cluster", "move", "window-post", "host-x"], 1, "host-a, host-b, host-c");
    node.refuses(&["cluster", "move", "window-post", "host-b"], 1, "does not have the role window-post");
    node.refuses(&["cluster", "move", "window-post", "a/b"], 2, "no node's name");
    node.refuses(&["cluster", "move", "a b", "host-c"], 2, "no concern");
    node.refuses(&["cluster", "drain", "host-x"], 1, "host-x");
    std::fs::write(node.repo.path().join("token"), "another").unwrap();
    node.refuses(&["cluster", "drain"], 1, "token");
    assert_eq!(three.orders.lock().unwrap().len(), 3, "what was refused is no order");
}

#[tokio::test]
async fn peers_and_metrics_count_what_was_refused() {
    let node = node(Some(Arc::new(Three::new())));
    let at = |path: &str| format!("http://{}{path}", node.http.addr());
    let peers: Value = reqwest::get(at("/peers")).await.unwrap().json().await.unwrap();
    assert_eq!((&peers["peers"][0]["node"], &peers["strangers"]["unknown_peer"]), (&json!("host-b"), &json!(1)));
    let metrics = reqwest::get(at("/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        "bulkhead_lease_held{concern=\"/t01000/window-post\"} 0",
        "bulkhead_lease_epoch{concern=\"/t01000/window-post\",node=\"host-b\"} 41",
        "bulkhead_peer_state{peer=\"host-b\",state=\"up\"} 1",
        "bulkhead_refused_frames_total{peer=\"host-b\",reason=\"fenced\"} 3",
        "bulkhead_refused_frames_total{peer=\"stranger\",reason=\"unknown_peer\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    let ready = reqwest::get(at("/health/ready")).await.unwrap();
    assert_eq!(ready.status().as_u16(), 503, "a concern that this node may run is held by nobody");
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["troubles"], json!(["nobody holds /t01000/winning-post: X cannot be read"]));
    for (path, status) in [("/nodes/host-b/actors", 200), ("/nodes/host-c/actors", 504), ("/nodes/host-x/actors", 404)]
    {
        assert_eq!(reqwest::get(at(path)).await.unwrap().status().as_u16(), status, "{path}");
    }
    let unauthorized = reqwest::Client::new().post(at("/cluster/drain/host-b")).send().await.unwrap();
    assert_eq!(unauthorized.status().as_u16(), 401);
}

#[test]
fn a_node_that_runs_alone_says_so() {
    let node = node(None);
    for args in [vec!["cluster", "status"], vec!["cluster", "nodes"], vec!["tree", "--all"], vec!["cluster", "drain"]] {
        node.refuses(&args, 1, "this node runs alone");
    }
}
