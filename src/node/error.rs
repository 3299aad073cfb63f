//! Why a node does not start.

use super::identity;
use crate::rpc::directory::DirectoryError;
use crate::rpc::full_node::FullNodeError;
use crate::store::StoreError;
use crate::store::replica::ReplicaError;
use crate::supervisor::TreeError;
use std::path::PathBuf;

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
