//! The reward actor: what a block earns. The rate stays that of genesis, like the network estimates.

use super::super::error::{ActorResult, state_error};
use super::super::state_tree::Kind;
use super::{Vm, power};
use fil_actor_miner_state::v18 as state;
use fil_actor_reward_state::v18 as reward;
use fil_actors_shared::actor_error_v18 as actor_error;
use fil_actors_shared::v18::{EXPECTED_LEADERS_PER_EPOCH, REWARD_ACTOR_ID};
use fvm_shared::ActorID;
use fvm_shared::econ::TokenAmount;

/// Pays a block's miner: its share of the epoch's reward per win, and the tips of its messages.
/// Blocks of the built-in producer earn nothing: it has no miner actor.
pub fn award(vm: &mut Vm<'_>, miner: ActorID, win_count: i64, tips: &TokenAmount) -> ActorResult<()> {
    if vm.kind(miner)? != Some(Kind::Miner) {
        return Ok(());
    }
    let mut rewards: reward::State = vm.load(REWARD_ACTOR_ID)?;
    let block = (&rewards.this_epoch_reward * win_count.max(0)).div_floor(EXPECTED_LEADERS_PER_EPOCH);
    let total = std::cmp::min(block + tips, vm.balance(REWARD_ACTOR_ID)?);
    rewards.total_storage_power_reward += &total;
    vm.save(REWARD_ACTOR_ID, &rewards)?;
    vm.transfer(REWARD_ACTOR_ID, miner, &total)?;

    let mut st: state::State = vm.load(miner)?;
    let (to_lock, schedule) = state::locked_reward_from_reward(total);
    let vested = st
        .add_locked_funds(&vm.store, vm.epoch, &to_lock, schedule)
        .map_err(|e| actor_error!(illegal_state, "failed to lock funds in vesting table: {}", e))?;
    let balance = vm.balance(miner)?;
    let (to_burn, unlocked) = st
        .repay_partial_debt_in_priority_order(&vm.store, vm.epoch, &balance)
        .map_err(state_error("failed to repay penalty"))?;
    vm.save(miner, &st)?;
    vm.burn(miner, &to_burn)?;
    let delta = to_lock - vested - unlocked;
    if delta.is_zero() { Ok(()) } else { power::update_pledge(vm, &delta) }
}
