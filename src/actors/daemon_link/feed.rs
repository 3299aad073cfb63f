//! Compares a new head with the last: tipsets that subscribers have not seen, how far the chain went back, what is
//! missing. Pure.

use super::messages::HeadUpdate;
use crate::chain::ChainEpoch;
use crate::chain::types::{HeadChange, HeadChangeType, TipSet, TipSetKey};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The next action for a head.
#[derive(Debug)]
pub enum FeedStep {
    /// Nothing new.
    Known,
    /// Tell these, in order.
    Tell(Vec<HeadUpdate>),
    /// That tipset is missing in between: fetch it and give it to [`Feed::fetched`], or call [`Feed::jump`].
    Fetch(TipSetKey),
}

/// The chain as it was told so far, and the head that is being connected to it.
pub struct Feed {
    /// Oldest first; each one's parent is the one before it.
    told: VecDeque<Arc<TipSet>>,
    /// From the new head down; each one is the child of the next.
    path: Vec<Arc<TipSet>>,
    /// Tipsets of the present batch that may lie on the path.
    at_hand: HashMap<TipSetKey, Arc<TipSet>>,
    max_gap: usize,
    remembered: usize,
}

fn parents(tipset: &TipSet) -> TipSetKey {
    TipSetKey(tipset.blocks.first().map(|block| block.parents.clone()).unwrap_or_default())
}

impl Feed {
    pub fn new(max_gap: usize, remembered: usize) -> Feed {
        let (told, path, at_hand) = (VecDeque::new(), Vec::new(), HashMap::new());
        Feed { told, path, at_hand, max_gap: max_gap.max(1), remembered: remembered.max(2) }
    }

    pub fn head(&self) -> Option<&Arc<TipSet>> {
        self.told.back()
    }

    /// A batch from the channel.
    pub fn batch(&mut self, batch: Vec<HeadChange>) -> FeedStep {
        self.at_hand.clear();
        let told = self.told.back().map(|tipset| tipset.key());
        let took_back_head = batch.iter().any(|c| c.kind == HeadChangeType::Revert && Some(c.val.key()) == told);
        let mut target = None;
        for change in batch {
            let tipset = Arc::new(change.val);
            match change.kind {
                HeadChangeType::Current | HeadChangeType::Apply => {
                    self.at_hand.insert(tipset.key(), tipset.clone());
                    target = Some(Target::Tipset(tipset));
                }
                // Only taken back: the head is the parent, unless an Apply follows.
                HeadChangeType::Revert => target = Some(Target::Parent(parents(&tipset))),
            }
        }
        match target {
            None => FeedStep::Known,
            Some(Target::Tipset(tipset)) => self.connect(tipset, took_back_head),
            Some(Target::Parent(_)) if !took_back_head => FeedStep::Known,
            Some(Target::Parent(key)) => match self.told.iter().find(|tipset| tipset.key() == key) {
                Some(tipset) => self.connect(tipset.clone(), true),
                // Taken back further than we remember: the next Apply leads on from there.
                None => FeedStep::Known,
            },
        }
    }

    /// A head that was asked for. One that was told before is an old answer, not a revert.
    pub fn polled(&mut self, head: TipSet) -> FeedStep {
        self.at_hand.clear();
        self.connect(Arc::new(head), false)
    }

    fn connect(&mut self, head: Arc<TipSet>, may_go_back: bool) -> FeedStep {
        self.path.clear();
        if head.blocks.is_empty() {
            return FeedStep::Known;
        }
        if let Some(place) = self.told.iter().rposition(|tipset| tipset.cids == head.cids) {
            if !may_go_back || place + 1 == self.told.len() {
                return FeedStep::Known;
            }
            self.told.truncate(place + 1);
            let reverted_to = Some(head.height);
            return FeedStep::Tell(vec![HeadUpdate { tipset: head, reverted_to }]);
        }
        // The parent of the first that was told, from a node that is one behind: as old as one that was told.
        if !may_go_back && self.told.front().is_some_and(|oldest| parents(oldest) == head.key()) {
            return FeedStep::Known;
        }
        self.path.push(head);
        self.resolve()
    }

    /// The tipset that [`FeedStep::Fetch`] asked for.
    pub fn fetched(&mut self, tipset: TipSet) -> FeedStep {
        let wanted = self.path.last().map(|child| parents(child));
        if wanted != Some(tipset.key()) || tipset.blocks.is_empty() {
            return self.jump();
        }
        self.path.push(Arc::new(tipset));
        self.resolve()
    }

    /// The gap cannot be filled: go on from what is there.
    pub fn jump(&mut self) -> FeedStep {
        let lowest = self.path.last().map(|tipset| tipset.height);
        let last = self.told.back().map(|tipset| tipset.height);
        self.told.clear();
        // Below or at what was told, it is another chain. Above, nobody can tell; what depends on it is checked again.
        let reverted_to: Option<ChainEpoch> = match (lowest, last) {
            (Some(lowest), Some(last)) if lowest <= last => Some(lowest - 1),
            _ => None,
        };
        self.tell(reverted_to)
    }

    fn resolve(&mut self) -> FeedStep {
        loop {
            let Some(lowest) = self.path.last() else { return FeedStep::Known };
            let parent = parents(lowest);
            // The first head of all, or genesis: nothing before it.
            if self.told.is_empty() || parent.0.is_empty() {
                return self.jump();
            }
            if let Some(place) = self.told.iter().rposition(|tipset| tipset.cids == parent.0) {
                let reverted_to = (place + 1 < self.told.len()).then(|| self.told[place].height);
                self.told.truncate(place + 1);
                return self.tell(reverted_to);
            }
            if let Some(oldest) = self.told.front() {
                // The same parent as the oldest that we know: they part right there.
                if parents(oldest) == parent {
                    let reverted_to = Some(oldest.height.min(lowest.height) - 1);
                    self.told.clear();
                    return self.tell(reverted_to);
                }
                // They part below all that we know: to go further down finds nothing.
                if lowest.height <= oldest.height {
                    return self.jump();
                }
            }
            if self.path.len() > self.max_gap {
                return self.jump();
            }
            match self.at_hand.remove(&parent) {
                Some(tipset) => self.path.push(tipset),
                None => return FeedStep::Fetch(parent),
            }
        }
    }

    fn tell(&mut self, reverted_to: Option<ChainEpoch>) -> FeedStep {
        let mut updates = Vec::new();
        while let Some(tipset) = self.path.pop() {
            let reverted_to = if updates.is_empty() { reverted_to } else { None };
            self.told.push_back(tipset.clone());
            updates.push(HeadUpdate { tipset, reverted_to });
        }
        while self.told.len() > self.remembered {
            self.told.pop_front();
        }
        if updates.is_empty() { FeedStep::Known } else { FeedStep::Tell(updates) }
    }
}

enum Target {
    Tipset(Arc<TipSet>),
    Parent(TipSetKey),
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
