//! Refuses a block that would be a consensus fault of ours. Pure; what it remembers is durable before a block is sent.

use crate::chain::ChainEpoch;
use crate::chain::types::{BlockHeader, TipSet};
use crate::store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a block of ours stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Recorded; whether the node got it is not known (yet).
    Pending,
    Accepted,
    Refused(String),
    OnChain {
        cid: String,
    },
}

/// A block that we made, kept for as long as another one could make it a fault.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MinedBlock {
    pub epoch: ChainEpoch,
    pub parent_epoch: ChainEpoch,
    /// CIDs, in the order of the header.
    pub parents: Vec<String>,
    /// Tells the same block from another one.
    pub fingerprint: [u8; 32],
    pub win_count: i64,
    pub state: BlockState,
}

impl Record for MinedBlock {
    const TABLE: &'static str = "winning_post_blocks";
}

impl MinedBlock {
    pub fn of(header: &BlockHeader, base: &TipSet) -> MinedBlock {
        MinedBlock {
            epoch: header.height,
            parent_epoch: base.height,
            parents: header.parents.iter().map(ToString::to_string).collect(),
            fingerprint: fingerprint(header),
            win_count: header.election_proof.as_ref().map_or(0, |proof| proof.win_count),
            state: BlockState::Pending,
        }
    }
}

/// A hash over the whole header, signature included.
pub fn fingerprint(header: &BlockHeader) -> [u8; 32] {
    // A header always serialises; were it not so, all would look alike and the filter would err on the safe side: see check.
    let text = serde_json::to_vec(header).unwrap_or_default();
    let mut out = [0; 32];
    out.copy_from_slice(blake2b_simd::Params::new().hash_length(32).hash(&text).as_bytes());
    out
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlashableFault {
    #[error("double-fork mining fault: we made another block at epoch {epoch}")]
    DoubleFork { epoch: ChainEpoch },
    #[error("time-offset mining fault: we made a block with the same parents at epoch {other}")]
    TimeOffset { other: ChainEpoch },
    #[error("parent-grinding fault: the parents leave out the block that we made at epoch {parent_epoch}")]
    ParentGrinding { parent_epoch: ChainEpoch },
}

/// `ours_in_base`: the base tipset holds a block of this miner.
pub fn check(
    mined: &BTreeMap<ChainEpoch, MinedBlock>,
    new: &MinedBlock,
    ours_in_base: bool,
) -> Result<(), SlashableFault> {
    if mined.get(&new.epoch).is_some_and(|other| other.fingerprint != new.fingerprint) {
        return Err(SlashableFault::DoubleFork { epoch: new.epoch });
    }
    let same_parents = |other: &&MinedBlock| other.parents == new.parents && other.fingerprint != new.fingerprint;
    if let Some(other) = mined.values().find(same_parents) {
        return Err(SlashableFault::TimeOffset { other: other.epoch });
    }
    if mined.contains_key(&new.parent_epoch) && !ours_in_base {
        return Err(SlashableFault::ParentGrinding { parent_epoch: new.parent_epoch });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(epoch: ChainEpoch, parent_epoch: ChainEpoch, parents: &[&str], print: u8) -> MinedBlock {
        MinedBlock {
            epoch,
            parent_epoch,
            parents: parents.iter().map(ToString::to_string).collect(),
            fingerprint: [print; 32],
            win_count: 1,
            state: BlockState::Accepted,
        }
    }

    fn mined(blocks: &[MinedBlock]) -> BTreeMap<ChainEpoch, MinedBlock> {
        blocks.iter().map(|block| (block.epoch, block.clone())).collect()
    }

    #[test]
    fn one_block_an_epoch() {
        let known = mined(&[block(10, 9, &["a"], 1)]);
        for (epoch, expected) in [(9, Ok(())), (10, Err(SlashableFault::DoubleFork { epoch: 10 })), (11, Ok(()))] {
            assert_eq!(check(&known, &block(epoch, 8, &["b"], 2), false), expected);
        }
        assert_eq!(check(&known, &block(10, 9, &["a"], 1), false), Ok(()), "the same block again is no other block");
    }

    #[test]
    fn one_block_on_the_same_parents() {
        let known = mined(&[block(10, 9, &["a", "b"], 1)]);
        assert_eq!(check(&known, &block(11, 9, &["a", "b"], 2), false), Err(SlashableFault::TimeOffset { other: 10 }));
        assert_eq!(check(&known, &block(11, 9, &["a"], 2), false), Ok(()));
        assert_eq!(check(&known, &block(11, 9, &["b", "a"], 2), false), Ok(()));
    }

    #[test]
    fn our_own_block_is_among_the_parents() {
        let known = mined(&[block(10, 9, &["a"], 1)]);
        let grinding = Err(SlashableFault::ParentGrinding { parent_epoch: 10 });
        assert_eq!(check(&known, &block(11, 10, &["c"], 2), false), grinding);
        assert_eq!(check(&known, &block(11, 10, &["c", "ours"], 2), true), Ok(()));
        for parent_epoch in [9, 11] {
            assert_eq!(check(&known, &block(12, parent_epoch, &["c"], 2), false), Ok(()));
        }
    }
}
