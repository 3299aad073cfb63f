//! The thread that brings a scope's journal into the cluster's store: one for each scope, while something waits.

use super::super::db::Db;
use super::super::error::StoreError;
use super::super::mirror::LEASES;
use super::super::txn;
use super::scopes::{Scope, ScopeState, Scopes};
use super::{CommitContext, Replication, Settled, lease_of};
use crate::util::lock;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the journal is tried while the cluster's store is away.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Between two commits of a journal that is being flushed: writes of the scope take their turn.
const FLUSH_YIELD: Duration = Duration::from_millis(1);

impl CommitContext<'_> {
    /// Tries until nothing waits, the scope is somebody else's, or the store is closed.
    pub(super) fn flush_later(&self, scope: &Arc<Scope>, turn: &mut ScopeState) {
        if std::mem::replace(&mut turn.flusher, true) {
            return;
        }
        let (db, over, scope) = (Arc::downgrade(self.db), self.over.clone(), Arc::downgrade(scope));
        let name = "store-flush".to_owned();
        let started = std::thread::Builder::new().name(name).spawn(move || {
            let mut pause = FLUSH_EVERY;
            loop {
                std::thread::park_timeout(pause);
                match flush_once(&db, &over, &scope) {
                    Flushed::Over => break,
                    Flushed::Part => pause = FLUSH_YIELD,
                    Flushed::Away => pause = FLUSH_EVERY,
                }
            }
        });
        if let Err(error) = started {
            turn.flusher = false;
            tracing::warn!(%error, "no thread to flush the journal; the next write does it");
        }
    }
}

enum Flushed {
    /// There is nothing more to try.
    Over,
    /// One commit landed and more wait.
    Part,
    Away,
}

/// One commit of the journal, in the scope's turn.
fn flush_once(db: &Weak<Db>, over: &Replication, scope: &Weak<Scope>) -> Flushed {
    let (Some(db), Some(scope)) = (db.upgrade(), scope.upgrade()) else { return Flushed::Over };
    let mut turn = lock(&scope.turn);
    let work = CommitContext { db: &db, scopes: &Scopes::default(), over };
    let epoch = match db.read(|r| txn::highest(r, LEASES, &scope.path)) {
        Ok(epoch) => epoch.unwrap_or(0),
        Err(_) => return Flushed::Away,
    };
    let flushed = match work.settle(&scope, lease_of(epoch), &mut turn, 1) {
        Ok(Settled::All) => Flushed::Over,
        Ok(Settled::More) => Flushed::Part,
        Err(StoreError::Unreachable { .. } | StoreError::Refused { .. } | StoreError::Io(_)) => Flushed::Away,
        Err(StoreError::Full { .. } | StoreError::TooLarge { .. }) => Flushed::Away,
        // What becomes of it is decided when the scope is acquired again.
        Err(error) => {
            tracing::warn!(path = &*scope.path, %error, "the journal waits for the scope's next holder here");
            Flushed::Over
        }
    };
    turn.flusher &= !matches!(flushed, Flushed::Over);
    flushed
}
