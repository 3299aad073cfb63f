//! The store's errors, and the mapping of redb's.

use crate::supervisor::Exit;
use std::path::Path;

const OURS: &str = env!("CARGO_PKG_VERSION");

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
    #[error("store {path}: there is none; put a backup of it there, or give the --repo that has it")]
    Missing { path: String },
    #[error("store: {0}")]
    Io(String),
    #[error("store: no space left on the disk of {path}; free some, nothing was lost")]
    Full { path: String },
    #[error(
        "store: record {table}/{key} has schema {found}, bulkhead {ours} reads up to {known}: start the version that wrote it, or a later one",
        ours = OURS
    )]
    Schema { table: String, key: String, found: u16, known: u16 },
    /// Found before anything is read: going back one version is refused, or harmless.
    #[error(
        "store {path}: bulkhead {by} wrote it ({table} in schema {found}), bulkhead {ours} reads that up to schema {known}: start {by} or a later version, or put a backup from before the update there",
        ours = OURS
    )]
    Newer { path: String, by: String, table: String, found: u16, known: u16 },
    #[error("store: record {table}/{key} cannot be read: {why}")]
    Corrupt { table: &'static str, key: String, why: String },
    /// Nothing on this disk was replaced.
    #[error(
        "store: {path}: the cluster's row {table}/{key} cannot be read ({why}): run `bulkhead cluster repair` on a host of the cluster"
    )]
    Unreadable { path: String, table: String, key: String, why: String },
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
    /// Nothing was written anywhere.
    #[error("store: {path}: the cluster's store does not take it: {why}")]
    TooLarge { path: String, why: String },
    #[error("store: record {table}/{key} has {bytes} bytes; at most {most} are read back")]
    RecordTooLarge { table: &'static str, key: String, bytes: usize, most: usize },
    /// The cluster's store answers again; what was journaled goes there first.
    #[error("store: {path}: {waiting} earlier writes are still on their way to the cluster's store; try again soon")]
    CatchingUp { path: String, waiting: u64 },
    /// The row in this node's mirror was out of date.
    #[error(
        "store: {path}: the copy on this node was behind the cluster's; it is read again before the next write: repeat this one"
    )]
    Behind { path: String },
    /// An operator must decide which writes to lose.
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
