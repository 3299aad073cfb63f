//! Which node should hold which concern. Pure: every node decides for itself from the same view, and they agree.
//!
//! * A holder stays the holder (no hand-back when a preferred node returns); only a drain, a move or a lost role ends it.
//! * A vacant concern goes to the first of its preferred nodes that is there, then to any other node with the role. The
//!   next in line takes it when the one before did not within `patience`.
//! * A concern that goes beside another ([`Wanted::beside`]) and has no preference of its own is where that one is, and
//!   follows it there once both have come to rest: an operator who names its nodes places it apart.
//! * At the cluster's cold start a node that was preferred gets `settle` to appear before another takes its place.
//! * Without contact to the cluster nothing is taken and nothing given up.

use super::record::{NodeKind, NodeRecord, Role};
use super::view::View;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Every concern that somebody should hold.
    pub concerns: Vec<Wanted>,
    /// Concern -> nodes, the first one first. The concern is a whole path (`/t01000/window-post`), which goes first, or its
    /// name (`window-post`).
    pub prefer: BTreeMap<String, Vec<String>>,
    /// How long a node that is there may leave a concern to itself before the next in line takes it.
    pub patience: Duration,
    /// How long a preferred node that is not there is waited for while the concern never had a holder.
    pub settle: Duration,
    /// How long two concerns must both have stayed where they are before one follows the other.
    pub rest: Duration,
}

