//! The sealing actors in a real tree: pledges become proving sectors while every one of the actors is killed on the way.

use crate::support::fake_chain::{FakeChain, fil, miner};
use crate::support::scripted_prover::ScriptedProver;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::message_sender::messages::{MessageStatus, Status as MessageQuestion};
use bulkhead::actors::message_sender::{MessageSender, NodeWallet, SendRules, SenderDeps, SenderSettings};
use bulkhead::actors::seal_scheduler::messages::{List, Pledge, PledgeAnswer, Remove, SectorSummary, Status};
use bulkhead::actors::seal_scheduler::{NoAgents, Phase, Rules, SealDeps, SealScheduler, SealSettings, SectorDirs};
use bulkhead::actors::sector_allocator::messages::Allocated;
use bulkhead::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use bulkhead::store::Store;
use bulkhead::supervisor::{ChildSpec, Exit, Ref, RestartBackoff, SupervisorSpec, Thread, Tree};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct House {
    tree: Tree,
    messages: Ref<MessageSender>,
    allocator: Ref<SectorAllocator>,
    sealing: Ref<SealScheduler>,
    chain: Arc<FakeChain>,
}

fn house(dir: &Path, chain: &Arc<FakeChain>, prover: &Arc<ScriptedProver>) -> House {
    let store = Store::open(&dir.join("bulkhead.redb")).unwrap();
    let messages: Ref<MessageSender> = Ref::new("/t01000/message-sender", 64);
    let allocator: Ref<SectorAllocator> = Ref::new("/t01000/sector-allocator", 64);
    let sealing: Ref<SealScheduler> = Ref::new("/t01000/seal-scheduler", 64);
    let rules = SendRules { confidence: 1, replace_after: 500, lost_after: 3, repush_every: 2 };
    let sender = {
        let (chain, store) = (chain.clone(), store.clone());
        ChildSpec::actor("message_sender", &messages, move |cx| {
            let settings = SenderSettings {
                rules,
                max_fee: fil(1_000_000),
                pre_commit_fee: fil(1_000_000),
                commit_fee: fil(1_000_000),
                ..SenderSettings::default()
            };
            let wallet = Arc::new(NodeWallet(chain.clone()));
            MessageSender::start(
                cx,
                SenderDeps { node: chain.clone(), wallet, store: store.clone(), miner: miner(), settings },
            )
        })
    };
    let numbers = {
        let (chain, store) = (chain.clone(), store.clone());
        ChildSpec::actor("sector_allocator", &allocator, move |cx| {
            let settings = AllocatorSettings::default();
            SectorAllocator::start(
                cx,
                AllocatorDeps { node: chain.clone(), store: store.clone(), miner: miner(), settings },
            )
        })
    };
    let scheduler = {
        let (chain, prover, dirs) = (chain.clone(), prover.clone(), SectorDirs::of_repo(dir, 1000));
        let (messages, allocator) = (messages.clone(), allocator.clone());
        ChildSpec::actor("seal_scheduler", &sealing, move |cx| {
            let settings = SealSettings {
                rules: Rules {
                    retry_first: 10,
                    retry_cap: 50,
                    transient_wait: 5,
                    transient_cap: 50,
                    tries: 3,
                    gone_after: 50,
                },
                ticket_lookback: 5,
                seed_confidence: 1,
                commit_confidence: 2,
                ..SealSettings::default()
            };
            SealScheduler::start(
                cx,
                SealDeps {
                    node: chain.clone(),
                    prover: prover.clone(),
                    store: store.clone(),
                    messages: messages.clone(),
                    allocator: allocator.clone(),
                    miner: miner(),
                    settings,
                    dirs: dirs.clone(),
                    agents: Arc::new(NoAgents),
                },
            )
        })
    };
    let root = SupervisorSpec::new("root")
        .backoff(RestartBackoff::NONE)
        .intensity(1000, Duration::from_secs(60))
        .child(sender.on(Thread::Dedicated))
        .child(numbers.on(Thread::Dedicated))
        .child(scheduler.on(Thread::Dedicated));
    House { tree: Tree::start(root).unwrap(), messages, allocator, sealing, chain: chain.clone() }
}

