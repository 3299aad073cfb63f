//! A miner of as many sectors as asked for, of which a few wait for the chain: what a head costs then.

use super::fake_chain::{FakeChain, miner};
use super::mortal::Mortal;
use super::scripted_prover::ScriptedProver;
use async_trait::async_trait;
use bulkhead::actors::message_sender::Outbox;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use bulkhead::actors::seal_scheduler::{
    AnswersByHead, Driver, Effects, Limits, NoAgents, Phase, Rules, SealSettings, Sector, SectorDirs,
};
use bulkhead::chain::miner_messages::sealed_cid;
use bulkhead::chain::types::{SectorOnChainInfo, SectorPreCommitInfo, SectorPreCommitOnChainInfo};
use bulkhead::store::{Store, StoreError, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const COMM_R: [u8; 32] = [3; 32];
/// The epoch of the head at the start.
pub const HEAD: i64 = 1000;

/// Sectors in each state, numbered in this order.
#[derive(Clone, Copy, Default)]
pub struct Miner {
    pub proving: u64,
    pub pre_commit_wait: u64,
    /// Pre-committed at [`HEAD`].
    pub wait_seed: u64,
    pub commit_wait: u64,
    /// Records as long as those of sectors of 32 GiB that went through without a failure.
    pub long: bool,
}

impl Miner {
    pub fn all(&self) -> u64 {
        self.proving + self.pre_commit_wait + self.wait_seed + self.commit_wait
    }
    pub fn phase(&self, number: u64) -> Phase {
        let [a, b, c] = [self.proving, self.pre_commit_wait, self.wait_seed];
        match number {
            n if n <= a => Phase::Proving,
            n if n <= a + b => Phase::PreCommitWait,
            n if n <= a + b + c => Phase::WaitSeed,
            _ => Phase::CommitWait,
        }
    }
    fn sector(&self, number: u64) -> Sector {
        let mut sector = Sector::new(number, &format!("api-{number}"), 1);
        sector.phase = self.phase(number);
        sector.seal_proof = Some(8);
        (sector.comm_r, sector.comm_d) = (Some(COMM_R), Some([0; 32]));
        sector.pre_commit_epoch = Some(HEAD);
        if !self.long {
            return sector;
        }
        sector.proof = vec![7; 1920];
        let step = sector.log[0].clone();
        sector.log = vec![bulkhead::actors::seal_scheduler::LogLine { text: "x".repeat(40), ..step }; 16];
        sector.timings = vec![sector.timings[0].clone(); 15];
        sector
    }
    /// The records of all of them, in one transaction.
    pub fn journal(&self, at: &Path) -> Store {
        let store = Store::open(at).unwrap();
        let write = store.transact(&token(0), |tx| {
            (1..=self.all()).try_for_each(|n| tx.put(&format!("t01000/{n:020}"), &self.sector(n)))
        });
        write.map_err(|e: StoreError| e).unwrap();
        store
    }
    /// Those that are being sealed on chain; nobody asks for the others.
    pub fn on_chain(&self) -> Arc<FakeChain> {
        let chain = FakeChain::new(Arc::new(Mortal::default()));
        let mut state = chain.state();
        state.height = HEAD;
        for number in self.proving + 1..=self.all() {
            if self.phase(number) != Phase::PreCommitWait {
                state.allocated.insert(number);
            }
            if self.phase(number) == Phase::WaitSeed {
                state.pre_commits.insert(number, pre_commit(number));
            }
        }
        drop(state);
        chain
    }
}

fn token(epoch: u64) -> Token {
    Token { path: "/t01000/seal-scheduler".into(), epoch }
}

pub fn pre_commit(number: u64) -> SectorPreCommitOnChainInfo {
    let info = SectorPreCommitInfo {
        seal_proof: 8,
        sector_number: number,
        sealed_cid: sealed_cid(&COMM_R).unwrap(),
        seal_rand_epoch: 1,
        deal_ids: vec![],
        expiration: 100_000,
        unsealed_cid: None,
    };
    SectorPreCommitOnChainInfo { info, pre_commit_deposit: Default::default(), pre_commit_epoch: HEAD }
}

pub fn proven(number: u64, activation: i64) -> SectorOnChainInfo {
    let info = pre_commit(number).info;
    SectorOnChainInfo {
        sector_number: number,
        seal_proof: info.seal_proof,
        sealed_cid: info.sealed_cid,
        deal_ids: vec![],
        activation,
        expiration: info.expiration,
        initial_pledge: None,
        expected_day_reward: None,
        expected_storage_pledge: None,
        power_base_epoch: activation,
        sector_key_cid: None,
        flags: 0,
        daily_fee: None,
    }
}

/// A message sender whose messages are on their way until the test says otherwise.
#[derive(Default)]
pub struct OnTheWay {
    pub asked: AtomicU64,
    pub status: Mutex<BTreeMap<String, MessageStatus>>,
}

#[async_trait]
impl Outbox for OnTheWay {
    async fn enqueue(&self, _: Enqueue) -> Result<EnqueueAnswer, String> {
        Ok(EnqueueAnswer::Accepted)
    }
    async fn status(&self, key: &str) -> Result<MessageStatus, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let queued = MessageStatus::Queued { why_waiting: "on its way".into() };
        Ok(self.status.lock().unwrap().get(key).cloned().unwrap_or(queued))
    }
}

