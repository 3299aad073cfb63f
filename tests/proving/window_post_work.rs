//! One attempt at a window proof and its message: which sectors, what is skipped, what is verified, what is sent.

use crate::support::scripted::*;
use bulkhead::actors::window_post::batch::{Outcome, PostStatus, ReadyProof, Submission};
use bulkhead::actors::window_post::chunks::LeftOut;
use bulkhead::actors::window_post::effects::Effects;
use bulkhead::actors::window_post::settings::WindowPostSettings;
use bulkhead::actors::window_post::trials::Recovery;
use bulkhead::chain::Address;
use bulkhead::proofs::{Output, ProverError, Task};
use fil_actor_miner_state::v18::{DeclareFaultsRecoveredParams, SubmitWindowedPoStParams};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Setup {
    node: Arc<ScriptedNode>,
    prover: Arc<ScriptedProver>,
    files: Arc<ScriptedFiles>,
    outbox: Arc<ScriptedOutbox>,
    work: Effects,
}

/// Partition 0 holds sectors 1 and 2, partition 1 holds 3 and 4, partition 2 nothing but a fault.
fn setup() -> Setup {
    let node = Arc::new(ScriptedNode::default());
    *node.partitions.lock().unwrap() =
        Some(vec![partition(&[1, 2], &[], &[]), partition(&[3, 4], &[], &[]), partition(&[5], &[5], &[])]);
    *node.beacon.lock().unwrap() = 0xff;
    let (prover, files, outbox) = (Arc::default(), Arc::default(), Arc::default());
    let (prover, files, outbox): (Arc<ScriptedProver>, Arc<ScriptedFiles>, Arc<ScriptedOutbox>) =
        (prover, files, outbox);
    let work = Effects::new(
        Address::new_id(1000),
        node.clone(),
        prover.clone(),
        files.clone(),
        outbox.clone(),
        Some("jobs".into()),
        WindowPostSettings { max_partitions: 2, ..Default::default() },
    )
    .unwrap();
    Setup { node, prover, files, outbox, work }
}

impl Setup {
    async fn prove(&self, partitions: &[u64]) -> Outcome {
        self.work.prove(&mainnet(), partitions, &tipset("a", 1, "b")).await
    }
    async fn proven(&self, partitions: &[u64]) -> ReadyProof {
        match self.prove(partitions).await {
            Outcome::Proved(proof) => proof,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn plans_what_is_due_and_not_yet_proven() {
    let s = setup();
    let head = |height| tipset("a", height, "b");
    assert_eq!(s.work.plan(&mainnet(), &head(1)).await.unwrap(), [vec![0, 1]]);
    *s.node.proven.lock().unwrap() = bits(&[0]);
    assert_eq!(s.work.plan(&mainnet(), &head(0)).await.unwrap(), [vec![1]]);
    assert_eq!(s.work.plan(&mainnet(), &head(-1)).await.unwrap(), [vec![0, 1]], "before Open nothing is proven yet");
    *s.node.partitions.lock().unwrap() = None;
    assert!(s.work.plan(&mainnet(), &head(1)).await.is_err());
}

#[tokio::test]
async fn proves_and_verifies_the_sectors_of_a_batch() {
    let s = setup();
    let proof = s.proven(&[0, 1]).await;
    assert_eq!(proof.partitions, [(0, vec![]), (1, vec![])]);
    assert_eq!((proof.proof_type, proof.proof.len()), (10, 2 * 192));
    // A field element.
    assert_eq!((proof.randomness[0], proof.randomness[31]), (0xff, 0x3f));
    // A proof for each circuit's sectors, each verified, then the whole.
    let jobs = s.prover.jobs.lock().unwrap();
    let names: Vec<_> = jobs.iter().map(|job| job.task.name()).collect();
    let (prove, verify) = ("WindowPoSt", "VerifyWindowPoSt");
    assert_eq!(names, ["PostChallenges", prove, verify, prove, verify, verify]);
    let Task::PostFromVanilla { proofs, randomness, miner: 1000, proof_type: 10 } = &jobs[1].task else { panic!() };
    assert_eq!(proofs.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(*randomness, proof.randomness);
    let until_close = Duration::from_secs(30 * 59);
    assert!(jobs[1].max_runtime > until_close - Duration::from_secs(10) && jobs[1].max_runtime <= until_close);
    assert!(jobs[1].job_dir.as_ref().unwrap().to_str().unwrap().starts_with("jobs/wdpost-t01000-0-0-"));
    let Task::VerifyWindowPost { sectors, .. } = &jobs[5].task else { panic!() };
    assert_eq!(sectors.iter().map(|s| (s.number, s.comm_r)).collect::<Vec<_>>(), [1, 2, 3, 4].map(|n| (n, comm_r(n))));
}

#[tokio::test]
async fn a_job_folder_is_named_after_exactly_what_is_asked() {
    let s = setup();
    s.proven(&[0]).await;
    s.proven(&[0]).await;
    s.files.missing.lock().unwrap().insert(2);
    s.proven(&[0]).await;
    let dirs: Vec<_> = s.prover.jobs.lock().unwrap().iter().filter_map(|job| job.job_dir.clone()).collect();
    assert_eq!(dirs[0], dirs[1]);
    assert_ne!(dirs[0], dirs[2]);
}

#[tokio::test]
async fn missing_files_are_skipped_and_the_rest_is_proven() {
    let s = setup();
    s.files.missing.lock().unwrap().insert(3);
    let proof = s.proven(&[0, 1]).await;
    assert_eq!(s.prover.asked(), [vec![1, 2], vec![4]]);
    assert_eq!(proof.partitions, [(0, vec![]), (1, vec![3])]);
    let left_out = s.work.left_out.of(mainnet().open, &[0, 1]);
    assert_eq!(left_out, [LeftOut { why: "no such file".into(), count: 1, first: vec![3] }]);
}

#[tokio::test]
async fn what_the_prover_skips_is_left_out_in_the_same_attempt() {
    let s = setup();
    s.prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![2])));
    s.prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![3, 99])));
    let proof = s.proven(&[0, 1]).await;
    assert_eq!(s.prover.proven(), [1, 4]);
    assert_eq!(proof.partitions, [(0, vec![2]), (1, vec![3])]);
    assert_eq!(s.files.asked.lock().unwrap().concat(), [1, 2, 3, 4], "what was read is kept");
    s.prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![99])));
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("99")));
}

