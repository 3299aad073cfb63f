//! Table tests of the feed: order, gaps, reverts, duplicates.

use super::*;
use crate::chain::types::BlockHeader;
use crate::chain::{Address, TokenAmount};
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};

fn cid(name: &str) -> Cid {
    Cid::new_v1(0x71, Code::Blake2b256.digest(name.as_bytes()))
}

/// A tipset named after itself: `ts("b3", 3, "b2")`.
fn ts(name: &str, height: ChainEpoch, parent: &str) -> TipSet {
    let block = BlockHeader {
        miner: Address::new_id(1000),
        ticket: None,
        election_proof: None,
        beacon_entries: vec![],
        win_post_proof: vec![],
        parents: if parent.is_empty() { vec![] } else { vec![cid(parent)] },
        parent_weight: 0.into(),
        height,
        parent_state_root: cid("state"),
        parent_message_receipts: cid("receipts"),
        messages: cid("messages"),
        bls_aggregate: None,
        timestamp: height as u64,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(100),
    };
    TipSet { cids: vec![cid(name)], blocks: vec![block], height }
}

fn change(kind: HeadChangeType, val: TipSet) -> HeadChange {
    HeadChange { kind, val }
}

fn apply(val: TipSet) -> HeadChange {
    change(HeadChangeType::Apply, val)
}

fn revert(val: TipSet) -> HeadChange {
    change(HeadChangeType::Revert, val)
}

/// Heights told, with the revert of each.
fn told(step: FeedStep) -> Vec<(ChainEpoch, Option<ChainEpoch>)> {
    match step {
        FeedStep::Tell(updates) => updates.iter().map(|u| (u.tipset.height, u.reverted_to)).collect(),
        FeedStep::Known => vec![],
        FeedStep::Fetch(key) => panic!("wants {key:?}"),
    }
}

fn at_3() -> Feed {
    let mut feed = Feed::new(10, 100);
    for (name, height, parent) in [("a1", 1, "a0"), ("a2", 2, "a1"), ("a3", 3, "a2")] {
        assert_eq!(told(feed.batch(vec![apply(ts(name, height, parent))])), [(height, None)]);
    }
    feed
}

#[test]
fn the_first_head_is_told_without_its_past() {
    let mut feed = Feed::new(10, 100);
    assert_eq!(told(feed.batch(vec![change(HeadChangeType::Current, ts("a7", 7, "a6"))])), [(7, None)]);
    let mut feed = Feed::new(10, 100);
    assert_eq!(told(feed.polled(ts("a0", 0, ""))), [(0, None)]);
}

#[test]
fn the_same_head_again_is_nothing() {
    let mut feed = at_3();
    assert_eq!(told(feed.polled(ts("a3", 3, "a2"))), []);
    assert_eq!(told(feed.batch(vec![change(HeadChangeType::Current, ts("a3", 3, "a2"))])), []);
    assert_eq!(told(feed.polled(ts("a2", 2, "a1"))), [], "an old answer is no revert");
    assert_eq!(told(feed.batch(vec![])), []);
}

#[test]
fn a_gap_is_filled_through_parents() {
    let mut feed = at_3();
    assert!(matches!(feed.polled(ts("a6", 6, "a5")), FeedStep::Fetch(key) if key.0 == [cid("a5")]));
    assert!(matches!(feed.fetched(ts("a5", 5, "a4")), FeedStep::Fetch(key) if key.0 == [cid("a4")]));
    assert_eq!(told(feed.fetched(ts("a4", 4, "a3"))), [(4, None), (5, None), (6, None)]);
}

#[test]
fn null_rounds_are_no_gap() {
    let mut feed = at_3();
    assert_eq!(told(feed.polled(ts("a9", 9, "a3"))), [(9, None)]);
}

#[test]
fn a_batch_brings_its_own_path() {
    let mut feed = at_3();
    let batch = vec![apply(ts("a4", 4, "a3")), apply(ts("a5", 5, "a4")), apply(ts("a6", 6, "a5"))];
    assert_eq!(told(feed.batch(batch)), [(4, None), (5, None), (6, None)]);
}

