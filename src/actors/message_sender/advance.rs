//! A round's step for a signed message: has it landed, does a mempool hold it, is its fee right, is its nonce free.
//!
//! Everything that is signed again here has the nonce of the bytes before: of one nonce the chain executes one message,
//! so that none is executed twice, whatever some mempool still holds. A nonce is given back only if no block can ever hold
//! its bytes, or if a second execution would move nothing; else a self-transfer uses it.

use super::addresses::Purpose;
use super::effects::{damaged, fee_of, parse_address, to_signed};
use super::fees::{Bounds, Fee, NoRaise, Urgency, Waits, first_fee, is_due, may_pay, raised};
use super::machine::{MessageStep, Seen, next_step};
use super::memory::{Refusal, RefusalKind};
use super::record::{MessageOutcome, Open, Order, Signed};
use super::round::{Held, Round, priced, unproven};
use super::verdict::{Estimate, Search, estimate_verdict, search_verdict};
use crate::chain::types::{Message, MsgLookup};
use crate::chain::{Address, TokenAmount};
use crate::store::StoreError;
use cid::Cid;
use num_traits::Zero;

/// Heads on which a refusal of bytes that might pass later is seen before they are signed anew, or their nonce is freed.
const REFUSED_HEADS: u32 = 2;

/// The search for a used nonce.
struct Used {
    by_message: Option<MsgLookup>,
    by_filler: Option<MsgLookup>,
    displaced: bool,
}

