//! The cluster's state into one node's repo.

use super::super::Store;
use super::super::replica::Replica;
use super::super::table_owner::{self, Merge, TableOwner};
use super::import::{RECORDS, Scope, count, difference};
use super::raw::{self, Rows};
use super::{Result, TransferError, TransferReport};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// The scope (or the node of a seal scheduler) whose row counts where two differ.
    pub prefer: Option<String>,
    /// Rows that the repo has already are replaced.
    pub overwrite: bool,
    pub dry_run: bool,
}

/// See [`super`]. The cluster is only read. The repo gets all of it in one transaction.
pub fn export(cluster: &dyn Replica, repo: &Store, options: &ExportOptions) -> Result<TransferReport> {
    raw::refuse_unconfirmed(&repo.db)?;
    let mut report = TransferReport {
        dry_run: options.dry_run,
        repo: repo.db.path().display().to_string(),
        ..TransferReport::default()
    };
    let mut scopes = Vec::new();
    for name in cluster.scopes()?.into_iter().filter(|name| name != RECORDS) {
        scopes.push(Scope::load(cluster, &name)?);
    }
    let wanted = merge(&scopes, options.prefer.as_deref(), &mut report)?;
    scopes.iter().for_each(|scope| count(&mut report, &scope.name, &scope.rows));
    // The node's own rows stay as they are.
    let mut there = raw::read(&repo.db)?;
    there.retain(|(table, _), _| table_owner::home(table) != Some(TableOwner::Node));
    let changes = difference(&there, &wanted);
    if let Some(op) = changes.iter().find(|op| there.contains_key(&(op.table.clone(), op.key.clone())))
        && !options.overwrite
    {
        let (repo, table, key) = (report.repo, op.table.clone(), op.key.clone());
        return Err(TransferError::RepoNotEmpty { repo, table, key });
    }
    report.written = changes.iter().filter(|op| op.value.is_some()).count() as u64;
    report.removed = changes.iter().filter(|op| op.value.is_none()).count() as u64;
    report.unchanged = wanted.len() as u64 - report.written;
    if options.dry_run {
        return Ok(report);
    }
    raw::replace(&repo.db, &there, &wanted)?;
    let mut found = raw::read(&repo.db)?;
    found.retain(|(table, _), _| table_owner::home(table) != Some(TableOwner::Node));
    match difference(&found, &wanted).first() {
        Some(op) => {
            let (scope, table, key) = (report.repo, op.table.clone(), op.key.clone());
            Err(TransferError::Differs { scope, table, key })
        }
        None => Ok(report),
    }
}

/// The rows of all scopes as one node keeps them.
fn merge(scopes: &[Scope], prefer: Option<&str>, report: &mut TransferReport) -> Result<Rows> {
    let mut merged: BTreeMap<(String, String), (&str, &Vec<u8>)> = BTreeMap::new();
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    for scope in scopes {
        for (name, value) in &scope.rows {
            let (table, key) = name;
            let rule = match table_owner::home(table) {
                None => return Err(TransferError::UnknownTable { table: table.clone() }),
                Some(TableOwner::Node | TableOwner::ClusterOnly) => {
                    *left.entry(table.clone()).or_default() += 1;
                    continue;
                }
                Some(TableOwner::Sharded { .. }) => Merge::Same,
                Some(TableOwner::Concern { merge, .. }) => merge,
            };
            let Some((other, known)) = merged.get(name).copied() else {
                merged.insert(name.clone(), (&scope.name, value));
                continue;
            };
            if known == value {
                continue;
            }
            let newer = match rule {
                Merge::Highest => number(value) > number(known),
                Merge::Same if is(&scope.name, prefer) => true,
                Merge::Same if is(other, prefer) => false,
                Merge::Same => {
                    let (table, key) = (table.clone(), key.clone());
                    let (one, other) = (other.to_owned(), scope.name.clone());
                    return Err(TransferError::Conflict { table, key, one, other });
                }
            };
            if newer {
                merged.insert(name.clone(), (&scope.name, value));
            }
        }
    }
    report.left = left.into_iter().collect();
    Ok(merged.into_iter().map(|(name, (_, value))| (name, value.clone())).collect())
}

fn is(scope: &str, prefer: Option<&str>) -> bool {
    prefer.is_some_and(|prefer| scope == prefer || scope.rsplit('/').next() == Some(prefer))
}

/// The number of a record that is one, behind its schema.
fn number(record: &[u8]) -> u64 {
    let body = record.get(2..).unwrap_or_default();
    bincode::serde::decode_from_slice(body, bincode::config::standard()).map_or(0, |(n, _)| n)
}
