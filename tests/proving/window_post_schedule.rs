//! A proving window from its challenge to its close: what is begun, sent, aborted and tried again, on a fake chain and clock.

use bulkhead::actors::window_post::batch::{BatchPhase, Outcome, PostStatus, ReadyProof, Submission};
use bulkhead::actors::window_post::machine::{DeadlineCommand, DeadlineRun, DeadlineScheduler};
use bulkhead::actors::window_post::settings::WindowPostSettings;
use bulkhead::chain::ChainEpoch;
use bulkhead::chain::types::DeadlineInfo;
use std::time::Duration;

/// The network's lengths: deadline k of period 0 opens at 60k, its challenge is 20 epochs before.
fn mainnet() -> DeadlineInfo {
    DeadlineInfo {
        w_post_period_deadlines: 48,
        w_post_proving_period: 2880,
        w_post_challenge_window: 60,
        w_post_challenge_lookback: 20,
        fault_declaration_cutoff: 70,
        ..Default::default()
    }
}

fn proof() -> ReadyProof {
    ReadyProof { partitions: vec![(0, vec![])], proof_type: 10, proof: vec![7; 192], randomness: [1; 32] }
}

/// A miner with one batch in each deadline, unless told otherwise.
struct Chain {
    poster: DeadlineScheduler,
    period: DeadlineInfo,
    now: Duration,
    batches: Vec<Vec<u64>>,
}

impl Chain {
    fn with(settings: WindowPostSettings, records: Vec<DeadlineRun>) -> Chain {
        let poster = DeadlineScheduler::new("t01000".into(), settings, records);
        Chain { poster, period: mainnet().with(0, 0), now: Duration::ZERO, batches: vec![vec![0]] }
    }
    fn new() -> Chain {
        Chain::with(WindowPostSettings::default(), vec![])
    }

    /// Answers every plan at once; what is left is shown to the test.
    fn settle(&mut self, commands: Vec<DeadlineCommand>) -> Vec<DeadlineCommand> {
        let mut out = Vec::new();
        for command in commands {
            match command {
                DeadlineCommand::Plan { job, di } => {
                    let more = self.poster.planned(di.open, job, Ok(self.batches.clone()), self.now);
                    out.extend(self.settle(more));
                }
                other => out.push(other),
            }
        }
        out
    }
    fn head_after(&mut self, height: ChainEpoch, reverted_to: Option<ChainEpoch>) -> Vec<DeadlineCommand> {
        let di = self.period.not_elapsed_at(height);
        let commands = self.poster.head(height, reverted_to, Some(di), self.now);
        self.settle(commands)
    }
    fn head(&mut self, height: ChainEpoch) -> Vec<DeadlineCommand> {
        self.head_after(height, None)
    }
    fn wake_after(&mut self, pause: Duration) -> Vec<DeadlineCommand> {
        self.now += pause;
        let commands = self.poster.wake(self.now);
        self.settle(commands)
    }
    fn prove(&mut self, open: ChainEpoch, outcome: Outcome) -> Vec<DeadlineCommand> {
        let job = self.job(open, 0).expect("a job");
        let commands = self.poster.proven(open, 0, job, outcome, self.now);
        self.settle(commands)
    }
    fn submit(&mut self, open: ChainEpoch, result: Submission) -> Vec<DeadlineCommand> {
        let job = self.job(open, 0).expect("a job");
        let commands = self.poster.submitted(open, 0, job, result, self.now);
        self.settle(commands)
    }
    fn watch(&mut self, open: ChainEpoch, status: PostStatus) -> Vec<DeadlineCommand> {
        let job = self.job(open, 0).expect("a job");
        let commands = self.poster.watched(open, 0, job, Ok(status), self.now);
        self.settle(commands)
    }
    fn job(&self, open: ChainEpoch, batch: usize) -> Option<u64> {
        self.poster.run(open)?.batches.as_ref()?.get(batch)?.job
    }
    fn phase(&self, open: ChainEpoch) -> &'static str {
        let batches = self.poster.run(open).and_then(|run| run.batches.as_ref());
        batches.map_or("unknown", |batches| batches[0].phase.name())
    }
    fn records(&self) -> Vec<DeadlineRun> {
        self.poster.runs().cloned().collect()
    }
    /// To Submitting with the message queued, at height 5 of deadline 0.
    fn queued() -> Chain {
        let mut chain = Chain::new();
        chain.head(1);
        chain.prove(0, Outcome::Proved(proof()));
        chain.head(5);
        chain.submit(0, Submission::Queued);
        chain
    }
}

