//! A nonce in front of our messages that is none of ours: a hole, which a self-transfer fills, or a message that somebody
//! sent from the address with another tool, which is told and left alone.

use super::effects::to_signed;
use super::fees::{Bounds, Urgency, first_fee};
use super::freeing::self_transfer;
use super::memory::InFront;
use super::record::{Open, Order};
use super::round::{Held, Round, priced};
use crate::chain::{Address, ChainEpoch, TokenAmount, miner_messages::method};
use crate::store::StoreError;
use std::time::Duration;

/// Heads after the first one at which a hole is believed: a message that was just sent reaches the mempool meanwhile.
const BELIEVED_AFTER: ChainEpoch = 1;
/// The same for a message that stands in front of one of proving's.
const TOLD_AFTER: ChainEpoch = 3;
/// Holes of a line that are filled in one round.
const MOST_FILLED: usize = 20;
/// The listing of a mempool, of tens of thousands of messages. It comes last in a round, and rarely.
const LISTING: Duration = Duration::from_secs(20);

/// How a nonce in front stands.
enum Verdict {
    /// No mempool that is known has a message with it.
    Hole,
    /// The mempool has one, with this fee cap where it told.
    Taken(Option<TokenAmount>),
    TooEarly,
}

impl Round<'_> {
    /// Looks at what ours wait for in each line. What cannot be mended is told.
    pub(super) async fn look_in_front(&mut self) -> Result<(), StoreError> {
        let stand: Vec<Address> =
            self.lines.iter().filter(|(_, line)| line.in_front().is_some()).map(|(from, _)| *from).collect();
        self.engine.memory.keep_in_front(&stand);
        for from in stand {
            for filled in 0..MOST_FILLED {
                let Some(nonce) = self.lines[&from].in_front() else { break };
                if !self.mend(&from, nonce, filled > 0).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// `true`: it is filled; there may be another one. `next_hole`: the hole before it was filled in this round.
    async fn mend(&mut self, from: &Address, nonce: u64, next_hole: bool) -> Result<bool, StoreError> {
        let front = self.engine.memory.in_front(*from, nonce, self.head.height);
        match self.verdict(from, &front, next_hole).await {
            Verdict::TooEarly => Ok(false),
            Verdict::Taken(cap) => {
                self.tell_taken(from, &front, cap)?;
                Ok(false)
            }
            Verdict::Hole => match self.fill_hole(from, nonce).await {
                Ok(filled) => Ok(filled),
                Err(Held::Store(e)) => Err(e),
                Err(Held::Why(why)) => {
                    let text = format!(
                        "messages of {from} wait for nonce {nonce}, which no message has, and it is not filled: {why}; \
                         fill it by hand: `lotus send --from {from} --nonce {nonce} {from} 0`"
                    );
                    self.alert(format!("hole {from}"), text);
                    Ok(false)
                }
            },
        }
    }

    /// Lotus tells the first nonce that its mempool lacks, Forest the one behind its last: it is listed to be sure.
    async fn verdict(&mut self, from: &Address, front: &InFront, next_hole: bool) -> Verdict {
        let head = self.head.height;
        if head < front.since + BELIEVED_AFTER && !next_hole {
            return Verdict::TooEarly;
        }
        if self.lines[from].pool_nonce() == Some(front.nonce) {
            return Verdict::Hole;
        }
        let patience = self.engine.settings.rules.replace_after;
        let cap = match &front.pooled {
            Some((at, cap)) if cap.is_some() && head < at + patience => cap.clone(),
            _ => {
                let Some(found) = self.pooled_cap(from, front.nonce).await else { return Verdict::Taken(None) };
                self.engine.memory.set_pooled(from, head, found.clone());
                found
            }
        };
        cap.map_or(Verdict::Hole, |cap| Verdict::Taken(Some(cap)))
    }

    /// `None`: the node does not list its mempool. It is listed once a round at most.
    async fn pooled_cap(&mut self, from: &Address, nonce: u64) -> Option<Option<TokenAmount>> {
        if self.pooled.is_none() {
            let key = self.head.key();
            let pending = tokio::time::timeout(LISTING, self.engine.node.mpool_pending(&key)).await.ok()?.ok()?;
            let ours = pending.into_iter().map(|signed| signed.message).filter(|m| self.lines.contains_key(&m.from));
            self.pooled = Some(ours.map(|m| ((m.from, m.nonce), m.gas_fee_cap)).collect());
        }
        Some(self.pooled.as_ref()?.get(&(*from, nonce)).cloned())
    }

    /// Another miner of this node, which uses the same address, has a message with this nonce.
    fn is_of_another_miner(&self, from: &Address, nonce: u64) -> Result<bool, StoreError> {
        let (from, own) = (from.to_string(), self.engine.prefix());
        let (all, _) = self.engine.store.list_readable::<Open>("")?;
        let mut others = all.into_iter().filter(|(key, _)| !key.starts_with(&own)).filter_map(|(_, open)| open.signed);
        Ok(others.any(|signed| signed.from == from && signed.nonce == nonce))
    }

    fn tell_taken(&mut self, from: &Address, front: &InFront, cap: Option<TokenAmount>) -> Result<(), StoreError> {
        let InFront { nonce, since, .. } = *front;
        let closes = self.lines[from].closes_behind(nonce);
        let patience = if closes.is_some() { TOLD_AFTER } else { self.engine.settings.rules.replace_after };
        if self.head.height < since + patience || self.is_of_another_miner(from, nonce)? {
            return Ok(());
        }
        let behind = match closes {
            Some(closes) => format!("a WindowPoSt or a declaration whose deadline closes at epoch {closes} waits"),
            None => "messages of this node wait".into(),
        };
        let fee = cap.map_or(String::new(), |cap| {
            format!(", with a fee cap of {} attoFIL at a base fee of {}", cap.atto(), self.base_fee.atto())
        });
        let text = format!(
            "{behind} behind a message of {from} with nonce {nonce} that another tool has sent{fee}; it has not landed since \
             epoch {since}: raise its fee where it was sent, `lotus mpool replace --auto {from} {nonce}`"
        );
        self.alert(format!("in front {from}"), text);
        Ok(())
    }

    /// `false`: the nonce has an owner after all.
    async fn fill_hole(&mut self, from: &Address, nonce: u64) -> Result<bool, Held> {
        if self.is_of_another_miner(from, nonce)? {
            return Ok(false);
        }
        let closes = self.lines[from].closes_behind(nonce);
        let budget = match Urgency::of(closes, self.head.height) {
            Urgency::Closes(_) => self.engine.settings.window_post_fee.clone() - self.filled.clone(),
            Urgency::Ordinary => self.engine.settings.max_fee.clone(),
        };
        let transfer = self_transfer(from, nonce);
        let fresh = self.estimate_transfer(&transfer, &budget).await?;
        let available = self.lines[from].available();
        let bounds = Bounds { max_fee: budget, available, maximize: false, base_fee: self.base_fee.clone() };
        let (fee, _) = first_fee(&fresh, &bounds).map_err(|why| Held::Why(why.to_string()))?;
        let signed = self.sign(&priced(transfer, &fee)).await?;
        let key = self.engine.full_key(&format!("fill-nonce-{from}-{nonce}"));
        let mut stored = to_signed(&key, &signed, self.head.height)?;
        stored.fillers = vec![stored.cid.clone()];
        let open = Open {
            seq: 0,
            to: from.to_string(),
            from: Some(from.to_string()),
            method: method::SEND,
            params: Vec::new(),
            value: "0".into(),
            max_fee: "0".into(),
            closes: None,
            refusals: 0,
            refused_at: None,
            // Once the nonce is used there is nothing left to send.
            order: Some(Order::Cancel),
            signed: Some(stored.clone()),
        };
        if !self.engine.store_filler(&key, open.clone())? {
            return Ok(false);
        }
        self.filled += fee.cost();
        tracing::warn!(%from, nonce, "no message has this nonce and others wait for it: a self-transfer fills it");
        self.join_line(&key, &open, &signed)?;
        self.push(&key, &signed, stored).await?;
        let pool_nonce = self.engine.node.mpool_get_nonce(from).await.ok();
        if let Some(line) = self.lines.get_mut(from) {
            line.set_pool_nonce(pool_nonce);
        }
        Ok(true)
    }
}
