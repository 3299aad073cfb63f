//! When a round begins, on which base, and when it is pointless to go on. Pure: heads, times and ends in, actions out.

use crate::chain::ChainEpoch;
use crate::chain::types::TipSet;
use std::sync::Arc;
use std::time::Duration;

/// A tipset to mine on, and the null rounds since.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    pub tipset: Arc<TipSet>,
    pub nulls: u64,
}

impl Base {
    pub fn round(&self) -> ChainEpoch {
        self.tipset.height + self.nulls as i64 + 1
    }
    fn timestamp(&self) -> u64 {
        self.tipset.blocks.iter().map(|block| block.timestamp).min().unwrap_or_default()
    }
    /// Unix seconds of a block of this round: the network checks it to the second.
    pub fn block_time(&self, block_delay: Duration) -> u64 {
        self.timestamp().saturating_add(block_delay.as_secs().saturating_mul(self.nulls + 1))
    }
    /// When to start: the base counts as complete.
    pub fn start_time(&self, timing: &RoundTiming) -> Duration {
        let nulls = u32::try_from(self.nulls).unwrap_or(u32::MAX);
        Duration::from_secs(self.timestamp()) + timing.block_delay.saturating_mul(nulls) + timing.propagation
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTiming {
    pub block_delay: Duration,
    pub propagation: Duration,
}

impl RoundTiming {
    pub fn new(block_delay: Duration, propagation: Option<Duration>) -> RoundTiming {
        let block_delay = block_delay.max(Duration::from_secs(1));
        RoundTiming { block_delay, propagation: propagation.unwrap_or(block_delay / 3).min(block_delay) }
    }
}

pub type RoundId = u64;

#[derive(Clone, Debug, PartialEq)]
pub enum RoundAction {
    Start {
        id: RoundId,
        base: Base,
    },
    /// Drop the work of that round; it counts as late for that reason.
    Abort {
        id: RoundId,
        why: String,
    },
    /// Call `wake` at that time (since the Unix epoch).
    WakeAt(Duration),
}

struct RunningRound {
    id: RoundId,
    base: Base,
    /// The block is on its way to the node: what the head does now no longer matters.
    submitting: bool,
}

pub struct Rounds {
    timing: RoundTiming,
    base: Option<Base>,
    running: Option<RunningRound>,
    last_start: Option<Duration>,
    ids: RoundId,
}

impl Rounds {
    pub fn new(timing: RoundTiming) -> Rounds {
        Rounds { timing, base: None, running: None, last_start: None, ids: 0 }
    }

    pub fn timing(&self) -> &RoundTiming {
        &self.timing
    }
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }
    pub fn running(&self) -> Option<(RoundId, &Base)> {
        self.running.as_ref().map(|running| (running.id, &running.base))
    }

    pub fn head(&mut self, head: Arc<TipSet>, now: Duration) -> Vec<RoundAction> {
        let mut out = Vec::new();
        if self.base.as_ref().is_some_and(|base| base.tipset.cids == head.cids) {
            return out;
        }
        if let Some(why) = self.running.as_ref().and_then(|running| pointless(running, &head)) {
            let id = self.running.take().map(|running| running.id).unwrap_or_default();
            out.push(RoundAction::Abort { id, why });
        }
        // The same height with other blocks: the null rounds since have been tried already.
        let nulls = match &self.base {
            Some(base) if base.tipset.height == head.height => base.nulls,
            _ => 0,
        };
        self.base = Some(Base { tipset: head, nulls });
        self.last_start = None;
        self.advance(now, &mut out);
        out
    }

    pub fn wake(&mut self, now: Duration) -> Vec<RoundAction> {
        let mut out = Vec::new();
        self.advance(now, &mut out);
        out
    }

    /// The round's block was recorded and goes to the node. False: the round was aborted in between, do not send.
    pub fn submitting(&mut self, id: RoundId) -> bool {
        match &mut self.running {
            Some(running) if running.id == id => {
                running.submitting = true;
                true
            }
            _ => false,
        }
    }

    /// The round is over, won or not. The next one on the same base counts one null round more.
    pub fn ended(&mut self, id: RoundId, now: Duration) -> Vec<RoundAction> {
        let mut out = Vec::new();
        let Some(running) = self.running.take_if(|running| running.id == id) else { return out };
        if let Some(base) = &mut self.base
            && base.tipset.height == running.base.tipset.height
        {
            base.nulls = base.nulls.max(running.base.nulls + 1);
        }
        self.advance(now, &mut out);
        out
    }

    fn advance(&mut self, now: Duration, out: &mut Vec<RoundAction>) {
        if self.running.is_some() {
            return;
        }
        let Some(base) = self.base.clone() else { return };
        // On a chain that stood still, null rounds are tried one a block delay, not all at once.
        let paced = self.last_start.filter(|_| base.nulls > 0).map(|last| last + self.timing.block_delay);
        let at = base.start_time(&self.timing).max(paced.unwrap_or_default());
        if now < at {
            out.push(RoundAction::WakeAt(at));
            return;
        }
        self.ids += 1;
        self.last_start = Some(now);
        self.running = Some(RunningRound { id: self.ids, base: base.clone(), submitting: false });
        out.push(RoundAction::Start { id: self.ids, base });
    }
}

/// Why a round need not go on after `head` came.
fn pointless(running: &RunningRound, head: &TipSet) -> Option<String> {
    let base = &running.base;
    let round = base.round();
    if running.submitting {
        None
    } else if head.height >= round {
        Some(format!("the chain reached epoch {} before the block of round {round} was ready", head.height))
    } else if head.height > base.tipset.height {
        Some(format!("a later base came: epoch {}", head.height))
    } else if head.height < base.tipset.height {
        Some(format!("the base at epoch {} was taken back", base.tipset.height))
    } else if intersect(&base.tipset, head).is_none() {
        Some(format!("the base at epoch {} was replaced", base.tipset.height))
    } else {
        None
    }
}

/// The blocks of `old` that are still in `new`, in the old order: drops blocks of miners who made two, adds none.
/// `None`: no block is left.
pub fn intersect(old: &TipSet, new: &TipSet) -> Option<TipSet> {
    if old.height != new.height {
        return None;
    }
    let kept = old.cids.iter().zip(&old.blocks).filter(|(cid, _)| new.cids.contains(cid));
    let (cids, blocks): (Vec<_>, Vec<_>) = kept.map(|(cid, block)| (*cid, block.clone())).unzip();
    (!cids.is_empty()).then_some(TipSet { cids, blocks, height: old.height })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
