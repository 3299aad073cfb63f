//! The provider's state, from the answers of its concerns and the full node: for `/metrics`, and for `info` with what
//! is wrong and what to do about it. Costs a fixed number of questions, whatever the number of sectors.

mod accounts;
mod period;
mod troubles;
mod workers;

pub use period::{PeriodCache, PeriodRead};
pub use workers::{Worker, all_workers, workers, workers_of};

use super::backend::{NodeBackend, ask_if_up};
use super::concern::Concern;
use super::network_report::{NetworkAsked, NetworkReport, f3_part};
use super::proving_report::{self, Concerns, DeadlineRow, Period, ProvingInfo};
use super::shards::{Gathered, MissingShard};
use crate::actors::daemon_link::messages::FeedStatus;
use crate::actors::daemon_link::messages::{FeedInfo, PoolInfo};
use crate::actors::daemon_link::pool::{Health, is_used};
use crate::actors::deal_handler::{MarketInfo, MarketReport};
use crate::actors::f3::messages::F3Report;
use crate::actors::message_sender::messages::{MessageSummary, Summary as MessagesAsked};
use crate::actors::seal_agent::messages::AgentReport;
use crate::actors::seal_scheduler::messages::{SealingSummary, Slots, Summary as SealingAsked};
use crate::actors::window_post::messages::{Closed, WindowPostInfo, WindowPostSummary};
use crate::actors::winning_post::messages::WinningReport;
use crate::chain::types::{MinerPower, TipSetKey};
use crate::chain::{ChainEpoch, election};
use crate::rpc::admin::provider::*;
use crate::rpc::api::{BackendError, MinerBackend};
use crate::rpc::full_node::Missing;
use crate::rpc::full_node::pool::Status;
use crate::rpc::full_node::pool::view::NodeRow;
use crate::supervisor::ActorInfo;
use crate::util::time::unix_secs;
use std::collections::BTreeMap;
use std::time::Duration;
use workers::{agents, task_of};

/// Everything that was asked; an error text where there was no answer, `None` for what no node of this provider runs.
pub struct Asked {
    pub at: u64,
    pub miner: String,
    pub feed: Result<FeedStatus, String>,
    pub pool: Result<Vec<Health>, String>,
    /// As `bulkhead daemons nodes` has them.
    pub daemons: Vec<NodeRow>,
    pub network: Result<NetworkReport, String>,
    pub power: Result<MinerPower, String>,
    /// Methods that the full node lacks.
    pub missing_methods: Result<Vec<Missing>, String>,
    /// attoFIL by account.
    pub balances: BTreeMap<String, String>,
    pub balance_error: Option<String>,
    pub period: Result<PeriodRead, String>,
    pub concerns: Concerns,
    pub closed: Option<Result<Closed, String>>,
    pub f3: Option<Result<F3Report, String>>,
    pub sealing: Gathered<SealingSummary>,
    pub agents: Vec<(String, Result<AgentReport, String>)>,
    pub messages: Option<Result<MessageSummary, String>>,
    pub market: Option<Result<MarketReport, String>>,
    pub tree: Vec<ActorInfo>,
}

type Answer<T> = Option<Result<T, String>>;

async fn if_run<T>(
    node: &NodeBackend,
    concern: Concern,
    asked: impl Future<Output = Result<T, BackendError>>,
) -> Answer<T> {
    match node.runs(concern) {
        true => Some(asked.await.map_err(|e| e.to_string())),
        false => None,
    }
}

/// For one part that the full node tells: one that hangs must not take the others along.
const PART_WITHIN: Duration = Duration::from_secs(8);

/// For all deadlines, where an operator waits for nothing else: a node far away takes a second or two for each call. Less
/// than the command line waits.
const PERIOD_WITHIN: Duration = Duration::from_secs(40);

/// That part, or why it could not be had in time.
pub(super) async fn part<T, E: ToString>(what: &str, asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    part_within(PART_WITHIN, what, asked).await
}