/// `prove 0`, `submit 0 wdpost-…`, `abort`, …; saves and wakes are left out.
fn shown(commands: &[DeadlineCommand]) -> Vec<String> {
    commands
        .iter()
        .filter_map(|command| match command {
            DeadlineCommand::Plan { di, .. } => Some(format!("plan {}", di.open)),
            DeadlineCommand::Prove { di, .. } => Some(format!("prove {}", di.open)),
            DeadlineCommand::Submit { key, .. } => Some(format!("submit {key}")),
            DeadlineCommand::Watch { di, .. } => Some(format!("watch {}", di.open)),
            DeadlineCommand::Check { di, .. } => Some(format!("check {}", di.open)),
            DeadlineCommand::Abort(_) => Some("abort".into()),
            DeadlineCommand::Forget(open) => Some(format!("forget {open}")),
            DeadlineCommand::Save(_) | DeadlineCommand::WakeIn(_) => None,
        })
        .collect()
}

fn pause(commands: &[DeadlineCommand]) -> Duration {
    let found = commands.iter().rev().find_map(|command| match command {
        DeadlineCommand::WakeIn(pause) => Some(*pause),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no pause in {commands:?}"))
}

#[test]
fn proves_at_once_submits_at_confidence_and_lands() {
    let mut chain = Chain::new();
    assert_eq!(shown(&chain.head(1)), ["prove 0"]);
    assert_eq!(chain.phase(0), "proving");
    assert_eq!(shown(&chain.prove(0, Outcome::Proved(proof()))), [""; 0]);
    assert_eq!(chain.phase(0), "proved");
    assert_eq!(shown(&chain.head(3)), [""; 0]);
    assert_eq!(shown(&chain.head(4)), ["submit wdpost-t01000-0-p0-1"]);
    assert_eq!(chain.phase(0), "submitting");
    assert_eq!(shown(&chain.submit(0, Submission::Queued)), ["watch 0"]);
    assert_eq!(shown(&chain.watch(0, PostStatus::Waiting)), [""; 0]);
    assert_eq!(shown(&chain.head(5)), ["watch 0"]);
    chain.watch(0, PostStatus::Landed { at: 5 });
    assert_eq!(chain.phase(0), "landed");
    assert_eq!(shown(&chain.head(6)), [""; 0]);
}

#[test]
fn a_proof_that_is_late_is_sent_without_another_head() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.head(10);
    assert_eq!(shown(&chain.prove(0, Outcome::Proved(proof()))), ["submit wdpost-t01000-0-p0-1"]);
}

#[test]
fn an_empty_deadline_is_done_without_a_message() {
    let mut chain = Chain::new();
    chain.head(1);
    assert_eq!(shown(&chain.prove(0, Outcome::Nothing)), [""; 0]);
    assert_eq!(chain.phase(0), "nothing");
    assert_eq!(shown(&chain.head(10)), [""; 0]);

    let mut chain = Chain::new();
    chain.batches = vec![];
    assert_eq!(shown(&chain.head(1)), [""; 0]);
    assert_eq!(shown(&chain.head(60)), [""; 0], "an empty plan is not missed either");
    assert!(chain.records()[0].batches.as_ref().unwrap().is_empty());
}

#[test]
fn a_crash_is_never_nothing_to_prove() {
    let mut chain = Chain::new();
    chain.head(1);
    let commands = chain.prove(0, Outcome::Crashed("index out of bounds".into()));
    assert_eq!(chain.phase(0), "waiting");
    assert_eq!(shown(&chain.wake_after(pause(&commands))), ["prove 0"]);
}

#[test]
fn nothing_happens_before_the_first_period() {
    let mut chain = Chain::new();
    chain.period = mainnet().with(2880, 1);
    let di = chain.period;
    assert_eq!(shown(&chain.poster.head(10, None, Some(di), Duration::ZERO)), [""; 0]);
    assert_eq!(shown(&chain.poster.head(2879, None, Some(di), Duration::ZERO)), [""; 0]);
    assert_eq!(shown(&chain.head(2940)), ["prove 2940"]);
}

#[test]
fn the_next_deadline_is_proven_before_this_one_closes() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    assert_eq!(shown(&chain.head(40)), ["submit wdpost-t01000-0-p0-1"]);
    assert_eq!(shown(&chain.head(41)), ["prove 60"]);
    assert_eq!((chain.phase(0), chain.phase(60)), ("submitting", "proving"));
}

