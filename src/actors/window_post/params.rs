//! The CBOR parameters of the messages that WindowPoSt sends (`builtin-actors/miner`).

use crate::chain::ChainEpoch;
use crate::chain::types::PoStProof;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::strict_bytes;
use fvm_ipld_encoding::tuple::*;

pub const SUBMIT_WINDOWED_POST: u64 = 5;
pub const DECLARE_FAULTS_RECOVERED: u64 = 11;

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug)]
pub struct PartitionPost {
    pub index: u64,
    /// Sectors of the partition that the proof leaves out: they become faulty.
    pub skipped: BitField,
}

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug)]
pub struct Proof {
    pub post_proof: i64,
    #[serde(with = "strict_bytes")]
    pub proof_bytes: Vec<u8>,
}

impl From<PoStProof> for Proof {
    fn from(proof: PoStProof) -> Proof {
        Proof { post_proof: proof.post_proof, proof_bytes: proof.proof_bytes }
    }
}

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug)]
pub struct SubmitWindowedPoSt {
    pub deadline: u64,
    pub partitions: Vec<PartitionPost>,
    pub proofs: Vec<Proof>,
    pub chain_commit_epoch: ChainEpoch,
    #[serde(with = "strict_bytes")]
    pub chain_commit_rand: Vec<u8>,
}

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug)]
pub struct RecoveryDeclaration {
    pub deadline: u64,
    pub partition: u64,
    pub sectors: BitField,
}

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug)]
pub struct DeclareFaultsRecovered {
    pub recoveries: Vec<RecoveryDeclaration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use fil_actor_miner_state::v18 as network;
    use fvm_ipld_encoding::{from_slice, to_vec};

    #[test]
    fn the_networks_own_types_read_what_we_write() {
        let ours = SubmitWindowedPoSt {
            deadline: 3,
            partitions: vec![PartitionPost { index: 7, skipped: BitField::try_from_bits([1, 2, 9]).unwrap() }],
            proofs: vec![Proof { post_proof: 10, proof_bytes: vec![5; 192] }],
            chain_commit_epoch: 77,
            chain_commit_rand: vec![9; 32],
        };
        let bytes = to_vec(&ours).unwrap();
        let theirs: network::SubmitWindowedPoStParams = from_slice(&bytes).unwrap();
        assert_eq!(theirs.deadline, 3);
        assert_eq!(theirs.partitions[0].index, 7);
        assert_eq!(theirs.proofs[0].proof_bytes, vec![5; 192]);
        assert_eq!(i64::from(theirs.proofs[0].post_proof), 10);
        assert_eq!((theirs.chain_commit_epoch, theirs.chain_commit_rand.0.clone()), (77, vec![9; 32]));
        assert_eq!(to_vec(&theirs).unwrap(), bytes);

        let ours = DeclareFaultsRecovered {
            recoveries: vec![RecoveryDeclaration {
                deadline: 1,
                partition: 2,
                sectors: BitField::try_from_bits([4]).unwrap(),
            }],
        };
        let bytes = to_vec(&ours).unwrap();
        let theirs: network::DeclareFaultsRecoveredParams = from_slice(&bytes).unwrap();
        assert_eq!((theirs.recoveries[0].deadline, theirs.recoveries[0].partition), (1, 2));
        assert_eq!(to_vec(&theirs).unwrap(), bytes);
    }
}
