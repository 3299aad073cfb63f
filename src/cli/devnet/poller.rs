//! One look at a running devnet: the chain says what is proven and won, the node's own API says how its sectors and
//! actors are. Nothing is read from inside the process, so what is shown is what any client would see.

use super::progress::{DeadlineProgress, HeadProgress, NextDeadline, Power, Progress, SectorProgress, Task};
use crate::chain::types::{TipSet, TipSetKey};
use crate::chain::{Address, ChainEpoch};
use crate::cli::CliError;
use crate::cli::client::NodeClient;
use crate::cli::render::tree::exit_text;
use crate::cli::sector_rows::SectorInfo;
use crate::node::api_views::DeadlineRow;
use crate::node::provider_report::Worker;
use crate::node::sealing_report::{JobRow, Jobs};
use crate::rpc::full_node::{FullNode, Result};
use crate::supervisor::ActorInfo;
use crate::util::time::unix_ms;
use cid::Cid;
use num_traits::ToPrimitive;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A look that takes longer shows what the last one saw.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Tipsets that one look walks back at most.
const MAX_WALK: usize = 200;

/// The chain alone, or with a provider on it.
pub struct Poller {
    pub chain: Arc<dyn FullNode>,
    pub provider: Option<Provider>,
    /// Blocks of the provider that were seen on chain, by CID: a reorg may show one twice.
    won: BTreeSet<Cid>,
    /// Deadlines, by the epoch that they opened at, in which a WindowPoSt was accepted.
    proven: BTreeSet<ChainEpoch>,
    head: Option<TipSet>,
}

pub struct Provider {
    pub miner: Address,
    pub node: NodeClient,
}

impl Poller {
    pub fn new(chain: Arc<dyn FullNode>, provider: Option<Provider>) -> Poller {
        Poller { chain, provider, won: BTreeSet::new(), proven: BTreeSet::new(), head: None }
    }

    /// Values that cannot be read now keep the last ones.
    pub async fn look(&mut self, last: &Progress, delay: impl Fn(bool) -> Duration) -> Progress {
        let mut p = last.clone();
        if tokio::time::timeout(LOOK_TIMEOUT, self.try_look(&mut p, delay)).await.is_err() {
            tracing::debug!("a look at the devnet took longer than {LOOK_TIMEOUT:?}");
        }
        p
    }

    async fn try_look(&mut self, p: &mut Progress, delay: impl Fn(bool) -> Duration) {
        if let Err(e) = self.look_at_chain(p, delay).await {
            tracing::debug!("look at the chain: {e}");
        }
        if let Some(provider) = &self.provider
            && let Err(e) = look_at_node(&provider.node, p).await
        {
            tracing::debug!("look at the node: {e}");
        }
    }

    async fn look_at_chain(&mut self, p: &mut Progress, delay: impl Fn(bool) -> Duration) -> Result<()> {
        let head = self.chain.chain_head().await?;
        let Some(miner) = self.provider.as_ref().map(|provider| provider.miner) else {
            p.head = Some(HeadProgress { height: head.height, delay: delay(false) });
            return Ok(());
        };
        let key = head.key();
        let power = self.chain.state_miner_power(&miner, &key).await?;
        let bytes = |n: &num_bigint::BigInt| n.to_u64().unwrap_or(u64::MAX);
        let power =
            Power { miner: bytes(&power.miner_power.raw_byte_power), total: bytes(&power.total_power.raw_byte_power) };
        p.head = Some(HeadProgress { height: head.height, delay: delay(power.miner > 0) });
        p.power = Some(power);

        let now = self.chain.state_miner_proving_deadline(&miner, &key).await?;
        let submissions = self.chain.state_miner_deadlines(&miner, &key).await?;
        let partitions = self.chain.state_miner_partitions(&miner, now.index, &key).await?;
        let proven = submissions.get(now.index as usize).map_or(0, |d| d.post_submissions.len());
        let to_prove = partitions.iter().filter(|part| !part.live_sectors.is_empty()).count() as u64;
        p.deadline = Some(DeadlineProgress {
            index: now.index,
            of: now.w_post_period_deadlines,
            open: now.open,
            close: now.close,
            partitions: to_prove,
            proven,
        });
        if proven > 0 {
            self.proven.insert(now.open);
        }
        p.window_posts_accepted = self.proven.len() as u64;

        self.count_blocks(miner, &head).await?;
        p.blocks_won = self.won.len() as u64;
        self.head = Some(head);
        Ok(())
    }