impl House {
    /// The chain ticks until `done`; asks that fail because an actor restarts are asked again.
    async fn tick_until(&self, done: impl Fn(&[SectorSummary]) -> bool) -> Vec<SectorSummary> {
        let ticking = async {
            let mut clock = tokio::time::interval(Duration::from_millis(5));
            loop {
                clock.tick().await;
                self.chain.mine();
                let update = HeadUpdate { tipset: Arc::new(self.chain.head()), reverted_to: None };
                let _ = self.messages.tell(update.clone());
                let _ = self.sealing.tell(update);
                match self.sealing.ask(List::ALL, SOON).await {
                    Ok(list) if done(&list.sectors) => return list.sectors,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        tokio::time::timeout(SOON * 3, ticking).await.expect("the sectors get there")
    }
}

fn proving(count: usize) -> impl Fn(&[SectorSummary]) -> bool {
    move |list| list.len() == count && list.iter().all(|s| s.phase == Phase::Proving)
}

#[tokio::test]
async fn pledges_become_proving_sectors() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::default());
    let prover = ScriptedProver::new(Arc::default());
    let h = house(dir.path(), &chain, &prover);
    for n in [1, 2, 1] {
        let answer = h.sealing.ask(Pledge { request: format!("p{n}") }, SOON).await.unwrap();
        assert_eq!(answer, PledgeAnswer::Sector(n));
    }
    h.tick_until(proving(2)).await;
    let detail = h.sealing.ask(Status { number: 1 }, SOON).await.unwrap().unwrap();
    assert!(detail.sector.log.len() > 10 && detail.durations.len() > 10);
    let question = MessageQuestion { key: detail.sector.pre_commit_key() };
    let status = h.messages.ask(question, SOON).await.unwrap();
    assert!(matches!(status, MessageStatus::Landed { .. }), "{status:?}");
    assert!(h.sealing.ask(Status { number: 9 }, SOON).await.unwrap().is_none());
    let refused = h.sealing.ask(Remove { number: 1, why: "x".into(), even_if_proving: false }, SOON).await.unwrap();
    assert!(refused.unwrap_err().contains("proving"));
    assert_eq!(h.tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn killing_the_actors_again_and_again_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::default());
    let prover = ScriptedProver::new(Arc::default());
    let h = house(dir.path(), &chain, &prover);
    for n in 1..=3 {
        h.sealing.ask(Pledge { request: format!("p{n}") }, SOON).await.unwrap();
    }
    let victims = ["root/seal_scheduler", "root/message_sender", "root/sector_allocator"];
    let kills = AtomicUsize::new(0);
    h.tick_until(|list| {
        // A kill every other epoch until each was back often enough, then peace. One that is down already costs nothing.
        let rows = h.tree.snapshot();
        let peace = rows.iter().filter(|a| a.kind == "worker").all(|a| a.restarts > 3);
        if !peace && chain.head().height % 2 == 0 {
            h.tree.kill(victims[kills.fetch_add(1, Relaxed) % 3]);
        }
        peace && proving(3)(list)
    })
    .await;
    assert_eq!((chain.executed(28).len(), chain.executed(34).len()), (3, 3));
    assert_eq!(h.allocator.ask_when_up(Allocated, SOON).await.unwrap().unwrap().allocated, [1..=3]);
    h.tree.shutdown().await;
}

#[tokio::test]
async fn a_pledge_made_while_the_chain_is_down_gets_its_number_later() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::default());
    chain.state().down = true;
    let prover = ScriptedProver::new(Arc::default());
    let h = house(dir.path(), &chain, &prover);
    let answer = h.sealing.ask(Pledge { request: "p".into() }, SOON).await.unwrap();
    assert!(matches!(&answer, PledgeAnswer::Waiting(why) if why.contains("leased")), "{answer:?}");
    chain.state().down = false;
    let answer = h.sealing.ask(Pledge { request: "p".into() }, SOON).await.unwrap();
    assert_eq!(answer, PledgeAnswer::Sector(1));
    h.tick_until(proving(1)).await;
    h.tree.shutdown().await;
}
