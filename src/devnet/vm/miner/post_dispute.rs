//! DisputeWindowedPoSt: anyone may show that a recorded WindowPoSt was wrong.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Call, Vm, power};
use super::{PledgeInputs, check_balance, info_of, window_post};
use fil_actor_miner_state::v19::{
    DisputeWindowedPoStParams, Sectors, State, deadline_available_for_optimistic_post_dispute, new_deadline_info,
    pledge_penalty_for_invalid_windowpost, quant_spec_for_deadline, reward_for_disputed_window_post,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fvm_ipld_encoding::RawBytes;

pub fn dispute(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: DisputeWindowedPoStParams = call.params()?;
    let policy = vm.env.policy;
    if params.deadline >= policy.wpost_period_deadlines {
        return Err(actor_error!(
            illegal_argument,
            "invalid deadline {} of {}",
            params.deadline,
            policy.wpost_period_deadlines
        ));
    }
    let mut st: State = vm.load(call.to)?;
    let now = st.deadline_info(policy, vm.epoch);
    if !deadline_available_for_optimistic_post_dispute(policy, now.period_start, params.deadline, vm.epoch) {
        return Err(actor_error!(
            forbidden,
            "can only dispute window posts during the dispute window ({} epochs after the challenge window closes)",
            policy.wpost_dispute_window
        ));
    }
    let info = info_of(vm, &st)?;
    // The deadline's last window is in this period, or in the one before when it has not opened yet.
    let period_start =
        if now.index < params.deadline { now.period_start - policy.wpost_proving_period } else { now.period_start };
    let target = new_deadline_info(policy, period_start, params.deadline, vm.epoch);

    let mut deadlines = st.load_deadlines(&vm.store)?;
    let mut deadline = deadlines.load_deadline(&vm.store, params.deadline)?;
    let (partitions, proofs) = deadline
        .take_post_proofs(&vm.store, params.post_index)
        .map_err(state_error("failed to load proof for dispute"))?;
    let mut disputed = deadline
        .load_partitions_for_dispute(&vm.store, partitions)
        .map_err(state_error("failed to load partition for dispute"))?;
    let sectors = Sectors::load(&vm.store, &deadline.sectors_snapshot)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors array: {}", e))?;
    let proven = sectors
        .load_for_proof(&disputed.all_sector_nos, &disputed.ignored_sector_nos)
        .map_err(state_error("failed to load sectors to dispute window post"))?;
    let Some(proof) = proofs.first() else {
        return Err(actor_error!(illegal_state, "the recorded post has no proof"));
    };
    if window_post::verify(vm, call.to, target.challenge, &proven, proof)? {
        return Err(actor_error!(illegal_argument, "failed to dispute valid post"));
    }

    let power_delta = deadline
        .record_faults(
            &vm.store,
            &sectors,
            info.sector_size,
            quant_spec_for_deadline(policy, &target),
            target.last() + policy.fault_max_age,
            &mut disputed.disputed_sectors,
        )
        .map_err(state_error("failed to declare faults"))?;
    deadlines
        .update_deadline(policy, &vm.store, params.deadline, &deadline)
        .map_err(state_error("failed to update deadline"))?;
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;

    let inputs = PledgeInputs::load(vm)?;
    let base =
        pledge_penalty_for_invalid_windowpost(&inputs.reward, &inputs.network_power, &disputed.disputed_power.qa);
    let reward = reward_for_disputed_window_post(info.window_post_proof_type, disputed.disputed_power);
    st.apply_penalty(&(base + &reward)).map_err(state_error("failed to apply penalty"))?;
    let (paid, unlocked) = st
        .repay_partial_debt_in_priority_order(&vm.store, vm.epoch, &vm.balance(call.to)?)
        .map_err(state_error("failed to pay debt"))?;
    vm.save(call.to, &st)?;
    let to_reporter = std::cmp::min(&paid, &reward).clone();
    power::update_power(vm, call.to, &power_delta)?;
    vm.transfer(call.to, call.from, &to_reporter)?;
    vm.burn(call.to, &(paid - to_reporter))?;
    power::update_pledge(vm, &-unlocked)?;
    check_balance(vm, call.to)?;
    Ok(RawBytes::default())
}
