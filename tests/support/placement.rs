//! A provider spread over processes: the chain here, each node a process of its own (this very test program, started
//! again as [`a_node`]), etcd beside them. Proofs cost nothing.

use crate::support::devnet::{GOOD, Net};
use crate::support::etcd::{Etcds, TTL};
use async_trait::async_trait;
use bulkhead::cli;
use bulkhead::config::{Config, Overrides, load};
use bulkhead::devnet::tree::{ChainServer, ServerConfig};
use bulkhead::devnet::{Devnet, DevnetSettings};
use bulkhead::node::identity::Identity;
use bulkhead::node::roles::Roles;
use bulkhead::node::settings::{ClusterSettings, DirectorySettings, EtcdSettings, NodeSettings};
use bulkhead::node::{Links, Node};
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task, tasks};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::client::RpcClient;
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::rpc::server_actor::WhereIs;
use bulkhead::supervisor::{ActorInfo, ActorState, Ref, Tree};
use clap::Parser;
use fvm_shared::address::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Anything that is awaited; far more than a loaded machine needs.
pub const LIMIT: Duration = Duration::from_secs(180);
const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Leaves the files that a sealed sector has, and proofs that the scripted verifier takes for good.
pub struct GoodProver;

/// Of every sector that [`GoodProver`] seals.
pub fn comm_r() -> [u8; 32] {
    tasks::comm_r_of(&[0; 64]).unwrap()
}

#[async_trait]
impl Prover for GoodProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        Ok(match job.task {
            Task::AddPiece { .. } => Output::Piece { comm_p: [1; 32] },
            Task::Pc1 { cache_dir, sealed_path, .. } => {
                std::fs::create_dir_all(&cache_dir).unwrap();
                std::fs::write(sealed_path, [0; 2048]).unwrap();
                std::fs::write(cache_dir.join("t_aux"), "").unwrap();
                std::fs::write(cache_dir.join("p_aux"), [0; 64]).unwrap();
                Output::Phase1(vec![1])
            }
            Task::Pc2 { .. } => Output::Pc2 { comm_r: comm_r(), comm_d: [0; 32] },
            Task::C1 { .. } => Output::Phase1(vec![2]),
            Task::Finalize { .. } => Output::Done,
            Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => Output::Verified(true),
            Task::WinningChallenge { .. } => Output::Challenged(vec![0]),
            Task::PostChallenges { sectors, .. } => {
                Output::Challenges(sectors.into_iter().map(|n| (n, vec![1])).collect())
            }
            Task::Vanilla { sectors, .. } => Output::Vanilla(
                sectors
                    .iter()
                    .map(|(sector, _)| match sector.sealed_path.exists() {
                        true => (sector.number, Ok(GOOD.to_vec())),
                        false => (sector.number, Err("it is not here".to_string())),
                    })
                    .collect(),
            ),
            _ => Output::Proof(GOOD.to_vec()),
        })
    }
}

pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let tries = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, tries).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The chain, with a miner, and a folder for repos.
pub struct World {
    pub dir: tempfile::TempDir,
    chain: Tree,
    token: String,
    at: SocketAddr,
    pub miner: Address,
}

impl World {
    pub async fn start() -> World {
        World::start_with(6).await
    }

    /// `window`: epochs of a second that a deadline is open.
    pub async fn start_with(window: i64) -> World {
        let settings = DevnetSettings {
            block_delay: Duration::from_secs(1),
            warmup_delay: Duration::from_millis(250),
            deadlines: 3,
            challenge_window: window,
            challenge_lookback: 3,
            fault_cutoff: 2,
            dispute_window: 10.min(window * 2 - 2),
            pre_commit_challenge_delay: 3,
            chain_finality: 10,
            winning_lookback: 3,
            ..Default::default()
        };
        // A miner by hand, then the same chain with a clock.
        let Net { devnet, verifier, dir, miner, settings, .. } = Net::start_with(settings).await;
        drop(devnet);
        let (chain_dir, server) = (dir.path().to_path_buf(), Ref::<ChainServer>::new("/devnet/json-rpc", 16));
        let address = server.clone();
        let started = tokio::task::spawn_blocking(move || {
            let devnet = Devnet::open_with(&chain_dir, settings, verifier).unwrap();
            let auth = Arc::new(Auth::open(&chain_dir).unwrap());
            let token = auth.token(&Perm::ALL).unwrap();
            let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), dir: chain_dir, auth };
            (Tree::start(bulkhead::devnet::tree::spec(devnet, config, &address)).unwrap(), token)
        });
        let (chain, token) = started.await.unwrap();
        let at = server.ask(WhereIs, LIMIT).await.unwrap();
        World { dir, chain, token, at, miner }
    }

    pub fn full_node(&self) -> Arc<dyn FullNode> {
        Arc::new(HttpFullNode::new(ApiInfo::local(self.at, Some(self.token.clone()))).unwrap())
    }

    pub async fn height(&self) -> i64 {
        eventually("the head", || async { self.full_node().chain_head().await.ok().map(|head| head.height) }).await
    }

    /// A node's description; nodes share one folder of sectors, as hosts share a mount.
    pub fn plan(&self, name: &str, etcds: Option<&Etcds>) -> Plan {
        let repo = self.dir.path().join(name);
        std::fs::create_dir_all(&repo).unwrap();
        let shared = self.dir.path().join("shared-sectors");
        std::fs::create_dir_all(&shared).unwrap();
        if !repo.join("sectors").exists() {
            std::os::unix::fs::symlink(&shared, repo.join("sectors")).unwrap();
        }
        Plan {
            name: name.into(),
            repo,
            bind: LOCAL,
            full_node: self.at,
            token: self.token.clone(),
            miner: self.miner.to_string(),
            etcd: etcds.map(Etcds::endpoints),
            roles: vec!["all".into()],
            placement: BTreeMap::new(),
            lease_ttl: TTL,
            file: None,
        }
    }

    pub async fn end(self) {
        self.chain.shutdown().await;
    }
}

