//! Bulkhead's supervision runtime beside raw actix, kameo and ractor: one run, one table.
//!
//!     cargo run --release                                  # within a process: all rows
//!     cargo run --release --features remote -- remote      # between processes: R1 to R5, seven minutes
//!
//! The second as root also has the rows that need a network namespace. `remote --quick` takes two minutes;
//! `--peer KEY`, `--reps N`, `--json FILE` and the names of rows narrow it down or write the raw figures.

mod actix_raw;
/// The bridge, likewise.
#[cfg(feature = "remote")]
#[allow(dead_code, unused_imports)]
#[path = "../../../src/rpc/bridge/mod.rs"]
mod bridge;
mod kameo_peer;
mod measure;
mod ours;
mod ractor_peer;
#[cfg(feature = "remote")]
mod remote;
/// The runtime alone, compiled from its sources: the proof stack around it is not what is measured.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/supervisor/mod.rs"]
mod supervisor;
/// Messages as bytes.
#[cfg(feature = "remote")]
#[allow(dead_code, unused_imports)]
#[path = "../../../src/wire/mod.rs"]
mod wire;
/// What the bridge takes from it.
#[cfg(feature = "remote")]
#[allow(dead_code, unused_imports)]
#[path = "../../../src/util/mod.rs"]
mod util;

use measure::{Cell, Row, machine, noise, print_table};

/// How much of each thing one repetition does.
#[derive(Clone, Copy)]
pub struct Size {
    pub tells: u64,
    pub asks: usize,
    pub spawns: usize,
    pub crashes: usize,
    pub flood: u64,
    pub tree: usize,
}

const FULL: Size = Size { tells: 1_000_000, asks: 40_000, spawns: 4_000, crashes: 300, flood: 1_000_000, tree: 10_000 };
const QUICK: Size = Size { tells: 200_000, asks: 10_000, spawns: 1_000, crashes: 100, flood: 200_000, tree: 1_000 };

/// One measurement of one peer; several figures where a row has several lines.
type Run = fn(Size) -> Vec<f64>;

struct Bench {
    key: &'static str,
    lines: &'static [(&'static str, Unit)],
    /// bulkhead, actix, kameo, ractor
    runs: [Option<Run>; 4],
}

#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    Nanos,
    Micros,
    Millis,
    /// More is better.
    PerSecond,
}

