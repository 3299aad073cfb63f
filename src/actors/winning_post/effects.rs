//! One round: eligibility, election, proof, block. Everything but the slash filter and the sending.

use super::machine::{Base, RoundTiming, intersect};
use super::proof_run::ProofRuns;
use super::settings::Clock;
use crate::actors::sector_files::SectorFiles;
use crate::chain::types::*;
use crate::chain::{Address, ChainEpoch, election, miner_messages, proof_types, randomness};
use crate::proofs::{ActorId, Job, Output, PostSector, Task};
use crate::rpc::full_node::{FullNode, FullNodeError, RandomnessTag};
use std::sync::Arc;
use std::time::Duration;

const TICKET_LOOKBACK: ChainEpoch = 1;
/// Only BLS signatures are unique, hence a VRF.
const BLS: u8 = 2;

/// How the work on a round ended, short of sending.
#[derive(Debug)]
pub enum Mined {
    NotEligible(String),
    Lost,
    Block(Box<ReadyBlock>),
}

#[derive(Debug)]
pub struct ReadyBlock {
    pub block: BlockMsg,
    /// The tipset that it stands on, less what was ejected.
    pub base: TipSet,
}

#[derive(Debug, thiserror::Error)]
pub enum MineError {
    #[error(transparent)]
    Node(#[from] FullNodeError),
    #[error(transparent)]
    Prover(#[from] crate::proofs::ProverError),
    #[error("{0}")]
    Other(String),
}

pub struct Miner {
    pub address: Address,
    pub actor_id: ActorId,
    pub node: Arc<dyn FullNode>,
    pub proofs: Arc<ProofRuns>,
    pub files: Arc<dyn SectorFiles>,
    pub clock: Arc<dyn Clock>,
}

impl Miner {
    /// For one round: of a pool, one node alone answers from its base info to its block, so that all of it stands on one
    /// chain.
    pub fn for_one_round(&self) -> Miner {
        let pinned = self.node.pinned_for("Filecoin.MinerGetBaseInfo");
        Miner {
            address: self.address,
            actor_id: self.actor_id,
            node: pinned.unwrap_or_else(|| self.node.clone()),
            proofs: self.proofs.clone(),
            files: self.files.clone(),
            clock: self.clock.clone(),
        }
    }

    /// `latest` gives the newest head, to see whether blocks of the base were ejected meanwhile. Returns the block
    /// at its time, not before. Dropping the future leaves its proof to finish: see [`ProofRuns`].
    pub async fn mine(
        &self,
        base: &Base,
        timing: &RoundTiming,
        latest: impl Fn() -> Option<Arc<TipSet>>,
    ) -> Result<Mined, MineError> {
        let round = base.round();
        let Some(info) = self.node.miner_get_base_info(&self.address, round, &base.tipset.key()).await? else {
            return Ok(Mined::NotEligible("the node has no base info: no sector is proven yet".into()));
        };
        if !info.eligible_for_mining {
            return Ok(Mined::NotEligible("the miner has not enough power, or a consensus fault".into()));
        }
        let beacon = info.beacon_entries.last().unwrap_or(&info.prev_beacon_entry).data.clone();
        let entropy = miner_messages::entropy(&self.address).map_err(|error| MineError::Other(error.to_string()))?;

        let draw = |tag: RandomnessTag, at, entropy: &[u8]| randomness::draw(&beacon, tag as i64, at, entropy);
        let election = self.vrf(&info, &draw(RandomnessTag::ElectionProofProduction, round, &entropy)).await?;
        let win_count = election::compute_win_count(&election, &info.miner_power, &info.network_power);
        if win_count < 1 {
            return Ok(Mined::Lost);
        }
        let ticket_input = |tipset: &TipSet| {
            let mut entropy = entropy.clone();
            entropy.extend(min_ticket(tipset));
            draw(RandomnessTag::TicketProduction, round - TICKET_LOOKBACK, &entropy)
        };
        let mut ticket = self.vrf(&info, &ticket_input(&base.tipset)).await?;

        let seed = randomness::fr32_safe(draw(RandomnessTag::WinningPoStChallengeSeed, round, &entropy));
        let proof = self.prove(&info, seed, base, timing).await?;

        let mut tipset = (*base.tipset).clone();
        if let Some(kept) = latest().and_then(|latest| intersect(&tipset, &latest))
            && kept.cids != tipset.cids
        {
            if min_ticket(&kept) != min_ticket(&tipset) {
                ticket = self.vrf(&info, &ticket_input(&kept)).await?;
            }
            tipset = kept;
        }
        let messages = self.select(base, &tipset, &ticket, timing).await;
        let timestamp = base.block_time(timing.block_delay);
        let template = BlockTemplate {
            miner: self.address,
            parents: tipset.key(),
            ticket: Ticket { vrf_proof: ticket },
            eproof: ElectionProof { win_count, vrf_proof: election },
            beacon_values: info.beacon_entries.clone(),
            messages,
            epoch: round,
            timestamp,
            winning_post_proof: vec![proof],
        };
        let block = self.node.miner_create_block(&template).await?;
        // A block from the future is refused.
        let wait = Duration::from_secs(timestamp).saturating_sub(self.clock.unix());
        tokio::time::sleep(wait).await;
        Ok(Mined::Block(Box::new(ReadyBlock { block, base: tipset })))
    }

    /// Most of a block's worth is its reward: it goes without messages rather than late.
    async fn select(&self, base: &Base, tipset: &TipSet, ticket: &[u8], timing: &RoundTiming) -> Vec<SignedMessage> {
        let allowance = timing.select_allowance(base, self.clock.unix());
        let key = tipset.key();
        let selected = tokio::time::timeout(allowance, self.node.mpool_select(&key, ticket_quality(ticket))).await;
        let why = match selected {
            Ok(Ok(messages)) => return messages,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("MpoolSelect did not answer within the {allowance:?} that the round has left"),
        };
        tracing::warn!(why, round = base.round(), "the node selects no messages; the block goes without");
        Vec::new()
    }

    async fn vrf(&self, info: &MiningBaseInfo, input: &[u8; 32]) -> Result<Vec<u8>, MineError> {
        let signature = self.node.wallet_sign(&info.worker_key, input).await?;
        if signature.kind != BLS {
            let why = format!("the worker key {} is not a BLS key: it cannot mine", info.worker_key);
            return Err(MineError::Other(why));
        }
        Ok(signature.data)
    }

    async fn prove(
        &self,
        info: &MiningBaseInfo,
        randomness: [u8; 32],
        base: &Base,
        timing: &RoundTiming,
    ) -> Result<PoStProof, MineError> {
        let Some(first) = info.sectors.first() else {
            return Err(MineError::Other("the node names no sector to prove".into()));
        };
        let proof_type = proof_types::winning_post_proof(first.seal_proof)
            .ok_or_else(|| MineError::Other(format!("seal proof type {} is unknown", first.seal_proof)))?;
        let sectors: Vec<PostSector> = info
            .sectors
            .iter()
            .map(|sector| {
                let comm_r = miner_messages::comm_r(&sector.sealed_cid)
                    .map_err(|error| MineError::Other(format!("sector {}: {error}", sector.sector_number)))?;
                let paths = match sector.sector_key {
                    Some(_) => self.files.locate_update(sector.sector_number),
                    None => self.files.locate(sector.sector_number),
                };
                Ok(paths.post_sector(sector.sector_number, comm_r))
            })
            .collect::<Result<_, MineError>>()?;
        // The round is worth something until the next one's time; a base from the past leaves two block delays.
        let end = Duration::from_secs(base.block_time(timing.block_delay)) + timing.block_delay;
        let max_runtime = end.saturating_sub(self.clock.unix()).max(timing.block_delay * 2);
        let task = Task::WinningPost { proof_type, miner: self.actor_id, randomness, sectors };
        match self.proofs.run(Job { task, job_dir: None, max_runtime }).await? {
            Output::Proof(proof_bytes) => Ok(PoStProof { post_proof: proof_type, proof_bytes }),
            Output::Skipped(bad) => Err(MineError::Other(format!("the challenged sectors {bad:?} cannot be read"))),
            other => Err(MineError::Other(format!("WinningPoSt answered {other:?}"))),
        }
    }
}

fn min_ticket(tipset: &TipSet) -> &[u8] {
    let ticket = tipset.blocks.first().and_then(|block| block.ticket.as_ref());
    ticket.map_or(&[], |ticket| &ticket.vrf_proof)
}

/// 1 for the best ticket, 0 for the worst.
pub fn ticket_quality(vrf_proof: &[u8]) -> f64 {
    let fraction =
        randomness::blake2b256(vrf_proof).iter().rev().fold(0.0, |low, byte| (low + f64::from(*byte)) / 256.0);
    1.0 - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_quality_lies_between_0_and_1() {
        for n in 0..100u8 {
            let quality = ticket_quality(&[n]);
            assert!((0.0..=1.0).contains(&quality));
            let high = randomness::blake2b256(&[n])[0];
            let expected = 1.0 - f64::from(high) / 256.0;
            assert!((expected - quality).abs() <= 1.0 / 256.0);
        }
    }
}