/// Everything that a node's process is told.
#[derive(Serialize, Deserialize, Clone)]
pub struct Plan {
    pub name: String,
    pub repo: PathBuf,
    /// Where its servers listen.
    pub bind: IpAddr,
    pub full_node: SocketAddr,
    pub token: String,
    pub miner: String,
    /// `None`: it is the whole provider.
    pub etcd: Option<Vec<String>>,
    pub roles: Vec<String>,
    pub placement: BTreeMap<String, Vec<String>>,
    pub lease_ttl: Duration,
    /// A `config.toml`, and the arguments of `bulkhead run` with it: they say all of the cluster, and what is above nothing.
    pub file: Option<(String, Vec<String>)>,
}

impl Plan {
    pub fn roles(mut self, roles: &[&str]) -> Plan {
        self.roles = roles.iter().map(|role| role.to_string()).collect();
        self
    }

    pub fn prefer(mut self, concern: &str, nodes: &[&str]) -> Plan {
        self.placement.insert(concern.into(), nodes.iter().map(|node| node.to_string()).collect());
        self
    }

    /// A node of cluster `main` as its operator would set it up: these keys in `[cluster]`, these arguments.
    pub fn configured(mut self, keys: &[(&str, String)], args: &[&str]) -> Plan {
        let keys = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect::<String>();
        let full_node = format!("{}:/ip4/{}/tcp/{}/http", self.token, self.full_node.ip(), self.full_node.port());
        let text = format!(
            "[node]\nminer = \"{}\"\n[full_node]\napi_info = \"{full_node}\"\n[api]\nlisten = \"{bind}:0\"\n\
             [admin]\nlisten = \"{bind}:0\"\n[cluster]\nname = \"main\"\nnode = \"{}\"\nlisten = [\"/ip4/{bind}/tcp/0\"]\n{keys}",
            self.miner,
            self.name,
            bind = self.bind,
        );
        self.file = Some((text, args.iter().map(|arg| arg.to_string()).collect()));
        self
    }

    /// As `bulkhead run` does it.
    fn read(&self, text: &str, args: &[String]) -> Config {
        std::fs::write(self.repo.join("config.toml"), text).unwrap();
        let line = ["bulkhead", "run"].into_iter().chain(args.iter().map(String::as_str));
        let cli::args::Command::Run(args) = cli::args::Cli::try_parse_from(line).unwrap().command else {
            unreachable!("it is run")
        };
        args.miner.check().unwrap();
        let repo = Some(self.repo.clone());
        let config = load(&args.overrides(Overrides { repo, ..Default::default() }), &|_| None).unwrap().config;
        args.miner.check_cluster(&config.cluster).unwrap();
        config
    }

    fn settings(&self) -> NodeSettings {
        let mut config = match &self.file {
            Some((text, args)) => self.read(text, args),
            None => Config { repo: self.repo.clone(), ..Config::default() },
        };
        if self.file.is_some() {
            return NodeSettings::of(&config).for_devnet();
        }
        config.api.listen = SocketAddr::new(self.bind, 0);
        config.admin.listen = SocketAddr::new(self.bind, 0);
        let cluster = self.etcd.as_ref().map(|endpoints| ClusterSettings {
            directory: DirectorySettings::Etcd(EtcdSettings { endpoints: endpoints.clone(), ..Default::default() }),
            listen: vec![format!("/ip4/{}/tcp/0", self.bind)],
            lease_ttl: self.lease_ttl,
            placement: self.placement.clone(),
            ..ClusterSettings::alone("main", self.name.as_str())
        });
        let roles = Roles::parse(self.roles.iter().map(String::as_str)).unwrap();
        NodeSettings { cluster, roles, ..NodeSettings::of(&config).for_devnet() }
    }

