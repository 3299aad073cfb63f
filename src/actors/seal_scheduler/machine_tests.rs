//! The sector state machine's table: the happy path, unexpected events, every retry rule at its boundary.

use super::machine::*;
use super::messages::SectorSummary;
use super::phase::{Action, Phase};
use super::plan::due_at;
use super::sector::*;
use proptest::prelude::*;

const RULES: Rules =
    Rules { retry_first: 1000, retry_cap: 5000, transient_wait: 500, transient_cap: 4000, tries: 3, gone_after: 10 };
const NOW: u64 = 1_000_000;

fn drawn(epoch: i64) -> Drawn {
    Drawn { value: [epoch as u8; 32], epoch }
}

fn at(phase: Phase) -> Sector {
    let mut s = Sector::new(7, "r", 0);
    s.enter(phase, 0, "test");
    s
}

fn step(s: &Sector, event: Event) -> Sector {
    next(s, event, NOW, &RULES).0
}

fn hard() -> Event {
    Event::TaskFailed { error: "broken".into(), transient: false }
}

fn happy() -> Vec<(Event, Phase)> {
    use Event as E;
    use Phase as P;
    vec![
        (E::Described { seal_proof: 5 }, P::AddPiece),
        (E::PieceAdded, P::GetTicket),
        (E::TicketDrawn(drawn(3)), P::PreCommit1),
        (E::Pc1Done(vec![1]), P::PreCommit2),
        (E::Pc2Done { comm_r: [1; 32], comm_d: [2; 32] }, P::PreCommitting),
        (E::PreCommitSent, P::PreCommitWait),
        (E::PreCommitOnChain { epoch: 20 }, P::WaitSeed),
        (E::SeedDrawn { seed: drawn(30), pre_commit_epoch: 20 }, P::Commit1),
        (E::C1Done, P::Commit2),
        (E::C2Done(vec![9]), P::VerifySeal),
        (E::SealVerified(true), P::SubmitCommit),
        (E::CommitSent, P::CommitWait),
        (E::CommitOnChain { activation: 40 }, P::FinalizeSector),
        (E::Finalized, P::Proving),
    ]
}

#[test]
fn the_happy_path() {
    let mut s = Sector::new(7, "r", 0);
    for (event, phase) in happy() {
        s = step(&s, event);
        assert_eq!(s.phase, phase);
    }
    assert_eq!((s.seal_proof, s.pre_commit_epoch, s.activation), (Some(5), Some(20), Some(40)));
    let a = s.attempts;
    assert_eq!([a.add_piece, a.pc1, a.pc2, a.pre_commit, a.c1, a.c2, a.verify, a.commit, a.finalize], [1; 9]);
    assert_eq!(s.phase.action(), Action::Nothing);
}

/// Scenario 69: Proving + SectorPacked -> still Proving, and the log says so.
#[test]
fn an_event_that_does_not_fit_changes_nothing_but_the_log() {
    let s = step(&at(Phase::Proving), Event::PieceAdded);
    assert_eq!(s.phase, Phase::Proving);
    assert_eq!(s.log.last().unwrap().text, "received unexpected event PieceAdded");
    for (event, _) in happy() {
        let before = at(Phase::Removed);
        let after = step(&before, event.clone());
        assert_eq!(Sector { log: before.log.clone(), ..after }, before, "{event:?}");
    }
}

/// Scenario 68: removal works from everywhere.
#[test]
fn removal_is_accepted_in_every_phase_but_the_last_two() {
    for (_, phase) in happy() {
        assert_eq!(step(&at(phase), Event::RemoveRequested("x".into())).phase, Phase::Removing, "{phase}");
    }
    let removing = at(Phase::Removing);
    assert_eq!(step(&removing, Event::RemoveRequested("x".into())), removing);
    assert_eq!(step(&removing, Event::FilesRemoved).phase, Phase::Removed);
}

/// Scenario 71: a soft error is tried again without a change of state.
#[test]
fn a_soft_failure_or_a_silent_node_waits_in_the_same_phase_and_attempt() {
    for event in [Event::TaskFailed { error: "killed".into(), transient: true }, Event::NoAnswer("no node".into())] {
        let before = at(Phase::PreCommit1);
        let mut s = before.clone();
        for _ in 0..100 {
            s = step(&s, event.clone());
        }
        assert_eq!((s.phase, s.attempts, s.fails), (before.phase, before.attempts, before.fails));
        assert_eq!(due_at(&s), Some(NOW + RULES.transient_wait));
        assert_eq!(s.log.len(), before.log.len() + 1, "said once");
    }
}

