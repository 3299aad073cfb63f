//! The admin endpoint's view of the node, and the definition of "ready".

use super::cluster::ClusterView;
use super::provider::ProviderReport;
use crate::supervisor::{
    ActorInfo, ActorOrder, ActorState, AdminError, DeadLetter, DeadReason, Down, Exit, GroupRow, InspectError,
    Inspection, Tree,
};
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long an actor has for showing its state, and how often at most it is asked: reading is open to whoever reaches us.
const INSPECT_WITHIN: Duration = Duration::from_secs(1);
const INSPECT_EVERY: Duration = Duration::from_millis(250);

/// Messages that nobody handled: how many for each reason, and the newest of them, oldest first.
#[derive(Serialize, Clone, Debug, Default)]
pub struct DeadLettersView {
    pub counts: Vec<(DeadReason, u64)>,
    pub recent: Vec<DeadLetter>,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Faulty(String),
    #[error("a reload is under way")]
    UnderWay,
    #[error("this node was not started from a configuration that could be read again")]
    NoOrigin,
}

/// Figures of the process as a whole.
#[derive(Serialize, Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Grows four times a second while the watchdog lives.
    pub watchdog_ticks: u64,
    /// Since the last of them.
    pub watchdog_silent_ms: u64,
    /// Threads that were given up and have not ended since.
    pub zombie_threads: u64,
}

/// An incarnation that ended.
#[derive(Serialize, Clone, Debug)]
pub struct Ended {
    #[serde(flatten)]
    pub down: Down,
    /// Unix seconds.
    pub at: u64,
}

/// The supervision tree as the admin endpoint sees it. All calls return at once, whatever the actors do.
pub trait TreeView: Send + Sync + 'static {
    fn snapshot(&self) -> Vec<ActorInfo>;
    /// False when nothing runs at that path.
    fn kill(&self, path: &str) -> bool;
    /// A drill: the actor panics. False when no worker runs at that path.
    fn panic(&self, _path: &str) -> bool {
        false
    }
    /// A drill: the actor keeps its thread until that is given up. False when no worker runs at that path.
    fn hang(&self, _path: &str) -> bool {
        false
    }
    /// Undeliverable messages, where the tree keeps them.
    fn dead_letters(&self) -> Option<DeadLettersView> {
        None
    }
    /// The inner state that the actor at that path shows. Asks that actor alone, with a deadline.
    fn inspect(&self, _path: &str) -> BoxFuture<'static, Result<Inspection, InspectError>> {
        std::future::ready(Err(InspectError::ShowsNothing)).boxed()
    }
    /// Completes when it is done; what it waits for are supervisors, on a thread that runs no actor.
    fn order(&self, path: &str, order: ActorOrder) -> BoxFuture<'static, Result<(), AdminError>> {
        let done = order == ActorOrder::Kill && self.kill(path);
        std::future::ready(if done { Ok(()) } else { Err(AdminError::NotRunning) }).boxed()
    }
    /// Reads the configuration anew, and answers what of it is in force and what is not; `by` is for the audit log.
    fn reload(&self, _by: String) -> BoxFuture<'static, Result<Value, ReloadError>> {
        std::future::ready(Err(ReloadError::NoOrigin)).boxed()
    }
    /// The members of each group.
    fn groups(&self) -> Vec<GroupRow> {
        Vec::new()
    }
    /// Takes no lock: liveness is answered with it.
    fn vitals(&self) -> Option<Vitals> {
        None
    }
    /// The cluster that this node is one of.
    fn cluster(&self) -> Option<Arc<dyn ClusterView>> {
        None
    }
    /// The provider's state, as it was last put together.
    fn provider(&self) -> Option<Arc<ProviderReport>> {
        None
    }
    /// The last incarnations that ended, oldest first, where somebody keeps a journal of them.
    fn journal(&self) -> Option<Vec<Ended>> {
        None
    }
}

