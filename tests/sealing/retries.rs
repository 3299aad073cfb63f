//! What goes wrong while sealing heals by itself: provers that fail or are killed, a silent node, refused messages, an old
//! ticket, a pre-commit that expired, a proof that does not verify.

use crate::support::world::{Outside, World};
use bulkhead::actors::seal_scheduler::{Limits, Phase, RemoveError};
use bulkhead::proofs::{Output, ProverError};

fn failed(task: &str) -> Result<Output, ProverError> {
    Err(ProverError::Failed { task: task.into(), why: "scripted".into() })
}

async fn start(o: &mut Outside) -> World {
    let mut w = o.boot();
    w.driver.pledge("first", o.now).unwrap();
    w
}

fn visited(w: &World, number: u64, phase: Phase) -> usize {
    w.sector(number).timings.iter().filter(|t| t.phase == phase).count()
}

const PROVING: fn(&World) -> bool = |w| w.phase(1) == Some(Phase::Proving);

#[tokio::test]
async fn a_prover_that_fails_is_tried_again_in_a_new_job() {
    let mut o = Outside::new();
    for task in ["AddPiece", "PC1", "PC1", "PC1", "PC2", "C1", "C2", "VerifySeal", "Finalize"] {
        o.prover.then(task, failed(task));
    }
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, PROVING).await;
    assert_eq!(visited(&w, 1, Phase::SealPreCommit1Failed), 3);
    for failed in [Phase::AddPieceFailed, Phase::SealPreCommit2Failed, Phase::FinalizeFailed] {
        assert_eq!(visited(&w, 1, failed), 1, "{failed}");
    }
    let dirs = o.prover.job_dirs.lock().unwrap().clone();
    for name in ["s-t01000-1-pc1-1", "s-t01000-1-pc1-4", "s-t01000-1-c2-2"] {
        assert!(dirs.iter().any(|d| d == name), "{name} in {dirs:?}");
    }
    assert_eq!(o.chain.executed(28).len(), 1);
}

#[tokio::test]
async fn pc1_that_fails_a_fourth_time_gives_the_sector_up() {
    let mut o = Outside::new();
    (0..4).for_each(|_| o.prover.then("PC1", failed("PC1")));
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::Removed)).await;
    assert!(w.sector(1).log.iter().any(|l| l.text.contains("PC1 failed 4 times")));
}

#[tokio::test]
async fn a_killed_prover_counts_as_no_failure_of_the_sector() {
    let mut o = Outside::new();
    for _ in 0..10 {
        o.prover.then("C2", Err(ProverError::Killed { task: "C2".into(), signal: 9 }));
    }
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, PROVING).await;
    let s = w.sector(1);
    assert_eq!((visited(&w, 1, Phase::ComputeProofFailed), s.attempts.c2), (0, 1));
    assert!(s.log.iter().any(|l| l.text.contains("signal 9")), "{:?}", s.log);
}

/// Hours of PC1 on a ticket that no pre-commit may have any more: before PC1 another one costs nothing.
#[tokio::test]
async fn a_ticket_that_aged_while_the_sector_waited_is_drawn_anew_before_pc1() {
    let mut o = Outside::new();
    // With the pauses between tries, the prover cannot work for as long as a ticket lasts.
    for _ in 0..20 {
        o.prover.then("PC1", Err(ProverError::NotStarted { task: "PC1".into(), why: "scripted".into() }));
    }
    let mut w = start(&mut o).await;
    w.run(&mut o, 400, PROVING).await;
    let s = w.sector(1);
    assert_eq!((visited(&w, 1, Phase::GetTicket), visited(&w, 1, Phase::PreCommit2)), (2, 1), "{:#?}", s.log);
    assert!(s.log.iter().any(|l| l.text.contains("too old after PC1")), "{:#?}", s.log);
    assert_eq!((s.attempts.pc1, s.fails.pc1), (2, 0));
}

