//! A zombie's late effects are refused: by the store, by its pass, and at the prover's door.

use bulkhead::proofs::{FencedProver, Job, Output, Prover, ProverError, Task};
use bulkhead::store::{Record, Store, StoreError};
use bulkhead::supervisor::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Far more than a loaded machine needs.
const SOON: Duration = Duration::from_secs(120);

#[derive(serde::Serialize, serde::Deserialize)]
struct Line(String);
impl Record for Line {
    const TABLE: &'static str = "lines";
}

struct Worker;
impl Actor for Worker {}

/// What an effect of the woken zombie came to.
#[derive(Debug)]
struct Late {
    store_before_successor_wrote: Result<(), StoreError>,
    pass: Result<(), Fenced>,
    prover: Result<Output, ProverError>,
    store: Result<(), StoreError>,
}

struct Block {
    until: Arc<Mutex<mpsc::Receiver<()>>>,
    began: mpsc::Sender<()>,
    store: Store,
    prover: Arc<dyn Prover>,
    late: mpsc::Sender<Late>,
}
impl Message for Block {
    type Reply = ();
}
impl Handler<Block> for Worker {
    async fn handle(&mut self, m: Block, cx: &Cx<Self>) -> Result<(), Exit> {
        let (token, pass) = (cx.token(), cx.pass());
        pass.check().expect("it is the present one");
        let prover = FencedProver::shared(&m.prover, pass.clone());
        m.store.put(&token, "k", &Line("first".into())).unwrap();
        let _ = m.began.send(());
        let wait = || {
            let _ = m.until.lock().unwrap().recv();
        };
        wait();
        let (pass, late) = (pass.check(), m.store.put(&token, "k", &Line("zombie".into())));
        let job = Job { task: Task::Finalize { cache_dir: "/x".into() }, job_dir: None, max_runtime: SOON };
        let prover = futures::executor::block_on(prover.run(job));
        let _ = m.began.send(());
        wait();
        let store = m.store.put(&token, "k", &Line("zombie".into()));
        let _ = m.late.send(Late { store_before_successor_wrote: late, pass, prover, store });
        Ok(())
    }
}

struct Write(Store, &'static str);
impl Message for Write {
    type Reply = ();
}
impl Handler<Write> for Worker {
    async fn handle(&mut self, m: Write, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.pass().check().map_err(Exit::failed)?;
        m.0.put(&cx.token(), "k", &Line(m.1.into())).map_err(Exit::failed)
    }
}

#[derive(Default)]
struct Counting(AtomicU64);
#[async_trait::async_trait]
impl Prover for Counting {
    async fn run(&self, _: Job) -> Result<Output, ProverError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Output::Done)
    }
}

#[tokio::test]
async fn a_zombies_late_effects_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    let prover = Arc::new(Counting::default());
    let address = Ref::<Worker>::new("/worker", 4);
    let child = ChildSpec::actor("worker", &address, |_| async { Ok(Worker) }).on(Thread::Dedicated);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON).child(child);
    let tree = Tree::start(root).unwrap();

    let (free, until) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let (late, lates) = mpsc::channel();
    let until = Arc::new(Mutex::new(until));
    let block = Block { until, began, store: store.clone(), prover: prover.clone(), late };
    address.tell(block).unwrap();
    begun.recv().unwrap();
    // It does not die of it, so its thread is given up.
    assert!(tree.kill("root/worker"));
    tokio::time::timeout(SOON, async {
        while tree.info("root/worker").is_none_or(|row| row.incarnation < 2 || row.state != ActorState::Up) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a successor");

    // It wakes up before its successor has written anything: the store cannot know yet, the pass does.
    free.send(()).unwrap();
    begun.recv().unwrap();
    address.ask(Write(store.clone(), "second"), SOON).await.unwrap();
    free.send(()).unwrap();
    let late = lates.recv_timeout(SOON).unwrap();
    assert_eq!(late.pass, Err(Fenced { path: "/worker".into(), epoch: 1, newer: 2 }));
    assert!(matches!(&late.prover, Err(ProverError::NotStarted { why, .. }) if why.contains("fenced off")), "{late:?}");
    assert_eq!(prover.0.load(Ordering::SeqCst), 0, "it was given no slot");
    assert!(late.store_before_successor_wrote.is_ok());
    assert!(matches!(late.store, Err(StoreError::Fenced { epoch: 1, newer: 2, .. })), "{late:?}");
    assert_eq!(store.get::<Line>("k").unwrap().unwrap().0, "second");
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

/// As a lease would: it ends, and a later one begins under a higher epoch.
#[derive(Default)]
struct Lease(AtomicU64);
impl EpochSource for Lease {
    fn epoch_base(&self) -> u64 {
        self.0.load(Ordering::SeqCst) << 32
    }
    fn holds(&self, epoch: u64) -> bool {
        epoch >> 32 == self.0.load(Ordering::SeqCst)
    }
}

struct Rights;
impl Message for Rights {
    type Reply = (u64, Pass);
}
impl Handler<Rights> for Worker {
    async fn handle(&mut self, _: Rights, cx: &Cx<Self>) -> Result<(u64, Pass), Exit> {
        Ok((cx.token().epoch, cx.pass()))
    }
}

#[tokio::test]
async fn a_pass_ends_with_its_tenure_and_a_later_tenure_has_a_higher_epoch() {
    let lease = Arc::new(Lease::default());
    lease.0.store(7, Ordering::SeqCst);
    let address = Ref::<Worker>::new("/worker", 4);
    let child = ChildSpec::actor("worker", &address, |_| async { Ok(Worker) }).under(lease.clone());
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(9, SOON).child(child);
    let options = TreeOptions { epoch_base: 3 << 32, ..TreeOptions::default() };
    let tree = Tree::start_with(root, options).unwrap();

    let (epoch, pass) = address.ask(Rights, SOON).await.unwrap();
    assert_eq!(epoch, (7 << 32) + 1, "counted from the lease, not from the tree");
    assert_eq!(pass.check(), Ok(()));
    lease.0.store(8, Ordering::SeqCst);
    let fenced = pass.check().unwrap_err();
    assert_eq!(fenced, Fenced { path: "/worker".into(), epoch, newer: epoch });
    assert!(fenced.to_string().contains("end of its tenure"), "{fenced}");

    let root = tree.supervisor("root").unwrap();
    root.try_terminate_child("worker").await.unwrap();
    root.restart_child("worker").await.unwrap();
    let (next, renewed) = address.ask(Rights, SOON).await.unwrap();
    assert_eq!(next, (8 << 32) + 2);
    assert_eq!(renewed.check(), Ok(()));
    assert_eq!(pass.check(), Err(Fenced { path: "/worker".into(), epoch, newer: next }));
    tree.shutdown().await;
}