impl TreeView for Tree {
    fn snapshot(&self) -> Vec<ActorInfo> {
        Tree::snapshot(self)
    }
    fn kill(&self, path: &str) -> bool {
        Tree::kill(self, path)
    }
    fn panic(&self, path: &str) -> bool {
        Tree::panic(self, path)
    }
    fn hang(&self, path: &str) -> bool {
        Tree::hang(self, path)
    }
    fn inspect(&self, path: &str) -> BoxFuture<'static, Result<Inspection, InspectError>> {
        if let Some(last) = self.inspected(path, INSPECT_EVERY) {
            return std::future::ready(last).boxed();
        }
        let (tree, path) = (self.clone(), path.to_string());
        async move { Tree::inspect(&tree, &path, INSPECT_WITHIN).await }.boxed()
    }
    fn dead_letters(&self) -> Option<DeadLettersView> {
        let letters = Tree::dead_letters(self);
        Some(DeadLettersView { counts: letters.counts(), recent: letters.recent() })
    }
    fn order(&self, path: &str, order: ActorOrder) -> BoxFuture<'static, Result<(), AdminError>> {
        let (tree, path) = (self.clone(), path.to_string());
        async move { tree.order(&path, order).await }.boxed()
    }
    fn vitals(&self) -> Option<Vitals> {
        Some(Vitals {
            watchdog_ticks: self.watchdog_ticks(),
            watchdog_silent_ms: u64::try_from(self.watchdog_silence().as_millis()).unwrap_or(u64::MAX),
            zombie_threads: self.zombies(),
        })
    }
}

/// For an endpoint that is itself a child of the tree: empty until the tree has started.
impl TreeView for OnceLock<Tree> {
    fn snapshot(&self) -> Vec<ActorInfo> {
        self.get().map(Tree::snapshot).unwrap_or_default()
    }
    fn kill(&self, path: &str) -> bool {
        self.get().is_some_and(|tree| tree.kill(path))
    }
    fn panic(&self, path: &str) -> bool {
        self.get().is_some_and(|tree| tree.panic(path))
    }
    fn hang(&self, path: &str) -> bool {
        self.get().is_some_and(|tree| tree.hang(path))
    }
    fn inspect(&self, path: &str) -> BoxFuture<'static, Result<Inspection, InspectError>> {
        match self.get() {
            Some(tree) => TreeView::inspect(tree, path),
            None => std::future::ready(Err(InspectError::NotFound)).boxed(),
        }
    }
    fn dead_letters(&self) -> Option<DeadLettersView> {
        self.get().and_then(TreeView::dead_letters)
    }
    fn order(&self, path: &str, order: ActorOrder) -> BoxFuture<'static, Result<(), AdminError>> {
        match self.get() {
            Some(tree) => TreeView::order(tree, path, order),
            None => std::future::ready(Err(AdminError::NoSupervisor)).boxed(),
        }
    }
    fn vitals(&self) -> Option<Vitals> {
        self.get().and_then(TreeView::vitals)
    }
}

/// A row of the tree as the admin HTTP shows it.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct TreeRow {
    #[serde(flatten)]
    pub actor: ActorInfo,
    /// The node that holds the concern, for one that stands by here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
}

impl TreeRow {
    /// `node`: the one whose tree this is.
    pub fn of(actor: ActorInfo, node: &str, holders: &BTreeMap<String, String>) -> TreeRow {
        let holder = holders.get(&actor.path).filter(|holder| stands_by(&actor) && *holder != node);
        TreeRow { held_by: holder.cloned(), actor }
    }
}

/// Its start chose not to run: another node does its work.
pub fn stands_by(actor: &ActorInfo) -> bool {
    actor.state == ActorState::Stopped && actor.last_exit == Some(Exit::Ignored)
}

/// The handlers' views and orders.
#[derive(Clone)]
pub struct AdminViews {
    pub tree: Arc<dyn TreeView>,
    /// Published by the node: miner, network, head, versions.
    pub info: Arc<ArcSwap<serde_json::Value>>,
    /// Tree paths that have to be up, with all below them, for the node to be ready; empty means the whole tree.
    pub critical: Vec<String>,
    /// Begins an orderly stop; returns at once.
    pub stop: Arc<dyn Fn() + Send + Sync>,
}