#[tokio::test]
async fn what_the_host_lacks_never_counts_against_a_sector() {
    let mut o = Outside::new();
    let lacks = [
        "cache: No space left on device (os error 28)",
        "layer: Too many open files (os error 24)",
        "mmap: Cannot allocate memory (os error 12)",
        "failed to spawn thread: Resource temporarily unavailable (os error 11)",
    ];
    for task in ["AddPiece", "PC1", "PC2", "C1", "C2", "VerifySeal", "Finalize"] {
        for why in lacks {
            o.prover.then(task, Err(ProverError::Failed { task: task.into(), why: why.into() }));
        }
    }
    let mut w = start(&mut o).await;
    w.run(&mut o, 200, PROVING).await;
    let s = w.sector(1);
    for failed in
        [Phase::AddPieceFailed, Phase::SealPreCommit1Failed, Phase::SealPreCommit2Failed, Phase::ComputeProofFailed]
    {
        assert_eq!(visited(&w, 1, failed), 0, "{failed}: {:#?}", s.log);
    }
    assert_eq!((s.attempts.pc1, s.attempts.c2, s.fails), (1, 1, Default::default()));
    assert!(s.log.iter().any(|l| l.text.contains("No space left on device")), "{:?}", s.log);
}

#[tokio::test]
async fn no_sector_is_begun_without_room_for_all_of_it() {
    let mut o = Outside::new();
    o.settings.keep_free = u64::MAX / 2;
    let mut w = start(&mut o).await;
    for _ in 0..10 {
        w.step(o.now, &o.chain.clone()).await;
        o.now += 1000;
    }
    let s = w.sector(1);
    assert_eq!((s.phase, s.fails, s.attempts.add_piece), (Phase::AddPiece, Default::default(), 1));
    let why = s.reason.clone().unwrap_or_default();
    assert!(why.contains("no room on the disk") && why.contains("sealing.keep_free"), "{why}");
    assert!(s.log.len() < 10, "said once: {:?}", s.log);
    w.effects.settings.keep_free = 0;
    w.run(&mut o, 100, PROVING).await;
}

#[tokio::test]
async fn a_silent_node_stops_a_sector_only_for_as_long_as_it_is_silent() {
    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    for phase in [Phase::WaitSeed, Phase::CommitWait] {
        w.run(&mut o, 100, |w| w.phase(1) == Some(phase)).await;
        o.chain.state().down = true;
        for _ in 0..15 {
            w.step(o.now, &o.chain.clone()).await;
            o.now += 1000;
        }
        assert_eq!(w.phase(1), Some(phase));
        assert!(w.sector(1).log.len() < 40, "an outage is not logged at every try");
        o.chain.state().down = false;
    }
    w.run(&mut o, 100, PROVING).await;
    assert_eq!(o.chain.executed(28).len(), 1);
}

#[tokio::test]
async fn messages_that_fail_on_chain_are_sent_again_under_a_new_key() {
    let mut o = Outside::new();
    o.chain.state().exits = vec![(28, 19), (34, 7)];
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, PROVING).await;
    assert_eq!((visited(&w, 1, Phase::PreCommitFailed), visited(&w, 1, Phase::CommitFailed)), (1, 1));
    let exits = |method| o.chain.executed(method).iter().map(|e| e.exit_code).collect::<Vec<_>>();
    assert_eq!((exits(28), exits(34)), (vec![19, 0], vec![7, 0]));
    assert_eq!(o.prover.times("C2"), 1);
}

#[tokio::test]
async fn a_proof_that_does_not_verify_is_made_again_and_never_sent() {
    let mut o = Outside::new();
    o.prover.then("C2", Ok(Output::Proof(b"wrong".to_vec())));
    o.prover.then("C2", Ok(Output::Proof(b"wrong again".to_vec())));
    let mut w = start(&mut o).await;
    w.run(&mut o, 200, PROVING).await;
    assert_eq!(o.chain.executed(34).len(), 1);
    assert_eq!(o.prover.times("PC1"), 2, "the second time the sealed data itself is suspected");
    assert_eq!(o.chain.executed(28).len(), 1, "the pre-commit on chain still fits");
}

#[tokio::test]
async fn a_pre_committed_sector_keeps_its_ticket_however_old_when_it_is_sealed_anew() {
    let mut o = Outside::new();
    // With the pauses between tries, longer than a ticket lasts.
    for _ in 0..12 {
        o.prover.then("C2", Err(ProverError::NotStarted { task: "C2".into(), why: "scripted".into() }));
    }
    o.prover.then("C2", Ok(Output::Proof(b"wrong".to_vec())));
    o.prover.then("C2", Ok(Output::Proof(b"wrong again".to_vec())));
    let mut w = start(&mut o).await;
    w.run(&mut o, 400, PROVING).await;
    let s = w.sector(1);
    assert_eq!((o.prover.times("PC1"), visited(&w, 1, Phase::GetTicket)), (2, 1), "{:#?}", s.log);
    assert_eq!(o.chain.executed(28).len(), 1, "the pre-commit on chain still fits");
}

