//! Children that are not up and yet no reason to end: crash loops that are held down, first starts that may fail, and
//! those that were fenced off.

use super::*;

/// RestartBackoff 1 s, 2 s, 4 s, 8 s, then 10 s; up for a minute is stable.
fn holding(strategy: Strategy, intensity: u32, escalate_after: Option<Duration>) -> Flags {
    Flags {
        backoff: RestartBackoff { first: secs(1), cap: secs(10), reset_after: secs(60) },
        budget_spent: BudgetSpent::HoldDown { escalate_after },
        ..flags(strategy, intensity, 60)
    }
}

impl World {
    fn held(&self, id: &str) -> Option<String> {
        self.engine.held(self.engine.key_of(id).unwrap()).map(|held| held.to_string())
    }
    fn is_up(&self, id: &str) -> bool {
        matches!(self.engine.phase(self.engine.key_of(id).unwrap()), Some(ChildPhase::Up { .. }))
    }
    /// Crashes as soon as it is up, for so long.
    fn crash_loop(&mut self, id: &str, time: Duration) {
        let until = self.now + time;
        while self.now < until && self.end.is_none() {
            if self.is_up(id) {
                self.exit(id, crash());
            }
            self.advance(ms(100));
        }
    }
}

#[test]
fn a_crash_loop_is_held_down_and_its_siblings_run_on_whatever_the_strategy() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut w = World::with(holding(strategy, 2, None), &["pool", "feed", "sender"]);
        w.crash_loop("feed", secs(5));
        let why = w.held("feed").expect("held down");
        assert!(why.starts_with("more than 2 restarts within 60s") && why.contains("panicked: test"), "{why}");
        let others = (w.serial("pool"), w.serial("sender"));
        w.take_log();
        w.crash_loop("feed", secs(3_600));
        assert!(w.end.is_none(), "{strategy:?}");
        assert_eq!((w.serial("pool"), w.serial("sender")), others, "{strategy:?}: nobody else is restarted for it");
        assert!(w.is_up("pool") && w.is_up("sender"));
        // Tried again each 10 s, not more often.
        let tries = w.take_log();
        assert!(tries.iter().all(|line| line == "start feed") && (350..=361).contains(&tries.len()), "{}", tries.len());
        // The reason goes when it is up, and the budget is its own again after a stable minute.
        w.advance(secs(10));
        assert!(w.is_up("feed") && w.held("feed").is_none());
        w.advance(secs(61));
        w.exit("feed", crash());
        assert_eq!(w.held("feed"), None, "{strategy:?}: one crash is a restart as any other");
        w.advance(secs(2));
        assert!(w.is_up("feed"));
    }
}

#[test]
fn each_child_has_the_budget_for_itself_at_minus_one_zero_plus_one() {
    for (crashes, held) in [(2, false), (3, false), (4, true)] {
        let mut w = World::with(holding(Strategy::OneForOne, 3, None), &["a", "b"]);
        for _ in 0..3 {
            w.exit("b", crash());
            w.advance(secs(8));
        }
        for _ in 0..crashes {
            w.exit("a", crash());
            w.advance(secs(8));
        }
        assert_eq!((w.is_up("b"), w.held("b")), (true, None));
        assert_eq!(w.held("a").is_some(), held, "{crashes}");
        assert_eq!(w.engine.budget(w.now).0, crashes.max(3));
        assert!(w.end.is_none());
    }
}

#[test]
fn a_child_that_was_never_stable_for_so_long_is_escalated_after_all() {
    let ten_minutes = Some(secs(600));
    let mut w = World::with(holding(Strategy::RestForOne, 2, ten_minutes), &["a", "b"]);
    w.crash_loop("a", secs(590));
    assert!(w.end.is_none());
    w.crash_loop("a", secs(30));
    assert!(w.gave_up(), "{:?}", w.end);
    // One that is not required is held down for ever.
    let mut w = World::new(holding(Strategy::RestForOne, 2, ten_minutes));
    for (id, required) in [("a", false), ("b", true)] {
        w.engine.add(id.into(), ChildRules { required, ..rules(Restart::Permanent) }, id);
    }
    w.begin();
    w.crash_loop("a", secs(3_600));
    assert!(w.end.is_none() && w.is_up("b"));
    // One that is up for a minute in between begins anew.
    let mut w = World::with(holding(Strategy::RestForOne, 2, ten_minutes), &["a", "b"]);
    for _ in 0..20 {
        w.crash_loop("a", secs(300));
        w.advance(secs(75));
    }
    assert!(w.end.is_none());
}

#[test]
fn one_that_is_held_down_is_started_by_a_call_and_ended_by_another() {
    let held = || {
        let mut w = World::with(holding(Strategy::OneForOne, 0, None), &["a"]);
        w.exit("a", crash());
        assert!(!w.is_up("a") && w.held("a").is_some());
        w
    };
    let mut w = held();
    assert_eq!(w.ask(SupervisorCall::Restart { id: "a".into() }), Ok(CallAnswer::Done), "without the wait");
    assert!(w.is_up("a"));
    let mut w = held();
    assert_eq!(w.ask(SupervisorCall::Renew { id: "a".into() }), Ok(CallAnswer::Done));
    assert!(w.is_up("a"));
    let mut w = held();
    assert_eq!(w.terminate("a"), Ok(CallAnswer::Done));
    w.advance(secs(3_600));
    assert_eq!((w.serial("a"), w.held("a")), (Some(1), None), "it stays down");
    let mut w = held();
    w.feed(Event::Stop(Exit::Shutdown));
    assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)), "nobody waits for it");
}

