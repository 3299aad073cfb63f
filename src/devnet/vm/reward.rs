//! The reward actor: what a block earns. The rate stays that of genesis, like the network estimates.

use super::super::error::{ActorResult, state_error};
use super::super::state_tree::{Actors, Kind};
use super::{Vm, power};
use fil_actor_miner_state::v19 as state;
use fil_actor_reward_state::{v18, v19};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::reward::FilterEstimate;
use fil_actors_shared::v19::{EXPECTED_LEADERS_PER_EPOCH, REWARD_ACTOR_ID};
use fvm_shared::ActorID;
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::StoragePower;

/// The actor's state; FIP-0118 gave it another shape.
#[expect(clippy::large_enum_variant, reason = "one at a time, never kept")]
pub enum State {
    V18(v18::State),
    V19(v19::State),
}

impl State {
    pub fn load(vm: &Vm<'_>) -> ActorResult<State> {
        match Kind::and_actors(&vm.actor(REWARD_ACTOR_ID)?.code) {
            Some((Kind::Reward, Actors::V18)) => Ok(State::V18(vm.load(REWARD_ACTOR_ID)?)),
            Some((Kind::Reward, Actors::V19)) => Ok(State::V19(vm.load(REWARD_ACTOR_ID)?)),
            Some(_) | None => Err(actor_error!(illegal_state, "t0{} is not the reward actor", REWARD_ACTOR_ID)),
        }
    }

    fn save(&self, vm: &mut Vm<'_>) -> ActorResult<()> {
        match self {
            State::V18(st) => vm.save(REWARD_ACTOR_ID, st),
            State::V19(st) => vm.save(REWARD_ACTOR_ID, st),
        }
    }

    pub fn smoothed(&self) -> FilterEstimate {
        match self {
            State::V18(st) => FilterEstimate {
                position: st.this_epoch_reward_smoothed.position.clone(),
                velocity: st.this_epoch_reward_smoothed.velocity.clone(),
            },
            State::V19(st) => st.this_epoch_reward_smoothed.clone(),
        }
    }

    pub fn baseline(&self) -> StoragePower {
        match self {
            State::V18(st) => st.this_epoch_baseline_power.clone(),
            State::V19(st) => st.this_epoch_baseline_power.clone(),
        }
    }

    /// attoFIL for one win times the expected leaders.
    fn this_epoch(&self) -> &TokenAmount {
        match self {
            State::V18(st) => &st.this_epoch_reward,
            State::V19(st) => &st.this_epoch_reward,
        }
    }

    fn count(&mut self, paid: &TokenAmount) {
        match self {
            State::V18(st) => st.total_storage_power_reward += paid,
            State::V19(st) => st.total_minted_reward += paid,
        }
    }
}

/// The state of the reward actor under v19: the accounting goes on; the one stream is that of block producers, with all of
/// the reward, as on a network without service contracts.
pub fn migrated(vm: &Vm<'_>, id: ActorID) -> ActorResult<cid::Cid> {
    let old: v18::State = vm.load(id)?;
    let fresh = v19::State::new(&vm.store, 0.into()).map_err(state_error("failed to make the reward streams"))?;
    vm.put(&v19::State {
        cumsum_baseline: old.cumsum_baseline.clone(),
        cumsum_realized: old.cumsum_realized.clone(),
        effective_network_time: old.effective_network_time,
        effective_baseline_power: old.effective_baseline_power.clone(),
        this_epoch_reward: old.this_epoch_reward.clone(),
        this_epoch_reward_smoothed: State::V18(old.clone()).smoothed(),
        this_epoch_baseline_power: old.this_epoch_baseline_power.clone(),
        epoch: old.epoch,
        total_minted_reward: old.total_storage_power_reward,
        ..fresh
    })
}

/// Pays a block's miner: its share of the epoch's reward per win, and the tips of its messages.
/// Blocks of the built-in producer earn nothing: it has no miner actor.
pub fn award(vm: &mut Vm<'_>, miner: ActorID, win_count: i64, tips: &TokenAmount) -> ActorResult<()> {
    if vm.kind(miner)? != Some(Kind::Miner) {
        return Ok(());
    }
    let mut rewards = State::load(vm)?;
    let block = (rewards.this_epoch() * win_count.max(0)).div_floor(EXPECTED_LEADERS_PER_EPOCH);
    let total = std::cmp::min(block + tips, vm.balance(REWARD_ACTOR_ID)?);
    rewards.count(&total);
    rewards.save(vm)?;
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
