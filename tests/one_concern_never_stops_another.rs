//! A whole provider on an embedded chain, over TCP, with proofs that cost nothing: a panic or a kill inserted into any one
//! concern restarts that concern and no other, and windows are proven while all the others panic.

mod devnet_support;

use async_trait::async_trait;
use bulkhead::config::Config;
use bulkhead::devnet::tree::{ChainServer, ServerConfig, WhereIs};
use bulkhead::devnet::{Devnet, DevnetSettings};
use bulkhead::node::identity::Identity;
use bulkhead::node::settings::NodeSettings;
use bulkhead::node::{Links, Node};
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::client::RpcClient;
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::supervisor::{ActorInfo, ActorState, Exit, Ref, Tree};
use devnet_support::{GOOD, Net};
use fvm_shared::address::Address;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Anything that is awaited; far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(120);
const DRILL: &str = "panicked on request (drill)";

const CHAIN: [&str; 3] = ["root/chain/daemon_pool", "root/chain/head_feed", "root/chain/message_sender"];
const PROVING: [&str; 2] = ["root/proving/window_post", "root/proving/winning_post"];
const OTHERS: [&str; 8] = [
    "root/sealing/sector_allocator",
    "root/sealing/seal_scheduler",
    "root/markets/deal_handler-t01000",
    "root/admin/info",
    "root/admin/admin_http",
    "root/admin/api_server",
    "devnet/clock",
    "devnet/json_rpc",
];

fn concerns() -> impl Iterator<Item = &'static str> {
    CHAIN.into_iter().chain(PROVING).chain(OTHERS)
}

/// Who is started again after `victim`: itself and, where the order of the group says so, those that build on it.
fn restarted_with(victim: &str) -> Vec<&'static str> {
    match CHAIN.iter().position(|path| *path == victim) {
        Some(place) => CHAIN[place..].to_vec(),
        None => concerns().filter(|path| *path == victim).collect(),
    }
}

/// Leaves the files that a sealed sector has, and proofs that the scripted verifier takes for good.
struct GoodProver;

#[async_trait]
impl Prover for GoodProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        Ok(match job.task {
            Task::AddPiece { .. } => Output::Piece { comm_p: [1; 32] },
            Task::Pc1 { cache_dir, sealed_path, .. } => {
                std::fs::create_dir_all(&cache_dir).unwrap();
                std::fs::write(sealed_path, [0; 2048]).unwrap();
                for name in ["p_aux", "t_aux"] {
                    std::fs::write(cache_dir.join(name), "").unwrap();
                }
                Output::Phase1(vec![1])
            }
            Task::Pc2 { .. } => Output::Pc2 { comm_r: [2; 32], comm_d: [0; 32] },
            Task::C1 { .. } => Output::Phase1(vec![2]),
            Task::C2 { .. } | Task::WinningPost { .. } | Task::WindowPost { .. } => Output::Proof(GOOD.to_vec()),
            Task::Finalize { .. } => Output::Done,
            Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => Output::Verified(true),
            Task::WinningChallenge { .. } => Output::Challenged(vec![0]),
        })
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
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

struct World {
    _dir: tempfile::TempDir,
    chain: Tree,
    info: ApiInfo,
    miner: Address,
    config: Config,
}

async fn world() -> World {
    let settings = DevnetSettings {
        block_delay: Duration::from_secs(1),
        warmup_delay: Duration::from_millis(250),
        deadlines: 3,
        challenge_window: 6,
        challenge_lookback: 3,
        fault_cutoff: 2,
        dispute_window: 10,
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
    let (chain, token) = tokio::task::spawn_blocking(move || {
        let devnet = Devnet::open_with(&chain_dir, settings, verifier).unwrap();
        let auth = Arc::new(Auth::open(&chain_dir).unwrap());
        let token = auth.token(&Perm::ALL).unwrap();
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), dir: chain_dir, auth };
        (Tree::start(bulkhead::devnet::tree::spec(devnet, config, &address)).unwrap(), token)
    })
    .await
    .unwrap();
    let addr = server.ask(WhereIs, LIMIT).await.unwrap();
    let mut config = Config { repo: dir.path().join("node"), ..Config::default() };
    std::fs::create_dir_all(&config.repo).unwrap();
    config.api.listen = "127.0.0.1:0".parse().unwrap();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    World { _dir: dir, chain, info: ApiInfo::local(addr, Some(token)), miner, config }
}

