//! ProveCommitSectors3: every PoRep is verified; what is proven becomes a sector with a pledge and a deadline.

use super::super::super::error::{ActorResult, state_error};
use super::super::super::state_tree::Actors;
use super::super::super::verifier::SealCheck;
use super::super::{Call, Vm, power, returns};
use super::{PledgeInputs, check_balance, entropy, info_of, only_controllers};
use crate::rpc::full_node::RandomnessTag;
use fil_actor_miner_state::v19::{
    MinerInfo, ProveCommitSectors3Params, ProveCommitSectors3Return, SectorActivationManifest, SectorOnChainInfo,
    SectorOnChainInfoFlags, SectorPreCommitOnChainInfo, State, daily_proof_fee, qa_power_for_sector,
};
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::{ActorContext, BatchReturnGen};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::ActorID;
use fvm_shared::econ::TokenAmount;
use fvm_shared::error::ExitCode;

/// One sector of the message: its manifest, its pre-commit, its proof.
type Candidate<'a> = (&'a SectorActivationManifest, SectorPreCommitOnChainInfo, &'a RawBytes);

/// The fault of one sector; fatal when the sender wants all or none.
enum Verdict {
    Good,
    TooLate,
    BadProof,
    BadData,
}

pub fn prove_commit3(vm: &mut Vm<'_>, call: &Call) -> ActorResult<RawBytes> {
    let params: ProveCommitSectors3Params = call.params()?;
    let st: State = vm.load(call.to)?;
    let info = info_of(vm, &st)?;
    only_controllers(call, &info)?;
    let numbers: Vec<u64> = params.sector_activations.iter().map(|a| a.sector_number).collect();
    let pre_commits = st.get_precommitted_sectors(&vm.store, numbers).context("loading precommits")?;
    check_shape(&params, pre_commits.len(), vm.actors())?;

    let candidates = params.sector_activations.iter().zip(pre_commits).zip(&params.sector_proofs);
    let mut batch = BatchReturnGen::new(params.sector_activations.len());
    let mut proven = Vec::new();
    for ((activation, pre_commit), proof) in candidates {
        let number = pre_commit.info.sector_number;
        let candidate = (activation, pre_commit, proof);
        let why = match judge(vm, call.to, &candidate)? {
            Verdict::Good => {
                batch.add_success();
                proven.push(candidate.1);
                continue;
            }
            Verdict::TooLate => "invalid pre-commit",
            Verdict::BadProof => "invalid proof",
            Verdict::BadData => "unsealed CID does not match the pieces",
        };
        if params.require_activation_success {
            return Err(actor_error!(
                illegal_argument,
                "{} for sector {} while requiring activation success: [false]",
                why,
                number
            ));
        }
        batch.add_fail(ExitCode::USR_ILLEGAL_ARGUMENT);
    }
    if proven.is_empty() {
        return Err(actor_error!(illegal_argument, "no valid proofs specified"));
    }
    activate(vm, call.to, &info, proven)?;
    returns(&ProveCommitSectors3Return { activation_results: batch.generate() })
}

fn check_shape(params: &ProveCommitSectors3Params, pre_commits: usize, actors: Actors) -> ActorResult<()> {
    let illegal = |why: &str| Err(actor_error!(illegal_argument, why));
    if pre_commits == 0 {
        return illegal("no sectors to prove");
    }
    if params.sector_proofs.is_empty() == params.aggregate_proof.is_empty() {
        return illegal("exactly one of sector proofs or aggregate proof must be non-empty");
    }
    if !params.aggregate_proof.is_empty() {
        return illegal("the devnet does not verify aggregate proofs: send one proof for each sector");
    }
    if params.aggregate_proof_type.is_some() {
        return illegal("aggregate proof type must be null with batched proofs");
    }
    if params.sector_activations.len() != params.sector_proofs.len() {
        return Err(actor_error!(
            illegal_argument,
            "mismatched lengths: {} sector activations, {} proofs",
            params.sector_activations.len(),
            params.sector_proofs.len()
        ));
    }
    for piece in params.sector_activations.iter().flat_map(|a| &a.pieces) {
        // Accepted and ignored since v19.
        if actors == Actors::V18 && piece.verified_allocation_key.is_some() {
            return illegal("the devnet has no verified registry: no allocation can be claimed");
        }
        if params.require_notification_success && !piece.notify.is_empty() {
            return illegal("the devnet notifies no data consumers");
        }
    }
    Ok(())
}

