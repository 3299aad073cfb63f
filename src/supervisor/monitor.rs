//! Monitors: whoever watches an incarnation is told of its end, exactly once, also when it is over already.

use super::actor::Message;
use super::cell::CellMeta;
use super::exit::Exit;
use super::shell::Recipient;
use crate::util::lock;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// The incarnation that was watched is over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Down {
    /// As it was named when the monitor was set: an address' path, or a place in the tree.
    pub path: String,
    /// The incarnation, as [`super::Cx::incarnation`] gave it. With [`Exit::NotRunning`]: the last that was there, 0
    /// for none.
    pub incarnation: u64,
    /// [`Exit::NotRunning`] if nothing ran when the monitor was set.
    pub reason: Exit,
}

impl Message for Down {
    type Reply = ();
}

/// The watchers of one actor. Lives in its cell, so that it outlives incarnations; each watcher is for one of them.
#[derive(Default)]
pub(super) struct Watchers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<u64>,
    next: u64,
    list: BTreeMap<u64, Watcher>,
}

impl State {
    fn enter(&mut self, watcher: Watcher) -> u64 {
        self.next += 1;
        self.list.insert(self.next, watcher);
        self.next
    }
}

/// Notices of one end that are still to be given.
pub(super) struct PendingDowns {
    incarnation: u64,
    reason: Exit,
    to: BTreeMap<u64, Watcher>,
}

impl PendingDowns {
    pub fn tell(self) {
        let PendingDowns { incarnation, reason, to } = self;
        for Watcher { path, to } in to.into_values() {
            to.deliver(Down { path, incarnation, reason: reason.clone() });
        }
    }
}

struct Watcher {
    path: String,
    to: Recipient<Down>,
}

impl Watchers {
    /// Starts an incarnation. Returns the Downs owed for a predecessor that never reported its end.
    #[must_use = "the watchers of the one before are to be told"]
    pub fn open(&self, incarnation: u64) -> PendingDowns {
        let mut state = lock(&self.state);
        let to = match state.live.replace(incarnation) {
            Some(before) => (before, std::mem::take(&mut state.list)),
            None => (0, BTreeMap::new()),
        };
        PendingDowns { incarnation: to.0, reason: Exit::Killed, to: to.1 }
    }

    /// That incarnation is over. Of several calls, by a given-up thread that wakes up for one, only the first counts.
    pub fn close(&self, incarnation: u64, reason: &Exit) {
        let to = {
            let mut state = lock(&self.state);
            if state.live != Some(incarnation) {
                return;
            }
            state.live = None;
            std::mem::take(&mut state.list)
        };
        PendingDowns { incarnation, reason: reason.clone(), to }.tell();
    }

    fn len(&self) -> usize {
        lock(&self.state).list.len()
    }
}

/// A monitor that is set. Dropping it takes it back: an incarnation that keeps its monitors in its state has none left
/// when it ends, as in OTP.
#[must_use = "dropping a monitor takes it back"]
pub struct Monitor {
    meta: Arc<CellMeta>,
    id: Option<u64>,
    /// For an actor of another process: what its carrier keeps as long as this.
    _far: Option<Box<dyn Send + Sync>>,
}

impl Monitor {
    pub(super) fn set(meta: &Arc<CellMeta>, path: String, to: Recipient<Down>) -> Monitor {
        let mut state = lock(&meta.watchers.state);
        if state.live.is_none() {
            drop(state);
            let incarnation = meta.epoch.load(Ordering::Relaxed);
            to.deliver(Down { path, incarnation, reason: Exit::NotRunning });
            return Monitor { meta: meta.clone(), id: None, _far: None };
        }
        Monitor { meta: meta.clone(), id: Some(state.enter(Watcher { path, to })), _far: None }
    }

    /// Monitors that incarnation; `None`: it is over, or was given up.
    pub(super) fn of(meta: &Arc<CellMeta>, incarnation: u64, to: Recipient<Down>) -> Option<Monitor> {
        let mut state = lock(&meta.watchers.state);
        let lives = state.live == Some(incarnation);
        let id = lives.then(|| state.enter(Watcher { path: meta.path.to_string(), to }));
        drop(state);
        Some(Monitor { meta: meta.clone(), id: Some(id?), _far: None })
    }

    pub(super) fn afar(meta: &Arc<CellMeta>, far: Box<dyn Send + Sync>) -> Monitor {
        Monitor { meta: meta.clone(), id: None, _far: Some(far) }
    }

    /// No [`Down`] is sent from now on; one that is on its way already still comes.
    pub fn demonitor(self) {}

    /// How many watch the same actor in this process now, this one included.
    pub fn watchers(&self) -> usize {
        self.meta.watchers.len()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            lock(&self.meta.watchers.state).list.remove(&id); // told already: gone from the list
        }
    }
}
