//! A whole provider on an embedded chain, over TCP, with proofs that cost nothing, while a WindowPoSt deadline is open and
//! its proof under way: a panic, a kill or a hang of any one concern, by hand through the admin API, restarts that concern
//! and no other, one after the other and all at once except proving, and no proof is lost.

use crate::support::devnet::{GOOD, Net};
use async_trait::async_trait;
use bulkhead::actors::sector_files::SectorDirs;
use bulkhead::config::Config;
use bulkhead::devnet::tree::{ChainServer, ServerConfig};
use bulkhead::devnet::{Devnet, DevnetSettings};
use bulkhead::node::identity::Identity;
use bulkhead::node::settings::NodeSettings;
use bulkhead::node::{Links, Node};
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::client::RpcClient;
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::rpc::server_actor::WhereIs;
use bulkhead::supervisor::{ActorInfo, ActorState, Exit, GroupRow, Inspection, Ref, Tree, TreeOptions};
use fvm_shared::address::Address;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Anything that is awaited; far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(120);
/// Inside one turn for so long is hung, here.
pub(super) const HANG_AFTER: Duration = Duration::from_secs(3);
/// The chain makes its blocks, and writes them to the disk, inside a turn of its clock.
pub(super) const CHAIN_HANGS_AFTER: Duration = Duration::from_secs(10);

const CHAIN: [&str; 3] = ["root/chain/daemon_pool", "root/chain/head_feed", "root/chain/message_sender"];
const WINDOW_POST: &str = "root/proving/window_post";
const PROVING: [&str; 2] = [WINDOW_POST, "root/proving/winning_post"];
/// Of the others, some that must be there; what is struck is whatever the tree has.
const OTHERS: [&str; 8] = [
    "root/sealing/sector_allocator",
    "root/sealing/seal_scheduler",
    "root/markets/deal_handler-t01000",
    "root/admin/info",
    "root/admin/api_server",
    "devnet/clock",
    "devnet/json_rpc",
    ENDPOINT,
];
/// Serves the admin API.
const ENDPOINT: &str = "root/admin/admin_http";

pub(super) type Rows = BTreeMap<String, ActorInfo>;

/// Every actor of both trees, those that serve the strikes last.
fn concerns(rows: &Rows) -> Vec<String> {
    let mut all: Vec<String> = rows.values().filter(|row| row.kind == "worker").map(|row| row.path.clone()).collect();
    all.sort_by_key(|path| path == ENDPOINT);
    for path in CHAIN.iter().chain(&PROVING).chain(&OTHERS) {
        assert!(all.iter().any(|known| known == path), "{path} is gone from {all:?}");
    }
    all
}

/// Those on the same thread of the same tree: one that hangs takes the others with it.
fn together(rows: &Rows, victim: &str) -> Vec<String> {
    let place = |path: &str| (path.split('/').next().map(str::to_string), rows[path].thread.clone());
    let on_it = |path: &&String| rows[*path].kind == "worker" && place(path) == place(victim);
    rows.keys().filter(on_it).cloned().collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Panic,
    Kill,
    Hang,
}

impl Fault {
    /// As the admin API calls it.
    fn name(self) -> &'static str {
        match self {
            Fault::Panic => "panic",
            Fault::Kill => "kill",
            Fault::Hang => "hang",
        }
    }

    fn ended_so(self, exit: &Exit) -> bool {
        match (self, exit) {
            (Fault::Panic, Exit::Panicked(why)) => why.starts_with("panicked on request (drill)"),
            (Fault::Kill, Exit::Killed) | (Fault::Hang, Exit::Hung(_)) => true,
            _ => false,
        }
    }

    /// Who is started again after `victim`: itself, those of its thread if that hangs, and, where the order of the group
    /// says so, those that build on it.
    fn restarts(self, rows: &Rows, victim: &str) -> Vec<String> {
        let fallen = if self == Fault::Hang { together(rows, victim) } else { vec![victim.to_string()] };
        match CHAIN.iter().position(|path| fallen.iter().any(|fell| fell == path)) {
            Some(place) => {
                let rest = fallen.iter().filter(|fell| !CHAIN.contains(&fell.as_str())).cloned();
                CHAIN[place..].iter().map(|path| path.to_string()).chain(rest).collect()
            }
            None => fallen,
        }
    }
}

