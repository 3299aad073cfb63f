//! The nonce line of an address that not only one sender uses: another miner of this node, the operator by hand, a mempool
//! that lost a message. What ours wait for is mended or told.

use crate::support::fake_chain::{FakeChain, fil, miner, owner, worker};
use crate::support::mortal::Mortal;
use async_trait::async_trait;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus, WithdrawAnswer};
use bulkhead::actors::message_sender::record::{Done, NextNonce, UNDATED};
use bulkhead::actors::message_sender::{AddressRules, Engine, NodeWallet, SendRules, SenderSettings, Wallet};
use bulkhead::chain::Address;
use bulkhead::chain::types::{Message, Signature, SignedMessage};
use bulkhead::rpc::full_node::FullNodeError;
use bulkhead::store::{Record, Store, Token};
use std::sync::Arc;

const SEND: u64 = 0;
const WINDOW_POST: u64 = 5;
const PRE_COMMIT: u64 = 28;

struct Setup {
    _dir: tempfile::TempDir,
    chain: Arc<FakeChain>,
    store: Store,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::new(Mortal::default()));
    chain.state().plain = true;
    // Nobody but the worker can send.
    chain.state().keyless = [owner()].into();
    Setup { store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(), chain, _dir: dir }
}

impl Setup {
    fn engine(&self, scope: &str, wallet: Arc<dyn Wallet>) -> Engine {
        Engine {
            scope: scope.into(),
            miner: Some(miner()),
            node: self.chain.clone(),
            wallet,
            store: self.store.clone(),
            token: Token { path: format!("/{scope}/message-sender").into(), epoch: 1 },
            fence: None,
            settings: SenderSettings {
                rules: SendRules { confidence: 2, replace_after: 10, lost_after: 20, repush_every: 5 },
                window_post_fee: fil(1_000_000_000),
                pre_commit_fee: fil(1_000_000),
                max_fee: fil(1_000_000),
                maximize_window_post: false,
                estimate_tries: 3,
                keep_done: 50,
                ..SenderSettings::default()
            },
            memory: Arc::default(),
        }
    }

    fn sender(&self) -> Engine {
        self.engine("t01000", Arc::new(NodeWallet(self.chain.clone())))
    }

    fn give(&self, e: &Engine, key: &str, method: u64) {
        let closes = (method == WINDOW_POST).then(|| self.chain.state().height + 60);
        let (key, params, value, max_fee) = (key.to_string(), vec![0x80], fil(0), fil(0));
        let answer = e.enqueue(&Enqueue { key, to: miner(), method, params, value, max_fee, from: None, closes });
        assert_eq!(answer.unwrap(), EnqueueAnswer::Accepted);
    }

    async fn rounds(&self, e: &Engine, count: u32) {
        for _ in 0..count {
            e.round(&self.chain.head()).await.unwrap();
            self.chain.mine();
        }
    }

    fn calls(&self, method: &str) -> u64 {
        self.chain.state().calls.get(method).copied().unwrap_or(0)
    }

    /// The sender's next nonce is ahead of what the mempool and its own messages have.
    fn skip_nonces(&self, next: u64) {
        let token = Token { path: "/t01000/message-sender".into(), epoch: 1 };
        self.store.put(&token, &worker().to_string(), &NextNonce(next)).unwrap();
    }
}

fn landed(e: &Engine, key: &str) -> bool {
    matches!(e.status(key).unwrap(), MessageStatus::Landed { .. })
}

/// Signs while another miner's sender of the same address does a round of its own.
struct Between {
    other: Engine,
    chain: Arc<FakeChain>,
}

#[async_trait]
impl Wallet for Between {
    async fn sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError> {
        self.other.round(&self.chain.head()).await.unwrap();
        self.other.wallet.sign_message(who, message).await
    }

    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, FullNodeError> {
        self.other.wallet.sign(key, bytes).await
    }
}

