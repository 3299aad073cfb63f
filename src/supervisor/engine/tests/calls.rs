//! The administrative calls (OTP 6, 7, 14, 15, 38-40; Elixir's max_children).

use super::*;

fn dynamic(max: usize) -> World {
    let mut f = flags(Strategy::OneForOne, 2, 3600);
    f.dynamic = Some(max);
    let mut w = World::new(f);
    w.begin();
    w
}

fn restart(w: &mut World, id: &str) -> Result<CallAnswer, AdminError> {
    w.ask(SupervisorCall::Restart { id: id.into() })
}
fn delete(w: &mut World, id: &str) -> Result<CallAnswer, AdminError> {
    w.ask(SupervisorCall::Delete { id: id.into() })
}

#[test]
fn terminate_restart_delete() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a"]);
    assert_eq!(w.start_child("a", Restart::Permanent), Err(AdminError::AlreadyStarted));
    assert_eq!(restart(&mut w, "a"), Err(AdminError::Running));
    assert_eq!(delete(&mut w, "a"), Err(AdminError::Running));
    assert_eq!(w.terminate("a"), Ok(CallAnswer::Done));
    assert_eq!(w.count(), [1, 0, 0, 1]);
    assert_eq!(w.terminate("a"), Ok(CallAnswer::Done), "twice is once");
    assert_eq!(w.start_child("a", Restart::Permanent), Err(AdminError::AlreadyPresent));
    assert_eq!(restart(&mut w, "a"), Ok(CallAnswer::Done));
    assert_eq!(w.count(), [1, 1, 0, 1]);
    w.terminate("a").unwrap();
    assert_eq!(delete(&mut w, "a"), Ok(CallAnswer::Done));
    assert_eq!(w.count(), [0, 0, 0, 0]);
    for refused in [w.terminate("a"), restart(&mut w, "a"), delete(&mut w, "a")] {
        assert_eq!(refused, Err(AdminError::NotFound));
    }
    assert_eq!(w.start_child("a", Restart::Permanent), Ok(CallAnswer::Done));
    assert!(w.end.is_none());
}

#[test]
fn failing_starts_on_request_are_the_callers_business() {
    let mut w = World::with(flags(Strategy::OneForOne, 0, 3600), &["b"]);
    w.way("a", Way { starts: vec![false], ..Way::default() });
    assert_eq!(w.start_child("a", Restart::Permanent), Err(AdminError::Start("will not start".into())));
    assert_eq!(w.ask(SupervisorCall::Which), Ok(CallAnswer::Which(vec![("b".into(), Some(true))])));
    w.way("b", Way { starts: vec![true, false], ..Way::default() });
    w.terminate("b").unwrap();
    assert_eq!(restart(&mut w, "b"), Err(AdminError::Start("will not start".into())));
    assert_eq!(
        w.ask(SupervisorCall::Which),
        Ok(CallAnswer::Which(vec![("b".into(), Some(false))])),
        "spec kept, undefined"
    );
    assert!(w.end.is_none());
}

#[test]
fn an_added_child_is_last_in_order() {
    let mut w = World::with(flags(Strategy::RestForOne, 2, 3600), &["a", "b"]);
    w.start_child("c", Restart::Permanent).unwrap();
    w.take_log();
    w.exit("b", crash());
    assert_eq!(w.take_log(), ["stop c", "start b", "start c"]);
    w.feed(Event::Stop(Exit::Shutdown));
    assert_eq!(w.take_log(), ["stop c", "stop b", "stop a"]);
}