#[test]
fn a_failed_proof_is_tried_again_after_a_pause_without_a_new_head() {
    let mut chain = Chain::new();
    chain.head(1);
    for (failures, expected) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let commands = chain.prove(0, Outcome::Failed("no GPU".into()));
        assert_eq!(pause(&commands), Duration::from_secs(expected), "pause {failures}");
        assert_eq!(shown(&chain.wake_after(pause(&commands) - Duration::from_millis(1))), [""; 0]);
        assert_eq!(shown(&chain.wake_after(Duration::from_millis(1))), ["prove 0"]);
    }
    chain.prove(0, Outcome::Proved(proof()));
    chain.head(5);
    chain.submit(0, Submission::Queued);
    chain.watch(0, PostStatus::Landed { at: 6 });
    assert_eq!(chain.phase(0), "landed");
}

#[test]
fn a_failed_submission_goes_again_under_the_same_key() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    assert_eq!(shown(&chain.head(5)), ["submit wdpost-t01000-0-p0-1"]);
    let commands = chain.submit(0, Submission::Failed("no answer".into()));
    assert_eq!(shown(&chain.wake_after(pause(&commands))), ["submit wdpost-t01000-0-p0-1"]);
    chain.submit(0, Submission::Queued);
    assert_eq!(chain.phase(0), "submitting");
}

#[test]
fn close_aborts_a_proof_and_the_next_deadline_gets_the_slot() {
    let mut chain = Chain::new();
    chain.batches = vec![vec![0], vec![1]];
    assert_eq!(shown(&chain.head(1)), ["prove 0", "prove 0"], "one is proven, one read ahead");
    assert_eq!(shown(&chain.head(41)), [""; 0], "the deadline that closes first has the slots");
    assert_eq!(shown(&chain.head(59)), [""; 0]);
    assert_eq!(shown(&chain.head(60)), ["abort", "abort", "prove 60", "prove 60"]);
    assert_eq!((chain.phase(0), chain.phase(60)), ("missed", "proving"));
}

#[test]
fn close_aborts_a_submission_that_is_not_queued() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    chain.head(5);
    assert_eq!(shown(&chain.head(60)), ["abort", "prove 60"]);
    assert_eq!(chain.phase(0), "missed");
}

#[test]
fn a_queued_message_may_be_found_landed_after_close() {
    let mut chain = Chain::queued();
    chain.watch(0, PostStatus::Waiting);
    let commands = shown(&chain.head(60));
    assert!(commands.contains(&"watch 0".to_string()), "{commands:?}");
    chain.watch(0, PostStatus::Landed { at: 59 });
    assert_eq!(chain.phase(0), "landed");

    let mut chain = Chain::queued();
    chain.watch(0, PostStatus::Waiting);
    for (height, expected) in [(119, "submitting"), (120, "missed"), (121, "missed")] {
        chain.head(height);
        if chain.job(0, 0).is_some() {
            chain.watch(0, PostStatus::Waiting);
        }
        assert_eq!(chain.phase(0), expected, "head {height}");
    }
}

#[test]
fn a_revert_above_the_challenge_does_not_abort_a_proof() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    chain.head(4);
    assert_eq!(shown(&chain.head(60)), ["abort", "prove 60"]);
    let before = chain.poster.run(60).cloned();
    assert_eq!(shown(&chain.head_after(60, Some(55))), [""; 0]);
    assert_eq!(chain.poster.run(60).cloned(), before);
    // At the challenge itself nothing is lost; below it the proof is worthless.
    assert_eq!(shown(&chain.head_after(60, Some(40))), [""; 0]);
    assert_eq!(shown(&chain.head_after(60, Some(39))), ["abort", "prove 60"]);
}

#[test]
fn a_revert_leaves_a_message_good_whose_challenge_stands() {
    for (to, expected) in [(-21, vec!["prove 0"]), (-20, vec!["watch 0"]), (-1, vec!["watch 0"]), (1, vec!["watch 0"])]
    {
        let mut chain = Chain::queued();
        chain.watch(0, PostStatus::Waiting);
        assert_eq!(shown(&chain.head_after(6, Some(to))), expected, "reverted to {to}");
    }
}

#[test]
fn a_deep_revert_after_close_does_not_undo_what_is_done() {
    let mut chain = Chain::queued();
    chain.watch(0, PostStatus::Landed { at: 7 });
    let mut empty = Chain::new();
    empty.batches = vec![];
    empty.head(1);
    for chain in [&mut chain, &mut empty] {
        chain.head(61);
        chain.head_after(62, Some(-30));
    }
    assert_eq!(chain.phase(0), "submitting", "its receipt is looked up again");
    chain.watch(0, PostStatus::Landed { at: 8 });
    assert_eq!(chain.phase(0), "landed");
    assert!(empty.records()[0].batches.as_ref().unwrap().is_empty());
}

