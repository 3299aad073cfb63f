//! How many blocks a miner wins at an epoch: a fixed-point Poisson, as every node of the network computes it.
//!
//! Wins are Poisson distributed with λ = share of the power × 5 expected leaders. The VRF proof's hash, read as a
//! fraction in [0, 1), is compared with the upper tail 1 − ΣP(k). All numbers have 256 fractional bits.

use super::randomness::blake2b256;
use num_bigint::{BigInt, Sign};
use std::sync::LazyLock;
use std::time::Duration;

/// Expected leaders per epoch.
pub const BLOCKS_PER_EPOCH: u32 = 5;

/// Blocks that a share of the network's quality-adjusted power mines in a day, on average. A round is won with several
/// draws at times, and gives one block all the same.
pub fn blocks_per_day(share: f64, block_delay: Duration) -> f64 {
    let rounds = 86_400.0 / block_delay.as_secs_f64().max(1.0);
    rounds * -(-share * f64::from(BLOCKS_PER_EPOCH)).exp_m1()
}
/// No election wins more.
pub const MAX_WIN_COUNT: i64 = 3 * BLOCKS_PER_EPOCH as i64;

const PRECISION: usize = 256;

/// The number of wins of `vrf_proof`; zero without power.
pub fn compute_win_count(vrf_proof: &[u8], miner_power: &BigInt, total_power: &BigInt) -> i64 {
    if miner_power.sign() != Sign::Plus || total_power.sign() != Sign::Plus {
        return 0;
    }
    let lambda = ((miner_power * BLOCKS_PER_EPOCH) << PRECISION) / total_power;
    wins(&BigInt::from_bytes_be(Sign::Plus, &blake2b256(vrf_proof)), &lambda)
}

fn wins(draw: &BigInt, lambda: &BigInt) -> i64 {
    let mut probability = exp_neg(lambda);
    let mut tail: BigInt = (BigInt::from(1) << PRECISION) - &probability;
    let mut count = 0;
    while count < MAX_WIN_COUNT && draw < &tail {
        count += 1;
        probability = (&probability * lambda / count) >> PRECISION;
        tail -= &probability;
    }
    count
}

/// e^-x as the rational function on which all nodes agree; good to 4.6e-15 over [0, 5).
fn exp_neg(x: &BigInt) -> BigInt {
    (horner(&NUMERATOR, x) << PRECISION) / horner(&DENOMINATOR, x)
}

fn horner(coefficients: &[BigInt], x: &BigInt) -> BigInt {
    coefficients.iter().fold(BigInt::from(0), |sum, c| ((sum * x) >> PRECISION) + c)
}

fn coefficients(q128: &[&str]) -> Vec<BigInt> {
    let parse = |text: &&str| text.parse::<BigInt>().expect("a constant of this file") << (PRECISION - 128);
    q128.iter().map(parse).collect()
}

static NUMERATOR: LazyLock<Vec<BigInt>> = LazyLock::new(|| {
    coefficients(&[
        "-648770010757830093818553637600",
        "67469480939593786226847644286976",
        "-3197587544499098424029388939001856",
        "89244641121992890118377641805348864",
        "-1579656163641440567800982336819953664",
        "17685496037279256458459817590917169152",
        "-115682590513835356866803355398940131328",
        "340282366920938463463374607431768211456",
    ])
});

