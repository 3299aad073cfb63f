//! Groth16 parameters of a circuit, streamed in bellperson's file format.
//!
//! The same key as `bellperson::groth16::generate_parameters` makes from the same toxic waste, byte for byte, in a
//! fraction of the time and memory: the circuit is synthesised twice (once to count, once to evaluate each variable's
//! polynomials at tau on the fly, so that the constraint matrices are never stored), points come from
//! [`Table`] and are written in segments.

use crate::fixed_base::{FixedBaseGroup, Table};
use bellpepper_core::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use bellperson::groth16::VerifyingKey;
use blstrs::{Bls12, G1Projective, G2Projective, Scalar};
use ff::{Field, PrimeField};
use group::{Curve, Group};
use rand::RngCore;
use rayon::prelude::*;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Points per write; bounds the memory that a segment takes.
const SEGMENT: usize = 1 << 15;
/// Points (or field elements) per rayon job.
const JOB: usize = 1 << 12;

#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("the circuit cannot be synthesised: {0}")]
    Synthesis(#[from] SynthesisError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The secrets behind a key: who knows them can forge proofs. They are drawn, used and forgotten in one process, which is
/// why keys made here are for test sectors only.
pub struct ToxicWaste {
    pub g1: G1Projective,
    pub g2: G2Projective,
    pub alpha: Scalar,
    pub beta: Scalar,
    pub gamma: Scalar,
    pub delta: Scalar,
    pub tau: Scalar,
}

impl ToxicWaste {
    /// Draws in the order of bellperson's `generate_random_parameters`.
    pub fn random<R: RngCore>(mut rng: R) -> Self {
        ToxicWaste {
            g1: G1Projective::random(&mut rng),
            g2: G2Projective::random(&mut rng),
            alpha: Scalar::random(&mut rng),
            beta: Scalar::random(&mut rng),
            gamma: Scalar::random(&mut rng),
            delta: Scalar::random(&mut rng),
            tau: Scalar::random(&mut rng),
        }
    }
}

/// A generator's stage; `done` of `total` curve points are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorPhase {
    /// Synthesising the circuit to learn its size.
    Counting,
    Points {
        done: u64,
        total: u64,
    },
}

/// Writes the parameters of `circuit` (called twice, must be the same circuit each time) at the writer's start.
pub fn write_parameters<C, W>(
    circuit: impl Fn() -> C + Sync,
    toxic: &ToxicWaste,
    out: &mut W,
    progress: &(dyn Fn(GeneratorPhase) + Sync),
) -> Result<VerifyingKey<Bls12>, GenerateError>
where
    C: Circuit<Scalar>,
    W: Write + Seek + Send,
{
    progress(GeneratorPhase::Counting);
    let inverse = |s: &Scalar| Option::<Scalar>::from(s.invert()).ok_or(SynthesisError::UnexpectedIdentity);
    let gamma_inverse = inverse(&toxic.gamma)?;
    let delta_inverse = inverse(&toxic.delta)?;

    let (size, (t1, t2)) = rayon::join(
        || Size::of(circuit()),
        || rayon::join(|| Table::<G1Projective>::new(toxic.g1), || Table::<G2Projective>::new(toxic.g2)),
    );
    let size = size?;
    let basis = Lagrange::at(&toxic.tau, size.constraints)?;
    let variables = size.inputs + size.aux;
    let points = Counter {
        done: AtomicU64::new(0),
        // until the densities of a, b are known: everything dense
        total: AtomicU64::new((basis.values.len() - 1 + size.aux + 3 * variables) as u64),
        progress,
    };

    // h needs only tau, so its points are made while one thread evaluates the circuit.
    let h_len = basis.values.len() - 1;
    let vk_len = vk_bytes(size.inputs);
    out.seek(SeekFrom::Start(vk_len))?;
    let (polynomials, written) = rayon::join(
        || Evaluation::of(circuit(), &basis.values, &size),
        || -> io::Result<()> {
            let start = basis.vanishing * delta_inverse;
            write_h(&t1, &toxic.tau, start, h_len, out, &points)
        },
    );
    written?;
    let Evaluation { mut a, mut b, c, .. } = polynomials?;
    drop(basis);

    let mut ext = c;
    ext.par_iter_mut().zip(&a).zip(&b).enumerate().for_each(|(i, ((e, a), b))| {
        *e += toxic.beta * a + toxic.alpha * b;
        *e *= if i < size.inputs { gamma_inverse } else { delta_inverse };
    });
    if ext[size.inputs..].iter().any(|e| bool::from(e.is_zero())) {
        return Err(SynthesisError::UnconstrainedVariable.into());
    }
    let ic: Vec<Scalar> = ext[..size.inputs].to_vec();
    // Polynomials that vanish at tau are left out of a and b; the prover skips them in the same way.
    a.retain(|s| !bool::from(s.is_zero()));
    b.retain(|s| !bool::from(s.is_zero()));
    points.total.store((h_len + size.aux + a.len() + 2 * b.len()) as u64, Ordering::Relaxed);

    write_section(&t1, &ext[size.inputs..], out, &points)?;
    drop(ext);
    write_section(&t1, &a, out, &points)?;
    drop(a);
    write_section(&t1, &b, out, &points)?;
    write_section(&t2, &b, out, &points)?;

    // The verifying key opens the file and is written last: until then the file is no key.
    let (g1, g2) = (toxic.g1.to_affine(), toxic.g2.to_affine());
    let vk = VerifyingKey::<Bls12> {
        alpha_g1: (g1 * toxic.alpha).to_affine(),
        beta_g1: (g1 * toxic.beta).to_affine(),
        beta_g2: (g2 * toxic.beta).to_affine(),
        gamma_g2: (g2 * toxic.gamma).to_affine(),
        delta_g1: (g1 * toxic.delta).to_affine(),
        delta_g2: (g2 * toxic.delta).to_affine(),
        ic: ic.iter().map(|s| (g1 * s).to_affine()).collect(),
    };
    out.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(vk_len as usize);
    vk.write(&mut head)?;
    debug_assert_eq!(head.len() as u64, vk_len);
    out.write_all(&head)?;
    out.flush()?;
    Ok(vk)
}