    /// Every tipset since the last look, so that a block between two looks is not missed, and a few before it, which a
    /// reorg may have replaced.
    async fn count_blocks(&mut self, miner: Address, head: &TipSet) -> Result<()> {
        let known = self.head.as_ref().map_or(head.height - 1, |h| h.height - 3);
        let mut at = head.clone();
        for _ in 0..MAX_WALK {
            let ours = at.cids.iter().zip(&at.blocks).filter(|(_, block)| block.miner == miner);
            self.won.extend(ours.map(|(cid, _)| *cid));
            let parents = at.blocks.first().map(|b| b.parents.clone()).unwrap_or_default();
            if at.height <= known + 1 || at.height == 0 || parents.is_empty() {
                break;
            }
            at = self.chain.chain_get_tip_set(&TipSetKey(parents)).await?;
            if at.height <= known {
                break;
            }
        }
        Ok(())
    }
}

async fn look_at_node(node: &NodeClient, p: &mut Progress) -> std::result::Result<(), CliError> {
    let actors: Vec<ActorInfo> = node.admin_get("/actors").await?;
    (p.restarts, p.last_restart) = restarts(&actors);
    let numbers: Option<Vec<u64>> = node.call("Filecoin.SectorsList", vec![]).await?;
    let mut sectors = Vec::new();
    for number in numbers.unwrap_or_default() {
        let info: SectorInfo = node.call("Filecoin.SectorsStatus", vec![number.into(), false.into()]).await?;
        let before = p.sectors.iter().find(|s| s.number == number);
        sectors.push(sector(number, &info, before, unix_ms()));
    }
    p.sectors = sectors;
    let jobs: Jobs = node.call("Bulkhead.SealingJobs", vec![]).await?;
    let (used, now) = (cpu_of_provers(&actors), unix_ms());
    p.tasks = jobs.jobs.iter().filter(|job| job.state == "running").map(|job| task(job, used, now)).collect();
    // What the node published at its last head: costs it nothing.
    let info = node.admin_get::<Option<Info>>("/info").await?.unwrap_or_default();
    let slots = info.workers.into_iter().filter(|worker| worker.kind == "node").flat_map(|worker| worker.slots);
    p.slots = slots.map(|(task, slots)| (task, (slots.used, slots.all))).collect();
    p.next_deadline = info.next_deadline.and_then(|row| Some(NextDeadline { index: row.index, open: row.open? }));
    Ok(())
}

/// The part of the admin HTTP's `/info` that the screen shows.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Info {
    workers: Vec<Worker>,
    next_deadline: Option<DeadlineRow>,
}

/// CPU time that a C2 of a 2 KiB sector takes, measured once on one machine: an estimate for the first C2 only.
const C2_CPU: Duration = Duration::from_secs(130);
/// CPU time below which a prover's use says nothing about its progress.
const TOO_EARLY: Duration = Duration::from_secs(4);

/// A first C2 has no predecessor to go by, but what it has used of the CPU says how far it is, however busy the machine is.
fn task(job: &JobRow, used: Duration, now: u64) -> Task {
    let first = (job.task == "c2" && used >= TOO_EARLY).then(|| {
        let share = (used.as_secs_f64() / C2_CPU.as_secs_f64()).min(0.95);
        (now.saturating_sub(job.since) as f64 / share) as u64
    });
    Task { sector: job.sector, name: job.task.clone(), since: job.since, expected: job.last_took_ms.or(first) }
}

