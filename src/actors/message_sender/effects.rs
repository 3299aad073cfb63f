//! The message sender without the actor: durable intake, and one round over all open messages per head.
//!
//! The order of every send is: estimate, nonce, sign, STORE the bytes and the nonce in one transaction, push. A crash
//! before the store has pushed nothing; a crash after it pushes the same bytes again, which a mempool holds only once.
//!
//! In a cluster another node may take over while this one is cut off. So that it never signs a second time what has left
//! here, a message is signed only while the cluster's store confirms the lease, and holds the bytes before they are pushed.
//! Messages that the chain takes only once anyway (a WindowPoSt, a pre-commit) are signed without: to wait would cost more.

use super::addresses::{AddressRules, Purpose};
use super::fees::Fee;
use super::machine::SendRules;
use super::memory::Memory;
use super::messages::{Enqueue, EnqueueAnswer, MessageStatus, OrderAnswer, WithdrawAnswer};
use super::record::{Done, MessageOutcome, Open, Order, Signed, UNDATED};
use super::round::Round;
use crate::actors::wallet::Wallet;
use crate::chain::types::{SignedMessage, TipSet, TipSetKey};
use crate::chain::{Address, TokenAmount, cbor, lotus_json, miner_messages};
use crate::rpc::full_node::FullNode;
use crate::store::{Policy, Store, StoreError, Token};
use crate::supervisor::Fence;
use cid::Cid;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct SenderSettings {
    pub rules: SendRules,
    /// Bound on fee cap x gas limit where the caller gives none (Lotus' DefaultMaxFee).
    pub max_fee: TokenAmount,
    /// The same for WindowPoSt and declarations, for pre-commits and for proofs of replication.
    pub window_post_fee: TokenAmount,
    pub pre_commit_fee: TokenAmount,
    pub commit_fee: TokenAmount,
    /// Lotus' MaximizeWindowPoStFeeCap: a WindowPoSt's fee cap is its bound from the start. Blocks charge the base fee and
    /// the premium only, and a spike of the base fee does not keep the message out.
    pub maximize_window_post: bool,
    pub addresses: AddressRules,
    /// Heads on which the node's estimate may refuse a message before it counts as failed.
    pub estimate_tries: u32,
    /// Most messages that may be open at once.
    pub max_open: usize,
    /// Places on top of `max_open` that only messages of proving may take.
    pub proving_places: usize,
    /// Estimates that a round asks for messages other than proving's: each makes the node execute the message.
    pub estimates: u32,
    /// Epochs for which outcomes are kept for whoever asks.
    pub keep_done: i64,
}

impl Default for SenderSettings {
    fn default() -> Self {
        SenderSettings {
            rules: SendRules { confidence: 5, replace_after: 10, lost_after: 20, repush_every: 5 },
            max_fee: TokenAmount::from_atto(70_000_000_000_000_000u64),
            window_post_fee: TokenAmount::from_whole(5),
            pre_commit_fee: TokenAmount::from_atto(20_000_000_000_000_000u64),
            commit_fee: TokenAmount::from_atto(30_000_000_000_000_000u64),
            maximize_window_post: true,
            addresses: AddressRules::default(),
            estimate_tries: 10,
            max_open: 1000,
            proving_places: 200,
            estimates: 40,
            keep_done: 20_160,
        }
    }
}

/// The messages of one miner (or of one command line: `scope` is only a key prefix).
pub struct Engine {
    pub scope: String,
    /// The miner whose worker signs messages that name no sender.
    pub miner: Option<Address>,
    pub node: Arc<dyn FullNode>,
    pub wallet: Arc<dyn Wallet>,
    pub store: Store,
    pub token: Token,
    /// Asked right before a push: it knows of a successor before the store does.
    pub fence: Option<Arc<dyn Fence>>,
    pub settings: SenderSettings,
    pub memory: Arc<Memory>,
}

/// Counts of one round, for the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundCounts {
    pub pushed: u32,
    pub finished: u32,
    pub waiting: u32,
}

impl Engine {
    pub(super) fn with_settings(&self, settings: SenderSettings) -> Engine {
        self.memory.forget_prices();
        Engine {
            scope: self.scope.clone(),
            miner: self.miner,
            node: self.node.clone(),
            wallet: self.wallet.clone(),
            store: self.store.clone(),
            token: self.token.clone(),
            fence: self.fence.clone(),
            settings,
            memory: self.memory.clone(),
        }
    }

    pub(super) fn prefix(&self) -> String {
        format!("{}/", self.scope)
    }

