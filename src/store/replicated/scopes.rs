//! The scopes of one database file: whose turn it is in each, how each stands, and which rows may be taken over.

use super::super::db::Db;
use super::super::error::{Result, StoreError};
use super::super::record::RowCheck;
use super::super::replica::Row;
use super::super::{mirror, txn};
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

    pub fn check(&self, path: &str, row: &Row) -> Result<()> {
        // A later version's row is refused by its schema.
        txn::check_row(&row.table, &row.key, &row.value)?;
        let Some(check) = self.check.get() else { return Ok(()) };
        check(&row.table, &row.key, &row.value).map_err(|why| {
            let (path, table, key) = (path.to_owned(), row.table.clone(), row.key.clone());
            StoreError::Unreadable { path, table, key, why }
        })
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
