//! Sector numbers when the cluster's store, the chain and the allocator's lease come and go: never the same one twice.

use crate::support::fake_chain::{FakeChain, miner};
use crate::support::scripted_replica::{Fault, ScriptedReplica};
use bulkhead::actors::sector_allocator::messages::AllocateError;
use bulkhead::actors::sector_allocator::{Allocator, AllocatorSettings};
use bulkhead::store::replica::{Commit, Committed, Held, Loaded, Replica, ReplicaError, WriteRight};
use bulkhead::store::{Policy, Store, StoreError, Token};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SCOPE: &str = "/t01000/sector-allocator";

/// One host's way to the cluster's store; it can be cut for this host alone.
struct Link {
    replica: Arc<ScriptedReplica>,
    cut: AtomicBool,
}

impl Link {
    fn open(&self) -> Result<(), ReplicaError> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(ReplicaError::Unreachable { endpoint: "cut:2379".into(), why: "no route".into(), sent: true }),
            false => Ok(()),
        }
    }
}

impl Replica for Link {
    fn commit(&self, commit: &Commit) -> Result<Committed, ReplicaError> {
        self.open().and_then(|()| self.replica.commit(commit))
    }
    fn check(&self, scope: &str, hold: WriteRight) -> Result<Held, ReplicaError> {
        self.open().and_then(|()| self.replica.check(scope, hold))
    }
    fn load(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError> {
        self.open().and_then(|()| self.replica.load(scope, hold))
    }
    fn scopes(&self) -> Result<Vec<String>, ReplicaError> {
        self.open().and_then(|()| self.replica.scopes())
    }
}

struct Host {
    _dir: tempfile::TempDir,
    link: Arc<Link>,
    book: Allocator,
}

impl Host {
    fn new(replica: &Arc<ScriptedReplica>, chain: &Arc<FakeChain>) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let link = Arc::new(Link { replica: replica.clone(), cut: AtomicBool::new(false) });
        let store = Store::open(&dir.path().join("db")).unwrap().replicated(link.clone(), Policy::Refuse);
        let book = Allocator {
            node: chain.clone(),
            store,
            token: Token { path: SCOPE.into(), epoch: 0 },
            miner: miner(),
            settings: AllocatorSettings { lease: 3, ..AllocatorSettings::default() },
        };
        Host { _dir: dir, link, book }
    }
    fn cut(&self, cut: bool) {
        self.link.cut.store(cut, Ordering::SeqCst);
    }
    /// The directory gave the lease to this host; false if the state cannot be read, so that nothing may start.
    fn take_over(&mut self, lease: u64) -> bool {
        self.link.replica.give(SCOPE, lease);
        self.book.token.epoch = lease << 32 | 1;
        self.book.store.acquire(SCOPE, lease).is_ok()
    }
}

#[tokio::test]
async fn without_the_clusters_store_only_the_leased_range_is_given_out() {
    let (replica, chain) = (Arc::new(ScriptedReplica::default()), FakeChain::new(Arc::default()));
    chain.state().allocated.extend([1, 2]);
    let mut a = Host::new(&replica, &chain);
    assert!(a.take_over(7));
    assert_eq!(a.book.allocate("a").await, Ok(3));
    assert!(a.book.refresh().await.unwrap());
    assert_eq!(a.book.numbers().await.unwrap().leased.last(), Some(&(4..=6)));
    a.cut(true);
    assert!(!a.book.refresh().await.unwrap(), "it cannot be extended now, and that ends nothing");
    assert_eq!((a.book.allocate("b").await, a.book.allocate("c").await), (Ok(4), Ok(5)));
    assert_eq!(a.book.allocate("b").await, Ok(4), "asked again");
    assert_eq!(a.book.allocate("d").await, Ok(6));
    assert!(matches!(a.book.allocate("e").await, Err(AllocateError::ChainUnavailable { .. })), "the range is used up");
    assert!(a.book.reserve("mine", &[20..=20]).await.is_err(), "others would not know");
    a.cut(false);
    assert_eq!(a.book.allocate("e").await, Ok(7));
    // The next holder knows all of them.
    let mut b = Host::new(&replica, &chain);
    assert!(b.take_over(8));
    assert_eq!(b.book.allocate("d").await, Ok(6));
    assert_eq!(b.book.numbers().await.unwrap().allocated, [3..=7]);
}