fn judge(vm: &Vm<'_>, miner: ActorID, (activation, pre_commit, proof): &Candidate<'_>) -> ActorResult<Verdict> {
    let sector = &pre_commit.info;
    let challenge = pre_commit.pre_commit_epoch + vm.env.policy.pre_commit_challenge_delay;
    if vm.epoch <= challenge {
        return Err(actor_error!(forbidden, "too early to prove sector"));
    }
    if vm.epoch > pre_commit.pre_commit_epoch + vm.env.settings.max_prove_commit_duration() {
        return Ok(Verdict::TooLate);
    }
    let unsealed = sector.unsealed_cid.get_cid(sector.seal_proof)?;
    let entropy = entropy(miner);
    let check = SealCheck {
        proof_type: sector.seal_proof,
        miner,
        sector: sector.sector_number,
        ticket: vm.draw_tickets(RandomnessTag::SealRandomness, sector.seal_rand_epoch, &entropy)?,
        seed: vm.draw_beacon(RandomnessTag::InteractiveSealChallengeSeed, challenge, &entropy)?,
        sealed: sector.sealed_cid,
        unsealed,
        proof: proof.bytes(),
    };
    let broken = |e| actor_error!(illegal_state, "cannot verify seals: {}", e);
    if !vm.env.verifier.seal(&check).map_err(broken)? {
        return Ok(Verdict::BadProof);
    }
    if !activation.pieces.is_empty() {
        let pieces: Vec<_> = activation.pieces.iter().map(|p| (p.size.0, p.cid)).collect();
        if vm.env.verifier.unsealed_cid(sector.seal_proof, &pieces).map_err(broken)? != Some(unsealed) {
            return Ok(Verdict::BadData);
        }
    } else if !sector.unsealed_cid.is_zero() && sector.unsealed_cid.0 != Some(unsealed) {
        return Ok(Verdict::BadData);
    }
    Ok(Verdict::Good)
}

/// Moves pre-commits to the sectors: the deposit is freed, the pledge is locked, each gets a deadline and a partition.
fn activate(
    vm: &mut Vm<'_>,
    miner: ActorID,
    info: &MinerInfo,
    proven: Vec<SectorPreCommitOnChainInfo>,
) -> ActorResult<()> {
    let inputs = PledgeInputs::load(vm)?;
    let mut st: State = vm.load(miner)?;
    let (mut deposits, mut pledge) = (TokenAmount::default(), TokenAmount::default());
    let mut sectors = Vec::new();
    for pre_commit in proven {
        deposits += &pre_commit.pre_commit_deposit;
        let sector = new_sector(vm, info, &inputs, pre_commit)?;
        pledge += &sector.initial_pledge;
        sectors.push(sector);
    }
    let numbers: Vec<u64> = sectors.iter().map(|s| s.sector_number).collect();
    st.put_sectors(&vm.store, sectors.clone()).map_err(state_error("failed to put new sectors"))?;
    st.delete_precommitted_sectors(&vm.store, &numbers)?;
    st.assign_sectors_to_deadlines(
        vm.env.policy,
        &vm.store,
        vm.epoch,
        sectors,
        info.window_post_partition_sectors,
        info.sector_size,
    )
    .map_err(state_error("failed to assign new sectors to deadlines"))?;
    st.add_pre_commit_deposit(&-deposits).map_err(state_error("failed to free the deposit"))?;
    let unlocked =
        st.get_unlocked_balance(&vm.balance(miner)?).map_err(state_error("failed to calculate unlocked balance"))?;
    if unlocked < pledge {
        return Err(actor_error!(
            insufficient_funds,
            "insufficient funds for aggregate initial pledge requirement {}, available: {}",
            pledge,
            unlocked
        ));
    }
    st.add_initial_pledge(&pledge).map_err(state_error("failed to add initial pledge"))?;
    vm.save(miner, &st)?;
    check_balance(vm, miner)?;
    power::update_pledge(vm, &pledge)
}

fn new_sector(
    vm: &Vm<'_>,
    info: &MinerInfo,
    inputs: &PledgeInputs,
    pre_commit: SectorPreCommitOnChainInfo,
) -> ActorResult<SectorOnChainInfo> {
    let sector = pre_commit.info;
    let duration = sector.expiration - vm.epoch;
    if duration < vm.env.policy.min_sector_expiration {
        return Err(actor_error!(
            illegal_argument,
            "precommit {} has lifetime {} less than minimum {}. ignoring",
            sector.sector_number,
            duration,
            vm.env.policy.min_sector_expiration
        ));
    }
    // From v19 on every new sector counts ten-fold (FIP-0118).
    let flags = match vm.actors() {
        Actors::V18 => SectorOnChainInfoFlags::SIMPLE_QA_POWER,
        Actors::V19 => SectorOnChainInfoFlags::SIMPLE_QA_POWER | SectorOnChainInfoFlags::FULL_QA_POWER,
    };
    let mut new = SectorOnChainInfo {
        sector_number: sector.sector_number,
        seal_proof: sector.seal_proof,
        sealed_cid: sector.sealed_cid,
        activation: vm.epoch,
        power_base_epoch: vm.epoch,
        expiration: sector.expiration,
        flags,
        ..Default::default()
    };
    let qa_power = qa_power_for_sector(info.sector_size, &new);
    new.initial_pledge = inputs.initial_pledge(&qa_power);
    new.daily_fee = daily_proof_fee(vm.env.policy, &inputs.circulating, &qa_power);
    Ok(new)
}
