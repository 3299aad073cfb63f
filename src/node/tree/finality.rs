//! `finality`: participation in fast finality (F3). Apart from `proving`: what fails here costs neither a proof nor a block.

use super::parts::{Children, HELD_DOWN_RETRY, MINUTE, Parts, holding_down, leased_child};
use crate::actors::f3::{F3Deps, F3Participation, F3Settings};
use crate::node::concern::Concern;
use crate::supervisor::{ChildSpec, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    holding_down("finality", 5, MINUTE, HELD_DOWN_RETRY)
        .children([participation(parts).map(ChildSpec::may_start_later)])
}

/// Under WinningPoSt's lease: on one host per miner, and not while the lease is in doubt.
fn participation(parts: &Parts) -> Option<ChildSpec> {
    let slot = parts.slots.get(Concern::WinningPost)?;
    let deps = F3Deps {
        miner: parts.miner,
        node: parts.links.chain.clone(),
        repo: parts.settings.repo.clone(),
        settings: F3Settings { enabled: parts.settings.f3, alone: parts.settings.cluster.is_none() },
    };
    let child = leased_child("f3".into(), slot, &parts.refs.f3, move |cx, _| {
        let deps = deps.clone();
        async move { F3Participation::start(cx, deps).await }
    });
    Some(child.on(Thread::Shared("chain")))
}
