//! One round over the open messages at one head: proving's messages first, then the others, each takes its step.
//!
//! A round asks the node for an account and a nonce for each sender address, and for the miner's addresses once: open
//! messages that only wait cost no call. Steps of signed messages are in [`super::advance`].

use super::addresses::{self, Purpose};
use super::effects::{Engine, RoundCounts, fee_of, parse_address, parse_amount, parse_signed, to_signed};
use super::fees::{Bounds, Fee, NoFee, Urgency, fil, first_fee, may_pay};
use super::line::{Line, Member};
use super::memory::RefusalKind;
use super::record::{Done, MessageOutcome, NextNonce, Open, Order, Signed};
use super::verdict::{Estimate, Push, estimate_verdict, push_verdict};
use crate::chain::types::{Message, MinerInfo, SignedMessage, TipSet};
use crate::chain::{Address, TokenAmount, miner_messages};
use crate::failpoint;
use crate::rpc::full_node::FullNodeError;
use crate::store::StoreError;
use crate::supervisor::Fenced;
use num_traits::Zero;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A block holds no more gas than this, hence no message may (Lotus: BlockGasLimit).
pub(super) const BLOCK_GAS_LIMIT: i64 = 10_000_000_000;

/// A step that did not come through: the message waits with this reason.
pub(super) enum Held {
    Why(String),
    Store(StoreError),
}

impl From<FullNodeError> for Held {
    fn from(e: FullNodeError) -> Held {
        Held::Why(e.to_string())
    }
}

