//! `cluster repair`: finds what of this cluster etcd has that no node can read, or that would never end, and puts it right.
//!
//! A concern whose lease, marker or row is damaged is taken by nobody. A value that was readable before comes back from
//! etcd's own history, as far as that is not compacted; a row also from this host's copy, if that is of the concern's last
//! commit. Else it is taken away, where nothing is lost with it, or left for an operator to decide.

use super::Connection;
use super::keys::{Key, Keys};
use super::table::LeaseRecord;
use crate::rpc::directory::{DirectoryError, NodeRecord};
use crate::store::replica::{Marker, Op};
use crate::store::{RowCheck, Store};
use crate::util::time::unix_ms;
use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// Keys in one answer.
const PAGE: i64 = 500;
/// How many earlier values of a key are looked at.
const BACK_MOST: usize = 100;
/// Nodes take a concern that they cannot load again and again, for a moment each: a gap between two of them is waited for.
const GAP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const CHANGED: &str = "it has changed meanwhile: look again";
/// The largest decoded size of a stored transaction.
const REDO_MOST: usize = 4 << 20;

/// The fault of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Damage {
    /// A lease, a node's record: nobody reads it.
    Record(String),
    /// It belongs to no lease of etcd's, so it never ends by itself.
    Endless,
    /// The marker of the last commit of a concern's state.
    Marker,
    /// A commit that is not spread over its rows.
    Redo(String),
    /// It lies where rows do, and is none.
    NoRow,
    /// A row whose value is no record of its table.
    Row(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Record(why) => write!(f, "it cannot be read: {why}"),
            Damage::Endless => f.write_str("it belongs to no lease, so it would stay for ever"),
            Damage::Marker => f.write_str("it is no marker, so nobody can load the concern's state"),
            Damage::Redo(why) => write!(f, "it is no commit: {why}"),
            Damage::Row(why) => write!(f, "nobody can load the concern's state: {why}"),
            Damage::NoRow => f.write_str("it is no row, so nobody can load the concern's state"),
        }
    }
}

/// A key, what is wrong with it, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    pub key: String,
    pub why: String,
    /// `None` of a dry run.
    pub done: Option<String>,
}

/// The means of a repair.
pub struct RepairOptions<'a> {
    /// Nothing is changed.
    pub dry_run: bool,
    pub check: RowCheck,
    /// This host's copy of what its node held. `None`: there is none, or its node runs.
    pub mirror: Option<&'a Store>,
    /// A row that is taken away although what it says is lost.
    pub drop: Option<&'a str>,
}

/// Finds the fault of that key.
fn damage(keys: &Keys, key: &str, value: &[u8], lease: i64, check: RowCheck) -> Option<Damage> {
    let (folder, path) = keys.split(key)?;
    let record = |read: Result<(), serde_json::Error>| match read {
        Err(why) => Some(Damage::Record(why.to_string())),
        Ok(()) if lease == 0 => Some(Damage::Endless),
        Ok(()) => None,
    };
    match folder {
        "leases" => record(serde_json::from_slice::<LeaseRecord>(value).map(|_| ())),
        "nodes" => record(serde_json::from_slice::<NodeRecord>(value).map(|_| ())),
        "peers" => (lease == 0).then_some(Damage::Endless),
        "seq" => Marker::parse(value).is_none().then_some(Damage::Marker),
        "redo" => redo(value).err().map(Damage::Redo),
        // `/t01000/window-post:table/key`
        "state" => match row_of(path) {
            None => Some(Damage::NoRow),
            Some((_, table, row)) => check(table, row, value).err().map(Damage::Row),
        },
        _ => None,
    }
}

/// Scope, table and key of `/t01000/window-post:table/key`.
fn row_of(path: &str) -> Option<(&str, &str, &str)> {
    let (scope, row) = path.split_once(':')?;
    row.split_once('/').map(|(table, key)| (scope, table, key))
}

fn redo(value: &[u8]) -> Result<Vec<Op>, String> {
    let config = bincode::config::standard().with_limit::<REDO_MOST>();
    bincode::serde::decode_from_slice(value, config).map(|(ops, _)| ops).map_err(|e| e.to_string())
}

