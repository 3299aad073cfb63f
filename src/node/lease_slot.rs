//! Whether this process holds a concern, and under which epoch: a slot per concern, the one place that says so. What is
//! started under it has its epoch, and its effects end with it; the bridge's gate and the tokens read it and keep no copy.

use super::concern::Concern;
use crate::rpc::bridge::HeldEpoch;
use crate::rpc::directory::{Lease, LeaseState};
use crate::store::Store;
use crate::supervisor::EpochSource;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Epochs of tokens are the lease's (or the boot's) in the upper half, the incarnation in the lower.
pub const EPOCH_SHIFT: u32 = 32;

/// The longest that the directory's view may show what has ended, while changes reach it.
const VIEW_LATE: Duration = Duration::from_secs(10);

/// The right to run a concern, and where its state is.
pub struct HeldLease {
    right: Right,
    pub store: Store,
}

enum Right {
    /// Nobody else could hold it: this node is the whole provider, in this boot.
    Sole {
        boot: u64,
    },
    Leased(Lease),
}

impl HeldLease {
    pub fn sole(boot: u64, store: Store) -> HeldLease {
        HeldLease { right: Right::Sole { boot }, store }
    }
    pub fn leased(lease: Lease, store: Store) -> HeldLease {
        HeldLease { right: Right::Leased(lease), store }
    }

    /// The lease's epoch; on a single node, the boot counter.
    pub fn epoch(&self) -> u64 {
        match &self.right {
            Right::Sole { boot } => *boot,
            Right::Leased(lease) => lease.epoch(),
        }
    }

    pub fn state(&self) -> LeaseState {
        match &self.right {
            Right::Sole { .. } => LeaseState::Proven,
            Right::Leased(lease) => lease.state(),
        }
    }

    /// To be given back; `None` for a node that is the whole provider.
    pub fn into_lease(self) -> Option<Lease> {
        match self.right {
            Right::Sole { .. } => None,
            Right::Leased(lease) => Some(lease),
        }
    }
}

/// How a concern is held in this process.
enum Hold {
    NotHeld,
    /// Nothing may run under it: its state is being loaded, or its lease is in doubt.
    Waiting(Arc<HeldLease>),
    /// Actors that start now start under it. `open`: other nodes may reach it.
    Running {
        held_lease: Arc<HeldLease>,
        open: bool,
    },
}

/// [`Hold`] without what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    No,
    Waiting,
    Running,
}

pub struct LeaseSlot {
    pub concern: Concern,
    /// The concern's logical path.
    pub path: String,
    hold: ArcSwap<Hold>,
    /// Epoch of the present or last holding; 0: there was none. Lower than an earlier one's after etcd was put back.
    epoch: AtomicU64,
    /// Epoch of the last holding that the cluster knows to have ended, and since when; `None`: none.
    ended: ArcSwapOption<(u64, Instant)>,
    /// Why it last could not be held or started here; `None` once it could.
    failure: ArcSwapOption<String>,
}

impl LeaseSlot {
    pub fn new(concern: Concern, path: String) -> LeaseSlot {
        LeaseSlot {
            concern,
            path,
            hold: ArcSwap::from_pointee(Hold::NotHeld),
            epoch: AtomicU64::new(0),
            ended: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
        }
    }

    pub fn held(&self) -> Held {
        match &**self.hold.load() {
            Hold::NotHeld => Held::No,
            Hold::Waiting(_) => Held::Waiting,
            Hold::Running { .. } => Held::Running,
        }
    }

    /// The lease that this process holds, whether anything may run under it or not.
    pub fn held_lease(&self) -> Option<Arc<HeldLease>> {
        match &**self.hold.load() {
            Hold::NotHeld => None,
            Hold::Waiting(held_lease) | Hold::Running { held_lease, .. } => Some(held_lease.clone()),
        }
    }

    /// Under what starts here now; `None`: nothing may.
    pub fn present(&self) -> Option<Arc<HeldLease>> {
        match &**self.hold.load() {
            Hold::Running { held_lease, .. } => Some(held_lease.clone()),
            Hold::NotHeld | Hold::Waiting(_) => None,
        }
    }

    /// It is ours; nothing runs under it yet.
    pub fn acquired(&self, held_lease: HeldLease) -> Arc<HeldLease> {
        let held_lease = Arc::new(held_lease);
        // The epoch that it got, not the highest: etcd counts anew from a lower one after it was put back.
        self.epoch.store(held_lease.epoch(), Ordering::Release);
        self.hold.store(Arc::new(Hold::Waiting(held_lease.clone())));
        held_lease
    }

    /// From now on what starts here starts under what is held, and other nodes may reach it.
    pub fn open(&self) {
        if let Some(held_lease) = self.held_lease() {
            self.hold.store(Arc::new(Hold::Running { held_lease, open: true }));
        }
    }

    /// Other nodes do not reach it any more; what runs goes on.
    pub fn close(&self) {
        if let Some(held_lease) = self.present() {
            self.hold.store(Arc::new(Hold::Running { held_lease, open: false }));
        }
    }

    /// From now on nothing starts here, and nothing that still runs may cause effects. It stays held.
    pub fn halt(&self) {
        if let Some(held_lease) = self.held_lease() {
            self.hold.store(Arc::new(Hold::Waiting(held_lease)));
        }
    }

    /// It is not held here any more. What was held is the caller's to give back.
    pub fn vacate(&self) -> Option<Arc<HeldLease>> {
        let held_lease = self.held_lease();
        self.hold.store(Arc::new(Hold::NotHeld));
        held_lease
    }

    /// The cluster knows that the holding of this epoch has ended.
    pub fn ended_at(&self, epoch: u64, now: Instant) {
        self.ended.store(Some(Arc::new((epoch, now))));
    }

