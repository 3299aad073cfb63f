//! The store on a real etcd: two holders, an etcd that is killed, frozen or lacks a member, large transactions, and a
//! process that dies between its two stores.

use crate::support::etcd::{Etcds, Options, PATIENCE, acquire, record};
use crate::support::test_of_this_file;
use bulkhead::rpc::directory::etcd::{self, EtcdConfig};
use bulkhead::rpc::directory::{Directory, LeaseState};
use bulkhead::store::etcd::{EtcdOptions, EtcdReplica};
use bulkhead::store::replica::Op;
use bulkhead::store::{Policy, Record, Store, StoreError, Token};
use etcd_client::{Client, GetOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SCOPE: &str = "/t01000/window-post";
const LEASE_KEY: &str = "/bulkhead/main/leases/t01000/window-post";

/// etcd, and a runtime for what the tests themselves do there: the store's own calls block.
struct Cluster {
    runtime: tokio::runtime::Runtime,
    etcds: Etcds,
}

impl Cluster {
    fn start(members: usize) -> Cluster {
        Cluster::with(members, Options::default())
    }
    fn with(members: usize, options: Options) -> Cluster {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let etcds = runtime.block_on(Etcds::start(members, options));
        Cluster { runtime, etcds }
    }
    fn ask<T>(&self, f: impl AsyncFnOnce(Client) -> Result<T, etcd_client::Error>) -> T {
        self.runtime.block_on(async { f(self.etcds.client().await).await }).unwrap()
    }
    /// Members that were frozen choose a leader.
    fn answers_again(&self) {
        let began = std::time::Instant::now();
        let asked = || self.runtime.block_on(async { self.etcds.client().await.get("ready", None).await });
        while let Err(why) = asked() {
            assert!(began.elapsed() < Duration::from_secs(60), "{why}");
        }
    }
    fn keys(&self, prefix: &str) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let found = self.ask(async |mut client| client.get(prefix, Some(options)).await);
        found.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }
    fn revision(&self) -> i64 {
        self.ask(async |mut client| client.get("ready", None).await).header().unwrap().revision()
    }
    /// Everything of the store's; and puts it there.
    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = ["/bulkhead/main/seq/", "/bulkhead/main/state/"]
            .map(|prefix| self.ask(async |mut client| client.get(prefix, Some(GetOptions::new().with_prefix())).await));
        all.iter().flat_map(|found| found.kvs()).map(|kv| (kv.key().to_vec(), kv.value().to_vec())).collect()
    }
    fn put(&self, rows: &[(Vec<u8>, Vec<u8>)]) {
        for (key, value) in rows {
            self.ask(async |mut client| client.put(key.clone(), value.clone(), None).await);
        }
    }
    /// Makes a new holder: its epoch is the create revision of the lease's key.
    fn take_lease(&self) -> u64 {
        self.ask(async |mut client| {
            client.delete(LEASE_KEY, None).await?;
            client.put(LEASE_KEY, "a node", None).await?;
            client.get(LEASE_KEY, None).await
        })
        .kvs()[0]
            .create_revision() as u64
    }
    /// A lease so long that a loaded machine keeps it.
    fn config(&self) -> EtcdConfig {
        EtcdConfig { ttl: Duration::from_secs(30), ..self.etcds.config() }
    }
    fn node(&self, name: &str) -> etcd::Etcd {
        self.runtime.block_on(async {
            let node = etcd::Etcd::connect(self.config()).await.unwrap();
            node.register(record(name)).await.unwrap();
            node
        })
    }
    /// Waits for a loaded machine as long as it takes.
    fn replica(&self) -> Arc<EtcdReplica> {
        self.replica_with(|options| EtcdOptions { attempt: PATIENCE, deadline: PATIENCE, ..options })
    }
    /// Gives up as soon as a node does.
    fn hasty_replica(&self) -> Arc<EtcdReplica> {
        self.replica_with(|options| options)
    }
    fn replica_with(&self, change: impl FnOnce(EtcdOptions) -> EtcdOptions) -> Arc<EtcdReplica> {
        let config = self.config();
        let options = EtcdOptions::new(config.checked().unwrap(), config.cluster.clone());
        let options = EtcdOptions { pause: Duration::ZERO, connect: config.options(), ..options };
        Arc::new(EtcdReplica::new(change(options)).unwrap())
    }
    fn restart(&mut self, member: usize) {
        self.runtime.block_on(self.etcds.restart(&[member]));
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Note(u64);
impl Record for Note {
    const TABLE: &'static str = "notes";
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Large(Vec<u8>);
impl Record for Large {
    const TABLE: &'static str = "large";
}

fn token(lease: u64) -> Token {
    Token { path: SCOPE.into(), epoch: lease << 32 | 1 }
}

struct Host {
    dir: tempfile::TempDir,
    store: Store,
}

fn host(etcd: &Cluster, policy: Policy) -> Host {
    host_over(etcd.replica(), policy)
}

fn host_over(replica: Arc<EtcdReplica>, policy: Policy) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("bulkhead.redb")).unwrap().replicated(replica, policy);
    Host { dir, store }
}

