//! The blank circuits of the 2 KiB proofs and the file names under which filecoin-proofs looks for their keys.

use crate::generator::{GenerateError, GeneratorPhase, ToxicWaste, write_parameters};
use bellperson::groth16::VerifyingKey;
use blstrs::Bls12;
use filecoin_proofs::constants::{DefaultPieceHasher, SectorShape2KiB};
use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof};
use std::io::{Seek, Write};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::parameter_cache::{metadata_id, parameter_id, verifying_key_id};
use storage_proofs_porep::stacked::{StackedCircuit, StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCircuit, FallbackPoStCompound};

type Tree = SectorShape2KiB;

/// One of the three keys that a 2 KiB sector needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    WindowPost,
    WinningPost,
    /// Seal proof type 5 (StackedDrg, V1_1). The synthetic variant shares it.
    Seal,
}

/// Small keys first: what can be had soon is there soon.
pub const KEYS_2KIB: [Key; 3] = [Key::WindowPost, Key::WinningPost, Key::Seal];

const SEAL: RegisteredSealProof = RegisteredSealProof::StackedDrg2KiBV1_1;
const WINNING: RegisteredPoStProof = RegisteredPoStProof::StackedDrgWinning2KiBV1;
const WINDOW: RegisteredPoStProof = RegisteredPoStProof::StackedDrgWindow2KiBV1_2;

impl Key {
    pub fn name(self) -> &'static str {
        match self {
            Key::WindowPost => "WindowPoSt 2KiB",
            Key::WinningPost => "WinningPoSt 2KiB",
            Key::Seal => "StackedDrg 2KiB",
        }
    }

    /// The cache identifier as the proofs library computes it.
    pub fn identifier(self) -> Result<String, String> {
        let id = match self {
            Key::WindowPost => WINDOW.circuit_identifier(),
            Key::WinningPost => WINNING.circuit_identifier(),
            Key::Seal => SEAL.circuit_identifier(),
        };
        id.map_err(|e| format!("{e:#}"))
    }

    /// File names of parameters, verifying key, metadata.
    pub fn file_names(self) -> Result<[String; 3], String> {
        let id = self.identifier()?;
        Ok([parameter_id(&id), verifying_key_id(&id), metadata_id(&id)])
    }

    /// Generates the parameters into `out`.
    pub fn generate<W: Write + Seek + Send>(
        self,
        toxic: &ToxicWaste,
        out: &mut W,
        progress: &(dyn Fn(GeneratorPhase) + Sync),
    ) -> Result<VerifyingKey<Bls12>, GenerateError> {
        let bad = |e: anyhow::Error| GenerateError::Io(std::io::Error::other(format!("{e:#}")));
        match self {
            Key::WindowPost | Key::WinningPost => {
                let params = match self {
                    Key::WindowPost => window_post_public_params::<Tree>(&WINDOW.as_v1_config()),
                    _ => winning_post_public_params::<Tree>(&WINNING.as_v1_config()),
                }
                .map_err(bad)?;
                let blank = || -> FallbackPoStCircuit<Tree> {
                    <FallbackPoStCompound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::blank_circuit(&params)
                };
                write_parameters(blank, toxic, out, progress)
            }
            Key::Seal => {
                let params = public_params::<Tree>(&SEAL.as_v1_config()).map_err(bad)?;
                let blank = || -> StackedCircuit<Tree, DefaultPieceHasher> {
                    <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
                        StackedDrg<'_, Tree, DefaultPieceHasher>,
                        _,
                    >>::blank_circuit(&params)
                };
                write_parameters(blank, toxic, out, progress)
            }
        }
    }
}
