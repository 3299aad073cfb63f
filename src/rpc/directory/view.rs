//! The shared view of the cluster: nodes, holders, orders; and whether it is still kept up to date.

use super::holder::Holder;
use super::record::{NodeKind, NodeRecord, Role};
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A snapshot. It is never half of a change: what etcd did at once appears at once.
#[derive(Clone, Debug)]
pub struct View {
    pub nodes: BTreeMap<String, Arc<NodeRecord>>,
    /// Concern path -> its one holder.
    pub holders: BTreeMap<String, Holder>,
    /// Concern path -> the node that an operator wants it on.
    pub moves: BTreeMap<String, String>,
    /// Nodes under an operator's order to drain, registered or not.
    pub drained: BTreeSet<String>,
    /// Concerns without a holder that had one while we looked, and since when they have none.
    pub vacated: BTreeMap<String, Instant>,
    /// The time since which each concern is seen with its present holder. Only where holders change (etcd).
    pub held: BTreeMap<String, Instant>,
    /// Keys that hold nothing of ours, and why; whatever they are about is missing above. Only on etcd.
    pub unreadable: BTreeMap<String, String>,
    /// Whether changes reach us. While they do not, all of the above is the last that was known.
    pub in_contact: bool,
    /// The time since which `in_contact` has its value.
    pub since: Instant,
    /// The space of etcd's database; `None` where there is no etcd, or it did not report yet.
    pub space: Option<Space>,
}

/// etcd's quota where it was not given another one.
const QUOTA: u64 = 2 << 30;

/// How full etcd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The database's size on the member that was asked.
    pub bytes: u64,
    /// The alarm NOSPACE is raised.
    pub full: bool,
}

impl Space {
    /// The fault and its remedy.
    pub fn trouble(self) -> Option<String> {
        let mib = self.bytes >> 20;
        if self.full {
            return Some(format!(
                "etcd raised the alarm NOSPACE (its database has {mib} MiB): it takes no writes and grants no leases until you run `etcdctl compact REVISION`, `etcdctl defrag` on every member, and `etcdctl alarm disarm`"
            ));
        }
        (self.bytes > QUOTA / 2).then(|| {
            format!(
                "etcd's database has {mib} MiB, over half of its default quota of {} MiB: start it with --auto-compaction-mode=periodic --auto-compaction-retention=1h, and run `etcdctl defrag`",
                QUOTA >> 20
            )
        })
    }
}

/// The node on which an actor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorLocation {
    pub node: String,
    pub peer_id: PeerId,
    pub boot: u64,
    /// 0 for an actor without a lease.
    pub epoch: u64,
}

impl View {
    pub fn empty(now: Instant) -> View {
        View {
            nodes: BTreeMap::new(),
            holders: BTreeMap::new(),
            moves: BTreeMap::new(),
            drained: BTreeSet::new(),
            vacated: BTreeMap::new(),
            held: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            in_contact: false,
            since: now,
            space: None,
        }
    }

    /// Finds the node on which the actor of this path runs; `None`: unknown.
    pub fn locate(&self, path: &str) -> Option<ActorLocation> {
        if let Some(Holder { node, peer_id, boot, epoch }) = self.holders.get(path).cloned() {
            return Some(ActorLocation { node, peer_id, boot, epoch });
        }
        let node = self.nodes.values().find(|node| node.serves.contains(path))?;
        Some(ActorLocation { node: node.name.clone(), peer_id: node.peer_id, boot: node.boot, epoch: 0 })
    }

    /// The peers that the bridge lets in: whoever could write its record into etcd was given access to the cluster by
    /// its operator.
    pub fn peers(&self) -> BTreeSet<PeerId> {
        self.nodes.values().map(|node| node.peer_id).collect()
    }

    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values().filter(move |node| node.kind == NodeKind::Node && node.has(role))
    }

    pub fn agents(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values().filter(|node| node.kind == NodeKind::Agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_where_its_lease_is_held_else_where_it_is_served() {
        let mut view = View::empty(Instant::now());
        let mut a = NodeRecord::new("a", PeerId::random(), 3);
        a.serves = ["/a/storage".to_string(), "/t01000/window-post".to_string()].into();
        let holder = Holder { node: "b".into(), peer_id: PeerId::random(), boot: 9, epoch: 41 };
        view.holders.insert("/t01000/window-post".into(), holder.clone());
        view.nodes.insert("a".into(), Arc::new(a.clone()));
        let held = view.locate("/t01000/window-post").unwrap();
        assert_eq!((held.node.as_str(), held.epoch, held.boot), ("b", 41, 9));
        let served = view.locate("/a/storage").unwrap();
        assert_eq!(served, ActorLocation { node: "a".into(), peer_id: a.peer_id, boot: 3, epoch: 0 });
        assert_eq!(view.locate("/t01000/winning-post"), None);
        assert_eq!(view.peers(), BTreeSet::from([a.peer_id]));
    }
}
