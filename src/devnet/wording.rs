//! The refusals that Lotus and Forest word differently. A client must understand both, so the chain can speak as either.

use super::error::ChainError;
use crate::chain::types::Message;
use cid::Cid;
use fil_actors_shared::v19::ActorError;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::SectorNumber;

/// The node whose words and error codes the chain uses where the two differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wording {
    Lotus,
    #[default]
    Forest,
}

/// go-jsonrpc's code of any error that a method returns.
const VERDICT: i64 = 1;
/// jsonrpsee's "internal error": Forest's code of nearly every error that a method returns.
const INTERNAL: i64 = -32603;

impl Wording {
    fn says(self, lotus: impl FnOnce() -> String, forest: impl FnOnce() -> String) -> ChainError {
        match self {
            Wording::Lotus => ChainError::Coded { code: VERDICT, message: lotus() },
            Wording::Forest => ChainError::Coded { code: INTERNAL, message: forest() },
        }
    }

    /// `StateSearchMsg`, `StateWaitMsg`: the node has never held a message with this CID (lotus `stmgr/searchwait.go`,
    /// forest `state_manager/message_search.rs`).
    pub fn unknown_message(self, cid: &Cid) -> ChainError {
        self.says(
            || format!("failed to load message: ipld: could not find {cid}"),
            || format!("failed to load message Invalid tipset: {cid}"),
        )
    }

    /// `StateSearchMsg`: another call landed with the nonce. Lotus calls that an error, unless `allowReplaced` is false;
    /// Forest finds nothing.
    pub fn displaced(self, wanted: &Cid, nonce: u64, landed: &Cid, replaced: bool) -> Result<(), ChainError> {
        match self {
            Wording::Lotus if replaced => Err(ChainError::Coded {
                code: VERDICT,
                message: format!(
                    "message was replaced: found message with equal nonce as the one we are looking for that is NOT a \
                     valid replacement message (F:{wanted} n {nonce}, TS: {landed} n{nonce})"
                ),
            }),
            Wording::Lotus | Wording::Forest => Ok(()),
        }
    }

    /// `StateSearchMsg` without `allowReplaced`: the same call landed with another fee. Forest calls that an error.
    pub fn other_fee_landed(self, wanted: &Cid, message: &Message, landed: &Cid) -> Result<(), ChainError> {
        match self {
            Wording::Lotus => Ok(()),
            Wording::Forest => Err(ChainError::Coded {
                code: INTERNAL,
                message: format!(
                    "found message with equal nonce and call params but different CID. wanted {wanted}, found: {landed}, \
                     nonce: {}, from: {}",
                    message.nonce, message.from
                ),
            }),
        }
    }

    /// `StateMinerSectors` with a number that is no sector: an error for the whole call.
    pub fn unknown_sector(self, number: SectorNumber) -> ChainError {
        self.says(
            || format!("failed to load sectors: can't find sector {number}"),
            || ActorError::not_found(format!("sector not found: {number}")).to_string(),
        )
    }

    /// `MpoolGetNonce` of an address without an actor; Lotus' answer to `StateGetActor` too, where Forest gives null.
    pub fn no_actor(self, who: &Address) -> ChainError {
        self.says(
            || match who.protocol() {
                Protocol::ID => "actor not found".to_string(),
                _ => format!("resolution lookup failed ({who}): resolve address {who}: actor not found"),
            },
            || format!("Actor not found: addr={who}"),
        )
    }

    /// A push whose fee cap × gas limit and value are more than the sender holds (lotus `checkBalance`).
    pub fn not_enough_funds(self, required: &TokenAmount, balance: &TokenAmount) -> ChainError {
        self.says(
            || {
                format!(
                    "failed to check balance: not enough funds (required: {required} FIL, balance: {balance} FIL): not \
                     enough funds to execute transaction"
                )
            },
            || format!("Not enough funds to execute transaction, balance: {balance}, required: {required}"),
        )
    }

    /// The same, with what the sender's other pending messages may cost.
    pub fn not_enough_with_pending(self, required: &TokenAmount, balance: &TokenAmount) -> ChainError {
        self.says(
            || {
                format!(
                    "failed to check balance: not enough funds including pending messages (required: {required} FIL, \
                     balance: {balance} FIL): validation failure"
                )
            },
            || format!("Not enough funds to execute transaction, balance: {balance}, required: {required}"),
        )
    }

    /// A push whose nonce is used on chain.
    pub fn nonce_too_low(self, expected: u64, got: u64) -> ChainError {
        self.says(
            || format!("minimum expected nonce is {expected}, got {got}: message nonce too low"),
            || "Message sequence too low".to_string(),
        )
    }

    /// A push far ahead of the first nonce that is missing.
    pub fn nonce_gap(self, nonce: u64, next: u64) -> ChainError {
        self.says(
            || {
                format!(
                    "failed to add locked: message nonce has too big a gap from expected nonce (Nonce: {nonce}, \
                     nextNonce: {next}): unfulfilled nonce gap"
                )
            },
            || "unfulfilled nonce gap".to_string(),
        )
    }

    /// A push of a message that the pool holds already.
    pub fn already_pending(self, m: &Message) -> ChainError {
        self.says(
            || {
                format!(
                    "failed to add locked: message from {} with nonce {} already in mpool: message with nonce already \
                     exists",
                    m.from, m.nonce
                )
            },
            || "Message with sequence already in mempool".to_string(),
        )
    }

    /// A replacement that does not raise the premium to `least`.
    pub fn premium_too_low(self, m: &Message, least: &TokenAmount) -> ChainError {
        self.says(
            || {
                format!(
                    "failed to add locked: message from {} with nonce {} already in mpool, increase GasPremium to {} from \
                     {} to trigger replace by fee: replace by fee has too low GasPremium",
                    m.from,
                    m.nonce,
                    least.atto(),
                    m.gas_premium.atto()
                )
            },
            || "gas price is lower than min gas price".to_string(),
        )
    }

    pub fn fee_cap_too_low(self) -> ChainError {
        self.says(|| "gas fee cap too low".to_string(), || "gas fee cap is too low".to_string())
    }

    pub fn message_too_large(self, bytes: usize) -> ChainError {
        self.says(
            || format!("mpool message too large ({bytes}B): message too big"),
            || "Message is too big".to_string(),
        )
    }

    /// `StateMinerInitialPledgeCollateral` from network version 29 on (lotus#13748, forest#7599).
    pub fn pledge_of_pre_commit(self) -> ChainError {
        let text = || {
            "StateMinerInitialPledgeCollateral is unsupported from network version 29 (FIP-0118): use \
             StateMinerInitialPledgeForSector"
                .to_string()
        };
        self.says(text, text)
    }

    /// `ChainGetTipSet` with null or `[]`, which elsewhere mean the head.
    pub fn empty_tip_set_key(self) -> ChainError {
        const NO_BLOCKS: &str = "NewTipSet called with zero length array of blocks";
        self.says(|| NO_BLOCKS.to_string(), || format!("TipsetKey cannot be empty ({NO_BLOCKS})"))
    }
}
