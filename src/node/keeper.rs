//! The keeper: watches the directory, holds the leases of what should run here, starts and stops it, and leads every
//! address to where its actor is.
//!
//! [`phase`] decides how one concern comes and goes, the directory's placement which ones should; this shell carries it
//! out. Its own end changes nothing of what runs: the seats have the leases, and the next incarnation finds them there.

mod look;
#[cfg(test)]
mod model_tests;
pub mod phase;
mod routes;
mod work;

use super::concern::Concern;
use super::net::Net;
use super::refs::{MAILBOX, Refs};
use super::seat::{Holding, Seat, Seats};
use super::shards::Shards;
use crate::rpc::bridge::Bridge;
use crate::rpc::directory::placement::{Step, Why, decide};
use crate::rpc::directory::{Directory, DirectoryError, Lease, View};
use crate::supervisor::{
    Actor, ActorState, ChildSpec, Cx, Exit, Handler, Message, Ref, Shutdown, StartError, Thread, WeakTree,
};
use look::Seen;
use phase::{Command, Event, Phase};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Leases are looked at this often besides every change of the view: the longest that an unproven one goes unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a lease that could not be had, and after a concern that did not start here.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// A concern that came back from where it was to follow another is not sent there again for so long.
const FOLLOW_AGAIN: Duration = Duration::from_secs(600);
/// Saying goodbye to the cluster; without it the leases expire.
const GOODBYE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct KeeperDeps {
    pub net: Arc<Net>,
    pub refs: Refs,
    pub seats: Seats,
    pub shards: Arc<Shards>,
    /// Known once the tree has started.
    pub tree: Arc<OnceLock<WeakTree>>,
}

pub fn child(deps: KeeperDeps) -> ChildSpec {
    ChildSpec::actor("keeper", &Ref::new("/keeper", MAILBOX), move |_| {
        let deps = deps.clone();
        async move { Keeper::start(deps) }
    })
    .on(Thread::Shared("net"))
    .shutdown(Shutdown::Timeout(Duration::from_secs(45)))
}

pub struct Keeper {
    deps: KeeperDeps,
    bridge: Arc<Bridge>,
    directory: Arc<dyn Directory>,
    concerns: BTreeMap<Concern, Tended>,
    /// What an earlier incarnation left half done.
    to_do: Vec<(Concern, Command)>,
    routes: routes::Routes,
}

/// A concern that this node's roles allow.
struct Tended {
    seat: Arc<Seat>,
    /// What is under way about it; what is held is the seat's to say.
    phase: Phase,
    /// Not wanted here before.
    not_before: Option<Instant>,
    /// When it last left to follow another.
    followed: Option<Instant>,
}

impl Keeper {
    fn start(deps: KeeperDeps) -> Result<Keeper, StartError> {
        let lacks = |what: &str| StartError(format!("{what} is not up"));
        let bridge = deps.net.bridge.load_full().ok_or_else(|| lacks("the bridge"))?;
        let directory = deps.net.directory.load_full().ok_or_else(|| lacks("the directory"))?.0.clone();
        let mut to_do = Vec::new();
        let mut tend = |seat: &Arc<Seat>| {
            let (phase, command) = found(&deps, seat);
            to_do.extend(command.map(|command| (seat.concern, command)));
            if phase == Phase::Seated {
                seat.open(); // a leave that was cut short had closed it
            }
            (seat.concern, Tended { seat: seat.clone(), phase, not_before: None, followed: None })
        };
        let concerns = deps.seats.iter().map(&mut tend).collect();
        let routes = routes::Routes::new(&deps);
        Ok(Keeper { deps, bridge, directory, concerns, to_do, routes })
    }

    fn me(&self) -> &str {
        &self.deps.net.settings.node
    }