async fn part_within<T, E: ToString>(
    within: Duration,
    what: &str,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(within, asked).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("the full node did not tell {what} within {} s", within.as_secs())),
    }
}

/// The deadlines as they were last read, and the open one as it is now.
async fn last_period(node: &NodeBackend) -> Result<PeriodRead, String> {
    part("the deadlines", async { node.period.lock().await.read(node.full_node(), &node.miner()).await }).await
}

/// Every deadline as it is now; where the full node is too slow for that, as in [`last_period`].
pub(super) async fn whole_period(node: &NodeBackend) -> Result<PeriodRead, String> {
    let (full, miner) = (node.full_node(), node.miner());
    let read = async {
        let mut fresh = PeriodCache::default();
        match part_within(PERIOD_WITHIN, "the deadlines", fresh.read(full, &miner)).await {
            Ok(read) => Ok(read),
            Err(why) => last_period(node).await.map_err(|_| why),
        }
    };
    // A full node that hangs keeps the one who reads, and those behind it, no longer than the command line waits.
    node.whole_period.get(read).await
}

/// Names of the methods that the full node lacks, or why they are not known.
fn lacks(missing: &Result<Vec<Missing>, String>) -> Result<Vec<&'static str>, &str> {
    missing.as_ref().map(|all| all.iter().map(|missing| missing.method).collect()).map_err(String::as_str)
}

impl Asked {
    /// Asks everybody at the same time, each with a deadline of its own.
    pub async fn of(node: &NodeBackend) -> Asked {
        let refs = &node.refs;
        let text = |e: BackendError| e.to_string();
        let network = part("the network's version", async {
            let mut told = node.upgrades.lock().await;
            NetworkAsked::read(node.full_node(), &mut told).await
        });
        let period = last_period(node);
        let window = if_run(node, Concern::WindowPost, ask_if_up(&refs.window_post, "window_post", WindowPostInfo));
        let closed = if_run(node, Concern::WindowPost, ask_if_up(&refs.window_post, "window_post", WindowPostSummary));
        let winning = if_run(node, Concern::WinningPost, node.winning_post());
        let f3 = if_run(node, Concern::WinningPost, node.f3());
        let sender =
            if_run(node, Concern::MessageSender, ask_if_up(&refs.messages, "the message sender", MessagesAsked));
        let market = if_run(node, Concern::DealHandler, ask_if_up(&refs.market, "the deal handler", MarketInfo));
        let full = node.full_node();
        let (miner, head) = (node.miner(), TipSetKey::default());
        let power = part("the power", full.state_miner_power(&miner, &head));
        let missing_methods = part("its methods", full.missing_methods());
        let chain = async {
            let feed = ask_if_up(&refs.feed, "the head feed", FeedInfo);
            tokio::join!(feed, ask_if_up(&refs.pool, "the daemon pool", PoolInfo))
        };
        let concerns = async { tokio::join!(window, closed, winning, f3, sender, market) };
        let sealing = node.shards.gather(super::backend::DEADLINE, || SealingAsked);
        let (chain, network, power, balances, period, concerns, sealing, agents, missing_methods) = tokio::join!(
            chain,
            network,
            power,
            accounts::balances(node),
            period,
            concerns,
            sealing,
            agents(node),
            missing_methods
        );
        let feed = chain.0.as_ref().ok();
        let block_delay = feed.and_then(|feed| feed.block_delay_secs).map(Duration::from_secs);
        // Before the first head nobody can say which upgrade is the next.
        let epoch = feed.and_then(|feed| feed.height).unwrap_or(ChainEpoch::MAX);
        let (window_post, closed, winning_post, f3, messages, market) = concerns;
        Asked {
            at: unix_secs(),
            miner: miner.to_string(),
            feed: chain.0.map_err(text),
            pool: chain.1.map_err(text),
            daemons: full.pool().map(|pool| pool.view(&miner.to_string()).nodes).unwrap_or_default(),
            network: network.map(|asked| asked.at(epoch, block_delay, lacks(&missing_methods))),
            power,
            missing_methods,
            balances: balances.0,
            balance_error: balances.1,
            period,
            concerns: Concerns { window_post, winning_post },
            closed,
            f3,
            sealing,
            agents,
            messages,
            market,
            tree: node.snapshot(),
        }
    }

