//! The message sender's public protocol.

use crate::chain::types::TipSetKey;
use crate::chain::{Address, ChainEpoch, TokenAmount, compact};
use crate::supervisor::Message;
use crate::supervisor::wire::{WireError, WireForm};
use crate::wire::{codec, ids};
use cid::Cid;
use serde::{Deserialize, Serialize};

/// Give the sender a message to bring on chain. It is durable when `Accepted` comes back.
/// The key names the intent: the same key again is the same message, never a second one, whatever else differs.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Enqueue {
    pub key: String,
    #[serde(with = "compact::address")]
    pub to: Address,
    pub method: u64,
    /// CBOR.
    pub params: Vec<u8>,
    #[serde(with = "compact::token")]
    pub value: TokenAmount,
    /// Most that gas may cost, fee cap x limit, replacements included; zero = what the sender's settings allow for such
    /// messages, also after they change.
    #[serde(with = "compact::token")]
    pub max_fee: TokenAmount,
    /// `None` = by what the message is for: a control address, the worker or the owner.
    #[serde(with = "compact::address_opt")]
    pub from: Option<Address>,
    /// Epoch from which the message is of no use (a deadline's Close); `None`: it never loses its use. The fewer epochs
    /// are left, the more its replacements offer.
    pub closes: Option<ChainEpoch>,
}

/// Schema 1: without `closes`.
#[derive(Serialize, Deserialize)]
pub struct EnqueueV1 {
    key: String,
    #[serde(with = "compact::address")]
    to: Address,
    method: u64,
    params: Vec<u8>,
    #[serde(with = "compact::token")]
    value: TokenAmount,
    #[serde(with = "compact::token")]
    max_fee: TokenAmount,
    #[serde(with = "compact::address_opt")]
    from: Option<Address>,
}

impl codec::Earlier<Enqueue> for EnqueueV1 {
    type Reply = EnqueueAnswer;

    fn upgrade(self) -> Enqueue {
        let EnqueueV1 { key, to, method, params, value, max_fee, from } = self;
        Enqueue { key, to, method, params, value, max_fee, from, closes: None }
    }

    /// An older sender knows no urgency; it sends the same message.
    fn downgrade(message: &Enqueue) -> Result<EnqueueV1, WireError> {
        let Enqueue { key, to, method, params, value, max_fee, from, closes: _ } = message.clone();
        Ok(EnqueueV1 { key, to, method, params, value, max_fee, from })
    }

    fn upgrade_reply(reply: EnqueueAnswer) -> EnqueueAnswer {
        reply
    }

    fn downgrade_reply(reply: &EnqueueAnswer) -> Result<EnqueueAnswer, WireError> {
        Ok(reply.clone())
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum EnqueueAnswer {
    /// On disk; it will be sent until the chain has it.
    Accepted,
    /// The key was given before; this is how that message stands.
    Known(MessageStatus),
    /// Not taken over (queue full, disk full): nothing was stored, ask again later.
    Refused(String),
}

impl Message for Enqueue {
    type Reply = EnqueueAnswer;
    const WIRE: Option<WireForm<Self>> =
        Some(codec::form(ids::ENQUEUE, 2).with_previous(codec::previous::<Self, EnqueueV1>()));
}

/// Give a message up that is of no use any more (its deadline has closed). Works until it is signed.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Withdraw {
    pub key: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum WithdrawAnswer {
    /// It will never be sent; its status is `Failed` from now on.
    Withdrawn,
    /// Signed already, or finished.
    TooLate(MessageStatus),
    Unknown,
}

impl Message for Withdraw {
    type Reply = Result<WithdrawAnswer, String>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::WITHDRAW, 1));
}

/// How a message stands; ask again on each new head.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Status {
    pub key: String,
}

impl Message for Status {
    type Reply = MessageStatus;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::MESSAGE_STATUS, 1));
}

/// Every message that is not on chain yet, in the order in which they were given, and why each waits.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Pending;

impl Message for Pending {
    type Reply = Vec<(String, MessageStatus)>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::PENDING, 1));
}

/// How many messages are open, and how long the oldest has been: an answer of the same size however many there are.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Summary;