#[tokio::test]
async fn a_partition_of_which_nothing_is_left_stays_out() {
    let s = setup();
    s.files.missing.lock().unwrap().extend([3, 4]);
    assert_eq!(s.proven(&[0, 1]).await.partitions, [(0, vec![])]);
    // All of it missing is a failure to try again, never "nothing to prove".
    assert!(matches!(s.prove(&[1]).await, Outcome::Failed(_)));
}

#[tokio::test]
async fn recovering_sectors_are_proven_and_faulty_ones_not() {
    let s = setup();
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&[1, 2, 3], &[2, 3], &[3])]);
    assert_eq!(s.proven(&[0]).await.partitions, [(0, vec![])]);
    assert_eq!(s.prover.proven(), [1, 3]);
}

#[tokio::test]
async fn nothing_is_only_what_the_chain_says_is_nothing() {
    let s = setup();
    assert_eq!(s.prove(&[2]).await, Outcome::Nothing);
    assert!(matches!(s.prove(&[9]).await, Outcome::Failed(_)), "a partition that the node does not tell about");
    *s.node.partitions.lock().unwrap() = None;
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(_)));
}

#[tokio::test]
async fn failures_and_wrong_proofs_are_not_sent() {
    let s = setup();
    let crash = ProverError::Segfault { task: "WindowPoSt".into() };
    s.prover.script.lock().unwrap().push_back(Err(crash));
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("SIGSEGV")));
    *s.prover.verdict.lock().unwrap() = Some(false);
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("does not verify")));
}

/// A verifier that dies says nothing about the proof: the next attempt finds it in the same folder.
#[tokio::test]
async fn a_proof_outlives_a_verification_that_fails_for_another_reason() {
    let s = setup();
    let crash = || Err(ProverError::Segfault { task: "VerifyWindowPoSt".into() });
    s.prover.verdicts.lock().unwrap().push_back(crash());
    s.proven(&[0]).await;
    assert_eq!(s.prover.asked().len(), 1, "verified again at once");
    s.prover.verdicts.lock().unwrap().extend([crash(), crash(), crash()]);
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("SIGSEGV")));
    s.proven(&[0]).await;
    let dirs: Vec<_> = s.prover.jobs.lock().unwrap().iter().filter_map(|job| job.job_dir.clone()).collect();
    assert!(dirs.len() == 3 && dirs.iter().all(|dir| *dir == dirs[0]), "{dirs:?}");
    assert_eq!(s.files.asked.lock().unwrap().len(), 2, "the second attempt's reads served the third");
}

