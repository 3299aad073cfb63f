//! A cluster's copy of the state: fenced, ordered commits per scope, and reading a scope back.
//!
//! A *scope* is a singleton concern's path (`/t01000/window-post`). Its commits form one chain: each compares the
//! marker that the last one left and leaves its own, so that a commit whose answer was lost can be told from one that
//! never landed, and a late copy of it can never land twice or out of order.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The most bytes that a commit may have, as [`size_of`] counts them. etcd refuses requests over 1.5 MiB
/// (`--max-request-bytes`); keys and framing need some of it.
pub const COMMIT_MOST: usize = 1 << 20;
/// The most rows that one etcd transaction takes: its limit (`--max-txn-ops`, 128) less the marker and the redo.
pub const ROWS_MOST: usize = 120;

/// One row's new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    pub table: String,
    pub key: String,
    pub value: Option<Vec<u8>>,
}

impl Op {
    /// Its size on the wire, near enough.
    pub fn size(&self) -> usize {
        self.table.len() + self.key.len() + self.value.as_ref().map_or(0, Vec::len) + 64
    }
}

/// The size of a commit of these on the wire, near enough.
pub fn size_of(ops: &[Op]) -> usize {
    ops.iter().map(Op::size).sum()
}

pub(super) fn too_large(bytes: usize) -> String {
    format!("{bytes} bytes in one transaction, {COMMIT_MOST} are possible")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub table: String,
    pub key: String,
    pub value: Vec<u8>,
}

/// The trace of a scope's last commit. Text, so that `etcdctl get` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub seq: u64,
    /// Drawn at random for each transaction: tells a commit from another one with the same number.
    pub id: u128,
    /// Written in the place of a commit whose answer was lost, so that it can never land any more.
    pub void: bool,
}

impl Marker {
    pub fn after(base: Option<Marker>, id: u128) -> Marker {
        Marker { seq: base.map_or(0, |m| m.seq) + 1, id, void: false }
    }
    pub fn voided(self) -> Marker {
        Marker { void: true, ..self }
    }
    pub fn parse(text: &[u8]) -> Option<Marker> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let seq = words.next()?.parse().ok()?;
        let id = u128::from_str_radix(words.next()?, 16).ok()?;
        let void = match words.next() {
            None => false,
            Some("void") => true,
            Some(_) => return None,
        };
        words.next().is_none().then_some(Marker { seq, id, void })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let void = if self.void { " void" } else { "" };
        write!(f, "{} {:032x}{void}", self.seq, self.id)
    }
}

/// The right under which the replica is accessed. It is compared inside the replica's own transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRight {
    /// The scope's lease has this create revision.
    Lease(u64),
    /// Nobody holds the scope: a transfer may write.
    Nobody,
    /// Only for reading.
    Unchecked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    pub scope: &'a str,
    pub hold: WriteRight,
    pub base: Option<Marker>,
    pub marker: Marker,
    pub ops: &'a [Op],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    Landed,
    /// Somebody else holds the scope, or nobody does.
    Fenced {
        holder: Option<u64>,
    },
    /// Nothing was written: the scope's last commit is another one than `base`.
    Differs {
        found: Option<Marker>,
    },
}

/// A whole scope at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub marker: Option<Marker>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    Image(Image),
    Fenced { holder: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Yes,
    Fenced { holder: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// No answer. `sent`: it may have been, or may still be, carried out.
    #[error("{endpoint}: {why}")]
    Unreachable { endpoint: String, why: String, sent: bool },
    /// It answered, and did nothing: no space, no permission.
    #[error("{endpoint}: {why}")]
    Refused { endpoint: String, why: String },
    /// This very commit can never land as it is; nothing was carried out.
    #[error("{why}")]
    TooLarge { why: String },
    #[error("{key}: {why}")]
    Damaged { key: String, why: String },
}

/// Every call ends within the implementation's deadline. Calls block: fine on an actor's own arbiter.
pub trait Replica: Send + Sync + 'static {
    /// All of it, or nothing.
    fn commit(&self, commit: &Commit) -> Result<Committed, ReplicaError>;
    /// Is the scope held under this right now?
    fn check(&self, scope: &str, hold: WriteRight) -> Result<Held, ReplicaError>;
    fn load(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError>;
    /// Every scope that was ever written to.
    fn scopes(&self) -> Result<Vec<String>, ReplicaError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_as_they_are_written() {
        let first = Marker::after(None, 0xfe);
        let next = Marker::after(Some(first), u128::MAX);
        assert_eq!((first.seq, next.seq), (1, 2));
        for marker in [first, first.voided(), next, next.voided()] {
            assert_eq!(Marker::parse(marker.to_string().as_bytes()), Some(marker), "{marker}");
        }
        for bad in ["", "1", "x 1", "1 g", "1 1 valid", "1 1 void x", "1 1 ", "\u{fe}"] {
            assert_eq!(Marker::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
