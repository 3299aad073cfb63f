//! The miner actor's methods: who may call, which rules hold, what follows for money and power.
//! Deadlines, partitions and queues themselves are the network's state crate.

mod cron;
mod dispatch;
mod extend;
mod faults;
mod manage;
mod post_dispute;
mod pre_commit;
mod prove_commit;
mod terminate;
mod window_post;

pub use cron::on_cron;
pub use dispatch::call;

use super::super::error::{ActorResult, state_error};
use super::super::state_tree::Kind;
use super::{Call, Vm, power, reward};
use crate::chain::randomness::blake2b256;
use fil_actor_miner_state::v19 as state;
use fil_actor_miner_state::v19::{Method, MinerInfo, REWARD_VESTING_SPEC, State};
use fil_actor_power_state::v19::CreateMinerParams;
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::ActorError;
use fil_actors_shared::v19::reward::FilterEstimate;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_encoding::BytesDe;
use fvm_shared::ActorID;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::StoragePower;

// The network's own numbers, so that a mistake in what the provider sends cannot agree with itself.
pub const CONTROL_ADDRESSES: u64 = Method::ControlAddresses as u64;
pub const CHANGE_WORKER_ADDRESS: u64 = Method::ChangeWorkerAddress as u64;
pub const CHANGE_PEER_ID: u64 = Method::ChangePeerID as u64;
pub const SUBMIT_WINDOWED_POST: u64 = Method::SubmitWindowedPoSt as u64;
pub const TERMINATE_SECTORS: u64 = Method::TerminateSectors as u64;
pub const DECLARE_FAULTS: u64 = Method::DeclareFaults as u64;
pub const DECLARE_FAULTS_RECOVERED: u64 = Method::DeclareFaultsRecovered as u64;
pub const WITHDRAW_BALANCE: u64 = Method::WithdrawBalance as u64;
pub const CHANGE_MULTIADDRS: u64 = Method::ChangeMultiaddrs as u64;
pub const CONFIRM_CHANGE_WORKER_ADDRESS: u64 = Method::ConfirmChangeWorkerAddress as u64;
pub const REPAY_DEBT: u64 = Method::RepayDebt as u64;
pub const CHANGE_OWNER_ADDRESS: u64 = Method::ChangeOwnerAddress as u64;
pub const DISPUTE_WINDOWED_POST: u64 = Method::DisputeWindowedPoSt as u64;
pub const PRE_COMMIT_BATCH2: u64 = Method::PreCommitSectorBatch2 as u64;
pub const EXTEND_EXPIRATION2: u64 = Method::ExtendSectorExpiration2 as u64;
pub const PROVE_COMMIT3: u64 = Method::ProveCommitSectors3 as u64;

/// The smoothed network figures that deposits, pledges and penalties follow from.
pub struct PledgeInputs {
    pub reward: FilterEstimate,
    pub network_power: FilterEstimate,
    pub baseline: StoragePower,
    pub circulating: TokenAmount,
    pub epochs_since_ramp_start: i64,
    pub ramp_duration: u64,
}

impl PledgeInputs {
    pub fn load(vm: &Vm<'_>) -> ActorResult<Self> {
        let rewards = reward::State::load(vm)?;
        let powers = power::load(vm)?;
        Ok(PledgeInputs {
            reward: rewards.smoothed(),
            network_power: powers.this_epoch_qa_power_smoothed,
            baseline: rewards.baseline(),
            circulating: vm.env.settings.account_balance() * 2u64,
            epochs_since_ramp_start: vm.epoch - powers.ramp_start_epoch,
            ramp_duration: powers.ramp_duration_epochs,
        })
    }

    pub fn initial_pledge(&self, qa_power: &StoragePower) -> TokenAmount {
        state::initial_pledge_for_power(
            qa_power,
            &self.baseline,
            &self.reward,
            &self.network_power,
            &self.circulating,
            self.epochs_since_ramp_start,
            self.ramp_duration,
        )
    }

    /// As if the sector were full of verified deals.
    pub fn pre_commit_deposit(&self, sector_size: fvm_shared::sector::SectorSize) -> TokenAmount {
        state::pre_commit_deposit_for_power(&self.reward, &self.network_power, &state::qa_power_max(sector_size))
    }
}

