//! THE supervision tree, written down once: settings -> child specs, and a node that runs on them.
//!
//! Order matters: children start from top to bottom and stop from bottom to top, so that proving outlives sealing.
//! `proving` shares no thread, no prover slot, no restart budget and no connection with `sealing` or `markets`.
//!
//! * [`settings`] — what a node needs to know before its tree is built.
//! * [`identity`] — whose node this is: network and miner, asked once and kept.
//! * [`roles`] — what may run here.
//! * [`agent`] — the tree of a seal agent; [`far`] — agents and storages of other nodes.
//! * [`backend`], [`report`] — the node behind its own API: lists, sector details, summaries.

pub mod agent;
pub mod backend;
pub mod far;
pub mod identity;
pub mod journal;
pub mod report;
pub mod roles;
pub mod settings;

use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::daemon_link::pool::Pool;
use crate::actors::daemon_link::settings::LinkSettings;
use crate::actors::daemon_link::{DaemonPool, HeadFeed};
use crate::actors::deal_handler::{self, DealHandler, MarketConfig, MarketDeps, WalletSigner};
use crate::actors::message_sender::{MessageSender, NodeWallet, SenderDeps};
use crate::actors::seal_scheduler::{SealDeps, SealScheduler};
use crate::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use crate::actors::sector_files::SectorDirs;
use crate::actors::storage::{FarFiles, FarSectors, Index};
use crate::actors::window_post::{WindowPost, WindowPostDeps};
use crate::actors::winning_post::settings::SystemClock;
use crate::actors::winning_post::{WinningPost, WinningPostDeps};
use crate::chain::Address;
use crate::proofs::{FencedProver, Prover};
use crate::rpc::admin::{self, AdminConfig, AdminHttp, AdminViews};
use crate::rpc::api::{self, ApiConfig, ApiServer};
use crate::rpc::auth::{Auth, Perm};
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::store::{Store, StoreError};
use crate::supervisor::{
    ActorInfo, AdminError, ChildSpec, Exit, Order, Recipient, Ref, Shutdown, Strategy, SupervisorSpec, Thread, Tree,
    TreeError, TreeOptions, WeakTree,
};
use arc_swap::ArcSwap;
use backend::NodeBackend;
use futures::FutureExt;
use futures::future::BoxFuture;
use identity::Identity;
use journal::{Journal, JournalKeeper};
use report::InfoPublisher;
use settings::NodeSettings;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    FullNode(#[from] FullNodeError),
    #[error(transparent)]
    Auth(#[from] crate::rpc::auth::AuthError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{}: {why}", path.display())]
    Repo { path: PathBuf, why: String },
}

/// The addresses of a node's actors. They exist before the tree starts, so that any actor can be given any other.
#[derive(Clone)]
pub struct Refs {
    pub pool: Ref<DaemonPool>,
    pub feed: Ref<HeadFeed>,
    pub messages: Ref<MessageSender>,
    pub window_post: Ref<WindowPost>,
    pub winning_post: Ref<WinningPost>,
    pub allocator: Ref<SectorAllocator>,
    pub sealing: Ref<SealScheduler>,
    pub market: Ref<DealHandler>,
    pub info: Ref<InfoPublisher>,
    pub admin: Ref<AdminHttp>,
    pub api: Ref<ApiServer>,
}

/// Mailbox bound of light actors; job runners get less.
const MAILBOX: usize = 256;

impl Refs {
    fn new(miner: &Address) -> Refs {
        let of_miner = |concern: &str| format!("/{miner}/{concern}");
        Refs {
            pool: Ref::new("/daemon-pool", MAILBOX),
            feed: Ref::new("/head-feed", MAILBOX),
            messages: Ref::new(of_miner("message-sender"), MAILBOX),
            window_post: Ref::new(of_miner("window-post"), MAILBOX),
            winning_post: Ref::new(of_miner("winning-post"), MAILBOX),
            allocator: Ref::new(of_miner("sector-allocator"), MAILBOX),
            sealing: Ref::new(of_miner("seal-scheduler"), MAILBOX),
            market: Ref::new(of_miner("deal-handler"), MAILBOX),
            info: Ref::new("/info", MAILBOX),
            admin: Ref::new("/admin-http", MAILBOX),
            api: Ref::new("/api", MAILBOX),
        }
    }

    /// Who is told of every new head.
    fn head_subscribers(&self) -> Vec<Recipient<HeadUpdate>> {
        vec![
            // Proving first: it has the shortest deadlines.
            self.winning_post.recipient(),
            self.window_post.recipient(),
            self.messages.recipient(),
            self.sealing.recipient(),
            self.info.recipient(),
        ]
    }
}

/// A node that runs in this process. Dropping it does not stop it: [`Node::stop`] does.
pub struct Node {
    pub refs: Refs,
    pub tree: Tree,
    pub backend: Arc<NodeBackend>,
    pub miner: Address,
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
        let settings = NodeSettings { link, ..settings };
        let auth = Arc::new(Auth::open(&settings.repo)?);
        let refs = Refs::new(&miner);
        let tree = Arc::new(OnceLock::new());
        let stop = Arc::new(Notify::new());
        let backend = Arc::new(NodeBackend {
            refs: refs.clone(),
            node: links.admin.clone(),
            miner,
            sector_size,
            network,
            tree: tree.clone(),
            stop: stop.clone(),
        });
        let parts = Parts { settings, refs, store, miner, sector_size, links, prover, auth, tree, stop, backend };
        let running = Tree::start_with(parts.root(), TreeOptions { epoch_base: boot << 32, ..TreeOptions::default() })?;
        let Parts { refs, tree, stop, backend, settings, prover, .. } = parts;
        running.supervisor("root/provers").into_iter().for_each(|provers| prover.show_in(provers));
        // Readers of the cell that were up before this line saw an empty tree.
        let _ = tree.set(running.downgrade());
        let node = Node { refs, tree: running, backend, miner, stop };
        node.leave_admin_address(&settings.repo)?;
        Ok(node)
    }

    /// `<repo>/admin`: where the CLI finds the admin HTTP.
    fn leave_admin_address(&self, repo: &std::path::Path) -> Result<(), NodeError> {
        let path = repo.join("admin");
        let fail = |why: String| NodeError::Repo { path: path.clone(), why };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| fail(format!("no runtime to ask for the admin address: {e}")))?;
        let addr = runtime
            .block_on(self.refs.admin.ask(admin::WhereIs, Duration::from_secs(5)))
            .map_err(|e| fail(format!("the admin HTTP does not say where it listens: {e}")))?;
        std::fs::write(&path, addr.to_string()).map_err(|e| fail(e.to_string()))
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

/// What the admin HTTP shows: the node's tree, and another one of this process.
struct Grove {
    node: Arc<OnceLock<WeakTree>>,
    beside: Option<Tree>,
    journal: Arc<Journal>,
}

impl Grove {
    fn node(&self) -> Option<Tree> {
        self.node.get().and_then(WeakTree::upgrade)
    }
    fn trees(&self) -> impl Iterator<Item = Tree> {
        self.node().into_iter().chain(self.beside.clone())
    }
}

impl admin::TreeView for Grove {
    fn snapshot(&self) -> Vec<ActorInfo> {
        self.trees().flat_map(|tree| tree.snapshot()).collect()
    }
    fn kill(&self, path: &str) -> bool {
        self.trees().any(|tree| tree.kill(path))
    }
    fn panic(&self, path: &str) -> bool {
        self.trees().any(|tree| tree.panic(path))
    }
    fn dead_letters(&self) -> Option<admin::DeadLettersView> {
        self.node().as_ref().and_then(admin::TreeView::dead_letters)
    }
    fn order(&self, path: &str, order: Order) -> BoxFuture<'static, Result<(), AdminError>> {
        match self.trees().find(|tree| tree.info(path).is_some()) {
            Some(tree) => admin::TreeView::order(&tree, path, order),
            None => std::future::ready(Err(AdminError::NotFound)).boxed(),
        }
    }
    fn vitals(&self) -> Option<admin::Vitals> {
        self.node().as_ref().and_then(admin::TreeView::vitals)
    }
    fn journal(&self) -> Option<Vec<admin::Ended>> {
        Some(self.journal.entries())
    }
}