/// Proofs that the scripted verifier takes for good; those of WindowPoSt while the gate is open.
pub(super) struct GatedProver {
    /// How many WindowPoSt proofs were begun.
    begun: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

impl GatedProver {
    fn shut() -> Arc<GatedProver> {
        Arc::new(GatedProver { begun: watch::channel(0).0, open: watch::channel(false).0 })
    }
    /// A window is open and its proof under way.
    async fn proof_under_way(&self) {
        let mut begun = self.begun.subscribe();
        tokio::time::timeout(LIMIT, begun.wait_for(|n| *n > 0)).await.expect("a window opens").unwrap();
    }
}

#[async_trait]
impl Prover for GatedProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        Ok(match job.task {
            Task::PostFromVanilla { .. } => {
                self.begun.send_modify(|n| *n += 1);
                self.open.subscribe().wait_for(|open| *open).await.unwrap();
                Output::Proof(GOOD.to_vec())
            }
            Task::WinningPost { .. } => Output::Proof(GOOD.to_vec()),
            Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => Output::Verified(true),
            Task::WinningChallenge { .. } => Output::Challenged(vec![0]),
            Task::PostChallenges { sectors, .. } => {
                Output::Challenges(sectors.into_iter().map(|n| (n, vec![1])).collect())
            }
            Task::Vanilla { sectors, .. } => {
                Output::Vanilla(sectors.iter().map(|(sector, _)| (sector.number, Ok(GOOD.to_vec()))).collect())
            }
            other => panic!("nothing is sealed here: {other:?}"),
        })
    }
}

pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
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

pub(super) struct World {
    _dir: tempfile::TempDir,
    pub chain: Tree,
    info: ApiInfo,
    pub miner: Address,
    config: Config,
}

async fn world(fault: Fault) -> World {
    let settings = DevnetSettings {
        block_delay: Duration::from_secs(1),
        warmup_delay: Duration::from_secs(1),
        deadlines: 3,
        // As long as a machine may take that does other work; the test ends when the proof has landed.
        challenge_window: 400,
        challenge_lookback: 3,
        fault_cutoff: 2,
        dispute_window: 10,
        pre_commit_challenge_delay: 3,
        chain_finality: 10,
        winning_lookback: 3,
        ..Default::default()
    };
    world_of(settings, (fault == Fault::Hang).then_some(CHAIN_HANGS_AFTER)).await
}

/// A chain with a miner and a sector that has power; its deadline opens a few epochs after the clock starts.
pub(super) async fn world_of(settings: DevnetSettings, hang_after: Option<Duration>) -> World {
    // By hand, then the same chain with a clock.
    let net = Net::start_with(settings).await;
    net.seal(1).await;
    let at = net.location(1).await;
    net.post(at).await;
    let proven = net.deadline().await;
    net.until(proven.open + proven.w_post_proving_period - 3);
    let Net { devnet, verifier, dir, miner, settings, .. } = net;
    drop(devnet);
    let options = TreeOptions { hang_after, ..TreeOptions::default() };
    let (chain_dir, server) = (dir.path().to_path_buf(), Ref::<ChainServer>::new("/devnet/json-rpc", 16));
    let address = server.clone();
    let (chain, token) = tokio::task::spawn_blocking(move || {
        let devnet = Devnet::open_with(&chain_dir, settings, verifier).unwrap();
        let auth = Arc::new(Auth::open(&chain_dir).unwrap());
        let token = auth.token(&Perm::ALL).unwrap();
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), dir: chain_dir, auth };
        let spec = bulkhead::devnet::tree::spec(devnet, config, &address);
        (Tree::start_with(spec, options).unwrap(), token)
    })
    .await
    .unwrap();
    let addr = server.ask(WhereIs, LIMIT).await.unwrap();
    let mut config = Config { repo: dir.path().join("node"), ..Config::default() };
    std::fs::create_dir_all(&config.repo).unwrap();
    config.api.listen = "127.0.0.1:0".parse().unwrap();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    let files = SectorDirs::of_repo(&config.repo, 1000);
    files.create().unwrap();
    std::fs::remove_dir(&files.jobs).unwrap(); // no node was up in this repo: its store is not lost
    std::fs::write(files.sealed(1), [0; 2048]).unwrap();
    std::fs::create_dir_all(files.cache(1)).unwrap();
    std::fs::write(files.cache(1).join("t_aux"), "").unwrap();
    std::fs::write(files.cache(1).join("p_aux"), crate::support::devnet::p_aux(1)).unwrap();
    World { _dir: dir, chain, info: ApiInfo::local(addr, Some(token)), miner, config }
}

/// A running node and how anybody reaches it.
pub(super) struct Provider {
    pub node: Node,
    repo: PathBuf,
    http: reqwest::Client,
    pub full_node: Arc<dyn FullNode>,
    prover: Arc<GatedProver>,
}

impl World {
    fn link(&self) -> Arc<dyn FullNode> {
        Arc::new(HttpFullNode::new(self.info.clone()).unwrap())
    }

