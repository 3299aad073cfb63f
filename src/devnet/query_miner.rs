//! Queries about a miner, in Lotus' shapes.

use super::core::Core;
use super::error::{ChainError, ChainResult, state_error};
use super::settings::SOLSTICE;
use super::vm::{Vm, miner::PledgeInputs, power};
use crate::chain::lotus_json::CidJson;
use crate::chain::types::{
    Claim, Deadline, DeadlineInfo, MinerFunds, MinerInfo, MinerPower, Partition, SectorLocation, SectorOnChainInfo,
    SectorPreCommitInfo, SectorPreCommitOnChainInfo, TipSetKey,
};
use crate::rpc::json::try_json;
use base64::Engine;
use fil_actor_miner_state::v19 as state;
use fil_actor_miner_state::v19::{SECTOR_QUALITY_PRECISION, State, quality_for_weight};
use fil_actors_shared::v19::runtime::policy_constants::MAX_SECTOR_NUMBER;
use fvm_ipld_bitfield::BitField;
use fvm_shared::ActorID;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::{RegisteredSealProof, SectorSize};
use num_bigint::BigInt;

/// Lotus asks for a tenth more than is needed now: the figures move until the message lands.
const MARGIN: (u64, u64) = (110, 100);

const SECTOR_SIZES: [SectorSize; 5] =
    [SectorSize::_2KiB, SectorSize::_8MiB, SectorSize::_512MiB, SectorSize::_32GiB, SectorSize::_64GiB];

fn miner_of(vm: &Vm<'_>, miner: &Address) -> ChainResult<(ActorID, State)> {
    let missing = || ChainError::refused(format!("failed to load miner actor: actor not found: {miner}"));
    let id = vm.resolve(miner)?.ok_or_else(missing)?;
    if vm.find(id)?.is_none() {
        return Err(missing());
    }
    let st =
        vm.load(id).map_err(|_| ChainError::refused(format!("failed to load miner actor: {miner} is not a miner")))?;
    Ok((id, st))
}

impl Core {
    pub fn miner_info(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<MinerInfo> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let info = st.get_info(&vm.store).map_err(state_error("could not read miner info"))?;
        let pending = info.pending_worker_key.as_ref();
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        Ok(MinerInfo {
            owner: info.owner,
            worker: info.worker,
            new_worker: pending.map(|p| p.new_worker),
            control_addresses: info.control_addresses.clone(),
            worker_change_epoch: pending.map_or(-1, |p| p.effective_at),
            peer_id: libp2p::PeerId::from_bytes(&info.peer_id).ok().map(|p| p.to_base58()),
            multiaddrs: info.multi_address.iter().map(|m| encode(&m.0)).collect(),
            window_post_proof_type: info.window_post_proof_type.into(),
            sector_size: info.sector_size as u64,
            window_post_partition_sectors: info.window_post_partition_sectors,
            consensus_fault_elapsed: info.consensus_fault_elapsed,
            pending_owner_address: info.pending_owner_address,
            beneficiary: Some(info.beneficiary),
        })
    }

