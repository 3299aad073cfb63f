//! A message lands exactly once, whatever fails on the way: a crash at any point, a mempool that forgets, a fee that is
//! too low, a nonce that someone else uses, a node that refuses.

use crate::support::fake_chain::{FakeChain, fil, miner, worker};
use crate::support::mortal::Mortal;
use async_trait::async_trait;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus, WithdrawAnswer};
use bulkhead::actors::message_sender::{Engine, NodeWallet, SendRules, SenderSettings, Wallet};
use bulkhead::chain::Address;
use bulkhead::chain::types::{Message, Signature, SignedMessage};
use bulkhead::rpc::full_node::FullNodeError;
use bulkhead::store::{Store, StoreError, Token};
use bulkhead::supervisor::{Fence, Fenced};
use std::path::Path;
use std::sync::Arc;

fn engine(path: &Path, chain: &Arc<FakeChain>, epoch: u64) -> Engine {
    Engine {
        scope: "t01000".into(),
        miner: Some(miner()),
        node: chain.clone(),
        wallet: Arc::new(NodeWallet(chain.clone())),
        store: Store::open(path).unwrap(),
        token: Token { path: "/t01000/message-sender".into(), epoch },
        fence: None,
        settings: SenderSettings {
            rules: SendRules { confidence: 2, replace_after: 4, lost_after: 3, repush_every: 2 },
            max_fee: fil(1_000_000),
            window_post_fee: fil(1_000_000),
            maximize_window_post: false,
            estimate_tries: 3,
            max_open: 3,
            proving_places: 0,
            keep_done: 50,
            ..SenderSettings::default()
        },
        memory: Arc::default(),
    }
}

fn message(key: &str) -> Enqueue {
    Enqueue {
        key: key.into(),
        to: miner(),
        method: 5,
        params: vec![0x80],
        value: fil(0),
        max_fee: fil(0),
        from: None,
        closes: None,
    }
}

struct Setup {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    chain: Arc<FakeChain>,
    mortal: Arc<Mortal>,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let mortal = Arc::new(Mortal::default());
    let path = dir.path().join("bulkhead.redb");
    Setup { path, chain: FakeChain::new(mortal.clone()), mortal, _dir: dir }
}

async fn rounds(engine: &Engine, chain: &FakeChain, count: u32) {
    for _ in 0..count {
        engine.round(&chain.head()).await.unwrap();
        chain.mine();
    }
}

fn landed(engine: &Engine, key: &str) -> bool {
    matches!(engine.status(key).unwrap(), MessageStatus::Landed { .. })
}

#[tokio::test]
async fn a_message_lands_and_the_same_key_is_the_same_message() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    assert_eq!(e.status("a").unwrap(), MessageStatus::Unknown);
    assert_eq!(e.enqueue(&message("a")).unwrap(), EnqueueAnswer::Accepted);
    let known = e.enqueue(&Enqueue { method: 6, ..message("a") }).unwrap();
    assert!(matches!(known, EnqueueAnswer::Known(MessageStatus::Queued { .. })), "{known:?}");
    rounds(&e, &s.chain, 1).await;
    assert!(matches!(e.status("a").unwrap(), MessageStatus::Pushed { nonce: 0, since: 10, .. }));
    // Executed at 11; final at confidence 2.
    for (height, done) in [(11, false), (12, false), (13, true)] {
        assert_eq!(s.chain.head().height, height);
        rounds(&e, &s.chain, 1).await;
        assert_eq!(landed(&e, "a"), done, "at {height}: {:?}", e.status("a"));
    }
    let known = e.enqueue(&message("a")).unwrap();
    assert!(matches!(known, EnqueueAnswer::Known(MessageStatus::Landed { epoch: 11, .. })), "{known:?}");
    rounds(&e, &s.chain, 3).await;
    assert_eq!((s.chain.executed(5).len(), s.chain.state().pushes), (1, 1));
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_sent_twice_over_a_crash_at_any_point() {
    let mut died_at = Vec::new();
    for point in 1.. {
        let s = setup();
        s.mortal.die_at(Some(point));
        let mut life = 1;
        let mut e = engine(&s.path, &s.chain, life);
        let mut stored = Vec::new();
        for key in ["a", "b"] {
            e.enqueue(&message(key)).unwrap();
        }
        for _ in 0..12 {
            if s.mortal.live(e.round(&s.chain.head())).await.is_none() {
                died_at.push(s.mortal.place());
                stored = s.chain.state().mempool.clone();
                drop(e);
                s.mortal.die_at(None);
                life += 1;
                e = engine(&s.path, &s.chain, life);
                for key in ["a", "b"] {
                    assert!(matches!(e.enqueue(&message(key)).unwrap(), EnqueueAnswer::Known(_)));
                }
            }
            s.chain.mine();
        }
        assert!(landed(&e, "a") && landed(&e, "b"), "died at {point}: {:?}", e.pending());
        let executed = s.chain.executed(5);
        assert_eq!(executed.len(), 2, "died at {point} {:?}", died_at.last());
        // What was in the mempool before the crash is what landed: the bytes were not signed again.
        for before in stored {
            assert!(executed.iter().any(|x| x.message == before.message), "died at {point}");
        }
        if life == 1 {
            break;
        }
    }
    for place in ["before MpoolPush", "after MpoolPush", "after WalletSignMessage", "before StateSearchMsg"] {
        assert!(died_at.iter().any(|p| p == place), "{place} was not among {died_at:?}");
    }
}

