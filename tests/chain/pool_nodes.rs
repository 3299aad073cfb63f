//! Each full node of the pool is an actor: what breaks, hangs, joins or leaves there touches neither the head feed nor the
//! message sender nor another node.

use crate::head_feed_follow::{at, node};
use crate::support::full_node::Served;
use crate::support::scripted::ScriptedNode;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::daemon_link::pool::Pool;
use bulkhead::actors::daemon_link::settings::LinkSettings;
use bulkhead::actors::daemon_link::{DaemonPool, HeadFeed, NodesSupervisor, Subscribers};
use bulkhead::chain::types::{HeadChange, HeadChangeType};
use bulkhead::rpc::auth::Perm;
use bulkhead::rpc::full_node::FullNode;
use bulkhead::rpc::full_node::pool::view::PoolChange;
use bulkhead::supervisor::*;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(30);
const POOL: &str = "root/chain/daemon_pool";
const FEED: &str = "root/chain/head_feed";
const SENDER: &str = "root/chain/sender";
const FIRST: &str = "root/chain/nodes/first";
const SECOND: &str = "root/chain/nodes/second";

/// In the message sender's place: passes on the heads that it gets.
struct Sender(mpsc::UnboundedSender<i64>);
impl Actor for Sender {}
impl Handler<HeadUpdate> for Sender {
    async fn handle(&mut self, update: HeadUpdate, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(update.tipset.height);
        Ok(())
    }
}

struct Chain {
    tree: Tree,
    pool: Pool,
    heads: mpsc::UnboundedReceiver<i64>,
}

/// The group as a provider has it, over two nodes.
fn chain(first: &Arc<ScriptedNode>, second: &Arc<ScriptedNode>) -> Chain {
    for (node, name) in [(first, "first"), (second, "second")] {
        *node.name.lock().unwrap() = Some(name.into());
        *node.block_delay.lock().unwrap() = Some(3600);
        *node.head.lock().unwrap() = Some(at(10));
    }
    let often = Duration::from_millis(20);
    let settings = LinkSettings { check_every: often, check_lagging_every: often, ..Default::default() };
    let nodes: Vec<Arc<dyn FullNode>> = vec![first.clone(), second.clone()];
    let pool = Pool::new(nodes, &settings);
    let (tell, heads) = mpsc::unbounded_channel();
    let (pool_ref, feed_ref, sender_ref) =
        (Ref::new("/daemon-pool", 64), Ref::new("/head-feed", 64), Ref::<Sender>::new("/sender", 64));
    let cell = Arc::new(OnceLock::<WeakTree>::new());
    let found = cell.clone();
    let supervisor: NodesSupervisor = Arc::new(move || found.get()?.upgrade()?.supervisor("root/chain/nodes"));
    let subscriber = sender_ref.recipient::<HeadUpdate>();
    let subscribers: Subscribers = Arc::new(move || vec![subscriber.clone()]);
    let (of_pool, of_feed, link) = (pool.clone(), pool.clone(), settings.clone());
    let hold_down = BudgetSpent::HoldDown { escalate_after: None };
    let backoff = RestartBackoff { cap: Duration::from_millis(50), ..RestartBackoff::NONE };
    let dynamic = SupervisorSpec::new("nodes").intensity(5, SOON).backoff(backoff);
    let group = SupervisorSpec::new("chain")
        .strategy(Strategy::RestForOne)
        .backoff(RestartBackoff::NONE)
        .child(ChildSpec::supervisor(dynamic.on_budget_spent(hold_down).dynamic(64)))
        .child(ChildSpec::actor("daemon_pool", &pool_ref, move |cx| {
            DaemonPool::start(cx, of_pool.clone(), supervisor.clone(), link.clone())
        }))
        .child(ChildSpec::actor("head_feed", &feed_ref, move |cx| {
            HeadFeed::start(cx, of_feed.clone(), subscribers.clone(), settings.clone())
        }))
        .child(ChildSpec::actor("sender", &sender_ref, move |_| {
            let tell = tell.clone();
            async move { Ok(Sender(tell)) }
        }));
    let options = TreeOptions { hang_after: Some(Duration::from_secs(2)), ..TreeOptions::default() };
    let tree = Tree::start_with(SupervisorSpec::new("root").child(ChildSpec::supervisor(group)), options).unwrap();
    let _ = cell.set(tree.downgrade());
    Chain { tree, pool, heads }
}