#[test]
fn a_dynamic_supervisor_forgets_what_ends() {
    let mut w = dynamic(10);
    assert_eq!(w.count(), [1, 0, 0, 0]);
    w.start_child("a", Restart::Transient).unwrap();
    w.start_child("b", Restart::Transient).unwrap();
    assert_eq!(w.count(), [1, 2, 0, 2]);
    assert_eq!(w.terminate("a"), Ok(CallAnswer::Done));
    assert_eq!(w.count(), [1, 1, 0, 1]);
    assert_eq!(w.terminate("a"), Err(AdminError::NotFound));
    assert_eq!(restart(&mut w, "b"), Err(AdminError::Dynamic));
    assert_eq!(delete(&mut w, "b"), Err(AdminError::Dynamic));
    w.exit("b", Exit::Normal);
    assert_eq!(w.count(), [1, 0, 0, 0]);
    w.start_child("c", Restart::Permanent).unwrap();
    for _ in 0..2 {
        w.exit("c", crash());
        assert_eq!(w.count(), [1, 1, 0, 1]);
    }
    w.exit("c", crash());
    assert!(w.gave_up());
}

#[test]
fn max_children_at_its_edge() {
    let mut w = dynamic(0);
    assert_eq!(w.start_child("a", Restart::Permanent), Err(AdminError::MaxChildren));
    let mut w = dynamic(2);
    assert_eq!(w.start_child("a", Restart::Permanent), Ok(CallAnswer::Done));
    assert_eq!(w.start_child("b", Restart::Temporary), Ok(CallAnswer::Done));
    assert_eq!(w.start_child("c", Restart::Permanent), Err(AdminError::MaxChildren));
    w.exit("b", Exit::Normal);
    assert_eq!(w.start_child("c", Restart::Permanent), Ok(CallAnswer::Done));
}

#[test]
fn a_restarting_child_still_counts_and_can_be_terminated() {
    let mut f = flags(Strategy::OneForOne, 9, 3600);
    f.backoff = RestartBackoff { first: secs(1), cap: secs(8), reset_after: secs(60) };
    f.dynamic = Some(1);
    let mut w = World::new(f);
    w.begin();
    w.start_child("a", Restart::Permanent).unwrap();
    w.exit("a", crash());
    assert_eq!(w.count(), [1, 0, 0, 1]);
    assert_eq!(w.start_child("b", Restart::Permanent), Err(AdminError::MaxChildren));
    assert_eq!(w.start_child("a", Restart::Permanent), Err(AdminError::AlreadyPresent));
    assert_eq!(w.ask(SupervisorCall::Which), Ok(CallAnswer::Which(vec![("a".into(), None)])));
    assert_eq!(w.terminate("a"), Ok(CallAnswer::Done));
    w.advance(secs(100));
    assert_eq!(w.count(), [1, 0, 0, 0]);
}

#[test]
fn the_api_answers_while_restarts_hang() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let mut f = flags(strategy, 8, 3600);
        f.backoff = RestartBackoff { first: secs(5), cap: secs(5), reset_after: secs(60) };
        let mut w = World::with(f, &["a", "b"]);
        w.exit("b", crash());
        assert_eq!(w.start_child("b", Restart::Permanent), Err(AdminError::AlreadyPresent));
        assert_eq!(restart(&mut w, "b"), Err(AdminError::Restarting));
        assert_eq!(delete(&mut w, "b"), Err(AdminError::Restarting));
        assert_eq!(w.count(), [2, 1, 0, 2]);
        assert_eq!(w.terminate("b"), Ok(CallAnswer::Done), "{strategy:?}");
        w.advance(secs(60));
        assert_eq!(w.count(), [2, 1, 0, 2]);
        assert_eq!(restart(&mut w, "b"), Ok(CallAnswer::Done));
        assert_eq!(w.count(), [2, 2, 0, 2]);
    }
}

#[test]
fn a_child_added_during_the_ordered_start_waits_its_turn() {
    let mut w = World::new(flags(Strategy::OneForOne, 2, 3600));
    w.way("a", Way { start_takes: secs(1), ..Way::default() });
    w.way("late", Way { starts: vec![false], ..Way::default() });
    w.engine.add("a".into(), rules(Restart::Permanent), "a");
    w.begin();
    let ticket = w.call(SupervisorCall::Start { id: "late".into(), rules: rules(Restart::Permanent), payload: "late" });
    assert!(w.replies.is_empty());
    w.advance(secs(1));
    assert_eq!(w.log, ["start a", "start late", "up"]);
    assert_eq!(w.replies[&ticket], Err(AdminError::Start("will not start".into())));
    assert!(w.end.is_none(), "its failure is the caller's business");
}

