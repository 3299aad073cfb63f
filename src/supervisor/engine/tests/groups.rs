//! one_for_all and rest_for_one (OTP 29, 31), with crashes and failures inside a group restart.

use super::*;

#[test]
fn one_for_all_stops_in_reverse_and_starts_in_order() {
    let mut w = World::with(flags(Strategy::OneForAll, 2, 3600), &["a", "b", "c"]);
    w.take_log();
    w.exit("b", crash());
    assert_eq!(w.take_log(), ["stop c", "stop a", "start a", "start b", "start c"]);
    assert_eq!(w.count(), [3, 3, 0, 3]);
    w.exit("a", crash());
    assert!(w.end.is_none());
    w.exit("c", crash());
    assert!(w.gave_up());
}

#[test]
fn rest_for_one_leaves_the_earlier_alone() {
    let mut w = World::with(flags(Strategy::RestForOne, 2, 3600), &["a", "b", "c"]);
    w.take_log();
    w.exit("b", crash());
    assert_eq!(w.take_log(), ["stop c", "start b", "start c"]);
    assert_eq!((w.serial("a"), w.serial("b"), w.serial("c")), (Some(1), Some(2), Some(2)));
    w.exit("c", crash());
    assert_eq!(w.take_log(), ["start c"]);
    w.exit("a", crash());
    assert!(w.gave_up());
}

#[test]
fn the_group_waits_for_the_backoff_after_its_stop() {
    let mut f = flags(Strategy::OneForAll, 9, 3600);
    f.backoff = RestartBackoff { first: secs(1), cap: secs(8), reset_after: secs(60) };
    let mut w = World::with(f, &["a", "b"]);
    w.way("b", Way { stop_takes: secs(2), ..Way::default() });
    w.take_log();
    w.exit("a", crash());
    w.advance(ms(2_999));
    assert_eq!(w.take_log(), ["stop b"]);
    w.advance(ms(1));
    assert_eq!(w.take_log(), ["start a", "start b"]);
}

#[test]
fn a_failed_start_in_the_group_counts_and_is_tried_again() {
    for (strategy, expected) in [
        (
            Strategy::OneForAll,
            vec!["stop c", "stop a", "start a", "start b", "stop a", "start a", "start b", "start c"],
        ),
        (Strategy::RestForOne, vec!["stop c", "start b", "start b", "start c"]),
    ] {
        let mut w = World::new(flags(strategy, 2, 3600));
        w.way("b", Way { starts: vec![true, false, true], ..Way::default() });
        for id in ["a", "b", "c"] {
            w.engine.add(id.into(), rules(Restart::Permanent), id);
        }
        w.begin();
        w.take_log();
        w.exit("b", crash());
        assert_eq!(w.take_log(), expected, "{strategy:?}");
        w.exit("b", crash());
        assert!(w.gave_up(), "the failed start was the second restart");
    }
}

#[test]
fn crashes_while_the_group_restarts() {
    // In the part that is yet to be stopped: it does not count, it restarts with the group.
    let mut w = World::with(flags(Strategy::OneForAll, 1, 3600), &["a", "b", "c"]);
    w.way("c", Way { stop_takes: secs(1), ..Way::default() });
    w.take_log();
    w.exit("b", crash());
    w.exit("a", crash());
    w.advance(secs(1));
    assert_eq!(w.take_log(), ["stop c", "start a", "start b", "start c"]);
    assert!(w.end.is_none());

    // Already started again: its turn comes after the group, and it counts.
    let mut w = World::with(flags(Strategy::RestForOne, 2, 3600), &["a", "b", "c"]);
    w.way("c", Way { start_takes: secs(1), ..Way::default() });
    w.take_log();
    w.exit("b", crash());
    w.exit("b", crash());
    assert_eq!(w.take_log(), ["stop c", "start b", "start c"]);
    w.advance(secs(1));
    assert_eq!(w.take_log(), ["stop c", "start b", "start c"]);
    assert!(w.end.is_none());
    w.advance(secs(1));
    w.exit("a", crash());
    assert!(w.gave_up());
}

