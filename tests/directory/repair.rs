//! What in etcd no node can read: it is told by its key, and `cluster repair` puts it right.

use crate::support::etcd::{Etcds, acquire, see, within};
use bulkhead::rpc::directory::etcd::Connection;
use bulkhead::rpc::directory::etcd::repair::{Repaired, repair};
use bulkhead::rpc::directory::{Directory, DirectoryError};

const WINDOW: &str = "/t01000/window-post";
const LEASE: &str = "/bulkhead/main/leases/t01000/window-post";
const MARKER: &str = "/bulkhead/main/seq/t01000/window-post";

async fn put_right(etcds: &Etcds, dry_run: bool) -> Vec<Repaired> {
    let connection = Connection::new(etcds.config()).unwrap();
    repair(&connection, dry_run).await.unwrap()
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
