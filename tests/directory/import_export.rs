//! A single node's state into a cluster and back: every row of every table, or a clear refusal.

use crate::support::scripted_replica::{Fault, ScriptedReplica};
use bulkhead::store::replica::Replica;
use bulkhead::store::transfer::{ExportOptions, ImportOptions, TransferError, TransferReport, export, import};
use bulkhead::store::{Policy, Record, Store, Token};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Stands for the actors' records: a transfer does not look into them.
macro_rules! tables {
    ($($name:ident $table:literal)*) => {$(
        #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
        struct $name(u64);
        impl Record for $name {
            const TABLE: &'static str = $table;
        }
    )*};
}
tables! {
    Sector "sectors" Pledge "pledges" Message "messages" Done "messages_done" Nonce "nonces"
    Ledger "sector_numbers" Given "sector_number_requests" Run "window_post" Block "winning_post_blocks"
    Totals "winning_post_totals" Ask "market_ask" Identity "identity" Range "sector_number_leases" Unknown "of_tomorrow"
}

struct Repo {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

fn repo() -> Repo {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bulkhead.redb");
    Repo { store: Store::open(&path).unwrap(), path, _dir: dir }
}

fn token() -> Token {
    Token { path: "/t01000/any".into(), epoch: 3 << 32 }
}

/// A repo of two miners with a row or more in every table.
fn full(sectors: u64) -> Repo {
    let r = repo();
    let wrote: Result<(), bulkhead::store::StoreError> = r.store.transact(&token(), |tx| {
        for miner in ["t01000", "t01001"] {
            (0..sectors).try_for_each(|n| tx.put(&format!("{miner}/{n:020}"), &Sector(n)))?;
            tx.put(&format!("{miner}/wish"), &Pledge(1))?;
            tx.put(&format!("{miner}/pre-commit/7"), &Message(2))?;
            tx.put(&format!("{miner}/pre-commit/6"), &Done(3))?;
            tx.put(miner, &Ledger(5))?;
            tx.put(&format!("{miner}/sector:wish"), &Given(6))?;
            tx.put(&format!("{miner}/00000000000000000100"), &Run(7))?;
            tx.put(&format!("{miner}/00000000000000000101"), &Block(8))?;
            tx.put(miner, &Totals(9))?;
            tx.put(&miner[2..], &Ask(10))?;
        }
        tx.put("t3signer", &Nonce(4))?;
        tx.put("node", &Identity(11))
    });
    wrote.unwrap();
    r
}

/// All rows that a transfer is about, as text.
fn rows(store: &Store) -> Vec<String> {
    fn of<R: Record + std::fmt::Debug>(store: &Store, into: &mut Vec<String>) {
        into.extend(store.list::<R>().unwrap().into_iter().map(|(k, v)| format!("{} {k} {v:?}", R::TABLE)));
    }
    let mut all = vec![];
    of::<Sector>(store, &mut all);
    of::<Pledge>(store, &mut all);
    of::<Message>(store, &mut all);
    of::<Done>(store, &mut all);
    of::<Nonce>(store, &mut all);
    of::<Ledger>(store, &mut all);
    of::<Given>(store, &mut all);
    of::<Run>(store, &mut all);
    of::<Block>(store, &mut all);
    of::<Totals>(store, &mut all);
    of::<Ask>(store, &mut all);
    all
}

fn into(shard: &str) -> ImportOptions {
    ImportOptions { shard: shard.into(), ..ImportOptions::default() }
}

fn scope_names(report: &TransferReport) -> Vec<String> {
    let mut names: Vec<_> = report.tables.iter().map(|t| t.scope.clone()).collect();
    names.dedup();
    names
}

#[test]
fn every_row_goes_in_and_comes_back() {
    let (from, replica) = (full(250), ScriptedReplica::default());
    let plan = import(&from.store, &replica, &ImportOptions { dry_run: true, ..into("host-a") }).unwrap();
    assert!(plan.dry_run && replica.state().rows.is_empty(), "a dry run writes nothing");
    let done = import(&from.store, &replica, &into("host-a")).unwrap();
    assert_eq!((done.written, done.removed, &done.tables), (plan.written, 0, &plan.tables));
    assert_eq!(done.left, [("identity".to_owned(), 1)]);
    // Both miners' nonces are the same row.
    assert_eq!(done.written, rows(&from.store).len() as u64 + 1);
    assert_eq!(
        scope_names(&done)[..6],
        [
            "/t01000/deal-handler",
            "/t01000/message-sender",
            "/t01000/seal-scheduler/host-a",
            "/t01000/sector-allocator",
            "/t01000/window-post",
            "/t01000/winning-post"
        ]
    );
    let again = import(&from.store, &replica, &into("host-a")).unwrap();
    assert_eq!((again.written, again.unchanged), (0, done.written), "idempotent");

    let to = repo();
    let planned = export(&replica, &to.store, &ExportOptions { dry_run: true, ..ExportOptions::default() }).unwrap();
    assert_eq!(rows(&to.store), Vec::<String>::new());
    let came = export(&replica, &to.store, &ExportOptions::default()).unwrap();
    assert_eq!(came.written, planned.written);
    assert_eq!(rows(&to.store), rows(&from.store));
    let again = export(&replica, &to.store, &ExportOptions::default()).unwrap();
    assert_eq!((again.written, again.unchanged), (0, came.written));
    // Back into the repo that it came from: the same rows, and its identity stays.
    let back = export(&replica, &from.store, &ExportOptions::default()).unwrap();
    assert_eq!((back.written, back.removed), (0, 0));
    assert_eq!(from.store.get::<Identity>("node").unwrap(), Some(Identity(11)));
}

#[test]
fn an_import_that_was_cut_off_goes_on() {
    let (from, replica) = (full(250), ScriptedReplica::default());
    for calls_before_the_cut in [12, 16, 20, 24] {
        replica.next(vec![Fault::None; calls_before_the_cut]);
        replica.next([Fault::AnswerLost]);
        let cut = import(&from.store, &replica, &into("a"));
        assert!(matches!(cut, Err(TransferError::Replica(_))), "{cut:?}");
        replica.state().script.clear();
    }
    import(&from.store, &replica, &into("a")).unwrap();
    let to = repo();
    export(&replica, &to.store, &ExportOptions::default()).unwrap();
    assert_eq!(rows(&to.store), rows(&from.store));
}

#[test]
fn a_target_that_is_not_empty_is_refused_unless_told() {
    let (first, second, replica) = (full(3), full(2), ScriptedReplica::default());
    import(&first.store, &replica, &into("a")).unwrap();
    first.store.put(&token(), "t01000/00000000000000000099", &Sector(99)).unwrap();
    // Also to the repo that it came from: from then on the cluster's rows are the newer ones.
    let refused = import(&first.store, &replica, &into("a")).unwrap_err();
    assert!(matches!(&refused, TransferError::ScopeNotEmpty { by, .. } if by.contains("done")), "{refused}");
    import(&first.store, &replica, &ImportOptions { overwrite: true, ..into("a") }).unwrap();
    let refused = import(&second.store, &replica, &into("a")).unwrap_err();
    assert!(matches!(&refused, TransferError::ScopeNotEmpty { by, .. } if by.contains("bulkhead.redb")), "{refused}");
    let told = import(&second.store, &replica, &ImportOptions { overwrite: true, ..into("a") }).unwrap();
    assert_eq!((told.written, told.removed), (0, 3));

    let refused = export(&replica, &first.store, &ExportOptions::default()).unwrap_err();
    assert!(matches!(refused, TransferError::RepoNotEmpty { .. }), "{refused}");
    let told = export(&replica, &first.store, &ExportOptions { overwrite: true, ..ExportOptions::default() }).unwrap();
    assert_eq!((told.written, told.removed), (0, 3));
    assert_eq!(rows(&first.store), rows(&second.store));
}

/// Document 0 loses the lists of all schedulers but one here.
#[test]
fn the_sectors_of_all_seal_schedulers_come_back() {
    let replica = Arc::new(ScriptedReplica::default());
    let node = |name: &str, sectors: [u64; 2], nonce: u64| {
        let r = repo();
        let store = r.store.replicated(replica.clone(), Policy::Refuse);
        let put = |scope: String| {
            replica.give(&scope, 5);
            store.acquire(&scope, 5).unwrap();
            Token { path: scope.as_str().into(), epoch: 5 << 32 }
        };
        let shard = put(format!("/t01000/seal-scheduler/{name}"));
        for n in sectors {
            store.put(&shard, &format!("t01000/{n:020}"), &Sector(n)).unwrap();
        }
        let sender = put(format!("/t0100{nonce}/message-sender"));
        store.put(&sender, "t3signer", &Nonce(nonce)).unwrap();
        let allocator = put("/t01000/sector-allocator".into());
        store.put(&allocator, "t01000", &Range(5)).unwrap();
        replica.state().leases.clear();
        (r, store)
    };
    let (a, _a) = node("a", [1, 3], 300);
    let (_b, b) = node("b", [2, 4], 70);
    let to = repo();
    let report = export(&*replica, &to.store, &ExportOptions::default()).unwrap();
    assert_eq!(
        rows(&to.store),
        [
            "sectors t01000/00000000000000000001 Sector(1)",
            "sectors t01000/00000000000000000002 Sector(2)",
            "sectors t01000/00000000000000000003 Sector(3)",
            "sectors t01000/00000000000000000004 Sector(4)",
            "nonces t3signer Nonce(300)",
        ]
    );
    assert_eq!(report.left, [("sector_number_leases".to_owned(), 1)]);
    // A sector that two schedulers tell differently is not guessed.
    let shard = "/t01000/seal-scheduler/b";
    replica.give(shard, 6);
    b.acquire(shard, 6).unwrap();
    b.put(&Token { path: shard.into(), epoch: 6 << 32 }, "t01000/00000000000000000001", &Sector(77)).unwrap();
    let held = export(&*replica, &repo().store, &ExportOptions::default()).unwrap_err();
    assert!(matches!(&held, TransferError::Held { scope, lease: 6 } if scope == shard), "{held}");
    replica.state().leases.clear();
    let differ = export(&*replica, &repo().store, &ExportOptions::default()).unwrap_err();
    assert!(matches!(&differ, TransferError::Conflict { other, .. } if other == shard), "{differ}");
    for (prefer, expected) in [("a", 1), ("b", 77), ("/t01000/seal-scheduler/b", 77)] {
        let (to, prefer) = (repo(), Some(prefer.to_owned()));
        export(&*replica, &to.store, &ExportOptions { prefer, ..ExportOptions::default() }).unwrap();
        assert_eq!(to.store.get::<Sector>("t01000/00000000000000000001").unwrap(), Some(Sector(expected)));
    }
    drop(a);
}

#[test]
fn nothing_is_transferred_under_a_holder_or_left_out_in_silence() {
    let (from, replica) = (full(2), Arc::new(ScriptedReplica::default()));
    replica.give("/t01001/window-post", 9);
    let held = import(&from.store, &*replica, &into("a")).unwrap_err();
    assert!(matches!(held, TransferError::Held { lease: 9, .. }), "{held}");
    assert!(replica.state().rows.is_empty(), "all is looked at before anything is written");
    replica.state().leases.clear();
    from.store.put(&token(), "x", &Unknown(1)).unwrap();
    let unknown = import(&from.store, &*replica, &into("a")).unwrap_err();
    assert!(matches!(&unknown, TransferError::UnknownTable { table } if table == "of_tomorrow"), "{unknown}");
    from.store.delete::<Unknown>(&token(), "x").unwrap();
    // A node whose journal was not flushed: neither side is the whole truth.
    let scope = "/t01000/window-post";
    replica.give(scope, 10);
    let node = from.store.replicated(replica.clone(), Policy::Journal);
    replica.state().away = true;
    let journaled = Token { path: scope.into(), epoch: 10 << 32 };
    node.put(&journaled, "t01000/1", &Run(1)).unwrap();
    for refused in [
        import(&from.store, &*replica, &into("a")).unwrap_err(),
        export(&*replica, &from.store, &ExportOptions::default()).unwrap_err(),
    ] {
        assert!(matches!(&refused, TransferError::Unconfirmed { waiting: 1, .. }), "{refused}");
    }
}

/// A repo was a node of a cluster for a while: its epochs of then must not fence the single node's.
#[test]
fn after_the_way_back_a_single_node_writes_again() {
    let (from, replica) = (full(2), Arc::new(ScriptedReplica::default()));
    for _ in 0..3 {
        from.store.next_boot().unwrap();
    }
    import(&from.store, &*replica, &into("a")).unwrap();
    let scope = "/t01000/any";
    replica.give(scope, 1 << 20);
    let node = from.store.replicated(replica.clone(), Policy::Refuse);
    node.acquire(scope, 1 << 20).unwrap();
    let token = Token { path: scope.into(), epoch: 1 << 52 };
    node.put(&token, "t01000/00000000000000000100", &Run(70)).unwrap();
    replica.state().leases.clear();
    let Repo { path, store, _dir } = from;
    export(
        &*replica,
        &store,
        &ExportOptions { overwrite: true, prefer: Some(scope.into()), ..ExportOptions::default() },
    )
    .unwrap();
    drop((store, node));
    let store = Store::open(&path).unwrap();
    let boot = store.next_boot().unwrap();
    assert!(boot >= 4, "{boot}");
    store.put(&Token { path: scope.into(), epoch: boot << 32 | 1 }, "t01000/1", &Run(1)).unwrap();
    assert_eq!(store.get::<Run>("t01000/00000000000000000100").unwrap(), Some(Run(70)));
    assert!(!replica.scopes().unwrap().is_empty());
}

/// A single node's repo is not taken for a mirror: its rows would come back from the dead, or be lost.
#[test]
fn a_repo_joins_the_cluster_only_after_its_import() {
    let (node, replica) = (full(2), Arc::new(ScriptedReplica::default()));
    let scope = "/t01000/window-post";
    replica.give(scope, 7);
    let joined = node.store.replicated(replica.clone(), Policy::Refuse);
    let refused = joined.acquire(scope, 7).unwrap_err();
    assert!(matches!(refused, bulkhead::store::StoreError::NotImported { .. }), "{refused}");
    let all = rows(&node.store);
    assert!(!all.is_empty());
    replica.state().leases.clear();
    import(&node.store, &*replica, &into("a")).unwrap();
    assert_eq!(rows(&node.store), all);
    replica.give(scope, 8);
    assert_eq!(joined.acquire(scope, 8).unwrap().rows, 1);
    assert_eq!(rows(&node.store), ["window_post t01000/00000000000000000100 Run(7)"], "only what it holds");
    assert_eq!(node.store.get::<Identity>("node").unwrap(), Some(Identity(11)));
}
