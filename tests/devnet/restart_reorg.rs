//! The chain resumes where it stopped; reorgs, null rounds, stalls and cut connections are told to listeners.

use crate::support::devnet::*;
use bulkhead::chain::types::HeadChangeType;
use bulkhead::devnet::{Devnet, DevnetError, DevnetSettings};
use bulkhead::rpc::full_node::FullNode;
use fvm_shared::address::Address;

fn burnt() -> Address {
    Address::new_id(99)
}

#[tokio::test]
async fn the_chain_resumes_at_its_head_with_keys_pool_and_power() {
    let net = Net::with_power().await;
    let imported = net.devnet.wallet_new("secp256k1").await.unwrap();
    let ahead = net.signed(net.message(net.owner, burnt(), 0, vec![], fil(1)), 9).await;
    let waiting = net.devnet.mpool_push(&ahead).await.unwrap();
    let (old_head, genesis) = (net.devnet.chain_head().await.unwrap(), net.devnet.chain_get_genesis().await.unwrap());
    let net = net.reopen();
    assert_eq!(net.devnet.chain_head().await.unwrap(), old_head);
    assert_eq!(net.devnet.chain_get_genesis().await.unwrap(), genesis);
    assert_eq!(net.power().await, 2048.into());
    assert!(net.devnet.wallet_has(&imported).await.unwrap() && net.devnet.wallet_has(&net.worker).await.unwrap());
    let pending = net.devnet.mpool_pending(&head()).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert!(net.devnet.mpool_push(&pending[0]).await.unwrap_err().to_string().contains("already in mempool"));
    assert!(net.devnet.state_search_msg(&head(), &waiting, -1, true).await.unwrap().is_none());
    net.step().await;
    assert_eq!(net.height().await, old_head.height + 1);
}

#[tokio::test]
async fn policy_stays_with_the_chain_and_the_clock_follows_the_settings() {
    let mut net = Net::bare(settings());
    net.settings = DevnetSettings { block_delay: std::time::Duration::from_secs(3), deadlines: 12, ..net.settings };
    let net = net.reopen();
    let params = net.devnet.state_get_network_params().await.unwrap();
    assert_eq!((params.block_delay_secs, params.pre_commit_challenge_delay), (3, 10));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chain.redb"), b"not a database").unwrap();
    let error = Devnet::open(dir.path(), settings()).map(|_| ()).unwrap_err();
    assert!(matches!(error, DevnetError::Open { .. } | DevnetError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("chain.redb"), "{error}");
    let again = Devnet::open(net.dir.path(), settings()).map(|_| ()).unwrap_err();
    assert!(matches!(again, DevnetError::Open { .. }), "{again}");
}

#[tokio::test]
async fn a_reorg_reverts_then_applies_and_its_messages_come_back() {
    let net = Net::bare(settings());
    net.until(5);
    let mut feed = net.devnet.chain_notify().await.unwrap();
    let first = feed.recv().await.unwrap();
    assert_eq!((first.len(), first[0].kind, first[0].val.height), (1, HeadChangeType::Current, 5));
    let cid = net.push(net.message(net.owner, burnt(), 0, vec![], fil(1))).await;
    net.until(7);
    for height in [6, 7] {
        let batch = feed.recv().await.unwrap();
        assert_eq!((batch.len(), batch[0].kind, batch[0].val.height), (1, HeadChangeType::Apply, height));
    }
    let old = net.devnet.chain_head().await.unwrap();
    assert!(net.devnet.state_search_msg(&head(), &cid, -1, false).await.unwrap().is_some());

    net.devnet.reorg(2).unwrap();
    let batch = feed.recv().await.unwrap();
    let seen: Vec<_> = batch.iter().map(|c| (c.kind, c.val.height)).collect();
    use HeadChangeType::{Apply, Revert};
    assert_eq!(seen, vec![(Revert, 7), (Revert, 6), (Apply, 6), (Apply, 7), (Apply, 8)]);
    assert_ne!(net.devnet.chain_get_tip_set_by_height(7, &head()).await.unwrap(), old);
    // The old chain can still be asked about by key.
    assert_eq!(net.devnet.chain_get_tip_set(&old.key()).await.unwrap(), old);
    assert!(net.devnet.state_search_msg(&head(), &cid, -1, false).await.unwrap().is_none());
    assert_eq!(net.devnet.mpool_pending(&head()).await.unwrap().len(), 1);
    assert_eq!(net.receipt(&cid).await.exit_code, 0);
    let new_weight = net.devnet.chain_tip_set_weight(&head()).await.unwrap();
    assert!(new_weight > net.devnet.chain_tip_set_weight(&old.key()).await.unwrap());
    assert!(net.devnet.reorg(1000).is_err());
}

#[tokio::test]
async fn null_rounds_are_skipped_over_and_randomness_looks_back() {
    let net = Net::start().await;
    let before = net.devnet.chain_head().await.unwrap();
    net.devnet.null_rounds(3);
    net.until(before.height + 1);
    let after = net.devnet.chain_head().await.unwrap();
    assert_eq!(after.height, before.height + 4);
    assert_eq!(after.blocks[0].beacon_entries.len(), 4);
    assert_eq!(net.devnet.chain_get_tip_set_by_height(before.height + 2, &head()).await.unwrap(), before);
    assert!(net.devnet.chain_get_tip_set_by_height(after.height + 1, &head()).await.is_err());
    // The deadlines that ended meanwhile are closed all the same.
    let deadline = net.deadline().await;
    assert!(deadline.open <= after.height && after.height < deadline.close);
    use bulkhead::rpc::full_node::RandomnessTag::SealRandomness;
    for epoch in before.height..=after.height {
        let drawn = net.devnet.state_get_randomness_from_tickets(SealRandomness, epoch, b"e", &head()).await.unwrap();
        assert_eq!(drawn.len(), 32);
    }
    let future = net.devnet.state_get_randomness_from_beacon(SealRandomness, after.height + 1, b"e", &head()).await;
    assert!(future.is_err());
}

#[tokio::test]
async fn a_stall_stops_the_clock_and_dropped_sockets_end_the_feed() {
    let net = Net::bare(settings());
    net.devnet.stall();
    assert_eq!(net.devnet.tick(u64::MAX / 2).unwrap(), None);
    assert_eq!(net.height().await, 0);
    net.devnet.resume();
    net.devnet.tick(u64::MAX / 2).unwrap();
    assert_eq!(net.height().await, 1);

    let mut feed = net.devnet.chain_notify().await.unwrap();
    let mut sockets = net.devnet.dropped_websockets();
    feed.recv().await.unwrap();
    net.devnet.drop_websockets();
    assert!(feed.recv().await.is_none());
    sockets.recv().await.unwrap();
}

#[tokio::test]
async fn the_clock_runs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let quick = DevnetSettings { warmup_delay: std::time::Duration::from_millis(20), ..settings() };
    let devnet = Devnet::open(dir.path(), quick).unwrap();
    let mut feed = devnet.chain_notify().await.unwrap();
    let mut heights = Vec::new();
    tokio::select! {
        () = devnet.run(|_| ()) => {}
        () = async {
            while heights.len() < 4 {
                heights.extend(feed.recv().await.unwrap().iter().map(|c| c.val.height));
            }
        } => {}
    }
    assert_eq!(heights, vec![0, 1, 2, 3]);
}
