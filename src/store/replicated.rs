//! Writes of a cluster's singletons: into the cluster's store first, fenced by the concern's lease, then onto this disk.
//!
//! One transaction of a scope at a time; scopes do not wait for each other, and no database lock is held while the
//! network is waited for. A transaction is recorded over the local rows, committed to the replica under the scope's
//! marker ([`super::replica`]), then applied here. If there is no answer, [`Policy`] decides: refuse it to the actor and
//! settle later whether it landed (it is voided if it did not), or acknowledge it from a journal that is flushed in order.
//!
//! A write never waits for a long journal. Transactions that wait and were never sent are merged into few commits; a write
//! sends at most a few of them itself, and goes behind the rest. What could never land is refused before it is acknowledged.

mod flush;
mod scopes;

pub use scopes::ScopeReport;
pub(super) use scopes::Scopes;

use super::db::Db;
use super::error::{Result, StoreError};
use super::mirror::{self, Kind, LEASES, PendingCommit};
use super::replica::{
    self, COMMIT_MOST, Commit, Committed, Held, Image, Loaded, Marker, Op, Replica, ReplicaError, WriteRight,
};
use super::txn::{self, FencePass};
use super::{Token, Txn};
use crate::failpoint;
use crate::util::lock;
use scopes::{Scope, ScopeState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// More unconfirmed transactions than this in one scope are refused: at one a second, the better part of a day.
const JOURNAL_MOST: u64 = 65_536;
/// Commits of a journal that one write sends before it goes behind the rest, or is refused.
const SETTLED_BY_A_JOURNALED_WRITE: usize = 2;
const SETTLED_BY_A_REFUSED_WRITE: usize = 50;

/// A write's behaviour while the cluster's store gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Fails with [`StoreError::Unreachable`]: a second holder could exist (blocks, number ranges).
    Refuse,
    /// Goes on from this disk: to stop would be worse than to do it twice (WindowPoSt, messages, sealing at hand).
    Journal,
}

/// The result of [`super::Store::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Rows in the cluster's store.
    pub rows: u64,
    /// Unconfirmed transactions of this node that still hold and will be flushed.
    pub kept: u64,
    /// Journaled transactions that were dropped, because somebody else wrote since.
    pub dropped: u64,
}

/// The rest that [`CommitContext::settle`] left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    All,
    /// It sent as many commits as it was allowed to.
    More,
}

/// The cluster behind a [`super::Store`].
#[derive(Clone)]
pub(super) struct Replication {
    pub replica: Arc<dyn Replica>,
    pub policy: Policy,
}

/// The lease's part of an epoch; the rest counts incarnations under that lease.
pub fn lease_of(epoch: u64) -> u64 {
    epoch >> 32
}

fn lease(token: &Token) -> Result<u64> {
    match lease_of(token.epoch) {
        0 => Err(StoreError::Unleased { path: token.path.to_string(), epoch: token.epoch }),
        lease => Ok(lease),
    }
}

fn fenced(path: &str, epoch: u64, holder: Option<u64>) -> StoreError {
    StoreError::Fenced { path: path.to_owned(), epoch, newer: holder.map_or(epoch, |lease| lease << 32) }
}

fn failed(path: &str, e: ReplicaError) -> StoreError {
    match e {
        ReplicaError::Unreachable { endpoint, why, .. } => StoreError::Unreachable { endpoint, why },
        ReplicaError::Refused { endpoint, why } => StoreError::Refused {
            why: format!("{endpoint}: {why}; look at `etcdctl endpoint status` and `etcdctl alarm list`"),
        },
        ReplicaError::TooLarge { why } => StoreError::TooLarge { path: path.to_owned(), why },
        ReplicaError::Damaged { key, why } => StoreError::Refused {
            why: format!(
                "what is under {key} cannot be read ({why}): run `bulkhead cluster repair` on a host of the cluster"
            ),
        },
    }
}

/// Everything that one call needs.
pub(super) struct CommitContext<'a> {
    pub db: &'a Arc<Db>,
    pub scopes: &'a Scopes,
    pub over: &'a Replication,
}

/// A commit's answer, with a repeated or late landing told from somebody else's.
fn commit(replica: &dyn Replica, commit: &Commit) -> std::result::Result<Committed, ReplicaError> {
    match replica.commit(commit)? {
        Committed::Differs { found } if found == Some(commit.marker) => Ok(Committed::Landed),
        answer => Ok(answer),
    }
}

