//! Durable state of a node: redb tables of (key, record), written under a fencing token, durable before acknowledged.
//!
//! A record is bincode behind a `u16` schema number. The file notes the highest one of each table and the version that wrote
//! it: an earlier version reads all of it, or refuses the file in one sentence.
//!
//! Every write returns after the commit is on disk. A disk that failed (full, I/O error) fails that one write; the next call
//! opens the file again, so that freed space is enough to go on.
//!
//! In a cluster, [`Store::replicated`] gives the same store for the concerns that one node holds at a time: reads come
//! from this disk, writes go to the cluster's store first, fenced by the concern's lease.
//!
//! * [`replica`] — what the cluster's store has to be able to do; `etcd` (feature `cluster`) does it.
//! * [`transfer`] — a single node's state into a cluster, and back.

pub(crate) mod db;
mod error;
#[cfg(feature = "cluster")]
pub mod etcd;
mod mirror;
pub mod numbered;
mod overlay;
pub mod replica;
mod replicated;
mod table_owner;
#[cfg(test)]
mod tests;
pub mod transfer;
mod txn;

use db::Db;
use replica::{Marker, Replica};
use replicated::{CommitContext, Replication, Scopes};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use std::sync::Arc;

pub use crate::supervisor::Token;
#[cfg(test)]
pub(crate) use table_owner::cluster_tables;

pub use error::{Result, StoreError};
pub use replicated::{Acquired, Policy, ScopeReport, lease_of};
pub use txn::{Txn, read_body, readable};

/// A record type and where it lives.
pub trait Record: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    const SCHEMA: u16 = 1;

    /// Reads the body of an older schema with [`read_body`]; `None`: not known, which is refused.
    fn read_older(_schema: u16, _body: &[u8]) -> Option<std::result::Result<Self, String>> {
        None
    }
}

/// Records with their keys, and the keys of those that cannot be read with the reason.
pub type Readable<R> = (Vec<(String, R)>, Vec<(String, String)>);

/// Says why a row of that table cannot be read. (table, key, value with its schema number.)
pub type RowCheck = fn(&str, &str, &[u8]) -> std::result::Result<(), String>;

/// The embedded store. Cheap to clone. Calls block for a disk write: fine on an actor's own arbiter.
#[derive(Clone)]
pub struct Store {
    db: Arc<Db>,
    scopes: Arc<Scopes>,
    over: Option<Replication>,
}

impl Store {
    /// Opens or creates `path` (a redb file). A damaged file is refused with what to do; it is never overwritten.
    pub fn open(path: &Path) -> Result<Store> {
        let db = Db::open(path)?;
        db.read(|r| txn::check_formats(r, path))?;
        Ok(Store::over(db))
    }

    /// Opens `path`; one that is missing or empty is refused, never made.
    pub fn open_existing(path: &Path) -> Result<Store> {
        match Store::is_missing(path) {
            true => Err(StoreError::Missing { path: path.display().to_string() }),
            false => Store::open(path),
        }
    }

