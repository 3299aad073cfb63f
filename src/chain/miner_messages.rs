//! The messages that a provider sends: method numbers, and params in CBOR as the actors of network versions 22 to 29 read
//! them (the encodings did not change; `network_rules` says which methods a version has).
//!
//! The tuple types are the network's own; nothing here knows a network's policy.

use super::types::PoStProof;
use cid::Cid;
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::{BytesDe, RawBytes, to_vec};
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::randomness::Randomness;
use fvm_shared::sector::{PoStProof as FvmPoStProof, RegisteredPoStProof, RegisteredSealProof};

/// A method of an actor with its params.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinerCall {
    pub method: u64,
    pub params: Vec<u8>,
}

pub mod method {
    //! Method numbers (`builtin/methods`).
    pub const SEND: u64 = 0;
    /// Methods of the power actor.
    pub const CREATE_MINER: u64 = 2;
    pub const CHANGE_WORKER_ADDRESS: u64 = 3;
    pub const CHANGE_PEER_ID: u64 = 4;
    pub const SUBMIT_WINDOWED_POST: u64 = 5;
    pub const TERMINATE_SECTORS: u64 = 9;
    pub const DECLARE_FAULTS: u64 = 10;
    pub const DECLARE_FAULTS_RECOVERED: u64 = 11;
    pub const WITHDRAW_BALANCE: u64 = 16;
    pub const CHANGE_MULTIADDRS: u64 = 18;
    pub const CONFIRM_CHANGE_WORKER_ADDRESS: u64 = 21;
    pub const REPAY_DEBT: u64 = 22;
    pub const CHANGE_OWNER_ADDRESS: u64 = 23;
    pub const DISPUTE_WINDOWED_POST: u64 = 24;
    pub const PRE_COMMIT_SECTOR_BATCH2: u64 = 28;
    pub const EXTEND_SECTOR_EXPIRATION2: u64 = 32;
    pub const PROVE_COMMIT_SECTORS3: u64 = 34;

    /// The name of a miner actor's method, for people.
    pub fn name(method: u64) -> Option<&'static str> {
        Some(match method {
            SEND => "Send",
            CHANGE_WORKER_ADDRESS => "ChangeWorkerAddress",
            CHANGE_PEER_ID => "ChangePeerID",
            SUBMIT_WINDOWED_POST => "SubmitWindowedPoSt",
            TERMINATE_SECTORS => "TerminateSectors",
            DECLARE_FAULTS => "DeclareFaults",
            DECLARE_FAULTS_RECOVERED => "DeclareFaultsRecovered",
            WITHDRAW_BALANCE => "WithdrawBalance",
            CHANGE_MULTIADDRS => "ChangeMultiaddrs",
            CONFIRM_CHANGE_WORKER_ADDRESS => "ConfirmChangeWorkerAddress",
            REPAY_DEBT => "RepayDebt",
            CHANGE_OWNER_ADDRESS => "ChangeOwnerAddress",
            DISPUTE_WINDOWED_POST => "DisputeWindowedPoSt",
            PRE_COMMIT_SECTOR_BATCH2 => "PreCommitSectorBatch2",
            EXTEND_SECTOR_EXPIRATION2 => "ExtendSectorExpiration2",
            PROVE_COMMIT_SECTORS3 => "ProveCommitSectors3",
            _ => return None,
        })
    }
}

/// Whether a second message of the same content to the miner actor moves nothing: it is refused, or sets what is set already.
/// Whatever pays somebody, or is not known here, is not.
pub fn is_idempotent(method: u64) -> bool {
    matches!(
        method,
        method::CHANGE_PEER_ID
            | method::SUBMIT_WINDOWED_POST
            | method::TERMINATE_SECTORS
            | method::DECLARE_FAULTS
            | method::DECLARE_FAULTS_RECOVERED
            | method::CHANGE_MULTIADDRS
            | method::PRE_COMMIT_SECTOR_BATCH2
            | method::EXTEND_SECTOR_EXPIRATION2
            | method::PROVE_COMMIT_SECTORS3
    )
}

/// The power actor: [`method::CREATE_MINER`] goes to it.
pub const POWER_ACTOR: Address = Address::new_id(4);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("message: {0}")]
pub struct EncodeError(String);

type Result<T> = std::result::Result<T, EncodeError>;

fn call(method: u64, params: &impl serde::Serialize) -> Result<MinerCall> {
    Ok(MinerCall { method, params: to_vec(params).map_err(|e| EncodeError(e.to_string()))? })
}

/// The fields of a pre-commit of an empty (CC) sector.
#[derive(Clone, Debug, PartialEq)]
pub struct PreCommit {
    pub seal_proof: i64,
    pub number: u64,
    pub comm_r: [u8; 32],
    /// The epoch at which the ticket was drawn.
    pub ticket_epoch: ChainEpoch,
    pub expiration: ChainEpoch,
}

