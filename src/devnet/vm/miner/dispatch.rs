//! From a method number to the method.

use super::super::super::error::ActorResult;
use super::super::{Call, Vm};
use super::{
    CHANGE_MULTIADDRS, CHANGE_OWNER_ADDRESS, CHANGE_PEER_ID, CHANGE_WORKER_ADDRESS, CONFIRM_CHANGE_WORKER_ADDRESS,
    CONTROL_ADDRESSES, DECLARE_FAULTS, DECLARE_FAULTS_RECOVERED, DISPUTE_WINDOWED_POST, EXTEND_EXPIRATION2,
    PRE_COMMIT_BATCH2, PROVE_COMMIT3, REPAY_DEBT, SUBMIT_WINDOWED_POST, TERMINATE_SECTORS, WITHDRAW_BALANCE,
};
use super::{extend, faults, manage, post_dispute, pre_commit, prove_commit, terminate, window_post};
use fil_actor_miner_state::v19::Method;
use fil_actors_shared::actor_error_v19 as actor_error;
use fvm_ipld_encoding::RawBytes;

/// FRC-42's numbers for what any actor may call, beside those that only accounts use.
const EXPORTED: [(u64, u64); 7] = [
    (Method::ChangeWorkerAddressExported as u64, CHANGE_WORKER_ADDRESS),
    (Method::ChangePeerIDExported as u64, CHANGE_PEER_ID),
    (Method::WithdrawBalanceExported as u64, WITHDRAW_BALANCE),
    (Method::ChangeMultiaddrsExported as u64, CHANGE_MULTIADDRS),
    (Method::ConfirmChangeWorkerAddressExported as u64, CONFIRM_CHANGE_WORKER_ADDRESS),
    (Method::RepayDebtExported as u64, REPAY_DEBT),
    (Method::ChangeOwnerAddressExported as u64, CHANGE_OWNER_ADDRESS),
];

pub fn call(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let exported = EXPORTED.iter().find(|(exported, _)| *exported == call.method);
    match exported.map_or(call.method, |(_, number)| *number) {
        CONTROL_ADDRESSES => manage::control_addresses(vm, call),
        REPAY_DEBT => manage::repay_debt(vm, call),
        CHANGE_OWNER_ADDRESS => manage::change_owner_address(vm, call),
        CHANGE_WORKER_ADDRESS => manage::change_worker_address(vm, call),
        CHANGE_PEER_ID => manage::change_peer_id(vm, call),
        CHANGE_MULTIADDRS => manage::change_multiaddrs(vm, call),
        CONFIRM_CHANGE_WORKER_ADDRESS => manage::confirm_change_worker_address(vm, call),
        WITHDRAW_BALANCE => manage::withdraw_balance(vm, call),
        SUBMIT_WINDOWED_POST => window_post::submit(vm, call),
        DISPUTE_WINDOWED_POST => post_dispute::dispute(vm, call),
        TERMINATE_SECTORS => terminate::terminate_sectors(vm, call),
        DECLARE_FAULTS => faults::declare_faults(vm, call),
        DECLARE_FAULTS_RECOVERED => faults::declare_recovered(vm, call),
        PRE_COMMIT_BATCH2 => pre_commit::pre_commit_batch2(vm, call),
        EXTEND_EXPIRATION2 => extend::extend_expiration2(vm, call),
        PROVE_COMMIT3 => prove_commit::prove_commit3(vm, call),
        other => Err(actor_error!(unhandled_message, "method {} of the miner actor is not served here", other)),
    }
}
