//! A seal agent: its supervision tree, its end of the bridge, its place in the directory.
//!
//! It holds no concern of the cluster. It registers, dials the nodes that it learns of (nobody has to reach it), and lets
//! them reach two actors: the seal-worker and the storage. Its own workers come over HTTP.

use super::agent_view::AgentMethods;
use super::tree::parts::{HELD_DOWN_RETRY, MINUTE, holding_down};
use crate::actors::seal_agent::worker_api::WorkerApi;
use crate::actors::seal_agent::{self, AgentDeps, AgentSettings, SealAgent, storage_mark};
use crate::actors::storage::{self, Storage, StorageDeps};
use crate::proofs::Prover;
use crate::rpc::auth::RepoAuth;
use crate::rpc::bridge::{Bridge, BridgeConfig, BridgeError, EpochGate, identity};
use crate::rpc::directory::{Directory, NodeKind, NodeRecord};
use crate::rpc::listener::SharedListener;
use crate::rpc::server::{self, ServerHandle, Service};
use crate::rpc::server_actor::ServerActor;
use crate::store::{Store, StoreError};
use crate::supervisor::{
    Actor, ChildSpec, Cx, Exit, ExportError, Handler, Message, Ref, StartError, SupervisorSpec, Thread, Tree,
    TreeError, TreeOptions, WeakTree,
};
use libp2p::Multiaddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

const MAILBOX: usize = 1024;
/// Between two tries to register with a directory that does not answer.
const RETRY_DELAY: Duration = Duration::from_secs(3);
/// The bridge's own sockets are known within this.
const LISTENING: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("{}: {why}", path.display())]
    Repo { path: PathBuf, why: String },
}

#[derive(Clone)]
pub struct AgentConfig {
    /// Its name in the directory.
    pub name: String,
    pub cluster: String,
    /// The storage that its workers share, and its own files.
    pub repo: PathBuf,
    /// The bridge's listen addresses; none: it only dials.
    pub listen: Vec<Multiaddr>,
    /// The addresses that others are told to dial; none: they wait to be dialled.
    pub announce: Vec<Multiaddr>,
    pub timing: crate::rpc::bridge::SessionTiming,
    /// For workers.
    pub api_listen: SocketAddr,
    pub settings: AgentSettings,
}

/// An agent that runs in this process.
pub struct AgentNode {
    pub tree: Tree,
    pub worker: Ref<SealAgent>,
    pub storage: Ref<Storage>,
    pub bridge: Arc<Bridge>,
    pub api: Ref<AgentApi>,
    directory: Arc<dyn Directory>,
}

impl AgentNode {
    /// Builds the tree and starts it. Blocking: call it off the async threads. The caller holds the repo's lock.
    pub fn start(
        config: AgentConfig,
        prover: Arc<dyn Prover>,
        directory: Arc<dyn Directory>,
    ) -> Result<AgentNode, AgentError> {
        let fail = |path: PathBuf, e: std::io::Error| AgentError::Repo { path, why: e.to_string() };
        storage_mark(&config.repo).map_err(|e| fail(config.repo.clone(), e))?;
        // A repo may begin as a copy of the manager's: the identity must not be copied with it.
        let own = config.repo.join("agent");
        std::fs::create_dir_all(&own).map_err(|e| fail(own.clone(), e))?;
        let store = Store::open(&own.join("agent.redb"))?;
        let boot = store.next_boot()?;
        let auth = Arc::new(RepoAuth::new(&config.repo));
        let mut bridge = BridgeConfig::new(identity::load_or_make(&own)?, config.cluster.clone());
        (bridge.listen, bridge.timing, bridge.boot) = (config.listen.clone(), config.timing, super::start_of(&store)?);
        let bridge = Arc::new(Bridge::start(bridge)?);

        let worker: Ref<SealAgent> = Ref::new(seal_agent::path(&config.name), MAILBOX);
        let storage: Ref<Storage> = Ref::new(storage::path(&config.name), MAILBOX);
        bridge.export(seal_agent::export(&worker).done()?, EpochGate::none());
        bridge.export(storage::export(&storage).done()?, EpochGate::none());

        let api: Ref<AgentApi> = Ref::new("/agent-api", MAILBOX);
        let parts = Parts {
            config,
            store,
            prover: prover.clone(),
            auth,
            bridge: bridge.clone(),
            directory: directory.clone(),
            boot,
            tree: Arc::default(),
        };
        let root = parts.root(&worker, &storage, &api);
        let tree = Tree::start_with(root, TreeOptions { epoch_base: boot << 32, ..TreeOptions::default() })?;
        // Readers of the cell that were up before this line saw an empty tree.
        let _ = parts.tree.set(tree.downgrade());
        tree.supervisor("root/provers").into_iter().for_each(|provers| prover.show_in(provers));
        Ok(AgentNode { tree, worker, storage, bridge, api, directory })
    }

