//! What the keeper does about one concern, each with an end that is an event of its phase.

use super::phase::Event;
use crate::node::net::Net;
use crate::node::seat::{Holding, Seat};
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

type Place = Arc<OnceLock<WeakTree>>;

/// The concern's supervisor, and its id there.
fn place(net: &Net, tree: &Place, seat: &Seat) -> Option<(Tree, SupervisorRef, String)> {
    let tree = tree.get().and_then(WeakTree::upgrade)?;
    let (group, id) = seat.concern.place(&net.miner);
    let supervisor = tree.supervisor(group)?;
    Some((tree, supervisor, id))
}

pub fn is_up(net: &Net, tree: &Place, seat: &Seat) -> bool {
    let (group, id) = seat.concern.place(&net.miner);
    let tree = tree.get().and_then(WeakTree::upgrade);
    tree.and_then(|tree| tree.info(&format!("{group}/{id}"))).is_some_and(|row| row.state == ActorState::Up)
}

/// Loads the concern's state under the lease, then starts its actor.
pub async fn enter(net: &Net, tree: &Place, seat: &Seat) -> Event {
    match entered(net, tree, seat).await {
        Ok(()) => {
            seat.failed(None);
            Event::Entered(true)
        }
        Err(why) => {
            let concern = seat.concern.name();
            // It is tried again and again: told once for each reason.
            match seat.failed(Some(why.clone())) {
                true => tracing::error!(concern, why, "does not run here: others may try"),
                false => tracing::debug!(concern, why, "does not run here still"),
            }
            Event::Entered(false)
        }
    }
}

async fn entered(net: &Net, tree: &Place, seat: &Seat) -> Result<(), String> {
    let holding = seat.holding().ok_or("its lease was given up meanwhile")?;
    let (concern, epoch) = (seat.concern.name(), holding.epoch());
    match load(&holding, &seat.path).await {
        Ok(Ok(state)) => tracing::info!(concern, epoch, ?state, "held here"),
        Ok(Err(error)) => return Err(format!("its state could not be loaded: {error}")),
        Err(panic) => return Err(format!("its state could not be loaded: {panic}")),
    }
    seat.open();
    let (_tree, supervisor, id) = place(net, tree, seat).ok_or("its part of the tree is not up")?;
    start(&supervisor, &id).await.map_err(|error| format!("it did not start: {error}"))
}

/// Reads the concern's state. A store that was out of reach until a moment ago is waited for: the lease is ours meanwhile.
async fn load(holding: &Arc<Holding>, path: &str) -> Result<crate::store::Result<Acquired>, JoinError> {
    let until = Instant::now() + LOAD_WITHIN;
    loop {
        let (holding_there, path) = (holding.clone(), path.to_string());
        // On a thread that may wait.
        let read = move || holding_there.store.acquire(&path, holding_there.epoch());
        let loaded = tokio::task::spawn_blocking(read).await;
        let again = matches!(loaded, Ok(Err(StoreError::Unreachable { .. }))) && holding.state() != LeaseState::Lost;
        if !again || Instant::now() >= until {
            return loaded;
        }
        tokio::time::sleep(LOAD_AGAIN).await;
    }
}

/// Its spec is there all the time; its start looks at the seat.
async fn start(supervisor: &SupervisorRef, id: &str) -> Result<(), AdminError> {
    match supervisor.restart_child(id).await {
        // Its group was restarted meanwhile, and it with it; or it is on its way up again.
        Err(AdminError::Running | AdminError::AlreadyStarted | AdminError::Restarting) => Ok(()),
        started => started,
    }
}

/// Stops its actor, in order. From a lost lease no effect may come any more, not even the last ones of an orderly stop.
pub async fn leave(net: &Net, tree: &Place, seat: &Seat, lost: bool) -> Event {
    seat.close();
    if lost {
        seat.halt();
    }
    let Some((_tree, supervisor, id)) = place(net, tree, seat) else {
        seat.halt();
        return Event::Left;
    };
    stop(&supervisor, &id, seat).await;
    seat.halt();
    // Its group may have been restarted in between, and it with it.
    if is_up(net, tree, seat) {
        stop(&supervisor, &id, seat).await;
    }
    // Its start passes now: the tree shows that it stands by, not that it was stopped.
    let _ = supervisor.restart_child(&id).await; // a group on its way down starts nothing
    tracing::info!(concern = seat.concern.name(), "not run here any more");
    Event::Left
}

async fn stop(supervisor: &SupervisorRef, id: &str, seat: &Seat) {
    match supervisor.try_terminate_child(id).await {
        // Without its supervisor it does not run either.
        Ok(()) | Err(AdminError::NotRunning | AdminError::NoSupervisor | AdminError::ShuttingDown) => {}
        Err(error) => tracing::warn!(concern = seat.concern.name(), %error, "could not be stopped"),
    }
}

/// Others may take it at once.
pub async fn release(seat: &Seat) -> Event {
    if let Some(holding) = seat.vacate() {
        let epoch = holding.epoch();
        // Whoever still looks at it drops it with the last look, which gives it back as well.
        if let Some(lease) = Arc::into_inner(holding).and_then(Holding::into_lease) {
            given_back(seat, epoch, lease.release()).await;
        }
    }
    Event::Released
}

/// What only the cluster knows of: acquired without an answer, or given back in vain. It is acquired, which takes up what is
/// ours already, and given back without having run.
pub async fn give_back(seat: &Seat, directory: &dyn Directory) -> Event {
    match directory.acquire(&seat.path).await {
        Ok(lease) => {
            let epoch = lease.epoch();
            tracing::warn!(concern = seat.concern.name(), epoch, "held by this node without its knowing: given back");
            given_back(seat, epoch, lease.release()).await;
        }
        Err(DirectoryError::Held { .. }) => {} // the view is late: it is another's already
        Err(error) => tracing::debug!(concern = seat.concern.name(), %error, "not given back yet"),
    }
    Event::Released
}

async fn given_back(seat: &Seat, epoch: u64, given: impl Future<Output = Result<(), DirectoryError>>) {
    match tokio::time::timeout(GIVE_BACK, given).await {
        Ok(Ok(())) => seat.ended_at(epoch, Instant::now()),
        // The next look finds it in the view, if it is still there.
        Ok(Err(error)) => tracing::warn!(concern = seat.concern.name(), %error, "a lease was not given back yet"),
        Err(_) => tracing::warn!(concern = seat.concern.name(), "a lease was not given back yet"),
    }
}