    /// Compares what is with what should be.
    fn look(&mut self, view: &View, cx: &Cx<Self>) {
        let now = Instant::now();
        self.routes.follow(view, self.deps.net.settings.node.as_str(), &self.bridge);
        let leases: Vec<_> = self.concerns.iter().filter_map(|(c, t)| Some((*c, t.seat.holding()?.state()))).collect();
        for (concern, state) in leases {
            self.event(concern, Event::Lease(state), cx);
        }
        if self.deps.tree.get().is_none() {
            return; // nothing can be started yet
        }
        self.agree(cx);
        for step in decide(view, self.me(), &self.deps.net.placement, now) {
            let path = step.concern();
            let holder = view.holders.get(path).filter(|holder| holder.node == self.me()).map(|holder| holder.epoch);
            let Some((concern, tended)) = self.concerns.iter_mut().find(|(_, tended)| tended.seat.path == *path) else {
                continue;
            };
            let seen = Seen {
                step,
                phase: tended.phase,
                row: holder,
                ended: tended.seat.ended(now),
                in_contact: view.in_contact,
            };
            let Some(event) = seen.event() else { continue };
            let early = tended.not_before.is_some_and(|at| now < at);
            match (event, &seen.step) {
                (Event::Wanted | Event::LeftOver, _) if early => continue,
                (Event::Unwanted, Step::Release { why: Why::Beside { at }, .. }) => {
                    if tended.followed.is_some_and(|then| now < then + FOLLOW_AGAIN) {
                        continue;
                    }
                    tended.followed = Some(now);
                    tracing::info!(concern = concern.name(), to = at, "goes where what it belongs to is");
                }
                // Given back in vain, it is tried again after a while.
                (Event::LeftOver, _) => tended.not_before = Some(now + ASK_AGAIN),
                _ => {}
            }
            if seen.is_left_over() {
                tracing::debug!(concern = concern.name(), epoch = seen.row, "the cluster has this node for its holder");
            }
            let concern = *concern;
            self.event(concern, event, cx);
        }
    }

    /// What rests here rests as its seat says, or is begun anew from there.
    fn agree(&mut self, cx: &Cx<Self>) {
        let apart = self.concerns.values().filter(|tended| !tended.phase.agrees(tended.seat.held()));
        for concern in apart.map(|tended| tended.seat.concern).collect::<Vec<_>>() {
            let Some(tended) = self.concerns.get_mut(&concern) else { continue };
            let (was, held) = (tended.phase, tended.seat.held());
            tracing::warn!(
                concern = concern.name(),
                ?was,
                ?held,
                "what is under way and what is held differ: looked anew"
            );
            let (phase, command) = found(&self.deps, &tended.seat);
            tended.phase = phase;
            if let Some(command) = command {
                self.carry_out(concern, command, cx);
            }
        }
    }

    fn event(&mut self, concern: Concern, event: Event, cx: &Cx<Self>) {
        let Some(tended) = self.concerns.get_mut(&concern) else { return };
        let before = tended.phase;
        let (next, command) = before.step(concern.in_doubt(), event);
        tended.phase = next;
        if next != before {
            tracing::debug!(concern = concern.name(), ?before, ?event, ?next, "keeper");
        }
        if let Some(command) = command {
            self.carry_out(concern, command, cx);
        }
    }

    fn carry_out(&mut self, concern: Concern, command: Command, cx: &Cx<Self>) {
        let Some(tended) = self.concerns.get_mut(&concern) else { return };
        let (net, tree, seat) = (self.deps.net.clone(), self.deps.tree.clone(), tended.seat.clone());
        let directory = self.directory.clone();
        match command {
            Command::Acquire => {
                let path = seat.path.clone();
                cx.spawn(async move { Acquired(concern, directory.acquire(&path).await) });
            }
            Command::Enter => cx.spawn(async move { Done(concern, work::enter(&net, &tree, &seat).await) }),
            Command::Leave => {
                let lost = tended.phase == Phase::Leaving(phase::Leave::Forget);
                cx.spawn(async move { Done(concern, work::leave(&net, &tree, &seat, lost).await) });
            }
            Command::Release => cx.spawn(async move { Done(concern, work::release(&seat).await) }),
            Command::GiveBack => cx.spawn(async move { Done(concern, work::give_back(&seat, &*directory).await) }),
            Command::Forget => {
                if let Some(lost) = seat.vacate() {
                    seat.ended_at(lost.epoch(), Instant::now());
                }
            }
        }
    }
}

