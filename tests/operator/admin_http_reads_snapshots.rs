//! The admin endpoint over real sockets: what it tells, what it refuses, and who may change something.

use arc_swap::ArcSwap;
use bulkhead::rpc::admin::{AdminConfig, AdminHandle, AdminStartError, AdminViews, TreeView, only, start};
use bulkhead::supervisor::{ActorInfo, ActorState, Exit};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Three rows; `root/markets/deal_handler` can be killed, the root cannot.
#[derive(Default)]
struct Rows {
    killed: Mutex<Vec<String>>,
    restarting: AtomicBool,
    broken: AtomicBool,
    /// `journal` waits while it is true; `snapshot` as well if `tree_blocks`.
    blocks: (Mutex<bool>, Condvar),
    tree_blocks: AtomicBool,
}

impl TreeView for Rows {
    fn snapshot(&self) -> Vec<ActorInfo> {
        assert!(!self.broken.load(SeqCst), "a snapshot that panics");
        if self.tree_blocks.load(SeqCst) {
            self.wait();
        }
        let row = |path: &str, state| -> ActorInfo {
            let row = json!({
                "path": path, "kind": "worker", "state": state, "incarnation": 4, "restarts": 3,
                "mailbox_depth": 0, "mailbox_bound": 256, "last_exit": Exit::Panicked("boom".into()), "last_exit_at": 1,
            });
            serde_json::from_value(row).unwrap()
        };
        let market = if self.restarting.load(SeqCst) { ActorState::Restarting } else { ActorState::Up };
        vec![row("root", ActorState::Up), row("root/proving", ActorState::Up), row("root/markets/deal_handler", market)]
    }
    fn kill(&self, path: &str) -> bool {
        self.killed.lock().unwrap().push(path.into());
        path != "root"
    }
    fn journal(&self) -> Option<Vec<bulkhead::rpc::admin::Ended>> {
        self.wait();
        Some(Vec::new())
    }
}

impl Rows {
    fn wait(&self) {
        let (blocks, changed) = &self.blocks;
        drop(changed.wait_while(blocks.lock().unwrap(), |blocks| *blocks).unwrap());
    }
    fn block(&self, blocks: bool) {
        *self.blocks.0.lock().unwrap() = blocks;
        self.blocks.1.notify_all();
    }
}

struct Fixture {
    rows: Arc<Rows>,
    stopped: Arc<AtomicBool>,
    info: Arc<ArcSwap<Value>>,
    http: AdminHandle,
}

fn fixture(critical: &[&str]) -> Fixture {
    let (rows, stopped) = (Arc::new(Rows::default()), Arc::new(AtomicBool::new(false)));
    let info = Arc::new(ArcSwap::from_pointee(json!({"miner": "t01000"})));
    let stop = stopped.clone();
    let views = AdminViews {
        tree: rows.clone(),
        info: info.clone(),
        critical: critical.iter().map(|s| s.to_string()).collect(),
        stop: Arc::new(move || stop.store(true, SeqCst)),
    };
    let config = AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), allow: only("the-token".into()) };
    Fixture { rows, stopped, info, http: start(config, views).unwrap() }
}

impl Fixture {
    async fn send(&self, method: &str, path: &str, token: Option<&str>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.http.addr());
        let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
    async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, None).await
    }
}

#[tokio::test]
async fn it_tells_the_tree_and_what_the_node_published() {
    let f = fixture(&["root/proving"]);
    assert_eq!(f.get("/health/live").await, (200, json!({"live": true})));
    assert_eq!(f.get("/health/ready").await, (200, json!({"ready": true, "waiting_for": []})));
    f.rows.restarting.store(true, SeqCst);
    assert_eq!(f.get("/health/ready").await.0, 200, "a market that restarts does not make proving unready");

    let (status, rows) = f.get("/actors").await;
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 3));
    let (status, row) = f.get("/actors/root/markets/deal_handler").await;
    assert_eq!((status, &row["state"], &row["restarts"]), (200, &json!("restarting"), &json!(3)));
    assert_eq!(row["last_exit"], json!({"Panicked": "boom"}));

    assert_eq!(f.get("/info").await, (200, json!({"miner": "t01000"})));
    f.info.store(Arc::new(json!({"miner": "t01000", "head": 7})));
    assert_eq!(f.get("/info").await.1["head"], 7);

    let (status, text) = f.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    for line in [
        "bulkhead_actor_restarts_total{path=\"root/markets/deal_handler\",kind=\"worker\"} 3",
        "bulkhead_actor_state{path=\"root/markets/deal_handler\",state=\"restarting\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert_eq!(f.get("/").await.0, 200);
}

