//! Bulkhead's runtime: every actor supervised, every mailbox bounded, every ask with a deadline.

use crate::measure::{give_way, p50_p99, per};
use crate::supervisor::*;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

struct Worker {
    seen: u64,
    tell_at: u64,
    done: Option<mpsc::Sender<()>>,
}
impl Actor for Worker {}

struct Count;
impl Message for Count {
    type Reply = ();
}
impl Handler<Count> for Worker {
    async fn handle(&mut self, _: Count, _: &Cx<Self>) -> Result<(), Exit> {
        self.seen += 1;
        if self.seen == self.tell_at
            && let Some(done) = &self.done
        {
            let _ = done.send(());
        }
        Ok(())
    }
}

struct Echo(u64);
impl Message for Echo {
    type Reply = u64;
}
impl Handler<Echo> for Worker {
    async fn handle(&mut self, Echo(n): Echo, _: &Cx<Self>) -> Result<u64, Exit> {
        Ok(n + 1)
    }
}

struct Incarnation;
impl Message for Incarnation {
    type Reply = u64;
}
impl Handler<Incarnation> for Worker {
    async fn handle(&mut self, _: Incarnation, cx: &Cx<Self>) -> Result<u64, Exit> {
        Ok(cx.incarnation())
    }
}

struct Crash;
impl Message for Crash {
    type Reply = ();
}
impl Handler<Crash> for Worker {
    async fn handle(&mut self, _: Crash, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("on purpose")
    }
}

/// Asks `to` so many times from its own thread.
struct Ask {
    to: Ref<Worker>,
    times: usize,
}
impl Message for Ask {
    type Reply = Vec<u64>;
}
impl Handler<Ask> for Worker {
    async fn handle(&mut self, ask: Ask, _: &Cx<Self>) -> Result<Vec<u64>, Exit> {
        Ok(ask_in_turn(&ask.to, ask.times).await)
    }
}

async fn ask_in_turn(to: &Ref<Worker>, times: usize) -> Vec<u64> {
    let mut nanos = Vec::with_capacity(times);
    for n in 0..times as u64 {
        let begin = Instant::now();
        let _ = to.ask(Echo(n), DEADLINE).await;
        nanos.push(begin.elapsed().as_nanos() as u64);
    }
    nanos
}

fn child(id: &str, to: &Ref<Worker>, tell_at: u64, done: Option<mpsc::Sender<()>>) -> ChildSpec {
    ChildSpec::actor(id, to, move |_| {
        let done = done.clone();
        async move { Ok(Worker { seen: 0, tell_at, done }) }
    })
    .on(Thread::Shared("bench"))
}

fn start(root: SupervisorSpec) -> Tree {
    Tree::start(root).expect("a tree for the bench")
}

fn runtime() -> tokio::runtime::Runtime {
    crate::measure::single()
}

fn stop(tree: Tree) {
    runtime().block_on(tree.shutdown());
}

pub fn tell(producers: u64, total: u64) -> Vec<f64> {
    let (tx, rx) = mpsc::channel();
    let to = Ref::new("/tell", total as usize + 1);
    let tree = start(SupervisorSpec::new("root").child(child("tell", &to, total, Some(tx))));
    let begin = Instant::now();
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let to = to.clone();
            std::thread::spawn(move || (0..total / producers).for_each(|_| drop(to.tell(Count))))
        })
        .collect();
    rx.recv().expect("all were handled");
    let took = begin.elapsed();
    threads.into_iter().for_each(|t| drop(t.join()));
    stop(tree);
    vec![per(took, total)]
}

pub fn ask_cross(times: usize) -> Vec<f64> {
    let to = Ref::new("/ask", 1024);
    let tree = start(SupervisorSpec::new("root").child(child("ask", &to, 0, None)));
    let nanos = runtime().block_on(ask_in_turn(&to, times));
    stop(tree);
    let (p50, p99) = p50_p99(nanos);
    vec![p50 / 1e3, p99 / 1e3]
}

pub fn ask_same(times: usize) -> Vec<f64> {
    let (asker, to) = (Ref::new("/asker", 4), Ref::new("/ask", 1024));
    let tree =
        start(SupervisorSpec::new("root").child(child("ask", &to, 0, None)).child(child("asker", &asker, 0, None)));
    let nanos = runtime().block_on(asker.ask(Ask { to, times }, DEADLINE)).unwrap_or_default();
    stop(tree);
    let (p50, p99) = p50_p99(nanos);
    vec![p50, p99]
}