static DENOMINATOR: LazyLock<Vec<BigInt>> = LazyLock::new(|| {
    coefficients(&[
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
    ])
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_day_follow_the_share_and_are_one_a_round_at_most() {
        let day = |share| blocks_per_day(share, Duration::from_secs(30));
        assert_eq!(day(0.0), 0.0);
        // 2880 epochs: a small share wins five times its part of them.
        assert!((day(0.0001) - 2880.0 * 0.0005).abs() < 0.001, "{}", day(0.0001));
        assert!((day(0.2) - 2880.0 * 0.632_12).abs() < 0.1, "{}", day(0.2));
        assert!(day(1.0) < 2880.0 && day(1.0) > 2850.0);
    }

    /// (power, total, tails): tails[k] = 2^64 · (1 − Σ_{j≤k} e^-λ λ^j / j!), λ = 5 power / total, floor; mpmath with 200 digits.
    const TAILS: &[(u64, u64, [u64; 16])] = &[
        (
            1,
            1,
            [
                18322450889835202718,
                17700984970463458229,
                16147320172034097007,
                13557878841318494970,
                10321077177923992424,
                7084275514529489878,
                4386940795034071090,
                2460273138251629098,
                1256105852762602853,
                587124027490921606,
                252633114855080982,
                100591790929698881,
                37241239294123005,
                12875642511209207,
                4173643660168565,
                1272977376488351,
            ],
        ),
        (
            1,
            2,
            [
                16932543111803689816,
                13147040707039035318,
                8415162701083217195,
                4471931029453368759,
                2007411234684713486,
                775151337300385850,
                261709713390249335,
                78337704850914865,
                21033952182372844,
                5116243107777838,
                1136815839129086,
                232400550799824,
                43980699064562,
                7746112192396,
                1275650250937,
                197239927361,
            ],
        ),
        (
            1,
            5,
            [
                11660566172440666341,
                4874388271171781066,
                1481299320537338429,
                350269670325857550,
                67512257772987330,
                10960775262413286,
                1535528177317612,
                189064308018230,
                20756324355807,
                2055437282205,
                185348574844,
                15340510539,
                1173171847,
                83376563,
                5534042,
                344541,
            ],
        ),
        (
            1,
            10,
            [
                7258228221132386316,
                1663970294843803666,
                265405813271658003,
                32311733009633726,
                3174972976880692,
                261296973605388,
                18490639999113,
                1147330455807,
                63373609351,
                3153784548,
                142793308,
                5930069,
                227434,
                8102,
                269,
                8,
            ],
        ),
        (
            1,
            100,
            [
                899658324562858109,
                22304037105523433,
                370179919090066,
                4615632649510,
                46079069003,
                383533198,
                2737067,
                17094,
                94,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ],
        ),
        (
            2,
            3,
            [
                17788675048345569480,
                15595111630465629026,
                11939172600665728271,
                7877018123110282987,
                4491889391814078584,
                2235136904283275648,
                981385522321718462,
                384361054720976945,
                135600859887334646,
                43467454393393054,
                12756319228745856,
                3449914633398221,
                864802245801655,
                201952915648690,
                44131646564650,
                9060253434864,
            ],
        ),
        (
            1,
            1000,
            [92003519894890614, 229817125817309, 382868894626, 478466421, 478386, 398, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (1, 1000000, [92233489784631, 230583532, 384, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (
            10,
            11,
            [
                18250925494271709685,
                17360841042281519092,
                15337921833212904108,
                12272892728563487466,
                8789905109643695827,
                5623552728807521609,
                3224800925143753263,
                1667169883803643947,
                782152246678581836,
                335173642069964608,
                132001549066047686,
                48046138733850611,
                16244846941351719,
                5125514146771686,
                1515341161518429,
                421349347805321,
            ],
        ),
    ];

    /// Around each tail of the independent table the count changes, and nowhere else: it is k+1 below and k above.
    #[test]
    fn win_count_changes_at_each_tail_of_an_independent_table() {
        for (power, total, tails) in TAILS {
            let lambda = (BigInt::from(power * 5) << PRECISION) / total;
            for (k, tail) in tails.iter().enumerate().take(MAX_WIN_COUNT as usize) {
                // The rational function's error at λ = 5 is 4.6e-15; the sums multiply it by at most e^5: 2^-40.
                let margin = 1u64 << 24;
                if *tail <= margin {
                    continue;
                }
                let at = |fraction: u64| BigInt::from(fraction) << (PRECISION - 64);
                assert_eq!(wins(&at(tail - margin), &lambda), k as i64 + 1, "{power}/{total}, just below tail {k}");
                assert_eq!(wins(&at(tail + margin), &lambda), k as i64, "{power}/{total}, just above tail {k}");
            }
        }
    }

    #[test]
    fn counts_of_real_hashes_match_the_independent_table() {
        for (proof, power, total, want) in [
            ([0; 3], 1, 1, 4),
            ([1; 3], 1, 2, 1),
            ([2; 3], 1, 5, 1),
            ([3; 3], 3, 4, 4),
            ([4; 3], 1, 1, 3),
            ([5; 3], 1, 2, 2),
            ([6; 3], 1, 5, 2),
            ([7; 3], 3, 4, 3),
            ([8; 3], 1, 1, 11),
            ([9; 3], 1, 2, 1),
            ([10; 3], 1, 5, 1),
            ([11; 3], 3, 4, 2),
            ([12; 3], 1, 1, 2),
            ([13; 3], 1, 2, 3),
            ([14; 3], 1, 5, 1),
            ([15; 3], 3, 4, 2),
            ([16; 3], 1, 1, 8),
            ([17; 3], 1, 2, 1),
            ([18; 3], 1, 5, 2),
            ([19; 3], 3, 4, 3),
            ([20; 3], 1, 1, 7),
            ([21; 3], 1, 2, 2),
            ([22; 3], 1, 5, 0),
            ([23; 3], 3, 4, 3),
            ([24; 3], 1, 1, 5),
            ([25; 3], 1, 2, 1),
            ([26; 3], 1, 5, 1),
            ([27; 3], 3, 4, 7),
            ([28; 3], 1, 1, 3),
            ([29; 3], 1, 2, 4),
            ([30; 3], 1, 5, 1),
            ([31; 3], 3, 4, 7),
            ([32; 3], 1, 1, 10),
            ([33; 3], 1, 2, 6),
            ([34; 3], 1, 5, 0),
            ([35; 3], 3, 4, 4),
            ([36; 3], 1, 1, 7),
            ([37; 3], 1, 2, 0),
            ([38; 3], 1, 5, 2),
            ([39; 3], 3, 4, 6),
        ] {
            assert_eq!(compute_win_count(&proof, &BigInt::from(power), &BigInt::from(total)), want, "{proof:?}");
        }
    }

    #[test]
    fn no_power_no_win_and_never_more_than_the_bound() {
        let (zero, one) = (BigInt::from(0), BigInt::from(1));
        assert_eq!(compute_win_count(b"x", &zero, &one), 0);
        assert_eq!(compute_win_count(b"x", &BigInt::from(-1), &one), 0);
        assert_eq!(compute_win_count(b"x", &one, &zero), 0);
        assert_eq!(wins(&zero, &(BigInt::from(5) << PRECISION)), MAX_WIN_COUNT);
    }
}