#[test]
fn a_reorganisation_tells_the_last_common_height_once() {
    let mut feed = at_3();
    let batch =
        vec![revert(ts("a3", 3, "a2")), revert(ts("a2", 2, "a1")), apply(ts("b2", 2, "a1")), apply(ts("b3", 3, "b2"))];
    assert_eq!(told(feed.batch(batch)), [(2, Some(1)), (3, None)]);
    assert_eq!(feed.head().unwrap().cids, [cid("b3")]);
}

#[test]
fn a_reorganisation_is_seen_without_the_reverts() {
    let mut feed = at_3();
    assert!(matches!(feed.polled(ts("b4", 4, "b3")), FeedStep::Fetch(_)));
    assert!(matches!(feed.fetched(ts("b3", 3, "b2")), FeedStep::Fetch(_)));
    assert_eq!(told(feed.fetched(ts("b2", 2, "a1"))), [(2, Some(1)), (3, None), (4, None)]);
}

#[test]
fn taking_back_only_tells_the_earlier_head() {
    let mut feed = at_3();
    assert_eq!(told(feed.batch(vec![revert(ts("a3", 3, "a2"))])), [(2, Some(2))]);
    assert_eq!(told(feed.batch(vec![apply(ts("b3", 3, "a2"))])), [(3, None)]);
    assert_eq!(told(feed.batch(vec![revert(ts("a3", 3, "a2"))])), [], "not our head");
}

#[test]
fn a_gap_too_long_is_jumped() {
    for (max_gap, fetches) in [(1, 1), (2, 2), (3, 3)] {
        let mut feed = Feed::new(max_gap, 100);
        told(feed.polled(ts("a0", 0, "")));
        let mut step = feed.polled(ts("a9", 9, "a8"));
        let mut count = 0;
        while let FeedStep::Fetch(_) = step {
            count += 1;
            let height = 9 - count;
            step = feed.fetched(ts(&format!("a{height}"), height, &format!("a{}", height - 1)));
        }
        assert_eq!(count, fetches);
        assert_eq!(told(step).last(), Some(&(9, None)));
    }
}

#[test]
fn a_jump_below_what_was_told_says_so() {
    let mut feed = at_3();
    assert!(matches!(feed.polled(ts("c3", 3, "c2")), FeedStep::Fetch(_)));
    assert_eq!(told(feed.jump()), [(3, Some(2))], "the node could not tell where they part");
    let mut feed = at_3();
    assert!(matches!(feed.polled(ts("c5", 5, "c4")), FeedStep::Fetch(_)));
    assert_eq!(told(feed.jump()), [(5, None)]);
}

#[test]
fn a_wrong_or_empty_answer_ends_the_search() {
    let mut feed = at_3();
    assert!(matches!(feed.polled(ts("a6", 6, "a5")), FeedStep::Fetch(_)));
    assert_eq!(told(feed.fetched(ts("x5", 5, "x4"))), [(6, None)]);
    let empty = TipSet { cids: vec![], blocks: vec![], height: 9 };
    assert_eq!(told(feed.polled(empty)), []);
}

#[test]
fn memory_is_bounded() {
    let mut feed = Feed::new(10, 5);
    for height in 1..50 {
        told(feed.batch(vec![apply(ts(&format!("a{height}"), height, &format!("a{}", height - 1)))]));
        assert!(feed.told.len() <= 5);
    }
}

/// Just started, the feed knows one tipset; another one beside it is no deep reorganisation.
#[test]
fn a_sibling_of_the_only_known_head_reverts_one_tipset() {
    for (height, reverted_to) in [(6, 5), (7, 6), (8, 6)] {
        let mut feed = Feed::new(10, 100);
        told(feed.polled(ts("a7", 7, "a5")));
        assert_eq!(told(feed.polled(ts("b", height, "a5"))), [(height, Some(reverted_to))]);
    }
}

#[test]
fn a_fork_below_memory_is_not_followed_to_genesis() {
    let mut feed = Feed::new(100, 100);
    told(feed.polled(ts("a7", 7, "a6")));
    assert!(matches!(feed.polled(ts("b8", 8, "b7")), FeedStep::Fetch(_)));
    assert_eq!(told(feed.fetched(ts("b7", 7, "b6"))), [(7, Some(6)), (8, None)]);
}
