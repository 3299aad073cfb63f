//! The provider's state, from the answers of its concerns and the full node: for `/metrics`, and for `info` with what
//! is wrong and what to do about it. Costs a fixed number of questions, whatever the number of sectors.

use super::backend::{NodeBackend, ask_if_up};
use super::concern::Concern;
use super::network_report::{NetworkAsked, NetworkReport, f3_part, f3_trouble};
use super::proving_report::{self, Concerns, DeadlineRow, PartitionFaults, Period, ProvingInfo, Trouble};
use super::shards::{Gathered, MissingShard};
use crate::actors::daemon_link::lag;
use crate::actors::daemon_link::messages::FeedStatus;
use crate::actors::daemon_link::messages::{FeedInfo, PoolInfo};
use crate::actors::daemon_link::pool::{Health, usable};
use crate::actors::deal_handler::{MarketInfo, MarketReport};
use crate::actors::f3::messages::F3Report;
use crate::actors::message_sender::messages::{MessageSummary, Summary as MessagesAsked};
use crate::actors::seal_agent::messages::{AgentReport, GetAgentReport as AgentAsked};
use crate::actors::seal_scheduler::messages::{SealingSummary, Slots, Summary as SealingAsked};
use crate::actors::window_post::messages::{Closed, WindowPostInfo, WindowPostSummary};
use crate::actors::winning_post::messages::WinningReport;
use crate::chain::types::{DeadlineInfo, MinerPower, TipSetKey};
use crate::chain::{Address, ChainEpoch, TokenAmount};
use crate::rpc::admin::provider::*;
use crate::rpc::api::{BackendError, MinerBackend};
use crate::rpc::full_node::{FullNode, FullNodeError, Missing};
use crate::supervisor::{ActorInfo, ActorState};
use crate::util::time::unix_secs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// For one agent, which may be far away.
const AGENT_WITHIN: Duration = Duration::from_secs(3);
/// Block delays after which a head that does not change is a trouble.
const HEAD_STANDS: u64 = 5;
/// Epochs after which a message that is not final is a trouble.
const MESSAGE_STANDS: u64 = 30;
/// Alerts of the message sender that are shown.
const ALERTS_SHOWN: usize = 5;

/// The deadlines of the present period as they were last read, so that a head costs one deadline and not all of them. What
/// was read is kept when the reader is given up: the next goes on there.
#[derive(Default)]
pub struct PeriodCache {
    now: DeadlineInfo,
    rows: Vec<DeadlineRow>,
    faults: Vec<PartitionFaults>,
}

impl PeriodCache {
    /// All deadlines are read when another one opens; the open one is read each time.
    async fn read(
        &mut self,
        full: &dyn FullNode,
        miner: &Address,
    ) -> Result<(DeadlineInfo, Vec<DeadlineRow>, Vec<PartitionFaults>), FullNodeError> {
        let key = full.chain_head().await?.key();
        let now = full.state_miner_proving_deadline(miner, &key).await?;
        let submitted = full.state_miner_deadlines(miner, &key).await?;
        let same =
            |then: &DeadlineInfo| (then.period_start, then.index, then.open) == (now.period_start, now.index, now.open);
        if !same(&self.now) || self.rows.len() > submitted.len() {
            *self = PeriodCache::default();
        }
        self.now = now;
        let known = self.rows.len() as u64;
        for (index, deadline) in (0u64..).zip(&submitted) {
            if index < known && index != now.index {
                continue;
            }
            let partitions = full.state_miner_partitions(miner, index, &key).await?;
            let row = DeadlineRow::of(index, &now, &deadline.post_submissions, &partitions);
            match self.rows.get_mut(index as usize) {
                Some(known) => *known = row,
                None => self.rows.push(row),
            }
            self.faults.retain(|known| known.deadline != index);
            self.faults.extend(PartitionFaults::of(index, &partitions));
        }
        Ok((now, self.rows.clone(), self.faults.clone()))
    }
}

