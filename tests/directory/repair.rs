//! What in etcd no node can read: it is told by its key, and `cluster repair` puts it right.

use crate::support::etcd::{Etcds, PATIENCE, acquire, see, within};
use bulkhead::rpc::directory::etcd::Connection;
use bulkhead::rpc::directory::etcd::repair::{RepairOptions, Repaired, repair};
use bulkhead::rpc::directory::{Directory, DirectoryError};
use bulkhead::store::etcd::{EtcdOptions, EtcdReplica};
use bulkhead::store::{Policy, Record, Store, StoreError, Token, readable};
use etcd_client::CompactionOptions;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const WINDOW: &str = "/t01000/window-post";
const LEASE: &str = "/bulkhead/main/leases/t01000/window-post";
const MARKER: &str = "/bulkhead/main/seq/t01000/window-post";

async fn put_right(etcds: &Etcds, dry_run: bool) -> Vec<Repaired> {
    let connection = Connection::new(etcds.config()).unwrap();
    let options = RepairOptions { dry_run, check, mirror: None, drop: None };
    repair(&connection, &options).await.unwrap()
}

/// A record whose row is not read by chance.
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Note(String);
impl Record for Note {
    const TABLE: &'static str = "notes";
}

fn check(table: &str, key: &str, row: &[u8]) -> Result<(), String> {
    if table == Note::TABLE { readable::<Note>(key, row) } else { Ok(()) }
}

async fn value(etcds: &Etcds, key: &str) -> Option<Vec<u8>> {
    etcds.client().await.get(key, None).await.unwrap().kvs().first().map(|kv| kv.value().to_vec())
}

#[tokio::test]
async fn a_lease_that_nobody_can_read_is_told_by_its_key_and_taken_away() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let held = a.acquire(WINDOW).await.unwrap();
    let other = b.acquire("/t01000/winning-post").await.unwrap();
    assert_eq!(put_right(&etcds, false).await, [], "nothing of ours is damaged");
    let mut client = etcds.client().await;
    client.put(LEASE, "garbage", None).await.unwrap();
    within("the holder is told", held.lost()).await;
    let seen = see(&b, "the key", |view| view.unreadable.contains_key(LEASE)).await;
    assert!(!seen.holders.contains_key(WINDOW) && seen.vacated.contains_key(WINDOW));
    let refused = b.acquire(WINDOW).await.unwrap_err();
    assert!(matches!(&refused, DirectoryError::Unreadable { key, .. } if key == LEASE), "{refused}");
    assert!(refused.to_string().contains("bulkhead cluster repair"), "{refused}");

    let told = put_right(&etcds, true).await;
    assert_eq!((told.len(), told[0].key.as_str(), &told[0].done), (1, LEASE, &None));
    assert!(value(&etcds, LEASE).await.is_some(), "a dry run changes nothing");
    assert_eq!(put_right(&etcds, false).await[0].done.as_deref(), Some("taken away"));
    see(&b, "it is readable", |view| view.unreadable.is_empty()).await;
    within("b's turn", acquire(&b, WINDOW)).await;
    assert_eq!(other.state(), bulkhead::rpc::directory::LeaseState::Proven, "what was good is left");
}

#[tokio::test]
async fn a_marker_comes_back_from_etcds_history_or_is_made_anew() {
    let etcds = Etcds::single().await;
    let mut client = etcds.client().await;
    let good = format!("7 {:032x}", 5);
    client.put(MARKER, good.as_str(), None).await.unwrap();
    for garbage in ["garbage", "more garbage"] {
        client.put(MARKER, garbage, None).await.unwrap();
    }
    let found = put_right(&etcds, false).await;
    assert_eq!((found.len(), found[0].key.as_str()), (1, MARKER));
    assert_eq!(value(&etcds, MARKER).await, Some(good.into_bytes()), "{found:?}");
    assert_eq!(put_right(&etcds, false).await, []);

    // Nothing readable is left of it.
    let last = client.put(MARKER, "garbage", None).await.unwrap().header().unwrap().revision();
    client.compact(last, None).await.unwrap();
    let found = put_right(&etcds, false).await;
    let done = found[0].done.clone().unwrap_or_default();
    assert!(done.contains("a new marker") && done.contains("dropped"), "{found:?}");
    let marker = String::from_utf8(value(&etcds, MARKER).await.unwrap()).unwrap();
    let seq: u64 = marker.split(' ').next().unwrap().parse().unwrap();
    assert!(seq > 1 << 40, "later than any that a node may know: {marker}");
    assert_eq!(put_right(&etcds, false).await, []);

    // What lies among the rows and is none keeps the state from being loaded, too.
    client.put("/bulkhead/main/state/t01000/window-post:junk", "", None).await.unwrap();
    client.put("/bulkhead/main/redo/t01000/window-post", "garbage", None).await.unwrap();
    assert_eq!(put_right(&etcds, false).await.len(), 2);
    assert_eq!(put_right(&etcds, false).await, []);
}

const ROW: &str = "/bulkhead/main/state/t01000/window-post:notes/a";