    pub async fn start_node(&self, supervision: TreeOptions) -> Provider {
        let link = || self.link();
        let links = Links { chain: link(), proving: link(), sealing: link(), markets: link(), admin: link() };
        let identity = Identity::establish(&self.config.repo, self.miner, &links.chain).await.unwrap();
        let settings = NodeSettings {
            beside: Some(self.chain.clone()),
            supervision,
            ..NodeSettings::of(&self.config).for_devnet()
        };
        let prover = GatedProver::shut();
        let its = prover.clone();
        let node = tokio::task::spawn_blocking(move || Node::start(settings, identity, links, its));
        let node = node.await.unwrap().unwrap();
        Provider { node, repo: self.config.repo.clone(), http: reqwest::Client::new(), full_node: link(), prover }
    }
}

impl Provider {
    /// Proofs are made as soon as they are asked for.
    pub fn proves_at_once(&self) {
        self.prover.open.send_replace(true);
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo.join(name)).unwrap()
    }

    /// What `bulkhead tree` shows. `None` while the endpoint itself is being restarted.
    async fn actors(&self) -> Option<Rows> {
        let url = format!("http://{}/actors", self.file("admin"));
        let rows: Vec<ActorInfo> = self.http.get(url).send().await.ok()?.json().await.ok()?;
        Some(rows.into_iter().map(|row| (row.path.clone(), row)).collect())
    }

    pub async fn all_up(&self) -> Rows {
        eventually("all actors up", || async {
            self.actors().await.filter(|rows| rows.values().all(|row| row.state == ActorState::Up))
        })
        .await
    }

    /// By hand: `POST /actors/{path}/{panic|kill|hang}` with the admin token.
    async fn strike(&self, victim: &str, fault: Fault, before: &Rows) {
        let was = before[victim].incarnation;
        let url = format!("http://{}/actors/{victim}/{}", self.file("admin"), fault.name());
        let request = || self.http.post(&url).timeout(LIMIT);
        assert_eq!(request().send().await.unwrap().status().as_u16(), 401, "no token, no {fault:?}");
        // The endpoint that is to fall may do so before its answer is out.
        let answer = request().bearer_auth(self.file("token")).send().await.map(|answer| answer.status().as_u16());
        // What is down already, with its group, has nothing left that could fall.
        let down = self.node.tree.info(victim).is_some_and(|row| row.state != ActorState::Up || row.incarnation > was);
        assert!(matches!(answer, Err(_) | Ok(200)) || down && matches!(answer, Ok(409)), "{victim}: {answer:?}");
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
        eventually("the API", || self.call("Filecoin.SectorsList", vec![])).await;
        eventually("WindowPoSt on that head", || async {
            let report = self.node.backend.window_post().await.ok()?;
            report.height.filter(|height| *height > before)
        })
        .await;
    }

    /// All of `expected` have a new incarnation that is up.
    async fn back(&self, before: &Rows, expected: &[String], why: &str) -> Rows {
        eventually(&format!("{expected:?} up again after {why}"), || async {
            let rows = self.actors().await?;
            let back =
                |path: &String| rows[path].incarnation > before[path].incarnation && rows[path].state == ActorState::Up;
            expected.iter().all(back).then_some(rows)
        })
        .await
    }

    /// Of the window that is open: proofs that landed, and that were missed.
    async fn proofs(&self) -> Option<(usize, usize)> {
        let report = self.node.backend.window_post().await.ok()?;
        let batches = || report.deadlines.iter().flat_map(|d| &d.batches);
        let count = |phase: &str| batches().filter(|b| b.phase == phase).count();
        Some((count("landed"), count("missed")))
    }
}

/// From the opening of a window on; `strikes` comes while its proof is under way.
async fn while_a_window_is_open(fault: Fault, max_zombies: u64, strikes: impl AsyncFnOnce(&Provider)) {
    let world = world(fault).await;
    let hang_after = (fault == Fault::Hang).then_some(HANG_AFTER);
    let provider = world.start_node(TreeOptions { max_zombies, hang_after, ..TreeOptions::default() }).await;
    provider.prover.proof_under_way().await;
    provider.all_up().await;
    strikes(&provider).await;
    provider.prover.open.send_replace(true);
    let landed = eventually("the proof of the open window on chain", || async {
        provider.proofs().await.filter(|(landed, missed)| landed + missed > 0)
    });
    assert_eq!(landed.await, (1, 0), "landed, missed");
    provider.works().await;
    let power = provider.full_node.state_miner_power(&world.miner, &Default::default()).await.unwrap();
    assert_eq!(power.miner_power.raw_byte_power, 2048.into(), "no power was lost");
    let no_zombie = || async { (provider.node.tree.zombies() + world.chain.zombies() == 0).then_some(()) };
    eventually("threads that hung have come back and ended", no_zombie).await;
    provider.node.stop().await;
    let Provider { node, http, .. } = provider;
    drop((node, http));
    let again = eventually("the repo is free for another life", || async {
        Identity::establish(&world.config.repo, world.miner, &world.link()).await.ok()
    });
    drop(again.await);
    world.chain.shutdown().await;
}