    /// Whether [`Store::open`] would begin a new store there.
    pub fn is_missing(path: &Path) -> bool {
        std::fs::metadata(path).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |file| file.len() == 0)
    }

    fn over(db: Db) -> Store {
        Store { db: Arc::new(db), scopes: Arc::default(), over: None }
    }

    /// The same rows, for concerns that are held under a lease of the cluster. Tokens carry the lease's epoch in their
    /// upper half; [`Store::acquire`] comes before the first read.
    pub fn replicated(&self, replica: Arc<dyn Replica>, policy: Policy) -> Store {
        Store { db: self.db.clone(), scopes: self.scopes.clone(), over: Some(Replication { replica, policy }) }
    }

    /// The same store under another policy; a store of a single node stays what it is.
    pub fn under(&self, policy: Policy) -> Store {
        let over = self.over.as_ref().map(|over| Replication { replica: over.replica.clone(), policy });
        Store { db: self.db.clone(), scopes: self.scopes.clone(), over }
    }

    /// From now on a row of the cluster's that cannot be read is not taken over: the copy on this disk stays as it was.
    pub fn check_rows(&self, check: RowCheck) {
        self.scopes.check_rows(check);
    }

    /// The row as this node's mirror has it, with the marker of its concern's last commit that the mirror knows. `None`: it has
    /// none, or writes that wait go over it.
    pub fn mirrored(&self, path: &str, table: &str, key: &str) -> Result<Option<(Option<Marker>, Vec<u8>)>> {
        self.db.read(|r| mirror::row(r, path, table, key))
    }

    pub fn is_replicated(&self) -> bool {
        self.over.is_some()
    }

    /// This node got the lease of `path`: what the cluster's store has replaces what is here. Unconfirmed writes of this
    /// node stay, on top, if nobody else wrote since; else they are dropped and counted.
    pub fn acquire(&self, path: &str, lease: u64) -> Result<Acquired> {
        match self.work() {
            Some(work) => work.acquire(path, lease),
            None => Ok(Acquired { rows: 0, kept: 0, dropped: 0 }),
        }
    }

    /// After etcd was put back to an earlier state: from the next acquisition on, what it has counts, also where this disk
    /// knows of later writes. The file is copied to `copy` before. Answers how many writes waited, which are dropped.
    pub fn forget_epochs(file: &Path, copy: &Path) -> Result<u64> {
        let store = Store::open_existing(file)?;
        std::fs::copy(file, copy).map_err(|e| StoreError::io(copy, &e))?;
        std::fs::File::open(copy).and_then(|f| f.sync_all()).map_err(|e| StoreError::io(copy, &e))?;
        store.db.write(mirror::forget_epochs)
    }

    /// Writes what waits for the cluster's store, in order. It is tried in the background as well.
    pub fn flush(&self, path: &str) -> Result<()> {
        self.work().map_or(Ok(()), |work| work.flush(path))
    }

    /// Whether the cluster's store may have a newer value of that row: its last write was refused, and may have landed all the
    /// same. What is decided on the row here is void if it did.
    pub fn is_in_doubt<R: Record>(&self, path: &str, key: &str) -> Result<bool> {
        if self.over.is_none() {
            return Ok(false);
        }
        let first = self.db.read(|r| mirror::first_pending(r, path))?;
        Ok(first.is_some_and(|(_, first)| first.is_doubtful_about(R::TABLE, key)))
    }

    /// Every scope that was written to or acquired since the start.
    pub fn scopes(&self) -> Result<Vec<ScopeReport>> {
        self.scopes.report(&self.db)
    }

    fn work(&self) -> Option<CommitContext<'_>> {
        self.over.as_ref().map(|over| CommitContext { db: &self.db, scopes: &self.scopes, over })
    }

    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        self.db.read(|r| txn::get::<R>(r, key))
    }

    /// In key order.
    pub fn list<R: Record>(&self) -> Result<Vec<(String, R)>> {
        self.list_prefix("")
    }

    /// The records whose key starts with `prefix`, in key order.
    pub fn list_prefix<R: Record>(&self, prefix: &str) -> Result<Vec<(String, R)>> {
        self.db.read(|r| txn::list::<R>(r, prefix))
    }

    /// The same one after another, for more of them than memory is to hold.
    pub fn each_with_prefix<R: Record>(&self, prefix: &str, mut see: impl FnMut(&str, R)) -> Result<()> {
        self.db.read(|r| txn::each::<R>(r, prefix, &mut see))
    }

    /// One after another, also those that cannot be read, with the reason: one of them takes no other along.
    pub fn each_readable<R: Record>(
        &self,
        prefix: &str,
        mut see: impl FnMut(&str, std::result::Result<R, String>),
    ) -> Result<()> {
        let mut see = |key: &str, record: Result<R>| {
            see(key, record.map_err(|why| why.to_string()));
            Ok(())
        };
        self.db.read(|r| txn::each_answer::<R>(r, prefix, &mut see))
    }

    /// The records that can be read in key order, and the keys of the others with the reason.
    pub fn list_readable<R: Record>(&self, prefix: &str) -> Result<Readable<R>> {
        let (mut rows, mut damaged) = (Vec::new(), Vec::new());
        self.each_readable(prefix, |key, record| match record {
            Ok(record) => rows.push((key.to_owned(), record)),
            Err(why) => damaged.push((key.to_owned(), why)),
        })?;
        Ok((rows, damaged))
    }

    pub fn put<R: Record>(&self, token: &Token, key: &str, record: &R) -> Result<()> {
        self.transact(token, |tx| tx.put(key, record))
    }

    pub fn delete<R: Record>(&self, token: &Token, key: &str) -> Result<()> {
        self.transact(token, |tx| tx.delete::<R>(key))
    }

    /// Read, decide, write, in one transaction: `f` gets the present record and returns the next one and an answer.
    pub fn update<R: Record, T>(&self, token: &Token, key: &str, f: impl FnOnce(Option<R>) -> (R, T)) -> Result<T> {
        self.transact(token, |tx| {
            let (next, answer) = f(tx.get(key)?);
            tx.put(key, &next)?;
            Ok(answer)
        })
    }

    /// Several records, of several tables, in one transaction: all of it is on disk when this returns, or none.
    /// An error from `f` writes nothing.
    pub fn transact<T, E: From<StoreError>>(
        &self,
        token: &Token,
        f: impl FnOnce(&mut Txn) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        if let Some(work) = self.work() {
            return work.transact(token, f);
        }
        self.db.write(|w| {
            txn::fence(w, txn::FENCE, token)?;
            f(&mut Txn::new(w))
        })
    }

    /// Whether the disk can be read now; after a disk error this opens the file again.
    pub fn probe(&self) -> Result<()> {
        self.db.read(|_| Ok(()))
    }

    /// Counts the starts of this repo: 1 the first time, one more each call. The supervisor's incarnations are seeded
    /// with it, so that a fencing epoch of an earlier process is never as high as one of this process.
    pub fn next_boot(&self) -> Result<u64> {
        self.db.write(txn::next_boot)
    }

    /// A number for this start, higher than any before: `now`, in milliseconds, unless the clock went back. Unlike the count of
    /// boots it also grows when the repo is brought back from an older copy, so other nodes can tell which process is the
    /// later one.
    pub fn next_start(&self, now: u64) -> Result<u64> {
        self.db.write(|tx| txn::next_start(tx, now))
    }
}
