//! A round of the message sender with 200 open messages, before a node that has 20,000 in its mempool.
//!
//! `cargo bench --bench messages`. The node answers at once: what is measured is the sender's own work, and what it asks for.
//! Listing such a mempool once is measured beside it.

use async_trait::async_trait;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer};
use bulkhead::actors::message_sender::{Engine, NodeWallet, SenderSettings};
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, ChainEpoch, TokenAmount, cbor};
use bulkhead::rpc::full_node::{FullNode, Result};
use bulkhead::store::{Store, Token};
use cid::Cid;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const OPEN: usize = 200;
const POOLED: u64 = 20_000;
const ROUNDS: u32 = 20;

fn miner() -> Address {
    Address::new_id(1000)
}
fn worker() -> Address {
    Address::new_bls(&[7; 48]).expect("an address")
}

#[derive(Default)]
struct State {
    pool: Vec<SignedMessage>,
    nonces: HashMap<Address, u64>,
    calls: HashMap<&'static str, u64>,
}

struct Node(Mutex<State>);

impl Node {
    fn call(&self, method: &'static str) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.0.lock().expect("no panic");
        *state.calls.entry(method).or_default() += 1;
        state
    }
}

#[async_trait]
impl FullNode for Node {
    fn name(&self) -> String {
        "bench:1234".into()
    }
    async fn state_get_actor(&self, _: &Address, _: &TipSetKey) -> Result<Option<OnChainActor>> {
        drop(self.call("StateGetActor"));
        let code = Cid::default();
        let balance = TokenAmount::from_whole(1_000_000);
        Ok(Some(OnChainActor { code, head: code, nonce: 0, balance, delegated_address: None }))
    }
    async fn state_account_key(&self, _: &Address, _: &TipSetKey) -> Result<Address> {
        drop(self.call("StateAccountKey"));
        Ok(worker())
    }
    async fn state_miner_info(&self, _: &Address, _: &TipSetKey) -> Result<MinerInfo> {
        drop(self.call("StateMinerInfo"));
        Ok(MinerInfo {
            owner: Address::new_id(100),
            worker: Address::new_id(101),
            beneficiary: None,
            pending_owner_address: None,
            new_worker: None,
            control_addresses: vec![],
            worker_change_epoch: -1,
            peer_id: None,
            multiaddrs: vec![],
            window_post_proof_type: 10,
            sector_size: 2048,
            window_post_partition_sectors: 2,
            consensus_fault_elapsed: -1,
        })
    }
    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        Ok(self.call("MpoolGetNonce").nonces.get(who).copied().unwrap_or(0))
    }
    async fn mpool_push(&self, m: &SignedMessage) -> Result<Cid> {
        let mut state = self.call("MpoolPush");
        state.nonces.insert(m.message.from, m.message.nonce + 1);
        state.pool.push(m.clone());
        Ok(cbor::signed_message_cid(m).expect("a CID"))
    }
    async fn mpool_pending(&self, _: &TipSetKey) -> Result<Vec<SignedMessage>> {
        Ok(self.call("MpoolPending").pool.clone())
    }
    async fn gas_estimate_message_gas(&self, m: &Message, _: &TokenAmount, _: &TipSetKey) -> Result<Message> {
        drop(self.call("GasEstimateMessageGas"));
        let (gas_fee_cap, gas_premium) = (TokenAmount::from_atto(200), TokenAmount::from_atto(100));
        Ok(Message { gas_limit: 50_000_000, gas_fee_cap, gas_premium, ..m.clone() })
    }
    async fn wallet_sign_message(&self, _: &Address, m: &Message) -> Result<SignedMessage> {
        drop(self.call("WalletSignMessage"));
        Ok(SignedMessage { message: m.clone(), signature: Signature { kind: 2, data: vec![9; 96] } })
    }
}