const FOLDERS: [&str; 6] = ["leases", "nodes", "peers", "seq", "redo", "state"];

/// All that is damaged; put right unless it is a dry run. Any node may run meanwhile.
pub async fn repair(connection: &Connection, options: &RepairOptions<'_>) -> Result<Vec<Repaired>, DirectoryError> {
    let mut all = Vec::new();
    for folder in FOLDERS {
        // Rows may be many: a page of them at a time.
        let (mut from, to) = connection.keys.folder(folder);
        loop {
            let get = |mut client: Client| {
                let (from, options) = (from.clone(), GetOptions::new().with_range(to.clone()).with_limit(PAGE));
                async move { client.get(from, Some(options)).await }
            };
            let mut page = connection.call_patiently(get).await?;
            let (more, kvs) = (page.more(), page.take_kvs());
            let last = kvs.last().map(|last| format!("{}\0", String::from_utf8_lossy(last.key())));
            for kv in kvs {
                let key = String::from_utf8_lossy(kv.key()).into_owned();
                let damage = damage(&connection.keys, &key, kv.value(), kv.lease(), options.check);
                let Some(damage) = damage else { continue };
                let done =
                    if options.dry_run { None } else { Some(mend(connection, &key, &kv, &damage, options).await?) };
                all.push(Repaired { key, why: damage.to_string(), done });
            }
            match last.filter(|_| more) {
                Some(last) => from = last,
                None => break,
            }
        }
    }
    Ok(all)
}

async fn mend(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    damage: &Damage,
    options: &RepairOptions<'_>,
) -> Result<String, DirectoryError> {
    match damage {
        Damage::Row(_) => mend_row(connection, key, found, options).await,
        Damage::Record(_) | Damage::Endless | Damage::NoRow => {
            let gone = swap(connection, key, found, None, None).await?;
            Ok(if gone { "taken away" } else { "it has changed meanwhile: look again" }.to_string())
        }
        Damage::Marker => match earlier(connection, key, found, |value| Marker::parse(value).is_some()).await? {
            Earlier::Value(value) => put_back(connection, key, found, value).await,
            Earlier::Never | Earlier::Compacted => new_marker(connection, key, found).await,
        },
        Damage::Redo(_) => match earlier(connection, key, found, |value| redo(value).is_ok()).await? {
            Earlier::Value(value) => put_back(connection, key, found, value).await,
            Earlier::Never => {
                swap(connection, key, found, None, None).await?;
                Ok("taken away: no commit was there before".to_string())
            }
            Earlier::Compacted => {
                Ok("left: etcd's history of it is compacted, so its rows are lost; restore etcd from a backup"
                    .to_string())
            }
        },
    }
}

