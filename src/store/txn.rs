//! Records inside one transaction: encoding, the fence, the boot counter.

use super::error::{Result, StoreError};
use super::{Record, Token};
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::de::DeserializeOwned;

const FENCE: TableDefinition<&str, u64> = TableDefinition::new("_fence");
const META: TableDefinition<&str, u64> = TableDefinition::new("_meta");
/// No record is near this; a length field that claims more is damage, not data.
const RECORD_LIMIT: usize = 64 << 20;

fn table<R: Record>() -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(R::TABLE)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_LIMIT>()
}

fn encode<R: Record>(key: &str, record: &R) -> Result<Vec<u8>> {
    let mut bytes = R::SCHEMA.to_le_bytes().to_vec();
    let body = bincode::serde::encode_to_vec(record, config()).map_err(|e| StoreError::Corrupt {
        table: R::TABLE,
        key: key.to_owned(),
        why: format!("not encodable: {e}"),
    })?;
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
        return Err(StoreError::Schema { table: R::TABLE, key: key.to_owned(), found, known: R::SCHEMA });
    }
    read_body(body).map_err(corrupt)
}

/// The fields behind a record's schema number.
pub fn read_body<T: DeserializeOwned>(body: &[u8]) -> std::result::Result<T, String> {
    let (record, used) = bincode::serde::decode_from_slice(body, config()).map_err(|e| e.to_string())?;
    match body.len() - used {
        0 => Ok(record),
        more => Err(format!("{more} bytes too many")),
    }
}

fn failed(e: impl Into<redb::Error>) -> StoreError {
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
    match tx.open_table(table::<R>()) {
        Ok(table) => collect(&table, prefix),
        Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

fn collect<R: Record>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
) -> Result<Vec<(String, R)>> {
    let mut found = Vec::new();
    for row in table.range(prefix..).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_owned(), decode(key.value(), value.value())?));
    }
    Ok(found)
}

/// The highest epoch that ever wrote under a path wins; a lower one is fenced off.
pub(super) fn fence(tx: &WriteTransaction, token: &Token) -> Result<()> {
    let mut table = tx.open_table(FENCE).map_err(failed)?;
    let highest = table.get(&*token.path).map_err(failed)?.map(|v| v.value());
    match highest {
        Some(newer) if newer > token.epoch => {
            Err(StoreError::Fenced { path: token.path.to_string(), epoch: token.epoch, newer })
        }
        Some(same) if same == token.epoch => Ok(()),
        _ => table.insert(&*token.path, token.epoch).map(|_| ()).map_err(failed),
    }
}

pub(super) fn next_boot(tx: &WriteTransaction) -> Result<u64> {
    let mut table = tx.open_table(META).map_err(failed)?;
    let boot = table.get("boot").map_err(failed)?.map_or(0, |v| v.value()) + 1;
    table.insert("boot", boot).map_err(failed)?;
    Ok(boot)
}

/// One write transaction under a token.
pub struct Txn<'a> {
    tx: &'a WriteTransaction,
}

impl<'a> Txn<'a> {
    pub(super) fn new(tx: &'a WriteTransaction) -> Txn<'a> {
        Txn { tx }
    }

    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        let table = self.tx.open_table(table::<R>()).map_err(failed)?;
        table.get(key).map_err(failed)?.map(|v| decode(key, v.value())).transpose()
    }

    pub fn list_prefix<R: Record>(&self, prefix: &str) -> Result<Vec<(String, R)>> {
        let table = self.tx.open_table(table::<R>()).map_err(failed)?;
        collect(&table, prefix)
    }

    pub fn put<R: Record>(&mut self, key: &str, record: &R) -> Result<()> {
        let bytes = encode(key, record)?;
        let mut table = self.tx.open_table(table::<R>()).map_err(failed)?;
        table.insert(key, bytes.as_slice()).map(|_| ()).map_err(failed)
    }

    pub fn delete<R: Record>(&mut self, key: &str) -> Result<()> {
        let mut table = self.tx.open_table(table::<R>()).map_err(failed)?;
        table.remove(key).map(|_| ()).map_err(failed)
    }
}
