//! What a head costs the seal scheduler: by the sectors that wait for it, not by those that are there. Counted by the
//! doubles.

use crate::support::fake_chain::CHALLENGE_DELAY;
use crate::support::waiting_sectors::{Cost, HEAD, Miner, Waiting, pre_commit, proven};
use bulkhead::actors::message_sender::messages::MessageStatus;
use bulkhead::actors::seal_scheduler::Phase;
use std::collections::BTreeSet;

const NOW: u64 = 1_000_000;

async fn heads(miner: Miner, heads: usize) -> Vec<Cost> {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = Waiting::new(&miner, dir.path());
    let mut costs = Vec::new();
    for _ in 0..heads {
        costs.push(waiting.head(NOW).await);
    }
    costs
}

#[tokio::test]
async fn a_head_costs_the_same_with_ten_sectors_and_with_twenty_thousand() {
    let few = Miner { proving: 10, pre_commit_wait: 60, wait_seed: 60, commit_wait: 60, long: false };
    let many = Miner { proving: 20_000, ..few };
    let (small, large) = (heads(few, 3).await, heads(many, 3).await);
    for (at, (small, large)) in small.iter().zip(&large).enumerate() {
        assert_eq!(small.calls, large.calls, "head {at}");
        assert_eq!((small.looked_at, small.asked), (large.looked_at, large.asked), "head {at}");
        assert!(large.calls.values().sum::<u64>() <= 1 + 1 + 32, "{:?}", large.calls);
        assert!(large.looked_at <= 180, "{large:?}");
    }
    assert!(large[0].calls.get("StateGetNetworkParams").is_none_or(|calls| *calls == 1), "{:?}", large[0].calls);
    assert_eq!(large[1].calls.get("StateMinerAllocated"), Some(&1));
}

#[tokio::test]
async fn sectors_that_wait_for_their_seed_are_left_alone_until_it_can_be_drawn() {
    let miner = Miner { wait_seed: 300, ..Miner::default() };
    let costs = heads(miner, CHALLENGE_DELAY as usize + 2).await;
    let calls = |at: usize, method: &str| costs[at].calls.get(method).copied().unwrap_or(0);
    assert_eq!((costs[0].calls.len(), calls(0, "StateGetNetworkParams")), (1, 1), "{:?}", costs[0]);
    for (at, cost) in costs.iter().enumerate().take(CHALLENGE_DELAY as usize).skip(1) {
        assert_eq!((cost.looked_at, cost.calls.len()), (0, 0), "head {at}: {cost:?}");
    }
    let due = CHALLENGE_DELAY as usize; // the confidence is one epoch, and the first head is one after the pre-commit
    assert_eq!(calls(due, "StateSectorPreCommitInfo"), 300);
    assert_eq!(calls(due, "StateGetRandomnessFromBeacon"), 1, "one seed for all of them: {:?}", costs[due].calls);
}

#[tokio::test]
async fn a_pre_commit_is_seen_at_the_head_that_has_it_and_costs_no_question_before() {
    let miner = Miner { pre_commit_wait: 200, ..Miner::default() };
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = Waiting::new(&miner, dir.path());
    for _ in 0..2 {
        let cost = waiting.head(NOW).await;
        assert_eq!((cost.calls.len(), cost.calls["StateMinerAllocated"]), (1, 1), "{cost:?}");
    }
    {
        let mut chain = waiting.chain.state();
        chain.allocated.insert(7);
        chain.pre_commits.insert(7, pre_commit(7));
    }
    let cost = waiting.head(NOW).await;
    assert_eq!(cost.calls.get("StateSectorPreCommitInfo"), Some(&1), "{cost:?}");
    assert_eq!(waiting.driver.phase(7).unwrap(), Phase::WaitSeed);
    assert_eq!(waiting.driver.phase(8).unwrap(), Phase::PreCommitWait);
}

#[tokio::test]
async fn a_prove_commit_is_read_when_there_is_word_of_it_and_without_word_in_turn() {
    let miner = Miner { commit_wait: 100, ..Miner::default() };
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = Waiting::new(&miner, dir.path());
    let cost = waiting.head(NOW).await;
    assert_eq!((cost.calls["StateSectorGetInfo"], cost.asked), (32, 100));

    // The sender has word of one, and one is proven without its knowing.
    waiting.chain.state().sectors.insert(90, proven(90, HEAD));
    waiting.chain.state().sectors.insert(100, proven(100, HEAD));
    let tipset = waiting.chain.head().key();
    let landed = MessageStatus::Landed { cid: tipset.0[0], epoch: HEAD, tipset, return_data: vec![] };
    waiting.outbox.status.lock().unwrap().insert("provecommit-90-0".into(), landed);
    let cost = waiting.head(NOW).await;
    assert_eq!(cost.calls["StateSectorGetInfo"], 33);
    assert_ne!(waiting.driver.phase(90).unwrap(), Phase::CommitWait, "deep enough, and read at once");
    let mut unseen = BTreeSet::from([100]);
    for _ in 0..2 {
        waiting.head(NOW).await;
        unseen.retain(|number| waiting.driver.phase(*number).unwrap() == Phase::CommitWait);
    }
    assert_eq!(unseen, BTreeSet::new(), "each gets its turn within four heads");
}
