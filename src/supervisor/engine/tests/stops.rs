//! Ordered start and reverse stop, shutdown times, brutal kill (OTP 1, 10-13, 34).

use super::*;

#[test]
fn an_empty_supervisor_comes_up_and_stops() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &[]);
    assert_eq!(w.take_log(), ["up"]);
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

#[test]
fn starts_in_order_one_at_a_time_and_stops_in_reverse() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    for id in ["a", "b", "c"] {
        w.way(id, Way { start_takes: secs(1), stop_takes: secs(1), ..Way::default() });
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    assert_eq!(w.take_log(), ["start a"]);
    w.advance(ms(2_999));
    assert_eq!(w.take_log(), ["start b", "start c"]);
    w.advance(ms(1));
    assert_eq!(w.take_log(), ["up"]);
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    assert_eq!(w.take_log(), ["stop c"]);
    w.advance(ms(2_999));
    assert_eq!(w.take_log(), ["stop b", "stop a"]);
    assert!(w.end.is_none());
    w.advance(ms(1));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

#[test]
fn the_shutdown_time_at_its_edge() {
    for (takes, killed) in [(999, false), (1_000, false), (1_001, true)] {
        let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
        w.way("b", Way { stop_takes: ms(takes), ..Way::default() });
        for id in ["a", "b"] {
            w.engine.add(
                id.into(),
                ChildRules { shutdown: Shutdown::Timeout(secs(1)), ..rules(Restart::Permanent) },
                id,
            );
        }
        w.begin();
        w.take_log();
        w.feed(EngineEvent::Stop(Exit::Shutdown));
        w.advance(secs(2));
        let expected: &[&str] = if killed { &["stop b", "kill b", "stop a"] } else { &["stop b", "stop a"] };
        assert_eq!(w.log, expected, "{takes}");
        assert_eq!(w.elapsed(), secs(2).min(w.elapsed()));
        assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
    }
}

#[test]
fn infinity_waits_and_brutal_kill_does_not() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("slow", Way { stop_takes: secs(3_000), ..Way::default() });
    w.engine.add("slow".into(), ChildRules { shutdown: Shutdown::Infinity, ..rules(Restart::Permanent) }, "slow");
    w.engine.add("brutal".into(), ChildRules { shutdown: Shutdown::BrutalKill, ..rules(Restart::Permanent) }, "brutal");
    w.begin();
    w.take_log();
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    assert_eq!(w.take_log(), ["kill brutal", "stop slow"]);
    w.advance(secs(2_999));
    assert!(w.end.is_none());
    w.advance(secs(1));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

#[test]
fn a_child_that_cannot_be_killed_does_not_hold_up_the_shutdown() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a", "b"]);
    w.way("b", Way { stop_takes: secs(1_000_000), stuck: true, ..Way::default() });
    w.take_log();
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    w.advance(secs(5) + KILL_GRACE);
    assert_eq!(w.log, ["stop b", "kill b", "abandon b", "stop a"]);
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

/// OTP's sup_stop_race: everyone ends by themselves, each in their own way, while the last one takes its time to stop.
#[test]
fn exits_during_a_shutdown_restart_nobody() {
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let exits = [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("test".into()), crash()];
    let mut w = World::new(flags(Strategy::OneForOne, 0, 3600));
    for (n, id) in ids.into_iter().enumerate() {
        let restart = [Restart::Permanent, Restart::Transient, Restart::Temporary][n / 4];
        w.engine.add(id.into(), rules(restart), id);
    }
    w.way("z", Way { stop_takes: secs(1), ..Way::default() });
    w.engine.add("z".into(), rules(Restart::Permanent), "z");
    w.begin();
    w.take_log();
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    w.advance(ms(200));
    for (n, id) in ids.into_iter().enumerate() {
        w.exit(id, exits[n % 4].clone());
    }
    w.advance(ms(800));
    assert_eq!(w.log, ["stop z"]);
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

#[test]
fn dynamic_children_stop_side_by_side() {
    let mut f = flags(Strategy::OneForOne, 2, 3600);
    f.dynamic = Some(100);
    let mut w = World::new(f);
    w.begin();
    for (id, takes) in [("a", 1), ("b", 1), ("c", 5)] {
        w.way(id, Way { stop_takes: secs(takes), ..Way::default() });
        let rules = ChildRules { shutdown: Shutdown::Timeout(secs(2)), ..rules(Restart::Temporary) };
        w.ask(SupervisorCall::Start { id: id.into(), rules, payload: id }).unwrap();
    }
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    w.advance(ms(1_999));
    assert!(w.end.is_none());
    w.advance(ms(1));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
    assert_eq!(w.log.last().unwrap(), "kill c");
}

#[test]
fn ten_brutal_dynamic_children_die_at_once() {
    let mut f = flags(Strategy::OneForOne, 2, 3600);
    f.dynamic = Some(10);
    let mut w = World::new(f);
    w.begin();
    for id in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let rules = ChildRules { shutdown: Shutdown::BrutalKill, ..rules(Restart::Permanent) };
        w.ask(SupervisorCall::Start { id: id.into(), rules, payload: id }).unwrap();
    }
    w.take_log();
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    assert_eq!(w.log.iter().filter(|l| l.starts_with("kill")).count(), 10);
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
}

#[test]
fn killed_itself_a_supervisor_kills_its_children() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a", "b"]);
    w.way("b", Way { stop_takes: secs(1), ..Way::default() });
    w.take_log();
    w.feed(EngineEvent::Stop(Exit::Shutdown));
    w.feed(EngineEvent::Kill);
    assert_eq!(w.log, ["stop b", "kill a", "kill b"]);
    assert!(w.end.is_some());
}

#[test]
fn one_that_hangs_while_it_stops_is_killed_whatever_time_it_may_take() {
    for (shutdown, stuck) in
        [(Shutdown::Infinity, false), (Shutdown::Infinity, true), (Shutdown::Timeout(secs(3_000)), true)]
    {
        let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
        w.way("a", Way { stop_takes: secs(200_000), stuck, ..Way::default() });
        w.engine.add("a".into(), ChildRules { shutdown, ..rules(Restart::Permanent) }, "a");
        w.begin();
        w.take_log();
        w.feed(EngineEvent::Stop(Exit::Shutdown));
        w.advance(secs(100));
        assert_eq!((w.take_log(), &w.end), (vec!["stop a".to_string()], &None));
        let key = w.engine.key_of("a").unwrap();
        w.feed(EngineEvent::Hung { key, what: "test".into() });
        if stuck {
            w.feed(EngineEvent::Hung { key, what: "again".into() }); // puts nothing off
        }
        w.advance(KILL_GRACE);
        let expected: &[&str] = if stuck { &["kill a", "abandon a"] } else { &["kill a"] };
        assert_eq!(w.log, expected, "{shutdown:?}");
        assert!(w.end.is_some(), "{shutdown:?} {stuck}");
    }
}
