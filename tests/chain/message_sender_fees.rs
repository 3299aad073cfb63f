//! What stands between a message and the chain besides luck: the base fee, the sender's balance, messages in front of it,
//! a node that refuses. WindowPoSt lands through all of it; the others wait, are signed anew, and are executed once.

use crate::support::fake_chain::{Chain, FakeChain, RICH, fil, miner, owner, worker};
use crate::support::mortal::Mortal;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus, OrderAnswer};
use bulkhead::actors::message_sender::{AddressRules, Engine, NodeWallet, SendRules, SenderSettings};
use bulkhead::chain::Address;
use bulkhead::devnet::Wording;
use bulkhead::store::{Store, Token};
use std::collections::BTreeSet;
use std::sync::Arc;

const SEND: u64 = 0;
const WINDOW_POST: u64 = 5;
const WITHDRAW: u64 = 16;
const PRE_COMMIT: u64 = 28;

struct Setup {
    _dir: tempfile::TempDir,
    chain: Arc<FakeChain>,
    engine: Engine,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::new(Mortal::default()));
    chain.state().plain = true;
    let engine = Engine {
        scope: "t01000".into(),
        miner: Some(miner()),
        node: chain.clone(),
        wallet: Arc::new(NodeWallet(chain.clone())),
        store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(),
        token: Token { path: "/t01000/message-sender".into(), epoch: 1 },
        fence: None,
        settings: SenderSettings {
            rules: SendRules { confidence: 2, replace_after: 10, lost_after: 20, repush_every: 5 },
            // gas limits are 1000: caps of 1,000,000 and 1000
            window_post_fee: fil(1_000_000_000),
            pre_commit_fee: fil(1_000_000),
            max_fee: fil(1_000_000),
            maximize_window_post: false,
            estimate_tries: 3,
            ..SenderSettings::default()
        },
        memory: Arc::default(),
    };
    Setup { _dir: dir, chain, engine }
}

impl Setup {
    fn state(&self) -> std::sync::MutexGuard<'_, Chain> {
        self.chain.state()
    }

    fn give(&self, key: &str, method: u64) -> EnqueueAnswer {
        let closes = (method == WINDOW_POST).then(|| self.state().height + 60);
        let to = if method == SEND { Address::new_id(2000) } else { miner() };
        let (key, params, value, max_fee) = (key.to_string(), vec![0x80], fil(0), fil(0));
        self.engine.enqueue(&Enqueue { key, to, method, params, value, max_fee, from: None, closes }).unwrap()
    }

    async fn round(&self) {
        self.engine.round(&self.chain.head()).await.unwrap();
    }

    async fn rounds(&self, count: u32) {
        for _ in 0..count {
            self.round().await;
            self.chain.mine();
        }
    }

    /// Epochs until it is executed.
    async fn lands_within(&self, key: &str, most: u32) -> u32 {
        for epochs in 1..=most {
            self.rounds(1).await;
            if matches!(self.status(key), MessageStatus::Landed { .. }) {
                return epochs;
            }
        }
        panic!("{key} is not on chain after {most} epochs: {:?}", self.status(key));
    }

    fn status(&self, key: &str) -> MessageStatus {
        self.engine.status(key).unwrap()
    }

    fn why(&self, key: &str) -> String {
        match self.status(key) {
            MessageStatus::Queued { why_waiting } => why_waiting,
            other => panic!("{key}: {other:?}"),
        }
    }

    fn calls(&self, method: &str) -> u64 {
        self.state().calls.get(method).copied().unwrap_or(0)
    }

    fn executed(&self, method: u64) -> usize {
        self.chain.executed(method).len()
    }

    fn alerts(&self) -> String {
        self.engine.summary().unwrap().alerts.join("; ")
    }
}