#[tokio::test]
async fn a_ticket_that_grew_too_old_is_replaced_before_the_pre_commit() {
    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::PreCommitWait)).await;
    // Nothing was pushed yet when the node went away for long.
    let mut o = Outside::new();
    (0..12).for_each(|_| o.prover.then("PC2", Err(ProverError::NotStarted { task: "PC2".into(), why: "no".into() })));
    let mut w2 = start(&mut o).await;
    for _ in 0..10 {
        w2.step(o.now, &o.chain.clone()).await;
        o.now += 1000;
        (0..6).for_each(|_| o.chain.mine());
    }
    w2.run(&mut o, 100, PROVING).await;
    let s = w2.sector(1);
    assert!(s.log.iter().any(|l| l.text.contains("too old")), "{:#?}", s.log);
    assert_eq!((o.prover.times("PC1"), o.chain.executed(28).len()), (2, 1));
}

#[tokio::test]
async fn an_expired_pre_commit_spends_the_number_and_the_capacity_is_pledged_again() {
    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::WaitSeed)).await;
    let gone = o.chain.state().pre_commits.remove(&1).unwrap();
    // A reorg that takes it back for a moment is not an expiry.
    for _ in 0..2 {
        w.step(o.now, &o.chain.clone()).await;
        o.chain.mine();
        o.now += 1000;
    }
    assert_eq!(w.phase(1), Some(Phase::WaitSeed));
    o.chain.state().pre_commits.insert(1, gone);
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::Commit2) || w.phase(1) == Some(Phase::CommitWait)).await;

    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::WaitSeed)).await;
    o.chain.state().pre_commits.clear();
    w.run(&mut o, 100, |w| w.phase(2) == Some(Phase::Proving)).await;
    assert_eq!(w.phase(1), Some(Phase::Removed));
    assert_eq!(w.sector(2).request, "first+1");
    assert_eq!(w.driver.list().len(), 2);
}

#[tokio::test]
async fn a_number_under_which_the_chain_has_another_sector_is_left_alone() {
    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::PreCommitWait)).await;
    o.chain.mine();
    let other = bulkhead::chain::miner_messages::sealed_cid(&[3; 32]).unwrap();
    o.chain.state().pre_commits.get_mut(&1).unwrap().info.sealed_cid = other;
    w.run(&mut o, 100, |w| w.phase(2) == Some(Phase::Proving)).await;
    assert_eq!(w.phase(1), Some(Phase::Removed));
}

#[tokio::test]
async fn an_operator_removes_a_sector_in_any_phase_but_a_proving_one_only_on_insistence() {
    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, |w| w.phase(1) == Some(Phase::PreCommitWait)).await;
    assert!(matches!(w.driver.remove(9, "typo", false, o.now), Err(RemoveError::Unknown(9))));
    w.driver.remove(1, "test", false, o.now).unwrap();
    w.driver.remove(1, "again", false, o.now).unwrap();
    w.run(&mut o, 10, |w| w.phase(1) == Some(Phase::Removed)).await;

    let mut o = Outside::new();
    let mut w = start(&mut o).await;
    w.run(&mut o, 100, PROVING).await;
    assert!(matches!(w.driver.remove(1, "test", false, o.now), Err(RemoveError::Proving(1))));
    w.driver.remove(1, "test", true, o.now).unwrap();
    w.run(&mut o, 10, |w| w.phase(1) == Some(Phase::Removed)).await;
}

#[tokio::test]
async fn many_pledges_go_through_under_the_limit() {
    let mut o = Outside::new();
    o.settings.limits = Limits { max_sealing: 2, ..Limits::default() };
    let mut w = o.boot();
    for n in 0..5 {
        w.driver.pledge(&format!("p{n}"), o.now).unwrap();
    }
    let busy = |w: &World| w.driver.list().iter().filter(|s| s.phase.is_sealing()).count();
    w.run(&mut o, 300, |w| {
        assert!(busy(w) <= 2, "{:?}", w.driver.list());
        w.driver.list().len() == 5 && w.driver.list().iter().all(|s| s.phase == Phase::Proving)
    })
    .await;
    assert_eq!((o.chain.executed(28).len(), o.chain.executed(34).len()), (5, 5));
}
