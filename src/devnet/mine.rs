//! Blocks of a provider: what it needs to make one, making it, and the checks before it is taken.

use super::clock::due;
use super::core::{Core, put_header};
use super::error::{ChainError, ChainResult, state_error};
use super::keys;
use super::mempool::account_key;
use super::produce::ticket_entropy;
use super::verifier::{PoStCheck, winning_challenge};
use super::vm::power;
use super::wire;
use crate::chain::election::compute_win_count;
use crate::chain::randomness::draw;
use crate::chain::types::{
    BlockHeader, BlockMsg, BlockTemplate, ExtendedSectorInfo, MiningBaseInfo, SignedMessage, TipSet, TipSetKey,
};
use crate::rpc::full_node::RandomnessTag;
use cid::Cid;
use fil_actor_miner_state::v19::State;
use fil_actor_power_state::v19::Claim;
use fvm_ipld_bitfield::BitField;
use fvm_shared::ActorID;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::sector::RegisteredPoStProof;
use num_bigint::BigInt;
use num_traits::Signed;
use std::collections::HashMap;

/// Blocks of one height that wait for their time.
const MAX_HELD: usize = 16;

impl Core {
    /// The tipset and state that decide who may mine on `ts` at `round`.
    fn lookback(&mut self, ts: &TipSet, round: ChainEpoch) -> ChainResult<(TipSet, Cid)> {
        let height = (round - self.settings.winning_lookback).max(0);
        if height >= ts.height {
            let state = self.executed(ts)?.state;
            return Ok((ts.clone(), state));
        }
        let next = self.at_or_after(height + 1, ts)?;
        let lookback = self.parent(&next)?.ok_or_else(|| ChainError::refused("no lookback tipset"))?;
        Ok((lookback, next.min_ticket_block().parent_state_root))
    }

    /// The miner's claim and the network's power at the lookback.
    fn lookback_power(
        &mut self,
        miner: ActorID,
        ts: &TipSet,
        round: ChainEpoch,
    ) -> ChainResult<Option<(Claim, BigInt)>> {
        let (lookback, root) = self.lookback(ts, round)?;
        let vm = self.view_root(&root, lookback.height)?;
        let state = power::load(&vm)?;
        let claim = state.miner_power(&vm.store, &Address::new_id(miner))?;
        let others = BigInt::from(self.settings.others_power);
        Ok(claim.map(|claim| (claim, state.current_total_power().1 + others)))
    }

    /// Enough power then, and in good standing now.
    pub fn eligible(&mut self, miner: ActorID, ts: &TipSet, round: ChainEpoch) -> ChainResult<bool> {
        let (lookback, root) = self.lookback(ts, round)?;
        {
            let vm = self.view_root(&root, lookback.height)?;
            let state = power::load(&vm)?;
            let meets = state.miner_nominal_power_meets_consensus_minimum(vm.env.policy, &vm.store, miner);
            if !meets.is_ok_and(|(_, enough)| enough) {
                return Ok(false);
            }
        }
        let root = self.executed(ts)?.state;
        let vm = self.view_root(&root, ts.height)?;
        let claim = power::load(&vm)?.miner_power(&vm.store, &Address::new_id(miner))?;
        let st: State = vm.load(miner)?;
        let info = st.get_info(&vm.store).map_err(state_error("could not read miner info"))?;
        Ok(claim.is_some_and(|c| c.quality_adj_power.is_positive())
            && st.fee_debt.is_zero()
            && ts.height > info.consensus_fault_elapsed)
    }

    pub fn base_info(
        &mut self,
        miner: &Address,
        round: ChainEpoch,
        key: &TipSetKey,
    ) -> ChainResult<Option<MiningBaseInfo>> {
        if key.0.is_empty() {
            return Err(ChainError::refused("MinerGetBaseInfo: the tipset key must not be empty"));
        }
        let ts = self.find(key)?;
        if round <= ts.height {
            return Err(ChainError::refused(format!("round {round} is not after the tipset's height {}", ts.height)));
        }
        let id = {
            let (_, vm) = self.view(key)?;
            let id =
                vm.resolve(miner)?.ok_or_else(|| ChainError::refused(format!("loading miner: {miner} not found")))?;
            // A plain account is no miner, and says so here.
            vm.load::<State>(id).map_err(|_| ChainError::refused(format!("loading miner: {miner} is not a miner")))?;
            id
        };
        let Some((claim, network_power)) = self.lookback_power(id, &ts, round)? else { return Ok(None) };
        let prev = latest_beacon(self, &ts)?;
        let beacon_entries = self.beacon.entries_between(ts.height, round)?;
        let base = beacon_entries.last().unwrap_or(&prev).data.clone();
        let randomness = winning_randomness(id, &base, round)?;
        let (lookback, root) = self.lookback(&ts, round)?;
        let sectors = self.challenged_sectors(id, &root, lookback.height, randomness)?;
        if sectors.is_empty() {
            return Ok(None);
        }
        let eligible_for_mining = self.eligible(id, &ts, round)?;
        let (_, vm) = self.view(key)?;
        let st: State = vm.load(id)?;
        let info = st.get_info(&vm.store).map_err(state_error("could not read miner info"))?;
        Ok(Some(MiningBaseInfo {
            miner_power: claim.quality_adj_power,
            network_power,
            sectors,
            worker_key: account_key(&vm, &info.worker)?,
            sector_size: info.sector_size as u64,
            prev_beacon_entry: prev,
            beacon_entries,
            eligible_for_mining,
        }))
    }

