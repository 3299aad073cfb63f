//! The agent's queue of tasks: who gets what, and what a dead worker leaves.

use super::*;
use crate::actors::seal_jobs::SealStep;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const LEASE_MS: u64 = 30;
const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// The moment that many milliseconds after the tests' zero.
fn at(ms: u64) -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(Instant::now) + Duration::from_millis(ms)
}

pinned! { state: State {
    0 = State::Queued => State::Queued, "00";
    1 = State::Given { .. } => State::Given { to: "w".into() }, "010177";
    2 = State::Done(_) => State::Done(Ok(Output::Done)), "020007";
} }

fn job(number: u64, step: SealStep) -> SealJob {
    SealJob { miner: 1000, number, proof_type: 5, attempt: 1, step, max_runtime: Duration::from_secs(1) }
}
fn ap(number: u64) -> SealJob {
    job(number, SealStep::AddPiece)
}
fn pc1(number: u64) -> SealJob {
    job(number, SealStep::Pc1 { ticket: [0; 32] })
}
fn pc2(number: u64) -> SealJob {
    job(number, SealStep::Pc2 { pc1: vec![] })
}

fn put(queue: &mut Queue, job: SealJob, now: u64) {
    match queue.accept(&job, now) {
        Accept::Write { entry, gone } => queue.accepted(*entry, &gone),
        Accept::Known => panic!("known: {}", job.id()),
    }
}

fn room(slots: Slots) -> FreeSlots {
    FreeSlots { slots, memory: 1 << 30 }
}

/// The tasks that `worker` gets now, one after another until nothing fits.
fn take_all(queue: &mut Queue, worker: &str, room: &FreeSlots, now: u64) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some(id) = queue.next(worker, room, |_| 2048).map(|e| e.job.id()) {
        queue.given(&id, worker, at(now), LEASE);
        taken.push(id);
    }
    taken
}

#[test]
fn the_furthest_first_as_far_as_slots_and_memory_go() {
    let mut queue = Queue::default();
    for (n, job) in [ap(1), pc1(2), pc1(3), pc2(4), job(5, SealStep::Remove)].into_iter().enumerate() {
        put(&mut queue, job, n as u64);
    }
    let tight = FreeSlots { memory: resources::memory(StepKind::Pc1, 2048) - 1, ..room(Slots::default()) };
    assert_eq!(take_all(&mut queue, "w", &tight, 0), [""; 0]);
    let got = take_all(&mut queue, "w", &room(Slots::default()), 0);
    assert_eq!(got, ["s-t01000-4-pc2-1", "s-t01000-2-pc1-1", "s-t01000-1-ap-1"]);
    let two = Slots { pc1: 2, ..Slots::default() };
    assert_eq!(take_all(&mut queue, "w", &room(two), 0), ["s-t01000-3-pc1-1"]);
    assert_eq!(take_all(&mut queue, OURSELVES, &room(Slots::default()), 0), ["s-t01000-5-rm-1"], "files are ours");
}

#[test]
fn a_lease_holds_to_its_last_millisecond_and_beats_extend_it() {
    let mut queue = Queue::default();
    put(&mut queue, ap(1), 0);
    let id = ap(1).id();
    take_all(&mut queue, "w", &room(Slots::default()), 0);
    assert!(queue.expire(at(LEASE_MS - 1)).is_empty());
    assert!(queue.beat("w", std::slice::from_ref(&id), at(LEASE_MS - 1), LEASE).is_empty());
    assert!(queue.expire(at(2 * LEASE_MS - 2)).is_empty());
    assert_eq!(queue.expire(at(2 * LEASE_MS - 1)), std::slice::from_ref(&id));
    assert_eq!(queue.state(&id), JobState::Queued);
    assert_eq!(queue.beat("w", std::slice::from_ref(&id), at(2 * LEASE_MS), LEASE), std::slice::from_ref(&id), "lost");
    assert!(!queue.may_finish("w", &id));
    take_all(&mut queue, "v", &room(Slots::default()), 0);
    assert!(queue.may_finish("v", &id) && !queue.may_finish("w", &id));
}