#[tokio::test]
async fn two_sides_of_a_partition_give_out_different_numbers() {
    let (replica, chain) = (Arc::new(ScriptedReplica::default()), FakeChain::new(Arc::default()));
    let mut a = Host::new(&replica, &chain);
    assert!(a.take_over(7));
    assert_eq!(a.book.allocate("a0").await, Ok(1));
    a.book.refresh().await.unwrap();
    a.cut(true); // A's lease runs out over there, and it does not know
    let mut b = Host::new(&replica, &chain);
    assert!(b.take_over(8));
    assert_eq!((b.book.allocate("b0").await, a.book.allocate("a1").await), (Ok(5), Ok(2)));
    assert_eq!((b.book.allocate("b1").await, a.book.allocate("a2").await), (Ok(6), Ok(3)));
    let reserved = b.book.numbers().await.unwrap().reserved;
    assert_eq!(reserved, [("lost-lease-7".to_owned(), vec![2..=4])]);
    a.cut(false);
    let e = a.book.store.put(&a.book.token, "x", &Note(1)).unwrap_err();
    assert!(matches!(e, StoreError::Fenced { .. }), "{e}");
    assert!(matches!(a.book.allocate("a3").await, Err(AllocateError::Store(why)) if why.contains("fenced")));
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Note(u64);
impl bulkhead::store::Record for Note {
    const TABLE: &'static str = "notes";
}

#[tokio::test]
async fn an_orderly_hand_over_leaves_no_gap() {
    let (replica, chain) = (Arc::new(ScriptedReplica::default()), FakeChain::new(Arc::default()));
    let mut a = Host::new(&replica, &chain);
    assert!(a.take_over(7));
    assert_eq!(a.book.allocate("a").await, Ok(1));
    a.book.give_back().unwrap();
    let mut b = Host::new(&replica, &chain);
    assert!(b.take_over(8));
    assert_eq!(b.book.allocate("b").await, Ok(2));
    assert_eq!(b.book.numbers().await.unwrap().reserved, []);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, Fault),
    /// The request of before, once more.
    Again(usize),
    Refresh(usize, Fault),
    Cut(usize, bool),
    TakeOver(usize),
    Chain(bool),
    DeliverLate,
    GiveBack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = || {
        prop_oneof![
            4 => Just(Fault::None),
            1 => Just(Fault::NotSent),
            1 => Just(Fault::RequestLost),
            2 => Just(Fault::AnswerLost),
            2 => Just(Fault::Late),
        ]
    };
    prop_oneof![
        8 => (0..2usize, fault()).prop_map(|(n, f)| Step::Allocate(n, f)),
        2 => (0..2usize).prop_map(Step::Again),
        3 => (0..2usize, fault()).prop_map(|(n, f)| Step::Refresh(n, f)),
        3 => (0..2usize, any::<bool>()).prop_map(|(n, cut)| Step::Cut(n, cut)),
        2 => (0..2usize).prop_map(Step::TakeOver),
        1 => any::<bool>().prop_map(Step::Chain),
        2 => Just(Step::DeliverLate),
        1 => (0..2usize).prop_map(Step::GiveBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_number_is_given_to_two_requests(steps in prop::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (replica, chain) = (Arc::new(ScriptedReplica::default()), FakeChain::new(Arc::default()));
        let mut hosts = [Host::new(&replica, &chain), Host::new(&replica, &chain)];
        let mut running = [false; 2];
        let mut given: BTreeMap<u64, String> = BTreeMap::new();
        let (mut lease, mut requests) = (0, 0);
        let mut last = [String::new(), String::new()];
        for step in steps {
            let mut ask = |host: &Host, request: &str| {
                let Ok(number) = runtime.block_on(host.book.allocate(request)) else { return Ok(()) };
                let other = given.entry(number).or_insert_with(|| request.to_owned());
                prop_assert_eq!(&*other, request, "number {}", number);
                Ok(())
            };
            match step {
                Step::Allocate(n, fault) if running[n] => {
                    requests += 1;
                    last[n] = format!("{n}-{requests}");
                    replica.next([fault]);
                    ask(&hosts[n], &last[n])?;
                }
                Step::Again(n) if running[n] && !last[n].is_empty() => ask(&hosts[n], &last[n])?,
                Step::Refresh(n, fault) if running[n] => {
                    replica.next([fault]);
                    let _ = runtime.block_on(hosts[n].book.refresh());
                }
                Step::Cut(n, cut) => hosts[n].cut(cut),
                Step::TakeOver(n) => {
                    lease += 1;
                    running[n] = hosts[n].take_over(lease);
                }
                Step::Chain(down) => chain.state().down = down,
                Step::DeliverLate => { replica.deliver_late(); }
                Step::GiveBack(n) if running[n] => {
                    // An orderly end: it gives nothing out afterwards.
                    let _ = hosts[n].book.give_back();
                    running[n] = false;
                }
                _ => {}
            }
            replica.state().script.clear();
        }
    }
}
