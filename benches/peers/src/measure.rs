//! Medians, the noise gauge, the machine, the markdown table.

use crate::{PEERS, Unit};
use std::time::{Duration, Instant};

/// The figures of one peer in one line, one a repetition.
#[derive(Default, Clone)]
pub struct Cell(Vec<f64>);

impl Cell {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }
    pub fn median(&self) -> Option<f64> {
        self.0.get(self.0.len() / 2).copied()
    }
    fn show(&self, unit: Unit) -> String {
        match (self.median(), self.0.first(), self.0.last()) {
            (Some(m), Some(low), Some(high)) => {
                format!("{} ({}–{})", figure(m, unit), figure(*low, unit), figure(*high, unit))
            }
            _ => "–".into(),
        }
    }
}

pub struct Row {
    pub name: &'static str,
    pub unit: Unit,
    pub cells: [Cell; 4],
    pub noise: Cell,
}

fn figure(x: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => format!("{:.2}M", x / 1e6),
        _ if x >= 10_000.0 => format!("{:.1}k", x / 1e3),
        _ if x >= 100.0 => format!("{x:.0}"),
        _ if x >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// Milliseconds that a fixed loop takes: what the rest of the machine costs us at this moment.
pub fn noise() -> f64 {
    let begin = Instant::now();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000_000u32 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    std::hint::black_box(x);
    begin.elapsed().as_secs_f64() * 1e3
}

/// p50 and p99 of latencies, in nanoseconds.
pub fn p50_p99(mut nanos: Vec<u64>) -> (f64, f64) {
    nanos.sort_unstable();
    let at = |p: f64| nanos.get((nanos.len() as f64 * p) as usize).copied().unwrap_or(0) as f64;
    (at(0.50), at(0.99))
}

pub fn per(total: Duration, count: u64) -> f64 {
    total.as_nanos() as f64 / count as f64
}

/// Cores, CPU, kernel, and what else runs.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).map_or("?", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!(
        "{model}, {cores} cores, Linux {}; load average at the start {load}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

pub fn print_table(machine: &str, reps: usize, rows: &[Row]) {
    println!("{machine}");
    println!(
        "{reps} repetitions; cells are median (min–max); ratios are of medians, over 1 means bulkhead is the faster.\n"
    );
    print!("|  |");
    PEERS.iter().for_each(|p| print!(" {p} |"));
    PEERS[1..].iter().for_each(|p| print!(" × {p} |"));
    println!(" gauge, ms |");
    println!("|---|{}", "---|".repeat(PEERS.len() * 2));
    for row in rows {
        print!("| {} |", row.name);
        row.cells.iter().for_each(|c| print!(" {} |", c.show(row.unit)));
        for peer in &row.cells[1..] {
            match (row.cells[0].median(), peer.median()) {
                (Some(ours), Some(theirs)) if row.unit == Unit::PerSecond => print!(" {:.2} |", ours / theirs),
                (Some(ours), Some(theirs)) => print!(" {:.2} |", theirs / ours),
                _ => print!(" – |"),
            }
        }
        println!(" {} |", row.noise.show(Unit::Millis));
    }
}

/// A runtime of one thread, for the calling side.
pub fn single() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the bench")
}

/// The peers' natural habitat: a multi-threaded runtime, everything in tasks.
pub fn roomy<R: Send + 'static>(run: impl Future<Output = R> + Send + 'static) -> R {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the bench");
    let result = runtime.block_on(runtime.spawn(run)).expect("the bench's task");
    runtime.shutdown_background();
    result
}

/// A thread with a runtime of its own, as an arbiter is one: so that "cross-thread" means the same for everybody.
pub struct Aside {
    handle: tokio::runtime::Handle,
    over: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Aside {
    pub fn new() -> Aside {
        let runtime = single();
        let handle = runtime.handle().clone();
        let (over, end) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || drop(runtime.block_on(end)));
        Aside { handle, over: Some(over), thread: Some(thread) }
    }
    /// Runs there as a task; waits for it.
    pub fn run<R: Send + 'static>(&self, run: impl Future<Output = R> + Send + 'static) -> R {
        let (tx, rx) = std::sync::mpsc::channel();
        self.handle.spawn(async move { drop(tx.send(run.await)) });
        rx.recv().expect("the bench's task")
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.over.take();
        self.thread.take().map(|t| t.join());
    }
}

/// Between two tries of a caller: other tasks and other threads first, or it would measure its own busy loop.
pub async fn give_way() {
    std::thread::yield_now();
    tokio::task::yield_now().await;
}
