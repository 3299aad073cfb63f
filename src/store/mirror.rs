//! A cluster's rows on this node's disk: which scope they belong to, where the scope's chain of commits stands, and what
//! still waits to be taken by the cluster's store.

use super::error::{Result, StoreError};
use super::replica::{COMMIT_MOST, Image, Marker, Op, ROWS_MOST, Row};
use super::table_owner::{self, TableOwner};
use super::txn::{Fences, META, check_row, config, failed, note_format};
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, TableHandle, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Epochs of leases; those of a single node's time in the same file are in another table and count differently.
pub(super) const LEASES: Fences = TableDefinition::new("_lease");
/// (scope, table, key) of every row that is the cluster's.
const OWNED: TableDefinition<(&str, &str, &str), ()> = TableDefinition::new("_owned");
/// Scope -> the marker of its last commit that is known to have landed.
const MARKERS: TableDefinition<&str, &str> = TableDefinition::new("_marker");
/// (scope, order) -> [`PendingCommit`].
const PENDING: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("_pending");

/// A transaction that the cluster's store has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingCommit {
    /// The id of the marker that it leaves; its number follows from the one before.
    pub id: u128,
    pub kind: Kind,
    pub ops: Vec<Op>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Acknowledged to the actor, and in the local rows.
    Journaled,
    /// Refused to the actor; whether it landed has to be settled. Not in the local rows.
    Doubtful,
}

impl PendingCommit {
    pub fn is_doubtful_about(&self, table: &str, key: &str) -> bool {
        self.kind == Kind::Doubtful && self.ops.iter().any(|op| op.table == table && op.key == key)
    }
}

/// Which of a scope's unconfirmed transactions outlive a new look at the cluster's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survivors {
    /// The last commit there is the one that they follow.
    All,
    /// The first of them is the last commit there (or was voided there); the others follow it.
    AfterFirst,
    /// Somebody else committed since: what they were decided on is not true any more.
    None,
}

/// Everything after the first is settled one by one, with `known` kept: so only the first can have landed unnoticed.
pub(super) fn survivors(known: Option<Marker>, first: Option<&PendingCommit>, found: Option<Marker>) -> Survivors {
    if known == found {
        return Survivors::All;
    }
    let Some(first) = first else { return Survivors::None };
    let its = Marker::after(known, first.id);
    let voided = first.kind == Kind::Doubtful && found == Some(its.voided());
    if found == Some(its) || voided { Survivors::AfterFirst } else { Survivors::None }
}

fn if_there<T>(table: std::result::Result<T, TableError>) -> Result<Option<T>> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn damaged(table: &'static str, key: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { table, key: key.to_owned(), why: why.to_string() }
}

pub(super) fn marker(tx: &ReadTransaction, scope: &str) -> Result<Option<Marker>> {
    let Some(table) = if_there(tx.open_table(MARKERS))? else { return Ok(None) };
    read_marker(&table, scope)
}

pub(super) fn known_marker(tx: &WriteTransaction, scope: &str) -> Result<Option<Marker>> {
    read_marker(&tx.open_table(MARKERS).map_err(failed)?, scope)
}

fn read_marker(table: &impl ReadableTable<&'static str, &'static str>, scope: &str) -> Result<Option<Marker>> {
    let Some(text) = table.get(scope).map_err(failed)? else { return Ok(None) };
    Marker::parse(text.value().as_bytes()).map(Some).ok_or_else(|| damaged("_marker", scope, "not a marker"))
}

/// The scope's marker and one of its rows, unless a write of the scope waits.
pub(super) fn row(
    tx: &ReadTransaction,
    scope: &str,
    table: &str,
    key: &str,
) -> Result<Option<(Option<Marker>, Vec<u8>)>> {
    let owned = match if_there(tx.open_table(OWNED))? {
        Some(owned) => owned.get((scope, table, key)).map_err(failed)?.is_some(),
        None => false,
    };
    if !owned || pending_count(tx, scope)? > 0 {
        return Ok(None);
    }
    let Some(rows) = if_there(tx.open_table(rows(table)))? else { return Ok(None) };
    let found = rows.get(key).map_err(failed)?.map(|row| row.value().to_vec());
    found.map(|row| marker(tx, scope).map(|marker| (marker, row))).transpose()
}

/// The first that waits, and its place.
pub(super) fn first_pending(tx: &ReadTransaction, scope: &str) -> Result<Option<(u64, PendingCommit)>> {
    let Some(table) = if_there(tx.open_table(PENDING))? else { return Ok(None) };
    let first = table.range((scope, 0)..=(scope, u64::MAX)).map_err(failed)?.next();
    let Some(row) = first else { return Ok(None) };
    let (key, value) = row.map_err(failed)?;
    Ok(Some((key.value().1, decode(scope, value.value())?)))
}

