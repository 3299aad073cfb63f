//! Deadlines before, in and after their windows as the chain shows them, and what follows for a restart.

use super::*;
use crate::actors::window_post::chunks::LeftOut;
use crate::actors::window_post::messages::BatchReport;

fn bits(numbers: &[u64]) -> BitField {
    BitField::try_from_bits(numbers.iter().copied()).unwrap()
}

fn partition(live: &[u64], faulty: &[u64], recovering: &[u64], active: &[u64]) -> Partition {
    Partition {
        all_sectors: bits(live),
        faulty_sectors: bits(faulty),
        recovering_sectors: bits(recovering),
        live_sectors: bits(live),
        active_sectors: bits(active),
    }
}

/// Four deadlines of 10 epochs, from epoch 100 on; 2 is open at 125.
fn at(current_epoch: ChainEpoch) -> DeadlineInfo {
    DeadlineInfo {
        current_epoch,
        period_start: 100,
        w_post_period_deadlines: 4,
        w_post_proving_period: 40,
        w_post_challenge_window: 10,
        w_post_challenge_lookback: 2,
        fault_declaration_cutoff: 7,
        ..Default::default()
    }
    .with(100, ((current_epoch - 100).clamp(0, 39) / 10) as u64)
}

#[test]
fn a_deadline_is_upcoming_open_and_closed_at_its_very_epochs() {
    let state = |epoch| DeadlineRow::of(2, &at(epoch), &bits(&[]), &[]).state;
    assert_eq!(
        [119, 120, 129, 130].map(state),
        [DeadlineState::Upcoming, DeadlineState::Open, DeadlineState::Open, DeadlineState::Closed]
    );
    assert_eq!(DeadlineRow::of(2, &at(99), &bits(&[]), &[]).state, DeadlineState::Upcoming, "before the first period");
}

#[test]
fn what_is_to_be_proven_and_what_was() {
    let proven = partition(&[1, 2], &[], &[], &[1, 2]);
    let missed = partition(&[3, 4], &[3, 4], &[], &[]);
    let returns = partition(&[5], &[5], &[5], &[]);
    let new = partition(&[6], &[], &[], &[]);
    let gone = partition(&[], &[], &[], &[]);
    let partly = partition(&[7, 8], &[8], &[], &[7]);
    // (partitions, submitted) -> (to prove, proven) of deadline 1 while it is upcoming, open, closed
    type Case<'a> = (&'a [Partition], &'a [u64], [(u64, u64); 3]);
    let table: [Case; 8] = [
        (&[], &[], [(0, 0), (0, 0), (0, 0)]),
        (std::slice::from_ref(&proven), &[], [(1, 0), (1, 0), (1, 1)]),
        (std::slice::from_ref(&proven), &[0], [(1, 0), (1, 1), (1, 1)]),
        (std::slice::from_ref(&missed), &[], [(0, 0), (0, 0), (1, 0)]),
        (std::slice::from_ref(&returns), &[], [(1, 0), (1, 0), (1, 0)]),
        (std::slice::from_ref(&new), &[], [(1, 0), (1, 0), (0, 0)]),
        (std::slice::from_ref(&gone), &[], [(0, 0), (0, 0), (0, 0)]),
        (&[proven.clone(), partly, missed.clone()], &[0], [(2, 0), (2, 1), (3, 2)]),
    ];
    for (partitions, submitted, expected) in table {
        for (epoch, expected) in [109, 115, 125].into_iter().zip(expected) {
            let row = DeadlineRow::of(1, &at(epoch), &bits(submitted), partitions);
            assert_eq!((row.to_prove, row.proven), expected, "{partitions:?} at {epoch}");
        }
    }
}

#[test]
fn faults_are_named_by_partition() {
    let many: Vec<u64> = (0..30).collect();
    let partitions = [partition(&[99], &[], &[], &[99]), partition(&many, &many, &[1, 2], &[])];
    let faults = PartitionFaults::of(3, &partitions);
    let first: Vec<u64> = (0..10).collect();
    assert_eq!(faults, [PartitionFaults { deadline: 3, partition: 1, faulty: 30, recovering: 2, first }]);
}

/// Deadlines 0 and 2 have one partition each; `submitted`: that of deadline 2 is proven.
fn rows(epoch: ChainEpoch, submitted: bool) -> (DeadlineInfo, Vec<DeadlineRow>) {
    let now = at(epoch);
    let part = [partition(&[1], &[], &[], &[1])];
    let done = bits(if submitted { &[0] } else { &[] });
    let row = |index: u64| DeadlineRow::of(index, &now, &done, if index.is_multiple_of(2) { &part } else { &[] });
    (now, (0..4).map(row).collect())
}

