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

const US: Address = Address::new_id(1000);

/// Without a limit to the base's lag.
fn rounds() -> Rounds {
    rounds_within(0)
}

fn rounds_within(max_lag: u64) -> Rounds {
    Rounds::new(RoundTiming::new(Duration::from_secs(30), Some(Duration::from_secs(10)), max_lag), US)
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
        // Others wait for more blocks of epoch 13 until 10 s after its time.
        (tipset(&["x"], 13), vec!["wake 400"]),
        (tipset(&["x"], 14), vec!["abort", "wake 430"]),
    ] {
        let height = head.height;
        let got = shown(running().head(head, now));
        assert_eq!(got, expected, "head at {height}");
    }
}

#[test]
fn a_round_goes_on_beside_a_head_of_its_height_while_the_network_takes_its_block() {
    // Round 11, its time at 330 s, taken until 340 s.
    let beside = |after: Duration| {
        let mut rounds = rounds();
        rounds.head(tipset(&["a"], 10), at(10, 10));
        (shown(rounds.head(tipset(&["theirs"], 11), after)), rounds)
    };
    for (after, expected) in [
        (at(10, 29), vec!["wake 340"]),
        (at(11, 9), vec!["wake 340"]),
        (at(11, 10), vec!["abort", "start 12"]),
        (at(11, 20), vec!["abort", "start 12"]),
    ] {
        assert_eq!(beside(after).0, expected, "head at {after:?}");
    }
    let (_, mut rounds) = beside(at(11, 2));
    assert_eq!(shown(rounds.wake(at(11, 9))), ["wake 340"], "still proving");
    assert!(rounds.submitting(1), "ready in time");
    let (_, mut rounds) = beside(at(11, 2));
    assert_eq!(shown(rounds.wake(at(11, 10))), ["abort", "start 12"], "not ready in time");
    assert!(!rounds.submitting(1));
    // The head of that height is taken back: nothing presses any more.
    let (_, mut rounds) = beside(at(11, 2));
    rounds.head(tipset(&["a"], 10), at(11, 3));
    assert_eq!(shown(rounds.wake(at(11, 10))), [""; 0]);
    assert!(rounds.submitting(1));
}

#[test]
fn a_network_takes_blocks_for_a_third_of_the_delay_also_where_we_start_at_once() {
    let mut rounds = Rounds::new(RoundTiming::new(Duration::from_secs(30), Some(Duration::ZERO), 0), US);
    assert_eq!(shown(rounds.head(tipset(&["a"], 10), at(10, 0))), ["start 11"]);
    assert_eq!(shown(rounds.head(tipset(&["theirs"], 11), at(11, 1))), ["wake 340"]);
}

#[test]
fn a_block_on_its_way_is_not_aborted_and_the_next_round_does_not_wait_for_it() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    assert!(!rounds.submitting(7));
    assert!(rounds.submitting(1));
    assert!(!rounds.submitting(1), "once");
    assert_eq!(shown(rounds.wake(at(11, 15))), [""; 0], "no null round: ours may be the next head");
    assert_eq!(shown(rounds.head(tipset(&["ours"], 11), at(11, 15))), ["start 12"], "the node did not answer yet");
    assert_eq!(shown(rounds.ended(1, at(11, 16))), [""; 0]);
    assert_eq!(rounds.base().unwrap().round(), 12, "the new head, without null rounds");
}

#[test]
fn a_block_that_came_to_nothing_leads_to_a_null_round() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    assert!(rounds.submitting(1));
    assert_eq!(shown(rounds.ended(1, at(11, 1))), ["wake 340"]);
    assert_eq!(shown(rounds.wake(at(11, 10))), ["start 12"]);
}

#[test]
fn a_base_without_our_own_block_is_left_for_the_one_with_it() {
    let mut rounds = rounds();
    rounds.head(tipset(&["theirs"], 11), at(11, 10));
    let mut joined = (*tipset(&["theirs", "ours"], 11)).clone();
    joined.blocks[1].miner = US;
    assert_eq!(shown(rounds.head(Arc::new(joined), at(11, 11))), ["abort", "start 12"]);
    assert_eq!(rounds.running().unwrap().1.tipset.cids.len(), 2);
}

#[test]
fn a_base_that_lags_the_clock_is_not_mined_on() {
    // Ten epochs: 300 s.
    for (now, expected) in [(at(19, 30), vec!["start 11"]), (at(20, 1), vec![]), (at(9_000, 0), vec![])] {
        let mut rounds = rounds_within(10);
        assert_eq!(shown(rounds.head(tipset(&["a"], 10), now)), expected, "{now:?}");
        assert_eq!(rounds.lags(now).is_some(), expected.is_empty());
    }
    // A node that hangs: null rounds until it lags too far.
    let mut rounds = rounds_within(2);
    rounds.head(tipset(&["a"], 10), at(10, 10));
    assert_eq!(shown(rounds.ended(1, at(10, 11))), ["wake 340"]);
    assert_eq!(shown(rounds.wake(at(11, 10))), ["start 12"]);
    assert_eq!(shown(rounds.ended(2, at(11, 11))), ["wake 370"]);
    assert_eq!(shown(rounds.wake(at(12, 10))), [""; 0]);
    assert_eq!(shown(rounds.head(tipset(&["b"], 12), at(12, 12))), ["start 13"], "it answers again");
}

#[test]
fn the_selection_of_messages_may_take_what_the_round_can_spare() {
    let timing = RoundTiming::new(Duration::from_secs(30), None, 0);
    let base = Base { tipset: tipset(&["a"], 10), nulls: 0 };
    // The block's time is at 330 s; 3 s are kept, and it is taken until 340 s.
    for (now, allowance) in [
        (at(10, 10), 17_000),
        (at(10, 24), 3_000),
        (at(10, 29), 3_000),
        (at(11, 4), 3_000),
        (at(11, 6), 2_000),
        (at(11, 9), 500),
        (at(11, 10), 3_000),
        (at(100, 0), 3_000),
    ] {
        assert_eq!(timing.select_allowance(&base, now).as_millis(), allowance, "{now:?}");
    }
}

#[test]
fn an_aborted_round_may_not_send() {
    let mut rounds = rounds();
    rounds.head(tipset(&["a"], 10), at(10, 10));
    rounds.head(tipset(&["x"], 12), at(10, 20));
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
        RoundTiming::new(Duration::from_secs(delay), propagation.map(Duration::from_secs), 0).propagation.as_secs()
    };
    assert_eq!([timing(30, None), timing(30, Some(6)), timing(30, Some(31)), timing(0, None)], [10, 6, 30, 0]);
}
