//! One node's repo into the cluster.

use super::super::Store;
use super::super::mirror;
use super::super::replica::{Commit, Committed, Image, Loaded, Marker, Op, Replica, WriteRight};
use super::super::table_owner::{self, MinerIn, TableOwner};
use super::raw::{self, Rows};
use super::{Result, TableReport, TransferError, TransferReport};
use std::collections::BTreeMap;

/// The records of which repo a scope's rows came from.
pub(super) const RECORDS: &str = "/transfer";
const RECORD_TABLE: &str = "imports";
/// How a record ends until all rows of its scope are written and compared.
const RUNNING: &str = " running";
/// One commit: small enough for etcd's own limits without a redo.
const OPS_MOST: usize = 100;
const BYTES_MOST: usize = 512 << 10;

#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The node whose seal scheduler takes over the sectors (`/t01000/seal-scheduler/<shard>`).
    pub shard: String,
    /// The miner, where no row names it (`t01000`), and how the cluster's paths spell it.
    pub miner: Option<String>,
    /// Rows that the cluster has already are replaced.
    pub overwrite: bool,
    pub dry_run: bool,
}

/// See [`super`]. The repo is only read, but for a number that names it from then on, and the mark that it was imported:
/// a node may use it as its mirror then.
pub fn import(repo: &Store, cluster: &dyn Replica, options: &ImportOptions) -> Result<TransferReport> {
    raw::refuse_unconfirmed(&repo.db)?;
    let rows = raw::read(&repo.db)?;
    let Plan { scopes, left } = plan(&rows, options)?;
    let path = repo.db.path().display().to_string();
    let mut report = TransferReport { dry_run: options.dry_run, repo: path.clone(), left, ..TransferReport::default() };
    let id = match options.dry_run {
        true => raw::known_id(&repo.db)?,
        false => Some(raw::repo_id(&repo.db)?),
    };
    let id = id.map(|id| format!("{id:016x}"));
    let mut records = Scope::load(cluster, RECORDS)?;
    // Everything is looked at before anything is written.
    let mut targets = Vec::new();
    for (name, wanted) in &scopes {
        let target = Scope::load(cluster, name)?;
        let by = records.text(name);
        // Once it is done the cluster's rows live on, and are newer than the repo's.
        let cut_off = by.as_ref().zip(id.as_ref()).is_some_and(|(by, id)| by.starts_with(id) && by.ends_with(RUNNING));
        let new = target.rows.is_empty() || target.rows == *wanted;
        if !new && !cut_off && !options.overwrite {
            let by = by.map(|by| format!(" (imported from {by})")).unwrap_or_default();
            return Err(TransferError::ScopeNotEmpty { scope: name.clone(), rows: target.rows.len() as u64, by });
        }
        count(&mut report, name, wanted);
        targets.push((target, wanted));
    }
    for (target, wanted) in &mut targets {
        let ops = difference(&target.rows, wanted);
        report.written += ops.iter().filter(|op| op.value.is_some()).count() as u64;
        report.removed += ops.iter().filter(|op| op.value.is_none()).count() as u64;
        report.unchanged += wanted.iter().filter(|(name, value)| target.rows.get(name) == Some(*value)).count() as u64;
        let (false, Some(id)) = (options.dry_run, &id) else { continue };
        records.set(cluster, &target.name, format!("{id} {path}{RUNNING}"))?;
        target.write(cluster, &ops)?;
        let found = Scope::load(cluster, &target.name)?;
        if let Some(op) = difference(&found.rows, wanted).first() {
            let (scope, table, key) = (target.name.clone(), op.table.clone(), op.key.clone());
            return Err(TransferError::Differs { scope, table, key });
        }
        records.set(cluster, &target.name, format!("{id} {path} done"))?;
    }
    if !options.dry_run {
        repo.db.write(mirror::note_import)?;
    }
    Ok(report)
}

pub(super) fn count(report: &mut TransferReport, scope: &str, rows: &Rows) {
    let mut tables: BTreeMap<&str, u64> = BTreeMap::new();
    rows.keys().for_each(|(table, _)| *tables.entry(table).or_default() += 1);
    let counted = |(table, rows): (&str, u64)| TableReport { scope: scope.to_owned(), table: table.to_owned(), rows };
    report.tables.extend(tables.into_iter().map(counted));
}

struct Plan {
    scopes: BTreeMap<String, Rows>,
    left: Vec<(String, u64)>,
}