/// The scheduler's parts over that miner.
pub struct Waiting {
    pub chain: Arc<FakeChain>,
    pub outbox: Arc<OnTheWay>,
    pub driver: Driver,
    pub effects: Effects,
}

/// What some heads cost.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Method of the full node -> calls.
    pub calls: BTreeMap<&'static str, u64>,
    /// Sectors that were looked at to find what is due.
    pub looked_at: u64,
    /// Questions to the message sender.
    pub asked: u64,
    /// Sectors for which something was carried out.
    pub actions: BTreeSet<u64>,
}

impl Waiting {
    pub fn new(miner: &Miner, dir: &Path) -> Waiting {
        let store = miner.journal(&dir.join("bulkhead.redb"));
        Waiting::over(miner, store, dir)
    }

    pub fn over(of: &Miner, store: Store, dir: &Path) -> Waiting {
        let chain = of.on_chain();
        let outbox = Arc::new(OnTheWay::default());
        let driver =
            Driver::load(store, token(1), "t01000".into(), Rules::default(), Limits::default()).expect("the journal");
        let effects = Effects {
            node: chain.clone(),
            prover: ScriptedProver::new(chain.mortal.clone()),
            outbox: outbox.clone(),
            miner: miner(),
            dirs: SectorDirs::of_repo(dir, 1000),
            settings: SealSettings { seed_confidence: 1, commit_confidence: 2, ..SealSettings::default() },
            agents: Arc::new(NoAgents),
            rules: Default::default(),
            fence: None,
            answers: AnswersByHead::default(),
            memory: Arc::new(bulkhead::util::host::memory),
        };
        Waiting { chain, outbox, driver, effects }
    }

    /// One more epoch, and all that is due at it, as often as something is.
    pub async fn head(&mut self, now: u64) -> Cost {
        self.chain.mine();
        self.chain.state().calls.clear();
        let (looked_at, asked) = (self.driver.looked_at(), self.outbox.asked.load(Ordering::Relaxed));
        let head = self.chain.head();
        let mut actions = BTreeSet::new();
        loop {
            let work = self.driver.due(now, Some(head.height));
            if work.is_empty() {
                break;
            }
            for w in work {
                actions.insert(w.sector.number);
                let event = self.effects.run(&w, Some(&head)).await;
                self.driver.done(w.sector.number, w.run, event, now).unwrap();
                // As the actor does after each result.
                self.driver.next_wake(now);
            }
        }
        Cost {
            calls: self.chain.state().calls.clone(),
            looked_at: self.driver.looked_at() - looked_at,
            asked: self.outbox.asked.load(Ordering::Relaxed) - asked,
            actions,
        }
    }
}
