//! A host without disk or memory for what comes next: the queue waits as one and says so, no sector is charged.

use crate::support::world::{Outside, World};
use bulkhead::actors::seal_scheduler::{Action, NumberSource, Phase, allocation_key};
use std::sync::atomic::Ordering;

async fn pledged(o: &mut Outside, count: u64) -> World {
    let mut w = o.boot();
    for n in 1..=count {
        let request = format!("p{n}");
        w.driver.pledge(&request, o.now).unwrap();
        let number = NumberSource::allocate(&w.book, &allocation_key(None, &request)).await.unwrap();
        w.driver.numbered(&request, number, o.now).unwrap();
    }
    w
}

async fn steps(w: &mut World, o: &mut Outside, count: u32) {
    for _ in 0..count {
        w.step(o.now, &o.chain.clone()).await;
        o.now += 1000;
    }
}

/// Each sector one action at a time, until the first is in such a phase.
async fn one_by_one(w: &mut World, o: &mut Outside, until: impl Fn(Phase) -> bool) {
    for _ in 0..200 {
        if w.phase(1).is_some_and(&until) {
            return;
        }
        let head = o.chain.head();
        let works = w.driver.due(o.now, Some(head.height));
        if works.is_empty() {
            w.engine.round(&head).await.unwrap();
            o.chain.mine();
            o.now += 1000;
        }
        for work in works {
            let event = w.effects.run(&work, Some(&head)).await;
            w.driver.done(work.sector.number, work.run, event, o.now).unwrap();
        }
    }
    panic!("{:#?}", w.driver.list());
}

#[tokio::test]
async fn a_disk_without_room_is_looked_at_once_for_all_that_wait() {
    let mut o = Outside::new();
    o.settings.keep_free = u64::MAX / 2;
    let mut w = pledged(&mut o, 20).await;
    steps(&mut w, &mut o, 20).await;
    let told = (1..=20).filter(|n| w.sector(*n).reason.is_some()).count();
    assert_eq!(told, 1, "the one whose turn it is");
    let trouble = w.driver.trouble().unwrap_or_default();
    assert!(trouble.contains("room for AddPiece") && trouble.contains("sealing.keep_free"), "{trouble}");
    for n in 1..=20 {
        let s = w.sector(n);
        assert_eq!((s.phase, s.fails, s.wait_until), (Phase::AddPiece, Default::default(), None), "{n}");
    }
    w.effects.settings.keep_free = 0;
    w.run(&mut o, 60, |w| (1..=20).all(|n| w.phase(n) != Some(Phase::AddPiece))).await;
    assert_eq!(w.driver.trouble(), None);
}

#[tokio::test]
async fn a_host_without_memory_waits_before_each_step_that_takes_much() {
    let mut o = Outside::new();
    let mut w = pledged(&mut o, 1).await;
    for (before, task) in [(Phase::PreCommit1, "PC1"), (Phase::PreCommit2, "PC2"), (Phase::Commit2, "C2")] {
        // 2 MiB are what each of them may take of a sector of 2 KiB.
        o.available.store(2 << 20, Ordering::SeqCst);
        one_by_one(&mut w, &mut o, |phase| phase == before).await;
        o.available.store((2 << 20) - 1, Ordering::SeqCst);
        let done = o.prover.times(task);
        for _ in 0..10 {
            o.chain.mine();
            steps(&mut w, &mut o, 1).await;
        }
        let s = w.sector(1);
        assert_eq!((s.phase, s.fails, o.prover.times(task)), (before, Default::default(), done), "{task}");
        let why = s.reason.unwrap_or_default();
        assert!(why.starts_with("waits for memory: it may take 2 MiB, 1 MiB are available"), "{task}: {why}");
        o.available.store(2 << 20, Ordering::SeqCst);
        one_by_one(&mut w, &mut o, |phase| phase != before).await;
        assert_eq!(o.prover.times(task), done + 1, "{task}");
    }
    o.available.store(u64::MAX, Ordering::SeqCst);
    w.run(&mut o, 60, |w| w.phase(1) == Some(Phase::Proving)).await;
    assert_eq!((w.sector(1).attempts.pc1, w.sector(1).attempts.c2), (1, 1));
}

/// Each look of a queue that finds no room is followed by a pause, whatever the other queues find.
#[tokio::test]
async fn two_queues_without_room_do_not_wake_each_other() {
    let mut o = Outside::new();
    let mut w = pledged(&mut o, 3).await;
    // The first one waits before PC1, the last before AddPiece.
    one_by_one(&mut w, &mut o, |phase| phase == Phase::PreCommit1).await;
    o.available.store(0, Ordering::SeqCst);
    w.effects.settings.keep_free = u64::MAX / 2;
    let mut looks = 0;
    for _ in 0..100 {
        for work in w.driver.due(o.now, Some(o.chain.head().height)) {
            let event = w.effects.run(&work, Some(&o.chain.head())).await;
            w.driver.done(work.sector.number, work.run, event, o.now).unwrap();
            looks += 1;
        }
    }
    // What does not wait for room comes on top.
    assert!(looks <= 6, "{looks} looks at one moment: {:#?}", w.driver.list());
}

/// What a task is said to take decides for how long a ticket must last: not the hours for which it waited for its turn.
#[tokio::test]
async fn the_time_that_a_task_waits_for_its_turn_is_not_what_it_takes() {
    let mut o = Outside::new();
    let mut w = pledged(&mut o, 2).await;
    let mut took = Vec::new();
    for _ in 0..60 {
        let head = o.chain.head();
        for work in w.driver.due(o.now, Some(head.height)) {
            let event = w.effects.run(&work, Some(&head)).await;
            if work.action == Action::Pc1 {
                took.push(work.last_took);
                // At its agent it waited for an hour, and then was done at once.
                work.began.set(tokio::time::Instant::now());
                o.now += 3_600_000;
            }
            w.driver.done(work.sector.number, work.run, event, o.now).unwrap();
        }
        w.engine.round(&head).await.unwrap();
        o.chain.mine();
        o.now += 1000;
    }
    assert!(took.len() == 2 && took[0].is_none(), "{took:?}");
    assert!(took[1].is_some_and(|ms| ms < 600_000), "{took:?}");
    // After a restart there are the records, which do not tell the waiting from the work: the shortest counts.
    drop(w);
    let mut w = o.boot();
    w.driver.pledge("p3", o.now).unwrap();
    let number = NumberSource::allocate(&w.book, &allocation_key(None, "p3")).await.unwrap();
    w.driver.numbered("p3", number, o.now).unwrap();
    let shortest = [1, 2].map(|n| {
        let timings = w.sector(n).timings;
        let pc1 = timings.iter().find(|t| t.phase == Phase::PreCommit1).expect("PC1");
        pc1.ended.expect("done") - pc1.started
    });
    for _ in 0..10 {
        let head = o.chain.head();
        for work in w.driver.due(o.now, Some(head.height)) {
            if work.action == Action::Pc1 {
                assert_eq!(work.last_took, shortest.into_iter().min());
                return;
            }
            let event = w.effects.run(&work, Some(&head)).await;
            w.driver.done(work.sector.number, work.run, event, o.now).unwrap();
        }
        o.now += 1000;
    }
    panic!("no PC1");
}
