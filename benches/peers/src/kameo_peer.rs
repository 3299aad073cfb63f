//! kameo: unbounded mailboxes for tells, asks without a deadline, supervised children for the fault rows.

use crate::measure::{Aside, give_way, p50_p99, per, roomy, single};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox::unbounded;
use kameo::message::{Context, Message};
use kameo::supervision::RestartPolicy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[derive(Clone, Default)]
struct Args {
    tell_at: u64,
    done: Option<mpsc::Sender<()>>,
    incarnations: Arc<AtomicU64>,
}

struct Worker {
    args: Args,
    seen: u64,
    incarnation: u64,
}
impl Actor for Worker {
    type Args = Args;
    type Error = Infallible;
    async fn on_start(args: Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        let incarnation = args.incarnations.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Worker { args, seen: 0, incarnation })
    }
}

struct Count;
impl Message<Count> for Worker {
    type Reply = ();
    async fn handle(&mut self, _: Count, _: &mut Context<Self, ()>) {
        self.seen += 1;
        if self.seen == self.args.tell_at
            && let Some(done) = &self.args.done
        {
            let _ = done.send(());
        }
    }
}

struct Echo(u64);
impl Message<Echo> for Worker {
    type Reply = u64;
    async fn handle(&mut self, Echo(n): Echo, _: &mut Context<Self, u64>) -> u64 {
        n + 1
    }
}

struct Incarnation;
impl Message<Incarnation> for Worker {
    type Reply = u64;
    async fn handle(&mut self, _: Incarnation, _: &mut Context<Self, u64>) -> u64 {
        self.incarnation
    }
}

struct Crash;
impl Message<Crash> for Worker {
    type Reply = ();
    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        panic!("on purpose")
    }
}

struct Supervisor;
impl Actor for Supervisor {
    type Args = ();
    type Error = Infallible;
    async fn on_start(_: (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Supervisor)
    }
}

fn worker(aside: &Aside, tell_at: u64, done: Option<mpsc::Sender<()>>) -> ActorRef<Worker> {
    let args = Args { tell_at, done, ..Args::default() };
    aside.run(async move {
        let to = Worker::spawn_with_mailbox(args, unbounded());
        to.wait_for_startup().await;
        to
    })
}

async fn ask_in_turn(to: &ActorRef<Worker>, times: usize) -> Vec<u64> {
    let mut nanos = Vec::with_capacity(times);
    for n in 0..times as u64 {
        let begin = Instant::now();
        let _ = to.ask(Echo(n)).send().await;
        nanos.push(begin.elapsed().as_nanos() as u64);
    }
    nanos
}

pub fn tell(producers: u64, total: u64) -> Vec<f64> {
    let aside = Aside::new();
    let (tx, rx) = mpsc::channel();
    let to = worker(&aside, total, Some(tx));
    let begin = Instant::now();
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let to = to.clone();
            std::thread::spawn(move || (0..total / producers).for_each(|_| drop(to.tell(Count).try_send())))
        })
        .collect();
    rx.recv().expect("all were handled");
    let took = begin.elapsed();
    threads.into_iter().for_each(|t| drop(t.join()));
    vec![per(took, total)]
}

pub fn ask_cross(times: usize) -> Vec<f64> {
    let aside = Aside::new();
    let to = worker(&aside, 0, None);
    let (p50, p99) = p50_p99(single().block_on(ask_in_turn(&to, times)));
    vec![p50 / 1e3, p99 / 1e3]
}

pub fn ask_same(times: usize) -> Vec<f64> {
    let aside = Aside::new();
    let to = worker(&aside, 0, None);
    let (p50, p99) = p50_p99(aside.run(async move { ask_in_turn(&to, times).await }));
    vec![p50, p99]
}

