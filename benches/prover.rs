//! Proofs through the prover process, and through WindowPoSt and WinningPoSt as a whole, beside the bare library call, in
//! turns in the same run; what a warm prover saves; the check of a partition's files.
//!
//! `cargo bench --bench prover`; needs the 2 KiB keys (`bulkhead keys generate`). `BULKHEAD_BENCH_ROUNDS` (default 5)
//! rounds of WinningPoSt and WindowPoSt, `BULKHEAD_BENCH_C2` (default 1) of C2, which takes a minute each.

#[path = "../tests/support/prover.rs"]
#[allow(dead_code)]
mod prover_support;
#[path = "../tests/support/scripted.rs"]
#[allow(dead_code)]
mod scripted;

use async_trait::async_trait;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::path_checks::{CheckLimits, PathChecks};
use bulkhead::actors::sector_files::{SectorCheck, SectorDirs, SectorFiles, SectorPaths, Unprovable};
use bulkhead::actors::storage::LocalReader;
use bulkhead::actors::window_post::batch::Outcome;
use bulkhead::actors::window_post::effects::Effects;
use bulkhead::actors::winning_post::settings::{Clock, WinningPostSettings};
use bulkhead::actors::winning_post::{WinningPost, WinningPostDeps};
use bulkhead::chain::miner_messages::sealed_cid;
use bulkhead::chain::types::{BlockMsg, MiningBaseInfo};
use bulkhead::chain::{Address, ChainEpoch};
use bulkhead::proofs::{ChildProver, Job, Output, PostSector, Prover, ProverError, Task, keys, tasks};
use bulkhead::store::Store;
use bulkhead::supervisor::{ChildSpec, Ref, SupervisorSpec, Tree};
use prover_support::*;
use scripted::{ScriptedNode, ScriptedOutbox, base_info, mainnet, partition, tipset};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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

/// In turns, who goes first changing; the first round of each warms up. The medians: (ours, bare).
async fn in_turns<O: AsyncFnMut(usize), B: AsyncFnMut(usize)>(rounds: usize, mut ours: O, mut bare: B) -> (f64, f64) {
    let (mut times, mut alone) = (vec![], vec![]);
    for round in 0..=rounds {
        for turn in 0..2 {
            let at = Instant::now();
            let (what, done) = match (round + turn) % 2 {
                0 => (&mut times, ours(round).await),
                _ => (&mut alone, bare(round).await),
            };
            let () = done;
            if round > 0 {
                what.push(at.elapsed());
            }
        }
    }
    (median(times), median(alone))
}

async fn execute(task: Task) {
    let done = tokio::task::spawn_blocking(move || tasks::execute(task, &|_| {})).await.unwrap();
    assert!(matches!(done, Ok(Output::Proof(_))), "{done:?}");
}

/// A node that tells of one real sector.
fn node_with(sector: &Sector, comm_r: [u8; 32]) -> Arc<ScriptedNode> {
    let node = Arc::new(ScriptedNode::default());
    let sealed = sealed_cid(&comm_r).unwrap();
    node.comm_r.lock().unwrap().insert(sector.number, comm_r);
    *node.partitions.lock().unwrap() = Some(vec![partition(&[sector.number], &[], &[])]);
    let mut info = MiningBaseInfo { beacon_entries: vec![], ..base_info(1_000_000) };
    info.sectors[0].sealed_cid = sealed;
    info.sectors[0].sector_number = sector.number;
    *node.base_info.lock().unwrap() = Some(info);
    node
}

