//! A running tree: start, snapshot, control, stop.

use super::cell::ActorState;
use super::dead_letters::DeadLetters;
use super::engine::{AdminError, CallAnswer, ChildCounts, StartFailure, SupervisorCall};
use super::exit::StartError;
use super::exit::{Exit, install_hook};
pub use super::info::ActorInfo;
use super::info::TreeOptions;
use super::monitor::{Down, Monitor};
use super::node::TreeNode;
use super::shell::{ChildReport, Ctl, Drill, Recipient, Reporter, START_SPIN, may_linger, run_system, spin_then_wait};
use super::spec::{ChildSpec, SpecError, SupervisorSpec};
use super::supervise::{Control, SupervisorMsg, keep, open_supervisor};
use super::watchdog;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The running tree. Lives on threads of its own; usable from any runtime.
/// Dropping the handle does not stop it: [`Tree::shutdown`] does.
#[derive(Clone)]
pub struct Tree {
    inner: Arc<Inner>,
}

/// A tree's handle for what is itself a part of the tree: it does not keep the tree's memory, nor what its specs hold
/// (an open database), after the end.
#[derive(Clone)]
pub struct WeakTree {
    inner: Weak<Inner>,
}

impl WeakTree {
    pub fn upgrade(&self) -> Option<Tree> {
        self.inner.upgrade().map(|inner| Tree { inner })
    }
}

struct Inner {
    root: Arc<TreeNode>,
    ended: watch::Receiver<Option<Exit>>,
    letters: Arc<DeadLetters>,
    zombies: Arc<AtomicU64>,
    pulse: Arc<watchdog::Pulse>,
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{path} did not start: {why}")]
    Start { path: String, why: StartError },
    #[error("no threads for the tree: {0}")]
    Threads(#[from] std::io::Error),
}

impl Tree {
    /// Validates the whole spec, then starts the children in order; an error leaves nothing running.
    pub fn start(root: SupervisorSpec) -> Result<Tree, TreeError> {
        Tree::start_with(root, TreeOptions::default())
    }

    /// As [`Tree::start`]. Blocks the calling thread until all children are up or one failed to start.
    pub fn start_with(root: SupervisorSpec, options: TreeOptions) -> Result<Tree, TreeError> {
        install_hook();
        let root = TreeNode::root(root.compile("")?);
        let letters: Arc<DeadLetters> = Arc::default();
        let zombies: Arc<AtomicU64> = Arc::default();
        let pulse: Arc<watchdog::Pulse> = Arc::default();
        let (end, ended) = watch::channel(None);
        let (up, started) = std::sync::mpsc::channel::<Result<(), StartFailure>>();
        let (node, to) = (root.clone(), letters.clone());
        let hang_after = options.hang_after.unwrap_or(Duration::MAX);
        run_system("supervision", zombies.clone(), move |arbiters| async move {
            let (control, chores) = Control::new(arbiters, to, options);
            actix_rt::spawn(keep(chores));
            let (tx, mut rx) = mpsc::unbounded_channel();
            let tell = Arc::new(move |_, _, news| drop(tx.send(news)));
            let report = Reporter::new(tell, 0, 0, node.path.clone(), Arc::default());
            node.meta.set_state(ActorState::Starting);
            open_supervisor(control.clone(), node.clone(), report);
            let release = |node: &TreeNode| {
                node.meta.set_state(ActorState::Stopped);
                node.branch.iter().for_each(|b| b.def().children.iter().for_each(|child| child.release()));
            };
            let exit = loop {
                match rx.recv().await {
                    Some(ChildReport::Started) => drop(up.send(Ok(()))),
                    Some(ChildReport::NotStarted(why)) => {
                        let exit = Exit::Failed(format!("{} did not start: {}", why.path, why.why));
                        release(&node);
                        let _ = up.send(Err(why)); // `start_with` waits for it
                        break exit;
                    }
                    Some(ChildReport::Ignored) => {} // a supervisor always runs
                    Some(ChildReport::Down(exit)) => break exit,
                    None => break Exit::Killed,
                }
            };
            control.close();
            release(&node);
            let _ = end.send(Some(exit)); // nobody holds the tree any more
        })?;
        watchdog::run(root.clone(), ended.clone(), pulse.clone(), hang_after)?;
        let tree = Tree { inner: Arc::new(Inner { root, ended, letters, zombies, pulse }) };
        match started.recv() {
            Ok(Ok(())) => Ok(tree),
            Ok(Err(why)) => Err(TreeError::Start { path: why.path, why: StartError(why.why) }),
            Err(_) => Err(TreeError::Start {
                path: tree.inner.root.path.to_string(),
                why: StartError("the supervision thread ended during the start".into()),
            }),
        }
    }