#[test]
fn each_failed_task_is_tried_again_then_what_it_builds_on_is_redone() {
    use Phase as P;
    // (phase, failed state, what follows a failure, how often it does, what follows the others)
    for (phase, failed, again, times, at_last) in [
        (P::PreCommit2, P::SealPreCommit2Failed, P::PreCommit2, 3, P::PreCommit1),
        (P::Commit1, P::ComputeProofFailed, P::Commit1, 3, P::PreCommit1),
        (P::Commit2, P::ComputeProofFailed, P::Commit2, 2, P::Commit1),
        (P::AddPiece, P::AddPieceFailed, P::AddPiece, 3, P::AddPiece),
        (P::FinalizeSector, P::FinalizeFailed, P::FinalizeSector, 3, P::FinalizeSector),
    ] {
        let mut s = at(phase);
        for n in 1..=times + 1 {
            s = step(&s, hard());
            assert_eq!(s.phase, failed, "{phase} failure {n}");
            let retry = s.retry.unwrap();
            assert_eq!(retry.into, if n <= times { again } else { at_last }, "{phase} failure {n}");
            assert_eq!(retry.at, NOW + backoff(&RULES, n));
            let early = next(&s, Event::RetryDue, retry.at - 1, &RULES).0;
            assert_eq!(early.phase, failed);
            if n <= times {
                s = next(&s, Event::RetryDue, retry.at, &RULES).0;
                assert_eq!(s.phase, again);
            }
        }
    }
    let mut s = at(P::PreCommit1);
    for n in 1..=4 {
        s = step(&s, hard());
        assert_eq!(s.phase, if n <= 3 { P::SealPreCommit1Failed } else { P::Removing }, "PC1 failure {n}");
        if let Some(retry) = s.retry {
            s = next(&s, Event::RetryDue, retry.at, &RULES).0;
        }
    }
}

#[test]
fn backoff_doubles_up_to_the_cap() {
    for (fails, wait) in [(0, 1000), (1, 1000), (2, 2000), (3, 4000), (4, 5000), (5, 5000), (u32::MAX, 5000)] {
        assert_eq!(backoff(&RULES, fails), wait, "{fails}");
    }
}

#[test]
fn a_second_invalid_proof_redoes_pc1() {
    let refused = || Event::CommitRefused { exit_code: 16, error: "invalid proof".into() };
    for (phase, event) in [(Phase::VerifySeal, Event::SealVerified(false)), (Phase::CommitWait, refused())] {
        let first = step(&at(phase), event.clone());
        assert_eq!(first.retry.unwrap().into, Phase::WaitSeed);
        let mut again = first.clone();
        again.enter(phase, 0, "test");
        assert_eq!(step(&again, event).retry.unwrap().into, Phase::PreCommit1);
    }
    let out_of_gas = Event::CommitRefused { exit_code: 7, error: "out of gas".into() };
    assert_eq!(step(&at(Phase::CommitWait), out_of_gas).retry.unwrap().into, Phase::SubmitCommit);
}

#[test]
fn a_pre_commit_counts_as_gone_only_after_its_time() {
    let mut s = step(&at(Phase::WaitSeed), Event::PreCommitGone { head: 100 });
    assert_eq!((s.phase, s.gone_since), (Phase::WaitSeed, Some(100)));
    for head in [101, 109] {
        s = step(&s, Event::PreCommitGone { head });
        assert_eq!(s.phase, Phase::WaitSeed, "{head}");
    }
    let (gone, follow) = next(&s, Event::PreCommitGone { head: 110 }, NOW, &RULES);
    assert_eq!(gone.phase, Phase::Removing);
    assert_eq!(follow, Some(FollowUp::PledgeAgain { request: "r+7".into() }));
    // Back again: forgotten.
    let back = step(&s, Event::SeedDrawn { seed: drawn(99), pre_commit_epoch: 90 });
    assert_eq!((back.phase, back.gone_since), (Phase::Commit1, None));
}

#[test]
fn the_log_and_the_timings_are_bounded_and_keep_the_first_line() {
    let mut s = at(Phase::Commit2);
    for n in 0..1000u64 {
        s = next(&s, hard(), n, &RULES).0;
        let at = s.retry.unwrap().at;
        s = next(&s, Event::RetryDue, at, &RULES).0;
        s.phase = Phase::Commit2;
    }
    assert!(s.log.len() <= 200 && s.timings.len() <= 100);
    assert_eq!(s.log[0].text, "number 7 for r");
}

