//! A message that its sender knew already: whose it is, and whether it proves what it is thought to prove.

use super::batch::*;
use super::machine::{DeadlineCommand, DeadlineScheduler};
use super::settings::WindowPostSettings;
use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use std::time::Duration;

const CLOSE: ChainEpoch = 60;

/// Open from 0 to [`CLOSE`].
fn window() -> DeadlineInfo {
    let lengths = DeadlineInfo {
        w_post_period_deadlines: 48,
        w_post_proving_period: 2880,
        w_post_challenge_window: CLOSE,
        w_post_challenge_lookback: 20,
        fault_declaration_cutoff: 70,
        ..Default::default()
    };
    lengths.with(0, 0)
}

/// A holder of the window that planned these batches and proved the first: the key of its message.
fn sends(plan: &[&[u64]]) -> (DeadlineScheduler, String) {
    let settings = WindowPostSettings { parallel: 1, ..Default::default() };
    let (mut scheduler, now) = (DeadlineScheduler::new("t01000".into(), settings, vec![]), Duration::ZERO);
    let job = |scheduler: &DeadlineScheduler| scheduler.run(0).unwrap().batches.as_ref().unwrap()[0].job.unwrap();
    scheduler.head(5, None, Some(window()), now);
    let planning = scheduler.run(0).unwrap().plan_job.unwrap();
    scheduler.planned(0, planning, Ok(plan.iter().map(|batch| batch.to_vec()).collect()), now);
    let partitions = plan[0].iter().map(|index| (*index, vec![])).collect();
    let proof = ReadyProof { partitions, proof_type: 10, proof: vec![7; 192], randomness: [1; 32] };
    let proving = job(&scheduler);
    let commands = scheduler.proven(0, 0, proving, Outcome::Proved(proof), now);
    let key = commands.into_iter().find_map(|command| match command {
        DeadlineCommand::Submit { key, .. } => Some(key),
        _ => None,
    });
    (scheduler, key.expect("a submission"))
}

/// The one that goes on proves what the one before left over, without its record.
#[test]
fn the_same_place_in_another_plan_is_another_message() {
    let key = |plan: &[&[u64]]| sends(plan).1;
    assert_ne!(key(&[&[0, 1, 2], &[3]]), key(&[&[3]]));
    assert_ne!(key(&[&[1], &[2]]), key(&[&[12]]));
    assert_ne!(key(&[&[1, 2]]), key(&[&[12]]));
    assert_eq!(key(&[&[3]]), key(&[&[3], &[4]]), "the same partitions are the same message");
}

fn at(sent: Sent) -> Batch {
    let proof = ReadyProof { partitions: vec![(3, vec![])], proof_type: 10, proof: vec![7], randomness: [1; 32] };
    Batch { phase: BatchPhase::Submitting { proof, key: "k".into(), sent }, submission: 1, ..Batch::new(vec![3]) }
}

fn shown(batch: &Batch) -> String {
    match &batch.phase {
        BatchPhase::Submitting { sent, .. } => format!("{sent:?}"),
        BatchPhase::Landed { at, .. } => format!("landed at {at}"),
        other => other.name().to_string(),
    }
}

#[test]
fn a_known_message_has_landed_when_the_chain_says_so() {
    let (now, pause) = (Duration::ZERO, |_: u32| Duration::from_secs(1));
    let landed = || Ok(PostStatus::Landed { at: 10 });
    let watched = |sent, status, height| {
        let mut batch = at(sent);
        batch.watched(status, height, &window());
        shown(&batch)
    };
    assert_eq!(watched(Sent::Queued, landed(), 10), "landed at 10", "one that is ours");
    assert_eq!(watched(Sent::Known, landed(), 10), "Known", "this head does not show it yet");
    assert_eq!(watched(Sent::Known, landed(), 11), "KnownLanded { at: 10 }");
    assert_eq!(watched(Sent::Known, landed(), CLOSE - 1), "KnownLanded { at: 10 }");
    assert_eq!(watched(Sent::Known, landed(), CLOSE), "landed at 10", "there is nobody to ask any more");
    assert_eq!(watched(Sent::Known, Ok(PostStatus::Waiting), 11), "Known");
    assert_eq!(watched(Sent::Known, Ok(PostStatus::Unknown), 11), "Sending");
    assert_eq!(watched(Sent::Known, Ok(PostStatus::Failed { why: "exit 16".into() }), 11), "Checking");

    let checked = |proven| {
        let mut batch = at(Sent::KnownLanded { at: 10 });
        batch.checked(proven, 12, now, pause);
        (shown(&batch), batch.last_error.unwrap_or_default())
    };
    assert_eq!(checked(Ok(true)).0, "landed at 10");
    assert_eq!(checked(Err("no answer".into())).0, "KnownLanded { at: 10 }");
    let (phase, error) = checked(Ok(false));
    assert!(phase == "proved" && error.contains("something else"), "sent again under the next key: {phase}, {error}");

    let mut batch = at(Sent::Sending);
    batch.submitted(Submission::Known, now, pause);
    assert_eq!(shown(&batch), "Known");
    for (sent, then) in [(Sent::Known, "Known"), (Sent::KnownLanded { at: 10 }, "landed at 10")] {
        let mut batch = at(sent);
        batch.close(CLOSE, CLOSE + 60);
        assert_eq!(shown(&batch), then, "at Close");
    }
}

/// From the answer of the sender to the second message, through the state machine of the deadline.
#[test]
fn a_known_message_of_something_else_is_followed_by_our_own() {
    let now = Duration::ZERO;
    let (mut scheduler, key) = sends(&[&[3]]);
    let job = |scheduler: &DeadlineScheduler| scheduler.run(0).unwrap().batches.as_ref().unwrap()[0].job.unwrap();
    let id = job(&scheduler);
    let commands = scheduler.submitted(0, 0, id, Submission::Known, now);
    assert!(commands.iter().any(|command| matches!(command, DeadlineCommand::Watch { .. })), "{commands:?}");
    scheduler.head(8, None, Some(window()), now);
    let id = job(&scheduler);
    let commands = scheduler.watched(0, 0, id, Ok(PostStatus::Landed { at: 6 }), now);
    let checks = |c: &DeadlineCommand| matches!(c, DeadlineCommand::Check { partitions, .. } if *partitions == [3]);
    assert!(commands.iter().any(checks), "{commands:?}");
    let id = job(&scheduler);
    scheduler.checked(0, 0, id, Ok(false), now);
    let commands = scheduler.wake(now + Duration::from_secs(3600));
    let again = |c: &DeadlineCommand| matches!(c, DeadlineCommand::Submit { key: next, .. } if *next != key);
    assert!(commands.iter().any(again), "{commands:?}");
}
