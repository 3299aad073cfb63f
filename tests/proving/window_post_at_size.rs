//! A deadline of 10,000 sectors with something wrong in every way at once: a storage path that hangs, files of another
//! CommR, a read that is damaged on its way, a sector that is late on another host. All the rest is proven in time.

use crate::support::devnet::p_aux;
use crate::support::scripted::*;
use async_trait::async_trait;
use bulkhead::actors::daemon_link::messages::HeadUpdate;
use bulkhead::actors::path_checks::{CheckLimits, PathChecks};
use bulkhead::actors::sector_files::{SectorCheck, SectorDirs, SectorFiles, SectorPaths, Unprovable};
use bulkhead::actors::storage::{LocalReader, PostReader, SectorIndex, Storage, StorageDeps, StorageNode};
use bulkhead::actors::window_post::messages::{WindowPostInfo, WindowPostReport};
use bulkhead::actors::window_post::settings::WindowPostSettings;
use bulkhead::actors::window_post::{WindowPost, WindowPostDeps};
use bulkhead::chain::Address;
use bulkhead::proofs::{Job, Output, Prover, ProverError, Task, tasks};
use bulkhead::store::Store;
use bulkhead::supervisor::*;
use fil_actor_miner_state::v18::SubmitWindowedPoStParams;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SECTORS: u64 = 10_000;
const PARTITION: u64 = 2349;
/// Every tenth sector lies on a path that hangs.
const HUNG_PATH: u64 = 3;
const WRONG_COMM_R: u64 = 5001;
/// A proof with it fails, and the library does not say why.
const SPOILT: u64 = 7002;
/// Its files are on another host, which is late.
const REMOTE: u64 = 9999;
/// Epochs of a second: from here 29 s are left to Close.
const HEIGHT: i64 = 30;
const SOON: Duration = Duration::from_secs(60);

/// Ten storage paths of this host.
#[derive(Default)]
struct Disks {
    /// Set when the hung path comes back.
    back: Mutex<bool>,
    came_back: Condvar,
}

impl Disks {
    fn hang(&self, number: u64) {
        if number % 10 == HUNG_PATH {
            let back = self.back.lock().unwrap();
            let _back = self.came_back.wait_while(back, |back| !*back).unwrap();
        }
    }
    fn release(&self) {
        *self.back.lock().unwrap() = true;
        self.came_back.notify_all();
    }
}

impl SectorFiles for Disks {
    fn locate(&self, number: u64) -> SectorPaths {
        SectorPaths { sealed: format!("sealed/{number}").into(), cache: format!("cache/{number}").into() }
    }
    fn locate_update(&self, number: u64) -> SectorPaths {
        self.locate(number)
    }
    fn storage_path(&self, number: u64) -> PathBuf {
        format!("/disk{}", number % 10).into()
    }
    fn present(&self, number: u64) -> bool {
        self.hang(number);
        number != REMOTE
    }
    fn check(&self, sector: &SectorCheck) -> Result<SectorPaths, Unprovable> {
        self.hang(sector.number);
        match sector.number {
            WRONG_COMM_R => Err(Unprovable::Bad("p_aux gives CommR 00, the chain has 01".to_string())),
            number => Ok(self.locate(number)),
        }
    }
}

/// Computes nothing.
#[derive(Default)]
struct Library {
    /// Reads that end without an answer, before the others.
    late: AtomicUsize,
    read: AtomicUsize,
    proofs: AtomicUsize,
}

#[async_trait]
impl Prover for Library {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        match job.task {
            Task::PostChallenges { sectors, .. } => {
                Ok(Output::Challenges(sectors.into_iter().map(|n| (n, vec![n; 10])).collect()))
            }
            Task::Vanilla { sectors, .. } => {
                if self.late.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                    return Ok(Output::Vanilla(vec![]));
                }
                self.read.fetch_add(sectors.len(), Ordering::SeqCst);
                Ok(Output::Vanilla(sectors.into_iter().map(|(s, _)| (s.number, Ok(vec![7; 100]))).collect()))
            }
            Task::PostFromVanilla { proofs, .. } => {
                self.proofs.fetch_add(1, Ordering::SeqCst);
                match proofs.iter().any(|(number, _)| *number == SPOILT) {
                    true => Err(ProverError::Failed { task: "WindowPoSt".into(), why: "failed to verify".into() }),
                    false => Ok(Output::Proof(vec![42; 192])),
                }
            }
            Task::VerifyWindowPost { .. } => Ok(Output::Verified(true)),
            other => panic!("not a task of WindowPoSt: {other:?}"),
        }
    }
}

/// Another host with one sector of 2 KiB.
fn other_host(repo: &std::path::Path) -> ([u8; 32], StorageDeps, Arc<Library>) {
    let dirs = SectorDirs::of_repo(repo, 1000);
    dirs.create().unwrap();
    std::fs::create_dir_all(dirs.cache(REMOTE)).unwrap();
    std::fs::write(dirs.sealed(REMOTE), [0; 2048]).unwrap();
    std::fs::write(dirs.cache(REMOTE).join("t_aux"), "").unwrap();
    std::fs::write(dirs.cache(REMOTE).join("p_aux"), p_aux(1)).unwrap();
    let library = Arc::new(Library { late: AtomicUsize::new(1), ..Library::default() });
    let deps = StorageDeps { repo: repo.to_path_buf(), prover: library.clone() };
    (tasks::comm_r_of(&p_aux(1)).unwrap(), deps, library)
}