    pub(super) fn full_key(&self, key: &str) -> String {
        format!("{}/{key}", self.scope)
    }

    /// Stores the message. When this says `Accepted`, it is on disk.
    pub fn enqueue(&self, m: &Enqueue) -> Result<EnqueueAnswer, StoreError> {
        let key = self.full_key(&m.key);
        let prefix = self.prefix();
        self.store.transact(&self.token, |tx| {
            if let Some(ended) = ended(tx.get::<Done>(&key))? {
                return Ok(EnqueueAnswer::Known(ended));
            }
            if let Some(open) = tx.get::<Open>(&key)? {
                return Ok(EnqueueAnswer::Known(self.open_status(&key, &open)));
            }
            let open = tx.list_readable::<Open>(&prefix)?;
            let proving = Purpose::of(self.miner, m.to, m.method) == Purpose::Proving;
            let most = self.settings.max_open + if proving { self.settings.proving_places } else { 0 };
            if open.len() >= most {
                let why = format!("{} messages wait already; look at why they do not land", open.len());
                return Ok(EnqueueAnswer::Refused(why));
            }
            let record = Open {
                seq: open.iter().map(|(_, o)| o.seq + 1).max().unwrap_or(0),
                to: m.to.to_string(),
                from: m.from.map(|a| a.to_string()),
                method: m.method,
                params: m.params.clone(),
                value: m.value.atto().to_string(),
                max_fee: m.max_fee.atto().to_string(),
                closes: m.closes,
                refusals: 0,
                refused_at: None,
                order: None,
                signed: None,
            };
            tx.put(&key, &record)?;
            Ok(EnqueueAnswer::Accepted)
        })
    }

    pub fn status(&self, key: &str) -> Result<MessageStatus, StoreError> {
        let key = self.full_key(key);
        match self.store.get::<Open>(&key) {
            Ok(Some(open)) => return Ok(self.open_status(&key, &open)),
            Ok(None) => {}
            // Whether it was signed is not known: it is neither sent nor sent again.
            Err(e @ (StoreError::Corrupt { .. } | StoreError::Schema { .. })) => {
                return Ok(MessageStatus::Queued { why_waiting: e.to_string() });
            }
            Err(e) => return Err(e),
        }
        Ok(ended(self.store.get::<Done>(&key))?.unwrap_or(MessageStatus::Unknown))
    }

    /// Only what a node has said is "pushed".
    fn open_status(&self, key: &str, open: &Open) -> MessageStatus {
        let signed = open.signed.as_ref().and_then(|s| Some((s, s.cid.parse::<Cid>().ok()?)));
        match signed {
            Some((s, cid)) if !s.is_filler() => match s.pushed_at {
                Some(since) => MessageStatus::Pushed { cid, nonce: s.nonce, since },
                None => {
                    let why = self.memory.why(key);
                    MessageStatus::Queued {
                        why_waiting: format!("signed with nonce {}, no node holds it: {why}", s.nonce),
                    }
                }
            },
            Some((s, _)) => MessageStatus::Queued {
                why_waiting: format!("a self-transfer frees its nonce {}: {}", s.nonce, self.memory.why(key)),
            },
            None => MessageStatus::Queued { why_waiting: self.memory.why(key) },
        }
    }

    /// Open messages in the order of arrival.
    pub fn pending(&self) -> Result<Vec<(String, MessageStatus)>, StoreError> {
        let cut = self.prefix().len();
        Ok(self.open()?.into_iter().map(|(key, o)| (key[cut..].to_owned(), self.open_status(&key, &o))).collect())
    }

    pub(super) fn purpose(&self, key: &str, open: &Open) -> Result<Purpose, StoreError> {
        Ok(Purpose::of(self.miner, parse_address(key, &open.to)?, open.method))
    }

    /// The bound on fee cap x limit that holds now: the message's own, or what the settings give for its purpose.
    pub(super) fn max_fee(&self, key: &str, open: &Open) -> Result<TokenAmount, StoreError> {
        let own = parse_amount(key, &open.max_fee)?;
        if own > TokenAmount::default() {
            return Ok(own);
        }
        Ok(match self.purpose(key, open)? {
            Purpose::Proving => self.settings.window_post_fee.clone(),
            Purpose::PreCommit => self.settings.pre_commit_fee.clone(),
            Purpose::Commit => self.settings.commit_fee.clone(),
            Purpose::Terminate | Purpose::DealPublish | Purpose::Other => self.settings.max_fee.clone(),
        })
    }

