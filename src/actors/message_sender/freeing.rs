//! A round's step for a signed message that stands in the way of others: its nonce is given back, or a self-transfer uses it.

use super::addresses::Purpose;
use super::effects::fee_of;
use super::fees::{Bounds, Fee, Urgency, first_fee, raised};
use super::memory::RefusalKind;
use super::record::{Open, Signed};
use super::round::{Held, Round, priced, unproven};
use crate::chain::types::Message;
use crate::chain::{Address, TokenAmount, miner_messages::method};
use crate::rpc::full_node::FullNodeError;
use num_traits::Zero;

impl Round<'_> {
    /// The message is not sent for now: its nonce is given back, or used by a self-transfer.
    pub(super) async fn free_nonce(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
        kind: RefusalKind,
    ) -> Result<(), Held> {
        let proving = self.engine.purpose(key, open)? == Purpose::Proving;
        // Other bytes, and earlier versions, may lie in some pool and land: twice, if another nonce is signed for them.
        let never = kind == RefusalKind::Invalid && signed.replaced.is_empty();
        let sure = never || self.is_idempotent(key, open)?;
        if sure && !signed.held && signed.fillers.is_empty() {
            let store = self.engine.store_for_signing(key, open)?;
            if self.engine.give_nonce_back(&store, key, signed).map_err(unproven)? {
                tracing::warn!(key, nonce = signed.nonce, "refused: its nonce is given back");
                self.lines.values_mut().for_each(|line| line.leave(key));
                let why = self.engine.memory.why(key);
                self.engine.memory.forget_refusal(key);
                self.pause(key, proving);
                return Err(Held::Why(why));
            }
        }
        if signed.is_filler() {
            return self.reprice(key, open, signed, from, true).await;
        }
        let behind = self.lines.get(from).is_some_and(|line| line.has_behind(signed.nonce));
        let budget = match self.urgency(key, open, signed, from)? {
            Urgency::Closes(_) => self.engine.settings.window_post_fee.clone() - self.filled.clone(),
            Urgency::Ordinary => self.engine.settings.max_fee.clone(),
        };
        if !behind && !sure {
            // Nothing waits for it: the same bytes are offered again, should money come.
            return self.push_stored(key, signed).await;
        }
        self.fill(key, open, signed, from, budget).await
    }

    /// A self-transfer takes the message's nonce, so that those behind it can land. `budget`: the most it may cost.
    pub(super) async fn fill(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
        budget: TokenAmount,
    ) -> Result<(), Held> {
        let transfer = self_transfer(from, signed.nonce);
        let fresh = self.estimate_transfer(&transfer, &budget).await?;
        let urgency = self.urgency(key, open, signed, from)?;
        let bounds = Bounds { maximize: false, ..self.bounds(key, open, from, budget)? };
        let fee = match (signed.held, self.parsed.get(key)) {
            (true, Some(old)) => raised(&fee_of(old), &fresh, &bounds, urgency).map_err(|why| why.to_string()),
            _ => first_fee(&fresh, &bounds).map(|(fee, _)| fee).map_err(|why| why.to_string()),
        };
        let fee = fee.map_err(|why| Held::Why(format!("its nonce cannot be freed: {why}")))?;
        self.filled += fee.cost();
        tracing::warn!(key, nonce = signed.nonce, "a self-transfer takes its place");
        self.put_in_place(key, open, signed, priced(transfer, &fee), true).await
    }

    /// Asked once a round: one such transfer is as good as another.
    pub(super) async fn estimate_transfer(
        &mut self,
        transfer: &Message,
        budget: &TokenAmount,
    ) -> Result<Fee, FullNodeError> {
        if let Some(fee) = &self.filler {
            return Ok(fee.clone());
        }
        let filled = self.engine.node.gas_estimate_message_gas(transfer, budget, &self.head.key()).await?;
        let fee = self.fee_within_a_block(filled)?;
        Ok(self.filler.insert(fee).clone())
    }
}

/// Uses a nonce and moves nothing.
pub(super) fn self_transfer(from: &Address, nonce: u64) -> Message {
    let zero = TokenAmount::zero();
    Message {
        version: 0,
        to: *from,
        from: *from,
        nonce,
        value: zero.clone(),
        gas_limit: 0,
        gas_fee_cap: zero.clone(),
        gas_premium: zero,
        method: method::SEND,
        params: Vec::new(),
    }
}
