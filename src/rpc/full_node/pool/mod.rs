//! A pool of full nodes that its callers use as one: where each call goes, and what happens when a node fails it.
//!
//! * [`entries`] — which nodes there are; [`routes`] and [`policy`] — the order in which a method asks them.
//! * [`health`] — what a check finds; [`judge`] — which of them are used; [`ahead`] — heads that cannot be.
//! * [`latency`] — a method that is slow or broken at one node.
//! * [`retry`] — whether another node is asked after an error; [`agree`] — whether an answer counts.
//! * [`calls`] — one call through the pool.
//! * [`view`] — what an operator sees and changes.

pub mod agree;
pub mod ahead;
pub mod calls;
pub mod entries;
pub mod health;
pub mod judge;
pub mod latency;
pub mod policy;
pub mod retry;
pub mod routes;
pub mod view;

use crate::rpc::api_info::ApiInfo;
use crate::util::lock;
use crate::util::time::since_epoch;
use entries::PoolEntry;
use health::Health;
use judge::{Bounds, Occasion, Streak};
use latency::MethodAtNode;
use policy::Candidate;
use routes::{Filter, Route, Routes};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Methods whose calls are counted and timed; of further ones nothing is remembered.
const METHODS: usize = 1024;

/// An operator's settings; all of them may change while the pool is used.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PoolSettings {
    pub bounds: Bounds,
    pub routes: Routes,
    /// The seed of every caller without a primary of its own (PrimarySeed, `FPOOL_PRIMARY_SEED`); `None`: the miner's number.
    pub primary_seed: Option<u64>,
    /// Mining base info and randomness count when two nodes give the same.
    pub agreement: bool,
}

/// Set by an operator (`daemons node set --key=status`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    /// Stays in the pool, is not asked.
    Pause,
}

/// One node of the pool.
pub struct Member {
    /// Made from its address, so that it stays the same over restarts.
    pub id: String,
    pub host: String,
    /// `None`: it is no node behind an address (a node inside a test).
    pub info: Option<ApiInfo>,
    /// `host:port`.
    pub name: String,
    calls: AtomicU64,
    methods: Mutex<HashMap<String, MethodAtNode>>,
    suspected: Notify,
}

impl Member {
    fn new(name: String, host: String, info: Option<ApiInfo>) -> Arc<Member> {
        let id = node_id(&name);
        let (calls, methods, suspected) = Default::default();
        Arc::new(Member { id, host, info, name, calls, methods, suspected })
    }

    fn of_entry(entry: &PoolEntry) -> Arc<Member> {
        Member::new(entry.info.name(), entry.host.clone(), Some(entry.info.clone()))
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call found it broken: its health is checked soon.
    fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Completes when it is to be checked before its time.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// Its methods that failed at their last call, by name.
    pub fn breakers(&self) -> Vec<Breaker> {
        let (methods, now) = (lock(&self.methods), Instant::now());
        let failing = methods.iter().filter(|(_, known)| known.failures() > 0);
        let breaker = |(method, known): (&String, &MethodAtNode)| Breaker {
            method: method.clone(),
            failures: known.failures(),
            open: known.is_open(now),
        };
        let mut breakers: Vec<Breaker> = failing.map(breaker).collect();
        breakers.sort_by(|a, b| a.method.cmp(&b.method));
        breakers
    }

    fn remember(&self, method: &str, change: impl FnOnce(&mut MethodAtNode)) {
        let mut methods = lock(&self.methods);
        if let Some(known) = methods.get_mut(method) {
            change(known);
        } else if methods.len() < METHODS {
            change(methods.entry(method.to_string()).or_default());
        }
    }

    fn is_open(&self, method: &str, now: Instant) -> bool {
        lock(&self.methods).get(method).is_some_and(|known| known.is_open(now))
    }

    fn p95(&self, method: &str) -> Option<Duration> {
        lock(&self.methods).get(method)?.p95()
    }
}

/// A method that fails at a node.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub method: String,
    /// Failures in a row.
    pub failures: u32,
    /// Other nodes are asked first.
    pub open: bool,
}

/// In the form of the pool's manual, from the node's name.
fn node_id(name: &str) -> String {
    let mut hash = blake2b_simd::Params::new().hash_length(16).to_state();
    let hex = hash.update(b"bulkhead full node ").update(name.as_bytes()).finalize().to_hex();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]];
    parts.join("-")
}

/// A node's place in the pool now.
struct Place {
    member: Arc<Member>,
    status: Status,
    /// Takes the calls whose filter is `sealing`.
    sealing: bool,
    health: Health,
    streak: Streak,
    /// The time of its last check; `None`: it was not checked yet.
    checked: Option<Instant>,
}

impl Place {
    fn of(member: Arc<Member>) -> Place {
        let health = Health::of(&member.name);
        Place { member, status: Status::Running, sealing: true, health, streak: Streak::default(), checked: None }
    }