    /// On this host, or in that namespace: `command` starts this test program there.
    pub fn start(self, mut command: Command) -> NodeProcess {
        let plan = serde_json::to_string(&self).unwrap();
        command.args(["--exact", "a_node", "--ignored", "--nocapture"]).env("PLAN", plan);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let name = self.name.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                eprintln!("[{name}] {line}");
            }
        });
        NodeProcess { plan: self, child: Some(child), http: reqwest::Client::new() }
    }

    /// A node that does not run, in the place of one that is about to.
    pub fn stand_in(&self) -> NodeProcess {
        NodeProcess { plan: self.clone(), child: None, http: reqwest::Client::new() }
    }

    pub fn start_here(self) -> NodeProcess {
        self.start(Command::new(std::env::current_exe().unwrap()))
    }

    /// In this process.
    pub async fn node(&self) -> Node {
        let info = ApiInfo::local(self.full_node, Some(self.token.clone()));
        let link = || -> Arc<dyn FullNode> { Arc::new(HttpFullNode::new(info.clone()).unwrap()) };
        let links = Links { chain: link(), proving: link(), sealing: link(), markets: link(), admin: link() };
        let miner = bulkhead::chain::lotus_json::address::parse(&self.miner).unwrap();
        let identity = Identity::establish(&self.repo, miner, &links.chain).await.unwrap();
        let settings = self.settings();
        let node = tokio::task::spawn_blocking(move || Node::start(settings, identity, links, Arc::new(GoodProver)));
        node.await.unwrap().unwrap()
    }
}

/// The body of `a_node`: runs the node of `PLAN` until its stdin ends.
pub async fn run_as_node() {
    let Ok(plan) = std::env::var("PLAN") else { return };
    let plan: Plan = serde_json::from_str(&plan).unwrap();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,bulkhead::node=info".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout).with_ansi(false).try_init();
    let node = plan.node().await;
    let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = told.await;
    node.stop().await;
}

pub struct NodeProcess {
    pub plan: Plan,
    child: Option<Child>,
    http: reqwest::Client,
}

impl NodeProcess {
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Nothing of it is left a moment later, and nobody was told.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: i32) {
        let child = self.child.as_ref().expect("it runs");
        // SAFETY: our own child, not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    /// In order.
    pub async fn stop(mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{}: {status}", self.plan.name);
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.plan.repo.join(name)).ok()
    }

    /// Status and body.
    pub async fn admin_post(&self, path: &str) -> (u16, Value) {
        let (at, token) = (self.file("admin").unwrap(), self.file("token").unwrap());
        let answer = self.http.post(format!("http://{at}{path}")).bearer_auth(token.trim()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What `bulkhead tree` shows.
    pub async fn actors(&self) -> Option<BTreeMap<String, ActorInfo>> {
        let url = format!("http://{}/actors", self.file("admin")?);
        let rows: Vec<ActorInfo> = self.http.get(url).send().await.ok()?.json().await.ok()?;
        Some(rows.into_iter().map(|row| (row.path.clone(), row)).collect())
    }

    /// What `bulkhead cluster status` shows.
    pub async fn cluster(&self) -> Option<Value> {
        let url = format!("http://{}/cluster", self.file("admin")?);
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    /// What `/health/ready` answers: its status and its body.
    pub async fn ready(&self) -> Option<(u16, Value)> {
        let answer = self.http.get(format!("http://{}/health/ready", self.file("admin")?)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Which concerns run here.
    pub async fn runs(&self) -> Option<Vec<String>> {
        let rows = self.actors().await?;
        let groups = ["root/chain/message_sender", "root/proving/", "root/sealing/", "root/markets/"];
        let concerns = rows.into_values().filter(|row| groups.iter().any(|group| row.path.starts_with(group)));
        Some(concerns.filter(|row| row.state == ActorState::Up).filter_map(|row| row.address).collect())
    }

    pub async fn call(&self, method: &str, params: Vec<Value>) -> Result<Value, String> {
        let (token, api) = (self.file("token").ok_or("no token")?, self.file("api").ok_or("no api")?);
        let info = ApiInfo::parse("api", &format!("{token}:{api}")).map_err(|e| e.to_string())?;
        let client = RpcClient::new(&info, "v0").map_err(|e| e.to_string())?;
        client.call(method, params, Duration::from_secs(20)).await.map_err(|e| format!("{e:?}"))
    }

    /// Asks until it has an answer that is looked for.
    pub async fn wants<T>(&self, what: &str, method: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.plan.name), || async {
            self.call(method, vec![]).await.ok().and_then(|answer| wanted(&answer))
        })
        .await
    }

    /// Windows that opened at or after an epoch: landed, missed.
    pub async fn windows(&self, from: i64) -> Option<(usize, usize)> {
        let report = self.call("Bulkhead.WindowPost", vec![]).await.ok()?;
        let (mut landed, mut missed) = (0, 0);
        for deadline in report["deadlines"].as_array()?.iter().filter(|d| d["open"].as_i64() >= Some(from)) {
            for batch in deadline["batches"].as_array()? {
                match batch["phase"].as_str()? {
                    "landed" => landed += 1,
                    "missed" => missed += 1,
                    _ => {}
                }
            }
        }
        Some((landed, missed))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes a server of this host's loopback reachable at another address, for hosts that are namespaces.
pub async fn forward(at: IpAddr, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await; // either end may leave
                }
            });
        }
    });
    addr
}