/// Bytes of a verifying key with `inputs` public inputs: 3 G1, 3 G2, a length, the inputs' points.
pub fn vk_bytes(inputs: usize) -> u64 {
    (3 * G1Projective::SIZE + 3 * G2Projective::SIZE + 4 + inputs * G1Projective::SIZE) as u64
}

struct Counter<'a> {
    done: AtomicU64,
    total: AtomicU64,
    progress: &'a (dyn Fn(GeneratorPhase) + Sync),
}

impl Counter<'_> {
    fn add(&self, points: usize) {
        let done = self.done.fetch_add(points as u64, Ordering::Relaxed) + points as u64;
        (self.progress)(GeneratorPhase::Points { done, total: self.total.load(Ordering::Relaxed).max(done) });
    }
}

fn write_length<W: Write>(out: &mut W, len: usize) -> io::Result<()> {
    let len = u32::try_from(len).map_err(|_| io::Error::other("more points than the key format can count"))?;
    out.write_all(&len.to_be_bytes())
}

fn write_section<G: FixedBaseGroup, W: Write>(
    table: &Table<G>,
    scalars: &[Scalar],
    out: &mut W,
    points: &Counter,
) -> io::Result<()> {
    write_length(out, scalars.len())?;
    for segment in scalars.chunks(SEGMENT) {
        write_segment(table, segment, out)?;
        points.add(segment.len());
    }
    Ok(())
}

fn write_segment<G: FixedBaseGroup, W: Write>(table: &Table<G>, scalars: &[Scalar], out: &mut W) -> io::Result<()> {
    let encoded: Vec<Vec<u8>> = scalars
        .par_chunks(JOB)
        .map(|job| {
            let mut bytes = Vec::with_capacity(job.len() * G::SIZE);
            for p in table.multiply(job) {
                G::encode(&p, &mut bytes);
            }
            bytes
        })
        .collect();
    encoded.iter().try_for_each(|bytes| out.write_all(bytes))
}

/// h_i = tau^i t(tau) / delta.
fn write_h<W: Write>(
    table: &Table<G1Projective>,
    tau: &Scalar,
    start: Scalar,
    len: usize,
    out: &mut W,
    points: &Counter,
) -> io::Result<()> {
    write_length(out, len)?;
    let mut current = start;
    let mut left = len;
    while left > 0 {
        let n = left.min(SEGMENT);
        let segment: Vec<Scalar> = (0..n)
            .map(|_| {
                let s = current;
                current *= tau;
                s
            })
            .collect();
        write_segment(table, &segment, out)?;
        points.add(n);
        left -= n;
    }
    Ok(())
}

/// The Lagrange basis of the evaluation domain, at tau.
struct Lagrange {
    values: Vec<Scalar>,
    /// t(tau) = tau^m - 1.
    vanishing: Scalar,
}