impl Round<'_> {
    pub(super) async fn advance(&mut self, key: &str, open: &Open, signed: &Signed) -> Result<(), Held> {
        let from = parse_address(key, &signed.from)?;
        let line = self.line(&from).await?;
        let (chain_nonce, pool_nonce) = (line.chain_nonce(), line.pool_nonce());
        let used = match chain_nonce > signed.nonce {
            true => self.find(key, signed).await?,
            false => Used { by_message: None, by_filler: None, displaced: false },
        };
        let head = self.head.height;
        let proving = self.engine.purpose(key, open)? == Purpose::Proving;
        let idempotent = self.is_idempotent(key, open)?;
        let seen = Seen {
            head,
            executed_at: used.by_message.as_ref().map(|l| l.height),
            filled_at: used.by_filler.as_ref().map(|l| l.height),
            displaced: used.displaced,
            chain_nonce,
            pool_nonce,
            rather_twice: proving && idempotent && open.closes.is_none_or(|closes| head < closes),
        };
        let rules = &self.engine.settings.rules;
        match next_step(signed, &seen, rules) {
            MessageStep::Finish => match used.by_message {
                Some(lookup) => self.finish(key, outcome(&lookup)),
                None => Err(Held::Why("waiting for its receipt".into())),
            },
            MessageStep::Freed => self.freed(key, open, signed, proving),
            MessageStep::Push
                if signed.pushed_at.is_none() && self.pushed.contains(&(signed.from.clone(), signed.nonce)) =>
            {
                self.renew(key, open, signed).await
            }
            MessageStep::Push => self.push_again(key, open, signed, &from, idempotent).await,
            MessageStep::Price => self.price(key, open, signed, &from).await,
            MessageStep::Renew => self.renew(key, open, signed).await,
            MessageStep::NoteNonceGone => self.nonce_gone(key, Some(head)),
            MessageStep::ForgetNonceGone => self.nonce_gone(key, None),
            MessageStep::Wait(why) => Err(Held::Why(why.to_owned())),
        }
    }

    /// Any version of the message, or a self-transfer in its place, that the chain has executed.
    async fn find(&self, key: &str, signed: &Signed) -> Result<Used, Held> {
        let memory = &self.engine.memory;
        let confidence = self.engine.settings.rules.confidence;
        let mut used = Used { by_message: None, by_filler: None, displaced: false };
        if let Some(found) = memory.found(key).filter(|found| self.head.height < found.height + confidence) {
            used.by_message = Some(found);
            return Ok(used);
        }
        let mut unanswered = None;
        for (text, filler) in
            signed.versions().map(|cid| (cid, false)).chain(signed.fillers.iter().rev().map(|cid| (cid, true)))
        {
            let cid = text.parse::<Cid>().map_err(|e| damaged(key, e.to_string()))?;
            let answer = self.engine.node.state_search_msg(&self.head.key(), &cid, -1, true).await;
            match search_verdict(answer) {
                Ok(search @ Search::Found(_)) if !filler => {
                    memory.set_found(key, &search);
                    let Search::Found(found) = search else { continue };
                    used.by_message = Some(*found);
                    return Ok(used);
                }
                Ok(Search::Found(found)) => {
                    used.by_filler = Some(*found);
                    return Ok(used);
                }
                Ok(Search::Displaced) => used.displaced = true,
                Ok(Search::NotFound) => {}
                Err(e) => unanswered = Some(e),
            }
        }
        match unanswered {
            Some(e) => Err(e.into()),
            None => {
                memory.set_found(key, &Search::NotFound);
                Ok(used)
            }
        }
    }

    /// Another message used the nonce, or these bytes were thought lost and another message has it.
    async fn renew(&mut self, key: &str, open: &Open, signed: &Signed) -> Result<(), Held> {
        if open.order == Some(Order::Cancel) {
            let error = format!("cancelled; nonce {} was used by another message", signed.nonce);
            return self.finish(key, MessageOutcome::Failed { exit_code: -1, error });
        }
        tracing::warn!(key, "nonce {} was used by another message; signing anew", signed.nonce);
        self.unsign(key)?;
        self.send(key, &Open { signed: None, ..open.clone() }).await
    }

    fn unsign(&mut self, key: &str) -> Result<(), StoreError> {
        self.engine.amend(key, |open| {
            open.signed = None;
            // A cancellation that came while this round was at work stays.
            if open.order == Some(Order::Replace) {
                open.order = None;
            }
        })?;
        self.lines.values_mut().for_each(|line| line.leave(key));
        self.engine.memory.forget_refusal(key);
        Ok(())
    }

    fn freed(&mut self, key: &str, open: &Open, signed: &Signed, proving: bool) -> Result<(), Held> {
        if open.order == Some(Order::Cancel) {
            let error = format!("cancelled; a self-transfer has nonce {}", signed.nonce);
            return self.finish(key, MessageOutcome::Failed { exit_code: -1, error });
        }
        self.unsign(key)?;
        self.pause(key, proving);
        Err(Held::Why("its nonce is freed; it is signed again".into()))
    }

    /// A message that was refused or stood in the way is not signed again at once, unless a deadline waits for it.
    pub(super) fn pause(&self, key: &str, proving: bool) {
        if !proving {
            self.engine.memory.hold(key, self.head.height + self.engine.settings.rules.replace_after);
        }
    }

    fn nonce_gone(&mut self, key: &str, since: Option<i64>) -> Result<(), Held> {
        self.engine.amend(key, |open| {
            if let Some(signed) = &mut open.signed {
                signed.nonce_gone_since = since;
            }
        })?;
        Err(Held::Why("its nonce is used on chain, its receipt is not found yet".into()))
    }

    /// No node holds the bytes: they are pushed again, or others in their place if nodes refuse them.
    async fn push_again(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
        idempotent: bool,
    ) -> Result<(), Held> {
        if open.order == Some(Order::Cancel) && !signed.is_filler() {
            return self.fill(key, open, signed, from, self.engine.max_fee(key, open)?).await;
        }
        let Some(Refusal { kind, at, heads }) = self.engine.memory.refusal(key) else {
            return self.push_stored(key, signed).await;
        };
        if at >= self.head.height {
            let why = self.engine.memory.why(key);
            self.alert(format!("refused {key}"), format!("{key}: {why}"));
            return Err(Held::Why(why)); // once a head
        }
        match kind {
            RefusalKind::Invalid if heads < REFUSED_HEADS => self.sign_again(key, open, signed, from, kind).await,
            // Other bytes were refused as well: it must not stand in front of the messages behind it.
            RefusalKind::Invalid => self.free_nonce(key, open, signed, from, kind).await,
            // Once: a refusal that lasts (of a token, say) is not of these bytes.
            RefusalKind::Unknown if heads == REFUSED_HEADS => self.sign_again(key, open, signed, from, kind).await,
            RefusalKind::Unknown => self.push_stored(key, signed).await,
            RefusalKind::Funds if heads >= REFUSED_HEADS => self.free_nonce(key, open, signed, from, kind).await,
            RefusalKind::Funds => self.sign_again(key, open, signed, from, kind).await,
            // An earlier version of ours lies there: it is outbid.
            RefusalKind::FeeTooLow if signed.held => self.reprice(key, open, signed, from, false).await,
            // Somebody else's message has the nonce, for all that is known.
            RefusalKind::FeeTooLow if idempotent => self.renew(key, open, signed).await,
            RefusalKind::FeeTooLow => self.push_stored(key, signed).await,
        }
    }

    pub(super) async fn push_stored(&mut self, key: &str, signed: &Signed) -> Result<(), Held> {
        let Some(message) = self.parsed.get(key).cloned() else { return Err(Held::Why("signed anew".into())) };
        self.push(key, &message, signed.clone()).await
    }

    /// A message that a mempool holds.
    async fn price(&mut self, key: &str, open: &Open, signed: &Signed, from: &Address) -> Result<(), Held> {
        if open.order == Some(Order::Cancel) && !signed.is_filler() {
            return self.fill(key, open, signed, from, self.engine.max_fee(key, open)?).await;
        }
        let Some(fee) = self.parsed.get(key).map(fee_of) else { return Err(Held::Why("signed anew".into())) };
        self.line(from).await?;
        let waits = Waits {
            epochs: self.head.height - signed.signed_at,
            under_base_fee: fee.cap < self.base_fee,
            is_next: self.lines[from].chain_nonce() == signed.nonce,
            urgency: self.urgency(key, open, signed, from)?,
        };
        let patience = self.engine.settings.rules.replace_after;
        let ordered = open.order == Some(Order::Replace);
        if ordered || is_due(&waits, patience) {
            if waits.urgency == Urgency::Ordinary && !ordered {
                // Asked now and then, and of a few a round: an estimate makes the node execute the message.
                let asked = self.engine.memory.priced(key).is_some_and(|at| self.head.height < at + patience);
                if asked || self.estimates == 0 {
                    return Err(Held::Why("in the mempool; its fee is looked at again later".into()));
                }
                self.estimates -= 1;
            }
            return self.reprice(key, open, signed, from, waits.under_base_fee).await;
        }
        Err(Held::Why("in the mempool".into()))
    }

    /// A message's own deadline, or that of one of proving's behind it in the line.
    pub(super) fn urgency(
        &self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
    ) -> Result<Urgency, StoreError> {
        let own = match self.engine.purpose(key, open)? {
            Purpose::Proving => open.closes,
            _ => None,
        };
        let behind = self.lines.get(from).and_then(|line| line.closes_behind(signed.nonce));
        let closes = own.into_iter().chain(behind).min();
        Ok(Urgency::of(closes, self.head.height))
    }

    /// The amount that this message may spend: its own old version is paid no more.
    pub(super) fn bounds(
        &self,
        key: &str,
        open: &Open,
        from: &Address,
        max_fee: TokenAmount,
    ) -> Result<Bounds, StoreError> {
        let proving = self.engine.purpose(key, open)? == Purpose::Proving;
        Ok(Bounds {
            max_fee,
            available: self.lines.get(from).map(|line| line.available_to(key)).unwrap_or_default(),
            maximize: proving && self.engine.settings.maximize_window_post,
            base_fee: self.base_fee.clone(),
        })
    }

    /// Signs the same call with the same nonce for a higher fee.
    pub(super) async fn reprice(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
        under_base_fee: bool,
    ) -> Result<(), Held> {
        let Some(message) = self.parsed.get(key).map(|m| m.message.clone()) else {
            return Err(Held::Why("signed anew".into()));
        };
        let old = self.parsed.get(key).map(fee_of).unwrap_or_else(|| fee_zero(message.gas_limit));
        let urgency = self.urgency(key, open, signed, from)?;
        let own = match signed.is_filler() && urgency != Urgency::Ordinary {
            true => self.engine.settings.window_post_fee.clone(),
            false => self.engine.max_fee(key, open)?,
        };
        let bounds = self.bounds(key, open, from, own.clone())?;
        let fee = match may_pay(&self.base_fee, old.limit, &own) {
            false => Err(NoRaise::Bound(own)), // known without asking
            true => {
                let fresh = match self.estimate(key, &message, &own).await {
                    Ok(fresh) => fresh,
                    // A message that waits may fail for now and land later; what is certain is the base fee.
                    Err(_) => Fee { cap: self.base_fee.clone() * 2, premium: old.premium.clone(), limit: old.limit },
                };
                self.engine.memory.set_priced(key, self.head.height);
                raised(&old, &fresh, &bounds, urgency)
            }
        };
        match fee {
            Ok(fee) => {
                let again = Message { nonce: signed.nonce, ..priced(message, &fee) };
                self.put_in_place(key, open, signed, again, signed.is_filler()).await
            }
            Err(why) => {
                let proving = self.engine.purpose(key, open)? == Purpose::Proving;
                if !proving && !signed.is_filler() && urgency != Urgency::Ordinary && under_base_fee {
                    // A fee spike slows sealing, never proving: the message gives its place to a cheaper one.
                    tracing::warn!(
                        key,
                        nonce = signed.nonce,
                        "stands in front of a WindowPoSt: {why}; its nonce is freed"
                    );
                    let budget = self.engine.settings.window_post_fee.clone() - self.filled.clone();
                    return self.fill(key, open, signed, from, budget).await;
                }
                if proving {
                    let text = format!("{key} is not on chain, and its fee is not raised: {why}");
                    self.alert(format!("raise {key}"), text);
                }
                if open.order == Some(Order::Replace) {
                    self.engine.amend(key, |open| {
                        if open.order == Some(Order::Replace) {
                            open.order = None;
                        }
                    })?;
                }
                Err(Held::Why(match why {
                    NoRaise::Bound(_) | NoRaise::Balance(_) => format!("in the mempool; {why}"),
                }))
            }
        }
    }

    /// Other bytes of the same nonce become the message's: stored, then pushed.
    pub(super) async fn put_in_place(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        message: Message,
        filler: bool,
    ) -> Result<(), Held> {
        let again = self.sign(&message).await?;
        let mut stored = to_signed(key, &again, self.head.height)?;
        stored.held = signed.held || signed.pushed_at.is_some();
        stored.replaced = signed.replaced.clone();
        stored.fillers = signed.fillers.clone();
        if stored.cid != signed.cid && !signed.is_filler() {
            stored.replaced.push(signed.cid.clone());
        }
        if filler {
            stored.fillers.push(stored.cid.clone());
        }
        let store = self.engine.store_for_signing(key, open)?;
        let put = |open: &mut Open| {
            open.signed = Some(stored.clone());
            if open.order == Some(Order::Replace) {
                open.order = None;
            }
        };
        self.engine.amend_in(&store, key, put).map_err(unproven)?;
        self.join_line(key, open, &again)?;
        self.parsed.insert(key.to_owned(), again.clone());
        self.push(key, &again, stored).await
    }

    /// Refused bytes: the same call is estimated and signed anew, with the same nonce.
    async fn sign_again(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        from: &Address,
        kind: RefusalKind,
    ) -> Result<(), Held> {
        let Some(message) = self.parsed.get(key).map(|m| m.message.clone()) else {
            return Err(Held::Why("signed anew".into()));
        };
        let max_fee = self.engine.max_fee(key, open)?;
        let fresh = match self.estimate(key, &message, &max_fee).await {
            Ok(fresh) => fresh,
            Err(e) => match estimate_verdict(&e) {
                Estimate::NoAnswer(why) => return Err(Held::Why(why)),
                // It would fail now: its nonce must not keep the others.
                Estimate::WouldFail { .. } => return self.free_nonce(key, open, signed, from, kind).await,
            },
        };
        let bounds = self.bounds(key, open, from, max_fee)?;
        let urgency = self.urgency(key, open, signed, from)?;
        let fee = match signed.held && kind != RefusalKind::Invalid {
            true => raised(&fee_of(&self.parsed[key]), &fresh, &bounds, urgency).map_err(|why| why.to_string()),
            false => first_fee(&fresh, &bounds).map(|(fee, _)| fee).map_err(|why| why.to_string()),
        };
        let fee = match fee {
            Ok(fee) => fee,
            Err(why) => {
                tracing::warn!(key, nonce = signed.nonce, "refused, and not signed anew: {why}");
                return self.free_nonce(key, open, signed, from, kind).await;
            }
        };
        tracing::warn!(key, nonce = signed.nonce, "refused: signed anew with a gas limit of {}", fee.limit);
        let again = Message { nonce: signed.nonce, ..priced(message, &fee) };
        self.put_in_place(key, open, signed, again, signed.is_filler()).await
    }
}

fn fee_zero(limit: i64) -> Fee {
    Fee { cap: TokenAmount::zero(), premium: TokenAmount::zero(), limit }
}

fn outcome(lookup: &MsgLookup) -> MessageOutcome {
    match lookup.receipt.exit_code {
        0 => MessageOutcome::Landed {
            cid: lookup.message.to_string(),
            epoch: lookup.height,
            tipset: lookup.tip_set.0.iter().map(Cid::to_string).collect(),
            return_data: lookup.receipt.return_data.clone(),
        },
        exit_code => MessageOutcome::Failed {
            exit_code,
            error: format!("exit code {exit_code} on chain at epoch {} (message {})", lookup.height, lookup.message),
        },
    }
}
