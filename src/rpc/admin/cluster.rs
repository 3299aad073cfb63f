//! The cluster as one node sees it: rows for nodes, leases and bridge peers, and where orders go. Rows are snapshots; only
//! another node's tree and an operator's order leave this process, both with a deadline.

use crate::rpc::directory::record::{NodeKind, Role};
use crate::rpc::directory::{DirectoryError, LeaseState, PlacementOrder, Space, View};
use crate::supervisor::ActorInfo;
use futures::future::BoxFuture;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The handlers' view of a node that is one of several.
pub trait ClusterView: Send + Sync + 'static {
    /// This node's name.
    fn node(&self) -> String;
    fn report(&self) -> ClusterReport;
    fn peers(&self) -> PeersReport;
    /// The holders of the concerns that stand by in that node's tree: place in the tree -> name of the node that holds
    /// it.
    fn holders(&self, node: &str) -> BTreeMap<String, String>;
    /// The supervision tree of another node, over the bridge.
    fn actors_of(&self, node: &str) -> BoxFuture<'static, Result<Vec<ActorInfo>, RemoteTreeError>>;
    /// How the full nodes of a node are, and the feed of their heads there: `{feed, full_nodes}`.
    fn full_nodes_of(&self, node: &str) -> BoxFuture<'static, Result<Value, RemoteTreeError>>;
    /// Completes when the cluster has the order, not when it is carried out.
    fn order(&self, order: PlacementOrder) -> BoxFuture<'static, Result<(), DirectoryError>>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteTreeError {
    #[error("no node {node:?} in this cluster; GET /nodes lists them")]
    Unknown { node: String },
    #[error("{node} does not answer: {why}")]
    NoAnswer { node: String, why: String },
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ClusterReport {
    pub cluster: String,
    /// The node that says this.
    pub node: String,
    /// `static` or `etcd`.
    pub directory: String,
    /// True if the rest is kept up to date; else it is the last that was known.
    pub in_contact: bool,
    /// For how many seconds that has been so.
    pub for_seconds: u64,
    pub nodes: Vec<NodeRow>,
    pub leases: Vec<LeaseRow>,
    /// Concern -> node, ordered and not done yet.
    pub moves: BTreeMap<String, String>,
    /// Concerns that had a holder and have none.
    pub vacant: Vec<String>,
    /// Bytes of etcd's database, where there is one.
    #[serde(default)]
    pub etcd_bytes: Option<u64>,
    /// The fault of etcd's space, and what to do.
    #[serde(default)]
    pub etcd_trouble: Option<String>,
    /// The faults of the concerns that this node may run, a sentence each. While there is any, it is not ready.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Keys of etcd's that cannot be read, a sentence each.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NodeRow {
    pub name: String,
    pub peer_id: String,
    pub kind: NodeKind,
    pub roles: BTreeSet<Role>,
    /// `here`, else how the bridge to it does: `connecting`, `up`, `suspect`, `down`; `unknown` where nothing tried yet.
    pub state: String,
    pub drained: bool,
    pub boot: u64,
    pub version: String,
    pub addrs: Vec<String>,
    pub api: Option<String>,
    pub admin: Option<String>,
    /// Concerns that it holds.
    pub holds: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LeaseRow {
    pub concern: String,
    pub node: String,
    pub epoch: u64,
    /// Held by the node that says this.
    pub here: bool,
    /// The holder's knowledge of it: `proven`, `unproven`, `lost`; only where it is held here.
    pub state: Option<String>,
}

/// One process on the other end of the bridge.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PeerRow {
    pub peer_id: String,
    /// Its name in the directory, where it has one.
    pub node: Option<String>,
    pub state: String,
    pub boot: Option<u64>,
    pub rtt_us: Option<u64>,
    /// Asks without an answer yet.
    pub pending: u64,
    /// Bytes that wait to be sent.
    pub queued_control: u64,
    pub queued_messages: u64,
    /// Reason -> frames that were not taken.
    pub refused: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct PeersReport {
    pub peers: Vec<PeerRow>,
    /// Reason -> what was not taken from those who never became a peer.
    pub strangers: BTreeMap<String, u64>,
}

/// Facts that a view does not have about its own node.
pub struct Here<'a> {
    pub cluster: &'a str,
    pub node: &'a str,
    pub directory: &'a str,
    pub now: Instant,
    /// How the bridge to each peer does.
    pub links: BTreeMap<PeerId, String>,
    /// The concerns that this node's roles allow.
    pub own: Vec<OwnConcern>,
}

