//! A node: the parts of a provider that run in this process, and what they need to be started.
//!
//! * [`tree`] — THE supervision tree, written down once: settings -> child specs, a file a group.
//! * [`settings`], [`roles`], [`identity`] — what it is told, what it may run, whose node it is.
//! * [`concern`], [`lease_slot`] — what only one process of a cluster runs at a time, and whether that is this one.
//! * [`net`], [`reconciler`] — the cluster: bridge and directory, and what they make of this node.
//! * [`agent`], [`agent_view`] — the tree of a seal agent, and what it tells; [`remote_nodes`] — agents and storages of other nodes.
//! * [`refs`], [`shards`] — where everything is: addresses, and the seal schedulers of all nodes together.
//! * [`cluster_status`] — the cluster as this node's admin HTTP shows it.
//! * [`reload`] — new settings while it runs; `orders` — what an operator has the miner actor do.
//! * [`backend`], [`api_views`], [`proving_report`], [`provider_report`], [`sealing_report`], [`exit_log`] — the node behind its own API: lists,
//!   sector details, summaries, ends.

mod admin_view;
pub mod agent;
pub mod agent_view;
pub mod api_views;
pub mod backend;
pub mod cluster_status;
pub mod concern;
mod error;
pub mod exit_log;
mod exports;
mod first_number;
pub mod identity;
pub mod lease_slot;
mod links;
mod mailbox;
pub mod net;
pub mod network_report;
mod orders;
pub mod provider_report;
pub mod proving_report;
pub mod reconciler;
pub mod refs;
pub mod reload;
pub mod remote_nodes;
pub mod roles;
pub mod sealing_report;
pub mod settings;
pub mod shards;
mod shared_read;
mod store_monitor;
pub mod tree;

use crate::actors::daemon_link::settings::LinkSettings;
use crate::chain::Address;
use crate::proofs::Prover;
use crate::rpc::auth::RepoAuth;
use crate::rpc::pool_api::PoolApi;
use crate::store::{Store, StoreError};
use crate::supervisor::{Exit, Groups, Tree, TreeOptions};
use crate::util::time::unix_ms;
pub use error::NodeError;
pub use links::Links;

use backend::NodeBackend;
use concern::Concern;
use identity::Identity;
use lease_slot::{EPOCH_SHIFT, HeldLease, LeaseSlot, LeaseSlots};
use net::Net;
use refs::Heads;
pub use refs::Refs;
use reload::Reloader;
use remote_nodes::RemoteNodes;
use settings::NodeSettings;
use shards::Shards;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tree::Parts;

/// A node that runs in this process. Dropping it does not stop it: [`Node::stop`] does.
pub struct Node {
    pub refs: Refs,
    /// The seal schedulers of all nodes, by the node's name.
    pub shards: Arc<Shards>,
    /// Others' disks and workers; `None`: this node is the whole provider.
    pub remote: Option<Arc<RemoteNodes>>,
    pub tree: Tree,
    pub backend: Arc<NodeBackend>,
    pub miner: Address,
    pub reloader: Arc<Reloader>,
    stop: Arc<Notify>,
}

