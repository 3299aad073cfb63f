//! Records inside one transaction: encoding, the fence, the boot counter.

use super::Token;
use super::error::{Result, StoreError};
use super::record::Record;
use super::replica::Op;
use super::table_owner;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// The highest epoch that wrote under a path.
pub(super) type Fences = TableDefinition<'static, &'static str, u64>;
pub(super) const FENCE: Fences = TableDefinition::new("_fence");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("_meta");
/// No record is near this; a length field that claims more is damage, not data.
const RECORD_LIMIT: usize = 64 << 20;

fn table<R: Record>() -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(R::TABLE)
}

pub(super) fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_LIMIT>()
}

fn encode<R: Record>(key: &str, record: &R) -> Result<Vec<u8>> {
    let mut bytes = R::SCHEMA.to_le_bytes().to_vec();
    let body = bincode::serde::encode_to_vec(record, config()).map_err(|e| StoreError::Corrupt {
        table: R::TABLE,
        key: key.to_owned(),
        why: format!("not encodable: {e}"),
    })?;
    // What would not be read back is not written.
    if body.len() > RECORD_LIMIT {
        let (table, key, bytes) = (R::TABLE, key.to_owned(), body.len());
        return Err(StoreError::RecordTooLarge { table, key, bytes, most: RECORD_LIMIT });
    }
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode<R: Record>(key: &str, bytes: &[u8]) -> Result<R> {
    let corrupt = |why: String| StoreError::Corrupt { table: R::TABLE, key: key.to_owned(), why };
    let Some((schema, body)) = bytes.split_first_chunk::<2>() else {
        return Err(corrupt(format!("{} bytes, no schema number", bytes.len())));
    };
    let found = u16::from_le_bytes(*schema);
    if found < R::SCHEMA
        && let Some(older) = R::read_older(found, body)
    {
        return older.map_err(corrupt);
    }
    if found != R::SCHEMA {
        let (table, key) = (R::TABLE.to_owned(), key.to_owned());
        return Err(StoreError::Schema { table, key, found, known: R::SCHEMA });
    }
    read_body(body).map_err(corrupt)
}

/// Table -> the highest schema that one of its records has, and the version that wrote the first of those. Records of schema
/// 1 are read by every version and are not noted.
const FORMATS: TableDefinition<&str, (u16, &str)> = TableDefinition::new("_formats");

/// Schemas count up from 1: a higher number was never one.
pub(super) const HIGHEST_SCHEMA: u16 = 255;

/// A record goes into a table.
pub(super) fn note_format(tx: &WriteTransaction, table: &str, record: &[u8]) -> Result<()> {
    let Some((schema, _)) = record.split_first_chunk::<2>() else { return Ok(()) };
    let schema = u16::from_le_bytes(*schema);
    if schema <= 1 || schema > HIGHEST_SCHEMA {
        return Ok(());
    }
    let mut formats = tx.open_table(FORMATS).map_err(failed)?;
    if formats.get(table).map_err(failed)?.is_some_and(|noted| noted.value().0 >= schema) {
        return Ok(());
    }
    formats.insert(table, (schema, env!("CARGO_PKG_VERSION"))).map(|_| ()).map_err(failed)
}

/// A file with records that a later version wrote is refused as a whole, before a part of it is read.
pub(super) fn check_formats(tx: &ReadTransaction, path: &Path) -> Result<()> {
    let formats = match tx.open_table(FORMATS) {
        Ok(formats) => formats,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for row in formats.iter().map_err(failed)? {
        let (table, noted) = row.map_err(failed)?;
        let (found, by) = noted.value();
        // A table that is not known is not read either.
        if let Some(known) = table_owner::schema(table.value()).filter(|known| *known < found) {
            let (path, by, table) = (path.display().to_string(), by.to_owned(), table.value().to_owned());
            return Err(StoreError::Newer { path, by, table, found, known });
        }
    }
    Ok(())
}

/// A row of the cluster's store that a later version wrote, before it is taken over.
/// One that no version wrote may stay, where its actor does without it.
pub(super) fn check_row(table: &str, key: &str, record: &[u8]) -> Result<()> {
    let Some((schema, _)) = record.split_first_chunk::<2>() else { return Ok(()) };
    let found = u16::from_le_bytes(*schema);
    let stays = found > HIGHEST_SCHEMA && table_owner::may_stay_unread(table);
    match table_owner::schema(table).filter(|known| *known < found && !stays) {
        Some(known) => Err(StoreError::Schema { table: table.to_owned(), key: key.to_owned(), found, known }),
        None => Ok(()),
    }
}

/// Whether a record of that type can be read; for [`super::RowCheck`].
pub fn readable<R: Record>(key: &str, record: &[u8]) -> std::result::Result<(), String> {
    decode::<R>(key, record).map(drop).map_err(|why| why.to_string())
}

/// The fields behind a record's schema number.
pub fn read_body<T: DeserializeOwned>(body: &[u8]) -> std::result::Result<T, String> {
    let (record, used) = bincode::serde::decode_from_slice(body, config()).map_err(|e| e.to_string())?;
    match body.len() - used {
        0 => Ok(record),
        more => Err(format!("{more} bytes too many")),
    }
}

pub(super) fn failed(e: impl Into<redb::Error>) -> StoreError {
    match e.into() {
        redb::Error::Io(e) => StoreError::io(std::path::Path::new("bulkhead.redb"), &e),
        e => StoreError::Io(e.to_string()),
    }
}

pub(super) fn get<R: Record>(tx: &ReadTransaction, key: &str) -> Result<Option<R>> {
    let table = match tx.open_table(table::<R>()) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    table.get(key).map_err(failed)?.map(|v| decode(key, v.value())).transpose()
}

pub(super) fn list<R: Record>(tx: &ReadTransaction, prefix: &str) -> Result<Vec<(String, R)>> {
    let mut found = Vec::new();
    each(tx, prefix, &mut |key: &str, record| found.push((key.to_owned(), record)))?;
    Ok(found)
}

pub(super) fn each<R: Record>(tx: &ReadTransaction, prefix: &str, see: &mut impl FnMut(&str, R)) -> Result<()> {
    each_answer(tx, prefix, &mut |key, record| record.map(|record| see(key, record)))
}

/// An error of `see` ends it.
pub(super) fn each_answer<R: Record>(
    tx: &ReadTransaction,
    prefix: &str,
    see: &mut impl FnMut(&str, Result<R>) -> Result<()>,
) -> Result<()> {
    match tx.open_table(table::<R>()) {
        Ok(table) => each_row(&table, prefix, see),
        Err(TableError::TableDoesNotExist(_)) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

fn each_row<R: Record>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
    see: &mut impl FnMut(&str, Result<R>) -> Result<()>,
) -> Result<()> {
    for row in table.range(prefix..).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        see(key.value(), decode(key.value(), value.value()))?;
    }
    Ok(())
}

/// The highest epoch that ever wrote under a path wins; a lower one is fenced off.
pub(super) fn fence(tx: &WriteTransaction, fences: Fences, token: &Token) -> Result<()> {
    let mut table = tx.open_table(fences).map_err(failed)?;
    let highest = table.get(&*token.path).map_err(failed)?.map(|v| v.value());
    match passes(highest, token)? {
        FencePass::Known => Ok(()),
        FencePass::Raises => table.insert(&*token.path, token.epoch).map(|_| ()).map_err(failed),
    }
}

/// Whatever was there: the count itself began anew.
pub(super) fn fence_anew(tx: &WriteTransaction, fences: Fences, token: &Token) -> Result<()> {
    let mut table = tx.open_table(fences).map_err(failed)?;
    table.insert(&*token.path, token.epoch).map(|_| ()).map_err(failed)
}

/// [`fence`] without raising it.
pub(super) fn check_fence(tx: &ReadTransaction, fences: Fences, token: &Token) -> Result<FencePass> {
    passes(highest(tx, fences, &token.path)?, token)
}

pub(super) fn highest(tx: &ReadTransaction, fences: Fences, path: &str) -> Result<Option<u64>> {
    match tx.open_table(fences) {
        Ok(table) => Ok(table.get(path).map_err(failed)?.map(|v| v.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FencePass {
    Known,
    Raises,
}

fn passes(highest: Option<u64>, token: &Token) -> Result<FencePass> {
    match highest {
        Some(newer) if newer > token.epoch => {
            Err(StoreError::Fenced { path: token.path.to_string(), epoch: token.epoch, newer })
        }
        Some(same) if same == token.epoch => Ok(FencePass::Known),
        _ => Ok(FencePass::Raises),
    }
}

pub(super) fn next_boot(tx: &WriteTransaction) -> Result<u64> {
    let mut table = tx.open_table(META).map_err(failed)?;
    let boot = table.get("boot").map_err(failed)?.map_or(0, |v| v.value()) + 1;
    table.insert("boot", boot).map_err(failed)?;
    Ok(boot)
}

pub(super) fn next_start(tx: &WriteTransaction, now: u64) -> Result<u64> {
    let mut table = tx.open_table(META).map_err(failed)?;
    let start = table.get("start").map_err(failed)?.map_or(0, |v| v.value() + 1).max(now);
    table.insert("start", start).map_err(failed)?;
    Ok(start)
}

/// One write transaction under a token.
pub struct Txn<'a> {
    to: To<'a>,
}

enum To<'a> {
    /// Straight into redb's own transaction.
    Disk(&'a WriteTransaction),
    /// Kept over what is on disk: the cluster's store has to take it first.
    Set(&'a ReadTransaction, WriteSet),
}

/// Rows by table and key: what a transaction leaves. `None` deletes.
type WriteSet = BTreeMap<(&'static str, String), Option<Vec<u8>>>;

impl<'a> Txn<'a> {
    pub(super) fn new(tx: &'a WriteTransaction) -> Txn<'a> {
        Txn { to: To::Disk(tx) }
    }

    pub(super) fn recording(tx: &'a ReadTransaction) -> Txn<'a> {
        Txn { to: To::Set(tx, WriteSet::new()) }
    }

    /// The recorded writes; empty if they went to disk.
    pub(super) fn into_ops(self) -> Vec<Op> {
        let set = match self.to {
            To::Disk(_) => WriteSet::new(),
            To::Set(_, set) => set,
        };
        set.into_iter().map(|((table, key), value)| Op { table: table.to_owned(), key, value }).collect()
    }

    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        match &self.to {
            To::Disk(tx) => {
                let table = tx.open_table(table::<R>()).map_err(failed)?;
                table.get(key).map_err(failed)?.map(|v| decode(key, v.value())).transpose()
            }
            To::Set(tx, set) => match set.get(&(R::TABLE, key.to_owned())) {
                Some(written) => written.as_ref().map(|bytes| decode(key, bytes)).transpose(),
                None => get(tx, key),
            },
        }
    }

    pub fn list_prefix<R: Record>(&self, prefix: &str) -> Result<Vec<(String, R)>> {
        match &self.to {
            To::Disk(tx) => {
                let table = tx.open_table(table::<R>()).map_err(failed)?;
                let mut found = Vec::new();
                each_row(&table, prefix, &mut |key: &str, record: Result<R>| {
                    found.push((key.to_owned(), record?));
                    Ok(())
                })?;
                Ok(found)
            }
            To::Set(tx, set) => {
                let mut rows: BTreeMap<String, R> = list(tx, prefix)?.into_iter().collect();
                let from = (R::TABLE, prefix.to_owned());
                for ((_, key), value) in
                    set.range(from..).take_while(|((t, k), _)| *t == R::TABLE && k.starts_with(prefix))
                {
                    match value {
                        Some(bytes) => rows.insert(key.clone(), decode(key, bytes)?),
                        None => rows.remove(key),
                    };
                }
                Ok(rows.into_iter().collect())
            }
        }
    }

    /// The same without those that cannot be read.
    pub fn list_readable<R: Record>(&self, prefix: &str) -> Result<Vec<(String, R)>> {
        let mut found = BTreeMap::new();
        let mut see = |key: &str, record: Result<R>| {
            found.extend(record.ok().map(|record| (key.to_owned(), record)));
            Ok(())
        };
        match &self.to {
            To::Disk(tx) => each_row(&tx.open_table(table::<R>()).map_err(failed)?, prefix, &mut see)?,
            To::Set(tx, set) => {
                each_answer(tx, prefix, &mut see)?;
                let from = (R::TABLE, prefix.to_owned());
                let written = set.range(from..).take_while(|((t, k), _)| *t == R::TABLE && k.starts_with(prefix));
                for ((_, key), value) in written {
                    found.remove(key);
                    let record = value.as_ref().map(|bytes| decode::<R>(key, bytes)).transpose()?;
                    found.extend(record.map(|record| (key.clone(), record)));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    pub fn put<R: Record>(&mut self, key: &str, record: &R) -> Result<()> {
        let bytes = encode(key, record)?;
        match &mut self.to {
            To::Disk(tx) => {
                note_format(tx, R::TABLE, &bytes)?;
                let mut table = tx.open_table(table::<R>()).map_err(failed)?;
                table.insert(key, bytes.as_slice()).map(|_| ()).map_err(failed)
            }
            To::Set(_, set) => {
                set.insert((R::TABLE, key.to_owned()), Some(bytes));
                Ok(())
            }
        }
    }

    pub fn delete<R: Record>(&mut self, key: &str) -> Result<()> {
        match &mut self.to {
            To::Disk(tx) => {
                let mut table = tx.open_table(table::<R>()).map_err(failed)?;
                table.remove(key).map(|_| ()).map_err(failed)
            }
            To::Set(_, set) => {
                set.insert((R::TABLE, key.to_owned()), None);
                Ok(())
            }
        }
    }
}