    fn is_used(&self) -> bool {
        self.status == Status::Running && self.health.disabled.is_none() && !self.health.wrong_network
    }
}

struct State {
    places: Vec<Place>,
    settings: PoolSettings,
    /// Seeds bound to a node by an operator: a miner or a wallet, and the node's id.
    bound: BTreeMap<String, String>,
    /// Seeds that have asked for their primary.
    seen: BTreeMap<String, ()>,
    /// By short name.
    calls: BTreeMap<String, u64>,
}

/// Shared by all who talk to full nodes. Cheap to clone.
#[derive(Clone)]
pub struct NodePool {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// A call's route, and the nodes in the order in which they are asked.
pub struct Plan {
    pub route: Route,
    pub nodes: Vec<Arc<Member>>,
}

impl NodePool {
    pub fn new(entries: &[PoolEntry], settings: PoolSettings) -> NodePool {
        NodePool::of(entries.iter().map(Member::of_entry), settings)
    }

    /// A pool of nodes that are no addresses.
    pub fn of_names(names: impl Iterator<Item = String>, settings: PoolSettings) -> NodePool {
        NodePool::of(names.map(|name| Member::new(name.clone(), name, None)), settings)
    }

    fn of(members: impl Iterator<Item = Arc<Member>>, settings: PoolSettings) -> NodePool {
        let places = members.map(Place::of).collect();
        let (bound, seen, calls) = Default::default();
        let state = Mutex::new(State { places, settings, bound, seen, calls });
        NodePool { inner: Arc::new(Inner { state, changed: watch::Sender::new(0) }) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let told = change(&mut lock(&self.inner.state));
        self.inner.changed.send_modify(|n| *n = n.wrapping_add(1));
        told
    }

    pub fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.inner.state).places.iter().map(|place| place.member.clone()).collect()
    }

    pub fn health(&self) -> Vec<Health> {
        lock(&self.inner.state).places.iter().map(|place| place.health.clone()).collect()
    }

    /// Wakes with every change of what can be used.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Every node is checked soon: no call found one that can be used, or an operator changed something.
    pub fn suspect(&self) {
        lock(&self.inner.state).places.iter().for_each(|place| place.member.suspect());
    }

    /// The results of checks, each of a node by its name; the others keep what their own last check gave.
    pub fn report(&self, results: Vec<Health>) {
        self.change(|state| {
            let mut checked = vec![false; state.places.len()];
            for result in results {
                let found = state.places.iter().position(|place| place.health.node == result.node);
                let Some(index) = found else { continue };
                checked[index] = true;
                (state.places[index].health, state.places[index].checked) = (result, Some(Instant::now()));
            }
            state.judge(&checked);
        });
    }

    /// Takes nodes out of use that nobody has checked for longer than `most`: the actor that checks them is down.
    pub fn expire(&self, most: Duration) {
        let is_old = |place: &Place| {
            let age = place.checked.map(|at| at.elapsed());
            age.filter(|age| *age > most && place.health.error.is_none()).map(|age| age.as_secs())
        };
        if !lock(&self.inner.state).places.iter().any(|place| is_old(place).is_some()) {
            return;
        }
        self.change(|state| {
            let mut checked = vec![false; state.places.len()];
            for (place, checked) in state.places.iter_mut().zip(&mut checked) {
                if let Some(age) = is_old(place) {
                    let error = Some(format!("its last check was {age} s ago: see `bulkhead tree`"));
                    place.health = Health { error, ..Health::of(&place.member.name) };
                    *checked = true;
                }
            }
            state.judge(&checked);
        });
    }

    /// A node that was found to be of another network between two checks.
    pub fn exclude(&self, name: &str, why: String) {
        let error = Some(why.clone());
        let health = Health { error, wrong_network: true, disabled: Some(why), ..Health::of(name) };
        self.report(vec![health]);
    }

    /// The plan of a call of `method` for `seed`; counts the call.
    pub fn plan(&self, method: &str, seed: &str) -> Plan {
        let method = routes::short(method);
        let mut state = lock(&self.inner.state);
        let route = state.settings.routes.of(method);
        let calls = state.count(method);
        let start = match route.policy {
            policy::Policy::OneByIdRound => calls,
            _ => state.primary(seed) as u64,
        };
        let usable = state.places.iter().enumerate().filter(|(_, place)| place.is_used());
        let usable = usable.filter(|(_, place)| route.filter == Filter::All || place.sealing);
        let candidates: Vec<Candidate> = usable
            .map(|(index, place)| Candidate {
                index,
                head: place.health.height,
                weight: place.health.weight(),
                message_peers: place.health.message_peers,
                block_peers: place.health.block_peers,
            })
            .collect();
        let order = policy::order(route.policy, &candidates, state.places.len(), start);
        let nodes = order.into_iter().map(|index| state.places[index].member.clone());
        let now = Instant::now();
        let (open, closed): (Vec<_>, Vec<_>) = nodes.partition(|member| member.is_open(method, now));
        Plan { route, nodes: closed.into_iter().chain(open).collect() }
    }

