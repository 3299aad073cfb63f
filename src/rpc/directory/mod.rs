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

#[cfg(feature = "cluster")]
pub mod etcd;
pub mod fixed;
pub mod join;
pub mod lease;
pub mod local;
pub mod placement;
pub mod record;
pub mod view;

pub use fixed::Fixed;
pub use lease::{Lease, LeaseProof, LeaseState};
pub use local::Local;
pub use record::{NodeKind, NodeRecord, Role};
pub use view::{Holder, Space, View};

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

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("{concern} is held by {} (epoch {})", holder.node, holder.epoch)]
    Held { concern: String, holder: Box<Holder> },
    #[error("this node is not registered yet: register it before it acquires {concern}")]
    NotRegistered { concern: String },
    #[error("{name:?} is the name of another node of this cluster (PeerId {by}): set cluster.node to one of its own")]
    NameTaken { name: String, by: String },
    #[error(
        "{name} has the PeerId of node {node} ({peer}), so its repo is a copy of that node's: stop it, remove `bridge.key` from the copy, and start it again (a node that was only given another name is let in once {node} has left)"
    )]
    PeerTaken { name: String, peer: String, node: String },
    #[error(
        "a later start of {name} (boot {boot}) is registered: stop this process, or give it a repo and name of its own"
    )]
    Superseded { name: String, boot: u64 },
    #[error("no node {node:?} in this cluster; there are: {known}")]
    UnknownNode { node: String, known: String },
    #[error("{node} cannot take {concern}: {why}")]
    CannotTake { node: String, concern: String, why: String },
    #[error("{path:?} is no path of a concern: write it as /t01000/window-post")]
    BadConcern { path: String },
    #[error("{name:?} is no name for a {what}: use letters, digits, `-`, `_` and `.`, at most 64")]
    BadName { what: &'static str, name: String },
    #[error("this node runs alone: set cluster.etcd to make it part of a cluster")]
    Alone,
    #[error("without etcd nothing moves: change cluster.roles and [[cluster.peer]] on every node and start them anew")]
    NoOrders,
    #[error("etcd endpoint {endpoint}: {why}")]
    Endpoint { endpoint: String, why: String },
    #[error("etcd endpoint {endpoint}: {why}")]
    Credentials { endpoint: String, why: String },
    #[error("{file}: {why}")]
    Tls { file: String, why: String },
    /// Each endpoint with what is wrong with it.
    #[error("no etcd endpoint answers: {why}")]
    Unreachable { why: String },
    #[error("etcd endpoint {endpoint} refused: {why}")]
    Refused { endpoint: String, why: String },
    #[error(
        "etcd was put back to an earlier state: nothing is acquired until every earlier lease has run out; it goes on by itself"
    )]
    PutBack,
    #[error("what etcd has under {key} cannot be read ({why}): run `bulkhead cluster repair` on a host of the cluster")]
    Unreadable { key: String, why: String },
    #[error("the directory has been closed")]
    Closed,
}

/// `/t01000/window-post`: segments of a name's letters, so that no path can reach beside its own key.
pub fn check_concern(path: &str) -> Result<(), DirectoryError> {
    let bad = || DirectoryError::BadConcern { path: path.to_string() };
    let rest = path.strip_prefix('/').ok_or_else(bad)?;
    if rest.split('/').count() >= 2 && rest.split('/').all(record::is_name) { Ok(()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_concern_stays_inside_its_own_key() {
        for good in ["/t01000/window-post", "/host-a.example/storage", "/t01000/seal-scheduler/host_b"] {
            assert_eq!(check_concern(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "t01000/window-post", "/t01000", "/t01000/", "//window-post", "/t01000/a b", "/a/../b"] {
            assert!(check_concern(bad).is_err(), "{bad:?}");
        }
    }
}
