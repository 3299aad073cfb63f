//! A repo's state into a cluster, and a cluster's into a repo.
//!
//! * [`import`]`(repo: &Store, cluster: &dyn Replica, options: &ImportOptions) -> Result<Report, TransferError>`
//! * [`export`]`(cluster: &dyn Replica, repo: &Store, options: &ExportOptions) -> Result<Report, TransferError>`
//!
//! `repo` is [`Store::open`]`(<repo>/bulkhead.redb)` with the node stopped (the caller holds the repo's lock); `cluster`
//! is an [`EtcdReplica`](super::etcd::EtcdReplica). Both block for as long as the network takes; a call that ended with
//! an error is simply made again: rows that are there already are not written a second time. With `dry_run` nothing is
//! written and the [`TransferReport`] says what would be. Both refuse to work under a concern that some node holds, and both
//! read everything again after writing and compare.
//!
//! All tables of all miners go. The node's own (`identity`) stay; a table that this version does not know is an error.
//! On the way in every sector goes to the seal scheduler of one node; on the way out the sectors of all of them merge.

mod export;
mod import;
mod raw;

pub use export::{ExportOptions, export};
pub use import::{ImportOptions, import};

use super::StoreError;
use super::replica::ReplicaError;
use serde::Serialize;

/// The rows that were moved, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferReport {
    pub dry_run: bool,
    /// The repo's file.
    pub repo: String,
    /// Rows by scope and table.
    pub tables: Vec<TableReport>,
    pub written: u64,
    /// They were there already.
    pub unchanged: u64,
    /// Rows of the target that the source does not have.
    pub removed: u64,
    /// Tables that stay behind, with their rows.
    pub left: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    pub scope: String,
    pub table: String,
    pub rows: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the cluster's store: {0}; run the same command again, what is done stays done")]
    Replica(#[from] ReplicaError),
    #[error("table {table} is not known to this version; use the version that wrote it")]
    UnknownTable { table: String },
    #[error("{table}/{key}: no miner in it; nothing was written")]
    NoMiner { table: String, key: String },
    #[error("{scope} is held by a node (lease {lease}); stop it, or `bulkhead cluster drain` it, then run this again")]
    Held { scope: String, lease: u64 },
    #[error(
        "{scope} has {rows} rows in the cluster already{by}; look at them, then repeat with --overwrite to replace them"
    )]
    ScopeNotEmpty { scope: String, rows: u64, by: String },
    #[error(
        "{repo} has other rows than the cluster ({table}/{key}); give an empty repo, or --overwrite to replace its rows"
    )]
    RepoNotEmpty { repo: String, table: String, key: String },
    #[error(
        "{repo}: {path} has {waiting} writes that the cluster never confirmed; start the node with etcd up once, then repeat"
    )]
    Unconfirmed { repo: String, path: String, waiting: u64 },
    #[error("{table}/{key} differs between {one} and {other}; say which of them counts with --prefer")]
    Conflict { table: String, key: String, one: String, other: String },
    #[error("{scope}: {table}/{key} is not what was written; somebody else writes there: stop it and run this again")]
    Differs { scope: String, table: String, key: String },
}

type Result<T> = std::result::Result<T, TransferError>;