/// One declaration of [`declare_faults`], [`declare_faults_recovered`] or [`terminate_sectors`].
#[derive(Clone, Debug)]
pub struct InPartition {
    pub deadline: u64,
    pub partition: u64,
    pub sectors: BitField,
}

/// `peer` is the libp2p peer id's bytes, `multiaddrs` in binary.
pub fn create_miner(
    owner: Address,
    worker: Address,
    window_post_proof: i64,
    peer: Vec<u8>,
    multiaddrs: Vec<Vec<u8>>,
) -> Result<MinerCall> {
    let params = power::CreateMinerParams {
        owner,
        worker,
        window_post_proof_type: RegisteredPoStProof::from(window_post_proof),
        peer,
        multiaddrs: multiaddrs.into_iter().map(BytesDe).collect(),
    };
    call(method::CREATE_MINER, &params)
}

/// The return value of CreateMiner: (ID address, robust address).
pub fn created_miner(return_data: &[u8]) -> Result<(Address, Address)> {
    let r: power::CreateMinerReturn =
        fvm_ipld_encoding::from_slice(return_data).map_err(|e| EncodeError(format!("CreateMiner's return: {e}")))?;
    Ok((r.id_address, r.robust_address))
}

pub fn pre_commit_sector_batch2(sectors: &[PreCommit]) -> Result<MinerCall> {
    let sectors = sectors
        .iter()
        .map(|s| {
            Ok(miner::SectorPreCommitInfo {
                seal_proof: RegisteredSealProof::from(s.seal_proof),
                sector_number: s.number,
                sealed_cid: sealed_cid(&s.comm_r)?,
                seal_rand_epoch: s.ticket_epoch,
                deal_ids: Vec::new(),
                expiration: s.expiration,
                unsealed_cid: miner::CompactCommD::empty(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    call(method::PRE_COMMIT_SECTOR_BATCH2, &miner::PreCommitSectorBatchParams2 { sectors })
}

/// One proof a sector, no pieces (CC), all or nothing.
pub fn prove_commit_sectors3(sectors: &[(u64, Vec<u8>)]) -> Result<MinerCall> {
    let params = miner::ProveCommitSectors3Params {
        sector_activations: sectors
            .iter()
            .map(|(number, _)| miner::SectorActivationManifest { sector_number: *number, pieces: Vec::new() })
            .collect(),
        sector_proofs: sectors.iter().map(|(_, proof)| RawBytes::new(proof.clone())).collect(),
        aggregate_proof: RawBytes::default(),
        aggregate_proof_type: None,
        require_activation_success: true,
        require_notification_success: false,
    };
    call(method::PROVE_COMMIT_SECTORS3, &params)
}

/// `partitions`: (index, skipped sectors). `chain_commit_rand`: ticket randomness, tag PoStChainCommit, empty entropy.
pub fn submit_windowed_post(
    deadline: u64,
    partitions: Vec<(u64, BitField)>,
    proofs: &[PoStProof],
    chain_commit_epoch: ChainEpoch,
    chain_commit_rand: Vec<u8>,
) -> Result<MinerCall> {
    let params = miner::SubmitWindowedPoStParams {
        deadline,
        partitions: partitions.into_iter().map(|(index, skipped)| miner::PoStPartition { index, skipped }).collect(),
        proofs: proofs
            .iter()
            .map(|p| FvmPoStProof {
                post_proof: RegisteredPoStProof::from(p.post_proof),
                proof_bytes: p.proof_bytes.clone(),
            })
            .collect(),
        chain_commit_epoch,
        chain_commit_rand: Randomness(chain_commit_rand),
    };
    call(method::SUBMIT_WINDOWED_POST, &params)
}

pub fn declare_faults(faults: Vec<InPartition>) -> Result<MinerCall> {
    let faults = faults
        .into_iter()
        .map(|f| miner::FaultDeclaration { deadline: f.deadline, partition: f.partition, sectors: f.sectors })
        .collect();
    call(method::DECLARE_FAULTS, &miner::DeclareFaultsParams { faults })
}

pub fn declare_faults_recovered(recoveries: Vec<InPartition>) -> Result<MinerCall> {
    let recoveries = recoveries
        .into_iter()
        .map(|r| miner::RecoveryDeclaration { deadline: r.deadline, partition: r.partition, sectors: r.sectors })
        .collect();
    call(method::DECLARE_FAULTS_RECOVERED, &miner::DeclareFaultsRecoveredParams { recoveries })
}

pub fn terminate_sectors(terminations: Vec<InPartition>) -> Result<MinerCall> {
    let terminations = terminations
        .into_iter()
        .map(|t| miner::TerminationDeclaration { deadline: t.deadline, partition: t.partition, sectors: t.sectors })
        .collect();
    call(method::TERMINATE_SECTORS, &miner::TerminateSectorsParams { terminations })
}

pub fn extend_sector_expiration2(sectors: Vec<InPartition>, new_expiration: ChainEpoch) -> Result<MinerCall> {
    let extensions = sectors
        .into_iter()
        .map(|s| miner::ExpirationExtension2 {
            deadline: s.deadline,
            partition: s.partition,
            sectors: s.sectors,
            sectors_with_claims: Vec::new(),
            new_expiration,
        })
        .collect();
    call(method::EXTEND_SECTOR_EXPIRATION2, &miner::ExtendSectorExpiration2Params { extensions })
}

pub fn dispute_windowed_post(deadline: u64, post_index: u64) -> Result<MinerCall> {
    call(method::DISPUTE_WINDOWED_POST, &miner::DisputeWindowedPoStParams { deadline, post_index })
}

pub fn change_worker_address(new_worker: Address, new_control_addresses: Vec<Address>) -> Result<MinerCall> {
    let params = miner::ChangeWorkerAddressParams { new_worker, new_control_addresses };
    call(method::CHANGE_WORKER_ADDRESS, &params)
}

pub fn confirm_change_worker_address() -> MinerCall {
    MinerCall { method: method::CONFIRM_CHANGE_WORKER_ADDRESS, params: Vec::new() }
}

/// `new_id`: the peer id's bytes.
pub fn change_peer_id(new_id: Vec<u8>) -> Result<MinerCall> {
    call(method::CHANGE_PEER_ID, &miner::ChangePeerIDParams { new_id })
}

/// Binary multiaddrs.
pub fn change_multiaddrs(multiaddrs: Vec<Vec<u8>>) -> Result<MinerCall> {
    let new_multi_addrs = multiaddrs.into_iter().map(BytesDe).collect();
    call(method::CHANGE_MULTIADDRS, &miner::ChangeMultiaddrsParams { new_multi_addrs })
}

pub fn withdraw_balance(amount_requested: TokenAmount) -> Result<MinerCall> {
    call(method::WITHDRAW_BALANCE, &miner::WithdrawBalanceParams { amount_requested })
}

/// The amount that WithdrawBalance has moved, of its return value.
pub fn withdrawn(return_data: &[u8]) -> Result<TokenAmount> {
    let r: miner::WithdrawBalanceReturn = fvm_ipld_encoding::from_slice(return_data)
        .map_err(|e| EncodeError(format!("WithdrawBalance's return: {e}")))?;
    Ok(r.amount_withdrawn)
}

/// The message's value is repaid, and what the miner has itself.
pub fn repay_debt() -> MinerCall {
    MinerCall { method: method::REPAY_DEBT, params: Vec::new() }
}

/// `new_owner` is an ID address.
pub fn change_owner_address(new_owner: Address) -> Result<MinerCall> {
    call(method::CHANGE_OWNER_ADDRESS, &miner::ChangeOwnerAddressParams { new_owner })
}

/// CommR as the chain writes it.
pub fn sealed_cid(comm_r: &[u8; 32]) -> Result<Cid> {
    fvm_shared::commcid::replica_commitment_v1_to_cid(comm_r).map_err(|e| EncodeError(e.to_owned()))
}

/// CommR out of a sealed CID.
pub fn comm_r(sealed: &Cid) -> Result<[u8; 32]> {
    let digest = sealed.hash().digest();
    digest.try_into().map_err(|_| EncodeError(format!("sealed CID {sealed} holds no CommR of 32 bytes")))
}

/// Entropy of seal, WinningPoSt and WindowPoSt randomness: the miner's address in CBOR.
pub fn entropy(miner: &Address) -> Result<Vec<u8>> {
    to_vec(miner).map_err(|e| EncodeError(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex_of(call: Result<MinerCall>) -> (u64, String) {
        let call = call.unwrap();
        (call.method, hex::encode(call.params))
    }

    /// Written down by hand from the actors' tuple definitions and RFC 8949, so that a wrong type cannot agree with itself.
    #[test]
    fn params_are_the_bytes_that_the_actors_read() {
        let sectors = |bits: &[u64]| BitField::try_from_bits(bits.iter().copied()).unwrap();
        let at = |bits: &[u64]| vec![InPartition { deadline: 3, partition: 0, sectors: sectors(bits) }];
        let (method, params) = hex_of(pre_commit_sector_batch2(&[PreCommit {
            seal_proof: 5,
            number: 7,
            comm_r: [0xab; 32],
            ticket_epoch: 10,
            expiration: 1000,
        }]));
        // [[[5, 7, 42(h'00 01 f102 b401 20 <commR>'), 10, [], 1000, null]]]
        let sealed = "d82a5829 00 01 82e203 81e802 20".replace(' ', "") + &"ab".repeat(32);
        assert_eq!((method, params), (28, format!("8181870507{sealed}0a801903e8f6")));

        // [[[7, []]], [h'0102'], h'', null, true, false]
        assert_eq!(
            hex_of(prove_commit_sectors3(&[(7, vec![1, 2])])),
            (34, "868182078081420102 40f6f5f4".replace(' ', ""))
        );

        let proof = PoStProof { post_proof: 10, proof_bytes: vec![9] };
        // [3, [[0, h'']], [[10, h'09']], 55, h'0707']
        assert_eq!(
            hex_of(submit_windowed_post(3, vec![(0, BitField::new())], &[proof], 55, vec![7, 7])),
            (5, "85038182004081820a41091837420707".to_owned())
        );
        // RLE+ of {0}: version 00, first bit 1, one run of length 1 -> bits 00 1 1 -> 0x0c
        assert_eq!(hex_of(declare_faults_recovered(at(&[0]))), (11, "81818303 00410c".replace(' ', "")));
        assert_eq!(hex_of(declare_faults(at(&[0]))), (10, "8181830300410c".to_owned()));
        assert_eq!(hex_of(terminate_sectors(at(&[0]))), (9, "8181830300410c".to_owned()));
        assert_eq!(hex_of(extend_sector_expiration2(at(&[0]), 9)), (32, "8181850300410c8009".to_owned()));
        assert_eq!(hex_of(dispute_windowed_post(3, 1)), (24, "820301".to_owned()));
        assert_eq!(hex_of(change_worker_address(Address::new_id(100), vec![])), (3, "8242006480".to_owned()));
        assert_eq!(hex_of(change_peer_id(vec![1, 2])), (4, "81420102".to_owned()));
        assert_eq!(hex_of(change_multiaddrs(vec![vec![4]])), (18, "81814104".to_owned()));
        assert_eq!(hex_of(withdraw_balance(TokenAmount::from_atto(256))), (16, "8143000100".to_owned()));
        let id = Address::new_id(100);
        assert_eq!(hex_of(change_owner_address(id)), (23, "420064".to_owned()));
        assert_eq!(hex_of(Ok(repay_debt())), (22, String::new()));
        assert_eq!(withdrawn(&[0x43, 0, 1, 0]).unwrap(), TokenAmount::from_atto(256));
        assert!(withdrawn(&[]).is_err());
        assert_eq!(hex_of(create_miner(id, id, 10, vec![1], vec![])), (2, "85420064420064 0a410180".replace(' ', "")));
    }

    /// A message that is signed before an upgrade may be executed after it: the actors of v19 read the same bytes.
    #[test]
    fn params_are_those_of_the_next_actors_too() {
        use fil_actor_miner_state::v19;
        fn same<T: serde::Serialize + serde::de::DeserializeOwned>(call: Result<MinerCall>) {
            let MinerCall { method, params } = call.unwrap();
            let read: T = fvm_ipld_encoding::from_slice(&params).unwrap();
            assert_eq!(to_vec(&read).unwrap(), params, "method {method}");
        }
        let at = || {
            let sectors = BitField::try_from_bits([0, 5]).unwrap();
            vec![InPartition { deadline: 3, partition: 1, sectors }]
        };
        let sector = PreCommit { seal_proof: 8, number: 7, comm_r: [0xab; 32], ticket_epoch: 10, expiration: 1000 };
        same::<v19::PreCommitSectorBatchParams2>(pre_commit_sector_batch2(&[sector]));
        same::<v19::ProveCommitSectors3Params>(prove_commit_sectors3(&[(7, vec![1; 1920])]));
        let proof = PoStProof { post_proof: 13, proof_bytes: vec![9; 192] };
        let partitions = vec![(0, BitField::new())];
        same::<v19::SubmitWindowedPoStParams>(submit_windowed_post(3, partitions, &[proof], 55, vec![7; 32]));
        same::<v19::DeclareFaultsParams>(declare_faults(at()));
        same::<v19::DeclareFaultsRecoveredParams>(declare_faults_recovered(at()));
        same::<v19::TerminateSectorsParams>(terminate_sectors(at()));
        same::<v19::ExtendSectorExpiration2Params>(extend_sector_expiration2(at(), 9));
        same::<v19::WithdrawBalanceParams>(withdraw_balance(TokenAmount::from_atto(5)));
    }

    #[test]
    fn create_miner_returns_both_addresses_and_junk_is_an_error() {
        let robust = Address::new_actor(b"x");
        let bytes = to_vec(&(Address::new_id(1000), robust)).unwrap();
        assert_eq!(created_miner(&bytes).unwrap(), (Address::new_id(1000), robust));
        for cut in 0..bytes.len() {
            assert!(created_miner(&bytes[..cut]).is_err());
        }
    }
}