#[test]
fn a_child_terminated_during_the_group_stop_stays_away() {
    let mut w = World::with(flags(Strategy::OneForAll, 9, 3600), &["a", "b", "c"]);
    w.way("c", Way { stop_takes: secs(1), ..Way::default() });
    w.take_log();
    w.exit("b", crash());
    w.terminate("b").unwrap();
    let pending = w.call(SupervisorCall::Terminate { id: "c".into() });
    w.advance(secs(1));
    assert_eq!(w.replies[&pending], Ok(CallAnswer::Done));
    assert_eq!(w.take_log(), ["stop c", "stop a", "start a"]);
    assert_eq!(w.count(), [3, 1, 0, 3]);
    // OTP's next group restart starts what is undefined, too.
    w.exit("a", crash());
    assert_eq!(w.count(), [3, 3, 0, 3]);
}

#[test]
fn a_child_terminated_beside_a_group_stop_is_in_the_next_group() {
    let mut w = World::with(flags(Strategy::RestForOne, 9, 3600), &["a", "b", "c", "d"]);
    w.way("d", Way { stop_takes: secs(1), ..Way::default() });
    w.exit("c", crash());
    w.terminate("b").unwrap(); // before the part that restarts
    let back = w.call(SupervisorCall::Restart { id: "b".into() });
    w.advance(secs(1));
    assert_eq!((&w.replies[&back], w.count()), (&Ok(CallAnswer::Done), [4, 4, 0, 4]));
    w.take_log();
    w.exit("a", crash());
    w.advance(secs(1));
    assert_eq!(w.take_log(), ["stop d", "stop c", "stop b", "start a", "start b", "start c", "start d"]);
}

#[test]
fn temporary_children_go_with_the_group_and_do_not_come_back() {
    let mut w = World::new(flags(Strategy::OneForAll, 2, 3600));
    w.engine.add("a".into(), rules(Restart::Permanent), "a");
    w.engine.add("t".into(), rules(Restart::Temporary), "t");
    w.begin();
    w.take_log();
    w.exit("a", crash());
    assert_eq!(w.take_log(), ["stop t", "start a"]);
    assert_eq!(w.count(), [1, 1, 0, 1]);
}

#[test]
fn a_stop_during_a_group_restart_ends_it() {
    let mut f = flags(Strategy::OneForAll, 9, 3600);
    f.backoff = RestartBackoff { first: secs(1), cap: secs(8), reset_after: secs(60) };
    let mut w = World::with(f, &["a", "b"]);
    w.take_log();
    w.exit("a", crash());
    w.feed(Event::Stop(Exit::Shutdown));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
    assert_eq!(w.take_log(), ["stop b"]);
}

#[test]
fn significant_children() {
    let world = |auto, transient: &[&'static str]| {
        let mut f = flags(Strategy::OneForOne, 2, 3600);
        f.auto_shutdown = auto;
        let mut w = World::new(f);
        for id in transient {
            w.engine.add((*id).into(), ChildRules { significant: true, ..rules(Restart::Transient) }, id);
        }
        w.engine.add("plain".into(), rules(Restart::Transient), "plain");
        w.begin();
        w
    };
    let shut = Some(End::Exit(Exit::Shutdown));
    let mut w = world(AutoShutdown::AnySignificant, &["s", "t"]);
    w.exit("plain", Exit::Normal);
    assert_eq!(w.end, None, "not significant");
    w.exit("s", crash());
    assert_eq!(w.end, None, "restarted");
    w.terminate("t").unwrap();
    assert_eq!(w.end, None, "ended by order, not by itself");
    w.exit("s", Exit::Normal);
    assert_eq!(w.end, shut);

    let mut w = world(AutoShutdown::AllSignificant, &["s", "t"]);
    w.exit("s", Exit::Normal);
    assert_eq!(w.end, None);
    w.exit("t", Exit::Normal);
    assert_eq!(w.end, shut);
    assert_eq!(w.log.last().unwrap(), "stop plain");
}
