//! The directory in etcd.
//!
//! * [`config`] — how etcd is reached; [`connection`] — calls to it; [`keys`] — where what is.
//! * [`feed`] — the view, kept up to date; [`table`] — changes applied to it.
//! * [`orders`] — an operator's; carried out by the nodes.
//! * [`session`] — the node's session with etcd; [`proof`] — what a keep-alive proves; [`holds`] — what hangs on it.
//! * [`history`] — tells an etcd that was put back to an earlier state from one that goes on.
//! * [`space`] — how full etcd is; [`repair`] — what in it no node can read.
//!
//! It runs on a thread of its own: no actor that hangs can keep a lease from being kept alive.

pub mod config;
pub mod connection;
mod feed;
mod history;
mod holds;
pub mod keys;
mod orders;
mod proof;
pub mod repair;
mod session;
mod space;
mod table;

use crate::util::lock;
pub use config::{EtcdConfig, Tls};
pub use connection::Connection;

use super::lease::LeaseRelease as TakesBack;
use super::{Directory, DirectoryError, Lease, NodeRecord, PlacementOrder, View, check_concern};
use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse};
use futures::FutureExt;
use futures::future::BoxFuture;
use history::{Answer, Asked, History, Point};
use holds::{EtcdLease, Holds};
use keys::Key;
use session::{LeaseSession, SessionCommand};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use table::LeaseRecord;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// A connection to the cluster. Dropping it is like a crash: what it held is free when its lease has expired;
/// [`Directory::leave`] frees it at once.
pub struct Etcd {
    shared: Arc<EtcdState>,
    commands: mpsc::Sender<SessionCommand>,
    tasks: Vec<JoinHandle<()>>,
    /// Ours to shut down.
    runtime: Option<Runtime>,
}

pub(super) struct EtcdState {
    connection: Connection,
    view: watch::Sender<Arc<View>>,
    holds: Mutex<Holds>,
    history: Mutex<History>,
    /// When etcd was last found to be put back, if it was.
    put_back: watch::Sender<Option<Instant>>,
    handle: Handle,
}

/// Rounds of an acquisition: the first finds an earlier start of this node, the second takes it over, one to spare.
const ROUNDS: usize = 3;

impl Etcd {
    /// Reads the whole directory, or says which endpoint has what against it.
    pub async fn connect(config: EtcdConfig) -> Result<Etcd, DirectoryError> {
        Etcd::on_own_thread(config, false).await
    }

    /// The same, but an etcd that gives no answer is waited for in the background: until it does, the view is empty and out
    /// of contact, so nothing is held. What waiting would not mend is an error as ever.
    pub async fn connect_or_wait(config: EtcdConfig) -> Result<Etcd, DirectoryError> {
        Etcd::on_own_thread(config, true).await
    }

    async fn on_own_thread(config: EtcdConfig, wait: bool) -> Result<Etcd, DirectoryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("directory")
            .enable_all()
            .build()
            .map_err(|e| DirectoryError::Unreachable { why: format!("no thread for it: {e}") })?;
        match Etcd::begin(runtime.handle().clone(), config, wait).await {
            Ok(mut etcd) => {
                etcd.runtime = Some(runtime);
                Ok(etcd)
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The same on a runtime that others use too; whatever blocks its threads lets the lease expire.
    pub async fn connect_on(handle: Handle, config: EtcdConfig) -> Result<Etcd, DirectoryError> {
        Etcd::begin(handle, config, false).await
    }

    async fn begin(handle: Handle, config: EtcdConfig, wait: bool) -> Result<Etcd, DirectoryError> {
        let connection = Connection::new(config)?;
        let (view, _) = watch::channel(Arc::new(View::empty(Instant::now())));
        let shared = Arc::new(EtcdState {
            connection,
            view,
            holds: Mutex::default(),
            history: Mutex::default(),
            put_back: watch::channel(None).0,
            handle: handle.clone(),
        });
        let first = {
            let shared = shared.clone();
            handle.spawn(async move { feed::read(&shared).await })
        };
        let revision = match first.await.map_err(|_| DirectoryError::Closed)? {
            Ok(revision) => {
                shared.contact(true, None);
                Some(revision)
            }
            Err(error @ DirectoryError::Unreachable { .. }) if wait && !shared.connection.unfit() => {
                tracing::warn!("started out of contact with the cluster, nothing is held until etcd answers: {error}");
                None
            }
            Err(error) => return Err(error),
        };
        let (commands, orders) = mpsc::channel(16);
        let feed = handle.spawn(feed::run(shared.clone(), revision));
        let lease_session = handle.spawn(LeaseSession::new(shared.clone()).run(orders));
        let space = handle.spawn(space::run(shared.clone()));
        Ok(Etcd { shared, commands, tasks: vec![feed, lease_session, space], runtime: None })
    }

    /// For what else is kept in this etcd.
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), DirectoryError>>) -> SessionCommand,
    ) -> Result<(), DirectoryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DirectoryError::Closed)?;
        answer.await.map_err(|_| DirectoryError::Closed)?
    }

    /// Runs on our own thread, to its end even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DirectoryError>> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.shared.handle.spawn(work).await.map_err(|_| DirectoryError::Closed)?
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.holds().end();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl Directory for Etcd {
    async fn register(&self, me: NodeRecord) -> Result<(), DirectoryError> {
        self.command(|reply| SessionCommand::Register(Box::new(me), reply)).await
    }

    async fn leave(&self) -> Result<(), DirectoryError> {
        self.command(SessionCommand::Leave).await
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.subscribe()
    }

    async fn acquire(&self, concern: &str) -> Result<Lease, DirectoryError> {
        check_concern(concern)?;
        let (shared, concern) = (self.shared.clone(), concern.to_string());
        self.run(async move { acquire(shared, concern).await }).await
    }

    async fn order(&self, order: PlacementOrder) -> Result<(), DirectoryError> {
        let shared = self.shared.clone();
        self.run(async move { orders::give(&shared, order).await }).await
    }
}