/// A new miner actor with its first proving period.
pub fn construct(
    vm: &mut Vm<'_>,
    robust: &Address,
    params: CreateMinerParams,
    deposit: &TokenAmount,
) -> ActorResult<ActorID> {
    let policy = vm.env.policy;
    check_peer_info(policy, &params.peer, &params.multiaddrs)?;
    if !policy.valid_post_proof_type.contains(params.window_post_proof_type) {
        return Err(actor_error!(
            illegal_argument,
            "proof type {:?} not allowed for new miner actors",
            params.window_post_proof_type
        ));
    }
    let owner = vm.resolve(&params.owner)?;
    let owner =
        owner.ok_or_else(|| actor_error!(illegal_argument, "unable to resolve owner address: {}", params.owner))?;
    let worker = resolve_worker(vm, &params.worker)?;
    let mut info =
        MinerInfo::new(owner, worker, vec![], params.peer, params.multiaddrs, params.window_post_proof_type)?;
    if vm.env.settings.partition_sectors > 0 {
        info.window_post_partition_sectors = vm.env.settings.partition_sectors;
    }
    // The id is only known once the actor exists; the offset of its proving period depends on it.
    let placeholder = vm.put(&info)?;
    let id = vm.create(robust, Kind::Miner, placeholder)?;
    let offset = proving_period_offset(policy, id, vm.epoch);
    let period_start = proving_period_start(policy, vm.epoch, offset);
    let deadline = ((vm.epoch - period_start) / policy.wpost_challenge_window) as u64;
    let mut st = State::new(policy, &vm.store, placeholder, period_start, deadline)?;
    st.add_locked_funds(&vm.store, vm.epoch, deposit, &REWARD_VESTING_SPEC)
        .map_err(state_error("failed to lock the deposit"))?;
    vm.save(id, &st)?;
    Ok(id)
}

/// Pseudo-random in [0, proving period), so that miners do not all prove at once.
fn proving_period_offset(policy: &Policy, miner: ActorID, epoch: ChainEpoch) -> ChainEpoch {
    let mut seed = entropy(miner);
    seed.extend(epoch.to_be_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&blake2b256(&seed)[..8]);
    (u64::from_be_bytes(head) % policy.wpost_proving_period as u64) as ChainEpoch
}

/// The last epoch at or before `epoch` that is `offset` past a multiple of the proving period.
fn proving_period_start(policy: &Policy, epoch: ChainEpoch, offset: ChainEpoch) -> ChainEpoch {
    epoch - (epoch - offset).rem_euclid(policy.wpost_proving_period)
}

/// A worker must be an account with a BLS key: it signs blocks.
fn resolve_worker(vm: &Vm<'_>, address: &Address) -> ActorResult<ActorID> {
    let id = vm.resolve(address)?;
    let id = id.ok_or_else(|| actor_error!(illegal_argument, "unable to resolve address: {}", address))?;
    if vm.kind(id)? != Some(Kind::Account) {
        return Err(actor_error!(illegal_argument, "worker actor type must be an account, t0{} is not", id));
    }
    let key = vm.load::<fil_actor_account_state::v19::State>(id)?.address;
    if key.protocol() != Protocol::BLS {
        return Err(actor_error!(illegal_argument, "worker account t0{} must have BLS pubkey, was {}", id, key));
    }
    Ok(id)
}

fn check_peer_info(policy: &Policy, peer_id: &[u8], multiaddrs: &[BytesDe]) -> ActorResult<()> {
    if peer_id.len() > policy.max_peer_id_length {
        return Err(actor_error!(
            illegal_argument,
            "peer ID size of {} exceeds maximum size of {}",
            peer_id.len(),
            policy.max_peer_id_length
        ));
    }
    let total: usize = multiaddrs.iter().map(|m| m.0.len()).sum();
    if multiaddrs.iter().any(|m| m.0.is_empty()) {
        return Err(actor_error!(illegal_argument, "invalid empty multiaddr"));
    }
    if total > policy.max_multiaddr_data {
        return Err(actor_error!(
            illegal_argument,
            "multiaddr size of {} exceeds maximum of {}",
            total,
            policy.max_multiaddr_data
        ));
    }
    Ok(())
}

fn info_of(vm: &Vm<'_>, st: &State) -> ActorResult<MinerInfo> {
    st.get_info(&vm.store).map_err(state_error("could not read miner info"))
}

/// Owner, worker and control addresses may run the miner.
fn only_controllers(call: &Call, info: &MinerInfo) -> ActorResult<()> {
    call.only(info.control_addresses.iter().chain([&info.worker, &info.owner]))
}

/// Entropy of most randomness: the miner's address in CBOR.
pub fn entropy(miner: ActorID) -> Vec<u8> {
    fvm_ipld_encoding::to_vec(&Address::new_id(miner)).unwrap_or_default()
}

