//! What a node says of itself: `info`, `proving info`, `proving deadlines`, and the snapshot that the admin HTTP shows.

use super::backend::{NodeBackend, Sectors};
use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::seal_scheduler::messages::SectorSummary;
use crate::chain::types::TipSetKey;
use crate::rpc::api::{BackendError, MinerBackend};
use crate::rpc::bridge::{codec, ids};
use crate::rpc::full_node::FullNodeError;
use crate::supervisor::wire::WireForm;
use crate::supervisor::{Actor, ActorInfo, Cx, Exit, Handler, Message};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row of `proving deadlines`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct DeadlineRow {
    pub index: u64,
    pub open: Option<i64>,
    pub close: Option<i64>,
    pub partitions: u64,
    pub sectors: u64,
    pub faulty: u64,
    pub recovering: u64,
    /// Partitions of this deadline that are proven in the present period.
    pub proven: u64,
}

/// A part that cannot be had is named with its error instead of leaving the whole answer out.
pub async fn info(node: &NodeBackend) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Result<Value, String>| {
        out.insert(name.to_string(), value.unwrap_or_else(|why| json!({ "unavailable": why })));
    };
    put("miner", Ok(json!(node.miner().to_string())));
    put("sector_size", Ok(json!(node.sector_size().await.unwrap_or_default())));
    put("network", Ok(json!(node.network())));
    put("version", Ok(json!(env!("CARGO_PKG_VERSION"))));
    put("full_node", node.feed().await.map(|s| json!(s)).map_err(|e| e.to_string()));
    put("missing_methods", missing_methods(node).await.map_err(|e| e.to_string()));
    put("power", power(node).await.map_err(|e| e.to_string()));
    put("available_balance", balance(node).await.map_err(|e| e.to_string()));
    let listed = node.sector_summaries().await;
    put("sectors", listed.as_ref().map(sector_counts).map_err(|e| e.to_string()));
    if let Ok(list) = listed.as_ref()
        && !list.missing_shards.is_empty()
    {
        put("missing_shards", Ok(json!(list.missing_shards)));
    }
    put("winning_post", winning(node).await.map_err(|e| e.to_string()));
    Value::Object(out)
}

/// What the full node lacks, and what is done without it.
async fn missing_methods(node: &NodeBackend) -> Result<Value, FullNodeError> {
    let missing = node.full_node().missing_methods().await?;
    Ok(missing.into_iter().map(|m| (m.method.to_string(), json!(m.instead))).collect::<Map<_, _>>().into())
}

async fn power(node: &NodeBackend) -> Result<Value, FullNodeError> {
    let power = node.full_node().state_miner_power(&node.miner(), &TipSetKey::default()).await?;
    Ok(json!({
        "raw_bytes": power.miner_power.raw_byte_power.to_string(),
        "quality_adjusted": power.miner_power.quality_adj_power.to_string(),
        "network_quality_adjusted": power.total_power.quality_adj_power.to_string(),
        "has_min_power": power.has_min_power,
    }))
}

async fn balance(node: &NodeBackend) -> Result<Value, FullNodeError> {
    let free = node.full_node().state_miner_available_balance(&node.miner(), &TipSetKey::default()).await?;
    Ok(json!(format!("{free} FIL")))
}

fn sector_counts(list: &Sectors) -> Value {
    let mut counts = BTreeMap::<String, u64>::new();
    for (_, sector) in &list.sectors {
        *counts.entry(sector.phase.to_string()).or_default() += 1;
    }
    json!(counts)
}

/// `{sectors: [{number, state, node, ..}], missing_shards: [{node, why}]}`.
pub async fn sectors(node: &NodeBackend) -> Result<Value, BackendError> {
    let list = node.sector_summaries().await?;
    let row = |(node, s): &(String, SectorSummary)| json!({ "number": s.number, "state": s.phase.to_string(), "node": node, "since": s.since, "reason": s.reason });
    Ok(json!({
        "sectors": list.sectors.iter().map(row).collect::<Vec<_>>(),
        "missing_shards": list.missing_shards,
    }))
}

async fn winning(node: &NodeBackend) -> Result<Value, BackendError> {
    let report = node.winning_post().await?;
    Ok(json!({
        "blocks_accepted": report.blocks_accepted,
        "blocks_on_chain": report.blocks_on_chain,
        "last_round": report.rounds.last(),
    }))
}

pub async fn proving_info(node: &NodeBackend) -> Result<Value, BackendError> {
    let head = TipSetKey::default();
    let now = node.full_node().state_miner_proving_deadline(&node.miner(), &head).await?;
    let rows = deadlines(node).await?;
    let sum = |f: fn(&DeadlineRow) -> u64| rows.iter().map(f).sum::<u64>();
    let missed = node
        .window_post()
        .await
        .map(|report| report.deadlines.iter().flat_map(|d| &d.batches).filter(|batch| batch.phase == "missed").count());
    Ok(json!({
        "current_epoch": now.current_epoch,
        "period_start": now.period_start,
        "proving_period": now.w_post_proving_period,
        "deadline": format!("{} of {}", now.index, now.w_post_period_deadlines),
        "deadline_open": now.open,
        "deadline_close": now.close,
        "sectors": sum(|r| r.sectors),
        "faulty": sum(|r| r.faulty),
        "recovering": sum(|r| r.recovering),
        "missed_lately": missed.unwrap_or_default(),
    }))
}

pub async fn deadlines(node: &NodeBackend) -> Result<Vec<DeadlineRow>, BackendError> {
    // One tipset for all of it: the parts belong together.
    let key = node.full_node().chain_head().await?.key();
    let (full, miner) = (node.full_node(), node.miner());
    let now = full.state_miner_proving_deadline(&miner, &key).await?;
    let mut rows = Vec::new();
    for (index, deadline) in (0u64..).zip(full.state_miner_deadlines(&miner, &key).await?) {
        let open = now.period_start + index as i64 * now.w_post_challenge_window;
        let mut row = DeadlineRow {
            index,
            open: Some(open),
            close: Some(open + now.w_post_challenge_window),
            proven: deadline.post_submissions.len(),
            ..DeadlineRow::default()
        };
        for partition in full.state_miner_partitions(&miner, index, &key).await? {
            row.partitions += 1;
            row.sectors += partition.live_sectors.len();
            row.faulty += partition.faulty_sectors.len();
            row.recovering += partition.recovering_sectors.len();
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Keeps the admin HTTP's `/info` fresh: on every new head, so that reading it asks nobody.
pub struct InfoPublisher {
    node: Arc<NodeBackend>,
    place: Arc<ArcSwap<Value>>,
    asking: bool,
}

impl InfoPublisher {
    pub fn new(node: Arc<NodeBackend>, place: Arc<ArcSwap<Value>>) -> InfoPublisher {
        InfoPublisher { node, place, asking: false }
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

struct Asked(Value);
impl Message for Asked {
    type Reply = ();
}

impl Actor for InfoPublisher {}

impl Handler<HeadUpdate> for InfoPublisher {
    async fn handle(&mut self, _: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        // Heads that come while one is looked at are covered by the next.
        if !std::mem::replace(&mut self.asking, true) {
            let node = self.node.clone();
            cx.spawn(async move { Asked(info(&node).await) });
        }
        Ok(())
    }
}

impl Handler<Asked> for InfoPublisher {
    async fn handle(&mut self, Asked(value): Asked, _cx: &Cx<Self>) -> Result<(), Exit> {
        self.asking = false;
        self.place.store(Arc::new(value));
        Ok(())
    }
}
