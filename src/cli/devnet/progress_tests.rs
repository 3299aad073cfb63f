//! Every kind of change, at its boundary; the exit decision; the live screen.

use super::*;

fn sector(state: &str, since: u64) -> SectorProgress {
    SectorProgress { number: 0, state: state.to_string(), since, states: vec![] }
}

fn texts(old: &Progress, new: &Progress) -> Vec<String> {
    diff(old, new).iter().map(ProgressEvent::to_string).collect()
}

#[test]
fn exit_needs_what_was_asked_for_and_no_more() {
    use ExitAfter::*;
    let with = |state: &str, window_posts_accepted, blocks_won| Progress {
        sectors: vec![sector("Packing", 0), sector(state, 0)],
        window_posts_accepted,
        blocks_won,
        ..Default::default()
    };
    let table = [
        (with("CommitWait", 0, 0), [false, false, false, false]),
        (with("Proving", 0, 0), [true, false, false, false]),
        (with("CommitWait", 1, 0), [false, true, false, false]),
        (with("CommitWait", 0, 1), [false, false, true, false]),
        (with("Proving", 1, 0), [true, true, false, false]),
        (with("Proving", 0, 1), [true, false, true, false]),
        (with("FinalizeFailed", 1, 1), [false, true, true, false]),
        (with("Proving", 1, 1), [true, true, true, true]),
    ];
    for (progress, want) in table {
        assert_eq!([SectorProving, WindowPost, Block, All].map(|e| reached(e, &progress)), want, "{progress:?}");
    }
    assert!(![SectorProving, WindowPost, Block, All].iter().any(|e| reached(*e, &Progress::default())));
}

#[test]
fn nothing_changed_is_no_line() {
    let p = Progress {
        keys: Some(KeyProgress { name: "porep".into(), done: 3, total: 10 }),
        head: Some(HeadProgress { height: 3, delay: Duration::from_secs(2) }),
        sectors: vec![sector("PreCommit1", 5)],
        tasks: vec![Task { sector: 0, name: "c2".into(), since: 5, expected: None }],
        slots: [("c2".to_string(), (1, 1))].into(),
        deadline: Some(DeadlineProgress { index: 1, of: 6, open: 10, close: 20, partitions: 1, proven: 1 }),
        next_deadline: Some(NextDeadline { index: 2, open: 20 }),
        power: Some(Power { miner: 2048, total: 2048 }),
        window_posts_accepted: 4,
        blocks_won: 2,
        restarts: 1,
        last_restart: Some("x".into()),
    };
    assert_eq!(diff(&p, &p), vec![]);
    assert_eq!(diff(&p, &Progress { restarts: 0, blocks_won: 0, window_posts_accepted: 3, ..p.clone() }), vec![]);
}

#[test]
fn keys_are_told_in_tenths() {
    let at =
        |done| Progress { keys: Some(KeyProgress { name: "porep".into(), done, total: 1000 }), ..Default::default() };
    assert_eq!(texts(&Progress::default(), &at(0)), ["keys: porep 0 %"]);
    assert_eq!(texts(&at(0), &at(99)), [""; 0]);
    assert_eq!(texts(&at(99), &at(100)), ["keys: porep 10 %"]);
    assert_eq!(texts(&at(100), &at(101)), [""; 0]);
    assert_eq!(texts(&at(999), &at(1000)), ["keys: porep 100 %"]);
    assert_eq!(texts(&at(0), &Progress::default()), [""; 0]);
    let unknown = Progress { keys: Some(KeyProgress { name: "x".into(), done: 0, total: 0 }), ..Default::default() };
    assert_eq!(texts(&at(0), &unknown), ["keys: x 0 %"]);
}

#[test]
fn a_new_epoch_is_one_line_and_a_new_delay_alone_is_none() {
    let at = |height, ms| Progress {
        head: Some(HeadProgress { height, delay: Duration::from_millis(ms) }),
        ..Default::default()
    };
    assert_eq!(texts(&Progress::default(), &at(0, 2000)), ["chain: epoch 0, next in 2s"]);
    assert_eq!(texts(&at(7, 2000), &at(8, 10_000)), ["chain: epoch 8, next in 10s"]);
    assert_eq!(texts(&at(8, 2000), &at(8, 10_000)), [""; 0]);
    assert_eq!(texts(&at(8, 2000), &at(7, 2000)), ["chain: epoch 7, next in 2s"], "a reorg");
}

#[test]
fn a_sector_tells_its_states() {
    let with = |s: SectorProgress| Progress { sectors: vec![s], ..Default::default() };
    assert_eq!(texts(&Progress::default(), &with(sector("Packing", 1000))), ["sector 0: Packing"]);
    let (old, new) = (with(sector("PreCommit1", 1000)), with(sector("PreCommit2", 3500)));
    assert_eq!(texts(&old, &new), ["sector 0: PreCommit2 (after 2.5 s of PreCommit1)"]);
    assert_eq!(texts(&old, &with(sector("PreCommit1", 9000))), [""; 0]);
}