/// A node's store, which wrote that row twice under its lease.
async fn written(etcds: &Etcds, dir: &std::path::Path, lease: u64) -> Store {
    let config = etcds.config();
    let options = EtcdOptions::new(config.checked().unwrap(), config.cluster.clone());
    let options = EtcdOptions { attempt: PATIENCE, deadline: PATIENCE, connect: config.options(), ..options };
    let file = dir.join("bulkhead.redb");
    let store = blocking(move || {
        let store = Store::open(&file).unwrap();
        store.check_rows(check);
        let store = store.replicated(Arc::new(EtcdReplica::new(options).unwrap()), Policy::Refuse);
        store.acquire(WINDOW, lease).unwrap();
        let token = Token { path: WINDOW.into(), epoch: lease << 32 };
        for text in ["first", "second"] {
            store.put(&token, "a", &Note(text.into())).unwrap();
        }
        store
    });
    store.await
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

/// Of what is not known to be lost nothing is lost: a row comes back from etcd's history, then from a copy of the last commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_comes_back_as_its_last_writer_left_it_or_is_left_to_an_operator() {
    let (etcds, dir) = (Etcds::single().await, tempfile::tempdir().unwrap());
    let holder = etcds.node("a").await;
    let held = holder.acquire(WINDOW).await.unwrap();
    let lease = held.epoch();
    let store = written(&etcds, dir.path(), lease).await;
    let mut client = etcds.client().await;
    let good = value(&etcds, ROW).await.unwrap();
    client.put(ROW, "garbage", None).await.unwrap();
    // Whoever takes the concern is told by the row, and keeps the copy.
    let (again, at) = (store.clone(), lease);
    let refused = blocking(move || again.acquire(WINDOW, at)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unreadable { table, key, .. } if (table.as_str(), key.as_str()) == ("notes", "a"))
    );
    assert!(refused.to_string().contains("bulkhead cluster repair"), "{refused}");
    assert_eq!(store.get::<Note>("a").unwrap(), Some(Note("second".into())));

    assert_eq!(put_right(&etcds, true).await[0].done, None);
    let found = put_right(&etcds, false).await;
    assert!(found.len() == 1 && found[0].key == ROW, "{found:?}");
    assert_eq!(value(&etcds, ROW).await.as_ref(), Some(&good), "{found:?}");
    let (again, at) = (store.clone(), lease);
    blocking(move || again.acquire(WINDOW, at)).await.expect("it loads again");

    // A row that nobody wrote, and one that a commit wrote which this version cannot read.
    client.put(format!("{ROW}/stray"), "garbage", None).await.unwrap();
    assert!(put_right(&etcds, false).await[0].done.as_deref().unwrap().starts_with("taken away"));
    let marker = value(&etcds, MARKER).await.unwrap();
    let both = [(ROW, b"garbage".to_vec()), (MARKER, marker)];
    let both = both.map(|(key, value)| etcd_client::TxnOp::put(key, value, None));
    client.txn(etcd_client::Txn::new().and_then(both)).await.unwrap();
    let found = put_right(&etcds, false).await;
    assert!(found[0].done.as_deref().unwrap().contains("a later version"), "{found:?}");

    // Without a history there is the copy, if it is of the last commit.
    let connection = Connection::new(etcds.config()).unwrap();
    let from_copy = async |drop: Option<&'static str>| {
        let last = etcds.client().await.put("ready", "", None).await.unwrap().header().unwrap().revision();
        let physical = Some(CompactionOptions::new().with_physical());
        etcds.client().await.compact(last, physical).await.unwrap();
        let options = RepairOptions { dry_run: false, check, mirror: Some(&store), drop };
        repair(&connection, &options).await.unwrap().remove(0).done.unwrap()
    };
    assert_eq!(from_copy(None).await, "put back from this host's copy");
    assert_eq!(value(&etcds, ROW).await.as_ref(), Some(&good));
    client.put(ROW, "garbage", None).await.unwrap();
    client.put(MARKER, format!("9 {:032x}", 7), None).await.unwrap();
    let left = from_copy(None).await;
    assert!(left.contains("of commit 2, not of the last, 9") && left.contains("--drop"), "{left}");
    assert_eq!(value(&etcds, ROW).await, Some(b"garbage".to_vec()));
    assert_eq!(from_copy(Some(ROW)).await, "taken away, as ordered");
    assert_eq!(value(&etcds, ROW).await, None);
    assert_eq!(held.state(), bulkhead::rpc::directory::LeaseState::Proven, "what was good is left");
}

/// The binary itself: a store of this host that is damaged, too, costs the copy and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_of_this_host_keeps_nothing_from_being_repaired() {
    let (etcds, repo) = (Etcds::single().await, tempfile::tempdir().unwrap());
    etcds.client().await.put(LEASE, "garbage", None).await.unwrap();
    let keys = etcds.keys().into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect::<String>();
    let config = format!("[node]\nminer = \"t01000\"\n[cluster]\nname = \"main\"\nnode = \"a\"\n{keys}");
    std::fs::write(repo.path().join("config.toml"), config).unwrap();
    std::fs::write(repo.path().join("bulkhead.redb"), vec![7; 8192]).unwrap();
    let path = repo.path().to_path_buf();
    let said = blocking(move || {
        let command = ["cluster", "repair", "--repo", path.to_str().unwrap()];
        crate::support::operator::say(&command, &[]).ok()
    });
    let said = said.await;
    assert!(said.out.contains(LEASE) && said.out.contains("taken away"), "{said}");
    assert!(said.err.contains("without this host's copy") && said.err.contains("bulkhead.redb"), "{said}");
    assert_eq!(value(&etcds, LEASE).await, None);
    let left = std::fs::read(repo.path().join("bulkhead.redb")).unwrap();
    assert_eq!(left, vec![7; 8192], "the damaged file stays as it was found");
}