/// Everything that the specs are made of.
struct Parts {
    settings: NodeSettings,
    refs: Refs,
    store: Store,
    miner: Address,
    sector_size: u64,
    links: Links,
    prover: Arc<dyn Prover>,
    auth: Arc<Auth>,
    tree: Arc<OnceLock<WeakTree>>,
    stop: Arc<Notify>,
    backend: Arc<NodeBackend>,
}

/// Restart budgets: restarts within the time before a supervisor gives up and takes its whole group down.
const MINUTE: Duration = Duration::from_secs(60);

impl Parts {
    fn root(&self) -> SupervisorSpec {
        SupervisorSpec::new("root")
            .intensity(3, MINUTE * 10)
            .child(ChildSpec::supervisor(self.chain()))
            // The provers' processes, each while it lives; a task whose process dies is the concern's to repeat.
            .child(ChildSpec::supervisor(SupervisorSpec::new("provers").dynamic(64)))
            .child(ChildSpec::supervisor(self.proving()))
            .child(ChildSpec::supervisor(self.sealing()))
            .child(ChildSpec::supervisor(self.markets()))
            .child(ChildSpec::supervisor(self.admin()))
    }

    fn miner_id(&self) -> u64 {
        self.miner.id().unwrap_or_default()
    }

    /// A feed that has to be made anew makes the message sender look at the chain anew.
    fn chain(&self) -> SupervisorSpec {
        let pool = Pool::new(vec![self.links.chain.clone()], &self.settings.link);
        let link = self.settings.link.clone();
        let daemon_pool = {
            let (pool, link) = (pool.clone(), link.clone());
            ChildSpec::actor("daemon_pool", &self.refs.pool, move |cx| {
                let (pool, link) = (pool.clone(), link.clone());
                async move { DaemonPool::start(cx, pool, link).await }
            })
            .on(Thread::Shared("chain"))
        };
        let subscribers = self.refs.head_subscribers();
        let head_feed = ChildSpec::actor("head_feed", &self.refs.feed, move |cx| {
            let (pool, link, subscribers) = (pool.clone(), link.clone(), subscribers.clone());
            async move { HeadFeed::start(cx, pool, subscribers, link).await }
        })
        .on(Thread::Shared("chain"));
        let (node, store, miner) = (self.links.chain.clone(), self.store.clone(), self.miner);
        let settings = self.settings.messages.clone();
        let sender = ChildSpec::actor("message_sender", &self.refs.messages, move |cx| {
            let deps = SenderDeps {
                node: node.clone(),
                signer: Arc::new(NodeWallet(node.clone())),
                store: store.clone(),
                miner,
                settings: settings.clone(),
            };
            async move { MessageSender::start(cx, deps).await }
        })
        .on(Thread::Dedicated);
        SupervisorSpec::new("chain")
            .strategy(Strategy::RestForOne)
            .intensity(5, MINUTE)
            .child(daemon_pool)
            .child(head_feed)
            .child(sender)
    }