    pub async fn ended(&self) -> Exit {
        self.tree.wait().await
    }

    /// Leaves the directory first, so that no new sector comes.
    pub async fn stop(&self) -> Exit {
        if let Err(e) = self.directory.leave().await {
            tracing::warn!("the directory keeps this agent until its lease ends: {e}");
        }
        self.tree.shutdown().await
    }
}

struct Parts {
    config: AgentConfig,
    store: Store,
    prover: Arc<dyn Prover>,
    auth: Arc<RepoAuth>,
    bridge: Arc<Bridge>,
    directory: Arc<dyn Directory>,
    boot: u64,
    tree: Arc<OnceLock<WeakTree>>,
}

impl Parts {
    fn root(&self, worker: &Ref<SealAgent>, storage: &Ref<Storage>, api: &Ref<AgentApi>) -> SupervisorSpec {
        let changed = watch::Sender::new(0);
        let deps = AgentDeps {
            store: self.store.clone(),
            prover: self.prover.clone(),
            repo: self.config.repo.clone(),
            settings: self.config.settings.clone(),
            changed: changed.clone(),
        };
        let seal_worker = ChildSpec::actor("seal_worker", worker, move |cx| SealAgent::start(cx, deps.clone()));
        let deps = StorageDeps { repo: self.config.repo.clone(), prover: self.prover.clone() };
        let disks = ChildSpec::actor("storage", storage, move |_| {
            let storage = Storage::new(deps.clone());
            async move { Ok(storage) }
        });
        SupervisorSpec::new("root")
            .intensity(3, MINUTE * 10)
            // The provers' processes, each while it lives.
            .child(ChildSpec::supervisor(SupervisorSpec::new("provers").dynamic(64)))
            .child(ChildSpec::supervisor(
                SupervisorSpec::new("storage").intensity(10, MINUTE * 5).child(disks.on(Thread::Dedicated)),
            ))
            // Proving reads the disks of this host whether or not it can seal.
            .child(ChildSpec::supervisor(
                holding_down("sealing", 20, MINUTE * 15, HELD_DOWN_RETRY)
                    .child(seal_worker.on(Thread::Dedicated).may_start_later()),
            ))
            .child(ChildSpec::supervisor(
                SupervisorSpec::new("net").intensity(10, MINUTE * 5).child(self.peers(worker, storage)),
            ))
            .child(ChildSpec::supervisor(
                holding_down("api", 10, MINUTE * 5, HELD_DOWN_RETRY).child(self.api(worker, changed, api)),
            ))
    }

    fn peers(&self, worker: &Ref<SealAgent>, storage: &Ref<Storage>) -> ChildSpec {
        let mut me = NodeRecord::new(self.config.name.clone(), self.bridge.peer_id(), self.boot);
        me.kind = NodeKind::Agent;
        me.serves = [worker.path().to_owned(), storage.path().to_owned()].into();
        me.addrs = self.config.announce.clone();
        let api = self.config.api_listen;
        let version = if api.is_ipv4() { "ip4" } else { "ip6" };
        me.api = Some(format!("/{version}/{}/tcp/{}/http", api.ip(), api.port()));
        let dials_out_only = self.config.listen.is_empty();
        let (bridge, directory) = (self.bridge.clone(), self.directory.clone());
        ChildSpec::actor("peers", &Ref::new("/agent-peers", MAILBOX), move |_| {
            let peers = Peers { bridge: bridge.clone(), directory: directory.clone(), me: me.clone(), dials_out_only };
            async move { Ok(peers) }
        })
        .on(Thread::Shared("net"))
    }

