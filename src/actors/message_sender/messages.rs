//! The message sender's public protocol.

use crate::chain::types::TipSetKey;
use crate::chain::{Address, ChainEpoch, TokenAmount, compact};
use crate::rpc::bridge::{codec, ids};
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
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
    /// Most that gas may cost, fee cap x limit, replacements included; zero = the sender's default.
    #[serde(with = "compact::token")]
    pub max_fee: TokenAmount,
    /// `None` = the miner's worker.
    #[serde(with = "compact::address_opt")]
    pub from: Option<Address>,
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
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::ENQUEUE, 1));
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
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MessageStatus {
    /// Durable, not signed yet.
    Queued {
        why_waiting: String,
    },
    /// Signed and stored; pushed at epoch `since` or to be pushed again.
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