#[test]
fn a_first_start_that_may_fail_is_tried_again_and_the_others_come_up() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut w = World::new(holding(strategy, 2, None));
        w.way("late", Way { starts: vec![false, false, false, false, true], ..Way::default() });
        for (id, required) in [("first", true), ("late", false), ("last", true)] {
            w.engine.add(id.into(), ChildRules { required, ..rules(Restart::Permanent) }, id);
        }
        w.begin();
        assert_eq!(w.take_log(), ["start first", "start late", "start last", "up"], "{strategy:?}");
        assert_eq!(w.held("late").as_deref(), Some("did not start: will not start"));
        assert!(w.is_up("first") && w.is_up("last"));
        w.advance(secs(60));
        assert!(w.is_up("late"), "{strategy:?}: {:?}", w.log);
        assert_eq!(w.held("late"), None);
    }
    // Without a wait, too, and without an end: the first start does not wait for it.
    let mut w = World::new(flags(Strategy::OneForOne, 9, 60));
    w.way("late", Way { starts: vec![false, true], ..Way::default() });
    for (id, required) in [("late", false), ("last", true)] {
        w.engine.add(id.into(), ChildRules { required, ..rules(Restart::Permanent) }, id);
    }
    w.begin();
    assert!(w.is_up("late") && w.is_up("last") && w.log.contains(&"up".to_string()));
}

#[test]
fn a_first_start_that_is_required_ends_the_supervisor() {
    let mut w = World::new(holding(Strategy::OneForOne, 9, None));
    w.way("needed", Way { starts: vec![false], ..Way::default() });
    for (id, required) in [("a", false), ("needed", true), ("never", false)] {
        w.engine.add(id.into(), ChildRules { required, ..rules(Restart::Permanent) }, id);
    }
    w.begin();
    assert!(matches!(&w.end, Some(End::NotStarted(why)) if why.why == "will not start"), "{:?}", w.end);
    assert_eq!(w.log, ["start a", "start needed", "stop a"]);
}

#[test]
fn one_that_is_fenced_off_stands_by_and_no_budget_is_spent() {
    let fenced = || Exit::Fenced("epoch 7 holds it".into());
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for restart in [Restart::Permanent, Restart::Transient] {
            let mut w = World::new(flags(strategy, 0, 3_600));
            for id in ["a", "b"] {
                w.engine.add(id.into(), rules(restart), id);
            }
            w.begin();
            w.exit("a", fenced());
            assert_eq!(w.held("a").as_deref(), Some("stands by, fenced off: epoch 7 holds it"));
            assert_eq!((w.is_up("a"), w.serial("b"), w.is_up("b")), (false, Some(1), true));
            assert_eq!(w.engine.budget(w.now).0, 0, "{strategy:?} {restart:?}");
            // Whoever decides ends it, or starts it; otherwise it is tried again by itself.
            assert_eq!(w.ask(SupervisorCall::Restart { id: "a".into() }), Ok(CallAnswer::Done));
            w.exit("a", fenced());
            w.advance(ms(29_999));
            assert!(!w.is_up("a"));
            w.advance(ms(1));
            assert!(w.is_up("a") && w.end.is_none());
            w.exit("a", fenced());
            assert_eq!(w.terminate("a"), Ok(CallAnswer::Done));
            w.advance(secs(100));
            assert_eq!((w.is_up("a"), w.held("a")), (false, None));
        }
    }
    // A temporary one is forgotten, as after any end.
    let mut w = World::new(flags(Strategy::OneForOne, 0, 3_600));
    w.engine.add("a".into(), rules(Restart::Temporary), "a");
    w.begin();
    w.exit("a", fenced());
    assert_eq!(w.count(), [0, 0, 0, 0]);
}

#[test]
fn a_start_that_is_fenced_off_is_no_failure_but_for_who_asked_for_it() {
    let mut w = World::with(flags(Strategy::OneForOne, 0, 3_600), &["a"]);
    w.way("a", Way { start_takes: secs(5), ..Way::default() });
    w.exit("a", Exit::Fenced("x".into()));
    w.advance(secs(31));
    w.exit("a", Exit::Fenced("during its start".into()));
    assert_eq!(w.held("a").as_deref(), Some("stands by, fenced off: during its start"));
    assert!(w.end.is_none() && w.engine.budget(w.now).0 == 0);
    let ticket = w.call(SupervisorCall::Restart { id: "a".into() });
    w.exit("a", Exit::Fenced("again".into()));
    assert_eq!(w.replies.remove(&ticket), Some(Err(AdminError::Start("fenced off: again".into()))));
    assert_eq!((w.held("a"), w.end.is_none()), (None, true), "the caller decides");
}
