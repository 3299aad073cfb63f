//! Watches the store: what waits for the cluster's store, or for the disk, is shown in the tree.

use crate::store::{ScopeReport, Store};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message};
use std::time::Duration;

const CHECK_INTERVAL: Duration = Duration::from_secs(2);

pub struct StoreMonitor {
    store: Store,
}

impl StoreMonitor {
    pub fn new(store: Store) -> StoreMonitor {
        StoreMonitor { store }
    }
}

/// Writes that are here and not yet in the cluster's store.
fn waiting(scopes: &[ScopeReport]) -> Option<String> {
    let each = scopes.iter().filter(|scope| scope.waiting > 0).map(|s| format!("{} of {}", s.waiting, s.path));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("writes wait for the cluster's store: {}", each.join(", ")))
}

struct CheckStore;
impl Message for CheckStore {
    type Reply = ();
}

impl Actor for StoreMonitor {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(Duration::ZERO, CheckStore);
        Ok(())
    }
}

impl Handler<CheckStore> for StoreMonitor {
    async fn handle(&mut self, _: CheckStore, cx: &Cx<Self>) -> Result<(), Exit> {
        // A disk that failed is tried again with each look; what it kept from being written is tried by its writers.
        let trouble = match self.store.probe().and_then(|()| self.store.scopes()) {
            Err(error) => Some(error.to_string()),
            Ok(scopes) => waiting(&scopes),
        };
        cx.trouble(trouble);
        cx.tell_after(CHECK_INTERVAL, CheckStore);
        Ok(())
    }
}