    pub fn downgrade(&self) -> WeakTree {
        WeakTree { inner: Arc::downgrade(&self.inner) }
    }

    /// In tree order, parents first. Reads atomics and a snapshot only: answers when every arbiter hangs.
    pub fn snapshot(&self) -> Vec<ActorInfo> {
        let mut rows = Vec::new();
        self.inner.root.walk(&mut |node| rows.push(node.info()));
        rows
    }

    /// One row of [`Tree::snapshot`].
    pub fn info(&self, path: &str) -> Option<ActorInfo> {
        self.inner.root.find(path).map(|node| node.info())
    }

    /// Stops in reverse order, each child within its shutdown time.
    pub async fn shutdown(&self) -> Exit {
        if let Some(branch) = &self.inner.root.branch {
            branch.send(SupervisorMsg::Stop); // not running: it has ended already
        }
        self.wait().await
    }

    /// Completes when the root supervisor has ended: with [`Exit::Shutdown`] by [`Tree::shutdown`], with anything else
    /// because it could not go on (its restart budget is spent).
    pub async fn wait(&self) -> Exit {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Killed),
            Err(_) => Exit::Panicked("the supervision thread is gone".into()),
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Exit> {
        self.inner.ended.borrow().clone()
    }

    /// A supervisor by its tree path (`root/sealing/sectors`), for dynamic children.
    pub fn supervisor(&self, path: &str) -> Option<SupervisorRef> {
        self.inner.root.find(path)?.branch.as_ref()?;
        Some(SupervisorRef { root: Arc::downgrade(&self.inner.root), path: path.into() })
    }

    /// `to` gets one [`Down`] when the present incarnation of what is at that tree path ends, a supervisor's too, or at
    /// once when none runs. `None`: nothing is there.
    pub fn monitor(&self, path: &str, to: Recipient<Down>) -> Option<Monitor> {
        let node = self.inner.root.find(path)?;
        Some(Monitor::set(&node.meta, path.to_string(), to))
    }

    /// Ends the present incarnation of the actor at that tree path with [`Exit::Killed`]; its supervisor decides what follows.
    /// False: there is no such actor.
    pub fn kill(&self, path: &str) -> bool {
        self.with_parent(path, |id, _| {
            let (reply, _) = oneshot::channel();
            SupervisorMsg::Call(SupervisorCall::Kill { id: id.to_string() }, reply)
        })
    }

    /// A drill: the present incarnation panics inside its next turn, where a handler would; what follows is the real
    /// course of a panic. False: no worker runs there.
    pub fn panic(&self, path: &str) -> bool {
        self.drill(path, Drill::Panic)
    }

    /// A drill: the present incarnation keeps its thread, as a handler in an endless loop would, until the watchdog has
    /// found it, the thread was given up and a successor serves; then the thread comes back and ends. What else runs on
    /// that thread hangs with it. False: no worker runs there.
    pub fn hang(&self, path: &str) -> bool {
        self.drill(path, Drill::Hang)
    }