/// Everything that was asked; an error text where there was no answer, `None` for what no node of this provider runs.
pub struct Asked {
    pub at: u64,
    pub miner: String,
    pub feed: Result<FeedStatus, String>,
    pub pool: Result<Vec<Health>, String>,
    pub max_behind: i64,
    pub network: Result<NetworkReport, String>,
    pub power: Result<MinerPower, String>,
    /// Methods that the full node lacks.
    pub missing_methods: Result<Vec<Missing>, String>,
    /// attoFIL by account.
    pub balances: BTreeMap<String, String>,
    pub balance_error: Option<String>,
    pub period: Result<(DeadlineInfo, Vec<DeadlineRow>, Vec<PartitionFaults>), String>,
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

/// That part, or why it could not be had in time.
pub(super) async fn part<T, E: ToString>(what: &str, asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(PART_WITHIN, asked).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("the full node did not tell {what} within {} s", PART_WITHIN.as_secs())),
    }
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
        let period =
            part("the deadlines", async { node.period.lock().await.read(node.full_node(), &node.miner()).await });
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
            balances(node),
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
            max_behind: node.max_behind,
            network: network.map(|asked| asked.at(epoch, block_delay)),
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
            power: self.power.as_ref().ok().map(|power| PowerPart {
                raw: power.miner_power.raw_byte_power.to_string(),
                quality_adjusted: power.miner_power.quality_adj_power.to_string(),
                network_raw: power.total_power.raw_byte_power.to_string(),
                network_quality_adjusted: power.total_power.quality_adj_power.to_string(),
                has_min_power: power.has_min_power,
            }),
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
            usable: (0..pool.len()).filter(|index| usable(pool, *index, self.max_behind)).count() as u64,
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

    /// The gravest first: proofs that were missed, the chain, the rest of proving, then what can wait.
    pub fn troubles(&self) -> Vec<Trouble> {
        let proving = self.proving();
        let mut all = Vec::new();
        all.extend(proving.as_ref().and_then(|proving| proving_report::missed_trouble(&proving.missed)));
        all.extend(self.chain_troubles());
        all.extend(self.network.iter().flat_map(NetworkReport::troubles));
        match proving {
            Some(proving) => all.extend(proving.troubles.into_iter().skip(usize::from(!proving.missed.is_empty()))),
            None => all.extend(
                self.period
                    .as_ref()
                    .err()
                    .map(|why| Trouble::new(format!("the deadlines cannot be read: {why}"), "see the full node's log")),
            ),
        }
        all.extend(self.tree.iter().filter_map(actor_trouble));
        all.extend(answered(&self.f3).and_then(f3_trouble));
        if let Some(messages) = answered(&self.messages) {
            let stands = messages.oldest_epochs.filter(|epochs| *epochs >= MESSAGE_STANDS);
            all.extend(stands.map(|epochs| {
                let what =
                    format!("{} messages are open, the oldest is not on chain for {epochs} epochs", messages.pushed);
                Trouble::new(what, "compare the network's base fee with fees.* in config.toml")
            }));
            let alerts = messages.alerts.iter().take(ALERTS_SHOWN);
            all.extend(
                alerts.map(|alert| {
                    Trouble::new(alert.clone(), "see `bulkhead tree --inspect root/chain/message_sender`")
                }),
            );
            all.extend(messages.waiting.as_ref().filter(|_| messages.queued > 1).map(|(key, why)| {
                let what = format!("{} messages are not sent, the first is {key}: {why}", messages.queued);
                Trouble::new(what, "see `bulkhead tree --inspect root/chain/message_sender`")
            }));
        }
        let failing: u64 = self.sealing.found.iter().map(|(_, summary)| summary.failing).sum();
        if failing > 0 {
            let what = format!("{failing} sectors fail and are tried again");
            all.push(Trouble::new(what, "see LAST ERROR in `bulkhead sectors list`"));
        }
        all.extend(missing_shards(&self.sealing.missing).map(|why| {
            Trouble::new(format!("the sectors of a node are not known: {why}"), "see `bulkhead cluster nodes`")
        }));
        for (agent, report) in &self.agents {
            all.extend(report.as_ref().err().map(|why| {
                Trouble::new(format!("agent {agent} does not answer: {why}"), "see `bulkhead cluster nodes`")
            }));
        }
        if let Some(debt) = self.balances.get("miner_fee_debt").filter(|atto| *atto != "0") {
            let debt = TokenAmount::from_atto(debt.parse::<num_bigint::BigInt>().unwrap_or_default());
            all.push(Trouble::new(
                format!("the miner owes {debt} FIL of fees: nothing is pre-committed, recovered or withdrawn before that is paid"),
                "bulkhead actor repay-debt",
            ));
        }
        if self.balances.get("worker").is_some_and(|atto| atto == "0") {
            all.push(Trouble::new(
                "the worker has no FIL: no message can be paid",
                "send some to the worker's address",
            ));
        }
        if let Some(error) = answered(&self.market).and_then(|market| market.ask_error.as_ref()) {
            all.push(Trouble::new(
                format!("no new storage ask: {error}"),
                "the worker's key must be in the full node's wallet",
            ));
        }
        all
    }

    fn chain_troubles(&self) -> Vec<Trouble> {
        let fix = "check the full node and FULLNODE_API_INFO";
        let feed = match &self.feed {
            Ok(feed) => feed,
            Err(why) => return vec![Trouble::new(why.clone(), "see `bulkhead tree`")],
        };
        let pool = self.pool.as_deref().unwrap_or_default();
        let away = !pool.is_empty() && !(0..pool.len()).any(|index| usable(pool, index, self.max_behind));
        let error = pool.iter().find_map(|health| health.error.clone()).or(feed.last_error.clone());
        if away || (feed.last_error.is_some() && !feed.subscribed && !feed.polling) {
            return vec![Trouble::new(format!("the full node is away: {}", error.unwrap_or_default()), fix)];
        }
        let mut all = Vec::new();
        if let Some((head_at, delay)) = feed.head_at.zip(feed.block_delay_secs) {
            let (now, delay) = (Duration::from_secs(self.at), Duration::from_secs(delay.max(1)));
            let lag = lag::too_far(now, head_at, delay, HEAD_STANDS);
            all.extend(lag.map(|lag| {
                let epochs = lag.as_secs() / delay.as_secs();
                let what = format!("the newest head is {} s old: {epochs} epochs behind the clock", lag.as_secs());
                Trouble::new(what, "is the full node in sync? is this host's clock right?")
            }));
        }
        all.extend(feed.clock_skew.clone().map(|what| Trouble::new(what, "set this host's clock (NTP)")));
        all
    }
}