#[tokio::test]
async fn late_is_asked_again_while_there_is_time() {
    let s = setup();
    s.files.late.lock().unwrap().extend([(2, 2), (4, 1_000_000)]);
    // Nine seconds are left to Close.
    *s.node.block_delay.lock().unwrap() = Some(1);
    let began = std::time::Instant::now();
    let Outcome::Proved(proof) = s.work.prove(&mainnet(), &[0, 1], &tipset("a", 51, "b")).await else { panic!() };
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(proof.partitions, [(0, vec![]), (1, vec![4])]);
    let mut asked = s.files.asked.lock().unwrap()[..3].to_vec();
    asked.iter_mut().for_each(|numbers| numbers.sort_unstable());
    assert_eq!(asked, [vec![1, 2, 3, 4], vec![2, 4], vec![2, 4]]);
    let left_out = s.work.left_out.of(mainnet().open, &[0, 1]);
    assert_eq!(left_out, [LeftOut { why: "late: its host sleeps".into(), count: 1, first: vec![4] }]);
    // The first circuit's proof did not wait for the second's late sector.
    assert_eq!(s.prover.asked(), [vec![1, 2], vec![3]]);
}

#[tokio::test]
async fn a_partition_is_proven_while_another_is_still_being_read() {
    let s = setup();
    s.files.late.lock().unwrap().insert(4, 1_000_000);
    let rounds_before_the_first_proof = async {
        while s.prover.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        s.files.asked.lock().unwrap().len()
    };
    let (outcome, rounds) = tokio::join!(prove_with_seconds_left(&s, 9, &[0, 1]), rounds_before_the_first_proof);
    assert!(matches!(outcome, Outcome::Proved(_)), "{outcome:?}");
    assert_eq!((rounds, s.prover.asked().len()), (1, 2));
    assert!(s.files.asked.lock().unwrap().len() > 1, "the other was asked for again");
}

#[tokio::test]
async fn one_sector_that_spoils_a_proof_is_found_and_left_out() {
    let s = setup();
    *s.node.partition_sectors.lock().unwrap() = Some(100);
    let live: Vec<u64> = (1..=100).collect();
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&live, &[], &[])]);
    s.prover.poison.lock().unwrap().extend([37, 90]);
    assert_eq!(s.proven(&[0]).await.partitions, [(0, vec![37, 90])]);
    let asked = s.prover.asked();
    assert_eq!(asked.last().unwrap().len(), 98);
    assert!(asked.len() < 40, "{} proofs", asked.len());
    assert_eq!(s.files.asked.lock().unwrap().len(), 1, "nothing is read twice");

    // When everything fails, no sector is to blame.
    let s = setup();
    *s.node.partition_sectors.lock().unwrap() = Some(100);
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&live, &[], &[])]);
    s.prover.poison.lock().unwrap().extend(&live);
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("failed to verify")));
    assert!(s.prover.asked().len() < 10, "{} proofs", s.prover.asked().len());
}

/// A chunk in which everything is bad: the first time the host may be to blame, then the other chunks are sent.
#[tokio::test]
async fn a_chunk_of_which_nothing_can_be_proven_costs_no_other_chunk() {
    let s = setup();
    s.prover.poison.lock().unwrap().extend([1, 2]);
    assert!(matches!(s.prove(&[0, 1]).await, Outcome::Failed(why) if why.contains("failed to verify")));
    assert_eq!(s.proven(&[0, 1]).await.partitions, [(1, vec![])]);
    assert_eq!(s.files.asked.lock().unwrap().len(), 1, "what was read is kept");
    // Alone it stays a failure, which is tried again.
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("failed to verify")));
    assert!(matches!(s.prove(&[0]).await, Outcome::Failed(why) if why.contains("failed to verify")));

    // Beside one that was proven the host is not to blame.
    let s = setup();
    s.prover.poison.lock().unwrap().extend([3, 4]);
    assert_eq!(s.proven(&[0, 1]).await.partitions, [(0, vec![])]);

    // The library names them all.
    let s = setup();
    s.prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![1, 2])));
    assert_eq!(s.proven(&[0, 1]).await.partitions, [(1, vec![])]);
}