#[test]
fn a_landed_message_that_is_reverted_is_watched_again() {
    for (to, expected) in [(6, "submitting"), (7, "landed"), (8, "landed")] {
        let mut chain = Chain::queued();
        chain.watch(0, PostStatus::Landed { at: 7 });
        chain.head_after(9, Some(to));
        assert_eq!(chain.phase(0), expected, "reverted to {to}");
    }
}

#[test]
fn a_message_that_fails_is_checked_sent_again_then_proven_anew() {
    let mut chain = Chain::queued();
    let failed = || PostStatus::Failed { why: "exit 16".into() };
    assert_eq!(shown(&chain.watch(0, failed())), ["check 0"]);
    let check = |chain: &mut Chain, proven| {
        let job = chain.job(0, 0).unwrap();
        let commands = chain.poster.checked(0, 0, job, proven, chain.now);
        chain.settle(commands)
    };
    let commands = check(&mut chain, Ok(false));
    assert_eq!(chain.phase(0), "proved");
    assert_eq!(shown(&chain.wake_after(pause(&commands))), ["submit wdpost-t01000-0-p0-2"]);
    chain.submit(0, Submission::Queued);
    assert_eq!(shown(&chain.watch(0, failed())), ["check 0"]);
    let commands = check(&mut chain, Ok(false));
    assert_eq!(shown(&chain.wake_after(pause(&commands))), ["prove 0"]);

    // Another message may have proven it in the meantime.
    let mut chain = Chain::queued();
    chain.watch(0, failed());
    let commands = check(&mut chain, Err("no answer".into()));
    assert_eq!(shown(&chain.wake_after(pause(&commands))), ["check 0"]);
    check(&mut chain, Ok(true));
    assert_eq!(chain.phase(0), "landed");

    // With the window closed there is nothing to try.
    let mut chain = Chain::queued();
    chain.watch(0, PostStatus::Waiting);
    chain.head(60);
    chain.watch(0, failed());
    assert_eq!(chain.phase(0), "missed");
}

#[test]
fn a_stale_proof_is_made_anew() {
    let mut chain = Chain::new();
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    chain.head(5);
    assert_eq!(shown(&chain.submit(0, Submission::Stale("another challenge".into()))), ["prove 0"]);
}

#[test]
fn a_message_that_the_sender_lost_is_handed_over_again() {
    let mut chain = Chain::queued();
    assert_eq!(shown(&chain.watch(0, PostStatus::Unknown)), ["submit wdpost-t01000-0-p0-1"]);
}

#[test]
fn no_proof_begins_that_cannot_land() {
    for (height, expected) in [(57, vec!["prove 0"]), (58, vec!["prove 0"]), (59, vec![])] {
        let mut chain = Chain::new();
        let commands = shown(&chain.head(height));
        let of_0: Vec<_> = commands.iter().filter(|c| c.ends_with(" 0")).cloned().collect();
        assert_eq!(of_0, expected, "head {height}");
    }
}

#[test]
fn partitions_that_cannot_be_read_are_missed_not_empty() {
    let mut chain = Chain::new();
    let di = chain.period;
    let commands = chain.poster.head(1, None, Some(di), chain.now);
    let Some(DeadlineCommand::Plan { job, .. }) = commands.first() else { panic!("{commands:?}") };
    let commands = chain.poster.planned(0, *job, Err("no answer".into()), chain.now);
    assert_eq!(pause(&commands), Duration::from_secs(1));
    chain.now += pause(&commands);
    assert_eq!(shown(&chain.poster.wake(chain.now)), ["plan 0"], "asked again");
    let commands = chain.poster.head(60, None, Some(di.with(0, 1)), chain.now);
    assert_eq!(shown(&commands), ["abort", "plan 60"]);
    assert_eq!(chain.phase(0), "missed");
    // The window opens again: it is read again.
    let commands = chain.poster.head(59, Some(50), Some(di.with(0, 0)), chain.now);
    assert!(shown(&commands).contains(&"plan 0".to_string()), "{commands:?}");
}