#[test]
fn a_restart_is_safe_until_the_next_window_and_not_while_a_proof_is_owed() {
    // (epoch, the open deadline is proven) -> (safe, until, seconds): a quarter of a window is 2 epochs, 60 s
    let table = [
        (120, false, (false, Some(130), Some(300))),
        (129, false, (false, Some(130), Some(30))),
        (120, true, (true, Some(140), Some(600))),
        (129, true, (true, Some(140), Some(330))),
        (115, false, (true, Some(120), Some(150))),
        (118, false, (true, Some(120), Some(60))),
        (119, false, (false, Some(130), Some(330))),
        (138, false, (true, Some(140), Some(60))),
        (139, false, (false, Some(150), Some(330))),
    ];
    for (epoch, submitted, expected) in table {
        let (now, rows) = rows(epoch, submitted);
        let period = Period { rows: &rows, now: &now, block_delay: Some(Duration::from_secs(30)) };
        let restart = period.restart();
        assert_eq!((restart.safe, restart.until_epoch, restart.seconds), expected, "{epoch}: {}", restart.why);
    }
    let (now, rows) = rows(119, false);
    let unknown = Period { rows: &rows, now: &now, block_delay: None }.restart();
    assert_eq!((unknown.safe, unknown.seconds), (false, None));
    // Long windows: five minutes are enough, however long a quarter is.
    let mainnet = DeadlineInfo { w_post_challenge_window: 60, w_post_proving_period: 240, ..at(100) };
    for (epoch, safe) in [(209, true), (210, true), (211, false)] {
        let now = DeadlineInfo { current_epoch: epoch, ..mainnet };
        let part = [partition(&[1], &[], &[], &[1])];
        let rows: Vec<_> =
            (0..4).map(|i| DeadlineRow::of(i, &now, &bits(&[]), if i == 2 { &part } else { &[] })).collect();
        let restart = Period { rows: &rows, now: &now, block_delay: Some(Duration::from_secs(30)) }.restart();
        assert_eq!(restart.safe, safe, "{epoch}");
    }
    let nothing = Period { rows: &[], now: &now, block_delay: None };
    assert!(nothing.restart().safe && nothing.next().is_none());
}

#[test]
fn the_next_deadline_may_be_one_of_the_next_period() {
    for (epoch, index, open) in [(99, 0, 100), (105, 2, 120), (125, 0, 140), (139, 0, 140)] {
        let (now, rows) = rows(epoch, false);
        let next = Period { rows: &rows, now: &now, block_delay: None }.next().unwrap();
        assert_eq!((next.index, next.open, next.state), (index, Some(open), DeadlineState::Upcoming), "{epoch}");
    }
}

/// A sector that was added after its deadline had closed is due with the next period, and no restart is safe for ever.
#[test]
fn what_was_added_after_the_close_is_due_in_the_next_period() {
    let now = at(125);
    let new = [partition(&[6], &[], &[], &[])];
    let rows: Vec<_> = (0..4).map(|i| DeadlineRow::of(i, &now, &bits(&[]), if i == 1 { &new } else { &[] })).collect();
    let period = Period { rows: &rows, now: &now, block_delay: Some(Duration::from_secs(30)) };
    let next = period.next().unwrap();
    assert_eq!((next.index, next.open, next.to_prove), (1, Some(150), 1));
    assert_eq!((period.restart().safe, period.restart().until_epoch), (true, Some(150)));
    // What was missed and is not declared recovered is not due.
    let missed = [partition(&[3], &[3], &[], &[])];
    let rows = [DeadlineRow::of(0, &now, &bits(&[]), &missed)];
    assert_eq!(Period { rows: &rows, now: &now, block_delay: None }.next(), None);
}

fn report(phase: &str, error: Option<&str>) -> WindowPostReport {
    let batch = BatchReport {
        partitions: vec![0],
        phase: phase.into(),
        attempt: 1,
        message: None,
        landed_at: None,
        error: error.map(Into::into),
        left_out: vec![],
    };
    let deadline = DeadlineReport {
        index: 2,
        challenge: 118,
        open: 120,
        close: 130,
        planning: false,
        error: None,
        batches: vec![batch],
    };
    WindowPostReport { deadlines: vec![deadline], ..WindowPostReport::default() }
}