    fn api(&self, worker: &Ref<SealAgent>, changed: watch::Sender<u64>, api: &Ref<AgentApi>) -> ChildSpec {
        let door = SharedListener::new(self.config.api_listen, "api.listen");
        let (worker, auth, repo) = (worker.clone(), self.auth.clone(), self.config.repo.clone());
        let (name, directory, tree) = (self.config.name.clone(), self.directory.clone(), self.tree.clone());
        ChildSpec::actor("api_server", api, move |_| {
            let worker_api = WorkerApi {
                worker: worker.clone(),
                changed: changed.subscribe(),
                version: format!("bulkhead-agent {}", env!("CARGO_PKG_VERSION")),
            };
            let methods =
                AgentMethods { worker_api, name: name.clone(), directory: directory.clone(), tree: tree.clone() };
            let started = auth.open().map_err(|e| StartError(e.to_string())).and_then(|auth| {
                let service = Service::of_methods(Arc::new(methods), auth);
                start_api(&door, service, &repo)
            });
            async move { started }
        })
        .on(Thread::Shared("net"))
        .may_start_later()
    }
}

/// Keeps the agent registered, and the bridge told of who there is.
struct Peers {
    bridge: Arc<Bridge>,
    directory: Arc<dyn Directory>,
    me: NodeRecord,
    dials_out_only: bool,
}

struct Registered;
impl Message for Registered {
    type Reply = ();
}

impl Actor for Peers {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let (bridge, mut view) = (self.bridge.clone(), self.directory.view());
        cx.spawn_detached(async move {
            loop {
                let now = view.borrow_and_update().clone();
                for node in now.nodes.values().filter(|node| node.peer_id != bridge.peer_id()) {
                    bridge.know(node.peer_id, node.addrs.clone());
                }
                bridge.allow(now.peers());
                if view.changed().await.is_err() {
                    return; // the directory was closed with the agent
                }
            }
        });
        let (bridge, directory, mut me) = (self.bridge.clone(), self.directory.clone(), self.me.clone());
        let wants_addrs = me.addrs.is_empty() && !self.dials_out_only;
        let (mut tries, trouble) = (0u32, cx.clone());
        cx.spawn(async move {
            if wants_addrs {
                me.addrs = listening(&bridge).await;
            }
            while let Err(e) = directory.register(me.clone()).await {
                tries += 1;
                tracing::warn!(tries, "the agent is not registered yet: {e}");
                trouble.trouble(Some(e.to_string()));
                tokio::time::sleep(RETRY_DELAY).await;
            }
            trouble.trouble(None);
            Registered
        });
        Ok(())
    }
}

impl Handler<Registered> for Peers {
    async fn handle(&mut self, _: Registered, _: &Cx<Self>) -> Result<(), Exit> {
        tracing::info!(agent = self.me.name, peer = %self.me.peer_id, "registered");
        Ok(())
    }
}

/// The addresses at which others may dial us, as far as the bridge itself knows.
async fn listening(bridge: &Bridge) -> Vec<Multiaddr> {
    let mut events = bridge.events();
    let known = async {
        while bridge.listening().is_empty() && events.changed().await.is_ok() {}
        bridge.listening()
    };
    tokio::time::timeout(LISTENING, known).await.unwrap_or_default()
}

/// The HTTP side for workers; each start leaves its address, the admin's token and the workers' token in the repo.
pub type AgentApi = ServerActor<ServerHandle>;

fn start_api(door: &SharedListener, service: Service, repo: &std::path::Path) -> Result<AgentApi, StartError> {
    let auth = service.auth.clone();
    let server = server::serve_at(door, service).map_err(|e| StartError(e.to_string()))?;
    let left = auth.write_repo_files(repo, server.addr()).and_then(|_| auth.write_worker_token(repo));
    Ok(ServerActor::new("agent's API server", server, door).not_found_by_tools(left.err().map(|e| e.to_string())))
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
