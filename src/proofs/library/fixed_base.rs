//! Many scalar multiplications of one fixed point: 16-bit windows, affine additions that share inversions.
//!
//! A key has millions of points and every one is a multiple of the same generator, so the multiples
//! `d * 2^(16 w) * G` are tabulated once (signed digits: 32768 entries for each of 16 windows) and a multiplication is
//! 16 additions. Points are handled in batches: all additions of a window share one field inversion
//! (Montgomery's trick), which makes an affine addition cheaper than a projective one and leaves the results affine.

use blst::{blst_fp, blst_fp2, blst_p1_affine, blst_p2_affine};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use ff::PrimeField;
use group::{Curve, Group};
use rayon::prelude::*;

const WINDOW_BITS: usize = 16;
const WINDOWS: usize = 16;
/// Signed digits: |d| <= 2^15.
pub const ENTRIES: usize = 1 << (WINDOW_BITS - 1);
/// Points that share an inversion. Larger spreads its cost thinner, smaller stays in the cache.
pub const BATCH: usize = 1024;

/// The coordinate field of a curve, in blst's Montgomery form.
pub trait Coordinate: Copy + Default + Send + Sync {
    fn one() -> Self;
    fn mul(&self, b: &Self) -> Self;
    fn square(&self) -> Self;
    fn sub(&self, b: &Self) -> Self;
    fn neg(&self) -> Self;
    fn invert(&self) -> Self;
    fn is_zero(&self) -> bool;
}

macro_rules! coordinate {
    ($field:ty, $one:expr, $mul:ident, $sqr:ident, $sub:ident, $cneg:ident, $inverse:ident) => {
        // SAFETY of all calls: blst reads two and writes one field element through valid pointers, nothing else.
        impl Coordinate for $field {
            fn one() -> Self {
                $one
            }
            #[inline(always)]
            fn mul(&self, b: &Self) -> Self {
                let mut r = Self::default();
                unsafe { blst::$mul(&mut r, self, b) };
                r
            }
            #[inline(always)]
            fn square(&self) -> Self {
                let mut r = Self::default();
                unsafe { blst::$sqr(&mut r, self) };
                r
            }
            #[inline(always)]
            fn sub(&self, b: &Self) -> Self {
                let mut r = Self::default();
                unsafe { blst::$sub(&mut r, self, b) };
                r
            }
            #[inline(always)]
            fn neg(&self) -> Self {
                let mut r = Self::default();
                unsafe { blst::$cneg(&mut r, self, true) };
                r
            }
            fn invert(&self) -> Self {
                let mut r = Self::default();
                unsafe { blst::$inverse(&mut r, self) };
                r
            }
            fn is_zero(&self) -> bool {
                *self == Self::default()
            }
        }
    };
}

fn fp_one() -> blst_fp {
    let mut one = blst_fp::default();
    let limbs = [1u64, 0, 0, 0, 0, 0];
    // SAFETY: six limbs in, one field element out.
    unsafe { blst::blst_fp_from_uint64(&mut one, limbs.as_ptr()) };
    one
}

coordinate!(blst_fp, fp_one(), blst_fp_mul, blst_fp_sqr, blst_fp_sub, blst_fp_cneg, blst_fp_eucl_inverse);
coordinate!(
    blst_fp2,
    blst_fp2 { fp: [fp_one(), blst_fp::default()] },
    blst_fp2_mul,
    blst_fp2_sqr,
    blst_fp2_sub,
    blst_fp2_cneg,
    blst_fp2_eucl_inverse
);

/// An affine point; all zero is the point at infinity, as in blst.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Affine<F> {
    pub x: F,
    pub y: F,
}

/// A group whose points are tabulated: G1 or G2 of BLS12-381.
pub trait FixedBaseGroup: Curve + Group<Scalar = Scalar> + Send + Sync {
    type Coord: Coordinate + PartialEq;
    /// Bytes of an uncompressed point.
    const SIZE: usize;
    fn raw(affine: &Self::AffineRepr) -> Affine<Self::Coord>;
    /// Appends the uncompressed encoding, as in `bellperson::groth16::Parameters`.
    fn encode(point: &Affine<Self::Coord>, out: &mut Vec<u8>);
}

impl FixedBaseGroup for G1Projective {
    type Coord = blst_fp;
    const SIZE: usize = 96;
    fn raw(affine: &G1Affine) -> Affine<blst_fp> {
        let p: &blst_p1_affine = affine.as_ref();
        Affine { x: p.x, y: p.y }
    }
    fn encode(point: &Affine<blst_fp>, out: &mut Vec<u8>) {
        let mut bytes = [0u8; Self::SIZE];
        // SAFETY: writes 96 bytes into an array of 96.
        unsafe { blst::blst_p1_affine_serialize(bytes.as_mut_ptr(), &blst_p1_affine { x: point.x, y: point.y }) };
        out.extend_from_slice(&bytes);
    }
}

impl FixedBaseGroup for G2Projective {
    type Coord = blst_fp2;
    const SIZE: usize = 192;
    fn raw(affine: &G2Affine) -> Affine<blst_fp2> {
        let p: &blst_p2_affine = affine.as_ref();
        Affine { x: p.x, y: p.y }
    }
    fn encode(point: &Affine<blst_fp2>, out: &mut Vec<u8>) {
        let mut bytes = [0u8; Self::SIZE];
        // SAFETY: writes 192 bytes into an array of 192.
        unsafe { blst::blst_p2_affine_serialize(bytes.as_mut_ptr(), &blst_p2_affine { x: point.x, y: point.y }) };
        out.extend_from_slice(&bytes);
    }
}