#[test]
fn troubles_are_what_is_wrong_and_nothing_else() {
    let round = |outcome| RoundReport { round: 124, base: 123, nulls: 0, outcome, took_ms: 1 };
    let told = |window: Result<WindowPostReport, String>, outcome: RoundOutcome, faults: (u64, u64)| {
        let (now, mut rows) = rows(125, true);
        (rows[0].faulty, rows[0].recovering) = faults;
        let winning = WinningReport { rounds: vec![round(outcome)], ..WinningReport::default() };
        let concerns = Concerns { window_post: Some(window), winning_post: Some(Ok(winning)) };
        let period = Period { rows: &rows, now: &now, block_delay: None };
        let info = proving_info("t01000".into(), &period, vec![], &concerns);
        info.troubles.into_iter().map(|t| t.what).collect::<Vec<_>>().join("\n")
    };
    let (lost, good) = (RoundOutcome::Lost, || Ok(report("landed", Some("an earlier attempt crashed"))));
    assert_eq!(told(good(), lost.clone(), (0, 0)), "");
    assert!(
        told(Err("it restarts".into()), lost.clone(), (0, 0)).starts_with("WindowPoSt does not answer: it restarts")
    );
    let failing = told(Ok(report("waiting", Some("no file"))), lost.clone(), (0, 0));
    assert_eq!(failing, "deadline 2, partitions [0]: no file");
    assert!(told(good(), lost.clone(), (3, 1)).starts_with("3 of 2 sectors are faulty, 1 of them declared recovered"));
    assert_eq!(told(good(), lost.clone(), (3, 3)), "3 faulty sectors are declared recovered");
    let missed = told(Ok(report("missed", Some("too late"))), lost, (0, 0));
    assert!(missed.contains("1 missed lately, the last for deadline 2 that closed at epoch 130: too late"), "{missed}");
    let refused = told(good(), RoundOutcome::Refused { why: "parent unknown".into() }, (0, 0));
    assert_eq!(refused, "the block of round 124 was lost: parent unknown");
    let mut out = report("proved", None);
    let group = |why: &str, count, first| LeftOut { why: why.into(), count, first };
    out.deadlines[0].batches[0].left_out =
        vec![group("/mnt/a hangs", 600, (0..20).collect()), group("no such file", 1, vec![900])];
    assert_eq!(left_out_count(&out), 601);
    let what = told(Ok(out), RoundOutcome::Lost, (0, 0));
    assert_eq!(
        what,
        "601 sectors are left out of window proofs, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] of deadline 2: /mnt/a hangs"
    );
    let nobody = Concerns { window_post: None, winning_post: None };
    let (now, rows) = rows(125, true);
    let info = proving_info("t01000".into(), &Period { rows: &rows, now: &now, block_delay: None }, vec![], &nobody);
    assert_eq!(info.troubles, [], "what no node of this provider runs is no trouble");
}

#[test]
fn an_older_nodes_answer_is_read_and_the_older_fields_stay() {
    let older = serde_json::json!({ "index": 3, "open": 1, "close": 2, "partitions": 1, "sectors": 1, "proven": 1 });
    let row: DeadlineRow = serde_json::from_value(older).unwrap();
    assert_eq!((row.index, row.state, row.current), (3, DeadlineState::Upcoming, false));
    let (now, rows) = rows(125, true);
    let concerns = Concerns { window_post: Some(Ok(report("missed", None))), winning_post: None };
    let info = proving_info("t01000".into(), &Period { rows: &rows, now: &now, block_delay: None }, vec![], &concerns);
    let json = serde_json::to_value(&info).unwrap();
    for (field, value) in [
        ("current_epoch", serde_json::json!(125)),
        ("period_start", serde_json::json!(100)),
        ("proving_period", serde_json::json!(40)),
        ("deadline", serde_json::json!("2 of 4")),
        ("deadline_open", serde_json::json!(120)),
        ("deadline_close", serde_json::json!(130)),
        ("sectors", serde_json::json!(2)),
        ("faulty", serde_json::json!(0)),
        ("recovering", serde_json::json!(0)),
        ("missed_lately", serde_json::json!(1)),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    assert_eq!(json["open_deadline"]["index"], 2, "flat, as a row of `proving deadlines`");
}

/// A full node that hangs must not hide what WindowPoSt and WinningPoSt know of themselves.
#[test]
fn what_the_concerns_know_is_shown_without_the_deadlines() {
    let missed = DeadlineReport {
        index: 3,
        challenge: 80,
        open: 100,
        close: 160,
        planning: false,
        batches: vec![BatchReport {
            partitions: vec![0],
            phase: "missed".into(),
            attempt: 2,
            message: None,
            landed_at: None,
            error: Some("no disk".into()),
            left_out: vec![],
        }],
        error: None,
    };
    let window_post = WindowPostReport { deadlines: vec![missed], ..WindowPostReport::default() };
    let concerns = Concerns { window_post: Some(Ok(window_post)), winning_post: None };
    let info = without_deadlines("t01000".into(), 170, "the full node did not tell the deadlines", &concerns);
    assert_eq!((info.missed.len(), info.missed_lately, info.off), (1, 1, vec!["winning-post".to_string()]));
    let troubles: Vec<_> = info.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
    assert!(troubles[0].contains("no disk") && troubles[1].contains("did not tell the deadlines"), "{troubles:?}");
    assert_eq!((info.restart.safe, info.deadlines_unknown.is_some(), info.current_epoch), (false, true, 170));
}
