//! Sectors sealed at an agent: its files are there, only small messages come back, and any end of either side costs time
//! only.

mod support;

use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::message_sender::{MessageSender, NodeWallet, Rules as SendRules, SenderDeps, SenderSettings};
use bulkhead::actors::seal_scheduler::messages::{List, Pledge, SectorSummary};
use bulkhead::actors::seal_scheduler::{
    Agent, Agents, Phase, Place, Rules, SealDeps, SealScheduler, SealSettings, SectorDirs,
};
use bulkhead::actors::seal_worker::messages::{AgentReport, Report};
use bulkhead::actors::seal_worker::{AgentDeps, AgentSettings, SealWorker};
use bulkhead::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use bulkhead::store::Store;
use bulkhead::supervisor::{Backoff, ChildSpec, Ref, SupervisorSpec, Thread, Tree};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::fake_chain::{FakeChain, fil, miner};
use support::scripted_prover::ScriptedProver;

const SOON: Duration = Duration::from_secs(60);

/// An agent's tree, in a process that could be another.
fn agent(dir: &Path, name: &str, prover: &Arc<ScriptedProver>) -> (Tree, Ref<SealWorker>) {
    let worker: Ref<SealWorker> = Ref::new(format!("/{name}/seal-worker"), 64);
    let store = Store::open(&dir.join("agent.redb")).unwrap();
    let boot = store.next_boot().unwrap();
    let deps = AgentDeps {
        store,
        prover: prover.clone(),
        repo: dir.to_path_buf(),
        settings: AgentSettings::default(),
        changed: Default::default(),
    };
    let child = ChildSpec::actor("seal_worker", &worker, move |cx| SealWorker::start(cx, deps.clone()));
    let root =
        SupervisorSpec::new("root").backoff(Backoff::NONE).intensity(1000, SOON).child(child.on(Thread::Dedicated));
    let options = bulkhead::supervisor::TreeOptions { epoch_base: boot << 32, ..Default::default() };
    (Tree::start_with(root, options).unwrap(), worker)
}

/// What a directory would say; changed by the test.
#[derive(Default)]
struct Board(Mutex<Option<Vec<Agent>>>);

impl Agents for Board {
    fn seen(&self) -> Result<Vec<Agent>, String> {
        self.0.lock().unwrap().clone().ok_or_else(|| "client: no endpoints available".into())
    }
}

impl Board {
    fn names(&self, agents: &[(&str, &Ref<SealWorker>)]) {
        let of = |(name, worker): &(&str, &Ref<SealWorker>)| Agent {
            name: name.to_string(),
            drained: false,
            worker: (*worker).clone(),
        };
        *self.0.lock().unwrap() = Some(agents.iter().map(of).collect());
    }
}

struct Manager {
    tree: Tree,
    sealing: Ref<SealScheduler>,
    messages: Ref<MessageSender>,
    chain: Arc<FakeChain>,
}

