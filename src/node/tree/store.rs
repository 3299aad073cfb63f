//! `store`: the node's durable state, watched. The store itself is open before the tree starts, and stays open whatever becomes
//! of who watches it.

use super::parts::{HELD_DOWN_RETRY, MINUTE, Parts, holding_down};
use crate::node::mailbox::MAILBOX;
use crate::node::store_monitor::StoreMonitor;
use crate::supervisor::{ChildSpec, Ref, Strategy, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let store = parts.store.clone();
    let monitor = ChildSpec::actor("store_keeper", &Ref::new("/store-keeper", MAILBOX), move |_| {
        let monitor = StoreMonitor::new(store.clone());
        async move { Ok(monitor) }
    });
    holding_down("store", 5, MINUTE, HELD_DOWN_RETRY)
        .strategy(Strategy::OneForAll)
        .child(monitor.on(Thread::Shared("store")))
}
