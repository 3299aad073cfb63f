//! Gives out sector numbers, never the same twice: over crashes, retries, other software on the same miner (the chain's
//! bitfield is merged) and times when the chain cannot be asked (a small range is leased ahead). In a cluster every number
//! comes from a range that was leased in the cluster's store first, so that two allocators on the two sides of a partition
//! never give out the same one.
//!
//! [`messages`] is the protocol, [`machine`] the decisions, [`Allocator`] the work.

mod allocator;
mod leased;
pub mod machine;
pub mod messages;

pub(super) use allocator::AllocationRecord;
pub use allocator::{Allocator, AllocatorSettings};
pub(super) use leased::RangeHolder;
pub use machine::NumberSet;

use crate::chain::Address;
use crate::rpc::full_node::FullNode;
use crate::store::Store;
use crate::supervisor::{Actor, Cx, Exit, Handler, Message, StartError};
use messages::{Allocate, AllocateError, Allocated, Free, Numbers, Reserve, ReserveCount, ReserveError};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const LEASE_REFRESH: Duration = Duration::from_secs(300);

pub struct AllocatorDeps {
    pub node: Arc<dyn FullNode>,
    pub store: Store,
    pub miner: Address,
    pub settings: AllocatorSettings,
}

/// The actor; one per miner, `/t01000/sector-allocator`. Its handlers wait for the chain on purpose: the mailbox is the
/// lock that makes allocations one after another.
pub struct SectorAllocator {
    book: Allocator,
}

impl SectorAllocator {
    pub async fn start(cx: Cx<SectorAllocator>, deps: AllocatorDeps) -> Result<SectorAllocator, StartError> {
        let AllocatorDeps { node, store, miner, settings } = deps;
        let book = Allocator { node, store, token: cx.token(), miner, settings };
        book.begin().map_err(|e| StartError(e.to_string()))?;
        Ok(SectorAllocator { book })
    }
}

struct RefreshLease;
impl Message for RefreshLease {
    type Reply = ();
}

impl Actor for SectorAllocator {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(Duration::ZERO, RefreshLease);
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        Some(self.book.show())
    }

    async fn stopping(&mut self, _: &Cx<Self>) {
        if let Err(error) = self.book.give_back() {
            tracing::info!(%error, "the leased numbers are not given back; the next allocator leaves them out");
        }
    }
}

impl Handler<RefreshLease> for SectorAllocator {
    async fn handle(&mut self, _: RefreshLease, cx: &Cx<Self>) -> Result<(), Exit> {
        if !self.book.refresh().await.map_err(Exit::from)? {
            tracing::debug!("the chain cannot be asked for sector numbers; leased ones serve");
        }
        cx.tell_after(LEASE_REFRESH, RefreshLease);
        Ok(())
    }
}

/// One refresh of the lease, besides the regular ones.
struct Refill;
impl Message for Refill {
    type Reply = ();
}

impl Handler<Refill> for SectorAllocator {
    async fn handle(&mut self, _: Refill, _: &Cx<Self>) -> Result<(), Exit> {
        self.book.refresh().await.map(|_| ()).map_err(Exit::from)
    }
}

impl Handler<Allocate> for SectorAllocator {
    async fn handle(&mut self, m: Allocate, cx: &Cx<Self>) -> Result<Result<u64, AllocateError>, Exit> {
        let answer = self.book.allocate(&m.request).await;
        if self.book.store.is_replicated() {
            cx.tell_after(Duration::ZERO, Refill); // the range is full again before the next outage
        }
        Ok(answer)
    }
}

impl Handler<Allocated> for SectorAllocator {
    async fn handle(&mut self, _: Allocated, _: &Cx<Self>) -> Result<Result<Numbers, AllocateError>, Exit> {
        Ok(self.book.numbers().await)
    }
}

impl Handler<Reserve> for SectorAllocator {
    async fn handle(&mut self, m: Reserve, _: &Cx<Self>) -> Result<Result<(), ReserveError>, Exit> {
        Ok(self.book.reserve(&m.name, &m.numbers).await)
    }
}

impl Handler<ReserveCount> for SectorAllocator {
    async fn handle(
        &mut self,
        m: ReserveCount,
        _: &Cx<Self>,
    ) -> Result<Result<Vec<RangeInclusive<u64>>, ReserveError>, Exit> {
        Ok(self.book.reserve_count(&m.name, m.count).await)
    }
}

impl Handler<Free> for SectorAllocator {
    async fn handle(&mut self, m: Free, _: &Cx<Self>) -> Result<Result<(), ReserveError>, Exit> {
        Ok(self.book.free(&m.name))
    }
}
