//! Members of etcd killed, frozen, all gone: what a holder may believe meanwhile, and what it still holds afterwards.

use crate::support::etcd::{Etcds, acquire, record, see, within};
use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig};
use bulkhead::rpc::directory::{Directory, Lease, LeaseState, NodeRecord};
use bulkhead::supervisor::Fence;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const WINDOW: &str = "/t01000/window-post";

/// Until its proof reaches beyond this moment.
async fn proven_anew(lease: &Lease) {
    let from = lease.proven_until().max(Instant::now());
    within("a new proof", async {
        while lease.proven_until() <= from {
            assert_ne!(lease.state(), LeaseState::Lost);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn with_any_one_member_killed_the_holder_stays_proven_and_changes_are_seen() {
    let mut etcds = Etcds::three().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = a.acquire(WINDOW).await.unwrap();
    for member in 0..3 {
        etcds.kill(member);
        proven_anew(&lease).await;
        let mut changed = record("b");
        changed.peer_id = b.view().borrow().nodes["b"].peer_id;
        changed.serves = [format!("/b/after-{member}")].into();
        within("a registration", async {
            // The first call may meet the dead member's last moment.
            while b.register(changed.clone()).await.is_err() {}
        })
        .await;
        see(&a, "the change", |view| view.nodes.get("b").is_some_and(|node| node.serves == changed.serves)).await;
        etcds.restart(&[member]).await;
    }
    assert_ne!(lease.state(), LeaseState::Lost);
}

/// A frozen leader answers for leases that its successor counts down, and ends live ones when it wakes up.
#[tokio::test]
async fn a_frozen_leader_never_makes_two_holders() {
    let etcds = Etcds::three().await;
    let (a, b) = (Arc::new(etcds.node("a").await), Arc::new(etcds.node("b").await));
    let overlap = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    // Each holds it while it can, and wants it back when it lost it.
    let holding = Arc::new(std::sync::Mutex::new(Vec::<bulkhead::rpc::directory::LeaseProof>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for node in [a.clone(), b.clone()] {
        let (holding, done) = (holding.clone(), done.clone());
        tasks.spawn(async move {
            while !done.load(Ordering::Acquire) {
                match node.acquire(WINDOW).await {
                    Ok(lease) => {
                        holding.lock().unwrap().push(lease.proof());
                        tokio::select! {
                            () = lease.lost() => {}
                            () = async { while !done.load(Ordering::Acquire) { tokio::time::sleep(Duration::from_millis(20)).await } } => {}
                        }
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    let watcher = {
        let (holding, overlap, done) = (holding.clone(), overlap.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                let proofs = holding.lock().unwrap().clone();
                // The older ones first: one that is still proven after a younger one was, is one too many.
                let mut young_first: Vec<_> = proofs.iter().rev().collect();
                young_first.retain(|proof| proof.check().is_ok());
                if young_first.len() > 1 {
                    overlap.store(true, Ordering::Release);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    for _ in 0..2 {
        let leader = etcds.leader().await;
        etcds.freeze(leader);
        // Long enough for the frozen one to hold every lease for expired when it wakes up.
        let others: Vec<_> = (0..3).filter(|i| *i != leader).collect();
        within("another leader", async {
            let mut client = etcds.client_of(&others).await;
            while client.put("progress", "", None).await.is_err() {
                client = etcds.client_of(&others).await;
            }
        })
        .await;
        tokio::time::sleep(crate::support::etcd::TTL + Duration::from_secs(1)).await;
        etcds.thaw(leader);
        within("everybody back", async {
            for i in 0..3 {
                let mut client = etcds.client_of(&[i]).await;
                while client.get("progress", None).await.is_err() {
                    client = etcds.client_of(&[i]).await;
                }
            }
        })
        .await;
        within("a proven holder", async {
            while !holding.lock().unwrap().iter().any(|proof| proof.check().is_ok()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    done.store(true, Ordering::Release);
    watcher.join().unwrap();
    tasks.join_all().await;
    assert!(!overlap.load(Ordering::Acquire), "two holders were proven at a time");
    let epochs: Vec<_> = holding.lock().unwrap().iter().map(|proof| proof.epoch()).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
}

#[tokio::test]
async fn without_a_majority_nothing_is_proven_and_nothing_lost() {
    let mut etcds = Etcds::three().await;
    let a = etcds.node("a").await;
    let lease = a.acquire(WINDOW).await.unwrap();
    etcds.kill(0);
    etcds.kill(1);
    see(&a, "no contact", |view| !view.in_contact).await;
    within("the proof runs out", async {
        while lease.state() != LeaseState::Unproven {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(lease.proof().check().is_err(), "what must not be done twice is not done");
    assert!(a.view().borrow().holders.contains_key(WINDOW), "the last that was known stays known");
    etcds.restart(&[0, 1]).await;
    see(&a, "contact", |view| view.in_contact).await;
    // A new leader starts every lease anew: it is the same one.
    proven_anew(&lease).await;
    assert_eq!(a.view().borrow().holders[WINDOW].epoch, lease.epoch());
}

#[tokio::test]
async fn etcd_wholly_gone_and_back_is_the_same_lease_and_what_was_compacted_is_read_anew() {
    let mut etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = a.acquire(WINDOW).await.unwrap();
    etcds.kill(0);
    see(&a, "no contact", |view| !view.in_contact).await;
    see(&b, "no contact", |view| !view.in_contact).await;
    assert_ne!(lease.state(), LeaseState::Lost);
    etcds.restart(&[0]).await;
    // What changed while nobody looked, and can be read no more.
    let mut client = etcds.client().await;
    client.put("/bulkhead/main/drain/b", "", None).await.unwrap();
    let last = client.put("/bulkhead/main/drain/x", "", None).await.unwrap().header().unwrap().revision();
    client.compact(last, None).await.unwrap();
    see(&a, "the drain", |view| view.in_contact && view.drained.len() == 2).await;
    proven_anew(&lease).await;
    assert_eq!(a.view().borrow().holders[WINDOW].epoch, lease.epoch());
    // The others still tell the holder apart from those that want to be it.
    assert!(b.acquire(WINDOW).await.is_err());
    lease.release().await.unwrap();
    acquire(&b, WINDOW).await;
}

#[tokio::test]
async fn a_release_while_etcd_is_away_is_made_good_when_it_is_back() {
    let mut etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = a.acquire(WINDOW).await.unwrap();
    etcds.kill(0);
    let proof = lease.proof();
    lease.release().await.unwrap_err();
    assert_eq!(proof.state(), LeaseState::Lost);
    etcds.restart(&[0]).await;
    acquire(&b, WINDOW).await;
    assert!(a.view().borrow().nodes.contains_key("a"));
}

#[tokio::test]
async fn who_starts_before_etcd_waits_for_it_and_holds_nothing_meanwhile() {
    let mut etcds = Etcds::single().await;
    etcds.kill(0);
    let node = Etcd::connect_or_wait(etcds.config()).await.expect("it waits");
    let me = record("a");
    assert!(!node.view().borrow().in_contact);
    assert!(node.register(me.clone()).await.is_err() && node.acquire(WINDOW).await.is_err());
    etcds.restart(&[0]).await;
    see(&node, "contact", |view| view.in_contact).await;
    within("a registration", async { while node.register(me.clone()).await.is_err() {} }).await;
    assert_eq!(acquire(&node, WINDOW).await.state(), LeaseState::Proven);
    see(&node, "itself as the holder", |view| view.holders.contains_key(WINDOW)).await;
}

/// What stands between a node and etcd: every connection breaks when it is turned, be it to the same one.
struct Door {
    endpoint: String,
    to: watch::Sender<SocketAddr>,
}

impl Door {
    async fn to(etcds: &Etcds) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, turned) = watch::channel(address(etcds));
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut turned = turned.clone();
                tokio::spawn(async move {
                    let at = *turned.borrow_and_update();
                    let Ok(mut far) = TcpStream::connect(at).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = turned.changed() => {}
                    }
                });
            }
        });
        Door { endpoint, to }
    }
    fn turn(&self, etcds: &Etcds) {
        self.to.send_replace(address(etcds));
    }
    async fn node(&self, etcds: &Etcds, name: &str) -> Etcd {
        let config = EtcdConfig { endpoints: vec![self.endpoint.clone()], ..etcds.config() };
        let node = Etcd::connect(config).await.unwrap();
        node.register(record(name)).await.unwrap();
        node
    }
}

fn address(etcds: &Etcds) -> SocketAddr {
    etcds.endpoints()[0].trim_start_matches("http://").parse().unwrap()
}

/// How often etcd was asked for a range of keys, by its own count.
async fn ranges_read(etcds: &Etcds) -> String {
    let mut stream = TcpStream::connect(address(etcds)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let row = |line: &&str| line.starts_with("grpc_server_started_total{grpc_method=\"Range\"");
    page.lines().find(row).expect("etcd counts its calls").to_string()
}

#[tokio::test]
async fn a_broken_stream_goes_on_after_the_last_change_that_was_seen() {
    let etcds = Etcds::single().await;
    let door = Door::to(&etcds).await;
    let (a, b) = (door.node(&etcds, "a").await, etcds.node("b").await);
    see(&a, "both", |view| view.nodes.len() == 2).await;
    let before = ranges_read(&etcds).await;
    for round in 0..3 {
        door.turn(&etcds);
        let change = NodeRecord { serves: [format!("/b/after-{round}")].into(), ..record("b") };
        let change = NodeRecord { peer_id: b.view().borrow().nodes["b"].peer_id, ..change };
        b.register(change.clone()).await.unwrap();
        see(&a, "the change", |view| view.nodes["b"].serves == change.serves).await;
    }
    assert_eq!(ranges_read(&etcds).await, before, "the whole table was read again");
}

#[tokio::test]
async fn an_etcd_that_has_seen_less_is_read_anew() {
    let (etcds, restored) = (Etcds::single().await, Etcds::single().await);
    let door = Door::to(&etcds).await;
    let (a, _b, c) = (door.node(&etcds, "a").await, etcds.node("b").await, restored.node("c").await);
    see(&a, "both", |view| view.nodes.len() == 2).await;
    door.turn(&restored);
    // It knows nothing of `b`, and `a` has registered there.
    see(&a, "the other table", |view| view.nodes.keys().map(String::as_str).eq(["a", "c"])).await;
    see(&c, "the new node", |view| view.nodes.contains_key("a")).await;
}