#[test]
fn calls_on_one_that_is_shutting_down() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a", "b"]);
    w.way("b", Way { stop_takes: secs(1), ..Way::default() });
    w.feed(Event::Stop(Exit::Shutdown));
    assert_eq!(w.start_child("c", Restart::Permanent), Err(AdminError::ShuttingDown));
    let ticket = w.call(SupervisorCall::Terminate { id: "b".into() });
    assert!(w.replies.is_empty());
    w.advance(secs(1));
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
}

#[test]
fn two_who_terminate_the_same_child_both_get_an_answer() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a"]);
    w.way("a", Way { stop_takes: secs(1), ..Way::default() });
    let first = w.call(SupervisorCall::Terminate { id: "a".into() });
    let second = w.call(SupervisorCall::Terminate { id: "a".into() });
    w.advance(secs(1));
    assert_eq!([&w.replies[&first], &w.replies[&second]], [&Ok(CallAnswer::Done), &Ok(CallAnswer::Done)]);
}

#[test]
fn terminated_while_it_starts() {
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a"]);
    w.way("b", Way { start_takes: secs(9), ..Way::default() });
    let started = w.call(SupervisorCall::Start { id: "b".into(), rules: rules(Restart::Permanent), payload: "b" });
    assert_eq!(w.terminate("b"), Ok(CallAnswer::Done));
    assert!(matches!(w.replies[&started], Err(AdminError::Start(_))));
    assert_eq!(w.count(), [2, 1, 0, 2]);
}

#[test]
fn a_kill_is_a_fault_that_the_rule_answers() {
    let mut w = World::with(flags(Strategy::OneForOne, 1, 3600), &["a"]);
    assert_eq!(w.ask(SupervisorCall::Kill { id: "a".into() }), Ok(CallAnswer::Done));
    assert_eq!(w.serial("a"), Some(2));
    assert_eq!(w.ask(SupervisorCall::Kill { id: "x".into() }), Err(AdminError::NotFound));
    w.call(SupervisorCall::Kill { id: "a".into() });
    assert!(w.gave_up());
}

#[test]
fn counts_in_the_thousands() {
    let names: Vec<&'static str> = (0..2000).map(|n| &*Box::leak(format!("c{n}").into_boxed_str())).collect();
    let mut w = dynamic(2000);
    for (n, name) in names.iter().enumerate() {
        let rules = ChildRules { supervisor: n % 2 == 1, ..rules(Restart::Temporary) };
        w.ask(SupervisorCall::Start { id: (*name).into(), rules, payload: name }).unwrap();
    }
    assert_eq!(w.count(), [1, 2000, 1000, 1000]);
    for name in names {
        w.call(SupervisorCall::Kill { id: name.into() });
    }
    assert_eq!(w.count(), [1, 0, 0, 0]);
}

#[test]
fn a_restart_call_during_a_group_restart_of_later_children_gets_its_turn() {
    let mut w = World::with(flags(Strategy::RestForOne, 9, 3600), &["a", "b", "c"]);
    w.terminate("a").unwrap();
    w.way("c", Way { start_takes: secs(1), ..Way::default() });
    w.exit("b", crash());
    let ticket = w.call(SupervisorCall::Restart { id: "a".into() });
    assert!(!w.replies.contains_key(&ticket));
    w.advance(secs(1));
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
    assert_eq!(w.count(), [3, 3, 0, 3]);
}