/// Which scope every row goes to.
fn plan(rows: &Rows, options: &ImportOptions) -> Result<Plan> {
    let miners = miners(rows, options);
    let mut scopes: BTreeMap<String, Rows> = BTreeMap::new();
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    for ((table, key), value) in rows {
        let home = table_owner::home(table).ok_or_else(|| TransferError::UnknownTable { table: table.clone() })?;
        let no_miner = || TransferError::NoMiner { table: table.clone(), key: key.clone() };
        let spelled = |id: &str| miners.get(id).cloned().ok_or_else(no_miner);
        let of_prefix = || table_owner::miner_of(key).ok_or_else(no_miner).and_then(|miner| spelled(&miner[2..]));
        let homes = match home {
            TableOwner::Node | TableOwner::ClusterOnly => {
                *left.entry(table.clone()).or_default() += 1;
                continue;
            }
            TableOwner::Sharded { concern } => vec![format!("/{}/{concern}/{}", of_prefix()?, options.shard)],
            TableOwner::Concern { concern, miner: MinerIn::Prefix, .. } => vec![format!("/{}/{concern}", of_prefix()?)],
            TableOwner::Concern { concern, miner: MinerIn::Id, .. } => vec![format!("/{}/{concern}", spelled(key)?)],
            TableOwner::Concern { concern, miner: MinerIn::Nothing, .. } => {
                if miners.is_empty() {
                    return Err(no_miner());
                }
                miners.values().map(|miner| format!("/{miner}/{concern}")).collect()
            }
        };
        for scope in homes {
            scopes.entry(scope).or_default().insert((table.clone(), key.clone()), value.clone());
        }
    }
    Ok(Plan { scopes, left: left.into_iter().collect() })
}

/// Miners by actor id, in the prefix of the repo's network: some tables always write `t`, so one `f` tells more.
fn miners(rows: &Rows, options: &ImportOptions) -> BTreeMap<String, String> {
    let mut miners: BTreeMap<String, String> = BTreeMap::new();
    for (table, key) in rows.keys() {
        match table_owner::home(table) {
            Some(TableOwner::Concern { miner: MinerIn::Prefix, .. } | TableOwner::Sharded { .. }) => {
                let Some(miner) = table_owner::miner_of(key) else { continue };
                let known = miners.entry(miner[2..].to_owned()).or_insert_with(|| miner.to_owned());
                if miner.starts_with('f') {
                    *known = miner.to_owned();
                }
            }
            Some(TableOwner::Concern { miner: MinerIn::Id, .. }) if table_owner::is_id(key) => {
                miners.entry(key.clone()).or_insert_with(|| format!("t0{key}"));
            }
            _ => {}
        }
    }
    if let Some(miner) = options.miner.as_deref().and_then(table_owner::miner_of) {
        miners.insert(miner[2..].to_owned(), miner.to_owned());
    }
    miners
}

/// The operations that turn `old` into `new`.
pub(super) fn difference(old: &Rows, new: &Rows) -> Vec<Op> {
    let op = |(table, key): &(String, String), value| Op { table: table.clone(), key: key.clone(), value };
    let put = new.iter().filter(|(name, value)| old.get(*name) != Some(*value)).map(|(n, v)| op(n, Some(v.clone())));
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| op(name, None));
    put.chain(gone).collect()
}

/// A scope that nobody holds while we work on it.
pub(super) struct Scope {
    pub name: String,
    marker: Option<Marker>,
    pub rows: Rows,
}

