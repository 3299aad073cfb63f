//! The full nodes behind this provider and which of them is usable.

use super::lag;
use super::settings::LinkSettings;
use crate::chain::ChainEpoch;
use crate::rpc::full_node::FullNode;
use crate::util::lock;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The result of a node's last check.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Health {
    pub node: String,
    /// `None` before the first check and after a failed one.
    pub height: Option<ChainEpoch>,
    /// Unix seconds of the blocks of that head.
    #[serde(default)]
    pub head_at: Option<u64>,
    /// Seconds; of its network.
    #[serde(default)]
    pub block_delay_secs: Option<u64>,
    pub error: Option<String>,
    /// Another network than the configured one: not used.
    pub wrong_network: bool,
}

/// Usable: answered, right network, not too far behind the best. A node that was not checked yet counts as usable.
pub fn usable(all: &[Health], index: usize, max_behind: ChainEpoch) -> bool {
    let Some(health) = all.get(index) else { return false };
    if health.wrong_network || health.error.is_some() {
        return false;
    }
    let best = all.iter().filter(|other| !other.wrong_network).filter_map(|other| other.height).max();
    match (health.height, best) {
        (Some(height), Some(best)) => best - height <= max_behind,
        _ => true,
    }
}

/// Why no node is usable; `None` while one is.
pub fn all_away(all: &[Health], max_behind: ChainEpoch) -> Option<String> {
    if (0..all.len()).any(|index| usable(all, index, max_behind)) {
        return None;
    }
    let why: Vec<&str> = all.iter().filter_map(|health| health.error.as_deref()).collect();
    Some(format!("no full node can be used: {}", why.join("; ")))
}

/// A sentence, when the newest head of the usable nodes lags the clock too far.
pub fn lagging(all: &[Health], now: Duration, max_behind: ChainEpoch, max_lag: u64) -> Option<String> {
    let in_use = (0..all.len()).filter(|index| usable(all, *index, max_behind)).map(|index| &all[index]);
    let heads = in_use.filter_map(|health| Some((health.head_at?, health.block_delay_secs?)));
    let (head_at, delay) = heads.max()?;
    let delay = Duration::from_secs(delay.max(1));
    lag::too_far(now, head_at, delay, max_lag).map(|lag| lag::sentence(lag, delay))
}

struct Nodes {
    nodes: Vec<Arc<dyn FullNode>>,
    health: Mutex<Vec<Health>>,
    max_behind: ChainEpoch,
}

/// Shared by all who talk to full nodes. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Nodes>,
}

impl Pool {
    pub fn new(nodes: Vec<Arc<dyn FullNode>>, settings: &LinkSettings) -> Pool {
        let health = nodes.iter().map(|node| Health { node: node.name(), ..Default::default() }).collect();
        Pool { inner: Arc::new(Nodes { nodes, health: Mutex::new(health), max_behind: settings.max_behind }) }
    }

    pub fn nodes(&self) -> &[Arc<dyn FullNode>] {
        &self.inner.nodes
    }

    pub fn health(&self) -> Vec<Health> {
        lock(&self.inner.health).clone()
    }

    pub fn report(&self, index: usize, health: Health) {
        let mut all = lock(&self.inner.health);
        if let Some(place) = all.get_mut(index) {
            *place = health;
        }
    }

    /// A node that was found to be of another network between two checks.
    pub fn exclude(&self, name: &str, why: String) {
        let mut all = lock(&self.inner.health);
        for health in all.iter_mut().filter(|health| health.node == name) {
            *health =
                Health { node: name.to_string(), error: Some(why.clone()), wrong_network: true, ..Health::default() };
        }
    }

    /// The first usable node; when none is, the first that is not of a wrong network, else the first: to try is better than
    /// to stop, and whoever takes one asks for its network before anything else.
    pub fn pick(&self) -> Option<Arc<dyn FullNode>> {
        let health = self.health();
        let indices = || 0..self.inner.nodes.len();
        let found = indices().find(|index| usable(&health, *index, self.inner.max_behind));
        let found = found.or_else(|| indices().find(|index| !health[*index].wrong_network)).or(indices().next());
        found.map(|index| self.inner.nodes[index].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: ChainEpoch) -> Health {
        Health { height: Some(height), ..Default::default() }
    }

    #[test]
    fn a_node_too_far_behind_the_best_is_not_used() {
        for (height, expected) in [(97, false), (98, true), (99, true), (100, true)] {
            assert_eq!(usable(&[at(height), at(100)], 0, 2), expected, "height {height}");
        }
    }

    #[test]
    fn the_newest_head_of_the_usable_nodes_tells_the_lag() {
        let head = |height, head_at| Health { head_at: Some(head_at), block_delay_secs: Some(30), ..at(height) };
        let now = Duration::from_secs(100_000);
        let told = |all: &[Health]| lagging(all, now, 2, 10);
        assert_eq!(told(&[head(100, 99_700)]), None, "ten epochs");
        let why = told(&[head(100, 99_699)]).unwrap();
        assert!(why.contains("lags the clock by 301 s (10 epochs)"), "{why}");
        assert!(told(&[head(0, 0)]).is_some(), "started anew");
        assert_eq!(told(&[head(0, 0), head(100, 99_990)]), None, "another one is in sync");
        let broken = Health { error: Some("refused".into()), ..Health::default() };
        assert!(told(&[broken, head(90, 99_000)]).is_some(), "the one in sync does not answer");
        assert_eq!(told(&[at(5)]), None, "not known");
        assert_eq!(lagging(&[head(0, 0)], now, 2, 0), None, "no limit");
    }

    #[test]
    fn all_are_away_when_the_last_one_is() {
        let failed = || Health { error: Some("refused".into()), ..Default::default() };
        assert_eq!(all_away(&[failed(), at(7)], 2), None);
        assert_eq!(all_away(&[Health::default()], 2), None, "not checked yet");
        assert_eq!(all_away(&[failed(), failed()], 2).as_deref(), Some("no full node can be used: refused; refused"));
        assert!(all_away(&[], 2).is_some());
    }

    #[test]
    fn errors_and_wrong_networks_count_out() {
        let failed = Health { error: Some("refused".into()), ..Default::default() };
        let wrong = Health { wrong_network: true, ..at(1_000_000) };
        let all = [failed, wrong, Health::default(), at(100)];
        assert_eq!([0, 1, 2, 3, 4].map(|index| usable(&all, index, 2)), [false, false, true, true, false]);
    }
}
