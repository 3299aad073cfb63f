//! Changes in etcd applied to the view. Pure.

use super::keys::{Key, Keys};
use crate::rpc::directory::{Holder, NodeRecord, View};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The value of a lease's key; the fencing epoch is the key's create revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub schema: u16,
    pub node: String,
    #[serde(with = "crate::rpc::directory::text")]
    pub peer_id: PeerId,
    pub boot: u64,
}

impl LeaseRecord {
    pub fn of(node: &NodeRecord) -> LeaseRecord {
        LeaseRecord { schema: 1, node: node.name.clone(), peer_id: node.peer_id, boot: node.boot }
    }
    pub fn holder(self, created: i64) -> Holder {
        Holder { node: self.node, peer_id: self.peer_id, boot: self.boot, epoch: epoch(created) }
    }
}

/// etcd counts revisions from 1 up.
pub fn epoch(created: i64) -> u64 {
    created.unsigned_abs()
}

/// One key as it is now.
pub enum TableChange<'a> {
    Put { key: &'a str, value: &'a [u8], created: i64 },
    Delete { key: &'a str },
}

/// Applies one change. A value that cannot be read is told and noted; a lease's is no holder's, other records stay as they
/// were known.
pub fn apply(keys: &Keys, view: &mut View, change: TableChange<'_>, now: Instant) {
    match change {
        TableChange::Put { key, value, created } => {
            let Some(what) = keys.parse(key) else { return };
            match put(view, what, value, created, now) {
                Ok(()) => drop(view.unreadable.remove(key)),
                Err(why) => {
                    tracing::warn!("{key} in etcd cannot be read and is left out: {why}");
                    view.unreadable.insert(key.to_string(), why.to_string());
                    if let Key::Lease(concern) = what {
                        vacate(view, concern, now);
                    }
                }
            }
        }
        TableChange::Delete { key } => delete(keys, view, key, now),
    }
}

fn delete(keys: &Keys, view: &mut View, key: &str, now: Instant) {
    view.unreadable.remove(key);
    match keys.parse(key) {
        Some(Key::Node(name)) => drop(view.nodes.remove(name)),
        Some(Key::Move(concern)) => drop(view.moves.remove(concern)),
        Some(Key::Lease(concern)) => vacate(view, concern, now),
        Some(Key::Drain(name)) => {
            view.drained.remove(name);
            mark(view, name, false);
        }
        None => {}
    }
}

fn vacate(view: &mut View, concern: &str, now: Instant) {
    let vacated = view.holders.remove(concern).map(|_| (concern.to_string(), now));
    view.vacated.extend(vacated);
    view.held.remove(concern);
}

fn put(view: &mut View, key: Key<'_>, value: &[u8], created: i64, now: Instant) -> Result<(), serde_json::Error> {
    match key {
        Key::Node(name) => {
            let mut record: NodeRecord = serde_json::from_slice(value)?;
            record.drained = view.drained.contains(name);
            view.nodes.insert(name.to_string(), Arc::new(record));
        }
        Key::Lease(concern) => {
            let claim: LeaseRecord = serde_json::from_slice(value)?;
            view.vacated.remove(concern);
            let before = view.holders.insert(concern.to_string(), claim.holder(created));
            // Written again under the same epoch, it is the same holder.
            if before.is_none_or(|before| before.epoch != epoch(created)) {
                view.held.insert(concern.to_string(), now);
            }
        }
        Key::Move(concern) => {
            view.moves.insert(concern.to_string(), String::from_utf8_lossy(value).into_owned());
        }
        Key::Drain(name) => {
            view.drained.insert(name.to_string());
            mark(view, name, true);
        }
    }
    Ok(())
}

fn mark(view: &mut View, name: &str, drained: bool) {
    if let Some(node) = view.nodes.get_mut(name) {
        Arc::make_mut(node).drained = drained;
    }
}

