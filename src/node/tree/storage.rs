//! `storage`: the sectors on this node's disks, for the nodes that prove them; nothing for a node that is alone.

use super::parts::{HELD_DOWN_RETRY, MINUTE, Parts, holding_down};
use crate::actors::storage::{Storage, StorageDeps};
use crate::supervisor::{ChildSpec, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> Option<SupervisorSpec> {
    parts.net.as_ref()?;
    let deps = StorageDeps { repo: parts.settings.repo.clone(), prover: parts.prover.clone() };
    let disks = ChildSpec::actor("disks", &parts.refs.storage, move |_| {
        let storage = Storage::new(deps.clone());
        async move { Ok(storage) }
    });
    let disks = disks.on(Thread::Dedicated).may_start_later();
    Some(holding_down("storage", 10, MINUTE * 5, HELD_DOWN_RETRY).child(disks))
}
