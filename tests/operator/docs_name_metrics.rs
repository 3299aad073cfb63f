//! The table of metrics in docs/operations.md is what `/metrics` prints: every name and label, no more and no less.

use arc_swap::ArcSwap;
use bulkhead::rpc::admin::cluster::{ClusterReport, LeaseRow, PeerRow, PeersReport, RemoteTreeError};
use bulkhead::rpc::admin::provider::ProviderReport;
use bulkhead::rpc::admin::provider_metrics::example;
use bulkhead::rpc::admin::{AdminConfig, AdminViews, ClusterView, DeadLettersView, TreeView, Vitals, only, start};
use bulkhead::rpc::directory::{DirectoryError, PlacementOrder};
use bulkhead::supervisor::{ActorInfo, DeadReason, HandleTimes};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node of a cluster of which everything is known.
struct Everything;

impl TreeView for Everything {
    fn snapshot(&self) -> Vec<ActorInfo> {
        let row = json!({
            "path": "root/a", "kind": "worker", "state": "up", "incarnation": 1, "restarts": 0, "mailbox_depth": 0,
            "mailbox_bound": 1, "last_exit": null, "last_exit_at": null,
        });
        let mut row: ActorInfo = serde_json::from_value(row).unwrap();
        row.handle_times = Some(HandleTimes { buckets: vec![1; 8], sum_us: 5 });
        vec![row]
    }
    fn kill(&self, _: &str) -> bool {
        false
    }
    fn dead_letters(&self) -> Option<DeadLettersView> {
        Some(DeadLettersView { counts: vec![(DeadReason::ActorEnded, 1)], recent: vec![] })
    }
    fn vitals(&self) -> Option<Vitals> {
        Some(Vitals { watchdog_ticks: 1, ..Vitals::default() })
    }
    fn provider(&self) -> Option<Arc<ProviderReport>> {
        Some(Arc::new(example()))
    }
    fn cluster(&self) -> Option<Arc<dyn ClusterView>> {
        Some(Arc::new(Everything))
    }
}

impl ClusterView for Everything {
    fn node(&self) -> String {
        "a".into()
    }
    fn holders(&self, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    fn report(&self) -> ClusterReport {
        let lease = LeaseRow {
            concern: "/t01000/window-post".into(),
            node: "a".into(),
            epoch: 1,
            here: true,
            state: Some("proven".into()),
        };
        ClusterReport { in_contact: true, leases: vec![lease], etcd_bytes: Some(1), ..ClusterReport::default() }
    }
    fn peers(&self) -> PeersReport {
        let peer = PeerRow {
            peer_id: "12D3".into(),
            node: Some("b".into()),
            state: "up".into(),
            boot: Some(1),
            rtt_us: Some(1),
            pending: 0,
            queued_control: 0,
            queued_messages: 0,
            refused: [("fenced".to_string(), 1)].into(),
        };
        PeersReport { peers: vec![peer], strangers: BTreeMap::new() }
    }
    fn actors_of(&self, node: &str) -> BoxFuture<'static, Result<Vec<ActorInfo>, RemoteTreeError>> {
        let error = RemoteTreeError::Unknown { node: node.into() };
        Box::pin(std::future::ready(Err(error)))
    }
    fn full_nodes_of(&self, node: &str) -> BoxFuture<'static, Result<Value, RemoteTreeError>> {
        let error = RemoteTreeError::Unknown { node: node.into() };
        Box::pin(std::future::ready(Err(error)))
    }
    fn order(&self, _: PlacementOrder) -> BoxFuture<'static, Result<(), DirectoryError>> {
        Box::pin(std::future::ready(Err(DirectoryError::Closed)))
    }
}

/// Name -> labels.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// Of a line `name{a="..",b=".."} 7`.
fn labels(line: &str) -> BTreeSet<String> {
    let Some((_, rest)) = line.split_once('{') else { return BTreeSet::new() };
    let inside = rest.rsplit_once('}').unwrap().0;
    inside.split("\",").map(|pair| pair.split('=').next().unwrap().to_string()).collect()
}

fn printed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        let of_it = |line: &&str| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "));
        let found = text.lines().find(of_it).map(labels);
        // A histogram's own lines have endings.
        let bucket = text.lines().find(|line| line.starts_with(&format!("{name}_bucket{{"))).map(labels);
        metrics.insert(name.to_string(), found.or(bucket).unwrap_or_default());
    }
    metrics
}

/// The rows of the one table whose first column is headed `metric`.
fn documented() -> Metrics {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows =
        page.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2).take_while(|l| l.starts_with('|'));
    let mut metrics = Metrics::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "name, meaning, alert: {row}");
        let name = cells[0].trim_matches('`');
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).map(str::to_string).collect();
        assert!(metrics.insert(name.to_string(), labels).is_none(), "{name} stands twice");
        assert!(cells[1].len() > 10, "{name} has no meaning: {row}");
    }
    metrics
}

#[tokio::test]
async fn the_table_is_what_metrics_prints() {
    let views = AdminViews {
        tree: Arc::new(Everything),
        info: Arc::new(ArcSwap::from_pointee(Value::Null)),
        critical: vec![],
        stop: Arc::new(|| {}),
    };
    let config = AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), allow: only("t".into()) };
    let http = start(config, views).unwrap();
    let text = reqwest::get(format!("http://{}/metrics", http.addr())).await.unwrap().text().await.unwrap();
    let (printed, documented) = (printed(&text), documented());
    assert!(printed.len() > 40, "{}\n{text}", printed.len());
    for (name, labels) in &printed {
        assert_eq!(documented.get(name), Some(labels), "docs/operations.md on {name}");
    }
    let gone: Vec<&String> = documented.keys().filter(|name| !printed.contains_key(*name)).collect();
    assert!(gone.is_empty(), "documented and not printed: {gone:?}");
    http.stop().await;
}
