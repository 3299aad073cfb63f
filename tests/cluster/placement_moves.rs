//! A concern runs on one node of a cluster: it moves when its holder dies, when its node is drained and when it is told to,
//! and no window is missed for it.

use crate::support::etcd::{Etcds, TTL, see};
use crate::support::placement::{NodeProcess, World, eventually};
use bulkhead::rpc::directory::{Directory, PlacementOrder};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SINGLETONS: [&str; 5] = ["window-post", "winning-post", "sector-allocator", "message-sender", "deal-handler"];

fn path(concern: &str) -> String {
    format!("/t01000/{concern}")
}

/// How much later than asked this process gets its turns: what a loaded machine adds to every time that is measured on it.
struct Stalls(Arc<AtomicU64>, tokio::task::JoinHandle<()>);

impl Stalls {
    fn watch() -> Stalls {
        let sum = Arc::new(AtomicU64::new(0));
        let (late, turn) = (sum.clone(), Duration::from_millis(20));
        let task = tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                tokio::time::sleep(turn).await; // the measurement itself
                // A timer is up to a few ms late on an idle machine.
                let over = asked.elapsed().saturating_sub(turn + Duration::from_millis(5));
                late.fetch_add(over.as_millis() as u64, Relaxed);
            }
        });
        Stalls(sum, task)
    }

    fn sum(self) -> Duration {
        self.1.abort();
        Duration::from_millis(self.0.load(Relaxed))
    }
}

/// Two nodes that may both do everything; everything is `a`'s as long as it is there.
async fn two(world: &World, etcds: &Etcds) -> (NodeProcess, NodeProcess) {
    let plan = |name: &str| SINGLETONS.iter().fold(world.plan(name, Some(etcds)), |p, c| p.prefer(c, &["a", "b"]));
    let (a, b) = (plan("a").start_here(), plan("b").start_here());
    (a, b)
}

