//! SubmitWindowedPoSt: every proof is verified when it is submitted, and recorded so that it can still be disputed.

use super::super::super::error::{ActorResult, state_error};
use super::super::super::verifier::PoStCheck;
use super::super::{Call, Vm, power};
use super::{check_balance, entropy, info_of, only_controllers};
use crate::rpc::full_node::RandomnessTag;
use fil_actor_miner_state::v19::{
    DeadlineInfo, MinerInfo, SectorOnChainInfo, Sectors, State, SubmitWindowedPoStParams, load_partitions_sectors_max,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::ActorID;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::randomness::RANDOMNESS_LENGTH;
use fvm_shared::sector::PoStProof;

pub fn submit(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let mut params: SubmitWindowedPoStParams = call.params()?;
    let policy = vm.env.policy;
    let mut st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    check_params(policy, &params)?;
    only_controllers(call, &info)?;
    check_proof_size(policy, &info, &params)?;
    let now = st.deadline_info(policy, vm.epoch);
    check_time(&now, &params)?;
    let drawn = vm.draw_tickets(RandomnessTag::PoStChainCommit, params.chain_commit_epoch, &[])?;
    if drawn[..] != params.chain_commit_rand.0[..] {
        return Err(actor_error!(illegal_argument, "post commit randomness mismatched"));
    }

    let sectors = Sectors::load(&vm.store, &st.sectors)
        .map_err(|e| actor_error!(illegal_state, "failed to load sectors: {}", e))?;
    let mut deadlines = st.load_deadlines(&vm.store)?;
    let mut deadline = deadlines.load_deadline(&vm.store, params.deadline)?;
    let result = deadline
        .record_proven_sectors(
            &vm.store,
            &sectors,
            info.sector_size,
            now.quant_spec(),
            now.last() + policy.fault_max_age,
            &mut params.partitions,
        )
        .map_err(state_error("failed to process post submission"))?;
    if (&result.sectors - &result.ignored_sectors).is_empty() {
        return Err(actor_error!(illegal_argument, "cannot prove partitions with no active sectors"));
    }
    let proven = sectors
        .load_for_proof(&result.sectors, &result.ignored_sectors)
        .map_err(state_error("failed to load sectors for post verification"))?;
    if !verify(vm, call.to, now.challenge, &proven, &params.proofs[0])? {
        return Err(actor_error!(illegal_argument, "invalid post was submitted"));
    }
    // As on the network only proofs that recover no power stay open to dispute.
    if result.recovered_power.is_zero() {
        deadline
            .record_post_proofs(&vm.store, &result.partitions, &params.proofs)
            .map_err(state_error("failed to record proof for optimistic verification"))?;
    }
    deadlines
        .update_deadline(policy, &vm.store, params.deadline, &deadline)
        .map_err(state_error("failed to update deadline"))?;
    st.save_deadlines(&vm.store, deadlines).map_err(state_error("failed to save deadlines"))?;
    vm.save(call.to, &st)?;
    power::update_power(vm, call.to, &result.power_delta)?;
    check_balance(vm, call.to)?;
    Ok(RawBytes::default())
}

fn check_params(policy: &Policy, params: &SubmitWindowedPoStParams) -> ActorResult<()> {
    if params.proofs.len() != 1 {
        return Err(actor_error!(illegal_argument, "expected exactly one proof, got {}", params.proofs.len()));
    }
    if !policy.valid_post_proof_type.contains(params.proofs[0].post_proof) {
        return Err(actor_error!(illegal_argument, "proof type {:?} not allowed", params.proofs[0].post_proof));
    }
    if params.deadline >= policy.wpost_period_deadlines {
        return Err(actor_error!(
            illegal_argument,
            "invalid deadline {} of {}",
            params.deadline,
            policy.wpost_period_deadlines
        ));
    }
    let length = params.chain_commit_rand.0.len();
    if length > RANDOMNESS_LENGTH {
        return Err(actor_error!(
            illegal_argument,
            "expected at most {} bytes of randomness, got {}",
            RANDOMNESS_LENGTH,
            length
        ));
    }
    Ok(())
}

fn check_proof_size(policy: &Policy, info: &MinerInfo, params: &SubmitWindowedPoStParams) -> ActorResult<()> {
    let proof = &params.proofs[0];
    if proof.post_proof != info.window_post_proof_type {
        return Err(actor_error!(
            illegal_argument,
            "expected proof of type {:?}, got {:?}",
            info.window_post_proof_type,
            proof.post_proof
        ));
    }
    let each = info.window_post_proof_type.proof_size().map_err(|e| actor_error!(illegal_state, e))?;
    let largest = each * params.partitions.len();
    if proof.proof_bytes.len() > largest {
        return Err(actor_error!(illegal_argument, "expected proof to be smaller than {} bytes", largest));
    }
    let limit =
        load_partitions_sectors_max(policy, info.window_post_partition_sectors).min(policy.posted_partitions_max);
    if params.partitions.len() as u64 > limit {
        return Err(actor_error!(illegal_argument, "too many partitions {}, limit {}", params.partitions.len(), limit));
    }
    Ok(())
}

/// A proof is for the open deadline, committed to a chain between the challenge and now.
fn check_time(now: &DeadlineInfo, params: &SubmitWindowedPoStParams) -> ActorResult<()> {
    if !now.is_open() {
        return Err(actor_error!(
            illegal_state,
            "proving period {} not yet open at {}",
            now.period_start,
            now.current_epoch
        ));
    }
    if params.deadline != now.index {
        return Err(actor_error!(
            illegal_argument,
            "invalid deadline {} at epoch {}, expected {}",
            params.deadline,
            now.current_epoch,
            now.index
        ));
    }
    if params.chain_commit_epoch < now.challenge {
        return Err(actor_error!(
            illegal_argument,
            "expected chain commit epoch {} to be after {}",
            params.chain_commit_epoch,
            now.challenge
        ));
    }
    if params.chain_commit_epoch >= now.current_epoch {
        return Err(actor_error!(
            illegal_argument,
            "chain commit epoch {} must be less than the current epoch {}",
            params.chain_commit_epoch,
            now.current_epoch
        ));
    }
    Ok(())
}

/// Whether the proof holds for these sectors under the challenge drawn at `challenge`.
pub fn verify(
    vm: &Vm<'_>,
    miner: ActorID,
    challenge: ChainEpoch,
    sectors: &[SectorOnChainInfo],
    proof: &PoStProof,
) -> ActorResult<bool> {
    let check = PoStCheck {
        proof_type: proof.post_proof,
        miner,
        randomness: vm.draw_beacon(RandomnessTag::WindowedPoStChallengeSeed, challenge, &entropy(miner))?,
        sectors: sectors.iter().map(|s| (s.sector_number, s.sealed_cid)).collect(),
        proof: &proof.proof_bytes,
    };
    vm.env.verifier.window_post(&check).map_err(|e| actor_error!(illegal_state, "window post failed: {}", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::settings::DevnetSettings;
    use fil_actor_miner_state::v19::new_deadline_info;
    use fvm_shared::randomness::Randomness;
    use fvm_shared::sector::RegisteredPoStProof;

    fn params(deadline: u64, commit: ChainEpoch) -> SubmitWindowedPoStParams {
        SubmitWindowedPoStParams {
            deadline,
            partitions: vec![],
            proofs: vec![PoStProof { post_proof: RegisteredPoStProof::StackedDRGWindow2KiBV1P1, proof_bytes: vec![] }],
            chain_commit_epoch: commit,
            chain_commit_rand: Randomness(vec![0; 32]),
        }
    }

    #[test]
    fn a_proof_is_taken_only_in_its_window() {
        let policy = DevnetSettings::default().policy();
        // Deadline 1 of a period that starts at 100: open [110, 120), challenge 106.
        let table = [
            (109, 1, 108, Some("not yet open")),
            (110, 1, 109, None),
            (119, 1, 118, None),
            (120, 1, 119, Some("not yet open")),
            (115, 0, 114, Some("invalid deadline 0")),
            (115, 1, 105, Some("to be after 106")),
            (115, 1, 106, None),
            (115, 1, 114, None),
            (115, 1, 115, Some("must be less than the current epoch 115")),
        ];
        for (epoch, deadline, commit, want) in table {
            let now = new_deadline_info(&policy, 100, 1, epoch);
            let got = check_time(&now, &params(deadline, commit));
            match want {
                None => assert!(got.is_ok(), "{epoch} {deadline} {commit}: {got:?}"),
                Some(text) => assert!(got.unwrap_err().msg().contains(text), "{epoch} {deadline} {commit}"),
            }
        }
    }

    #[test]
    fn malformed_params_are_refused() {
        let policy = DevnetSettings::default().policy();
        assert!(check_params(&policy, &params(5, 0)).is_ok());
        assert!(check_params(&policy, &params(6, 0)).is_err());
        let mut two = params(0, 0);
        two.proofs.push(two.proofs[0].clone());
        assert!(check_params(&policy, &two).is_err());
        let mut long = params(0, 0);
        long.chain_commit_rand = Randomness(vec![0; 33]);
        assert!(check_params(&policy, &long).is_err());
    }
}
