//! The reconciler: watches the directory, holds the leases of what should run here, starts and stops it, and routes
//! every address to its actor.
//!
//! [`phase`] decides how one concern comes and goes, the directory's placement which ones should; this shell carries it
//! out. Its own end changes nothing of what runs: the slots have the leases, and the next incarnation finds them there.

mod compare;
#[cfg(test)]
mod model_tests;
pub mod phase;
pub mod routes;
mod work;

use super::concern::Concern;
use super::lease_slot::{HeldLease, LeaseSlot};
use crate::node::mailbox::MAILBOX;
use crate::rpc::bridge::Bridge;
use crate::rpc::directory::placement::{PlacementStep, Why, decide};
use crate::rpc::directory::{Directory, DirectoryError, Lease, View};
use crate::supervisor::{
    Actor, ActorState, ChildSpec, Cx, Exit, Handler, Message, Ref, Shutdown, StartError, Thread, WeakTree,
};
use compare::Seen;
use phase::{ConcernPhase, PhaseCommand, PhaseEvent};
use routes::ReconcilerDeps;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Leases are also checked this often, so an unproven one is noticed at most this late.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(250);
/// The pause after a failed acquisition, and after a concern that did not start here.
const ACQUIRE_RETRY: Duration = Duration::from_millis(500);
const ENTER_RETRY: Duration = Duration::from_secs(10);
/// A concern that came back from where it was to follow another is not sent there again for so long.
const FOLLOW_PAUSE: Duration = Duration::from_secs(600);
/// How long leaving the cluster may take; without it the leases expire.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

pub fn child(deps: ReconcilerDeps) -> ChildSpec {
    ChildSpec::actor("keeper", &Ref::new("/keeper", MAILBOX), move |_| {
        let deps = deps.clone();
        async move { Reconciler::start(deps) }
    })
    .on(Thread::Shared("net"))
    .shutdown(Shutdown::Timeout(Duration::from_secs(45)))
}

pub struct Reconciler {
    deps: ReconcilerDeps,
    bridge: Arc<Bridge>,
    directory: Arc<dyn Directory>,
    concerns: BTreeMap<Concern, ConcernState>,
    /// Commands that an earlier incarnation left half done.
    to_do: Vec<(Concern, PhaseCommand)>,
    routes: routes::Routes,
}

/// A concern that this node's roles allow.
struct ConcernState {
    slot: Arc<LeaseSlot>,
    /// The step under way; the slot says what is held.
    phase: ConcernPhase,
    /// Not wanted here before.
    not_before: Option<Instant>,
    /// When it last left to follow another.
    followed: Option<Instant>,
}

impl Reconciler {
    fn start(deps: ReconcilerDeps) -> Result<Reconciler, StartError> {
        let lacks = |what: &str| StartError(format!("{what} is not up"));
        let bridge = deps.net.bridge.load_full().ok_or_else(|| lacks("the bridge"))?;
        let directory = deps.net.directory.load_full().ok_or_else(|| lacks("the directory"))?.0.clone();
        let mut to_do = Vec::new();
        let mut tend = |slot: &Arc<LeaseSlot>| {
            let (phase, command) = found(&deps, slot);
            to_do.extend(command.map(|command| (slot.concern, command)));
            if phase == ConcernPhase::Running {
                slot.open(); // a leave that was cut short had closed it
            }
            (slot.concern, ConcernState { slot: slot.clone(), phase, not_before: None, followed: None })
        };
        let concerns = deps.slots.iter().map(&mut tend).collect();
        let routes = routes::Routes::new(&deps).map_err(|e| StartError(e.to_string()))?;
        Ok(Reconciler { deps, bridge, directory, concerns, to_do, routes })
    }

    fn me(&self) -> &str {
        &self.deps.net.settings.node
    }