fn manager(dir: &Path, chain: &Arc<FakeChain>, prover: &Arc<ScriptedProver>, agents: Arc<dyn Agents>) -> Manager {
    let store = Store::open(&dir.join("bulkhead.redb")).unwrap();
    let messages: Ref<MessageSender> = Ref::new("/t01000/message-sender", 64);
    let allocator: Ref<SectorAllocator> = Ref::new("/t01000/sector-allocator", 64);
    let sealing: Ref<SealScheduler> = Ref::new("/t01000/seal-scheduler", 64);
    let rules = SendRules { confidence: 1, replace_after: 500, lost_after: 3, repush_every: 2 };
    let sender = {
        let (node, store) = (chain.clone(), store.clone());
        ChildSpec::actor("message_sender", &messages, move |cx| {
            let settings = SenderSettings { rules, max_fee: fil(1_000_000), ..SenderSettings::default() };
            let signer = Arc::new(NodeWallet(node.clone()));
            let deps = SenderDeps { node: node.clone(), signer, store: store.clone(), miner: miner(), settings };
            MessageSender::start(cx, deps)
        })
    };
    let numbers = {
        let (node, store) = (chain.clone(), store.clone());
        ChildSpec::actor("sector_allocator", &allocator, move |cx| {
            let settings = AllocatorSettings::default();
            let deps = AllocatorDeps { node: node.clone(), store: store.clone(), miner: miner(), settings };
            SectorAllocator::start(cx, deps)
        })
    };
    let deps = SealDeps {
        node: chain.clone(),
        prover: prover.clone(),
        store,
        messages: messages.clone(),
        allocator,
        miner: miner(),
        settings: SealSettings {
            rules: Rules { retry_first: 10, retry_cap: 50, soft_wait: 5, tries: 3, gone_after: 50 },
            ticket_lookback: 5,
            seed_confidence: 1,
            commit_confidence: 2,
            place: Place::Agents,
            ..SealSettings::default()
        },
        dirs: SectorDirs::of_repo(dir, 1000),
        agents,
    };
    let scheduler = ChildSpec::actor("seal_scheduler", &sealing, move |cx| {
        let SealDeps { node, prover, store, messages, allocator, miner, settings, dirs, agents } = &deps;
        let deps = SealDeps {
            node: node.clone(),
            prover: prover.clone(),
            store: store.clone(),
            messages: messages.clone(),
            allocator: allocator.clone(),
            miner: *miner,
            settings: settings.clone(),
            dirs: dirs.clone(),
            agents: agents.clone(),
        };
        SealScheduler::start(cx, deps)
    });
    let root = SupervisorSpec::new("root")
        .backoff(Backoff::NONE)
        .intensity(1000, SOON)
        .child(sender.on(Thread::Dedicated))
        .child(numbers.on(Thread::Dedicated))
        .child(scheduler.on(Thread::Dedicated));
    Manager { tree: Tree::start(root).unwrap(), sealing, messages, chain: chain.clone() }
}

impl Manager {
    async fn pledge(&self, count: u64) {
        for n in 1..=count {
            self.sealing.ask(Pledge { request: format!("p{n}") }, SOON).await.unwrap();
        }
    }

