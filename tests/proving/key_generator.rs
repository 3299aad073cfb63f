//! Keys made here and by bellperson from the same toxic waste are the same bytes.

use bellpepper_core::{Circuit, ConstraintSystem, SynthesisError};
use bellperson::groth16::{Parameters, create_random_proof, generate_parameters, prepare_verifying_key, verify_proof};
use blstrs::{Bls12, Scalar};
use bulkhead::proofs::keys::{GenerateError, GeneratorPhase, ToxicWaste, write_parameters};
use ff::Field;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::io::Cursor;

/// x_0 = seed, x_{i+1} = x_i^2 + i x_i + 3; public: the last. Some variables appear in A only, some in B only.
#[derive(Clone)]
struct Chain {
    seed: Option<Scalar>,
    steps: usize,
    /// a variable that no constraint mentions
    loose: bool,
}

impl Chain {
    fn last(&self) -> Option<Scalar> {
        let mut x = self.seed?;
        for i in 0..self.steps {
            x = x * x + x * Scalar::from(i as u64) + Scalar::from(3u64);
        }
        Some(x)
    }
}

impl Circuit<Scalar> for Chain {
    fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let out = self.last();
        let mut value = self.seed;
        let mut x = cs.alloc(|| "seed", || value.ok_or(SynthesisError::AssignmentMissing))?;
        if self.loose {
            cs.alloc(|| "loose", || Ok(Scalar::ONE))?;
        }
        for i in 0..self.steps {
            let k = Scalar::from(i as u64);
            let next_value = value.map(|v| v * v + v * k + Scalar::from(3u64));
            let next = cs.alloc(|| "next", || next_value.ok_or(SynthesisError::AssignmentMissing))?;
            // x * (x + k) = next - 3
            cs.enforce(
                || "step",
                |lc| lc + x,
                |lc| lc + x + (k, CS::one()),
                |lc| lc + next - (Scalar::from(3u64), CS::one()),
            );
            x = next;
            value = next_value;
        }
        let public = cs.alloc_input(|| "out", || out.ok_or(SynthesisError::AssignmentMissing))?;
        cs.enforce(|| "public", |lc| lc + public, |lc| lc + CS::one(), |lc| lc + x);
        Ok(())
    }
}

fn chain(steps: usize) -> Chain {
    Chain { seed: None, steps, loose: false }
}

fn ours(circuit: Chain, toxic: &ToxicWaste) -> Result<Vec<u8>, GenerateError> {
    let mut out = Cursor::new(Vec::new());
    write_parameters(|| circuit.clone(), toxic, &mut out, &|_| {})?;
    Ok(out.into_inner())
}

fn theirs(circuit: Chain, t: &ToxicWaste) -> Result<Vec<u8>, SynthesisError> {
    let p = generate_parameters::<Bls12, _>(circuit, t.g1, t.g2, t.alpha, t.beta, t.gamma, t.delta, t.tau)?;
    let mut out = Vec::new();
    p.write(&mut out).unwrap();
    Ok(out)
}

#[test]
fn the_same_bytes_as_bellperson() {
    let toxic = ToxicWaste::random(StdRng::seed_from_u64(42));
    // constraints = steps + 3: domain sizes below, at and above a power of two
    for steps in [0, 5, 6, 1022] {
        assert!(ours(chain(steps), &toxic).unwrap() == theirs(chain(steps), &toxic).unwrap(), "{steps} steps");
    }
}

#[test]
fn the_same_random_draws_as_bellperson() {
    let mut out = Vec::new();
    bellperson::groth16::generate_random_parameters::<Bls12, _, _>(chain(5), &mut StdRng::seed_from_u64(9))
        .unwrap()
        .write(&mut out)
        .unwrap();
    assert!(ours(chain(5), &ToxicWaste::random(StdRng::seed_from_u64(9))).unwrap() == out);
}

#[test]
fn an_unconstrained_variable_is_refused_as_bellperson_does() {
    let toxic = ToxicWaste::random(StdRng::seed_from_u64(1));
    let loose = Chain { loose: true, ..chain(4) };
    assert!(matches!(theirs(loose.clone(), &toxic), Err(SynthesisError::UnconstrainedVariable)));
    assert!(matches!(ours(loose, &toxic), Err(GenerateError::Synthesis(SynthesisError::UnconstrainedVariable))));
}

#[test]
fn a_proof_made_with_it_verifies_and_a_wrong_one_does_not() {
    let toxic = ToxicWaste::random(StdRng::seed_from_u64(3));
    let params = Parameters::<Bls12>::read(&ours(chain(100), &toxic).unwrap()[..], true).unwrap();
    let circuit = Chain { seed: Some(Scalar::from(11u64)), ..chain(100) };
    let public = circuit.last().unwrap();
    let proof = create_random_proof(circuit, &params, &mut StdRng::seed_from_u64(4)).unwrap();
    let pvk = prepare_verifying_key(&params.vk);
    assert!(verify_proof(&pvk, &proof, &[public]).unwrap());
    assert!(!verify_proof(&pvk, &proof, &[public + Scalar::ONE]).unwrap());
}

#[test]
fn progress_ends_with_all_points_written() {
    let toxic = ToxicWaste::random(StdRng::seed_from_u64(3));
    let seen = std::sync::Mutex::new(Vec::new());
    write_parameters(|| chain(10), &toxic, &mut Cursor::new(Vec::new()), &|p| seen.lock().unwrap().push(p)).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen[0], GeneratorPhase::Counting);
    assert!(matches!(seen.last(), Some(GeneratorPhase::Points { done, total }) if done == total && *done > 0));
}
