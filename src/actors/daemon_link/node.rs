//! One full node of the pool as an actor: its heartbeat, over connections of its own. What breaks or hangs here is this node's
//! alone: neither the head feed nor the message sender nor another node's actor shares a thread or a restart with it.

use super::LinkError;
use super::follow;
use super::pool::{self, Health, Pool};
use super::settings::LinkSettings;
use crate::rpc::full_node::FullNode;
use crate::rpc::full_node::pool::Member;
use crate::supervisor::{Actor, ChildSpec, Cx, Ref, Shutdown, StartError, SupervisorRef, Thread};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Nobody sends it messages.
const MAILBOX: usize = 8;
/// It holds nothing that must be put away.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Its thread inside one turn for longer: hung. The default of actors that share a thread.
const HANG_AFTER: Duration = Duration::from_secs(30);
/// While the tree is not there yet, and after a change that its supervisor refused.
const SUPERVISOR_AGAIN: Duration = Duration::from_millis(50);
/// Between two comparisons of the actors with the pool, beside those after each change.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// The supervisor of the nodes' actors; `None`: the tree is not there yet.
pub type NodesSupervisor = Arc<dyn Fn() -> Option<SupervisorRef> + Send + Sync>;

pub struct NodeLink {
    pool: Pool,
    member: Arc<Member>,
}

impl NodeLink {
    pub async fn start(
        cx: Cx<Self>,
        pool: Pool,
        member: Arc<Member>,
        settings: LinkSettings,
    ) -> Result<Self, StartError> {
        let node = pool.connect(&member).map_err(|error| StartError(error.to_string()))?;
        let (reports, checked) = (pool.clone(), member.clone());
        cx.spawn_detached(async move { heartbeat(&reports, &checked, &*node, &settings).await });
        Ok(NodeLink { pool, member })
    }
}

async fn heartbeat(pool: &Pool, member: &Member, node: &dyn FullNode, settings: &LinkSettings) {
    loop {
        let found = timeout(settings.check_within, check(node, settings)).await;
        let silent = || format!("no answer to a check within {:?}", settings.check_within);
        let failed = |error: String| Health { error: Some(error), ..Health::of(&member.name) };
        pool.shared().report(vec![found.unwrap_or_else(|_| failed(silent()))]);
        let (health, now) = (pool.health(), (settings.clock.0)());
        // Soon again: the provider counts as not ready until it is over, and calls wait for a node.
        let soon = pool::lagging(&health, now, settings.max_lag).is_some() || pool::all_away(&health).is_some();
        let pause = if soon { settings.check_lagging_every } else { settings.check_every };
        let checked = Instant::now();
        let _ = timeout(pause, member.suspected()).await;
        sleep_until(checked + pause.min(settings.check_lagging_every)).await;
    }
}

/// The node's own account of itself. A failure of the optional questions (weight, peers, sync) leaves a `None`.
pub async fn check(node: &dyn FullNode, settings: &LinkSettings) -> Health {
    let mut health = Health::of(&node.name());
    let asked = async {
        let params = follow::check_network(node, settings.network.as_deref()).await?;
        Ok::<_, LinkError>((node.chain_head().await?, params))
    };
    match asked.await {
        Ok((head, params)) => {
            health.height = Some(head.height);
            health.head_at = head.blocks.first().map(|block| block.timestamp);
            health.block_delay_secs = Some(params.block_delay_secs);
            health.genesis_at = Some(params.genesis_timestamp).filter(|at| *at > 0);
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

impl Actor for NodeLink {
    fn inspect(&self) -> Option<serde_json::Value> {
        let health = self.pool.health().into_iter().find(|health| health.node == self.member.name);
        Some(serde_json::json!({
            "id": self.member.id,
            "host": self.member.host,
            "health": health,
            "calls": self.member.calls(),
            "breakers": self.member.breakers(),
        }))
    }
}

/// The actors of the pool's nodes, kept the same as the pool.
pub(super) struct NodeChildren {
    pub pool: Pool,
    /// The path of the pool's actor; the nodes' addresses are below it.
    pub path: String,
    pub settings: LinkSettings,
}

/// A node's place below their supervisor.
fn child_id(member: &Member) -> String {
    member.name.replace('/', "_")
}

type Members = BTreeMap<String, Arc<Member>>;

fn is_kept(kept: &Members, id: &str, member: &Arc<Member>) -> bool {
    kept.get(id).is_some_and(|kept| Arc::ptr_eq(kept, member))
}

impl NodeChildren {
    pub async fn keep(self, supervisor: NodesSupervisor) {
        let mut changed = self.pool.shared().watch();
        let (mut kept, mut compared) = (Members::new(), None);
        loop {
            changed.borrow_and_update();
            let members = self.pool.shared().members();
            let members: Members = members.into_iter().map(|member| (child_id(&member), member)).collect();
            // Every check of a node is a change of the pool; few are one of its members.
            let is_same = members.len() == kept.len() && members.iter().all(|(id, member)| is_kept(&kept, id, member));
            if !is_same || compared.is_none_or(|at: Instant| at.elapsed() >= COMPARE_EVERY) {
                let done = match supervisor() {
                    Some(supervisor) => self.compare(&supervisor, &members, &kept).await,
                    None => false,
                };
                compared = done.then(Instant::now);
                if !done {
                    sleep(SUPERVISOR_AGAIN).await;
                    continue;
                }
                kept = members;
            }
            let _ = timeout(COMPARE_EVERY, changed.changed()).await;
        }
    }

    /// False: something is left to do.
    async fn compare(&self, supervisor: &SupervisorRef, members: &Members, kept: &Members) -> bool {
        let Ok(running) = supervisor.which_children().await else { return false };
        let mut running: Vec<String> = running.into_iter().map(|(id, _)| id).collect();
        // A node that left and came back between two looks is another member.
        let stays =
            |id: &String| members.get(id).is_some_and(|member| !kept.contains_key(id) || is_kept(kept, id, member));
        let gone = running.iter().filter(|id| !stays(id));
        let ended = join_all(gone.map(|id| supervisor.try_terminate_child(id))).await;
        running.retain(stays);
        let new = members.iter().filter(|(id, _)| !running.contains(id));
        let started = join_all(new.map(|(id, member)| supervisor.try_start_child(self.child(id, member)))).await;
        let failed = ended.into_iter().chain(started).filter_map(Result::err);
        failed.map(|why| tracing::warn!(%why, "the actor of a full node")).count() == 0
    }

    fn child(&self, id: &str, member: &Arc<Member>) -> ChildSpec {
        let address = Ref::new(format!("{}/{id}", self.path), MAILBOX);
        let (pool, member, settings) = (self.pool.clone(), member.clone(), self.settings.clone());
        let start = move |cx| NodeLink::start(cx, pool.clone(), member.clone(), settings.clone());
        ChildSpec::actor(id, &address, start)
            .on(Thread::Dedicated)
            .hang_after(HANG_AFTER)
            .shutdown(Shutdown::Timeout(STOP_WITHIN))
    }
}