/// The cluster did not confirm that this node still holds the concern: this message waits, the others go on.
pub(super) fn unproven(e: StoreError) -> Held {
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
    pub engine: &'a Engine,
    pub head: &'a TipSet,
    pub base_fee: TokenAmount,
    open: Vec<(String, Open)>,
    pub parsed: HashMap<String, SignedMessage>,
    /// By the address form that signs.
    pub lines: HashMap<Address, Line>,
    pub info: Option<MinerInfo>,
    /// Sender and nonce of what was pushed. Bytes that were signed with such a nonce and never pushed were thought lost when
    /// another message was signed: they must not take its place in the mempool.
    pub pushed: HashSet<(String, u64)>,
    /// Estimates that this round may still ask for messages other than proving's.
    pub estimates: u32,
    /// The most that the self-transfers of this round may cost: they are paid from the budget of the WindowPoSt that waits.
    pub filled: TokenAmount,
    /// A self-transfer's estimate, once asked.
    pub filler: Option<Fee>,
    /// The fee caps of the mempool's messages of our senders, by sender and nonce, once it was listed.
    pub pooled: Option<HashMap<(Address, u64), TokenAmount>>,
    pub alerts: BTreeMap<String, String>,
    pub report: RoundCounts,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        head: &'a TipSet,
        open: Vec<(String, Open)>,
    ) -> Result<Round<'a>, StoreError> {
        let mut round = Round {
            engine,
            head,
            base_fee: head.blocks.first().map(|block| block.parent_base_fee.clone()).unwrap_or_default(),
            open: Vec::new(),
            parsed: HashMap::new(),
            lines: HashMap::new(),
            info: None,
            pushed: HashSet::new(),
            estimates: engine.settings.estimates,
            filled: TokenAmount::zero(),
            filler: None,
            pooled: None,
            alerts: BTreeMap::new(),
            report: RoundCounts::default(),
        };
        for (key, open) in open {
            match round.take_in(&key, &open) {
                Ok(()) => round.open.push((key, open)),
                // It takes no other along.
                Err(e @ StoreError::Corrupt { .. }) => {
                    let text = format!("{key} is neither sent nor watched: {e}; put a backup of the store back");
                    round.alert(format!("damaged {key}"), text);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(round)
    }

    /// An error: its record is damaged.
    fn take_in(&mut self, key: &str, open: &Open) -> Result<(), StoreError> {
        self.engine.purpose(key, open)?;
        self.engine.max_fee(key, open)?;
        parse_amount(key, &open.value)?;
        open.from.as_ref().map(|from| parse_address(key, from)).transpose()?;
        let Some(signed) = &open.signed else { return Ok(()) };
        let message = parse_signed(key, signed)?;
        parse_address(key, &signed.from)?;
        if signed.pushed_at.is_some() {
            self.pushed.insert((signed.from.clone(), signed.nonce));
        }
        self.join_line(key, open, &message)?;
        self.parsed.insert(key.to_owned(), message);
        Ok(())
    }

    /// The message takes its place in its sender's line, in place of an earlier version.
    pub(super) fn join_line(&mut self, key: &str, open: &Open, message: &SignedMessage) -> Result<(), StoreError> {
        let proving = self.engine.purpose(key, open)? == Purpose::Proving;
        let m = &message.message;
        let member = Member {
            key: key.to_owned(),
            nonce: m.nonce,
            fee: fee_of(message),
            value: m.value.clone(),
            proving,
            closes: open.closes.filter(|_| proving),
        };
        self.lines.entry(m.from).or_default().put(member);
        Ok(())
    }

    pub(super) async fn run(mut self) -> Result<RoundCounts, StoreError> {
        let open = std::mem::take(&mut self.open);
        let mut others = Vec::with_capacity(open.len());
        for (key, record) in open {
            match self.engine.purpose(&key, &record)? {
                Purpose::Proving => self.step(&key, &record).await?,
                _ => others.push((key, record)),
            }
        }
        for (key, record) in others {
            // One for proving has come: the next round begins with it.
            if self.engine.memory.is_urgent() {
                break;
            }
            self.step(&key, &record).await?;
        }
        self.look_in_front().await?;
        self.engine.memory.set_alerts(self.alerts);
        Ok(self.report)
    }

    async fn step(&mut self, key: &str, open: &Open) -> Result<(), StoreError> {
        let step = match &open.signed {
            Some(signed) => self.advance(key, open, signed).await,
            None => self.send(key, open).await,
        };
        match step {
            Ok(()) => Ok(()),
            Err(Held::Store(e)) => Err(e),
            Err(Held::Why(why)) => {
                self.report.waiting += 1;
                self.engine.memory.set_why(key, why);
                Ok(())
            }
        }
    }

    pub(super) fn alert(&mut self, about: String, text: String) {
        self.alerts.entry(about).or_insert(text);
    }

    /// The sender's account and mempool nonce, asked once a round.
    pub(super) async fn line(&mut self, from: &Address) -> Result<&Line, FullNodeError> {
        if self.lines.get(from).is_none_or(|line| !line.is_known()) {
            let node = &self.engine.node;
            // An account that the chain does not know has sent nothing yet, and has nothing.
            let account = node.state_get_actor(from, &self.head.key()).await?;
            let (nonce, balance) = account.map_or((0, TokenAmount::zero()), |actor| (actor.nonce, actor.balance));
            // A node that does not tell it is asked by pushing again.
            let pool_nonce = node.mpool_get_nonce(from).await.ok();
            self.lines.entry(*from).or_default().know(nonce, balance, pool_nonce);
        }
        Ok(&self.lines[from])
    }

    /// A message that is not signed.
    pub(super) async fn send(&mut self, key: &str, open: &Open) -> Result<(), Held> {
        let height = self.head.height;
        if open.order == Some(Order::Cancel) && !self.engine.in_doubt(key)? {
            let error = "cancelled before it was signed again".to_string();
            return self.finish(key, MessageOutcome::Failed { exit_code: -1, error });
        }
        let purpose = self.engine.purpose(key, open)?;
        if let Some(closes) = open.closes.filter(|closes| *closes <= height)
            && !self.engine.in_doubt(key)?
        {
            let waited = self.engine.memory.why(key);
            let error = format!("not sent before epoch {closes}, from which it is of no use: {waited}");
            return self.finish(key, MessageOutcome::Failed { exit_code: -1, error });
        }
        if let Some(until) = self.engine.memory.hold_until(key) {
            return Err(Held::Why(format!("its nonce was freed; signed again at epoch {until}")));
        }
        let max_fee = self.engine.max_fee(key, open)?;
        if let Some(limit) = self.engine.memory.gas_limit(key)
            && !may_pay(&self.base_fee, limit, &max_fee)
        {
            return Err(self.over_the_bound(purpose, NoFee::Bound(max_fee)));
        }
        if purpose != Purpose::Proving {
            let Some(left) = self.estimates.checked_sub(1) else {
                return Err(Held::Why("other messages were signed first; its turn comes at the next head".into()));
            };
            self.estimates = left;
        }
        let store = self.engine.store_for_signing(key, open)?;
        if store.is_replicated() {
            // Asked first: what cannot be stored needs no wallet.
            store.transact(&self.engine.token, |_| Ok::<(), StoreError>(())).map_err(unproven)?;
        }
        let value = parse_amount(key, &open.value)?;
        let senders = self.senders(key, open, purpose).await?;
        let mut senders = senders.into_iter();
        let mut candidates = Vec::new();
        self.look_at(&mut senders, &mut candidates, purpose, open.from.is_some(), &value).await?;
        let Some(first) = addresses::pick(&candidates, &value).cloned() else {
            let why = format!("no address can send it: {}", addresses::why_none(&candidates));
            self.alert(format!("sender {purpose:?}"), format!("{purpose:?}: {why}"));
            return Err(Held::Why(why));
        };
        let message = Message {
            version: 0,
            to: parse_address(key, &open.to)?,
            from: first.key,
            nonce: 0,
            value: value.clone(),
            gas_limit: 0,
            gas_fee_cap: TokenAmount::zero(),
            gas_premium: TokenAmount::zero(),
            method: open.method,
            params: open.params.clone(),
        };
        let mut estimate = match self.estimate(key, &message, &max_fee).await {
            Ok(estimate) => estimate,
            Err(e) => return self.estimate_refused(key, open, &e),
        };
        if !may_pay(&self.base_fee, estimate.limit, &max_fee) {
            return Err(self.over_the_bound(purpose, NoFee::Bound(max_fee)));
        }
        // What it must cost for now; how much more is offered depends on who sends it.
        let need = value.clone() + estimate.cost().min(max_fee.clone());
        self.look_at(&mut senders, &mut candidates, purpose, open.from.is_some(), &need).await?;
        let sender = addresses::pick(&candidates, &need).cloned().unwrap_or(first);
        let urgency = Urgency::of(open.closes, height);
        estimate.premium *= urgency.factor();
        let bounds = Bounds {
            max_fee,
            available: sender.available.clone() - value,
            maximize: purpose == Purpose::Proving && self.engine.settings.maximize_window_post,
            base_fee: self.base_fee.clone(),
        };
        let (fee, lowered) = match first_fee(&estimate, &bounds) {
            Ok(priced) => priced,
            Err(why @ NoFee::Bound(_)) => return Err(self.over_the_bound(purpose, why)),
            Err(why @ NoFee::Balance { .. }) => {
                let all = addresses::why_none(&candidates);
                self.alert(
                    format!("funds {}", sender.id),
                    format!("{purpose:?}: {why} ({all}); send FIL to {}", sender.id),
                );
                return Err(Held::Why(format!("{why} ({all})")));
            }
        };
        if lowered {
            let text = format!("{} has {} to spend: the fee is bounded by that", sender.id, fil(&sender.available));
            self.alert(format!("funds {}", sender.id), text);
        }
        let (nonce, read) = self.next_nonce(&sender.key).await?;
        let message = priced(Message { from: sender.key, nonce, ..message }, &fee);
        let signed = self.sign(&message).await?;
        let stored = to_signed(key, &signed, height)?;
        if !self.engine.store_signed(&store, key, stored.clone(), read).map_err(unproven)? {
            return Err(Held::Why("its nonce was taken meanwhile; signing again on the next head".into()));
        }
        self.join_line(key, open, &signed)?;
        self.engine.memory.forget_refusal(key);
        failpoint::hit("message", "signed");
        self.push(key, &signed, stored).await
    }

    /// A fee spike slows sealing; where it stops proving somebody must know.
    fn over_the_bound(&mut self, purpose: Purpose, why: NoFee) -> Held {
        if purpose == Purpose::Proving {
            let text = format!("a WindowPoSt or a declaration is not sent: {why}; raise fees.window_post");
            self.alert("bound of proving".into(), text);
        }
        Held::Why(format!("not signed while the base fee is so high: {why}"))
    }

    /// A fresh estimate of a message, which may be signed already: its nonce says which of the mempool's come before it.
    pub(super) async fn estimate(&self, key: &str, m: &Message, max_fee: &TokenAmount) -> Result<Fee, FullNodeError> {
        let zero = TokenAmount::zero();
        let blank = Message { gas_limit: 0, gas_fee_cap: zero.clone(), gas_premium: zero, ..m.clone() };
        let filled = self.engine.node.gas_estimate_message_gas(&blank, max_fee, &self.head.key()).await?;
        let fee = self.fee_within_a_block(filled)?;
        self.engine.memory.set_gas_limit(key, fee.limit);
        Ok(fee)
    }

    pub(super) fn fee_within_a_block(&self, filled: Message) -> Result<Fee, FullNodeError> {
        if filled.gas_limit <= 0 || filled.gas_limit > BLOCK_GAS_LIMIT {
            // Said of the node, not of the message: other estimates of the same message are right.
            let why = format!("a gas limit of {}, and a block holds {BLOCK_GAS_LIMIT}", filled.gas_limit);
            let node = self.engine.node.name();
            return Err(FullNodeError::BadAnswer { node, method: "GasEstimateMessageGas", why });
        }
        Ok(Fee { cap: filled.gas_fee_cap, premium: filled.gas_premium, limit: filled.gas_limit })
    }

    pub(super) async fn sign(&self, message: &Message) -> Result<SignedMessage, Held> {
        let signed = self.engine.wallet.sign_message(&message.from, message).await;
        if signed.is_err() {
            // The key may be gone from the wallet: it is asked again before the next message.
            self.engine.memory.forget_has_key(&message.from);
        }
        let signed = signed?;
        match signed.message == *message {
            true => Ok(signed),
            false => Err(Held::Why("the wallet signed another message than it was given".into())),
        }
    }

    /// And the stored one that it follows from, which another sender of the same address may change.
    async fn next_nonce(&self, from: &Address) -> Result<(u64, Option<NextNonce>), Held> {
        let read = self.engine.next_nonce(from)?.map_err(Held::Why)?;
        let own = read.as_ref().map_or(0, |next| next.0);
        Ok((self.engine.node.mpool_get_nonce(from).await?.max(own), read))
    }

    fn estimate_refused(&mut self, key: &str, open: &Open, e: &FullNodeError) -> Result<(), Held> {
        let (exit_code, why) = match estimate_verdict(e) {
            Estimate::NoAnswer(why) => return Err(Held::Why(why)),
            Estimate::WouldFail { exit_code, why } => (exit_code, why),
        };
        let height = self.head.height;
        // Heads count, not rounds: every message that comes makes a round.
        if open.refused_at.is_none_or(|at| at < height) {
            let refusals = open.refusals + 1;
            if refusals >= self.engine.settings.estimate_tries {
                let error = format!("refused at {refusals} heads before it was signed: {why}");
                return self.finish(key, MessageOutcome::Failed { exit_code, error });
            }
            self.engine.amend(key, |open| {
                open.refusals = refusals;
                open.refused_at = Some(height);
            })?;
        }
        Err(Held::Why(why))
    }

    pub(super) async fn push(&mut self, key: &str, message: &SignedMessage, signed: Signed) -> Result<(), Held> {
        // The fence: a writer that was replaced must not push. The store knows once a successor has written, the pass
        // as soon as there is one, or as the thread was given up or the lease has ended.
        self.engine.store.transact(&self.engine.token, |_| Ok::<(), StoreError>(()))?;
        if let Some(Err(Fenced { path, epoch, newer })) = self.engine.fence.as_ref().map(|fence| fence.check()) {
            return Err(Held::Store(StoreError::Fenced { path, epoch, newer }));
        }
        let answer = self.engine.node.mpool_push(message).await;
        let (kind, why) = match push_verdict(&answer) {
            Push::Held => {
                failpoint::hit("message", "pushed");
                self.report.pushed += 1;
                let head = self.head.height;
                self.engine.amend(key, |open| {
                    open.signed = Some(Signed { pushed_at: Some(head), held: true, ..signed });
                })?;
                self.engine.memory.forget_refusal(key);
                self.engine.memory.set_why(key, "in the mempool".into());
                tracing::info!(key, cid = %answer.map(|c| c.to_string()).unwrap_or_default(), nonce = message.message.nonce, "message pushed");
                return Ok(());
            }
            Push::NonceUsed => {
                return Err(Held::Why("its nonce is used on chain; looking for the receipt".into()));
            }
            Push::NoAnswer(why) | Push::Busy(why) => return Err(Held::Why(why)),
            Push::FeeTooLow => {
                let why = "the mempool holds other bytes of this nonce, with a fee that is not lower".to_string();
                (RefusalKind::FeeTooLow, why)
            }
            Push::Funds(why) => (RefusalKind::Funds, why),
            Push::Invalid(why) => (RefusalKind::Invalid, why),
            Push::Refused(why) => (RefusalKind::Unknown, why),
        };
        if self.engine.memory.refused(key, kind, self.head.height) {
            tracing::warn!(key, nonce = message.message.nonce, "message refused: {why}");
        }
        if signed.pushed_at.is_some() {
            // It was held and is not any more: what is shown is what the node says now.
            self.engine.amend(key, |open| {
                open.signed = Some(Signed { pushed_at: None, ..signed });
            })?;
        }
        if kind != RefusalKind::FeeTooLow {
            self.alert(format!("refused {key}"), format!("{key}: {why}"));
        }
        Err(Held::Why(why))
    }

    pub(super) fn finish(&mut self, key: &str, outcome: MessageOutcome) -> Result<(), Held> {
        tracing::info!(key, ?outcome, "message finished");
        self.report.finished += 1;
        self.lines.values_mut().for_each(|line| line.leave(key));
        Ok(self.engine.store_done(key, &Done { at: self.head.height, outcome })?)
    }

    /// A second message of the same content would move nothing.
    pub(super) fn is_idempotent(&self, key: &str, open: &Open) -> Result<bool, StoreError> {
        Ok(self.engine.miner == Some(parse_address(key, &open.to)?) && miner_messages::is_idempotent(open.method))
    }
}

pub(super) fn priced(message: Message, fee: &Fee) -> Message {
    let (gas_fee_cap, gas_premium) = (fee.cap.clone(), fee.premium.clone());
    Message { gas_limit: fee.limit, gas_fee_cap, gas_premium, ..message }
}
