//! Which exits restart whom (OTP 16-28, 33), and the sliding intensity at its edges.

use super::*;

fn single(restart: Restart) -> World {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.engine.add("a".into(), rules(restart), "a");
    w.begin();
    assert_eq!(w.count(), [1, 1, 0, 1]);
    w
}

#[test]
fn restart_types_against_exits() {
    let with = || Exit::ShutdownWith("x".into());
    let table = [
        (Restart::Permanent, Exit::Normal, Some(2)),
        (Restart::Permanent, Exit::Shutdown, Some(2)),
        (Restart::Permanent, with(), Some(2)),
        (Restart::Permanent, crash(), Some(2)),
        (Restart::Transient, Exit::Normal, Some(1)),
        (Restart::Transient, Exit::Shutdown, Some(1)),
        (Restart::Transient, with(), Some(1)),
        (Restart::Transient, Exit::Failed("x".into()), Some(2)),
        (Restart::Transient, crash(), Some(2)),
        (Restart::Transient, Exit::Killed, Some(2)),
        (Restart::Temporary, Exit::Normal, None),
        (Restart::Temporary, Exit::Shutdown, None),
        (Restart::Temporary, crash(), None),
    ];
    for (restart, exit, serial) in table {
        let mut w = single(restart);
        w.exit("a", exit.clone());
        assert_eq!(w.serial("a"), serial, "{restart:?} {exit:?}");
        let expected = match serial {
            Some(2) => [1, 1, 0, 1],
            Some(_) => [1, 0, 0, 1],
            None => [0, 0, 0, 0],
        };
        assert_eq!(w.count(), expected, "{restart:?} {exit:?}");
        assert!(w.end.is_none());
        if serial == Some(1) {
            assert_eq!(w.ask(SupervisorCall::Restart { id: "a".into() }), Ok(CallAnswer::Done));
            assert_eq!(w.count(), [1, 1, 0, 1]);
        }
    }
}

#[test]
fn crashes_further_apart_than_the_period_never_add_up() {
    let mut w = World::with(flags(Strategy::OneForOne, 1, 1), &["a"]);
    for _ in 0..4 {
        w.exit("a", crash());
        w.advance(ms(2100));
    }
    assert!(w.end.is_none());
    assert_eq!(w.serial("a"), Some(5));
}

#[test]
fn the_window_slides_and_its_edge_belongs_to_it() {
    // Two are allowed within 10 s. The third comes 10 s after the first, give or take one millisecond.
    for (third_after, ends) in [(9_999, true), (10_000, true), (10_001, false)] {
        let mut w = World::with(flags(Strategy::OneForOne, 2, 10), &["a"]);
        w.exit("a", crash());
        w.advance(secs(5));
        w.exit("a", crash());
        w.advance(ms(third_after - 5_000));
        w.exit("a", crash());
        assert_eq!(w.gave_up(), ends, "{third_after}");
    }
}

#[test]
fn the_window_is_sliding_not_tumbling() {
    // Two in the tail of one window and two in the head of the next are four within it.
    let mut w = World::with(flags(Strategy::OneForOne, 3, 10), &["a"]);
    w.advance(ms(9_800));
    for _ in 0..3 {
        w.exit("a", crash());
        w.advance(ms(100));
    }
    assert!(w.end.is_none());
    w.exit("a", crash());
    assert!(w.gave_up());
}

#[test]
fn intensity_at_minus_one_zero_plus_one() {
    for intensity in [0, 1, 2, 5] {
        let mut w = World::with(flags(Strategy::OneForOne, intensity, 3600), &["a", "b"]);
        for n in 0..intensity {
            w.exit("a", crash());
            assert!(w.end.is_none(), "{n} of {intensity}");
        }
        w.exit("a", crash());
        assert!(w.gave_up(), "{intensity}");
        assert_eq!(w.log.last().unwrap(), "stop b");
    }
}

#[test]
fn one_for_one_touches_only_the_crashed() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a", "b"]);
    w.exit("a", crash());
    assert_eq!((w.count(), w.serial("a"), w.serial("b")), ([2, 2, 0, 2], Some(2), Some(1)));
    w.exit("b", crash());
    assert!(w.end.is_none());
    w.exit("a", crash());
    assert!(w.gave_up(), "the third crash, whichever child");
}