/// Exactly the victim (and those that fall or are restarted with it) comes back; nobody else notices.
async fn one_after_the_other(fault: Fault) {
    // The budget of stuck threads is the usual one: each is back and gone before the next but one hangs.
    let zombies = TreeOptions::default().max_zombies;
    while_a_window_is_open(fault, zombies, async |provider| {
        for victim in &concerns(&provider.all_up().await) {
            let before = provider.all_up().await;
            provider.strike(victim, fault, &before).await;
            let expected = fault.restarts(&before, victim);
            let rows = provider.back(&before, &expected, &format!("{fault:?} of {victim}")).await;
            // A group that is started again for a neighbour's sake stops its members in order.
            if expected.first() == Some(victim) || !victim.starts_with("root/chain") {
                let exit = &rows[victim].last_exit;
                assert!(exit.as_ref().is_some_and(|exit| fault.ended_so(exit)), "{victim} after {fault:?}: {exit:?}");
            }
            let settled = provider.all_up().await;
            for (path, row) in &settled {
                let (was, fell) = (&before[path], expected.contains(path));
                let grown = (row.incarnation - was.incarnation, row.restarts - was.restarts);
                match fault {
                    // A neighbour on the thread may fall during the restart of the group, and be restarted after it.
                    Fault::Hang if fell => assert!(grown.0 >= 1 && grown.1 >= 1, "{victim} hung: {path} {grown:?}"),
                    _ => assert_eq!(grown, (fell.into(), fell.into()), "{fault:?} of {victim}: {path}"),
                }
            }
        }
    })
    .await;
}

/// All but proving fall together, and the proof is done while they are down.
async fn all_at_once(fault: Fault) {
    while_a_window_is_open(fault, 16, async |provider| {
        let before = provider.all_up().await;
        let mut victims = concerns(&before);
        victims.retain(|path| !PROVING.contains(&path.as_str()));
        for victim in &victims {
            provider.strike(victim, fault, &before).await;
        }
        provider.prover.open.send_replace(true);
        provider.back(&before, &victims, &format!("{fault:?} of all")).await;
        let after = provider.all_up().await;
        for path in PROVING {
            assert_eq!(after[path].incarnation, before[path].incarnation, "{path} was touched");
        }
    })
    .await;
}

/// What an operator looks for in each of them while the proof is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_shows_its_state_while_a_window_is_open() {
    while_a_window_is_open(Fault::Panic, 2, async |provider| {
        for (path, pointer) in [
            (WINDOW_POST, "/current/Index"),
            ("root/proving/winning_post", "/own_blocks/kept"),
            ("root/chain/message_sender", "/messages/open"),
            ("root/chain/daemon_pool", "/nodes/0/height"),
            ("root/chain/head_feed", "/feed/height"),
            ("root/sealing/sector_allocator", "/leased"),
            ("root/sealing/seal_scheduler", "/driver/limits/pc1"),
            ("root/markets/deal_handler-t01000", "/market/peer_id"),
        ] {
            eventually(&format!("{path} shows {pointer}"), || async {
                let url = format!("http://{}/actors/{path}/inspect", provider.file("admin"));
                let seen: Inspection = provider.http.get(url).send().await.ok()?.json().await.ok()?;
                assert_eq!(seen.error, None, "{path}");
                let proves = || seen.state["deadlines"].to_string().contains("\"phase\":\"proving\"");
                assert!(path != WINDOW_POST || proves(), "{}", seen.state);
                seen.state.pointer(pointer).filter(|found| !found.is_null() && !seen.stale).map(drop)
            })
            .await;
        }
        let groups = provider.http.get(format!("http://{}/groups", provider.file("admin"))).send().await.unwrap();
        let groups: Vec<GroupRow> = groups.json().await.unwrap();
        let members = |name: &str| {
            let group = groups.iter().find(|group| group.name == name).unwrap();
            let mut paths: Vec<&str> = group.members.iter().map(|member| member.path.as_str()).collect();
            paths.sort_unstable();
            paths
        };
        assert_eq!(members("heads/proving"), ["/t01000/window-post", "/t01000/winning-post"]);
        assert_eq!(members("heads/others"), ["/info", "/t01000/message-sender", "/t01000/seal-scheduler"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_panics_while_a_window_is_open() {
    one_after_the_other(Fault::Panic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_is_killed_while_a_window_is_open() {
    one_after_the_other(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_hangs_while_a_window_is_open() {
    one_after_the_other(Fault::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_proving_panic_at_once_while_a_window_is_open() {
    all_at_once(Fault::Panic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_proving_are_killed_at_once_while_a_window_is_open() {
    all_at_once(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_proving_hang_at_once_while_a_window_is_open() {
    all_at_once(Fault::Hang).await;
}