/// `entries[w][d - 1] = d * 2^(16 w) * base` for d in 1..=32768.
pub struct Table<G: FixedBaseGroup> {
    base: G,
    windows: Vec<Vec<Affine<G::Coord>>>,
}

impl<G: FixedBaseGroup> Table<G> {
    pub fn new(base: G) -> Self {
        let mut bases = vec![base];
        for w in 1..WINDOWS {
            let mut next = bases[w - 1];
            for _ in 0..WINDOW_BITS {
                next = next.double();
            }
            bases.push(next);
        }
        let windows = bases.par_iter().map(Self::window).collect();
        Table { base, windows }
    }

    /// 1 to 32768 times `base`: with 1..=k known, k+1..=2k are k * base added to each, with one shared inversion.
    fn window(base: &G) -> Vec<Affine<G::Coord>> {
        let mut multiples = Vec::with_capacity(ENTRIES);
        multiples.push(G::raw(&base.to_affine()));
        let mut top = *base; // k * base
        let mut before = Vec::with_capacity(ENTRIES / 2);
        while multiples.len() < ENTRIES {
            let k = multiples.len();
            let q = multiples[k - 1];
            before.clear();
            let mut product = G::Coord::one();
            for p in &multiples[..k - 1] {
                before.push(product);
                // never zero: 0 < i < k, so i * base is neither k * base nor its opposite
                product = product.mul(&q.x.sub(&p.x));
            }
            let mut inverse = product.invert();
            top = top.double();
            multiples.resize(2 * k - 1, Affine::default());
            multiples.push(G::raw(&top.to_affine()));
            for i in (0..k - 1).rev() {
                let p = multiples[i];
                let diff = q.x.sub(&p.x);
                multiples[k + i] = add_affine(&p, &q, &inverse.mul(&before[i]));
                inverse = inverse.mul(&diff);
            }
        }
        multiples
    }

    /// `scalars[i] * base` for all i.
    pub fn multiply(&self, scalars: &[Scalar]) -> Vec<Affine<G::Coord>> {
        let mut out = Vec::with_capacity(scalars.len());
        for batch in scalars.chunks(BATCH) {
            self.multiply_batch(batch, &mut out);
        }
        out
    }

    fn multiply_batch(&self, scalars: &[Scalar], out: &mut Vec<Affine<G::Coord>>) {
        let n = scalars.len();
        let digits: Vec<[i32; WINDOWS]> = scalars.iter().map(signed_digits).collect();
        let mut acc = vec![Affine::<G::Coord>::default(); n];
        let mut started = vec![false; n];
        let mut exceptional = Vec::new();

        // one window's additions: which point, the addend, x difference, product of all differences before
        let mut which: Vec<usize> = Vec::with_capacity(n);
        let mut addend: Vec<Affine<G::Coord>> = Vec::with_capacity(n);
        let mut dx: Vec<G::Coord> = Vec::with_capacity(n);
        let mut before: Vec<G::Coord> = Vec::with_capacity(n);

        for (w, table) in self.windows.iter().enumerate() {
            which.clear();
            addend.clear();
            dx.clear();
            before.clear();
            let mut product = G::Coord::one();
            for i in 0..n {
                let d = digits[i][w];
                if d == 0 {
                    continue;
                }
                let mut entry = table[d.unsigned_abs() as usize - 1];
                if d < 0 {
                    entry.y = entry.y.neg();
                }
                if !started[i] {
                    acc[i] = entry;
                    started[i] = true;
                    continue;
                }
                let diff = entry.x.sub(&acc[i].x);
                if diff.is_zero() {
                    // Equal or opposite points. Lower windows are smaller than the entry, so this needs a scalar within
                    // 2^240 of r with 2 d 2^240 = s + r: not expected ever, but exactness costs nothing.
                    exceptional.push(i);
                    continue;
                }
                before.push(product);
                product = product.mul(&diff);
                which.push(i);
                addend.push(entry);
                dx.push(diff);
            }
            let mut inverse = product.invert();
            for k in (0..which.len()).rev() {
                let inv = inverse.mul(&before[k]);
                inverse = inverse.mul(&dx[k]);
                let p = &mut acc[which[k]];
                *p = add_affine(p, &addend[k], &inv);
            }
        }
        for i in exceptional {
            acc[i] = G::raw(&(self.base * scalars[i]).to_affine());
        }
        out.append(&mut acc);
    }
}

/// p + q, given 1 / (q.x - p.x).
#[inline(always)]
fn add_affine<F: Coordinate>(p: &Affine<F>, q: &Affine<F>, inverse: &F) -> Affine<F> {
    let slope = q.y.sub(&p.y).mul(inverse);
    let x = slope.square().sub(&p.x).sub(&q.x);
    let y = slope.mul(&p.x.sub(&x)).sub(&p.y);
    Affine { x, y }
}

/// Base 2^16 digits in -32767..=32768. The modulus is below 2^255, its top digit 0x73ed, so nothing carries out of the top.
pub fn signed_digits(s: &Scalar) -> [i32; WINDOWS] {
    let bytes = s.to_repr();
    let mut digits = [0i32; WINDOWS];
    let mut carry = 0;
    for (digit, b) in digits.iter_mut().zip(bytes.chunks_exact(2)) {
        let mut d = i32::from(u16::from_le_bytes([b[0], b[1]])) + carry;
        carry = 0;
        if d > ENTRIES as i32 {
            d -= 1 << WINDOW_BITS;
            carry = 1;
        }
        *digit = d;
    }
    debug_assert_eq!(carry, 0);
    digits
}
