//! `net`: the other nodes of the cluster; nothing for a node that is the whole provider.

use super::{MINUTE, Parts, holding_down};
use crate::node::net::{bridge, directory};
use crate::node::reconciler::{self, ReconcilerDeps};
use crate::supervisor::{ChildSpec, Strategy, SupervisorSpec};
use std::time::Duration;

/// Between two tries of a child that crashes again and again: concerns are neither taken nor given meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// A child that restarts restarts those that depend on it.
pub(super) fn group(parts: &Parts) -> Option<SupervisorSpec> {
    let net = parts.net.as_ref()?;
    let keeper = reconciler::child(ReconcilerDeps {
        net: net.clone(),
        refs: parts.refs.clone(),
        slots: parts.slots.clone(),
        shards: parts.shards.clone(),
        tree: parts.tree.clone(),
    });
    let group = holding_down("net", 5, MINUTE, AGAIN).strategy(Strategy::RestForOne);
    let children = [bridge::child(net, &parts.refs), directory::child(net, &parts.refs, &parts.settings.roles), keeper];
    Some(children.into_iter().map(ChildSpec::may_start_later).fold(group, SupervisorSpec::child))
}
