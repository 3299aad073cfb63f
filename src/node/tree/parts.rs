//! Everything that the specs of the tree are made of, and what they share.

use crate::chain::Address;
use crate::node::backend::NodeBackend;
use crate::node::concern::Concern;
use crate::node::lease_slot::{LeaseSlot, LeaseSlots};
use crate::node::links::Links;
use crate::node::net::Net;
use crate::node::refs::{Heads, Refs};
use crate::node::reload::{Live, Reloader};
use crate::node::settings::NodeSettings;
use crate::node::shards::Shards;
use crate::proofs::Prover;
use crate::rpc::auth::RepoAuth;
use crate::rpc::pool_api::PoolApi;
use crate::store::Store;
use crate::supervisor::{
    Actor, BudgetSpent, ChildSpec, Cx, Groups, Ref, RestartBackoff, StartError, SupervisorSpec, WeakTree,
};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Everything that the specs are made of.
pub(in crate::node) struct Parts {
    pub reloader: Arc<Reloader>,
    pub groups: Groups,
    pub heads: Heads,
    pub settings: NodeSettings,
    pub refs: Refs,
    pub slots: LeaseSlots,
    pub store: Store,
    pub miner: Address,
    pub sector_size: u64,
    pub links: Links,
    pub prover: Arc<dyn Prover>,
    pub auth: Arc<RepoAuth>,
    pub tree: Arc<OnceLock<WeakTree>>,
    pub stop: Arc<Notify>,
    pub backend: Arc<NodeBackend>,
    pub shards: Arc<Shards>,
    /// `None`: the pool of full nodes is not served.
    pub pool_api: Option<Arc<PoolApi>>,
    /// In a cluster.
    pub net: Option<Arc<Net>>,
}

pub(in crate::node) const MINUTE: Duration = Duration::from_secs(60);

/// A group whose children are held down, each alone, when one needs more than `restarts` within `within`; tried again
/// after each `again`.
pub(in crate::node) fn holding_down(id: &str, restarts: u32, within: Duration, again: Duration) -> SupervisorSpec {
    SupervisorSpec::new(id)
        .intensity(restarts, within)
        .backoff(RestartBackoff { first: Duration::from_millis(200), cap: again, reset_after: MINUTE })
        .on_budget_spent(BudgetSpent::HoldDown { escalate_after: None })
}

/// Between two tries of what is held down, where nothing of proving waits for it.
pub(in crate::node) const HELD_DOWN_RETRY: Duration = Duration::from_secs(30);

impl Parts {
    /// The present settings and addresses that concerns are started with.
    pub fn live(&self) -> Live {
        self.reloader.live.clone()
    }

    pub fn miner_id(&self) -> u64 {
        self.miner.id().unwrap_or_default()
    }

    /// The concern's child, if it is one of this node's.
    pub fn leased_child<A, F, Fut>(&self, concern: Concern, address: &Ref<A>, start: F) -> Option<ChildSpec>
    where
        A: Actor,
        F: Fn(Cx<A>, Store) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, StartError>> + 'static,
    {
        let slot = self.slots.get(concern)?;
        let (_, id) = concern.place(&self.miner);
        Some(leased_child(id, slot, address, start))
    }
}

/// A child that runs while the slot is held; without it, its start passes.
pub(in crate::node) fn leased_child<A, F, Fut>(
    id: String,
    slot: &Arc<LeaseSlot>,
    address: &Ref<A>,
    start: F,
) -> ChildSpec
where
    A: Actor,
    F: Fn(Cx<A>, Store) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, StartError>> + 'static,
{
    let here = slot.clone();
    let spec = ChildSpec::optional(id, address, move |cx| {
        let started = here.present().map(|held_lease| start(cx, held_lease.store.clone()));
        async move {
            match started {
                Some(started) => started.await.map(Some),
                None => Ok(None),
            }
        }
    });
    spec.under(slot.clone())
}

/// Adds the children that are there.
pub(super) trait Children: Sized {
    fn children(self, children: impl IntoIterator<Item = Option<ChildSpec>>) -> Self;
}

impl Children for SupervisorSpec {
    fn children(self, children: impl IntoIterator<Item = Option<ChildSpec>>) -> Self {
        children.into_iter().flatten().fold(self, SupervisorSpec::child)
    }
}