#[test]
fn failed_restarts_consume_the_budget() {
    let mut w = World::new(flags(Strategy::OneForOne, 4, 3600));
    w.way("a", Way { starts: vec![true, false], ..Way::default() });
    for id in ["a", "b"] {
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    w.exit("a", crash());
    assert!(w.gave_up());
    let starts = w.log.iter().filter(|l| *l == "start a").count();
    assert_eq!(starts, 1 + 4);
    assert_eq!(w.log.last().unwrap(), "stop b");
}

#[test]
fn the_backoff_doubles_to_its_cap_and_starts_over_after_quiet() {
    let mut f = flags(Strategy::OneForOne, 100, 3600);
    f.backoff = RestartBackoff { first: ms(200), cap: ms(1000), reset_after: secs(60) };
    let mut w = World::with(f, &["a"]);
    for (wait, serial) in [(200, 2), (400, 3), (800, 4), (1000, 5), (1000, 6)] {
        w.exit("a", crash());
        w.advance(ms(wait - 1));
        assert_eq!(w.serial("a"), Some(serial - 1), "not before {wait} ms");
        w.advance(ms(1));
        assert_eq!(w.serial("a"), Some(serial), "at {wait} ms");
    }
    w.advance(ms(59_999));
    w.exit("a", crash());
    w.advance(ms(999));
    assert_eq!(w.serial("a"), Some(6), "one millisecond too early to start over");
    w.advance(ms(1));
    w.advance(secs(60));
    w.exit("a", crash());
    w.advance(ms(200));
    assert_eq!(w.serial("a"), Some(8));
}

#[test]
fn jitter_moves_the_backoff_by_a_fifth() {
    let backoff = RestartBackoff { first: ms(1000), cap: secs(30), reset_after: secs(60) };
    for (jitter, expected) in [(-1.0, 800), (0.0, 1000), (1.0, 1200), (7.0, 1200)] {
        assert_eq!(backoff.delay(0, jitter), ms(expected));
    }
    assert_eq!(backoff.delay(u32::MAX, 0.0), secs(30));
    assert_eq!(RestartBackoff::NONE.delay(9, 1.0), Duration::ZERO);
}

#[test]
fn a_crash_during_the_ordered_start_waits_for_its_turn() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("b", Way { start_takes: secs(3), ..Way::default() });
    for id in ["a", "b"] {
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    w.advance(secs(1));
    w.exit("a", crash());
    assert_eq!(w.serial("a"), Some(1));
    w.advance(secs(2));
    assert_eq!(w.log, ["start a", "start b", "up", "start a"]);
}

#[test]
fn a_failed_first_start_stops_the_started_in_reverse_and_is_the_end() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("c", Way { starts: vec![false], ..Way::default() });
    for id in ["a", "b", "c", "d"] {
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    assert_eq!(w.log, ["start a", "start b", "start c", "stop b", "stop a"]);
    assert_eq!(w.end, Some(End::NotStarted(StartFailure { path: "c".into(), why: "will not start".into() })));
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_fails() {
    for (takes, up) in [(29_999, true), (30_001, false)] {
        let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
        w.way("a", Way { start_takes: ms(takes), ..Way::default() });
        w.engine.add("a".into(), rules(Restart::Permanent), "a");
        w.begin();
        w.advance(ms(takes));
        if up {
            assert_eq!(w.log, ["start a", "up"]);
        } else {
            assert_eq!(w.log, ["start a", "kill a"]);
            assert!(matches!(&w.end, Some(End::NotStarted(f)) if f.path == "root/a" && f.why.contains("30s")));
        }
    }
}

#[test]
fn reports_of_an_earlier_incarnation_are_void() {
    let mut w = World::with(flags(Strategy::OneForOne, 9, 3600), &["a"]);
    w.exit("a", crash());
    assert_eq!(w.serial("a"), Some(2));
    w.feed(Event::Down { key: 1, serial: 1, exit: crash() });
    w.feed(Event::Down { key: 77, serial: 1, exit: crash() });
    assert_eq!(w.serial("a"), Some(2));
}

#[test]
fn a_hung_child_is_killed_or_abandoned_and_replaced() {
    for stuck in [false, true] {
        let mut w = World::with(flags(Strategy::OneForOne, 9, 3600), &["a", "b"]);
        w.way("a", Way { stuck, ..Way::default() });
        w.take_log();
        w.feed(Event::Hung { key: 1, what: "x".into() });
        w.advance(KILL_GRACE - ms(1));
        assert_eq!(w.log.len(), if stuck { 1 } else { 2 });
        w.advance(ms(1));
        let expected: &[&str] = if stuck { &["kill a", "abandon a", "start a"] } else { &["kill a", "start a"] };
        assert_eq!(w.take_log(), expected);
        // Found hung again while it is being replaced: nothing more.
        assert_eq!(w.count(), [2, 2, 0, 2]);
    }
}

#[test]
fn all_on_a_lost_thread_are_given_up_at_once() {
    let mut w = World::with(flags(Strategy::OneForOne, 9, 3600), &["a", "b"]);
    w.take_log();
    w.feed(Event::Lost { key: 2, serial: 1 });
    assert_eq!(w.take_log(), ["abandon b", "start b"]);
    w.feed(Event::Lost { key: 2, serial: 1 });
    assert_eq!(w.take_log(), [""; 0]);
}

#[test]
fn what_another_did_to_their_thread_costs_a_child_no_budget() {
    // (its own fault?, does its supervisor go on?)
    for (own, goes_on) in [(false, true), (true, false)] {
        let mut w = World::with(flags(Strategy::OneForOne, 0, 3600), &["a", "b"]);
        if own {
            w.way("b", Way { stuck: true, ..Way::default() });
            w.feed(Event::Hung { key: 2, what: "x".into() });
        }
        w.take_log();
        w.feed(Event::Lost { key: 2, serial: 1 });
        assert_eq!(w.end.is_none(), goes_on, "{own}");
        if goes_on {
            assert_eq!(w.take_log(), ["abandon b", "start b"]);
            w.exit("b", crash());
            assert!(w.end.is_some(), "only that one restart was free");
        }
    }
    // Stopped for the operator meanwhile: nothing is restarted, and no later crash is free.
    let mut w = World::with(flags(Strategy::OneForOne, 0, 3600), &["a", "b"]);
    w.way("b", Way { stop_takes: secs(3), ..Way::default() });
    let ticket = w.call(SupervisorCall::Terminate { id: "b".into() });
    w.feed(Event::Lost { key: 2, serial: 1 });
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
    w.call(SupervisorCall::Restart { id: "b".into() });
    w.exit("b", crash());
    assert!(w.end.is_some());
}

#[test]
fn an_end_that_is_told_twice_does_not_stop_the_backoff() {
    let mut f = flags(Strategy::OneForOne, 9, 3600);
    f.backoff = RestartBackoff { first: secs(1), cap: secs(8), reset_after: secs(60) };
    let mut w = World::with(f, &["a"]);
    w.exit("a", crash());
    w.exit("a", crash());
    w.advance(secs(1));
    assert_eq!((w.serial("a"), w.count()), (Some(2), [1, 1, 0, 1]));
}