fn fault_active(info: &MinerInfo, epoch: ChainEpoch) -> bool {
    epoch <= info.consensus_fault_elapsed
}

/// Pays all fee debt or refuses; gives what is to be burnt.
fn repay_debts(vm: &Vm<'_>, miner: ActorID, st: &mut State) -> ActorResult<TokenAmount> {
    let balance = vm.balance(miner)?;
    st.repay_debts(&balance).map_err(state_error("unlocked balance can not repay fee debt"))
}

fn check_balance(vm: &Vm<'_>, miner: ActorID) -> ActorResult<()> {
    let st: State = vm.load(miner)?;
    st.check_balance_invariants(&vm.balance(miner)?).map_err(|e| {
        ActorError::unchecked(state::ERR_BALANCE_INVARIANTS_BROKEN, format!("balance invariants broken: {e}"))
    })
}

/// A lifetime must be at least the minimum after `activation`, and end within what the proof type and the policy allow.
fn check_expiration(
    policy: &Policy,
    now: ChainEpoch,
    activation: ChainEpoch,
    expiration: ChainEpoch,
    proof: fvm_shared::sector::RegisteredSealProof,
) -> ActorResult<()> {
    let lifetime = expiration.saturating_sub(activation);
    if lifetime <= 0 {
        return Err(actor_error!(
            illegal_argument,
            "sector expiration {} must be after activation {}",
            expiration,
            activation
        ));
    }
    let invalid = |why: String| Err(actor_error!(illegal_argument, "invalid expiration {}, {}", expiration, why));
    let minimum = policy.min_sector_expiration;
    if lifetime < minimum {
        return invalid(format!(
            "total sector lifetime ({lifetime}) must exceed {minimum} after activation {activation}"
        ));
    }
    let furthest = policy.max_sector_expiration_extension;
    if expiration > now + furthest {
        return invalid(format!("cannot be more than {furthest} past current epoch {now}"));
    }
    match state::seal_proof_sector_maximum_lifetime(proof) {
        None => Err(actor_error!(illegal_argument, "unrecognized seal proof type {:?}", proof)),
        Some(longest) if lifetime > longest => {
            invalid(format!("total sector lifetime ({lifetime}) cannot exceed {longest} after activation {activation}"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::settings::DevnetSettings;
    use fvm_shared::sector::RegisteredSealProof;

    #[test]
    fn proving_period_starts_at_or_before_now_and_less_than_a_period_ago() {
        let policy = DevnetSettings::default().policy();
        let table =
            [(0, 0, 0), (59, 0, 0), (60, 0, 60), (60, 1, 1), (61, 1, 61), (62, 1, 61), (5, 10, -50), (10, 10, 10)];
        for (epoch, offset, want) in table {
            assert_eq!(proving_period_start(&policy, epoch, offset), want, "{epoch} {offset}");
        }
        for epoch in 0..200 {
            let offset = proving_period_offset(&policy, 1000, epoch);
            assert!((0..60).contains(&offset));
        }
    }

    #[test]
    fn expiration_is_checked_at_every_boundary() {
        let policy = DevnetSettings { min_sector_lifetime: 100, ..Default::default() }.policy();
        let furthest = policy.max_sector_expiration_extension;
        let seal = RegisteredSealProof::StackedDRG2KiBV1P1;
        let table = [
            (50, 49, false),
            (50, 50, false),
            (50, 51, false),
            (50, 149, false),
            (50, 150, true),
            (50, 151, true),
            (50, 10 + furthest, true),
            (50, 11 + furthest, false),
        ];
        for (activation, expiration, good) in table {
            let got = check_expiration(&policy, 10, activation, expiration, seal);
            assert_eq!(got.is_ok(), good, "{activation} {expiration} {got:?}");
        }
        let error = check_expiration(&policy, 10, 50, 149, seal).unwrap_err();
        assert!(error.msg().starts_with("invalid expiration"), "{error}");
        assert_eq!(error.exit_code().value(), 16);
    }

    #[test]
    fn peer_info_is_bounded() {
        let policy = DevnetSettings::default().policy();
        let peer = |n: usize| vec![1; n];
        for (n, good) in [(0, true), (127, true), (128, true), (129, false)] {
            assert_eq!(check_peer_info(&policy, &peer(n), &[]).is_ok(), good, "{n}");
        }
        for (n, good) in [(0, false), (1, true), (1024, true), (1025, false)] {
            assert_eq!(check_peer_info(&policy, &[], &[fvm_ipld_encoding::BytesDe(peer(n))]).is_ok(), good, "{n}");
        }
    }
}