/// A watchdog that was silent for longer finds no hung actor any more: the process is better begun anew.
const SILENT_MS: u64 = 10_000;

/// Alive: the watchdog makes its rounds. Before the tree has started nothing is known, and nothing is wrong.
pub fn alive(vitals: Option<Vitals>) -> bool {
    vitals.is_none_or(|vitals| vitals.watchdog_silent_ms <= SILENT_MS)
}

#[derive(Serialize, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// The paths that are not up, or not there at all.
    pub waiting_for: Vec<String>,
    /// Path -> why it is held down (its start failed, or it crashed too often), or what it says itself of why it cannot work.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, String>,
    /// The faults of the concerns that this node may run, in a cluster; a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// The network's next upgrade, and whether this node is ready for it; says nothing of being ready now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_upgrade: Option<String>,
}

impl Readiness {
    /// A node of a cluster is ready when every concern that its roles allow runs somewhere, and proven where it runs here.
    pub fn with(self, troubles: Vec<String>) -> Readiness {
        Readiness { ready: self.ready && troubles.is_empty(), troubles, ..self }
    }

    pub fn before(self, next_upgrade: Option<String>) -> Readiness {
        Readiness { next_upgrade, ..self }
    }
}

/// Ready: every critical path is there, it and everything below it is up and without trouble, every group (what is right
/// below the root) is up, and no actor is held down. A restart elsewhere that takes no longer than its backoff changes
/// nothing.
pub fn readiness(rows: &[ActorInfo], critical: &[String]) -> Readiness {
    let mut waiting_for: Vec<String> = Vec::new();
    for path in critical {
        if !rows.iter().any(|row| row.path == *path) {
            waiting_for.push(path.clone());
        }
    }
    if rows.is_empty() && critical.is_empty() {
        waiting_for.push("root".to_string());
    }
    let counts = |row: &&ActorInfo| {
        let concern = row.path.matches('/').count() == 1;
        critical.is_empty() || concern || row.held.is_some() || critical.iter().any(|path| is_within(&row.path, path))
    };
    let mut reasons = BTreeMap::new();
    for row in rows.iter().filter(counts) {
        let trouble = row.trouble.as_ref().filter(|_| critical.iter().any(|path| is_within(&row.path, path)));
        reasons.extend(trouble.map(|why| (row.path.clone(), why.clone())));
        match row.state {
            // Without a full node, say, it is up and can do nothing.
            ActorState::Up if trouble.is_some() => waiting_for.push(row.path.clone()),
            ActorState::Up => {}
            ActorState::Stopped if stands_by(row) => {}
            ActorState::Starting | ActorState::Restarting | ActorState::Stopping | ActorState::Stopped => {
                waiting_for.push(row.path.clone())
            }
        }
    }
    reasons.extend(rows.iter().filter_map(|row| Some((row.path.clone(), row.held.clone()?))));
    Readiness { ready: waiting_for.is_empty(), waiting_for, reasons, troubles: Vec::new(), next_upgrade: None }
}

fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
pub(super) fn row(path: &str, state: ActorState) -> ActorInfo {
    let row = serde_json::json!({
        "path": path, "kind": "worker", "state": state, "incarnation": 3, "restarts": 2,
        "mailbox_depth": 1, "mailbox_bound": 256, "last_exit": null, "last_exit_at": null,
    });
    serde_json::from_value(row).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ActorState::*;

    #[test]
    fn alive_means_the_watchdog_makes_its_rounds() {
        let silent = |watchdog_silent_ms| Some(Vitals { watchdog_silent_ms, ..Vitals::default() });
        let cases = [(None, true), (silent(0), true), (silent(SILENT_MS), true), (silent(SILENT_MS + 1), false)];
        for (vitals, is) in cases {
            assert_eq!(alive(vitals), is, "{vitals:?}");
        }
    }

    #[test]
    fn a_concern_that_stands_by_names_its_holder() {
        let holders = BTreeMap::from([("root/a".to_string(), "host-b".to_string())]);
        let of = |state, exit, node| {
            let actor = ActorInfo { last_exit: exit, ..row("root/a", state) };
            TreeRow::of(actor, node, &holders).held_by
        };
        assert_eq!(of(Stopped, Some(Exit::Ignored), "host-a").as_deref(), Some("host-b"));
        assert_eq!(of(Stopped, Some(Exit::Ignored), "host-b"), None, "it is about to start there");
        assert_eq!(of(Stopped, Some(Exit::Shutdown), "host-a"), None, "an operator stopped it");
        assert_eq!(of(Up, None, "host-a"), None);
        let json = serde_json::to_value(TreeRow::of(row("root/b", Up), "host-a", &holders)).unwrap();
        assert_eq!((&json["path"], json.get("held_by")), (&Value::from("root/b"), None), "flat, as before");
    }

    #[test]
    fn a_critical_actor_that_is_up_and_cannot_work_is_not_ready() {
        let away = |path| ActorInfo { trouble: Some("no full node can be used".into()), ..row(path, Up) };
        let critical = ["root/chain".to_string()];
        let got = readiness(&[row("root/chain", Up), away("root/chain/daemon_pool")], &critical);
        assert_eq!((got.ready, got.waiting_for), (false, vec!["root/chain/daemon_pool".to_string()]));
        assert_eq!(got.reasons["root/chain/daemon_pool"], "no full node can be used");
        let got = readiness(&[row("root/chain", Up), away("root/net")], &critical);
        assert!(got.ready && got.reasons.is_empty(), "what is not critical only says so in the tree");
        let got = readiness(&[away("root/chain")], &[]);
        assert!(got.ready, "nothing was named critical");
    }

    #[test]
    fn ready_means_all_that_is_critical_is_up() {
        let rows = |proving, markets| {
            vec![row("root", Up), row("root/proving", Up), row("root/proving/w", proving), row("root/markets", markets)]
        };
        // Of a concern that is not critical itself, only its supervisor counts.
        let below = |deal| [rows(Up, Up), vec![row("root/markets/deal", deal)]].concat();
        let proving = ["root/proving".to_string()];
        let near = ["root/prov".to_string()];
        // (rows, critical, what is waited for)
        let cases: [(Vec<ActorInfo>, &[String], &[&str]); 10] = [
            (rows(Up, Up), &[], &[]),
            (rows(Up, Restarting), &[], &["root/markets"]),
            (rows(Up, Restarting), &proving, &["root/markets"]),
            (below(Restarting), &proving, &[]),
            (rows(Restarting, Up), &proving, &["root/proving/w"]),
            (rows(Starting, Up), &proving, &["root/proving/w"]),
            (rows(Stopping, Up), &proving, &["root/proving/w"]),
            (rows(Stopped, Up), &proving, &["root/proving/w"]),
            (rows(Up, Up), &near, &["root/prov"]),
            (vec![], &[], &["root"]),
        ];
        for (i, (rows, critical, want)) in cases.into_iter().enumerate() {
            let got = readiness(&rows, critical);
            assert_eq!(
                (got.ready, got.waiting_for),
                (want.is_empty(), want.iter().map(|s| s.to_string()).collect()),
                "{i}"
            );
        }
        let held = ActorInfo { held: Some("did not start: no port".into()), ..row("root/markets/deal", Restarting) };
        let got = readiness(&[rows(Up, Up), vec![held]].concat(), &proving);
        assert_eq!(got.waiting_for, ["root/markets/deal"]);
        assert_eq!((got.ready, got.reasons["root/markets/deal"].as_str()), (false, "did not start: no port"));
        let with = |troubles: &[&str]| {
            readiness(&rows(Up, Up), &[]).with(troubles.iter().map(|t| t.to_string()).collect()).ready
        };
        assert!(with(&[]) && !with(&["nobody holds /t01000/window-post"]));
        assert!(!readiness(&[], &[]).with(vec![]).ready);
    }
}
