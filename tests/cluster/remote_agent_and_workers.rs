//! The agents of document 2 as an operator runs them: found through etcd, workers on shared storage, all of it behind a NAT
//! (a network namespace that nobody can dial into): the agent dials out to the manager. One sector is sealed with real proofs
//! while a worker and the agent are killed, then proven from afar.

use crate::support::agent::{Manager, SOON, manager, proving};
use crate::support::downs::Downs;
use crate::support::etcd::{Etcds, free_ports};
use crate::support::fake_chain::FakeChain;
use crate::support::netns::Inside;
use crate::support::operator::{bulkhead, text, until};
use bulkhead::actors::path_checks::PathChecks;
use bulkhead::actors::seal_agent::messages::{AgentReport, GetAgentReport};
use bulkhead::actors::seal_scheduler::messages::{SectorSummary, Status};
use bulkhead::actors::seal_scheduler::{Agents, SectorDirs};
use bulkhead::actors::sector_files::SectorFiles;
use bulkhead::actors::sector_reads::{ReadRequest, SectorRead, SectorReader, WantedSector};
use bulkhead::actors::storage::{LocalReader, PostReader, RemoteSectorProver, SectorIndex};
use bulkhead::node::remote_nodes::RemoteNodes;
use bulkhead::proofs::{ChildConfig, ChildProver, Job, Output, Prover, PublicSector, Task, tasks};
use bulkhead::rpc::bridge::{Bridge, BridgeConfig};
use bulkhead::rpc::directory::{Directory, NodeRecord};
use bulkhead::supervisor::Exit;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const AGENT: &str = "far-agent";
const MINER: &[(&str, &str)] = &[("MINER_ADDR", "t01000"), ("SECTOR_SIZE", "2KiB")];
/// Real proofs on a loaded machine.
const LONG: Duration = Duration::from_secs(900);

/// A process that is never left behind.
struct Process(Child);
impl Process {
    fn start(mut command: Command, log: &Path) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap())
    }
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is out here, as it is seen from behind the NAT.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

struct Stage {
    dir: tempfile::TempDir,
    etcd: Etcds,
    /// Where the agent and its workers are; `None`: this host.
    inside: Option<Inside>,
}

