//! The pool of full nodes, served as one, beside a direct connection and beside nginx as a round-robin proxy of the same
//! nodes, in turns in the same run; a node that is killed under calls; heads for 1,000 subscribers.
//!
//! `cargo bench --bench pool` (nginx is left out where it is not installed). Two chain processes of `bulkhead devnet
//! --chain-only` with epochs of five minutes; the pool is a process of its own. Calls go out at fixed times (open loop): an
//! answer's latency counts from when its call was due. `BULKHEAD_BENCH_ROUNDS` (default 5) rounds.

use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::pool::entries::PoolEntry;
use bulkhead::rpc::full_node::pool::{NodePool, PoolSettings};
use bulkhead::rpc::pool_api::PoolApi;
use bulkhead::rpc::server::{Service, serve};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message as Ws;

#[path = "../tests/support/scripted.rs"]
#[allow(dead_code)]
mod scripted;

const PER_SECOND: u32 = 1000;
const OPEN_LOOP: Duration = Duration::from_secs(4);
const CLOSED_LOOP: Duration = Duration::from_secs(3);
const CALLERS: usize = 32;
const SUBSCRIBERS: usize = 1000;
const HEADS: i64 = 200;

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A chain in a process of its own; its API.
fn chain(dir: &Path) -> (Process, ApiInfo) {
    std::fs::create_dir_all(dir).expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["devnet", "--chain-only", "--json", "--listen", "127.0.0.1:0", "--block-delay", "5m", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the chain starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let ready =
        out.lines().map_while(Result::ok).find(|line| line.contains("\"ready\"")).expect("it says that it is up");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let file = ready["api_info_file"].as_str().unwrap_or_else(|| panic!("{ready}"));
    let info = std::fs::read_to_string(file).expect("its address");
    (Process(child), ApiInfo::parse("FULLNODE_API_INFO", info.trim()).expect("an address"))
}

fn pool_of(nodes: &[ApiInfo]) -> NodePool {
    let entries: Vec<PoolEntry> = nodes.iter().cloned().map(PoolEntry::of).collect();
    NodePool::new(&entries, PoolSettings::default())
}

/// The pool as it is served, as the child of this bench: prints its address, and ends with its standard input.
async fn serve_pool(nodes: &str) {
    let nodes = PoolEntry::parse_list("nodes", nodes).expect("addresses");
    let dir = tempfile::tempdir().expect("a folder");
    let nodes: Vec<ApiInfo> = nodes.into_iter().map(|node| node.info).collect();
    let api = Arc::new(PoolApi::new(pool_of(&nodes), "t01000", dir.path()));
    let auth = Arc::new(Auth::with_secret(vec![7; 32]));
    let server = serve("127.0.0.1:0".parse().expect("an address"), Service::of_upstream(api, auth)).expect("it serves");
    println!("{}", server.addr());
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}

fn pool_process(nodes: &[ApiInfo]) -> (Process, ApiInfo) {
    let nodes: Vec<String> = nodes.iter().map(ApiInfo::secret_text).collect();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env("BULKHEAD_BENCH_POOL_OF", nodes.join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the pool starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
    let token = Auth::with_secret(vec![7; 32]).token(&Perm::ALL).expect("a token");
    (Process(child), ApiInfo::local(line.trim().parse().expect("an address"), Some(token)))
}

/// nginx in front of `nodes`, one after the other; `None`: it is not installed. The callers show the first node's token, so
/// both nodes have the same secret.
fn nginx(dir: &Path, nodes: &[ApiInfo]) -> Option<(Process, ApiInfo)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let upstream: String = nodes.iter().map(|node| format!("server {};", node.name())).collect();
    let conf = dir.join("nginx.conf");
    let mut file = std::fs::File::create(&conf).ok()?;
    write!(
        file,
        "daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 2;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         upstream nodes {{ {upstream} keepalive 64; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000;\n\
         location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
        dir = dir.display(),
    )
    .ok()?;
    let child = Command::new("nginx").arg("-c").arg(&conf).stderr(Stdio::null()).spawn().ok()?;
    let process = Process(child);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let began = Instant::now();
    while std::net::TcpStream::connect(at).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            return None;
        }
        std::thread::yield_now();
    }
    Some((process, ApiInfo::local(at, nodes[0].token.clone())))
}

#[derive(Clone)]
struct Caller {
    http: reqwest::Client,
    info: ApiInfo,
}

impl Caller {
    fn of(info: &ApiInfo) -> Caller {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).pool_max_idle_per_host(256).build();
        Caller { http: http.expect("a client"), info: info.clone() }
    }

    /// Whether the call got its result.
    async fn call(&self) -> bool {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "Filecoin.ChainGetTipSetByHeight", "params": [0, null]});
        let request = self.http.post(self.info.http_url("v1")).json(&body).timeout(Duration::from_secs(30));
        let request = request.bearer_auth(self.info.token.as_deref().unwrap_or_default());
        let Ok(answer) = request.send().await else { return false };
        answer.json::<Value>().await.is_ok_and(|answer| answer["result"]["Height"] == 0)
    }
}

/// Latencies in order, and the calls without a result.
async fn open_loop(caller: &Caller, length: Duration) -> (Vec<Duration>, usize) {
    let (count, gap) = ((length.as_secs_f64() * f64::from(PER_SECOND)) as u32, Duration::from_secs(1) / PER_SECOND);
    let began = tokio::time::Instant::now() + Duration::from_millis(20);
    let mut calls = Vec::new();
    for n in 0..count {
        let (due, caller) = (began + gap * n, caller.clone());
        tokio::time::sleep_until(due).await;
        calls.push(tokio::spawn(async move { (caller.call().await, due.elapsed()) }));
    }
    let (mut took, mut failed) = (Vec::new(), 0);
    for call in calls {
        match call.await.expect("no panic") {
            (true, latency) => took.push(latency),
            (false, _) => failed += 1,
        }
    }
    took.sort_unstable();
    (took, failed)
}

