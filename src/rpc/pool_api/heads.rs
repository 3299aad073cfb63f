//! The one head feed of a process, for any number of subscribers over its API: `ChainNotify` of the pool.
//!
//! Each subscriber hears the present head first, then every revert and apply once and in order, whichever node they came
//! from. A batch is written as JSON once for all of them.

use crate::chain::ChainEpoch;
use crate::chain::types::{HeadChangeType, TipSet};
use crate::rpc::server::{Channel, RpcError};
use crate::util::lock;
use futures::{StreamExt, stream};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

/// Batches that wait for a subscriber; one that is further behind loses its channel.
const BEHIND: usize = 256;
/// Tipsets that can be reverted one by one.
const REMEMBERED: usize = 900;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    r#type: HeadChangeType,
    val: &'a TipSet,
}

/// The chain as the subscribers know it. Oldest first; each one's parent is the one before it.
#[derive(Default)]
struct Chain(VecDeque<Arc<TipSet>>);

/// The effect of a head on the chain.
#[derive(Debug, PartialEq)]
enum Step {
    /// The tipsets that are taken back, newest first, and the one that is added, if any.
    Changes(Vec<Arc<TipSet>>, Option<Arc<TipSet>>),
    /// Nothing leads from the chain to the head: whoever heard of it so far must begin anew.
    Gap,
}

impl Chain {
    /// `reverted_to`: the height of the last tipset that stays; `None`: all stay.
    fn head(&mut self, tipset: &Arc<TipSet>, reverted_to: Option<ChainEpoch>) -> Step {
        let mut reverted = Vec::new();
        while let Some(last) = self.0.back().filter(|last| reverted_to.is_some_and(|to| last.height > to)) {
            reverted.push(last.clone());
            self.0.pop_back();
        }
        let last = self.0.back();
        if last.is_some_and(|last| last.cids == tipset.cids) {
            return Step::Changes(reverted, None);
        }
        let parents = tipset.blocks.first().map(|block| block.parents.as_slice()).unwrap_or_default();
        let leads_on = last.is_some_and(|last| last.cids == parents);
        if !leads_on {
            self.0.clear();
        }
        self.0.push_back(tipset.clone());
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
        if leads_on { Step::Changes(reverted, Some(tipset.clone())) } else { Step::Gap }
    }
}

struct State {
    chain: Chain,
    /// Made anew at a gap: the channels of before end.
    batches: broadcast::Sender<Arc<str>>,
}

/// Shared by the actor that hears of heads and the server that passes them on.
pub struct HeadFan {
    state: Mutex<State>,
    /// True from the first head on.
    any: watch::Sender<bool>,
}

impl Default for HeadFan {
    fn default() -> HeadFan {
        let state = State { chain: Chain::default(), batches: broadcast::Sender::new(BEHIND) };
        HeadFan { state: Mutex::new(state), any: watch::Sender::new(false) }
    }
}

fn text<'a>(changes: impl Iterator<Item = (HeadChangeType, &'a Arc<TipSet>)>) -> serde_json::Result<Arc<str>> {
    let batch: Vec<Change> = changes.map(|(r#type, val)| Change { r#type, val }).collect();
    serde_json::to_string(&batch).map(Arc::from)
}

impl HeadFan {
    /// A new head; costs one JSON text, whatever the number of subscribers.
    pub fn head(&self, tipset: &Arc<TipSet>, reverted_to: Option<ChainEpoch>) {
        let mut state = lock(&self.state);
        let batch = match state.chain.head(tipset, reverted_to) {
            Step::Gap => None,
            Step::Changes(reverted, None) if reverted.is_empty() => return,
            Step::Changes(reverted, applied) => {
                let reverted = reverted.iter().map(|tipset| (HeadChangeType::Revert, tipset));
                text(reverted.chain(applied.iter().map(|tipset| (HeadChangeType::Apply, tipset)))).ok()
            }
        };
        match batch {
            Some(batch) => drop(state.batches.send(batch)), // nobody listens
            None => state.batches = broadcast::Sender::new(BEHIND),
        }
        drop(state);
        self.any.send_replace(true);
    }

    /// The head first, as `current`; before the first of all it is waited for, `within`. Ends at a gap, and for a subscriber that is too far behind.
    pub async fn subscribe(&self, within: Duration) -> Result<Channel, RpcError> {
        let mut any = self.any.subscribe();
        let first = timeout(within, any.wait_for(|any| *any)).await;
        if !matches!(first, Ok(Ok(_))) {
            return Err(RpcError::verdict("no head has come from any full node yet"));
        }
        drop(first);
        let (current, batches) = {
            let state = lock(&self.state);
            let current = state.chain.0.back().map(|head| (HeadChangeType::Current, head));
            (text(current.into_iter()), state.batches.subscribe())
        };
        let current = current.map_err(|why| RpcError::verdict(why.to_string()))?;
        let later = stream::unfold(batches, async |mut batches| match batches.recv().await {
            Ok(batch) => Some((batch, batches)),
            Err(broadcast::error::RecvError::Lagged(behind)) => {
                tracing::info!(behind, "a subscriber of the pool's heads is too slow: its channel ends");
                None
            }
            Err(broadcast::error::RecvError::Closed) => None,
        });
        Ok(stream::once(std::future::ready(current)).chain(later).boxed())
    }
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;
