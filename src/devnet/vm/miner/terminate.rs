//! TerminateSectors, and the processing of early terminations that cron shares with it.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Call, Vm, power, returns};
use super::faults::sector_map;
use super::{PledgeInputs, check_balance, info_of, only_controllers};
use fil_actor_miner_state::v19::{
    CRON_EVENT_PROCESS_EARLY_TERMINATIONS, PowerPair, Sectors, State, TerminateSectorsParams, TerminateSectorsReturn,
    deadline_is_mutable, pledge_penalty_for_continued_fault, pledge_penalty_for_termination, qa_power_for_sector,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::ActorID;
use fvm_shared::econ::TokenAmount;

pub fn terminate_sectors(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: TerminateSectorsParams = call.params()?;
    let policy = vm.env.policy;
    let declarations = params.terminations.into_iter().map(|t| (t.deadline, t.partition, t.sectors));
    let mut map = sector_map(policy, declarations)?;
    let mut st: State = vm.load(call.to)?;
    let had_terminations = !st.early_terminations.is_empty();
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    let mut deadlines = st.load_deadlines(&vm.store)?;
    let sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors: {}", e))?;
    let period_start = st.current_proving_period_start(policy, vm.epoch);
    let mut power_delta = PowerPair::zero();
    for (index, partitions) in map.iter() {
        if !deadline_is_mutable(policy, period_start, index, vm.epoch) {
            return Err(actor_error!(illegal_argument, "cannot terminate sectors in immutable deadline {}", index));
        }
        let quant = st.quant_spec_for_deadline(policy, index);
        let mut deadline = deadlines.load_deadline(&vm.store, index)?;
        power_delta -= &deadline
            .terminate_sectors(policy, &vm.store, &sectors, vm.epoch, partitions, info.sector_size, quant)
            .map_err(state_error("failed to terminate sectors"))?;
        st.early_terminations.set(index);
        deadlines
            .update_deadline(policy, &vm.store, index, &deadline)
            .map_err(state_error("failed to update deadline"))?;
    }
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;
    vm.save(call.to, &st)?;
    let more = process_early_terminations(vm, call.to)?;
    if more && !had_terminations {
        power::enroll_cron(vm, call.to, vm.epoch + 1, CRON_EVENT_PROCESS_EARLY_TERMINATIONS)?;
    }
    check_balance(vm, call.to)?;
    power::update_power(vm, call.to, &power_delta)?;
    returns(&TerminateSectorsReturn { done: !more })
}

/// Fines and frees what was terminated early, up to the policy's bounds; whether more remains.
pub fn process_early_terminations(vm: &mut Vm<'_>, miner: ActorID) -> ActorResult<bool> {
    let policy = vm.env.policy;
    let mut st: State = vm.load(miner)?;
    let (result, more) = st
        .pop_early_terminations(policy, &vm.store, policy.addressed_partitions_max, policy.addressed_sectors_max)
        .map_err(state_error("failed to pop early terminations"))?;
    if result.is_empty() {
        vm.save(miner, &st)?;
        return Ok(more);
    }
    let info = info_of(vm, &st)?;
    let inputs = PledgeInputs::load(vm)?;
    let sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors array: {}", e))?;
    let (mut pledge, mut penalty) = (TokenAmount::default(), TokenAmount::default());
    for (epoch, numbers) in result.iter() {
        for sector in sectors.load_sectors(numbers)? {
            let qa_power = qa_power_for_sector(info.sector_size, &sector);
            let fault_fee = pledge_penalty_for_continued_fault(&inputs.reward, &inputs.network_power, &qa_power);
            pledge += &sector.initial_pledge;
            penalty += pledge_penalty_for_termination(&sector.initial_pledge, epoch - sector.activation, &fault_fee);
        }
    }
    st.apply_penalty(&penalty).map_err(state_error("failed to apply penalty"))?;
    st.add_initial_pledge(&-&pledge).map_err(state_error("failed to free initial pledge"))?;
    let (to_burn, unlocked) = st
        .repay_partial_debt_in_priority_order(&vm.store, vm.epoch, &vm.balance(miner)?)
        .map_err(state_error("failed to repay penalty"))?;
    vm.save(miner, &st)?;
    vm.burn(miner, &to_burn)?;
    power::update_pledge(vm, &-(pledge + unlocked))?;
    Ok(more)
}
