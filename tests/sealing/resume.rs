//! A pledge becomes one proving sector, whatever point the process dies at: one number, one pre-commit, one prove-commit,
//! no proof that was finished computed again.

use crate::support::world::{Outside, PHASES, World, file};
use bulkhead::actors::seal_scheduler::Phase;

async fn until_proving(world: &mut World, o: &mut Outside) {
    world.run(o, 60, |w| w.phase(1) == Some(Phase::Proving)).await;
}

#[tokio::test]
async fn a_pledge_goes_through_every_phase_to_proving() {
    let mut o = Outside::new();
    let mut w = o.boot();
    assert_eq!(w.driver.pledge("first", o.now).unwrap(), None);
    until_proving(&mut w, &mut o).await;
    assert_eq!(w.driver.pledge("first", o.now).unwrap(), Some(1), "the same wish");
    let s = w.sector(1);
    let phases: Vec<Phase> = s.timings.iter().map(|t| t.phase).collect();
    assert_eq!(phases, PHASES);
    // Ticket five epochs behind the head of epoch 10; the seed three after the pre-commit; collateral as the node says.
    assert_eq!((s.ticket.unwrap().epoch, s.pre_commit_epoch, s.seed.unwrap().epoch), (5, Some(11), 14));
    let (pre, commit) = (o.chain.executed(28), o.chain.executed(34));
    assert_eq!((pre.len(), commit.len()), (1, 1));
    assert_eq!(pre[0].message.value, crate::support::fake_chain::fil(1000));
    assert_eq!(commit[0].message.value, crate::support::fake_chain::fil(50_000 - 1000));
    let waited = w.driver.detail(1, o.now).unwrap().durations;
    assert!(waited.iter().any(|(p, ms)| *p == Phase::WaitSeed && *ms >= 4000), "{waited:?}");
    let name = "s-t01000-1";
    assert!(file(o.dir.path(), "sealed", name).exists() && !file(o.dir.path(), "unsealed", name).exists());
    assert_eq!(std::fs::read_dir(o.dir.path().join("jobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_sector_finishes_after_kill_9_at_any_point() {
    let mut died_in = Vec::new();
    for point in 1.. {
        let mut o = Outside::new();
        let mortal = o.mortal.clone();
        mortal.die_at(Some(point));
        let mut w = o.boot();
        w.driver.pledge("first", o.now).unwrap();
        let survived = mortal.live(until_proving(&mut w, &mut o)).await.is_some();
        if !survived {
            let phase = w.phase(1).map_or("no number".to_owned(), |p| p.to_string());
            died_in.push((mortal.place(), phase));
            drop(w);
            mortal.die_at(None);
            w = o.boot();
            // The operator's script says it again.
            w.driver.pledge("first", o.now).unwrap();
            until_proving(&mut w, &mut o).await;
        }
        let place = died_in.last();
        assert_eq!(w.driver.list().len(), 1, "{place:?}");
        assert_eq!(o.chain.executed(28).len(), 1, "pre-commits after {place:?}");
        assert_eq!(o.chain.executed(34).len(), 1, "prove-commits after {place:?}");
        assert_eq!(w.book.numbers().await.unwrap().allocated, [1..=1], "{place:?}");
        for task in ["AddPiece", "PC1", "PC2", "C1", "C2"] {
            assert_eq!(o.prover.times(task), 1, "{task} after {place:?}");
        }
        if survived {
            break;
        }
    }
    for place in ["number given", "message taken", "after MpoolPush", "C2 kept", "C2 begins", "action done"] {
        assert!(died_in.iter().any(|(p, _)| p == place), "never died at {place}");
    }
    let phases: std::collections::BTreeSet<_> = died_in.iter().map(|(_, p)| p.as_str()).collect();
    for phase in [
        "no number",
        "Allocated",
        "AddPiece",
        "GetTicket",
        "PreCommit1",
        "PreCommit2",
        "PreCommitting",
        "PreCommitWait",
        "WaitSeed",
        "Commit1",
        "Commit2",
        "VerifySeal",
        "SubmitCommit",
        "CommitWait",
        "FinalizeSector",
    ] {
        assert!(phases.contains(phase), "never died in {phase}: {phases:?}");
    }
}

#[tokio::test]
async fn a_second_death_right_after_the_first_changes_nothing() {
    for (first, second) in (1..60).step_by(7).flat_map(|a| (1..20).step_by(6).map(move |b| (a, b))) {
        let mut o = Outside::new();
        let mortal = o.mortal.clone();
        mortal.die_at(Some(first));
        let mut w = o.boot();
        w.driver.pledge("first", o.now).unwrap();
        for next in [Some(second), None] {
            if mortal.live(until_proving(&mut w, &mut o)).await.is_some() {
                break;
            }
            drop(w);
            mortal.die_at(next);
            w = o.boot();
        }
        until_proving(&mut w, &mut o).await;
        assert_eq!((o.chain.executed(28).len(), o.chain.executed(34).len()), (1, 1), "{first} {second}");
        assert_eq!(w.book.numbers().await.unwrap().allocated, [1..=1]);
    }
}
