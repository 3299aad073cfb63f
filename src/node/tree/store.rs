//! `store`: the node's durable state, watched.

use super::{MINUTE, Parts};
use crate::node::refs::MAILBOX;
use crate::node::store_keeper::StoreKeeper;
use crate::supervisor::{ChildSpec, Ref, Strategy, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let store = parts.store.clone();
    let keeper = ChildSpec::actor("store_keeper", &Ref::new("/store-keeper", MAILBOX), move |_| {
        let keeper = StoreKeeper::new(store.clone());
        async move { Ok(keeper) }
    });
    SupervisorSpec::new("store")
        .strategy(Strategy::OneForAll)
        .intensity(5, MINUTE)
        .child(keeper.on(Thread::Shared("store")))
}
