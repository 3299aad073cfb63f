//! `net`: the other nodes of the cluster; nothing for a node that is the whole provider.

use super::{MINUTE, Parts};
use crate::node::keeper::{self, KeeperDeps};
use crate::node::net::{bridge, directory};
use crate::supervisor::{Strategy, SupervisorSpec};

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
    let group = SupervisorSpec::new("net")
        .strategy(Strategy::RestForOne)
        .intensity(5, MINUTE)
        .child(bridge::child(net, &parts.refs))
        .child(directory::child(net, &parts.refs, &parts.settings.roles))
        .child(keeper);
    Some(group)
}
