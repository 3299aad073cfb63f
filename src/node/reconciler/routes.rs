//! Routes every address: to this process where the concern is held here, else to its holder's.

use crate::chain::Address;
use crate::node::concern::Concern;
use crate::node::lease_slot::LeaseSlots;
use crate::node::net::Net;
use crate::node::refs::Refs;
use crate::node::shards::Shards;
use crate::rpc::bridge::Bridge;
use crate::rpc::directory::{NodeKind, Role, View};
use crate::supervisor::WeakTree;
use crate::supervisor::wire::Carrier;
use crate::supervisor::{Actor, Ref};
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

/// Points a reference at a carrier, or back at the actor in this process.
type SetCarrier = dyn Fn(Option<Box<dyn Carrier>>) + Send;

struct Route {
    path: String,
    set: Box<SetCarrier>,
    target: Target,
}

impl Route {
    /// `None`: there is one per node, and [`Routes::follow_shards`] leads to all of them.
    fn to(concern: Concern, refs: &Refs) -> Option<Route> {
        match concern {
            Concern::MessageSender => Some(Route::of(&refs.messages)),
            Concern::WindowPost => Some(Route::of(&refs.window_post)),
            Concern::WinningPost => Some(Route::of(&refs.winning_post)),
            Concern::Allocator => Some(Route::of(&refs.allocator)),
            Concern::SealScheduler => None,
            Concern::DealHandler => Some(Route::of(&refs.market)),
        }
    }

    /// To wherever the concern at `path` is held.
    fn beside<A: Actor>(address: &Ref<A>, path: String) -> Route {
        Route { path, ..Route::of(address) }
    }

    fn of<A: Actor>(address: &Ref<A>) -> Route {
        let (path, address) = (address.path().to_string(), address.clone());
        Route { path, set: Box::new(move |carrier| address.route_to(carrier)), target: None }
    }
}

impl Routes {
    pub fn new(deps: &ReconcilerDeps) -> Routes {
        let refs = &deps.refs;
        let routes = Routes {
            concerns: Concern::ALL
                .into_iter()
                .filter_map(|concern| Route::to(concern, refs))
                .chain([Route::beside(&refs.f3, Concern::WinningPost.path(&deps.net.miner, None))])
                .collect(),
            shards: deps.shards.clone(),
            miner: deps.net.miner,
            shard_targets: BTreeMap::new(),
            allow: deps.net.settings.allow.clone(),
        };
        // An earlier incarnation's carriers belong to an earlier bridge.
        routes.concerns.iter().for_each(|route| (route.set)(None));
        routes
    }

    pub fn follow(&mut self, view: &View, me: &str, bridge: &Bridge) {
        for node in view.nodes.values().filter(|node| node.name != me) {
            bridge.know(node.peer_id, node.addrs.clone());
        }
        bridge.allow(view.peers().into_iter().chain(self.allow.iter().copied()));
        for route in &mut self.concerns {
            let target = target(view, me, &route.path);
            if route.target != target {
                (route.set)(target.map(|(peer, epoch)| bridge.carrier(peer, epoch)));
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
        for concern in Concern::ALL {
            let route = Route::to(concern, &refs).map(|route| route.path);
            let per_node = concern.wanted(&miner, "host-a").pinned.is_some();
            assert_eq!(route, (!per_node).then(|| concern.path(&miner, Some("host-a"))), "{concern:?}");
        }
    }
}