    /// Compares the present state with the placement, and acts on the difference.
    fn reconcile(&mut self, view: &View, cx: &Cx<Self>) {
        let now = Instant::now();
        self.routes.follow(view, self.deps.net.settings.node.as_str(), &self.bridge);
        let leases: Vec<_> =
            self.concerns.iter().filter_map(|(c, t)| Some((*c, t.slot.held_lease()?.state()))).collect();
        for (concern, state) in leases {
            self.event(concern, PhaseEvent::Lease(state), cx);
        }
        if self.deps.tree.get().is_none() {
            return; // nothing can be started yet
        }
        self.agree(cx);
        for step in decide(view, self.me(), &self.deps.net.placement, now) {
            let path = step.concern();
            let holder = view.holders.get(path).filter(|holder| holder.node == self.me()).map(|holder| holder.epoch);
            let Some((concern, entry)) = self.concerns.iter_mut().find(|(_, entry)| entry.slot.path == *path) else {
                continue;
            };
            let seen = Seen {
                step,
                phase: entry.phase,
                row: holder,
                ended: entry.slot.ended(now),
                in_contact: view.in_contact,
            };
            let Some(event) = seen.event() else { continue };
            let early = entry.not_before.is_some_and(|at| now < at);
            match (event, &seen.step) {
                (PhaseEvent::Wanted | PhaseEvent::LeftOver, _) if early => continue,
                (PhaseEvent::Unwanted, PlacementStep::Release { why: Why::Beside { at }, .. }) => {
                    if entry.followed.is_some_and(|then| now < then + FOLLOW_PAUSE) {
                        continue;
                    }
                    entry.followed = Some(now);
                    tracing::info!(concern = concern.name(), to = at, "goes where what it belongs to is");
                }
                // Given back in vain, it is tried again after a while.
                (PhaseEvent::LeftOver, _) => entry.not_before = Some(now + ACQUIRE_RETRY),
                _ => {}
            }
            if seen.is_left_over() {
                tracing::debug!(concern = concern.name(), epoch = seen.row, "the cluster has this node for its holder");
            }
            let concern = *concern;
            self.event(concern, event, cx);
        }
    }

    /// Settles concerns at rest as their slots say, or begins them anew from there.
    fn agree(&mut self, cx: &Cx<Self>) {
        let apart = self.concerns.values().filter(|entry| !entry.phase.agrees(entry.slot.held()));
        for concern in apart.map(|entry| entry.slot.concern).collect::<Vec<_>>() {
            let Some(entry) = self.concerns.get_mut(&concern) else { continue };
            let (was, held) = (entry.phase, entry.slot.held());
            tracing::warn!(
                concern = concern.name(),
                ?was,
                ?held,
                "what is under way and what is held differ: looked anew"
            );
            let (phase, command) = found(&self.deps, &entry.slot);
            entry.phase = phase;
            if let Some(command) = command {
                self.carry_out(concern, command, cx);
            }
        }
    }

    fn event(&mut self, concern: Concern, event: PhaseEvent, cx: &Cx<Self>) {
        let Some(entry) = self.concerns.get_mut(&concern) else { return };
        let before = entry.phase;
        let (next, command) = before.step(concern.in_doubt(), event);
        entry.phase = next;
        if next != before {
            tracing::debug!(concern = concern.name(), ?before, ?event, ?next, "keeper");
        }
        if let Some(command) = command {
            self.carry_out(concern, command, cx);
        }
    }

    fn carry_out(&mut self, concern: Concern, command: PhaseCommand, cx: &Cx<Self>) {
        let Some(entry) = self.concerns.get_mut(&concern) else { return };
        let (net, tree, slot) = (self.deps.net.clone(), self.deps.tree.clone(), entry.slot.clone());
        let directory = self.directory.clone();
        match command {
            PhaseCommand::Acquire => {
                let path = slot.path.clone();
                cx.spawn(async move { Acquired(concern, directory.acquire(&path).await) });
            }
            PhaseCommand::Enter => cx.spawn(async move { Done(concern, work::enter(&net.miner, &tree, &slot).await) }),
            PhaseCommand::Leave => {
                let lost = entry.phase == ConcernPhase::Leaving(phase::Leave::Forget);
                cx.spawn(async move { Done(concern, work::leave(&net.miner, &tree, &slot, lost).await) });
            }
            PhaseCommand::Release => cx.spawn(async move { Done(concern, work::release(&slot).await) }),
            PhaseCommand::GiveBack => cx.spawn(async move { Done(concern, work::give_back(&slot, &*directory).await) }),
            PhaseCommand::Forget => {
                if let Some(lost) = slot.vacate() {
                    slot.ended_at(lost.epoch(), Instant::now());
                }
            }
        }
    }
}

/// The state of a concern of which only the slot and the tree are known.
fn found(deps: &ReconcilerDeps, slot: &LeaseSlot) -> (ConcernPhase, Option<PhaseCommand>) {
    let allowed = slot.held_lease().is_none_or(|held_lease| slot.concern.in_doubt().allows(held_lease.state()));
    ConcernPhase::found(slot.held(), work::is_up(&deps.net.miner, &deps.tree, slot), allowed)
}

