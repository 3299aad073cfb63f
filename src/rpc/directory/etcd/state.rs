//! The state that the tasks of one connection to etcd share: the view, what is held, and etcd's history.

use super::connection::Connection;
use super::history::{Answer, Asked, History, Point};
use super::holds::Holds;
use super::table;
use crate::rpc::directory::{DirectoryError, View};
use crate::util::lock;
use etcd_client::{ResponseHeader, Txn, TxnResponse};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(super) struct EtcdState {
    pub connection: Connection,
    pub view: watch::Sender<Arc<View>>,
    pub holds: Mutex<Holds>,
    pub history: Mutex<History>,
    /// When etcd was last found to be put back, if it was.
    pub put_back: watch::Sender<Option<Instant>>,
    pub handle: Handle,
}

impl EtcdState {
    pub fn holds(&self) -> MutexGuard<'_, Holds> {
        lock(&self.holds)
    }

    /// Before a question that is answered linearizably; [`EtcdState::learn`] takes it with the answer.
    pub fn ask(&self) -> Asked {
        lock(&self.history).ask()
    }

    /// From an answer to a linearizable question. If etcd was put back since, all that is held and the session end here:
    /// they hang on a history that is gone.
    pub fn learn(&self, asked: Asked, header: Option<&ResponseHeader>) -> Answer {
        let found = header.map_or(Point::default(), |header| Point {
            cluster: header.cluster_id(),
            revision: table::epoch(header.revision()),
        });
        let answer = lock(&self.history).answered(asked, found);
        if let Answer::PutBack { known, found } = answer {
            tracing::warn!(
                "etcd was put back to an earlier state (revision {found}, {known} was seen before): what this node holds \
                 is lost, and acquired anew when every earlier lease has run out"
            );
            self.holds().end();
            self.put_back.send_replace(Some(Instant::now()));
        }
        answer
    }

    /// A transaction that may be sent more than once, in etcd's present history.
    pub async fn txn(&self, build: impl Fn() -> Txn) -> Result<TxnResponse, DirectoryError> {
        self.in_history(self.connection.call(|mut client| {
            let txn = build();
            async move { client.txn(txn).await }
        }))
        .await
    }

    /// The same, with more time.
    pub async fn txn_patiently(&self, build: impl Fn() -> Txn) -> Result<TxnResponse, DirectoryError> {
        self.in_history(self.connection.call_patiently(|mut client| {
            let txn = build();
            async move { client.txn(txn).await }
        }))
        .await
    }

    pub async fn in_history(
        &self,
        answer: impl Future<Output = Result<TxnResponse, DirectoryError>>,
    ) -> Result<TxnResponse, DirectoryError> {
        let asked = self.ask();
        let answer = answer.await?;
        match self.learn(asked, answer.header()) {
            Answer::GoesOn => Ok(answer),
            Answer::PutBack { .. } | Answer::Stale => Err(DirectoryError::PutBack),
        }
    }

    /// Whether somebody may still be proven under the history that is gone. Its proofs were begun before etcd was put back,
    /// and none lasts longer than a lease.
    pub fn is_put_back_lately(&self) -> bool {
        let at = *self.put_back.borrow();
        at.is_some_and(|at| Instant::now() < at + self.connection.config.ttl)
    }

    /// In place when no reader keeps a snapshot.
    pub fn change(&self, with: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| with(Arc::make_mut(view)));
    }

    pub fn contact(&self, in_contact: bool, why: Option<&DirectoryError>) {
        if self.view.borrow().in_contact == in_contact {
            return;
        }
        match why {
            Some(why) => tracing::warn!("the cluster is out of reach: {why}"),
            None => tracing::info!("in contact with cluster {}", self.connection.config.cluster),
        }
        self.change(|view| (view.in_contact, view.since) = (in_contact, Instant::now()));
    }

    /// After the whole table was read: what we hold must be in it.
    pub fn forget_lost(&self, revision: u64) {
        let view = self.view.borrow().clone();
        let mut holds = self.holds();
        for (concern, _) in holds.held() {
            holds.read(&concern, view.holders.get(&concern).map(|holder| holder.epoch), revision);
        }
    }

    /// etcd before 3.4.28 and 3.5.10 lets a leader that wakes up from being frozen end leases that live. The holder sees
    /// that at once; this is its time to, before another begins.
    pub fn grace(&self) -> Duration {
        (self.connection.config.ttl / 40).clamp(Duration::from_millis(50), Duration::from_millis(250))
    }
}
