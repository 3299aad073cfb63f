//! Another spec at run time (OTP 43, 49), and starts that choose not to run (OTP 3, 4).

use super::*;

fn upgrade(w: &mut World, flags: Flags, children: &[(&'static str, ChildRules)]) -> u64 {
    let children = children.iter().map(|(id, rules)| ((*id).into(), rules.clone(), *id)).collect();
    w.call(SupervisorCall::Upgrade { flags, children })
}

fn which(w: &mut World) -> Vec<(String, Option<bool>)> {
    match w.ask(SupervisorCall::Which) {
        Ok(CallAnswer::Which(children)) => children,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sup_start_ignore_child() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("a", Way { ignores: true, ..Way::default() });
    for id in ["a", "b"] {
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    assert_eq!(w.log, ["start a", "start b", "up"]);
    assert_eq!(w.count(), [2, 1, 0, 2]);
    assert_eq!(which(&mut w), [("a".into(), Some(false)), ("b".into(), Some(true))]);
    assert_eq!(w.ask(SupervisorCall::Restart { id: "a".into() }), Ok(CallAnswer::Ignored));
    w.way("a", Way::default());
    assert_eq!(w.ask(SupervisorCall::Restart { id: "a".into() }), Ok(CallAnswer::Done), "it may think better of it");
    assert_eq!(w.count(), [2, 2, 0, 2]);
    assert!(w.end.is_none());
}

#[test]
fn sup_start_ignore_temporary_child() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("a", Way { ignores: true, ..Way::default() });
    w.engine.add("a".into(), rules(Restart::Temporary), "a");
    w.engine.add("b".into(), rules(Restart::Permanent), "b");
    w.begin();
    assert_eq!(w.count(), [1, 1, 0, 1]);
    assert_eq!(w.start_child("a", Restart::Temporary), Ok(CallAnswer::Ignored));
    assert_eq!(w.count(), [1, 1, 0, 1]);
    assert_eq!(w.start_child("c", Restart::Permanent), Ok(CallAnswer::Done));
}

#[test]
fn a_restart_that_is_ignored_ends_the_restarts() {
    let mut w = World::with(flags(Strategy::OneForOne, 0, 3600), &["b"]);
    w.way("a", Way { ignores: true, ..Way::default() });
    assert_eq!(w.start_child("a", Restart::Permanent), Ok(CallAnswer::Ignored));
    assert_eq!(w.count(), [2, 1, 0, 2], "its spec stays");
    let mut w = World::with(flags(Strategy::OneForAll, 1, 3600), &["a", "b"]);
    w.way("a", Way { ignores: true, ..Way::default() });
    w.exit("b", crash());
    assert_eq!(w.count(), [2, 1, 0, 2]);
    assert!(w.end.is_none(), "an ignored start is no failed one");
}

#[test]
fn code_change() {
    let mut w = World::with(flags(Strategy::OneForOne, 1, 10), &[]);
    // Flags.
    let first = upgrade(&mut w, flags(Strategy::RestForOne, 3, 20), &[]);
    assert_eq!(w.replies[&first], Ok(CallAnswer::Done));
    assert_eq!(w.engine.budget(w.now).1, 3);
    // New children are there and not started.
    let short = |secs_| ChildRules { shutdown: Shutdown::Timeout(secs(secs_)), ..rules(Restart::Permanent) };
    upgrade(&mut w, flags(Strategy::RestForOne, 3, 20), &[("1", short(2)), ("2", short(2))]);
    assert_eq!(which(&mut w), [("1".into(), Some(false)), ("2".into(), Some(false))]);
    for id in ["1", "2"] {
        assert_eq!(w.ask(SupervisorCall::Restart { id: id.into() }), Ok(CallAnswer::Done));
    }
    w.take_log();
    // Change 1, drop 2, add 3: 2 runs on, as the last in order; nobody was touched.
    upgrade(&mut w, flags(Strategy::RestForOne, 3, 20), &[("3", short(2)), ("1", short(1))]);
    assert_eq!(w.take_log(), [""; 0]);
    assert_eq!(which(&mut w), [("3".into(), Some(false)), ("1".into(), Some(true)), ("2".into(), Some(true))]);
    assert_eq!((w.serial("1"), w.serial("2")), (Some(1), Some(1)));
    // The new shutdown time counts: 1 s, no longer 2.
    w.way("1", Way { stop_takes: secs(5), ..Way::default() });
    let stopped = w.call(SupervisorCall::Terminate { id: "1".into() });
    w.advance(ms(999));
    assert_eq!(w.take_log(), ["stop 1"]);
    w.advance(ms(1));
    assert_eq!(w.take_log(), ["kill 1"]);
    assert_eq!(w.replies[&stopped], Ok(CallAnswer::Done));
}

#[test]
fn an_upgrade_changes_the_order_and_the_restart_type() {
    let mut w = World::with(flags(Strategy::RestForOne, 9, 3600), &["a", "b", "c"]);
    let r = || rules(Restart::Permanent);
    upgrade(&mut w, flags(Strategy::RestForOne, 9, 3600), &[("c", r()), ("b", rules(Restart::Transient)), ("a", r())]);
    w.take_log();
    w.exit("b", crash());
    assert_eq!(w.take_log(), ["stop a", "start b", "start a"]);
    w.exit("b", Exit::Normal);
    assert_eq!(w.count(), [3, 2, 0, 3], "transient now");
    w.feed(Event::Stop(Exit::Shutdown));
    assert_eq!(w.take_log(), ["stop a", "stop c"]);
}

#[test]
fn an_upgrade_waits_for_what_is_under_way() {
    let mut f = flags(Strategy::OneForAll, 9, 3600);
    f.backoff = RestartBackoff { first: secs(1), cap: secs(8), reset_after: secs(60) };
    let mut w = World::with(f.clone(), &["a", "b"]);
    w.exit("a", crash());
    let r = || rules(Restart::Permanent);
    let ticket = upgrade(&mut w, f.clone(), &[("b", r()), ("a", r())]);
    assert!(!w.replies.contains_key(&ticket));
    w.advance(secs(1));
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
    assert_eq!(which(&mut w), [("b".into(), Some(true)), ("a".into(), Some(true))]);
    // A child in its backoff keeps its turn, under its new place.
    f.strategy = Strategy::OneForOne;
    upgrade(&mut w, f.clone(), &[("a", r()), ("b", r())]);
    w.exit("b", crash());
    upgrade(&mut w, f, &[("b", r()), ("a", r())]);
    assert_eq!(w.count(), [2, 1, 0, 2]);
    w.advance(secs(2));
    assert_eq!(w.count(), [2, 2, 0, 2]);
    // None while it shuts down.
    w.way("b", Way { stop_takes: secs(1), ..Way::default() });
    w.feed(Event::Stop(Exit::Shutdown));
    let ticket = upgrade(&mut w, flags(Strategy::OneForOne, 9, 3600), &[]);
    assert_eq!(w.replies[&ticket], Err(AdminError::ShuttingDown));
}

/// A crash waits for the ordered start, and so does another spec: the restart is commanded right before the keys change.
#[test]
fn a_restart_that_is_commanded_right_before_an_upgrade_names_the_new_key() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("b", Way { start_takes: secs(3), ..Way::default() });
    let r = || rules(Restart::Permanent);
    for id in ["a", "b"] {
        w.engine.add(id.into(), r(), id);
    }
    w.begin();
    w.advance(secs(1));
    w.exit("a", crash());
    upgrade(&mut w, flags(Strategy::OneForOne, 2, 3600), &[("b", r()), ("a", r())]);
    w.advance(secs(2));
    assert_eq!(w.log, ["start a", "start b", "up", "start a"]);
    assert_eq!(w.count(), [2, 2, 0, 2]);
}

#[test]
fn significant_upgrade() {
    let spec = |auto| {
        let mut f = flags(Strategy::OneForOne, 2, 3600);
        f.auto_shutdown = auto;
        f
    };
    let child = |significant| ChildRules { significant, ..rules(Restart::Transient) };
    use AutoShutdown::{AllSignificant, AnySignificant, Never};
    // (before, its child's flag, after, its child's flag, ends)
    for (before, was, after, is, ends) in [
        (Never, false, AnySignificant, true, true),
        (AnySignificant, true, Never, false, false),
        (AnySignificant, true, AllSignificant, true, false),
        (AllSignificant, true, AnySignificant, true, true),
        (AnySignificant, false, AnySignificant, true, true),
        (AnySignificant, true, AnySignificant, false, false),
    ] {
        let mut w = World::new(spec(before));
        for id in ["a", "b"] {
            w.engine.add(id.into(), child(was), id);
        }
        w.begin();
        upgrade(&mut w, spec(after), &[("a", child(is)), ("b", child(is))]);
        w.exit("a", Exit::Normal);
        assert_eq!(w.end.is_some(), ends, "{before:?} {was} -> {after:?} {is}");
    }
}