/// An actor that is down, or says what it tries again.
fn actor_trouble(actor: &ActorInfo) -> Option<Trouble> {
    let see = "see `bulkhead tree` and the log";
    // Its own words are in the chain's troubles.
    let is_link = actor.path.ends_with("/head_feed") || actor.path.ends_with("/daemon_pool");
    match (&actor.trouble, actor.state) {
        (Some(why), _) if !is_link => Some(Trouble::new(format!("{}: {why}", actor.path), see)),
        (_, ActorState::Restarting) => {
            // Held down: why that is. Else it is between two tries of its backoff.
            let why = actor.held.clone().or_else(|| actor.last_exit.as_ref().map(ToString::to_string));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Some(Trouble::new(format!("{} restarts{why}", actor.path), see))
        }
        (_, ActorState::Stopped) if !crate::rpc::admin::stands_by(actor) => {
            let fix = format!("start it: POST /actors/{}/restart", actor.path);
            Some(Trouble::new(format!("{} is stopped", actor.path), fix))
        }
        _ => None,
    }
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

/// `s-t01000-7-pc1-2` -> `pc1`.
fn task_of(job: &str) -> &str {
    job.rsplit('-').nth(1).unwrap_or(job)
}

/// attoFIL of the miner's accounts; an account whose balance could not be had is left out, and the error told.
async fn balances(node: &NodeBackend) -> (BTreeMap<String, String>, Option<String>) {
    let (full, miner, head) = (node.full_node(), node.miner(), TipSetKey::default());
    let (mut found, mut error) = (BTreeMap::new(), None);
    let mut take = |account: &str, answer: Result<TokenAmount, String>| match answer {
        Ok(amount) => drop(found.insert(account.to_string(), amount.atto().to_string())),
        Err(e) => error = Some(e),
    };
    let available = part("the miner's balance", full.state_miner_available_balance(&miner, &head));
    let funds = part("the miner's funds", full.state_miner_funds(&miner, &head));
    let info = part("the miner's accounts", full.state_miner_info(&miner, &head));
    let (available, funds, info) = tokio::join!(available, funds, info);
    take("miner_available", available);
    match funds {
        Ok(funds) => {
            take("miner_total", Ok(funds.balance));
            take("miner_pledge", Ok(funds.initial_pledge));
            take("miner_pre_commit", Ok(funds.pre_commit_deposits));
            take("miner_vesting", Ok(funds.vesting));
            take("miner_fee_debt", Ok(funds.fee_debt));
        }
        Err(e) => take("miner_total", Err(e)),
    }
    match info {
        Ok(info) => {
            let mut accounts = vec![("worker".to_string(), info.worker)];
            if info.owner != info.worker {
                accounts.push(("owner".to_string(), info.owner));
            }
            accounts.extend(info.control_addresses.iter().enumerate().map(|(i, c)| (format!("control-{i}"), *c)));
            let asked = accounts.iter().map(|(_, address)| part("a balance", full.wallet_balance(address)));
            let answers = futures::future::join_all(asked).await;
            accounts.iter().zip(answers).for_each(|((name, _), answer)| take(name, answer));
        }
        Err(e) => error = Some(e),
    }
    (found, error)
}

async fn agents(node: &NodeBackend) -> Vec<(String, Result<AgentReport, String>)> {
    // A provider without a directory has none, which is no error.
    let Ok(seen) = node.agents.seen() else { return Vec::new() };
    let asked = seen.into_iter().map(|agent| async move {
        let report = agent.worker.ask(AgentAsked, AGENT_WITHIN).await.map_err(|e| e.to_string());
        (agent.name, report)
    });
    futures::future::join_all(asked).await
}

/// A sealing worker as `info` shows it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Worker {
    /// The node, or the agent.
    pub at: String,
    /// `node`, `agent` or `worker` (a process of that agent).
    pub kind: String,
    pub name: String,
    /// Kind of task -> how many it runs and may run; for a worker process only what runs.
    pub slots: BTreeMap<String, Slots>,
    /// Tasks that wait there.
    pub queued: u64,
    /// Bytes; an agent's.
    pub free_disk: Option<u64>,
    /// Milliseconds since a worker process was last heard.
    pub silent_for: Option<u64>,
    /// Why nothing more is known.
    pub error: Option<String>,
}