#[test]
fn the_same_job_is_taken_once_and_a_failed_one_again() {
    let mut queue = Queue::default();
    put(&mut queue, ap(1), 0);
    assert_eq!(queue.accept(&ap(1), 1), Accept::Known);
    let id = ap(1).id();
    queue.finished(&id, Ok(Output::Done));
    assert_eq!(queue.accept(&ap(1), 1), Accept::Known);
    queue.finished(&id, Err(JobFailed { error: "x".into(), transient: true }));
    assert!(matches!(queue.accept(&ap(1), 1), Accept::Write { .. }));
}

#[test]
fn the_next_step_drops_the_results_of_the_earlier_ones_of_its_sector_only() {
    let mut queue = Queue::default();
    put(&mut queue, ap(1), 0);
    put(&mut queue, ap(2), 0);
    queue.finished(&ap(1).id(), Ok(Output::Done));
    put(&mut queue, pc1(1), 1);
    assert_eq!(queue.state(&ap(1).id()), JobState::Unknown);
    assert_eq!(queue.state(&ap(2).id()), JobState::Queued);
}

#[test]
fn nobody_touches_the_files_before_the_overtaken_worker_let_go() {
    let remove = || job(1, SealStep::Remove);
    let slots = room(Slots::default());
    let begun = || {
        let mut queue = Queue::default();
        put(&mut queue, pc1(1), 0);
        take_all(&mut queue, "w", &slots, 0);
        put(&mut queue, remove(), 1);
        assert_eq!(take_all(&mut queue, OURSELVES, &slots, 1), [""; 0]);
        queue
    };
    // Told of its loss, it still runs; then it does not name it any more.
    let mut queue = begun();
    assert_eq!(queue.beat("w", &[pc1(1).id()], at(2), LEASE), [pc1(1).id()]);
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, 2), [""; 0]);
    queue.beat("w", &[], at(3), LEASE);
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, 3), [remove().id()]);
    // It is never heard again: its lease runs out.
    let mut queue = begun();
    queue.expire(at(LEASE_MS - 1));
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, LEASE_MS - 1), [""; 0]);
    queue.expire(at(LEASE_MS));
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, LEASE_MS), [remove().id()]);
}

#[test]
fn our_own_task_lets_go_however_it_ended() {
    let slots = room(Slots::default());
    let mut queue = Queue::default();
    put(&mut queue, pc1(1), 0);
    take_all(&mut queue, OURSELVES, &slots, 0);
    assert!(queue.own_ended(&pc1(1).id()), "not overtaken: its result counts");
    // Overtaken, whether it was ended or was done already: the newer job gets the files.
    put(&mut queue, job(1, SealStep::Remove), 1);
    queue.expire(at(1 << 40));
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, 1), [""; 0]);
    assert!(!queue.own_ended(&pc1(1).id()));
    assert_eq!(take_all(&mut queue, OURSELVES, &slots, 1), [job(1, SealStep::Remove).id()]);
}

#[test]
fn a_restart_leaves_workers_what_they_have_for_a_lease_and_takes_back_our_own() {
    let mut queue = Queue::default();
    put(&mut queue, pc1(1), 0);
    put(&mut queue, pc2(2), 0);
    queue.given(&pc1(1).id(), "w", at(0), LEASE);
    queue.given(&pc2(2).id(), OURSELVES, at(0), LEASE);
    let entries: Vec<Entry> = queue.entries().cloned().collect();
    let mut queue = Queue::load(entries, at(1000), LEASE);
    assert_eq!(queue.state(&pc1(1).id()), JobState::Running { by: "w".into() });
    assert_eq!(queue.state(&pc2(2).id()), JobState::Queued);
    assert!(queue.expire(at(1000 + LEASE_MS - 1)).is_empty());
    assert_eq!(queue.expire(at(1000 + LEASE_MS)), [pc1(1).id()]);
}
