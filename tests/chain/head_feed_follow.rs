//! The head feed outlives its node: closed channels, silence, gaps, no channel at all, the wrong network.

use crate::support::scripted::*;
use bulkhead::actors::daemon_link::LinkError;
use bulkhead::actors::daemon_link::follow::follow;
use bulkhead::actors::daemon_link::messages::FeedStatus;
use bulkhead::actors::daemon_link::pool::{Health, Pool};
use bulkhead::actors::daemon_link::settings::{LinkSettings, WallClock};
use bulkhead::chain::types::{HeadChange, HeadChangeType, TipSet};
use bulkhead::rpc::full_node::FullNode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

pub struct Followed {
    pub heights: mpsc::UnboundedReceiver<(i64, Option<i64>)>,
    pub status: Arc<Mutex<FeedStatus>>,
    pub changed: mpsc::UnboundedReceiver<()>,
    pub task: tokio::task::JoinHandle<LinkError>,
}

pub fn started(node: &Arc<ScriptedNode>, network: Option<&str>) -> Followed {
    started_with(node, LinkSettings { network: network.map(Into::into), ..Default::default() })
}

fn started_with(node: &Arc<ScriptedNode>, settings: LinkSettings) -> Followed {
    let settings = LinkSettings {
        silent_block_delays: 1,
        retry_first: Duration::from_millis(1),
        retry_cap: Duration::from_millis(4),
        ..settings
    };
    let pool = Pool::new(vec![node.clone() as Arc<dyn FullNode>], &settings);
    let (sender, heights) = mpsc::unbounded_channel();
    let status = Arc::new(Mutex::new(FeedStatus::default()));
    let (signal, changed) = mpsc::unbounded_channel();
    let shown = status.clone();
    let task = tokio::spawn(async move {
        let tell = move |update: bulkhead::actors::daemon_link::messages::HeadUpdate| {
            let _ = sender.send((update.tipset.height, update.reverted_to));
        };
        let publish = move |now: &FeedStatus| {
            *shown.lock().unwrap() = now.clone();
            let _ = signal.send(());
        };
        follow(&pool, &settings, tell, publish).await
    });
    Followed { heights, status, changed, task }
}

pub fn node() -> Arc<ScriptedNode> {
    let node = Arc::new(ScriptedNode::default());
    *node.network.lock().unwrap() = "devnet".into();
    *node.block_delay.lock().unwrap() = Some(1);
    node
}

pub fn at(height: i64) -> TipSet {
    tipset(&format!("a{height}"), height, &format!("a{}", height - 1))
}

fn apply(tipset: TipSet) -> Vec<HeadChange> {
    vec![HeadChange { kind: HeadChangeType::Apply, val: tipset }]
}

impl Followed {
    async fn next(&mut self) -> (i64, Option<i64>) {
        self.heights.recv().await.expect("the feed runs")
    }
}

#[tokio::test]
async fn heads_come_once_and_in_order_over_a_broken_channel() {
    let node = node();
    *node.head.lock().unwrap() = Some(at(10));
    let channel = node.channel();
    let mut feed = started(&node, Some("devnet"));
    assert_eq!(feed.next().await, (10, None));
    channel.send(vec![HeadChange { kind: HeadChangeType::Current, val: at(10) }]).await.unwrap();
    channel.send(apply(at(11))).await.unwrap();
    assert_eq!(feed.next().await, (11, None));

    // Two heads pass while the channel is down.
    (12..=13).for_each(|height| node.add(at(height)));
    *node.head.lock().unwrap() = Some(at(13));
    let channel_2 = node.channel();
    drop(channel);
    assert_eq!(feed.next().await, (12, None));
    assert_eq!(feed.next().await, (13, None));
    channel_2.send(apply(at(14))).await.unwrap();
    assert_eq!(feed.next().await, (14, None));
    let status = feed.status.lock().unwrap().clone();
    assert_eq!((status.subscriptions, status.subscribed, status.height), (2, true, Some(14)));
    feed.task.abort();
}

