//! Making blocks: the common part, the built-in producer, null rounds and reorgs, the clock's shell.

use super::clock::{ClockStep, due, next_step};
use super::core::{Core, put_header};
use super::error::{ChainError, ChainResult};
use super::genesis::PRODUCER_ID;
use super::keys::{self, Secret};
use super::vm::power;
use super::wire;
use crate::chain::randomness::draw;
use crate::chain::types::{BlockHeader, ElectionProof, SignedMessage, Ticket, TipSet, TipSetKey};
use crate::rpc::full_node::RandomnessTag;
use cid::Cid;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use num_bigint::BigInt;

/// A block's messages, as it refers to them.
pub struct Contents {
    pub root: Cid,
    pub bls: Vec<Cid>,
    pub secp256k1: Vec<Cid>,
    pub aggregate: crate::chain::types::Signature,
}

impl Core {
    /// Stores messages the way a block refers to them.
    pub fn contents(&self, messages: &[SignedMessage]) -> ChainResult<Contents> {
        let (mut bls, mut secp256k1, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
        for message in messages {
            let cid = wire::put_message(&self.store, message)?;
            if message.signature.kind == keys::BLS {
                bls.push(cid);
                signatures.push(message.signature.data.clone());
            } else {
                secp256k1.push(cid);
            }
        }
        let root = wire::put_messages(&self.store, &bls, &secp256k1)?;
        let aggregate = keys::aggregate(&signatures).map_err(ChainError::refused)?;
        Ok(Contents { root, bls, secp256k1, aggregate })
    }

    /// A header on `parents` with what follows from them; tickets and proofs are still to be filled in.
    pub fn draft(
        &mut self,
        parents: &TipSet,
        miner: Address,
        height: ChainEpoch,
        timestamp: u64,
        contents: &Contents,
    ) -> ChainResult<BlockHeader> {
        let done = self.executed(parents)?;
        Ok(BlockHeader {
            miner,
            ticket: None,
            election_proof: None,
            beacon_entries: self.beacon.entries_between(parents.height, height)?,
            win_post_proof: vec![],
            parents: parents.cids.clone(),
            parent_weight: self.weight(parents)?,
            height,
            parent_state_root: done.state,
            parent_message_receipts: done.receipts,
            messages: contents.root,
            bls_aggregate: Some(contents.aggregate.clone()),
            timestamp,
            block_sig: None,
            fork_signaling: 0,
            parent_base_fee: self.base_fee_after(parents)?,
        })
    }

    /// Lotus' weight: the parents', plus log2 of the network's power and a share of it for every win.
    pub fn weight(&mut self, ts: &TipSet) -> ChainResult<BigInt> {
        let parent_weight = ts.min_ticket_block().parent_weight.clone();
        let wins: i64 = ts.blocks.iter().filter_map(|b| b.election_proof.as_ref()).map(|e| e.win_count).sum();
        let vm = self.view_root(&ts.min_ticket_block().parent_state_root, ts.height)?;
        let (_, total) = power::load(&vm)?.current_total_power();
        let log2 = total.bits().saturating_sub(1).max(1);
        let base = BigInt::from(log2) << 8;
        // wRatio 1/2, 5 expected leaders.
        Ok(parent_weight + &base + base * wins / 10)
    }

    fn vrf(
        &self,
        key: &Secret,
        tag: RandomnessTag,
        base: &[u8],
        round: ChainEpoch,
        entropy: &[u8],
    ) -> ChainResult<Vec<u8>> {
        Ok(key.sign(&draw(base, tag as i64, round, entropy)).map_err(ChainError::store)?.data)
    }

    /// The blocks of other miners on any tipset; stored, not yet the head. All contain the same messages, as blocks of
    /// miners that see the same pool do.
    fn built_in_blocks(
        &mut self,
        parents: &TipSet,
        height: ChainEpoch,
        timestamp: u64,
    ) -> ChainResult<Vec<BlockHeader>> {
        let messages = self.select(parents)?;
        let contents = self.contents(&messages)?;
        let miners = other_miners(self.settings.others_blocks);
        miners.map(|miner| self.built_in_block(miner, parents, height, timestamp, &contents)).collect()
    }

    fn built_in_block(
        &mut self,
        miner: Address,
        parents: &TipSet,
        height: ChainEpoch,
        timestamp: u64,
        contents: &Contents,
    ) -> ChainResult<BlockHeader> {
        let mut header = self.draft(parents, miner, height, timestamp, contents)?;
        let base = header.beacon_entries.last().map(|b| b.data.clone()).unwrap_or_default();
        let entropy = ticket_entropy(&miner, parents);
        let ticket = self.vrf(&self.producer, RandomnessTag::TicketProduction, &base, height - 1, &entropy)?;
        header.ticket = Some(Ticket { vrf_proof: ticket });
        let entropy = fvm_ipld_encoding::to_vec(&miner)?;
        let election = self.vrf(&self.producer, RandomnessTag::ElectionProofProduction, &base, height, &entropy)?;
        header.election_proof = Some(ElectionProof { win_count: 1, vrf_proof: election });
        header.fork_signaling = self.switches.fork;
        let signed = self.producer.sign(&wire::header_signing_bytes(&header)?).map_err(ChainError::store)?;
        header.block_sig = Some(signed);
        put_header(&self.store, &header)?;
        Ok(header)
    }

    fn built_in_tip_set(&mut self, parents: &TipSet, height: ChainEpoch, timestamp: u64) -> ChainResult<TipSet> {
        wire::tip_set(self.built_in_blocks(parents, height, timestamp)?)
    }

    /// Blocks of providers as a tipset on the head. Where others make several blocks an epoch, they make them beside the
    /// provider's too.
    pub fn with_others(&mut self, mut blocks: Vec<BlockHeader>) -> ChainResult<TipSet> {
        if self.settings.others_blocks > 1
            && let Some((height, timestamp)) = blocks.first().map(|b| (b.height, b.timestamp))
        {
            let parents = self.head.clone();
            blocks.extend(self.built_in_blocks(&parents, height, timestamp)?);
        }
        wire::tip_set(blocks)
    }

    /// The built-in producer makes the next block now.
    pub fn produce(&mut self) -> ChainResult<()> {
        let height = self.head.height + 1 + std::mem::take(&mut self.switches.null_rounds);
        let parents = self.head.clone();
        let timestamp = self.next_timestamp();
        let next = self.built_in_tip_set(&parents, height, timestamp)?;
        self.set_head(next)
    }

    /// Never before the parent's, never behind the clock: the chain goes on after a stop where it was.
    fn next_timestamp(&self) -> u64 {
        let parent = self.head.min_ticket_block().timestamp;
        match self.manual_time {
            Some(_) => parent + self.settings.block_delay.as_secs().max(1),
            None => parent.max(self.now() / 1000),
        }
    }

    /// Replaces the last `depth` tipsets by others, and adds one so that the new chain is the heavier.
    pub fn reorg(&mut self, depth: u64) -> ChainResult<()> {
        let mut fork_point = self.head.clone();
        for _ in 0..depth {
            let parent = self.parent(&fork_point)?;
            fork_point = parent.ok_or_else(|| ChainError::refused("the chain is not that long"))?;
        }
        self.switches.fork += 1;
        let mut new = fork_point;
        while new.height <= self.head.height {
            let timestamp = new.min_ticket_block().timestamp + 1;
            let height = new.height + 1;
            new = self.built_in_tip_set(&new, height, timestamp)?;
        }
        self.set_head(new)
    }

    /// Does what is due at `now`; gives when to look again (`None`: when something changes).
    pub fn tick(&mut self, now: u64) -> ChainResult<Option<u64>> {
        self.clock.stalled = self.switches.stalled;
        self.clock.block_held = !self.held.is_empty();
        match next_step(now, &self.settings, &self.clock) {
            ClockStep::Wait(until) => return Ok(until),
            ClockStep::TakeHeld => {
                // `set_head` clears them once the new head is on disk.
                let next = self.with_others(self.held.clone())?;
                self.set_head(next)?;
            }
            ClockStep::Produce => self.produce()?,
        }
        Ok(Some(due(&self.settings, &self.clock, 1)))
    }

    /// Whether some miner may make the next block.
    pub fn any_miner_ready(&mut self) -> ChainResult<bool> {
        let miners = {
            let (_, vm) = self.view(&TipSetKey::default())?;
            power::miners(&vm)?
        };
        let head = self.head.clone();
        for miner in miners {
            if self.eligible(miner, &head, head.height + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The addresses of the others' blocks; no actors stand behind all but the first.
fn other_miners(count: u64) -> impl Iterator<Item = Address> {
    const SECOND_ID: u64 = 81;
    std::iter::once(PRODUCER_ID).chain(SECOND_ID..).map(Address::new_id).zip(0..count).map(|(miner, _)| miner)
}

/// A ticket's entropy: the miner, and the ticket before it.
pub fn ticket_entropy(miner: &Address, parents: &TipSet) -> Vec<u8> {
    let mut entropy = fvm_ipld_encoding::to_vec(miner).unwrap_or_default();
    entropy.extend(parents.min_ticket_block().ticket.iter().flat_map(|t| &t.vrf_proof));
    entropy
}
