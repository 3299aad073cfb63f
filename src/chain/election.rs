//! How many blocks a VRF output wins: the inverse of a Poisson distribution in 256-bit fixed point.

use num_bigint::{BigInt, Sign};
use num_traits::{Signed, Zero};

const PRECISION: u32 = 256;
const EXPECTED_LEADERS: u32 = 5;
const MAX_WIN_COUNT: i64 = 3 * EXPECTED_LEADERS as i64;

const EXP_NUMERATOR: [&str; 8] = [
    "-648770010757830093818553637600",
    "67469480939593786226847644286976",
    "-3197587544499098424029388939001856",
    "89244641121992890118377641805348864",
    "-1579656163641440567800982336819953664",
    "17685496037279256458459817590917169152",
    "-115682590513835356866803355398940131328",
    "340282366920938463463374607431768211456",
];
const EXP_DENOMINATOR: [&str; 14] = [
    "1225524182432722209606361",
    "114095592300906098243859450",
    "5665570424063336070530214243",
    "194450132448609991765137938448",
    "5068267641632683791026134915072",
    "104716890604972796896895427629056",
    "1748338658439454459487681798864896",
    "23704654329841312470660182937960448",
    "259380097567996910282699886670381056",
    "2250336698853390384720606936038375424",
    "14978272436876548034486263159246028800",
    "72144088983913131323343765784380833792",
    "224599776407103106596571252037123047424",
    "340282366920938463463374607431768211456",
];

fn polynomial(coefficients: &[&str], x: &BigInt) -> BigInt {
    coefficients.iter().fold(BigInt::zero(), |sum, text| {
        let coefficient: BigInt = text.parse().expect("a decimal constant");
        ((sum * x) >> PRECISION) + (coefficient << (PRECISION - 128))
    })
}

fn exp_neg(x: &BigInt) -> BigInt {
    (polynomial(&EXP_NUMERATOR, x) << PRECISION) / polynomial(&EXP_DENOMINATOR, x)
}

/// 0 when the miner does not win this epoch.
pub fn compute_win_count(vrf: &[u8], miner_power: &BigInt, network_power: &BigInt) -> i64 {
    if !miner_power.is_positive() || !network_power.is_positive() {
        return 0;
    }
    let hash = blake2b_simd::Params::new().hash_length(32).hash(vrf);
    let h = BigInt::from_bytes_be(Sign::Plus, hash.as_bytes());
    let lambda = ((miner_power * EXPECTED_LEADERS) << PRECISION) / network_power;
    let mut pmf = exp_neg(&lambda);
    let mut icdf = (BigInt::from(1) << PRECISION) - &pmf;
    let mut wins = 0;
    while h < icdf && wins < MAX_WIN_COUNT {
        wins += 1;
        pmf = ((pmf * &lambda) >> PRECISION) / wins;
        icdf -= &pmf;
    }
    wins
}
