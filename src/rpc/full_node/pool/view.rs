//! The operator's view of a pool, and the changes that it takes while it is used.

use super::routes::{Filter, category, short};
use super::{Member, NodePool, Place, Status};
use super::{entries::PoolEntry, judge};
use crate::chain::ChainEpoch;
use crate::config::values::format_duration;
use crate::util::lock;
use serde::{Deserialize, Serialize};

/// The pool at one moment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    pub nodes: Vec<NodeRow>,
    /// Methods that were called, or have a route of their own; by category and name.
    pub apis: Vec<ApiRow>,
    /// The miners and wallets that have a primary.
    pub primaries: Vec<PrimaryRow>,
    pub config: ConfigView,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub id: String,
    pub host: String,
    /// `host:port`.
    pub addr: String,
    pub status: Status,
    /// Why it is not used now; `None`: it is.
    pub disabled: Option<String>,
    /// Why it would not be used if there were a better one.
    pub warning: Option<String>,
    /// It is the primary of this node's miner.
    pub primary: bool,
    /// How many seeds have it as their primary.
    pub primary_of: usize,
    pub calls: u64,
    pub head: Option<ChainEpoch>,
    /// Epochs behind the best node.
    pub behind: Option<ChainEpoch>,
    pub message_peers: Option<u64>,
    pub block_peers: Option<u64>,
    /// It takes the methods whose filter is `sealing`.
    pub sealing: bool,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ApiRow {
    pub category: String,
    pub api: String,
    /// Calls so far.
    pub calls: u64,
    pub filter: String,
    pub policy: String,
    pub no_hang: bool,
    /// `0s`: as long as the kind of call allows.
    pub timeout: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PrimaryRow {
    pub seed: String,
    pub node: String,
    pub host: String,
    pub addr: String,
    pub status: Status,
    /// Bound by an operator; else it follows from the seed.
    pub bound: bool,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigView {
    pub default_policy: String,
    pub primary_seed: Option<u64>,
    pub max_sync_behind: i64,
    pub max_behind_diff: i64,
    pub min_message_peers: u64,
    pub min_block_peers: u64,
    #[serde(default)]
    pub agreement: bool,
}

/// An operator's change. It holds until the process ends; what is to stay belongs into the configuration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PoolChange {
    /// `node`: as an entry of `FULLNODE_API_POOL_INFO`.
    AddNode {
        node: String,
    },
    /// `key`: `status` (running, pause, exit) or `sealing` (true, false).
    SetNode {
        id: String,
        key: String,
        value: String,
    },
    /// `key`: policy, filter, nohang, timeout.
    SetApi {
        api: String,
        key: String,
        value: String,
    },
    SetPrimary {
        seed: String,
        id: String,
    },
    /// `key`: DefaultPolicy, PrimarySeed, MaxSyncBehind, MaxBehindDiff, MinMessagePeers, MinBlockPeers, Agreement.
    SetConfig {
        key: String,
        value: String,
    },
}

/// Nodes at most: each is checked every few seconds.
pub const MOST_NODES: usize = 64;

impl NodePool {
    /// `seed`: this node's miner.
    pub fn view(&self, seed: &str) -> PoolView {
        let mut state = lock(&self.inner.state);
        let health: Vec<_> = state.places.iter().map(|place| place.health.clone()).collect();
        let own = state.primary(seed);
        let seeds: Vec<String> = state.seen.keys().chain(state.bound.keys()).cloned().collect();
        let mut seeds: Vec<(String, usize)> =
            seeds.into_iter().map(|seed| (seed.clone(), state.primary(&seed))).collect();
        seeds.sort();
        seeds.dedup();
        let node = |(index, place): (usize, &Place)| NodeRow {
            id: place.member.id.clone(),
            host: place.member.host.clone(),
            addr: place.member.name.clone(),
            status: place.status,
            disabled: place.health.disabled.clone(),
            warning: place.health.warning.clone(),
            primary: index == own,
            primary_of: seeds.iter().filter(|(_, primary)| *primary == index).count(),
            calls: place.member.calls(),
            head: place.health.height,
            behind: judge::behind(&health, index),
            message_peers: place.health.message_peers,
            block_peers: place.health.block_peers,
            sealing: place.sealing,
        };
        let nodes: Vec<NodeRow> = state.places.iter().enumerate().map(node).collect();
        let routes = &state.settings.routes;
        let mut names: Vec<&String> = state.calls.keys().chain(routes.changes.keys()).collect();
        names.sort_by_key(|name| (category(name), name.as_str()));
        names.dedup();
        let api = |name: &String| {
            let route = routes.of(name);
            ApiRow {
                category: category(name).to_string(),
                api: name.clone(),
                calls: state.calls.get(name).copied().unwrap_or(0),
                filter: match route.filter {
                    Filter::All => "all".to_string(),
                    Filter::Sealing => "sealing".to_string(),
                },
                policy: route.policy.to_string(),
                no_hang: route.no_hang,
                timeout: format_duration(route.timeout),
            }
        };
        let apis = names.into_iter().map(api).collect();
        let primary = |(seed, index): &(String, usize)| {
            let place = state.places.get(*index)?;
            Some(PrimaryRow {
                seed: seed.clone(),
                node: place.member.id.clone(),
                host: place.member.host.clone(),
                addr: place.member.name.clone(),
                status: place.status,
                bound: state.bound.contains_key(seed),
            })
        };
        let primaries = seeds.iter().filter_map(primary).collect();
        let bounds = state.settings.bounds;
        let config = ConfigView {
            default_policy: routes.default_policy.to_string(),
            primary_seed: state.settings.primary_seed,
            max_sync_behind: bounds.max_sync_behind,
            max_behind_diff: bounds.max_behind_diff,
            min_message_peers: bounds.min_message_peers,
            min_block_peers: bounds.min_block_peers,
            agreement: state.settings.agreement,
        };
        PoolView { nodes, apis, primaries, config }
    }

    /// The nodes as `FULLNODE_API_POOL_INFO` takes them, tokens included: for its administrator alone.
    pub fn secret_text(&self) -> String {
        let members = self.members();
        let text = |member: &std::sync::Arc<Member>| {
            let entry = PoolEntry { info: member.info.clone()?, host: member.host.clone() };
            Some(entry.secret_text())
        };
        members.iter().filter_map(text).collect::<Vec<_>>().join(",")
    }

    /// Carries out a change: one sentence that says what it is, or why it can't be.
    pub fn apply(&self, change: PoolChange) -> Result<String, String> {
        let told = self.change(|state| match change {
            PoolChange::AddNode { node } => {
                let entry = PoolEntry::parse("--api", &node).map_err(|e| e.to_string())?;
                let member = Member::of_entry(&entry);
                if state.places.iter().any(|place| place.member.id == member.id) {
                    return Err(format!("{} is in the pool already", member.name));
                }
                if state.places.len() >= MOST_NODES {
                    return Err(format!("the pool has {MOST_NODES} nodes; it takes no more"));
                }
                let told = format!("node {} ({}) is in the pool until the process ends", member.id, member.name);
                state.places.push(Place::of(member));
                Ok(told)
            }
            PoolChange::SetNode { id, key, value } => state.set_node(&id, &key, &value),
            PoolChange::SetApi { api, key, value } => {
                let api = short(&api).to_string();
                if api.is_empty() || api.len() > 64 || !api.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return Err(format!("{api:?} is no name of a method"));
                }
                if state.settings.routes.changes.len() >= super::METHODS {
                    return Err("too many methods have a route of their own".to_string());
                }
                let mut change = state.settings.routes.changes.get(&api).copied().unwrap_or_default();
                change.set(&key, &value)?;
                state.settings.routes.changes.insert(api.clone(), change);
                Ok(format!("{key} of {api} is {value}"))
            }
            PoolChange::SetPrimary { seed, id } => {
                crate::chain::lotus_json::address::parse(&seed).map_err(|e| format!("--seed: {e}"))?;
                if !state.places.iter().any(|place| place.member.id == id) {
                    return Err(no_node(&id));
                }
                if state.bound.len() >= super::METHODS && !state.bound.contains_key(&seed) {
                    return Err("too many seeds are bound".to_string());
                }
                let told = format!("{seed} asks {id} first");
                state.bound.insert(seed, id);
                Ok(told)
            }
            PoolChange::SetConfig { key, value } => state.set_config(&key, &value),
        })?;
        self.suspect();
        tracing::info!("the pool of full nodes: {told}");
        Ok(told)
    }
}

