//! An upgrade of the network while a sector is under way: it goes on by the rules of the tipset in hand, without a restart.

use crate::support::fake_chain::fil;
use crate::support::world::{Outside, World};
use bulkhead::actors::seal_scheduler::{NumberSource, Phase, allocation_key};
use bulkhead::chain::{ChainEpoch, TokenAmount};

/// One action of the sector that is due now, if any.
async fn one_action(w: &mut World, o: &Outside) -> bool {
    let head = o.chain.head();
    let Some(run) = w.driver.due(o.now, Some(head.height)).pop() else { return false };
    let event = w.effects.run(&run, Some(&head)).await;
    w.driver.done(run.sector.number, run.run, event, o.now).unwrap();
    true
}

/// The values that a sector's pre-commits and prove-commits carried, each with its exit code.
type Sent = (Vec<(TokenAmount, i64)>, Vec<(TokenAmount, i64)>);

/// Seals one sector action by action; the upgrade comes with the tipset after it has entered `at`.
async fn seal_across_an_upgrade(at: Phase, announced: bool) -> Sent {
    let mut o = Outside::new();
    (o.chain.state().solstice, o.chain.state().announced) = (ChainEpoch::MAX, announced);
    let mut w = o.boot();
    w.driver.pledge("first", o.now).unwrap();
    let number = NumberSource::allocate(&w.book, &allocation_key(None, "first")).await.unwrap();
    w.driver.numbered("first", number, o.now).unwrap();
    for _ in 0..200 {
        let crossed = o.chain.state().solstice != ChainEpoch::MAX;
        if !crossed && w.phase(number) == Some(at) {
            let next = o.chain.state().height + 1;
            o.chain.state().solstice = next;
        } else if w.phase(number) == Some(Phase::Proving) {
            assert!(crossed, "never in {at}");
            let sent = |method| o.chain.executed(method).into_iter().map(|e| (e.message.value, e.exit_code)).collect();
            return (sent(28), sent(34));
        } else if one_action(&mut w, &o).await {
            continue;
        }
        w.engine.round(&o.chain.head()).await.unwrap();
        o.chain.mine();
        o.now += 1000;
    }
    panic!("upgrade in {at}: {:#?}", w.driver.list());
}

/// The pledge is that of a sector of full quality from the upgrade on, and no margin is added to the node's own.
const DEPOSIT: u64 = 1000;
const OLD: u64 = 5000 - DEPOSIT;
const NEW: u64 = 50_000 - DEPOSIT;

#[tokio::test]
async fn a_sector_in_any_phase_at_the_upgrade_reaches_proving() {
    use Phase::*;
    let before_the_commit = [
        Allocated,
        AddPiece,
        GetTicket,
        PreCommit1,
        PreCommit2,
        PreCommitting,
        PreCommitWait,
        WaitSeed,
        Commit1,
        Commit2,
        VerifySeal,
        SubmitCommit,
    ];
    let once = |value| (vec![(fil(DEPOSIT), 0)], vec![(fil(value), 0)]);
    for phase in before_the_commit {
        assert_eq!(seal_across_an_upgrade(phase, true).await, once(NEW), "{phase}");
    }
    assert_eq!(seal_across_an_upgrade(FinalizeSector, true).await, once(OLD), "proven before");
    // Nobody knew: the message that was under way is refused for want of funds, and the next one carries what it needs.
    let (deposits, pledges) = seal_across_an_upgrade(CommitWait, false).await;
    assert_eq!((deposits.len(), pledges), (1, vec![(fil(OLD), 19), (fil(NEW), 0)]));
}

/// An hour before an announced upgrade a prove-commit carries what either side asks: it may land on the other one.
#[tokio::test]
async fn a_prove_commit_before_an_announced_upgrade_carries_the_greater_pledge() {
    for (ahead, value) in [(1, NEW), (100, NEW), (1000, OLD)] {
        let mut o = Outside::new();
        let height = o.chain.state().height;
        // The last epoch of version 28, seen from a head some dozen epochs later.
        (o.chain.state().solstice, o.chain.state().announced) = (height + 13 + ahead, true);
        let mut w = o.boot();
        w.driver.pledge("first", o.now).unwrap();
        w.run(&mut o, 60, |w| w.phase(1) == Some(Phase::Proving)).await;
        let sent = o.chain.executed(34);
        assert_eq!(sent.iter().map(|e| (e.message.value.clone(), e.exit_code)).collect::<Vec<_>>(), [(fil(value), 0)]);
    }
}
