//! actix as it comes: no supervision that would survive a panic, so those rows are empty.

use crate::measure::{p50_p99, per};
use actix::prelude::*;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

struct Worker {
    seen: u64,
    tell_at: u64,
    done: Option<mpsc::Sender<()>>,
}
impl Actor for Worker {
    type Context = Context<Self>;
}

struct Count;
impl Message for Count {
    type Result = ();
}
impl Handler<Count> for Worker {
    type Result = ();
    fn handle(&mut self, _: Count, _: &mut Context<Self>) {
        self.seen += 1;
        if self.seen == self.tell_at
            && let Some(done) = &self.done
        {
            let _ = done.send(());
        }
    }
}

struct Echo(u64);
impl Message for Echo {
    type Result = u64;
}
impl Handler<Echo> for Worker {
    type Result = u64;
    fn handle(&mut self, Echo(n): Echo, _: &mut Context<Self>) -> u64 {
        n + 1
    }
}

async fn ask_in_turn(to: &Addr<Worker>, times: usize) -> Vec<u64> {
    let mut nanos = Vec::with_capacity(times);
    for n in 0..times as u64 {
        let begin = Instant::now();
        let _ = to.send(Echo(n)).await;
        nanos.push(begin.elapsed().as_nanos() as u64);
    }
    nanos
}

/// An arbiter of its own, as Bulkhead's actors have.
fn with_arbiter<R>(run: impl FnOnce(&Arbiter) -> R) -> R {
    let system = System::new();
    let result = system.block_on(async {
        let arbiter = Arbiter::new();
        let result = run(&arbiter);
        arbiter.stop();
        let _ = arbiter.join();
        result
    });
    System::current().stop();
    let _ = system.run();
    result
}

fn worker(arbiter: &Arbiter, tell_at: u64, done: Option<mpsc::Sender<()>>) -> Addr<Worker> {
    Worker::start_in_arbiter(&arbiter.handle(), move |_| Worker { seen: 0, tell_at, done })
}

fn aside<R: Send + 'static>(run: impl Future<Output = R> + Send + 'static) -> R {
    std::thread::spawn(move || crate::measure::single().block_on(run)).join().expect("the bench's thread")
}

pub fn tell(producers: u64, total: u64) -> Vec<f64> {
    with_arbiter(|arbiter| {
        let (tx, rx) = mpsc::channel();
        let to = worker(arbiter, total, Some(tx));
        let begin = Instant::now();
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let to = to.clone();
                std::thread::spawn(move || (0..total / producers).for_each(|_| to.do_send(Count)))
            })
            .collect();
        rx.recv().expect("all were handled");
        let took = begin.elapsed();
        threads.into_iter().for_each(|t| drop(t.join()));
        vec![per(took, total)]
    })
}

pub fn ask_cross(times: usize) -> Vec<f64> {
    with_arbiter(|arbiter| {
        let to = worker(arbiter, 0, None);
        let (p50, p99) = p50_p99(aside(async move { ask_in_turn(&to, times).await }));
        vec![p50 / 1e3, p99 / 1e3]
    })
}

pub fn ask_same(times: usize) -> Vec<f64> {
    with_arbiter(|arbiter| {
        let to = worker(arbiter, 0, None);
        let (tx, rx) = mpsc::channel();
        arbiter.spawn(async move { drop(tx.send(ask_in_turn(&to, times).await)) });
        let (p50, p99) = p50_p99(rx.recv().unwrap_or_default());
        vec![p50, p99]
    })
}

pub fn in_flight(times: usize) -> Vec<f64> {
    with_arbiter(|arbiter| {
        let to = worker(arbiter, 0, None);
        let took = aside(async move {
            let begin = Instant::now();
            let mut all: FuturesUnordered<_> = (0..64)
                .map(|_| async {
                    for n in 0..times as u64 / 64 {
                        let _ = to.send(Echo(n)).await;
                    }
                })
                .collect();
            while all.next().await.is_some() {}
            begin.elapsed()
        });
        vec![times as f64 / took.as_secs_f64()]
    })
}

pub fn flood(total: u64) -> Vec<f64> {
    with_arbiter(|arbiter| {
        let (tx, rx) = mpsc::channel();
        let (flooded, neighbour) = (worker(arbiter, total, Some(tx)), worker(arbiter, 0, None));
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let (under_way, begun) = mpsc::channel();
        let asker = std::thread::spawn(move || {
            aside(async move {
                let mut nanos = ask_in_turn(&neighbour, 1).await;
                let _ = under_way.send(());
                while !seen.load(Ordering::Relaxed) {
                    nanos.extend(ask_in_turn(&neighbour, 1).await);
                }
                nanos
            })
        });
        let _ = begun.recv();
        (0..total).for_each(|_| flooded.do_send(Count));
        rx.recv().expect("all were handled");
        over.store(true, Ordering::Relaxed);
        let nanos = asker.join().expect("the asker");
        let max = nanos.iter().max().copied().unwrap_or(0) as f64;
        vec![p50_p99(nanos).1 / 1e3, max / 1e3]
    })
}
