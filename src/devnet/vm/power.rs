//! The power actor: miners are created here, power is claimed here, deadlines are rung from here.

use super::super::error::{ActorResult, state_error};
use super::{Call, Vm, miner, returns};
use crate::chain::randomness::blake2b256;
use fil_actor_miner_state::v19::{PowerPair, initial_pledge_for_power};
use fil_actor_power_state::v19 as power;
use fil_actor_power_state::v19::{
    CRON_QUEUE_AMT_BITWIDTH, CRON_QUEUE_HAMT_BITWIDTH, Claim, CreateMinerParams, CreateMinerReturn, CronEvent,
    epoch_key,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::{Multimap, STORAGE_POWER_ACTOR_ID};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::ActorID;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;

pub fn call(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    if call.method == power::Method::CreateMiner as u64 || call.method == power::Method::CreateMinerExported as u64 {
        return create_miner(vm, call);
    }
    Err(actor_error!(unhandled_message, "method {} of the power actor is not served here", call.method))
}

fn create_miner(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: CreateMinerParams = call.params()?;
    let proof_type = params.window_post_proof_type;
    let deposit = if vm.env.settings.creation_deposit { creation_deposit(vm)? } else { TokenAmount::default() };
    if call.value < deposit {
        return Err(actor_error!(
            insufficient_funds,
            "not enough balance to lock for create miner deposit: sent balance {} < deposit {}",
            call.value.atto(),
            deposit.atto()
        ));
    }
    // The robust address follows from the creator's address and nonce, so that a reorg does not change it.
    let creator = vm.actor(call.from)?;
    let mut seed = Address::new_id(call.from).to_bytes();
    seed.extend(creator.sequence.to_be_bytes());
    let robust_address = Address::new_actor(&blake2b256(&seed));
    let id = miner::construct(vm, &robust_address, params, &deposit)?;
    vm.transfer(STORAGE_POWER_ACTOR_ID, id, &call.value)?;

    let mut state = load(vm)?;
    let id_address = Address::new_id(id);
    let mut claims = state.load_claims(&vm.store)?;
    let claim = Claim { window_post_proof_type: proof_type, raw_byte_power: 0.into(), quality_adj_power: 0.into() };
    power::set_claim(&mut claims, &id_address, claim)?;
    state.claims = claims.flush()?;
    state.miner_count += 1;
    save(vm, &state)?;
    returns(&CreateMinerReturn { id_address, robust_address })
}

/// FIP-0077: a tenth of the minimum power's pledge.
pub fn creation_deposit(vm: &Vm<'_>) -> ActorResult<TokenAmount> {
    let inputs = miner::PledgeInputs::load(vm)?;
    let power = &vm.env.policy.minimum_consensus_power / 10;
    Ok(initial_pledge_for_power(
        &power,
        &inputs.baseline,
        &inputs.reward,
        &inputs.network_power,
        &inputs.circulating,
        inputs.epochs_since_ramp_start,
        inputs.ramp_duration,
    ))
}

pub fn load(vm: &Vm<'_>) -> ActorResult<power::State> {
    vm.load(STORAGE_POWER_ACTOR_ID)
}

fn save(vm: &mut Vm<'_>, state: &power::State) -> ActorResult<()> {
    vm.save(STORAGE_POWER_ACTOR_ID, state)
}

/// Adds (or with a negative delta removes) a miner's power.
pub fn update_power(vm: &mut Vm<'_>, miner: ActorID, delta: &PowerPair) -> ActorResult<()> {
    if delta.is_zero() {
        return Ok(());
    }
    let address = Address::new_id(miner);
    let mut state = load(vm)?;
    let mut claims = state.load_claims(&vm.store)?;
    let old = claims.get(&address)?.cloned();
    let old = old.ok_or_else(|| actor_error!(not_found, "no claim for actor {}", address))?;
    let new = Claim {
        window_post_proof_type: old.window_post_proof_type,
        raw_byte_power: &old.raw_byte_power + &delta.raw,
        quality_adj_power: &old.quality_adj_power + &delta.qa,
    };
    state.total_bytes_committed += &delta.raw;
    state.total_qa_bytes_committed += &delta.qa;
    // Only miners above the minimum count for the totals that elections use once there are four of them.
    let minimum = &vm.env.policy.minimum_consensus_power;
    let (was, is) = (old.raw_byte_power >= *minimum, new.raw_byte_power >= *minimum);
    if was {
        state.miner_above_min_power_count -= 1;
        state.total_raw_byte_power -= &old.raw_byte_power;
        state.total_quality_adj_power -= &old.quality_adj_power;
    }
    if is {
        state.miner_above_min_power_count += 1;
        state.total_raw_byte_power += &new.raw_byte_power;
        state.total_quality_adj_power += &new.quality_adj_power;
    }
    power::set_claim(&mut claims, &address, new)?;
    state.claims = claims.flush()?;
    save(vm, &state)
}

pub fn update_pledge(vm: &mut Vm<'_>, delta: &TokenAmount) -> ActorResult<()> {
    if delta.is_zero() {
        return Ok(());
    }
    let mut state = load(vm)?;
    state.total_pledge_collateral += delta;
    if state.total_pledge_collateral.is_negative() {
        return Err(actor_error!(illegal_state, "negative total pledge collateral {}", state.total_pledge_collateral));
    }
    save(vm, &state)
}

/// Rings `miner` at the end of `epoch`.
pub fn enroll_cron(vm: &mut Vm<'_>, miner: ActorID, epoch: ChainEpoch, event_type: i64) -> ActorResult<()> {
    let payload = fil_actor_miner_state::v19::CronEventPayload { event_type };
    let event = CronEvent { miner_addr: Address::new_id(miner), callback_payload: returns(&payload)? };
    let mut state = load(vm)?;
    let wrong = |e: fvm_ipld_hamt::Error| actor_error!(illegal_state, "cron queue: {}", e);
    state.cron_event_queue = {
        let queue = &state.cron_event_queue;
        let mut events =
            Multimap::from_root(&vm.store, queue, CRON_QUEUE_HAMT_BITWIDTH, CRON_QUEUE_AMT_BITWIDTH).map_err(wrong)?;
        events.add(epoch_key(epoch), event).map_err(wrong)?;
        events.root().map_err(wrong)?
    };
    state.first_cron_epoch = state.first_cron_epoch.min(epoch);
    save(vm, &state)
}

/// The end of every epoch: rings the miners that are due, then freezes this epoch's totals.
/// The smoothed estimates stay as they were at genesis: this chain stands for a small corner of a large network,
/// and fees that follow from "one miner has all of the power" would be absurd.
pub fn on_epoch_end(vm: &mut Vm<'_>) -> ActorResult<()> {
    for event in due_events(vm)? {
        let Ok(miner) = event.miner_addr.id() else { continue };
        let before = vm.tree.snapshot();
        if let Err(e) = miner::on_cron(vm, miner, event.callback_payload.bytes()) {
            vm.tree.roll_back(before);
            tracing::error!(miner, epoch = vm.epoch, error = %e, "deadline cron failed; the miner loses its power");
            drop_power(vm, miner)?;
        }
    }
    let mut state = load(vm)?;
    let (raw, qa) = state.current_total_power();
    state.this_epoch_raw_byte_power = raw;
    state.this_epoch_quality_adj_power = qa;
    state.this_epoch_pledge_collateral = state.total_pledge_collateral.clone();
    save(vm, &state)
}

fn due_events(vm: &mut Vm<'_>) -> ActorResult<Vec<CronEvent>> {
    let mut state = load(vm)?;
    let mut due = Vec::new();
    state.cron_event_queue = {
        let queue = &state.cron_event_queue;
        let wrong = |e: fvm_ipld_hamt::Error| actor_error!(illegal_state, "cron queue: {}", e);
        let mut events =
            Multimap::from_root(&vm.store, queue, CRON_QUEUE_HAMT_BITWIDTH, CRON_QUEUE_AMT_BITWIDTH).map_err(wrong)?;
        for epoch in state.first_cron_epoch..=vm.epoch {
            let key = epoch_key(epoch);
            let before = due.len();
            events
                .for_each(&key, |_, event: &CronEvent| {
                    due.push(event.clone());
                    Ok(())
                })
                .map_err(wrong)?;
            if due.len() > before {
                events.remove_all(&key).map_err(wrong)?;
            }
        }
        events.root().map_err(wrong)?
    };
    state.first_cron_epoch = vm.epoch + 1;
    save(vm, &state)?;
    Ok(due)
}

/// Drops the power of a miner whose cron failed, as the network does.
fn drop_power(vm: &mut Vm<'_>, miner: ActorID) -> ActorResult<()> {
    let state = load(vm)?;
    let address = Address::new_id(miner);
    let claim = state.get_claim(&vm.store, &address).map_err(state_error("failed to load the claim"))?;
    let Some(claim) = claim else { return Ok(()) };
    update_power(vm, miner, &PowerPair::new(-claim.raw_byte_power, -claim.quality_adj_power))
}

/// Ids of all miners.
pub fn miners(vm: &Vm<'_>) -> ActorResult<Vec<ActorID>> {
    let state = load(vm)?;
    let mut ids = Vec::new();
    state.load_claims(&vm.store)?.for_each(|address, _| {
        ids.extend(address.id().ok());
        Ok(())
    })?;
    ids.sort_unstable();
    Ok(ids)
}