impl EtcdState {
    fn holds(&self) -> MutexGuard<'_, Holds> {
        lock(&self.holds)
    }

    /// Before a question that is answered linearizably; [`EtcdState::learn`] takes it with the answer.
    fn ask(&self) -> Asked {
        lock(&self.history).ask()
    }

    /// From an answer to a linearizable question. If etcd was put back since, all that is held and the session end here:
    /// they hang on a history that is gone.
    fn learn(&self, asked: Asked, header: Option<&ResponseHeader>) -> Answer {
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
    async fn txn(&self, build: impl Fn() -> Txn) -> Result<TxnResponse, DirectoryError> {
        self.in_history(self.connection.call(|mut client| {
            let txn = build();
            async move { client.txn(txn).await }
        }))
        .await
    }

    /// The same, with more time.
    async fn txn_patiently(&self, build: impl Fn() -> Txn) -> Result<TxnResponse, DirectoryError> {
        self.in_history(self.connection.call_patiently(|mut client| {
            let txn = build();
            async move { client.txn(txn).await }
        }))
        .await
    }

    async fn in_history(
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
    fn is_put_back_lately(&self) -> bool {
        let at = *self.put_back.borrow();
        at.is_some_and(|at| Instant::now() < at + self.connection.config.ttl)
    }

    /// In place when no reader keeps a snapshot.
    fn change(&self, with: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| with(Arc::make_mut(view)));
    }

    fn contact(&self, in_contact: bool, why: Option<&DirectoryError>) {
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
    fn forget_lost(&self, revision: u64) {
        let view = self.view.borrow().clone();
        let mut holds = self.holds();
        for (concern, _) in holds.held() {
            holds.read(&concern, view.holders.get(&concern).map(|holder| holder.epoch), revision);
        }
    }

    /// etcd before 3.4.28 and 3.5.10 lets a leader that wakes up from being frozen end leases that live. The holder sees
    /// that at once; this is its time to, before another begins.
    fn grace(&self) -> Duration {
        (self.connection.config.ttl / 40).clamp(Duration::from_millis(50), Duration::from_millis(250))
    }
}

impl TakesBack for EtcdState {
    fn give_back(self: Arc<Self>, concern: &str, epoch: u64) -> BoxFuture<'static, Result<(), DirectoryError>> {
        let Some(lease) = self.holds().release(concern, epoch) else {
            return std::future::ready(Ok(())).boxed();
        };
        let (handle, concern) = (self.handle.clone(), concern.to_string());
        let limit = self.connection.patience();
        let given = handle.spawn(async move { give_back(&self, &concern, epoch, lease).await });
        async move {
            match tokio::time::timeout(limit, given).await {
                Ok(given) => given.map_err(|_| DirectoryError::Closed)?,
                Err(_) => Err(DirectoryError::Unreachable { why: "it is given back as soon as one does".to_string() }),
            }
        }
        .boxed()
    }
}

/// Retries until the key is deleted; else our lease keeps it alive and nobody can take the concern.
async fn give_back(shared: &EtcdState, concern: &str, epoch: u64, lease: i64) -> Result<(), DirectoryError> {
    let key = shared.connection.keys.key(Key::Lease(concern));
    loop {
        let result = delete_if(shared, &key, epoch).await;
        let still_ours = shared.holds().session().is_some_and(|session| session.lease == lease);
        match result {
            Err(DirectoryError::Unreachable { .. }) if still_ours => {
                tokio::time::sleep(shared.connection.config.attempt()).await;
            }
            result => {
                shared.holds().idle(concern);
                return result.map(|_| ());
            }
        }
    }
}