impl Scope {
    pub(super) fn load(cluster: &dyn Replica, name: &str) -> Result<Scope> {
        match cluster.load(name, WriteRight::Nobody)? {
            Loaded::Image(Image { marker, rows }) => {
                let rows = rows.into_iter().map(|row| ((row.table, row.key), row.value)).collect();
                Ok(Scope { name: name.to_owned(), marker, rows })
            }
            Loaded::Fenced { holder } => Err(held(name, holder)),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        let value = self.rows.get(&(RECORD_TABLE.to_owned(), key.to_owned()))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn set(&mut self, cluster: &dyn Replica, key: &str, text: String) -> Result<()> {
        let op = Op { table: RECORD_TABLE.into(), key: key.to_owned(), value: Some(text.into_bytes()) };
        self.write(cluster, &[op])
    }

    fn write(&mut self, cluster: &dyn Replica, ops: &[Op]) -> Result<()> {
        for ops in slices(ops) {
            let marker = Marker::after(self.marker, rand::random());
            let commit = Commit { scope: &self.name, hold: WriteRight::Nobody, base: self.marker, marker, ops };
            match cluster.commit(&commit)? {
                Committed::Landed => {}
                Committed::Differs { found } if found == Some(marker) => {}
                Committed::Fenced { holder } => return Err(held(&self.name, holder)),
                Committed::Differs { .. } => {
                    let (table, key) = ops.first().map(|op| (op.table.clone(), op.key.clone())).unwrap_or_default();
                    return Err(TransferError::Differs { scope: self.name.clone(), table, key });
                }
            }
            self.marker = Some(marker);
        }
        Ok(())
    }
}

fn held(scope: &str, holder: Option<u64>) -> TransferError {
    TransferError::Held { scope: scope.to_owned(), lease: holder.unwrap_or_default() }
}

/// As many at a time as fit; one that is too large by itself goes alone, and is refused by who cannot take it.
fn slices(ops: &[Op]) -> Vec<&[Op]> {
    let (mut slices, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (i, op) in ops.iter().enumerate() {
        if i > from && (i - from >= OPS_MOST || bytes + op.size() > BYTES_MOST) {
            slices.push(&ops[from..i]);
            (from, bytes) = (i, 0);
        }
        bytes += op.size();
    }
    if from < ops.len() {
        slices.push(&ops[from..]);
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(names: &[(&str, &str)]) -> Rows {
        names.iter().map(|(t, k)| ((t.to_string(), k.to_string()), k.as_bytes().to_vec())).collect()
    }

    fn where_to(names: &[(&str, &str)], miner: Option<&str>) -> Result<Vec<String>> {
        let options = ImportOptions { shard: "a".into(), miner: miner.map(str::to_owned), ..ImportOptions::default() };
        let plan = plan(&rows(names), &options)?;
        let lines = plan.scopes.iter().flat_map(|(s, rows)| rows.keys().map(move |(t, k)| format!("{s} {t} {k}")));
        Ok(lines.collect())
    }

    #[test]
    fn every_row_finds_its_concern() {
        let at = |names: &[(&str, &str)]| where_to(names, None).unwrap();
        assert_eq!(at(&[("sectors", "t01000/7")]), ["/t01000/seal-scheduler/a sectors t01000/7"]);
        assert_eq!(at(&[("market_ask", "1000")]), ["/t01000/deal-handler market_ask 1000"]);
        // Blocks are always kept under `t`; the network's own spelling counts.
        assert_eq!(
            at(&[("winning_post_blocks", "t01000/5"), ("sectors", "f01000/7")]),
            ["/f01000/seal-scheduler/a sectors f01000/7", "/f01000/winning-post winning_post_blocks t01000/5"]
        );
        // Nonces go with every miner.
        assert_eq!(
            at(&[("nonces", "t3abc"), ("messages", "t01000/a"), ("window_post", "t01001/5")]),
            [
                "/t01000/message-sender messages t01000/a",
                "/t01000/message-sender nonces t3abc",
                "/t01001/message-sender nonces t3abc",
                "/t01001/window-post window_post t01001/5",
            ]
        );
        assert_eq!(at(&[("identity", "node")]), Vec::<String>::new());
        assert_eq!(where_to(&[("nonces", "t3abc")], Some("t01000")).unwrap(), ["/t01000/message-sender nonces t3abc"]);
        assert!(matches!(where_to(&[("nonces", "t3abc")], None), Err(TransferError::NoMiner { .. })));
        assert!(matches!(where_to(&[("messages", "init/a")], None), Err(TransferError::NoMiner { .. })));
        assert!(matches!(where_to(&[("new", "t01000")], None), Err(TransferError::UnknownTable { .. })));
    }

    #[test]
    fn commits_stay_small() {
        let op = |size: usize| Op { table: "t".into(), key: String::new(), value: Some(vec![0; size]) };
        let sizes = |ops: &[Op]| slices(ops).iter().map(|s| s.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        for (n, expected) in [(99, vec![99]), (100, vec![100]), (101, vec![100, 1]), (200, vec![100, 100])] {
            assert_eq!(sizes(&vec![op(1); n]), expected);
        }
        assert_eq!(sizes(&vec![op(200 << 10); 5]), [2, 2, 1]);
        assert_eq!(sizes(&[op(1), op(2 << 20), op(1)]), [1, 1, 1]);
    }
}
