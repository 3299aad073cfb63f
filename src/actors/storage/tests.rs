//! Disks, hosts and provers that fail while sectors are looked for and read: none of it makes a sector unreadable.

use super::messages::{Has, HasAnswer, HasV1};
use super::*;
use crate::actors::path_checks::{CheckLimits, PathChecks};
use crate::actors::sector_files::{SectorCheck, SectorFiles, SectorPaths, Unprovable};
use crate::proofs::{ProverError, ScriptedProver, Step};
use crate::rpc::bridge::codec::Earlier;
use crate::supervisor::{ChildSpec, SupervisorSpec, Tree};
use crate::util::lock;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use tokio::time::Instant as TokioInstant;

const LATE_ERROR: &str = "stale file handle";

/// Two storage paths: `/odd` and `/even`.
#[derive(Default)]
struct Disks {
    here: Vec<u64>,
    /// Every look at their files hangs until the disks are released.
    hung: Vec<u64>,
    /// Their files fail for now.
    stale: Vec<u64>,
    released: Mutex<bool>,
    gate: Condvar,
}

impl Disks {
    fn reach(&self, number: u64) {
        if self.hung.contains(&number) {
            let _released = self.gate.wait_while(lock(&self.released), |released| !*released).unwrap();
        }
    }
    fn release(&self) {
        *lock(&self.released) = true;
        self.gate.notify_all();
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
        if number % 2 == 1 { "/odd".into() } else { "/even".into() }
    }
    fn present(&self, number: u64) -> bool {
        self.reach(number);
        self.here.contains(&number)
    }
    fn check(&self, sector: &SectorCheck) -> Result<SectorPaths, Unprovable> {
        self.reach(sector.number);
        match self.stale.contains(&sector.number) {
            true => Err(Unprovable::Passing(LATE_ERROR.to_string())),
            false => Ok(self.locate(sector.number)),
        }
    }
}

fn limits() -> CheckLimits {
    // A file that hangs is not noticed within the patience: the limit of a look has to hold.
    CheckLimits { patience: Duration::from_secs(600), look: Duration::from_millis(300), ..CheckLimits::default() }
}

fn reader(disks: &Arc<Disks>, prover: &Arc<ScriptedProver>) -> LocalReader {
    LocalReader::new(disks.clone(), prover.clone(), Arc::new(PathChecks::new(limits())))
}