/// On a GPU a sector may crash the prover whenever it is in the proof.
#[tokio::test]
async fn a_sector_that_crashes_the_prover_again_is_found_and_left_out() {
    let s = setup();
    s.prover.crashes.lock().unwrap().insert(3);
    assert!(
        matches!(s.prove(&[0, 1]).await, Outcome::Failed(why) if why.contains("SIGSEGV")),
        "once it may be the host"
    );
    assert_eq!(s.proven(&[0, 1]).await.partitions, [(0, vec![]), (1, vec![3])]);
    let left_out = s.work.left_out.of(mainnet().open, &[0, 1]);
    assert!(left_out[0].why.contains("SIGSEGV"), "{left_out:?}");
}

/// The halves prove, the whole does not: the attempt ends, so that a pause follows, and in the end half of it is sent.
#[tokio::test]
async fn a_chunk_that_fails_only_as_a_whole_is_not_bisected_for_ever() {
    let s = setup();
    *s.node.partition_sectors.lock().unwrap() = Some(4);
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&[1, 2, 3, 4], &[], &[])]);
    s.prover.most_together.store(2, Ordering::SeqCst);
    for attempt in 1..=2 {
        let failed = tokio::time::timeout(Duration::from_secs(20), s.prove(&[0])).await.expect("an end");
        assert!(matches!(&failed, Outcome::Failed(why) if why.contains("failed to verify")), "{failed:?}");
        assert_eq!(s.prover.asked().len(), 3 * attempt, "the whole, and each half once");
    }
    assert_eq!(s.proven(&[0]).await.partitions, [(0, vec![3, 4])]);
}

/// Epochs of a second: so many are left to Close.
async fn prove_with_seconds_left(s: &Setup, seconds: i64, partitions: &[u64]) -> Outcome {
    *s.node.block_delay.lock().unwrap() = Some(1);
    s.work.prove(&mainnet(), partitions, &tipset("a", mainnet().close - seconds, "b")).await
}

/// A proof that is refused is refused at once; a good one takes more than a quarter of the time.
#[tokio::test]
async fn the_search_for_a_sector_leaves_time_for_the_proof() {
    let slow = |poison: u64| {
        let s = setup();
        *s.prover.takes.lock().unwrap() = Duration::from_millis(1600);
        s.prover.poison.lock().unwrap().insert(poison);
        s
    };
    let one_chunk = async {
        let s = slow(8);
        *s.node.partition_sectors.lock().unwrap() = Some(8);
        *s.node.partitions.lock().unwrap() = Some(vec![partition(&[1, 2, 3, 4, 5, 6, 7, 8], &[], &[])]);
        prove_with_seconds_left(&s, 6, &[0]).await
    };
    let another_to_come = async {
        let s = slow(2);
        prove_with_seconds_left(&s, 6, &[0, 1]).await
    };
    let left_out = |outcome| match outcome {
        Outcome::Proved(proof) => proof.partitions,
        other => panic!("{other:?}"),
    };
    let (one, two) = tokio::join!(one_chunk, another_to_come);
    assert_eq!(left_out(one), [(0, vec![5, 6, 7, 8])], "no time to look closer at the second half");
    assert_eq!(left_out(two), [(0, vec![2]), (1, vec![])]);
}

/// The first attempt waits a third of the time to Close for what is late, the next an eighth.
#[tokio::test]
async fn an_attempt_that_fails_after_reading_costs_no_second_wait() {
    let s = setup();
    s.files.late.lock().unwrap().insert(4, 1_000_000);
    let killed = || Err(ProverError::OutOfMemory { task: "WindowPoSt".into() });
    s.prover.script.lock().unwrap().extend([killed(), killed()]);
    let mut waits = Vec::new();
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let end = prove_with_seconds_left(&s, 9, &[1]).await;
        assert!(matches!(&end, Outcome::Failed(why) if why.contains("memory")), "{end:?}");
        waits.push(began.elapsed());
    }
    assert!(waits[0] > Duration::from_millis(1200) && waits[1] < Duration::from_millis(1200), "{waits:?}");
}