#[tokio::test]
async fn a_mempool_that_forgets_gets_the_same_bytes_again() {
    for blind in [false, true] {
        let s = setup();
        let e = engine(&s.path, &s.chain, 1);
        s.chain.state().blind_mempool = blind;
        s.chain.state().min_premium = fil(1000);
        e.enqueue(&message("a")).unwrap();
        rounds(&e, &s.chain, 1).await;
        let before = s.chain.state().mempool.pop().unwrap();
        rounds(&e, &s.chain, 2).await;
        assert_eq!(s.chain.state().mempool, [before], "blind: {blind}");
    }
}

#[tokio::test]
async fn a_fee_that_is_too_low_is_raised_with_the_same_nonce_up_to_the_bound() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    s.chain.state().min_premium = fil(150);
    e.enqueue(&message("a")).unwrap();
    rounds(&e, &s.chain, 16).await;
    assert!(landed(&e, "a"), "{:?}", e.status("a"));
    let premiums: Vec<_> = s.chain.state().pushed.iter().map(|m| m.message.gas_premium.clone()).collect();
    assert_eq!(premiums, [fil(100), fil(126), fil(159)]);
    assert!(s.chain.state().pushed.iter().all(|m| m.message.nonce == 0));

    // 200 x 1000 is all that this one may cost.
    s.chain.state().min_premium = fil(10_000);
    e.enqueue(&Enqueue { max_fee: fil(200_000), ..message("b") }).unwrap();
    rounds(&e, &s.chain, 10).await;
    assert!(s.chain.state().pushed[3..].iter().all(|m| m.message.gas_fee_cap == fil(200)));
    s.chain.state().min_premium = fil(100);
    rounds(&e, &s.chain, 4).await;
    assert!(landed(&e, "b"), "{:?}", e.status("b"));
}

#[tokio::test]
async fn an_earlier_version_that_lands_after_all_counts() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    s.chain.state().min_premium = fil(1000);
    e.enqueue(&message("a")).unwrap();
    rounds(&e, &s.chain, 5).await;
    {
        // Some miner had kept the first version.
        let mut c = s.chain.state();
        assert_eq!(c.pushed.len(), 2);
        c.mempool = vec![c.pushed[0].clone()];
        c.min_premium = fil(0);
    }
    s.chain.mine();
    rounds(&e, &s.chain, 4).await;
    assert!(landed(&e, "a"), "{:?}", e.status("a"));
    assert_eq!(s.chain.executed(5).len(), 1);
}

#[tokio::test]
async fn a_nonce_that_someone_else_used_is_replaced_by_another() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    e.enqueue(&message("a")).unwrap();
    s.chain.state().min_premium = fil(1000);
    rounds(&e, &s.chain, 1).await;
    {
        let mut c = s.chain.state();
        c.mempool.clear();
        c.nonces.insert(worker(), 1);
        c.min_premium = fil(0);
    }
    rounds(&e, &s.chain, 12).await;
    assert!(landed(&e, "a"), "{:?}", e.status("a"));
    let executed = s.chain.executed(5);
    assert_eq!((executed.len(), executed[0].message.nonce), (1, 1));
}

#[tokio::test]
async fn outages_are_waited_out_and_refusals_end_it_with_the_reason() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    e.enqueue(&message("a")).unwrap();
    s.chain.state().down = true;
    rounds(&e, &s.chain, 20).await;
    let waiting = e.status("a").unwrap();
    assert!(
        matches!(&waiting, MessageStatus::Queued { why_waiting } if why_waiting.contains("refused")),
        "{waiting:?}"
    );
    s.chain.state().down = false;
    s.chain.state().estimate_error = Some("message execution failed (exit=[18], vm error)".into());
    rounds(&e, &s.chain, 2).await;
    assert!(matches!(e.status("a").unwrap(), MessageStatus::Queued { .. }));
    rounds(&e, &s.chain, 1).await;
    assert!(matches!(e.status("a").unwrap(), MessageStatus::Failed { exit_code: 18, .. }), "{:?}", e.status("a"));
    assert_eq!(s.chain.state().pushes, 0);

    s.chain.state().estimate_error = None;
    s.chain.state().exits = vec![(5, 16)];
    e.enqueue(&message("b")).unwrap();
    rounds(&e, &s.chain, 5).await;
    assert!(matches!(e.status("b").unwrap(), MessageStatus::Failed { exit_code: 16, .. }), "{:?}", e.status("b"));
}

