//! Scenarios of OTP's supervisor_SUITE that no other file here has, each test named after its OTP original.

use super::*;

fn dynamic(intensity: u32, children: &[&'static str], rules: ChildRules) -> World {
    let mut f = flags(Strategy::OneForOne, intensity, 3600);
    f.dynamic = Some(100_000);
    let mut w = World::new(f);
    w.begin();
    for id in children {
        w.ask(SupervisorCall::Start { id: (*id).into(), rules: rules.clone(), payload: id }).unwrap();
    }
    w
}

#[test]
fn simple_one_for_one_and_its_escalation() {
    let mut w = dynamic(2, &["a", "b"], rules(Restart::Permanent));
    w.exit("a", crash());
    assert_eq!((w.count(), w.serial("b")), ([1, 2, 0, 2], Some(1)));
    w.exit("a", crash());
    assert_eq!(w.count(), [1, 2, 0, 2]);
    w.exit("b", crash());
    assert!(w.gave_up());
    assert_eq!(w.log.last().unwrap(), "stop a");
}

#[test]
fn count_restarting_children() {
    let ids = ["a", "b", "c"];
    let mut w = dynamic(20, &ids, rules(Restart::Permanent));
    assert_eq!(w.count(), [1, 3, 0, 3]);
    let mut f = flags(Strategy::OneForOne, 20, 10);
    f.dynamic = Some(100);
    f.backoff = RestartBackoff { first: ms(100), cap: ms(100), reset_after: secs(60) };
    w = World::new(f);
    w.begin();
    for id in ids {
        w.start_child(id, Restart::Permanent).unwrap();
    }
    for id in ["a", "b"] {
        w.way(id, Way { starts: vec![false], ..Way::default() });
        w.exit(id, crash());
    }
    w.advance(ms(150));
    assert_eq!(w.count(), [1, 1, 0, 3], "two are stuck in failing restarts");
    for id in ["a", "b"] {
        w.way(id, Way::default());
    }
    w.advance(ms(100));
    assert_eq!(w.count(), [1, 3, 0, 3]);
    assert!(w.end.is_none());
}

#[test]
fn one_for_all_other_child_fails_restart() {
    // The crashed one starts, the other fails to: both are tried again, and every failure counts.
    let mut w = World::new(flags(Strategy::OneForAll, 3, 3600));
    w.way("b", Way { starts: vec![true, false, false, true], ..Way::default() });
    for id in ["a", "b"] {
        w.engine.add(id.into(), rules(Restart::Permanent), id);
    }
    w.begin();
    w.take_log();
    w.exit("a", crash());
    let again = ["stop b", "start a", "start b", "stop a", "start a", "start b", "stop a", "start a", "start b"];
    assert_eq!(w.take_log(), again);
    assert_eq!(w.count(), [2, 2, 0, 2]);
    w.exit("a", crash());
    assert!(w.gave_up(), "one crash and two failures were the budget");
}

#[test]
fn one_for_all_escalation_and_rest_for_one_escalation() {
    for (strategy, first) in [(Strategy::OneForAll, "a"), (Strategy::RestForOne, "a")] {
        let mut w = World::new(flags(strategy, 4, 3600));
        w.way("a", Way { starts: vec![true, false], ..Way::default() });
        for id in ["a", "b"] {
            w.engine.add(id.into(), rules(Restart::Permanent), id);
        }
        w.begin();
        w.exit(first, crash());
        assert!(w.gave_up(), "{strategy:?}");
        assert_eq!(w.log.iter().filter(|l| *l == "start a").count(), 1 + 4);
        assert_eq!(w.log.iter().filter(|l| *l == "start b").count(), 1, "its predecessor never came up");
    }
}

#[test]
fn hanging_restart_loop() {
    // A restart that fails after 2 s, for ever: the supervisor answers all along, and stops at once.
    for strategy in [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll] {
        let mut f = flags(strategy, 8, 10);
        f.backoff = RestartBackoff { first: ms(10), cap: ms(10), reset_after: secs(60) };
        let mut w = World::with(f, &["a", "b"]);
        w.way("b", Way { starts: vec![false], start_takes: secs(2), ..Way::default() });
        w.exit("b", crash());
        let mut answers = 0;
        for _ in 0..30 {
            w.advance(ms(500));
            assert!(w.start_child("b", Restart::Permanent).is_err());
            assert!(matches!(
                w.ask(SupervisorCall::Restart { id: "b".into() }),
                Err(AdminError::Restarting | AdminError::Running)
            ));
            assert!(matches!(
                w.ask(SupervisorCall::Delete { id: "b".into() }),
                Err(AdminError::Restarting | AdminError::Running)
            ));
            answers += 1;
        }
        assert!(answers == 30 && w.end.is_none(), "{strategy:?}: five failures in any 10 s are within the budget");
        w.feed(Event::Stop(Exit::Shutdown));
        assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)), "{strategy:?}");
    }
}