    /// The sectors that a WinningPoSt must prove: drawn from those active at the lookback.
    fn challenged_sectors(
        &self,
        miner: ActorID,
        root: &Cid,
        height: ChainEpoch,
        randomness: [u8; 32],
    ) -> ChainResult<Vec<ExtendedSectorInfo>> {
        let vm = self.view_root(root, height)?;
        if vm.find(miner)?.is_none() {
            return Ok(vec![]);
        }
        let st: State = vm.load(miner)?;
        let mut active = Vec::new();
        let deadlines = st.load_deadlines(&vm.store)?;
        deadlines.for_each(&vm.store, |_, deadline| {
            deadline.for_each(&vm.store, |_, partition| {
                active.push(partition.active_sectors());
                Ok(())
            })
        })?;
        let active = BitField::union(&active);
        if active.is_empty() {
            return Ok(vec![]);
        }
        let indices =
            winning_challenge(miner, randomness, active.len()).map_err(|e| ChainError::refused(e.to_string()))?;
        let numbers: Vec<u64> = active.iter().collect();
        let mut sectors = Vec::new();
        for index in indices {
            let number = numbers.get(index as usize).copied().unwrap_or_default();
            let sector = st.get_sector(&vm.store, number)?;
            let sector = sector.ok_or_else(|| ChainError::store(format!("sector {number} not found")))?;
            sectors.push(ExtendedSectorInfo {
                seal_proof: sector.seal_proof.into(),
                sector_number: number,
                sector_key: sector.sector_key_cid,
                sealed_cid: sector.sealed_cid,
            });
        }
        Ok(sectors)
    }

    pub fn create_block(&mut self, template: &BlockTemplate) -> ChainResult<BlockMsg> {
        let parents = self.find(&template.parents)?;
        if template.parents.0.is_empty() || template.epoch <= parents.height {
            return Err(ChainError::refused("the block template names no parents before its epoch"));
        }
        let contents = self.contents(&template.messages)?;
        let mut header = self.draft(&parents, template.miner, template.epoch, template.timestamp, &contents)?;
        header.ticket = Some(template.ticket.clone());
        header.election_proof = Some(template.eproof.clone());
        header.beacon_entries = template.beacon_values.clone();
        header.win_post_proof = template.winning_post_proof.clone();
        let worker = self.worker_key(&template.miner, &parents)?;
        let secret = self.wallet.get(&worker).ok_or_else(|| ChainError::refused(format!("key not found: {worker}")))?;
        let signature = secret.sign(&wire::header_signing_bytes(&header)?).map_err(ChainError::refused)?;
        header.block_sig = Some(signature);
        Ok(BlockMsg { header, bls_messages: contents.bls, secpk_messages: contents.secp256k1 })
    }

    fn worker_key(&mut self, miner: &Address, ts: &TipSet) -> ChainResult<Address> {
        let root = self.executed(ts)?.state;
        let vm = self.view_root(&root, ts.height)?;
        let id = vm.resolve(miner)?.ok_or_else(|| ChainError::refused(format!("actor not found: {miner}")))?;
        let st: State = vm.load(id).map_err(|_| ChainError::refused(format!("{miner} is not a miner")))?;
        let info = st.get_info(&vm.store).map_err(state_error("could not read miner info"))?;
        account_key(&vm, &info.worker)
    }

