//! Actors that every node has for itself, of other nodes as the directory names them: agents, storages and what answers for
//! a node, each with an address that the bridge carries.

use super::net::Net;
use crate::actors::seal_agent::{self, SealAgent};
use crate::actors::seal_scheduler::{Agent, Agents};
use crate::actors::storage::{self, Seen, Storage, StorageNode, Storages};
use crate::rpc::directory::{NodeRecord, View};
use crate::supervisor::wire::{Carrier, Fault, OutgoingMessage, RemoteEnvelope};
use crate::supervisor::{Actor, Down, Exit, Recipient, Ref};
use crate::util::lock;
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Messages on their way to one remote actor wait in the bridge, not here.
const MAILBOX: usize = 64;

/// How messages get to a peer, whatever epoch the actor is held under.
pub type CarrierOf = Arc<dyn Fn(PeerId) -> Box<dyn Carrier> + Send + Sync>;
/// The directory's present view; `None` while there is no directory.
pub type ViewSource = Arc<dyn Fn() -> Option<Arc<View>> + Send + Sync>;

/// A carrier that looks up the node's present bridge for each message.
struct CurrentBridge {
    net: Arc<Net>,
    peer: PeerId,
}

impl Carrier for CurrentBridge {
    fn carry(
        &self,
        envelope: RemoteEnvelope,
        outgoing: Box<dyn OutgoingMessage>,
    ) -> Result<(), (Fault, Box<dyn OutgoingMessage>)> {
        match self.net.bridge.load_full() {
            Some(bridge) => bridge.carrier(self.peer, 0).carry(envelope, outgoing),
            None => Err((Fault::NodeDown { sent: false }, outgoing)),
        }
    }
    fn watch(&self, path: &Arc<str>, to: Recipient<Down>) -> Box<dyn Send + Sync> {
        match self.net.bridge.load_full() {
            Some(bridge) => bridge.carrier(self.peer, 0).watch(path, to),
            None => {
                // Whoever asked may be gone too.
                let _ = to.tell(Down { path: path.to_string(), incarnation: 0, reason: Exit::NotRunning });
                Box::new(())
            }
        }
    }
}

struct Known {
    peer: PeerId,
    worker: Ref<SealAgent>,
    storage: Ref<Storage>,
}

/// The actors of other nodes for disks and workers.
pub struct RemoteNodes {
    me: String,
    look: ViewSource,
    carrier: CarrierOf,
    known: Mutex<HashMap<String, Known>>,
}

fn remote<A: Actor>(path: String, peer: PeerId, carrier: &CarrierOf) -> Ref<A> {
    let far = Ref::new(path, MAILBOX);
    far.route_to(Some(carrier(peer)));
    far
}

impl RemoteNodes {
    /// `me` is this node's own name.
    pub fn new(me: impl Into<String>, look: ViewSource, carrier: CarrierOf) -> RemoteNodes {
        RemoteNodes { me: me.into(), look, carrier, known: Mutex::default() }
    }

    /// The remote nodes of a node of a cluster.
    pub fn of(net: &Arc<Net>) -> RemoteNodes {
        let (views, links) = (net.clone(), net.clone());
        let look = move || Some(views.directory.load_full()?.0.view().borrow().clone());
        let carrier = move |peer| Box::new(CurrentBridge { net: links.clone(), peer }) as Box<dyn Carrier>;
        RemoteNodes::new(net.settings.node.as_str(), Arc::new(look), Arc::new(carrier))
    }

    /// One of the actors that every node has for itself, of the node of that name. `None`: no such node is known.
    pub fn own_of<A: Actor>(&self, node: &str, actor: &str) -> Option<Ref<A>> {
        let view = (self.look)()?;
        Some(remote(format!("/{node}/{actor}"), view.nodes.get(node)?.peer_id, &self.carrier))
    }

    /// The same address as long as the node has the same identity.
    fn refs(&self, node: &NodeRecord) -> (Ref<SealAgent>, Ref<Storage>) {
        let mut known = lock(&self.known);
        let entry = known.get(&node.name).filter(|k| k.peer == node.peer_id);
        if let Some(k) = entry {
            return (k.worker.clone(), k.storage.clone());
        }
        let worker: Ref<SealAgent> = remote(seal_agent::path(&node.name), node.peer_id, &self.carrier);
        let storage: Ref<Storage> = remote(storage::path(&node.name), node.peer_id, &self.carrier);
        let new = Known { peer: node.peer_id, worker: worker.clone(), storage: storage.clone() };
        known.insert(node.name.clone(), new);
        (worker, storage)
    }
}

