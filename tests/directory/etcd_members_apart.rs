//! Members of etcd that are cut off from one another: a node that reaches only the smaller side holds nothing any more when
//! the other side's node begins, and of two holders one writes.

use crate::support::etcd::{Etcds, acquire, record, see, within};
use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig};
use bulkhead::rpc::directory::{Directory, LeaseState};
use bulkhead::store::etcd::{EtcdOptions, EtcdReplica};
use bulkhead::store::{Policy, Record, Store, StoreError, Token};
use bulkhead::supervisor::Fence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SCOPE: &str = "/t01000/window-post";

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Note(u64);
impl Record for Note {
    const TABLE: &'static str = "notes";
}

fn token(lease: u64) -> Token {
    Token { path: SCOPE.into(), epoch: lease << 32 | 1 }
}

fn notes(store: &Store) -> BTreeMap<String, u64> {
    store.list::<Note>().unwrap().into_iter().map(|(key, note)| (key, note.0)).collect()
}

/// A node that reaches these members only.
struct Host {
    directory: Etcd,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Host {
    async fn new(name: &str, etcds: &Etcds, members: &[usize]) -> Host {
        let all = etcds.endpoints();
        let endpoints: Vec<String> = members.iter().map(|&i| all[i].clone()).collect();
        let config = EtcdConfig { endpoints, ..etcds.config() };
        let directory = Etcd::connect(config.clone()).await.unwrap();
        directory.register(record(name)).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = EtcdOptions::new(config.checked().unwrap(), config.cluster.clone());
        let replica = EtcdReplica::new(EtcdOptions { connect: config.options(), ..options }).unwrap();
        let store =
            Store::open(&dir.path().join("bulkhead.redb")).unwrap().replicated(Arc::new(replica), Policy::Refuse);
        Host { directory, store, _dir: dir }
    }
}

/// The store's calls block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Writes until it is told to stop or that it holds nothing any more: what it was told to be written, and that.
fn write_on(store: Store, lease: u64, by: &'static str, stop: Arc<AtomicBool>) -> (BTreeMap<String, u64>, bool) {
    let mut written = BTreeMap::new();
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = format!("{by}-{lease}-{n:06}");
        match store.put(&token(lease), &key, &Note(n)) {
            Ok(()) => drop(written.insert(key, n)),
            Err(StoreError::Fenced { .. }) => return (written, true),
            Err(StoreError::Unreachable { .. } | StoreError::Refused { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    (written, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sides_one_holds_and_one_writes() {
    let Some(lan) = crate::support::netns::lan(3) else { return };
    lan.uplink(); // how this process reaches the members, which no cut below touches
    let etcds = Etcds::on_hosts(lan.hosts.iter().map(|host| (host.name.clone(), host.addr))).await;
    for leads in [true, false] {
        let leader = etcds.leader().await;
        let few = if leads { leader } else { (leader + 1) % 3 };
        let many: Vec<usize> = (0..3).filter(|member| *member != few).collect();
        let (a, b) = (Host::new("a", &etcds, &[few]).await, Host::new("b", &etcds, &many).await);
        let first = acquire(&a.directory, SCOPE).await;
        let (store, epoch) = (a.store.clone(), first.epoch());
        blocking(move || store.acquire(SCOPE, epoch).unwrap()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let (store, told) = (a.store.clone(), stop.clone());
        let writer = tokio::task::spawn_blocking(move || write_on(store, epoch, "a", told));
        let of_a = a.store.clone();
        within("writes of a", async {
            while notes(&of_a).keys().filter(|key| key.starts_with(&format!("a-{epoch}"))).count() < 20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;

        println!("m{few} is cut off; it leads: {leads}");
        many.iter().for_each(|&other| lan.cut(few, other));
        let second = acquire(&b.directory, SCOPE).await;
        assert!(first.proof().check().is_err(), "two are proven at a time");
        assert_ne!(first.state(), LeaseState::Proven);
        let (store, epoch_b) = (b.store.clone(), second.epoch());
        assert!(epoch_b > epoch);
        let found = blocking(move || {
            store.acquire(SCOPE, epoch_b).unwrap();
            let found = notes(&store);
            store.put(&token(epoch_b), &format!("b-{epoch_b}"), &Note(0)).unwrap();
            found
        })
        .await;

        many.iter().for_each(|&other| lan.heal(few, other));
        within("a hears that its lease is lost", first.lost()).await;
        see(&a.directory, "b holds it", |view| view.holders.get(SCOPE).is_some_and(|holder| holder.epoch == epoch_b))
            .await;
        let fenced = within("a's writer is refused", writer).await.unwrap();
        assert!(fenced.1, "a writes on");
        // Whatever a was told to be written, b found; nothing of a's came after.
        assert!(fenced.0.iter().all(|(key, n)| found.get(key) == Some(n)), "{:?} {found:?}", fenced.0);
        let store = b.store.clone();
        let after = blocking(move || {
            store.acquire(SCOPE, epoch_b).unwrap();
            notes(&store)
        })
        .await;
        assert_eq!(after.len(), found.len() + 1, "b's own, and nothing else");
        stop.store(true, Ordering::Release);
        second.release().await.unwrap();
        for node in [a, b] {
            node.directory.leave().await.unwrap();
        }
    }
}
