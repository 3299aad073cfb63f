//! Durable state of a node: redb tables of (key, record), written under a fencing token, durable before acknowledged.
//!
//! A record is bincode behind a `u16` schema number. Every write returns after the commit is on disk. A disk that failed
//! (full, I/O error) fails that one write; the next call opens the file again, so that freed space is enough to go on.

pub(crate) mod db;
mod error;
#[cfg(test)]
mod tests;
mod txn;
mod untouched;

use db::Db;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use std::sync::Arc;

pub use crate::supervisor::Token;
pub use error::{Result, StoreError};
pub use txn::{Txn, read_body};

/// A record type and where it lives.
pub trait Record: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    const SCHEMA: u16 = 1;

    /// Reads the body of an older schema with [`read_body`]; `None`: not known, which is refused.
    fn read_older(_schema: u16, _body: &[u8]) -> Option<std::result::Result<Self, String>> {
        None
    }
}

/// The embedded store. Cheap to clone. Calls block for a disk write: fine on an actor's own arbiter.
#[derive(Clone)]
pub struct Store {
    db: Arc<Db>,
}

impl Store {
    /// Opens or creates `path` (a redb file). A damaged file is refused with what to do; it is never overwritten.
    pub fn open(path: &Path) -> Result<Store> {
        Ok(Store { db: Arc::new(Db::open(path)?) })
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
        self.db.write(|w| {
            txn::fence(w, token)?;
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
}
