//! The scopes of one database file: whose turn it is in each, how each stands, and which rows may be taken over.

use super::super::db::Db;
use super::super::error::{Result, StoreError};
use super::super::record::RowCheck;
use super::super::replica::Row;
use super::super::{mirror, table_owner, txn};
use crate::util::lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// How a scope stands; for the admin views.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ScopeReport {
    pub path: String,
    /// Transactions that wait for the cluster's store.
    pub waiting: u64,
    pub journaled: u64,
    pub flushed: u64,
    pub dropped: u64,
}

/// The scopes of one database file; all stores over that file share them.
#[derive(Default)]
pub(in crate::store) struct Scopes {
    known: Mutex<BTreeMap<Arc<str>, Arc<Scope>>>,
    check: OnceLock<RowCheck>,
}

pub(in crate::store) struct Scope {
    pub path: Arc<str>,
    /// Held for a whole transaction: they are serial per scope.
    pub turn: Mutex<ScopeState>,
    pub journaled: AtomicU64,
    pub flushed: AtomicU64,
    pub dropped: AtomicU64,
}

#[derive(Default)]
pub(in crate::store) struct ScopeState {
    /// The local rows are not what the cluster's store has: it is asked before the next write.
    pub behind: bool,
    /// A thread flushes the journal.
    pub flusher: bool,
    /// The last commit got no answer, or a refusal.
    pub away: bool,
    /// Transactions that were merged into the first that waits; only to count them.
    pub merged: u64,
}

impl Scopes {
    pub(in crate::store) fn check_rows(&self, check: RowCheck) {
        let _ = self.check.set(check); // there is one
    }

    /// Whether the row is taken over. One that cannot be read and may be lost is set aside; a sender's is taken as it is.
    pub fn check(&self, path: &str, row: &Row) -> Result<bool> {
        let (may_be_lost, stays) = (table_owner::may_be_lost(&row.table), table_owner::may_stay_unread(&row.table));
        let why = match txn::check_row(&row.table, &row.key, &row.value) {
            Ok(()) => self.check.get().and_then(|check| check(&row.table, &row.key, &row.value).err()),
            // No version's: something else was written over it.
            Err(StoreError::Schema { found, .. }) if may_be_lost && found > txn::HIGHEST_SCHEMA => {
                Some(format!("it has no schema: {found}"))
            }
            // A later version's row is refused by its schema.
            Err(e) => return Err(e),
        };
        let Some(why) = why else { return Ok(true) };
        let (path, table, key) = (path.to_owned(), row.table.clone(), row.key.clone());
        if stays {
            tracing::error!(
                path,
                table,
                key,
                "the cluster's row cannot be read; it stays, and the others are used: {why}"
            );
            return Ok(true);
        }
        if !may_be_lost {
            return Err(StoreError::Unreadable { path, table, key, why });
        }
        tracing::warn!(path, table, key, "the cluster's row cannot be read and is set aside: {why}");
        Ok(false)
    }

    pub fn of(&self, path: &str) -> Arc<Scope> {
        let mut known = lock(&self.known);
        if let Some(scope) = known.get(path) {
            return scope.clone();
        }
        let path: Arc<str> = path.into();
        let scope = Arc::new(Scope {
            path: path.clone(),
            turn: Mutex::default(),
            journaled: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        known.insert(path, scope.clone());
        scope
    }

    pub(in crate::store) fn report(&self, db: &Db) -> Result<Vec<ScopeReport>> {
        let scopes: Vec<_> = lock(&self.known).values().cloned().collect();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        scopes
            .into_iter()
            .map(|scope| {
                Ok(ScopeReport {
                    path: scope.path.to_string(),
                    waiting: db.read(|r| mirror::pending_count(r, &scope.path))?,
                    journaled: count(&scope.journaled),
                    flushed: count(&scope.flushed),
                    dropped: count(&scope.dropped),
                })
            })
            .collect()
    }
}
