//! Callers that wait for an actor between two incarnations.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Callers waiting for this actor.
#[derive(Default)]
pub(in crate::supervisor) struct StartWaiters {
    pub changed: Notify,
    waiting: AtomicUsize,
}

impl StartWaiters {
    /// Wakes all waiters: an incarnation has the address, or the actor's state changed.
    pub fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// `bound` callers may wait: the next incarnation's mailbox takes no more.
    pub fn enter(&self, bound: usize) -> Option<WaiterGuard<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiter = WaiterGuard(&self.waiting);
        (before < bound).then_some(waiter)
    }
}

pub(in crate::supervisor) struct WaiterGuard<'a>(&'a AtomicUsize);

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