    pub fn miner_power(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<MinerPower> {
        let (_, vm) = self.view(key)?;
        let (id, _) = miner_of(&vm, miner)?;
        let powers = power::load(&vm)?;
        let claim = powers.miner_power(&vm.store, &Address::new_id(id))?;
        let claim = claim.ok_or_else(|| ChainError::refused(format!("no claim for actor {miner}")))?;
        let others = BigInt::from(vm.env.settings.others_power);
        let (raw, qa) = powers.current_total_power();
        let (raw, qa) = (raw + &others, qa + others);
        let enough = powers.miner_nominal_power_meets_consensus_minimum(vm.env.policy, &vm.store, id)?.1;
        Ok(MinerPower {
            miner_power: Claim { raw_byte_power: claim.raw_byte_power, quality_adj_power: claim.quality_adj_power },
            total_power: Claim { raw_byte_power: raw, quality_adj_power: qa },
            has_min_power: enough,
        })
    }

    pub fn miner_available_balance(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<TokenAmount> {
        let (ts, vm) = self.view(key)?;
        let (id, st) = miner_of(&vm, miner)?;
        let vested = st.check_vested_funds(&vm.store, ts.height)?;
        Ok(st.get_available_balance(&vm.balance(id)?)? + vested)
    }

    pub fn miner_funds(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<MinerFunds> {
        let (_, vm) = self.view(key)?;
        let (id, st) = miner_of(&vm, miner)?;
        Ok(MinerFunds {
            balance: vm.balance(id)?,
            pre_commit_deposits: st.pre_commit_deposits,
            initial_pledge: st.initial_pledge,
            vesting: st.locked_funds,
            fee_debt: st.fee_debt,
        })
    }

    pub fn proving_deadline(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<DeadlineInfo> {
        let (ts, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let d = st.deadline_info(vm.env.policy, ts.height).next_not_elapsed();
        Ok(DeadlineInfo {
            current_epoch: d.current_epoch,
            period_start: d.period_start,
            index: d.index,
            open: d.open,
            close: d.close,
            challenge: d.challenge,
            fault_cutoff: d.fault_cutoff,
            w_post_period_deadlines: d.w_post_period_deadlines,
            w_post_proving_period: d.w_post_proving_period,
            w_post_challenge_window: d.w_post_challenge_window,
            w_post_challenge_lookback: d.w_post_challenge_lookback,
            fault_declaration_cutoff: d.fault_declaration_cutoff,
        })
    }

    pub fn deadlines(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<Vec<Deadline>> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let mut all = Vec::new();
        st.load_deadlines(&vm.store)?.for_each(&vm.store, |_, d| {
            let disputable = d.optimistic_proofs_snapshot_amt(&vm.store)?.count();
            all.push(Deadline { post_submissions: d.partitions_posted, disputable_proof_count: disputable });
            Ok(())
        })?;
        Ok(all)
    }

    pub fn partitions(&mut self, miner: &Address, deadline: u64, key: &TipSetKey) -> ChainResult<Vec<Partition>> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let deadline = st.load_deadlines(&vm.store)?.load_deadline(&vm.store, deadline)?;
        let mut all = Vec::new();
        deadline.for_each(&vm.store, |_, p| {
            all.push(Partition {
                all_sectors: p.sectors.clone(),
                faulty_sectors: p.faults.clone(),
                recovering_sectors: p.recoveries.clone(),
                live_sectors: p.live_sectors(),
                active_sectors: p.active_sectors(),
            });
            Ok(())
        })?;
        Ok(all)
    }

    pub fn sectors(
        &mut self,
        miner: &Address,
        numbers: Option<&BitField>,
        key: &TipSetKey,
    ) -> ChainResult<Vec<SectorOnChainInfo>> {
        let wording = self.switches.wording;
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let mut all = Vec::new();
        let Some(numbers) = numbers else {
            st.for_each_sector(&vm.store, |s| {
                all.push(sector_json(s));
                Ok(())
            })?;
            return Ok(all);
        };
        let sectors = state::Sectors::load(&vm.store, &st.sectors).map_err(ChainError::store)?;
        for number in numbers.iter() {
            let sector = match number <= MAX_SECTOR_NUMBER {
                true => sectors.get(number)?,
                false => None,
            };
            all.push(sector_json(&sector.ok_or_else(|| wording.unknown_sector(number))?));
        }
        Ok(all)
    }

    /// Sectors that are neither faulty nor terminated, over all partitions.
    pub fn select_sectors(
        &mut self,
        miner: &Address,
        key: &TipSetKey,
        of: fn(&state::Partition) -> BitField,
    ) -> ChainResult<BitField> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let mut parts = Vec::new();
        st.load_deadlines(&vm.store)?.for_each(&vm.store, |_, d| {
            d.for_each(&vm.store, |_, p| {
                parts.push(of(p));
                Ok(())
            })
        })?;
        Ok(BitField::union(&parts))
    }

    pub fn allocated(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<BitField> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        super::wire::load(&vm.store, &st.allocated_sectors)
    }

    pub fn pre_commit_deposit(&mut self, info: &SectorPreCommitInfo, key: &TipSetKey) -> ChainResult<TokenAmount> {
        let size = seal_size(info)?;
        let (_, vm) = self.view(key)?;
        Ok(with_margin(PledgeInputs::load(&vm)?.pre_commit_deposit(size)))
    }

    pub fn initial_pledge(&mut self, info: &SectorPreCommitInfo, key: &TipSetKey) -> ChainResult<TokenAmount> {
        let size = seal_size(info)?;
        let wording = self.switches.wording;
        let version = self.settings.network_version(self.find(key)?.height);
        if version >= SOLSTICE {
            return Err(wording.pledge_of_pre_commit());
        }
        let (_, vm) = self.view(key)?;
        // Without deals a sector counts as its size.
        let qa_power = BigInt::from(size as u64);
        Ok(with_margin(PledgeInputs::load(&vm)?.initial_pledge(&qa_power)))
    }

    /// Lotus' checks and texts (`node/impl/full/state.go`).
    pub fn initial_pledge_for_sector(
        &mut self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        key: &TipSetKey,
    ) -> ChainResult<TokenAmount> {
        let size = SECTOR_SIZES.iter().find(|size| **size as u64 == sector_size).copied();
        let refused = |why: &str| Err(ChainError::refused(why));
        match (duration, sector_size, size) {
            (..=0, _, _) => refused("sector duration must greater than 0"),
            (_, 0, _) => refused("sector size must be non-zero"),
            _ if verified_size > sector_size => refused("verified size must be less than or equal to sector size"),
            (_, _, None) => refused("no such sector size"),
            (_, _, Some(size)) => {
                let (_, vm) = self.view(key)?;
                let quality = quality_for_weight(size, duration, &(BigInt::from(verified_size) * duration));
                let qa_power = (BigInt::from(sector_size) * quality) >> SECTOR_QUALITY_PRECISION;
                Ok(with_margin(PledgeInputs::load(&vm)?.initial_pledge(&qa_power)))
            }
        }
    }

    pub fn creation_deposit(&mut self, key: &TipSetKey) -> ChainResult<TokenAmount> {
        let (_, vm) = self.view(key)?;
        if vm.env.settings.creation_deposit { Ok(power::creation_deposit(&vm)?) } else { Ok(TokenAmount::default()) }
    }

    pub fn pre_commit_info(
        &mut self,
        miner: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> ChainResult<Option<SectorPreCommitOnChainInfo>> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let found = st.get_precommitted_sector(&vm.store, number)?;
        Ok(found.map(|p| SectorPreCommitOnChainInfo {
            info: SectorPreCommitInfo {
                seal_proof: p.info.seal_proof.into(),
                sector_number: p.info.sector_number,
                sealed_cid: p.info.sealed_cid,
                seal_rand_epoch: p.info.seal_rand_epoch,
                deal_ids: p.info.deal_ids,
                expiration: p.info.expiration,
                unsealed_cid: p.info.unsealed_cid.0,
            },
            pre_commit_deposit: p.pre_commit_deposit,
            pre_commit_epoch: p.pre_commit_epoch,
        }))
    }

    pub fn sector(&mut self, miner: &Address, number: u64, key: &TipSetKey) -> ChainResult<Option<SectorOnChainInfo>> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        // Beyond the largest number the array cannot even be asked.
        if number > MAX_SECTOR_NUMBER {
            return Ok(None);
        }
        Ok(st.get_sector(&vm.store, number)?.as_ref().map(sector_json))
    }

    pub fn sector_partition(&mut self, miner: &Address, number: u64, key: &TipSetKey) -> ChainResult<SectorLocation> {
        let (_, vm) = self.view(key)?;
        let (_, st) = miner_of(&vm, miner)?;
        let (deadline, partition) =
            st.find_sector(&vm.store, number).map_err(|e| ChainError::refused(e.to_string()))?;
        Ok(SectorLocation { deadline, partition })
    }

    pub fn miners(&mut self, key: &TipSetKey) -> ChainResult<Vec<Address>> {
        let (_, vm) = self.view(key)?;
        Ok(power::miners(&vm)?.into_iter().map(Address::new_id).collect())
    }

    /// `StateReadState` of a miner: the fields that people look at.
    pub fn miner_state_json(&mut self, miner: &Address, key: &TipSetKey) -> ChainResult<serde_json::Value> {
        let (_, vm) = self.view(key)?;
        let (id, st) = miner_of(&vm, miner)?;
        let no_json = |e: serde_json::Error| ChainError::refused(format!("the state has no JSON: {e}"));
        let state = try_json!({
            "Info": CidJson::from(st.info),
            "PreCommitDeposits": st.pre_commit_deposits.atto().to_string(),
            "LockedFunds": st.locked_funds.atto().to_string(),
            "FeeDebt": st.fee_debt.atto().to_string(),
            "InitialPledge": st.initial_pledge.atto().to_string(),
            "PreCommittedSectors": CidJson::from(st.pre_committed_sectors),
            "PreCommittedSectorsCleanUp": CidJson::from(st.pre_committed_sectors_cleanup),
            "AllocatedSectors": CidJson::from(st.allocated_sectors),
            "Sectors": CidJson::from(st.sectors),
            "ProvingPeriodStart": st.proving_period_start,
            "CurrentDeadline": st.current_deadline,
            "Deadlines": CidJson::from(st.deadlines),
            "EarlyTerminations": crate::chain::lotus_json::bitfield::to_runs(&st.early_terminations),
            "DeadlineCronActive": st.deadline_cron_active,
        });
        let members = try_json!({
            "Balance": vm.balance(id)?.atto().to_string(),
            "Code": CidJson::from(vm.actor(id)?.code),
            "State": state.map_err(no_json)?,
        });
        members.map_err(no_json)
    }
}

fn seal_size(info: &SectorPreCommitInfo) -> ChainResult<fvm_shared::sector::SectorSize> {
    RegisteredSealProof::from(info.seal_proof).sector_size().map_err(ChainError::Refused)
}

fn with_margin(amount: TokenAmount) -> TokenAmount {
    (amount * MARGIN.0).div_floor(MARGIN.1)
}

fn sector_json(s: &state::SectorOnChainInfo) -> SectorOnChainInfo {
    SectorOnChainInfo {
        sector_number: s.sector_number,
        seal_proof: s.seal_proof.into(),
        sealed_cid: s.sealed_cid,
        deal_ids: s.deprecated_deal_ids.clone(),
        activation: s.activation,
        expiration: s.expiration,
        initial_pledge: Some(s.initial_pledge.clone()),
        expected_day_reward: s.expected_day_reward.clone(),
        expected_storage_pledge: s.expected_storage_pledge.clone(),
        power_base_epoch: s.power_base_epoch,
        sector_key_cid: s.sector_key_cid,
        flags: u64::from(s.flags.bits()),
        daily_fee: Some(s.daily_fee.clone()),
    }
}
