//! Watches the store: what waits for the cluster's store, or for the disk, is shown in the tree.

use crate::store::Store;
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
        cx.trouble(self.store.probe().err().map(|e| e.to_string()));
        cx.tell_after(LOOK_EVERY, Look);
        Ok(())
    }
}