impl Stage {
    async fn new(inside: Option<Inside>) -> Stage {
        Stage { dir: tempfile::tempdir().unwrap(), etcd: Etcds::single().await, inside }
    }
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let plain = bulkhead(args, env);
        let Some(inside) = &self.inside else { return plain };
        let mut command = inside.command(plain.get_program());
        command.args(args).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }
    /// The server at that port out here, as the agent is told to reach it.
    fn outside(&self, port: u16) -> SocketAddr {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Some(inside) = &self.inside else { return here };
        let at = SocketAddr::from((OUTSIDE, port));
        inside.carry_out(at, here);
        at
    }
    fn agent_repo(&self) -> std::path::PathBuf {
        self.dir.path().join("agent")
    }
    fn log(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
    /// As document 2 writes it, with an address that nobody outside could dial.
    fn configure(&self) {
        let [port, api] = free_ports(2).try_into().unwrap();
        std::fs::create_dir_all(self.agent_repo()).unwrap();
        let etcd = self.etcd.endpoints().into_iter().map(|endpoint| {
            let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
            self.outside(port).to_string()
        });
        let config = format!(
            "[API]\nListenAddress = \"/ip4/127.0.0.1/tcp/{api}/http\"\n[SealAgent]\nEtcdAddrs = {:?}\nServeIP = \"0.0.0.0\"\nServePort = {port}\n",
            etcd.collect::<Vec<_>>()
        );
        std::fs::write(self.agent_repo().join("config.toml"), config).unwrap();
    }
    fn agent(&self) -> Process {
        let repo = self.agent_repo();
        let mut env = vec![("LOTUS_AGENT_PATH", text(&repo))];
        env.extend(MINER);
        Process::start(self.run(&["agent", "--no-own-work", "--name", AGENT], &env), &self.log("agent"))
    }
    fn api_info(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.agent_repo().join(name)).ok();
        until("the agent's token and api", || Some(format!("{}:{}", read("token")?, read("api")?)))
    }
    /// What a command says of the agent, asked on its host.
    fn asks_the_agent(&self, args: &[&str]) -> String {
        let repo = self.agent_repo();
        let output = self.run(&[&["--repo", text(&repo)], args].concat(), &[]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
    /// It finds the agent's address and the workers' token in the storage.
    fn worker(&self, name: &str) -> Process {
        let repo = self.agent_repo();
        until("the agent's api and the workers' token", || {
            ["api", "worker-token"].iter().all(|name| repo.join(name).exists()).then_some(())
        });
        let mut env = vec![("WORKER_PATH", text(&repo))];
        env.extend(MINER);
        Process::start(self.run(&["worker"], &env), &self.log(name))
    }
}

/// The manager's end of the cluster: it listens, and dials nobody whose address it does not know.
struct Net {
    far: Arc<RemoteNodes>,
    directory: Arc<dyn Directory>,
}

async fn net(stage: &Stage, dir: &Path) -> Net {
    let key = bulkhead::rpc::bridge::identity::load_or_make(dir).unwrap();
    let config = stage.etcd.config();
    // The name that a configuration without one gives its cluster.
    let cluster = bulkhead::config::Config::default().cluster.name;
    let mut at = BridgeConfig::new(key, cluster.clone());
    at.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let bridge = Arc::new(Bridge::start(at).unwrap());
    let mut events = bridge.events();
    while bridge.listening().is_empty() {
        events.changed().await.unwrap();
    }
    let config = bulkhead::rpc::directory::etcd::EtcdConfig { cluster, ..config };
    let directory: Arc<dyn Directory> = Arc::new(bulkhead::rpc::directory::etcd::Etcd::connect(config).await.unwrap());
    let mut me = NodeRecord::new("manager", bridge.peer_id(), bridge.boot());
    let port = bridge.listening()[0].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let at = stage.outside(port.unwrap());
    me.addrs = vec![format!("/ip4/{}/tcp/{}", at.ip(), at.port()).parse().unwrap()];
    directory.register(me).await.unwrap();
    let view = directory.view();
    let (mut seen, ours) = (view.clone(), bridge.clone());
    tokio::spawn(async move {
        loop {
            let now = seen.borrow_and_update().clone();
            ours.allow(now.peers());
            for node in now.nodes.values() {
                ours.know(node.peer_id, node.addrs.clone());
            }
            if seen.changed().await.is_err() {
                return;
            }
        }
    });
    let (look, carrier) = (view.clone(), bridge.clone());
    let far = RemoteNodes::new(
        "manager",
        Arc::new(move || Some(look.borrow().clone())),
        Arc::new(move |peer| carrier.carrier(peer, 0)),
    );
    Net { far: Arc::new(far), directory }
}

impl Net {
    /// Not at any address that the agent knows of itself.
    async fn nobody_reaches_it(&self) {
        let view = self.directory.view().borrow().clone();
        let agent = &view.nodes[AGENT];
        for addr in &agent.addrs {
            let parts: Vec<String> = addr.to_string().split('/').map(String::from).collect();
            let dialled = tokio::net::TcpStream::connect(format!("{}:{}", parts[2], parts[4]));
            let dialled = tokio::time::timeout(Duration::from_secs(1), dialled).await;
            assert!(!matches!(dialled, Ok(Ok(_))), "{addr} can be dialled from out here");
        }
    }

    /// Asked until `ready`: what happens in another process tells us nothing.
    async fn report(&self, what: &str, ready: impl Fn(&AgentReport) -> bool) -> AgentReport {
        let asking = async {
            loop {
                for agent in Agents::seen(&*self.far).unwrap_or_default() {
                    if let Ok(report) = agent.worker.ask(GetAgentReport, Duration::from_secs(5)).await
                        && ready(&report)
                    {
                        return report;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, asking).await.unwrap_or_else(|_| panic!("waited {LONG:?} for {what}"))
    }
}

fn prover(dir: &Path) -> Arc<dyn Prover> {
    let mut config = ChildConfig::with_exe(env!("CARGO_BIN_EXE_bulkhead").into());
    config.tmp_root = dir.to_path_buf();
    Arc::new(ChildProver::new(config))
}

fn runs(report: &AgentReport, step: &str) -> bool {
    report.workers.iter().any(|w| w.running.iter().any(|job| job.contains(step)))
}

async fn tick(m: &Manager, mut done: impl FnMut(&[SectorSummary]) -> bool) -> Vec<SectorSummary> {
    let mut last = String::new();
    let say = |list: &[SectorSummary]| {
        let now = format!("{:?} {:?}", list[0].phase, list[0].reason);
        if now != last {
            println!("sector: {now}");
            last = now;
        }
        done(list)
    };
    m.tick_patiently(LONG, Duration::from_millis(500), say).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sector_is_sealed_by_workers_of_an_agent_and_proven_without_its_files() {
    let stage = Stage::new(crate::support::netns::inside()).await;
    stage.configure();
    let home = stage.dir.path().join("manager");
    std::fs::create_dir_all(&home).unwrap();
    let net = net(&stage, &home).await;
    let (chain, ours) = (FakeChain::new(Arc::default()), prover(stage.dir.path()));
    let m = manager(&home, &chain, ours.clone(), net.far.clone());
    m.pledge(1).await;
    let says = |list: &[SectorSummary], part: &str| list[0].reason.as_ref().is_some_and(|r| r.contains(part));
    tick(&m, |list| says(list, "can not found any server: no agent is registered")).await;

    let mut agent = stage.agent();
    tick(&m, |list| says(list, "can not found any server: far-agent has no worker")).await;
    if stage.inside.is_some() {
        net.nobody_reaches_it().await;
    }

    let mut first = stage.worker("worker-1");
    let sealing = tick(&m, |_| false);
    tokio::pin!(sealing);
    // Killed in the middle of C2: its lease runs out, another worker takes the task.
    tokio::select! {
        _ = &mut sealing => unreachable!(),
        _ = net.report("a worker at C2", |r| runs(r, "-c2-")) => first.kill(),
    }
    let dead = format!(":{}", first.0.id());
    let _second = stage.worker("worker-2");
    tokio::select! {
        _ = &mut sealing => unreachable!(),
        _ = net.report("the other worker at C2", |r| runs(r, "-c2-") && !r.workers.iter().any(|w| w.name.ends_with(&dead))) => {}
    }
    // An operator on the agent's host sees it all.
    let info = stage.asks_the_agent(&["info"]);
    for part in ["Agent far-agent, bulkhead", "Works for      t01000, 2 KiB sectors", "1: 0 queued, 0 failed", ": 1 c2"]
    {
        assert!(info.contains(part), "{part}\n{info}");
    }
    let jobs = stage.asks_the_agent(&["sealing", "jobs"]);
    assert!(jobs.lines().any(|line| line.contains("1  c2    running  far-agent")), "{jobs}");
    let workers = stage.asks_the_agent(&["sealing", "workers"]);
    assert!(workers.contains("agent far-agent: c2") || workers.contains("agent far-agent: 1 c2"), "{workers}");
    assert!(workers.contains("heard ") && !workers.contains(&dead), "{workers}");
    assert!(stage.asks_the_agent(&["tree"]).contains("└─ seal_worker"));
    // The agent's end in the middle of C2 costs nothing: the worker goes on, and reports to the next one.
    let mut downs = Downs::start();
    let worker = Agents::seen(&*net.far).unwrap().remove(0).worker;
    let _monitor = downs.watch(&worker);
    agent.kill();
    tokio::select! {
        _ = &mut sealing => unreachable!(),
        down = downs.next() => assert_eq!((down.path.as_str(), &down.reason), (worker.path(), &Exit::NodeDown)),
    }
    let mut agent = stage.agent();
    let list = tick(&m, |list| proving(list, 1)).await;
    assert_eq!(list[0].location.as_deref(), Some(AGENT));
    downs.nothing_more("the agent's first end");
    let sector = m.sealing.ask(Status { number: 1 }, SOON).await.unwrap().unwrap().sector;
    assert_eq!(
        (sector.attempts.pc1, sector.attempts.c2, sector.fails),
        (1, 1, Default::default()),
        "{:#?}",
        sector.log
    );
    let here = SectorDirs::of_repo(&home, 1000);
    assert!(!here.sealed(1).exists() && SectorDirs::of_repo(&stage.agent_repo(), 1000).sealed(1).exists());

    // The files are there, the proof is made here.
    let files = Arc::new(here);
    let local = LocalReader::new(files.clone(), ours.clone(), PathChecks::of_process());
    let reader = Arc::new(PostReader { local, index: SectorIndex::new(1000, net.far.clone()) });
    let far = RemoteSectorProver { inner: ours.clone(), reader: reader.clone() };
    let comm_r = sector.comm_r.unwrap();
    let read = {
        let wanted = |number, comm_r| WantedSector { number, comm_r, places: vec![0, 1] };
        let sectors = vec![wanted(1, comm_r), wanted(2, comm_r)];
        let until = tokio::time::Instant::now() + LONG;
        let (tell, mut answers) = tokio::sync::mpsc::unbounded_channel();
        reader.read(ReadRequest { miner: 1000, proof_type: 10, sectors, until }, &tell).await;
        drop(tell);
        let mut read = Vec::new();
        while let Some((number, answer)) = answers.recv().await {
            read.push((number, matches!(answer, SectorRead::Proof(_))));
        }
        read.sort();
        read
    };
    assert_eq!(read, [(1, true), (2, false)]);
    let post = |number: u64, max_runtime| {
        let sectors = vec![files.locate(number).post_sector(number, comm_r)];
        let task = Task::WinningPost { proof_type: 0, miner: 1000, randomness: [7; 32], sectors };
        Job { task, job_dir: None, max_runtime }
    };
    let Output::Proof(proof) = far.run(post(1, LONG)).await.unwrap() else { panic!("no proof") };
    let public = [PublicSector { number: 1, comm_r }];
    assert!(tasks::verify_winning_post(0, 1000, [7; 32], &public, &proof).unwrap());

    // The agent is gone: the sector is skipped and named, within its part of the time.
    agent.kill();
    let skipped = far.run(post(1, Duration::from_secs(30))).await.unwrap();
    assert_eq!(skipped, Output::Skipped(vec![1]));
    m.tree.shutdown().await;
}

#[tokio::test]
async fn a_worker_of_another_miner_or_size_is_refused_in_one_sentence() {
    let stage = Stage::new(None).await;
    stage.configure();
    let _agent = stage.agent();
    let (repo, info) = (stage.agent_repo(), stage.api_info());
    let said = |miner: &str, size: &str| {
        let env = [
            ("WORKER_PATH", text(&repo)),
            ("MINER_AGENT_APIINFO", info.as_str()),
            ("MINER_ADDR", miner),
            ("SECTOR_SIZE", size),
        ];
        let output = bulkhead(&["worker", "--commit", "0"], &env).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{err}");
        err.lines().filter(|l| l.starts_with("error: ")).collect::<String>()
    };
    let why = said("t01001", "2KiB");
    assert!(why.contains("MINER_ADDR t01000, the worker was started for t01001"), "{why}");
    let why = said("t01000", "32GiB");
    assert!(why.contains("SECTOR_SIZE 2KiB, the worker was started for 32GiB"), "{why}");
    let other = tempfile::tempdir().unwrap();
    let env = [("WORKER_PATH", text(other.path())), ("AGENT_API_INFO", info.as_str()), ("MINER_ADDR", "t01000")];
    let output = bulkhead(&["worker", "--commit", "0"], &env).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("WORKER_PATH must be the agent's own folder"));
}
