//! `cluster repair`: finds what of this cluster etcd has that no node can read, or that would never end, and puts it right.
//!
//! A concern whose lease or marker is damaged is taken by nobody. A value that was readable before comes back from etcd's
//! own history, as far as that is not compacted; else it is taken away, where nothing is lost with it.

use super::Connection;
use super::keys::{Key, Keys};
use super::table::LeaseRecord;
use crate::rpc::directory::{DirectoryError, NodeRecord};
use crate::store::replica::{Marker, Op};
use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Keys in one answer.
const PAGE: i64 = 500;
/// How many earlier values of a key are looked at.
const BACK_MOST: usize = 100;
/// Nodes take a concern that they cannot load again and again, for a moment each: a gap between two of them is waited for.
const GAP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
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
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Record(why) => write!(f, "it cannot be read: {why}"),
            Damage::Endless => f.write_str("it belongs to no lease, so it would stay for ever"),
            Damage::Marker => f.write_str("it is no marker, so nobody can load the concern's state"),
            Damage::Redo(why) => write!(f, "it is no commit: {why}"),
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

/// Finds the fault of that key. `value` is empty where only the key was read.
fn damage(keys: &Keys, key: &str, value: &[u8], lease: i64) -> Option<Damage> {
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
        "state" => path.split_once(':').is_none_or(|(_, row)| !row.contains('/')).then_some(Damage::NoRow),
        _ => None,
    }
}

fn redo(value: &[u8]) -> Result<Vec<Op>, String> {
    let config = bincode::config::standard().with_limit::<REDO_MOST>();
    bincode::serde::decode_from_slice(value, config).map(|(ops, _)| ops).map_err(|e| e.to_string())
}

/// The folders whose values are looked at; of rows, only the keys are.
const FOLDERS: [(&str, bool); 6] =
    [("leases", true), ("nodes", true), ("peers", true), ("seq", true), ("redo", true), ("state", false)];

/// All that is damaged; put right unless it is a dry run. Any node may run meanwhile.
pub async fn repair(connection: &Connection, dry_run: bool) -> Result<Vec<Repaired>, DirectoryError> {
    let mut all = Vec::new();
    for (folder, values) in FOLDERS {
        for kv in list(connection, folder, values).await? {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            let Some(damage) = damage(&connection.keys, &key, kv.value(), kv.lease()) else { continue };
            let done = if dry_run { None } else { Some(mend(connection, &key, &kv, &damage).await?) };
            all.push(Repaired { key, why: damage.to_string(), done });
        }
    }
    Ok(all)
}

async fn list(connection: &Connection, folder: &str, values: bool) -> Result<Vec<KeyValue>, DirectoryError> {
    let (mut from, to) = connection.keys.folder(folder);
    let mut all = Vec::new();
    loop {
        let options = || {
            let options = GetOptions::new().with_range(to.clone()).with_limit(PAGE);
            if values { options } else { options.with_keys_only() }
        };
        let get = |mut client: Client| {
            let (from, options) = (from.clone(), options());
            async move { client.get(from, Some(options)).await }
        };
        let mut answer = connection.call_patiently(get).await?;
        let more = answer.more();
        all.extend(answer.take_kvs());
        match all.last().filter(|_| more) {
            Some(last) => from = format!("{}\0", String::from_utf8_lossy(last.key())),
            None => return Ok(all),
        }
    }
}

async fn mend(connection: &Connection, key: &str, found: &KeyValue, damage: &Damage) -> Result<String, DirectoryError> {
    match damage {
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

async fn put_back(
    connection: &Connection,
    key: &str,
    found: &KeyValue,
    value: Vec<u8>,
) -> Result<String, DirectoryError> {
    let put = swap(connection, key, found, Some(value), None).await?;
    Ok(if put { "its last readable value is put back" } else { "it has changed meanwhile: look again" }.to_string())
}

/// The state as its rows are now, under a marker that is later than any that a node may know. Nobody may hold the concern:
/// whoever does goes by the marker of before.
async fn new_marker(connection: &Connection, key: &str, found: &KeyValue) -> Result<String, DirectoryError> {
    let Some((_, concern)) = connection.keys.split(key) else { return Ok("left".to_string()) };
    let lease = connection.keys.key(Key::Lease(concern));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let marker = Marker { seq: u64::try_from(since).unwrap_or(u64::MAX / 2), id: rand::random(), void: false };
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
        let table: [(&str, &Vec<u8>, i64, bool); 18] = [
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
            ("state/t01000/window-post:table", &garbage, 0, true),
            ("state/t01000/window-post", &garbage, 0, true),
            ("drain/a", &garbage, 0, false),
            ("moves/t01000/window-post", &garbage, 0, false),
        ];
        for (rest, value, lease, damaged) in table {
            let found = damage(&keys, &format!("/bulkhead/main/{rest}"), value, lease);
            assert_eq!(found.is_some(), damaged, "{rest} {lease}: {found:?}");
        }
        assert_eq!(damage(&keys, "/bulkhead/other/seq/x", b"", 0), None, "another cluster's");
    }
}