/// CPU time of the sealing provers; zero where the system does not tell it.
fn cpu_of_provers(actors: &[ActorInfo]) -> Duration {
    let pids = actors.iter().filter_map(|actor| actor.path.strip_prefix("root/provers/seal-"));
    pids.filter_map(|pid| cpu_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum()
}

/// User and system time in `/proc/<pid>/stat`, which counts in hundredths of a second.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The name of the process may hold blanks and brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// A sector as it is now. Times come from its own log where that names states, else from the looks.
fn sector(number: u64, info: &SectorInfo, before: Option<&SectorProgress>, now: u64) -> SectorProgress {
    let state = info.state.clone();
    // lotus' log mixes events (`event;sealing.SectorPacked`) with states
    let mut states: Vec<(String, u64)> =
        info.log.iter().filter(|e| !e.kind.contains(';')).map(|e| (e.kind.clone(), e.timestamp * 1000)).collect();
    states.dedup_by(|later, earlier| later.0 == earlier.0);
    match states.last() {
        Some((last, since)) if *last == state => SectorProgress { number, state, since: *since, states },
        _ => {
            let since = before.filter(|b| b.state == state).map_or(now, |b| b.since);
            SectorProgress { number, state, since, states: vec![] }
        }
    }
}

/// How often any actor was started again, and who was it last.
fn restarts(actors: &[ActorInfo]) -> (u64, Option<String>) {
    let last = actors.iter().filter(|a| a.restarts > 0).max_by_key(|a| a.last_exit_at);
    let told = |a: &ActorInfo| match &a.last_exit {
        Some(exit) => format!("{} ({})", a.path, exit_text(exit)),
        None => a.path.clone(),
    };
    (actors.iter().map(|a| a.restarts).sum(), last.map(told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Exit;

    fn info(state: &str, log: &[(&str, u64)]) -> SectorInfo {
        let log: Vec<_> = log.iter().map(|(k, t)| serde_json::json!({"Kind": k, "Timestamp": t})).collect();
        serde_json::from_value(serde_json::json!({"SectorID": 1, "State": state, "Log": log})).unwrap()
    }

    #[test]
    fn a_first_c2_is_as_far_as_its_cpu_time_says() {
        let job =
            |task: &str, last_took_ms| JobRow { task: task.into(), since: 1_000, last_took_ms, ..JobRow::default() };
        let expected = |job, used| task(&job, Duration::from_secs(used), 61_000).expected;
        assert_eq!(expected(job("c2", None), 65), Some(120_000), "half of it in a minute");
        assert_eq!(expected(job("c2", None), 3), None, "too early");
        assert_eq!(expected(job("c2", None), 900), Some(63_157), "never over before it is");
        assert_eq!(expected(job("c2", Some(7)), 75), Some(7), "the last one says more");
        assert_eq!(expected(job("pc1", None), 75), None);
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("garbage"), None);
        assert!(cpu_time(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn a_sector_keeps_its_time_while_its_state_stays() {
        let first = sector(1, &info("PreCommit1", &[]), None, 100);
        assert_eq!(sector(1, &info("PreCommit1", &[]), Some(&first), 200).since, 100);
        assert_eq!(sector(1, &info("PreCommit2", &[]), Some(&first), 200).since, 200);
    }

    #[test]
    fn a_log_of_states_has_their_times() {
        let log = [("Packing", 1), ("event;sealing.X", 2), ("PreCommit1", 3), ("PreCommit1", 4)];
        let s = sector(1, &info("PreCommit1", &log), None, 9000);
        assert_eq!(s.states, [("Packing".to_string(), 1000), ("PreCommit1".to_string(), 3000)]);
        assert_eq!(s.since, 3000);
        assert_eq!(sector(1, &info("PreCommit2", &log), None, 9000).states, [], "a log that lags is not used");
    }

    #[test]
    fn the_last_restart_is_the_newest_exit_of_an_actor_that_came_back() {
        let actor = |path: &str, restarts: u64, at: Option<u64>, exit: Option<Exit>| -> ActorInfo {
            let row = serde_json::json!({
                "path": path, "kind": "worker", "state": "up", "incarnation": restarts + 1, "restarts": restarts,
                "mailbox_depth": 0, "mailbox_bound": 1, "last_exit": exit, "last_exit_at": at,
            });
            serde_json::from_value(row).unwrap()
        };
        let actors = [
            actor("root/a", 2, Some(10), Some(Exit::Panicked("x".into()))),
            actor("root/b", 1, Some(11), Some(Exit::Killed)),
            actor("root/c", 0, Some(12), Some(Exit::Normal)),
        ];
        assert_eq!(restarts(&actors), (3, Some("root/b (killed)".to_string())));
        assert_eq!(restarts(&actors[2..]), (0, None));
    }
}