/// A row for each node that seals, for each agent, and for each worker process of an agent.
pub fn workers(nodes: &Gathered<SealingSummary>, agents: &[(String, Result<AgentReport, String>)]) -> Vec<Worker> {
    let mut rows = Vec::new();
    for (node, summary) in &nodes.found {
        let slots = summary.slots.clone();
        rows.push(Worker { at: node.clone(), kind: "node".into(), name: node.clone(), slots, ..Worker::default() });
    }
    for MissingShard { node, why } in &nodes.missing {
        let error = Some(why.clone());
        rows.push(Worker { at: node.clone(), kind: "node".into(), name: node.clone(), error, ..Worker::default() });
    }
    for (agent, report) in agents {
        let row = Worker { at: agent.clone(), kind: "agent".into(), name: agent.clone(), ..Worker::default() };
        match report {
            Ok(report) => {
                rows.extend(workers_of(agent, report));
            }
            Err(why) => rows.push(Worker { error: Some(why.clone()), ..row }),
        }
    }
    rows
}

pub async fn all_workers(node: &NodeBackend) -> Vec<Worker> {
    let nodes = node.shards.gather(super::backend::DEADLINE, || SealingAsked);
    let (nodes, agents) = tokio::join!(nodes, agents(node));
    workers(&nodes, &agents)
}

/// An agent, and its worker processes.
pub fn workers_of(agent: &str, report: &AgentReport) -> Vec<Worker> {
    let slots = |running: &[String], pc1: Option<u64>| {
        let mut slots = BTreeMap::<String, Slots>::new();
        slots.extend(pc1.map(|all| ("pc1".to_string(), Slots { used: 0, all })));
        running.iter().for_each(|job| slots.entry(task_of(job).to_string()).or_default().used += 1);
        slots
    };
    let running: Vec<String> = report.workers.iter().flat_map(|worker| worker.running.clone()).collect();
    let own = Worker {
        at: agent.to_string(),
        kind: "agent".into(),
        name: agent.to_string(),
        slots: slots(&running, Some(report.slots)),
        queued: report.queued,
        free_disk: Some(report.free_disk),
        ..Worker::default()
    };
    let process = report.workers.iter().map(|worker| Worker {
        at: agent.to_string(),
        kind: "worker".into(),
        name: worker.name.clone(),
        slots: slots(&worker.running, None),
        silent_for: Some(worker.silent_for),
        ..Worker::default()
    });
    std::iter::once(own).chain(process).collect()
}

#[cfg(test)]
#[path = "provider_report_tests.rs"]
mod tests;
