//! The work behind each command about a concern; each ends with an event of its phase.

use super::phase::PhaseEvent;
use crate::chain::Address;
use crate::node::lease_slot::{HeldLease, LeaseSlot};
use crate::rpc::directory::{Directory, DirectoryError, LeaseState};
use crate::store::{Acquired, StoreError};
use crate::supervisor::{ActorState, AdminError, SupervisorRef, Tree, WeakTree};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinError;

/// Giving a lease back is one call; without it the lease expires.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// How long the cluster's store may be out of reach before another node may try.
const LOAD_WITHIN: Duration = Duration::from_secs(10);
const LOAD_AGAIN: Duration = Duration::from_millis(300);

type TreeCell = Arc<OnceLock<WeakTree>>;

/// The concern's supervisor, and its id there.
fn place(miner: &Address, tree: &TreeCell, slot: &LeaseSlot) -> Option<(Tree, SupervisorRef, String)> {
    let tree = tree.get().and_then(WeakTree::upgrade)?;
    let (group, id) = slot.concern.place(miner);
    let supervisor = tree.supervisor(group)?;
    Some((tree, supervisor, id))
}

pub fn is_up(miner: &Address, tree: &TreeCell, slot: &LeaseSlot) -> bool {
    let (group, id) = slot.concern.place(miner);
    let tree = tree.get().and_then(WeakTree::upgrade);
    tree.and_then(|tree| tree.info(&format!("{group}/{id}"))).is_some_and(|row| row.state == ActorState::Up)
}

/// Loads the concern's state under the lease, then starts its actor.
pub async fn enter(miner: &Address, tree: &TreeCell, slot: &LeaseSlot) -> PhaseEvent {
    match entered(miner, tree, slot).await {
        Ok(()) => {
            slot.failed(None);
            PhaseEvent::Entered(true)
        }
        Err(why) => {
            let concern = slot.concern.name();
            // It is tried again and again: told once for each reason.
            match slot.failed(Some(why.clone())) {
                true => tracing::error!(concern, why, "does not run here: others may try"),
                false => tracing::debug!(concern, why, "does not run here still"),
            }
            PhaseEvent::Entered(false)
        }
    }
}

async fn entered(miner: &Address, tree: &TreeCell, slot: &LeaseSlot) -> Result<(), String> {
    let held_lease = slot.held_lease().ok_or("its lease was given up meanwhile")?;
    let (concern, epoch) = (slot.concern.name(), held_lease.epoch());
    match load(&held_lease, &slot.path).await {
        Ok(Ok(state)) => tracing::info!(concern, epoch, ?state, "held here"),
        Ok(Err(error)) => return Err(format!("its state could not be loaded: {error}")),
        Err(panic) => return Err(format!("its state could not be loaded: {panic}")),
    }
    slot.open();
    let (_tree, supervisor, id) = place(miner, tree, slot).ok_or("its part of the tree is not up")?;
    start(&supervisor, &id).await.map_err(|error| format!("it did not start: {error}"))?;
    for (supervisor, id) in companions(tree, slot) {
        // Held down by its group until it can start: the concern runs without it.
        if let Err(error) = start(&supervisor, id).await {
            tracing::warn!(concern, companion = id, %error, "did not start beside it");
        }
    }
    Ok(())
}

