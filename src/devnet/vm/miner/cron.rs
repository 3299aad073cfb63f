//! The end of a deadline: missed proofs become faults, expired pre-commits lose their deposit, fees are paid, funds vest.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Vm, power};
use super::manage::apply_pending_worker;
use super::terminate::process_early_terminations;
use super::{PledgeInputs, check_balance, info_of};
use fil_actor_miner_state::v19::{
    CRON_EVENT_PROCESS_EARLY_TERMINATIONS, CRON_EVENT_PROVING_DEADLINE, CronEventPayload, State,
    daily_proof_fee_payable, expected_reward_for_power, pledge_penalty_for_continued_fault,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::EPOCHS_IN_DAY;
use fvm_shared::ActorID;

pub fn on_cron(vm: &mut Vm<'_>, miner: ActorID, payload: &[u8]) -> ActorResult<()> {
    let payload: CronEventPayload = fvm_ipld_encoding::from_slice(payload)
        .map_err(|e| actor_error!(illegal_state, "failed to decode the cron payload: {}", e))?;
    match payload.event_type {
        CRON_EVENT_PROVING_DEADLINE => end_deadline(vm, miner)?,
        CRON_EVENT_PROCESS_EARLY_TERMINATIONS => process_terminations(vm, miner)?,
        other => tracing::error!(miner, other, "unknown cron event"),
    }
    check_balance(vm, miner)
}

fn process_terminations(vm: &mut Vm<'_>, miner: ActorID) -> ActorResult<()> {
    if process_early_terminations(vm, miner)? {
        power::enroll_cron(vm, miner, vm.epoch + 1, CRON_EVENT_PROCESS_EARLY_TERMINATIONS)?;
    }
    Ok(())
}

fn end_deadline(vm: &mut Vm<'_>, miner: ActorID) -> ActorResult<()> {
    let policy = vm.env.policy;
    let inputs = PledgeInputs::load(vm)?;
    let mut st: State = vm.load(miner)?;
    let info = info_of(vm, &st)?;
    apply_pending_worker(vm, &mut st, info)?;

    let deposits = st
        .cleanup_expired_pre_commits(policy, &vm.store, vm.epoch)
        .map_err(state_error("failed to expire pre-committed sectors"))?;
    let had_terminations = !st.early_terminations.is_empty();
    let end = st.advance_deadline(policy, &vm.store, vm.epoch).map_err(state_error("failed to advance deadline"))?;

    // A proof missed for the first time costs power only; what was faulty before also costs a fee.
    let fault_fee =
        pledge_penalty_for_continued_fault(&inputs.reward, &inputs.network_power, &end.previously_faulty_power.qa);
    let mut due = deposits + fault_fee;
    if end.daily_fee.is_positive() {
        let day_reward =
            expected_reward_for_power(&inputs.reward, &inputs.network_power, &end.live_power.qa, EPOCHS_IN_DAY);
        due += daily_proof_fee_payable(policy, &end.daily_fee, &day_reward);
    }
    st.apply_penalty(&due).map_err(state_error("failed to apply penalty"))?;
    let (to_burn, unlocked) = st
        .repay_partial_debt_in_priority_order(&vm.store, vm.epoch, &vm.balance(miner)?)
        .map_err(state_error("failed to unlock penalty"))?;
    let vested = st.unlock_vested_funds(&vm.store, vm.epoch).map_err(state_error("failed to vest funds"))?;
    st.deadline_cron_active = st.continue_deadline_cron();
    vm.save(miner, &st)?;

    power::update_power(vm, miner, &end.power_delta)?;
    vm.burn(miner, &to_burn)?;
    power::update_pledge(vm, &(end.pledge_delta - unlocked - vested))?;
    if st.deadline_cron_active {
        let next = st.deadline_info(policy, vm.epoch + 1).last();
        power::enroll_cron(vm, miner, next, CRON_EVENT_PROVING_DEADLINE)?;
    }
    if !had_terminations && !st.early_terminations.is_empty() {
        process_terminations(vm, miner)?;
    }
    Ok(())
}