    /// Two nodes must give the same answer to `method`.
    fn is_agreed(&self, method: &str) -> bool {
        agree::is_agreed(routes::short(method)) && lock(&self.inner.state).settings.agreement
    }

    /// Counts a call that goes past the routes.
    fn count(&self, method: &str) {
        lock(&self.inner.state).count(routes::short(method));
    }

    /// The name of the node in use with the heaviest chain; of equals the first.
    pub fn best(&self) -> Option<String> {
        let state = lock(&self.inner.state);
        let used: Vec<&Place> = state.places.iter().filter(|place| place.is_used()).collect();
        let rank = |place: &Place| (place.health.weight(), place.health.height);
        // `max_by_key` takes the last of equals.
        used.into_iter().rev().max_by_key(|place| rank(place)).map(|place| place.member.name.clone())
    }

    /// False: the head feed leaves the node.
    pub fn is_used(&self, name: &str) -> bool {
        lock(&self.inner.state).places.iter().any(|place| place.member.name == name && place.is_used())
    }

    /// The seed's primary, whatever its health.
    fn primary(&self, seed: &str) -> Option<Arc<Member>> {
        let mut state = lock(&self.inner.state);
        let index = state.primary(seed);
        state.places.get(index).map(|place| place.member.clone())
    }

    /// The only node of the pool, whatever its health: there is nothing to choose.
    fn only(&self) -> Option<Arc<Member>> {
        match lock(&self.inner.state).places.as_slice() {
            [place] if place.status == Status::Running => Some(place.member.clone()),
            _ => None,
        }
    }

    /// Why no node can be used.
    pub fn why_none(&self) -> String {
        let state = lock(&self.inner.state);
        if state.places.is_empty() {
            return "the pool has no node".to_string();
        }
        let of = |place: &Place| match place.status {
            Status::Pause => Some(format!("{} is paused", place.member.host)),
            Status::Running => Some(format!("{}: {}", place.member.host, place.health.disabled.as_ref()?)),
        };
        let why: Vec<String> = state.places.iter().filter_map(of).collect();
        format!("no full node can be used: {}", why.join("; "))
    }
}

impl State {
    /// Judges the nodes that were checked, and logs which are used from now on and which are not any more.
    fn judge(&mut self, checked: &[bool]) {
        let mut all: Vec<Health> = self.places.iter().map(|place| place.health.clone()).collect();
        let mut streaks: Vec<Streak> = self.places.iter().map(|place| place.streak).collect();
        let paused: Vec<bool> = self.places.iter().map(|place| place.status == Status::Pause).collect();
        let occasion = Occasion { checked, paused: &paused, now: since_epoch() };
        judge::judge(&mut all, &mut streaks, &self.settings.bounds, &occasion);
        for (place, (health, streak)) in self.places.iter_mut().zip(all.into_iter().zip(streaks)) {
            match (&health.disabled.as_ref().or(health.warning.as_ref()), place.streak.disabled) {
                (Some(why), false) => tracing::warn!(node = health.node, why, "a full node is not used any more"),
                (None, true) => tracing::info!(node = health.node, "a full node is used again"),
                (Some(_), true) | (None, false) => {}
            }
            (place.health, place.streak) = (health, streak);
        }
    }

    /// Counts a call; how many there were before.
    fn count(&mut self, method: &str) -> u64 {
        if let Some(calls) = self.calls.get_mut(method) {
            *calls += 1;
            return *calls - 1;
        }
        if self.calls.len() < METHODS {
            self.calls.insert(method.to_string(), 1);
        }
        0
    }

    /// The index of the seed's primary.
    fn primary(&mut self, seed: &str) -> usize {
        if self.seen.len() < METHODS && !self.seen.contains_key(seed) {
            self.seen.insert(seed.to_string(), ());
        }
        let bound = self.bound.get(seed).and_then(|id| self.places.iter().position(|place| &place.member.id == id));
        let number = || self.settings.primary_seed.unwrap_or_else(|| seed_number(seed));
        bound.unwrap_or_else(|| (number() % self.places.len().max(1) as u64) as usize)
    }
}

/// The number in an ID address (`t01000`: 1000); of anything else one that its text gives.
fn seed_number(seed: &str) -> u64 {
    let digits = seed.get(2..).filter(|digits| seed.as_bytes()[1] == b'0' && !digits.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| {
        let hash = blake2b_simd::Params::new().hash_length(8).hash(seed.as_bytes());
        u64::from_le_bytes(hash.as_bytes().try_into().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests;
