//! The refusals that Lotus and Forest word differently. A client must understand both, so the chain can speak as either.

use super::error::ChainError;
use crate::chain::types::Message;
use cid::Cid;
use fil_actors_shared::v19::ActorError;
use fvm_shared::address::{Address, Protocol};
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
