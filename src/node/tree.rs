//! THE supervision tree, written down once: settings -> child specs.
//!
//! Order matters: children start from top to bottom and stop from bottom to top, so that proving outlives sealing.
//! `proving` shares no thread, no prover slot, no restart budget and no connection with `sealing` or `markets`.
//! What proving cannot do without (`store`, `chain`, `proving`) has to come up for a start to succeed; every other child
//! whose first start fails comes up later. A crash loop outside `proving` is held down in its group, which never ends for
//! it, but for what proving needs of `chain`: see [`chain`].
//! One file a group. A concern that only one process of a cluster may run has its spec here on every node whose roles
//! allow it, and runs while its [`LeaseSlot`] is held.

mod admin;
mod chain;
mod finality;
mod markets;
mod net;
pub(super) mod parts;
mod proving;
mod sealing;
mod storage;
mod store;

pub(super) use parts::Parts;

use crate::supervisor::{ChildSpec, SupervisorSpec};
use parts::{Children, MINUTE};

/// All groups, in the order of their start.
pub(super) fn root(parts: &Parts) -> SupervisorSpec {
    SupervisorSpec::new("root")
        .intensity(3, MINUTE * 60) // groups that ended: `proving`, or `chain` after ten minutes
        .child(ChildSpec::supervisor(store::group(parts)))
        .child(ChildSpec::supervisor(chain::group(parts)))
        .children([net::group(parts).map(ChildSpec::supervisor)])
        // The provers' processes, each while it lives; a task whose process dies is the concern's to repeat.
        .child(ChildSpec::supervisor(SupervisorSpec::new("provers").dynamic(64)))
        .child(ChildSpec::supervisor(proving::group(parts)))
        .child(ChildSpec::supervisor(finality::group(parts)))
        .child(ChildSpec::supervisor(sealing::group(parts)))
        .children([storage::group(parts).map(ChildSpec::supervisor)])
        .child(ChildSpec::supervisor(markets::group(parts)))
        .child(ChildSpec::supervisor(admin::group(parts)))
}
