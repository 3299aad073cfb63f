//! What the fake chain's mempool and miner actor make of a message.

use super::{CHALLENGE_DELAY, Chain, RICH, fil, randomness};
use bulkhead::chain::cbor::signed_message_cid as message_cid;
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, ChainEpoch, TokenAmount};
use cid::Cid;
use fil_actor_miner_state::v18 as miner_state;

/// `USR_INSUFFICIENT_FUNDS`.
const INSUFFICIENT_FUNDS: i64 = 19;

/// Whether two messages differ in nothing but their fees.
pub(super) fn same_call(a: &Message, b: &Message) -> bool {
    (a.to, a.from, a.nonce, a.method, &a.params, &a.value) == (b.to, b.from, b.nonce, b.method, &b.params, &b.value)
}

impl Chain {
    pub(super) fn balance(&self, who: &Address) -> TokenAmount {
        self.balances.get(who).cloned().unwrap_or_else(|| fil(RICH))
    }
    /// Lotus' `ValidForBlockInclusion` and `checkBalance`.
    pub(super) fn refuses(&self, m: &Message) -> Option<String> {
        if m.gas_limit > self.block_gas {
            return Some(format!(
                "message will not be included in a block: 'GasLimit' field cannot be greater than a block's gas limit ({} > {})",
                m.gas_limit, self.block_gas
            ));
        }
        let needs = |m: &Message| m.gas_fee_cap.clone() * m.gas_limit + m.value.clone();
        let balance = self.balance(&m.from);
        if balance < needs(m) {
            return Some(format!(
                "not enough funds (required: {}, balance: {balance}): not enough funds to execute transaction",
                needs(m)
            ));
        }
        let others = self.mempool.iter().map(|pooled| &pooled.message);
        let others = others.filter(|pooled| pooled.from == m.from && pooled.nonce != m.nonce);
        if balance < needs(m) + others.map(needs).sum::<TokenAmount>() {
            return Some(format!(
                "not enough funds including pending messages (balance: {balance}): validation failure"
            ));
        }
        None
    }
    /// A message that this node has held.
    pub(super) fn message(&self, cid: &Cid) -> Option<Message> {
        let held = self.held.contains(cid);
        let pushed = self.pushed.iter().filter(|_| held).find(|m| message_cid(m).is_ok_and(|c| c == *cid));
        let executed = || self.executed.iter().find(|e| e.cid == *cid).map(|e| e.message.clone());
        pushed.map(|m| m.message.clone()).or_else(executed)
    }
    pub(super) fn execute(&mut self, m: &Message) -> i64 {
        if let Some(at) = self.exits.iter().position(|(method, _)| *method == m.method) {
            return self.exits.remove(at).1;
        }
        match m.method {
            _ if self.plain => 0,
            28 => self.pre_commit(m),
            34 => self.prove_commit(m),
            _ => 0,
        }
    }
    fn pre_commit(&mut self, m: &Message) -> i64 {
        let p: miner_state::PreCommitSectorBatchParams2 = fvm_ipld_encoding::from_slice(&m.params).unwrap();
        for s in p.sectors {
            if !self.allocated.insert(s.sector_number) || s.seal_rand_epoch >= self.height {
                return 16;
            }
            let info = SectorPreCommitInfo {
                seal_proof: s.seal_proof.into(),
                sector_number: s.sector_number,
                sealed_cid: s.sealed_cid,
                seal_rand_epoch: s.seal_rand_epoch,
                deal_ids: vec![],
                expiration: s.expiration,
                unsealed_cid: None,
            };
            let found =
                SectorPreCommitOnChainInfo { info, pre_commit_deposit: m.value.clone(), pre_commit_epoch: self.height };
            self.pre_commits.insert(s.sector_number, found);
        }
        0
    }
    /// Network version 29 from `solstice` on.
    pub(super) fn version(&self, height: ChainEpoch) -> u32 {
        if height >= self.solstice { 29 } else { 28 }
    }
    /// The pledge of one sector; from Solstice on every byte of it counts ten-fold.
    pub(super) fn pledge(&self, height: ChainEpoch, verified: bool) -> TokenAmount {
        fil(if verified || self.version(height) >= 29 { 50_000 } else { 5000 })
    }
    /// The miner actor locks the pledge from the message's value, the deposits and what it has available.
    fn lacks_pledge(&self, m: &Message, height: ChainEpoch) -> bool {
        let p: miner_state::ProveCommitSectors3Params = fvm_ipld_encoding::from_slice(&m.params).unwrap();
        let found = p.sector_activations.iter().filter_map(|a| self.pre_commits.get(&a.sector_number));
        let (deposits, pledges): (Vec<TokenAmount>, Vec<TokenAmount>) =
            found.map(|found| (found.pre_commit_deposit.clone(), self.pledge(height, false))).unzip();
        let has = m.value.clone() + deposits.into_iter().sum::<TokenAmount>() + self.available.clone();
        has < pledges.into_iter().sum::<TokenAmount>()
    }
    /// Lotus' words where executing the message on the head fails.
    pub(super) fn estimate_fails(&self, m: &Message) -> Option<String> {
        let fails = !self.plain && m.method == 34 && self.lacks_pledge(m, self.height);
        fails.then(|| {
            format!("message execution failed (exit=[ErrInsufficientFunds({INSUFFICIENT_FUNDS})], vm error=[unlocked balance can not cover pledge])")
        })
    }
    fn prove_commit(&mut self, m: &Message) -> i64 {
        if self.lacks_pledge(m, self.height) {
            return INSUFFICIENT_FUNDS;
        }
        let p: miner_state::ProveCommitSectors3Params = fvm_ipld_encoding::from_slice(&m.params).unwrap();
        for (activation, proof) in p.sector_activations.iter().zip(&p.sector_proofs) {
            let number = activation.sector_number;
            let Some(found) = self.pre_commits.get(&number) else { return 17 };
            let seed = randomness(6, found.pre_commit_epoch + CHALLENGE_DELAY);
            // A scripted proof ends with its seed. A real one has another length, and was verified before it was sent.
            if proof.bytes().starts_with(b"proof") && !proof.bytes().ends_with(&seed) {
                return 16;
            }
            let info = found.info.clone();
            self.pre_commits.remove(&number);
            let sector = SectorOnChainInfo {
                sector_number: number,
                seal_proof: info.seal_proof,
                sealed_cid: info.sealed_cid,
                deal_ids: vec![],
                activation: self.height,
                expiration: info.expiration,
                initial_pledge: None,
                expected_day_reward: None,
                expected_storage_pledge: None,
                power_base_epoch: self.height,
                sector_key_cid: None,
                flags: 0,
                daily_fee: None,
            };
            self.sectors.insert(number, sector);
        }
        0
    }
}