/// The row as its last writer left it; or whatever says the same.
async fn mend_row(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    options: &RepairOptions<'_>,
) -> Result<String, DirectoryError> {
    let left = |why: String| {
        Ok(format!("left: {why}; `bulkhead cluster repair --drop {key}` takes it away, with what only it says"))
    };
    let Some((scope, table, row)) = connection.keys.split(key).and_then(|(_, path)| row_of(path)) else {
        return left("it is no row".to_string());
    };
    if options.drop == Some(key) {
        let gone = swap(connection, key, found, None, None).await?;
        return Ok(if gone { "taken away, as ordered" } else { CHANGED }.to_string());
    }
    let good = |value: &[u8]| (options.check)(table, row, value).is_ok();
    let marker_key = connection.keys.marker(scope);
    // A node writes a row and its concern's marker in one transaction. A value that came with a marker was meant.
    let marked = marker_at(connection, &marker_key, found.mod_revision()).await?;
    if let Marked::With(marker) = marked {
        return left(format!("commit {marker} of the concern wrote it: a later version may be able to read it"));
    }
    match earlier(connection, key, found, good).await? {
        Earlier::Value(value) => return put_back(connection, key, found, value).await,
        Earlier::Never if marked == Marked::Without => {
            let gone = swap(connection, key, found, None, None).await?;
            return Ok(if gone { "taken away: no node ever wrote it" } else { CHANGED }.to_string());
        }
        Earlier::Never | Earlier::Compacted => {}
    }
    let Some(mirror) = options.mirror else {
        return left(
            "etcd's history of it is compacted, and this host has no copy that can be read while its node runs: stop the \
             node that held the concern last and run this on its host"
                .to_string(),
        );
    };
    let copy = mirror
        .mirrored(scope, table, row)
        .map_err(|e| DirectoryError::Refused { endpoint: "this host's store".to_string(), why: e.to_string() })?;
    let now = connection.call(|mut client: Client| {
        let key = marker_key.clone();
        async move { client.get(key, None).await }
    });
    let now = now.await?.kvs().first().and_then(|kv| Marker::parse(kv.value()));
    match copy {
        Some((of, value)) if of == now && good(&value) => {
            let put = swap(connection, key, found, Some(value), None).await?;
            Ok(if put { "put back from this host's copy" } else { "it has changed meanwhile: look again" }.to_string())
        }
        Some((of, value)) if good(&value) => {
            let of = of.map_or("none".to_string(), |marker| marker.seq.to_string());
            let now = now.map_or("none".to_string(), |marker| marker.seq.to_string());
            left(format!(
                "etcd's history of it is compacted, and this host's copy is of commit {of}, not of the last, {now}"
            ))
        }
        _ => left("etcd's history of it is compacted, and this host has no copy of it".to_string()),
    }
}

/// The marker that was written in a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marked {
    With(u64),
    Without,
    /// That part of etcd's history is compacted.
    Unknown,
}

async fn marker_at(connection: &Connection, key: &str, revision: i64) -> Result<Marked, DirectoryError> {
    let get = |mut client: Client| {
        let options = GetOptions::new().with_revision(revision);
        async move { client.get(key, Some(options)).await }
    };
    match connection.call(get).await {
        Ok(answer) => {
            let its = answer.kvs().first().filter(|kv| kv.mod_revision() == revision);
            Ok(its.and_then(|kv| Marker::parse(kv.value())).map_or(Marked::Without, |marker| Marked::With(marker.seq)))
        }
        Err(DirectoryError::Refused { why, .. }) if why.contains("compacted") => Ok(Marked::Unknown),
        Err(error) => Err(error),
    }
}

async fn put_back(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    value: Vec<u8>,
) -> Result<String, DirectoryError> {
    let put = swap(connection, key, found, Some(value), None).await?;
    Ok(if put { "its last readable value is put back" } else { CHANGED }.to_string())
}

