//! An upgrade of the network while a sector is under way: it goes on by the rules of the tipset in hand, without a restart.

use crate::support::fake_chain::fil;
use crate::support::world::{Outside, PHASES, World};
use bulkhead::actors::seal_scheduler::{NumberSource, Phase, allocation_key};

/// One action of the sector that is due now, if any.
async fn one_action(w: &mut World, o: &Outside) -> bool {
    let head = o.chain.head();
    let Some(run) = w.driver.due(o.now, Some(head.height)).pop() else { return false };
    let event = w.effects.run(&run, Some(&head)).await;
    w.driver.done(run.sector.number, run.run, event, o.now).unwrap();
    true
}

/// Seals one sector action by action; the upgrade comes with the tipset after it has entered `at`. Gives what was sent along
/// with its two messages.
async fn seal_across_an_upgrade(at: Phase) -> (fvm_shared::econ::TokenAmount, fvm_shared::econ::TokenAmount) {
    let mut o = Outside::new();
    o.chain.state().solstice = i64::MAX;
    let mut w = o.boot();
    w.driver.pledge("first", o.now).unwrap();
    let number = NumberSource::allocate(&w.book, &allocation_key(None, "first")).await.unwrap();
    w.driver.numbered("first", number, o.now).unwrap();
    for _ in 0..200 {
        let crossed = o.chain.state().solstice != i64::MAX;
        if !crossed && w.phase(number) == Some(at) {
            let next = o.chain.state().height + 1;
            o.chain.state().solstice = next;
        } else if w.phase(number) == Some(Phase::Proving) {
            assert!(crossed, "never in {at}");
            let sent = |method| o.chain.executed(method)[0].message.value.clone();
            assert_eq!((o.chain.executed(28).len(), o.chain.executed(34).len()), (1, 1), "{at}");
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

#[tokio::test]
async fn a_sector_in_any_phase_at_the_upgrade_reaches_proving() {
    let reached = |wanted: Phase| PHASES.iter().position(|phase| *phase == wanted).unwrap();
    for phase in PHASES[..reached(Phase::CommitWait)].iter().copied() {
        // The pledge is that of a sector of full quality, and no margin is added to the node's own.
        assert_eq!(seal_across_an_upgrade(phase).await, (fil(1000), fil(50_000 - 1000)), "{phase}");
    }
    for phase in PHASES[reached(Phase::CommitWait)..reached(Phase::Proving)].iter().copied() {
        assert_eq!(seal_across_an_upgrade(phase).await, (fil(1000), fil(5000 - 1000)), "{phase}");
    }
}
