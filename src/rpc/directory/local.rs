//! A cluster of one: whatever this node wants to hold, it holds, and the epoch is its boot. Among others that are known by
//! hand ([`Fixed`]) it is whatever they do not hold.

use super::fixed::Fixed;
use super::lease::{LeaseRelease, ProvenUntil};
use super::{Directory, DirectoryError, Holder, Lease, NodeRecord, PlacementOrder, View, check_concern};
use crate::util::lock;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::watch;

/// See the module.
pub struct Local(Arc<Inner>);

struct Inner {
    view: watch::Sender<Arc<View>>,
    me: Mutex<Option<NodeRecord>>,
    held: Mutex<BTreeMap<String, watch::Sender<bool>>>,
    others: Fixed,
}

impl Local {
    pub fn new() -> Local {
        Local::among(Fixed::default())
    }

    pub fn among(others: Fixed) -> Local {
        let mut view = View { in_contact: true, ..View::empty(Instant::now()) };
        view.nodes = others.peers.iter().map(|peer| (peer.name.clone(), Arc::new(peer.clone()))).collect();
        let (view, _) = watch::channel(Arc::new(view));
        Local(Arc::new(Inner { view, me: Mutex::default(), held: Mutex::default(), others }))
    }
}

impl Default for Local {
    fn default() -> Local {
        Local::new()
    }
}

impl Inner {
    fn change(&self, with: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| with(Arc::make_mut(view)));
    }
}

#[async_trait]
impl Directory for Local {
    async fn register(&self, me: NodeRecord) -> Result<(), DirectoryError> {
        me.check()?;
        let before = lock(&self.0.me).replace(me.clone());
        let theirs = self.0.others.holders(&me);
        self.0.change(|view| {
            before.map(|before| view.nodes.remove(&before.name));
            view.holders.retain(|_, holder| holder.node == me.name);
            view.holders.extend(theirs);
            view.nodes.insert(me.name.clone(), Arc::new(me));
        });
        Ok(())
    }

    async fn leave(&self) -> Result<(), DirectoryError> {
        let held = std::mem::take(&mut *lock(&self.0.held));
        for lost in held.values() {
            lost.send_replace(true);
        }
        let me = lock(&self.0.me).take();
        self.0.change(|view| {
            me.map(|me| view.nodes.remove(&me.name));
            view.holders.clear();
        });
        Ok(())
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    async fn acquire(&self, concern: &str) -> Result<Lease, DirectoryError> {
        check_concern(concern)?;
        let me = lock(&self.0.me).clone();
        let me = me.ok_or_else(|| DirectoryError::NotRegistered { concern: concern.to_string() })?;
        if let Some(holder) = self.0.others.holders(&me).remove(concern) {
            return Err(DirectoryError::Held { concern: concern.to_string(), holder: Box::new(holder) });
        }
        let mut held = lock(&self.0.held);
        let holder = Holder { node: me.name, peer_id: me.peer_id, boot: me.boot, epoch: me.boot };
        if held.contains_key(concern) {
            return Err(DirectoryError::Held { concern: concern.to_string(), holder: Box::new(holder) });
        }
        let (sender, lost) = watch::channel(false);
        held.insert(concern.to_string(), sender);
        drop(held);
        self.0.change(|view| {
            view.vacated.remove(concern);
            view.holders.insert(concern.to_string(), holder);
        });
        Ok(Lease::new(concern, me.boot, ProvenUntil::always(), lost, self.0.clone()))
    }

    async fn order(&self, _: PlacementOrder) -> Result<(), DirectoryError> {
        Err(if self.0.others.peers.is_empty() { DirectoryError::Alone } else { DirectoryError::NoOrders })
    }
}

impl LeaseRelease for Inner {
    fn give_back(self: Arc<Self>, concern: &str, _: u64) -> BoxFuture<'static, Result<(), DirectoryError>> {
        if let Some(lost) = lock(&self.held).remove(concern) {
            lost.send_replace(true);
            self.change(|view| {
                view.holders.remove(concern);
                view.vacated.insert(concern.to_string(), Instant::now());
            });
        }
        std::future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::directory::LeaseState;
    use libp2p::PeerId;

    const CONCERN: &str = "/t01000/window-post";

    #[tokio::test]
    async fn one_holder_at_a_time_and_the_view_says_who() {
        let local = Local::new();
        let early = local.acquire(CONCERN).await.unwrap_err();
        assert_eq!(early, DirectoryError::NotRegistered { concern: CONCERN.into() });
        local.register(NodeRecord::new("a", PeerId::random(), 7)).await.unwrap();
        let lease = local.acquire(CONCERN).await.unwrap();
        assert_eq!((lease.epoch(), lease.state()), (7, LeaseState::Proven));
        assert!(matches!(local.acquire(CONCERN).await, Err(DirectoryError::Held { .. })));
        let mut view = local.view();
        assert_eq!(view.borrow_and_update().locate(CONCERN).unwrap().node, "a");
        let proof = lease.proof();
        drop(lease);
        assert_eq!(proof.state(), LeaseState::Lost);
        assert!(view.borrow_and_update().locate(CONCERN).is_none());
        let again = local.acquire(CONCERN).await.unwrap();
        assert_eq!(proof.state(), LeaseState::Lost, "an old proof stays lost");
        again.release().await.unwrap();
    }

    #[tokio::test]
    async fn among_others_only_what_the_list_leaves_is_taken() {
        use crate::rpc::directory::placement::{Placement, Wanted};
        use crate::rpc::directory::{PlacementOrder, Role};
        let peer = Fixed::peer("b", PeerId::random(), vec![], [Role::WindowPost].into());
        let concerns = vec![Wanted::new(CONCERN, Role::WindowPost), Wanted::new("/t01000/x", Role::Allocator)];
        let placement = Placement { concerns, ..Placement::default() };
        let local = Local::among(Fixed { peers: vec![peer.clone()], placement });
        let me = NodeRecord { roles: [Role::Allocator].into(), ..NodeRecord::new("a", PeerId::random(), 7) };
        local.register(me).await.unwrap();
        let view = local.view().borrow().clone();
        assert_eq!(view.locate(CONCERN).unwrap().peer_id, peer.peer_id);
        assert_eq!((view.nodes.len(), view.peers().contains(&peer.peer_id)), (2, true));
        let refused = local.acquire(CONCERN).await.unwrap_err();
        assert!(matches!(refused, DirectoryError::Held { holder, .. } if holder.node == "b"));
        assert_eq!(local.acquire("/t01000/x").await.unwrap().epoch(), 7);
        let order = PlacementOrder::Move { concern: CONCERN.into(), node: "a".into() };
        assert_eq!(local.order(order).await, Err(DirectoryError::NoOrders));
        local.leave().await.unwrap();
        assert_eq!(local.view().borrow().nodes.len(), 1);
    }

    #[tokio::test]
    async fn leaving_loses_everything_and_orders_need_a_cluster() {
        let local = Local::new();
        local.register(NodeRecord::new("a", PeerId::random(), 1)).await.unwrap();
        let lease = local.acquire(CONCERN).await.unwrap();
        local.leave().await.unwrap();
        lease.lost().await;
        assert!(local.view().borrow().nodes.is_empty());
        assert_eq!(local.order(PlacementOrder::Drain { node: "a".into() }).await, Err(DirectoryError::Alone));
        assert!(local.register(NodeRecord::new("a/b", PeerId::random(), 1)).await.is_err());
    }
}