#[tokio::test]
async fn a_nonce_that_another_miner_gives_back_meanwhile_leaves_no_hole() {
    let s = setup();
    let first = s.sender();
    s.give(&first, "post", WINDOW_POST);
    // No node takes its bytes: at the third head its nonce is given back.
    s.chain.state().push_error = Some("message will not be included in a block: 'GasLimit' field".into());
    s.rounds(&first, 2).await;
    assert_eq!(s.store.get::<NextNonce>(&worker().to_string()).unwrap(), Some(NextNonce(1)));
    let second = s.engine("t01001", Arc::new(Between { other: first, chain: s.chain.clone() }));
    s.give(&second, "post", WINDOW_POST);
    s.rounds(&second, 1).await;
    s.chain.state().push_error = None;
    s.rounds(&second, 8).await;
    assert!(landed(&second, "post"), "{:?}", second.pending());
    let nonces: Vec<u64> = s.chain.executed(WINDOW_POST).iter().map(|e| e.message.nonce).collect();
    assert_eq!(nonces.first(), Some(&0), "{nonces:?}");
    assert!(s.chain.executed(SEND).is_empty(), "no hole was to be filled");
}

#[tokio::test]
async fn what_ends_before_a_head_is_known_is_kept_as_long_as_the_rest() {
    let s = setup();
    s.chain.state().height = 1000;
    let e = s.sender();
    s.give(&e, "early", PRE_COMMIT);
    assert_eq!(e.withdraw("early").unwrap(), WithdrawAnswer::Withdrawn);
    assert_eq!(s.store.get::<Done>("t01000/early").unwrap().unwrap().at, UNDATED);
    s.give(&e, "post", WINDOW_POST);
    s.rounds(&e, 5).await;
    assert!(landed(&e, "post"));
    assert!(matches!(e.status("early").unwrap(), MessageStatus::Failed { .. }), "not forgotten at once");
    // And not for ever.
    s.chain.state().height += 60;
    s.give(&e, "post-2", WINDOW_POST);
    s.rounds(&e, 5).await;
    assert!(landed(&e, "post-2"));
    assert_eq!(e.status("early").unwrap(), MessageStatus::Unknown);
}

#[tokio::test]
async fn an_address_that_cannot_send_is_asked_about_once_a_head() {
    let s = setup();
    let mut e = s.sender();
    let named = Address::new_bls(&[9; 48]).unwrap();
    e.settings.addresses = AddressRules { pre_commit: vec![named], commit: vec![named], ..AddressRules::default() };
    s.chain.state().keyless = [owner(), worker()].into();
    for n in 0..20 {
        s.give(&e, &format!("pre-commit-{n}"), PRE_COMMIT);
    }
    for heads in 1..=3 {
        // Every message that comes makes a round of its own.
        for _ in 0..3 {
            e.round(&s.chain.head()).await.unwrap();
        }
        s.chain.mine();
        // Owner and worker have no key in the wallet; the named one is not on chain.
        assert_eq!((s.calls("StateLookupID"), s.calls("WalletHas")), (heads, 2 * heads));
        let alerts = e.summary().unwrap().alerts.join("; ");
        assert!(alerts.contains(&format!("[addresses] names {named}")), "{alerts}");
    }
    // A key that is put into the wallet is found at the next head.
    s.chain.state().keyless = [owner()].into();
    s.rounds(&e, 4).await;
    assert_eq!(s.chain.executed(PRE_COMMIT).len(), 20);
}

#[tokio::test]
async fn a_foreign_message_in_front_of_a_proof_is_told_with_what_to_type() {
    let s = setup();
    let e = s.sender();
    s.chain.transfer(worker());
    s.chain.state().mempool[0].message.gas_fee_cap = fil(10);
    s.give(&e, "post", WINDOW_POST);
    let mut told = Vec::new();
    for _ in 0..5 {
        e.round(&s.chain.head()).await.unwrap();
        told.push(e.summary().unwrap().alerts.join("; "));
        s.chain.mine();
    }
    assert!(!landed(&e, "post"));
    let said =
        told.iter().map(|told| told.contains("in front") || told.contains("lotus mpool replace")).collect::<Vec<_>>();
    assert_eq!(said, [false, false, false, true, true], "{told:?}");
    for part in ["nonce 0", "fee cap of 10 attoFIL", &format!("lotus mpool replace --auto {} 0", worker())] {
        assert!(told[4].contains(part), "{part}: {}", told[4]);
    }
    assert!(s.calls("MpoolPending") <= 2, "the mempool is not listed at every head");
    assert_eq!(s.chain.state().mempool.iter().filter(|m| m.message.nonce == 0).count(), 1, "it is left alone");
    // It lands, and the alert ends.
    s.chain.state().mempool[0].message.gas_fee_cap = fil(1 << 40);
    s.rounds(&e, 5).await;
    assert!(landed(&e, "post") && e.summary().unwrap().alerts.is_empty());
}

