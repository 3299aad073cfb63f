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
pub mod exit_log;
mod exports;
pub mod identity;
pub mod lease_slot;
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
mod store_monitor;
pub mod tree;

use crate::actors::daemon_link::settings::LinkSettings;
use crate::chain::Address;
use crate::proofs::Prover;
use crate::rpc::auth::RepoAuth;
use crate::rpc::directory::DirectoryError;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::store::replica::ReplicaError;
use crate::store::{Store, StoreError};
use crate::supervisor::{Exit, Groups, Tree, TreeError, TreeOptions};
use crate::util::time::unix_ms;
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
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tree::Parts;

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    FullNode(#[from] FullNodeError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(
        "the configuration asks for a cluster, and this build has no support for one: build it with `--features cluster`"
    )]
    NoClusterSupport,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the cluster's store: {0}")]
    Replica(#[from] ReplicaError),
    #[error("{}: {why}", path.display())]
    Repo { path: PathBuf, why: String },
}

/// A node that runs in this process. Dropping it does not stop it: [`Node::stop`] does.
pub struct Node {
    pub refs: Refs,
    /// The seal schedulers of all nodes, by the node's name.
    pub shards: Arc<Shards>,
    /// Others' disks and workers; `None`: this node is the whole provider.
    pub far: Option<Arc<RemoteNodes>>,
    pub tree: Tree,
    pub backend: Arc<NodeBackend>,
    pub miner: Address,
    pub reloader: Arc<Reloader>,
    stop: Arc<Notify>,
}

/// One connection a group: a group that floods or breaks its own leaves the others' alone.
pub struct Links {
    pub chain: Arc<dyn FullNode>,
    pub proving: Arc<dyn FullNode>,
    pub sealing: Arc<dyn FullNode>,
    pub markets: Arc<dyn FullNode>,
    pub admin: Arc<dyn FullNode>,
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
                Some(Arc::new(Net::new(cluster, settings.repo.clone(), miner, boot, start, &store, slots.clone())?))
            }
            None => None,
        };
        let far = net.as_ref().map(|net| Arc::new(RemoteNodes::of(net)));
        if let Some(far) = &far {
            (settings.agents, settings.storages) = (far.clone(), far.clone());
        }
        let alone = settings.cluster.is_none();
        let concerns = Concern::ALL.into_iter().filter(|concern| !alone || slots.get(*concern).is_some()).collect();
        let reloader = Arc::new(Reloader::new(&settings, &refs, &prover));
        let backend = Arc::new(NodeBackend {
            live: reloader.live.clone(),
            concerns,
            agents: settings.agents.clone(),
            period: Default::default(),
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
        let running = Tree::start_with(parts.root(), options)?;
        let Parts { refs, shards, tree, stop, backend, prover, .. } = parts;
        running.supervisor("root/provers").into_iter().for_each(|provers| prover.show_in(provers));
        // Readers of the cell that were up before this line saw an empty tree.
        let _ = tree.set(running.downgrade());
        Ok(Node { refs, shards, far, tree: running, backend, miner, reloader, stop })
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

/// `<repo>/sectorid`, as the distributed miner has it: a number that is greater than all sectors' at the first deployment.
pub(in crate::node) fn first_deployment(repo: &std::path::Path) -> Result<Option<u64>, NodeError> {
    let path = repo.join("sectorid");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(NodeError::Repo { path, why: e.to_string() }),
    };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            let why = format!("{:?} is no sector number: write one that is greater than every sector's", text.trim());
            Err(NodeError::Repo { path, why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectorid_file_is_a_number_or_refused() {
        let repo = tempfile::tempdir().unwrap();
        let read = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(repo.path().join("sectorid"), text).unwrap();
            }
            first_deployment(repo.path()).map_err(|e| e.to_string())
        };
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some("1200\n")), Ok(Some(1200)));
        let refused = read(Some("many")).unwrap_err();
        assert!(refused.contains("sectorid") && refused.contains("greater than every sector's"), "{refused}");
    }
}
