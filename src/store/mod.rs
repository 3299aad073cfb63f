//! Durable state of a node: redb tables of (key, record), written under a fencing token, durable before acknowledged.
//!
//! A record is bincode behind a `u16` schema number. `put` and `update` return after the commit is on disk.

use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use std::sync::Arc;

pub use crate::supervisor::Token;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {path}: {why}")]
    Open { path: String, why: String },
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
    #[error("store: {path} epoch {epoch} was fenced off by epoch {newer}")]
    Fenced { path: String, epoch: u64, newer: u64 },
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// A record type and where it lives.
pub trait Record: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    const SCHEMA: u16 = 1;
}

/// The embedded store. Cheap to clone. Calls block for a disk write: fine on an actor's own arbiter.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

impl Store {
    /// Opens or creates `path` (a redb file).
    pub fn open(_path: &Path) -> Result<Store> {
        todo!()
    }
    pub fn get<R: Record>(&self, _key: &str) -> Result<Option<R>> {
        todo!()
    }
    /// In key order.
    pub fn list<R: Record>(&self) -> Result<Vec<(String, R)>> {
        todo!()
    }
    pub fn put<R: Record>(&self, _token: &Token, _key: &str, _record: &R) -> Result<()> {
        todo!()
    }
    pub fn delete<R: Record>(&self, _token: &Token, _key: &str) -> Result<()> {
        todo!()
    }
    /// Read, decide, write, in one transaction: `f` gets the present record and returns the next one and an answer.
    pub fn update<R: Record, T>(&self, _token: &Token, _key: &str, _f: impl FnOnce(Option<R>) -> (R, T)) -> Result<T> {
        todo!()
    }
}
