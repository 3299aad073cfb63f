//! A repo's rows as bytes, without their types.

use super::super::db::Db;
use super::super::error::StoreError;
use super::super::mirror;
use super::super::txn::{FENCE, META, check_row, failed, note_format};
use super::{Result, TransferError};
use redb::{ReadableTable, TableError, TableHandle, WriteTransaction};
use std::collections::BTreeMap;

pub(super) type Rows = BTreeMap<(String, String), Vec<u8>>;

/// Every row of every table but our own (their names start with `_`).
pub(super) fn read(db: &Db) -> Result<Rows> {
    Ok(db.read(|tx| {
        let mut found = Rows::new();
        for handle in tx.list_tables().map_err(failed)? {
            let name = handle.name();
            if name.starts_with('_') {
                continue;
            }
            let table = tx.open_table(mirror::rows(name)).map_err(failed)?;
            for row in table.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                found.insert((name.to_owned(), key.value().to_owned()), value.value().to_vec());
            }
        }
        Ok(found)
    })?)
}

/// A repo in which acknowledged writes wait for a cluster is not the whole truth, and the cluster is not either.
pub(super) fn refuse_unconfirmed(db: &Db) -> Result<()> {
    match db.read(mirror::any_pending)? {
        Some((path, waiting)) => {
            Err(TransferError::Unconfirmed { repo: db.path().display().to_string(), path, waiting })
        }
        None => Ok(()),
    }
}

const ID: &str = "repo_id";

pub(super) fn known_id(db: &Db) -> Result<Option<u64>> {
    Ok(db.read(|tx| match tx.open_table(META) {
        Ok(meta) => Ok(meta.get(ID).map_err(failed)?.map(|v| v.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(failed(e)),
    })?)
}

/// Names the repo for as long as it lives.
pub(super) fn repo_id(db: &Db) -> Result<u64> {
    Ok(db.write(|tx| {
        let mut meta = tx.open_table(META).map_err(failed)?;
        let known = meta.get(ID).map_err(failed)?.map(|v| v.value());
        let id = known.unwrap_or_else(rand::random);
        meta.insert(ID, id).map_err(failed)?;
        Ok::<_, StoreError>(id)
    })?)
}

/// All of it, or nothing. What the file remembers of its time in a cluster goes, and later epochs are above all earlier.
pub(super) fn replace(db: &Db, old: &Rows, new: &Rows) -> Result<()> {
    Ok(db.write(|tx| {
        for (table, key) in old.keys().filter(|name| !new.contains_key(*name)) {
            tx.open_table(mirror::rows(table)).map_err(failed)?.remove(key.as_str()).map_err(failed)?;
        }
        for ((table, key), value) in new {
            check_row(table, key, value)?;
            note_format(tx, table, value)?;
            let mut table = tx.open_table(mirror::rows(table)).map_err(failed)?;
            table.insert(key.as_str(), value.as_slice()).map_err(failed)?;
        }
        mirror::leave_cluster(tx)?;
        raise_boot(tx)
    })?)
}

/// A boot is the upper half of the epochs to come.
fn raise_boot(tx: &WriteTransaction) -> std::result::Result<(), StoreError> {
    let highest = {
        let fences = tx.open_table(FENCE).map_err(failed)?;
        let mut highest = 0;
        for row in fences.iter().map_err(failed)? {
            highest = highest.max(row.map_err(failed)?.1.value() >> 32);
        }
        highest
    };
    let mut meta = tx.open_table(META).map_err(failed)?;
    let boot = meta.get("boot").map_err(failed)?.map_or(0, |v| v.value());
    if boot < highest {
        meta.insert("boot", highest).map_err(failed)?;
    }
    Ok(())
}
