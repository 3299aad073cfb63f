//! Proofs through the prover process beside the bare library call, in turns in the same run; the check of a partition's
//! files.
//!
//! `cargo bench --bench prover`; needs the 2 KiB keys (`bulkhead keys generate`). `BULKHEAD_BENCH_ROUNDS` (default 5)
//! rounds of WinningPoSt and WindowPoSt, `BULKHEAD_BENCH_C2` (default 1) of C2, which takes a minute each.

#[path = "../tests/support/prover.rs"]
#[allow(dead_code)]
mod prover_support;

use bulkhead::actors::path_checks::{CheckLimits, PathChecks};
use bulkhead::actors::sector_files::{SectorCheck, SectorDirs, SectorFiles, SectorPaths};
use bulkhead::proofs::{Output, Prover, Task, keys, tasks};
use prover_support::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn rounds(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

async fn compare(prover: &impl Prover, task: Task, rounds: usize, warm_up: bool) {
    let name = task.name();
    let (mut ours, mut bare) = (vec![], vec![]);
    for round in 0..rounds + usize::from(warm_up) {
        let mut through_child = Duration::ZERO;
        let mut alone = Duration::ZERO;
        // who goes first changes, so that neither has the quieter machine
        for turn in 0..2 {
            let at = Instant::now();
            if (round + turn) % 2 == 0 {
                assert!(matches!(prover.run(job(task.clone())).await, Ok(Output::Proof(_))));
                through_child = at.elapsed();
            } else {
                let task = task.clone();
                let done = tokio::task::spawn_blocking(move || tasks::execute(task, &|_| {})).await.unwrap();
                assert!(matches!(done, Ok(Output::Proof(_))));
                alone = at.elapsed();
            }
        }
        if round > 0 || !warm_up {
            ours.push(through_child);
            bare.push(alone);
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "{name:<12} through the child {ours:>7.2} s | bare {bare:>7.2} s | ratio {:.3} ({rounds} rounds)",
        ours / bare
    );
}

const PARTITION: u64 = 2349;
/// What a look at one sector takes on a busy disk.
const SLOW_LOOK: Duration = Duration::from_millis(5);

/// The files of a partition on this disk; a look may take longer, as on a busy one.
struct Disk {
    dirs: SectorDirs,
    look: Duration,
}

impl SectorFiles for Disk {
    fn locate(&self, number: u64) -> SectorPaths {
        self.dirs.locate(number)
    }
    fn locate_update(&self, number: u64) -> SectorPaths {
        self.dirs.locate_update(number)
    }
    fn storage_path(&self, number: u64) -> PathBuf {
        self.dirs.storage_path(number)
    }
    fn check(&self, sector: &SectorCheck) -> Result<SectorPaths, String> {
        std::thread::sleep(self.look);
        self.dirs.check(sector)
    }
}

/// The check of a partition's files before they are read: through the checker threads, and one after the other.
async fn pre_check() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = SectorDirs::of_repo(dir.path(), MINER);
    dirs.create().unwrap();
    for number in 0..PARTITION {
        std::fs::create_dir_all(dirs.cache(number)).unwrap();
        std::fs::write(dirs.sealed(number), [0; 2048]).unwrap();
        for (name, length) in [("p_aux", 64), ("t_aux", 1)] {
            std::fs::write(dirs.cache(number).join(name), vec![0; length]).unwrap();
        }
    }
    let comm_r = tasks::comm_r_of(&[0; 64]).unwrap();
    let check = |number| SectorCheck { number, size: 2048, comm_r };
    for look in [Duration::ZERO, SLOW_LOOK] {
        let disk = Arc::new(Disk { dirs: dirs.clone(), look });
        let checks = PathChecks::new(CheckLimits::default());
        let at = Instant::now();
        let jobs = (0..PARTITION).map(|number| {
            let disk = disk.clone();
            move || disk.check(&check(number))
        });
        let found = checks.run(&disk.storage_path(0), jobs.collect()).await;
        assert!(found.iter().all(|found| matches!(found, Some(Ok(_)))));
        let ours = at.elapsed().as_secs_f64();
        let at = Instant::now();
        assert!((0..PARTITION).all(|number| disk.check(&check(number)).is_ok()));
        let bare = at.elapsed().as_secs_f64();
        println!(
            "pre-check of {PARTITION} sectors x 2 files, {look:?} a look: {} threads {ours:.3} s | one {bare:.3} s | ratio {:.3}",
            checks.limits().threads,
            ours / bare
        );
    }
}

#[tokio::main]
async fn main() {
    pre_check().await;
    let missing = keys::list(&keys::cache_dir()).unwrap();
    if missing.iter().any(|k| !matches!(k.condition, keys::Condition::Complete { .. })) {
        eprintln!("there are no 2 KiB keys in {}: run `bulkhead keys generate`", keys::cache_dir().display());
        std::process::exit(1);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // The bare call is not niced either: this measures what the process costs.
    config.seal_nice = 0;
    let prover = bulkhead::proofs::ChildProver::new(config);
    let s = Sector::in_dir(dir.path(), 1);
    let (comm_r, comm_d) = s.pre_commit(&prover).await;
    let sectors = vec![s.for_post(comm_r)];
    let randomness = [7; 32];

    let n = rounds("BULKHEAD_BENCH_ROUNDS", 5);
    let window = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness, sectors: sectors.clone() };
    compare(&prover, window, n, true).await;
    let winning = Task::WinningPost { proof_type: WINNING, miner: MINER, randomness, sectors };
    compare(&prover, winning, n, true).await;
    let n = rounds("BULKHEAD_BENCH_C2", 1);
    if n > 0 {
        let c1 = phase1(prover.run(job(s.c1(comm_r, comm_d))).await);
        compare(&prover, Task::C2 { c1, miner: MINER, number: s.number }, n, false).await;
    }
}