impl Node {
    /// Builds the tree and starts it. Blocking: call it off the async threads.
    pub fn start(
        settings: NodeSettings,
        identity: Identity,
        links: Links,
        prover: Arc<dyn Prover>,
    ) -> Result<Node, NodeError> {
        let Identity { store, miner, sector_size, network } = identity;
        let mut settings = settings;
        // A node that is exchanged for one of another network while we run is refused as at the start.
        settings.link.network.get_or_insert_with(|| network.clone());
        let boot = store.next_boot()?;
        // A full node that is put in the place of the present one must be of the same network.
        let link = LinkSettings { network: Some(network.clone()), ..settings.link };
        let mut settings = NodeSettings { link, ..settings };
        // The API reads it again at each of its starts, and says what is wrong with it.
        let auth = Arc::new(RepoAuth::new(&settings.repo));
        let _ = auth.open();
        settings.roles.off_lines().for_each(|line| tracing::info!("{line}"));
        let name = settings.cluster.as_ref().map(|cluster| cluster.node.as_str());
        let refs = Refs::new(&miner, name);
        let mine = Concern::ALL.into_iter().filter(|concern| settings.roles.has(concern.role()));
        let slots = LeaseSlots::new(mine.map(|concern| LeaseSlot::new(concern, concern.path(&miner, name))));
        if settings.cluster.is_none() {
            // Nobody else could hold anything.
            for slot in slots.iter() {
                slot.acquired(HeldLease::sole(boot, store.clone()));
                slot.open();
            }
        }
        let own = slots.get(Concern::SealScheduler).map(|_| (name.unwrap_or("this node").into(), refs.sealing.clone()));
        let shards = Arc::new(Shards::new(own));
        let tree = Arc::new(OnceLock::new());
        let stop = Arc::new(Notify::new());
        let net = match settings.cluster.clone() {
            Some(cluster) => {
                let start = start_of(&store)?;
                let stores = net::directory::stores(&cluster, &store)?;
                Some(Arc::new(Net::new(cluster, settings.repo.clone(), miner, boot, start, stores, slots.clone())))
            }
            None => None,
        };
        let remote = net.as_ref().map(|net| Arc::new(RemoteNodes::of(net)));
        if let Some(remote) = &remote {
            (settings.agents, settings.storages) = (remote.clone(), remote.clone());
        }
        let alone = settings.cluster.is_none();
        let concerns = Concern::ALL.into_iter().filter(|concern| !alone || slots.get(*concern).is_some()).collect();
        let reloader = Arc::new(Reloader::new(&settings, &refs, &prover));
        let pool_api = settings.pool_listen.and_then(|_| {
            let pool = links.chain.pool()?.clone();
            Some(Arc::new(PoolApi::new(pool, &miner.to_string(), &settings.repo)))
        });
        let backend = Arc::new(NodeBackend {
            pool_api: pool_api.clone(),
            live: reloader.live.clone(),
            concerns,
            agents: settings.agents.clone(),
            period: Default::default(),
            whole_period: Default::default(),
            info: Default::default(),
            check: Default::default(),
            upgrades: Default::default(),
            ordering: Default::default(),
            refs: refs.clone(),
            shards: shards.clone(),
            node: links.admin.clone(),
            miner,
            sector_size,
            network,
            tree: tree.clone(),
            stop: stop.clone(),
        });
        let groups = Groups::default();
        let parts = Parts {
            pool_api,
            heads: Heads::of(&groups),
            groups,
            reloader: reloader.clone(),
            net,
            settings,
            refs,
            slots,
            store,
            miner,
            sector_size,
            links,
            prover,
            auth,
            tree,
            stop,
            backend,
            shards,
        };
        let options = TreeOptions { epoch_base: boot << EPOCH_SHIFT, ..parts.settings.supervision.clone() };
        let running = Tree::start_with(tree::root(&parts), options)?;
        let Parts { refs, shards, tree, stop, backend, prover, .. } = parts;
        running.supervisor("root/provers").into_iter().for_each(|provers| prover.show_in(provers));
        // Readers of the cell that were up before this line saw an empty tree.
        let _ = tree.set(running.downgrade());
        Ok(Node { refs, shards, remote, tree: running, backend, miner, reloader, stop })
    }

    /// Completes when the tree has ended: asked to from outside, or its restart budget is spent.
    pub async fn ended(&self) -> Exit {
        tokio::select! {
            exit = self.tree.wait() => exit,
            () = self.stop.notified() => self.tree.shutdown().await,
        }
    }

    pub async fn stop(&self) -> Exit {
        self.tree.shutdown().await
    }
}

/// The number by which other nodes tell this process from its predecessors.
fn start_of(store: &Store) -> Result<u64, StoreError> {
    store.next_start(unix_ms())
}