#[tokio::test]
async fn a_silent_channel_is_made_anew() {
    let node = node();
    *node.head.lock().unwrap() = Some(at(10));
    let silent = node.channel();
    let mut feed = started(&node, None);
    assert_eq!(feed.next().await, (10, None));
    node.add(at(11));
    *node.head.lock().unwrap() = Some(at(12));
    assert_eq!(feed.next().await, (11, None));
    assert_eq!(feed.next().await, (12, None));
    let channel = node.channel();
    channel.send(apply(at(13))).await.unwrap();
    assert_eq!(feed.next().await, (13, None));
    assert!(silent.is_closed());
    feed.task.abort();
}

#[tokio::test]
async fn a_node_without_a_channel_is_polled() {
    let node = node();
    *node.head.lock().unwrap() = Some(at(10));
    let mut feed = started(&node, None);
    assert_eq!(feed.next().await, (10, None));
    for height in 11..14 {
        *node.head.lock().unwrap() = Some(at(height));
        assert_eq!(feed.next().await, (height, None));
    }
    assert!(!feed.status.lock().unwrap().subscribed);
    feed.task.abort();
}

#[tokio::test]
async fn an_unreachable_node_is_tried_until_it_answers() {
    let node = node();
    let mut feed = started(&node, None);
    for _ in 0..5 {
        feed.changed.recv().await;
        let status = feed.status.lock().unwrap().clone();
        assert!(!status.subscribed && status.last_error.is_some(), "{status:?}");
    }
    assert!(node.count("chain_head") >= 4);
    *node.head.lock().unwrap() = Some(at(3));
    assert_eq!(feed.next().await, (3, None));
    feed.task.abort();
}

#[tokio::test]
async fn a_wrong_network_is_named_never_followed_and_asked_again() {
    let node = node();
    *node.head.lock().unwrap() = Some(at(10));
    let mut feed = started(&node, Some("mainnet"));
    for _ in 0..3 {
        feed.changed.recv().await;
        let status = feed.status.lock().unwrap().clone();
        assert_eq!(
            status.last_error.as_deref(),
            Some("full node scripted is on network devnet, this provider is for mainnet; check FULLNODE_API_INFO")
        );
        assert!(!status.subscribed);
    }
    assert_eq!(node.count("chain_head"), 0);
    *node.network.lock().unwrap() = "mainnet".into();
    assert_eq!(feed.next().await, (10, None));
    feed.task.abort();
}

#[tokio::test]
async fn with_a_second_node_a_wrong_network_is_passed_over() {
    let (wrong, right) = (node(), node());
    *wrong.name.lock().unwrap() = Some("wrong".into());
    *wrong.network.lock().unwrap() = "calibnet".into();
    *right.head.lock().unwrap() = Some(at(10));
    let settings =
        LinkSettings { network: Some("devnet".into()), retry_first: Duration::from_millis(1), ..Default::default() };
    let nodes: Vec<Arc<dyn FullNode>> = vec![wrong, right];
    let pool = Pool::new(nodes, &settings);
    let (sender, mut heights) = mpsc::unbounded_channel();
    let shared = pool.clone();
    let task = tokio::spawn(async move {
        let tell = move |update: bulkhead::actors::daemon_link::messages::HeadUpdate| {
            let _ = sender.send(update.tipset.height);
        };
        follow(&shared, &settings, tell, |_| {}).await
    });
    assert_eq!(heights.recv().await, Some(10));
    assert_eq!(pool.health().iter().map(|h| h.wrong_network).collect::<Vec<_>>(), [true, false]);
    task.abort();
}