    /// The verdict on a block. A good one for the next epoch becomes the head at its time, one for the head's own
    /// epoch joins it; one that the chain has moved past is refused.
    pub fn submit_block(&mut self, block: &BlockMsg) -> ChainResult<()> {
        let header = &block.header;
        let cid = wire::header_cid(header)?;
        if self.head.cids.contains(&cid) || self.held.iter().any(|h| wire::header_cid(h).is_ok_and(|c| c == cid)) {
            return Ok(());
        }
        if self.switches.stalled {
            return Err(ChainError::refused("the chain is stalled"));
        }
        let on_head = header.parents == self.head.cids;
        let beside_head = header.height == self.head.height && header.parents == self.head.min_ticket_block().parents;
        if !on_head && !beside_head {
            return Err(ChainError::refused(format!(
                "block at epoch {} is too late: the chain has moved past its parents, head is {}",
                header.height, self.head.height
            )));
        }
        let parents = self.find(&TipSetKey(header.parents.clone()))?;
        self.check_block(block, &parents).map_err(|e| match e {
            ChainError::Refused(why) => ChainError::Refused(format!("<ERROR> block failed validation: {why}")),
            other => other,
        })?;
        let rivals = if on_head { &self.held } else { &self.head.blocks };
        if rivals.iter().any(|r| r.miner == header.miner && r.height == header.height) {
            return Err(ChainError::refused(
                "<!!> SLASH FILTER ERROR: produced block would trigger 'double-fork mining faults' consensus fault",
            ));
        }
        put_header(&self.store, header)?;
        if beside_head {
            let blocks = self.head.blocks.iter().chain([header]).cloned().collect();
            let (head_at, joined) = (self.clock.head_at, wire::tip_set(blocks)?);
            self.set_head(joined)?;
            // The epoch's time is that of its first block.
            self.clock.head_at = head_at;
            return Ok(());
        }
        let now = self.now();
        let ahead = u64::try_from(header.height - self.head.height).unwrap_or(1);
        match (now >= due(&self.settings, &self.clock, ahead), ahead) {
            (true, _) => {
                let mut blocks = self.held.clone();
                blocks.retain(|b| b.height == header.height);
                blocks.push(header.clone());
                let next = self.with_others(blocks)?;
                self.set_head(next)
            }
            (false, 1) if self.held.len() < MAX_HELD => {
                self.held.push(header.clone());
                self.clock.block_held = true;
                Ok(())
            }
            (false, _) => Err(ChainError::refused("block was from the future: its epoch has not come yet")),
        }
    }

    fn check_block(&mut self, block: &BlockMsg, parents: &TipSet) -> ChainResult<()> {
        let header = &block.header;
        let refused = |why: &str| Err(ChainError::refused(why));
        if header.miner.protocol() != Protocol::ID {
            return refused("block miner must be an id address");
        }
        self.check_timestamp(header, parents)?;
        let (Some(ticket), Some(election)) = (&header.ticket, &header.election_proof) else {
            return refused("block has no ticket or no election proof");
        };
        if election.win_count < 1 {
            return refused("block is not claiming to be a winner");
        }
        let info = self.base_info(&header.miner, header.height, &parents.key())?;
        let Some(info) = info.filter(|i| i.eligible_for_mining) else {
            return refused("block's miner is ineligible to mine");
        };
        if header.beacon_entries != info.beacon_entries {
            return refused("block's beacon entries are not those of its epoch");
        }
        let base = header.beacon_entries.last().unwrap_or(&info.prev_beacon_entry).data.clone();
        let entropy = fvm_ipld_encoding::to_vec(&header.miner)?;
        let worker = &info.worker_key;
        let election_input = draw(&base, RandomnessTag::ElectionProofProduction as i64, header.height, &entropy);
        check_vrf(worker, &election_input, &election.vrf_proof, "election proof")?;
        let ticket_input = draw(
            &base,
            RandomnessTag::TicketProduction as i64,
            header.height - 1,
            &ticket_entropy(&header.miner, parents),
        );
        check_vrf(worker, &ticket_input, &ticket.vrf_proof, "ticket")?;
        let wins = compute_win_count(&election.vrf_proof, &info.miner_power, &info.network_power);
        if wins != election.win_count {
            return Err(ChainError::refused(format!(
                "miner claimed wrong number of wins: claimed {}, computed {wins}",
                election.win_count
            )));
        }
        self.check_winning_post(header, &info, &base)?;
        let Some(signature) = &header.block_sig else { return refused("block had nil signature") };
        keys::verify(signature, worker, &wire::header_signing_bytes(header)?)
            .map_err(|why| ChainError::refused(format!("block signature is not the worker's: {why}")))?;
        self.check_parents(header, parents)?;
        self.check_messages(block, parents)
    }

    fn check_timestamp(&self, header: &BlockHeader, parents: &TipSet) -> ChainResult<()> {
        let parent = parents.min_ticket_block().timestamp;
        let rounds = (header.height - parents.height).max(1) as u64;
        let latest = parent.max(self.now() / 1000) + rounds * self.settings.block_delay.as_secs().max(1);
        if header.timestamp < parent || header.timestamp > latest {
            return Err(ChainError::refused(format!(
                "block had wrong timestamp {}: its parents' is {parent}, at most {latest} is allowed",
                header.timestamp
            )));
        }
        Ok(())
    }