impl Message for Summary {
    type Reply = MessageSummary;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::MESSAGE_SUMMARY, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct MessageSummary {
    /// Not signed yet.
    pub queued: u64,
    /// Signed, and not final on chain.
    pub pushed: u64,
    /// Epochs since the oldest of the latter was signed; `None`: there is none.
    pub oldest_epochs: Option<u64>,
    /// Key of the oldest that is not signed, and why it waits.
    pub waiting: Option<(String, String)>,
    /// The obstacle that keeps messages from landing and a person can remove: a balance, a bound, a node that refuses.
    pub alerts: Vec<String>,
}

/// The open messages with what each offers, in the order of arrival.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ListMessages {
    /// Rows in the answer at most; the oldest come first.
    pub most: u32,
}

impl Message for ListMessages {
    type Reply = Result<MessageList, String>;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::LIST_MESSAGES, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct MessageList {
    /// Messages that are open, also those that are not in `rows`.
    pub open: u64,
    pub rows: Vec<MessageRow>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct MessageRow {
    pub key: String,
    /// `queued`, `signed` (no node holds it) or `pushed`.
    pub state: String,
    pub to: String,
    pub method: u64,
    /// attoFIL.
    pub value: String,
    /// attoFIL: the bound on fee cap x limit that holds now.
    pub max_fee: String,
    /// Epoch from which it is of no use.
    pub closes: Option<ChainEpoch>,
    /// Why it waits; empty where nothing is known.
    pub why: String,
    /// `replace` or `cancel`: ordered and not done yet.
    pub order: Option<String>,
    /// `None`: not signed, as for all below.
    pub from: Option<String>,
    pub nonce: Option<u64>,
    pub cid: Option<String>,
    pub gas_limit: Option<i64>,
    /// attoFIL per unit of gas.
    pub fee_cap: Option<String>,
    pub premium: Option<String>,
    /// Epoch at which these bytes were signed.
    pub signed_at: Option<ChainEpoch>,
    /// Earlier versions with other fees.
    pub replaced: u64,
    /// The latest bytes are a self-transfer that frees the nonce.
    pub fills: bool,
}

/// Raises a signed message's fee at once, within its bound or the one given here.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Replace {
    pub key: String,
    /// attoFIL: the message's bound on fee cap x limit from now on; `None`: as it is.
    #[serde(with = "compact::token_opt")]
    pub max_fee: Option<TokenAmount>,
}

impl Message for Replace {
    type Reply = Result<OrderAnswer, String>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::REPLACE_MESSAGE, 1));
}

/// Takes a message back: one that is not signed is never sent, the nonce of a signed one is used by a self-transfer. If the
/// message lands first after all, it has landed.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Cancel {
    pub key: String,
}

impl Message for Cancel {
    type Reply = Result<OrderAnswer, String>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::CANCEL_MESSAGE, 1));
}

/// The answer to [`Replace`] and [`Cancel`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum OrderAnswer {
    /// Durable; carried out at the next look at the message.
    Ordered {
        nonce: u64,
    },
    /// Cancelled before it was signed: it will never be sent.
    Withdrawn,
    /// Not signed yet, so that there is nothing to replace; a new bound is stored.
    NotSigned,
    /// It was too late: this is how it ended.
    Finished(MessageStatus),
    Unknown,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MessageStatus {
    /// Durable; not signed yet, or no node holds it.
    Queued {
        why_waiting: String,
    },
    /// A node took it at epoch `since`.
    Pushed {
        #[serde(with = "compact::cid_bytes")]
        cid: Cid,
        nonce: u64,
        since: ChainEpoch,
    },
    /// On chain with exit 0, under `confidence` further epochs.
    Landed {
        #[serde(with = "compact::cid_bytes")]
        cid: Cid,
        epoch: ChainEpoch,
        #[serde(with = "compact::tipset_key")]
        tipset: TipSetKey,
        return_data: Vec<u8>,
    },
    /// On chain with another exit code, or refused by the node again and again before it was signed
    /// (then `exit_code` is what the node's estimate gave, -1 where it gave none). It will not be sent again.
    Failed {
        exit_code: i64,
        error: String,
    },
    Unknown,
}