impl Default for Placement {
    fn default() -> Placement {
        Placement {
            concerns: Vec::new(),
            prefer: BTreeMap::new(),
            patience: Duration::from_secs(5),
            settle: Duration::from_secs(15),
            rest: Duration::from_secs(15),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub path: String,
    pub role: Role,
    /// A shard that belongs to one node (`/t01000/seal-scheduler/host-a`): nobody else takes it, and a drain leaves it.
    pub pinned: Option<String>,
    /// Path of the concern to co-locate with, where its node has the role too. Not transitive.
    pub beside: Option<String>,
}

impl Wanted {
    pub fn new(path: impl Into<String>, role: Role) -> Wanted {
        Wanted { path: path.into(), role, pinned: None, beside: None }
    }
    pub fn beside(self, path: impl Into<String>) -> Wanted {
        Wanted { beside: Some(path.into()), ..self }
    }
    pub fn pinned(path: impl Into<String>, role: Role, node: impl Into<String>) -> Wanted {
        Wanted { path: path.into(), role, pinned: Some(node.into()), beside: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementStep {
    /// Nobody holds it and it is our turn.
    Acquire { concern: String },
    /// We hold it and somebody else should.
    Release { concern: String, why: Why },
    /// We hold it; `despite` is what speaks against it, while nobody else can take it.
    Keep { concern: String, despite: Option<Why> },
    /// It will be our turn then, if nobody takes it before: decide again.
    Wait { concern: String, until: Instant },
}

impl PlacementStep {
    /// The path of the concern that it is about.
    pub fn concern(&self) -> &str {
        match self {
            PlacementStep::Acquire { concern }
            | PlacementStep::Release { concern, .. }
            | PlacementStep::Keep { concern, .. }
            | PlacementStep::Wait { concern, .. } => concern,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Moved {
        to: String,
    },
    Drained,
    RoleLost,
    /// The concern that it belongs with has come to rest there.
    Beside {
        at: String,
    },
}

/// The steps of `me` for each concern that it holds or may have to take; none for those of others.
pub fn decide(view: &View, me: &str, placement: &Placement, now: Instant) -> Vec<PlacementStep> {
    placement.concerns.iter().filter_map(|wanted| step(view, me, placement, wanted, now)).collect()
}

fn step(view: &View, me: &str, placement: &Placement, wanted: &Wanted, now: Instant) -> Option<PlacementStep> {
    let concern = wanted.path.clone();
    let line = in_line(view, placement, wanted);
    // An order for a node that cannot take it now is as good as none.
    let ordered = view.moves.get(&concern).filter(|to| line.contains(to));
    match view.holders.get(&concern) {
        Some(holder) if holder.node != me => None,
        // An earlier start of this very node held it, and is gone: nobody need wait until its lease expires.
        Some(holder) if view.nodes.get(me).is_some_and(|node| holder.boot < node.boot) => {
            let ours = view.in_contact && ordered.is_none_or(|to| to == me) && line.iter().any(|node| node == me);
            ours.then_some(PlacementStep::Acquire { concern })
        }
        Some(_) => {
            let why = match ordered {
                Some(to) if to != me => Some(Why::Moved { to: to.clone() }),
                _ => against(view, me, wanted).or_else(|| apart(view, me, placement, wanted, now)),
            };
            let elsewhere = line.iter().any(|node| node != me);
            Some(match why {
                Some(why) if elsewhere && view.in_contact => PlacementStep::Release { concern, why },
                despite => PlacementStep::Keep { concern, despite },
            })
        }
        None if !view.in_contact => None,
        None => {
            let turn = turn(view, me, placement, wanted, &line, ordered)?;
            Some(if now >= turn {
                PlacementStep::Acquire { concern }
            } else {
                PlacementStep::Wait { concern, until: turn }
            })
        }
    }
}

/// Why no node would ever carry out the order to move that concern there, for a sentence `NODE cannot take CONCERN: ..`.
/// Agents and drained nodes are the directory's to refuse.
pub fn never(view: &View, placement: &Placement, concern: &str, node: &NodeRecord) -> Option<String> {
    if node.kind != NodeKind::Node {
        return None;
    }
    for wanted in &placement.concerns {
        if let Some(owner) = wanted.pinned.as_deref().and_then(|me| shard_of(wanted, me, concern)) {
            let theirs = owner != node.name;
            return theirs.then(|| format!("its sectors are {owner}'s own and stay there"));
        }
    }
    let Some(wanted) = placement.concerns.iter().find(|wanted| wanted.path == concern) else {
        return Some("it is none of this miner's concerns; `bulkhead cluster leases` lists them".to_string());
    };
    if !can(node, wanted) {
        let role = wanted.role.name();
        return Some(format!("it does not have the role {role}; add it to cluster.roles there and restart that node"));
    }
    let leader = leader(placement, wanted)?;
    let holder = view.holders.get(&leader.path).filter(|holder| holder.node != node.name)?;
    let follows = view.nodes.get(&holder.node).is_some_and(|there| can(there, wanted) && !there.drained);
    let key = wanted.path.rsplit('/').next().unwrap_or_default().replace('-', "_");
    follows.then(|| {
        format!("it goes beside {}: move that one, or name the nodes in placement.{key} on every host", leader.path)
    })
}

/// The node whose shard that is: each node knows of its own alone.
fn shard_of<'a>(own: &Wanted, me: &str, concern: &'a str) -> Option<&'a str> {
    let owner = concern.strip_prefix(own.path.strip_suffix(me)?)?;
    (!owner.contains('/')).then_some(owner)
}

/// The reason against `me` as the holder.
fn against(view: &View, me: &str, wanted: &Wanted) -> Option<Why> {
    if wanted.pinned.as_deref() == Some(me) {
        return None;
    }
    match view.nodes.get(me) {
        // Not registered at this moment: a lease that is lost says so itself.
        None => None,
        Some(node) if !can(node, wanted) => Some(Why::RoleLost),
        Some(node) if node.drained => Some(Why::Drained),
        Some(_) => None,
    }
}

/// The node to follow to, where the concern that this one belongs with is elsewhere to stay. Following costs a restart,
/// so a concern is not followed while it moves, while an order is about it, or where its node may not be there any
/// more.
fn apart(view: &View, me: &str, placement: &Placement, wanted: &Wanted, now: Instant) -> Option<Why> {
    let leader = leader(placement, wanted)?;
    let holder = view.holders.get(&leader.path).filter(|holder| holder.node != me)?;
    let node = view.nodes.get(&holder.node).filter(|node| node.boot == holder.boot)?;
    let able = can(node, wanted) && can(node, leader) && !node.drained;
    let rests = |wanted: &Wanted| {
        let since = view.held.get(&wanted.path).map(|since| *since.max(&view.since));
        since.is_some_and(|since| now >= since + placement.rest) && !view.moves.contains_key(&wanted.path)
    };
    (able && rests(leader) && rests(wanted)).then(|| Why::Beside { at: holder.node.clone() })
}

/// The concern that this one goes beside, unless its own nodes are named.
pub(super) fn leader<'a>(placement: &'a Placement, wanted: &Wanted) -> Option<&'a Wanted> {
    let path = wanted.beside.as_ref().filter(|_| named(placement, wanted).is_empty())?;
    placement.concerns.iter().find(|other| other.path == *path && other.beside.is_none())
}

/// The node that holds a concern, or is ordered to.
fn current_node(view: &View, placement: &Placement, wanted: &Wanted) -> Option<String> {
    let line = in_line(view, placement, wanted);
    let ordered = view.moves.get(&wanted.path).filter(|to| line.contains(to));
    let held = || view.holders.get(&wanted.path).map(|holder| &holder.node).filter(|node| line.contains(node));
    ordered.or_else(held).cloned()
}

fn can(node: &NodeRecord, wanted: &Wanted) -> bool {
    node.kind == NodeKind::Node && node.has(wanted.role)
}

/// The preferred nodes of this concern, or else of the one that it goes beside; whether they are there or not.
fn preferred<'a>(placement: &'a Placement, wanted: &Wanted) -> &'a [String] {
    named(placement, leader(placement, wanted).unwrap_or(wanted))
}

/// The nodes that the operator names for exactly this concern.
fn named<'a>(placement: &'a Placement, wanted: &Wanted) -> &'a [String] {
    // `/t01000/window-post`: the name is what follows the miner.
    let name = wanted.path.split('/').nth(2).unwrap_or_default();
    let listed = placement.prefer.get(&wanted.path).or_else(|| placement.prefer.get(name));
    listed.map_or(&[], Vec::as_slice)
}