impl CommitContext<'_> {
    pub fn transact<T, E: From<StoreError>>(
        &self,
        token: &Token,
        f: impl FnOnce(&mut Txn) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let lease = lease(token)?;
        let scope = self.scopes.of(&token.path);
        let mut turn = lock(&scope.turn);
        if turn.behind {
            self.read_again(&scope, lease, &mut turn)?;
        }
        self.settle_doubt(&scope, lease, &mut turn)?;
        let (answer, ops, pass) = self.db.read(|r| {
            let pass = txn::check_fence(r, LEASES, token)?;
            let mut tx = Txn::recording(r);
            let answer = f(&mut tx);
            Ok((answer, tx.into_ops(), pass))
        })?;
        let answer = answer?;
        match ops.is_empty() {
            true => self.check(&scope, token, lease, pass, &mut turn)?,
            false => self.write(&scope, token, lease, ops, &mut turn)?,
        }
        Ok(answer)
    }

    /// A transaction that writes nothing asks whether it would be allowed to: a fence right before an effect.
    fn check(
        &self,
        scope: &Arc<Scope>,
        token: &Token,
        lease: u64,
        pass: FencePass,
        turn: &mut ScopeState,
    ) -> Result<()> {
        if pass == FencePass::Raises {
            self.db.write(|w| txn::fence(w, LEASES, token))?;
        }
        match self.over.replica.check(&scope.path, WriteRight::Lease(lease)) {
            Ok(Held::Yes) => Ok(()),
            Ok(Held::Fenced { holder }) => {
                turn.behind = true;
                Err(fenced(&scope.path, token.epoch, holder))
            }
            Err(e) => match self.over.policy {
                Policy::Journal => Ok(()),
                Policy::Refuse => Err(failed(&scope.path, e)),
            },
        }
    }

    /// Finds a commit that was refused to an actor and landed all the same, before the next transaction decides on the
    /// rows.
    fn settle_doubt(&self, scope: &Arc<Scope>, lease: u64, turn: &mut ScopeState) -> Result<()> {
        if turn.away && self.over.policy == Policy::Journal {
            return Ok(()); // it goes on from this disk, whatever landed
        }
        let first = self.db.read(|r| mirror::first_pending(r, &scope.path))?;
        if first.is_none_or(|(_, first)| first.kind != Kind::Doubtful) {
            return Ok(());
        }
        match self.settle(scope, lease, turn, 1) {
            // It stays in doubt; the policy decides about the next write.
            Ok(_) | Err(StoreError::Unreachable { .. } | StoreError::Refused { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// `None`: nothing waits any more. Else why the next write goes behind what waits.
    fn make_way(&self, scope: &Arc<Scope>, lease: u64, turn: &mut ScopeState) -> Result<Option<StoreError>> {
        let (path, journals) = (&*scope.path, self.over.policy == Policy::Journal);
        if journals && turn.away && turn.flusher {
            // Whether it is back is the flusher's to find out: a member that is silent costs each try seconds.
            let waiting = self.db.read(|r| mirror::pending_count(r, path))?;
            if waiting > 0 {
                return Ok(Some(StoreError::CatchingUp { path: path.to_owned(), waiting }));
            }
        }
        let most = if journals { SETTLED_BY_A_JOURNALED_WRITE } else { SETTLED_BY_A_REFUSED_WRITE };
        match self.settle(scope, lease, turn, most) {
            Ok(Settled::All) => Ok(None),
            Ok(Settled::More) => {
                self.flush_later(scope, turn);
                let waiting = self.db.read(|r| mirror::pending_count(r, path))?;
                Ok(Some(StoreError::CatchingUp { path: path.to_owned(), waiting }))
            }
            Err(e @ (StoreError::Unreachable { .. } | StoreError::Refused { .. } | StoreError::TooLarge { .. })) => {
                Ok(Some(e))
            }
            Err(e) => Err(e),
        }
    }

    fn write(&self, scope: &Arc<Scope>, token: &Token, lease: u64, ops: Vec<Op>, turn: &mut ScopeState) -> Result<()> {
        let path = &*scope.path;
        let bytes = replica::size_of(&ops);
        if bytes > COMMIT_MOST {
            return Err(StoreError::TooLarge { path: path.to_owned(), why: replica::too_large(bytes) });
        }
        if let Some(why) = self.make_way(scope, lease, turn)? {
            return self.unanswered(scope, token, ops, None, why, turn);
        }
        let base = self.db.read(|r| mirror::marker(r, path))?;
        let id = rand::random();
        let marker = Marker::after(base, id);
        let asked = Commit { scope: path, hold: WriteRight::Lease(lease), base, marker, ops: &ops };
        match commit(&*self.over.replica, &asked) {
            Ok(Committed::Landed) => {
                turn.away = false;
                failpoint::hit("store", "committed");
                let written = self.db.write(|w| {
                    txn::fence(w, LEASES, token)?;
                    mirror::apply(w, path, &ops)?;
                    mirror::landed(w, path, marker)
                });
                // It is in the cluster's store all the same.
                turn.behind |= written.is_err();
                written
            }
            Ok(Committed::Fenced { holder }) => {
                turn.behind = true;
                Err(fenced(path, token.epoch, holder))
            }
            Ok(Committed::Differs { .. }) => {
                turn.behind = true;
                Err(StoreError::Behind { path: path.to_owned() })
            }
            Err(e) => {
                let sent = matches!(e, ReplicaError::Unreachable { sent: true, .. });
                turn.away = !matches!(e, ReplicaError::TooLarge { .. });
                match failed(path, e) {
                    e @ (StoreError::Unreachable { .. } | StoreError::Refused { .. }) => {
                        self.unanswered(scope, token, ops, sent.then_some(id), e, turn)
                    }
                    e => Err(e),
                }
            }
        }
    }

    /// `sent`: the id under which it may have landed.
    fn unanswered(
        &self,
        scope: &Arc<Scope>,
        token: &Token,
        ops: Vec<Op>,
        sent: Option<u128>,
        why: StoreError,
        turn: &mut ScopeState,
    ) -> Result<()> {
        let path = &*scope.path;
        let kind = match (self.over.policy, sent) {
            (Policy::Refuse, None) => return Err(why),
            (Policy::Refuse, Some(_)) => Kind::Doubtful,
            (Policy::Journal, _) => Kind::Journaled,
        };
        if self.db.read(|r| mirror::pending_count(r, path))? >= JOURNAL_MOST {
            return Err(StoreError::JournalFull { path: path.to_owned(), most: JOURNAL_MOST });
        }
        let pending = PendingCommit { id: sent.unwrap_or_else(rand::random), kind, ops };
        self.db.write(|w| {
            txn::fence(w, LEASES, token)?;
            if kind == Kind::Journaled {
                mirror::apply(w, path, &pending.ops)?;
            }
            mirror::push_pending(w, path, &pending)
        })?;
        match kind {
            Kind::Doubtful => Err(why),
            Kind::Journaled => {
                failpoint::hit("store", "journaled");
                if scope.journaled.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(path, error = %why, "the cluster's store gives no answer; writes are journaled here");
                }
                self.flush_later(scope, turn);
                Ok(())
            }
        }
    }

    /// Commits journaled transactions in order, and finds a commit in doubt or makes it impossible; at most `most`
    /// commits.
    fn settle(&self, scope: &Arc<Scope>, lease: u64, turn: &mut ScopeState, most: usize) -> Result<Settled> {
        let path = &*scope.path;
        let mut sent = 0;
        let mut flushed = 0u64;
        loop {
            let (first, base) = self.db.read(|r| Ok((mirror::first_pending(r, path)?, mirror::marker(r, path)?)))?;
            let Some((place, pending)) = first else {
                if flushed > 0 {
                    tracing::info!(path, flushed, "the cluster's store has what was journaled");
                }
                return Ok(Settled::All);
            };
            if sent == most {
                return Ok(Settled::More);
            }
            sent += 1;
            let its = Marker::after(base, pending.id);
            let (marker, ops) = match pending.kind {
                Kind::Journaled => (its, pending.ops.as_slice()),
                Kind::Doubtful => (its.voided(), &[][..]),
            };
            let asked = Commit { scope: path, hold: WriteRight::Lease(lease), base, marker, ops };
            let now = match commit(&*self.over.replica, &asked) {
                Ok(Committed::Landed) => marker,
                Ok(Committed::Differs { found }) if pending.kind == Kind::Doubtful && found == Some(its) => its,
                Ok(Committed::Differs { .. }) => {
                    turn.behind = true;
                    return Err(StoreError::Behind { path: path.to_owned() });
                }
                Ok(Committed::Fenced { holder }) => {
                    turn.behind = true;
                    return Err(fenced(path, lease << 32, holder));
                }
                // From a version that did not look at sizes first, or etcd is set to take less than by default.
                Err(ReplicaError::TooLarge { .. }) if ops.len() > 1 => {
                    self.db.write(|w| mirror::split_first(w, path))?;
                    continue;
                }
                Err(e) => {
                    turn.away = true;
                    return Err(failed(path, e));
                }
            };
            turn.away = false;
            failpoint::hit("store", "flushed");
            let merged = self.db.write(|w| {
                mirror::pop_pending(w, path, place)?;
                if pending.kind == Kind::Doubtful && !now.void {
                    mirror::insert_below_journal(w, path, &pending.ops)?;
                }
                mirror::landed(w, path, now)?;
                mirror::merge_waiting(w, path)
            })?;
            let with_it = std::mem::replace(&mut turn.merged, merged);
            if pending.kind == Kind::Journaled {
                scope.flushed.fetch_add(1 + with_it, Ordering::Relaxed);
                flushed += 1 + with_it;
            }
        }
    }

    pub fn flush(&self, path: &str) -> Result<()> {
        let scope = self.scopes.of(path);
        let mut turn = lock(&scope.turn);
        let epoch = self.db.read(|r| txn::highest(r, LEASES, path))?.unwrap_or(0);
        let lease = lease(&Token { path: scope.path.clone(), epoch })?;
        if turn.behind {
            self.read_again(&scope, lease, &mut turn)?;
        }
        self.settle(&scope, lease, &mut turn, usize::MAX).map(|_| ())
    }

    fn read_again(&self, scope: &Scope, lease: u64, turn: &mut ScopeState) -> Result<Acquired> {
        let path = &*scope.path;
        let image = match self.over.replica.load(path, WriteRight::Lease(lease)).map_err(|e| failed(path, e))? {
            Loaded::Image(image) => image,
            Loaded::Fenced { holder } => return Err(fenced(path, lease << 32, holder)),
        };
        let mut taken = Vec::with_capacity(image.rows.len());
        for row in image.rows {
            if self.scopes.check(path, &row)? {
                taken.push(row);
            }
        }
        let image = Image { rows: taken, ..image };
        let token = Token { path: scope.path.clone(), epoch: lease << 32 };
        let kept = self.db.write(|w| {
            raise(w, &token, image.marker)?;
            mirror::become_mirror(w, self.db.path())?;
            mirror::replace(w, path, &image)
        })?;
        failpoint::hit("store", "loaded");
        if kept.dropped > 0 {
            scope.dropped.fetch_add(kept.dropped, Ordering::Relaxed);
            let dropped = kept.dropped;
            tracing::warn!(path, dropped, "journaled writes are void: another holder wrote since; its state counts");
        }
        (turn.behind, turn.away) = (false, false);
        Ok(Acquired { rows: image.rows.len() as u64, kept: kept.kept, dropped: kept.dropped })
    }

    pub fn acquire(&self, path: &str, lease: u64) -> Result<Acquired> {
        self::lease(&Token { path: path.into(), epoch: lease << 32 })?;
        let scope = self.scopes.of(path);
        let mut turn = lock(&scope.turn);
        let acquired = self.read_again(&scope, lease, &mut turn)?;
        if acquired.kept > 0 {
            self.flush_later(&scope, &mut turn);
        }
        Ok(acquired)
    }
}

/// The scope's lease is `token`'s: etcd said so a moment ago, to a question that was put after this disk had learned its
/// highest one (both happen in the scope's turn). Create revisions only grow, so a higher one here means that etcd was put
/// back or built anew. That is no reason to be fenced off; but where this disk knows of writes that etcd has not any more,
/// they would be gone for good, however far etcd has counted since.
fn raise(w: &redb::WriteTransaction, token: &Token, found: Option<Marker>) -> Result<()> {
    let path = &*token.path;
    if let Some(known) = mirror::known_marker(w, path)?.filter(|known| went_back(*known, found)) {
        return Err(StoreError::WentBack {
            path: path.to_owned(),
            known: known.seq,
            found: found.map_or(0, |m| m.seq),
        });
    }
    let newer = match txn::fence(w, LEASES, token) {
        Err(StoreError::Fenced { newer, .. }) => newer,
        answer => return answer,
    };
    // The same lease under a later incarnation stays.
    if lease_of(newer) == lease_of(token.epoch) {
        return Ok(());
    }
    let (was, now) = (lease_of(newer), lease_of(token.epoch));
    tracing::warn!(path, was, now, "etcd counts epochs from an earlier one on: it was put back; nothing here is newer");
    txn::fence_anew(w, LEASES, token)
}

/// Whether a commit that is known to have landed is not there any more.
fn went_back(known: Marker, found: Option<Marker>) -> bool {
    found.is_none_or(|found| found.seq < known.seq || (found.seq == known.seq && found != known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_lost_a_commit_went_back_and_one_with_more_did_not() {
        let known = Marker { seq: 5, id: 50, void: false };
        for (found, back) in [
            (None, true),
            (Some(Marker { seq: 4, ..known }), true),
            (Some(known), false),
            // Another history.
            (Some(Marker { id: 51, ..known }), true),
            (Some(Marker { seq: 6, id: 60, void: false }), false),
        ] {
            assert_eq!(went_back(known, found), back, "{found:?}");
        }
    }
}
