//! `net`: the other nodes of the cluster; nothing for a node that is the whole provider.

use super::parts::{Children, MINUTE, Parts, holding_down};
use crate::node::net::{bridge, directory};
use crate::node::reconciler;
use crate::node::reconciler::routes::ReconcilerDeps;
use crate::supervisor::{Strategy, SupervisorSpec};
use std::time::Duration;

/// Between two tries of a child that crashes again and again: concerns are neither taken nor given meanwhile.
const NET_RETRY: Duration = Duration::from_secs(5);

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
    let group = holding_down("net", 5, MINUTE, NET_RETRY).strategy(Strategy::RestForOne);
    // A directory that is out of reach is waited for; one that does not start has a wrong setting (password, certificate),
    // without which this node may hold nothing: that ends the start, with its sentence.
    let directory = directory::child(net, &parts.refs, &parts.settings.roles);
    Some(group.children([
        Some(bridge::child(net, &parts.refs).may_start_later()),
        Some(directory),
        Some(keeper.may_start_later()),
    ]))
}
