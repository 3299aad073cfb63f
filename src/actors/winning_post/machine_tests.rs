//! Table tests of the rounds: when they begin, what ends them, which base they stand on.

use super::*;
use crate::chain::types::BlockHeader;
use crate::chain::{Address, TokenAmount};
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};

const T0: u64 = 1_000_000;

fn cid(name: &str) -> Cid {
    Cid::new_v1(0x71, Code::Blake2b256.digest(name.as_bytes()))
}

/// Blocks of one height, one per name; the chain's epoch 0 is at T0 and epochs are 30 s.
fn tipset(names: &[&str], height: ChainEpoch) -> Arc<TipSet> {
    let block = |_: &&str| BlockHeader {
        miner: Address::new_id(1),
        ticket: None,
        election_proof: None,
        beacon_entries: vec![],
        win_post_proof: vec![],
        parents: vec![],
        parent_weight: 0.into(),
        height,
        parent_state_root: cid("state"),
        parent_message_receipts: cid("receipts"),
        messages: cid("messages"),
        bls_aggregate: None,
        timestamp: T0 + 30 * height as u64,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(100),
    };
    Arc::new(TipSet {
        cids: names.iter().map(|name| cid(name)).collect(),
        blocks: names.iter().map(block).collect(),
        height,
    })
}

fn rounds() -> Rounds {
    Rounds::new(RoundTiming::new(Duration::from_secs(30), Some(Duration::from_secs(10))))
}

/// Seconds after epoch `height`'s time.
fn at(height: u64, seconds: u64) -> Duration {
    Duration::from_secs(T0 + 30 * height + seconds)
}

/// `start ROUND`, `abort`, `wake SECONDS` (after T0).
fn shown(actions: Vec<RoundAction>) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            RoundAction::Start { base, .. } => format!("start {}", base.round()),
            RoundAction::Abort { .. } => "abort".to_string(),
            RoundAction::WakeAt(at) => format!("wake {}", at.as_secs() - T0),
        })
        .collect()
}

#[test]
fn a_round_waits_for_the_base_to_be_complete() {
    for (seconds, expected) in [(0, "wake 310"), (9, "wake 310"), (10, "start 11"), (11, "start 11"), (500, "start 11")]
    {
        assert_eq!(shown(rounds().head(tipset(&["a"], 10), at(10, seconds))), [expected]);
    }
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 0));
    assert_eq!(shown(rounds.wake(at(10, 9))), ["wake 310"]);
    assert_eq!(shown(rounds.wake(at(10, 10))), ["start 11"]);
    assert_eq!(shown(rounds.wake(at(10, 11))), [""; 0], "one round at a time");
}

#[test]
fn a_round_without_a_win_leads_to_a_null_round() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    let base = rounds.base().unwrap().clone();
    assert_eq!(base.block_time(Duration::from_secs(30)), T0 + 330);
    assert_eq!(shown(rounds.ended(1, at(10, 12))), ["wake 340"]);
    assert_eq!(shown(rounds.wake(at(11, 10))), ["start 12"]);
    assert_eq!(rounds.base().unwrap().block_time(Duration::from_secs(30)), T0 + 360);
    assert_eq!(shown(rounds.ended(1, at(11, 12))), [""; 0], "an end of an earlier round");
}

#[test]
fn null_rounds_of_a_chain_that_stood_still_are_paced() {
    let mut rounds = rounds();
    assert_eq!(shown(rounds.head(tipset(&["a"], 10), at(500, 0))), ["start 11"]);
    assert_eq!(shown(rounds.ended(1, at(500, 1))), [format!("wake {}", 501 * 30)]);
    assert_eq!(shown(rounds.wake(at(501, 0))), ["start 12"]);
}

#[test]
fn a_head_decides_whether_a_round_goes_on() {
    // The round is 13: base 10 and two null rounds.
    let running = || {
        let mut rounds = rounds();
        rounds.head(tipset(&["a", "b"], 10), at(10, 10));
        rounds.ended(1, at(10, 11));
        rounds.wake(at(11, 10));
        rounds.ended(2, at(11, 11));
        assert_eq!(shown(rounds.wake(at(12, 10))), ["start 13"]);
        rounds
    };
    let now = at(12, 15);
    for (head, expected) in [
        (tipset(&["x"], 9), vec!["abort", "start 10"]),
        (tipset(&["a", "b"], 10), vec![]),
        (tipset(&["a"], 10), vec![]),
        (tipset(&["a", "b", "c"], 10), vec![]),
        (tipset(&["x"], 10), vec!["abort", "start 13"]),
        (tipset(&["x"], 11), vec!["abort", "start 12"]),
        (tipset(&["x"], 12), vec!["abort", "start 13"]),
        (tipset(&["x"], 13), vec!["abort", "wake 400"]),
        (tipset(&["x"], 14), vec!["abort", "wake 430"]),
    ] {
        let height = head.height;
        let got = shown(running().head(head, now));
        assert_eq!(got, expected, "head at {height}");
    }
}

#[test]
fn a_block_on_its_way_is_not_aborted() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    assert!(!rounds.submitting(7));
    assert!(rounds.submitting(1));
    assert_eq!(shown(rounds.head(tipset(&["ours"], 11), at(11, 0))), [""; 0]);
    assert_eq!(shown(rounds.ended(1, at(11, 1))), ["wake 340"]);
    assert_eq!(rounds.base().unwrap().round(), 12, "the new head, without null rounds");
}

#[test]
fn an_aborted_round_may_not_send() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    rounds.head(tipset(&["x"], 11), at(10, 20));
    assert!(!rounds.submitting(1));
}

#[test]
fn the_base_keeps_only_blocks_that_are_still_there() {
    let old = tipset(&["a", "b", "c"], 10);
    let kept = |names: &[&str], height| intersect(&old, &tipset(names, height)).map(|kept| kept.cids);
    assert_eq!(kept(&["c", "a", "new"], 10), Some(vec![cid("a"), cid("c")]));
    assert_eq!(kept(&["new"], 10), None);
    assert_eq!(kept(&["a"], 11), None);
}

#[test]
fn propagation_is_a_third_of_the_block_delay_and_never_more_than_it() {
    let timing = |delay, propagation: Option<u64>| {
        RoundTiming::new(Duration::from_secs(delay), propagation.map(Duration::from_secs)).propagation.as_secs()
    };
    assert_eq!([timing(30, None), timing(30, Some(6)), timing(30, Some(31)), timing(0, None)], [10, 6, 30, 0]);
}
