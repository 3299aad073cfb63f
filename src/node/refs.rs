//! The addresses of a node's actors. They exist before the tree starts, so that any actor can be given any other.

use super::api_views::InfoPublisher;
use super::concern::Concern;
use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::daemon_link::{DaemonPool, HeadFeed, Subscribers};
use crate::actors::deal_handler::DealHandler;
use crate::actors::f3::F3Participation;
use crate::actors::message_sender::MessageSender;
use crate::actors::seal_scheduler::SealScheduler;
use crate::actors::sector_allocator::SectorAllocator;
use crate::actors::storage::{self, Storage};
use crate::actors::window_post::WindowPost;
use crate::actors::winning_post::WinningPost;
use crate::chain::Address;
use crate::node::mailbox::MAILBOX;
use crate::rpc::admin::AdminHttp;
use crate::rpc::api::ApiServer;
use crate::supervisor::{Group, Groups, Ref};
use std::sync::Arc;

/// Addresses of actors: a concern's leads to wherever it runs, the others to this process.
#[derive(Clone)]
pub struct Refs {
    pub pool: Ref<DaemonPool>,
    pub feed: Ref<HeadFeed>,
    pub messages: Ref<MessageSender>,
    pub window_post: Ref<WindowPost>,
    pub winning_post: Ref<WinningPost>,
    /// Runs where WinningPoSt does.
    pub f3: Ref<F3Participation>,
    pub allocator: Ref<SectorAllocator>,
    /// This node's own.
    pub sealing: Ref<SealScheduler>,
    /// This node's own.
    pub storage: Ref<Storage>,
    pub market: Ref<DealHandler>,
    pub info: Ref<InfoPublisher>,
    pub admin: Ref<AdminHttp>,
    pub api: Ref<ApiServer>,
}

/// Each node's own, the link to the full nodes and what answers for it: its name, then one of these.
pub const POOL: &str = "daemon-pool";
pub const FEED: &str = "head-feed";
pub const INFO: &str = "info";
/// F3 participation's, below the miner.
pub const F3: &str = "f3";

impl Refs {
    /// `node`: this node's name, in a cluster.
    pub(super) fn new(miner: &Address, node: Option<&str>) -> Refs {
        let of = |concern: Concern| concern.path(miner, node);
        let own = |name: &str| node.map_or(format!("/{name}"), |node| format!("/{node}/{name}"));
        Refs {
            pool: Ref::new(own(POOL), MAILBOX),
            feed: Ref::new(own(FEED), MAILBOX),
            messages: Ref::new(of(Concern::MessageSender), MAILBOX),
            window_post: Ref::new(of(Concern::WindowPost), MAILBOX),
            winning_post: Ref::new(of(Concern::WinningPost), MAILBOX),
            f3: Ref::new(format!("/{miner}/{F3}"), MAILBOX),
            allocator: Ref::new(of(Concern::Allocator), MAILBOX),
            sealing: Ref::new(of(Concern::SealScheduler), MAILBOX),
            storage: Ref::new(storage::path(node.unwrap_or("node")), MAILBOX),
            market: Ref::new(of(Concern::DealHandler), MAILBOX),
            info: Ref::new(own(INFO), MAILBOX),
            admin: Ref::new("/admin-http", MAILBOX),
            api: Ref::new("/api", MAILBOX),
        }
    }
}

/// The incarnations here that receive every new head. A concern that runs elsewhere has that node's feed.
#[derive(Clone)]
pub(super) struct Heads {
    pub proving: Group<HeadUpdate>,
    pub others: Group<HeadUpdate>,
}

impl Heads {
    pub fn of(groups: &Groups) -> Heads {
        Heads { proving: groups.group("heads/proving"), others: groups.group("heads/others") }
    }

    /// Proving first: it has the shortest deadlines.
    pub fn subscribers(&self) -> Subscribers {
        let heads = self.clone();
        Arc::new(move || [heads.proving.members(), heads.others.members()].concat())
    }
}
