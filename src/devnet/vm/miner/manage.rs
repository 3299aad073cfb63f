//! Worker, peer id, addresses, money: what an owner changes about a miner.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Call, Vm, power, returns};
use super::{check_balance, check_peer_info, info_of, only_controllers, repay_debts, resolve_worker};
use fil_actor_miner_state::v19::{
    ChangeMultiaddrsParams, ChangeOwnerAddressParams, ChangePeerIDParams, ChangeWorkerAddressParams,
    GetControlAddressesReturn, MinerInfo, State, WithdrawBalanceParams, WithdrawBalanceReturn, WorkerKeyChange,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::econ::TokenAmount;

fn save_info(vm: &mut Vm<'_>, call: &Call, st: &mut State, info: &MinerInfo) -> ActorResult<RawBytes> {
    st.save_info(&vm.store, info).map_err(state_error("could not save miner info"))?;
    vm.save(call.to, st)?;
    Ok(RawBytes::default())
}

pub fn control_addresses(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let info = info_of(vm, &vm.load(call.to)?)?;
    returns(&GetControlAddressesReturn {
        owner: info.owner,
        worker: info.worker,
        control_addresses: info.control_addresses,
    })
}

/// Two messages: the owner names another one, who confirms.
pub fn change_owner_address(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let ChangeOwnerAddressParams { new_owner } = call.params()?;
    if new_owner.protocol() != Protocol::ID {
        return Err(actor_error!(illegal_argument, "owner address must be an ID address"));
    }
    let mut st: State = vm.load(call.to)?;
    let mut info = info_of(vm, &st)?;
    match info.pending_owner_address {
        Some(pending) if Address::new_id(call.from) != info.owner => {
            call.only([&pending])?;
            if new_owner != pending {
                return Err(actor_error!(illegal_argument, "expected confirmation of {} got {}", pending, new_owner));
            }
            if info.beneficiary == info.owner {
                info.beneficiary = pending;
            }
            info.pending_beneficiary_term = None;
            info.owner = pending;
        }
        Some(_) | None => {
            call.only([&info.owner])?;
            info.pending_owner_address = Some(new_owner);
        }
    }
    // The owner names itself: what was proposed is taken back.
    if info.pending_owner_address == Some(info.owner) {
        info.pending_owner_address = None;
    }
    save_info(vm, call, &mut st, &info)
}

/// From what came with the message, what is unlocked, and if need be from what still vests.
pub fn repay_debt(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let mut st: State = vm.load(call.to)?;
    only_controllers(call, &info_of(vm, &st)?)?;
    let balance = vm.balance(call.to)?;
    let (to_burn, unlocked) = st
        .repay_partial_debt_in_priority_order(&vm.store, vm.epoch, &balance)
        .map_err(state_error("failed to unlock fee debt"))?;
    vm.save(call.to, &st)?;
    power::update_pledge(vm, &-unlocked)?;
    vm.burn(call.to, &to_burn)?;
    check_balance(vm, call.to)?;
    Ok(RawBytes::default())
}

pub fn change_worker_address(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: ChangeWorkerAddressParams = call.params()?;
    let limit = vm.env.policy.max_control_addresses;
    if params.new_control_addresses.len() > limit {
        return Err(actor_error!(
            illegal_argument,
            "control addresses length {} exceeds max control addresses length {}",
            params.new_control_addresses.len(),
            limit
        ));
    }
    let new_worker = Address::new_id(resolve_worker(vm, &params.new_worker)?);
    let mut control = Vec::new();
    for address in &params.new_control_addresses {
        let id = vm.resolve(address)?;
        let id = id.ok_or_else(|| actor_error!(illegal_argument, "unable to resolve control address: {}", address))?;
        control.push(Address::new_id(id));
    }
    let mut st: State = vm.load(call.to)?;
    let mut info = info_of(vm, &st)?;
    call.only([&info.owner])?;
    info.control_addresses = control;
    if new_worker != info.worker && info.pending_worker_key.is_none() {
        let effective_at = vm.epoch + vm.env.policy.worker_key_change_delay;
        info.pending_worker_key = Some(WorkerKeyChange { new_worker, effective_at });
    }
    save_info(vm, call, &mut st, &info)
}

pub fn confirm_change_worker_address(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let mut st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    call.only([&info.owner])?;
    apply_pending_worker(vm, &mut st, info)?;
    vm.save(call.to, &st)?;
    Ok(RawBytes::default())
}

/// Lets a pending worker take over once its epoch has come; cron does it too.
pub fn apply_pending_worker(vm: &Vm<'_>, st: &mut State, mut info: MinerInfo) -> ActorResult<()> {
    match info.pending_worker_key.take() {
        Some(change) if vm.epoch >= change.effective_at => {
            info.worker = change.new_worker;
            st.save_info(&vm.store, &info).map_err(state_error("failed to save miner info"))
        }
        _ => Ok(()),
    }
}

pub fn change_peer_id(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: ChangePeerIDParams = call.params()?;
    check_peer_info(vm.env.policy, &params.new_id, &[])?;
    let mut st: State = vm.load(call.to)?;
    let mut info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    info.peer_id = params.new_id;
    save_info(vm, call, &mut st, &info)
}

pub fn change_multiaddrs(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: ChangeMultiaddrsParams = call.params()?;
    check_peer_info(vm.env.policy, &[], &params.new_multi_addrs)?;
    let mut st: State = vm.load(call.to)?;
    let mut info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    info.multi_address = params.new_multi_addrs;
    save_info(vm, call, &mut st, &info)
}

pub fn withdraw_balance(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: WithdrawBalanceParams = call.params()?;
    if params.amount_requested.is_negative() {
        return Err(actor_error!(
            illegal_argument,
            "negative fund requested for withdrawal: {}",
            params.amount_requested
        ));
    }
    let mut st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    call.only([&info.owner, &info.beneficiary])?;
    if !st.early_terminations.is_empty() {
        return Err(actor_error!(
            forbidden,
            "cannot withdraw funds while {} deadlines have terminated sectors with outstanding fees",
            st.early_terminations.len()
        ));
    }
    let vested = st.unlock_vested_funds(&vm.store, vm.epoch).map_err(state_error("Failed to vest fund"))?;
    let available = st
        .get_available_balance(&vm.balance(call.to)?)
        .map_err(state_error("failed to calculate available balance"))?;
    let fee_to_burn = repay_debts(vm, call.to, &mut st)?;
    let amount_withdrawn: TokenAmount = std::cmp::min(available, params.amount_requested);
    if amount_withdrawn.is_negative() {
        return Err(actor_error!(illegal_state, "negative amount to withdraw: {}", amount_withdrawn));
    }
    vm.save(call.to, &st)?;
    let beneficiary = vm.resolve(&info.beneficiary)?;
    let beneficiary = beneficiary.ok_or_else(|| actor_error!(illegal_state, "beneficiary does not exist"))?;
    vm.transfer(call.to, beneficiary, &amount_withdrawn)?;
    vm.burn(call.to, &fee_to_burn)?;
    power::update_pledge(vm, &-vested)?;
    check_balance(vm, call.to)?;
    returns(&WithdrawBalanceReturn { amount_withdrawn })
}
