//! The directory at size: a thousand nodes of twenty actors register at once with one etcd, then a holder dies among them.
//!
//!     cargo bench --features cluster --bench directory            # 1,000 nodes
//!     cargo bench --features cluster --bench directory -- 100     # fewer
//!
//! Every node is a whole one: its own connections, its own lease kept alive, its own view of all the others. They share this
//! machine with etcd, which they would not in a cluster.

#[path = "../tests/support/etcd.rs"]
#[allow(dead_code)]
mod etcd_support;

use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig};
use bulkhead::rpc::directory::placement::{Placement, PlacementStep, Wanted, decide};
use bulkhead::rpc::directory::{Directory, Lease, NodeRecord, Role};
use etcd_support::Etcds;
use libp2p::PeerId;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

const CONCERN: &str = "/t01000/window-post";
const TTL: Duration = Duration::from_secs(10);
const FAILOVERS: usize = 5;

fn record(name: String) -> NodeRecord {
    let mut record = NodeRecord::new(&name, PeerId::random(), 1);
    record.addrs = vec!["/ip4/10.0.0.1/tcp/2347".parse().expect("a multiaddr")];
    record.roles = [Role::Sealing, Role::Storage].into();
    record.serves = (0..20).map(|actor| format!("/{name}/storage/path-{actor}")).collect();
    record
}

async fn backoff(tries: &mut u32, node: usize) {
    *tries += 1;
    let jitter = Duration::from_millis(node as u64 % 200);
    tokio::time::sleep(Duration::from_millis(200) * (1 << (*tries).min(6)) + jitter).await;
}

/// As a node's reconciler does: decides at every change of the view until it holds the concern.
async fn contend(node: &Etcd, me: &str) -> Lease {
    let placement = Placement {
        concerns: vec![Wanted::new(CONCERN, Role::WindowPost)],
        settle: Duration::ZERO,
        ..Placement::default()
    };
    let mut view = node.view();
    loop {
        let steps = decide(&view.borrow_and_update().clone(), me, &placement, Instant::now());
        if matches!(steps.first(), Some(PlacementStep::Acquire { .. }))
            && let Ok(lease) = node.acquire(CONCERN).await
        {
            return lease;
        }
        let until = match steps.first() {
            Some(PlacementStep::Wait { until, .. }) => *until,
            _ => Instant::now() + Duration::from_secs(3600),
        };
        let _ = tokio::time::timeout_at(until.into(), view.changed()).await; // a change, or our turn
    }
}

fn main() {
    let nodes = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(nodes));
    runtime.shutdown_background();
}

async fn run(nodes: usize) {
    let etcds = Etcds::single().await;
    let config = EtcdConfig { ttl: TTL, ..etcds.config() };
    let observer = Etcd::connect(config.clone()).await.expect("an observer");
    let storm = Instant::now();
    let mut joining = JoinSet::new();
    for i in 0..nodes {
        let config = config.clone();
        joining.spawn(async move {
            // What gets no answer is tried again later and later, as by a supervisor's backoff.
            let mut tries = 0;
            let node = loop {
                match Etcd::connect_on(Handle::current(), config.clone()).await {
                    Ok(node) => break node,
                    Err(_) => backoff(&mut tries, i).await,
                }
            };
            while node.register(record(format!("n{i}"))).await.is_err() {
                backoff(&mut tries, i).await;
            }
            (node, tries)
        });
    }
    let joined = joining.join_all().await;
    let registered = storm.elapsed();
    etcd_support::see(&observer, "everybody", |view| view.nodes.len() == nodes).await;
    println!("nodes                          {nodes}, 20 actors each, one etcd, lease {TTL:?}");
    println!("all registered after           {:.2} s", registered.as_secs_f64());
    println!("seen by another node after     {:.2} s", storm.elapsed().as_secs_f64());
    for (node, _) in &joined {
        etcd_support::see(node, "everybody", |view| view.nodes.len() == nodes).await;
    }
    println!("seen by every node after       {:.2} s", storm.elapsed().as_secs_f64());
    println!("calls that had to be repeated  {}", joined.iter().map(|(_, tries)| *tries).sum::<u32>());

    let candidate = |name: String| {
        let config = config.clone();
        async move {
            let node = Etcd::connect(config).await.expect("a node");
            let mut me = NodeRecord::new(name, PeerId::random(), 1);
            me.roles = [Role::WindowPost].into();
            node.register(me).await.expect("a registration");
            node
        }
    };
    let mut holder = candidate("h0".into()).await;
    let mut lease = contend(&holder, "h0").await;
    let mut took = Vec::new();
    for i in 1..=FAILOVERS {
        let name = format!("h{i}");
        let next = candidate(name.clone()).await;
        etcd_support::see(&next, "the holder", |view| view.holders.contains_key(CONCERN)).await;
        let proven = lease.proven_until();
        let killed = Instant::now();
        drop(holder);
        drop(lease);
        lease = contend(&next, &name).await;
        took.push(killed.elapsed());
        assert!(Instant::now() > proven, "before the proof of the one before had run out");
        holder = next;
    }
    took.sort();
    let of = |i: usize| took[i].as_secs_f64();
    println!(
        "a holder dies, the next holds  {:.2} s median, {:.2} s to {:.2} s",
        of(FAILOVERS / 2),
        of(0),
        of(FAILOVERS - 1)
    );
    let lost = joined.iter().filter(|(node, _)| !node.view().borrow().in_contact).count();
    let known = observer.view().borrow().nodes.len();
    println!("known at the end               {known}; out of contact {lost}");
}
