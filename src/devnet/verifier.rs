//! The proofs behind messages and blocks, checked by the network's own verifier.

use crate::chain::randomness::fr32_safe;
use cid::Cid;
use filecoin_proofs_api as api;
use fvm_shared::sector::{RegisteredPoStProof, RegisteredSealProof};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The verifier itself could not work; no verdict was given.
#[derive(Debug, thiserror::Error, Clone)]
pub enum VerifierError {
    #[error(
        "cannot verify {what} proofs: {path} is missing; run `bulkhead keys generate`, or point FIL_PROOFS_PARAMETER_CACHE to the keys"
    )]
    NoKey { what: &'static str, path: PathBuf },
    #[error("cannot verify {what} proofs: {why}")]
    Broken { what: &'static str, why: String },
}

/// A PoRep and what it is about.
pub struct SealCheck<'a> {
    pub proof_type: RegisteredSealProof,
    pub miner: u64,
    pub sector: u64,
    pub ticket: [u8; 32],
    pub seed: [u8; 32],
    pub sealed: Cid,
    pub unsealed: Cid,
    pub proof: &'a [u8],
}

/// A WindowPoSt or WinningPoSt and the sectors that it is about.
pub struct PoStCheck<'a> {
    pub proof_type: RegisteredPoStProof,
    pub miner: u64,
    pub randomness: [u8; 32],
    /// Number and sealed CID.
    pub sectors: Vec<(u64, Cid)>,
    pub proof: &'a [u8],
}

/// `Ok(false)` is a bad proof.
pub trait Verifier: Send + Sync + 'static {
    /// Whether all keys are there.
    fn ready(&self) -> Result<(), VerifierError>;
    fn seal(&self, check: &SealCheck<'_>) -> Result<bool, VerifierError>;
    fn window_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError>;
    fn winning_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError>;
    /// CommD of a sector with these pieces (padded size, piece CID); zeros fill the rest.
    fn unsealed_cid(
        &self,
        proof_type: RegisteredSealProof,
        pieces: &[(u64, Cid)],
    ) -> Result<Option<Cid>, VerifierError> {
        real_unsealed_cid(proof_type, pieces)
    }
}

/// Which of `count` sectors a WinningPoSt challenges.
pub fn winning_challenge(miner: u64, randomness: [u8; 32], count: u64) -> Result<Vec<u64>, VerifierError> {
    api::post::generate_winning_post_sector_challenge(
        api::RegisteredPoStProof::StackedDrgWinning2KiBV1,
        &fr32_safe(randomness),
        count,
        prover_id(miner),
    )
    .map_err(|e| VerifierError::Broken { what: "WinningPoSt", why: format!("{e:#}") })
}

/// filecoin-proofs with the keys in `FIL_PROOFS_PARAMETER_CACHE`.
pub struct ProofsVerifier;

const SEAL: &str = "PoRep";
const WINDOW: &str = "WindowPoSt";
const WINNING: &str = "WinningPoSt";

impl Verifier for ProofsVerifier {
    fn ready(&self) -> Result<(), VerifierError> {
        let seal = api::RegisteredSealProof::StackedDrg2KiBV1_1.cache_verifying_key_path();
        let window = api::RegisteredPoStProof::StackedDrgWindow2KiBV1_2.cache_verifying_key_path();
        let winning = api::RegisteredPoStProof::StackedDrgWinning2KiBV1.cache_verifying_key_path();
        for (what, path) in [(SEAL, seal), (WINDOW, window), (WINNING, winning)] {
            let path = path.map_err(|e| VerifierError::Broken { what, why: format!("{e:#}") })?;
            if !path.is_file() {
                return Err(VerifierError::NoKey { what, path });
            }
        }
        Ok(())
    }

    fn seal(&self, check: &SealCheck<'_>) -> Result<bool, VerifierError> {
        let RegisteredSealProof::StackedDRG2KiBV1P1 = check.proof_type else { return Ok(false) };
        let (Some(comm_r), Some(comm_d)) = (commitment(&check.sealed), commitment(&check.unsealed)) else {
            return Ok(false);
        };
        self.ready()?;
        Ok(verdict(
            SEAL,
            api::seal::verify_seal(
                api::RegisteredSealProof::StackedDrg2KiBV1_1,
                comm_r,
                comm_d,
                prover_id(check.miner),
                check.sector.into(),
                check.ticket,
                check.seed,
                check.proof,
            ),
        ))
    }

