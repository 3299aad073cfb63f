//! PreCommitSectorBatch2: promises to seal, each with a deposit.

use super::super::super::error::{ActorResult, state_error};
use super::super::{Call, Vm, power};
use super::{PledgeInputs, check_balance, check_expiration, fault_active, info_of, only_controllers, repay_debts};
use fil_actor_miner_state::v19::{
    CRON_EVENT_PROVING_DEADLINE, CollisionPolicy, PreCommitSectorBatchParams2, SectorPreCommitInfo,
    SectorPreCommitOnChainInfo, State, can_pre_commit_seal_proof, is_sealed_sector, is_unsealed_sector,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::runtime::Policy;
use fil_actors_shared::v19::runtime::policy_constants::MAX_SECTOR_NUMBER;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;

pub fn pre_commit_batch2(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: PreCommitSectorBatchParams2 = call.params()?;
    if params.sectors.is_empty() {
        return Err(actor_error!(illegal_argument, "batch empty"));
    }
    let latest_activation = vm.epoch + vm.env.settings.max_prove_commit_duration();
    let mut numbers = BitField::new();
    for sector in &params.sectors {
        if numbers.get(sector.sector_number) {
            return Err(actor_error!(illegal_argument, "duplicate sector number {}", sector.sector_number));
        }
        check_sector(vm.env.policy, vm.epoch, latest_activation, sector)?;
        numbers.set(sector.sector_number);
    }

    let inputs = PledgeInputs::load(vm)?;
    let mut st: State = vm.load(call.to)?;
    let available = st
        .get_available_balance(&vm.balance(call.to)?)
        .map_err(state_error("failed to calculate available balance"))?;
    let fee_to_burn = repay_debts(vm, call.to, &mut st)?;
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    if fault_active(&info, vm.epoch) {
        return Err(actor_error!(forbidden, "pre-commit not allowed during active consensus fault"));
    }

    let deposit = inputs.pre_commit_deposit(info.sector_size);
    let clean_up = latest_activation + vm.env.policy.expired_pre_commit_clean_up_delay;
    let mut records = Vec::new();
    let mut clean_ups = Vec::new();
    for sector in params.sectors {
        let post = sector.seal_proof.registered_window_post_proof().map_err(|e| actor_error!(illegal_argument, e))?;
        if post != info.window_post_proof_type {
            return Err(actor_error!(
                illegal_argument,
                "sector Window PoSt proof type {} must match miner Window PoSt proof type {}",
                i64::from(post),
                i64::from(info.window_post_proof_type)
            ));
        }
        clean_ups.push((clean_up, sector.sector_number));
        records.push(SectorPreCommitOnChainInfo {
            info: sector,
            pre_commit_deposit: deposit.clone(),
            pre_commit_epoch: vm.epoch,
        });
    }
    let required: TokenAmount = &deposit * records.len() as u64;
    if available < required {
        return Err(actor_error!(
            insufficient_funds,
            "insufficient funds {} for pre-commit deposit: {}",
            available,
            required
        ));
    }
    st.add_pre_commit_deposit(&required).map_err(state_error("failed to add pre-commit deposit"))?;
    st.allocate_sector_numbers(&vm.store, &numbers, CollisionPolicy::DenyCollisions)?;
    st.put_precommitted_sectors(&vm.store, records).map_err(state_error("failed to write pre-committed sectors"))?;
    st.add_pre_commit_clean_ups(vm.env.policy, &vm.store, clean_ups)
        .map_err(state_error("failed to add pre-commit expiry to queue"))?;
    let needs_cron = !std::mem::replace(&mut st.deadline_cron_active, true);
    vm.save(call.to, &st)?;
    vm.burn(call.to, &fee_to_burn)?;
    check_balance(vm, call.to)?;
    if needs_cron {
        let last = st.deadline_info(vm.env.policy, vm.epoch).last();
        power::enroll_cron(vm, call.to, last, CRON_EVENT_PROVING_DEADLINE)?;
    }
    Ok(RawBytes::default())
}

/// Checks of one pre-commit that need no miner state.
fn check_sector(
    policy: &Policy,
    now: ChainEpoch,
    latest_activation: ChainEpoch,
    sector: &SectorPreCommitInfo,
) -> ActorResult<()> {
    if !can_pre_commit_seal_proof(policy, sector.seal_proof) {
        return Err(actor_error!(illegal_argument, "unsupported seal proof type {}", i64::from(sector.seal_proof)));
    }
    if sector.sector_number > MAX_SECTOR_NUMBER {
        return Err(actor_error!(illegal_argument, "sector number {} out of range 0..(2^63-1)", sector.sector_number));
    }
    if !is_sealed_sector(&sector.sealed_cid) {
        return Err(actor_error!(illegal_argument, "sealed CID had wrong prefix"));
    }
    if sector.unsealed_cid.0.is_some_and(|c| !is_unsealed_sector(&c)) {
        return Err(actor_error!(illegal_argument, "unsealed CID had wrong prefix"));
    }
    if sector.seal_rand_epoch >= now {
        return Err(actor_error!(
            illegal_argument,
            "seal challenge epoch {} must be before now {}",
            sector.seal_rand_epoch,
            now
        ));
    }
    let earliest = now - policy.max_pre_commit_randomness_lookback;
    if sector.seal_rand_epoch < earliest {
        return Err(actor_error!(
            illegal_argument,
            "seal challenge epoch {} too old, must be after {}",
            sector.seal_rand_epoch,
            earliest
        ));
    }
    // No deals are ever published on this chain's market.
    if let Some(deal) = sector.deal_ids.first() {
        return Err(actor_error!(not_found, "no such deal {}", deal));
    }
    check_expiration(policy, now, latest_activation, sector.expiration, sector.seal_proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::settings::DevnetSettings;
    use cid::Cid;
    use cid::multihash::Multihash;
    use fil_actor_miner_state::v19::CompactCommD;
    use fvm_shared::commcid::{FIL_COMMITMENT_SEALED, FIL_COMMITMENT_UNSEALED, POSEIDON_BLS12_381_A1_FC1};
    use fvm_shared::sector::RegisteredSealProof;

    fn sealed() -> Cid {
        Cid::new_v1(FIL_COMMITMENT_SEALED, Multihash::wrap(POSEIDON_BLS12_381_A1_FC1, &[7; 32]).unwrap())
    }

    fn good() -> SectorPreCommitInfo {
        SectorPreCommitInfo {
            seal_proof: RegisteredSealProof::StackedDRG2KiBV1P1,
            sector_number: 1,
            sealed_cid: sealed(),
            seal_rand_epoch: 4999,
            deal_ids: vec![],
            expiration: 700_000,
            unsealed_cid: CompactCommD::empty(),
        }
    }

    #[test]
    fn each_rule_refuses_at_its_boundary_with_the_networks_words() {
        let policy = DevnetSettings::default().policy();
        let lookback = policy.max_pre_commit_randomness_lookback;
        let minimum = policy.min_sector_expiration;
        let wrong_codec = Cid::new_v1(FIL_COMMITMENT_UNSEALED, *sealed().hash());
        type Change = Box<dyn Fn(&mut SectorPreCommitInfo)>;
        let table: Vec<(Change, Option<&str>)> = vec![
            (Box::new(|_| {}), None),
            (
                Box::new(|s| s.seal_proof = RegisteredSealProof::StackedDRG32GiBV1P1),
                Some("unsupported seal proof type 8"),
            ),
            (Box::new(|s| s.sector_number = MAX_SECTOR_NUMBER), None),
            (Box::new(|s| s.sector_number = MAX_SECTOR_NUMBER + 1), Some("out of range")),
            (Box::new(move |s| s.sealed_cid = wrong_codec), Some("sealed CID had wrong prefix")),
            (Box::new(|s| s.unsealed_cid = CompactCommD::of(sealed())), Some("unsealed CID had wrong prefix")),
            (Box::new(|s| s.seal_rand_epoch = 5000), Some("must be before now 5000")),
            (Box::new(move |s| s.seal_rand_epoch = 5000 - lookback), None),
            (Box::new(move |s| s.seal_rand_epoch = 4999 - lookback), Some("too old")),
            (Box::new(|s| s.deal_ids = vec![3]), Some("no such deal 3")),
            (Box::new(move |s| s.expiration = 6000 + minimum), None),
            (Box::new(move |s| s.expiration = 5999 + minimum), Some("invalid expiration")),
        ];
        for (i, (change, want)) in table.iter().enumerate() {
            let mut sector = good();
            change(&mut sector);
            let got = check_sector(&policy, 5000, 6000, &sector);
            match want {
                None => assert!(got.is_ok(), "row {i}: {got:?}"),
                Some(text) => assert!(got.unwrap_err().msg().contains(text), "row {i}"),
            }
        }
    }
}