    fn block_delay(&self) -> Option<Duration> {
        self.feed.as_ref().ok().and_then(|feed| feed.block_delay_secs).map(Duration::from_secs)
    }

    /// `None`: the full node did not tell the deadlines.
    pub fn proving(&self) -> Option<ProvingInfo> {
        let (now, rows, faults) = self.period.as_ref().ok()?;
        let period = Period { rows, now, block_delay: self.block_delay() };
        Some(proving_report::proving_info(self.miner.clone(), &period, faults.clone(), &self.concerns))
    }

    pub fn provider(&self) -> ProviderReport {
        let mut unavailable = BTreeMap::new();
        let mut missing = |part: &str, why: Option<&String>| {
            unavailable.extend(why.map(|why| (part.to_string(), why.clone())));
        };
        missing("chain", self.feed.as_ref().err());
        missing("full_nodes", self.pool.as_ref().err());
        missing("network", self.network.as_ref().err());
        missing("power", self.power.as_ref().err());
        missing("balances", self.balance_error.as_ref());
        missing("deadlines", self.period.as_ref().err());
        missing("window_post", failed(&self.concerns.window_post).or(failed(&self.closed)));
        missing("winning_post", failed(&self.concerns.winning_post));
        missing("f3", failed(&self.f3));
        missing("messages", failed(&self.messages));
        missing("market", failed(&self.market));
        missing("sealing", missing_shards(&self.sealing.missing).as_ref());
        let (sectors, sealing) = self.sealing();
        ProviderReport {
            at: self.at,
            miner: self.miner.clone(),
            chain: self.chain(),
            network: self.network.as_ref().ok().map(NetworkReport::part),
            power: self.power.as_ref().ok().map(|power| power_part(power, self.block_delay())),
            balances: self.balances.clone(),
            sectors,
            sealing,
            proving: self.proving_part(),
            blocks: answered(&self.concerns.winning_post).map(blocks),
            f3: answered(&self.f3).map(f3_part),
            messages: answered(&self.messages).map(|messages| MessagesPart {
                queued: messages.queued,
                pushed: messages.pushed,
                oldest_epochs: messages.oldest_epochs,
                waiting: messages.waiting.clone().map(|(key, why)| WaitingMessage { key, why }),
            }),
            unavailable,
        }
    }

    fn chain(&self) -> Option<ChainPart> {
        let feed = self.feed.as_ref().ok()?;
        let pool = self.pool.as_deref().unwrap_or_default();
        Some(ChainPart {
            epoch: feed.height,
            head_at: feed.head_at,
            block_delay_secs: feed.block_delay_secs,
            clock_offset_ms: feed.clock_offset_ms,
            subscribed: feed.subscribed,
            full_nodes: pool.len() as u64,
            usable: pool.iter().filter(|health| is_used(health)).count() as u64,
            pool: self.daemons.iter().map(full_node).collect(),
        })
    }

    fn sealing(&self) -> (Option<BTreeMap<String, u64>>, Option<SealingPart>) {
        // A provider of which nobody seals has no sectors to count, which is not the same as none.
        if self.sealing.found.is_empty() {
            return (None, None);
        }
        let (mut states, mut part) = (BTreeMap::<String, u64>::new(), SealingPart::default());
        for (_, summary) in &self.sealing.found {
            summary.states.iter().for_each(|(state, count)| *states.entry(state.clone()).or_default() += count);
            let used = summary.slots.iter().filter(|(_, Slots { used, .. })| *used > 0);
            used.for_each(|(task, slots)| *part.running.entry(task.clone()).or_default() += slots.used);
            part.failing += summary.failing;
            part.unnumbered += summary.unnumbered;
        }
        let answered = self.agents.iter().filter_map(|(_, report)| report.as_ref().ok());
        for report in answered {
            part.agents += 1;
            part.workers += report.workers.len() as u64;
            part.queued += report.queued;
            for job in report.workers.iter().flat_map(|worker| &worker.running) {
                *part.running.entry(task_of(job).to_string()).or_default() += 1;
            }
        }
        (Some(states), Some(part))
    }