/// A running node and how anybody reaches it.
struct Provider {
    node: Node,
    repo: PathBuf,
    http: reqwest::Client,
    full_node: Arc<dyn FullNode>,
}

impl World {
    fn link(&self) -> Arc<dyn FullNode> {
        Arc::new(HttpFullNode::new(self.info.clone()).unwrap())
    }

    async fn start_node(&self) -> Provider {
        let link = || self.link();
        let links = Links { chain: link(), proving: link(), sealing: link(), markets: link(), admin: link() };
        let identity = Identity::establish(&self.config.repo, self.miner, &links.chain).await.unwrap();
        let settings = NodeSettings { beside: Some(self.chain.clone()), ..NodeSettings::of(&self.config).for_devnet() };
        let node = tokio::task::spawn_blocking(move || Node::start(settings, identity, links, Arc::new(GoodProver)));
        let node = node.await.unwrap().unwrap();
        Provider { node, repo: self.config.repo.clone(), http: reqwest::Client::new(), full_node: link() }
    }
}

impl Provider {
    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo.join(name)).unwrap()
    }

    /// What `bulkhead tree` shows. `None` while the endpoint itself is being restarted.
    async fn actors(&self) -> Option<BTreeMap<String, ActorInfo>> {
        let url = format!("http://{}/actors", self.file("admin"));
        let rows: Vec<ActorInfo> = self.http.get(url).send().await.ok()?.json().await.ok()?;
        Some(rows.into_iter().map(|row| (row.path.clone(), row)).collect())
    }

    async fn all_up(&self) -> BTreeMap<String, ActorInfo> {
        eventually("all actors up", || async {
            self.actors().await.filter(|rows| rows.values().all(|row| row.state == ActorState::Up))
        })
        .await
    }

    async fn order(&self, victim: &str, what: &str, token: Option<&str>) -> Option<u16> {
        let url = format!("http://{}/actors/{victim}/{what}", self.file("admin"));
        let request = self.http.post(url).timeout(Duration::from_secs(10));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        // the endpoint that is to panic may do so before its answer is out
        request.send().await.ok().map(|answer| answer.status().as_u16())
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Value> {
        let text = format!("{}:{}", self.file("token"), self.file("api"));
        let client = RpcClient::new(&ApiInfo::parse("api", &text).ok()?, "v0").ok()?;
        client.call(method, params, Duration::from_secs(10)).await.ok()
    }

    async fn height(&self) -> Option<i64> {
        self.full_node.chain_head().await.ok().map(|head| head.height)
    }

    /// The chain moves, the node follows it, and its API answers.
    async fn works(&self) {
        let before = eventually("the head", || self.height()).await;
        eventually("a new head", || async { self.height().await.filter(|now| *now > before) }).await;
        eventually("the list of sectors", || async {
            self.call("Filecoin.SectorsList", vec![]).await.filter(|list| *list == json!([1]))
        })
        .await;
        eventually("WindowPoSt on that head", || async {
            let report = self.node.backend.window_post().await.ok()?;
            report.height.filter(|height| *height > before)
        })
        .await;
    }

    /// Exactly the victim (and those that its group's order restarts with it) comes back; nobody else notices.
    async fn drill(&self, victim: &str, what: &str, ended_so: fn(&Exit) -> bool) {
        let before = self.all_up().await;
        let token = self.file("token");
        assert_eq!(self.order(victim, what, None).await, Some(401), "{victim}: no token, no {what}");
        let answer = self.order(victim, what, Some(&token)).await;
        assert!(matches!(answer, None | Some(200)), "{victim}: {answer:?}");
        let expected = restarted_with(victim);
        let after = eventually(&format!("{expected:?} up again after {what}"), || async {
            let rows = self.actors().await?;
            let back = |path: &&str| {
                rows[*path].incarnation > before[*path].incarnation && rows[*path].state == ActorState::Up
            };
            expected.iter().all(back).then_some(rows)
        })
        .await;
        self.works().await;
        let settled = self.all_up().await;
        for (path, row) in &settled {
            let restarts = u64::from(expected.contains(&path.as_str()));
            assert_eq!(row.restarts, before[path].restarts + restarts, "{what} of {victim}: restarts of {path}");
            assert_eq!(row.incarnation, before[path].incarnation + restarts, "{what} of {victim}: {path}");
        }
        let exit = &after[victim].last_exit;
        assert!(exit.as_ref().is_some_and(ended_so), "{victim} after {what}: {exit:?}");
    }

    /// Windows that opened at or after an epoch: landed, missed.
    async fn windows(&self, from: i64) -> Option<(usize, usize)> {
        let report = self.node.backend.window_post().await.ok()?;
        let batches = || report.deadlines.iter().filter(|d| d.open >= from).flat_map(|d| &d.batches);
        let count = |phase: &str| batches().filter(|b| b.phase == phase).count();
        Some((count("landed"), count("missed")))
    }
}