impl Agents for RemoteNodes {
    fn seen(&self) -> Result<Vec<Agent>, String> {
        let nobody =
            || "client: no endpoints available: none of [SealAgent] EtcdAddrs in config.toml answers".to_string();
        let view = (self.look)().ok_or_else(nobody)?;
        let agents: Vec<Agent> = view
            .agents()
            .map(|node| Agent { name: node.name.clone(), drained: node.drained, worker: self.refs(node).0 })
            .collect();
        if agents.is_empty() && !view.in_contact {
            return Err(nobody());
        }
        Ok(agents)
    }
}

impl Storages for RemoteNodes {
    fn seen(&self) -> Option<Seen> {
        let trouble = || Some("the directory is not in contact: who has its files is not known".to_string());
        let Some(view) = (self.look)() else { return Some(Seen { nodes: Vec::new(), trouble: trouble() }) };
        let serves = |node: &&Arc<NodeRecord>| node.name != self.me && node.serves.contains(&storage::path(&node.name));
        let of = |node: &Arc<NodeRecord>| StorageNode { name: node.name.clone(), storage: self.refs(node).1 };
        let nodes = view.nodes.values().filter(serves).map(of).collect();
        Some(Seen { nodes, trouble: if view.in_contact { None } else { trouble() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::directory::NodeKind;
    use std::time::Instant;
    use tokio::sync::watch;

    struct Nowhere;
    impl Carrier for Nowhere {
        fn carry(
            &self,
            _: RemoteEnvelope,
            outgoing: Box<dyn OutgoingMessage>,
        ) -> Result<(), (Fault, Box<dyn OutgoingMessage>)> {
            Err((Fault::NodeDown { sent: false }, outgoing))
        }
        fn watch(&self, _: &Arc<str>, _: Recipient<Down>) -> Box<dyn Send + Sync> {
            Box::new(())
        }
    }

    #[test]
    fn agents_are_those_of_the_view_and_keep_their_addresses() {
        let (tell, view) = watch::channel(Arc::new(View::empty(Instant::now())));
        let nodes =
            RemoteNodes::new("me", Arc::new(move || Some(view.borrow().clone())), Arc::new(|_| Box::new(Nowhere)));
        assert!(Agents::seen(&nodes).err().unwrap().starts_with("client: no endpoints available"));
        let mut agent = NodeRecord::new("a", PeerId::random(), 1);
        agent.kind = NodeKind::Agent;
        agent.serves = [storage::path("a")].into();
        let mut me = NodeRecord::new("me", PeerId::random(), 1);
        me.serves = [storage::path("me")].into();
        tell.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.in_contact = true;
            view.nodes.insert("a".into(), Arc::new(agent.clone()));
            view.nodes.insert("me".into(), Arc::new(me));
        });
        let seen = Agents::seen(&nodes).unwrap();
        assert_eq!(
            seen.iter().map(|a| (a.name.as_str(), a.worker.path())).collect::<Vec<_>>(),
            [("a", "/a/seal-worker")]
        );
        assert!(seen[0].worker.is_remote());
        let storages = || {
            let Seen { nodes, trouble } = Storages::seen(&nodes).expect("a cluster");
            (nodes.into_iter().map(|node| node.name).collect::<Vec<_>>(), trouble.is_some())
        };
        assert_eq!(storages(), (vec!["a".to_string()], false), "not our own");
        let own = |node| nodes.own_of::<Storage>(node, "storage").map(|it| it.path().to_string());
        assert_eq!((own("a").as_deref(), own("nobody")), (Some("/a/storage"), None));
        tell.send_modify(|view| Arc::make_mut(view).in_contact = false);
        assert_eq!(Agents::seen(&nodes).unwrap().len(), 1, "the last that was known");
        assert_eq!(storages(), (vec!["a".to_string()], true), "others may have come");
        tell.send_modify(|view| Arc::make_mut(view).nodes.clear());
        assert!(Agents::seen(&nodes).is_err());
        // A node that has just started and has no view yet is not alone.
        let blind = RemoteNodes::new("me", Arc::new(|| None), Arc::new(|_| Box::new(Nowhere)));
        let Seen { nodes, trouble } = Storages::seen(&blind).expect("a cluster");
        assert!(nodes.is_empty() && trouble.is_some());
    }
}
