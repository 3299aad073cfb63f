//! What can go wrong with the store, and how redb's errors map to it.

use crate::supervisor::Exit;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {path}: {why}")]
    Open { path: String, why: String },
    #[error(
        "store {path}: not a Bulkhead store, or damaged ({why}); move the file away and restore a backup of it, or start with another --repo"
    )]
    Damaged { path: String, why: String },
    #[error("store {path}: another node has it open; stop that node, or use another --repo")]
    Locked { path: String },
    #[error("store: {0}")]
    Io(String),
    #[error("store: no space left on the disk of {path}; free some, nothing was lost")]
    Full { path: String },
    #[error("store: record {table}/{key}: schema {found}, this version reads {known}")]
    Schema { table: &'static str, key: String, found: u16, known: u16 },
    #[error("store: record {table}/{key} cannot be read: {why}")]
    Corrupt { table: &'static str, key: String, why: String },
    /// `newer` is the same as `epoch` if the lease was lost and nobody took it yet.
    #[error("store: {path} epoch {epoch} was fenced off by epoch {newer}")]
    Fenced { path: String, epoch: u64, newer: u64 },
    /// In a cluster. Whether the write will be found there later is settled before the next one.
    #[error(
        "store: the cluster's store at {endpoint} gives no answer ({why}); the write was not acknowledged: bring etcd back, then try again"
    )]
    Unreachable { endpoint: String, why: String },
    #[error("store: the cluster's store refuses: {why}")]
    Refused { why: String },
    #[error("store: {path}: {bytes} bytes in one transaction; the cluster's store takes {most}")]
    TooLarge { path: String, bytes: usize, most: usize },
    /// What this node had in its mirror was not the last word.
    #[error(
        "store: {path}: the copy on this node was behind the cluster's; it is read again before the next write: repeat this one"
    )]
    Behind { path: String },
    /// What to lose is an operator's decision.
    #[error(
        "store: {path}: etcd was put back to an earlier state: the last write that it has is number {found}, the last that this node knows is {known}; stop this node and run `bulkhead cluster forget-epochs` to go on with what etcd has (a copy of this node's store is kept)"
    )]
    WentBack { path: String, known: u64, found: u64 },
    #[error("store: {path} writes to the cluster without a lease (epoch {epoch}); acquire it first")]
    Unleased { path: String, epoch: u64 },
    #[error(
        "store {path}: it has a single node's rows ({table}/{key}) that the cluster was never given; `bulkhead cluster import` them, or start this node with an empty --repo"
    )]
    NotImported { path: String, table: String, key: String },
    #[error("store: {path}: {most} writes wait for the cluster's store already; bring etcd back")]
    JournalFull { path: String, most: u64 },
}

pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// An operation on an open database failed.
    pub(crate) fn of(path: &Path, e: impl Into<redb::Error>) -> StoreError {
        match e.into() {
            redb::Error::Io(e) => StoreError::io(path, &e),
            redb::Error::Corrupted(why) => StoreError::Io(format!("{}: damaged: {why}", path.display())),
            e => StoreError::Io(format!("{}: {e}", path.display())),
        }
    }

    /// Opening the file failed.
    pub(super) fn opening(path: &Path, e: redb::DatabaseError) -> StoreError {
        use redb::{DatabaseError as D, StorageError as S};
        let path_text = path.display().to_string();
        match e {
            D::DatabaseAlreadyOpen => StoreError::Locked { path: path_text },
            D::Storage(S::Io(e)) if is_full(&e) => StoreError::Full { path: path_text },
            D::Storage(S::Io(e)) if e.kind() != std::io::ErrorKind::InvalidData && e.raw_os_error().is_some() => {
                StoreError::Open { path: path_text, why: e.to_string() }
            }
            D::UpgradeRequired(v) => StoreError::Open {
                path: path_text,
                why: format!("it has file format {v}; this version cannot read it: use the version that wrote it"),
            },
            e => StoreError::damaged(path, &e.to_string()),
        }
    }

    pub(super) fn damaged(path: &Path, why: &str) -> StoreError {
        StoreError::Damaged { path: path.display().to_string(), why: why.to_string() }
    }

    pub(super) fn io(path: &Path, e: &std::io::Error) -> StoreError {
        if is_full(e) {
            StoreError::Full { path: path.display().to_string() }
        } else {
            StoreError::Io(format!("{}: {e}", path.display()))
        }
    }
}

/// For `?` in a handler that cannot go on: being fenced off is an orderly end, anything else a failure.
impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Exit {
        match error {
            fenced @ StoreError::Fenced { .. } => Exit::Fenced(fenced.to_string()),
            error => Exit::failed(error),
        }
    }
}

/// No blocks, or no quota, left.
fn is_full(e: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(e.kind(), K::StorageFull | K::QuotaExceeded)
}