fn no_node(id: &str) -> String {
    format!("no node {id:?} is in the pool; `bulkhead daemons nodes` shows those that are")
}

impl super::State {
    fn set_node(&mut self, id: &str, key: &str, value: &str) -> Result<String, String> {
        let index = self.places.iter().position(|place| place.member.id == id || place.member.host == id);
        let index = index.ok_or_else(|| no_node(id))?;
        let running = self.places.iter().filter(|place| place.status == Status::Running).count();
        let place = &mut self.places[index];
        let is_last = running == 1 && place.status == Status::Running;
        let last =
            || Err(format!("{} is the last node that runs: the provider would be deaf without it", place.member.host));
        match (key, value) {
            ("status", "running") => place.status = Status::Running,
            ("status", "pause" | "exit") if is_last => return last(),
            ("status", "pause") => place.status = Status::Pause,
            ("status", "exit") => {
                let place = self.places.remove(index);
                self.bound.retain(|_, id| *id != place.member.id);
                return Ok(format!("{} has left the pool", place.member.host));
            }
            ("sealing", "true") => place.sealing = true,
            ("sealing", "false") => place.sealing = false,
            ("status", _) => return Err(format!("status is running, pause or exit, not {value:?}")),
            ("sealing", _) => return Err(format!("sealing is true or false, not {value:?}")),
            _ => return Err(format!("{key:?} is no key of a node; there are status and sealing")),
        }
        Ok(format!("{key} of {} is {value}", self.places[index].member.host))
    }

    fn set_config(&mut self, key: &str, value: &str) -> Result<String, String> {
        fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("{key} is a whole number, not {value:?}"))
        }
        let settings = &mut self.settings;
        let epochs = |value: i64| if value >= 0 { Ok(value) } else { Err(format!("{key} can't be negative")) };
        match key {
            "DefaultPolicy" => settings.routes.default_policy = value.parse()?,
            "PrimarySeed" => settings.primary_seed = Some(number(key, value)?),
            "MaxSyncBehind" => settings.bounds.max_sync_behind = epochs(number(key, value)?)?,
            "MaxBehindDiff" => settings.bounds.max_behind_diff = epochs(number(key, value)?)?,
            "MinMessagePeers" => settings.bounds.min_message_peers = number(key, value)?,
            "Agreement" => {
                settings.agreement = value.parse().map_err(|_| format!("{key} is true or false, not {value:?}"))?
            }
            "MinBlockPeers" => settings.bounds.min_block_peers = number(key, value)?,
            _ => {
                return Err(format!(
                    "{key:?} is no key of the pool; there are DefaultPolicy, PrimarySeed, MaxSyncBehind, MaxBehindDiff, MinMessagePeers, MinBlockPeers, Agreement"
                ));
            }
        }
        Ok(format!("{key} is {value}"))
    }
}