#[tokio::test]
async fn nonces_that_no_message_has_are_filled_within_two_epochs() {
    for counts_from_the_last in [false, true] {
        let s = setup();
        s.chain.state().pool_counts_from_the_last = counts_from_the_last;
        let e = s.sender();
        s.skip_nonces(3);
        s.give(&e, "post", WINDOW_POST);
        let mut epochs = 0;
        while !landed(&e, "post") {
            s.rounds(&e, 1).await;
            epochs += 1;
            assert!(epochs < 12, "{:?} {:?}", e.pending(), e.summary());
        }
        assert!(epochs <= 6, "{epochs}");
        let fillers: Vec<_> = s.chain.executed(SEND).iter().map(|x| (x.message.nonce, x.message.to)).collect();
        assert_eq!(fillers, [0, 1, 2].map(|nonce| (nonce, worker())), "{counts_from_the_last}");
        assert_eq!(s.chain.executed(WINDOW_POST).len(), 1);
        s.rounds(&e, 4).await;
        assert!(e.pending().unwrap().is_empty(), "the fillers end as well: {:?}", e.pending());
    }
}

#[tokio::test]
async fn a_hole_that_cannot_be_filled_is_told() {
    let s = setup();
    let e = s.sender();
    s.skip_nonces(1);
    s.give(&e, "pre-commit", PRE_COMMIT);
    s.rounds(&e, 1).await;
    s.chain.state().balances = [(worker(), fil(205_000))].into();
    s.rounds(&e, 2).await;
    let alerts = e.summary().unwrap().alerts.join("; ");
    let by_hand = format!("lotus send --from {0} --nonce 0 {0} 0", worker());
    assert!(alerts.contains(&by_hand), "{alerts}");
}

/// Of the same tables, and readable by nobody.
#[derive(serde::Serialize, serde::Deserialize)]
struct Garbage<const NONCE: bool>(String);

impl Record for Garbage<true> {
    const TABLE: &'static str = "nonces";
}

impl Record for Garbage<false> {
    const TABLE: &'static str = "messages";
}

#[tokio::test]
async fn a_next_nonce_that_cannot_be_read_is_made_again_and_none_is_used_twice() {
    let s = setup();
    let e = s.sender();
    s.chain.state().down_for_pushes = true;
    s.give(&e, "first", WINDOW_POST);
    s.rounds(&e, 1).await; // signed with nonce 0, and no mempool tells of it
    let key = worker().to_string();
    s.store.put(&e.token, &key, &Garbage::<true>("x".into())).unwrap();
    s.give(&e, "second", WINDOW_POST);
    s.rounds(&e, 2).await;
    assert_eq!(s.store.get::<NextNonce>(&key).unwrap(), Some(NextNonce(2)), "{:?}", e.pending());
    s.chain.state().down_for_pushes = false;
    s.rounds(&e, 10).await;
    assert!(landed(&e, "first") && landed(&e, "second"), "{:?}", e.pending());
    let nonces: Vec<u64> = s.chain.executed(WINDOW_POST).iter().map(|e| e.message.nonce).collect();
    assert_eq!(nonces, [0, 1]);
}

#[tokio::test]
async fn where_a_used_nonce_may_be_forgotten_another_address_sends() {
    let s = setup();
    let control = Address::new_bls(&[9; 48]).unwrap();
    s.chain.state().controls = vec![(102, control)];
    let e = s.sender();
    s.store.put(&e.token, &control.to_string(), &Garbage::<true>("x".into())).unwrap();
    s.store.put(&e.token, "t01000/lost", &Garbage::<false>("x".into())).unwrap();
    s.give(&e, "post", WINDOW_POST);
    s.rounds(&e, 6).await;
    assert!(landed(&e, "post"), "{:?}", e.pending());
    assert_eq!(s.chain.executed(WINDOW_POST)[0].message.from, worker());
    // Nobody else can: it waits, and says for what.
    s.chain.state().keyless.insert(worker());
    let e = s.sender();
    s.give(&e, "later", WINDOW_POST);
    s.rounds(&e, 4).await;
    let MessageStatus::Queued { why_waiting } = e.status("later").unwrap() else { panic!("{:?}", e.pending()) };
    assert!(why_waiting.contains("t01000/lost") && why_waiting.contains("cluster repair"), "{why_waiting}");
}

