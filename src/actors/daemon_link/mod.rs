//! The full nodes behind a provider: which are usable, and ONE feed of their heads.
//!
//! [`feed`] decides what a head means, [`follow`] keeps the subscription alive; the actors below own both.

mod error;
pub mod feed;
pub mod follow;
pub mod lag;
pub mod messages;
pub mod pool;
pub mod pool_heads;
pub mod settings;
pub mod skew;
use crate::rpc::full_node::FullNode;
use crate::supervisor::{Actor, CallError, Cx, Exit, Handler, Message, Recipient, StartError};
pub use error::LinkError;
use messages::{FeedInfo, FeedStatus, HeadUpdate, PoolInfo};
use pool::{Health, Pool};
use settings::LinkSettings;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Checks the health of every node, so that the others know which to use.
pub struct DaemonPool {
    pool: Pool,
}

impl DaemonPool {
    pub async fn start(cx: Cx<Self>, pool: Pool, settings: LinkSettings) -> Result<Self, StartError> {
        let (watched, myself) = (pool.clone(), cx.clone());
        cx.spawn_detached(async move {
            loop {
                check_all(&watched, &settings).await;
                let (health, now) = (watched.health(), (settings.clock.0)());
                let lagging = pool::lagging(&health, now, settings.max_lag);
                let away = pool::all_away(&health);
                // Soon again: the node counts as not ready until it is over, and calls wait for a node.
                let soon = lagging.is_some() || away.is_some();
                let pause = if soon { settings.check_lagging_every } else { settings.check_every };
                myself.trouble(away.or(lagging));
                let checked = tokio::time::Instant::now();
                let _ = tokio::time::timeout(pause, watched.shared().suspected()).await;
                tokio::time::sleep_until(checked + pause.min(settings.check_lagging_every)).await;
            }
        });
        Ok(DaemonPool { pool })
    }
}

/// One round over all nodes, at the same time. A node that hangs is not waited for longer than the others need to be known.
pub async fn check_all(pool: &Pool, settings: &LinkSettings) {
    let checks = pool.nodes().into_iter().map(|node| async move {
        let checked = tokio::time::timeout(settings.check_within, check(&*node, settings)).await;
        let failed = |error: String| Health { error: Some(error), ..Health::of(&node.name()) };
        checked.unwrap_or_else(|_| failed(format!("no answer to a check within {:?}", settings.check_within)))
    });
    pool.shared().report(futures::future::join_all(checks).await);
}

/// One node's own account of itself. A failure of the optional questions (weight, peers, sync) leaves a `None`.
async fn check(node: &dyn FullNode, settings: &LinkSettings) -> Health {
    let mut health = Health::of(&node.name());
    let asked = async {
        let params = follow::check_network(node, settings.network.as_deref()).await?;
        Ok::<_, LinkError>((node.chain_head().await?, params.block_delay_secs))
    };
    match asked.await {
        Ok((head, block_delay_secs)) => {
            health.height = Some(head.height);
            health.head_at = head.blocks.first().map(|block| block.timestamp);
            health.block_delay_secs = Some(block_delay_secs);
            let key = head.key();
            let (weight, sync, peers) =
                tokio::join!(node.chain_tip_set_weight(&key), node.sync_behind(), node.gossip_peers());
            health.weight = weight.ok().map(|weight| weight.to_string());
            health.sync_behind = sync.ok().flatten();
            if let Ok(Some(peers)) = peers {
                (health.message_peers, health.block_peers) = (Some(peers.messages), Some(peers.blocks));
            }
        }
        Err(error) => {
            health.wrong_network = matches!(error, LinkError::WrongNetwork { .. });
            health.error = Some(error.to_string());
        }
    }
    health
}

impl Actor for DaemonPool {
    fn inspect(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "nodes": self.pool.health() }))
    }
}

impl Handler<PoolInfo> for DaemonPool {
    async fn handle(&mut self, _: PoolInfo, _cx: &Cx<Self>) -> Result<Vec<Health>, Exit> {
        Ok(self.pool.health())
    }
}

/// Returns the present recipients of heads; called for each head.
pub type Subscribers = Arc<dyn Fn() -> Vec<Recipient<HeadUpdate>> + Send + Sync>;

/// Pushes every new head to its subscribers.
pub struct HeadFeed {
    status: Rc<RefCell<FeedStatus>>,
}

impl HeadFeed {
    /// Starts also while no node can be reached, or none of the right network: it tries until one can.
    pub async fn start(
        cx: Cx<Self>,
        pool: Pool,
        subscribers: Subscribers,
        settings: LinkSettings,
    ) -> Result<Self, StartError> {
        let status = Rc::new(RefCell::new(FeedStatus::default()));
        let (shown, myself) = (status.clone(), cx.clone());
        cx.spawn(async move {
            let tell = |update: HeadUpdate| {
                for subscriber in subscribers() {
                    push(&subscriber, update.clone());
                }
            };
            let publish = |status: &FeedStatus| {
                // Heads that are polled come, too.
                myself.trouble(status.last_error.clone().filter(|_| !status.subscribed && !status.polling));
                *shown.borrow_mut() = status.clone();
            };
            FeedEnded(follow::follow(&pool, &settings, tell, publish).await)
        });
        Ok(HeadFeed { status })
    }
}

/// A subscriber that restarts or is overrun misses this head and gets the next.
fn push(subscriber: &Recipient<HeadUpdate>, update: HeadUpdate) {
    let height = update.tipset.height;
    match subscriber.tell(update) {
        Ok(()) | Err(CallError::NotRunning(_) | CallError::Restarting(_)) => {}
        Err(error) => tracing::warn!(subscriber = subscriber.path(), height, %error, "a head was not delivered"),
    }
}

struct FeedEnded(LinkError);
impl Message for FeedEnded {
    type Reply = ();
}

impl Actor for HeadFeed {
    fn inspect(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "feed": *self.status.borrow() }))
    }
}

impl Handler<FeedEnded> for HeadFeed {
    async fn handle(&mut self, FeedEnded(error): FeedEnded, _cx: &Cx<Self>) -> Result<(), Exit> {
        Err(Exit::failed(error))
    }
}

impl Handler<FeedInfo> for HeadFeed {
    async fn handle(&mut self, _: FeedInfo, _cx: &Cx<Self>) -> Result<FeedStatus, Exit> {
        Ok(self.status.borrow().clone())
    }
}