fn any_event() -> impl Strategy<Value = Event> {
    let mut all: Vec<Event> = happy().into_iter().map(|(e, _)| e).collect();
    all.extend([
        hard(),
        Event::TaskFailed { error: "k".into(), transient: true },
        Event::NoAnswer("s".into()),
        Event::NotYet("n".into()),
        Event::RetryDue,
        Event::SealVerified(false),
        Event::TicketTooOld,
        Event::NumberSpent("x".into()),
        Event::PreCommitGone { head: 5 },
        Event::PreCommitGone { head: 50 },
        Event::PreCommitRefused { exit_code: 16, error: "e".into() },
        Event::CommitRefused { exit_code: 16, error: "e".into() },
        Event::CommitRefused { exit_code: 7, error: "e".into() },
        Event::FilesRemoved,
    ]);
    prop::sample::select(all)
}

proptest! {
    /// Whatever happens in whatever order: a sector is final, or it has something to do, now or at a known time.
    #[test]
    fn no_state_waits_for_a_restart(events in prop::collection::vec(any_event(), 0..60)) {
        let mut s = Sector::new(7, "r", 0);
        let mut now = NOW;
        for event in events {
            now += 700;
            s = next(&s, event, now, &RULES).0;
            if s.phase.is_final() {
                prop_assert_eq!(due_at(&s), None);
            } else {
                let due = due_at(&s);
                prop_assert!(due.is_some_and(|at| at <= now + RULES.retry_cap), "{:?}", s);
                prop_assert_eq!(s.phase.action() == Action::Retry, s.retry.is_some());
            }
        }
    }
}

/// `sectors list` shows a failure as LAST ERROR, and ordinary progress elsewhere.
#[test]
fn a_wait_is_no_failure_and_an_answer_ends_one() {
    let told = |s: &Sector| {
        let summary = SectorSummary {
            number: s.number,
            phase: s.phase,
            since: 0,
            working: false,
            location: None,
            reason: s.reason.clone(),
            retry_at: s.retry.map(|r| r.at).or(s.wait_until),
        };
        (summary.failure().map(str::to_string), summary.waits_for().map(str::to_string))
    };
    let waits = step(&at(Phase::WaitSeed), Event::NotYet("seed at epoch 9".into()));
    assert_eq!(told(&waits), (None, Some("seed at epoch 9".into())));
    let silent = step(&waits, Event::NoAnswer("the full node is away".into()));
    assert_eq!(told(&silent), (Some("the full node is away".into()), None));
    let answered = step(&silent, Event::NotYet("seed at epoch 9".into()));
    assert_eq!(told(&answered), (None, Some("seed at epoch 9".into())));
    let failed = step(&at(Phase::PreCommit2), hard());
    assert!(told(&failed).0.is_some() && told(&failed).1.is_none());
    assert_eq!(told(&at(Phase::PreCommit2)), (None, None));
}

#[test]
fn a_sector_gets_its_agent_before_its_first_file_and_keeps_it() {
    let placed = step(&at(Phase::AddPiece), Event::Placed("a".into()));
    assert_eq!((placed.phase, placed.location.as_deref()), (Phase::AddPiece, Some("a")));
    assert_eq!(due_at(&placed), Some(0), "the step itself is due at once");
    // Refused before anything is there: another may be asked. Later it waits for the one that has its files.
    let refused = step(&placed, Event::AgentRefused("full".into()));
    assert_eq!((refused.location.as_deref(), refused.wait_until), (None, Some(NOW + RULES.transient_wait)));
    for phase in [Phase::PreCommit1, Phase::Commit2, Phase::FinalizeSector, Phase::Removing] {
        let there = Sector { location: Some("a".into()), ..at(phase) };
        let refused = step(&there, Event::AgentRefused("full".into()));
        assert_eq!((refused.phase, refused.location.as_deref()), (phase, Some("a")));
        assert_eq!(refused.wait_until, Some(NOW + RULES.transient_wait));
    }
    let failed = step(&placed, hard());
    assert_eq!((failed.phase, failed.location.as_deref()), (Phase::AddPieceFailed, Some("a")));
}

#[test]
fn no_wait_is_taken_for_one_that_a_clock_put_back_left() {
    use crate::actors::seal_scheduler::plan::LONGEST_WAIT;
    let rules = Rules::default();
    assert!(rules.retry_cap < LONGEST_WAIT && rules.transient_cap < LONGEST_WAIT);
    let later = 10 * LONGEST_WAIT;
    let failed = next(&at(Phase::PreCommit1), hard(), later, &rules).0;
    let again = |now: u64| next(&failed, Event::RetryDue, now, &rules).0.phase;
    assert_eq!([again(later), again(later - 2 * LONGEST_WAIT)], [failed.phase, Phase::PreCommit1]);
}
