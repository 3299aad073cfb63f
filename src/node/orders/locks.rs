//! Which orders wait for each other while they are given.

use crate::util::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{Mutex as Gate, MutexGuard, OwnedMutexGuard};

/// An order holds its locks over its calls to the full node, which may take minutes where the node hangs. So only those wait
/// for each other that could be given twice.
#[derive(Default)]
pub struct OrderLocks {
    /// Held by an order that nothing may be under way beside.
    conflicting: Gate<()>,
    /// By the name of an order and its request.
    requests: Mutex<HashMap<String, Arc<Gate<()>>>>,
}

pub struct Entered<'a> {
    _conflicting: Option<MutexGuard<'a, ()>>,
    _request: OwnedMutexGuard<()>,
}

impl OrderLocks {
    /// `conflicts`: two such commands at once must not both find that nothing is under way.
    pub async fn enter(&self, order: &str, request: &str, conflicts: bool) -> Entered<'_> {
        let gate = {
            let mut requests = lock(&self.requests);
            // Those that nobody holds or waits for.
            requests.retain(|_, gate| Arc::strong_count(gate) > 1);
            requests.entry(format!("{order}{request}")).or_default().clone()
        };
        let request = gate.lock_owned().await;
        let conflicting = match conflicts {
            true => Some(self.conflicting.lock().await),
            false => None,
        };
        Entered { _conflicting: conflicting, _request: request }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn an_order_waits_only_for_what_it_could_be_given_twice_beside() {
        let locks = OrderLocks::default();
        let withdraw = locks.enter("order-withdraw-", "a", true).now_or_never().expect("nobody is there");
        for (order, request, conflicts, waits) in [
            ("order-recover-faults-", "a", false, false),
            ("order-recover-faults-", "b", false, false),
            ("order-withdraw-", "a", true, true),
            ("order-withdraw-", "b", true, true),
            ("order-set-owner-", "b", true, true),
        ] {
            let entered = locks.enter(order, request, conflicts).now_or_never();
            assert_eq!(entered.is_none(), waits, "{order} {request}");
        }
        drop(withdraw);
        let first = locks.enter("order-recover-faults-", "a", false).now_or_never();
        assert!(first.is_some() && locks.enter("order-recover-faults-", "a", false).now_or_never().is_none());
        assert!(lock(&locks.requests).len() <= 2, "what nobody holds is forgotten");
    }
}
