//! `net`: the other nodes of the cluster; nothing for a node that is the whole provider.

use super::{MINUTE, Parts, holding_down};
use crate::node::keeper::{self, KeeperDeps};
use crate::node::net::{bridge, directory};
use crate::supervisor::{ChildSpec, Strategy, SupervisorSpec};
use std::time::Duration;

/// Between two tries of a child that crashes again and again: concerns are neither taken nor given meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// What builds on a part that is made anew is made anew after it.
pub(super) fn group(parts: &Parts) -> Option<SupervisorSpec> {
    let net = parts.net.as_ref()?;
    let keeper = keeper::child(KeeperDeps {
        net: net.clone(),
        refs: parts.refs.clone(),
        seats: parts.seats.clone(),
        shards: parts.shards.clone(),
        tree: parts.tree.clone(),
    });
    let group = holding_down("net", 5, MINUTE, AGAIN).strategy(Strategy::RestForOne);
    let children = [bridge::child(net, &parts.refs), directory::child(net, &parts.refs, &parts.settings.roles), keeper];
    Some(children.into_iter().map(ChildSpec::may_start_later).fold(group, SupervisorSpec::child))
}
