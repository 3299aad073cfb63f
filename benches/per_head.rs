//! What a head costs the seal scheduler of a miner with 10, 1,000 and 100,000 sectors, and what its start and one written
//! record cost there: over the scripted chain and the scripted prover of the tests.
//!
//!     cargo bench --features cluster --bench per_head                 # all three
//!     cargo bench --features cluster --bench per_head -- 1000         # one size
//!
//! Each size runs in a process of its own, so that its memory is its own.

#[path = "../tests/support/mod.rs"]
mod support;

use bulkhead::chain::lotus_json::bitfield::to_runs;
use bulkhead::rpc::full_node::FullNode;
use bulkhead::store::{Store, Token};
use std::process::Command;
use std::time::{Duration, Instant};
use support::waiting_sectors::{Miner, Waiting};

const HEADS: u32 = 20;
const WRITES: u32 = 200;
/// Bytes of an answer around its result.
const ENVELOPE: u64 = r#"{"jsonrpc":"2.0","id":12345,"result":}"#.len() as u64;

/// Of this process.
fn cpu() -> Duration {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("the usage");
    let of = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    of(used.user_time()) + of(used.system_time())
}

/// Resident, in bytes.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// A tenth of the sectors are being sealed, a hundred at most.
fn miner(sectors: u64) -> Miner {
    let sealing = (sectors / 10).min(100);
    let third = sealing.div_ceil(3);
    let [pre_commit_wait, wait_seed] = [third.min(sealing), third.min(sealing.saturating_sub(third))];
    let commit_wait = sealing - pre_commit_wait - wait_seed;
    Miner { proving: sectors - sealing, pre_commit_wait, wait_seed, commit_wait, long: true }
}

async fn measure(sectors: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bulkhead.redb");
    let miner = miner(sectors);
    drop(miner.journal(&file));
    let size = std::fs::metadata(&file).expect("the store").len();
    let (from, at) = (rss(), Instant::now());
    let store = Store::open(&file).expect("the store");
    let opened = at.elapsed();
    let mut waiting = Waiting::over(&miner, store.clone(), dir.path());
    let (started, memory) = (at.elapsed(), rss().saturating_sub(from));
    waiting.effects.settings.seed_confidence = 1000;
    waiting.head(1_000_000).await; // all ask once after a start

    // The chain's answers as JSON: the taken numbers as run lengths, null for a sector that is not proven yet.
    let key = waiting.chain.head().key();
    let taken = waiting.chain.state_miner_allocated(&support::fake_chain::miner(), &key).await.expect("numbers");
    let taken = serde_json::to_string(&to_runs(&taken)).expect("JSON").len() as u64;
    let answer = |method: &str| if method == "StateMinerAllocated" { ENVELOPE + taken } else { ENVELOPE + 4 };

    let (mut calls, mut bytes, mut looked_at, began) = (0, 0, 0, cpu());
    for _ in 0..HEADS {
        let cost = waiting.head(1_000_000).await;
        calls += cost.calls.values().sum::<u64>();
        bytes += cost.calls.iter().map(|(method, calls)| answer(method) * calls).sum::<u64>();
        looked_at += cost.looked_at;
    }
    let heads = cpu() - began;

    // One sector's record, as each step of sealing writes it.
    let token = Token { path: "/t01000/seal-scheduler".into(), epoch: 2 };
    let record = waiting.driver.sector(1).expect("the store").expect("a sector");
    let (wall, busy) = (Instant::now(), cpu());
    for n in 0..WRITES {
        let number = 1 + u64::from(n) * 7919 % sectors;
        store.put(&token, &format!("t01000/{number:020}"), &record).expect("a write");
    }
    let (wall, busy) = (wall.elapsed() / WRITES, (cpu() - busy) / WRITES);

    let per_head = |total: u64| total as f64 / f64::from(HEADS);
    println!(
        "| {sectors} | {} | {:.1} | {:.0} | {:.1} | {:.0} | {:.2} ({:.2}) | {:.1} | {:.0} | {:.0} (CPU {:.0}) | {:.1} |",
        sectors - miner.proving,
        per_head(calls),
        per_head(bytes),
        per_head(looked_at),
        heads.as_micros() as f64 / f64::from(HEADS),
        started.as_secs_f64(),
        opened.as_secs_f64(),
        memory as f64 / 1e6,
        memory as f64 / sectors as f64,
        wall.as_micros(),
        busy.as_micros(),
        size as f64 / 1e6,
    );
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok());
    if let Some(sectors) = asked {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(measure(sectors));
        return;
    }
    println!(
        "| sectors | being sealed | calls a head | bytes answered a head | sectors looked at a head | CPU a head, µs | start, s (of it opening the \
         store) | memory, MB | memory a sector, bytes | one record written, µs | store, MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for sectors in [10, 1_000, 100_000] {
        let this = std::env::current_exe().expect("this program");
        let done = Command::new(this).arg(sectors.to_string()).status().expect("this program");
        assert!(done.success(), "{sectors} sectors: {done}");
    }
}