fn head(height: ChainEpoch, base_fee: u64) -> TipSet {
    let any = Cid::default();
    let block = BlockHeader {
        miner: miner(),
        ticket: None,
        election_proof: None,
        beacon_entries: vec![],
        win_post_proof: vec![],
        parents: vec![],
        parent_weight: 0.into(),
        height,
        parent_state_root: any,
        parent_message_receipts: any,
        messages: any,
        bls_aggregate: None,
        timestamp: 0,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(base_fee),
    };
    TipSet { cids: vec![any], blocks: vec![block], height }
}

fn pooled(nonce: u64) -> SignedMessage {
    let message = Message {
        version: 0,
        to: Address::new_id(2000),
        from: Address::new_id(3000),
        nonce,
        value: TokenAmount::from_atto(1),
        gas_limit: 1000,
        gas_fee_cap: TokenAmount::from_atto(200),
        gas_premium: TokenAmount::from_atto(100),
        method: 0,
        params: vec![7; 300],
    };
    SignedMessage { message, signature: Signature { kind: 1, data: vec![1; 65] } }
}

async fn rounds(engine: &Engine, node: &Node, from: ChainEpoch, base_fee: u64, what: &str) {
    let before: u64 = node.0.lock().expect("no panic").calls.values().sum();
    let mut slowest = 0f64;
    let start = Instant::now();
    for n in 0..ROUNDS {
        let one = Instant::now();
        engine.round(&head(from + ChainEpoch::from(n) % 4, base_fee)).await.expect("a round");
        slowest = slowest.max(one.elapsed().as_secs_f64());
    }
    let mean = start.elapsed().as_secs_f64() / f64::from(ROUNDS);
    let calls = node.0.lock().expect("no panic").calls.values().sum::<u64>() - before;
    println!(
        "{what}: {:.1} ms a round, {:.1} ms the slowest, {:.1} calls a round",
        mean * 1e3,
        slowest * 1e3,
        calls as f64 / f64::from(ROUNDS)
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let pool: Vec<SignedMessage> = (0..POOLED).map(pooled).collect();
    let node = Arc::new(Node(Mutex::new(State { pool, ..State::default() })));
    let engine = Engine {
        scope: "t01000".into(),
        miner: Some(miner()),
        node: node.clone(),
        wallet: Arc::new(NodeWallet(node.clone())),
        store: Store::open(&dir.path().join("bulkhead.redb")).expect("a store"),
        token: Token { path: "/t01000/message-sender".into(), epoch: 1 },
        fence: None,
        settings: SenderSettings::default(),
        memory: Arc::default(),
    };
    for n in 0..OPEN {
        let message = Enqueue {
            key: format!("pre-commit-{n}"),
            to: miner(),
            method: 28,
            params: vec![7; 1000],
            value: TokenAmount::from_atto(1),
            max_fee: TokenAmount::default(),
            from: None,
            closes: None,
        };
        assert_eq!(engine.enqueue(&message).expect("stored"), EnqueueAnswer::Accepted);
    }
    // Far above the bound of 0.02 FIL for 50 million units of gas: estimated once each, then they wait.
    for n in 0..10 {
        engine.round(&head(10 + n, 1_000_000_000)).await.expect("a round");
    }
    rounds(&engine, &node, 20, 1_000_000_000, "200 messages that wait for the base fee").await;
    for n in 0..10 {
        engine.round(&head(30 + n, 100)).await.expect("a round");
    }
    let held = engine.list(OPEN).expect("a list").rows.iter().filter(|row| row.state == "pushed").count();
    assert_eq!(held, OPEN, "all are in the mempool");
    rounds(&engine, &node, 40, 100, "200 messages in a mempool of 20,200").await;
    let start = Instant::now();
    let listed = node.mpool_pending(&TipSetKey::default()).await.expect("a list");
    let cids: HashSet<Cid> = listed.iter().filter_map(|m| cbor::signed_message_cid(m).ok()).collect();
    println!(
        "one listing with its CIDs, not asked for any more: {:.1} ms ({})",
        start.elapsed().as_secs_f64() * 1e3,
        cids.len()
    );
}
