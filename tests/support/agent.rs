//! A manager's sealing side in a tree of its own, with agents that a test names.

use crate::support::fake_chain::{FakeChain, fil, miner};
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::message_sender::{MessageSender, NodeWallet, SendRules, SenderDeps, SenderSettings};
use bulkhead::actors::seal_agent::SealAgent;
use bulkhead::actors::seal_scheduler::messages::{List, Pledge, SectorSummary};
use bulkhead::actors::seal_scheduler::{
    Agent, Agents, Phase, Place, Rules, SealDeps, SealScheduler, SealSettings, SectorDirs,
};
use bulkhead::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use bulkhead::proofs::Prover;
use bulkhead::store::Store;
use bulkhead::supervisor::{ChildSpec, Ref, RestartBackoff, SupervisorSpec, Thread, Tree};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// What a directory would say; changed by the test.
#[derive(Default)]
pub struct Board(pub Mutex<Option<Vec<Agent>>>);

impl Agents for Board {
    fn seen(&self) -> Result<Vec<Agent>, String> {
        self.0.lock().unwrap().clone().ok_or_else(|| "client: no endpoints available".into())
    }
}

impl Board {
    pub fn names(&self, agents: &[(&str, &Ref<SealAgent>)]) {
        let of = |(name, worker): &(&str, &Ref<SealAgent>)| Agent {
            name: name.to_string(),
            drained: false,
            worker: (*worker).clone(),
        };
        *self.0.lock().unwrap() = Some(agents.iter().map(of).collect());
    }
}

pub struct Manager {
    pub tree: Tree,
    pub sealing: Ref<SealScheduler>,
    pub messages: Ref<MessageSender>,
    pub chain: Arc<FakeChain>,
}

pub fn manager(dir: &Path, chain: &Arc<FakeChain>, prover: Arc<dyn Prover>, agents: Arc<dyn Agents>) -> Manager {
    let store = Store::open(&dir.join("bulkhead.redb")).unwrap();
    let messages: Ref<MessageSender> = Ref::new("/t01000/message-sender", 64);
    let allocator: Ref<SectorAllocator> = Ref::new("/t01000/sector-allocator", 64);
    let sealing: Ref<SealScheduler> = Ref::new("/t01000/seal-scheduler", 64);
    let rules = SendRules { confidence: 1, replace_after: 500, lost_after: 3, repush_every: 2 };
    let sender = {
        let (node, store) = (chain.clone(), store.clone());
        ChildSpec::actor("message_sender", &messages, move |cx| {
            let settings = SenderSettings {
                rules,
                max_fee: fil(1_000_000),
                pre_commit_fee: fil(1_000_000),
                commit_fee: fil(1_000_000),
                ..SenderSettings::default()
            };
            let wallet = Arc::new(NodeWallet(node.clone()));
            let deps = SenderDeps { node: node.clone(), wallet, store: store.clone(), miner: miner(), settings };
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
        prover,
        store,
        messages: messages.clone(),
        allocator,
        miner: miner(),
        settings: SealSettings {
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
        .backoff(RestartBackoff::NONE)
        .intensity(1000, SOON)
        .child(sender.on(Thread::Dedicated))
        .child(numbers.on(Thread::Dedicated))
        .child(scheduler.on(Thread::Dedicated));
    Manager { tree: Tree::start(root).unwrap(), sealing, messages, chain: chain.clone() }
}

impl Manager {
    pub async fn pledge(&self, count: u64) {
        for n in 1..=count {
            self.sealing.ask(Pledge { request: format!("p{n}") }, SOON).await.unwrap();
        }
    }

    /// The chain ticks until `done`; asks that fail because an actor restarts are asked again.
    pub async fn tick_until(&self, done: impl FnMut(&[SectorSummary]) -> bool) -> Vec<SectorSummary> {
        self.tick_patiently(SOON * 2, Duration::from_millis(10), done).await
    }

    pub async fn tick_patiently(
        &self,
        patience: Duration,
        block: Duration,
        mut done: impl FnMut(&[SectorSummary]) -> bool,
    ) -> Vec<SectorSummary> {
        let ticking = async {
            let mut clock = tokio::time::interval(block);
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
        tokio::time::timeout(patience, ticking).await.expect("the sectors get there")
    }
}

pub fn proving(list: &[SectorSummary], count: usize) -> bool {
    list.len() == count && list.iter().all(|s| s.phase == Phase::Proving)
}