pub fn in_flight(times: usize) -> Vec<f64> {
    let aside = Aside::new();
    let to = worker(&aside, 0, None);
    let took = single().block_on(async {
        let begin = Instant::now();
        let mut all: FuturesUnordered<_> = (0..64)
            .map(|_| async {
                for n in 0..times as u64 / 64 {
                    let _ = to.ask(Echo(n)).send().await;
                }
            })
            .collect();
        while all.next().await.is_some() {}
        begin.elapsed()
    });
    vec![times as f64 / took.as_secs_f64()]
}

pub fn spawn(actors: usize) -> Vec<f64> {
    roomy(async move {
        let root = &Supervisor::spawn(());
        let all = &std::sync::Mutex::new(Vec::with_capacity(actors * 2));
        let one = |_: usize| async move {
            let child = Worker::supervise(root, Args::default()).spawn().await;
            child.wait_for_startup().await;
            all.lock().expect("the list").push(child);
        };
        let begin = Instant::now();
        for n in 0..actors {
            one(n).await;
        }
        let in_turn = begin.elapsed();
        let begin = Instant::now();
        futures::stream::iter(0..actors).for_each_concurrent(64, one).await;
        [in_turn, begin.elapsed()].map(|t| per(t, actors as u64) / 1e3).to_vec()
    })
}

pub fn crash(times: usize) -> Vec<f64> {
    roomy(async move {
        let root = Supervisor::spawn(());
        let child = Worker::supervise(&root, Args::default())
            .restart_policy(RestartPolicy::Permanent)
            .restart_limit(u32::MAX, Duration::from_secs(3600))
            .spawn()
            .await;
        let mut nanos = Vec::new();
        let mut before = child.ask(Incarnation).send().await.unwrap_or(0);
        for _ in 0..times {
            let begin = Instant::now();
            let _ = child.tell(Crash).try_send();
            loop {
                match child.ask(Incarnation).send().await {
                    Ok(now) if now > before => {
                        before = now;
                        break;
                    }
                    _ => give_way().await,
                }
            }
            nanos.push(begin.elapsed().as_nanos() as u64);
        }
        let (p50, p99) = p50_p99(nanos);
        vec![p50 / 1e3, p99 / 1e3]
    })
}

pub fn flood(total: u64) -> Vec<f64> {
    let aside = Aside::new();
    let (tx, rx) = mpsc::channel();
    let (flooded, neighbour) = (worker(&aside, total, Some(tx)), worker(&aside, 0, None));
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let (under_way, begun) = mpsc::channel();
    let asker = std::thread::spawn(move || {
        single().block_on(async {
            let mut nanos = ask_in_turn(&neighbour, 1).await;
            let _ = under_way.send(());
            while !seen.load(Ordering::Relaxed) {
                nanos.extend(ask_in_turn(&neighbour, 1).await);
            }
            nanos
        })
    });
    let _ = begun.recv();
    (0..total).for_each(|_| drop(flooded.tell(Count).try_send()));
    rx.recv().expect("all were handled");
    over.store(true, Ordering::Relaxed);
    let nanos = asker.join().expect("the asker");
    let max = nanos.iter().max().copied().unwrap_or(0) as f64;
    vec![p50_p99(nanos).1 / 1e3, max / 1e3]
}

/// Its supervisor neither starts nor stops children in order: both are done one after the other by hand.
pub fn tree(actors: usize) -> Vec<f64> {
    roomy(async move {
        let root = Supervisor::spawn(());
        let begin = Instant::now();
        let mut all = Vec::with_capacity(actors);
        for _ in 0..actors {
            let child = Worker::supervise(&root, Args::default()).restart_policy(RestartPolicy::Never).spawn().await;
            child.wait_for_startup().await;
            all.push(child);
        }
        let started = begin.elapsed();
        let begin = Instant::now();
        for child in all.into_iter().rev() {
            let _ = child.stop_gracefully().await;
            child.wait_for_shutdown().await;
        }
        vec![started.as_secs_f64() * 1e3, begin.elapsed().as_secs_f64() * 1e3]
    })
}