    fn check_winning_post(&self, header: &BlockHeader, info: &MiningBaseInfo, base: &[u8]) -> ChainResult<()> {
        let miner = header.miner.id().map_err(|e| ChainError::refused(e.to_string()))?;
        let failed = || ChainError::refused("Failed to verify winning PoSt");
        let [proof] = header.win_post_proof.as_slice() else { return Err(failed()) };
        let check = PoStCheck {
            proof_type: RegisteredPoStProof::from(proof.post_proof),
            miner,
            randomness: winning_randomness(miner, base, header.height)?,
            sectors: info.sectors.iter().map(|s| (s.sector_number, s.sealed_cid)).collect(),
            proof: &proof.proof_bytes,
        };
        let good = self.verifier.winning_post(&check).map_err(|e| ChainError::refused(e.to_string()))?;
        if good { Ok(()) } else { Err(failed()) }
    }

    fn check_parents(&mut self, header: &BlockHeader, parents: &TipSet) -> ChainResult<()> {
        let done = self.executed(parents)?;
        let weight = self.weight(parents)?;
        let base_fee = self.base_fee_after(parents)?;
        let rules = [
            (header.parent_state_root == done.state, "parent state root did not match computed state"),
            (header.parent_message_receipts == done.receipts, "parent receipts root did not match computed value"),
            (header.parent_weight == weight, "parent weight did not match computed weight"),
            (header.parent_base_fee == base_fee, "base fee doesn't match"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(ChainError::refused(*why)),
            None => Ok(()),
        }
    }

    /// Messages must be known, rightly summed up, signed, and of the next nonces.
    fn check_messages(&mut self, block: &BlockMsg, parents: &TipSet) -> ChainResult<()> {
        let root = wire::put_messages(&self.store, &block.bls_messages, &block.secpk_messages)?;
        if root != block.header.messages {
            return Err(ChainError::refused("messages didn't match message root in header"));
        }
        let state = self.executed(parents)?.state;
        let vm = self.view_root(&state, parents.height)?;
        let mut nonces: HashMap<ActorID, u64> = HashMap::new();
        let mut signed_bls = Vec::new();
        for cid in block.bls_messages.iter().chain(&block.secpk_messages) {
            let message = wire::load_message(&self.store, cid)?;
            let from = vm.resolve(&message.from)?;
            let from = from.ok_or_else(|| ChainError::refused(format!("sender {} not found", message.from)))?;
            let nonce = nonces.entry(from).or_insert(vm.actor(from)?.sequence);
            if message.nonce != *nonce {
                return Err(ChainError::refused(format!("wrong nonce (exp: {nonce}, got: {})", message.nonce)));
            }
            *nonce += 1;
            let key = account_key(&vm, &message.from)?;
            let unsigned = wire::message_cid(&message)?;
            match self.signed(cid, message)? {
                Some(SignedMessage { signature, .. }) if signature.kind == keys::SECP256K1 => {
                    keys::verify(&signature, &key, &unsigned.to_bytes()).map_err(ChainError::refused)?;
                }
                _ => signed_bls.push((key, unsigned.to_bytes())),
            }
        }
        let Some(aggregate) = &block.header.bls_aggregate else {
            return Err(ChainError::refused("block had nil bls aggregate signature"));
        };
        keys::verify_aggregate(aggregate, &signed_bls).map_err(ChainError::refused)
    }
}

fn check_vrf(worker: &Address, input: &[u8], proof: &[u8], what: &str) -> ChainResult<()> {
    let signature = crate::chain::types::Signature { kind: keys::BLS, data: proof.to_vec() };
    keys::verify(&signature, worker, input)
        .map_err(|why| ChainError::refused(format!("Verifying VRF failed: {what}: {why}")))
}

fn winning_randomness(miner: ActorID, base: &[u8], round: ChainEpoch) -> ChainResult<[u8; 32]> {
    let entropy = fvm_ipld_encoding::to_vec(&Address::new_id(miner))?;
    Ok(draw(base, RandomnessTag::WinningPoStChallengeSeed as i64, round, &entropy))
}

/// The last beacon entry on the chain that ends with `ts`.
fn latest_beacon(core: &Core, ts: &TipSet) -> ChainResult<crate::chain::types::BeaconEntry> {
    match ts.min_ticket_block().beacon_entries.last() {
        Some(entry) => Ok(entry.clone()),
        None => core.beacon.entry(ts.height.max(0) as u64),
    }
}
