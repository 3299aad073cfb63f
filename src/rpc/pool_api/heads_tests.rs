//! The heads that subscribers hear: reverts and applies once and in order, and an end where something is missing.

use super::*;
use crate::chain::types::HeadChange;
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};

fn cid(name: &str) -> Cid {
    Cid::new_v1(0x71, Code::Blake2b256.digest(name.as_bytes()))
}

/// A tipset named after itself.
fn tipset(name: &str, height: ChainEpoch, parent: &str) -> Arc<TipSet> {
    let block = serde_json::json!({
        "Miner": "t01000", "Ticket": null, "ElectionProof": null, "BeaconEntries": null, "WinPoStProof": null,
        "Parents": [{"/": cid(parent).to_string()}], "ParentWeight": "0", "Height": height,
        "ParentStateRoot": {"/": cid("state").to_string()}, "ParentMessageReceipts": {"/": cid("receipts").to_string()},
        "Messages": {"/": cid("messages").to_string()}, "BLSAggregate": null, "Timestamp": height, "BlockSig": null,
        "ForkSignaling": 0, "ParentBaseFee": "100",
    });
    Arc::new(TipSet { cids: vec![cid(name)], blocks: vec![serde_json::from_value(block).expect("a block")], height })
}

type Heard = Vec<(HeadChangeType, ChainEpoch)>;

fn read(batch: &str) -> Heard {
    let batch: Vec<HeadChange> = serde_json::from_str(batch).expect("head changes");
    batch.into_iter().map(|change| (change.kind, change.val.height)).collect()
}

/// The batch that has come by now; `None`: the channel has ended.
async fn heard(channel: &mut Channel) -> Option<Heard> {
    tokio::task::yield_now().await; // a new budget
    let next = std::future::poll_fn(|cx| std::task::Poll::Ready(channel.poll_next_unpin(cx))).await;
    match next {
        std::task::Poll::Ready(Some(batch)) => Some(read(&batch)),
        std::task::Poll::Ready(None) => None,
        std::task::Poll::Pending => Some(vec![]),
    }
}

#[tokio::test]
async fn subscribers_hear_each_change_once_and_in_order() {
    use HeadChangeType::{Apply, Current, Revert};
    let fan = HeadFan::default();
    fan.head(&tipset("a", 1, "genesis"), None);
    fan.head(&tipset("b", 2, "a"), None);
    let mut early = fan.subscribe(Duration::from_secs(60)).await.expect("a channel");
    assert_eq!(heard(&mut early).await, Some(vec![(Current, 2)]));
    fan.head(&tipset("b", 2, "a"), None);
    assert_eq!(heard(&mut early).await, Some(vec![]), "it is known");
    fan.head(&tipset("c", 4, "b"), None);
    let mut late = fan.subscribe(Duration::from_secs(60)).await.expect("a channel");
    assert_eq!(heard(&mut early).await, Some(vec![(Apply, 4)]));
    // Another branch from `a` on.
    fan.head(&tipset("b2", 3, "a"), Some(1));
    let reorg = Some(vec![(Revert, 4), (Revert, 2), (Apply, 3)]);
    assert_eq!(heard(&mut early).await, reorg);
    assert_eq!(heard(&mut late).await, Some(vec![(Current, 4)]));
    assert_eq!(heard(&mut late).await, reorg);
    // Back to a head of before.
    fan.head(&tipset("a", 1, "genesis"), Some(1));
    assert_eq!(heard(&mut late).await, Some(vec![(Revert, 3)]));
    // Nothing leads there: all begin anew.
    fan.head(&tipset("z", 90, "y"), None);
    assert_eq!(heard(&mut late).await, None);
    assert_eq!(heard(&mut early).await, Some(vec![(Revert, 3)]));
    assert_eq!(heard(&mut early).await, None);
    assert_eq!(
        heard(&mut fan.subscribe(Duration::from_secs(60)).await.expect("a channel")).await,
        Some(vec![(Current, 90)])
    );
}

#[tokio::test]
async fn a_slow_subscriber_loses_only_itself() {
    let fan = HeadFan::default();
    fan.head(&tipset("t0", 0, "genesis"), None);
    let mut slow = fan.subscribe(Duration::from_secs(60)).await.expect("a channel");
    let mut quick = fan.subscribe(Duration::from_secs(60)).await.expect("a channel");
    assert!(heard(&mut quick).await.is_some());
    for height in 1..=2 * BEHIND as ChainEpoch {
        fan.head(&tipset(&format!("t{height}"), height, &format!("t{}", height - 1)), None);
        assert_eq!(heard(&mut quick).await, Some(vec![(HeadChangeType::Apply, height)]));
    }
    assert!(heard(&mut slow).await.is_some(), "the head of then");
    assert_eq!(heard(&mut slow).await, None);
    assert_eq!(heard(&mut quick).await, Some(vec![]));
}

#[tokio::test]
async fn before_the_first_head_a_subscriber_waits_for_a_while() {
    let fan = Arc::new(HeadFan::default());
    let why = fan.subscribe(Duration::from_millis(1)).await.err().expect("no channel");
    assert!(why.message.contains("no head"), "{why}");
    let waiting = tokio::spawn({
        let fan = fan.clone();
        async move { fan.subscribe(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    fan.head(&tipset("a", 1, "genesis"), None);
    let mut channel = waiting.await.expect("no panic").expect("a channel");
    assert_eq!(heard(&mut channel).await, Some(vec![(HeadChangeType::Current, 1)]));
}