    fn drill(&self, path: &str, drill: Drill) -> bool {
        let runs = |row: ActorInfo| row.kind == "worker" && row.state == ActorState::Up;
        self.info(path).is_some_and(runs)
            && self.with_parent(path, |_, key| SupervisorMsg::Order { key, order: Ctl::Drill(drill) })
    }

    /// The actor begins no further message until [`Tree::resume`]; its queue fills.
    pub fn suspend(&self, path: &str) -> bool {
        self.with_parent(path, |_, key| SupervisorMsg::Suspend { key, suspend: true })
    }

    pub fn resume(&self, path: &str) -> bool {
        self.with_parent(path, |_, key| SupervisorMsg::Suspend { key, suspend: false })
    }

    pub(super) fn root(&self) -> &Arc<TreeNode> {
        &self.inner.root
    }

    pub(super) fn with_parent(&self, path: &str, event: impl FnOnce(&str, u64) -> SupervisorMsg) -> bool {
        let Some((above, id)) = path.rsplit_once('/') else { return false };
        let Some(parent) = self.inner.root.find(above) else { return false };
        let Some(branch) = &parent.branch else { return false };
        let Some(node) = self.inner.root.find(path) else { return false };
        let Some(key) = branch.key_of(&node) else { return false };
        branch.send(event(id, key))
    }

    pub fn dead_letters(&self) -> &DeadLetters {
        &self.inner.letters
    }

    /// Threads that were given up because an actor on them could not be killed, and that have not ended since.
    pub fn zombies(&self) -> u64 {
        self.inner.zombies.load(Ordering::Relaxed)
    }

    /// Grows four times a second while the watchdog lives.
    pub fn watchdog_ticks(&self) -> u64 {
        self.inner.pulse.ticks()
    }

    /// Since its last round, or since the start.
    pub fn watchdog_silence(&self) -> Duration {
        self.inner.pulse.silence()
    }
}

/// Why a supervisor goes on by its old spec.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Refused(#[from] AdminError),
}

/// A handle to one supervisor; stays valid across its restarts.
#[derive(Clone)]
pub struct SupervisorRef {
    /// Weak: what a tree's children hold of it must not keep it, and so themselves, in memory when it has ended.
    root: Weak<TreeNode>,
    path: Arc<str>,
}

impl SupervisorRef {
    pub fn path(&self) -> &str {
        &self.path
    }
    fn node(&self) -> Option<Arc<TreeNode>> {
        self.root.upgrade()?.find(&self.path)
    }

    /// Completes when the child is up, or has failed to start (its spec is forgotten then).
    pub async fn start_child(&self, child: ChildSpec) -> Result<(), StartError> {
        self.try_start_child(child).await.map_err(|why| StartError(why.to_string()))
    }
    /// As [`SupervisorRef::start_child`], for one whose start nobody waits for: a failed one is in the log only.
    pub fn begin_child(&self, child: ChildSpec) {
        match child.compile(&self.path) {
            Ok(def) => {
                let call = SupervisorCall::Start { id: def.id.clone(), rules: def.rules.clone(), payload: def };
                let (reply, _) = oneshot::channel();
                let node = self.node();
                if let Some(branch) = node.as_ref().and_then(|node| node.branch.as_ref()) {
                    branch.send(SupervisorMsg::Call(call, reply)); // it does not run: it shows nothing
                }
            }
            Err(why) => tracing::warn!(supervisor = %self.path, %why, "not started"),
        }
    }
    /// Completes when the child has ended. A dynamic supervisor forgets it, any other keeps its spec.
    pub async fn terminate_child(&self, id: &str) -> Result<(), StartError> {
        self.try_terminate_child(id).await.map_err(|why| StartError(why.to_string()))
    }

