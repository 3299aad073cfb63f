//! Whether this process holds a concern, and under which epoch: a seat per concern, the one place that says so. What is
//! started under it has its epoch, and its effects end with it; the bridge's gate and the tokens read it and keep no copy.

use super::concern::Concern;
use crate::rpc::bridge::HeldEpoch;
use crate::rpc::directory::{Lease, LeaseState};
use crate::store::Store;
use crate::supervisor::Tenure;
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
pub struct Holding {
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

impl Holding {
    pub fn sole(boot: u64, store: Store) -> Holding {
        Holding { right: Right::Sole { boot }, store }
    }
    pub fn leased(lease: Lease, store: Store) -> Holding {
        Holding { right: Right::Leased(lease), store }
    }

    /// Of the lease; of the boot, for a node that is the whole provider.
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
    Waiting(Arc<Holding>),
    /// What starts now starts under it. `open`: other nodes may reach it.
    Running {
        holding: Arc<Holding>,
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

pub struct Seat {
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

impl Seat {
    pub fn new(concern: Concern, path: String) -> Seat {
        Seat {
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

    /// What this process holds, whether anything may run under it or not.
    pub fn holding(&self) -> Option<Arc<Holding>> {
        match &**self.hold.load() {
            Hold::NotHeld => None,
            Hold::Waiting(holding) | Hold::Running { holding, .. } => Some(holding.clone()),
        }
    }

    /// Under what starts here now; `None`: nothing may.
    pub fn present(&self) -> Option<Arc<Holding>> {
        match &**self.hold.load() {
            Hold::Running { holding, .. } => Some(holding.clone()),
            Hold::NotHeld | Hold::Waiting(_) => None,
        }
    }

    /// It is ours; nothing runs under it yet.
    pub fn acquired(&self, holding: Holding) -> Arc<Holding> {
        let holding = Arc::new(holding);
        // The epoch that it got, not the highest: etcd counts anew from a lower one after it was put back.
        self.epoch.store(holding.epoch(), Ordering::Release);
        self.hold.store(Arc::new(Hold::Waiting(holding.clone())));
        holding
    }

    /// From now on what starts here starts under what is held, and other nodes may reach it.
    pub fn open(&self) {
        if let Some(holding) = self.holding() {
            self.hold.store(Arc::new(Hold::Running { holding, open: true }));
        }
    }

    /// Other nodes do not reach it any more; what runs goes on.
    pub fn close(&self) {
        if let Some(holding) = self.present() {
            self.hold.store(Arc::new(Hold::Running { holding, open: false }));
        }
    }

    /// From now on nothing starts here, and nothing that still runs may cause effects. It stays held.
    pub fn halt(&self) {
        if let Some(holding) = self.holding() {
            self.hold.store(Arc::new(Hold::Waiting(holding)));
        }
    }

    /// It is not held here any more. What was held is the caller's to give back.
    pub fn vacate(&self) -> Option<Arc<Holding>> {
        let holding = self.holding();
        self.hold.store(Arc::new(Hold::NotHeld));
        holding
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

impl Tenure for Seat {
    fn epoch_base(&self) -> u64 {
        self.epoch.load(Ordering::Acquire) << EPOCH_SHIFT
    }

    fn holds(&self, epoch: u64) -> bool {
        match &**self.hold.load() {
            Hold::NotHeld | Hold::Waiting(_) => false,
            Hold::Running { holding, .. } => {
                holding.epoch() == epoch >> EPOCH_SHIFT && self.concern.in_doubt().allows(holding.state())
            }
        }
    }
}

/// The bridge lets in who believes in the epoch that it is held under.
impl HeldEpoch for Seat {
    fn held_epoch(&self) -> u64 {
        match &**self.hold.load() {
            Hold::Running { holding, open: true } => holding.epoch(),
            Hold::NotHeld | Hold::Waiting(_) | Hold::Running { open: false, .. } => 0,
        }
    }
}

/// The seats of the concerns that this node's roles allow.
#[derive(Clone, Default)]
pub struct Seats(Arc<BTreeMap<Concern, Arc<Seat>>>);

impl Seats {
    pub fn new(seats: impl IntoIterator<Item = Seat>) -> Seats {
        Seats(Arc::new(seats.into_iter().map(|seat| (seat.concern, Arc::new(seat))).collect()))
    }

    /// `None`: not one of this node's.
    pub fn get(&self, concern: Concern) -> Option<&Arc<Seat>> {
        self.0.get(&concern)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> (Seat, Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.redb")).unwrap();
        (Seat::new(Concern::WindowPost, "/t01000/window-post".into()), store, dir)
    }

    fn token(epoch: u64) -> u64 {
        (epoch << EPOCH_SHIFT) + 3
    }

    /// Tokens' base, what the bridge lets in, what may start: each from the one place.
    fn views(seat: &Seat) -> (Held, u64, u64, Option<u64>) {
        (seat.held(), seat.epoch_base() >> EPOCH_SHIFT, seat.held_epoch(), seat.present().map(|h| h.epoch()))
    }

    #[test]
    fn effects_end_with_the_holding() {
        let (seat, store, _dir) = seat();
        assert!(seat.present().is_none() && !seat.holds(token(0)) && seat.epoch_base() == 0);
        seat.acquired(Holding::sole(7, store.clone()));
        assert_eq!((views(&seat), seat.holds(token(7))), ((Held::Waiting, 7, 0, None), false), "not loaded yet");
        seat.open();
        assert_eq!((views(&seat), seat.holds(token(7))), ((Held::Running, 7, 7, Some(7)), true));
        assert!(!seat.holds(token(6)) && !seat.holds(token(8)));
        seat.close();
        assert_eq!((views(&seat), seat.holds(token(7))), ((Held::Running, 7, 0, Some(7)), true), "it is being stopped");
        seat.halt();
        assert_eq!((views(&seat), seat.holds(token(7))), ((Held::Waiting, 7, 0, None), false));
        seat.open();
        assert!(seat.holds(token(7)), "proven again");
        assert_eq!(seat.vacate().map(|holding| holding.epoch()), Some(7));
        assert_eq!((views(&seat), seat.holds(token(7))), ((Held::No, 7, 0, None), false), "a start in between passes");
        [Seat::open, Seat::close, Seat::halt].iter().for_each(|late| late(&seat));
        assert_eq!(views(&seat), (Held::No, 7, 0, None), "what is not held cannot be opened");
    }

    /// After etcd was put back, its revisions begin lower.
    #[test]
    fn the_epoch_is_the_one_that_was_got_also_where_it_is_lower_than_the_last() {
        let (seat, store, _dir) = seat();
        for epoch in [900, 41] {
            seat.acquired(Holding::sole(epoch, store.clone()));
            seat.open();
            assert_eq!(views(&seat), (Held::Running, epoch, epoch, Some(epoch)));
            assert!(seat.holds(seat.epoch_base() + 1), "what starts now may cause effects");
            seat.vacate();
        }
        assert!(!seat.holds(token(900)));
    }

    #[test]
    fn what_has_ended_explains_a_late_row_for_a_moment_only() {
        let (seat, ..) = seat();
        let now = Instant::now();
        assert_eq!(seat.ended(now), None);
        seat.ended_at(41, now);
        assert_eq!([now, now + VIEW_LATE / 2, now + VIEW_LATE].map(|at| seat.ended(at)), [Some(41), Some(41), None]);
    }

    #[test]
    fn a_failure_is_news_once() {
        let (seat, ..) = seat();
        let fails = |why: Option<&str>| seat.failed(why.map(str::to_string));
        assert_eq!([fails(None), fails(Some("x")), fails(Some("x")), fails(Some("y"))], [false, true, false, true]);
        assert_eq!((seat.failure().as_deref().map(String::as_str), fails(None)), (Some("y"), true));
        assert!(seat.failure().is_none());
    }
}