    fn window_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError> {
        let RegisteredPoStProof::StackedDRGWindow2KiBV1P1 = check.proof_type else { return Ok(false) };
        let kind = api::RegisteredPoStProof::StackedDrgWindow2KiBV1_2;
        let Some(replicas) = replicas(kind, &check.sectors) else { return Ok(false) };
        self.ready()?;
        let randomness = fr32_safe(check.randomness);
        let proofs = [(kind, check.proof)];
        Ok(verdict(WINDOW, api::post::verify_window_post(&randomness, &proofs, &replicas, prover_id(check.miner))))
    }

    fn winning_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError> {
        let RegisteredPoStProof::StackedDRGWinning2KiBV1 = check.proof_type else { return Ok(false) };
        let kind = api::RegisteredPoStProof::StackedDrgWinning2KiBV1;
        let Some(replicas) = replicas(kind, &check.sectors) else { return Ok(false) };
        self.ready()?;
        let randomness = fr32_safe(check.randomness);
        Ok(verdict(
            WINNING,
            api::post::verify_winning_post(&randomness, check.proof, &replicas, prover_id(check.miner)),
        ))
    }
}

/// A malformed proof is an error of the library: as little a proof as a wrong one.
fn verdict(what: &str, checked: Result<bool, impl std::fmt::Display>) -> bool {
    checked.unwrap_or_else(|e| {
        tracing::warn!(what, error = %e, "proof refused");
        false
    })
}

/// The miner's id as an unsigned varint in 32 bytes.
fn prover_id(mut miner: u64) -> [u8; 32] {
    let mut id = [0; 32];
    for byte in &mut id {
        *byte = (miner & 0x7f) as u8;
        miner >>= 7;
        if miner == 0 {
            break;
        }
        *byte |= 0x80;
    }
    id
}

fn commitment(cid: &Cid) -> Option<[u8; 32]> {
    cid.hash().digest().try_into().ok()
}

fn replicas(
    kind: api::RegisteredPoStProof,
    sectors: &[(u64, Cid)],
) -> Option<BTreeMap<api::SectorId, api::PublicReplicaInfo>> {
    let replica = |(number, sealed): &(u64, Cid)| {
        commitment(sealed).map(|comm_r| (api::SectorId::from(*number), api::PublicReplicaInfo::new(kind, comm_r)))
    };
    sectors.iter().map(replica).collect()
}

fn real_unsealed_cid(proof_type: RegisteredSealProof, pieces: &[(u64, Cid)]) -> Result<Option<Cid>, VerifierError> {
    let RegisteredSealProof::StackedDRG2KiBV1P1 = proof_type else { return Ok(None) };
    let mut infos = Vec::new();
    for (padded, cid) in pieces {
        let Some(commitment) = commitment(cid) else { return Ok(None) };
        let size = api::UnpaddedBytesAmount(padded - padded / 128);
        infos.push(api::PieceInfo { commitment, size });
    }
    let Ok(comm_d) = api::seal::compute_comm_d(api::RegisteredSealProof::StackedDrg2KiBV1_1, &infos) else {
        return Ok(None);
    };
    let hash = cid::multihash::Multihash::wrap(fvm_shared::commcid::SHA2_256_TRUNC254_PADDED, &comm_d);
    let hash = hash.map_err(|e| VerifierError::Broken { what: SEAL, why: e.to_string() })?;
    Ok(Some(Cid::new_v1(fvm_shared::commcid::FIL_COMMITMENT_UNSEALED, hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prover_id_is_the_address_payload() {
        for id in [0, 1, 127, 128, 1000, u64::MAX] {
            let payload = fvm_shared::address::Address::new_id(id).payload_bytes();
            assert_eq!(prover_id(id)[..payload.len()], payload[..]);
            assert!(prover_id(id)[payload.len()..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        match ProofsVerifier.ready() {
            Ok(()) => {}
            Err(VerifierError::NoKey { path, .. }) => {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(name.starts_with("v28-") && name.ends_with(".vk"), "{name}");
            }
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn garbage_is_a_bad_proof_and_not_an_error() {
        let sealed = Cid::default();
        let check = PoStCheck {
            proof_type: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            miner: 1000,
            randomness: [0xff; 32],
            sectors: vec![(1, sealed)],
            proof: &[],
        };
        assert!(!ProofsVerifier.window_post(&check).unwrap());
        assert!(!ProofsVerifier.winning_post(&check).unwrap());
    }
}
