//! The tree as anyone may look at it: a node per child, changed by the supervisors, read under short locks only.

use super::cell::CellMeta;
use super::engine::Key;
use super::policy::Restart;
use super::spec::{Body, ChildDef, SupDef};
use super::supervise::{Combiner, SupervisorMsg};
use super::tree::ActorInfo;
use crate::util::lock;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) struct TreeNode {
    /// In the tree.
    pub path: Arc<str>,
    pub meta: Arc<CellMeta>,
    hang_after_ms: AtomicU64,
    /// A temporary child is forgotten when it ends.
    pub temporary: bool,
    /// True if its address is forgotten with it.
    pub fleeting: bool,
    /// For supervisors.
    pub branch: Option<Branch>,
}

pub(super) struct Branch {
    def: ArcSwap<SupDef>,
    /// The present incarnation of the supervisor.
    combiner: Mutex<Option<Arc<Combiner>>>,
    children: Mutex<BTreeMap<Key, Arc<TreeNode>>>,
    pub budget_used: AtomicUsize,
}

impl TreeNode {
    pub fn root(def: Arc<SupDef>) -> Arc<TreeNode> {
        let meta = Arc::new(CellMeta::new(def.path.as_str(), 0));
        Arc::new(TreeNode {
            path: def.path.as_str().into(),
            meta,
            hang_after_ms: AtomicU64::new(u64::MAX),
            temporary: false,
            fleeting: false,
            branch: Some(Branch::new(def)),
        })
    }

    pub fn hang_after(&self) -> Duration {
        Duration::from_millis(self.hang_after_ms.load(Ordering::Relaxed))
    }

    /// The spec that it runs by is another from now on.
    pub fn renew(&self, def: &ChildDef) {
        self.hang_after_ms.store(millis(def.hang_after), Ordering::Relaxed);
        if let (Some(branch), Body::Supervisor(sup)) = (&self.branch, &def.body) {
            branch.def.store(sup.clone());
        }
    }

    pub fn child(def: &ChildDef) -> Arc<TreeNode> {
        let branch = match &def.body {
            Body::Worker(_) => None,
            Body::Supervisor(sup) => Some(Branch::new(sup.clone())),
        };
        Arc::new(TreeNode {
            path: def.path.clone(),
            meta: def.meta.clone(),
            hang_after_ms: AtomicU64::new(millis(def.hang_after)),
            temporary: def.rules.restart == Restart::Temporary,
            fleeting: def.fleeting,
            branch,
        })
    }

    /// Parents first, siblings in start order.
    pub fn walk(self: &Arc<TreeNode>, see: &mut dyn FnMut(&Arc<TreeNode>)) {
        see(self);
        if let Some(branch) = &self.branch {
            for child in branch.children() {
                child.walk(see);
            }
        }
    }

    pub fn find(self: &Arc<TreeNode>, path: &str) -> Option<Arc<TreeNode>> {
        if *self.path == *path {
            return Some(self.clone());
        }
        let below = path.strip_prefix(&*self.path)?.strip_prefix('/')?;
        let id = below.split('/').next()?;
        let wanted = format!("{}/{id}", self.path);
        self.branch.as_ref()?.child(&wanted)?.find(path)
    }

    pub fn info(&self) -> ActorInfo {
        let meta = &self.meta;
        let last = meta.last_exit();
        let busy = meta.busy();
        let branch = self.branch.as_ref();
        let flags = branch.map(|b| b.def().flags.clone());
        ActorInfo {
            path: self.path.to_string(),
            kind: if branch.is_some() { "supervisor" } else { "worker" }.to_string(),
            state: meta.state(),
            incarnation: meta.incarnation.load(Ordering::Relaxed),
            restarts: meta.restarts.load(Ordering::Relaxed),
            mailbox_depth: meta.depth(),
            mailbox_bound: meta.bound,
            last_exit_at: last.as_ref().map(|(_, at)| *at),
            last_exit: last.map(|(exit, _)| exit),
            trouble: meta.trouble(),
            held: meta.held(),
            address: branch.is_none().then(|| meta.path.to_string()),
            epoch: meta.epoch.load(Ordering::Relaxed),
            thread: branch.is_none().then(|| meta.thread()),
            busy_message: busy.map(|(message, _)| message.to_string()),
            suspended: meta.vitals().is_some_and(|v| v.suspended.load(Ordering::Relaxed)),
            handle_times: branch.is_none().then(|| meta.handle_times.read()),
            busy_ms: busy.map(|(_, ms)| ms),
            strategy: flags.as_ref().map(|f| f.strategy),
            restart_budget_used: branch.map(|b| b.budget_used.load(Ordering::Relaxed)),
            restart_budget: flags.as_ref().map(|f| f.intensity),
            restart_period_ms: flags.map(|f| millis(f.period)),
        }
    }
}

impl Branch {
    fn new(def: Arc<SupDef>) -> Branch {
        let def = ArcSwap::new(def);
        Branch { def, combiner: Mutex::new(None), children: Mutex::default(), budget_used: AtomicUsize::new(0) }
    }
    /// The spec of its next incarnation.
    pub fn def(&self) -> Arc<SupDef> {
        self.def.load_full()
    }
    pub fn set_def(&self, def: Arc<SupDef>) {
        self.def.store(def);
    }
    /// The children have other keys now: `(old, new)`, in start order; `None` for those that `make` has yet to show.
    pub fn rekey(&self, keys: &[(Option<Key>, Key)], make: impl Fn(Key) -> Option<Arc<TreeNode>>) {
        let mut children = lock(&self.children);
        let mut before = std::mem::take(&mut *children);
        for (old, new) in keys {
            let node = old.and_then(|old| before.remove(&old)).or_else(|| make(*new));
            children.extend(node.map(|node| (*new, node)));
        }
    }
    pub fn children(&self) -> Vec<Arc<TreeNode>> {
        lock(&self.children).values().cloned().collect()
    }
    /// Finds a child by its place in the tree.
    pub fn child(&self, path: &str) -> Option<Arc<TreeNode>> {
        lock(&self.children).values().find(|child| *child.path == *path).cloned()
    }
    /// A new incarnation of the supervisor: its children are those of its spec again.
    pub fn open(&self, combiner: Arc<Combiner>) {
        lock(&self.children).clear();
        *lock(&self.combiner) = Some(combiner);
    }
    pub fn close(&self) {
        *lock(&self.combiner) = None;
    }
    pub fn add(&self, key: Key, node: Arc<TreeNode>) {
        lock(&self.children).insert(key, node);
    }
    pub fn remove(&self, key: Key) -> Option<Arc<TreeNode>> {
        lock(&self.children).remove(&key)
    }
    pub fn key_of(&self, node: &Arc<TreeNode>) -> Option<Key> {
        lock(&self.children).iter().find(|(_, n)| Arc::ptr_eq(n, node)).map(|(k, _)| *k)
    }
    /// False: the supervisor does not run.
    pub fn send(&self, event: SupervisorMsg) -> bool {
        self.combiner().is_some_and(|combiner| combiner.send(event))
    }
    /// The same for a thread that must not be held up by anything.
    pub fn hand_over(&self, event: SupervisorMsg) -> bool {
        self.combiner().is_some_and(|combiner| combiner.hand_over(event))
    }
    fn combiner(&self) -> Option<Arc<Combiner>> {
        lock(&self.combiner).clone()
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