impl Lagrange {
    /// L_i(tau) = (tau^m - 1) / m * w^i / (tau - w^i): what an inverse FFT of the powers of tau gives, without the FFT.
    fn at(tau: &Scalar, constraints: usize) -> Result<Self, SynthesisError> {
        let m = constraints.next_power_of_two();
        let exp = m.trailing_zeros();
        if exp >= Scalar::S {
            return Err(SynthesisError::PolynomialDegreeTooLarge);
        }
        let mut omega = Scalar::ROOT_OF_UNITY;
        for _ in exp..Scalar::S {
            omega = omega.square();
        }
        let vanishing = tau.pow_vartime([m as u64]) - Scalar::ONE;
        // tau in the domain: a one in 2^230 chance, and a key without secrets
        let m_inverse = Option::<Scalar>::from(Scalar::from(m as u64).invert());
        let factor = vanishing * m_inverse.ok_or(SynthesisError::UnexpectedIdentity)?;
        if bool::from(vanishing.is_zero()) {
            return Err(SynthesisError::UnexpectedIdentity);
        }
        let mut values = vec![Scalar::ZERO; m];
        values.par_chunks_mut(JOB).enumerate().for_each(|(k, chunk)| {
            let first = omega.pow_vartime([(k * JOB) as u64]);
            // prefix products of (tau - w^i), one inversion for the chunk, then backwards
            let mut root = first;
            let mut product = Scalar::ONE;
            let mut steps = Vec::with_capacity(chunk.len());
            for v in chunk.iter_mut() {
                *v = product;
                let diff = *tau - root;
                steps.push((root, diff));
                product *= diff;
                root *= omega;
            }
            let mut inverse = product.invert().unwrap_or(Scalar::ZERO);
            for (v, (root, diff)) in chunk.iter_mut().zip(&steps).rev() {
                *v *= inverse * factor * root;
                inverse *= diff;
            }
        });
        Ok(Lagrange { values, vanishing })
    }
}

/// How many of each a circuit has, bellperson's dummy constraint for each input included.
struct Size {
    inputs: usize,
    aux: usize,
    constraints: usize,
}

impl Size {
    fn of<C: Circuit<Scalar>>(circuit: C) -> Result<Self, SynthesisError> {
        let mut cs = Size { inputs: 1, aux: 0, constraints: 0 };
        circuit.synthesize(&mut cs)?;
        cs.constraints += cs.inputs;
        Ok(cs)
    }
}

impl ConstraintSystem<Scalar> for Size {
    type Root = Self;
    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux += 1;
        Ok(Variable(Index::Aux(self.aux - 1)))
    }
    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs += 1;
        Ok(Variable(Index::Input(self.inputs - 1)))
    }
    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, _: LA, _: LB, _: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        self.constraints += 1;
    }
    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }
    fn pop_namespace(&mut self) {}
    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}

/// Evaluates every variable's A, B and C polynomial at tau while the circuit is synthesised. Inputs first, then aux.
struct Evaluation<'a> {
    basis: &'a [Scalar],
    inputs_total: usize,
    a: Vec<Scalar>,
    b: Vec<Scalar>,
    c: Vec<Scalar>,
    inputs: usize,
    aux: usize,
    constraints: usize,
}

impl<'a> Evaluation<'a> {
    fn of<C: Circuit<Scalar>>(circuit: C, basis: &'a [Scalar], size: &Size) -> Result<Self, SynthesisError> {
        let n = size.inputs + size.aux;
        let zeros = || vec![Scalar::ZERO; n];
        let mut cs = Evaluation {
            basis,
            inputs_total: size.inputs,
            a: zeros(),
            b: zeros(),
            c: zeros(),
            inputs: 1,
            aux: 0,
            constraints: 0,
        };
        circuit.synthesize(&mut cs)?;
        // x * 0 = 0 for each input, so that no two of them can be swapped
        for i in 0..cs.inputs {
            cs.a[i] += basis[cs.constraints];
            cs.constraints += 1;
        }
        if (cs.inputs, cs.aux, cs.constraints) != (size.inputs, size.aux, size.constraints) {
            // the closure gave two different circuits: a key of neither would be worthless
            return Err(SynthesisError::Unsatisfiable);
        }
        Ok(cs)
    }
}

fn accumulate(lc: &LinearCombination<Scalar>, weight: &Scalar, inputs: usize, into: &mut [Scalar]) {
    for (variable, coefficient) in lc.iter() {
        let i = match variable.get_unchecked() {
            Index::Input(i) => i,
            Index::Aux(i) => inputs + i,
        };
        if *coefficient == Scalar::ONE {
            into[i] += weight;
        } else {
            into[i] += *weight * coefficient;
        }
    }
}

impl ConstraintSystem<Scalar> for Evaluation<'_> {
    type Root = Self;
    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux += 1;
        Ok(Variable(Index::Aux(self.aux - 1)))
    }
    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs += 1;
        Ok(Variable(Index::Input(self.inputs - 1)))
    }
    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        let weight = &self.basis[self.constraints];
        accumulate(&a(LinearCombination::zero()), weight, self.inputs_total, &mut self.a);
        accumulate(&b(LinearCombination::zero()), weight, self.inputs_total, &mut self.b);
        accumulate(&c(LinearCombination::zero()), weight, self.inputs_total, &mut self.c);
        self.constraints += 1;
    }
    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }
    fn pop_namespace(&mut self) {}
    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}
