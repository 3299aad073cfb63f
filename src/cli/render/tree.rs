//! The supervision tree: who stands under whom, how it does, what ended it last.

use super::table::{Align, table};
use super::time::ago;
use crate::rpc::admin::{TreeRow, stands_by};
use crate::supervisor::{ActorInfo, Exit};

/// `rows` in tree order, parents first; `now` in Unix seconds.
pub fn tree(rows: &[TreeRow], now: u64) -> String {
    let columns = [
        ("ACTOR", Align::Left),
        ("STATE", Align::Left),
        ("INCARNATION", Align::Right),
        ("RESTARTS", Align::Right),
        ("MAILBOX", Align::Right),
        ("LAST EXIT", Align::Left),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let actor = &row.actor;
            vec![
                branch(rows, i),
                state(row),
                actor.incarnation.to_string(),
                actor.restarts.to_string(),
                mailbox(actor),
                last_exit(actor, now),
            ]
        })
        .collect();
    table(&columns, &cells)
}

fn state(row: &TreeRow) -> String {
    match &row.held_by {
        Some(node) => format!("held by {node}"),
        None if stands_by(&row.actor) => "stands by".to_string(),
        None => row.actor.state.name().to_string(),
    }
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// The lines that lead to an actor, and its name.
fn branch(rows: &[TreeRow], i: usize) -> String {
    let path = &rows[i].actor.path;
    let has_later_sibling = |path: &str| rows[i + 1..].iter().any(|other| parent(&other.actor.path) == parent(path));
    let (mut lines, mut at) = (Vec::new(), path.as_str());
    while let Some(up) = parent(at) {
        lines.push(match (at == path, has_later_sibling(at)) {
            (true, true) => "├─ ",
            (true, false) => "└─ ",
            (false, true) => "│  ",
            (false, false) => "   ",
        });
        at = up;
    }
    lines.reverse();
    lines.concat() + path.rsplit('/').next().unwrap_or(path)
}

fn mailbox(actor: &ActorInfo) -> String {
    // a supervisor has none
    if actor.mailbox_bound == 0 { String::new() } else { format!("{}/{}", actor.mailbox_depth, actor.mailbox_bound) }
}

fn last_exit(actor: &ActorInfo, now: u64) -> String {
    let held = actor.held.as_deref().unwrap_or_default();
    // That it stands by is its state, not how it ended.
    let exit = actor.last_exit.as_ref().filter(|exit| **exit != Exit::Ignored && !says(held, exit));
    let exit = exit.map(|exit| match actor.last_exit_at {
        Some(at) => format!("{}, {}", exit_text(exit), ago(at, now)),
        None => exit_text(exit),
    });
    let trouble = actor.held.as_ref().or(actor.trouble.as_ref()).map(|why| format!("trying again: {}", line(why)));
    exit.into_iter().chain(trouble).collect::<Vec<_>>().join("; ")
}

/// Whether what it is held down for is that exit.
fn says(held: &str, exit: &Exit) -> bool {
    match exit {
        Exit::Failed(why) | Exit::Fenced(why) => held.contains(why.as_str()),
        exit => held.contains(&exit.to_string()),
    }
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn exit_text(exit: &Exit) -> String {
    match exit {
        Exit::Normal => "normal".to_string(),
        Exit::Shutdown => "shutdown".to_string(),
        Exit::ShutdownWith(why) => format!("shutdown: {}", line(why)),
        Exit::Failed(why) => format!("failed: {}", line(why)),
        Exit::Panicked(why) => format!("panicked: {}", line(why)),
        Exit::Killed => "killed".to_string(),
        Exit::Hung(why) => format!("hung: {}", line(why)),
        Exit::Ignored | Exit::NotRunning | Exit::Code(_) => exit.to_string(),
        Exit::Aborted | Exit::Segfault | Exit::OutOfMemory | Exit::Signal(_) | Exit::NodeDown => exit.to_string(),
        Exit::Fenced(why) => format!("fenced off: {}", line(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(path: &str, bound: usize) -> TreeRow {
        let kind = if bound == 0 { "supervisor" } else { "worker" };
        let row = serde_json::json!({
            "path": path, "kind": kind, "state": "up", "incarnation": 1, "restarts": 0,
            "mailbox_depth": 0, "mailbox_bound": bound, "last_exit": null, "last_exit_at": null,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_tree_with_a_crash_in_it() {
        let mut actors = vec![
            actor("root", 0),
            actor("root/chain", 0),
            actor("root/chain/head_feed", 64),
            actor("root/chain/message_sender", 64),
            actor("root/proving", 0),
            actor("root/proving/window_post", 128),
            actor("root/markets", 0),
            actor("root/markets/deal_handler", 64),
        ];
        let away = &mut actors[3];
        away.actor.state = crate::supervisor::ActorState::Stopped;
        (away.actor.last_exit, away.actor.last_exit_at) = (Some(Exit::Ignored), Some(1000));
        away.held_by = Some("host-b".to_string());
        let crashed = &mut actors[7].actor;
        crashed.state = crate::supervisor::ActorState::Restarting;
        crashed.incarnation = 3;
        crashed.restarts = 2;
        crashed.mailbox_depth = 7;
        crashed.last_exit = Some(Exit::Panicked("ask: bad\n price".to_string()));
        crashed.last_exit_at = Some(1000);
        actors[2].actor.trouble = Some("the full node\nis away".to_string());
        let mut late = actor("root/markets/late", 64);
        late.actor.held = Some("did not start: the key is damaged".to_string());
        late.actor.last_exit = Some(Exit::Failed("the key is damaged".to_string()));
        late.actor.state = crate::supervisor::ActorState::Restarting;
        actors.push(late);
        let expected = "\
ACTOR                 STATE           INCARNATION  RESTARTS  MAILBOX  LAST EXIT
root                  up                        1         0
├─ chain              up                        1         0
│  ├─ head_feed       up                        1         0     0/64  trying again: the full node is away
│  └─ message_sender  held by host-b            1         0     0/64
├─ proving            up                        1         0
│  └─ window_post     up                        1         0    0/128
└─ markets            up                        1         0
   ├─ deal_handler    restarting                3         2     7/64  panicked: ask: bad price, 12 s ago
   └─ late            restarting                1         0     0/64  trying again: did not start: the key is damaged
";
        assert_eq!(tree(&actors, 1012), expected);
        actors[3].held_by = None;
        assert!(tree(&actors, 1012).contains("message_sender  stands by "), "nobody holds it");
    }

    #[test]
    fn nothing_runs() {
        assert_eq!(tree(&[], 0).lines().count(), 1);
    }
}
