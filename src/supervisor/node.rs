//! The tree as anyone may look at it: a node per child, changed by the supervisors, read under short locks only.

use super::cell::{CellMeta, lock};
use super::engine::Key;
use super::spec::{Body, ChildDef, SupDef};
use super::supervise::In;
use super::tree::ActorInfo;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

pub(super) struct Node {
    /// In the tree.
    pub path: String,
    pub meta: Arc<CellMeta>,
    pub hang_after: Duration,
    /// For supervisors.
    pub branch: Option<Branch>,
}

pub(super) struct Branch {
    pub def: Arc<SupDef>,
    /// To the present incarnation of the supervisor.
    tx: Mutex<Option<UnboundedSender<In>>>,
    children: Mutex<BTreeMap<Key, Arc<Node>>>,
    pub budget_used: AtomicUsize,
}

impl Node {
    pub fn root(def: Arc<SupDef>) -> Arc<Node> {
        let meta = Arc::new(CellMeta::new(def.path.as_str(), 0));
        Arc::new(Node { path: def.path.clone(), meta, hang_after: Duration::MAX, branch: Some(Branch::new(def)) })
    }

    pub fn child(def: &ChildDef) -> Arc<Node> {
        let branch = match &def.body {
            Body::Worker(_) => None,
            Body::Supervisor(sup) => Some(Branch::new(sup.clone())),
        };
        Arc::new(Node { path: def.path.clone(), meta: def.meta.clone(), hang_after: def.hang_after, branch })
    }

    /// Parents first, siblings in start order.
    pub fn walk(self: &Arc<Node>, see: &mut dyn FnMut(&Arc<Node>)) {
        see(self);
        if let Some(branch) = &self.branch {
            for child in branch.children() {
                child.walk(see);
            }
        }
    }

    pub fn find(self: &Arc<Node>, path: &str) -> Option<Arc<Node>> {
        if self.path == path {
            return Some(self.clone());
        }
        let below = path.strip_prefix(self.path.as_str())?.strip_prefix('/')?;
        let id = below.split('/').next()?;
        let wanted = format!("{}/{id}", self.path);
        let child = self.branch.as_ref()?.children().into_iter().find(|c| c.path == wanted)?;
        child.find(path)
    }

    pub fn info(&self) -> ActorInfo {
        let meta = &self.meta;
        let last = meta.last_exit();
        let busy = meta.busy();
        let branch = self.branch.as_ref();
        ActorInfo {
            path: self.path.clone(),
            kind: if branch.is_some() { "supervisor" } else { "worker" }.to_string(),
            state: meta.state(),
            incarnation: meta.incarnation.load(Ordering::Relaxed),
            restarts: meta.restarts.load(Ordering::Relaxed),
            mailbox_depth: meta.depth(),
            mailbox_bound: meta.bound,
            last_exit_at: last.as_ref().map(|(_, at)| *at),
            last_exit: last.map(|(exit, _)| exit),
            trouble: meta.trouble(),
            address: branch.is_none().then(|| meta.path.to_string()),
            epoch: meta.epoch.load(Ordering::Relaxed),
            thread: branch.is_none().then(|| meta.thread()),
            busy_message: busy.map(|(message, _)| message.to_string()),
            busy_ms: busy.map(|(_, ms)| ms),
            strategy: branch.map(|b| b.def.flags.strategy),
            restart_budget_used: branch.map(|b| b.budget_used.load(Ordering::Relaxed)),
            restart_budget: branch.map(|b| b.def.flags.intensity),
            restart_period_ms: branch.map(|b| u64::try_from(b.def.flags.period.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Branch {
    fn new(def: Arc<SupDef>) -> Branch {
        Branch { def, tx: Mutex::new(None), children: Mutex::default(), budget_used: AtomicUsize::new(0) }
    }
    pub fn children(&self) -> Vec<Arc<Node>> {
        lock(&self.children).values().cloned().collect()
    }
    /// A new incarnation of the supervisor: its children are those of its spec again.
    pub fn open(&self, tx: UnboundedSender<In>) {
        lock(&self.children).clear();
        *lock(&self.tx) = Some(tx);
    }
    pub fn close(&self) {
        *lock(&self.tx) = None;
    }
    pub fn add(&self, key: Key, node: Arc<Node>) {
        lock(&self.children).insert(key, node);
    }
    pub fn remove(&self, key: Key) {
        lock(&self.children).remove(&key);
    }
    pub fn key_of(&self, node: &Arc<Node>) -> Option<Key> {
        lock(&self.children).iter().find(|(_, n)| Arc::ptr_eq(n, node)).map(|(k, _)| *k)
    }
    /// False: the supervisor does not run.
    pub fn send(&self, event: In) -> bool {
        lock(&self.tx).as_ref().is_some_and(|tx| tx.send(event).is_ok())
    }
}