fn notes(store: &Store) -> BTreeMap<String, u64> {
    store.list::<Note>().unwrap().into_iter().map(|(k, n)| (k, n.0)).collect()
}

/// Until it goes well; only an etcd that is not there yet is waited for.
fn when_back<T>(mut f: impl FnMut() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match f() {
            Ok(done) => return done,
            Err(e @ (StoreError::Unreachable { .. } | StoreError::Refused { .. })) => {
                assert!(Instant::now() < deadline, "{e}")
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn of_two_holders_only_the_later_one_writes_while_the_lease_changes_under_them() {
    let etcd = Cluster::start(1);
    let (a, b) = (host(&etcd, Policy::Refuse), host(&etcd, Policy::Refuse));
    let first = etcd.take_lease();
    a.store.acquire(SCOPE, first).unwrap();
    let writing = AtomicBool::new(true);
    // A writes as fast as it can, over the change of holders. What it was told to be written, and when it ended.
    let (of_a, seen, second) = std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let mut done = vec![];
            for n in 0.. {
                match a.store.put(&token(first), &format!("a{n:05}"), &Note(n)) {
                    Ok(()) => done.push(n),
                    Err(StoreError::Fenced { .. }) => break,
                    Err(StoreError::Unreachable { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            done
        });
        threads.spawn(|| {
            while writing.load(Ordering::SeqCst) {
                // Reads are of this disk and never wait for etcd.
                notes(&a.store);
                std::thread::yield_now();
            }
        });
        while notes(&a.store).len() < 20 {
            std::thread::yield_now();
        }
        let second = etcd.take_lease();
        b.store.acquire(SCOPE, second).unwrap();
        let seen = notes(&b.store);
        for n in 0..20 {
            b.store.put(&token(second), &format!("b{n:05}"), &Note(n)).unwrap();
        }
        let of_a = writer.join().unwrap();
        writing.store(false, Ordering::SeqCst);
        (of_a, seen, second)
    });
    // B took over everything that A was told is written, and nothing of A's came after.
    assert!(of_a.iter().all(|n| seen.get(&format!("a{n:05}")) == Some(n)), "{of_a:?} {seen:?}");
    let third = etcd.take_lease();
    let c = host(&etcd, Policy::Refuse);
    assert_eq!(c.store.acquire(SCOPE, third).unwrap().rows as usize, seen.len() + 20);
    assert!(matches!(b.store.put(&token(second), "late", &Note(0)), Err(StoreError::Fenced { .. })));
    assert_eq!(c.store.acquire(SCOPE, third).unwrap().rows as usize, seen.len() + 20);
}

#[test]
fn a_thousand_journaled_writes_are_a_few_commits_and_nobody_waits_for_them() {
    let etcd = Cluster::start(1);
    let lease = etcd.take_lease();
    let host = host_over(etcd.hasty_replica(), Policy::Journal);
    when_back(|| host.store.acquire(SCOPE, lease));
    let before = etcd.revision();
    etcd.etcds.freeze(0);
    for n in 0..1000 {
        host.store.put(&token(lease), &format!("{n:04}"), &Note(n)).unwrap();
    }
    etcd.etcds.thaw(0);
    let asked = Instant::now();
    host.store.put(&token(lease), "now", &Note(0)).unwrap();
    let (waited, asked) = (asked.elapsed(), Instant::now());
    when_back(|| host.store.flush(SCOPE));
    eprintln!("a write behind 1,000 others: {waited:?}; all of them in etcd after {:?}", asked.elapsed());
    let commits = etcd.revision() - before;
    assert!(commits <= 20, "{commits} revisions");
    assert_eq!(notes(&host.store).len(), 1001);
    let next = etcd.take_lease();
    let other = host_over(etcd.replica(), Policy::Journal);
    assert_eq!(other.store.acquire(SCOPE, next).unwrap().rows, 1001);
}

#[test]
fn etcd_killed_and_frozen_the_journal_goes_on_and_lands_in_order() {
    let mut etcd = Cluster::start(1);
    let lease = etcd.take_lease();
    let host = host_over(etcd.hasty_replica(), Policy::Journal);
    let refusing = host.store.under(Policy::Refuse);
    when_back(|| host.store.acquire(SCOPE, lease));
    host.store.put(&token(lease), "before", &Note(0)).unwrap();

    etcd.etcds.freeze(0);
    let asked = Instant::now();
    let e = refusing.put(&token(lease), "refused", &Note(1)).unwrap_err();
    assert!(matches!(&e, StoreError::Unreachable { endpoint, .. } if endpoint.starts_with("http://127.0.0.1")), "{e}");
    host.store.put(&token(lease), "frozen", &Note(2)).unwrap();
    assert!(asked.elapsed() < PATIENCE, "calls end within their deadline");
    etcd.etcds.thaw(0);
    when_back(|| host.store.flush(SCOPE));
    // The refused request sat in etcd's socket all the time: it is there or void, and both stores agree.
    let refused = notes(&host.store).contains_key("refused");

    etcd.etcds.kill(0);
    for n in 0..3 {
        host.store.put(&token(lease), "killed", &Note(n)).unwrap();
    }
    etcd.restart(0);
    when_back(|| host.store.flush(SCOPE));
    host.store.put(&token(lease), "after", &Note(3)).unwrap();

    let here = notes(&host.store);
    let next = etcd.take_lease();
    let other = self::host(&etcd, Policy::Refuse);
    other.store.acquire(SCOPE, next).unwrap();
    assert_eq!(notes(&other.store), here);
    assert_eq!(here.get("killed"), Some(&2));
    assert_eq!(here.contains_key("refused"), refused);
}

#[test]
fn with_one_of_three_members_down_writes_go_on() {
    let mut etcd = Cluster::start(3);
    let lease = etcd.take_lease();
    let host = host_over(etcd.hasty_replica(), Policy::Refuse);
    when_back(|| host.store.acquire(SCOPE, lease));
    for (n, at) in [0usize, 1, 2].into_iter().enumerate() {
        // The first one is killed, the others are frozen; each may have been the leader.
        match at {
            0 => etcd.etcds.kill(at),
            _ => etcd.etcds.freeze(at),
        }
        when_back(|| host.store.put(&token(lease), &format!("{at}"), &Note(n as u64)));
        match at {
            0 => etcd.restart(at),
            _ => etcd.etcds.thaw(at),
        }
    }
    assert_eq!(notes(&host.store).len(), 3);
    etcd.answers_again();
    let next = etcd.take_lease();
    let other = self::host(&etcd, Policy::Refuse);
    when_back(|| other.store.acquire(SCOPE, next));
    assert_eq!(notes(&other.store), notes(&host.store));
}

#[test]
fn a_transaction_larger_than_etcds_own_limits_is_one_transaction() {
    let etcd = Cluster::start(1);
    let lease = etcd.take_lease();
    let host = host(&etcd, Policy::Refuse);
    host.store.acquire(SCOPE, lease).unwrap();
    let write = |n: u64, first: u64| {
        host.store
            .transact(&token(lease), |tx| (first..first + n).try_for_each(|i| tx.put(&format!("{i:06}"), &Note(i))))
    };
    // etcd's own limit is 128 operations.
    let mut first = 0;
    for n in [1, 119, 120, 121, 127, 128, 129, 1000] {
        write(n, first).unwrap_or_else(|e| panic!("{n} rows: {e}"));
        first += n;
    }
    host.store
        .transact(&token(lease), |tx| (0..500u64).try_for_each(|i| tx.delete::<Note>(&format!("{i:06}"))))
        .unwrap();
    host.store.put(&token(lease), "large", &Large(vec![7; 1_000_000])).unwrap();
    // Together more than one answer of etcd's usual clients may be (4 MiB).
    for n in 0..10 {
        let rows = |tx: &mut bulkhead::store::Txn| {
            (0..30).try_for_each(|i| tx.put(&format!("medium {n} {i}"), &Large(vec![n; 20_000])))
        };
        host.store.transact(&token(lease), rows).unwrap();
    }
    let e = host.store.put(&token(lease), "larger", &Large(vec![7; 1_100_000])).unwrap_err();
    assert!(matches!(e, StoreError::TooLarge { .. }), "{e}");
    let next = etcd.take_lease();
    let other = self::host(&etcd, Policy::Refuse);
    // More than a page, at one revision.
    assert_eq!(other.store.acquire(SCOPE, next).unwrap().rows, first - 500 + 1 + 300);
    assert_eq!(notes(&other.store), notes(&host.store));
    assert_eq!(other.store.get::<Large>("large").unwrap(), Some(Large(vec![7; 1_000_000])));
}

/// A writer that died after its large transaction was committed and before its rows were written.
#[test]
fn a_large_transaction_whose_writer_died_is_finished_by_the_next_one() {
    let etcd = Cluster::start(1);
    let lease = etcd.take_lease();
    let host = host(&etcd, Policy::Refuse);
    host.store.acquire(SCOPE, lease).unwrap();
    host.store.transact(&token(lease), |tx| (0..200).try_for_each(|i| tx.put(&format!("{i:06}"), &Note(i)))).unwrap();
    // What such a writer leaves: the marker and the redo, without the rows. Taken from the same transaction.
    let rows = notes(&host.store);
    let redo: Vec<Op> = rows.keys().map(|k| Op { table: "notes".into(), key: k.clone(), value: None }).collect();
    let redo = bincode::serde::encode_to_vec(&redo, bincode::config::standard()).unwrap();
    etcd.ask(async |mut client| client.put("/bulkhead/main/redo/t01000/window-post", redo, None).await);
    let next = etcd.take_lease();
    let other = self::host(&etcd, Policy::Refuse);
    assert_eq!(other.store.acquire(SCOPE, next).unwrap().rows, 0, "who reads sees it done");
    other.store.put(&token(next), "new", &Note(1)).unwrap();
    assert_eq!(etcd.keys("/bulkhead/main/state/"), ["/bulkhead/main/state/t01000/window-post:notes/new"]);
    assert_eq!(etcd.keys("/bulkhead/main/redo/"), Vec::<String>::new());
}

/// The part of the next test that dies: run in a process of its own, with the failpoint armed.
#[test]
#[ignore = "started by the test below"]
fn writer_that_dies() {
    let Ok(work) = std::env::var("STORE_ON_ETCD_DIES") else { return };
    let mut words = work.split(' ');
    let mut word = || words.next().unwrap();
    let (path, endpoint, lease): (_, _, u64) = (word(), word().to_owned(), word().parse().unwrap());
    let options = EtcdOptions::new(vec![endpoint], "main");
    let options = EtcdOptions { attempt: PATIENCE, deadline: PATIENCE, ..options };
    let store = Store::open(Path::new(path)).unwrap();
    let store = store.replicated(Arc::new(EtcdReplica::new(options).unwrap()), Policy::Journal);
    store.acquire(SCOPE, lease).unwrap();
    store.put(&token(lease), "b", &Note(2)).unwrap();
    store.flush(SCOPE).unwrap();
}

#[test]
fn killed_between_the_two_stores_the_next_start_has_what_etcd_has() {
    let etcd = Cluster::start(1);
    for (place, landed) in [("store:loaded", false), ("store:committed", true)] {
        let lease = etcd.take_lease();
        let host = host(&etcd, Policy::Journal);
        host.store.acquire(SCOPE, lease).unwrap();
        host.store.delete::<Note>(&token(lease), "b").unwrap();
        host.store.put(&token(lease), "a", &Note(1)).unwrap();
        let Host { dir, store } = host;
        drop(store);
        let path = dir.path().join("bulkhead.redb");
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test_of_this_file!("writer_that_dies"), "--ignored", "--nocapture"])
            .env("STORE_ON_ETCD_DIES", format!("{} {} {lease}", path.display(), etcd.etcds.endpoints()[0]))
            .env("BULKHEAD_FAILPOINT", place)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&died.stderr).contains(&format!("failpoint {place}")), "{place}: {died:?}");
        assert_eq!(died.status.signal(), Some(libc::SIGKILL), "{place}");
        let store = Store::open(&path).unwrap().replicated(etcd.replica(), Policy::Journal);
        store.acquire(SCOPE, lease).unwrap();
        assert_eq!(notes(&store).contains_key("b"), landed, "{place}");
        store.put(&token(lease), "c", &Note(3)).unwrap();
        let next = etcd.take_lease();
        let other = self::host(&etcd, Policy::Refuse);
        other.store.acquire(SCOPE, next).unwrap();
        assert_eq!(notes(&other.store), notes(&store), "{place}");
    }
}

