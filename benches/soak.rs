//! A million crashes over a tree of 200 actors on real threads: what memory, threads and descriptors are left afterwards.
//!
//! `cargo bench --bench soak` (minutes); `cargo bench --bench soak -- 50000` for fewer crashes. Exits 1 on a leak.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ACTORS: usize = 200;
const ASKERS: u64 = 4;
const SOON: Duration = Duration::from_secs(60);

struct Worker {
    alive: Arc<AtomicI64>,
    /// So that a state which is not dropped shows.
    _ballast: Vec<u8>,
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

#[derive(Debug, Clone, Copy)]
struct Usage {
    rss_kib: u64,
    threads: usize,
    descriptors: usize,
}

fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|l| l.split_whitespace().next());
    let count = |dir: &str| std::fs::read_dir(dir).map_or(0, |d| d.count());
    Usage {
        rss_kib: rss.and_then(|n| n.parse().ok()).unwrap_or(0),
        threads: count("/proc/self/task"),
        descriptors: count("/proc/self/fd"),
    }
}

/// The process itself, the supervisors' chores, the asks' deadlines, the watchdog, and the two threads that the actors share.
const THREADS: usize = 6;

/// A thread that was joined may be listed for a moment longer.
fn usage_at_rest() -> Usage {
    let until = Instant::now() + SOON;
    loop {
        let now = usage();
        if now.threads <= THREADS || Instant::now() > until {
            return now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Crashes until `crashed` is `until`.
fn crash(refs: &[Ref<Worker>], crashed: &AtomicU64, until: u64) {
    std::thread::scope(|s| {
        for seed in 0..ASKERS {
            s.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                runtime.block_on(async {
                    let mut n = seed;
                    while crashed.load(Ordering::SeqCst) < until {
                        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let victim = &refs[(n >> 33) as usize % refs.len()];
                        match victim.ask(Crash(n >> 40), SOON).await {
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
}

fn main() {
    let total = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1_000_000u64);
    let alive = Arc::new(AtomicI64::new(0));
    let refs: Vec<Ref<Worker>> = (0..ACTORS).map(|n| Ref::new(format!("/{n}"), 8)).collect();
    let mut root = SupervisorSpec::new("root");
    for group in 0..ACTORS / 20 {
        let mut spec = SupervisorSpec::new(format!("group{group}"))
            .backoff(RestartBackoff::NONE)
            .intensity(u32::MAX, Duration::from_millis(1))
            .strategy(if group == 0 { Strategy::RestForOne } else { Strategy::OneForOne });
        for n in group * 20..group * 20 + 20 {
            let alive = alive.clone();
            let start = move |_| {
                alive.fetch_add(1, Ordering::SeqCst);
                let worker = Worker { alive: alive.clone(), _ballast: vec![1; 4096] };
                async move { Ok(worker) }
            };
            let thread = Thread::Shared(["one", "two"][n % 2]);
            spec = spec.child(ChildSpec::actor(format!("w{n}"), &refs[n], start).on(thread));
        }
        root = root.child(ChildSpec::supervisor(spec));
    }
    let tree = Tree::start(root).expect("a tree");
    let crashed = AtomicU64::new(0);
    crash(&refs, &crashed, total / 10); // allocators and pools have grown to what they need
    let (before, begun) = (usage_at_rest(), Instant::now());
    crash(&refs, &crashed, total);
    let took = begun.elapsed();
    let after = usage_at_rest();
    let done = crashed.load(Ordering::SeqCst) - total / 10;
    println!("{done} crashes over {ACTORS} actors in {took:.1?}: {:.0}/s", done as f64 / took.as_secs_f64());
    println!("before {before:?}\nafter  {after:?}");
    futures::executor::block_on(tree.shutdown());
    let left = alive.load(Ordering::SeqCst);
    // 16 MiB for what allocators keep; a leaked state would be 4 KiB a crash.
    let leak = after.rss_kib > before.rss_kib + 16 * 1024
        || after.threads > THREADS
        || after.descriptors > before.descriptors
        || left != 0
        || tree.zombies() != 0;
    println!("{} states left, {} zombies: {}", left, tree.zombies(), if leak { "LEAK" } else { "no leak" });
    std::process::exit(i32::from(leak));
}