/// A refusal that passes is not the lack of a key: sealing does not turn to money that is not meant for it.
#[tokio::test]
async fn a_passing_failure_of_a_look_up_moves_no_message_to_another_purse() {
    const PASSING: &str = "failed to load tipset: context deadline exceeded";
    const FOR_GOOD: &str = "failed to get account actor state for f0102: actor code is not account: multisig";
    let control = Address::new_bls(&[9; 48]).unwrap();
    for (error, sends_at_once) in [(PASSING, false), (FOR_GOOD, true)] {
        let s = setup();
        s.chain.state().controls = vec![(102, control)];
        let mut e = s.sender();
        e.settings.addresses.pre_commit = vec![Address::new_id(102)];
        s.give(&e, "warm", SEND); // the worker's key is known
        s.rounds(&e, 1).await;
        s.chain.state().account_key_error = Some(error.into());
        s.give(&e, "pre-commit", PRE_COMMIT);
        s.rounds(&e, 3).await;
        assert_eq!(s.chain.executed(PRE_COMMIT).len(), usize::from(sends_at_once), "{error}: {:?}", e.pending());
        // Proving goes on with whoever is known.
        s.chain.state().controls.push((103, Address::new_bls(&[10; 48]).unwrap()));
        s.give(&e, "post", WINDOW_POST);
        s.rounds(&e, 3).await;
        assert_eq!(s.chain.executed(WINDOW_POST)[0].message.from, worker(), "{error}");
        s.chain.state().account_key_error = None;
        s.rounds(&e, 6).await;
        let from = if sends_at_once { worker() } else { control };
        assert_eq!(s.chain.executed(PRE_COMMIT)[0].message.from, from, "{error}");
    }
}

/// Signs; each time the next call finds another full node, whose mempool has other messages.
struct OtherNode {
    node: NodeWallet,
    chain: Arc<FakeChain>,
    mempool: Arc<std::sync::Mutex<Vec<SignedMessage>>>,
}

impl OtherNode {
    fn swap(chain: &FakeChain, mempool: &std::sync::Mutex<Vec<SignedMessage>>) {
        std::mem::swap(&mut chain.state().mempool, &mut mempool.lock().unwrap());
    }
}

#[async_trait]
impl Wallet for OtherNode {
    async fn sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError> {
        OtherNode::swap(&self.chain, &self.mempool);
        self.node.sign_message(who, message).await
    }

    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, FullNodeError> {
        self.node.sign(key, bytes).await
    }
}

/// Two full nodes that tell each other no messages: between two calls the other one answers, with a lower nonce.
#[tokio::test]
async fn nodes_that_disagree_about_the_mempool_cost_no_nonce_and_no_message() {
    const MESSAGES: u64 = 12;
    let setup = setup();
    let mempool = Arc::new(std::sync::Mutex::new(vec![]));
    let (node, chain) = (NodeWallet(setup.chain.clone()), setup.chain.clone());
    let wallet = OtherNode { node, chain, mempool: mempool.clone() };
    let sender = setup.engine("t01000", Arc::new(wallet));
    for number in 0..MESSAGES {
        setup.give(&sender, &format!("m{number}"), PRE_COMMIT);
        if number % 3 == 2 {
            setup.rounds(&sender, 1).await;
            OtherNode::swap(&setup.chain, &mempool);
        }
    }
    for _ in 0..60 {
        setup.rounds(&sender, 1).await;
        OtherNode::swap(&setup.chain, &mempool);
    }
    for number in 0..MESSAGES {
        assert!(landed(&sender, &format!("m{number}")), "m{number}: {:?}", sender.status(&format!("m{number}")));
    }
    let executed: Vec<u64> = setup.chain.state().executed.iter().map(|done| done.message.nonce).collect();
    assert_eq!(executed, (0..MESSAGES).collect::<Vec<_>>(), "each nonce once, in order");
}