/// The fee of 200 pre-commits that were signed before is far too low from one epoch to the next, and all stand in front.
#[tokio::test]
async fn a_proof_lands_through_a_spike_of_the_base_fee_with_200_pre_commits_in_front() {
    let s = setup();
    s.state().min_premium = fil(1_000_000); // nothing lands yet
    for n in 0..200 {
        assert_eq!(s.give(&format!("pre-commit-{n}"), PRE_COMMIT), EnqueueAnswer::Accepted);
    }
    s.rounds(6).await;
    assert_eq!(s.state().mempool.len(), 200);
    s.state().keyless = [owner()].into(); // no other address can send
    s.state().min_premium = fil(1);
    s.state().base_fee = fil(10_000);
    s.give("post", WINDOW_POST);
    let epochs = s.lands_within("post", 10).await;
    assert_eq!(s.executed(WINDOW_POST), 1);
    assert_eq!(s.executed(PRE_COMMIT), 0, "sealing waits");
    assert!(epochs <= 6, "after {epochs} epochs");
    // The places of the pre-commits were taken by transfers of nothing to oneself, which cost a fraction.
    let transfers = s.chain.executed(SEND);
    assert_eq!(transfers.len(), 200);
    assert!(transfers.iter().all(|x| x.message.to == worker() && x.message.value == fil(0)));
    // The fee falls: each is executed once.
    s.state().base_fee = fil(100);
    s.rounds(40).await;
    assert_eq!(s.executed(PRE_COMMIT), 200, "{:?}", s.engine.pending().unwrap().first());
    let nonces: BTreeSet<u64> = s.chain.executed(PRE_COMMIT).iter().map(|x| x.message.nonce).collect();
    assert_eq!(nonces.len(), 200);
    assert!(s.engine.pending().unwrap().is_empty());
}

#[tokio::test]
async fn a_line_that_stands_is_avoided_where_there_is_another_address() {
    let s = setup();
    s.state().min_premium = fil(1_000_000);
    // Pre-commits go from the worker: no address is named for them.
    s.give("pre-commit", PRE_COMMIT);
    s.rounds(1).await;
    s.state().min_premium = fil(1);
    s.state().base_fee = fil(10_000);
    s.give("post", WINDOW_POST);
    assert!(s.lands_within("post", 4).await <= 4);
    assert_eq!(s.chain.executed(WINDOW_POST)[0].message.from, owner());
    assert_eq!((s.executed(PRE_COMMIT), s.executed(SEND)), (0, 0));
}

#[tokio::test]
async fn purposes_have_addresses_and_balances_and_keys_decide() {
    let mut s = setup();
    let [first, second, third] = [9, 10, 11].map(|n| Address::new_bls(&[n; 48]).unwrap());
    s.state().controls = vec![(200, first), (201, second), (202, third)];
    s.engine.settings.addresses = AddressRules { pre_commit: vec![Address::new_id(201)], ..AddressRules::default() };
    let sender = |s: &Setup, method: u64| s.chain.executed(method).last().unwrap().message.from;
    s.give("a", WINDOW_POST);
    s.give("b", PRE_COMMIT);
    s.give("c", WITHDRAW);
    s.rounds(2).await;
    assert_eq!([WINDOW_POST, PRE_COMMIT, WITHDRAW].map(|m| sender(&s, m)), [first, second, worker()]);
    s.state().balances.insert(first, fil(10));
    s.give("d", WINDOW_POST);
    s.rounds(2).await;
    assert_eq!(sender(&s, WINDOW_POST), third, "the first cannot pay, the second is for pre-commits");
    s.state().balances.insert(third, fil(10));
    s.state().keyless.insert(worker());
    // The worker's key has been seen; a restart forgets it.
    s.engine.memory = Arc::default();
    s.give("e", WINDOW_POST);
    s.rounds(2).await;
    assert_eq!(sender(&s, WINDOW_POST), owner());
    s.engine.settings.addresses.disable_owner_fallback = true;
    s.give("f", WINDOW_POST);
    s.rounds(1).await;
    assert!(s.why("f").contains("0200 has"), "{}", s.why("f"));
    assert!(s.alerts().contains("send FIL to") && s.alerts().contains("0200"), "{}", s.alerts());
}

/// Whatever comes first, proving's messages are signed first, and have places of their own.
#[tokio::test]
async fn a_proof_goes_first_and_has_a_place() {
    let mut s = setup();
    s.engine.settings.max_open = 3;
    s.engine.settings.proving_places = 1;
    for n in 0..3 {
        assert_eq!(s.give(&format!("pre-commit-{n}"), PRE_COMMIT), EnqueueAnswer::Accepted);
    }
    assert!(matches!(s.give("pre-commit-3", PRE_COMMIT), EnqueueAnswer::Refused(_)));
    assert_eq!(s.give("post", WINDOW_POST), EnqueueAnswer::Accepted);
    assert!(matches!(s.give("post-2", WINDOW_POST), EnqueueAnswer::Refused(_)));
    s.round().await;
    let first = s.state().pushed[0].message.clone();
    assert_eq!((first.method, first.nonce), (WINDOW_POST, 0));
}