/// A commit costs one round trip to etcd; this prints how long that takes here.
#[test]
fn commits_are_one_round_trip() {
    let etcd = Cluster::start(1);
    let lease = etcd.take_lease();
    let host = host(&etcd, Policy::Refuse);
    host.store.acquire(SCOPE, lease).unwrap();
    let before = etcd.revision();
    let began = Instant::now();
    for n in 0..50 {
        host.store.put(&token(lease), "a", &Note(n)).unwrap();
    }
    println!("{:?} a commit", began.elapsed() / 50);
    assert_eq!(etcd.revision(), before + 50);
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Sector(Vec<u8>);
impl Record for Sector {
    const TABLE: &'static str = "sectors";
}

#[test]
fn a_repo_goes_into_etcd_and_comes_back() {
    use bulkhead::store::transfer::{ExportOptions, ImportOptions, export, import};
    let etcd = Cluster::start(1);
    let replica = etcd.replica();
    let single = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join(name)).unwrap();
        (dir, store)
    };
    let (_from_dir, from) = single("from");
    let old = Token { path: "/t01000/seal-scheduler".into(), epoch: 3 };
    from.transact(&old, |tx| {
        (0..600usize).try_for_each(|n| tx.put(&format!("t01000/{n:020}"), &Sector(vec![n as u8; n * 10])))
    })
    .unwrap();
    let options = ImportOptions { shard: "host-a".into(), ..ImportOptions::default() };
    let done = import(&from, &*replica, &options).unwrap();
    assert_eq!((done.written, done.tables.len()), (600, 1));
    assert_eq!(import(&from, &*replica, &options).unwrap().written, 0);
    let (_to_dir, to) = single("to");
    export(&*replica, &to, &ExportOptions::default()).unwrap();
    assert_eq!(to.list::<Sector>().unwrap(), from.list::<Sector>().unwrap());
}

