//! Key generation, ours beside bellperson's in the same run.
//!
//! `cargo bench --bench keys` compares on a circuit of 2^16 constraints. `BULKHEAD_BENCH=post` adds the real 2 KiB PoSt
//! circuits (a minute), `BULKHEAD_BENCH=all` the 2 KiB PoRep circuit too (a quarter of an hour, 5.3 GB for bellperson).

use bellpepper_core::{Circuit, ConstraintSystem, SynthesisError};
use bellperson::groth16::generate_random_parameters;
use blstrs::{Bls12, Scalar};
use bulkhead::proofs::keys::{Key, ToxicWaste, write_parameters};
use ff::Field;
use filecoin_proofs::constants::{DefaultPieceHasher, SectorShape2KiB};
use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof};
use rand::rngs::OsRng;
use std::io::Cursor;
use std::time::{Duration, Instant};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_porep::stacked::{StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCompound};

type Tree = SectorShape2KiB;
type PostCompound = FallbackPoStCompound<Tree>;
type SealCompound = StackedCompound<Tree, DefaultPieceHasher>;

/// x -> x^2 + x, again and again.
struct Squares(usize);

impl Circuit<Scalar> for Squares {
    fn synthesize<CS: ConstraintSystem<Scalar>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        let mut x = cs.alloc_input(|| "x", || Ok(Scalar::ONE))?;
        for _ in 0..self.0 {
            let y = cs.alloc(|| "y", || Ok(Scalar::ONE))?;
            cs.enforce(|| "step", |lc| lc + x, |lc| lc + x + CS::one(), |lc| lc + y);
            x = y;
        }
        Ok(())
    }
}

struct Took {
    wall: Duration,
    user: Duration,
}

fn measure(work: impl FnOnce()) -> Took {
    let (wall, user) = (Instant::now(), user_time());
    work();
    Took { wall: wall.elapsed(), user: user_time() - user }
}

fn user_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let t = usage.user_time();
    Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000)
}

/// Peak resident memory of this process so far, MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn report(name: &str, ours: &Took, peak: u64, theirs: &Took) {
    println!(
        "{name:<18} ours {:>7.2} s wall {:>7.2} s user {peak:>5} MiB | bellperson {:>7.2} s wall {:>7.2} s user | {:.1}x wall, {:.1}x user",
        ours.wall.as_secs_f64(),
        ours.user.as_secs_f64(),
        theirs.wall.as_secs_f64(),
        theirs.user.as_secs_f64(),
        theirs.wall.as_secs_f64() / ours.wall.as_secs_f64(),
        theirs.user.as_secs_f64() / ours.user.as_secs_f64(),
    );
}

fn compare_key<C: Circuit<Scalar>>(key: Key, circuit: impl Fn() -> C) {
    let file = tempfile::tempfile_in(std::env::temp_dir()).unwrap();
    let ours = measure(|| {
        let mut out = std::io::BufWriter::new(file);
        key.generate(&ToxicWaste::random(OsRng), &mut out, &|_| {}).unwrap();
        out.get_ref().sync_all().unwrap();
    });
    // before bellperson's own peak
    let peak = peak_mib();
    let theirs = measure(|| {
        let params = generate_random_parameters::<Bls12, _, _>(circuit(), &mut OsRng).unwrap();
        params.write(std::io::BufWriter::new(tempfile::tempfile().unwrap())).unwrap();
    });
    report(key.name(), &ours, peak, &theirs);
}

fn main() {
    let constraints = (1 << 16) - 2;
    let ours = measure(|| {
        let mut out = Cursor::new(Vec::new());
        write_parameters(|| Squares(constraints), &ToxicWaste::random(OsRng), &mut out, &|_| {}).unwrap();
    });
    let peak = peak_mib();
    let theirs = measure(|| {
        let params = generate_random_parameters::<Bls12, _, _>(Squares(constraints), &mut OsRng).unwrap();
        params.write(std::io::sink()).unwrap();
    });
    report("2^16 constraints", &ours, peak, &theirs);

    let which = std::env::var("BULKHEAD_BENCH").unwrap_or_default();
    if which == "post" || which == "all" {
        let window = RegisteredPoStProof::StackedDrgWindow2KiBV1_2.as_v1_config();
        let params = window_post_public_params::<Tree>(&window).unwrap();
        compare_key(Key::WindowPost, || {
            <PostCompound as CompoundProof<FallbackPoSt<'_, Tree>, _>>::blank_circuit(&params)
        });
        let winning = RegisteredPoStProof::StackedDrgWinning2KiBV1.as_v1_config();
        let params = winning_post_public_params::<Tree>(&winning).unwrap();
        compare_key(Key::WinningPost, || {
            <PostCompound as CompoundProof<FallbackPoSt<'_, Tree>, _>>::blank_circuit(&params)
        });
    }
    if which == "all" {
        let params = public_params::<Tree>(&RegisteredSealProof::StackedDrg2KiBV1_1.as_v1_config()).unwrap();
        compare_key(Key::Seal, || {
            <SealCompound as CompoundProof<StackedDrg<'_, Tree, DefaultPieceHasher>, _>>::blank_circuit(&params)
        });
    }
}
