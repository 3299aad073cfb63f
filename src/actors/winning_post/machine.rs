//! When a round begins, on which base, and when it is pointless to go on. Pure: heads, times and ends in, actions out.

use crate::actors::daemon_link::lag;
use crate::chain::types::TipSet;
use crate::chain::{Address, ChainEpoch};
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
    /// The end of the time in which others still take a block of this round beside one of its height that they have.
    pub fn taken_until(&self, timing: &RoundTiming) -> Duration {
        Duration::from_secs(self.block_time(timing.block_delay)) + timing.taken_for()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTiming {
    pub block_delay: Duration,
    pub propagation: Duration,
    /// Epochs that a base may lag the clock for a round to begin on it; 0: any number.
    pub max_lag: u64,
}

impl RoundTiming {
    pub fn new(block_delay: Duration, propagation: Option<Duration>, max_lag: u64) -> RoundTiming {
        let block_delay = block_delay.max(Duration::from_secs(1));
        let propagation = propagation.unwrap_or_else(|| network_propagation(block_delay)).min(block_delay);
        RoundTiming { block_delay, propagation, max_lag }
    }

    /// Time after a block's own during which others wait for more blocks of its height, whatever this node waits itself.
    fn taken_for(&self) -> Duration {
        self.propagation.max(network_propagation(self.block_delay))
    }

    /// The longest that the selection of a block's messages may take from `now` on. The block must be made and sent by
    /// its time, for which a tenth of the block delay is kept; one that is late gets no more than that, and half of the
    /// time in which it is still taken.
    pub fn select_allowance(&self, base: &Base, now: Duration) -> Duration {
        let tenth = self.block_delay / 10;
        let in_time = Duration::from_secs(base.block_time(self.block_delay)).saturating_sub(now + tenth);
        let late = match base.taken_until(self).saturating_sub(now) {
            // Nobody else has made a block of that height, or the round would be over.
            Duration::ZERO => tenth,
            left => tenth.min(left / 2),
        };
        in_time.max(late)
    }
}

/// Lotus' PropagationDelaySecs: 10 s on networks with 30 s.
fn network_propagation(block_delay: Duration) -> Duration {
    block_delay / 3
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
    /// A head of the round's own height is there: the time from which the block is not taken any more.
    until: Option<Duration>,
}

/// A round whose block is on its way to the node: no head stops it.
struct SentRound {
    id: RoundId,
    base: Base,
}

pub struct Rounds {
    timing: RoundTiming,
    miner: Address,
    base: Option<Base>,
    running: Option<RunningRound>,
    sent: Option<SentRound>,
    last_start: Option<Duration>,
    ids: RoundId,
}

impl Rounds {
    pub fn new(timing: RoundTiming, miner: Address) -> Rounds {
        Rounds { timing, miner, base: None, running: None, sent: None, last_start: None, ids: 0 }
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
    /// How far the base lags the clock, where that is too far to mine on it.
    pub fn lags(&self, now: Duration) -> Option<Duration> {
        let base = self.base.as_ref()?;
        lag::too_far(now, base.timestamp(), self.timing.block_delay, self.timing.max_lag)
    }

    pub fn head(&mut self, head: Arc<TipSet>, now: Duration) -> Vec<RoundAction> {
        let mut out = Vec::new();
        if self.base.as_ref().is_some_and(|base| base.tipset.cids == head.cids) {
            return out;
        }
        if let Some(running) = &mut self.running {
            match judge(running, &head, &self.miner) {
                Verdict::GoOn => running.until = None,
                // Others wait for more blocks of this height, so that ours still joins them.
                Verdict::UntilNotTaken => running.until = Some(running.base.taken_until(&self.timing)),
                Verdict::Pointless(why) => {
                    let id = running.id;
                    self.running = None;
                    out.push(RoundAction::Abort { id, why });
                }
            }
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

    /// The round's block goes to the node. False: the round was aborted in between, do not send.
    pub fn submitting(&mut self, id: RoundId) -> bool {
        let Some(RunningRound { id, base, .. }) = self.running.take_if(|running| running.id == id) else {
            return false;
        };
        self.sent = Some(SentRound { id, base });
        true
    }

    /// The round is over, won or not. The next one on the same base counts one null round more.
    pub fn ended(&mut self, id: RoundId, now: Duration) -> Vec<RoundAction> {
        let mut out = Vec::new();
        let running = self.running.take_if(|running| running.id == id).map(|running| running.base);
        let sent = self.sent.take_if(|sent| sent.id == id).map(|sent| sent.base);
        let Some(over) = running.or(sent) else { return out };
        if let Some(base) = &mut self.base
            && base.tipset.height == over.tipset.height
        {
            base.nulls = base.nulls.max(over.nulls + 1);
        }
        self.advance(now, &mut out);
        out
    }

    fn advance(&mut self, now: Duration, out: &mut Vec<RoundAction>) {
        if let Some(running) = &self.running {
            let Some(until) = running.until else { return };
            if now < until {
                out.push(RoundAction::WakeAt(until));
                return;
            }
            let (id, round) = (running.id, running.base.round());
            let why = format!("the network takes no block of epoch {round} any more, and ours was not ready");
            self.running = None;
            out.push(RoundAction::Abort { id, why });
        }
        let Some(base) = self.base.clone() else { return };
        // The node may be about to tell the block that it was sent as the next head.
        if self.sent.as_ref().is_some_and(|sent| sent.base.tipset.height == base.tipset.height) {
            return;
        }
        // A lag only grows: the next head may begin a round, no time can.
        if self.lags(now).is_some() {
            return;
        }
        // On a chain that stood still, null rounds are tried one a block delay, not all at once.
        let paced = self.last_start.filter(|_| base.nulls > 0).map(|last| last + self.timing.block_delay);
        let at = base.start_time(&self.timing).max(paced.unwrap_or_default());
        if now < at {
            out.push(RoundAction::WakeAt(at));
            return;
        }
        self.ids += 1;
        self.last_start = Some(now);
        self.running = Some(RunningRound { id: self.ids, base: base.clone(), until: None });
        out.push(RoundAction::Start { id: self.ids, base });
    }
}

/// The meaning of a head for the round under way.
enum Verdict {
    GoOn,
    /// Go on while the network takes blocks of the round's height.
    UntilNotTaken,
    Pointless(String),
}

fn judge(running: &RunningRound, head: &TipSet, miner: &Address) -> Verdict {
    let (base, round) = (&running.base, running.base.round());
    let made_by_us = |tipset: &TipSet| tipset.blocks.iter().any(|block| block.miner == *miner);
    let why = if head.height > round {
        format!("the chain reached epoch {} before the block of round {round} was ready", head.height)
    } else if head.height == round {
        return Verdict::UntilNotTaken;
    } else if head.height > base.tipset.height {
        format!("a later base came: epoch {}", head.height)
    } else if head.height < base.tipset.height {
        format!("the base at epoch {} was taken back", base.tipset.height)
    } else if intersect(&base.tipset, head).is_none() {
        format!("the base at epoch {} was replaced", base.tipset.height)
    } else if made_by_us(head) && !made_by_us(&base.tipset) {
        // A block on parents that leave ours out is a parent-grinding fault.
        format!("our own block joined the base at epoch {}", base.tipset.height)
    } else {
        return Verdict::GoOn;
    };
    Verdict::Pointless(why)
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
