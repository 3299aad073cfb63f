//! Two holders of one message sender, one cut off from the cluster's store: what pays somebody is signed by one of them.

use crate::support::fake_chain::{FakeChain, fil, miner};
use crate::support::mortal::Mortal;
use crate::support::scripted_replica::{Fault, ScriptedReplica};
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use bulkhead::actors::message_sender::{Engine, NodeWallet, SendRules, SenderSettings};
use bulkhead::chain::Address;
use bulkhead::store::{Policy, Store, Token};
use std::sync::Arc;

const SCOPE: &str = "/t01000/message-sender";
const SEND: u64 = 0;
const WINDOW_POST: u64 = 5;
const WITHDRAW: u64 = 16;

struct Host {
    _dir: tempfile::TempDir,
    engine: Engine,
}

impl Host {
    /// Holds the message sender from now on.
    fn take_over(replica: &Arc<ScriptedReplica>, chain: &Arc<FakeChain>, lease: u64) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("bulkhead.redb")).unwrap();
        let store = store.replicated(replica.clone(), Policy::Journal);
        replica.give(SCOPE, lease);
        store.acquire(SCOPE, lease).unwrap();
        let engine = Engine {
            scope: "t01000".into(),
            miner: Some(miner()),
            node: chain.clone(),
            wallet: Arc::new(NodeWallet(chain.clone())),
            store,
            token: Token { path: SCOPE.into(), epoch: lease << 32 },
            fence: None,
            settings: SenderSettings {
                rules: SendRules { confidence: 2, replace_after: 4, lost_after: 3, repush_every: 2 },
                max_fee: fil(1_000_000),
                ..SenderSettings::default()
            },
            memory: Arc::default(),
        };
        Host { _dir: dir, engine }
    }

    fn enqueue(&self, key: &str, to: Address, method: u64) {
        let (params, value, max_fee) = (vec![0x80], fil(5), fil(0));
        let message = Enqueue { key: key.into(), to, method, params, value, max_fee, from: None, closes: None };
        assert_eq!(self.engine.enqueue(&message).unwrap(), EnqueueAnswer::Accepted);
    }

    async fn rounds(&self, chain: &FakeChain, count: u32) {
        for _ in 0..count {
            self.engine.round(&chain.head()).await.unwrap();
            chain.mine();
        }
    }

    fn why_it_waits(&self, key: &str) -> String {
        match self.engine.status(key).unwrap() {
            MessageStatus::Queued { why_waiting } => why_waiting,
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_payment_is_made_once_over_a_cut_and_a_fail_over() {
    let replica = Arc::new(ScriptedReplica::default());
    let chain = FakeChain::new(Arc::new(Mortal::default()));
    let cut = Host::take_over(&replica, &chain, 7);
    cut.enqueue("pay", Address::new_id(2000), SEND);
    cut.enqueue("withdraw", miner(), WITHDRAW);
    cut.enqueue("deadline", miner(), WINDOW_POST);
    replica.state().away = true;
    cut.rounds(&chain, 3).await;
    for key in ["pay", "withdraw"] {
        let why = cut.why_it_waits(key);
        assert!(why.contains("not signed while the cluster does not confirm this node's lease"), "{why}");
    }
    // A proof does not wait: a duplicate costs gas, a miss a fault.
    assert_eq!(
        (chain.executed(SEND).len(), chain.executed(WITHDRAW).len(), chain.executed(WINDOW_POST).len()),
        (0, 0, 1)
    );
    replica.state().away = false;
    let next = Host::take_over(&replica, &chain, 8);
    next.rounds(&chain, 4).await;
    assert_eq!((chain.executed(SEND).len(), chain.executed(WITHDRAW).len()), (1, 1));
    // The cut-off one is not there any more, whatever it reaches.
    assert!(cut.engine.round(&chain.head()).await.is_err());
    chain.mine();
    assert_eq!((chain.executed(SEND).len(), chain.executed(WITHDRAW).len()), (1, 1));
    assert!(matches!(next.engine.status("pay").unwrap(), MessageStatus::Landed { .. }));
}

/// Signed bytes that may be in the cluster's store and may not: whoever holds the sender next repeats them, or nobody had them.
#[tokio::test]
async fn a_lost_answer_to_the_signed_bytes_pays_once() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Late] {
        let replica = Arc::new(ScriptedReplica::default());
        let chain = FakeChain::new(Arc::new(Mortal::default()));
        let first = Host::take_over(&replica, &chain, 7);
        first.enqueue("pay", Address::new_id(2000), SEND);
        // The question whether the lease holds is answered, the signed bytes are not.
        replica.next([Fault::None, fault]);
        first.engine.round(&chain.head()).await.unwrap();
        assert_eq!(chain.state().pushes, 0, "{fault:?}: nothing leaves before it is there");
        let next = Host::take_over(&replica, &chain, 8);
        replica.deliver_late();
        next.rounds(&chain, 5).await;
        assert_eq!(chain.executed(SEND).len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_payment_goes_on_once_the_cluster_answers_again() {
    let replica = Arc::new(ScriptedReplica::default());
    let chain = FakeChain::new(Arc::new(Mortal::default()));
    let host = Host::take_over(&replica, &chain, 7);
    replica.state().away = true;
    host.enqueue("pay", Address::new_id(2000), SEND);
    host.rounds(&chain, 2).await;
    assert!(host.why_it_waits("pay").contains("lease"));
    replica.state().away = false;
    host.rounds(&chain, 5).await;
    assert_eq!(chain.executed(SEND).len(), 1);
    assert!(matches!(host.engine.status("pay").unwrap(), MessageStatus::Landed { .. }));
}

/// Whether the signed bytes are in the cluster's store is not known while a proof has to be sent from the same address.
#[tokio::test]
async fn signed_bytes_in_doubt_hold_up_no_proof_and_take_no_place() {
    for mined_before in [false, true] {
        let replica = Arc::new(ScriptedReplica::default());
        let chain = FakeChain::new(Arc::new(Mortal::default()));
        let host = Host::take_over(&replica, &chain, 7);
        host.enqueue("pay", Address::new_id(2000), SEND);
        replica.next([Fault::None, Fault::AnswerLost]);
        host.engine.round(&chain.head()).await.unwrap();
        replica.state().away = true;
        host.enqueue("deadline", miner(), WINDOW_POST);
        host.engine.round(&chain.head()).await.unwrap();
        if mined_before {
            chain.mine();
        }
        replica.state().away = false;
        host.rounds(&chain, 10).await;
        let pushed: Vec<_> = chain.state().pushed.iter().map(|m| (m.message.method, m.message.nonce)).collect();
        assert!(pushed.iter().all(|push| [(WINDOW_POST, 0), (SEND, 1)].contains(push)), "{mined_before}: {pushed:?}");
        assert_eq!((chain.executed(WINDOW_POST).len(), chain.executed(SEND).len()), (1, 1), "{mined_before}");
    }
}
