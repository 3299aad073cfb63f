//! `chain`: the full nodes, the head feed, the miner's messages.

use super::parts::{Children, MINUTE, Parts, holding_down};
use crate::actors::daemon_link::pool::Pool;
use crate::actors::daemon_link::{DaemonPool, HeadFeed, NodesSupervisor};
use crate::actors::message_sender::{MessageSender, NodeWallet, SenderDeps};
use crate::node::concern::Concern;
use crate::rpc::full_node::pool::view::MOST_NODES;
use crate::supervisor::{BudgetSpent, ChildSpec, Strategy, SupervisorSpec, Thread};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of a child that crashes again and again: proving waits for heads and for its messages.
const CHAIN_RETRY: Duration = Duration::from_secs(10);

/// A feed that has to be made anew makes the message sender look at the chain anew. A crash loop of one is held down while
/// the others go on: proving reads the chain over a link of its own, and needs of this group its heads and its messages.
/// Without a stable feed or sender for ten minutes the group is made anew; the fourth such end within an hour is the
/// process's.
pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let chain = &parts.links.chain;
    let pool = match chain.pool() {
        Some(pool) => Pool::of(pool.clone()),
        None => Pool::new(vec![chain.clone()], &parts.settings.link),
    };
    let group = holding_down("chain", 5, MINUTE, CHAIN_RETRY)
        .strategy(Strategy::RestForOne)
        .on_budget_spent(BudgetSpent::HoldDown { escalate_after: Some(MINUTE * 10) });
    group.children([
        Some(nodes()),
        Some(daemon_pool(parts, &pool).may_start_later()),
        Some(head_feed(parts, &pool)),
        message_sender(parts),
    ])
}

/// An actor for each full node of the pool, by its address. Each is held down alone, so that no end of one is an end of the
/// others, of the feed or of the sender; the pool's actor starts and ends them.
fn nodes() -> ChildSpec {
    ChildSpec::supervisor(holding_down("nodes", 5, MINUTE, CHAIN_RETRY).dynamic(MOST_NODES))
}

fn daemon_pool(parts: &Parts, pool: &Pool) -> ChildSpec {
    let (pool, link, tree) = (pool.clone(), parts.settings.link.clone(), parts.tree.clone());
    let nodes: NodesSupervisor = Arc::new(move || tree.get()?.upgrade()?.supervisor("root/chain/nodes"));
    ChildSpec::actor("daemon_pool", &parts.refs.pool, move |cx| {
        let (pool, nodes, link) = (pool.clone(), nodes.clone(), link.clone());
        async move { DaemonPool::start(cx, pool, nodes, link).await }
    })
    .on(Thread::Shared("chain"))
}

/// Every node has its own, for those of its concerns that run here.
fn head_feed(parts: &Parts, pool: &Pool) -> ChildSpec {
    let (pool, link) = (pool.clone(), parts.settings.link.clone());
    let subscribers = parts.heads.subscribers();
    ChildSpec::actor("head_feed", &parts.refs.feed, move |cx| {
        let (pool, link, subscribers) = (pool.clone(), link.clone(), subscribers.clone());
        async move { HeadFeed::start(cx, pool, subscribers, link).await }
    })
    .on(Thread::Shared("chain"))
}

fn message_sender(parts: &Parts) -> Option<ChildSpec> {
    let (node, miner, live) = (parts.links.chain.clone(), parts.miner, parts.live());
    let heads = parts.heads.others.clone();
    let sender = parts.leased_child(Concern::MessageSender, &parts.refs.messages, move |cx, store| {
        cx.join(&heads);
        let wallet = Arc::new(NodeWallet(node.clone()));
        let settings = live.load().messages.clone();
        let deps = SenderDeps { node: node.clone(), wallet, store, miner, settings };
        async move { MessageSender::start(cx, deps).await }
    });
    sender.map(|sender| sender.on(Thread::Dedicated))
}