async fn until(what: &str, window_post: &Ref<WindowPost>, is: impl Fn(&WindowPostReport) -> bool) -> WindowPostReport {
    let wait = async {
        loop {
            let report = window_post.ask(WindowPostInfo, SOON).await.unwrap();
            if is(&report) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_proven_within_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(ScriptedNode::default());
    *node.block_delay.lock().unwrap() = Some(1);
    *node.deadline.lock().unwrap() = Some(mainnet());
    *node.partition_sectors.lock().unwrap() = Some(PARTITION);
    let numbers: Vec<u64> = (0..SECTORS).collect();
    let partitions: Vec<_> = numbers.chunks(PARTITION as usize).map(|sectors| partition(sectors, &[], &[])).collect();
    assert_eq!(partitions.len(), 5);
    *node.partitions.lock().unwrap() = Some(partitions);
    let (remote_comm_r, storage_deps, far) = other_host(dir.path());
    node.comm_r.lock().unwrap().insert(REMOTE, remote_comm_r);

    let storage: Ref<Storage> = Ref::new("/far/storage", 64);
    let (disks, library) = (Arc::new(Disks::default()), Arc::new(Library::default()));
    let limits = CheckLimits { threads: 4, patience: Duration::from_millis(500), ..CheckLimits::default() };
    let local = LocalReader::new(disks.clone(), library.clone(), Arc::new(PathChecks::new(limits)));
    let storages = vec![StorageNode { name: "far".into(), storage: storage.clone() }];
    let index = SectorIndex::new(1000, Arc::new(storages));
    let outbox = Arc::new(ScriptedOutbox::default());
    let deps = WindowPostDeps {
        miner: Address::new_id(1000),
        node: node.clone(),
        prover: library.clone(),
        reader: Arc::new(PostReader { local, index }),
        outbox: outbox.clone(),
        store: Store::open(&dir.path().join("bulkhead.redb")).unwrap(),
        jobs: None,
        settings: WindowPostSettings { max_partitions: 0, ..Default::default() },
    };
    let window_post: Ref<WindowPost> = Ref::new("/t01000/window-post", 64);
    let child = ChildSpec::actor("window_post", &window_post, move |cx| WindowPost::start(cx, deps.clone()));
    let disks_child = ChildSpec::actor("far", &storage, move |_| {
        let storage = Storage::new(storage_deps.clone());
        async move { Ok(storage) }
    });
    let root = SupervisorSpec::new("root").child(disks_child.on(Thread::Dedicated));
    let tree = Tree::start(root.child(child.on(Thread::Dedicated))).unwrap();

    let began = Instant::now();
    let head = tipset("a", HEIGHT, "b");
    *node.head.lock().unwrap() = Some(head.clone());
    window_post.tell(HeadUpdate { tipset: Arc::new(head), reverted_to: None }).unwrap();
    // The reasons are there before the proof is.
    let hangs = |report: &WindowPostReport| {
        let batches = report.deadlines.iter().flat_map(|deadline| &deadline.batches);
        batches.flat_map(|batch| &batch.left_out).any(|group| group.why.contains("hangs"))
    };
    until("a path that hangs", &window_post, hangs).await;
    let sent = |report: &WindowPostReport| {
        let batches: Vec<_> = report.deadlines.iter().flat_map(|deadline| &deadline.batches).collect();
        batches.len() == 2 && batches.iter().all(|batch| batch.phase == "submitting")
    };
    let report = until("both messages", &window_post, sent).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(29), "{took:?}");
    while outbox.sent.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // Each partition is in a message, and leaves out exactly what cannot be proven.
    let (mut seen, mut skipped) = (Vec::new(), BTreeSet::new());
    for message in outbox.sent.lock().unwrap().iter() {
        let params: SubmitWindowedPoStParams = fvm_ipld_encoding::from_slice(&message.params).unwrap();
        assert!(params.partitions.len() <= 3, "{} partitions in a message", params.partitions.len());
        assert_eq!(params.proofs[0].proof_bytes.len(), 192 * params.partitions.len());
        for partition in &params.partitions {
            seen.push(partition.index);
            skipped.extend(partition.skipped.iter());
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    let mut expected: BTreeSet<u64> = (0..SECTORS).filter(|n| n % 10 == HUNG_PATH).collect();
    expected.extend([WRONG_COMM_R, SPOILT]);
    assert_eq!(skipped, expected);
    // Nothing was read twice, and the late one was read when it was asked for again.
    assert_eq!(library.read.load(Ordering::SeqCst) as u64, SECTORS - SECTORS / 10 - 2);
    assert_eq!(far.read.load(Ordering::SeqCst), 1);
    assert!(library.proofs.load(Ordering::SeqCst) < 40, "{} proofs", library.proofs.load(Ordering::SeqCst));
    let groups = || report.deadlines.iter().flat_map(|d| &d.batches).flat_map(|batch| &batch.left_out);
    let reasons: Vec<&str> = groups().map(|group| group.why.as_str()).collect();
    for why in ["/disk3 hangs", "gives CommR", "a proof with it fails"] {
        assert!(reasons.iter().any(|reason| reason.contains(why)), "{why}: {reasons:?}");
    }
    assert_eq!(groups().map(|group| group.count).sum::<u64>(), expected.len() as u64);
    disks.release();
    tree.shutdown().await;
}
