//! DeclareFaults and DeclareFaultsRecovered, each before the deadline's fault cutoff.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Call, Vm, power};
use super::{check_balance, fault_active, info_of, only_controllers, repay_debts};
use fil_actor_miner_state::v19::{
    DeadlineInfo, DeadlineSectorMap, DeclareFaultsParams, DeclareFaultsRecoveredParams, PowerPair, Sectors, State,
    new_deadline_info,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::clock::ChainEpoch;

/// Which sectors of which partitions; bounded.
pub fn sector_map(
    policy: &Policy,
    declarations: impl IntoIterator<Item = (u64, u64, BitField)>,
) -> ActorResult<DeadlineSectorMap> {
    let mut map = DeadlineSectorMap::new();
    for (deadline, partition, sectors) in declarations {
        map.add(policy, deadline, partition, sectors).map_err(|e| {
            actor_error!(illegal_argument, "failed to process deadline {}, partition {}: {}", deadline, partition, e)
        })?;
    }
    map.check(policy.addressed_partitions_max, policy.addressed_sectors_max)
        .map_err(|e| actor_error!(illegal_argument, "cannot process requested parameters: {}", e))?;
    Ok(map)
}

/// The deadline's next window, refused from its fault cutoff on.
fn declaration_window(
    policy: &Policy,
    period_start: ChainEpoch,
    deadline: u64,
    epoch: ChainEpoch,
    what: &str,
) -> ActorResult<DeadlineInfo> {
    let window = new_deadline_info(policy, period_start, deadline, epoch).next_not_elapsed();
    if window.fault_cutoff_passed() {
        return Err(actor_error!(
            illegal_argument,
            "failed {} declaration at deadline {}: late fault or recovery declaration",
            what,
            deadline
        ));
    }
    Ok(window)
}

pub fn declare_faults(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: DeclareFaultsParams = call.params()?;
    let policy = vm.env.policy;
    let declarations = params.faults.into_iter().map(|f| (f.deadline, f.partition, f.sectors));
    let mut map = sector_map(policy, declarations)?;
    let mut st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    let mut deadlines = st.load_deadlines(&vm.store)?;
    let sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors array: {}", e))?;
    let period_start = st.current_proving_period_start(policy, vm.epoch);
    let mut power_delta = PowerPair::zero();
    for (index, partitions) in map.iter() {
        let window = declaration_window(policy, period_start, index, vm.epoch, "fault")?;
        let mut deadline = deadlines.load_deadline(&vm.store, index)?;
        power_delta += &deadline
            .record_faults(
                &vm.store,
                &sectors,
                info.sector_size,
                window.quant_spec(),
                window.last() + policy.fault_max_age,
                partitions,
            )
            .map_err(state_error("failed to declare faults"))?;
        deadlines
            .update_deadline(policy, &vm.store, index, &deadline)
            .map_err(state_error("failed to store deadline partitions"))?;
    }
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;
    vm.save(call.to, &st)?;
    power::update_power(vm, call.to, &power_delta)?;
    Ok(RawBytes::default())
}

pub fn declare_recovered(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: DeclareFaultsRecoveredParams = call.params()?;
    let policy = vm.env.policy;
    let declarations = params.recoveries.into_iter().map(|r| (r.deadline, r.partition, r.sectors));
    let mut map = sector_map(policy, declarations)?;
    let mut st: State = vm.load(call.to)?;
    let fee_to_burn = repay_debts(vm, call.to, &mut st)?;
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    if fault_active(&info, vm.epoch) {
        return Err(actor_error!(forbidden, "recovery not allowed during active consensus fault"));
    }
    let mut deadlines = st.load_deadlines(&vm.store)?;
    let sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors array: {}", e))?;
    let period_start = st.current_proving_period_start(policy, vm.epoch);
    for (index, partitions) in map.iter() {
        declaration_window(policy, period_start, index, vm.epoch, "recovery")?;
        let mut deadline = deadlines.load_deadline(&vm.store, index)?;
        deadline
            .declare_faults_recovered(&vm.store, &sectors, info.sector_size, partitions)
            .map_err(state_error("failed to declare recoveries"))?;
        deadlines
            .update_deadline(policy, &vm.store, index, &deadline)
            .map_err(state_error("failed to store deadline"))?;
    }
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;
    vm.save(call.to, &st)?;
    vm.burn(call.to, &fee_to_burn)?;
    check_balance(vm, call.to)?;
    Ok(RawBytes::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::settings::DevnetSettings;

    #[test]
    fn declarations_are_late_from_the_cutoff_until_the_window_closes() {
        let policy = DevnetSettings::default().policy();
        // Deadline 2 of a period that starts at 0: open [20, 30), cutoff 16.
        for (epoch, good) in
            [(0, true), (15, true), (16, false), (20, false), (29, false), (30, true), (75, true), (76, false)]
        {
            // The caller passes the start of the current period.
            let start = epoch / 60 * 60;
            assert_eq!(declaration_window(&policy, start, 2, epoch, "fault").is_ok(), good, "{epoch}");
        }
    }

    #[test]
    fn a_deadline_beyond_the_last_is_refused() {
        let policy = DevnetSettings::default().policy();
        let one = || BitField::try_from_bits([1]).unwrap();
        assert!(sector_map(&policy, [(5, 0, one())]).is_ok());
        assert!(sector_map(&policy, [(6, 0, one())]).is_err());
    }
}
