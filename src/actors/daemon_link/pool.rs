//! The full nodes behind this provider and which of them the head feed follows.

use super::lag;
use super::settings::LinkSettings;
use crate::rpc::full_node::pool::judge::Bounds;
use crate::rpc::full_node::pool::{Member, NodePool, PoolSettings};
use crate::rpc::full_node::{FullNode, FullNodeError, HttpFullNode};
use crate::util::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use crate::rpc::full_node::pool::judge::Health;

/// Why no node is usable; `None` while one is, and before the first check.
pub fn all_away(all: &[Health]) -> Option<String> {
    if !all.is_empty() && all.iter().any(is_used) {
        return None;
    }
    let why: Vec<&str> = all.iter().filter_map(|health| health.disabled.as_deref()).collect();
    Some(format!("no full node can be used: {}", why.join("; ")))
}

/// In use after its last check; a node that was not checked yet is.
pub fn is_used(health: &Health) -> bool {
    health.disabled.is_none() && !health.wrong_network
}

/// A sentence, when the newest head of the usable nodes lags the clock too far.
pub fn lagging(all: &[Health], now: Duration, max_lag: u64) -> Option<String> {
    let in_use = all.iter().filter(|health| health.disabled.is_none());
    let heads = in_use.filter_map(|health| Some((health.head_at?, health.block_delay_secs?)));
    let (head_at, delay) = heads.max()?;
    let delay = Duration::from_secs(delay.max(1));
    lag::too_far(now, head_at, delay, max_lag).map(|lag| lag::sentence(lag, delay))
}

struct Connected {
    /// `None`: it is no address.
    member: Option<Arc<Member>>,
    node: Arc<dyn FullNode>,
}

/// One by one, over connections of this group's own. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    pool: NodePool,
    /// By name; one behind an address is made when it is first needed, for the member that it was made for.
    nodes: Arc<Mutex<HashMap<String, Connected>>>,
}

impl Pool {
    /// The nodes of `pool`.
    pub fn of(pool: NodePool) -> Pool {
        Pool { pool, nodes: Arc::default() }
    }

    /// Nodes that are no addresses.
    pub fn new(nodes: Vec<Arc<dyn FullNode>>, settings: &LinkSettings) -> Pool {
        let bounds = Bounds { max_behind_diff: settings.max_behind, ..Bounds::default() };
        let pool_settings = PoolSettings { bounds, ..PoolSettings::default() };
        let pool = NodePool::of_names(nodes.iter().map(|node| node.name()), pool_settings);
        let nodes = nodes.into_iter().map(|node| (node.name(), Connected { member: None, node })).collect();
        Pool { pool, nodes: Arc::new(Mutex::new(nodes)) }
    }

    pub fn shared(&self) -> &NodePool {
        &self.pool
    }

    /// In the order of the pool.
    pub fn nodes(&self) -> Vec<Arc<dyn FullNode>> {
        let members = self.pool.members();
        let mut nodes = lock(&self.nodes);
        // One that left and came back, with another token say, is another member.
        let stays = |name: &String, connected: &Connected| {
            let of = |member: &Arc<Member>| connected.member.as_ref().is_none_or(|of| Arc::ptr_eq(of, member));
            members.iter().any(|member| &member.name == name && of(member))
        };
        nodes.retain(|name, connected| stays(name, connected));
        for member in &members {
            let Some(info) = member.info.as_ref().filter(|_| !nodes.contains_key(&member.name)) else { continue };
            match HttpFullNode::new(info.clone()) {
                Ok(node) => {
                    let connected = Connected { member: Some(member.clone()), node: Arc::new(node) };
                    nodes.insert(member.name.clone(), connected);
                }
                Err(error) => tracing::warn!(node = member.name, %error, "a full node of the pool can't be used"),
            }
        }
        members.iter().filter_map(|member| Some(nodes.get(&member.name)?.node.clone())).collect()
    }

    /// Connections to one node that nobody else uses; to one that is no address, the node itself.
    pub fn connect(&self, member: &Member) -> Result<Arc<dyn FullNode>, FullNodeError> {
        match &member.info {
            Some(info) => Ok(Arc::new(HttpFullNode::new(info.clone())?)),
            None => {
                let nodes = lock(&self.nodes);
                let known = nodes.get(&member.name).map(|connected| connected.node.clone());
                let why = "it has no address".to_string();
                known.ok_or_else(|| FullNodeError::Unreachable { node: member.name.clone(), why })
            }
        }
    }

    pub fn health(&self) -> Vec<Health> {
        self.pool.health()
    }

    pub fn exclude(&self, name: &str, why: String) {
        self.pool.exclude(name, why);
    }

    /// The node to follow instead of one that is not used any more; `None`: it is used, or no other is.
    pub fn better_than(&self, name: &str) -> Option<String> {
        if self.pool.is_used(name) { None } else { self.pool.best() }
    }

    /// The node to follow: of those in use the one with the heaviest chain. While none is in use, the first that is not of a
    /// wrong network, else the first: to try is better than to stop, and whoever takes one asks for its network first.
    pub fn pick(&self) -> Option<Arc<dyn FullNode>> {
        let (health, nodes) = (self.health(), self.nodes());
        let best = self.pool.best();
        let right = || health.iter().find(|health| !health.wrong_network).map(|health| health.node.clone());
        let name = best.or_else(right);
        let named = name.and_then(|name| nodes.iter().find(|node| node.name() == name).cloned());
        named.or_else(|| nodes.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::ChainEpoch;

    fn at(height: ChainEpoch) -> Health {
        Health { height: Some(height), ..Default::default() }
    }

    fn failed() -> Health {
        Health { error: Some("refused".into()), disabled: Some("refused".into()), ..Default::default() }
    }

    #[test]
    fn the_newest_head_of_the_usable_nodes_tells_the_lag() {
        let head = |height, head_at| Health { head_at: Some(head_at), block_delay_secs: Some(30), ..at(height) };
        let now = Duration::from_secs(100_000);
        let told = |all: &[Health]| lagging(all, now, 10);
        assert_eq!(told(&[head(100, 99_700)]), None, "ten epochs");
        let why = told(&[head(100, 99_699)]).unwrap();
        assert!(why.contains("lags the clock by 301 s (10 epochs)"), "{why}");
        assert!(told(&[head(0, 0)]).is_some(), "started anew");
        assert_eq!(told(&[head(0, 0), head(100, 99_990)]), None, "another one is in sync");
        assert!(told(&[failed(), head(90, 99_000)]).is_some(), "the one in sync does not answer");
        assert_eq!(told(&[at(5)]), None, "not known");
        assert_eq!(lagging(&[head(0, 0)], now, 0), None, "no limit");
    }

    #[test]
    fn all_are_away_when_the_last_one_is() {
        assert_eq!(all_away(&[failed(), at(7)]), None);
        assert_eq!(all_away(&[Health::default()]), None, "not checked yet");
        assert_eq!(all_away(&[failed(), failed()]).as_deref(), Some("no full node can be used: refused; refused"));
        assert!(all_away(&[]).is_some());
    }
}