/// A message that cannot be mined is not signed, and costs the node nothing while it waits; what a reload allows holds at once.
#[tokio::test]
async fn a_bound_below_the_base_fee_waits_without_a_nonce_until_a_reload_raises_it() {
    let mut s = setup();
    s.state().base_fee = fil(10_000);
    for n in 0..200 {
        s.give(&format!("pre-commit-{n}"), PRE_COMMIT);
    }
    s.rounds(6).await; // each is estimated once
    assert!(s.why("pre-commit-0").contains("below the base fee"), "{}", s.why("pre-commit-0"));
    let before = s.calls("GasEstimateMessageGas");
    s.rounds(5).await;
    assert_eq!(s.calls("MpoolPush") + s.calls("WalletSignMessage"), 0);
    assert_eq!(s.calls("GasEstimateMessageGas"), before);
    s.give("post", WINDOW_POST);
    s.lands_within("post", 4).await;
    s.engine.settings.pre_commit_fee = fil(100_000_000);
    s.rounds(10).await;
    assert_eq!(s.executed(PRE_COMMIT), 200);
    assert_eq!(s.calls("MpoolPending"), 0, "nobody lists a mempool");
}

/// One that was signed under the old bound too.
#[tokio::test]
async fn a_raised_bound_holds_for_signed_messages() {
    let mut s = setup();
    s.state().min_premium = fil(1_000_000);
    s.give("pre-commit", PRE_COMMIT);
    s.rounds(1).await;
    s.state().min_premium = fil(1);
    s.state().base_fee = fil(10_000);
    s.rounds(15).await;
    assert_eq!(s.executed(PRE_COMMIT), 0);
    s.engine.settings.pre_commit_fee = fil(100_000_000);
    s.lands_within("pre-commit", 4).await;
}

/// The cap that was right at the estimate is far below the base fee one epoch later.
#[tokio::test]
async fn a_replacement_offers_what_a_fresh_estimate_says() {
    for maximize in [false, true] {
        let mut s = setup();
        s.engine.settings.maximize_window_post = maximize;
        s.state().min_premium = fil(1_000_000);
        s.give("post", WINDOW_POST);
        s.rounds(1).await;
        s.state().min_premium = fil(1);
        s.state().base_fee = fil(10_000);
        let epochs = s.lands_within("post", 5).await;
        let caps: Vec<_> = s.state().pushed.iter().map(|m| m.message.gas_fee_cap.clone()).collect();
        match maximize {
            false => assert_eq!(caps, [fil(200), fil(10_126)], "{epochs}"),
            true => assert_eq!(caps, [fil(1_000_000)], "{epochs}"),
        }
    }
}

/// The closer Close comes, the more is offered, and in smaller steps of time.
#[tokio::test]
async fn a_proof_that_others_outbid_offers_more_as_its_deadline_closes() {
    let s = setup();
    s.state().min_premium = fil(1_000_000_000);
    s.give("post", WINDOW_POST);
    s.rounds(60).await;
    let premiums: Vec<u64> =
        s.state().pushed.iter().map(|m| u64::try_from(m.message.gas_premium.atto()).unwrap()).collect();
    assert!(premiums.len() >= 8, "{premiums:?}");
    assert!(premiums.windows(2).all(|pair| pair[1] > pair[0] * 110 / 100), "{premiums:?}");
    assert!(s.state().pushed.iter().all(|m| m.message.nonce == 0));
}

#[tokio::test]
async fn a_cap_is_lowered_to_what_the_sender_has() {
    let s = setup();
    s.state().keyless = [owner()].into();
    // 150 of the 200 that the estimate asks for
    s.state().balances.insert(worker(), fil(150_000));
    s.give("post", WINDOW_POST);
    s.rounds(1).await;
    assert_eq!(s.state().pushed[0].message.gas_fee_cap, fil(150));
    assert!(s.alerts().contains("the fee is bounded by that"), "{}", s.alerts());
    s.lands_within("post", 4).await;
    // Less than the base fee: nothing is signed, somebody is told, and money is enough to go on.
    s.state().balances.insert(worker(), fil(99_999));
    s.give("post-2", WINDOW_POST);
    s.rounds(5).await;
    assert_eq!(s.state().pushed.len(), 1);
    assert!(s.alerts().contains("send FIL to"), "{}", s.alerts());
    s.state().balances.insert(worker(), fil(RICH));
    s.lands_within("post-2", 4).await;
}