    /// In the order of arrival. Messages whose records cannot be read are left alone, with an alert.
    pub(super) fn open(&self) -> Result<Vec<(String, Open)>, StoreError> {
        let (mut open, damaged) = self.store.list_readable::<Open>(&self.prefix())?;
        open.sort_by_key(|(_, o)| o.seq);
        self.memory.set_damaged(damaged);
        Ok(open)
    }

    /// One look at every open message. A node that does not answer leaves them as they are, with the reason.
    /// Only one round may run at a time.
    pub async fn round(&self, head: &TipSet) -> Result<RoundCounts, StoreError> {
        let open = self.open()?;
        let keys: std::collections::HashSet<&str> = open.iter().map(|(key, _)| key.as_str()).collect();
        self.memory.begin(head.height, |key| keys.contains(key));
        if open.is_empty() {
            self.memory.keep_in_front(&[]);
            return Ok(RoundCounts::default());
        }
        let report = Round::new(self, head, open)?.run().await?;
        if report.finished > 0 {
            self.prune(head.height)?;
        }
        Ok(report)
    }

    /// Raises the fee at the next round, within `max_fee` from now on where one is given.
    pub fn order_replacement(&self, key: &str, max_fee: Option<&TokenAmount>) -> Result<OrderAnswer, StoreError> {
        self.order(key, |open| {
            if let Some(max_fee) = max_fee {
                open.max_fee = max_fee.atto().to_string();
            }
            if open.signed.is_some() && open.order.is_none() {
                open.order = Some(Order::Replace);
            }
        })
    }

    /// Takes a message back, also a signed one: see [`Cancel`](super::messages::Cancel).
    pub fn order_cancel(&self, key: &str) -> Result<OrderAnswer, StoreError> {
        match self.withdraw(key)? {
            WithdrawAnswer::Withdrawn => Ok(OrderAnswer::Withdrawn),
            WithdrawAnswer::Unknown => Ok(OrderAnswer::Unknown),
            WithdrawAnswer::TooLate(_) => self.order(key, |open| open.order = Some(Order::Cancel)),
        }
    }

    fn order(&self, key: &str, change: impl FnOnce(&mut Open)) -> Result<OrderAnswer, StoreError> {
        let key = self.full_key(key);
        // An order that somebody else has carried out is none: the cluster must know of it.
        let store = if self.in_doubt(&key)? { self.store.under(Policy::Refuse) } else { self.store.clone() };
        store.transact(&self.token, |tx| {
            if let Some(ended) = ended(tx.get::<Done>(&key))? {
                return Ok(OrderAnswer::Finished(ended));
            }
            let Some(mut open) = tx.get::<Open>(&key)? else { return Ok(OrderAnswer::Unknown) };
            change(&mut open);
            tx.put(&key, &open)?;
            Ok(open.signed.map_or(OrderAnswer::NotSigned, |signed| OrderAnswer::Ordered { nonce: signed.nonce }))
        })
    }

    /// Drops outcomes that nobody asks for any more. One that ended while no head was known gets this one's epoch.
    fn prune(&self, head: i64) -> Result<(), StoreError> {
        let (all, damaged) = self.store.list_readable::<Done>(&self.prefix())?;
        self.memory.set_aside(damaged);
        let (undated, dated): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, done)| done.at == UNDATED);
        let old: Vec<_> = dated.into_iter().filter(|(_, d)| d.at + self.settings.keep_done < head).collect();
        if old.is_empty() && undated.is_empty() {
            return Ok(());
        }
        self.store.transact(&self.token, |tx| {
            old.iter().try_for_each(|(key, _)| tx.delete::<Done>(key))?;
            undated.iter().try_for_each(|(key, done)| tx.put(key, &Done { at: head, ..done.clone() }))
        })
    }

    /// The store in which a message's signed bytes must be before they leave: the cluster's, unless the chain takes the
    /// message only once by itself.
    pub(super) fn store_for_signing(&self, key: &str, open: &Open) -> Result<Store, StoreError> {
        let to = parse_address(key, &open.to)?;
        Ok(match self.miner == Some(to) && miner_messages::is_idempotent(open.method) {
            true => self.store.clone(),
            false => self.store.under(Policy::Refuse),
        })
    }

    /// Whether the cluster's store may have signed bytes of this message that are not here.
    pub(super) fn in_doubt(&self, key: &str) -> Result<bool, StoreError> {
        self.store.is_in_doubt::<Open>(&self.token.path, key)
    }

    /// Changes an open message; one that was withdrawn meanwhile stays gone.
    pub(super) fn amend(&self, key: &str, f: impl FnOnce(&mut Open)) -> Result<(), StoreError> {
        self.amend_in(&self.store, key, f)
    }

    pub(super) fn amend_in(&self, store: &Store, key: &str, f: impl FnOnce(&mut Open)) -> Result<(), StoreError> {
        store.transact(&self.token, |tx| {
            let Some(mut open) = tx.get::<Open>(key)? else { return Ok(()) };
            f(&mut open);
            tx.put(key, &open)
        })
    }

    /// Gives a message up that is of no use any more. Once it is signed it cannot be taken back: its nonce is out.
    pub fn withdraw(&self, key: &str) -> Result<WithdrawAnswer, StoreError> {
        let key = self.full_key(key);
        let store = if self.in_doubt(&key)? { self.store.under(Policy::Refuse) } else { self.store.clone() };
        store.transact(&self.token, |tx| {
            if let Some(ended) = ended(tx.get::<Done>(&key))? {
                return Ok(WithdrawAnswer::TooLate(ended));
            }
            let Some(open) = tx.get::<Open>(&key)? else { return Ok(WithdrawAnswer::Unknown) };
            if open.signed.is_some() {
                return Ok(WithdrawAnswer::TooLate(self.open_status(&key, &open)));
            }
            let outcome = MessageOutcome::Failed { exit_code: -1, error: "withdrawn before it was signed".into() };
            tx.delete::<Open>(&key)?;
            tx.put(&key, &Done { at: self.memory.head().unwrap_or(UNDATED), outcome })?;
            Ok(WithdrawAnswer::Withdrawn)
        })
    }

    pub(super) fn store_done(&self, key: &str, done: &Done) -> Result<(), StoreError> {
        self.store.transact(&self.token, |tx| {
            tx.delete::<Open>(key)?;
            tx.put(key, done)
        })
    }
}

