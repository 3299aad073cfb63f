//! The node behind its own API: every answer comes from an actor or the full node, within a deadline.

use super::concern::Concern;
use super::network_report::UpgradesTold;
use super::provider_report::{self, Asked, PeriodCache, PeriodRead};
use super::proving_report::Concerns;
use super::reload::Live;
use super::sealing_report;
use super::shards::{MissingShard, Shards};
use super::shared_read::SharedRead;
use super::{Refs, api_views};
use crate::actors::daemon_link::messages::FeedInfo;
use crate::actors::deal_handler::MarketInfo;
use crate::actors::f3::messages::{F3Report, F3Status};
use crate::actors::message_sender::messages::{MessageStatus, Status as MessageQuery};
use crate::actors::seal_scheduler::messages::{
    List, Pledge, PledgeAnswer, SealingSummary, SectorDetail, SectorPage, SectorSummary, Status,
    Summary as SealingAsked,
};
use crate::actors::seal_scheduler::{Agents, Phase, SealScheduler, Sector};
use crate::actors::window_post::messages::{WindowPostInfo, WindowPostReport};
use crate::actors::winning_post::messages::{WinningInfo, WinningReport};
use crate::chain::Address;
use crate::chain::miner_messages::sealed_cid;
use crate::chain::types::{TipSet, TipSetKey, Version};
use crate::rpc::api::{
    BackendError, MessageOrder, MessageState, MinerBackend, Order, Plan, ReportKind, SealRandomness, SectorBrief,
    SectorInfo, SectorLog,
};
use crate::rpc::auth::Perm;
use crate::rpc::full_node::pool::NodePool;
use crate::rpc::full_node::pool::view::PoolChange;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::rpc::pool_api::{ApiInfoError, PoolApi};
use crate::supervisor::{Actor, ActorInfo, CallError, Handler, Message, Ref, WeakTree};
use crate::util::time::since_epoch;
use async_trait::async_trait;
use cid::Cid;
use fvm_shared::commcid::data_commitment_v1_to_cid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// One question to one actor.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub struct NodeBackend {
    pub(super) refs: Refs,
    pub(super) shards: Arc<Shards>,
    pub(super) node: Arc<dyn FullNode>,
    /// The pool of full nodes as others see it; `None`: it is not served.
    pub(super) pool_api: Option<Arc<PoolApi>>,
    pub(super) miner: Address,
    pub(super) sector_size: u64,
    pub(super) network: String,
    /// The concerns that a node of this provider may run.
    pub(super) concerns: BTreeSet<Concern>,
    pub(super) agents: Arc<dyn Agents>,
    pub(super) period: tokio::sync::Mutex<PeriodCache>,
    /// Every deadline, read anew.
    pub(super) whole_period: SharedRead<std::result::Result<PeriodRead, String>>,
    pub(super) info: SharedRead<Value>,
    /// One order is checked at a time: everybody may ask for that, and it costs many calls to the full node.
    pub(super) check: tokio::sync::Mutex<()>,
    /// The settings in force.
    pub(super) live: Live,
    pub(super) upgrades: tokio::sync::Mutex<UpgradesTold>,
    pub(super) ordering: super::orders::OrderLocks,
    pub(super) tree: Arc<OnceLock<WeakTree>>,
    pub(super) stop: Arc<Notify>,
}

type Result<T> = std::result::Result<T, BackendError>;

impl From<FullNodeError> for BackendError {
    fn from(e: FullNodeError) -> BackendError {
        BackendError::Failed(e.to_string())
    }
}