/// The view has changed, or it is time.
struct Reconcile(watch::Receiver<Arc<View>>);
impl Message for Reconcile {
    type Reply = ();
}

struct Acquired(Concern, Result<Lease, DirectoryError>);
impl Message for Acquired {
    type Reply = ();
}

/// The result of a command.
struct Done(Concern, PhaseEvent);
impl Message for Done {
    type Reply = ();
}

impl Actor for Reconciler {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        for (concern, command) in std::mem::take(&mut self.to_do) {
            tracing::warn!(concern = concern.name(), "held here and not running: entered again");
            self.carry_out(concern, command, cx);
        }
        let view = self.directory.view();
        cx.spawn(async move { Reconcile(view) });
        Ok(())
    }

    /// With the node: everything is handed over now, instead of when the leases expire. Without it (a sibling is being
    /// restarted) all of it goes on.
    async fn stopping(&mut self, _: &Cx<Self>) {
        let tree = self.deps.tree.get().and_then(WeakTree::upgrade);
        let up = tree.and_then(|tree| tree.info("root/proving")).is_some_and(|row| row.state == ActorState::Up);
        if up {
            return;
        }
        for entry in self.concerns.values() {
            work::leave(&self.deps.net.miner, &self.deps.tree, &entry.slot, false).await;
            // The lease ends with the session, below; the store that it holds open is free at once.
            drop(entry.slot.vacate());
        }
        match tokio::time::timeout(LEAVE_TIMEOUT, self.directory.leave()).await {
            Ok(Ok(())) => tracing::info!(node = self.me(), "left the cluster"),
            Ok(Err(error)) => tracing::warn!(%error, "left without a word; the leases expire by themselves"),
            Err(_) => tracing::warn!("left without a word; the leases expire by themselves"),
        }
    }
}

impl Handler<Reconcile> for Reconciler {
    async fn handle(&mut self, Reconcile(mut feed): Reconcile, cx: &Cx<Self>) -> Result<(), Exit> {
        // A bridge that was held down comes up alone.
        if !self.deps.net.bridge.load().as_ref().is_some_and(|present| Arc::ptr_eq(present, &self.bridge)) {
            return Err(Exit::failed("the bridge was made anew, or is away"));
        }
        let view = feed.borrow_and_update().clone();
        self.reconcile(&view, cx);
        cx.spawn(async move {
            let _ = tokio::time::timeout(RECONCILE_INTERVAL, feed.changed()).await; // a change, or time
            Reconcile(feed)
        });
        Ok(())
    }
}

impl Handler<Acquired> for Reconciler {
    async fn handle(&mut self, Acquired(concern, result): Acquired, cx: &Cx<Self>) -> Result<(), Exit> {
        let store = self.deps.net.store(concern);
        let Some(entry) = self.concerns.get_mut(&concern) else { return Ok(()) };
        let held = match (result, store) {
            (Ok(lease), Some(store)) => {
                entry.slot.acquired(HeldLease::leased(lease, store));
                true
            }
            (Ok(_), None) => false,
            (Err(DirectoryError::Held { holder, .. }), _) => {
                tracing::debug!(concern = concern.name(), holder = holder.node, "taken by another");
                entry.slot.failed(None);
                false
            }
            (Err(error), _) => {
                let news = entry.slot.failed(Some(format!("its lease could not be had: {error}")));
                match error {
                    // At the start: the directory's actor tells the cluster of this node meanwhile, and says why when it cannot.
                    DirectoryError::NotRegistered { .. } => {
                        tracing::debug!(concern = concern.name(), %error, "too early for a lease")
                    }
                    _ if news => tracing::warn!(concern = concern.name(), %error, "the lease could not be had"),
                    _ => tracing::debug!(concern = concern.name(), %error, "the lease could not be had"),
                }
                false
            }
        };
        entry.not_before = (!held).then(|| Instant::now() + ACQUIRE_RETRY);
        self.event(concern, PhaseEvent::Acquired(held), cx);
        Ok(())
    }
}

impl Handler<Done> for Reconciler {
    async fn handle(&mut self, Done(concern, event): Done, cx: &Cx<Self>) -> Result<(), Exit> {
        if event == PhaseEvent::Entered(false)
            && let Some(entry) = self.concerns.get_mut(&concern)
        {
            entry.not_before = Some(Instant::now() + ENTER_RETRY);
        }
        self.event(concern, event, cx);
        Ok(())
    }
}