#[tokio::test]
async fn the_queue_is_bounded_and_outcomes_are_kept_for_a_while() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    for key in ["a", "b", "c"] {
        assert_eq!(e.enqueue(&message(key)).unwrap(), EnqueueAnswer::Accepted);
    }
    assert!(matches!(e.enqueue(&message("d")).unwrap(), EnqueueAnswer::Refused(_)));
    rounds(&e, &s.chain, 5).await;
    let nonces: Vec<_> = s.chain.executed(5).iter().map(|x| x.message.nonce).collect();
    assert_eq!(nonces, [0, 1, 2]);
    (0..51).for_each(|_| s.chain.mine());
    assert!(landed(&e, "a"));
    e.enqueue(&message("d")).unwrap();
    rounds(&e, &s.chain, 5).await;
    assert_eq!(e.status("a").unwrap(), MessageStatus::Unknown, "pruned");
    assert!(landed(&e, "d"));
}

#[tokio::test]
async fn a_sender_that_was_replaced_pushes_nothing_more() {
    let s = setup();
    let mut e = engine(&s.path, &s.chain, 1);
    e.enqueue(&message("a")).unwrap();
    e.token.epoch = 2;
    e.enqueue(&message("b")).unwrap();
    e.token.epoch = 1;
    let refused = e.round(&s.chain.head()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(s.chain.state().pushes, 0);
}

/// The rights of an incarnation whose successor has written nothing yet.
struct Replaced;
impl Fence for Replaced {
    fn check(&self) -> Result<(), Fenced> {
        Err(Fenced { path: "/t01000/message-sender".into(), epoch: 1, newer: 2 })
    }
}

#[tokio::test]
async fn a_sender_whose_successor_has_written_nothing_yet_pushes_nothing_more() {
    let s = setup();
    let mut e = engine(&s.path, &s.chain, 1);
    e.fence = Some(Arc::new(Replaced));
    e.enqueue(&message("a")).unwrap();
    let refused = e.round(&s.chain.head()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { epoch: 1, newer: 2, .. }), "{refused}");
    assert_eq!(s.chain.state().pushes, 0);
    // Its successor pushes the same bytes.
    e.fence = None;
    rounds(&e, &s.chain, 4).await;
    assert!(landed(&e, "a"));
}

#[tokio::test]
async fn a_message_can_be_withdrawn_until_it_is_signed() {
    let s = setup();
    let e = engine(&s.path, &s.chain, 1);
    e.enqueue(&message("a")).unwrap();
    s.chain.state().estimate_error = Some("not now".into());
    rounds(&e, &s.chain, 1).await;
    assert_eq!(e.withdraw("a").unwrap(), WithdrawAnswer::Withdrawn);
    s.chain.state().estimate_error = None;
    e.enqueue(&message("b")).unwrap();
    rounds(&e, &s.chain, 4).await;
    assert!(matches!(e.status("a").unwrap(), MessageStatus::Failed { exit_code: -1, .. }));
    assert!(landed(&e, "b"));
    assert!(matches!(e.withdraw("b").unwrap(), WithdrawAnswer::TooLate(MessageStatus::Landed { .. })));
    assert_eq!(e.withdraw("c").unwrap(), WithdrawAnswer::Unknown);
    assert_eq!(s.chain.executed(5).len(), 1);
}

/// Withdraws the message at the moment at which it is signed.
struct Withdrawing {
    other: Engine,
    key: &'static str,
}

#[async_trait]
impl Wallet for Withdrawing {
    async fn sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage, FullNodeError> {
        assert_eq!(self.other.withdraw(self.key).unwrap(), WithdrawAnswer::Withdrawn);
        self.other.wallet.sign_message(who, message).await
    }
    async fn sign(&self, key: &Address, bytes: &[u8]) -> Result<Signature, FullNodeError> {
        self.other.wallet.sign(key, bytes).await
    }
}

#[tokio::test]
async fn a_message_that_is_withdrawn_during_a_round_is_not_sent_by_it() {
    let s = setup();
    let mut e = engine(&s.path, &s.chain, 1);
    let other = Engine {
        scope: e.scope.clone(),
        miner: e.miner,
        node: e.node.clone(),
        wallet: e.wallet.clone(),
        store: e.store.clone(),
        token: e.token.clone(),
        fence: None,
        settings: e.settings.clone(),
        memory: Arc::default(),
    };
    e.wallet = Arc::new(Withdrawing { other, key: "a" });
    e.enqueue(&message("a")).unwrap();
    rounds(&e, &s.chain, 4).await;
    assert!(matches!(e.status("a").unwrap(), MessageStatus::Failed { exit_code: -1, .. }));
    assert_eq!(s.chain.state().pushes, 0);
}
