//! THE supervision tree, written down once: settings -> child specs.
//!
//! Order matters: children start from top to bottom and stop from bottom to top, so that proving outlives sealing.
//! `proving` shares no thread, no prover slot, no restart budget and no connection with `sealing` or `markets`.
//! What proving cannot do without (`store`, `chain`, `proving`) has to come up for a start to succeed; every other child
//! whose first start fails comes up later. A crash loop outside `proving` is held down in its group, which never ends for
//! it, but for what proving needs of `chain`: see [`chain`].
//! One file a group. A concern that only one process of a cluster may run has its spec here on every node whose roles
//! allow it, and runs while its [`LeaseSlot`] is held.

mod admin;
mod chain;
mod finality;
mod markets;
mod net;
mod proving;
mod sealing;
mod storage;
mod store;

use super::backend::NodeBackend;
use super::concern::Concern;
use super::lease_slot::{LeaseSlot, LeaseSlots};
use super::refs::{Heads, Refs};
use super::reload::{Live, Reloader};
use super::settings::NodeSettings;
use super::shards::Shards;
use super::{Links, net::Net};
use crate::chain::Address;
use crate::proofs::Prover;
use crate::rpc::auth::RepoAuth;
use crate::store::Store;
use crate::supervisor::{
    Actor, BudgetSpent, ChildSpec, Cx, Groups, Ref, RestartBackoff, StartError, SupervisorSpec, WeakTree,
};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Everything that the specs are made of.
pub(super) struct Parts {
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
    /// In a cluster.
    pub net: Option<Arc<Net>>,
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// A group whose children are held down, each alone, when one needs more than `restarts` within `within`; tried again
/// after each `again`.
pub(super) fn holding_down(id: &str, restarts: u32, within: Duration, again: Duration) -> SupervisorSpec {
    SupervisorSpec::new(id)
        .intensity(restarts, within)
        .backoff(RestartBackoff { first: Duration::from_millis(200), cap: again, reset_after: MINUTE })
        .on_budget_spent(BudgetSpent::HoldDown { escalate_after: None })
}

/// Between two tries of what is held down, where nothing of proving waits for it.
pub(super) const AGAIN: Duration = Duration::from_secs(30);

impl Parts {
    pub fn root(&self) -> SupervisorSpec {
        SupervisorSpec::new("root")
            .intensity(3, MINUTE * 60) // groups that ended: `proving`, or `chain` after ten minutes
            .child(ChildSpec::supervisor(store::group(self)))
            .child(ChildSpec::supervisor(chain::group(self)))
            .children([net::group(self).map(ChildSpec::supervisor)])
            // The provers' processes, each while it lives; a task whose process dies is the concern's to repeat.
            .child(ChildSpec::supervisor(SupervisorSpec::new("provers").dynamic(64)))
            .child(ChildSpec::supervisor(proving::group(self)))
            .child(ChildSpec::supervisor(finality::group(self)))
            .child(ChildSpec::supervisor(sealing::group(self)))
            .children([storage::group(self).map(ChildSpec::supervisor)])
            .child(ChildSpec::supervisor(markets::group(self)))
            .child(ChildSpec::supervisor(admin::group(self)))
    }

    /// The present settings and addresses that concerns are started with.
    fn live(&self) -> Live {
        self.reloader.live.clone()
    }

    fn miner_id(&self) -> u64 {
        self.miner.id().unwrap_or_default()
    }

    /// The concern's child, if it is one of this node's.
    fn leased_child<A, F, Fut>(&self, concern: Concern, address: &Ref<A>, start: F) -> Option<ChildSpec>
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
pub(super) fn leased_child<A, F, Fut>(id: String, slot: &Arc<LeaseSlot>, address: &Ref<A>, start: F) -> ChildSpec
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
trait Children: Sized {
    fn children(self, children: impl IntoIterator<Item = Option<ChildSpec>>) -> Self;
}

impl Children for SupervisorSpec {
    fn children(self, children: impl IntoIterator<Item = Option<ChildSpec>>) -> Self {
        children.into_iter().flatten().fold(self, SupervisorSpec::child)
    }
}