/// The whole table, read anew: what is not in it any more is gone, and a concern that lost its holder is vacant since now.
pub fn replace<'a>(
    keys: &Keys,
    before: &View,
    all: impl Iterator<Item = (&'a str, &'a [u8], i64)>,
    now: Instant,
) -> View {
    let mut view = View { in_contact: before.in_contact, space: before.space, ..View::empty(before.since) };
    for (key, value, created) in all {
        apply(keys, &mut view, TableChange::Put { key, value, created }, now);
    }
    for (concern, since) in &before.held {
        let epoch = |view: &View| view.holders.get(concern).map(|holder| holder.epoch);
        if view.holders.contains_key(concern) && epoch(&view) == epoch(before) {
            view.held.insert(concern.clone(), *since);
        }
    }
    let lost = before.holders.keys().map(|concern| (concern.clone(), now));
    let vacated: BTreeMap<_, _> = (before.vacated.iter().map(|(concern, at)| (concern.clone(), *at)))
        .chain(lost)
        .filter(|(concern, _)| !view.holders.contains_key(concern))
        .collect();
    View { vacated, ..view }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PATH: &str = "/t01000/window-post";

    struct World {
        keys: Keys,
        view: View,
        t0: Instant,
    }

    impl World {
        fn new() -> World {
            let t0 = Instant::now();
            World { keys: Keys::new("main"), view: View::empty(t0), t0 }
        }
        fn put(&mut self, key: Key<'_>, value: impl AsRef<[u8]>, created: i64) {
            let key = self.keys.key(key);
            apply(&self.keys, &mut self.view, TableChange::Put { key: &key, value: value.as_ref(), created }, self.t0);
        }
        fn delete(&mut self, key: Key<'_>) {
            let key = self.keys.key(key);
            apply(&self.keys, &mut self.view, TableChange::Delete { key: &key }, self.t0);
        }
    }

    fn node(name: &str) -> NodeRecord {
        NodeRecord::new(name, PeerId::random(), 3)
    }

    fn json(value: &impl Serialize) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    #[test]
    fn a_drain_holds_for_a_record_before_and_after_it() {
        let mut world = World::new();
        world.put(Key::Drain("a"), "", 1);
        world.put(Key::Node("a"), json(&node("a")), 2);
        assert!(world.view.nodes["a"].drained);
        world.delete(Key::Drain("a"));
        assert!(!world.view.nodes["a"].drained);
        world.put(Key::Drain("a"), "", 3);
        assert!(world.view.nodes["a"].drained && world.view.drained.contains("a"));
        world.delete(Key::Node("a"));
        assert!(world.view.nodes.is_empty());
    }

    #[test]
    fn a_lease_key_comes_and_goes_and_its_create_revision_is_the_epoch() {
        let mut world = World::new();
        let claim = LeaseRecord::of(&node("a"));
        world.put(Key::Lease(PATH), json(&claim), 41);
        assert_eq!(world.view.holders[PATH], claim.clone().holder(41));
        world.delete(Key::Lease(PATH));
        assert_eq!((world.view.holders.len(), world.view.vacated[PATH]), (0, world.t0));
        world.put(Key::Lease(PATH), json(&claim), 43);
        assert_eq!((world.view.holders[PATH].epoch, world.view.vacated.len()), (43, 0));
    }

    #[test]
    fn since_when_a_holder_holds_counts_from_its_epoch() {
        let mut world = World::new();
        let claim = json(&LeaseRecord::of(&node("a")));
        let t0 = world.t0;
        world.put(Key::Lease(PATH), &claim, 41);
        world.t0 += Duration::from_secs(1);
        world.put(Key::Lease(PATH), &claim, 41);
        assert_eq!(world.view.held[PATH], t0, "the same holder");
        let (key, later) = (world.keys.key(Key::Lease(PATH)), t0 + Duration::from_secs(9));
        for (created, since) in [(41, t0), (42, later)] {
            let all = [(key.as_str(), claim.as_slice(), created)];
            assert_eq!(replace(&world.keys, &world.view, all.into_iter(), later).held[PATH], since, "read anew");
        }
        assert!(replace(&world.keys, &world.view, [].into_iter(), later).held.is_empty());
        world.put(Key::Lease(PATH), &claim, 42);
        assert_eq!(world.view.held[PATH], world.t0, "a new epoch");
        world.delete(Key::Lease(PATH));
        assert!(world.view.held.is_empty());
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let mut world = World::new();
        world.put(Key::Node("a"), json(&node("a")), 1);
        world.put(Key::Node("a"), "no json", 2);
        world.put(Key::Lease(PATH), "{}", 2);
        assert!(world.view.nodes.contains_key("a") && world.view.holders.is_empty());
        let damaged = [Key::Lease(PATH), Key::Node("a")].map(|key| world.keys.key(key));
        assert!(world.view.unreadable.keys().eq(damaged.iter()), "{:?}", world.view.unreadable);
        world.delete(Key::Lease(PATH));
        assert!(world.view.vacated.is_empty(), "what nobody held was not vacated");
        world.put(Key::Node("a"), json(&node("a")), 3);
        assert!(world.view.unreadable.is_empty());
        // Of who held it before, the key says nothing any more.
        world.put(Key::Lease(PATH), json(&LeaseRecord::of(&node("a"))), 4);
        world.put(Key::Lease(PATH), "no json", 4);
        assert!(world.view.holders.is_empty() && world.view.vacated.contains_key(PATH));
    }

    #[test]
    fn a_table_read_anew_tells_what_was_vacated_meanwhile() {
        let mut world = World::new();
        let claim = json(&LeaseRecord::of(&node("a")));
        for (concern, created) in [("/m/kept", 1), ("/m/gone", 2), ("/m/gone-before", 3)] {
            world.put(Key::Lease(concern), &claim, created);
        }
        world.delete(Key::Lease("/m/gone-before"));
        let later = world.t0 + Duration::from_secs(9);
        let kept = world.keys.key(Key::Lease("/m/kept"));
        let all = [(kept.as_str(), claim.as_slice(), 1)];
        let view = replace(&world.keys, &world.view, all.into_iter(), later);
        assert_eq!(view.holders.keys().collect::<Vec<_>>(), ["/m/kept"]);
        let vacated: Vec<_> = view.vacated.iter().map(|(concern, at)| (concern.as_str(), *at)).collect();
        assert_eq!(vacated, [("/m/gone", later), ("/m/gone-before", world.t0)]);
    }
}