/// A node's own knowledge of a concern that its roles allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnConcern {
    pub path: String,
    /// How the lease stands under which it runs here; `None`: it does not run here.
    pub lease: Option<LeaseState>,
    /// Why it last could not be held or started here.
    pub failure: Option<String>,
}

impl OwnConcern {
    /// The concern's fault, and its cause as far as it is known.
    fn trouble(&self, view: &View, node: &str) -> Option<String> {
        let path = &self.path;
        let why = self.failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        match (view.holders.get(path), self.lease) {
            (Some(holder), Some(LeaseState::Proven)) if holder.node == node => None,
            (Some(holder), None) if holder.node != node && !view.in_contact => None,
            (Some(holder), None) if holder.node != node => {
                // A node's record and its leases end together: this row was written by something else, and never ends.
                let gone = !view.nodes.contains_key(&holder.node);
                gone.then(|| {
                    format!(
                        "{path} is held by {}, which is no node of this cluster, so nobody runs it: run `bulkhead cluster \
                         repair` on a host of the cluster",
                        holder.node
                    )
                })
            }
            (Some(holder), None) => {
                Some(format!("{path} is held by this node (epoch {}) and does not run here{why}", holder.epoch))
            }
            (Some(holder), Some(LeaseState::Proven)) => {
                Some(format!("{path} runs here, and is {}'s (epoch {})", holder.node, holder.epoch))
            }
            (_, Some(LeaseState::Unproven)) => {
                Some(format!("{path} runs here, and its lease is not proven: etcd gives this node no answer"))
            }
            (_, Some(LeaseState::Lost)) => Some(format!("{path} runs here still, and its lease is lost")),
            (None, Some(LeaseState::Proven)) => {
                Some(format!("{path} runs here, and the directory has no holder of it"))
            }
            (None, None) if !view.in_contact => Some(format!("{path} may run nowhere: the directory is out of reach")),
            (None, None) => Some(format!("nobody holds {path}{why}")),
        }
    }
}

impl ClusterReport {
    pub fn of(view: &View, here: &Here) -> ClusterReport {
        let link = |peer: &PeerId| here.links.get(peer).cloned().unwrap_or_else(|| "unknown".to_string());
        let holds = |name: &str| view.holders.iter().filter(|(_, h)| h.node == name).map(|(c, _)| c.clone()).collect();
        let nodes = view.nodes.values().map(|node| NodeRow {
            name: node.name.clone(),
            peer_id: node.peer_id.to_string(),
            kind: node.kind,
            roles: node.roles.clone(),
            state: if node.name == here.node { "here".to_string() } else { link(&node.peer_id) },
            drained: node.drained,
            boot: node.boot,
            version: node.version.clone(),
            addrs: node.addrs.iter().map(|addr| addr.to_string()).collect(),
            api: node.api.clone(),
            admin: node.admin.clone(),
            holds: holds(&node.name),
        });
        let lease = |concern: &String| here.own.iter().find(|own| own.path == *concern)?.lease;
        let leases = view.holders.iter().map(|(concern, holder)| LeaseRow {
            concern: concern.clone(),
            node: holder.node.clone(),
            epoch: holder.epoch,
            here: holder.node == here.node,
            state: lease(concern).filter(|_| holder.node == here.node).map(|s| state_name(s).to_string()),
        });
        ClusterReport {
            cluster: here.cluster.to_string(),
            node: here.node.to_string(),
            directory: here.directory.to_string(),
            in_contact: view.in_contact,
            for_seconds: here.now.saturating_duration_since(view.since).as_secs(),
            nodes: nodes.collect(),
            leases: leases.collect(),
            moves: view.moves.clone(),
            vacant: view.vacated.keys().filter(|concern| !view.holders.contains_key(*concern)).cloned().collect(),
            etcd_bytes: view.space.map(|space| space.bytes),
            etcd_trouble: view.space.and_then(Space::trouble),
            troubles: here.own.iter().filter_map(|own| own.trouble(view, here.node)).collect(),
            unreadable: view.unreadable.iter().map(|(key, why)| unreadable(key, why)).collect(),
        }
    }

