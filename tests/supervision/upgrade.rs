//! Another spec for a running supervisor, starts that choose not to run, and too many stuck threads, on real threads.

use bulkhead::supervisor::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Worker(&'static str);
impl Actor for Worker {}

struct Who;
impl Message for Who {
    type Reply = (&'static str, u64);
}
impl Handler<Who> for Worker {
    async fn handle(&mut self, _: Who, cx: &Cx<Self>) -> Result<(&'static str, u64), Exit> {
        Ok((self.0, cx.incarnation()))
    }
}
struct Crash;
impl Message for Crash {
    type Reply = ();
}
impl Handler<Crash> for Worker {
    async fn handle(&mut self, _: Crash, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("as told")
    }
}

fn child(id: &str, address: &Ref<Worker>, version: &'static str) -> ChildSpec {
    ChildSpec::actor(id, address, move |_| async move { Ok(Worker(version)) })
}

fn spec() -> SupervisorSpec {
    SupervisorSpec::new("group").backoff(RestartBackoff::NONE).intensity(3, SOON)
}

async fn who(address: &Ref<Worker>, incarnation: u64) -> &'static str {
    tokio::time::timeout(SOON, async {
        loop {
            // Short: what waits in the mailbox of a stuck thread waits as long as that does.
            match address.ask(Who, Duration::from_millis(200)).await {
                Ok((version, n)) if n == incarnation => return version,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("that incarnation")
}

#[tokio::test]
async fn children_run_on_and_get_the_new_spec_at_their_next_start() {
    let [a, b, c] = ["/a", "/b", "/c"].map(|path| Ref::<Worker>::new(path, 4));
    let group = spec().child(child("a", &a, "old")).child(child("b", &b, "old"));
    let tree = Tree::start(SupervisorSpec::new("root").child(ChildSpec::supervisor(group))).unwrap();
    let group = tree.supervisor("root/group").unwrap();

    // Faulty: the old one stays.
    let field = |e: UpgradeError| match e {
        UpgradeError::Spec(SpecError::Field { field, .. }) => field,
        other => panic!("{other}"),
    };
    let twice = spec().child(child("a", &a, "new")).child(child("a", &a, "new"));
    assert!(matches!(group.upgrade(twice).await, Err(UpgradeError::Spec(SpecError::DuplicateId { .. }))));
    let elsewhere = Ref::new("/elsewhere", 4);
    for (expected, faulty) in [
        ("id", SupervisorSpec::new("other")),
        ("period", spec().intensity(1, Duration::ZERO)),
        ("dynamic", spec().dynamic(3)),
        ("address", spec().child(child("a", &elsewhere, "new"))),
        ("kind", spec().child(ChildSpec::supervisor(SupervisorSpec::new("a")))),
        ("auto_shutdown", spec().child(child("a", &a, "new").restart(Restart::Transient).significant())),
    ] {
        assert_eq!(field(group.upgrade(faulty).await.unwrap_err()), expected);
    }
    assert_eq!(tree.info("root/group").unwrap().restart_budget, Some(3));

    // b goes, c comes, a is changed; the order is another.
    let next = spec().intensity(5, SOON).child(child("c", &c, "new")).child(child("a", &a, "new"));
    group.upgrade(next).await.unwrap();
    assert_eq!(
        group.which_children().await.unwrap(),
        [("c".into(), Some(false)), ("a".into(), Some(true)), ("b".into(), Some(true))]
    );
    let rows: Vec<String> = tree.snapshot().into_iter().map(|row| row.path).collect();
    assert_eq!(rows, ["root", "root/group", "root/group/c", "root/group/a", "root/group/b"]);
    assert_eq!((who(&a, 1).await, who(&b, 1).await), ("old", "old"), "nobody was touched");
    assert_eq!(tree.info("root/group").unwrap().restart_budget, Some(5));
    assert!(matches!(a.ask(Crash, SOON).await, Err(CallError::Panicked)));
    assert_eq!(who(&a, 2).await, "new");
    assert!(matches!(b.ask(Crash, SOON).await, Err(CallError::Panicked)));
    assert_eq!(who(&b, 2).await, "old");
    group.restart_child("c").await.unwrap();
    assert_eq!(who(&c, 1).await, "new");

    // Reports under keys that two upgrades have changed since.
    group.upgrade(spec().child(child("a", &a, "newer")).child(child("c", &c, "newer"))).await.unwrap();
    group.upgrade(spec().child(child("c", &c, "newest")).child(child("a", &a, "newest"))).await.unwrap();
    assert!(matches!(c.ask(Crash, SOON).await, Err(CallError::Panicked)));
    assert_eq!(who(&c, 2).await, "newest");
    assert!(tree.kill("root/group/a"));
    assert_eq!(who(&a, 3).await, "newest");

    // The next incarnation of the supervisor is of the new spec: without b.
    assert!(tree.kill("root/group"));
    assert_eq!(who(&a, 4).await, "newest");
    let rows: Vec<String> = tree.snapshot().into_iter().map(|row| row.path).collect();
    assert_eq!(rows, ["root", "root/group", "root/group/c", "root/group/a"]);
    // And b's address is free again.
    tree.supervisor("root").unwrap().start_child(child("b", &b, "elsewhere")).await.unwrap();
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn a_start_may_choose_not_to_run() {
    let (a, b) = (Ref::<Worker>::new("/a", 4), Ref::<Worker>::new("/b", 4));
    let wanted = Arc::new(AtomicBool::new(false));
    let seen = wanted.clone();
    let optional = ChildSpec::optional("a", &a, move |_| {
        let run = seen.load(Ordering::SeqCst);
        async move { Ok(run.then_some(Worker("optional"))) }
    });
    let group = spec().intensity(0, SOON).child(optional).child(child("b", &b, "b"));
    let tree = Tree::start(SupervisorSpec::new("root").child(ChildSpec::supervisor(group))).unwrap();
    let group = tree.supervisor("root/group").unwrap();
    let counts = group.count_children().await.unwrap();
    assert_eq!([counts.specs, counts.active, counts.supervisors, counts.workers], [2, 1, 0, 2]);
    let row = tree.info("root/group/a").unwrap();
    assert_eq!((row.state, row.last_exit), (ActorState::Stopped, Some(Exit::Ignored)));
    assert!(matches!(a.ask(Who, SOON).await, Err(CallError::NotRunning(_))));
    wanted.store(true, Ordering::SeqCst);
    group.restart_child("a").await.unwrap();
    assert_eq!(a.ask(Who, SOON).await.unwrap().0, "optional");
    let row = tree.info("root/group/a").unwrap();
    assert_eq!((row.incarnation, row.restarts), (2, 0), "the first that ran is no restart");
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

/// Blocks its thread.
struct Block(mpsc::Receiver<()>);
impl Message for Block {
    type Reply = ();
}
impl Handler<Block> for Worker {
    async fn handle(&mut self, m: Block, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = m.0.recv();
        Ok(())
    }
}

#[tokio::test]
async fn more_stuck_threads_than_allowed_end_the_tree() {
    for (stuck, allowed) in [(1, 1), (2, 1)] {
        let refs: Vec<Ref<Worker>> = (0..stuck).map(|n| Ref::new(format!("/{n}"), 4)).collect();
        let beside = Ref::<Worker>::new("/beside", 4);
        let root =
            refs.iter().enumerate().fold(SupervisorSpec::new("root").intensity(9, SOON), |spec, (n, address)| {
                let child = child(&format!("w{n}"), address, "x").hang_after(Duration::from_secs(1));
                spec.child(child.on(Thread::Shared(["one", "two"][n])))
            });
        // On the same thread as the first: one thread that is lost is one, whoever ran there.
        let root = root.backoff(RestartBackoff::NONE).child(child("beside", &beside, "x").on(Thread::Shared("one")));
        let options = TreeOptions { max_zombies: allowed, ..TreeOptions::default() };
        let tree = Tree::start_with(root, options).unwrap();
        let holds: Vec<mpsc::Sender<()>> = refs
            .iter()
            .map(|address| {
                let (hold, held) = mpsc::channel();
                address.tell(Block(held)).unwrap();
                hold
            })
            .collect();
        if stuck > allowed {
            let exit = tokio::time::timeout(SOON, tree.wait()).await.expect("an end");
            assert!(matches!(&exit, Exit::ShutdownWith(why) if why.contains("stuck")), "{exit}");
        } else {
            assert_eq!(who(&refs[0], 2).await, "x");
            assert_eq!(who(&beside, 2).await, "x");
            assert_eq!(tree.zombies(), 1);
            assert_eq!(tree.shutdown().await, Exit::Shutdown);
        }
        drop(holds);
    }
}
