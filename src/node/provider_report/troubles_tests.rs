//! The troubles that actors are reported with, and their words.

use super::*;
use crate::actors::seal_agent::messages::WorkerSeen;
use crate::supervisor::Exit;

#[test]
fn an_actor_that_is_not_up_says_why_it_is_held_down_before_its_last_exit() {
    use ActorState::*;
    let told = |state, held: Option<&str>, exit: Option<Exit>, trouble: Option<&str>| {
        let row = serde_json::json!({
            "path": "root/a", "kind": "worker", "state": state, "incarnation": 3, "restarts": 2,
            "mailbox_depth": 0, "mailbox_bound": 1, "last_exit": exit, "last_exit_at": null,
            "held": held, "trouble": trouble,
        });
        actor_trouble(&serde_json::from_value(row).unwrap()).map(|trouble| trouble.what)
    };
    let failed = || Some(Exit::Failed("boom".into()));
    for (state, held, exit, trouble, want) in [
        (Up, None, failed(), None, None),
        (Up, None, None, Some("no disk"), Some("root/a: no disk")),
        (Restarting, Some("did not start: no port"), None, None, Some("root/a restarts: did not start: no port")),
        (Restarting, Some("did not start: no port"), failed(), None, Some("root/a restarts: did not start: no port")),
        (Restarting, None, failed(), None, Some("root/a restarts: failed: boom")),
        (Restarting, None, None, None, Some("root/a restarts")),
        (Stopped, None, Some(Exit::Ignored), None, None),
        (Stopped, None, Some(Exit::Shutdown), None, Some("root/a is stopped")),
    ] {
        assert_eq!(
            told(state, held, exit.clone(), trouble).as_deref(),
            want,
            "{state:?} {held:?} {exit:?} {trouble:?}"
        );
    }
}

#[test]
fn an_agent_whose_tasks_nobody_runs_is_named() {
    let worker = WorkerSeen { id: "w".into(), name: "w".into(), running: vec![], silent_for: 0 };
    for (queued, workers, works_itself, told) in
        [(2, vec![], false, true), (0, vec![], false, false), (2, vec![worker], false, false), (2, vec![], true, false)]
    {
        let report = AgentReport {
            miner: Some(1000),
            sector_size: Some(2048),
            sectors: 2,
            slots: 0,
            queued,
            free_disk: 0,
            workers,
            works_itself,
        };
        let trouble = idle_agent("agent-x", &report).map(|trouble| trouble.what);
        assert_eq!(trouble.is_some(), told, "{report:?}");
        assert!(trouble.is_none_or(|what| what.contains("agent-x") && what.contains('2')));
    }
}
