//! `chain`: the full nodes, the head feed, the miner's messages.

use super::{Children, MINUTE, Parts};
use crate::actors::daemon_link::pool::Pool;
use crate::actors::daemon_link::{DaemonPool, HeadFeed};
use crate::actors::message_sender::{MessageSender, NodeWallet, SenderDeps};
use crate::node::concern::Concern;
use crate::supervisor::{ChildSpec, Strategy, SupervisorSpec, Thread};
use std::sync::Arc;

/// A feed that has to be made anew makes the message sender look at the chain anew.
pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let pool = Pool::new(vec![parts.links.chain.clone()], &parts.settings.link);
    SupervisorSpec::new("chain").strategy(Strategy::RestForOne).intensity(5, MINUTE).children([
        Some(daemon_pool(parts, &pool)),
        Some(head_feed(parts, &pool)),
        message_sender(parts),
    ])
}

fn daemon_pool(parts: &Parts, pool: &Pool) -> ChildSpec {
    let (pool, link) = (pool.clone(), parts.settings.link.clone());
    ChildSpec::actor("daemon_pool", &parts.refs.pool, move |cx| {
        let (pool, link) = (pool.clone(), link.clone());
        async move { DaemonPool::start(cx, pool, link).await }
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
    let sender = parts.seated(Concern::MessageSender, &parts.refs.messages, move |cx, store| {
        cx.join(&heads);
        let signer = Arc::new(NodeWallet(node.clone()));
        let settings = live.load().messages.clone();
        let deps = SenderDeps { node: node.clone(), signer, store, miner, settings };
        async move { MessageSender::start(cx, deps).await }
    });
    sender.map(|sender| sender.on(Thread::Dedicated))
}
