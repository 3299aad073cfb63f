//! ractor: mailboxes are unbounded, asks without a deadline; its supervisor restarts by hand, as its users must.

use crate::measure::{Aside, give_way, p50_p99, per, roomy, single};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

struct Worker;

#[cfg_attr(feature = "remote", derive(ractor_cluster::RactorMessage))] // its cluster takes the blanket one away
enum Msg {
    Count,
    Echo(u64, RpcReplyPort<u64>),
    Incarnation(RpcReplyPort<u64>),
    Crash,
}

#[derive(Default)]
struct Args {
    tell_at: u64,
    done: Option<mpsc::Sender<()>>,
    incarnation: u64,
}

struct State {
    args: Args,
    seen: u64,
}

impl Actor for Worker {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;
    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State { args, seen: 0 })
    }
    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Count => {
                state.seen += 1;
                if state.seen == state.args.tell_at
                    && let Some(done) = &state.args.done
                {
                    let _ = done.send(());
                }
            }
            Msg::Echo(n, reply) => drop(reply.send(n + 1)),
            Msg::Incarnation(reply) => drop(reply.send(state.args.incarnation)),
            Msg::Crash => panic!("on purpose"),
        }
        Ok(())
    }
}

/// Starts the child anew when it failed, and publishes its address.
struct Supervisor {
    child: Arc<Mutex<Option<ActorRef<Msg>>>>,
}

impl Actor for Supervisor {
    type Msg = ();
    type State = u64;
    type Arguments = bool;
    async fn pre_start(&self, myself: ActorRef<()>, with_child: bool) -> Result<u64, ActorProcessingErr> {
        if with_child {
            self.start(&myself, 1).await?;
        }
        Ok(1)
    }
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        incarnation: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            *incarnation += 1;
            self.start(&myself, *incarnation).await?;
        }
        Ok(())
    }
}

impl Supervisor {
    async fn start(&self, myself: &ActorRef<()>, incarnation: u64) -> Result<(), ActorProcessingErr> {
        let args = Args { incarnation, ..Args::default() };
        let (child, _) = Actor::spawn_linked(None, Worker, args, myself.get_cell()).await?;
        *self.child.lock().expect("the child's address") = Some(child);
        Ok(())
    }
}

async fn supervisor(with_child: bool) -> (ActorRef<()>, Arc<Mutex<Option<ActorRef<Msg>>>>) {
    let child: Arc<Mutex<Option<ActorRef<Msg>>>> = Arc::default();
    let (root, _) = Actor::spawn(None, Supervisor { child: child.clone() }, with_child).await.expect("it starts");
    (root, child)
}

fn worker(aside: &Aside, tell_at: u64, done: Option<mpsc::Sender<()>>) -> ActorRef<Msg> {
    let args = Args { tell_at, done, incarnation: 1 };
    aside.run(async move { Actor::spawn(None, Worker, args).await.expect("it starts").0 })
}

async fn ask_in_turn(to: &ActorRef<Msg>, times: usize) -> Vec<u64> {
    let mut nanos = Vec::with_capacity(times);
    for n in 0..times as u64 {
        let begin = Instant::now();
        let _ = to.call(|reply| Msg::Echo(n, reply), None).await;
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
            std::thread::spawn(move || (0..total / producers).for_each(|_| drop(to.cast(Msg::Count))))
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
                    let _ = to.call(|reply| Msg::Echo(n, reply), None).await;
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
        let (root, _) = supervisor(false).await;
        let above = &root;
        let one = |_: usize| async move {
            let _ = Actor::spawn_linked(None, Worker, Args::default(), above.get_cell()).await.expect("it starts");
        };
        let begin = Instant::now();
        for n in 0..actors {
            one(n).await;
        }
        let in_turn = begin.elapsed();
        let begin = Instant::now();
        futures::stream::iter(0..actors).for_each_concurrent(64, one).await;
        let took = [in_turn, begin.elapsed()];
        root.stop(None);
        took.map(|t| per(t, actors as u64) / 1e3).to_vec()
    })
}

pub fn crash(times: usize) -> Vec<f64> {
    roomy(async move {
        let (root, child) = supervisor(true).await;
        let present = || child.lock().expect("the child's address").clone().expect("it was started");
        let mut nanos = Vec::new();
        let mut before = 1;
        for _ in 0..times {
            let begin = Instant::now();
            let _ = present().cast(Msg::Crash);
            loop {
                match present().call(Msg::Incarnation, None).await {
                    Ok(ractor::rpc::CallResult::Success(now)) if now > before => {
                        before = now;
                        break;
                    }
                    _ => give_way().await,
                }
            }
            nanos.push(begin.elapsed().as_nanos() as u64);
        }
        root.stop(None);
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
    (0..total).for_each(|_| drop(flooded.cast(Msg::Count)));
    rx.recv().expect("all were handled");
    over.store(true, Ordering::Relaxed);
    let nanos = asker.join().expect("the asker");
    let max = nanos.iter().max().copied().unwrap_or(0) as f64;
    vec![p50_p99(nanos).1 / 1e3, max / 1e3]
}

/// It stops children at once or by hand; ordered means one after the other by hand.
pub fn tree(actors: usize) -> Vec<f64> {
    roomy(async move {
        let (root, _) = supervisor(false).await;
        let begin = Instant::now();
        let mut all = Vec::with_capacity(actors);
        for _ in 0..actors {
            let args = Args::default();
            all.push(Actor::spawn_linked(None, Worker, args, root.get_cell()).await.expect("it starts").0);
        }
        let started = begin.elapsed();
        let begin = Instant::now();
        for child in all.into_iter().rev() {
            let _ = child.stop_and_wait(None, None).await;
        }
        root.stop(None);
        vec![started.as_secs_f64() * 1e3, begin.elapsed().as_secs_f64() * 1e3]
    })
}