/// The directory's lease is the store's fence; through TLS, as a user that may touch this cluster's keys only.
#[test]
fn a_lease_of_the_directory_fences_the_store() {
    let etcd = Cluster::with(1, Options { tls: true, users: true });
    let (a, b) = (host(&etcd, Policy::Refuse), host(&etcd, Policy::Refuse));
    let (node_a, node_b) = (etcd.node("a"), etcd.node("b"));
    let first = etcd.runtime.block_on(acquire(&node_a, SCOPE));
    when_back(|| a.store.acquire(SCOPE, first.epoch()));
    when_back(|| a.store.put(&token(first.epoch()), "a", &Note(1)));
    let old = first.epoch();
    etcd.runtime.block_on(first.release()).unwrap();
    assert!(matches!(a.store.put(&token(old), "late", &Note(2)), Err(StoreError::Fenced { .. })));
    let second = etcd.runtime.block_on(acquire(&node_b, SCOPE));
    assert_eq!(second.state(), LeaseState::Proven);
    when_back(|| b.store.acquire(SCOPE, second.epoch()));
    assert_eq!(notes(&b.store), BTreeMap::from([("a".to_owned(), 1)]));
    when_back(|| b.store.put(&token(second.epoch()), "b", &Note(3)));
    assert!(matches!(a.store.put(&token(old), "later", &Note(4)), Err(StoreError::Fenced { .. })));
}