/// Heads that come before their time show that this host's clock is behind; the feed says so, and when it is over.
#[tokio::test]
async fn a_clock_that_disagrees_with_the_chain_is_measured() {
    let node = node();
    *node.block_delay.lock().unwrap() = Some(30);
    *node.head.lock().unwrap() = Some(at(10));
    let channel = node.channel();
    // Epoch 10 is at 1,000,300 s.
    let clock = WallClock(|| Duration::from_millis(1_000_325_500));
    let mut feed = started_with(&node, LinkSettings { clock, ..Default::default() });
    assert_eq!(feed.next().await, (10, None));
    channel.send(apply(at(11))).await.unwrap();
    assert_eq!(feed.next().await, (11, None));
    let status = feed.status.lock().unwrap().clone();
    assert_eq!(status.clock_offset_ms, Some(-4500));
    assert!(status.clock_skew.as_ref().is_some_and(|why| why.contains("4.5 s behind")), "{status:?}");
}

/// A node that is not used any more is left though its channel is open and its silence would last for hours.
#[tokio::test]
async fn the_feed_leaves_a_node_the_moment_it_is_not_used() {
    let (first, second) = (node(), node());
    for (node, name, height) in [(&first, "first", 10), (&second, "second", 11)] {
        *node.name.lock().unwrap() = Some(name.into());
        *node.block_delay.lock().unwrap() = Some(3600);
        *node.head.lock().unwrap() = Some(at(height));
    }
    let (_open, heads) = (first.channel(), second.channel());
    let settings = LinkSettings { retry_first: Duration::from_millis(1), ..Default::default() };
    let pool = Pool::new(vec![first, second], &settings);
    let (sender, mut heights) = mpsc::unbounded_channel();
    let shared = pool.clone();
    let task = tokio::spawn(async move {
        let tell = move |update: bulkhead::actors::daemon_link::messages::HeadUpdate| {
            let _ = sender.send(update.tipset.height);
        };
        follow(&shared, &settings, tell, |_| {}).await
    });
    assert_eq!(heights.recv().await, Some(10));
    let at_height = |name: &str, height| Health { height: Some(height), ..Health::of(name) };
    // A check that finds nothing wrong changes nothing; the next one finds it three epochs behind.
    pool.shared().report(vec![at_height("first", 10), at_height("second", 11)]);
    pool.shared().report(vec![at_height("first", 10), at_height("second", 13)]);
    let next = tokio::time::timeout(Duration::from_secs(20), heights.recv()).await;
    assert_eq!(next.expect("the other node's head"), Some(11));
    heads.send(apply(at(12))).await.unwrap();
    assert_eq!(heights.recv().await, Some(12), "its channel");
    task.abort();
}

/// The node that is left was ahead: the other one's lower head is no step back, and each head comes once.
#[tokio::test]
async fn a_node_that_is_behind_takes_no_head_back() {
    let (first, second) = (node(), node());
    for (node, name, height) in [(&first, "first", 11), (&second, "second", 10)] {
        *node.name.lock().unwrap() = Some(name.into());
        *node.block_delay.lock().unwrap() = Some(3600);
        *node.head.lock().unwrap() = Some(at(height));
    }
    let (_open, heads) = (first.channel(), second.channel());
    let settings = LinkSettings { retry_first: Duration::from_millis(1), ..Default::default() };
    let pool = Pool::new(vec![first, second.clone()], &settings);
    let (sender, mut told) = mpsc::unbounded_channel();
    let shared = pool.clone();
    let task = tokio::spawn(async move {
        let tell = move |update: bulkhead::actors::daemon_link::messages::HeadUpdate| {
            let _ = sender.send((update.tipset.height, update.reverted_to));
        };
        follow(&shared, &settings, tell, |_| {}).await
    });
    assert_eq!(told.recv().await, Some((11, None)));
    pool.shared().report(vec![Health { error: Some("refused".into()), ..Health::of("first") }]);
    heads.send(vec![HeadChange { kind: HeadChangeType::Current, val: at(10) }]).await.unwrap();
    heads.send(apply(at(11))).await.unwrap();
    heads.send(apply(at(12))).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
    assert_eq!(next.expect("a head"), Some((12, None)));
    assert!(second.count("chain_head") > 0, "it was asked for its head");
    task.abort();
}
