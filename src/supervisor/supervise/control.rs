//! What the supervisors of a tree share, and the control thread's part: it keeps their deadlines.

use super::super::cell::{CellMeta, lock};
use super::super::dead_letters::DeadLetters;
use super::super::exit::Exit;
use super::super::fence::Tenure;
use super::super::shell::{Arbiters, Place};
use super::super::tree::TreeOptions;
use super::desk::Desk;
use super::{In, Supervisor};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// What the control thread is asked to do.
pub(in crate::supervisor) enum Chore {
    /// To send [`In::Tick`] then.
    Wake(Instant, Weak<Desk>),
    /// Many events have come: to work on in another thread's stead.
    GoOn(Arc<Desk>, Box<Supervisor>),
}

pub(in crate::supervisor) struct Control {
    pub arbiters: Arbiters,
    pub letters: Arc<DeadLetters>,
    epoch_base: u64,
    max_zombies: u64,
    /// Unbounded, because each supervisor's share is: it asks once for each earlier deadline than it will be woken at, and
    /// for one at a time to go on.
    chores: UnboundedSender<Chore>,
    /// The highest incarnation per address path: a token's epoch never repeats, whoever builds the address anew.
    incarnations: Mutex<HashMap<Arc<str>, u64>>,
    /// The root's first.
    desks: Mutex<Vec<Weak<Desk>>>,
}

impl Control {
    pub fn new(
        arbiters: Arbiters,
        letters: Arc<DeadLetters>,
        options: TreeOptions,
    ) -> (Arc<Control>, UnboundedReceiver<Chore>) {
        let (chores, asked) = mpsc::unbounded_channel();
        let control = Control {
            arbiters,
            letters,
            epoch_base: options.epoch_base,
            max_zombies: options.max_zombies,
            chores,
            incarnations: Mutex::default(),
            desks: Mutex::default(),
        };
        (Arc::new(control), asked)
    }

    pub(super) fn ask(&self, chore: Chore) {
        let _ = self.chores.send(chore); // the tree has ended
    }

    pub(super) fn enter(&self, desk: &Arc<Desk>) {
        let mut desks = lock(&self.desks);
        desks.retain(|desk| desk.upgrade().is_some_and(|desk| !desk.is_closed()));
        desks.push(Arc::downgrade(desk));
    }

    /// The supervisors that run.
    fn desks(&self) -> Vec<Arc<Desk>> {
        lock(&self.desks).iter().filter_map(Weak::upgrade).collect()
    }

    /// That thread is stuck for good. A process that has lost too many is better begun anew.
    pub(super) fn give_up(&self, place: &Place) {
        if let Some(zombies) = self.arbiters.give_up(place) // otherwise several actors ran there
            && zombies > self.max_zombies
            && let Some(root) = self.desks().first()
        {
            let why = format!("{zombies} threads are stuck for good, more than {}", self.max_zombies);
            root.send(In::Over(Exit::ShutdownWith(why))); // it has ended
        }
        for desk in self.desks() {
            desk.send(In::Lost { place: place.id }); // over: it has nobody there
        }
    }

    /// The epoch of the incarnation that is started now.
    pub(super) fn next_epoch(&self, meta: &CellMeta, tenure: Option<&Arc<dyn Tenure>>) -> u64 {
        let mut all = lock(&self.incarnations);
        let last = all.entry(meta.path.clone()).or_default();
        *last += 1;
        // After a start that chose not to run nothing is started again: this is the first that may run.
        let stood_by = matches!(meta.last_exit(), Some((Exit::Ignored, _)));
        if meta.incarnation.swap(*last, Ordering::AcqRel) != 0 && !stood_by {
            meta.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let epoch = tenure.map_or(self.epoch_base, |tenure| tenure.epoch_base()) + *last;
        // A tenure that counts anew from below: its earlier epochs are its own to refuse, and one that was given up then
        // says nothing of this one.
        if meta.given_up.load(Ordering::Acquire) >= epoch {
            meta.given_up.store(0, Ordering::Release);
        }
        meta.epoch.store(epoch, Ordering::Relaxed);
        *lock(&meta.tenure) = tenure.cloned();
        epoch
    }

    /// What is known of an address that is gone.
    pub(super) fn forget(&self, path: &str) {
        lock(&self.incarnations).remove(path);
    }

    /// The tree has ended: whoever is still there was given up by its own supervisor.
    pub fn close(&self) {
        self.desks().iter().for_each(|desk| desk.close());
    }
}

/// The control thread's loop.
pub(in crate::supervisor) async fn keep(mut asked: UnboundedReceiver<Chore>) {
    let mut alarms: BTreeMap<(Instant, u64), Weak<Desk>> = BTreeMap::new();
    let mut count = 0;
    loop {
        let next = alarms.keys().next().map(|(at, _)| *at);
        let chore = tokio::select! {
            biased;
            () = until(next) => {
                if let Some(((at, _), desk)) = alarms.pop_first()
                    && let Some(desk) = desk.upgrade()
                {
                    desk.send(In::Tick(at));
                }
                continue;
            }
            chore = asked.recv() => chore,
        };
        match chore {
            Some(Chore::Wake(at, desk)) => {
                count += 1;
                alarms.insert((at, count), desk);
            }
            Some(Chore::GoOn(desk, supervisor)) => desk.work(supervisor),
            None => return,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