    /// A concern by its path, or by its name where only one has that name.
    pub fn concern(&self, text: &str) -> Result<String, String> {
        let known: BTreeSet<&str> =
            self.leases.iter().map(|l| l.concern.as_str()).chain(self.vacant.iter().map(String::as_str)).collect();
        let path = format!("/{}", text.trim_matches('/'));
        if known.contains(path.as_str()) {
            return Ok(path);
        }
        let named: Vec<&str> = known.iter().copied().filter(|concern| concern.ends_with(&path)).collect();
        match named.as_slice() {
            [one] => Ok(one.to_string()),
            [] => {
                let known: Vec<&str> = known.into_iter().collect();
                Err(format!("{text:?} is no concern of this cluster; there are {}", known.join(", ")))
            }
            several => Err(format!("{text:?} may be any of {}: write the whole path", several.join(", "))),
        }
    }
}

fn unreadable(key: &str, why: &str) -> String {
    DirectoryError::Unreadable { key: key.to_string(), why: why.to_string() }.to_string()
}

fn state_name(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Proven => "proven",
        LeaseState::Unproven => "unproven",
        LeaseState::Lost => "lost",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rpc::directory::{Holder, NodeRecord};
    use std::sync::Arc;
    use std::time::Duration;

    pub fn view_of_two() -> (View, Instant) {
        let since = Instant::now();
        let mut view = View { in_contact: true, ..View::empty(since) };
        let (a, b) = (NodeRecord::new("a", PeerId::random(), 1), NodeRecord::new("b", PeerId::random(), 2));
        let holder = |node: &NodeRecord, epoch| Holder {
            node: node.name.clone(),
            peer_id: node.peer_id,
            boot: node.boot,
            epoch,
        };
        view.holders.insert("/t01000/window-post".into(), holder(&a, 41));
        view.holders.insert("/t01000/seal-scheduler/a".into(), holder(&a, 42));
        view.holders.insert("/t01000/seal-scheduler/b".into(), holder(&b, 43));
        view.vacated.insert("/t01000/winning-post".into(), since);
        view.vacated.insert("/t01000/window-post".into(), since);
        view.nodes = [a, b].into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect();
        (view, since)
    }

    fn own(name: &str, lease: Option<LeaseState>, failure: Option<&str>) -> OwnConcern {
        OwnConcern { path: format!("/t01000/{name}"), lease, failure: failure.map(str::to_string) }
    }

    #[test]
    fn what_is_held_and_not_proven_and_what_nobody_holds_is_trouble() {
        use LeaseState::*;
        let (mut view, _) = view_of_two();
        let ghost = Holder { node: "ghost".into(), ..view.holders["/t01000/window-post"].clone() };
        view.holders.insert("/t01000/allocator".into(), ghost);
        let (window, theirs) = ("window-post", "seal-scheduler/b");
        // concern, lease here, failure -> a part of the sentence
        let table = [
            (window, Some(Proven), None, None),
            (window, Some(Proven), Some("of an earlier try"), None),
            (window, None, None, Some("/t01000/window-post is held by this node (epoch 41) and does not run here")),
            (window, None, Some("no state"), Some("does not run here: no state")),
            (window, Some(Unproven), None, Some("/t01000/window-post runs here, and its lease is not proven")),
            (window, Some(Lost), None, Some("its lease is lost")),
            (theirs, None, None, None),
            (theirs, None, Some("of an earlier try"), None),
            ("allocator", None, None, Some("/t01000/allocator is held by ghost, which is no node of this cluster")),
            (theirs, Some(Proven), None, Some("runs here, and is b's (epoch 43)")),
            ("winning-post", None, None, Some("nobody holds /t01000/winning-post")),
            ("winning-post", None, Some("no marker"), Some("nobody holds /t01000/winning-post: no marker")),
            ("winning-post", Some(Proven), None, Some("no holder")),
        ];
        for (name, lease, failure, part) in table {
            let trouble = own(name, lease, failure).trouble(&view, "a");
            assert_eq!(trouble.is_some(), part.is_some(), "{name} {lease:?}: {trouble:?}");
            assert!(trouble.as_deref().unwrap_or_default().contains(part.unwrap_or_default()), "{trouble:?}");
        }
        let away = View { in_contact: false, ..view };
        let trouble = own("winning-post", None, None).trouble(&away, "a").unwrap();
        assert!(trouble.contains("out of reach"), "{trouble}");
        assert_eq!(own("allocator", None, None).trouble(&away, "a"), None, "what is seen is old");
    }

    #[test]
    fn a_report_says_who_holds_what_and_how_the_bridge_to_each_does() {
        let (view, since) = view_of_two();
        let b = view.nodes["b"].peer_id;
        let here = Here {
            cluster: "main",
            node: "a",
            directory: "etcd",
            now: since + Duration::from_secs(7),
            links: [(b, "suspect".to_string())].into(),
            own: vec![own("window-post", Some(LeaseState::Unproven), None)],
        };
        let report = ClusterReport::of(&view, &here);
        assert_eq!((report.in_contact, report.for_seconds), (true, 7));
        let states: Vec<(&str, &str)> = report.nodes.iter().map(|n| (n.name.as_str(), n.state.as_str())).collect();
        assert_eq!(states, [("a", "here"), ("b", "suspect")]);
        assert_eq!(report.nodes[1].holds, ["/t01000/seal-scheduler/b"]);
        let window = report.leases.iter().find(|l| l.concern == "/t01000/window-post").unwrap();
        assert_eq!((window.epoch, window.here, window.state.as_deref()), (41, true, Some("unproven")));
        assert_eq!(report.leases.iter().find(|l| l.node == "b").unwrap().state, None);
        assert_eq!(report.vacant, ["/t01000/winning-post"], "what is held again is not vacant");
        let unknown = Here { links: BTreeMap::new(), ..here };
        assert_eq!(ClusterReport::of(&view, &unknown).nodes[1].state, "unknown");
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ClusterReport>(&text).unwrap(), report);
    }

    #[test]
    fn a_concern_is_known_by_its_name_where_that_is_clear() {
        let (view, now) = view_of_two();
        let here = Here { cluster: "main", node: "a", directory: "etcd", now, links: BTreeMap::new(), own: vec![] };
        let report = ClusterReport::of(&view, &here);
        for (text, found) in [
            ("window-post", Some("/t01000/window-post")),
            ("/t01000/window-post", Some("/t01000/window-post")),
            ("t01000/window-post", Some("/t01000/window-post")),
            ("winning-post", Some("/t01000/winning-post")),
            ("seal-scheduler/b", Some("/t01000/seal-scheduler/b")),
            ("post", None),
            ("window_post", None),
            ("", None),
        ] {
            assert_eq!(report.concern(text).ok().as_deref(), found, "{text:?}");
        }
        assert!(report.concern("lunch").unwrap_err().contains("/t01000/window-post"));
    }
}
