//! The leases that this node holds, under which lease of etcd's; and who is notified when that ends.

use crate::rpc::directory::lease::ProvenUntil;
use crate::rpc::directory::{DirectoryError, Holder, NodeRecord};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// One lease of etcd's: the node's record and all its concerns hang on it, and end with it.
#[derive(Clone)]
pub struct EtcdLease {
    pub lease: i64,
    pub until: ProvenUntil,
    pub record: NodeRecord,
}

#[derive(Default)]
pub struct Holds {
    session: Option<EtcdLease>,
    held: BTreeMap<String, Hold>,
    /// Concerns that are on their way in or out.
    busy: BTreeSet<String>,
}

struct Hold {
    epoch: u64,
    lost: watch::Sender<bool>,
}

impl Holds {
    pub fn session(&self) -> Option<EtcdLease> {
        self.session.clone()
    }

    pub fn begin(&mut self, session: EtcdLease) {
        self.end();
        self.session = Some(session);
    }

    /// The same lease, another record.
    pub fn rename(&mut self, record: NodeRecord) {
        if let Some(session) = &mut self.session {
            session.record = record;
        }
    }

    /// Everything is lost.
    pub fn end(&mut self) {
        self.session = None;
        for hold in std::mem::take(&mut self.held).values() {
            hold.lost.send_replace(true);
        }
    }

    /// The concern is on its way in, until [`Holds::settle`] or [`Holds::idle`].
    pub fn start(&mut self, concern: &str) -> Result<EtcdLease, DirectoryError> {
        let Some(session) = self.session.clone() else {
            return Err(DirectoryError::NotRegistered { concern: concern.to_string() });
        };
        if self.held.contains_key(concern) || !self.busy.insert(concern.to_string()) {
            let epoch = self.held.get(concern).map_or(0, |hold| hold.epoch);
            let NodeRecord { name: node, peer_id, boot, .. } = session.record;
            let holder = Box::new(Holder { node, peer_id, boot, epoch });
            return Err(DirectoryError::Held { concern: concern.to_string(), holder });
        }
        Ok(session)
    }

    /// It is ours, unless the lease that it hangs on ended meanwhile.
    pub fn settle(&mut self, concern: &str, lease: i64, epoch: u64) -> Option<watch::Receiver<bool>> {
        self.idle(concern);
        self.session.as_ref().filter(|session| session.lease == lease)?;
        let (lost, receiver) = watch::channel(false);
        self.held.insert(concern.to_string(), Hold { epoch, lost });
        Some(receiver)
    }

    pub fn idle(&mut self, concern: &str) {
        self.busy.remove(concern);
    }

    /// It is on its way out: nobody here believes in it any more. The lease that it hangs on, if it was ours.
    pub fn release(&mut self, concern: &str, epoch: u64) -> Option<i64> {
        let session = self.session.as_ref()?;
        self.held.get(concern).filter(|hold| hold.epoch == epoch)?;
        let hold = self.held.remove(concern)?;
        hold.lost.send_replace(true);
        self.busy.insert(concern.to_string());
        Some(session.lease)
    }

    pub fn held(&self) -> Vec<(String, u64)> {
        self.held.iter().map(|(concern, hold)| (concern.clone(), hold.epoch)).collect()
    }

    /// The key of a concern was deleted in this revision.
    pub fn deleted(&mut self, concern: &str, revision: u64) {
        self.lose(concern, |epoch| epoch < revision);
    }

    /// The holder as of this revision.
    pub fn read(&mut self, concern: &str, holder: Option<u64>, revision: u64) {
        self.lose(concern, |epoch| epoch <= revision && holder != Some(epoch));
    }

    fn lose(&mut self, concern: &str, is_over: impl Fn(u64) -> bool) {
        if self.held.get(concern).is_some_and(|hold| is_over(hold.epoch))
            && let Some(hold) = self.held.remove(concern)
        {
            tracing::warn!("{concern}: its lease (epoch {}) was taken away", hold.epoch);
            hold.lost.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    const PATH: &str = "/t01000/window-post";

    fn with_session(lease: i64) -> Holds {
        let mut holds = Holds::default();
        let record = NodeRecord::new("a", PeerId::random(), 1);
        holds.begin(EtcdLease { lease, until: ProvenUntil::always(), record });
        holds
    }

    fn held(epoch: u64) -> (Holds, watch::Receiver<bool>) {
        let mut holds = with_session(1);
        holds.start(PATH).unwrap();
        let lost = holds.settle(PATH, 1, epoch).unwrap();
        (holds, lost)
    }

    #[test]
    fn a_concern_is_on_its_way_in_or_out_or_held_once() {
        let mut holds = Holds::default();
        assert!(matches!(holds.start(PATH), Err(DirectoryError::NotRegistered { .. })));
        let mut holds2 = with_session(1);
        std::mem::swap(&mut holds, &mut holds2);
        holds.start(PATH).unwrap();
        assert!(matches!(holds.start(PATH), Err(DirectoryError::Held { .. })), "on its way in");
        holds.idle(PATH);
        holds.start(PATH).unwrap();
        let lost = holds.settle(PATH, 1, 10).unwrap();
        assert!(matches!(holds.start(PATH), Err(DirectoryError::Held { .. })), "held");
        assert_eq!(holds.release(PATH, 9), None, "another's epoch");
        assert_eq!(holds.release(PATH, 10), Some(1));
        assert!(*lost.borrow());
        assert!(matches!(holds.start(PATH), Err(DirectoryError::Held { .. })), "on its way out");
        holds.idle(PATH);
        holds.start(PATH).unwrap();
    }

    #[test]
    fn what_was_acquired_under_a_lease_that_ended_is_not_held() {
        let mut holds = with_session(1);
        holds.start(PATH).unwrap();
        let record = holds.session().unwrap().record;
        holds.begin(EtcdLease { lease: 2, until: ProvenUntil::always(), record });
        assert!(holds.settle(PATH, 1, 10).is_none());
        assert!(holds.held().is_empty());
    }

    #[test]
    fn the_end_of_a_session_loses_everything() {
        let (mut holds, lost) = held(10);
        holds.end();
        assert!(*lost.borrow() && holds.held().is_empty() && holds.session().is_none());
    }

    #[test]
    fn news_from_before_the_acquisition_lose_nothing() {
        for (revision, over) in [(9, false), (10, false), (11, true)] {
            let (mut holds, lost) = held(10);
            holds.deleted(PATH, revision);
            assert_eq!(*lost.borrow(), over, "deleted in {revision}");
        }
        for (holder, revision, over) in [
            (None, 9, false),
            (None, 10, true),
            (Some(9), 9, false),
            (Some(10), 10, false),
            (Some(10), 99, false),
            (Some(11), 11, true),
        ] {
            let (mut holds, lost) = held(10);
            holds.read(PATH, holder, revision);
            assert_eq!(*lost.borrow(), over, "{holder:?} as of {revision}");
        }
    }
}
