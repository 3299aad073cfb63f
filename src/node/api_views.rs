//! A node's reports: `info`, `proving info`, `proving deadlines`, and the snapshot that the admin HTTP shows.

use super::backend::NodeBackend;
use super::provider_report::{self, Asked};
use super::proving_report::{self, Period};
pub use super::proving_report::{DeadlineRow, PartitionFaults, ProvingInfo};
use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::seal_scheduler::Phase;
use crate::actors::seal_scheduler::messages::SectorSummary;
use crate::chain::network_rules::{NetworkRules, PledgeRpc};
use crate::chain::types::{MinerPower, TipSetKey};
use crate::chain::{ChainEpoch, TokenAmount};
use crate::rpc::admin::provider::ProviderReport;
use crate::rpc::api::{BackendError, MinerBackend, SectorsAsked};
use crate::rpc::full_node::lookups::sectors_on_chain;
use crate::rpc::full_node::{FullNodeError, Missing};
use crate::supervisor::wire::WireForm;
use crate::supervisor::{Actor, ActorInfo, Cx, Exit, Handler, Message};
use crate::wire::{codec, ids};
use arc_swap::ArcSwap;
use fvm_ipld_bitfield::BitField;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A part that cannot be had is named with its error instead of leaving the whole answer out.
pub async fn info(node: &NodeBackend, asked: &Asked) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Result<Value, String>| {
        out.insert(name.to_string(), value.unwrap_or_else(|why| json!({ "unavailable": why })));
    };
    let (provider, proving) = (asked.provider(), asked.proving());
    put("miner", Ok(json!(asked.miner)));
    put("sector_size", Ok(json!(node.sector_size().await.unwrap_or_default())));
    put("network", Ok(json!(node.network())));
    put("version", Ok(json!(env!("CARGO_PKG_VERSION"))));
    put("full_node", asked.feed.as_ref().map(|s| json!(s)).map_err(Clone::clone));
    put("missing_methods", asked.missing_methods.as_ref().map(|all| missing_methods(all, asked)).map_err(Clone::clone));
    put("network_rules", asked.network.as_ref().map(|n| json!(NetworkRules::of(n.version))).map_err(Clone::clone));
    put("power", asked.power.as_ref().map(power).map_err(Clone::clone));
    let available = provider.balances.get("miner_available").ok_or(asked.balance_error.clone().unwrap_or_default());
    put("available_balance", available.map(|atto| json!(fil(atto))));
    let sectors = match (&provider.sectors, provider.unavailable.get("sealing")) {
        (Some(counts), _) => Ok(json!(counts)),
        (None, Some(why)) => Err(why.clone()),
        (None, None) => Ok(json!({})),
    };
    put("sectors", sectors);
    if !asked.sealing.missing.is_empty() {
        put("missing_shards", Ok(json!(asked.sealing.missing)));
    }
    put("winning_post", winning(asked));
    put("troubles", Ok(json!(asked.troubles())));
    put("restart", Ok(json!(proving.as_ref().map(|proving| &proving.restart))));
    put("open_deadline", Ok(json!(proving.as_ref().and_then(|proving| proving.open_deadline.as_ref()))));
    put("next_deadline", Ok(json!(proving.as_ref().and_then(|proving| proving.next_deadline.as_ref()))));
    put("next_opens_in_seconds", Ok(json!(proving.as_ref().and_then(|proving| proving.next_opens_in_seconds))));
    put("workers", Ok(json!(provider_report::workers(&asked.sealing, &asked.agents))));
    put(
        "market",
        match &asked.market {
            Some(market) => market.as_ref().map(|market| json!(market)).map_err(Clone::clone),
            None => Ok(Value::Null),
        },
    );
    let held = node.held_down();
    if !held.is_empty() {
        put("held_down", Ok(json!(held)));
    }
    put("provider", Ok(json!(provider)));
    Value::Object(out)
}

fn fil(atto: &str) -> String {
    let atto: num_bigint::BigInt = atto.parse().unwrap_or_default();
    format!("{} FIL", TokenAmount::from_atto(atto))
}

/// Methods that the full node lacks, and the substitute for each. Of the two calls for a pledge only that of the network's
/// version counts.
fn missing_methods(all: &[Missing], asked: &Asked) -> Value {
    let pledge = asked.network.as_ref().ok().map(|network| NetworkRules::of(network.version).pledge);
    let unused = |method: &str| {
        let calls = [PledgeRpc::ForPreCommit, PledgeRpc::ForSector];
        calls.into_iter().any(|call| call.method() == method && pledge.is_some_and(|pledge| pledge != call))
    };
    let missing = all.iter().filter(|missing| !unused(missing.method));
    missing.map(|m| (m.method.to_string(), json!(m.instead))).collect::<Map<_, _>>().into()
}