const BENCHES: &[Bench] = &[
    Bench {
        key: "tell1",
        lines: &[("L1 tell, 1 producer, ns/message", Unit::Nanos)],
        runs: [
            Some(|s| ours::tell(1, s.tells)),
            Some(|s| actix_raw::tell(1, s.tells)),
            Some(|s| kameo_peer::tell(1, s.tells)),
            Some(|s| ractor_peer::tell(1, s.tells)),
        ],
    },
    Bench {
        key: "tell8",
        lines: &[("L1 tell, 8 producers, ns/message", Unit::Nanos)],
        runs: [
            Some(|s| ours::tell(8, s.tells)),
            Some(|s| actix_raw::tell(8, s.tells)),
            Some(|s| kameo_peer::tell(8, s.tells)),
            Some(|s| ractor_peer::tell(8, s.tells)),
        ],
    },
    Bench {
        key: "cross",
        lines: &[("L2 ask, cross-thread, p50 µs", Unit::Micros), ("L2 ask, cross-thread, p99 µs", Unit::Micros)],
        runs: [
            Some(|s| ours::ask_cross(s.asks)),
            Some(|s| actix_raw::ask_cross(s.asks)),
            Some(|s| kameo_peer::ask_cross(s.asks)),
            Some(|s| ractor_peer::ask_cross(s.asks)),
        ],
    },
    Bench {
        key: "same",
        lines: &[("L2 ask, same scheduler, p50 ns", Unit::Nanos), ("L2 ask, same scheduler, p99 ns", Unit::Nanos)],
        runs: [
            Some(|s| ours::ask_same(s.asks * 5)),
            Some(|s| actix_raw::ask_same(s.asks * 5)),
            Some(|s| kameo_peer::ask_same(s.asks * 5)),
            Some(|s| ractor_peer::ask_same(s.asks * 5)),
        ],
    },
    Bench {
        key: "flight",
        lines: &[("L2 ask, cross-thread, 64 in flight, asks/s", Unit::PerSecond)],
        runs: [
            Some(|s| ours::in_flight(s.asks * 8)),
            Some(|s| actix_raw::in_flight(s.asks * 8)),
            Some(|s| kameo_peer::in_flight(s.asks * 8)),
            Some(|s| ractor_peer::in_flight(s.asks * 8)),
        ],
    },
    Bench {
        key: "spawn",
        lines: &[
            ("L3 supervised spawn until started, one by one, µs/actor", Unit::Micros),
            ("L3 supervised spawn until started, 64 in flight, µs/actor", Unit::Micros),
        ],
        runs: [
            Some(|s| ours::spawn(s.spawns)),
            None,
            Some(|s| kameo_peer::spawn(s.spawns)),
            Some(|s| ractor_peer::spawn(s.spawns)),
        ],
    },
    Bench {
        key: "crash",
        lines: &[
            ("L4 panic to first reply of the successor, p50 µs", Unit::Micros),
            ("L4 panic to first reply of the successor, p99 µs", Unit::Micros),
        ],
        runs: [
            Some(|s| ours::crash(s.crashes)),
            None,
            Some(|s| kameo_peer::crash(s.crashes)),
            Some(|s| ractor_peer::crash(s.crashes)),
        ],
    },
    Bench {
        key: "flood",
        lines: &[
            ("L5 neighbour of a flooded actor, ask p99 µs", Unit::Micros),
            ("L5 neighbour of a flooded actor, ask max µs", Unit::Micros),
        ],
        runs: [
            Some(|s| ours::flood(s.flood)),
            Some(|s| actix_raw::flood(s.flood)),
            Some(|s| kameo_peer::flood(s.flood)),
            Some(|s| ractor_peer::flood(s.flood)),
        ],
    },
    Bench {
        key: "tree",
        lines: &[
            ("L6 tree of 10,000 children (1,000 with --quick), ordered start, ms", Unit::Millis),
            ("L6 tree of 10,000 children (1,000 with --quick), ordered stop, ms", Unit::Millis),
        ],
        runs: [
            Some(|s| ours::tree(s.tree)),
            None,
            Some(|s| kameo_peer::tree(s.tree)),
            Some(|s| ractor_peer::tree(s.tree)),
        ],
    },
];

pub const PEERS: [&str; 4] = ["bulkhead", "actix", "kameo", "ractor"];

fn main() {
    #[cfg(feature = "remote")]
    if let Some("remote" | "server" | "client") = std::env::args().nth(1).as_deref() {
        return remote::main(std::env::args().skip(1).collect());
    }
    let mut reps = 5;
    let mut size = FULL;
    let mut only_peer = None;
    let mut keys = Vec::new();
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => size = QUICK,
            "--reps" => reps = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(5),
            "--peer" => only_peer = args.next(),
            key if BENCHES.iter().any(|b| b.key == key) => keys.push(key.to_string()),
            other => {
                let known: Vec<_> = BENCHES.iter().map(|b| b.key).collect();
                eprintln!("{other}: not a row. peers [--quick] [--reps N] [--peer {PEERS:?}] {known:?}");
                std::process::exit(2);
            }
        }
    }
    std::panic::set_hook(Box::new(|_| {})); // the crashes are on purpose
    let before = machine();
    let mut rows = Vec::new();
    for bench in BENCHES.iter().filter(|b| keys.is_empty() || keys.iter().any(|k| k == b.key)) {
        let mut row: Vec<Row> = bench
            .lines
            .iter()
            .map(|(name, unit)| Row { name, unit: *unit, cells: Default::default(), noise: Cell::default() })
            .collect();
        // Peers take turns within a repetition, so that what else the machine does hits all of them.
        for _ in 0..reps {
            let gauge = noise();
            row.iter_mut().for_each(|line| line.noise.add(gauge));
            for (peer, run) in bench.runs.iter().enumerate() {
                let Some(run) = run else { continue };
                if only_peer.as_deref().is_some_and(|p| p != PEERS[peer]) {
                    continue;
                }
                for (line, figure) in row.iter_mut().zip(run(size)) {
                    line.cells[peer].add(figure);
                }
            }
        }
        eprintln!("{} done", bench.key);
        rows.extend(row);
    }
    print_table(&before, reps, &rows);
}