async fn all_at(node: &NodeProcess, own_shard: bool) {
    eventually(&format!("everything runs at {}", node.name()), || async {
        let runs = node.runs().await?;
        let shard = format!("/t01000/seal-scheduler/{}", node.name());
        let all = SINGLETONS.iter().all(|concern| runs.contains(&path(concern)));
        (all && runs.contains(&shard) == own_shard).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holders_concerns_go_on_at_the_next_node() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let directory = etcds.connect().await;
    let (mut a, b) = two(&world, &etcds).await;
    all_at(&a, true).await;
    // A sector that has to be proven from now on, sealed by `a`.
    let number = a.call("Filecoin.PledgeSector", vec![]).await.unwrap()["Number"].as_u64().unwrap();
    eventually("a window proven", || async { a.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;

    // What runs elsewhere answers here.
    let seen_from_b = b.windows(0).await.expect("WindowPoSt of a, asked at b");
    assert!(seen_from_b.0 > 0 && seen_from_b.1 == 0, "{seen_from_b:?}");

    let (killed, stalls) = (Instant::now(), Stalls::watch());
    a.kill();
    let window_post = path("window-post");
    see(&directory, "window-post is b's", |view| {
        view.holders.get(&window_post).is_some_and(|holder| holder.node == "b")
    })
    .await;
    let (took, stalled) = (killed.elapsed(), stalls.sum());
    println!("window-post moved {took:?} after the kill; the lease is {TTL:?}, the machine stalled {stalled:?}");
    assert!(took <= TTL + Duration::from_secs(2) + stalled, "moved {took:?} after the kill, stalled {stalled:?}");
    all_at(&b, true).await;
    let from = world.height().await;
    eventually("a window proven by b", || async { b.windows(from).await.filter(|(landed, _)| *landed > 0) }).await;
    assert_eq!(b.windows(from).await.map(|(_, missed)| missed), Some(0));

    // Sealed by a node that is not there: named, not left out.
    let listed = b.call("Bulkhead.Sectors", vec![]).await.unwrap();
    assert_eq!(listed["missing_shards"][0]["node"], "a", "{listed}");
    assert_eq!(number, 1);
    b.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_hands_over_and_keeps_its_own_sectors() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let directory = etcds.connect().await;
    let (a, b) = two(&world, &etcds).await;
    all_at(&a, true).await;
    let all_of = |node: &'static str| {
        move |view: &bulkhead::rpc::directory::View| {
            SINGLETONS.iter().all(|c| view.holders.get(&path(c)).is_some_and(|holder| holder.node == node))
        }
    };
    see(&directory, "b is there", |view| view.nodes.contains_key("b")).await;
    directory.order(PlacementOrder::Drain { node: "a".into() }).await.unwrap();
    see(&directory, "all is b's", all_of("b")).await;
    all_at(&b, true).await;
    let left = a.runs().await.unwrap();
    assert_eq!(left, ["/t01000/seal-scheduler/a"], "its own sectors stay its own");
    // A pledge at the drained node still works: its own scheduler, the numbers from b.
    let number = a.call("Filecoin.PledgeSector", vec![]).await.unwrap();
    assert_eq!(number["Number"], 1);

    directory.order(PlacementOrder::Undrain { node: "a".into() }).await.unwrap();
    directory.order(PlacementOrder::Move { concern: path("window-post"), node: "a".into() }).await.unwrap();
    let window_post = path("window-post");
    see(&directory, "window-post is a's", |v| v.holders.get(&window_post).is_some_and(|h| h.node == "a")).await;
    eventually("it runs there", || async { a.runs().await.filter(|runs| runs.contains(&window_post)) }).await;
    assert!(!b.runs().await.unwrap().contains(&window_post));

    // In order: what it held is b's at once, without waiting for a lease to expire.
    a.stop().await;
    see(&directory, "all is b's again", all_of("b")).await;
    b.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_repo_came_back_from_an_older_copy_belongs_to_the_cluster_again() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let (a, b) = two(&world, &etcds).await;
    all_at(&a, true).await;
    let plan = b.plan.clone();
    let (repo, copy) = (plan.repo.join("bulkhead.redb"), plan.repo.join("copy.redb"));
    b.stop().await;
    std::fs::copy(&repo, &copy).unwrap();
    for came_back in [false, false, true] {
        if came_back {
            std::fs::copy(&copy, &repo).unwrap();
        }
        let b = plan.clone().start_here();
        // What runs at `a`, asked at `b`, goes over the bridge.
        eventually(&format!("an answer of a (an older copy: {came_back})"), || b.windows(0)).await;
        b.stop().await;
    }
    a.stop().await;
    world.end().await;
}

/// Nobody says where messages are sent from: where windows are proven. An order that nobody would carry out is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_where_windows_are_proven() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let directory = etcds.connect().await;
    let plan = |name: &str| world.plan(name, Some(&etcds)).prefer("window-post", &["a", "b"]);
    let a = plan("a").start_here();
    let b = plan("b").roles(&["window-post", "daemon-link", "storage"]).start_here();
    let both_at = |node: &'static str| {
        move |view: &bulkhead::rpc::directory::View| {
            let at = |concern: &str| view.holders.get(&path(concern)).is_some_and(|holder| holder.node == node);
            at("window-post") && at("message-sender")
        }
    };
    see(&directory, "both are a's", both_at("a")).await;
    see(&directory, "b is there", |view| view.nodes.contains_key("b")).await;
    eventually("a pledge", || async { a.call("Filecoin.PledgeSector", vec![]).await.ok() }).await;
    eventually("a window proven", || async { a.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;

    directory.order(PlacementOrder::Move { concern: path("window-post"), node: "b".into() }).await.unwrap();
    see(&directory, "both are b's", both_at("b")).await;
    eventually("both run there", || async {
        let runs = b.runs().await?;
        (runs.contains(&path("window-post")) && runs.contains(&path("message-sender"))).then_some(())
    })
    .await;
    let from = world.height().await;
    eventually("a window proven by b", || async { b.windows(from).await.filter(|(landed, _)| *landed > 0) }).await;
    assert_eq!(b.windows(0).await.map(|(_, missed)| missed), Some(0));

    for (order, why) in [
        ("b/deal-handler", "does not have the role markets"),
        ("b/seal-scheduler/a", "a's own"),
        ("a/message-sender", "placement.message_sender"),
    ] {
        let (status, answer) = a.admin_post(&format!("/cluster/move/{order}")).await;
        assert_eq!(status, 409, "{order}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(why)), "{order}: {answer}");
    }
    a.stop().await;
    b.stop().await;
    world.end().await;
}

/// Which concerns go on under a lease that nobody can prove, and which stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_windows_are_proven_and_no_block_is_made() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let a = world.plan("a", Some(&etcds)).start_here();
    all_at(&a, true).await;
    a.call("Filecoin.PledgeSector", vec![]).await.unwrap();
    eventually("a window proven", || async { a.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;

    etcds.freeze(0);
    let winning_post = path("winning-post");
    let left =
        eventually("winning_post stops", || async { a.runs().await.filter(|runs| !runs.contains(&winning_post)) })
            .await;
    let others = SINGLETONS.iter().map(|concern| path(concern)).filter(|concern| *concern != winning_post);
    for concern in others.chain(["/t01000/seal-scheduler/a".to_string()]) {
        assert!(left.contains(&concern), "{concern} goes on; of {left:?}");
    }
    let from = world.height().await;
    eventually("a window proven without etcd", || async { a.windows(from).await.filter(|(landed, _)| *landed > 0) })
        .await;

    etcds.thaw(0);
    all_at(&a, true).await;
    let back = world.height().await;
    eventually("a window proven with it again", || async { a.windows(back).await.filter(|(landed, _)| *landed > 0) })
        .await;
    assert_eq!(a.windows(0).await.map(|(_, missed)| missed), Some(0));
    a.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_before_etcd_is_up_without_concerns_and_takes_them_when_etcd_answers() {
    let (world, mut etcds) = (World::start().await, Etcds::single().await);
    etcds.kill(0);
    let plan = SINGLETONS.iter().fold(world.plan("a", Some(&etcds)), |plan, concern| plan.prefer(concern, &["a"]));
    let a = plan.start_here();
    // API and admin are up; nothing is held.
    eventually("the API answers", || async { a.call("Filecoin.Version", vec![]).await.ok() }).await;
    assert_eq!(a.runs().await, Some(vec![]));
    let status = a.cluster().await.expect("the admin HTTP");
    assert!(status["in_contact"] == false && status["leases"] == serde_json::json!([]), "{status}");
    etcds.restart(&[0]).await;
    all_at(&a, true).await;
    a.stop().await;
}
