//! The seal schedulers of one miner, one per node: asked together, and one that does not answer is named, not left out.

use crate::actors::seal_scheduler::SealScheduler;
use crate::node::mailbox::MAILBOX;
use crate::supervisor::{CallError, Handler, Message, Ref};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A seal scheduler whose part is lacking in an answer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    pub node: String,
    pub why: String,
}

#[derive(Clone)]
struct Shard {
    at: Ref<SealScheduler>,
    /// Why it cannot be asked at all.
    gone: Option<String>,
}

/// The shards by the name of their node. A node that runs alone has one.
pub struct Shards {
    own: Option<String>,
    all: ArcSwap<BTreeMap<String, Shard>>,
}

/// The answers, and the nodes that gave none.
pub struct Gathered<T> {
    pub found: Vec<(String, T)>,
    pub missing: Vec<MissingShard>,
}

impl Shards {
    /// `own`: this node's, if its roles allow one.
    pub(super) fn new(own: Option<(String, Ref<SealScheduler>)>) -> Shards {
        let name = own.as_ref().map(|(node, _)| node.clone());
        let all = own.map(|(node, at)| (node, Shard { at, gone: None })).into_iter().collect();
        Shards { own: name, all: ArcSwap::from_pointee(all) }
    }

    /// A shard of another node; the one that is known already keeps its address.
    pub(super) fn know(&self, node: &str, path: &str, gone: Option<String>) -> Ref<SealScheduler> {
        let known = self.all.load();
        let at = known.get(node).map_or_else(|| Ref::new(path, MAILBOX), |shard| shard.at.clone());
        if known.get(node).is_none_or(|shard| shard.gone != gone) {
            let mut next = (**known).clone();
            next.insert(node.to_string(), Shard { at: at.clone(), gone });
            self.all.store(Arc::new(next));
        }
        at
    }

    /// Whether this node seals.
    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    pub fn nodes(&self) -> Vec<String> {
        self.all.load().keys().cloned().collect()
    }

    pub fn at(&self, node: &str) -> Option<Ref<SealScheduler>> {
        self.all.load().get(node).map(|shard| shard.at.clone())
    }

    /// Asks all of them at once.
    pub async fn gather<M>(&self, within: Duration, message: impl Fn() -> M) -> Gathered<M::Reply>
    where
        SealScheduler: Handler<M>,
        M: Message,
    {
        let ask = |at: Ref<SealScheduler>| {
            let message = message();
            async move { at.ask(message, within).await.map_err(|e: CallError<M>| e.to_string()) }
        };
        self.gather_by(ask).await
    }

    /// As [`Self::gather`], with questions of the caller's to each.
    pub async fn gather_by<T, F>(&self, ask: impl Fn(Ref<SealScheduler>) -> F) -> Gathered<T>
    where
        F: Future<Output = Result<T, String>>,
    {
        let shards = self.all.load_full();
        let asks = shards.iter().map(|(node, shard)| {
            let asked = match &shard.gone {
                Some(why) => Err(why.clone()),
                None => Ok(ask(shard.at.clone())),
            };
            async move {
                match asked {
                    Ok(asked) => (node.clone(), asked.await),
                    Err(why) => (node.clone(), Err(why)),
                }
            }
        });
        let mut gathered = Gathered { found: Vec::new(), missing: Vec::new() };
        for (node, answer) in futures::future::join_all(asks).await {
            match answer {
                Ok(part) => gathered.found.push((node, part)),
                Err(why) => gathered.missing.push(MissingShard { node, why }),
            }
        }
        gathered
    }
}