/// Further actors under the concern's lease.
fn companions(tree: &TreeCell, slot: &LeaseSlot) -> Vec<(SupervisorRef, &'static str)> {
    let Some(tree) = tree.get().and_then(WeakTree::upgrade) else { return Vec::new() };
    let of = |(group, id): &(&str, &'static str)| Some((tree.supervisor(group)?, *id));
    slot.concern.companions().iter().filter_map(of).collect()
}

/// Reads the concern's state. A store that was out of reach until a moment ago is waited for: the lease is ours meanwhile.
async fn load(held_lease: &Arc<HeldLease>, path: &str) -> Result<crate::store::Result<Acquired>, JoinError> {
    let until = Instant::now() + LOAD_WITHIN;
    loop {
        let (holding_there, path) = (held_lease.clone(), path.to_string());
        // On a thread that may wait.
        let read = move || holding_there.store.acquire(&path, holding_there.epoch());
        let loaded = tokio::task::spawn_blocking(read).await;
        let again = matches!(loaded, Ok(Err(StoreError::Unreachable { .. }))) && held_lease.state() != LeaseState::Lost;
        if !again || Instant::now() >= until {
            return loaded;
        }
        tokio::time::sleep(LOAD_AGAIN).await;
    }
}

/// Its spec is there all the time; its start looks at the slot.
async fn start(supervisor: &SupervisorRef, id: &str) -> Result<(), AdminError> {
    match supervisor.restart_child(id).await {
        // Its group was restarted meanwhile, and it with it; or it is on its way up again.
        Err(AdminError::Running | AdminError::AlreadyStarted | AdminError::Restarting) => Ok(()),
        started => started,
    }
}

/// Stops its actor, in order. From a lost lease no effect may come any more, not even the last ones of an orderly stop.
pub async fn leave(miner: &Address, tree: &TreeCell, slot: &LeaseSlot, lost: bool) -> PhaseEvent {
    slot.close();
    if lost {
        slot.halt();
    }
    for (supervisor, id) in companions(tree, slot) {
        stop(&supervisor, id, slot).await;
    }
    let Some((_tree, supervisor, id)) = place(miner, tree, slot) else {
        slot.halt();
        return PhaseEvent::Left;
    };
    stop(&supervisor, &id, slot).await;
    slot.halt();
    // A group may have been restarted in between, and its part of this with it.
    if is_up(miner, tree, slot) {
        stop(&supervisor, &id, slot).await;
    }
    for (supervisor, id) in companions(tree, slot) {
        stop(&supervisor, id, slot).await;
    }
    // Its start passes now: the tree shows that it stands by, not that it was stopped.
    let _ = supervisor.restart_child(&id).await; // a group on its way down starts nothing
    for (supervisor, id) in companions(tree, slot) {
        let _ = supervisor.restart_child(id).await;
    }
    tracing::info!(concern = slot.concern.name(), "not run here any more");
    PhaseEvent::Left
}

async fn stop(supervisor: &SupervisorRef, id: &str, slot: &LeaseSlot) {
    match supervisor.try_terminate_child(id).await {
        // Without its supervisor it does not run either.
        Ok(()) | Err(AdminError::NotRunning | AdminError::NoSupervisor | AdminError::ShuttingDown) => {}
        Err(error) => tracing::warn!(concern = slot.concern.name(), %error, "could not be stopped"),
    }
}

/// Others may take it at once.
pub async fn release(slot: &LeaseSlot) -> PhaseEvent {
    if let Some(held_lease) = slot.vacate() {
        let epoch = held_lease.epoch();
        // Whoever still looks at it drops it with the last look, which gives it back as well.
        if let Some(lease) = Arc::into_inner(held_lease).and_then(HeldLease::into_lease) {
            given_back(slot, epoch, lease.release()).await;
        }
    }
    PhaseEvent::Released
}

/// Gives back a lease that only the cluster knows of: acquired without an answer, or given back in vain. It is
/// acquired, which takes up what is ours already, and given back without having run.
pub async fn give_back(slot: &LeaseSlot, directory: &dyn Directory) -> PhaseEvent {
    match directory.acquire(&slot.path).await {
        Ok(lease) => {
            let epoch = lease.epoch();
            tracing::warn!(concern = slot.concern.name(), epoch, "held by this node without its knowing: given back");
            given_back(slot, epoch, lease.release()).await;
        }
        Err(DirectoryError::Held { .. }) => {} // the view is late: it is another's already
        Err(error) => tracing::debug!(concern = slot.concern.name(), %error, "not given back yet"),
    }
    PhaseEvent::Released
}

async fn given_back(slot: &LeaseSlot, epoch: u64, given: impl Future<Output = Result<(), DirectoryError>>) {
    match tokio::time::timeout(GIVE_BACK, given).await {
        Ok(Ok(())) => slot.ended_at(epoch, Instant::now()),
        // The next look finds it in the view, if it is still there.
        Ok(Err(error)) => tracing::warn!(concern = slot.concern.name(), %error, "a lease was not given back yet"),
        Err(_) => tracing::warn!(concern = slot.concern.name(), "a lease was not given back yet"),
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