/// Where a concern stands of which only the seat and the tree are known.
fn found(deps: &KeeperDeps, seat: &Seat) -> (Phase, Option<Command>) {
    let allowed = seat.holding().is_none_or(|holding| seat.concern.in_doubt().allows(holding.state()));
    Phase::found(seat.held(), work::is_up(&deps.net, &deps.tree, seat), allowed)
}

/// The view has changed, or it is time.
struct Look(watch::Receiver<Arc<View>>);
impl Message for Look {
    type Reply = ();
}

struct Acquired(Concern, Result<Lease, DirectoryError>);
impl Message for Acquired {
    type Reply = ();
}

/// What came of a command.
struct Done(Concern, Event);
impl Message for Done {
    type Reply = ();
}

impl Actor for Keeper {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        for (concern, command) in std::mem::take(&mut self.to_do) {
            tracing::warn!(concern = concern.name(), "held here and not running: entered again");
            self.carry_out(concern, command, cx);
        }
        let view = self.directory.view();
        cx.spawn(async move { Look(view) });
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
        for tended in self.concerns.values() {
            work::leave(&self.deps.net, &self.deps.tree, &tended.seat, false).await;
        }
        match tokio::time::timeout(GOODBYE, self.directory.leave()).await {
            Ok(Ok(())) => tracing::info!(node = self.me(), "left the cluster"),
            Ok(Err(error)) => tracing::warn!(%error, "left without a word; the leases expire by themselves"),
            Err(_) => tracing::warn!("left without a word; the leases expire by themselves"),
        }
    }
}

impl Handler<Look> for Keeper {
    async fn handle(&mut self, Look(mut feed): Look, cx: &Cx<Self>) -> Result<(), Exit> {
        // A bridge that was held down comes up alone.
        if !self.deps.net.bridge.load().as_ref().is_some_and(|present| Arc::ptr_eq(present, &self.bridge)) {
            return Err(Exit::failed("the bridge was made anew, or is away"));
        }
        let view = feed.borrow_and_update().clone();
        self.look(&view, cx);
        cx.spawn(async move {
            let _ = tokio::time::timeout(LOOK_EVERY, feed.changed()).await; // a change, or time
            Look(feed)
        });
        Ok(())
    }
}

impl Handler<Acquired> for Keeper {
    async fn handle(&mut self, Acquired(concern, result): Acquired, cx: &Cx<Self>) -> Result<(), Exit> {
        let store = self.deps.net.store(concern);
        let Some(tended) = self.concerns.get_mut(&concern) else { return Ok(()) };
        let held = match (result, store) {
            (Ok(lease), Some(store)) => {
                tended.seat.acquired(Holding::leased(lease, store));
                true
            }
            (Ok(_), None) => false,
            (Err(DirectoryError::Held { holder, .. }), _) => {
                tracing::debug!(concern = concern.name(), holder = holder.node, "taken by another");
                tended.seat.failed(None);
                false
            }
            (Err(error), _) => {
                let news = tended.seat.failed(Some(format!("its lease could not be had: {error}")));
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
        tended.not_before = (!held).then(|| Instant::now() + ASK_AGAIN);
        self.event(concern, Event::Acquired(held), cx);
        Ok(())
    }
}

impl Handler<Done> for Keeper {
    async fn handle(&mut self, Done(concern, event): Done, cx: &Cx<Self>) -> Result<(), Exit> {
        if event == Event::Entered(false)
            && let Some(tended) = self.concerns.get_mut(&concern)
        {
            tended.not_before = Some(Instant::now() + TRY_AGAIN);
        }
        self.event(concern, event, cx);
        Ok(())
    }
}