    /// The chain ticks until `done`; asks that fail because an actor restarts are asked again.
    async fn tick_until(&self, mut done: impl FnMut(&[SectorSummary]) -> bool) -> Vec<SectorSummary> {
        let ticking = async {
            let mut clock = tokio::time::interval(Duration::from_millis(10));
            loop {
                clock.tick().await;
                self.chain.mine();
                let update = HeadUpdate { tipset: Arc::new(self.chain.head()), reverted_to: None };
                let _ = self.messages.tell(update.clone());
                let _ = self.sealing.tell(update);
                match self.sealing.ask(List, SOON).await {
                    Ok(list) if done(&list) => return list,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        tokio::time::timeout(SOON * 2, ticking).await.expect("the sectors get there")
    }
}

fn proving(list: &[SectorSummary], count: usize) -> bool {
    list.len() == count && list.iter().all(|s| s.phase == Phase::Proving)
}

struct Places {
    manager: tempfile::TempDir,
    agent: tempfile::TempDir,
    chain: Arc<FakeChain>,
    ours: Arc<ScriptedProver>,
    theirs: Arc<ScriptedProver>,
    board: Arc<Board>,
}

fn places() -> Places {
    Places {
        manager: tempfile::tempdir().unwrap(),
        agent: tempfile::tempdir().unwrap(),
        chain: FakeChain::new(Arc::default()),
        ours: ScriptedProver::new(Arc::default()),
        theirs: ScriptedProver::new(Arc::default()),
        board: Arc::default(),
    }
}

#[tokio::test]
async fn the_files_are_at_the_agent_and_the_manager_only_verifies() {
    let p = places();
    let (tree, worker) = agent(p.agent.path(), "agent-a", &p.theirs);
    p.board.names(&[("agent-a", &worker)]);
    let m = manager(p.manager.path(), &p.chain, &p.ours, p.board.clone());
    m.pledge(2).await;
    let list = m.tick_until(|list| proving(list, 2)).await;
    assert!(list.iter().all(|s| s.location.as_deref() == Some("agent-a")), "{list:?}");
    let ours = p.ours.ran.lock().unwrap().clone();
    assert!(ours.iter().all(|name| *name == "VerifySeal"), "{ours:?}");
    assert_eq!(p.theirs.times("C2"), 2);
    let files = |dir: &Path, number| SectorDirs::of_repo(dir, 1000).sealed(number).exists();
    for number in [1, 2] {
        assert!(files(p.agent.path(), number) && !files(p.manager.path(), number), "{number}");
    }
    let report: AgentReport = worker.ask(Report, SOON).await.unwrap();
    assert_eq!((report.miner, report.sector_size, report.queued), (Some(1000), Some(2048), 0));
    m.tree.shutdown().await;
    tree.shutdown().await;
}

#[tokio::test]
async fn without_a_server_sectors_wait_and_say_so() {
    let p = places();
    let m = manager(p.manager.path(), &p.chain, &p.ours, p.board.clone());
    m.pledge(1).await;
    let says =
        |list: &[SectorSummary], part: &str| list.iter().any(|s| s.reason.as_ref().is_some_and(|r| r.contains(part)));
    m.tick_until(|list| says(list, "client: no endpoints available")).await;
    p.board.names(&[]);
    m.tick_until(|list| says(list, "can not found any server: no agent is registered")).await;
    let (tree, worker) = agent(p.agent.path(), "agent-a", &p.theirs);
    p.board.names(&[("agent-a", &worker)]);
    m.tick_until(|list| proving(list, 1)).await;
    m.tree.shutdown().await;
    tree.shutdown().await;
}

#[tokio::test]
async fn killing_the_agent_and_the_scheduler_again_and_again_costs_time_only() {
    let p = places();
    let (tree, worker) = agent(p.agent.path(), "agent-a", &p.theirs);
    p.board.names(&[("agent-a", &worker)]);
    let m = manager(p.manager.path(), &p.chain, &p.ours, p.board.clone());
    m.pledge(3).await;
    let mut rounds = 0;
    m.tick_until(|list| {
        rounds += 1;
        if rounds < 90 && rounds % 3 == 0 {
            match rounds % 2 {
                0 => tree.kill("root/seal_worker"),
                _ => m.tree.kill("root/seal_scheduler"),
            };
        }
        rounds > 90 && proving(list, 3)
    })
    .await;
    assert_eq!((p.chain.executed(28).len(), p.chain.executed(34).len()), (3, 3), "one message each");
    m.tree.shutdown().await;
    tree.shutdown().await;
}

#[tokio::test]
async fn a_sector_stays_at_its_agent_while_others_go_elsewhere() {
    let p = places();
    let other = tempfile::tempdir().unwrap();
    let (tree_a, a) = agent(p.agent.path(), "agent-a", &p.theirs);
    let (tree_b, b) = agent(other.path(), "agent-b", &p.theirs);
    p.board.names(&[("agent-a", &a), ("agent-b", &b)]);
    let m = manager(p.manager.path(), &p.chain, &p.ours, p.board.clone());
    m.pledge(4).await;
    let list = m.tick_until(|list| proving(list, 4)).await;
    for s in &list {
        let dir = if s.location.as_deref() == Some("agent-a") { p.agent.path() } else { other.path() };
        assert!(SectorDirs::of_repo(dir, 1000).sealed(s.number).exists(), "{s:?}");
    }
    let at_b = list.iter().filter(|s| s.location.as_deref() == Some("agent-b")).count();
    assert!((1..=3).contains(&at_b), "both have some: {list:?}");
    for tree in [m.tree, tree_a, tree_b] {
        tree.shutdown().await;
    }
}
