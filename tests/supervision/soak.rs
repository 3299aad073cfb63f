//! Many crashes over a tree, from several threads at once: nothing is lost, nobody is forgotten.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const ACTORS: usize = 200;
const CRASHES: u64 = 20_000;
const SOON: Duration = Duration::from_secs(30);

struct Worker {
    alive: Arc<AtomicI64>,
}
impl Worker {
    fn new(alive: Arc<AtomicI64>) -> Worker {
        alive.fetch_add(1, Ordering::SeqCst);
        Worker { alive }
    }
}
impl Drop for Worker {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}
impl Actor for Worker {}

struct Crash(u64);
impl Message for Crash {
    type Reply = ();
}
struct Ping;
impl Message for Ping {
    type Reply = u64;
}
impl Handler<Crash> for Worker {
    async fn handle(&mut self, Crash(n): Crash, cx: &Cx<Self>) -> Result<(), Exit> {
        match n % 4 {
            0 => panic!("{n}"),
            1 => {
                tokio::task::yield_now().await;
                panic!("{n}")
            }
            2 => cx.spawn_detached(async { panic!("in the background") }),
            _ => return Err(Exit::failed("told to")),
        }
        std::future::pending().await
    }
}
impl Handler<Ping> for Worker {
    async fn handle(&mut self, _: Ping, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

#[test]
fn crashes_from_many_threads_lose_nobody() {
    let alive = Arc::new(AtomicI64::new(0));
    let refs: Vec<Ref<Worker>> = (0..ACTORS).map(|n| Ref::new(format!("/{n}"), 8)).collect();
    let group = |id: &str, range: std::ops::Range<usize>, strategy| {
        let spec = SupervisorSpec::new(id)
            .strategy(strategy)
            .backoff(RestartBackoff::NONE)
            .intensity(u32::MAX, Duration::from_millis(1));
        range.fold(spec, |spec, n| {
            let alive = alive.clone();
            let thread = Thread::Shared(["one", "two"][n % 2]);
            let start = move |_| {
                let alive = alive.clone();
                async move { Ok(Worker::new(alive)) }
            };
            spec.child(ChildSpec::actor(format!("w{n}"), &refs[n], start).on(thread))
        })
    };
    let root = SupervisorSpec::new("root")
        .child(ChildSpec::supervisor(group("one", 0..190, Strategy::OneForOne)))
        .child(ChildSpec::supervisor(group("all", 190..194, Strategy::OneForAll)))
        .child(ChildSpec::supervisor(group("rest", 194..ACTORS, Strategy::RestForOne)));
    let tree = Tree::start(root).unwrap();
    let crashed = AtomicU64::new(0);
    std::thread::scope(|s| {
        for seed in 0..4u64 {
            let (refs, crashed) = (&refs, &crashed);
            s.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let mut n = seed;
                    while crashed.load(Ordering::SeqCst) < CRASHES {
                        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let victim = &refs[(n >> 33) as usize % ACTORS];
                        let answer = victim.ask(Crash(n >> 40), SOON).await;
                        match answer {
                            Err(CallError::Panicked | CallError::Exited(_)) => {
                                crashed.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(CallError::Restarting(_) | CallError::Full(_)) => tokio::task::yield_now().await,
                            other => panic!("{other:?}"),
                        }
                    }
                });
            });
        }
    });
    futures::executor::block_on(async {
        for address in &refs {
            loop {
                match address.ask(Ping, SOON).await {
                    Ok(_) => break,
                    Err(CallError::Timeout) => panic!("{} never answered", address.path()),
                    Err(_) => std::thread::yield_now(),
                }
            }
        }
        assert_eq!(alive.load(Ordering::SeqCst), ACTORS as i64, "one state per actor");
        let rows = tree.snapshot();
        assert!(rows.iter().all(|row| row.mailbox_depth == 0 && row.restarts + 1 == row.incarnation));
        assert!(rows.iter().map(|row| row.restarts).sum::<u64>() >= CRASHES / 2);
        assert_eq!(tree.zombies(), 0);
        assert_eq!(tree.shutdown().await, Exit::Shutdown);
    });
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}