#[test]
fn states_that_a_look_missed_come_from_the_history() {
    let with = |states: &[(&str, u64)]| Progress {
        sectors: vec![SectorProgress {
            number: 4,
            state: states.last().map(|s| s.0.to_string()).unwrap_or_default(),
            since: states.last().map(|s| s.1).unwrap_or_default(),
            states: states.iter().map(|(s, at)| (s.to_string(), *at)).collect(),
        }],
        ..Default::default()
    };
    let all = [("Packing", 0), ("PreCommit1", 100), ("PreCommit2", 1100)];
    let want = ["sector 4: PreCommit1 (after 0.1 s of Packing)", "sector 4: PreCommit2 (after 1.0 s of PreCommit1)"];
    assert_eq!(texts(&with(&all[..1]), &with(&all)), want);
    assert_eq!(texts(&with(&all), &with(&all)), [""; 0]);
    assert_eq!(texts(&Progress::default(), &with(&all)).len(), 3);
}

#[test]
fn deadlines_and_counters() {
    let at = |index, open, proven| Progress {
        deadline: Some(DeadlineProgress { index, of: 6, open, close: open + 10, partitions: 1, proven }),
        ..Default::default()
    };
    assert_eq!(texts(&at(5, 50, 0), &at(0, 60, 0)), ["deadline 0 of 6: open from 60 to 70, 1 to prove"]);
    assert_eq!(texts(&at(0, 60, 0), &at(0, 60, 1)), ["deadline 0: 1 of 1 proven"]);
    assert_eq!(texts(&at(0, 60, 1), &at(0, 120, 1)).len(), 2, "the same deadline a period later");
    let count = |w, b, r| Progress { window_posts_accepted: w, blocks_won: b, restarts: r, ..Default::default() };
    assert_eq!(
        texts(&count(0, 0, 0), &count(1, 2, 3)),
        ["WindowPoSt accepted (1 so far)", "block won (2 so far)", "restart (3 so far)"]
    );
    let power = |miner| Progress { power: Some(Power { miner, total: 4096 }), ..Default::default() };
    assert_eq!(texts(&power(0), &power(2048)), ["power: 2 KiB of 4 KiB"]);
    assert_eq!(texts(&Progress::default(), &power(0)), [""; 0]);
    let restart =
        Progress { restarts: 1, last_restart: Some("root/markets/deal_handler panicked".into()), ..Default::default() };
    assert_eq!(texts(&Progress::default(), &restart), ["restart: root/markets/deal_handler panicked (1 so far)"]);
}

#[test]
fn events_are_flat_json() {
    let event = ProgressEvent::Sector { number: 0, state: "WaitSeed".into(), from: None, after_ms: None };
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"event": "sector", "number": 0, "state": "WaitSeed", "from": null, "after_ms": null})
    );
    let json = serde_json::to_value(ProgressEvent::WindowPost { accepted: 1 }).unwrap();
    assert_eq!(json, serde_json::json!({"event": "window_post", "accepted": 1}));
}

#[test]
fn the_screen_of_a_node_at_work() {
    let p = Progress {
        head: Some(HeadProgress { height: 88, delay: Duration::from_secs(10) }),
        sectors: vec![sector("Proving", 1000)],
        deadline: Some(DeadlineProgress { index: 2, of: 6, open: 80, close: 90, partitions: 1, proven: 1 }),
        power: Some(Power { miner: 2048, total: 2048 }),
        window_posts_accepted: 1,
        blocks_won: 2,
        ..Default::default()
    };
    let want = [
        "chain      epoch 88, a block every 10s",
        "sector 0   Proving for 1 m 05 s",
        "deadline   2 of 6, open from 80 to 90: proven",
        "power      2 KiB of 2 KiB",
        "so far     1 WindowPoSt accepted, 2 blocks won, 0 restarts",
    ];
    assert_eq!(screen(&p, 66_000), want);
    let task = |expected| vec![Task { sector: 0, name: "c2".into(), since: 36_000, expected }];
    let sealing = Progress {
        sectors: vec![sector("Commit2", 36_000)],
        tasks: task(Some(90_000)),
        slots: [("c2".to_string(), (1, 1)), ("pc1".to_string(), (0, 2))].into(),
        next_deadline: Some(NextDeadline { index: 3, open: 90 }),
        ..p
    };
    let lines = screen(&sealing, 66_000);
    for line in [
        "sector 0   Commit2 for 30.0 s, about 1 m 00 s left",
        "deadline   2 of 6, open from 80 to 90: proven; next 3 in 20.0 s",
        "slots      c2 1/1, pc1 0/2",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}\n{lines:#?}");
    }
    let at = |expected| screen(&Progress { tasks: task(expected), ..sealing.clone() }, 66_000)[1].clone();
    assert_eq!(at(Some(30_000)), "sector 0   Commit2 for 30.0 s, about 0.0 s left");
    assert_eq!(at(Some(29_999)), "sector 0   Commit2 for 30.0 s, longer than expected");
    assert_eq!(at(Some(2_999)), "sector 0   Commit2 for 30.0 s", "a short task");
    assert_eq!(at(None), "sector 0   Commit2 for 30.0 s");
    assert_eq!(screen(&Progress::default(), 0), [""; 0]);
}
