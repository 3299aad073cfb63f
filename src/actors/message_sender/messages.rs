//! The message sender's public protocol.

use crate::chain::types::TipSetKey;
use crate::chain::{Address, ChainEpoch, TokenAmount};
use crate::supervisor::Message;
use cid::Cid;

/// Give the sender a message to bring on chain. It is durable when `Accepted` comes back.
/// The key names the intent: the same key again is the same message, never a second one, whatever else differs.
#[derive(Clone, Debug)]
pub struct Enqueue {
    pub key: String,
    pub to: Address,
    pub method: u64,
    /// CBOR.
    pub params: Vec<u8>,
    pub value: TokenAmount,
    /// Most that gas may cost, fee cap x limit, replacements included; zero = the sender's default.
    pub max_fee: TokenAmount,
    /// `None` = the miner's worker.
    pub from: Option<Address>,
}

#[derive(Clone, Debug, PartialEq)]
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
}

/// Give a message up that is of no use any more (its deadline has closed). Works until it is signed.
#[derive(Clone, Debug)]
pub struct Withdraw {
    pub key: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum WithdrawAnswer {
    /// It will never be sent; its status is `Failed` from now on.
    Withdrawn,
    /// Signed already, or finished.
    TooLate(MessageStatus),
    Unknown,
}

impl Message for Withdraw {
    type Reply = Result<WithdrawAnswer, String>;
}

/// How a message stands; ask again on each new head.
#[derive(Clone, Debug)]
pub struct Status {
    pub key: String,
}

impl Message for Status {
    type Reply = MessageStatus;
}

/// Every message that is not on chain yet, in the order in which they were given, and why each waits.
#[derive(Clone, Debug)]
pub struct Pending;

impl Message for Pending {
    type Reply = Vec<(String, MessageStatus)>;
}

#[derive(Clone, Debug, PartialEq)]
pub enum MessageStatus {
    /// Durable, not signed yet.
    Queued {
        why_waiting: String,
    },
    /// Signed and stored; pushed at epoch `since` or to be pushed again.
    Pushed {
        cid: Cid,
        nonce: u64,
        since: ChainEpoch,
    },
    /// On chain with exit 0, under `confidence` further epochs.
    Landed {
        cid: Cid,
        epoch: ChainEpoch,
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
