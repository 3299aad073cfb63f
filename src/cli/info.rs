//! `bulkhead info`: how the running node does, on one screen; of an agent, what it has to do.

use super::client::NodeClient;
use super::output::print_error;
use super::render::{agent, facts::facts, info as render, time::unix_now};
use super::{CliError, Context};
use crate::rpc::admin::cluster::ClusterReport;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The cluster's part comes from memory; without it the rest is shown.
const CLUSTER_WITHIN: Duration = Duration::from_secs(3);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Everything that the node says of itself
    #[arg(long)]
    pub all: bool,
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    let cluster = async {
        let asked = tokio::time::timeout(CLUSTER_WITHIN, node.admin_get::<ClusterReport>("/cluster"));
        // A node that runs alone has none.
        if node.has_admin() { asked.await.ok()?.ok() } else { None }
    };
    let (cluster, info) = tokio::join!(cluster, node.call("Bulkhead.Info", vec![]));
    let mut info = match info {
        Err(why) if node.has_admin() => published(&node, why).await?,
        answer => answer?,
    };
    if let Some(cluster) = &cluster {
        add_troubles(&mut info, cluster);
    }
    cx.out.answer(&info, |info| text(info, args.all));
    Ok(())
}

/// While the API is held down (its port is taken, its secret damaged) the admin HTTP has what the node last said of itself.
async fn published(node: &NodeClient, why: CliError) -> Result<Value, CliError> {
    match node.admin_get::<Value>("/info").await {
        Ok(info) if !info.is_null() => {
            print_error(
                "note: the API does not answer; this is what the node last said of itself, from its admin HTTP",
            );
            Ok(info)
        }
        _ => Err(why),
    }
}

/// The cluster's troubles go first: what nobody holds is done by nobody.
fn add_troubles(info: &mut Value, cluster: &ClusterReport) {
    let Some(Value::Array(known)) = info.get_mut("troubles") else { return };
    let all = cluster.troubles.iter().chain(&cluster.etcd_trouble);
    let all = all.map(|what| json!({ "what": what, "fix": "see `bulkhead cluster status`" }));
    known.splice(0..0, all.collect::<Vec<_>>());
}

fn text(info: &Value, all: bool) -> String {
    if info.get("agent").is_some() {
        return agent::info(info);
    }
    // A node from before there was a screen, or one whose answer has another form.
    let Some(known) = info.get("provider").and_then(|_| render::Info::deserialize(info).ok()) else {
        return facts(info);
    };
    let screen = render::info(&known, unix_now(), all);
    if all { format!("{screen}\n{}", facts(info)) } else { screen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_troubles_go_first() {
        let cluster = ClusterReport {
            troubles: vec!["nobody holds /t01000/window-post".into()],
            etcd_trouble: Some("etcd is full".into()),
            ..ClusterReport::default()
        };
        let mut info = json!({ "troubles": [{ "what": "the full node is away", "fix": "check it" }] });
        add_troubles(&mut info, &cluster);
        let whats: Vec<_> = info["troubles"].as_array().unwrap().iter().map(|one| one["what"].clone()).collect();
        assert_eq!(whats, ["nobody holds /t01000/window-post", "etcd is full", "the full node is away"]);
        let mut agent = json!({ "agent": "a" });
        add_troubles(&mut agent, &cluster);
        assert_eq!(agent, json!({ "agent": "a" }));
    }
}