fn power(power: &MinerPower) -> Value {
    json!({
        "raw_bytes": power.miner_power.raw_byte_power.to_string(),
        "quality_adjusted": power.miner_power.quality_adj_power.to_string(),
        "network_quality_adjusted": power.total_power.quality_adj_power.to_string(),
        "has_min_power": power.has_min_power,
    })
}

fn winning(asked: &Asked) -> Result<Value, String> {
    match &asked.concerns.winning_post {
        Some(Ok(report)) => Ok(json!({
            "blocks_accepted": report.blocks_accepted,
            "blocks_on_chain": report.blocks_on_chain,
            "blocks_lost": report.blocks_lost,
            "last_round": report.rounds.last(),
        })),
        Some(Err(why)) => Err(why.clone()),
        None => Ok(Value::Null),
    }
}

/// Sectors that the full node is asked about at a time: its answer has some 600 bytes for each.
const SECTORS_ASKED: usize = 2000;

/// `{sectors: [{number, state, node, ..}], next, missing_shards: [{node, why}], height, block_delay_secs}`. Activation and
/// expiration are 0 before the sector is on chain, and null where the full node did not answer. `next`: the number to go on
/// with, null after the last page.
pub async fn sectors(node: &NodeBackend, asked: SectorsAsked) -> Result<Value, BackendError> {
    let list = node.sector_summaries(asked.from, asked.bounded()).await?;
    let on_chain = list.sectors.iter().filter(|(_, sector)| may_be_on_chain(sector.phase));
    let terms = sector_terms(node, on_chain.map(|(_, sector)| sector.number)).await;
    let (terms, error) = match terms {
        Ok(terms) => (Some(terms), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let row = |(node, s): &(String, SectorSummary)| {
        let (activation, expiration) = match &terms {
            Some(terms) => terms.get(&s.number).copied().map_or((Some(0), Some(0)), |(a, e)| (Some(a), Some(e))),
            None => (None, None),
        };
        json!({
            "number": s.number, "state": s.phase.to_string(), "node": node, "since": s.since, "reason": s.reason,
            "working": s.working, "agent": s.location, "failure": s.failure(), "waits_for": s.waits_for(),
            "retry_at": s.retry_at, "activation": activation, "expiration": expiration,
        })
    };
    let feed = node.feed().await.ok();
    Ok(json!({
        "sectors": list.sectors.iter().map(row).collect::<Vec<_>>(),
        "next": list.next,
        "missing_shards": list.missing_shards,
        "height": feed.as_ref().and_then(|feed| feed.height),
        "block_delay_secs": feed.as_ref().and_then(|feed| feed.block_delay_secs),
        "chain_error": error,
    }))
}

/// Whether a sector's proof may have landed. Only such sectors are asked for: each number that is no sector on chain costs
/// further calls.
fn may_be_on_chain(phase: Phase) -> bool {
    match phase {
        Phase::SubmitCommit
        | Phase::CommitWait
        | Phase::CommitFailed
        | Phase::FinalizeSector
        | Phase::FinalizeFailed
        | Phase::Proving => true,
        Phase::Allocated
        | Phase::AddPiece
        | Phase::GetTicket
        | Phase::PreCommit1
        | Phase::PreCommit2
        | Phase::PreCommitting
        | Phase::PreCommitWait
        | Phase::WaitSeed
        | Phase::Commit1
        | Phase::Commit2
        | Phase::VerifySeal
        | Phase::AddPieceFailed
        | Phase::SealPreCommit1Failed
        | Phase::SealPreCommit2Failed
        | Phase::PreCommitFailed
        | Phase::ComputeProofFailed
        | Phase::Removing
        | Phase::Removed => false,
    }
}

/// Activation and expiration of those that are on chain, by number.
async fn sector_terms(
    node: &NodeBackend,
    numbers: impl Iterator<Item = u64>,
) -> Result<BTreeMap<u64, (ChainEpoch, ChainEpoch)>, FullNodeError> {
    let numbers: Vec<u64> = numbers.collect();
    let mut terms = BTreeMap::new();
    for some in numbers.chunks(SECTORS_ASKED) {
        // Numbers above the bitfield's limit are no sectors of a chain.
        let Ok(asked) = BitField::try_from_bits(some.iter().copied()) else { continue };
        let found = sectors_on_chain(node.full_node(), &node.miner(), &asked, &TipSetKey::default()).await?;
        terms.extend(found.into_iter().map(|s| (s.sector_number, (s.activation, s.expiration))));
    }
    Ok(terms)
}

/// The concerns are shown also where the full node does not tell the deadlines.
pub async fn proving_info(node: &NodeBackend) -> ProvingInfo {
    let (read, concerns) = tokio::join!(provider_report::whole_period(node), node.proving_concerns());
    let miner = node.miner().to_string();
    match read {
        Ok((now, rows, faults)) => {
            let block_delay = node.feed().await.ok().and_then(|feed| feed.block_delay_secs).map(Duration::from_secs);
            let period = Period { rows: &rows, now: &now, block_delay };
            proving_report::proving_info(miner, &period, faults, &concerns)
        }
        Err(why) => {
            let epoch = node.feed().await.ok().and_then(|feed| feed.height).unwrap_or_default();
            proving_report::without_deadlines(miner, epoch, &why, &concerns)
        }
    }
}

pub async fn deadlines(node: &NodeBackend) -> Result<Vec<DeadlineRow>, BackendError> {
    provider_report::whole_period(node).await.map(|(_, rows, _)| rows).map_err(BackendError::Failed)
}

/// The provider's state as the admin HTTP shows it: reading it asks nobody.
#[derive(Clone, Default)]
pub struct Published {
    /// `/info`; null before the first look.
    pub info: Arc<ArcSwap<Value>>,
    /// For `/metrics`.
    pub provider: Arc<ArcSwap<ProviderReport>>,
}

/// Keeps [`Published`] fresh: on every new head, and now and then while no head comes.
pub struct InfoPublisher {
    node: Arc<NodeBackend>,
    place: Published,
    asking: bool,
    /// When the last look began; `None` before the first.
    looked: Option<Instant>,
    /// A head came too soon after the last look: one more follows.
    owed: bool,
}

/// Between two looks while no head comes: that the full node is away must be seen, too.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(15);

/// Between two looks at least: heads may come fast, on a chain that catches up or one for tests.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl InfoPublisher {
    pub fn new(node: Arc<NodeBackend>, place: Published) -> InfoPublisher {
        InfoPublisher { node, place, asking: false, looked: None, owed: false }
    }

    /// Heads that come while one is looked at are covered by the next.
    fn look(&mut self, cx: &Cx<Self>) {
        let since = self.looked.map_or(LOOK_PAUSE, |looked| looked.elapsed());
        if since < LOOK_PAUSE {
            if !std::mem::replace(&mut self.owed, true) {
                cx.tell_after(LOOK_PAUSE - since, LookNow);
            }
            return;
        }
        if !std::mem::replace(&mut self.asking, true) {
            self.looked = Some(Instant::now());
            let node = self.node.clone();
            cx.spawn(async move {
                let asked = Asked::of(&node).await;
                Looked { info: info(&node, &asked).await, provider: asked.provider() }
            });
        }
    }
}

/// The supervision tree of this node, for another one.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct TreeSnapshot {}
impl Message for TreeSnapshot {
    type Reply = Vec<ActorInfo>;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::TREE_SNAPSHOT, 1));
}

