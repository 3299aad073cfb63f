//! What the keeper does about one concern, each with an end that is an event of its phase.

use super::phase::Event;
use crate::node::net::Net;
use crate::node::seat::{Holding, Seat};
use crate::rpc::directory::LeaseState;
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
pub async fn enter(net: &Net, tree: &Place, seat: &Seat, holding: Arc<Holding>) -> Event {
    let (concern, epoch) = (seat.concern, holding.epoch);
    let loaded = load(&holding, &seat.path).await;
    match loaded {
        Ok(Ok(state)) => tracing::info!(concern = concern.name(), epoch, ?state, "held here"),
        Ok(Err(error)) => {
            tracing::error!(concern = concern.name(), %error, "its state could not be loaded: others may try");
            return Event::Entered(false);
        }
        Err(panic) => {
            tracing::error!(concern = concern.name(), %panic, "its state could not be loaded: others may try");
            return Event::Entered(false);
        }
    }
    seat.take(holding);
    net.gate(concern).set(epoch);
    let Some((_tree, supervisor, id)) = place(net, tree, seat) else { return Event::Entered(false) };
    match start(&supervisor, &id).await {
        Ok(()) => Event::Entered(true),
        Err(error) => {
            tracing::error!(concern = concern.name(), %error, "did not start here: others may try");
            Event::Entered(false)
        }
    }
}

/// Reads the concern's state. A store that was out of reach until a moment ago is waited for: the lease is ours meanwhile.
async fn load(holding: &Arc<Holding>, path: &str) -> Result<crate::store::Result<Acquired>, JoinError> {
    let until = Instant::now() + LOAD_WITHIN;
    loop {
        let (holding_there, path) = (holding.clone(), path.to_string());
        // On a thread that may wait.
        let read = move || holding_there.store.acquire(&path, holding_there.epoch);
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
    net.gate(seat.concern).set(0);
    if lost {
        seat.leave();
    }
    let Some((_tree, supervisor, id)) = place(net, tree, seat) else {
        seat.leave();
        return Event::Left;
    };
    stop(&supervisor, &id, seat).await;
    seat.leave();
    // Its group may have been restarted in between, and it with it.
    if is_up(net, tree, seat) {
        stop(&supervisor, &id, seat).await;
    }
    // Without the seat its start passes: the tree shows that it stands by, not that it was stopped.
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
pub async fn release(holding: Option<Arc<Holding>>) -> Event {
    // Whoever still looks at it drops it with the last look, which gives it back as well.
    if let Some(Holding { lease: Some(lease), .. }) = holding.and_then(Arc::into_inner)
        && let Ok(Err(error)) = tokio::time::timeout(GIVE_BACK, lease.release()).await
    {
        tracing::warn!(%error, "a lease was not given back; it expires by itself");
    }
    Event::Released
}
