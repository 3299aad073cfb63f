//! A row of the cluster's store that cannot be read: what may be lost stops nobody, what decides money is refused.

use crate::support::scripted_replica::ScriptedReplica;
use bulkhead::store::{Policy, Record, Store, StoreError, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const SCOPE: &str = "/t01000/message-sender";

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Row(String);

impl Record for Row {
    const TABLE: &'static str = "messages";
}

fn readable(_: &str, key: &str, value: &[u8]) -> Result<(), String> {
    if value.ends_with(b"garbage") { Err(format!("{key} is garbage")) } else { Ok(()) }
}

#[test]
fn a_row_that_may_be_lost_is_set_aside_and_one_that_decides_money_is_refused() {
    const UNREADABLE: &[u8] = b"\x01\0garbage";
    for (table, value, taken) in [
        ("messages_done", UNREADABLE, true),
        ("messages_done", b"garbage", true),
        // A later version's is no damage.
        ("messages_done", b"\x02\0garbage", false),
        ("winning_post_totals", UNREADABLE, true),
        ("window_post", UNREADABLE, true),
        ("sector_numbers", UNREADABLE, false),
        ("sectors", UNREADABLE, false),
        ("winning_post_blocks", UNREADABLE, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Arc::new(ScriptedReplica::default());
        replica.give(SCOPE, 7);
        let store = Store::open(&dir.path().join("bulkhead.redb")).unwrap();
        store.check_rows(readable);
        let store = store.replicated(replica.clone(), Policy::Refuse);
        store.acquire(SCOPE, 7).unwrap();
        let token = Token { path: SCOPE.into(), epoch: 7 << 32 };
        store.put(&token, "t01000/good", &Row("kept".into())).unwrap();
        let key = (SCOPE.to_string(), table.to_string(), "t01000/bad".to_string());
        replica.state().rows.insert(key, value.to_vec());
        match store.acquire(SCOPE, 7) {
            Ok(acquired) => assert!(taken && acquired.rows == 1, "{table}: {acquired:?}"),
            Err(StoreError::Unreadable { key, .. } | StoreError::Schema { key, .. }) => {
                assert!(!taken && key == "t01000/bad", "{table}")
            }
            Err(e) => panic!("{table}: {e}"),
        }
        assert_eq!(store.get::<Row>("t01000/good").unwrap(), Some(Row("kept".into())), "{table}");
    }
}

/// A WindowPoSt does not wait until somebody has repaired a row of another message.
#[test]
fn a_senders_rows_that_cannot_be_read_are_taken_over_beside_the_others() {
    const UNREADABLE: &[u8] = b"\x01\0garbage";
    for (table, value) in
        [("messages", UNREADABLE), ("messages", b"garbage"), ("nonces", UNREADABLE), ("nonces", b"garbage")]
    {
        let dir = tempfile::tempdir().unwrap();
        let replica = Arc::new(ScriptedReplica::default());
        replica.give(SCOPE, 7);
        let path = dir.path().join("bulkhead.redb");
        let store = Store::open(&path).unwrap();
        store.check_rows(readable);
        let store = store.replicated(replica.clone(), Policy::Refuse);
        store.acquire(SCOPE, 7).unwrap();
        let token = Token { path: SCOPE.into(), epoch: 7 << 32 };
        store.put(&token, "t01000/good", &Row("kept".into())).unwrap();
        let key = (SCOPE.to_string(), table.to_string(), "t01000/bad".to_string());
        replica.state().rows.insert(key.clone(), value.to_vec());
        assert_eq!(store.acquire(SCOPE, 7).unwrap().rows, 2, "{table}");
        assert_eq!(store.get::<Row>("t01000/good").unwrap(), Some(Row("kept".into())), "{table}");
        store.put(&token, "t01000/next", &Row("goes on".into())).unwrap();
        assert_eq!(replica.state().rows.get(&key).unwrap(), value, "left as it is, for the repair");
        let copy = dir.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        Store::open(&copy).expect("it is not taken for a later version's file");
    }
}
