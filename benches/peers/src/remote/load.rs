//! The client's side of every row: the same loops over whatever a peer calls an ask and a tell.

use super::plan::{Ask, Plan, Sample, Work};
use crate::measure::p50_p99;
use bytes::Bytes;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};

/// Why a call failed.
#[derive(Debug)]
pub struct Lost(pub String);

impl<E: std::error::Error> From<E> for Lost {
    fn from(error: E) -> Lost {
        Lost(error.to_string())
    }
}

/// A connected client of one peer.
pub trait Caller: Clone + Send + Sync + 'static {
    /// Reconnects without being told.
    const HEALS: bool = false;
    /// Tasks that tell at the same time: for a peer that acknowledges each one.
    const TELLERS: u64 = 1;

    /// The payload echoed: how long it was.
    fn ask(&self, payload: Bytes) -> impl Future<Output = Result<usize, Lost>> + Send;
    /// How often it had to wait until there was room.
    fn tell(&self, payload: Bytes) -> impl Future<Output = Result<u64, Lost>> + Send;
    /// The tells that came.
    fn seen(&self) -> impl Future<Output = Result<u64, Lost>> + Send;
    /// A call that is never answered.
    fn hang(&self) -> impl Future<Output = Lost> + Send;
}

/// Does the work of `plan` over a client from `connect`, whose argument is the client's number.
pub async fn drive<C: Caller, F>(plan: Plan, connect: impl Fn(u64) -> F + Clone + Send + Sync + 'static) -> Vec<Sample>
where
    F: Future<Output = Result<C, Lost>> + Send,
{
    let done = match plan.work.clone() {
        Work::Load { asks, ms, tells } => load(&plan, connect, &asks, Duration::from_millis(ms), tells).await,
        Work::Pending { limit_ms } => pending(connect, Duration::from_millis(limit_ms)).await.map(|s| vec![s]),
        Work::Storm { clients } => storm(connect, clients).await.map(|s| vec![s]),
        Work::Moved { .. } => Err(Lost("only bulkhead's".into())),
    };
    done.unwrap_or_else(|Lost(why)| vec![Sample::Failed { why }])
}

async fn connected<C: Caller, F>(connect: &impl Fn(u64) -> F, n: u64) -> Result<C, Lost>
where
    F: Future<Output = Result<C, Lost>> + Send,
{
    let begin = Instant::now();
    loop {
        match timeout(Duration::from_secs(10), connect(n)).await {
            Ok(Ok(caller)) => return Ok(caller),
            Ok(Err(lost)) if begin.elapsed() > Duration::from_secs(20) => return Err(lost),
            Err(_) => return Err(Lost("no connection within 10 s".into())),
            Ok(Err(_)) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn load<C: Caller, F>(
    plan: &Plan,
    connect: impl Fn(u64) -> F,
    asks: &[Ask],
    window: Duration,
    tells: u64,
) -> Result<Vec<Sample>, Lost>
where
    F: Future<Output = Result<C, Lost>> + Send,
{
    let caller = connected(&connect, 0).await?;
    let (client, server) = (Cpu::of(std::process::id()), Cpu::of(plan.server));
    let mut samples = Vec::new();
    for ask in asks {
        let payload = Bytes::from(vec![7; ask.size]);
        asking(&caller, &payload, ask.in_flight, Duration::ZERO).await?; // one each, to warm up
        let (c, s, begin) = (client.now(), server.now(), Instant::now());
        let nanos = asking(&caller, &payload, ask.in_flight, window).await?;
        let took = begin.elapsed().as_secs_f64();
        let calls = nanos.len() as f64;
        let (p50, p99) = p50_p99(nanos);
        samples.push(Sample::Ask {
            ask: *ask,
            per_second: calls / took,
            p50_us: p50 / 1e3,
            p99_us: p99 / 1e3,
            client_cpu_us: (client.now() - c) * 1e6 / calls,
            server_cpu_us: (server.now() - s) * 1e6 / calls,
        });
    }
    if tells > 0 {
        let (c, s, begin) = (client.now(), server.now(), Instant::now());
        let (sent, refused) = telling(&caller, tells, Duration::from_secs(2)).await?;
        let arrived = arrival(&caller, sent).await?;
        let took = begin.elapsed().as_secs_f64();
        if arrived != sent {
            samples.push(Sample::Failed { why: format!("{arrived} of {sent} tells came") });
            return Ok(samples);
        }
        samples.push(Sample::Tell {
            sent,
            per_second: sent as f64 / took,
            client_cpu_us: (client.now() - c) * 1e6 / sent as f64,
            server_cpu_us: (server.now() - s) * 1e6 / sent as f64,
            refused,
        });
    }
    Ok(samples)
}

/// So many tasks, each asking again and again for the time of `window`; how long each ask took.
async fn asking<C: Caller>(caller: &C, payload: &Bytes, in_flight: usize, window: Duration) -> Result<Vec<u64>, Lost> {
    let end = Instant::now() + window;
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (caller, payload) = (caller.clone(), payload.clone());
            tokio::spawn(async move {
                let mut nanos = Vec::with_capacity(4096);
                loop {
                    let begin = Instant::now();
                    let length = caller.ask(payload.clone()).await?;
                    if length != payload.len() {
                        return Err(Lost(format!("{length} bytes came back of {}", payload.len())));
                    }
                    let now = Instant::now();
                    nanos.push((now - begin).as_nanos() as u64);
                    if now >= end {
                        return Ok(nanos);
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// How many were sent within the limit, and how often the sender had to wait.
async fn telling<C: Caller>(caller: &C, tells: u64, limit: Duration) -> Result<(u64, u64), Lost> {
    let end = Instant::now() + limit;
    let tasks: Vec<_> = (0..C::TELLERS)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move {
                let payload = Bytes::from(vec![7; 100]);
                let (mut sent, mut waited) = (0, 0);
                while sent < tells / C::TELLERS {
                    waited += caller.tell(payload.clone()).await?;
                    sent += 1;
                    if sent % 64 == 0 && Instant::now() > end {
                        break;
                    }
                }
                Ok::<_, Lost>((sent, waited))
            })
        })
        .collect();
    let (mut sent, mut waited) = (0, 0);
    for task in tasks {
        let (s, w) = task.await??;
        (sent, waited) = (sent + s, waited + w);
    }
    Ok((sent, waited))
}

/// Waits until all that were sent have come.
async fn arrival<C: Caller>(caller: &C, sent: u64) -> Result<u64, Lost> {
    let begin = Instant::now();
    loop {
        let seen = caller.seen().await?;
        if seen >= sent || begin.elapsed() > Duration::from_secs(20) {
            return Ok(seen);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn pending<C: Caller, F>(connect: impl Fn(u64) -> F, limit: Duration) -> Result<Sample, Lost>
where
    F: Future<Output = Result<C, Lost>> + Send,
{
    let caller = connected(&connect, 0).await?;
    caller.ask(Bytes::from_static(b"up")).await?;
    let hung = caller.clone();
    let call = tokio::spawn(async move { hung.hang().await });
    sleep(Duration::from_millis(300)).await; // it is on its way, and the connection idle again
    say("waiting");
    Ok(match timeout(limit, call).await {
        Ok(ended) => {
            let said = ended.map_or_else(|e| e.to_string(), |Lost(why)| why);
            Sample::Pending { failed_at_ms: Some(epoch_ms()), said }
        }
        Err(_) => Sample::Pending { failed_at_ms: None, said: String::new() },
    })
}

async fn storm<C: Caller, F>(
    connect: impl Fn(u64) -> F + Clone + Send + Sync + 'static,
    clients: u64,
) -> Result<Sample, Lost>
where
    F: Future<Output = Result<C, Lost>> + Send,
{
    let payload = Bytes::from(vec![7; 32]);
    let mut callers = Vec::new();
    for n in 0..clients {
        let caller = connected(&connect, n).await?;
        caller.ask(payload.clone()).await?;
        callers.push(caller);
    }
    say("connected");
    tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new())).await??;
    let begin = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .zip(callers)
        .map(|(n, mut caller)| {
            let (connect, payload) = (connect.clone(), payload.clone());
            tokio::spawn(async move {
                while !matches!(timeout(Duration::from_secs(2), caller.ask(payload.clone())).await, Ok(Ok(_))) {
                    sleep(Duration::from_millis(5)).await;
                    if !C::HEALS
                        && let Ok(Ok(new)) = timeout(Duration::from_secs(5), connect(n)).await
                    {
                        caller = new;
                    }
                    if begin.elapsed() > Duration::from_secs(30) {
                        return Err(Lost("not within 30 s".into()));
                    }
                }
                Ok(begin.elapsed().as_secs_f64() * 1e3)
            })
        })
        .collect();
    let mut answered_ms = Vec::new();
    for task in tasks {
        answered_ms.push(task.await??);
    }
    Ok(Sample::Storm { answered_ms })
}

/// To the parent, which waits for this line.
pub fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

pub fn epoch_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64() * 1e3)
}

/// The processor time of a process, of all its threads, in seconds.
struct Cpu(Option<libc::clockid_t>);

impl Cpu {
    fn of(pid: u32) -> Cpu {
        let mut clock = 0;
        // SAFETY: it writes the clock's number there and nothing else.
        let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
        Cpu((found == 0).then_some(clock))
    }
    fn now(&self) -> f64 {
        let Some(clock) = self.0 else { return 0.0 };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes the time there and nothing else.
        unsafe { libc::clock_gettime(clock, &mut time) };
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }
}