/// The state as its rows are now, under a marker that is later than any that a node may know. Nobody may hold the concern:
/// whoever does goes by the marker of before.
async fn new_marker(connection: &Connection, key: &str, found: &KeyValue) -> Result<String, DirectoryError> {
    let Some((_, concern)) = connection.keys.split(key) else { return Ok("left".to_string()) };
    let lease = connection.keys.key(Key::Lease(concern));
    let marker = Marker { seq: unix_ms(), id: rand::random(), void: false };
    let until = Instant::now() + GAP_WITHIN;
    loop {
        let free = Compare::create_revision(lease.clone(), CompareOp::Equal, 0);
        if swap(connection, key, found, Some(marker.to_string().into_bytes()), Some(free)).await? {
            return Ok(format!(
                "a new marker ({}): the state is what its rows say; writes that wait on a node's disk are dropped",
                marker.seq
            ));
        }
        if Instant::now() >= until {
            return Ok(format!("left: {concern} is held all the time; stop its holder, then run this again"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Puts or deletes the key if it still is what was found. False: it is not, or `also` does not hold.
async fn swap(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    value: Option<Vec<u8>>,
    also: Option<Compare>,
) -> Result<bool, DirectoryError> {
    let swap = |mut client: Client| {
        let same = Compare::mod_revision(key, CompareOp::Equal, found.mod_revision());
        let then = match &value {
            Some(value) => TxnOp::put(key, value.clone(), None),
            None => TxnOp::delete(key, None),
        };
        let txn = Txn::new().when([same].into_iter().chain(also.clone()).collect::<Vec<_>>()).and_then([then]);
        async move { client.txn(txn).await }
    };
    Ok(connection.call(swap).await?.succeeded())
}

enum Earlier {
    /// The last value that can be read.
    Value(Vec<u8>),
    /// The key was made as it is: nothing was there before.
    Never,
    /// It had one that etcd does not have any more.
    Compacted,
}

/// Looks back through the key's values.
async fn earlier(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    good: impl Fn(&[u8]) -> bool,
) -> Result<Earlier, DirectoryError> {
    let (mut at, mut version) = (found.mod_revision(), found.version());
    for _ in 0..BACK_MOST {
        if version <= 1 {
            return Ok(Earlier::Never);
        }
        let get = |mut client: Client| {
            let options = GetOptions::new().with_revision(at - 1);
            async move { client.get(key, Some(options)).await }
        };
        match connection.call(get).await {
            Ok(answer) => match answer.kvs().first() {
                Some(kv) if good(kv.value()) => return Ok(Earlier::Value(kv.value().to_vec())),
                Some(kv) => (at, version) = (kv.mod_revision(), kv.version()),
                None => return Ok(Earlier::Never),
            },
            Err(DirectoryError::Refused { why, .. }) if why.contains("compacted") => return Ok(Earlier::Compacted),
            Err(error) => return Err(error),
        }
    }
    Ok(Earlier::Compacted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[test]
    fn what_no_node_can_read_or_would_never_end_is_damaged() {
        let (keys, node) = (Keys::new("main"), NodeRecord::new("a", PeerId::random(), 1));
        let (record, claim) =
            (serde_json::to_vec(&node).unwrap(), serde_json::to_vec(&LeaseRecord::of(&node)).unwrap());
        let op = Op { table: "t".into(), key: "k".into(), value: None };
        let commit = bincode::serde::encode_to_vec(vec![op], bincode::config::standard()).unwrap();
        let marker = Marker::after(None, 7).to_string().into_bytes();
        let garbage = b"garbage".to_vec();
        // rest of the key, value, its lease -> whether it is damaged
        let table: [(&str, &Vec<u8>, i64, bool); 19] = [
            ("leases/t01000/window-post", &claim, 7, false),
            ("leases/t01000/window-post", &claim, 0, true),
            ("leases/t01000/window-post", &garbage, 7, true),
            ("nodes/a", &record, 7, false),
            ("nodes/a", &record, 0, true),
            ("nodes/a", &garbage, 0, true),
            ("peers/12D3", &garbage, 7, false),
            ("peers/12D3", &garbage, 0, true),
            ("seq/t01000/window-post", &marker, 0, false),
            ("seq/t01000/window-post", &garbage, 0, true),
            ("redo/t01000/window-post", &commit, 0, false),
            ("redo/t01000/window-post", &garbage, 0, true),
            ("state/t01000/window-post:table/key", &garbage, 0, false),
            ("state/t01000/window-post:table/a/b", &garbage, 0, false),
            ("state/t01000/window-post:table/bad", &garbage, 0, true),
            ("state/t01000/window-post:table", &garbage, 0, true),
            ("state/t01000/window-post", &garbage, 0, true),
            ("drain/a", &garbage, 0, false),
            ("moves/t01000/window-post", &garbage, 0, false),
        ];
        for (rest, value, lease, damaged) in table {
            let check: RowCheck = |_, key, value| match (key, value) {
                ("bad", b"garbage") => Err("garbage".to_string()),
                _ => Ok(()),
            };
            let found = damage(&keys, &format!("/bulkhead/main/{rest}"), value, lease, check);
            assert_eq!(found.is_some(), damaged, "{rest} {lease}: {found:?}");
        }
        assert_eq!(damage(&keys, "/bulkhead/other/seq/x", b"", 0, |_, _, _| Ok(())), None, "another cluster's");
    }
}
