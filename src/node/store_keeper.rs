//! Watches the store: what waits for the cluster's store, or for the disk, is shown in the tree.

use crate::store::{ScopeReport, Store};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(2);

pub struct StoreKeeper {
    store: Store,
}

impl StoreKeeper {
    pub fn new(store: Store) -> StoreKeeper {
        StoreKeeper { store }
    }
}

/// Writes that are here and not yet in the cluster's store.
fn waiting(scopes: &[ScopeReport]) -> Option<String> {
    let each = scopes.iter().filter(|scope| scope.waiting > 0).map(|s| format!("{} of {}", s.waiting, s.path));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("writes wait for the cluster's store: {}", each.join(", ")))
}

struct Look;
impl Message for Look {
    type Reply = ();
}

impl Actor for StoreKeeper {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(Duration::ZERO, Look);
        Ok(())
    }
}

impl Handler<Look> for StoreKeeper {
    async fn handle(&mut self, _: Look, cx: &Cx<Self>) -> Result<(), Exit> {
        // A disk that failed is tried again with each look; what it kept from being written is tried by its writers.
        let trouble = match self.store.probe().and_then(|()| self.store.scopes()) {
            Err(error) => Some(error.to_string()),
            Ok(scopes) => waiting(&scopes),
        };
        cx.trouble(trouble);
        cx.tell_after(LOOK_EVERY, Look);
        Ok(())
    }
}
