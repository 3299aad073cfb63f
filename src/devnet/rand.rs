//! The beacon, and randomness as a given tipset's chain gives it.

use super::error::{ChainError, ChainResult};
use super::keys::Secret;
use super::store::ChainStore;
use super::vm::Rand;
use super::wire;
use crate::chain::randomness::draw;
use crate::chain::types::{BeaconEntry, BlockHeader, TipSet};
use crate::rpc::full_node::RandomnessTag;
use cid::Cid;
use fvm_ipld_blockstore::Blockstore;
use fvm_shared::clock::ChainEpoch;
use std::sync::Arc;

/// A drand of one: round = epoch, the entry is this chain's BLS signature over the round.
#[derive(Clone)]
pub struct Beacon(pub Arc<Secret>);

impl Beacon {
    pub fn entry(&self, round: u64) -> ChainResult<BeaconEntry> {
        let signature = self.0.sign(&round.to_be_bytes()).map_err(ChainError::store)?;
        Ok(BeaconEntry { round, data: signature.data })
    }

    /// The beacon entries that a block at `height` on a parent at `parent` must carry: the rounds since the parent.
    pub fn entries_between(&self, parent: ChainEpoch, height: ChainEpoch) -> ChainResult<Vec<BeaconEntry>> {
        (parent + 1..=height).map(|round| self.entry(round.max(0) as u64)).collect()
    }
}

pub fn load_header(store: &ChainStore, cid: &Cid) -> ChainResult<BlockHeader> {
    let bytes = store.get(cid)?.ok_or_else(|| ChainError::refused(format!("block {cid} not found")))?;
    wire::header_from_bytes(&bytes)
}

/// The chain that ends with tipset `at`.
pub struct ChainRand {
    pub store: ChainStore,
    pub beacon: Beacon,
    at: BlockHeader,
}

impl ChainRand {
    pub fn new(store: &ChainStore, beacon: &Beacon, at: &TipSet) -> Self {
        ChainRand { store: store.clone(), beacon: beacon.clone(), at: at.min_ticket_block().clone() }
    }

    fn check(&self, epoch: ChainEpoch) -> ChainResult<ChainEpoch> {
        if epoch > self.at.height {
            return Err(ChainError::refused(format!(
                "cannot draw randomness from the future: epoch {epoch}, tipset height {}",
                self.at.height
            )));
        }
        Ok(epoch.max(0))
    }

    /// The smallest ticket of the tipset at `epoch`, or of the last one before it when that epoch has none.
    fn ticket(&self, epoch: ChainEpoch) -> ChainResult<Vec<u8>> {
        let epoch = self.check(epoch)?;
        let mut block = self.at.clone();
        while block.height > epoch {
            let Some(parent) = block.parents.first() else { break };
            block = load_header(&self.store, parent)?;
        }
        Ok(block.ticket.map(|t| t.vrf_proof).unwrap_or_default())
    }
}

impl Rand for ChainRand {
    fn tickets(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ChainResult<[u8; 32]> {
        Ok(draw(&self.ticket(epoch)?, tag as i64, epoch, entropy))
    }

    fn beacon(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ChainResult<[u8; 32]> {
        let round = self.check(epoch)? as u64;
        Ok(draw(&self.beacon.entry(round)?.data, tag as i64, epoch, entropy))
    }
}

/// For reading state only.
pub struct NoRand;

impl Rand for NoRand {
    fn tickets(&self, _: RandomnessTag, _: ChainEpoch, _: &[u8]) -> ChainResult<[u8; 32]> {
        Err(ChainError::refused("no randomness here"))
    }
    fn beacon(&self, _: RandomnessTag, _: ChainEpoch, _: &[u8]) -> ChainResult<[u8; 32]> {
        Err(ChainError::refused("no randomness here"))
    }
}