    /// As [`SupervisorRef::start_child`], with the reason as a type.
    pub async fn try_start_child(&self, child: ChildSpec) -> Result<(), AdminError> {
        let def = child.compile(&self.path).map_err(|why| AdminError::Start(why.to_string()))?;
        let call = SupervisorCall::Start { id: def.id.clone(), rules: def.rules.clone(), payload: def };
        self.call(call).await.map(drop)
    }
    pub async fn try_terminate_child(&self, id: &str) -> Result<(), AdminError> {
        self.call(SupervisorCall::Terminate { id: id.to_string() }).await.map(drop)
    }
    /// Starts a terminated child from its kept spec.
    pub async fn restart_child(&self, id: &str) -> Result<(), AdminError> {
        self.call(SupervisorCall::Restart { id: id.to_string() }).await.map(drop)
    }
    /// Stops a child in order and starts it again, whatever becomes of the caller; one that does not run is started.
    pub async fn renew_child(&self, id: &str) -> Result<(), AdminError> {
        self.call(SupervisorCall::Renew { id: id.to_string() }).await.map(drop)
    }
    /// Ends a child's present incarnation at once; the restart rule applies.
    pub async fn kill_child(&self, id: &str) -> Result<(), AdminError> {
        self.call(SupervisorCall::Kill { id: id.to_string() }).await.map(drop)
    }
    pub(super) fn is_dynamic(&self) -> bool {
        self.node().is_some_and(|n| n.branch.as_ref().is_some_and(|b| b.def().flags.dynamic.is_some()))
    }
    /// Forgets the spec of a child that does not run.
    pub async fn delete_child(&self, id: &str) -> Result<(), AdminError> {
        self.call(SupervisorCall::Delete { id: id.to_string() }).await.map(drop)
    }
    pub async fn count_children(&self) -> Result<ChildCounts, AdminError> {
        match self.call(SupervisorCall::Count).await? {
            CallAnswer::Count(counts) => Ok(counts),
            CallAnswer::Done | CallAnswer::Ignored | CallAnswer::Which(_) => Err(AdminError::NoSupervisor),
        }
    }
    /// Ids in start order, and whether each is up; `None` while it is being restarted.
    pub async fn which_children(&self) -> Result<Vec<(String, Option<bool>)>, AdminError> {
        match self.call(SupervisorCall::Which).await? {
            CallAnswer::Which(children) => Ok(children),
            CallAnswer::Done | CallAnswer::Ignored | CallAnswer::Count(_) => Err(AdminError::NoSupervisor),
        }
    }

    /// Goes on by another spec, of the same id, by OTP's rules for a code change: the flags count from now on; children
    /// that both specs name go on running and have the new one's rules from now on, its start from their next one;
    /// new children are there, but not started ([`SupervisorRef::restart_child`] does); those that it does not name run on.
    /// An error leaves everything as it was.
    pub async fn upgrade(&self, spec: SupervisorSpec) -> Result<(), UpgradeError> {
        let root = self.root.upgrade().ok_or(AdminError::NoSupervisor)?;
        let node = root.find(&self.path).ok_or(AdminError::NoSupervisor)?;
        let def = spec.compile_upgrade(&node, &|path| root.find(path))?;
        let (reply, answer) = oneshot::channel();
        if !node.branch.as_ref().is_some_and(|b| b.send(SupervisorMsg::Upgrade(def, reply))) {
            return Err(AdminError::NoSupervisor.into());
        }
        Ok(answer.await.unwrap_or(Err(AdminError::NoSupervisor)).map(drop)?)
    }

    async fn call(&self, call: SupervisorCall<Arc<super::spec::ChildDef>>) -> Result<CallAnswer, AdminError> {
        let node = self.node().ok_or(AdminError::NoSupervisor)?;
        let (reply, answer) = oneshot::channel();
        let sent = node.branch.as_ref().is_some_and(|b| b.send(SupervisorMsg::Call(call, reply)));
        if !sent {
            return Err(AdminError::NoSupervisor);
        }
        let answer = if may_linger() { spin_then_wait(answer, START_SPIN).await } else { answer.await };
        answer.unwrap_or(Err(AdminError::NoSupervisor))
    }
}