impl Handler<TreeSnapshot> for InfoPublisher {
    async fn handle(&mut self, _: TreeSnapshot, _cx: &Cx<Self>) -> Result<Vec<ActorInfo>, Exit> {
        Ok(self.node.snapshot())
    }
}

struct Looked {
    info: Value,
    provider: ProviderReport,
}
impl Message for Looked {
    type Reply = ();
}

struct LookNow;
impl Message for LookNow {
    type Reply = ();
}

struct LookAgain;
impl Message for LookAgain {
    type Reply = ();
}

impl Actor for InfoPublisher {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.look(cx);
        cx.tell_after(PUBLISH_INTERVAL, LookAgain);
        Ok(())
    }
}

impl Handler<HeadUpdate> for InfoPublisher {
    async fn handle(&mut self, _: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        self.look(cx);
        Ok(())
    }
}

impl Handler<LookNow> for InfoPublisher {
    async fn handle(&mut self, _: LookNow, cx: &Cx<Self>) -> Result<(), Exit> {
        self.owed = false;
        self.look(cx);
        Ok(())
    }
}

impl Handler<LookAgain> for InfoPublisher {
    async fn handle(&mut self, _: LookAgain, cx: &Cx<Self>) -> Result<(), Exit> {
        self.look(cx);
        cx.tell_after(PUBLISH_INTERVAL, LookAgain);
        Ok(())
    }
}

impl Handler<Looked> for InfoPublisher {
    async fn handle(&mut self, Looked { info, provider }: Looked, _cx: &Cx<Self>) -> Result<(), Exit> {
        self.asking = false;
        self.place.info.store(Arc::new(info));
        self.place.provider.store(Arc::new(provider));
        Ok(())
    }
}