#[tokio::test]
async fn refusals_of_an_estimate_are_counted_by_head() {
    let s = setup();
    s.state().estimate_error = Some("message execution failed (exit=[18], vm error)".into());
    s.give("pre-commit", PRE_COMMIT);
    for _ in 0..10 {
        s.round().await;
    }
    assert!(matches!(s.status("pre-commit"), MessageStatus::Queued { .. }), "one head");
    s.chain.mine();
    s.rounds(1).await;
    assert!(matches!(s.status("pre-commit"), MessageStatus::Queued { .. }), "two heads");
    s.rounds(1).await;
    assert!(matches!(s.status("pre-commit"), MessageStatus::Failed { exit_code: 18, .. }));
}

/// The bytes can be in no block: they are estimated and signed anew with the same nonce, and those behind them land.
#[tokio::test]
async fn bytes_that_no_node_takes_are_signed_anew() {
    let s = setup();
    s.state().block_gas = 2000;
    s.state().gas_limits = vec![3000, 1000, 1000];
    s.give("pre-commit", PRE_COMMIT);
    s.give("post", WINDOW_POST);
    // The proof is estimated first; it is the one that is refused.
    s.round().await;
    let waits = s.why("post");
    assert!(waits.contains("no node holds it") && waits.contains("GasLimit"), "{waits}");
    s.chain.mine();
    s.rounds(4).await;
    assert!(matches!(s.status("post"), MessageStatus::Landed { .. }), "{:?}", s.status("post"));
    assert!(matches!(s.status("pre-commit"), MessageStatus::Landed { .. }));
    let bytes: Vec<_> = s.state().refused.iter().map(|m| m.message.gas_limit).collect();
    assert_eq!(bytes, [3000], "once");
}

/// It would fail now: its nonce is another's.
#[tokio::test]
async fn a_refused_message_that_would_fail_gives_its_nonce_back() {
    let s = setup();
    s.state().block_gas = 2000;
    s.state().gas_limits = vec![3000];
    s.give("pre-commit", PRE_COMMIT);
    s.rounds(1).await;
    s.state().estimate_error = Some("message execution failed (exit=[16], vm error)".into());
    s.rounds(1).await;
    s.state().estimate_error = None;
    s.give("withdraw", WITHDRAW);
    s.rounds(1).await;
    assert_eq!(s.chain.executed(WITHDRAW)[0].message.nonce, 0);
}

/// A refusal in words that are not known, and one for money, in front of a proof.
#[tokio::test]
async fn a_refused_message_never_keeps_a_proof() {
    let s = setup();
    s.state().keyless = [owner()].into();
    s.state().push_error = Some("the moon is in the wrong house".into());
    s.give("pre-commit", PRE_COMMIT);
    s.rounds(1).await;
    assert!(s.why("pre-commit").contains("moon"), "{}", s.why("pre-commit"));
    s.state().push_error = None;
    s.give("post", WINDOW_POST);
    s.lands_within("post", 4).await;

    // Signed while there was money, pushed when there is none for it.
    s.state().down_for_pushes = true;
    s.give("pre-commit-2", PRE_COMMIT);
    s.rounds(1).await;
    s.state().down_for_pushes = false;
    s.state().balances.insert(worker(), fil(150_000));
    s.give("post-2", WINDOW_POST);
    s.lands_within("post-2", 8).await;
}

/// The nonce of what was never taken is used by a transfer of the operator's.
#[tokio::test]
async fn a_nonce_that_somebody_else_used_costs_a_proof_two_epochs() {
    for wording in [Wording::Lotus, Wording::Forest] {
        displaced(wording, false).await;
        displaced(wording, true).await;
    }
}

/// `held`: the node has had the message before it lost its mempool, and answers otherwise about it.
async fn displaced(wording: Wording, held: bool) {
    let s = setup();
    s.state().wording = wording;
    s.state().min_premium = fil(1_000_000);
    s.state().down_for_pushes = !held;
    s.give("post", WINDOW_POST);
    s.rounds(1).await;
    s.state().down_for_pushes = false;
    s.state().min_premium = fil(1);
    s.state().mempool.clear();
    s.chain.transfer(worker());
    s.chain.mine();
    let epochs = s.lands_within("post", 8).await;
    assert!(epochs <= 6, "{epochs}");
    assert_eq!(s.chain.executed(WINDOW_POST)[0].message.nonce, 1);
    assert_eq!(s.executed(WINDOW_POST), 1);
}