#[tokio::test]
async fn the_message_commits_to_the_challenge() {
    let s = setup();
    let di = mainnet().with(0, 7);
    let mut proof = s.proven(&[0]).await;
    proof.partitions = vec![(1, vec![3])];
    let head = tipset("a", di.open + 4, "b");
    assert_eq!(s.work.submit(&di, &proof, "key", &head).await, Submission::Queued);
    let sent = s.outbox.sent.lock().unwrap()[0].clone();
    assert_eq!((sent.key.as_str(), sent.to, sent.method), ("key", Address::new_id(1000), 5));
    let params: SubmitWindowedPoStParams = fvm_ipld_encoding::from_slice(&sent.params).unwrap();
    assert_eq!((params.deadline, params.chain_commit_epoch), (7, di.challenge));
    assert_eq!(params.chain_commit_rand.0, [di.challenge as u8; 32]);
    assert_eq!((params.partitions[0].index, params.partitions[0].skipped.iter().collect::<Vec<_>>()), (1, vec![3]));
    assert_eq!((params.proofs.len(), i64::from(params.proofs[0].post_proof)), (1, 10));
}

#[tokio::test]
async fn a_proof_of_another_challenge_is_stale() {
    let s = setup();
    let proof = s.proven(&[0]).await;
    let head = tipset("a", 5, "b");
    *s.outbox.refuse.lock().unwrap() = true;
    assert!(matches!(s.work.submit(&mainnet(), &proof, "key", &head).await, Submission::Failed(_)));
    *s.node.beacon.lock().unwrap() = 1;
    assert!(matches!(s.work.submit(&mainnet(), &proof, "key", &head).await, Submission::Stale(_)));
}

#[tokio::test]
async fn sectors_that_are_back_are_declared_recovered_once() {
    let s = setup();
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&[1, 2, 3], &[1, 2, 3], &[3])]);
    s.files.missing.lock().unwrap().insert(2);
    let target = mainnet().ahead(2);
    let head = tipset("a", 1, "b");
    assert_eq!(s.work.recover(&target, &head).await, Ok(Recovery::Left(2)), "not on chain yet");
    assert_eq!(s.work.recover(&target, &head).await, Ok(Recovery::Left(2)));
    let sent = s.outbox.sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 1, "the same declaration has the same key");
    assert_eq!(sent[0].method, 11);
    let params: DeclareFaultsRecoveredParams = fvm_ipld_encoding::from_slice(&sent[0].params).unwrap();
    assert_eq!((params.recoveries.len(), params.recoveries[0].deadline), (1, 2));
    assert_eq!(params.recoveries[0].sectors.iter().collect::<Vec<_>>(), [1], "2 fails its trial");
    assert_eq!(s.files.asked.lock().unwrap().as_slice(), [vec![1, 2]], "one trial for ten epochs");
    let tried = s.files.places.lock().unwrap().clone();
    assert!(tried.iter().all(|places| places.len() == 66), "{tried:?}");

    // Its files are back, and the first message failed on chain: both are declared, under another name.
    s.files.missing.lock().unwrap().clear();
    s.outbox.status.lock().unwrap().insert(sent[0].key.clone(), PostStatus::Failed { why: "exit 16".into() });
    let later = tipset("b", 11, "a");
    assert_eq!(s.work.recover(&target, &later).await, Ok(Recovery::Left(2)));
    let declared = |index: usize| {
        let sent = s.outbox.sent.lock().unwrap();
        let params: DeclareFaultsRecoveredParams = fvm_ipld_encoding::from_slice(&sent[index].params).unwrap();
        params.recoveries[0].sectors.iter().collect::<Vec<_>>()
    };
    assert_eq!(declared(1), [1, 2]);
    let key = s.outbox.sent.lock().unwrap()[1].key.clone();
    s.outbox.status.lock().unwrap().insert(key.clone(), PostStatus::Failed { why: "exit 16".into() });
    assert_eq!(s.work.recover(&target, &later).await, Ok(Recovery::Left(2)));
    assert_eq!((declared(2), s.outbox.sent.lock().unwrap()[2].key.clone()), (vec![1, 2], format!("{key}-2")));
    *s.node.partitions.lock().unwrap() = Some(vec![partition(&[1], &[], &[])]);
    assert_eq!(s.work.recover(&target, &later).await, Ok(Recovery::Complete));
}