/// Calls a second of [`CALLERS`] that each call again when they are answered.
async fn closed_loop(caller: &Caller) -> f64 {
    let until = Instant::now() + CLOSED_LOOP;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move {
                let mut calls = 0u32;
                while Instant::now() < until {
                    assert!(caller.call().await);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut all = 0;
    for caller in callers {
        all += caller.await.expect("no panic");
    }
    f64::from(all) / CLOSED_LOOP.as_secs_f64()
}

fn at(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// From the arrival of a head to the last of [`SUBSCRIBERS`] that has it, over four WebSockets: the median and the slowest of
/// [`HEADS`] heads, in milliseconds.
async fn heads() -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let api = Arc::new(PoolApi::new(pool_of(&[]), "t01000", dir.path()));
    let auth = Arc::new(Auth::with_secret(vec![7; 32]));
    let token = auth.token(&[Perm::Read]).expect("a token");
    let service = Service::of_upstream(api.clone(), auth);
    let server = serve("127.0.0.1:0".parse().expect("an address"), service).expect("it serves");
    let tipset = |height: i64| Arc::new(scripted::tipset(&format!("t{height}"), height, &format!("t{}", height - 1)));
    api.heads().head(&tipset(0), None);
    const SOCKETS: usize = 4;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..SOCKETS {
        let url = format!("{}?token={token}", ApiInfo::local(server.addr(), None).ws_url("v1"));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
        let tell = tell.clone();
        tokio::spawn(async move {
            for id in 0..SUBSCRIBERS / SOCKETS {
                let ask = json!({"jsonrpc": "2.0", "id": id, "method": "Filecoin.ChainNotify", "params": []});
                socket.send(Ws::text(ask.to_string())).await.expect("asked");
            }
            while let Some(Ok(frame)) = socket.next().await {
                if frame.is_text() && frame.to_text().is_ok_and(|text| text.contains("xrpc.ch.val")) {
                    let _ = tell.send(());
                }
            }
        });
    }
    let mut took = Vec::new();
    for height in 0..=HEADS {
        let began = Instant::now();
        if height > 0 {
            api.heads().head(&tipset(height), None);
        }
        for _ in 0..SUBSCRIBERS {
            told.recv().await.expect("a head");
        }
        if height > 0 {
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let slowest = took.iter().copied().fold(0.0, f64::max);
    (median(took), slowest)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if let Ok(nodes) = std::env::var("BULKHEAD_BENCH_POOL_OF") {
        return serve_pool(&nodes).await;
    }
    let rounds = std::env::var("BULKHEAD_BENCH_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir().expect("a folder");
    let (_first, first) = chain(&dir.path().join("first"));
    // The same secret: nginx passes the caller's token on to either.
    std::fs::create_dir_all(dir.path().join("second")).expect("a folder");
    std::fs::copy(dir.path().join("first/jwt-secret"), dir.path().join("second/jwt-secret")).expect("its secret");
    let (second_process, second) = chain(&dir.path().join("second"));
    let nodes = [second.clone(), first.clone()];
    let (_pool, pool) = pool_process(&nodes);
    let proxy = nginx(dir.path(), &nodes);
    println!("machine: {} cores", std::thread::available_parallelism().map_or(0, |n| n.get()));

    let mut targets = vec![("direct", Caller::of(&first)), ("pool", Caller::of(&pool))];
    match &proxy {
        Some((_, info)) => targets.push(("nginx", Caller::of(info))),
        None => println!("nginx is not installed: left out"),
    }
    for (_, caller) in &targets {
        open_loop(caller, Duration::from_secs(1)).await; // connections, and how long the nodes mostly take
    }
    let mut measured: Vec<[Vec<f64>; 3]> = vec![Default::default(); targets.len()];
    for _ in 0..rounds {
        for ((_, caller), measured) in targets.iter().zip(&mut measured) {
            let (took, failed) = open_loop(caller, OPEN_LOOP).await;
            assert_eq!(failed, 0);
            measured[0].push(at(&took, 0.5));
            measured[1].push(at(&took, 0.99));
            measured[2].push(closed_loop(caller).await);
        }
    }
    let medians: Vec<[f64; 3]> = measured.into_iter().map(|[a, b, c]| [median(a), median(b), median(c)]).collect();
    println!("{PER_SECOND} calls/s, {rounds} rounds, medians   p50 us   p99 us   calls/s of {CALLERS} callers");
    for ((name, _), [p50, p99, rate]) in targets.iter().zip(&medians) {
        println!("  {name:<30} {p50:>14.0} {p99:>8.0} {rate:>8.0}");
    }
    let direct = medians[0];
    for ((name, _), [p50, p99, rate]) in targets.iter().zip(&medians).skip(1) {
        println!(
            "  {name} over direct: p50 +{:.0} us, p99 +{:.0} us, throughput {:.2}",
            p50 - direct[0],
            p99 - direct[1],
            rate / direct[2]
        );
    }

    // The pool's primary dies under 1,000 calls a second.
    let killed = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(second_process);
    });
    let (took, failed) = open_loop(&targets[1].1, Duration::from_secs(3)).await;
    killed.await.expect("no panic");
    println!(
        "a node killed under calls: {failed} of {} calls failed; p99 {:.0} us, slowest {:.0} us",
        took.len() + failed,
        at(&took, 0.99),
        at(&took, 1.0)
    );

    let (median, slowest) = heads().await;
    println!("a head for {SUBSCRIBERS} subscribers: median {median:.1} ms, slowest of {HEADS} {slowest:.1} ms");
}