/// A storage whose disks are these, in a tree of its own.
fn host(disks: &Arc<Disks>) -> (Tree, StorageNode) {
    let storage: Ref<Storage> = Ref::new("/far/storage", 64);
    let disks = disks.clone();
    let child = ChildSpec::actor("far", &storage, move |_| {
        let prover = Arc::new(ScriptedProver::new());
        let mut storage = Storage::new(StorageDeps { repo: "/nowhere".into(), prover: prover.clone() });
        storage.readers.insert(1000, Arc::new(reader(&disks, &prover)));
        async move { Ok(storage) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
    (tree, StorageNode { name: "far".into(), storage })
}

fn request(numbers: &[u64], until: Duration) -> ReadRequest {
    let wanted = |number: &u64| WantedSector { number: *number, comm_r: [0; 32], places: vec![1] };
    let sectors = numbers.iter().map(wanted).collect();
    ReadRequest { miner: 1000, proof_type: 10, sectors, until: TokioInstant::now() + until }
}

const LONG: Duration = Duration::from_secs(3600);

async fn read_within(reader: &dyn SectorReader, numbers: &[u64], until: Duration) -> BTreeMap<u64, SectorRead> {
    let (tell, mut answers) = mpsc::unbounded_channel();
    reader.read(request(numbers, until), &tell).await;
    drop(tell);
    let mut read = BTreeMap::new();
    while let Some((number, answer)) = answers.recv().await {
        assert!(read.insert(number, answer).is_none(), "two answers for {number}");
    }
    read
}

fn proof() -> SectorRead {
    SectorRead::Proof(vec![5; 8])
}

/// Why it is late.
fn late(read: &BTreeMap<u64, SectorRead>, number: u64) -> &str {
    match &read[&number] {
        SectorRead::Late(why) => why,
        other => panic!("{number} is not late: {other:?}"),
    }
}

/// One file that hangs keeps no answer back: neither of its own path nor of the other.
#[tokio::test]
async fn a_hung_file_of_a_host_costs_no_other_sector() {
    let disks = Arc::new(Disks { here: vec![1, 2, 3, 4], hung: vec![3], ..Disks::default() });
    let (tree, far) = host(&disks);
    let said = far.storage.ask(Has { miner: 1000, sectors: vec![1, 2, 3, 4, 5] }, LONG).await.unwrap();
    assert_eq!(said, HasAnswer { here: vec![1, 2, 4], unknown: vec![3] });

    let prover = Arc::new(ScriptedProver::new());
    let index = SectorIndex::new(1000, Arc::new(vec![far]));
    let reader = PostReader { local: reader(&Arc::new(Disks::default()), &prover), index };
    let read = read_within(&reader, &[1, 2, 3, 4, 5], Duration::from_secs(60)).await;
    assert!([1, 2, 4].iter().all(|number| read[number] == proof()), "{read:?}");
    assert_eq!(late(&read, 3), "a disk of far does not answer");
    assert_eq!(late(&read, 5), "no storage that is registered has its files");
    disks.release();
    tree.shutdown().await;
}

/// A host that restarts is not registered for a while; so is everybody as long as this node has no view.
#[tokio::test]
async fn in_a_cluster_a_sector_that_nobody_has_is_late() {
    struct Cluster(Option<&'static str>);
    impl Storages for Cluster {
        fn seen(&self) -> Option<Seen> {
            Some(Seen { nodes: vec![], trouble: self.0.map(String::from) })
        }
    }
    let prover = Arc::new(ScriptedProver::new());
    for (trouble, why) in [(None, "no storage that is registered"), (Some("no contact"), "no contact")] {
        let disks = Arc::new(Disks { here: vec![1], ..Disks::default() });
        let index = SectorIndex::new(1000, Arc::new(Cluster(trouble)));
        let read = read_within(&PostReader { local: reader(&disks, &prover), index }, &[1, 2], LONG).await;
        assert_eq!(read[&1], proof());
        assert!(late(&read, 2).contains(why), "{read:?}");
    }
    // Alone the file is missing, or not; nobody else is waited for.
    let disks = Arc::new(Disks::default());
    let index = SectorIndex::new(1000, Arc::new(NoStorages));
    let homes = index.find(&reader(&disks, &prover), &[2]).await;
    assert!(matches!(homes[&2], Location::Here));
}

/// The end of a prover that says nothing of the sector or of its path: the next read begins at once and is whole.
#[tokio::test]
async fn what_the_host_does_to_a_reader_costs_neither_sector_nor_path() {
    let task = || "Vanilla".to_string();
    let ends = [
        ProverError::Killed { task: task(), signal: 9 },
        ProverError::OutOfMemory { task: task() },
        ProverError::NotStarted { task: task(), why: "EAGAIN".into() },
        ProverError::Failed { task: task(), why: "no threads".into() },
        ProverError::Segfault { task: task() },
        ProverError::Aborted { task: task() },
    ];
    for end in ends {
        let (disks, prover) = (Arc::new(Disks::default()), Arc::new(ScriptedProver::new()));
        let reader = reader(&disks, &prover);
        prover.then("Vanilla", Step::error(end.clone()));
        let read = read_within(&reader, &[1], LONG).await;
        assert_eq!(late(&read, 1), end.to_string());
        assert_eq!(read_within(&reader, &[1], LONG).await[&1], proof(), "after {end}");
    }
}

/// The time ran out on a read, not on a path; a whole read without an answer closes the path for a while.
#[tokio::test]
async fn only_a_whole_read_without_an_answer_closes_a_path() {
    let (disks, prover) = (Arc::new(Disks::default()), Arc::new(ScriptedProver::new()));
    let reader = reader(&disks, &prover);
    let hung = || Step::error(ProverError::Hung { task: "Vanilla".into(), after: Duration::from_secs(120) });
    prover.then("Vanilla", hung()).then("Vanilla", hung());
    assert!(late(&read_within(&reader, &[1], Duration::from_secs(60)).await, 1).contains("gave no result"));
    assert!(late(&read_within(&reader, &[1], LONG).await, 1).contains("gave no result"), "the path is read again");
    let closed = read_within(&reader, &[1, 2], LONG).await;
    assert!(late(&closed, 1).contains("it is read again in"), "{closed:?}");
    assert_eq!(closed[&2], proof(), "another path");
}

#[tokio::test]
async fn the_sector_that_crashes_the_reader_is_late_and_the_others_are_read() {
    let (disks, prover) = (Arc::new(Disks::default()), Arc::new(ScriptedProver::new()));
    let reader = reader(&disks, &prover);
    let crash = || Step::error(ProverError::Segfault { task: "Vanilla".into() });
    // All four; then 1 and 3 together; then 1 alone.
    prover.then("Vanilla", crash()).then("Vanilla", crash()).then("Vanilla", crash());
    let read = read_within(&reader, &[1, 3, 5, 7], LONG).await;
    assert!(late(&read, 1).contains("SIGSEGV"));
    assert!([3, 5, 7].iter().all(|number| read[number] == proof()), "{read:?}");
}

#[tokio::test]
async fn an_error_of_the_disk_that_passes_is_late() {
    let disks = Arc::new(Disks { stale: vec![3], ..Disks::default() });
    let read = read_within(&reader(&disks, &Arc::new(ScriptedProver::new())), &[1, 3], LONG).await;
    assert_eq!((&read[&1], late(&read, 3)), (&proof(), LATE_ERROR));
}

#[test]
fn an_older_node_is_told_what_is_here() {
    let new = HasAnswer { here: vec![1], unknown: vec![2] };
    assert_eq!(HasV1::downgrade_reply(&new).unwrap(), [1]);
    assert_eq!(HasV1::upgrade_reply(vec![1]), HasAnswer { here: vec![1], unknown: vec![] });
    let ask = Has { miner: 1000, sectors: vec![1, 2] };
    assert_eq!(HasV1::downgrade(&ask).unwrap().upgrade(), ask);
}