/// A restart of the actor is waited for: whoever called need not know of it.
pub(super) async fn ask<A, M>(actor: &Ref<A>, what: &'static str, message: M) -> Result<M::Reply>
where
    A: Actor + Handler<M>,
    M: Message,
{
    let answer = actor.ask_when_up(message, DEADLINE).await;
    answer.map_err(|e: CallError<M>| BackendError::Unavailable { what, why: e.to_string() })
}

/// For overviews: what is down is what they are to say, at once.
pub(super) async fn ask_if_up<A, M>(actor: &Ref<A>, what: &'static str, message: M) -> Result<M::Reply>
where
    A: Actor + Handler<M>,
    M: Message,
{
    let answer = actor.ask(message, DEADLINE).await;
    answer.map_err(|e: CallError<M>| BackendError::Unavailable { what, why: e.to_string() })
}

/// The sectors of all seal schedulers of the miner, as far as they answered.
#[derive(Debug, Default)]
pub struct Sectors {
    /// In order of numbers, each with the node that seals it.
    pub sectors: Vec<(String, SectorSummary)>,
    /// The number to go on with; `None`: these are the last.
    pub next: Option<u64>,
    pub missing_shards: Vec<MissingShard>,
}

/// Sectors that one message asks for.
const ASKED_AT_ONCE: usize = 1000;

/// The lowest `most` sectors of one seal scheduler from a number on.
async fn shard_sectors(shard: Ref<SealScheduler>, from: u64, most: usize) -> std::result::Result<SectorPage, String> {
    let mut all = SectorPage::default();
    loop {
        let from = all.sectors.last().map_or(from, |last: &SectorSummary| last.number + 1);
        let ask = (most - all.sectors.len()).min(ASKED_AT_ONCE);
        let page = shard.ask(List { from, most: ask as u32 }, DEADLINE).await.map_err(|e| e.to_string())?;
        // An older node answers with all of its sectors, whatever is asked for.
        let wanted = page.sectors.into_iter().filter(|sector| sector.number >= from);
        let before = all.sectors.len();
        all.sectors.extend(wanted);
        all.more = page.more;
        if !page.more || all.sectors.len() >= most || all.sectors.len() == before {
            return Ok(all);
        }
    }
}

/// For a question that the missing parts may hold the answer to.
fn unanswered(missing: &[MissingShard]) -> BackendError {
    let why = missing.iter().map(|m| format!("{}: {}", m.node, m.why)).collect::<Vec<_>>().join("; ");
    BackendError::Unavailable { what: "the seal scheduler", why }
}

/// Sectors that a seal scheduler has not done with, and pledges that will be.
fn to_do(summary: &SealingSummary) -> u64 {
    let done = [Phase::Proving, Phase::Removed].map(|phase| phase.to_string());
    let sectors = summary.states.iter().filter(|(state, _)| !done.contains(state));
    sectors.map(|(_, count)| count).sum::<u64>() + summary.unnumbered
}

impl NodeBackend {
    /// The children that are down and wait for another try, by place in the tree, with the reason.
    pub fn held_down(&self) -> BTreeMap<String, String> {
        let rows = self.tree.get().and_then(WeakTree::upgrade).map(|tree| tree.snapshot()).unwrap_or_default();
        rows.into_iter().filter_map(|row| Some((row.path, row.held?))).collect()
    }

    /// The sectors from a number on, at most so many. An error only if nobody answered that there is anything to ask of.
    pub async fn sector_summaries(&self, from: u64, most: usize) -> Result<Sectors> {
        let gathered = self.shards.gather_by(|shard| shard_sectors(shard, from, most)).await;
        if gathered.found.is_empty() && !gathered.missing.is_empty() {
            return Err(unanswered(&gathered.missing));
        }
        let more = gathered.found.iter().any(|(_, page)| page.more);
        let rows = gathered.found.into_iter();
        let rows = rows.flat_map(|(node, page)| page.sectors.into_iter().map(move |s| (node.clone(), s)));
        let mut sectors: Vec<_> = rows.collect();
        sectors.sort_by_key(|(_, sector)| sector.number);
        let more = more || sectors.len() > most;
        sectors.truncate(most);
        let next = sectors.last().filter(|_| more).map(|(_, last)| last.number + 1);
        Ok(Sectors { sectors, next, missing_shards: gathered.missing })
    }

    pub async fn sector_detail(&self, number: u64) -> Result<Option<SectorDetail>> {
        let gathered = self.shards.gather(DEADLINE, || Status { number }).await;
        match gathered.found.into_iter().find_map(|(_, detail)| detail) {
            None if !gathered.missing.is_empty() => Err(unanswered(&gathered.missing)),
            found => Ok(found),
        }
    }

    /// The seal scheduler that a new sector goes to: this node's, else the one with the least to do.
    async fn sealer(&self) -> Result<Ref<SealScheduler>> {
        if !self.refs.sealing.is_remote() && self.shards.has_own() {
            return Ok(self.refs.sealing.clone());
        }
        let gathered = self.shards.gather(DEADLINE, || SealingAsked).await;
        let least = gathered.found.iter().min_by_key(|(_, summary)| to_do(summary)).map(|(node, _)| node);
        match least.and_then(|node| self.shards.at(node)) {
            Some(sealer) => Ok(sealer),
            None if gathered.missing.is_empty() => {
                Err(BackendError::Failed("no node of this miner seals: give one the role sealing".into()))
            }
            None => Err(unanswered(&gathered.missing)),
        }
    }

    fn pool(&self) -> Result<&NodePool> {
        self.node.pool().ok_or(BackendError::NoPool)
    }

    pub async fn window_post(&self) -> Result<WindowPostReport> {
        ask(&self.refs.window_post, "window_post", WindowPostInfo).await
    }

    pub async fn winning_post(&self) -> Result<WinningReport> {
        ask_if_up(&self.refs.winning_post, "winning_post", WinningInfo).await
    }

    pub(super) async fn f3(&self) -> Result<F3Report> {
        ask_if_up(&self.refs.f3, "F3 participation", F3Status).await
    }

    /// For overviews: what is down is what they are to say, at once.
    pub(super) async fn proving_concerns(&self) -> Concerns {
        let window_post = async {
            match self.runs(Concern::WindowPost) {
                true => Some(ask_if_up(&self.refs.window_post, "window_post", WindowPostInfo).await),
                false => None,
            }
        };
        let winning_post = async {
            match self.runs(Concern::WinningPost) {
                true => Some(self.winning_post().await),
                false => None,
            }
        };
        let (window_post, winning_post) = tokio::join!(window_post, winning_post);
        let text = |e: BackendError| e.to_string();
        Concerns {
            window_post: window_post.map(|answer| answer.map_err(text)),
            winning_post: winning_post.map(|answer| answer.map_err(text)),
        }
    }

    /// Whether this provider has the concern at all: in a cluster any node may run it, alone only this one.
    pub(super) fn runs(&self, concern: Concern) -> bool {
        self.concerns.contains(&concern)
    }

    /// A concern that nobody runs is not waited for.
    fn must_run(&self, concern: Concern) -> Result<()> {
        let (name, role) = (concern.name(), concern.role().name());
        match self.runs(concern) {
            true => Ok(()),
            false => {
                Err(BackendError::Failed(format!("{name} is off here: no node of this provider has the role {role}")))
            }
        }
    }

    pub(super) fn snapshot(&self) -> Vec<ActorInfo> {
        self.tree.get().and_then(WeakTree::upgrade).map(|tree| tree.snapshot()).unwrap_or_default()
    }

    pub fn network(&self) -> &str {
        &self.network
    }

    pub fn full_node(&self) -> &dyn FullNode {
        self.node.as_ref()
    }

    pub(super) async fn feed(&self) -> Result<crate::actors::daemon_link::messages::FeedStatus> {
        ask_if_up(&self.refs.feed, "the head feed", FeedInfo).await
    }

    /// Asks for one sector under a name of the caller's: the same name again is the same sector.
    pub async fn pledge(&self, request: String) -> Result<u64> {
        let sealer = self.sealer().await?;
        match ask(&sealer, "the seal scheduler", Pledge { request }).await? {
            PledgeAnswer::Sector(number) => Ok(number),
            PledgeAnswer::Waiting(why) => Err(BackendError::Failed(format!(
                "the pledge is stored, its number follows by itself ({why}); `sectors list` will show it"
            ))),
            PledgeAnswer::Refused(why) => Err(BackendError::Failed(why)),
        }
    }

    /// The CID of a message that this sector has given to the sender, once it is signed.
    async fn message_cid(&self, key: String) -> Option<Cid> {
        match ask(&self.refs.messages, "the message sender", MessageQuery { key }).await {
            Ok(MessageStatus::Pushed { cid, .. } | MessageStatus::Landed { cid, .. }) => Some(cid),
            Ok(MessageStatus::Queued { .. } | MessageStatus::Failed { .. } | MessageStatus::Unknown) | Err(_) => None,
        }
    }
}

#[async_trait]
impl MinerBackend for NodeBackend {
    fn miner(&self) -> Address {
        self.miner
    }

    async fn sector_size(&self) -> Result<u64> {
        Ok(self.sector_size)
    }

    async fn mining_base(&self) -> Result<TipSet> {
        Ok(self.node.chain_head().await?)
    }

    async fn pledge_sector(&self) -> Result<u64> {
        // Lotus' call has no name for the wish: each call is a new one.
        let now = since_epoch().as_nanos();
        self.pledge(format!("api-{now}")).await
    }

    async fn sectors(&self) -> Result<Vec<SectorBrief>> {
        let list = self.sector_summaries(0, usize::MAX).await?;
        for shard in &list.missing_shards {
            // Lotus' shape has no place to say so.
            tracing::warn!(node = shard.node, why = shard.why, "a list of sectors lacks those of a node");
        }
        Ok(list
            .sectors
            .into_iter()
            .map(|(_, s)| SectorBrief { number: s.number, state: s.phase.to_string() })
            .collect())
    }

    async fn sector(&self, number: u64, on_chain: bool) -> Result<SectorInfo> {
        let detail = self.sector_detail(number).await?.ok_or(BackendError::NoSuchSector(number))?;
        let mut info = sector_info(&detail.sector, &detail.summary);
        info.pre_commit_msg = self.message_cid(detail.sector.pre_commit_key()).await;
        info.commit_msg = self.message_cid(detail.sector.commit_key()).await;
        if on_chain
            && let Some(chain) = self.node.state_sector_get_info(&self.miner, number, &TipSetKey::default()).await?
        {
            info.seal_proof = chain.seal_proof;
            info.activation = chain.activation;
            info.expiration = chain.expiration;
            info.initial_pledge = chain.initial_pledge.unwrap_or_default();
        }
        Ok(info)
    }

    fn subsystems(&self) -> Vec<String> {
        ["Mining", "Sealing", "SectorStorage", "Markets"].map(String::from).to_vec()
    }

    fn version(&self) -> Version {
        Version { version: format!("bulkhead-{}", env!("CARGO_PKG_VERSION")), api_version: 0x10501, block_delay: 0 }
    }

    fn shutdown(&self) {
        self.stop.notify_one();
    }

    async fn check_order(&self, order: &Order) -> Result<Plan> {
        let _one_at_a_time = self.check.lock().await;
        self.plan_order(order).await
    }

    async fn order(&self, order: &Order, request: &str) -> Result<Vec<String>> {
        self.send_order(order, request).await
    }

    async fn message_state(&self, key: &str) -> Result<MessageState> {
        self.state_of_message(key).await
    }

    async fn messages(&self, most: u32) -> Result<Value> {
        self.list_messages(most).await
    }

    async fn replace_message(&self, key: &str, max_fee: Option<&str>) -> Result<MessageOrder> {
        self.order_replacement(key, max_fee).await
    }

    async fn cancel_message(&self, key: &str) -> Result<MessageOrder> {
        self.order_cancel(key).await
    }

    async fn change_daemons(&self, change: PoolChange) -> Result<String> {
        self.pool()?.apply(change).map_err(BackendError::Failed)
    }

    async fn daemons_auth(&self) -> Result<String> {
        Ok(self.pool()?.secret_text())
    }

    async fn daemons_api_info(&self, perm: Perm) -> Result<String> {
        let info = self.pool_api.as_ref().ok_or(ApiInfoError::NotServed).and_then(|api| api.api_info(perm));
        info.map_err(|e| BackendError::Failed(e.to_string()))
    }

    async fn report(&self, asked: ReportKind) -> Result<Value> {
        let json = |v: serde_json::Result<Value>| v.map_err(|e| BackendError::Failed(e.to_string()));
        match asked {
            ReportKind::Info => Ok(self.info.get(async { api_views::info(self, &Asked::of(self).await).await }).await),
            ReportKind::Daemons => json(serde_json::to_value(self.pool()?.view(&self.miner.to_string()))),
            ReportKind::Actor => json(serde_json::to_value(self.actor_report().await?)),
            ReportKind::Sectors(asked) => api_views::sectors(self, asked).await,
            ReportKind::Tree => json(serde_json::to_value(self.snapshot())),
            ReportKind::SealingWorkers => json(serde_json::to_value(provider_report::all_workers(self).await)),
            ReportKind::SealingJobs => json(serde_json::to_value(sealing_report::of_provider(self).await)),
            ReportKind::ProvingInfo => json(serde_json::to_value(api_views::proving_info(self).await)),
            ReportKind::ProvingDeadlines => json(serde_json::to_value(api_views::deadlines(self).await?)),
            ReportKind::WindowPost => {
                self.must_run(Concern::WindowPost)?;
                json(serde_json::to_value(self.window_post().await?))
            }
            ReportKind::WinningPost => {
                self.must_run(Concern::WinningPost)?;
                json(serde_json::to_value(self.winning_post().await?))
            }
            ReportKind::F3 => {
                self.must_run(Concern::WinningPost)?;
                json(serde_json::to_value(self.f3().await?))
            }
            ReportKind::Market => {
                json(serde_json::to_value(ask(&self.refs.market, "the deal handler", MarketInfo).await?))
            }
        }
    }
}

/// The journal's record in Lotus' shape.
fn sector_info(sector: &Sector, summary: &SectorSummary) -> SectorInfo {
    let mut info = SectorInfo::new(sector.number, sector.phase.to_string());
    let drawn = |d: Option<crate::actors::seal_scheduler::Drawn>| {
        d.map_or_else(SealRandomness::default, |d| SealRandomness { value: d.value.to_vec(), epoch: d.epoch })
    };
    info.comm_d = sector.comm_d.and_then(|c| data_commitment_v1_to_cid(&c).ok());
    info.comm_r = sector.comm_r.and_then(|c| sealed_cid(&c).ok());
    info.proof = sector.proof.clone();
    info.ticket = drawn(sector.ticket);
    info.seed = drawn(sector.seed);
    info.retries = u64::from(sector.fails.invalid_proofs);
    info.last_err = summary.failure().unwrap_or_default().to_string();
    info.waits_for = summary.waits_for().unwrap_or_default().to_string();
    info.seal_proof = sector.seal_proof.unwrap_or_default();
    info.log = sector
        .log
        .iter()
        .map(|line| SectorLog {
            kind: line.phase.to_string(),
            timestamp: line.at / 1000,
            trace: String::new(),
            message: line.text.clone(),
        })
        .collect();
    info
}
