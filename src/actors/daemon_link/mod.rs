//! The full nodes behind a provider: which are usable, and ONE feed of their heads.
//!
//! [`feed`] decides what a head means, [`follow`] keeps the subscription alive; the actors below own both. [`node`] has an
//! actor for each node.

mod error;
pub mod feed;
pub mod follow;
pub mod lag;
pub mod messages;
pub mod node;
pub mod pool;
pub mod pool_heads;
pub mod settings;
pub mod skew;
use crate::supervisor::{Actor, CallError, Cx, Exit, Handler, Message, Recipient, StartError};
pub use error::LinkError;
use messages::{FeedInfo, FeedStatus, HeadUpdate, PoolInfo};
use node::NodeChildren;
pub use node::NodesSupervisor;
use pool::{Health, Pool};
use settings::LinkSettings;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Has an actor run for each node of the pool, and says in the tree when no node can be used.
pub struct DaemonPool {
    pool: Pool,
}

impl DaemonPool {
    pub async fn start(
        cx: Cx<Self>,
        pool: Pool,
        nodes: NodesSupervisor,
        settings: LinkSettings,
    ) -> Result<Self, StartError> {
        let (watched, myself) = (pool.shared().clone(), cx.clone());
        let children = NodeChildren { pool: pool.clone(), path: cx.path().to_string(), settings: settings.clone() };
        cx.spawn_detached(async move { children.keep(nodes).await });
        cx.spawn_detached(async move {
            let mut changed = watched.watch();
            loop {
                changed.borrow_and_update();
                watched.expire(settings.stale_after());
                let (health, now) = (watched.health(), (settings.clock.0)());
                let lagging = pool::lagging(&health, now, settings.max_lag);
                myself.trouble(pool::all_away(&health).or(lagging));
                let _ = tokio::time::timeout(settings.check_lagging_every, changed.changed()).await;
            }
        });
        Ok(DaemonPool { pool })
    }
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
