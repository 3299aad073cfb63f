//! One round over the open messages at one head: what the node shows is gathered once, then each message takes its step.

use super::effects::{Engine, RoundCounts, parse_address, parse_amount, parse_signed, to_signed};
use super::machine::{
    Done, MessageOutcome, MessageStep, NextNonce, Open, Seen, Signed, bounded_fee, next_step, raised_fee,
};
use super::verdict::{Estimate, Push, estimate_verdict, push_verdict};
use crate::chain::types::{Message, MsgLookup, SignedMessage, TipSet};
use crate::chain::{Address, TokenAmount, cbor};
use crate::failpoint;
use crate::rpc::full_node::FullNodeError;
use crate::store::StoreError;
use crate::supervisor::Fenced;
use cid::Cid;
use num_traits::Zero;
use std::collections::{HashMap, HashSet};

/// A step that did not come through: the message waits with this reason.
enum Held {
    Why(String),
    Store(StoreError),
}

impl From<FullNodeError> for Held {
    fn from(e: FullNodeError) -> Held {
        Held::Why(e.to_string())
    }
}
/// The cluster did not confirm that this node still holds the concern: this message waits, the others go on.
fn unproven(e: StoreError) -> Held {
    match e {
        StoreError::Unreachable { .. } | StoreError::Refused { .. } | StoreError::CatchingUp { .. } => {
            Held::Why(format!("not signed while the cluster does not confirm this node's lease: {e}"))
        }
        e => Held::Store(e),
    }
}

impl From<StoreError> for Held {
    fn from(e: StoreError) -> Held {
        Held::Store(e)
    }
}

pub(super) struct Round<'a> {
    engine: &'a Engine,
    head: &'a TipSet,
    open: Vec<(String, Open)>,
    chain_nonces: HashMap<String, u64>,
    worker: Option<Address>,
    /// Sender and nonce of what was pushed. Bytes that were signed with such a nonce and never pushed were thought lost when
    /// another message was signed: they must not take its place in the mempool.
    pushed: HashSet<(String, u64)>,
    report: RoundCounts,
}