    fn proving(&self) -> SupervisorSpec {
        // Sectors whose files are on other nodes are proven from what their storages read.
        let dirs = SectorDirs::of_repo(&self.settings.repo, self.miner_id());
        let index = Arc::new(Index::new(dirs, self.settings.storages.clone()));
        let files = Arc::new(FarFiles(index.clone()));
        let prover: Arc<dyn Prover> = Arc::new(FarSectors { inner: self.prover.clone(), index });
        let window = WindowPostDeps {
            miner: self.miner,
            node: self.links.proving.clone(),
            prover: prover.clone(),
            files: files.clone(),
            outbox: Arc::new(self.refs.messages.clone()),
            store: self.store.clone(),
            jobs: Some(self.settings.repo.join("jobs")),
            settings: self.settings.window_post.clone(),
        };
        let window_post = ChildSpec::actor("window_post", &self.refs.window_post, move |cx| {
            let deps = WindowPostDeps { prover: FencedProver::shared(&window.prover, cx.pass()), ..window.clone() };
            async move { WindowPost::start(cx, deps).await }
        });
        let winning = WinningPostDeps {
            miner: self.miner,
            node: self.links.proving.clone(),
            prover: prover.clone(),
            files,
            store: self.store.clone(),
            clock: Arc::new(SystemClock),
            settings: self.settings.winning_post.clone(),
        };
        let winning_post = ChildSpec::actor("winning_post", &self.refs.winning_post, move |cx| {
            let deps = WinningPostDeps { prover: FencedProver::shared(&winning.prover, cx.pass()), ..winning.clone() };
            async move { WinningPost::start(cx, deps).await }
        });
        SupervisorSpec::new("proving")
            .intensity(10, MINUTE * 5)
            .child(window_post.on(Thread::Dedicated).shutdown(Shutdown::Timeout(Duration::from_secs(30))))
            .child(winning_post.on(Thread::Dedicated))
    }

