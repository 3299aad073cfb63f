//! Routes every address: to this process where the concern is held here, else to its holder's.

use crate::chain::Address;
use crate::node::concern::Concern;
use crate::node::exports;
use crate::node::lease_slot::LeaseSlots;
use crate::node::net::Net;
use crate::node::refs::Refs;
use crate::node::shards::Shards;
use crate::rpc::bridge::Bridge;
use crate::rpc::directory::{NodeKind, Role, View};
use crate::supervisor::WeakTree;
use crate::supervisor::{Export, ExportError};
use libp2p::PeerId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;

/// The parts of the node that the reconciler works with.
#[derive(Clone)]
pub struct ReconcilerDeps {
    pub net: Arc<Net>,
    pub refs: Refs,
    pub slots: LeaseSlots,
    pub shards: Arc<Shards>,
    /// Known once the tree has started.
    pub tree: Arc<OnceLock<WeakTree>>,
}

/// Which process an address leads to; `None`: this one, or nowhere.
type Target = Option<(PeerId, u64)>;

pub struct Routes {
    /// Routes of all concerns but the seal schedulers.
    concerns: Vec<Route>,
    shards: Arc<Shards>,
    miner: Address,
    shard_targets: BTreeMap<String, Target>,
    /// Peers that may connect besides the nodes of the view.
    allow: Vec<PeerId>,
}

/// Leads messages to wherever the concern at `path` is held.
struct Route {
    path: String,
    address: Export,
    target: Target,
}

impl Routes {
    pub fn new(deps: &ReconcilerDeps) -> Result<Routes, ExportError> {
        let concerns = routes_of(&deps.refs, &deps.net.miner)?;
        // An earlier incarnation's carriers belong to an earlier bridge.
        concerns.iter().for_each(|route| route.address.route_to(None));
        Ok(Routes {
            concerns,
            shards: deps.shards.clone(),
            miner: deps.net.miner,
            shard_targets: BTreeMap::new(),
            allow: deps.net.settings.allow.clone(),
        })
    }

    pub fn follow(&mut self, view: &View, me: &str, bridge: &Bridge) {
        for node in view.nodes.values().filter(|node| node.name != me) {
            bridge.know(node.peer_id, node.addrs.clone());
        }
        bridge.allow(view.peers().into_iter().chain(self.allow.iter().copied()));
        for route in &mut self.concerns {
            let target = target(view, me, &route.path);
            if route.target != target {
                route.address.route_to(target.map(|(peer, epoch)| bridge.carrier(peer, epoch)));
                route.target = target;
            }
        }
        self.follow_shards(view, me, bridge);
    }

    /// A shard that was ever seen is missed when it is gone.
    fn follow_shards(&mut self, view: &View, me: &str, bridge: &Bridge) {
        let sealing = view.with_role(Role::Sealing).filter(|node| node.kind == NodeKind::Node).map(|n| n.name.clone());
        let mut names: Vec<String> = sealing.chain(self.shards.nodes()).filter(|name| name != me).collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = Concern::SealScheduler.path(&self.miner, Some(&name));
            let target = target(view, me, &path);
            let gone = match (target, view.nodes.contains_key(&name)) {
                (Some(_), _) => None,
                (None, true) => Some("its seal scheduler is not running".to_string()),
                (None, false) => Some("the node is not in the cluster now".to_string()),
            };
            let address = self.shards.know(&name, &path, gone);
            if self.shard_targets.get(&name) != Some(&target) {
                address.route_to(target.map(|(peer, epoch)| bridge.carrier(peer, epoch)));
                self.shard_targets.insert(name, target);
            }
        }
    }
}

/// The routes of every concern that runs once, and of what runs beside one. [`Routes::follow_shards`] leads to those of each node.
fn routes_of(refs: &Refs, miner: &Address) -> Result<Vec<Route>, ExportError> {
    let route = |path: String, address: Export| Route { path, address, target: None };
    let mut routes = Vec::new();
    for concern in Concern::ALL.into_iter().filter(|concern| !concern.is_per_node()) {
        routes.push(route(concern.path(miner, None), exports::export(concern, refs)?));
    }
    for (concern, beside) in exports::beside(refs)? {
        routes.push(route(concern.path(miner, None), beside));
    }
    Ok(routes)
}

fn target(view: &View, me: &str, path: &str) -> Target {
    let holder = view.holders.get(path).filter(|holder| holder.node != me)?;
    Some((holder.peer_id, holder.epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_concern_that_runs_once_has_its_route_by_its_own_path() {
        let (miner, refs) = (Address::new_id(1000), Refs::new(&Address::new_id(1000), Some("host-a")));
        let routes = routes_of(&refs, &miner).unwrap();
        for concern in Concern::ALL {
            let path = concern.path(&miner, Some("host-a"));
            let own = routes.iter().filter(|route| route.path == path && **route.address.path() == path).count();
            assert_eq!(own, usize::from(!concern.is_per_node()), "{concern:?}");
        }
        let beside = routes.iter().filter(|route| route.path != **route.address.path());
        let beside: Vec<_> = beside.map(|route| (route.path.as_str(), &**route.address.path())).collect();
        assert_eq!(beside, [("/f01000/winning-post", "/f01000/f3")].map(|(a, b)| (a, b)));
    }
}
