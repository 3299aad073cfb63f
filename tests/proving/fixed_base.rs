//! Multiples of a fixed base are those of plain multiplication.

use blstrs::{G1Projective, G2Projective, Scalar};
use bulkhead_proofs::fixed_base::{BATCH, ENTRIES, FixedBaseGroup, Table, signed_digits};
use ff::Field;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn samples() -> Vec<Scalar> {
    let two_15 = Scalar::from(1u64 << 15);
    let two_16 = Scalar::from(1u64 << 16);
    let two_240 = Scalar::from(2u64).pow_vartime([240u64]);
    let mut s = vec![Scalar::ZERO, Scalar::ONE, -Scalar::ONE, -Scalar::from(2u64)];
    for edge in [two_15, two_16, two_240, -two_240, two_240 * two_15.invert().unwrap()] {
        s.extend([edge - Scalar::ONE, edge, edge + Scalar::ONE]);
    }
    let mut rng = StdRng::seed_from_u64(7);
    s.extend((0..BATCH + 1).map(|_| Scalar::random(&mut rng)));
    s
}

#[test]
fn digits_add_up() {
    for s in samples() {
        let mut sum = Scalar::ZERO;
        for d in signed_digits(&s).iter().rev() {
            assert!((-(ENTRIES as i32) + 1..=ENTRIES as i32).contains(d));
            sum *= Scalar::from(1u64 << 16);
            let abs = Scalar::from(u64::from(d.unsigned_abs()));
            sum += if *d < 0 { -abs } else { abs };
        }
        assert_eq!(sum, s);
    }
}

fn agrees<G: FixedBaseGroup>() {
    let base = G::random(StdRng::seed_from_u64(1));
    let scalars = samples();
    let got = Table::new(base).multiply(&scalars);
    for (i, s) in scalars.iter().enumerate().take(60) {
        assert!(got[i] == G::raw(&(base * s).to_affine()), "scalar {i}");
    }
    let last = scalars.len() - 1;
    assert!(got[last] == G::raw(&(base * scalars[last]).to_affine()));
}

#[test]
fn agrees_with_plain_multiplication_in_g1() {
    agrees::<G1Projective>();
}

#[test]
fn agrees_with_plain_multiplication_in_g2() {
    agrees::<G2Projective>();
}
