//! ExtendSectorExpiration2: a later expiration for live sectors. No verified deals exist here, so no claims are weighed.

use super::super::super::error::{ActorResult, state_error};
use super::super::super::state_tree::Actors;
use super::super::{Call, Vm, power};
use super::{PledgeInputs, check_expiration, info_of, only_controllers};
use fil_actor_miner_state::v19::{
    ExpirationExtension2, ExtendSectorExpiration2Params, MinerInfo, PowerPair, SectorOnChainInfo, Sectors, State,
    ValidatedExpirationExtension, daily_proof_fee, qa_power_for_sector,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use num_traits::Zero;
use std::collections::BTreeMap;

pub fn extend_expiration2(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: ExtendSectorExpiration2Params = call.params()?;
    let policy = vm.env.policy;
    let by_deadline = group(policy, vm.actors(), params.extensions)?;
    let mut st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    let circulating = PledgeInputs::load(vm)?.circulating;
    let mut deadlines = st.load_deadlines(&vm.store)?;
    let mut sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors array: {}", e))?;
    let (mut power_delta, mut pledge_delta) = (PowerPair::zero(), TokenAmount::zero());

    for (index, extensions) in by_deadline {
        let mut deadline = deadlines.load_deadline(&vm.store, index)?;
        let mut partitions =
            deadline.partitions_amt(&vm.store).map_err(state_error("failed to load partitions for deadline"))?;
        let quant = st.quant_spec_for_deadline(policy, index);
        let mut reschedule: BTreeMap<ChainEpoch, Vec<u64>> = BTreeMap::new();
        for extension in extensions {
            let wrong = |e: fvm_ipld_amt::Error| actor_error!(illegal_state, "failed to load or save partition: {}", e);
            let found = partitions.get(extension.partition).map_err(wrong)?.cloned();
            let mut partition =
                found.ok_or_else(|| actor_error!(not_found, "no such partition {}", extension.partition))?;
            let old = sectors.load_sectors(&extension.sectors)?;
            let new_expiration = extension
                .new_expiration
                .ok_or_else(|| actor_error!(illegal_argument, "an extension without a new expiration"))?;
            let extend = |s| extended(policy, vm.epoch, new_expiration, &info, &circulating, s);
            let new = old.iter().map(extend).collect::<ActorResult<Vec<_>>>()?;
            sectors.store(new.clone()).map_err(state_error("failed to update sectors"))?;
            let (power, pledge, fee) = partition
                .replace_sectors(&vm.store, &old, &new, info.sector_size, quant)
                .map_err(state_error("failed to replace sector expirations"))?;
            deadline.live_power += &power;
            deadline.daily_fee += &fee;
            power_delta += &power;
            pledge_delta += &pledge;
            partitions.set(extension.partition, partition).map_err(wrong)?;
            reschedule.entry(new_expiration).or_default().push(extension.partition);
        }
        deadline.partitions =
            partitions.flush().map_err(|e| actor_error!(illegal_state, "failed to save partitions: {}", e))?;
        for (epoch, partitions) in reschedule {
            deadline
                .add_expiration_partitions(&vm.store, epoch, &partitions, quant)
                .map_err(state_error("failed to add expiration partitions"))?;
        }
        deadlines
            .update_deadline(policy, &vm.store, index, &deadline)
            .map_err(state_error("failed to save deadline"))?;
    }
    st.sectors = sectors.amt.flush().map_err(|e| actor_error!(illegal_state, "failed to save sectors: {}", e))?;
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;
    vm.save(call.to, &st)?;
    power::update_power(vm, call.to, &power_delta)?;
    power::update_pledge(vm, &pledge_delta)?;
    Ok(RawBytes::default())
}

fn group(
    policy: &Policy,
    actors: Actors,
    extensions: Vec<ExpirationExtension2>,
) -> ActorResult<BTreeMap<u64, Vec<ValidatedExpirationExtension>>> {
    let mut by_deadline: BTreeMap<u64, Vec<ValidatedExpirationExtension>> = BTreeMap::new();
    let mut partitions = 0;
    for extension in extensions {
        if extension.deadline >= policy.wpost_period_deadlines {
            return Err(actor_error!(
                illegal_argument,
                "deadline {} not in range 0..{}",
                extension.deadline,
                policy.wpost_period_deadlines
            ));
        }
        // Accepted and ignored since v19.
        if actors == Actors::V18
            && extension.sectors_with_claims.iter().any(|s| !s.maintain_claims.is_empty() || !s.drop_claims.is_empty())
        {
            return Err(actor_error!(illegal_argument, "invalid claims: the devnet has no verified registry"));
        }
        partitions += 1;
        by_deadline.entry(extension.deadline).or_default().push(extension.into());
    }
    if partitions > policy.addressed_partitions_max {
        return Err(actor_error!(
            illegal_argument,
            "too many declarations {}, max {}",
            partitions,
            policy.addressed_partitions_max
        ));
    }
    Ok(by_deadline)
}

fn extended(
    policy: &Policy,
    now: ChainEpoch,
    new_expiration: ChainEpoch,
    info: &MinerInfo,
    circulating: &TokenAmount,
    sector: &SectorOnChainInfo,
) -> ActorResult<SectorOnChainInfo> {
    if sector.expiration < now {
        return Err(actor_error!(
            forbidden,
            "cannot extend expiration for expired sector {} at {}",
            sector.sector_number,
            sector.expiration
        ));
    }
    if new_expiration < sector.expiration {
        return Err(actor_error!(
            illegal_argument,
            "cannot reduce sector {} expiration to {} from {}",
            sector.sector_number,
            new_expiration,
            sector.expiration
        ));
    }
    check_expiration(policy, now, sector.activation, new_expiration, sector.seal_proof)?;
    let mut new = SectorOnChainInfo { expiration: new_expiration, power_base_epoch: now, ..sector.clone() };
    if new.daily_fee.is_zero() {
        new.daily_fee = daily_proof_fee(policy, circulating, &qa_power_for_sector(info.sector_size, &new));
    }
    Ok(new)
}
