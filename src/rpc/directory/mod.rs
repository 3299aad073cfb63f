//! The members of the cluster, the holders of its concerns, and the choice of holders: on one node [`Local`], over
//! several hosts etcd.
//!
//! * [`record`] — what a node says of itself; [`view`] — what everybody knows of everybody.
//! * [`lease`] — the right to be the one holder of a concern, and for how long it is proven.
//! * [`placement`] — which node should hold which concern: pure.
//! * [`join`] — the text that a new host needs to join a cluster.
//! * [`local`] — a cluster of one, or one of several that [`fixed`] lists by hand; [`etcd`] (feature `cluster`) — the cluster's coordination engine.
//!
//! A concern that may run only once (`/t01000/window-post`) is held under a lease. Its **epoch** grows with every holder,
//! so a late effect of an earlier one can be told and refused. Three things are kept apart ([`LeaseState`]): a holder that
//! is *proven* may do what must never be done twice; one that is *unproven* (etcd out of reach) may still be the holder,
//! and goes on with what may be done twice; one that *lost* knows that it is not.

mod error;
#[cfg(feature = "cluster")]
pub mod etcd;
pub mod fixed;
mod holder;
pub mod join;
pub mod lease;
pub mod local;
pub mod placement;
pub mod record;
mod text;
pub mod view;

pub use error::{DirectoryError, check_concern, is_name};
pub use fixed::Fixed;
pub use holder::Holder;
pub use lease::{Lease, LeaseProof, LeaseState};
pub use local::Local;
pub use record::{NodeKind, NodeRecord, Role};
pub use view::{Space, View};

use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;

/// The cluster as one node sees it. Every call has a deadline of its own and ends in a typed error after it.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Makes this node known, and known again whenever the cluster has forgotten it. Called again, it replaces the record.
    async fn register(&self, me: NodeRecord) -> Result<(), DirectoryError>;

    /// Ends the registration and every lease of this node at once, instead of when they expire.
    async fn leave(&self) -> Result<(), DirectoryError>;

    /// Everything that is known, kept up to date. Complete from the moment that the directory exists.
    fn view(&self) -> watch::Receiver<Arc<View>>;

    /// Becomes the one holder of this concern, or says who is. Needs a registered node.
    async fn acquire(&self, concern: &str) -> Result<Lease, DirectoryError>;

    /// Leaves an operator's order for the nodes, which see it in their view.
    async fn order(&self, order: PlacementOrder) -> Result<(), DirectoryError>;
}

/// An operator's orders to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementOrder {
    /// The holder hands this concern over to that node. Forgotten once it is done, or after ten minutes.
    Move { concern: String, node: String },
    /// The node hands over all that others can take, and takes nothing.
    Drain { node: String },
    /// It may take again.
    Undrain { node: String },
}
