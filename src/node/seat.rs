//! Whether a concern runs here: a seat per concern. What is started under it has its epoch, and its effects end with it.

use super::concern::Concern;
use crate::rpc::directory::{Lease, LeaseState};
use crate::store::Store;
use crate::supervisor::Tenure;
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Epochs of tokens are the lease's (or the boot's) in the upper half, the incarnation in the lower.
pub const EPOCH_SHIFT: u32 = 32;

/// While a concern is held here.
pub struct Holding {
    /// Of the lease; of the boot, for a node that is the whole provider.
    pub epoch: u64,
    /// `None`: nobody else could hold it.
    pub lease: Option<Lease>,
    /// Where its state is.
    pub store: Store,
}

impl Holding {
    pub fn state(&self) -> LeaseState {
        self.lease.as_ref().map_or(LeaseState::Proven, Lease::state)
    }
}

pub struct Seat {
    pub concern: Concern,
    /// The concern's logical path.
    pub path: String,
    held: ArcSwapOption<Holding>,
    /// Of the present or last holding.
    epoch: AtomicU64,
}

impl Seat {
    pub fn new(concern: Concern, path: String) -> Seat {
        Seat { concern, path, held: ArcSwapOption::empty(), epoch: AtomicU64::new(0) }
    }

    pub fn present(&self) -> Option<Arc<Holding>> {
        self.held.load_full()
    }

    /// From now on what starts here starts under that holding.
    pub fn take(&self, holding: Arc<Holding>) {
        self.epoch.fetch_max(holding.epoch, Ordering::AcqRel);
        self.held.store(Some(holding));
    }

    /// From now on nothing starts here, and nothing that still runs may cause effects.
    pub fn leave(&self) -> Option<Arc<Holding>> {
        self.held.swap(None)
    }
}

impl Tenure for Seat {
    fn epoch_base(&self) -> u64 {
        self.epoch.load(Ordering::Acquire) << EPOCH_SHIFT
    }

    fn holds(&self, epoch: u64) -> bool {
        self.held.load().as_ref().is_some_and(|holding| {
            holding.epoch == epoch >> EPOCH_SHIFT && self.concern.in_doubt().allows(holding.state())
        })
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

    #[test]
    fn effects_end_with_the_holding_and_epochs_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.redb")).unwrap();
        let seat = Seat::new(Concern::WindowPost, "/t01000/window-post".into());
        let token = |epoch: u64| (epoch << EPOCH_SHIFT) + 3;
        let held = |epoch| Arc::new(Holding { epoch, lease: None, store: store.clone() });
        assert!(seat.present().is_none() && !seat.holds(token(0)) && seat.epoch_base() == 0);
        seat.take(held(7));
        assert_eq!((seat.epoch_base(), seat.holds(token(7)), seat.holds(token(6))), (token(7) - 3, true, false));
        seat.leave();
        assert!(!seat.holds(token(7)));
        assert_eq!(seat.epoch_base(), token(7) - 3, "a start in between is no earlier one");
        seat.take(held(9));
        assert_eq!((seat.holds(token(9)), seat.holds(token(7)), seat.holds(token(10))), (true, false, false));
    }
}
