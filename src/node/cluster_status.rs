//! The cluster as the admin HTTP of this node shows it: the directory's view, the bridge's peers, and other nodes' trees.

use super::api_views::{InfoPublisher, TreeSnapshot};
use super::concern::Concern;
use super::lease_slot::{LeaseSlot, LeaseSlots};
use super::net::Net;
use super::refs::{FEED, INFO, POOL, Refs};
use super::remote_nodes::RemoteNodes;
use super::settings::DirectorySettings;
use crate::actors::daemon_link::messages::{FeedInfo, PoolInfo};
use crate::rpc::admin::ClusterView;
use crate::rpc::admin::cluster::{ClusterReport, Here, OwnConcern, PeerRow, PeersReport, RemoteTreeError};
use crate::rpc::bridge::{PeerInfo, Refusal};
use crate::rpc::directory::{DirectoryError, PlacementOrder, View, placement};
use crate::supervisor::{Actor, ActorInfo, Ref};
use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::PeerId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Another node's tree: whoever looks at it waits no longer.
const REMOTE_TREE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct ClusterStatus {
    pub net: Arc<Net>,
    pub slots: LeaseSlots,
    /// This node's own.
    pub refs: Refs,
    pub remote: RemoteNodes,
}

impl ClusterStatus {
    fn view(&self) -> Option<Arc<View>> {
        self.net.directory.load_full().map(|found| found.0.view().borrow().clone())
    }

    /// Every node would ignore an order that the placement has no use for: whoever gives it is told.
    fn never(&self, order: &PlacementOrder) -> Option<DirectoryError> {
        let PlacementOrder::Move { concern, node } = order else { return None };
        // Without etcd nothing moves, which the directory says itself.
        if !matches!(self.net.settings.directory, DirectorySettings::Etcd(_)) {
            return None;
        }
        let view = self.view()?;
        let why = placement::never(&view, &self.net.placement, concern, view.nodes.get(node)?)?;
        Some(DirectoryError::CannotTake { node: node.clone(), concern: concern.clone(), why })
    }

    /// An actor of another node's own, by the node's name.
    fn address_at<A: Actor>(&self, node: &str, actor: &str) -> Result<Ref<A>, RemoteTreeError> {
        self.remote.own_of(node, actor).ok_or_else(|| RemoteTreeError::Unknown { node: node.to_string() })
    }

    fn bridge_peers(&self) -> Vec<PeerInfo> {
        self.net.bridge.load_full().map(|bridge| bridge.peers()).unwrap_or_default()
    }
}

fn directory_name(settings: &DirectorySettings) -> &'static str {
    match settings {
        DirectorySettings::Local => "local",
        DirectorySettings::Static(_) => "static",
        DirectorySettings::Etcd(_) => "etcd",
    }
}

fn own(slot: &LeaseSlot) -> OwnConcern {
    OwnConcern {
        path: slot.path.clone(),
        lease: slot.present().map(|held_lease| held_lease.state()),
        failure: slot.failure().map(|why| why.to_string()),
    }
}

fn counted(refused: Vec<(Refusal, u64)>) -> BTreeMap<String, u64> {
    refused.into_iter().filter(|(_, count)| *count > 0).map(|(why, count)| (why.name().to_string(), count)).collect()
}

fn peer_row(peer: PeerInfo, names: &BTreeMap<PeerId, String>) -> PeerRow {
    PeerRow {
        peer_id: peer.peer.to_string(),
        node: names.get(&peer.peer).cloned(),
        state: peer.state.name().to_string(),
        boot: peer.boot,
        rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        pending: peer.pending as u64,
        queued_control: peer.queued[0],
        queued_messages: peer.queued[1],
        refused: counted(peer.refused),
    }
}

impl ClusterView for ClusterStatus {
    fn node(&self) -> String {
        self.net.settings.node.clone()
    }

    fn holders(&self, node: &str) -> BTreeMap<String, String> {
        let Some(view) = self.view() else { return BTreeMap::new() };
        let of = |concern: Concern| {
            let holder = view.holders.get(&concern.path(&self.net.miner, Some(node)))?;
            let (group, id) = concern.place(&self.net.miner);
            let companions = concern.companions().iter().map(|(group, id)| format!("{group}/{id}"));
            let places = std::iter::once(format!("{group}/{id}")).chain(companions);
            Some(places.map(|place| (place, holder.node.clone())).collect::<Vec<_>>())
        };
        Concern::ALL.into_iter().filter_map(of).flatten().collect()
    }

    fn report(&self) -> ClusterReport {
        let settings = &self.net.settings;
        let here = Here {
            cluster: &settings.name,
            node: &settings.node,
            directory: directory_name(&settings.directory),
            now: Instant::now(),
            links: self.bridge_peers().into_iter().map(|peer| (peer.peer, peer.state.name().to_string())).collect(),
            own: self.slots.iter().map(|slot| own(slot)).collect(),
        };
        // Before the directory is there, nothing is known.
        let view = self.view().unwrap_or_else(|| Arc::new(View::empty(here.now)));
        ClusterReport::of(&view, &here)
    }

    fn peers(&self) -> PeersReport {
        let view = self.view();
        let nodes = view.iter().flat_map(|view| view.nodes.values());
        let names: BTreeMap<PeerId, String> = nodes.map(|node| (node.peer_id, node.name.clone())).collect();
        let strangers = self.net.bridge.load_full().map(|bridge| bridge.strangers()).unwrap_or_default();
        PeersReport {
            peers: self.bridge_peers().into_iter().map(|peer| peer_row(peer, &names)).collect(),
            strangers: counted(strangers),
        }
    }

    fn actors_of(&self, node: &str) -> BoxFuture<'static, Result<Vec<ActorInfo>, RemoteTreeError>> {
        let publisher = self.address_at::<InfoPublisher>(node, INFO);
        let node = node.to_string();
        async move {
            let answer = publisher?.ask(TreeSnapshot {}, REMOTE_TREE_TIMEOUT).await;
            answer.map_err(|e| RemoteTreeError::NoAnswer { node, why: e.to_string() })
        }
        .boxed()
    }

    fn full_nodes_of(&self, node: &str) -> BoxFuture<'static, Result<Value, RemoteTreeError>> {
        let links = if node == self.net.settings.node {
            Ok((self.refs.feed.clone(), self.refs.pool.clone()))
        } else {
            self.address_at(node, FEED).and_then(|feed| Ok((feed, self.address_at(node, POOL)?)))
        };
        let node = node.to_string();
        async move {
            let (feed, pool) = links?;
            let silent = |why: String| RemoteTreeError::NoAnswer { node: node.clone(), why };
            let (feed, pool) =
                tokio::join!(feed.ask(FeedInfo, REMOTE_TREE_TIMEOUT), pool.ask(PoolInfo, REMOTE_TREE_TIMEOUT));
            let feed = feed.map_err(|e| silent(format!("its head feed: {e}")))?;
            let pool = pool.map_err(|e| silent(format!("its daemon pool: {e}")))?;
            Ok(json!({ "feed": feed, "full_nodes": pool }))
        }
        .boxed()
    }

    fn order(&self, order: PlacementOrder) -> BoxFuture<'static, Result<(), DirectoryError>> {
        if let Some(error) = self.never(&order) {
            return std::future::ready(Err(error)).boxed();
        }
        let found = self.net.directory.load_full();
        async move {
            match found {
                Some(found) => found.0.order(order).await,
                None => Err(DirectoryError::Closed),
            }
        }
        .boxed()
    }
}