#[test]
fn slots_are_shared_in_the_order_of_closing() {
    let settings = WindowPostSettings { parallel: 2, ..Default::default() };
    let mut chain = Chain::with(settings, vec![]);
    chain.batches = vec![vec![0], vec![1], vec![2]];
    chain.batches.push(vec![3]);
    assert_eq!(shown(&chain.head(41)), ["prove 0", "prove 0", "prove 0"], "one more is read ahead");
    assert_eq!(
        shown(&chain.prove(0, Outcome::Nothing)),
        ["prove 0"],
        "the fourth batch of the deadline that closes first"
    );
    let job = chain.job(0, 1).unwrap();
    let commands = chain.poster.proven(0, 1, job, Outcome::Nothing, chain.now);
    assert_eq!(shown(&commands), ["prove 60"]);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let resumed =
        |chain: &Chain| Chain::with(WindowPostSettings::default(), chain.records().into_iter().map(strip).collect());
    // What the store does to the fields that are not kept.
    fn strip(run: DeadlineRun) -> DeadlineRun {
        let bytes = bincode::serde::encode_to_vec(&run, bincode::config::standard()).unwrap();
        bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap().0
    }
    let attempt = |commands: &[DeadlineCommand]| {
        commands.iter().find_map(|command| match command {
            DeadlineCommand::Prove { attempt, .. } => Some(*attempt),
            _ => None,
        })
    };
    // Proving: the same attempt again, so that the prover's folder is found.
    let mut chain = Chain::new();
    assert_eq!(attempt(&chain.head(1)), Some(1));
    let mut again = resumed(&chain);
    assert_eq!(attempt(&again.head(2)), Some(1));
    // Proved: not proven twice.
    chain.prove(0, Outcome::Proved(proof()));
    assert_eq!(shown(&resumed(&chain).head(3)), [""; 0]);
    assert_eq!(shown(&resumed(&chain).head(5)), ["submit wdpost-t01000-0-p0-1"]);
    // Killed while it was handed over: the same key again.
    chain.head(5);
    assert_eq!(shown(&resumed(&chain).head(6)), ["submit wdpost-t01000-0-p0-1"]);
    // Queued: watched.
    chain.submit(0, Submission::Queued);
    assert_eq!(shown(&resumed(&chain).head(6)), ["watch 0"]);
    // Landed: nothing.
    chain.watch(0, PostStatus::Landed { at: 6 });
    assert_eq!(shown(&resumed(&chain).head(7)), [""; 0]);
    assert!(matches!(chain.records()[0].batches.as_ref().unwrap()[0].phase, BatchPhase::Landed { at: 6, .. }));
}

#[test]
fn everything_is_saved_before_it_takes_effect() {
    let mut chain = Chain::new();
    for commands in [chain.head(1), chain.prove(0, Outcome::Proved(proof())), chain.head(5)] {
        let effect =
            commands.iter().position(|c| matches!(c, DeadlineCommand::Prove { .. } | DeadlineCommand::Submit { .. }));
        let save = commands.iter().position(|c| *c == DeadlineCommand::Save(0));
        assert!(save.is_some() && effect.is_none_or(|effect| save < Some(effect)), "{commands:?}");
    }
}

#[test]
fn records_are_kept_for_the_dispute_window() {
    let settings = WindowPostSettings { keep_after_close: 100, ..Default::default() };
    for (height, expected) in [(159, false), (160, true), (161, true)] {
        let mut chain = Chain::with(settings.clone(), vec![]);
        chain.head(1);
        chain.prove(0, Outcome::Nothing);
        let forgotten = shown(&chain.head(height)).contains(&"forget 0".to_string());
        assert_eq!(forgotten, expected, "head {height}");
        assert_eq!(chain.poster.run(0).is_none(), expected);
    }
}

#[test]
fn a_node_that_does_not_tell_the_deadline_does_not_stop_proving() {
    let mut chain = Chain::new();
    assert_eq!(shown(&chain.poster.head(1, None, None, chain.now)), [""; 0], "nothing is known yet");
    chain.head(1);
    chain.prove(0, Outcome::Proved(proof()));
    assert_eq!(shown(&chain.poster.head(5, None, None, chain.now)), ["submit wdpost-t01000-0-p0-1"]);
    let commands = chain.poster.head(41, None, None, chain.now);
    assert_eq!(shown(&chain.settle(commands)), ["prove 60"]);
    assert_eq!(chain.poster.current().unwrap().open, 0);
    chain.poster.head(2880, None, None, chain.now);
    assert_eq!(chain.poster.current().unwrap().period_start, 2880);
}

#[test]
fn results_of_aborted_jobs_are_ignored() {
    let mut chain = Chain::new();
    chain.head(1);
    let old = chain.job(0, 0).unwrap();
    chain.head_after(1, Some(-21));
    assert_ne!(chain.job(0, 0), Some(old));
    assert_eq!(chain.poster.proven(0, 0, old, Outcome::Nothing, chain.now), []);
    assert_eq!(chain.phase(0), "proving");
}