#[tokio::test]
async fn what_is_not_there_or_not_right_is_a_json_error() {
    let f = fixture(&[]);
    f.rows.restarting.store(true, SeqCst);
    let cases = [
        ("GET", "/health/ready", 503, "root/markets/deal_handler"),
        ("GET", "/nothing", 404, "nothing is at /nothing"),
        ("GET", "/actors/root/no", 404, "no actor is at root/no"),
        ("GET", "/actors/root/%2e%2e/x", 404, "no actor"),
        ("GET", "/actors/%ff%fe", 404, "no actor"),
        ("GET", "/actors/", 400, "no actor path"),
        ("GET", "/actors/root/", 400, "no actor path"),
        ("GET", "/actors/root%00", 400, "no actor path"),
        ("GET", "/dead-letters", 404, "keeps no dead letters"),
        ("GET", "/stop", 405, "does not take GET"),
        ("POST", "/actors", 405, "does not take POST"),
        ("DELETE", "/health/live", 405, "does not take DELETE"),
        ("GET", "/actors/root/proving/kill", 405, "does not take GET"),
        ("GET", "/actors/root/proving/panic", 405, "does not take GET"),
    ];
    for (method, path, want, part) in cases {
        let (status, body) = f.send(method, path, None).await;
        assert!(body.is_object(), "{method} {path}: {status} {body}");
        assert!(status == want && body.to_string().contains(part), "{method} {path}: {status} {body}");
    }
    f.rows.broken.store(true, SeqCst);
    for path in ["/actors", "/metrics", "/health/ready"] {
        assert_eq!(f.get(path).await.0, 500, "{path}");
    }
    assert_eq!(f.get("/health/live").await.0, 200, "a view that panics costs one answer");
    f.rows.broken.store(false, SeqCst);
    assert_eq!(f.get("/actors").await.0, 200);
}

/// Views that block keep neither health nor an order from its answer, however many ask for them.
#[tokio::test]
async fn a_view_that_blocks_stops_neither_health_nor_orders() {
    let f = Arc::new(fixture(&["root/proving"]));
    let rows = f.rows.clone();
    rows.block(true);
    let asking: Vec<_> = (0..60)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move { f.get("/journal").await })
        })
        .collect();
    let began = Instant::now();
    let token = Some("Bearer the-token");
    for _ in 0..20 {
        assert_eq!(f.get("/health/live").await.0, 200);
        assert_eq!(f.get("/health/ready").await.0, 200);
        assert_eq!(f.send("POST", "/actors/root/proving/kill", token).await.0, 200);
        assert_eq!(f.get("/info").await.0, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for asked in asking {
        let (status, body) = asked.await.unwrap();
        assert!(status == 503 && body.to_string().contains("blocks"), "{status} {body}");
    }
    // The tree itself: alive, and not ready, within a prober's patience.
    rows.tree_blocks.store(true, SeqCst);
    let began = Instant::now();
    let (status, body) = f.get("/health/ready").await;
    assert!(status == 503 && body["troubles"][0].as_str().unwrap().contains("blocks"), "{status} {body}");
    assert_eq!(f.get("/health/live").await.0, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    rows.block(false);
    assert_eq!(f.get("/health/ready").await.0, 200, "well again");
    assert_eq!(f.get("/journal").await.0, 200);
}

#[tokio::test]
async fn changes_need_the_admin_token() {
    let f = fixture(&[]);
    let good = Some("Bearer the-token");
    for token in [
        None,
        Some("Bearer wrong"),
        Some("the-token"),
        Some("Basic the-token"),
        Some("Bearer "),
        Some("Bearer the-token2"),
    ] {
        for path in ["/stop", "/actors/root/proving/kill", "/actors/root/proving/panic", "/actors/root/no/kill"] {
            let (status, body) = f.send("POST", path, token).await;
            assert!(status == 401 && body["error"].is_string(), "{token:?} {path}: {status} {body}");
        }
    }
    assert!(f.rows.killed.lock().unwrap().is_empty() && !f.stopped.load(SeqCst));

    assert_eq!(f.send("POST", "/actors/root/no/kill", good).await.0, 404);
    assert_eq!(f.send("POST", "/actors/root/kill", good).await.0, 409);
    let path = "/actors/root/markets/deal_handler/kill";
    assert_eq!(f.send("POST", path, good).await, (200, json!({"killed": "root/markets/deal_handler"})));
    assert_eq!(*f.rows.killed.lock().unwrap(), ["root", "root/markets/deal_handler"]);
    assert_eq!(f.send("POST", "/actors/root/no/panic", good).await.0, 404);
    assert_eq!(f.send("POST", "/actors/root/proving/panic", good).await.0, 409, "a view without drills");
    assert!(!f.stopped.load(SeqCst));
    assert_eq!(f.send("POST", "/stop", good).await, (202, json!({"stopping": true})));
    assert!(f.stopped.load(SeqCst));
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_sentence() {
    let f = fixture(&[]);
    let views = AdminViews { tree: f.rows.clone(), info: f.info.clone(), critical: vec![], stop: Arc::new(|| {}) };
    let addr = f.http.addr();
    let second = start(AdminConfig { listen: addr, allow: only("x".into()) }, views.clone());
    let why = second.err().expect("in use");
    assert!(matches!(why, AdminStartError::InUse { .. }));
    let text = why.to_string();
    assert!(text.contains(&addr.to_string()) && text.contains("in use") && !text.contains('\n'), "{text}");
    // After a stop the port is free.
    f.http.stop().await;
    start(AdminConfig { listen: addr, allow: only("x".into()) }, views).expect("free again");
}

#[tokio::test]
async fn garbage_on_the_socket_does_no_harm() {
    let f = fixture(&[]);
    for bytes in [
        b"\x00\xff\x00\xff\r\n\r\n".as_slice(),
        b"GET /actors\r\n\r\n",
        b"POST /stop HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut socket = TcpStream::connect(f.http.addr()).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(f.get("/health/live").await.0, 200);
    assert!(!f.stopped.load(SeqCst));
}