#[test]
fn whoever_asked_for_a_start_hears_of_it_whatever_ends_it() {
    // Hung in its start and then terminated; a supervisor terminated, or killed with its parent, in its start.
    for (supervisor, how) in [(false, "hung"), (true, "terminate"), (true, "kill")] {
        let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a"]);
        w.way("b", Way { start_takes: secs(9), stop_takes: ms(1), stuck: how == "hung", ..Way::default() });
        let rules = ChildRules { supervisor, start_timeout: secs(1_000), ..rules(Restart::Permanent) };
        let started = w.call(SupervisorCall::Start { id: "b".into(), rules, payload: "b" });
        match how {
            "hung" => {
                w.feed(Event::Hung { key: 2, what: "x".into() });
                w.call(SupervisorCall::Terminate { id: "b".into() });
            }
            "terminate" => drop(w.call(SupervisorCall::Terminate { id: "b".into() })),
            _ => w.feed(Event::Kill),
        }
        w.advance(secs(1));
        assert!(matches!(w.replies.get(&started), Some(Err(AdminError::Start(_)))), "{supervisor} {how}");
    }
}

#[test]
fn a_renewal_is_one_call() {
    let f = || flags(Strategy::OneForOne, 0, 3600);
    let renew = |id: &str| SupervisorCall::Renew { id: id.into() };
    let slow = |w: &mut World| w.way("a", Way { stop_takes: secs(1), ..Way::default() });
    let gone = || Err(AdminError::Start("it was terminated before its turn came".into()));

    // Stopped, then started, on no budget; a second one has to wait.
    let mut w = World::with(f(), &["a", "b"]);
    slow(&mut w);
    w.take_log();
    let ticket = w.call(renew("a"));
    assert_eq!(w.ask(renew("a")), Err(AdminError::Restarting));
    assert!(w.engine.comes_back(w.engine.key_of("a").unwrap()));
    w.advance(secs(1));
    assert_eq!(w.take_log(), ["stop a", "start a"]);
    assert_eq!((&w.replies[&ticket], w.end.is_none()), (&Ok(CallAnswer::Done), true));

    // One that does not run is started; one that does not exist is not.
    w.terminate("b").unwrap();
    assert_eq!(w.ask(renew("b")), Ok(CallAnswer::Done));
    assert_eq!(w.ask(renew("c")), Err(AdminError::NotFound));

    // A stop that comes later wins.
    let ticket = w.call(renew("a"));
    let stop = w.call(SupervisorCall::Terminate { id: "a".into() });
    w.advance(secs(1));
    assert_eq!((&w.replies[&ticket], &w.replies[&stop]), (&gone(), &Ok(CallAnswer::Done)));
    assert_eq!(w.count(), [2, 1, 0, 2]);

    // Stuck: killed and given up in between.
    w.way("b", Way { stop_takes: secs(100), stuck: true, ..Way::default() });
    w.take_log();
    let ticket = w.call(renew("b"));
    w.advance(secs(5) + KILL_GRACE);
    assert_eq!(w.take_log(), ["stop b", "kill b", "abandon b", "start b"]);
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));

    // The supervisor's own end comes first.
    let mut w = World::with(f(), &["a"]);
    slow(&mut w);
    let ticket = w.call(renew("a"));
    w.feed(Event::Stop(Exit::Shutdown));
    w.advance(secs(1));
    assert_eq!((&w.replies[&ticket], w.end.is_some()), (&Err(AdminError::ShuttingDown), true));

    // Within a group that restarts: it comes back with it.
    let mut w = World::with(flags(Strategy::OneForAll, 9, 3600), &["a", "b"]);
    slow(&mut w);
    w.take_log();
    w.exit("b", crash());
    let ticket = w.call(renew("a"));
    w.advance(secs(1));
    assert_eq!(w.take_log(), ["stop a", "start a", "start b"]);
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
    assert_eq!(World::with(Flags { dynamic: Some(1), ..f() }, &["a"]).ask(renew("a")), Err(AdminError::Dynamic));
}