/// From the files' check to the verified proof, as WindowPoSt does it.
async fn window_post(prover: &Arc<ChildProver>, dir: &Path, sector: &Sector, comm_r: [u8; 32], rounds: usize) {
    let node = node_with(sector, comm_r);
    let files = Arc::new(SectorDirs::of_repo(dir, MINER));
    let reader = Arc::new(LocalReader::new(files, prover.clone(), PathChecks::of_process()));
    let (miner, outbox) = (Address::new_id(MINER), Arc::new(ScriptedOutbox::default()));
    let effects =
        Effects::new(miner, node.clone(), prover.clone(), reader, outbox, None, Default::default()).expect("effects");
    let (di, head) = (mainnet().not_elapsed_at(1), tipset("a1", 1, "a0"));
    let ours = async |round: usize| {
        *node.beacon.lock().unwrap() = round as u8;
        match effects.prove(&di, &[0], &head).await {
            Outcome::Proved(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let bare = async |round: usize| {
        let randomness = [round as u8 & 0x3f; 32];
        let sectors = vec![sector.for_post(comm_r)];
        execute(Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness, sectors }).await;
    };
    let (ours, bare) = in_turns(rounds, ours, bare).await;
    println!(
        "WindowPoSt   files to verified proof {ours:>7.3} s | bare {bare:>7.3} s | ratio {:.3}, {:+.0} ms ({rounds} rounds)",
        ours / bare,
        1000.0 * (ours - bare)
    );
}

/// Sums up how long its jobs take, so that what is left of a round is ours.
struct Timed(Arc<ChildProver>, Mutex<Duration>);

#[async_trait]
impl Prover for Timed {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        let at = Instant::now();
        let answer = self.0.run(job).await;
        *self.1.lock().unwrap() += at.elapsed();
        answer
    }
}

/// Set by hand, so that a block's time has always come.
#[derive(Default)]
struct Hand(AtomicU64);
impl Clock for Hand {
    fn unix(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// From a head to its block at the full node, as WinningPoSt does it.
async fn winning_post(prover: &Arc<ChildProver>, dir: &Path, sector: &Sector, comm_r: [u8; 32], rounds: usize) {
    let (node, clock) = (node_with(sector, comm_r), Arc::new(Hand::default()));
    let prover = Arc::new(Timed(prover.clone(), Mutex::default()));
    let deps = WinningPostDeps {
        miner: Address::new_id(MINER),
        node: node.clone(),
        prover: prover.clone(),
        files: Arc::new(SectorDirs::of_repo(dir, MINER)),
        store: Store::open(&dir.join("blocks.redb")).unwrap(),
        clock: clock.clone(),
        settings: WinningPostSettings { propagation: Some(Duration::ZERO), ..Default::default() },
    };
    let actor = Ref::new("/t01000/winning-post", 64);
    let child = ChildSpec::actor("winning_post", &actor, move |cx| WinningPost::start(cx, deps.clone()));
    let tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
    let sent = |height: ChainEpoch| {
        let is = move |block: &BlockMsg| block.header.height == height;
        node.submitted.lock().unwrap().iter().any(is)
    };
    let outside = Mutex::new(vec![]);
    let ours = async |round: usize| {
        let began = Instant::now();
        *prover.1.lock().unwrap() = Duration::ZERO;
        let height = 10 + 2 * round as ChainEpoch; // no parents of our own
        let head = tipset(&format!("a{height}"), height, "parent");
        clock.0.store(head.blocks[0].timestamp + 30, Ordering::SeqCst);
        actor.tell(HeadUpdate { tipset: Arc::new(head), reverted_to: None }).unwrap();
        while !sent(height + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if round > 0 {
            outside.lock().unwrap().push(began.elapsed().saturating_sub(*prover.1.lock().unwrap()));
        }
    };
    let bare = async |round: usize| {
        let sectors = vec![sector.for_post(comm_r)];
        let randomness = [round as u8 & 0x3f; 32];
        execute(Task::WinningPost { proof_type: WINNING, miner: MINER, randomness, sectors }).await;
    };
    let (ours, bare) = in_turns(rounds, ours, bare).await;
    println!(
        "WinningPoSt  base known to block sent {ours:>6.3} s | bare {bare:>7.3} s | {:+.0} ms, {:.0} ms of it outside the prover ({rounds} rounds)",
        1000.0 * (ours - bare),
        1000.0 * median(outside.into_inner().unwrap())
    );
    tree.shutdown().await;
}

/// A fresh child's first proof beside its second; what the difference should be: that of two bare calls in this process,
/// the first of which loads the parameters.
async fn cold_and_warm(dir: &Path, sectors: Vec<PostSector>) {
    let task = Task::WinningPost { proof_type: WINNING, miner: MINER, randomness: [9; 32], sectors };
    let mut bare = vec![];
    for _ in 0..2 {
        let at = Instant::now();
        execute(task.clone()).await;
        bare.push(at.elapsed().as_secs_f64());
    }
    let (mut cold, mut warm) = (vec![], vec![]);
    for _ in 0..3 {
        let prover = ChildProver::new(config(dir));
        for times in [&mut cold, &mut warm] {
            let at = Instant::now();
            assert!(matches!(prover.run(job(task.clone())).await, Ok(Output::Proof(_))));
            times.push(at.elapsed());
        }
    }
    let (cold, warm) = (median(cold), median(warm));
    println!(
        "WinningPoSt  cold child {cold:>7.2} s | warm child {warm:>7.2} s | saves {:.2} s; loading takes the library {:.2} s",
        cold - warm,
        bare[0] - bare[1]
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
    fn check(&self, sector: &SectorCheck) -> Result<SectorPaths, Unprovable> {
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
    let check = move |number| SectorCheck { number, size: 2048, comm_r };
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
    let s = Sector::in_dir(&dir.path().join("sectors"), 1); // as in a repo
    let (comm_r, comm_d) = s.pre_commit(&prover).await;
    let sectors = vec![s.for_post(comm_r)];
    let randomness = [7; 32];

    let n = rounds("BULKHEAD_BENCH_ROUNDS", 5);
    cold_and_warm(dir.path(), sectors.clone()).await; // first: nothing is loaded here yet
    let prover = Arc::new(prover);
    window_post(&prover, dir.path(), &s, comm_r, n).await;
    winning_post(&prover, dir.path(), &s, comm_r, n).await;
    let window = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness, sectors: sectors.clone() };
    compare(&*prover, window, n, true).await;
    let winning = Task::WinningPost { proof_type: WINNING, miner: MINER, randomness, sectors };
    compare(&*prover, winning, n, true).await;
    let n = rounds("BULKHEAD_BENCH_C2", 1);
    if n > 0 {
        let c1 = phase1(prover.run(job(s.c1(comm_r, comm_d))).await);
        compare(&*prover, Task::C2 { c1, miner: MINER, number: s.number }, n, false).await;
    }
}