impl<'a> Round<'a> {
    pub(super) fn new(engine: &'a Engine, head: &'a TipSet, open: Vec<(String, Open)>) -> Round<'a> {
        let signed = open.iter().filter_map(|(_, open)| open.signed.as_ref());
        let pushed = signed.filter(|s| s.pushed_at.is_some()).map(|s| (s.from.clone(), s.nonce)).collect();
        Round { engine, head, open, chain_nonces: HashMap::new(), worker: None, pushed, report: RoundCounts::default() }
    }

    pub(super) async fn run(mut self) -> Result<RoundCounts, StoreError> {
        let open = std::mem::take(&mut self.open);
        let mempool = match open.iter().any(|(_, o)| o.signed.is_some()) {
            true => self.mempool().await,
            false => None,
        };
        for (key, record) in open {
            let step = match &record.signed {
                Some(signed) => self.advance(&key, &record, signed, mempool.as_ref()).await,
                None => self.send(&key, &record).await,
            };
            match step {
                Ok(()) => {}
                Err(Held::Store(e)) => return Err(e),
                Err(Held::Why(why)) => {
                    self.report.waiting += 1;
                    self.note(&key, &why)?;
                }
            }
        }
        Ok(self.report)
    }

    /// `None` when the node cannot list its mempool.
    async fn mempool(&self) -> Option<HashSet<Cid>> {
        let pending = self.engine.node.mpool_pending(&self.head.key()).await.ok()?;
        Some(pending.iter().filter_map(|m| cbor::signed_message_cid(m).ok()).collect())
    }

    async fn chain_nonce(&mut self, from: &Address) -> Result<u64, FullNodeError> {
        let name = from.to_string();
        if let Some(known) = self.chain_nonces.get(&name) {
            return Ok(*known);
        }
        // An account that the chain does not know has sent nothing yet.
        let nonce = self.engine.node.state_get_actor(from, &self.head.key()).await?.map_or(0, |actor| actor.nonce);
        self.chain_nonces.insert(name, nonce);
        Ok(nonce)
    }

    async fn sender(&mut self, key: &str, open: &Open) -> Result<Address, Held> {
        let tip = self.head.key();
        if let Some(from) = &open.from {
            let from = parse_address(key, from)?;
            return Ok(self.engine.node.state_account_key(&from, &tip).await?);
        }
        if let Some(worker) = self.worker {
            return Ok(worker);
        }
        let Some(miner) = self.engine.miner else { return Err(Held::Why("it names no sender".into())) };
        let info = self.engine.node.state_miner_info(&miner, &tip).await?;
        let worker = self.engine.node.state_account_key(&info.worker, &tip).await?;
        self.worker = Some(worker);
        Ok(worker)
    }

    /// A message that has never been signed.
    async fn send(&mut self, key: &str, open: &Open) -> Result<(), Held> {
        let store = self.engine.store_for_signing(key, open)?;
        if store.is_replicated() {
            // Asked first: what cannot be stored needs no wallet.
            store.transact(&self.engine.token, |_| Ok::<(), StoreError>(())).map_err(unproven)?;
        }
        let from = self.sender(key, open).await?;
        let mut message = Message {
            version: 0,
            to: parse_address(key, &open.to)?,
            from,
            nonce: 0,
            value: parse_amount(key, &open.value)?,
            gas_limit: 0,
            gas_fee_cap: TokenAmount::zero(),
            gas_premium: TokenAmount::zero(),
            method: open.method,
            params: open.params.clone(),
        };
        let max_fee = self.max_fee(key, open)?;
        match self.engine.node.gas_estimate_message_gas(&message, &max_fee, &self.head.key()).await {
            Ok(estimated) => {
                message.gas_limit = estimated.gas_limit;
                let (cap, premium) = (&estimated.gas_fee_cap, &estimated.gas_premium);
                (message.gas_fee_cap, message.gas_premium) = bounded_fee(cap, premium, message.gas_limit, &max_fee);
            }
            Err(e) => return self.estimate_refused(key, open, &e),
        }
        message.nonce = self.next_nonce(&from).await?;
        let signed = self.engine.signer.sign(&from, &message).await?;
        if signed.message != message {
            return Err(Held::Why("the wallet signed another message than it was given".into()));
        }
        let stored = to_signed(key, &signed, self.head.height, Vec::new())?;
        if !self.engine.store_signed(&store, key, stored.clone()).map_err(unproven)? {
            return Err(Held::Why("its nonce was taken meanwhile; signing again on the next head".into()));
        }
        failpoint::hit("message", "signed");
        self.push(key, &signed, stored).await
    }

    fn max_fee(&self, key: &str, open: &Open) -> Result<TokenAmount, StoreError> {
        let asked = parse_amount(key, &open.max_fee)?;
        Ok(if asked.is_zero() { self.engine.settings.max_fee.clone() } else { asked })
    }

    async fn next_nonce(&self, from: &Address) -> Result<u64, Held> {
        let own = self.engine.store.get::<NextNonce>(&from.to_string())?.map_or(0, |n| n.0);
        Ok(self.engine.node.mpool_get_nonce(from).await?.max(own))
    }

    fn estimate_refused(&mut self, key: &str, open: &Open, e: &FullNodeError) -> Result<(), Held> {
        let (exit_code, why) = match estimate_verdict(e) {
            Estimate::NoAnswer(why) => return Err(Held::Why(why)),
            Estimate::WouldFail { exit_code, why } => (exit_code, why),
        };
        let refusals = open.refusals + 1;
        if refusals >= self.engine.settings.estimate_tries {
            let error = format!("refused {refusals} times before it was signed: {why}");
            return self.finish(key, MessageOutcome::Failed { exit_code, error });
        }
        self.report.waiting += 1;
        Ok(self.engine.amend(key, |open| {
            open.refusals = refusals;
            open.why_waiting = why;
        })?)
    }

    /// A message that was signed: has it landed, is it still in the mempool, is its fee too low?
    async fn advance(
        &mut self,
        key: &str,
        open: &Open,
        signed: &Signed,
        mempool: Option<&HashSet<Cid>>,
    ) -> Result<(), Held> {
        let from = parse_address(key, &signed.from)?;
        let chain_nonce = self.chain_nonce(&from).await?;
        let lookup = if chain_nonce > signed.nonce { self.find(key, signed).await? } else { None };
        let seen = Seen {
            head: self.head.height,
            executed_at: lookup.as_ref().map(|l| l.height),
            chain_nonce,
            in_mempool: mempool.map(|pool| pool.iter().any(|cid| cid.to_string() == signed.cid)),
        };
        let step = match next_step(signed, &seen, &self.engine.settings.rules) {
            MessageStep::Push
                if signed.pushed_at.is_none() && self.pushed.contains(&(signed.from.clone(), signed.nonce)) =>
            {
                MessageStep::Renew
            }
            step => step,
        };
        match step {
            MessageStep::Finish => match lookup {
                Some(lookup) => self.finish(key, outcome(&lookup)),
                None => Err(Held::Why("waiting for its receipt".into())),
            },
            MessageStep::Push => {
                let message = parse_signed(key, signed)?;
                self.push(key, &message, signed.clone()).await
            }
            MessageStep::Replace => self.replace(key, open, signed).await,
            MessageStep::Renew => {
                let why = format!("nonce {} was used by another message; signing anew", signed.nonce);
                tracing::warn!(key, "{why}");
                self.engine.amend(key, |open| {
                    open.signed = None;
                    open.why_waiting = why;
                })?;
                self.send(key, open).await
            }
            MessageStep::NoteNonceGone => self.nonce_gone(key, Some(self.head.height)),
            MessageStep::ForgetNonceGone => self.nonce_gone(key, None),
            MessageStep::Wait(why) => Err(Held::Why(why.to_owned())),
        }
    }

    fn nonce_gone(&mut self, key: &str, since: Option<i64>) -> Result<(), Held> {
        self.report.waiting += 1;
        Ok(self.engine.amend(key, |open| {
            if let Some(signed) = &mut open.signed {
                signed.nonce_gone_since = since;
            }
        })?)
    }

    /// Any version of the message that the chain has executed.
    async fn find(&self, key: &str, signed: &Signed) -> Result<Option<MsgLookup>, Held> {
        for text in std::iter::once(&signed.cid).chain(signed.replaced.iter().rev()) {
            let cid = text.parse::<Cid>().map_err(|e| super::effects::damaged(key, e.to_string()))?;
            match self.engine.node.state_search_msg(&self.head.key(), &cid, -1, true).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                // An answer: this version did not land as far as the node knows.
                Err(e) if e.of_message().is_some() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    async fn push(&mut self, key: &str, message: &SignedMessage, signed: Signed) -> Result<(), Held> {
        // The fence: a writer that was replaced must not push. The store knows once a successor has written, the pass
        // as soon as there is one, or as the thread was given up or the lease has ended.
        self.engine.store.transact(&self.engine.token, |_| Ok::<(), StoreError>(()))?;
        if let Some(Err(Fenced { path, epoch, newer })) = self.engine.fence.as_ref().map(|fence| fence.check()) {
            return Err(Held::Store(StoreError::Fenced { path, epoch, newer }));
        }
        let answer = self.engine.node.mpool_push(message).await;
        match push_verdict(&answer) {
            Push::Held => {
                failpoint::hit("message", "pushed");
                self.report.pushed += 1;
                let head = self.head.height;
                self.engine.amend(key, |open| {
                    open.why_waiting = String::new();
                    open.signed = Some(Signed { pushed_at: Some(head), ..signed });
                })?;
                tracing::info!(key, cid = %answer.map(|c| c.to_string()).unwrap_or_default(), nonce = message.message.nonce, "message pushed");
                Ok(())
            }
            Push::NonceUsed => Err(Held::Why("its nonce is used on chain; looking for the receipt".into())),
            Push::FeeTooLow => Err(Held::Why("the mempool holds this nonce with a fee that is not lower".into())),
            Push::Later(why) => Err(Held::Why(why)),
        }
    }

    async fn replace(&mut self, key: &str, open: &Open, signed: &Signed) -> Result<(), Held> {
        let mut message = parse_signed(key, signed)?.message;
        let max_fee = self.max_fee(key, open)?;
        let raised = raised_fee(&message.gas_fee_cap, &message.gas_premium, message.gas_limit, &max_fee);
        let Some((cap, premium)) = raised else {
            return Err(Held::Why(format!("in the mempool; its fee is at the bound of {} attoFIL", max_fee.atto())));
        };
        message.gas_fee_cap = cap;
        message.gas_premium = premium;
        let from = message.from;
        let again = self.engine.signer.sign(&from, &message).await?;
        if again.message != message {
            return Err(Held::Why("the wallet signed another message than it was given".into()));
        }
        let mut replaced = signed.replaced.clone();
        replaced.push(signed.cid.clone());
        let stored = to_signed(key, &again, self.head.height, replaced)?;
        let store = self.engine.store_for_signing(key, open)?;
        self.engine.amend_in(&store, key, |open| open.signed = Some(stored.clone())).map_err(unproven)?;
        self.push(key, &again, stored).await
    }

    fn finish(&mut self, key: &str, outcome: MessageOutcome) -> Result<(), Held> {
        tracing::info!(key, ?outcome, "message finished");
        self.report.finished += 1;
        Ok(self.engine.store_done(key, &Done { at: self.head.height, outcome })?)
    }

    /// Why it waits; a disk write only when that changed.
    fn note(&self, key: &str, why: &str) -> Result<(), StoreError> {
        if self.engine.in_doubt(key)? {
            return Ok(()); // it would lie over signed bytes that are found there later
        }
        match self.engine.store.get::<Open>(key)? {
            Some(open) if open.why_waiting != why => self.engine.amend(key, |open| {
                open.why_waiting = why.to_owned();
                open.seen_at = self.head.height;
            }),
            _ => Ok(()),
        }
    }
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