/// The nodes that are there and may take this concern, the first one first.
fn in_line(view: &View, placement: &Placement, wanted: &Wanted) -> Vec<String> {
    if let Some(only) = &wanted.pinned {
        return view.nodes.get(only).filter(|node| can(node, wanted)).map(|_| only.clone()).into_iter().collect();
    }
    let free = |node: &NodeRecord| can(node, wanted) && !node.drained;
    let listed = match leader(placement, wanted) {
        Some(leader) => {
            current_node(view, placement, leader).into_iter().chain(in_line(view, placement, leader)).collect()
        }
        None => named(placement, wanted).to_vec(),
    };
    let mut line: Vec<String> = Vec::new();
    for name in listed.iter().chain(view.nodes.keys()) {
        if !line.contains(name) && view.nodes.get(name).is_some_and(|node| free(node)) {
            line.push(name.clone());
        }
    }
    line
}

/// The time from which it is the turn of `me`; `None`: never.
fn turn(
    view: &View,
    me: &str,
    placement: &Placement,
    wanted: &Wanted,
    line: &[String],
    ordered: Option<&String>,
) -> Option<Instant> {
    if let Some(to) = ordered {
        return (to == me).then_some(view.since);
    }
    let rank = line.iter().position(|node| node == me)?;
    let patience = placement.patience * u32::try_from(rank).unwrap_or(u32::MAX);
    match view.vacated.get(&wanted.path) {
        Some(since) => Some(*since.max(&view.since) + patience),
        None => {
            let absent = preferred(placement, wanted).iter().take_while(|name| *name != me);
            let waits = wanted.pinned.is_none() && absent.into_iter().any(|name| !view.nodes.contains_key(name));
            Some(view.since + patience + if waits { placement.settle } else { Duration::ZERO })
        }
    }
}

#[cfg(test)]
#[path = "placement_beside_tests.rs"]
mod beside_tests;
#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
