//! A drill: one panic, kill or hang after the other over every actor of a whole provider and of its chain, with proofs that
//! cost nothing, while deadlines open and close. No proof is lost, no thread and no memory, and nothing ends.
//!
//! Short by default; `scripts/drill MINUTES` sets [`MINUTES`] and makes it as long as that, with blocks 6 s apart and a
//! fault each 8 s.

use super::one_concern_never_stops_another::{CHAIN_HANGS_AFTER, HANG_AFTER, Provider, World, eventually, world_of};
use bulkhead::devnet::DevnetSettings;
use bulkhead::supervisor::{ActorInfo, ActorState, Tree, TreeOptions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the drill takes.
const MINUTES: &str = "BULKHEAD_DRILL_MINUTES";
/// Threads and memory of the end may be above those of the beginning by so much: pools that are warm, allocator slack.
const THREADS: u64 = 8;
const KIB: u64 = 64 << 10;

struct Plan {
    length: Duration,
    between_faults: Duration,
    between_blocks: Duration,
    /// Of the one sector: proven, at least.
    deadlines: usize,
    settings: DevnetSettings,
}

fn plan(minutes: Option<u64>) -> Plan {
    let (length, between_faults, between_blocks) = match minutes {
        None => (Duration::from_secs(36), Duration::from_secs(2), Duration::from_secs(1)),
        Some(minutes) => (Duration::from_secs(60 * minutes), Duration::from_secs(8), Duration::from_secs(6)),
    };
    let (deadlines, challenge_window) = (3, if minutes.is_none() { 20 } else { 5 });
    let settings = DevnetSettings {
        block_delay: between_blocks,
        warmup_delay: between_blocks,
        deadlines,
        challenge_window,
        challenge_lookback: 2,
        fault_cutoff: 1,
        dispute_window: 10,
        pre_commit_challenge_delay: 3,
        chain_finality: 5,
        winning_lookback: 3,
        ..Default::default()
    };
    let period = between_blocks * u32::try_from(deadlines as i64 * challenge_window).expect("a short period");
    // The first opens at once; the last one may be under way at the end.
    let deadlines = (length.as_secs() / period.as_secs()) as usize;
    Plan { length, between_faults, between_blocks, deadlines: deadlines.max(1), settings }
}

/// Threads and resident KiB of this process.
fn held() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    };
    (number("Threads:"), number("VmRSS:"))
}

/// Where its deadlines stand, by Open: whether each was proven, `None` while it is open.
#[derive(Default)]
struct Deadlines(BTreeMap<i64, Option<bool>>);

impl Deadlines {
    async fn look(&mut self, provider: &Provider) {
        let Ok(report) = provider.node.backend.window_post().await else { return }; // it is being restarted
        for deadline in report.deadlines {
            for batch in deadline.batches {
                let proven = match batch.phase.as_str() {
                    "landed" => Some(true),
                    "missed" => Some(false),
                    _ => None,
                };
                let known = self.0.entry(deadline.open).or_default();
                *known = known.or(proven);
                assert_ne!(*known, Some(false), "a proof was missed: {batch:?}");
            }
        }
    }
    fn proven(&self) -> usize {
        self.0.values().filter(|proven| **proven == Some(true)).count()
    }
}

fn workers(provider: &Provider, world: &World) -> Vec<ActorInfo> {
    let all = [provider.node.tree.snapshot(), world.chain.snapshot()].concat();
    all.into_iter().filter(|row| row.kind == "worker").collect()
}

fn settled(trees: [&Tree; 2], rows: &[ActorInfo]) -> bool {
    trees.iter().all(|tree| tree.zombies() == 0) && rows.iter().all(|row| row.state == ActorState::Up)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_over_every_actor_lose_no_proof_no_thread_and_no_memory() {
    let minutes = std::env::var(MINUTES).ok().map(|text| text.parse().expect("BULKHEAD_DRILL_MINUTES: whole minutes"));
    let plan = plan(minutes);
    let world = world_of(plan.settings.clone(), Some(CHAIN_HANGS_AFTER)).await;
    let options = TreeOptions { hang_after: Some(HANG_AFTER), ..TreeOptions::default() };
    let provider = world.start_node(options).await;
    provider.proves_at_once();
    provider.all_up().await;
    let trees = [&provider.node.tree, &world.chain];
    let (threads, memory) = held();
    let (began, mut deadlines, mut struck) = (Instant::now(), Deadlines::default(), 0usize);
    let mut next = tokio::time::interval(plan.between_faults);
    while began.elapsed() < plan.length {
        next.tick().await;
        let rows = workers(&provider, &world);
        let (round, victim) = (struck / rows.len(), &rows[struck % rows.len()].path);
        let tree = if victim.starts_with("devnet/") { trees[1] } else { trees[0] };
        // False: it is down already.
        let fell = match (struck + round) % 3 {
            0 => tree.panic(victim),
            1 => tree.kill(victim),
            _ => tree.hang(victim),
        };
        println!(
            "{:>5} s  {:>7} KiB  {victim} {} {fell}",
            began.elapsed().as_secs(),
            held().1,
            ["panic", "kill", "hang"][(struck + round) % 3]
        );
        struck += 1;
        deadlines.look(&provider).await;
        for tree in trees {
            assert_eq!(tree.ended(), None, "after {victim}");
        }
    }
    eventually("everything up again, and no thread stuck", || async {
        settled(trees, &workers(&provider, &world)).then_some(())
    })
    .await;
    let proven = async {
        while deadlines.proven() < plan.deadlines {
            deadlines.look(&provider).await;
            tokio::time::sleep(plan.between_blocks / 4).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), proven).await.expect("enough deadlines are proven");
    let power =
        provider.full_node.state_miner_power(&world.miner, &Default::default()).await.expect("the chain answers");
    assert_eq!(power.miner_power.raw_byte_power, 2048.into(), "no power was lost");
    eventually("threads that are not needed any more have ended", || async {
        (held().0 <= threads + THREADS).then_some(())
    })
    .await;
    let (threads_now, memory_now) = held();
    println!(
        "{struck} faults, {} deadlines proven; threads {threads} -> {threads_now}, KiB {memory} -> {memory_now}",
        deadlines.proven()
    );
    assert!(memory_now <= memory + KIB, "{memory} KiB at the beginning, {memory_now} at the end");
    provider.node.stop().await;
    world.chain.shutdown().await;
}
