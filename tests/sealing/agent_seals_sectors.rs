//! Sectors sealed at an agent: its files are there, only small messages come back, and any end of either side costs time
//! only.

use crate::support::agent::{Board, SOON, manager, proving};
use crate::support::fake_chain::FakeChain;
use crate::support::scripted_prover::ScriptedProver;
use bulkhead::actors::seal_agent::messages::{AgentReport, GetAgentReport};
use bulkhead::actors::seal_agent::{AgentDeps, AgentSettings, SealAgent};
use bulkhead::actors::seal_scheduler::SectorDirs;
use bulkhead::actors::seal_scheduler::messages::SectorSummary;
use bulkhead::store::Store;
use bulkhead::supervisor::{ChildSpec, Ref, RestartBackoff, SupervisorSpec, Thread, Tree};
use std::path::Path;
use std::sync::Arc;

/// An agent's tree, in a process that could be another.
fn agent(dir: &Path, name: &str, prover: &Arc<ScriptedProver>) -> (Tree, Ref<SealAgent>) {
    let worker: Ref<SealAgent> = Ref::new(format!("/{name}/seal-worker"), 64);
    let store = Store::open(&dir.join("agent.redb")).unwrap();
    let boot = store.next_boot().unwrap();
    let deps = AgentDeps {
        store,
        prover: prover.clone(),
        repo: dir.to_path_buf(),
        settings: AgentSettings::default(),
        changed: Default::default(),
    };
    let child = ChildSpec::actor("seal_worker", &worker, move |cx| SealAgent::start(cx, deps.clone()));
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .intensity(1000, SOON)
        .child(child.on(Thread::Dedicated));
    let options = bulkhead::supervisor::TreeOptions { epoch_base: boot << 32, ..Default::default() };
    (Tree::start_with(root, options).unwrap(), worker)
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
    let m = manager(p.manager.path(), &p.chain, p.ours.clone(), p.board.clone());
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
    let report: AgentReport = worker.ask(GetAgentReport, SOON).await.unwrap();
    assert_eq!((report.miner, report.sector_size, report.queued), (Some(1000), Some(2048), 0));
    m.tree.shutdown().await;
    tree.shutdown().await;
}

#[tokio::test]
async fn without_a_server_sectors_wait_and_say_so() {
    let p = places();
    let m = manager(p.manager.path(), &p.chain, p.ours.clone(), p.board.clone());
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
    let m = manager(p.manager.path(), &p.chain, p.ours.clone(), p.board.clone());
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
    let m = manager(p.manager.path(), &p.chain, p.ours.clone(), p.board.clone());
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
