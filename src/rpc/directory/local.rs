//! A cluster of one: whatever this node wants to hold, it holds, and the epoch is its boot.

use super::lease::{Keeper, ProvenUntil};
use super::{Directory, DirectoryError, Holder, Lease, NodeRecord, Order, View, check_concern};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// See the module.
pub struct Local(Arc<Inner>);

struct Inner {
    view: watch::Sender<Arc<View>>,
    me: Mutex<Option<NodeRecord>>,
    held: Mutex<BTreeMap<String, watch::Sender<bool>>>,
}

impl Local {
    pub fn new() -> Local {
        let view = View { in_contact: true, ..View::empty(Instant::now()) };
        let (view, _) = watch::channel(Arc::new(view));
        Local(Arc::new(Inner { view, me: Mutex::default(), held: Mutex::default() }))
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
        let before = self.0.me.lock().unwrap_or_else(PoisonError::into_inner).replace(me.clone());
        self.0.change(|view| {
            before.map(|before| view.nodes.remove(&before.name));
            view.nodes.insert(me.name.clone(), Arc::new(me));
        });
        Ok(())
    }

    async fn leave(&self) -> Result<(), DirectoryError> {
        let held = std::mem::take(&mut *self.0.held.lock().unwrap_or_else(PoisonError::into_inner));
        for lost in held.values() {
            lost.send_replace(true);
        }
        self.0.me.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.change(|view| {
            view.nodes.clear();
            view.holders.clear();
        });
        Ok(())
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    async fn acquire(&self, concern: &str) -> Result<Lease, DirectoryError> {
        check_concern(concern)?;
        let me = self.0.me.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let me = me.ok_or_else(|| DirectoryError::NotRegistered { concern: concern.to_string() })?;
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
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

    async fn order(&self, _: Order) -> Result<(), DirectoryError> {
        Err(DirectoryError::Alone)
    }
}

impl Keeper for Inner {
    fn give_back(self: Arc<Self>, concern: &str, _: u64) -> BoxFuture<'static, Result<(), DirectoryError>> {
        if let Some(lost) = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(concern) {
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
    async fn leaving_loses_everything_and_orders_need_a_cluster() {
        let local = Local::new();
        local.register(NodeRecord::new("a", PeerId::random(), 1)).await.unwrap();
        let lease = local.acquire(CONCERN).await.unwrap();
        local.leave().await.unwrap();
        lease.lost().await;
        assert!(local.view().borrow().nodes.is_empty());
        assert_eq!(local.order(Order::Drain { node: "a".into() }).await, Err(DirectoryError::Alone));
        assert!(local.register(NodeRecord::new("a/b", PeerId::random(), 1)).await.is_err());
    }
}