pub(super) fn pending_count(tx: &ReadTransaction, scope: &str) -> Result<u64> {
    let Some(table) = if_there(tx.open_table(PENDING))? else { return Ok(0) };
    Ok(table.range((scope, 0)..=(scope, u64::MAX)).map_err(failed)?.count() as u64)
}

fn all_pending(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    scope: &str,
) -> Result<Vec<(u64, PendingCommit)>> {
    let mut found = Vec::new();
    for row in table.range((scope, 0)..=(scope, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        found.push((key.value().1, decode(scope, value.value())?));
    }
    Ok(found)
}

fn decode(scope: &str, bytes: &[u8]) -> Result<PendingCommit> {
    let (pending, _) = bincode::serde::decode_from_slice(bytes, config()).map_err(|e| damaged("_pending", scope, e))?;
    Ok(pending)
}

/// At the end of the queue.
pub(super) fn push_pending(tx: &WriteTransaction, scope: &str, pending: &PendingCommit) -> Result<()> {
    let mut table = tx.open_table(PENDING).map_err(failed)?;
    let last = table.range((scope, 0)..=(scope, u64::MAX)).map_err(failed)?.next_back();
    let next = last.transpose().map_err(failed)?.map_or(1, |(key, _)| key.value().1 + 1);
    put_pending(&mut table, scope, next, pending)
}

/// A transaction of the scope is in the cluster's store.
pub(super) fn landed(tx: &WriteTransaction, scope: &str, marker: Marker) -> Result<()> {
    let mut table = tx.open_table(MARKERS).map_err(failed)?;
    table.insert(scope, marker.to_string().as_str()).map(|_| ()).map_err(failed)
}

pub(super) fn pop_pending(tx: &WriteTransaction, scope: &str, place: u64) -> Result<()> {
    let mut table = tx.open_table(PENDING).map_err(failed)?;
    table.remove((scope, place)).map(|_| ()).map_err(failed)
}

/// Inserts a commit that was in doubt and has landed: below everything that was acknowledged after it.
pub(super) fn insert_below_journal(tx: &WriteTransaction, scope: &str, ops: &[Op]) -> Result<()> {
    apply(tx, scope, ops)?;
    let waiting = {
        let table = tx.open_table(PENDING).map_err(failed)?;
        all_pending(&table, scope)?
    };
    let journaled = waiting.iter().filter(|(_, p)| p.kind == Kind::Journaled);
    journaled.into_iter().try_for_each(|(_, p)| apply(tx, scope, &p.ops))
}

/// The first that waits becomes one commit with those behind it, as far as one takes them. Answers how many went into it.
/// Only to be called once the one before has landed: what was sent already keeps its id, by which it is found.
pub(super) fn merge_waiting(tx: &WriteTransaction, scope: &str) -> Result<u64> {
    let mut table = tx.open_table(PENDING).map_err(failed)?;
    let mut places = Vec::new();
    let mut rows: BTreeMap<(String, String), Option<Vec<u8>>> = BTreeMap::new();
    // Counted as if no row were written twice: what is over the real size is not worth the trouble.
    let (mut bytes, mut ops) = (0, 0);
    for row in table.range((scope, 0)..=(scope, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let pending = decode(scope, value.value())?;
        bytes += super::replica::size_of(&pending.ops);
        ops += pending.ops.len();
        if pending.kind != Kind::Journaled || bytes > COMMIT_MOST || ops > ROWS_MOST {
            break;
        }
        places.push(key.value().1);
        rows.extend(pending.ops.into_iter().map(|op| ((op.table, op.key), op.value)));
    }
    let [first, others @ ..] = places.as_slice() else { return Ok(0) };
    if others.is_empty() {
        return Ok(0);
    }
    let ops = rows.into_iter().map(|((table, key), value)| Op { table, key, value }).collect();
    put_pending(&mut table, scope, *first, &PendingCommit { id: rand::random(), kind: Kind::Journaled, ops })?;
    for place in others {
        table.remove((scope, *place)).map_err(failed)?;
    }
    Ok(others.len() as u64)
}

/// The first that waits can never land as a whole: it becomes two, under ids of their own. It was refused, so it is nowhere.
pub(super) fn split_first(tx: &WriteTransaction, scope: &str) -> Result<()> {
    let mut table = tx.open_table(PENDING).map_err(failed)?;
    let mut waiting = all_pending(&table, scope)?.into_iter();
    let Some((_, mut first)) = waiting.next() else { return Ok(()) };
    let second = first.ops.split_off(first.ops.len() / 2);
    let halves = [first.ops, second].map(|ops| PendingCommit { id: rand::random(), kind: first.kind, ops });
    let all: Vec<PendingCommit> = halves.into_iter().chain(waiting.map(|(_, pending)| pending)).collect();
    table.retain_in((scope, 0)..=(scope, u64::MAX), |_, _| false).map_err(failed)?;
    all.iter().zip(1..).try_for_each(|(pending, place)| put_pending(&mut table, scope, place, pending))
}

fn put_pending(
    table: &mut redb::Table<(&'static str, u64), &'static [u8]>,
    scope: &str,
    place: u64,
    pending: &PendingCommit,
) -> Result<()> {
    let bytes = bincode::serde::encode_to_vec(pending, config()).map_err(|e| damaged("_pending", scope, e))?;
    table.insert((scope, place), bytes.as_slice()).map(|_| ()).map_err(failed)
}

/// Rows of actors: the same tables that a single node writes.
pub(super) fn apply(tx: &WriteTransaction, scope: &str, ops: &[Op]) -> Result<()> {
    let mut owned = tx.open_table(OWNED).map_err(failed)?;
    for op in ops {
        let mut table = tx.open_table(rows(&op.table)).map_err(failed)?;
        let (table_name, key) = (op.table.as_str(), op.key.as_str());
        match &op.value {
            Some(value) => {
                note_format(tx, table_name, value)?;
                table.insert(key, value.as_slice()).map_err(failed)?;
                owned.insert((scope, table_name, key), ()).map_err(failed)?;
            }
            None => {
                table.remove(key).map_err(failed)?;
                owned.remove((scope, table_name, key)).map_err(failed)?;
            }
        }
    }
    Ok(())
}

pub(super) fn rows(table: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(table)
}

/// In `_meta`: this file is a cluster's mirror; all of its rows were imported into one.
const MIRROR: &str = "mirror";
const IMPORTED: &str = "imported";

pub(super) fn note_import(tx: &WriteTransaction) -> Result<()> {
    let mut meta = tx.open_table(META).map_err(failed)?;
    meta.insert(IMPORTED, 1).map(|_| ()).map_err(failed)
}

/// A file of a single node becomes a mirror only if its rows are nobody's loss: they would come back as ghosts, or go.
pub(super) fn become_mirror(tx: &WriteTransaction, path: &Path) -> Result<()> {
    let mut meta = tx.open_table(META).map_err(failed)?;
    if meta.get(MIRROR).map_err(failed)?.is_some() {
        return Ok(());
    }
    let imported = meta.get(IMPORTED).map_err(failed)?.is_some();
    let tables: Vec<String> = tx.list_tables().map_err(failed)?.map(|table| table.name().to_owned()).collect();
    for name in tables.iter().filter(|name| table_owner::home(name).is_some_and(TableOwner::is_of_a_concern)) {
        let table = tx.open_table(rows(name)).map_err(failed)?;
        let first = table.first().map_err(failed)?.map(|(key, _)| key.value().to_owned());
        drop(table);
        match first {
            Some(key) if !imported => {
                let (path, table) = (path.display().to_string(), name.clone());
                return Err(StoreError::NotImported { path, table, key });
            }
            Some(_) => drop(tx.delete_table(rows(name)).map_err(failed)?),
            None => {}
        }
    }
    meta.insert(MIRROR, 1).map(|_| ()).map_err(failed)
}

/// How many of the scope's own transactions [`replace`] kept and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplaceSummary {
    pub kept: u64,
    pub dropped: u64,
}

/// The scope's rows become those of `image`, with what was acknowledged here since on top.
pub(super) fn replace(tx: &WriteTransaction, scope: &str, image: &Image) -> Result<ReplaceSummary> {
    let known = {
        let table = tx.open_table(MARKERS).map_err(failed)?;
        read_marker(&table, scope)?
    };
    let waiting = {
        let table = tx.open_table(PENDING).map_err(failed)?;
        all_pending(&table, scope)?
    };
    let fate = survivors(known, waiting.first().map(|(_, p)| p), image.marker);
    forget_rows(tx, scope)?;
    for row in &image.rows {
        check_row(&row.table, &row.key, &row.value)?;
        note_format(tx, &row.table, &row.value)?;
        put_row(tx, scope, row)?;
    }
    let mut kept = ReplaceSummary::default();
    for (i, (place, pending)) in waiting.iter().enumerate() {
        let stays = match fate {
            Survivors::All => true,
            Survivors::AfterFirst => i > 0,
            Survivors::None => false,
        };
        match (stays, pending.kind) {
            (true, Kind::Journaled) => apply(tx, scope, &pending.ops)?,
            (true, Kind::Doubtful) => {}
            (false, kind) => {
                pop_pending(tx, scope, *place)?;
                // What was refused to its actor is no loss.
                kept.dropped += u64::from(fate == Survivors::None && kind == Kind::Journaled);
            }
        }
        kept.kept += u64::from(stays);
    }
    let mut markers = tx.open_table(MARKERS).map_err(failed)?;
    match image.marker {
        Some(marker) => markers.insert(scope, marker.to_string().as_str()).map(|_| ()).map_err(failed)?,
        None => markers.remove(scope).map(|_| ()).map_err(failed)?,
    }
    Ok(kept)
}

fn put_row(tx: &WriteTransaction, scope: &str, row: &Row) -> Result<()> {
    let mut owned = tx.open_table(OWNED).map_err(failed)?;
    let mut table = tx.open_table(rows(&row.table)).map_err(failed)?;
    table.insert(row.key.as_str(), row.value.as_slice()).map_err(failed)?;
    owned.insert((scope, row.table.as_str(), row.key.as_str()), ()).map(|_| ()).map_err(failed)
}

/// A scope of which something waits.
pub(super) fn any_pending(tx: &ReadTransaction) -> Result<Option<(String, u64)>> {
    let first = match if_there(tx.open_table(PENDING))? {
        Some(table) => {
            table.iter().map_err(failed)?.next().transpose().map_err(failed)?.map(|(k, _)| k.value().0.to_owned())
        }
        None => None,
    };
    first.map(|scope| pending_count(tx, &scope).map(|waiting| (scope, waiting))).transpose()
}

/// The file is a single node's from now on.
pub(super) fn leave_cluster(tx: &WriteTransaction) -> Result<()> {
    tx.delete_table(LEASES).map_err(failed)?;
    tx.delete_table(OWNED).map_err(failed)?;
    let mut meta = tx.open_table(META).map_err(failed)?;
    for mark in [MIRROR, IMPORTED] {
        meta.remove(mark).map_err(failed)?;
    }
    tx.delete_table(MARKERS).map_err(failed)?;
    tx.delete_table(PENDING).map(|_| ()).map_err(failed)
}

/// Forgets leases and commits, and drops the journal that would follow them. The rows stay until etcd's replace them.
/// Returns how many transactions waited.
pub(super) fn forget_epochs(tx: &WriteTransaction) -> Result<u64> {
    let waiting = tx.open_table(PENDING).map_err(failed)?.iter().map_err(failed)?.count() as u64;
    tx.delete_table(LEASES).map_err(failed)?;
    tx.delete_table(MARKERS).map_err(failed)?;
    tx.delete_table(PENDING).map_err(failed)?;
    Ok(waiting)
}

/// The rows of the scope go from this node; what waits stays.
pub(super) fn forget_rows(tx: &WriteTransaction, scope: &str) -> Result<()> {
    let mut owned = tx.open_table(OWNED).map_err(failed)?;
    let mut gone = Vec::new();
    for row in owned.range((scope, "", "")..).map_err(failed)? {
        let (key, _) = row.map_err(failed)?;
        let (of, table, key) = key.value();
        if of != scope {
            break;
        }
        gone.push((table.to_owned(), key.to_owned()));
    }
    for (table, key) in gone {
        tx.open_table(rows(&table)).map_err(failed)?.remove(key.as_str()).map_err(failed)?;
        owned.remove((scope, table.as_str(), key.as_str())).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pinned! { kind: Kind {
        0 = Kind::Journaled => Kind::Journaled, "00";
        1 = Kind::Doubtful => Kind::Doubtful, "01";
    } }

    #[test]
    fn what_waits_outlives_only_a_store_in_which_nobody_else_wrote() {
        let base = Marker { seq: 4, id: 40, void: false };
        let other = Marker { seq: 5, id: 99, void: false };
        let waiting = |kind| PendingCommit { id: 50, kind, ops: vec![] };
        let its = Marker { seq: 5, id: 50, void: false };
        use Kind::{Doubtful, Journaled};
        use Survivors::{AfterFirst, All, None as Nothing};
        for (known, first, found, expected) in [
            (Some(base), Some(Journaled), Some(base), All),
            (Some(base), Some(Doubtful), Some(base), All),
            (None, Some(Journaled), None, All),
            (Some(base), Some(Journaled), Some(its), AfterFirst),
            (Some(base), Some(Doubtful), Some(its), AfterFirst),
            (Some(base), Some(Doubtful), Some(its.voided()), AfterFirst),
            // Only doubtful ones are ever voided: this void is of somebody else's making.
            (Some(base), Some(Journaled), Some(its.voided()), Nothing),
            (Some(base), Some(Journaled), Some(other), Nothing),
            (Some(base), Some(Journaled), Some(Marker { seq: 6, ..its }), Nothing),
            (Some(base), Some(Journaled), None, Nothing),
            (None, Some(Journaled), Some(base), Nothing),
            (None, Some(Journaled), Some(Marker { seq: 1, ..its }), AfterFirst),
            (Some(base), None, Some(its), Nothing),
            (Some(base), None, Some(base), All),
        ] {
            let first = first.map(waiting);
            assert_eq!(survivors(known, first.as_ref(), found), expected, "{known:?} {first:?} {found:?}");
        }
    }
}