/// Deletes a lease's key if it is still the one of this epoch.
async fn delete_if(shared: &EtcdState, key: &str, epoch: u64) -> Result<(), DirectoryError> {
    let created = i64::try_from(epoch).unwrap_or(i64::MAX);
    let delete = || {
        let same = Compare::create_revision(key, CompareOp::Equal, created);
        Txn::new().when([same]).and_then([TxnOp::delete(key, None)])
    };
    shared.txn(delete).await.map(|_| ())
}

async fn acquire(shared: Arc<EtcdState>, concern: String) -> Result<Lease, DirectoryError> {
    if shared.is_put_back_lately() {
        return Err(DirectoryError::PutBack);
    }
    let session = shared.holds().start(&concern)?;
    let taken = take(&shared, &concern, &session).await;
    let settled = taken.map(|epoch| (epoch, shared.holds().settle(&concern, session.lease, epoch)));
    match settled {
        Ok((epoch, Some(lost))) => Ok(Lease::new(&concern, epoch, session.until, lost, shared)),
        Ok((_, None)) => Err(DirectoryError::NotRegistered { concern }),
        Err(error) => {
            shared.holds().idle(&concern);
            Err(error)
        }
    }
}

/// The epoch under which it is ours.
async fn take(shared: &EtcdState, concern: &str, session: &EtcdLease) -> Result<u64, DirectoryError> {
    let vacated = shared.view.borrow().vacated.get(concern).copied();
    if let Some(vacated) = vacated {
        tokio::time::sleep_until((vacated + shared.grace()).into()).await;
    }
    for _ in 0..ROUNDS {
        if Instant::now() >= session.until.get() {
            let why = "the lease of this node is not proven at present".to_string();
            return Err(DirectoryError::Unreachable { why });
        }
        match claim(shared, concern, session).await? {
            Claimed::Ours(epoch) => return Ok(epoch),
            Claimed::NoSession => break,
            Claimed::Others(holder, lease) => {
                let me = &session.record;
                let same_node = holder.node == me.name && holder.peer_id == me.peer_id;
                if lease == session.lease {
                    // An earlier try got through, and we were not told.
                    return Ok(holder.epoch);
                }
                if !same_node || holder.boot > me.boot {
                    return Err(DirectoryError::Held { concern: concern.to_string(), holder: Box::new(holder) });
                }
                // An earlier start of this node, or its lease before this one: nobody is there who could use it.
                delete_if(shared, &shared.connection.keys.key(Key::Lease(concern)), holder.epoch).await?;
            }
        }
    }
    Err(DirectoryError::NotRegistered { concern: concern.to_string() })
}

enum Claimed {
    Ours(u64),
    /// And the lease that it hangs on.
    Others(super::Holder, i64),
    /// Nobody holds it, but our own record is gone.
    NoSession,
}

async fn claim(shared: &EtcdState, concern: &str, session: &EtcdLease) -> Result<Claimed, DirectoryError> {
    let keys = &shared.connection.keys;
    let (key, node, moved) =
        (keys.key(Key::Lease(concern)), keys.key(Key::Node(&session.record.name)), keys.key(Key::Move(concern)));
    // A claim always has a JSON form.
    let value = serde_json::to_vec(&LeaseRecord::of(&session.record)).unwrap_or_default();
    let call = shared.txn(|| {
        let vacant = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let registered = Compare::lease(node.clone(), CompareOp::Equal, session.lease);
        let put = TxnOp::put(key.clone(), value.clone(), Some(PutOptions::new().with_lease(session.lease)));
        // An order to move it here is carried out with this.
        let to_us = Compare::value(moved.clone(), CompareOp::Equal, session.record.name.clone());
        let done = TxnOp::txn(Txn::new().when([to_us]).and_then([TxnOp::delete(moved.clone(), None)]));
        let look = TxnOp::get(key.clone(), None);
        Txn::new().when([vacant, registered]).and_then([put, done]).or_else([look])
    });
    let answer = call.await?;
    if answer.succeeded() {
        return Ok(Claimed::Ours(table::epoch(answer.header().map_or(0, |header| header.revision()))));
    }
    let found = answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        _ => None,
    });
    let Some(kv) = found else { return Ok(Claimed::NoSession) };
    let claim = serde_json::from_slice::<LeaseRecord>(kv.value())
        .map_err(|e| DirectoryError::Unreadable { key, why: format!("no lease of ours: {e}") })?;
    Ok(Claimed::Others(claim.holder(kv.create_revision()), kv.lease()))
}