#[tokio::test]
async fn orders_of_the_operator_replace_and_cancel() {
    let s = setup();
    s.state().min_premium = fil(1_000_000_000);
    s.give("pay", SEND);
    s.give("withdraw", WITHDRAW);
    assert_eq!(s.engine.order_replacement("pay", None).unwrap(), OrderAnswer::NotSigned);
    s.rounds(1).await;
    let list = s.engine.list(1).unwrap();
    assert_eq!((list.open, list.rows.len(), list.rows[0].state.as_str()), (2, 1, "pushed"));
    assert_eq!((list.rows[0].nonce, list.rows[0].fee_cap.as_deref()), (Some(0), Some("200")));
    assert_eq!(s.engine.order_replacement("pay", Some(&fil(5_000_000))).unwrap(), OrderAnswer::Ordered { nonce: 0 });
    s.rounds(1).await;
    let row = &s.engine.list(1).unwrap().rows[0];
    assert_eq!((row.premium.as_deref(), row.replaced, row.max_fee.as_str()), (Some("126"), 1, "5000000"));
    assert_eq!(row.order, None, "carried out");

    assert_eq!(s.engine.order_cancel("pay").unwrap(), OrderAnswer::Ordered { nonce: 0 });
    s.rounds(1).await;
    assert!(s.engine.list(1).unwrap().rows[0].fills);
    s.state().min_premium = fil(1);
    s.rounds(5).await;
    assert!(matches!(s.status("pay"), MessageStatus::Failed { exit_code: -1, .. }), "{:?}", s.status("pay"));
    assert!(matches!(s.status("withdraw"), MessageStatus::Landed { .. }));
    assert!(s.chain.executed(SEND).iter().all(|x| x.message.to == worker()), "nothing was paid");
    s.give("never", SEND);
    assert_eq!(s.engine.order_cancel("never").unwrap(), OrderAnswer::Withdrawn);
    assert_eq!(s.engine.order_cancel("nothing").unwrap(), OrderAnswer::Unknown);
    assert!(matches!(s.engine.order_cancel("withdraw").unwrap(), OrderAnswer::Finished(_)));
}

/// Of no use after Close: it is not sent any more, and says why it was not sent before.
#[tokio::test]
async fn a_proof_that_was_not_sent_before_close_ends_with_the_reason() {
    let s = setup();
    s.state().estimate_error = Some("no such miner".into());
    s.give("post", WINDOW_POST);
    s.state().down = true;
    s.rounds(61).await;
    s.state().down = false;
    s.rounds(1).await;
    match s.status("post") {
        MessageStatus::Failed { exit_code: -1, error } => assert!(error.contains("connection refused"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// A full node refuses to compute an upgrade's migration for a caller: no fault of the message, however often it is tried.
#[tokio::test]
async fn a_refusal_at_an_upgrades_epoch_counts_against_no_message() {
    let s = setup();
    let head = s.state().height;
    s.state().forks = (head..head + 5).collect();
    s.give("post", WINDOW_POST);
    s.give("pre-commit", PRE_COMMIT);
    s.rounds(5).await;
    assert!(s.engine.settings.estimate_tries < 5 && s.calls("GasEstimateMessageGas") >= 5);
    for key in ["post", "pre-commit"] {
        assert!(s.why(key).contains("state fork"), "{key}: {}", s.why(key));
    }
    s.lands_within("post", 6).await;
    s.lands_within("pre-commit", 6).await;
    assert_eq!((s.executed(WINDOW_POST), s.executed(PRE_COMMIT), s.state().pushes), (1, 1, 2), "{}", s.alerts());
}

/// As on the main network, where some five miners win each epoch.
#[tokio::test]
async fn a_message_lands_once_in_a_tipset_of_several_miners() {
    let s = setup();
    s.state().other_blocks = 4;
    s.give("post", WINDOW_POST);
    s.lands_within("post", 6).await;
    match s.status("post") {
        MessageStatus::Landed { tipset, .. } => assert_eq!(tipset.0.len(), 5),
        other => panic!("{other:?}"),
    }
    s.rounds(10).await;
    assert_eq!((s.executed(WINDOW_POST), s.state().pushes), (1, 1));
}