#[test]
fn an_etcd_that_was_put_back_or_built_anew_locks_nobody_out_and_loses_nothing_unasked() {
    let first = Cluster::start(1);
    let mut lease = 0;
    (0..20).for_each(|_| lease = first.take_lease());
    let Host { dir, store } = host(&first, Policy::Refuse);
    store.acquire(SCOPE, lease).unwrap();
    store.put(&token(lease), "a", &Note(1)).unwrap();
    let backup = first.rows();
    drop(store);

    // Put back to where this node knows it: only its revisions are lower.
    let second = Cluster::start(1);
    second.put(&backup);
    let lower = second.take_lease();
    assert!(lower < lease);
    let file = dir.path().join("bulkhead.redb");
    let over = |etcd: &Cluster| Store::open(&file).unwrap().replicated(etcd.replica(), Policy::Refuse);
    let store = over(&second);
    // A lease that etcd does not confirm stays fenced off.
    assert!(matches!(store.acquire(SCOPE, lower - 1), Err(StoreError::Fenced { .. })));
    store.acquire(SCOPE, lower).unwrap();
    store.put(&token(lower), "b", &Note(2)).unwrap();
    assert!(matches!(store.put(&token(lease), "c", &Note(3)), Err(StoreError::Fenced { .. })));
    drop(store);

    // Put back further than that: what this node knows is kept until an operator says otherwise.
    let third = Cluster::start(1);
    third.put(&backup);
    let lowest = third.take_lease();
    for _ in 0..5 {
        second.take_lease();
    }
    let store = over(&second);
    let latest = second.take_lease();
    store.acquire(SCOPE, latest).unwrap();
    drop(store);
    assert!(lowest < latest);
    let store = over(&third);
    let refused = store.acquire(SCOPE, lowest).unwrap_err();
    assert!(matches!(refused, StoreError::WentBack { known: 2, found: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("bulkhead cluster forget-epochs"), "{refused}");
    assert_eq!(notes(&store).len(), 2);
    // Also once others have written so much that its epochs are above those of before.
    let above = std::iter::repeat_with(|| third.take_lease()).find(|lease| *lease > latest).unwrap();
    let refused = store.acquire(SCOPE, above).unwrap_err();
    assert!(matches!(refused, StoreError::WentBack { known: 2, found: 1, .. }), "{refused}");
    drop(store);
    let lowest = above;
    let copy = dir.path().join("copy.redb");
    assert_eq!(Store::forget_epochs(&file, &copy).unwrap(), 0);
    let store = over(&third);
    store.acquire(SCOPE, lowest).unwrap();
    assert_eq!(notes(&store), BTreeMap::from([("a".to_owned(), 1)]));
    store.put(&token(lowest), "d", &Note(4)).unwrap();
    assert_eq!(notes(&Store::open(&copy).unwrap()).len(), 2);
}