/// How a message ended, if it did. A record of that which cannot be read says that it did.
fn ended(done: Result<Option<Done>, StoreError>) -> Result<Option<MessageStatus>, StoreError> {
    match done {
        Err(e @ (StoreError::Corrupt { .. } | StoreError::Schema { .. })) => {
            let error = format!("it ended, and how cannot be read: {e}");
            Ok(Some(MessageStatus::Failed { exit_code: -1, error }))
        }
        done => Ok(done?.map(|done| done_status(&done))),
    }
}

fn done_status(done: &Done) -> MessageStatus {
    match &done.outcome {
        MessageOutcome::Failed { exit_code, error } => {
            MessageStatus::Failed { exit_code: *exit_code, error: error.clone() }
        }
        MessageOutcome::Landed { cid, epoch, tipset, return_data } => match cid.parse() {
            Ok(cid) => MessageStatus::Landed {
                cid,
                epoch: *epoch,
                tipset: TipSetKey(tipset.iter().filter_map(|c| c.parse().ok()).collect()),
                return_data: return_data.clone(),
            },
            Err(_) => MessageStatus::Unknown,
        },
    }
}

/// Text in a record that this program wrote itself; an error means damage.
pub(super) fn parse_address(key: &str, text: &str) -> Result<Address, StoreError> {
    lotus_json::address::parse(text).map_err(|why| damaged(key, why))
}

pub(super) fn parse_amount(key: &str, text: &str) -> Result<TokenAmount, StoreError> {
    text.parse::<num_bigint::BigInt>().map(TokenAmount::from_atto).map_err(|e| damaged(key, e.to_string()))
}

pub(super) fn parse_signed(key: &str, signed: &Signed) -> Result<SignedMessage, StoreError> {
    serde_json::from_str(&signed.json).map_err(|e| damaged(key, e.to_string()))
}

pub(super) fn damaged(key: &str, why: String) -> StoreError {
    StoreError::Corrupt { table: "messages", key: key.to_owned(), why }
}

pub(super) fn fee_of(m: &SignedMessage) -> Fee {
    let m = &m.message;
    Fee { cap: m.gas_fee_cap.clone(), premium: m.gas_premium.clone(), limit: m.gas_limit }
}

/// The stored form of a freshly signed message.
pub(super) fn to_signed(key: &str, m: &SignedMessage, head: i64) -> Result<Signed, StoreError> {
    Ok(Signed {
        json: serde_json::to_string(m).map_err(|e| damaged(key, e.to_string()))?,
        cid: cbor::signed_message_cid(m).map_err(|e| damaged(key, e.to_string()))?.to_string(),
        nonce: m.message.nonce,
        from: m.message.from.to_string(),
        pushed_at: None,
        signed_at: head,
        replaced: Vec::new(),
        nonce_gone_since: None,
        held: false,
        fillers: Vec::new(),
    })
}
