//! `storage`: the sectors on this node's disks, for the nodes that prove them; nothing for a node that is alone.

use super::{MINUTE, Parts};
use crate::actors::storage::{Storage, StorageDeps};
use crate::supervisor::{ChildSpec, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> Option<SupervisorSpec> {
    parts.net.as_ref()?;
    let deps = StorageDeps { repo: parts.settings.repo.clone(), prover: parts.prover.clone() };
    let disks = ChildSpec::actor("disks", &parts.refs.storage, move |_| {
        let storage = Storage::new(deps.clone());
        async move { Ok(storage) }
    });
    Some(SupervisorSpec::new("storage").intensity(10, MINUTE * 5).child(disks.on(Thread::Dedicated)))
}