    fn proving_part(&self) -> Option<ProvingPart> {
        let (_, rows, _) = self.period.as_ref().ok()?;
        let sum = |f: fn(&DeadlineRow) -> u64| rows.iter().map(f).sum::<u64>();
        let open = rows.iter().find(|row| row.current);
        let closed = answered(&self.closed).copied().unwrap_or_default();
        Some(ProvingPart {
            live: sum(|row| row.sectors),
            faulty: sum(|row| row.faulty),
            recovering: sum(|row| row.recovering),
            deadline: open.map(|row| row.index),
            closes_at: open.and_then(|row| row.close),
            to_prove: open.map_or(0, |row| row.to_prove),
            proven: open.map_or(0, |row| row.proven),
            met: closed.met,
            missed: closed.missed,
            left_out: answered(&self.concerns.window_post).map_or(0, proving_report::left_out_count),
            unrecorded: self.unrecorded(sum(|row| row.sectors)),
        })
    }

    /// `live`: sectors of the chain's partitions.
    fn unrecorded(&self, live: u64) -> Option<u64> {
        if self.sealing.found.is_empty() || !self.sealing.missing.is_empty() {
            return None;
        }
        let states = self.sealing.found.iter().flat_map(|(_, summary)| &summary.states);
        // Committed sectors are live before their files are final.
        let ours =
            states.filter(|(state, _)| matches!(state.as_str(), "Proving" | "FinalizeSector" | "FinalizeFailed"));
        Some(live.saturating_sub(ours.map(|(_, count)| *count).sum()))
    }
}

fn full_node(row: &NodeRow) -> FullNodePart {
    let paused = (row.status == Status::Pause).then(|| "paused".to_string());
    let not_used = paused.or_else(|| row.disabled.clone());
    FullNodePart {
        host: row.host.clone(),
        addr: row.addr.clone(),
        used: not_used.is_none(),
        why: not_used.or_else(|| row.warning.clone()),
        primary: row.primary,
        head: row.head,
        behind: row.behind,
        calls: row.calls,
    }
}

fn power_part(power: &MinerPower, block_delay: Option<Duration>) -> PowerPart {
    let part = PowerPart {
        raw: power.miner_power.raw_byte_power.to_string(),
        quality_adjusted: power.miner_power.quality_adj_power.to_string(),
        network_raw: power.total_power.raw_byte_power.to_string(),
        network_quality_adjusted: power.total_power.quality_adj_power.to_string(),
        has_min_power: power.has_min_power,
        expected_blocks_per_day: None,
    };
    let share = if power.has_min_power { part.share() } else { 0.0 };
    PowerPart { expected_blocks_per_day: block_delay.map(|delay| election::blocks_per_day(share, delay)), ..part }
}

fn answered<T>(answer: &Answer<T>) -> Option<&T> {
    answer.as_ref()?.as_ref().ok()
}

fn failed<T>(answer: &Answer<T>) -> Option<&String> {
    answer.as_ref()?.as_ref().err()
}

fn missing_shards(missing: &[MissingShard]) -> Option<String> {
    let each: Vec<String> = missing.iter().map(|shard| format!("{}: {}", shard.node, shard.why)).collect();
    (!each.is_empty()).then(|| each.join("; "))
}

fn blocks(report: &WinningReport) -> BlocksPart {
    let mut rounds = BTreeMap::<String, u64>::new();
    report.rounds.iter().for_each(|round| *rounds.entry(round.outcome.name().to_string()).or_default() += 1);
    BlocksPart { accepted: report.blocks_accepted, on_chain: report.blocks_on_chain, lost: report.blocks_lost, rounds }
}
