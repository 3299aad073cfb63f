//! A whole sealing side without the supervisor: allocator, message sender, seal scheduler over one store, stepped by hand.

use super::fake_chain::{FakeChain, fil, miner};
use super::mortal::Mortal;
use super::scripted_prover::ScriptedProver;
use async_trait::async_trait;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use bulkhead::actors::message_sender::{Engine, NodeWallet, Outbox, SendRules, SenderSettings};
use bulkhead::actors::seal_scheduler::{
    AnswersByHead, Driver, Effects, Limits, NoAgents, NumberSource, Phase, Rules, SealSettings, Sector, SectorDirs,
    allocation_key,
};
use bulkhead::actors::sector_allocator::{Allocator, AllocatorSettings};
use bulkhead::store::{Store, Token};
use bulkhead::util::host::Memory;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Outside {
    pub dir: tempfile::TempDir,
    pub mortal: Arc<Mortal>,
    pub chain: Arc<FakeChain>,
    pub prover: Arc<ScriptedProver>,
    pub settings: SealSettings,
    /// Milliseconds; each step takes one second.
    pub now: u64,
    pub life: u64,
    /// Bytes of memory that the host has left.
    pub available: Arc<AtomicU64>,
}

impl Outside {
    pub fn new() -> Outside {
        let mortal = Arc::new(Mortal::default());
        let settings = SealSettings {
            rules: Rules {
                retry_first: 2000,
                retry_cap: 8000,
                transient_wait: 1000,
                transient_cap: 4000,
                tries: 3,
                gone_after: 4,
            },
            limits: Limits::default(),
            ticket_lookback: 5,
            seed_confidence: 1,
            commit_confidence: 2,
            landed_grace: 4,
            max_ticket_age: 60,
            ticket_margin: 10,
            expiration: 1000,
            keep_free: 0,
            ..SealSettings::default()
        };
        Outside {
            dir: tempfile::tempdir().unwrap(),
            chain: FakeChain::new(mortal.clone()),
            prover: ScriptedProver::new(mortal.clone()),
            mortal,
            settings,
            now: 1_000_000,
            life: 0,
            available: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    fn memory(&self) -> Arc<dyn Fn() -> Memory + Send + Sync> {
        let available = self.available.clone();
        Arc::new(move || Memory { available: available.load(Ordering::SeqCst), children: 0 })
    }

    /// The node starts: everything is read from disk.
    pub fn boot(&mut self) -> World {
        self.life += 1;
        let store = Store::open(&self.dir.path().join("bulkhead.redb")).unwrap();
        let token = |path: &str| Token { path: path.into(), epoch: self.life };
        let engine = Arc::new(Engine {
            scope: "t01000".into(),
            miner: Some(miner()),
            node: self.chain.clone(),
            wallet: Arc::new(NodeWallet(self.chain.clone())),
            store: store.clone(),
            token: token("/t01000/message-sender"),
            fence: None,
            settings: SenderSettings {
                rules: SendRules { confidence: 1, replace_after: 50, lost_after: 3, repush_every: 2 },
                max_fee: fil(1_000_000),
                pre_commit_fee: fil(1_000_000),
                commit_fee: fil(1_000_000),
                estimate_tries: 3,
                max_open: 100,
                keep_done: 1000,
                ..SenderSettings::default()
            },
            memory: Arc::default(),
        });
        let book = Allocator {
            node: self.chain.clone(),
            store: store.clone(),
            token: token("/t01000/sector-allocator"),
            miner: miner(),
            settings: AllocatorSettings::default(),
        };
        let (rules, limits) = (self.settings.rules, self.settings.limits);
        let driver = Driver::load(store, token("/t01000/seal-scheduler"), "t01000".into(), rules, limits).unwrap();
        let dirs = SectorDirs::of_repo(self.dir.path(), 1000);
        dirs.create().expect("folders for sectors");
        let effects = Effects {
            node: self.chain.clone(),
            prover: self.prover.clone(),
            outbox: Arc::new(MortalOutbox { engine: engine.clone(), mortal: self.mortal.clone() }),
            miner: miner(),
            dirs,
            settings: self.settings.clone(),
            agents: Arc::new(NoAgents),
            rules: Default::default(),
            fence: None,
            answers: AnswersByHead::default(),
            memory: self.memory(),
        };
        World { engine, book, driver, effects, mortal: self.mortal.clone() }
    }
}

pub struct World {
    pub engine: Arc<Engine>,
    pub book: Allocator,
    pub driver: Driver,
    pub effects: Effects,
    mortal: Arc<Mortal>,
}

/// Dies around a message's durable intake.
struct MortalOutbox {
    engine: Arc<Engine>,
    mortal: Arc<Mortal>,
}

#[async_trait]
impl Outbox for MortalOutbox {
    async fn enqueue(&self, message: Enqueue) -> Result<EnqueueAnswer, String> {
        let answer = Outbox::enqueue(&*self.engine, message).await;
        self.mortal.point("message taken").await;
        answer
    }
    async fn status(&self, key: &str) -> Result<MessageStatus, String> {
        Outbox::status(&*self.engine, key).await
    }
}

impl World {
    /// Everything that is due at this head, one thing after another; then the messages.
    pub async fn step(&mut self, now: u64, chain: &FakeChain) {
        for request in self.driver.unnumbered(usize::MAX) {
            if let Ok(number) = NumberSource::allocate(&self.book, &allocation_key(None, &request)).await {
                self.mortal.point("number given").await;
                self.driver.numbered(&request, number, now).unwrap();
                self.mortal.point("number journaled").await;
            }
        }
        let head = chain.head();
        for _ in 0..30 {
            let work = self.driver.due(now, Some(head.height));
            if work.is_empty() {
                break;
            }
            for w in work {
                let event = self.effects.run(&w, Some(&head)).await;
                self.mortal.point("action done").await;
                self.driver.done(w.sector.number, w.run, event, now).unwrap();
                self.mortal.point("action journaled").await;
            }
        }
        self.engine.round(&head).await.unwrap();
    }

    /// Steps and epochs until `done`, at most `steps`.
    pub async fn run(&mut self, o: &mut Outside, steps: u32, done: impl Fn(&World) -> bool) {
        for _ in 0..steps {
            self.step(o.now, &o.chain.clone()).await;
            if done(self) {
                return;
            }
            o.chain.mine();
            o.now += 1000;
        }
        panic!("not done after {steps} epochs: {:#?}", self.driver.list());
    }

    pub fn sector(&self, number: u64) -> Sector {
        self.driver.sector(number).unwrap().unwrap()
    }
    pub fn phase(&self, number: u64) -> Option<Phase> {
        self.driver.phase(number)
    }
}

pub fn file(dir: &std::path::Path, kind: &str, name: &str) -> PathBuf {
    dir.join("sectors").join(kind).join(name)
}