    /// The epoch that a row of the directory may still show though its holding has ended; `None`: any row is true. The view
    /// is late for a moment at most; after that, the same epoch is another hold (etcd was put back).
    pub fn ended(&self, now: Instant) -> Option<u64> {
        self.ended.load().as_ref().filter(|ended| now < ended.1 + VIEW_LATE).map(|ended| ended.0)
    }

    /// True if that is news.
    pub fn failed(&self, why: Option<String>) -> bool {
        let before = self.failure.load();
        let news = before.as_deref() != why.as_ref();
        if news {
            self.failure.store(why.map(Arc::new));
        }
        news
    }

    /// See the field.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }
}

impl EpochSource for LeaseSlot {
    fn epoch_base(&self) -> u64 {
        self.epoch.load(Ordering::Acquire) << EPOCH_SHIFT
    }

    fn holds(&self, epoch: u64) -> bool {
        match &**self.hold.load() {
            Hold::NotHeld | Hold::Waiting(_) => false,
            Hold::Running { held_lease, .. } => {
                held_lease.epoch() == epoch >> EPOCH_SHIFT && self.concern.in_doubt().allows(held_lease.state())
            }
        }
    }
}

/// The bridge lets in who believes in the epoch that it is held under.
impl HeldEpoch for LeaseSlot {
    fn held_epoch(&self) -> u64 {
        match &**self.hold.load() {
            Hold::Running { held_lease, open: true } => held_lease.epoch(),
            Hold::NotHeld | Hold::Waiting(_) | Hold::Running { open: false, .. } => 0,
        }
    }
}

/// The slots of the concerns that this node's roles allow.
#[derive(Clone, Default)]
pub struct LeaseSlots(Arc<BTreeMap<Concern, Arc<LeaseSlot>>>);

impl LeaseSlots {
    pub fn new(slots: impl IntoIterator<Item = LeaseSlot>) -> LeaseSlots {
        LeaseSlots(Arc::new(slots.into_iter().map(|slot| (slot.concern, Arc::new(slot))).collect()))
    }

    /// `None`: not one of this node's.
    pub fn get(&self, concern: Concern) -> Option<&Arc<LeaseSlot>> {
        self.0.get(&concern)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<LeaseSlot>> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> (LeaseSlot, Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.redb")).unwrap();
        (LeaseSlot::new(Concern::WindowPost, "/t01000/window-post".into()), store, dir)
    }

    fn token(epoch: u64) -> u64 {
        (epoch << EPOCH_SHIFT) + 3
    }

    /// Tokens' base, what the bridge lets in, what may start: each from the one place.
    fn views(slot: &LeaseSlot) -> (Held, u64, u64, Option<u64>) {
        (slot.held(), slot.epoch_base() >> EPOCH_SHIFT, slot.held_epoch(), slot.present().map(|h| h.epoch()))
    }

    #[test]
    fn effects_end_with_the_holding() {
        let (slot, store, _dir) = slot();
        assert!(slot.present().is_none() && !slot.holds(token(0)) && slot.epoch_base() == 0);
        slot.acquired(HeldLease::sole(7, store.clone()));
        assert_eq!((views(&slot), slot.holds(token(7))), ((Held::Waiting, 7, 0, None), false), "not loaded yet");
        slot.open();
        assert_eq!((views(&slot), slot.holds(token(7))), ((Held::Running, 7, 7, Some(7)), true));
        assert!(!slot.holds(token(6)) && !slot.holds(token(8)));
        slot.close();
        assert_eq!((views(&slot), slot.holds(token(7))), ((Held::Running, 7, 0, Some(7)), true), "it is being stopped");
        slot.halt();
        assert_eq!((views(&slot), slot.holds(token(7))), ((Held::Waiting, 7, 0, None), false));
        slot.open();
        assert!(slot.holds(token(7)), "proven again");
        assert_eq!(slot.vacate().map(|held_lease| held_lease.epoch()), Some(7));
        assert_eq!((views(&slot), slot.holds(token(7))), ((Held::No, 7, 0, None), false), "a start in between passes");
        [LeaseSlot::open, LeaseSlot::close, LeaseSlot::halt].iter().for_each(|late| late(&slot));
        assert_eq!(views(&slot), (Held::No, 7, 0, None), "what is not held cannot be opened");
    }

    /// After etcd was put back, its revisions begin lower.
    #[test]
    fn the_epoch_is_the_one_that_was_got_also_where_it_is_lower_than_the_last() {
        let (slot, store, _dir) = slot();
        for epoch in [900, 41] {
            slot.acquired(HeldLease::sole(epoch, store.clone()));
            slot.open();
            assert_eq!(views(&slot), (Held::Running, epoch, epoch, Some(epoch)));
            assert!(slot.holds(slot.epoch_base() + 1), "what starts now may cause effects");
            slot.vacate();
        }
        assert!(!slot.holds(token(900)));
    }

    #[test]
    fn what_has_ended_explains_a_late_row_for_a_moment_only() {
        let (slot, ..) = slot();
        let now = Instant::now();
        assert_eq!(slot.ended(now), None);
        slot.ended_at(41, now);
        assert_eq!([now, now + VIEW_LATE / 2, now + VIEW_LATE].map(|at| slot.ended(at)), [Some(41), Some(41), None]);
    }

    #[test]
    fn a_failure_is_news_once() {
        let (slot, ..) = slot();
        let fails = |why: Option<&str>| slot.failed(why.map(str::to_string));
        assert_eq!([fails(None), fails(Some("x")), fails(Some("x")), fails(Some("y"))], [false, true, false, true]);
        assert_eq!((slot.failure().as_deref().map(String::as_str), fails(None)), (Some("y"), true));
        assert!(slot.failure().is_none());
    }
}