async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            match found() {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

impl Chain {
    fn lives(&self, path: &str) -> Option<u64> {
        self.tree.info(path).filter(|row| row.state == ActorState::Up).map(|row| row.incarnation)
    }

    async fn all_up(&self) {
        for path in [POOL, FEED, SENDER, FIRST, SECOND] {
            eventually(path, || self.lives(path)).await;
        }
    }

    /// The one with which it starts may come before there is a sender.
    async fn next_head(&mut self) -> i64 {
        let next = async {
            loop {
                match self.heads.recv().await.expect("the sender runs") {
                    10 => {}
                    height => return height,
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("a head")
    }

    async fn next_life(&self, path: &str, before: u64) {
        eventually(path, || self.lives(path).filter(|now| *now > before)).await;
    }

    fn others(&self) -> [Option<u64>; 4] {
        [POOL, FEED, SENDER, SECOND].map(|path| self.lives(path))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_breaks_or_hangs_touches_nothing_else() {
    let (first, second) = (node(), node());
    let channel = first.channel();
    let mut chain = chain(&first, &second);
    chain.all_up().await;
    let before = chain.others();
    let mut height = 10;
    // More often than the group would bear of its own children.
    for _ in 0..8 {
        let life = eventually("it is up", || chain.lives(FIRST)).await;
        let checks = first.count("state_get_network_params");
        assert!(chain.tree.panic(FIRST));
        height += 1;
        let head = HeadChange { kind: HeadChangeType::Apply, val: at(height) };
        channel.send(vec![head]).await.unwrap();
        assert_eq!(chain.next_head().await, height);
        chain.next_life(FIRST, life).await;
        eventually("it is checked again", || (first.count("state_get_network_params") > checks).then_some(())).await;
    }
    let life = chain.lives(FIRST).unwrap();
    assert!(chain.tree.hang(FIRST));
    let head = HeadChange { kind: HeadChangeType::Apply, val: at(height + 1) };
    channel.send(vec![head]).await.unwrap();
    assert_eq!(chain.next_head().await, height + 1, "the feed goes on while the node's actor hangs");
    chain.next_life(FIRST, life).await;
    assert_eq!(chain.others(), before);
    let seen = chain.tree.inspect(FIRST, SOON).await.unwrap().state;
    assert_eq!(seen["health"]["height"], 10, "{seen}");
    assert_eq!(seen["breakers"], serde_json::json!([]));
    chain.tree.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_leave_at_run_time() {
    let (first, second) = (node(), node());
    let _channel = first.channel();
    let chain = chain(&first, &second);
    chain.all_up().await;
    let before = chain.others();
    let served = Served::start();
    let third = served.info(Some(&Perm::ALL));
    let path = format!("root/chain/nodes/{}", third.name());
    let pool = chain.pool.shared().clone();
    pool.apply(PoolChange::AddNode { node: third.secret_text() }).unwrap();
    eventually("it is checked", || {
        let known = pool.health().into_iter().find(|health| health.node == third.name())?;
        (known.height.is_some() && chain.lives(&path).is_some()).then_some(())
    })
    .await;
    let id = pool.members()[2].id.clone();
    pool.apply(PoolChange::SetNode { id, key: "status".into(), value: "exit".into() }).unwrap();
    eventually("it is gone", || chain.tree.info(&path).is_none().then_some(())).await;
    assert_eq!(chain.others(), before);
    chain.tree.shutdown().await;
}
