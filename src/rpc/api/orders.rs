//! An operator's orders to the miner actor, as a command gives them: what is wanted, what would be sent, how it stands.

use serde::{Deserialize, Serialize};

/// An operator's wish of the miner actor. Addresses, amounts and ids are text as typed: the node says which one is wrong.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Replaces all control addresses by these.
    SetControl {
        addresses: Vec<String>,
    },
    ProposeWorker {
        worker: String,
    },
    ConfirmWorker {
        worker: String,
    },
    /// The owner names another one; the same from that one confirms.
    SetOwner {
        new_owner: String,
        sender: String,
    },
    /// Multiaddresses; none unsets them. `from`: a controller, `None` = the worker.
    SetAddresses {
        multiaddrs: Vec<String>,
        from: Option<String>,
    },
    SetPeerId {
        peer_id: String,
    },
    /// FIL; `None` = all that is available. Sent by the owner, or by the beneficiary.
    Withdraw {
        amount: Option<String>,
        by_beneficiary: bool,
    },
    /// FIL; `None` = the fee debt. `from`: a controller, `None` = the worker.
    RepayDebt {
        amount: Option<String>,
        from: Option<String>,
    },
    RecoverFaults {
        sectors: Vec<u64>,
    },
}

impl Order {
    /// In keys of messages and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Order::SetControl { .. } => "control-set",
            Order::ProposeWorker { .. } => "propose-change-worker",
            Order::ConfirmWorker { .. } => "confirm-change-worker",
            Order::SetOwner { .. } => "set-owner",
            Order::SetAddresses { .. } => "set-addrs",
            Order::SetPeerId { .. } => "set-peer-id",
            Order::Withdraw { .. } => "withdraw",
            Order::RepayDebt { .. } => "repay-debt",
            Order::RecoverFaults { .. } => "recover-faults",
        }
    }
}

/// An order's messages, checked against the chain's state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The changes, a line each.
    pub changes: Vec<String>,
    /// Facts that the chain allows and an operator should know before.
    pub warnings: Vec<String>,
    pub messages: Vec<PlannedMessage>,
    /// Between two epochs.
    pub block_delay_secs: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PlannedMessage {
    /// An ID address, and the account's key.
    pub from: String,
    pub from_key: String,
    pub to: String,
    pub method: u64,
    pub method_name: String,
    /// CBOR in hex, as `lotus send --params-hex` takes it.
    pub params: String,
    /// attoFIL.
    pub value: String,
    /// Most that its gas costs by the node's estimate, attoFIL.
    pub gas: String,
    /// Why this node cannot send it; whoever has the key can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
}

/// The outcome of an order about a message.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum MessageOrder {
    /// On disk; carried out at the next look at the message.
    Ordered {
        nonce: u64,
    },
    /// It was not signed yet, and will never be sent.
    Withdrawn,
    /// It is not signed yet: there is nothing to replace; a new bound holds for it.
    NotSigned,
    /// Too late: this is how it stands.
    Finished {
        message: MessageState,
    },
    Unknown,
}

/// How a message stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MessageState {
    /// On disk, not signed yet.
    Queued { why: String },
    /// Signed; pushed to the full node, or to be pushed again.
    Pushed { cid: String, nonce: u64, since: i64 },
    /// On chain with exit code 0, and final. `return_data`: CBOR in hex.
    Landed { cid: String, epoch: i64, return_data: String },
    /// It will not be sent again.
    Failed { exit_code: i64, error: String },
    /// No such key, or forgotten after a week.
    Unknown,
}
