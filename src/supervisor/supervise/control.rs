//! The state that the supervisors of a tree share, and the control thread's part: it keeps their deadlines.

use super::super::cell::CellMeta;
use super::super::dead_letters::DeadLetters;
use super::super::exit::Exit;
use super::super::fence::EpochSource;
use super::super::shell::{ArbiterSlot, Arbiters};
use super::super::tree::TreeOptions;
use super::combiner::Combiner;
use super::{Supervisor, SupervisorMsg};
use crate::util::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// A task for the control thread.
pub(in crate::supervisor) enum ControlTask {
    /// To send [`SupervisorMsg::Tick`] then.
    Wake(Instant, Weak<Combiner>),
    /// Many events have come: to work on in another thread's stead.
    GoOn(Arc<Combiner>, Box<Supervisor>),
}

pub(in crate::supervisor) struct Control {
    pub arbiters: Arbiters,
    pub letters: Arc<DeadLetters>,
    epoch_base: u64,
    max_zombies: u64,
    /// Unbounded, because each supervisor's share is: it asks once for each earlier deadline than it will be woken at, and
    /// for one at a time to go on.
    chores: UnboundedSender<ControlTask>,
    /// The highest incarnation per address path: a token's epoch never repeats, whoever builds the address anew.
    incarnations: Mutex<HashMap<Arc<str>, u64>>,
    /// The root's first.
    desks: Mutex<Vec<Weak<Combiner>>>,
}

impl Control {
    pub fn new(
        arbiters: Arbiters,
        letters: Arc<DeadLetters>,
        options: TreeOptions,
    ) -> (Arc<Control>, UnboundedReceiver<ControlTask>) {
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

    pub(super) fn ask(&self, chore: ControlTask) {
        let _ = self.chores.send(chore); // the tree has ended
    }

    pub(super) fn enter(&self, combiner: &Arc<Combiner>) {
        let mut desks = lock(&self.desks);
        desks.retain(|combiner| combiner.upgrade().is_some_and(|combiner| !combiner.is_closed()));
        desks.push(Arc::downgrade(combiner));
    }

    /// The supervisors that run.
    fn desks(&self) -> Vec<Arc<Combiner>> {
        lock(&self.desks).iter().filter_map(Weak::upgrade).collect()
    }

    /// That thread is stuck for good. A process that has lost too many is better begun anew.
    pub(super) fn give_up(&self, place: &ArbiterSlot) {
        if let Some(zombies) = self.arbiters.give_up(place) // otherwise several actors ran there
            && zombies > self.max_zombies
            && let Some(root) = self.desks().first()
        {
            let why = format!("{zombies} threads are stuck for good, more than {}", self.max_zombies);
            root.send(SupervisorMsg::Over(Exit::ShutdownWith(why))); // it has ended
        }
        for combiner in self.desks() {
            combiner.send(SupervisorMsg::Lost { place: place.id }); // over: it has nobody there
        }
    }

    /// The epoch of the incarnation that is started now.
    pub(super) fn next_epoch(&self, meta: &CellMeta, epoch_source: Option<&Arc<dyn EpochSource>>) -> u64 {
        let mut all = lock(&self.incarnations);
        let last = all.entry(meta.path.clone()).or_default();
        *last += 1;
        // After a start that chose not to run nothing is started again: this is the first that may run.
        let stood_by = matches!(meta.last_exit(), Some((Exit::Ignored, _)));
        if meta.incarnation.swap(*last, Ordering::AcqRel) != 0 && !stood_by {
            meta.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let epoch = epoch_source.map_or(self.epoch_base, |epoch_source| epoch_source.epoch_base()) + *last;
        // A tenure that counts anew from below: its earlier epochs are its own to refuse, and one that was given up then
        // says nothing of this one.
        if meta.given_up.load(Ordering::Acquire) >= epoch {
            meta.given_up.store(0, Ordering::Release);
        }
        meta.epoch.store(epoch, Ordering::Relaxed);
        *lock(&meta.epoch_source) = epoch_source.cloned();
        epoch
    }

    /// Drops the records of an address that is gone.
    pub(super) fn forget(&self, path: &str) {
        lock(&self.incarnations).remove(path);
    }

    /// The tree has ended: whoever is still there was given up by its own supervisor.
    pub fn close(&self) {
        self.desks().iter().for_each(|combiner| combiner.close());
    }
}

/// The control thread's loop.
pub(in crate::supervisor) async fn keep(mut asked: UnboundedReceiver<ControlTask>) {
    let mut alarms: BTreeMap<(Instant, u64), Weak<Combiner>> = BTreeMap::new();
    let mut count = 0;
    loop {
        let next = alarms.keys().next().map(|(at, _)| *at);
        let chore = tokio::select! {
            biased;
            () = until(next) => {
                if let Some(((at, _), combiner)) = alarms.pop_first()
                    && let Some(combiner) = combiner.upgrade()
                {
                    combiner.send(SupervisorMsg::Tick(at));
                }
                continue;
            }
            chore = asked.recv() => chore,
        };
        match chore {
            Some(ControlTask::Wake(at, combiner)) => {
                count += 1;
                alarms.insert((at, count), combiner);
            }
            Some(ControlTask::GoOn(combiner, supervisor)) => combiner.work(supervisor),
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