pub fn in_flight(times: usize) -> Vec<f64> {
    let to = Ref::new("/ask", 1024);
    let tree = start(SupervisorSpec::new("root").child(child("ask", &to, 0, None)));
    let took = runtime().block_on(async {
        let begin = Instant::now();
        let mut all: FuturesUnordered<_> = (0..64)
            .map(|_| async {
                for n in 0..times as u64 / 64 {
                    let _ = to.ask(Echo(n), DEADLINE).await;
                }
            })
            .collect();
        while all.next().await.is_some() {}
        begin.elapsed()
    });
    stop(tree);
    vec![times as f64 / took.as_secs_f64()]
}

pub fn spawn(actors: usize) -> Vec<f64> {
    let tree = start(SupervisorSpec::new("root").dynamic(actors * 2));
    let root = tree.supervisor("root").expect("the root is a supervisor");
    let one = async |n: usize| {
        let to = Ref::new(format!("/w{n}"), 64);
        root.start_child(child(&format!("w{n}"), &to, 0, None)).await.expect("it starts");
    };
    let took = runtime().block_on(async {
        let begin = Instant::now();
        for n in 0..actors {
            one(n).await;
        }
        let in_turn = begin.elapsed();
        let begin = Instant::now();
        futures::stream::iter(actors..actors * 2).for_each_concurrent(64, one).await;
        [in_turn, begin.elapsed()]
    });
    stop(tree);
    took.map(|t| per(t, actors as u64) / 1e3).to_vec()
}

pub fn crash(times: usize) -> Vec<f64> {
    let to = Ref::new("/crash", 64);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(u32::MAX, Duration::from_millis(1));
    let tree = start(root.child(child("crash", &to, 0, None)));
    let nanos = runtime().block_on(async {
        let mut nanos = Vec::new();
        let mut before = to.ask(Incarnation, DEADLINE).await.unwrap_or(0);
        for _ in 0..times {
            let begin = Instant::now();
            let _ = to.tell(Crash);
            loop {
                match to.ask(Incarnation, DEADLINE).await {
                    Ok(now) if now > before => {
                        before = now;
                        break;
                    }
                    _ => give_way().await,
                }
            }
            nanos.push(begin.elapsed().as_nanos() as u64);
        }
        nanos
    });
    stop(tree);
    let (p50, p99) = p50_p99(nanos);
    vec![p50 / 1e3, p99 / 1e3]
}

pub fn flood(total: u64) -> Vec<f64> {
    let (tx, rx) = mpsc::channel();
    let (flooded, neighbour) = (Ref::new("/flooded", total as usize + 1), Ref::new("/neighbour", 64));
    let tree = start(SupervisorSpec::new("root").child(child("flooded", &flooded, total, Some(tx))).child(child(
        "neighbour",
        &neighbour,
        0,
        None,
    )));
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let (under_way, begun) = mpsc::channel();
    let asker = std::thread::spawn(move || {
        runtime().block_on(async {
            let mut nanos = ask_in_turn(&neighbour, 1).await;
            let _ = under_way.send(());
            while !seen.load(Ordering::Relaxed) {
                nanos.extend(ask_in_turn(&neighbour, 1).await);
            }
            nanos
        })
    });
    let _ = begun.recv();
    (0..total).for_each(|_| drop(flooded.tell(Count)));
    rx.recv().expect("all were handled");
    over.store(true, Ordering::Relaxed);
    let nanos = asker.join().expect("the asker");
    stop(tree);
    let max = nanos.iter().max().copied().unwrap_or(0) as f64;
    vec![p50_p99(nanos).1 / 1e3, max / 1e3]
}

pub fn tree(actors: usize) -> Vec<f64> {
    let spec = (0..actors).fold(SupervisorSpec::new("root"), |spec, n| {
        spec.child(child(&format!("w{n}"), &Ref::new(format!("/w{n}"), 64), 0, None))
    });
    let begin = Instant::now();
    let tree = start(spec);
    let started = begin.elapsed();
    let begin = Instant::now();
    stop(tree);
    vec![started.as_secs_f64() * 1e3, begin.elapsed().as_secs_f64() * 1e3]
}