    fn sealing(&self) -> SupervisorSpec {
        let (node, store, miner) = (self.links.sealing.clone(), self.store.clone(), self.miner);
        let allocator = ChildSpec::actor("sector_allocator", &self.refs.allocator, move |cx| {
            let deps = AllocatorDeps {
                node: node.clone(),
                store: store.clone(),
                miner,
                settings: AllocatorSettings::default(),
            };
            async move { SectorAllocator::start(cx, deps).await }
        })
        .on(Thread::Dedicated);
        let (node, store, prover) = (self.links.sealing.clone(), self.store.clone(), self.prover.clone());
        let (refs, settings) = (self.refs.clone(), self.settings.sealing.clone());
        let agents = self.settings.agents.clone();
        let dirs = SectorDirs::of_repo(&self.settings.repo, self.miner_id());
        let scheduler = ChildSpec::actor("seal_scheduler", &self.refs.sealing, move |cx| {
            let deps = SealDeps {
                node: node.clone(),
                prover: FencedProver::shared(&prover, cx.pass()),
                store: store.clone(),
                messages: refs.messages.clone(),
                allocator: refs.allocator.clone(),
                miner,
                settings: settings.clone(),
                dirs: dirs.clone(),
                agents: agents.clone(),
            };
            async move { SealScheduler::start(cx, deps).await }
        })
        .on(Thread::Dedicated);
        SupervisorSpec::new("sealing").intensity(20, MINUTE * 15).child(allocator).child(scheduler)
    }

    fn markets(&self) -> SupervisorSpec {
        let config = MarketConfig {
            miner: self.miner,
            key_path: self.settings.repo.join("libp2p.key"),
            sector_size: self.sector_size,
            settings: self.settings.market.clone(),
        };
        let deps = MarketDeps {
            signer: Arc::new(WalletSigner { node: self.links.markets.clone(), miner: self.miner }),
            book: Arc::new(self.store.clone()),
        };
        SupervisorSpec::new("markets").intensity(10, MINUTE * 5).child(deal_handler::child(
            config,
            deps,
            &self.refs.market,
        ))
    }

    fn admin(&self) -> SupervisorSpec {
        let published = Arc::new(ArcSwap::from_pointee(serde_json::Value::Null));
        let (backend, place) = (self.backend.clone(), published.clone());
        let info = ChildSpec::actor("info", &self.refs.info, move |cx| {
            let publisher = InfoPublisher::new(backend.clone(), place.clone());
            let _ = &cx;
            async move { Ok(publisher) }
        });
        let (verifier, stop) = (self.auth.clone(), self.stop.clone());
        let config = AdminConfig {
            listen: self.settings.admin_listen,
            allow: Arc::new(move |token| verifier.verify(token).is_ok_and(|perms| perms.contains(&Perm::Admin))),
        };
        let journal: Arc<Journal> = Arc::default();
        let (tree, book) = (self.tree.clone(), journal.clone());
        let keeper = ChildSpec::actor("journal", &Ref::new("/journal", MAILBOX), move |_| {
            let keeper = JournalKeeper::new(tree.clone(), book.clone());
            async move { Ok(keeper) }
        });
        let views = AdminViews {
            tree: Arc::new(Grove {
                node: self.tree.clone(),
                beside: self.settings.beside.clone(),
                journal: journal.clone(),
            }),
            info: published,
            critical: vec!["root/chain".into(), "root/proving".into()],
            stop: Arc::new(move || stop.notify_one()),
        };
        let api =
            ApiConfig { listen: self.settings.api_listen, repo: self.settings.repo.clone(), auth: self.auth.clone() };
        SupervisorSpec::new("admin")
            .intensity(10, MINUTE * 5)
            .child(info.on(Thread::Shared("admin")))
            .child(keeper.on(Thread::Shared("admin")))
            .child(admin::child(config, views, &self.refs.admin).on(Thread::Shared("admin")))
            .child(api::child(api, self.backend.clone(), &self.refs.api).on(Thread::Shared("admin")))
    }
}