#[test]
fn child_unlink() {
    // A child that escaped: no report will ever come. Terminating it does not hang the supervisor.
    let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &["a", "b"]);
    w.way("a", Way { stop_takes: secs(1_000_000), stuck: true, ..Way::default() });
    let ticket = w.call(SupervisorCall::Terminate { id: "a".into() });
    w.advance(secs(5) + KILL_GRACE);
    assert_eq!(w.replies[&ticket], Ok(CallAnswer::Done));
    assert_eq!(w.count(), [2, 1, 0, 2]);
}

#[test]
fn do_not_save_specs_of_temporary_children() {
    let ids: Vec<&'static str> = (0..100).map(|n| &*Box::leak(format!("c{n}").into_boxed_str())).collect();
    for (restart, kept) in [(Restart::Permanent, 100), (Restart::Transient, 100), (Restart::Temporary, 0)] {
        let mut w = World::with(flags(Strategy::OneForOne, 2, 3600), &[]);
        for id in &ids {
            w.start_child(id, restart).unwrap();
        }
        for id in &ids {
            w.terminate(id).unwrap();
        }
        assert_eq!(w.count(), [kept, 0, 0, kept], "{restart:?}");
        assert_eq!(w.engine.payloads().count(), kept);
    }
}

#[test]
fn scale_terminate_child_and_start_stop_many_children() {
    // Steps, not seconds: a child costs the same number of commands in a small crowd and in a large one.
    for crowd in [1_000u32, 20_000] {
        let ids: Vec<&'static str> = (0..crowd).map(|n| &*Box::leak(format!("c{n}").into_boxed_str())).collect();
        let mut w = dynamic(2, &ids, rules(Restart::Temporary));
        assert_eq!(w.take_log().len(), crowd as usize + 1);
        for id in &ids[..500] {
            w.terminate(id).unwrap();
        }
        assert_eq!(w.take_log().len(), 500);
        w.feed(Event::Stop(Exit::Shutdown));
        assert_eq!(w.take_log().len(), crowd as usize - 500);
    }
}

#[test]
fn nonsignificant_children_never_end_their_supervisor() {
    for auto in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        for restart in [Restart::Temporary, Restart::Transient] {
            for exit in [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("x".into()), crash(), Exit::Killed] {
                let mut f = flags(Strategy::OneForOne, 2, 3600);
                f.auto_shutdown = auto;
                let mut w = World::new(f);
                w.engine.add("a".into(), rules(restart), "a");
                w.begin();
                w.exit("a", exit);
                w.advance(secs(1));
                assert!(w.end.is_none(), "{auto:?} {restart:?}");
            }
        }
    }
}

#[test]
fn significant_temporary() {
    for exit in [Exit::Normal, crash(), Exit::Killed, Exit::Shutdown] {
        let mut f = flags(Strategy::OneForOne, 2, 3600);
        f.auto_shutdown = AutoShutdown::AnySignificant;
        let mut w = World::new(f);
        let significant = ChildRules { significant: true, ..rules(Restart::Temporary) };
        for id in ["a", "b", "c"] {
            w.engine.add(id.into(), significant.clone(), id);
        }
        w.begin();
        w.terminate("c").unwrap();
        assert!(w.end.is_none(), "by the supervisor's hand");
        w.exit("a", exit);
        assert_eq!(w.end, Some(End::Exit(Exit::Shutdown)));
        assert_eq!(w.log.last().unwrap(), "stop b");
    }
}

#[test]
fn shutdown_is_an_exit_like_any_other_for_a_permanent_child() {
    // OTP's permanent_shutdown: also the orderly reasons restart a permanent child.
    let mut w = World::with(flags(Strategy::OneForOne, 9, 3600), &["a"]);
    for (n, exit) in [Exit::Shutdown, Exit::ShutdownWith("x".into()), Exit::Normal].into_iter().enumerate() {
        w.exit("a", exit);
        assert_eq!((w.count(), w.serial("a")), ([1, 1, 0, 1], Some(n as u64 + 2)));
    }
}

#[test]
fn process_exits_are_abnormal() {
    let exits = [Exit::Code(1), Exit::Aborted, Exit::Segfault, Exit::OutOfMemory, Exit::Signal(15)];
    let mut w = World::new(flags(Strategy::OneForOne, 9, 3600));
    w.engine.add("a".into(), rules(Restart::Transient), "a");
    w.begin();
    for (n, exit) in exits.into_iter().enumerate() {
        w.exit("a", exit);
        assert_eq!(w.serial("a"), Some(n as u64 + 2));
    }
}