/// A world with power, so that every deadline counts.
async fn proving() -> (World, Provider) {
    let world = world().await;
    let provider = world.start_node().await;
    assert_eq!(provider.node.backend.pledge("first".into()).await.unwrap(), 1);
    eventually("a window proven", || async { provider.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;
    (world, provider)
}

async fn end(world: World, provider: Provider) {
    assert_eq!(provider.windows(0).await.unwrap().1, 0, "windows missed");
    provider.node.stop().await;
    let Provider { node, http, .. } = provider;
    drop((node, http));
    let again = eventually("the repo is free for another life", || async {
        Identity::establish(&world.config.repo, world.miner, &world.link()).await.ok()
    });
    drop(again.await);
    world.chain.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_each_concern_stays_there() {
    let (world, provider) = proving().await;
    for victim in concerns() {
        provider.drill(victim, "panic", |e| matches!(e, Exit::Panicked(why) if why.starts_with(DRILL))).await;
    }
    end(world, provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_each_concern_stays_there() {
    let (world, provider) = proving().await;
    for victim in concerns() {
        provider.drill(victim, "kill", |e| *e == Exit::Killed).await;
    }
    end(world, provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_proven_while_all_other_concerns_panic_again_and_again() {
    let (world, provider) = proving().await;
    let before = provider.all_up().await;
    let from = eventually("the head", || provider.height()).await;
    // No concern more often than its group's budget allows: then it is the concern that falls, not the group.
    let schedule = [&OTHERS[..], &CHAIN[..], &OTHERS[..], &CHAIN[2..], &OTHERS[..], &CHAIN[2..]].concat();
    let mut victims = schedule.into_iter();
    let mut panics = BTreeMap::<&str, u64>::new();
    let mut last = from;
    loop {
        let height = eventually("the chain moves on", || async { provider.height().await.filter(|h| *h > last) }).await;
        last = height;
        for victim in victims.by_ref().take(3) {
            if provider.node.tree.panic(victim) || world.chain.panic(victim) {
                *panics.entry(victim).or_default() += 1;
            }
        }
        // opened after the first panics: every step of its proof lies among them
        let (landed, missed) = eventually("WindowPoSt answers", || provider.windows(from + 1)).await;
        assert_eq!(missed, 0, "a window was missed while {panics:?}");
        if landed >= 1 && panics.values().sum::<u64>() >= 20 {
            break;
        }
        assert!(height < from + 200, "no window landed: {panics:?}");
    }
    let after = provider.all_up().await;
    for path in PROVING {
        assert_eq!(after[path].incarnation, before[path].incarnation, "{path} was touched");
    }
    for (path, count) in &panics {
        assert!(after[*path].restarts >= before[*path].restarts + count, "{path} panicked {count} times");
    }
    provider.works().await;
    let power = provider.full_node.state_miner_power(&world.miner, &Default::default()).await.unwrap();
    assert_eq!(power.miner_power.raw_byte_power, 2048.into(), "no power was lost");
    end(world, provider).await;
}
