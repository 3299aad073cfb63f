//! restart, suspend, resume, stop, kill and drills over HTTP on a real tree: who may, what comes of it, what is refused and
//! how, and that it is on record.

use bulkhead::rpc::admin::{AdminConfig, AdminHandle, AdminViews, only, start};
use bulkhead::supervisor::*;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const SOON: Duration = Duration::from_secs(20);

struct Worker;
impl Actor for Worker {}
struct Ping;
impl Message for Ping {
    type Reply = u64;
}
impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

fn worker(id: &str, address: &Ref<Worker>) -> ChildSpec {
    ChildSpec::actor(id, address, |_| async { Ok(Worker) })
}

struct Fixture {
    tree: Tree,
    worker: Ref<Worker>,
    http: AdminHandle,
}

async fn fixture() -> Fixture {
    let (address, temporary, one) = (Ref::new("/worker", 4), Ref::new("/temporary", 4), Ref::new("/one", 4));
    let group = SupervisorSpec::new("group")
        .backoff(RestartBackoff::NONE)
        .child(worker("worker", &address))
        .child(worker("temporary", &temporary).restart(Restart::Temporary));
    let root = SupervisorSpec::new("root")
        .child(ChildSpec::supervisor(group))
        .child(ChildSpec::supervisor(SupervisorSpec::new("pool").dynamic(4)));
    let tree = Tree::start(root).unwrap();
    tree.supervisor("root/pool").unwrap().start_child(worker("one", &one)).await.unwrap();
    let views = AdminViews {
        tree: Arc::new(tree.clone()),
        info: Arc::new(arc_swap::ArcSwap::from_pointee(json!({}))),
        critical: vec![],
        stop: Arc::new(|| {}),
    };
    let config = AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), allow: only("t".into()) };
    Fixture { tree, worker: address, http: start(config, views).unwrap() }
}

impl Fixture {
    async fn send(&self, method: &str, path: &str, token: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.http.addr());
        let request = reqwest::Client::new().request(method.parse().unwrap(), url).bearer_auth(token).timeout(SOON);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
    async fn post(&self, path: &str) -> (u16, Value) {
        self.send("POST", path, "t").await
    }
}

#[tokio::test]
async fn orders_are_carried_out() {
    let f = fixture().await;
    let at = |order: &str| format!("/actors/root/group/worker/{order}");
    let done = |order: &str| (200, json!({ "order": order, "path": "root/group/worker" }));

    assert_eq!(f.post(&at("suspend")).await, done("suspend"));
    let suspended = async {
        while !f.tree.info("root/group/worker").unwrap().suspended {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(SOON, suspended).await.expect("suspended");
    f.worker.tell(Ping).unwrap();
    f.worker.tell(Ping).unwrap();
    assert_eq!(f.send("GET", "/actors/root/group/worker", "").await.1["mailbox_depth"], 2);
    assert_eq!(f.post(&at("resume")).await, done("resume"));
    assert_eq!(f.worker.ask(Ping, SOON).await.unwrap(), 1);

    for n in 2..12 {
        assert_eq!(f.post(&at("restart")).await, done("restart"));
        assert_eq!(f.worker.ask(Ping, SOON).await.unwrap(), n, "no budget pays for an order");
    }
    assert_eq!(f.post(&at("stop")).await, done("stop"));
    assert_eq!(f.send("GET", "/actors/root/group/worker", "").await.1["state"], "stopped");
    assert!(matches!(f.worker.ask(Ping, SOON).await, Err(CallError::NotRunning(_))));
    assert_eq!(f.post(&at("stop")).await, done("stop"), "twice is once");
    assert_eq!(f.post(&at("restart")).await, done("restart"));
    assert_eq!(f.worker.ask(Ping, SOON).await.unwrap(), 12);
    assert_eq!(f.post("/actors/root/group/restart").await.0, 200, "a whole group");
    assert_eq!(f.worker.ask(Ping, SOON).await.unwrap(), 13);
    assert_eq!(f.post("/actors/root/pool/one/stop").await.0, 200);
    assert_eq!(f.send("GET", "/actors/root/pool/one", "").await.0, 404, "a dynamic supervisor forgets it");

    let (_, metrics) = f.send("GET", "/metrics", "").await;
    let metrics = metrics.as_str().unwrap();
    for part in [
        "bulkhead_actor_restarts_total{path=\"root/group/worker\",kind=\"worker\"} ",
        "bulkhead_actor_handle_seconds_bucket{path=\"root/group/worker\",le=\"+Inf\"} ",
        "bulkhead_dead_letters_total{reason=\"not_running\"} ",
        "bulkhead_watchdog_ticks_total ",
        "bulkhead_zombie_threads 0",
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }
    f.tree.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_a_json_error() {
    let f = fixture().await;
    for order in ["restart", "suspend", "resume", "stop", "kill"] {
        for (path, token, want) in [
            ("/actors/root/group/worker", "wrong", 401),
            ("/actors/root/group/worker", "", 401),
            ("/actors/root/group/nobody", "t", 404),
            ("/actors/%00", "t", 400),
            ("/actors/root", "t", 409),
        ] {
            let (status, body) = f.send("POST", &format!("{path}/{order}"), token).await;
            assert!(status == want && body["error"].is_string(), "{order} {path}: {status} {body}");
        }
        let (status, body) = f.send("GET", &format!("/actors/root/group/worker/{order}"), "t").await;
        assert!(status == 405 && body["error"].is_string(), "{order}: {status} {body}");
    }
    for (path, part) in [
        ("/actors/root/group/suspend", "suspend its children"),
        ("/actors/root/group/temporary/restart", "forgotten"),
        ("/actors/root/pool/one/restart", "forgotten"),
    ] {
        let (status, body) = f.post(path).await;
        assert!(status == 409 && body["error"].as_str().unwrap().contains(part), "{path}: {status} {body}");
    }
    assert_eq!(f.tree.info("root/group/temporary").unwrap().state, ActorState::Up, "a refused order did nothing");
    let (status, body) = f.send("GET", "/journal", "").await;
    assert!(status == 404 && body["error"].is_string(), "a bare tree keeps none");
    f.tree.shutdown().await;
}

/// What went to the audit log.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Audit {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        if event.metadata().target() == "audit" {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

#[tokio::test]
async fn every_attempt_leaves_an_audit_line() {
    let audit = Audit::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(audit.clone())).unwrap();
    let f = fixture().await;
    // (order, field that says what came of it)
    let cases = [
        ("suspend", "outcome=\"done\""),
        ("resume", "outcome=\"done\""),
        ("restart", "outcome=\"done\""),
        ("panic", "struck=true"),
        ("kill", "killed=true"),
        ("stop", "outcome=\"done\""),
        ("hang", "struck=false"),
    ];
    for (order, came_of_it) in cases {
        let path = format!("/actors/root/group/worker/{order}");
        assert_eq!(f.send("POST", &path, "wrong").await.0, 401);
        let (status, body) = f.post(&path).await;
        assert!(status == 200 || order == "hang" && status == 409, "{order}: {status} {body}");
        let lines = audit.0.lock().unwrap().clone();
        for (what, parts) in [
            ("refused", [format!("action=\"{order} root/group/worker\""), "allowed=false".into()]),
            ("allowed", [format!("action=\"{order} root/group/worker\""), "allowed=true".into()]),
            ("done", [format!("action=\"{order}\""), came_of_it.into()]),
        ] {
            let found = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
            assert!(found, "{order} {what}: {parts:?} in {lines:#?}");
        }
    }
    f.tree.shutdown().await;
}
