//! The node's session with etcd: its record and its concerns hang on one lease of etcd's, which this keeps alive,
//! proves, and replaces when it is lost.

use super::holds::EtcdLease;
use super::keys::Key;
use super::proof::{self, Judgement, KeepAlive, Read};
use super::state::EtcdState;
use super::table::epoch;
use crate::rpc::directory::lease::ProvenUntil;
use crate::rpc::directory::{DirectoryError, NodeRecord};
use etcd_client::{
    Client, Compare, CompareOp, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

pub(super) enum SessionCommand {
    Register(Box<NodeRecord>, oneshot::Sender<Result<(), DirectoryError>>),
    Leave(oneshot::Sender<Result<(), DirectoryError>>),
}

pub(super) struct LeaseSession {
    shared: Arc<EtcdState>,
    /// The record to keep registered.
    record: Option<NodeRecord>,
    stream: Option<Stream>,
    due: Instant,
    /// Beats in a row that proved nothing.
    failures: u32,
}

struct Stream {
    lease: i64,
    member: usize,
    asks: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// Keys in one transaction; etcd takes 128.
const KEYS_A_READ: usize = 100;

impl LeaseSession {
    pub(super) fn new(shared: Arc<EtcdState>) -> LeaseSession {
        LeaseSession { shared, record: None, stream: None, due: Instant::now(), failures: 0 }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<SessionCommand>) {
        let mut put_back = self.shared.put_back.subscribe();
        loop {
            tokio::select! {
                // There is no session any more.
                Ok(()) = put_back.changed() => self.due = Instant::now(),
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                () = sleep_until(self.due.into()), if self.record.is_some() => self.beat().await,
            }
        }
    }

    async fn obey(&mut self, command: SessionCommand) {
        match command {
            SessionCommand::Register(record, reply) => {
                let result = self.register(*record).await;
                let _ = reply.send(result); // who asked may have given up
            }
            SessionCommand::Leave(reply) => {
                let _ = reply.send(self.leave().await); // as above
            }
        }
    }

    async fn register(&mut self, record: NodeRecord) -> Result<(), DirectoryError> {
        record.check()?;
        let session = self.shared.holds().session();
        match session {
            Some(session) if session.record.name == record.name => {
                put_record(&self.shared, &record, session.lease).await?;
                self.shared.holds().rename(record.clone());
            }
            Some(_) => {
                self.leave().await?;
                self.establish(&record).await?;
            }
            None => self.establish(&record).await?,
        }
        self.record = Some(record);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), DirectoryError> {
        let session = self.shared.holds().session();
        self.record = None;
        self.stream = None;
        self.shared.holds().end();
        match session {
            Some(session) => revoke(&self.shared, session.lease).await,
            None => Ok(()),
        }
    }

    /// A lease, and our record on it.
    async fn establish(&mut self, record: &NodeRecord) -> Result<(), DirectoryError> {
        let seconds = self.shared.connection.config.ttl.as_secs_f64().ceil() as i64;
        let sent = Instant::now();
        let grant = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        let grant = self.shared.connection.call_patiently(grant).await?;
        let (lease, ttl) = (grant.id(), Duration::from_secs(grant.ttl().unsigned_abs()));
        if let Err(error) = put_record(&self.shared, record, lease).await {
            // It would expire by itself as well.
            let _ = revoke(&self.shared, lease).await;
            return Err(error);
        }
        let until = ProvenUntil::until(sent + ttl.saturating_sub(proof::margin(ttl)));
        self.shared.holds().begin(EtcdLease { lease, until, record: record.clone() });
        self.due = sent + self.shared.connection.config.beat();
        self.failures = 0;
        tracing::info!("registered as {} in cluster {}", record.name, self.shared.connection.config.cluster);
        Ok(())
    }

    async fn beat(&mut self) {
        let session = self.shared.holds().session();
        let result = match session {
            Some(session) => self.prove(&session).await,
            None => match self.record.clone() {
                Some(record) => self.establish(&record).await,
                None => Ok(()),
            },
        };
        match result {
            Ok(()) => self.failures = 0,
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!("the lease of this node is not proven at present: {error}");
                }
                self.failures = self.failures.saturating_add(1);
                let beat = self.shared.connection.config.beat();
                self.due = Instant::now() + (Duration::from_millis(100) * self.failures).min(beat);
            }
        }
    }

    async fn prove(&mut self, session: &EtcdLease) -> Result<(), DirectoryError> {
        let beat = match self.keep_alive(session.lease).await {
            Ok(beat) => beat,
            Err(error) => {
                self.stream = None;
                return Err(error);
            }
        };
        let held = self.shared.holds().held();
        let node = self.shared.connection.keys.key(Key::Node(&session.record.name));
        let mut judgement = Judgement::Unsure;
        let mut chunks = held.chunks(KEYS_A_READ).collect::<Vec<_>>();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let found = read(&self.shared, session.lease, &node, chunk).await?;
            judgement = proof::judge(session.lease, beat, found.read);
            for (concern, holder) in found.holders {
                self.shared.holds().read(&concern, holder, found.revision);
            }
            if !matches!(judgement, Judgement::Proven { .. }) {
                break;
            }
        }
        match judgement {
            Judgement::Proven { until } => {
                session.until.extend(until);
                self.due = beat.sent + self.shared.connection.config.beat();
                Ok(())
            }
            Judgement::Lost => {
                tracing::warn!("{} is not registered any more: registering anew", session.record.name);
                self.stream = None;
                self.shared.holds().end();
                // In case that only the record went: nothing may be left to be held by nobody.
                let _ = revoke(&self.shared, session.lease).await;
                self.due = Instant::now();
                Ok(())
            }
            Judgement::Unsure => {
                self.stream = None;
                Err(DirectoryError::Unreachable { why: "its members do not agree on their leader".to_string() })
            }
        }
    }

    async fn keep_alive(&mut self, lease: i64) -> Result<KeepAlive, DirectoryError> {
        let shared = self.shared.clone();
        let limit = shared.connection.config.attempt();
        let stream = match self.stream.take().filter(|stream| stream.lease == lease) {
            Some(stream) => stream,
            None => {
                let (member, mut client) = shared.connection.pick().await?;
                match timeout(limit, client.lease_keep_alive(lease)).await {
                    Ok(Ok((asks, answers))) => Stream { lease, member, asks, answers },
                    // It may be so, or say so because it is deposed: the read tells.
                    Ok(Err(etcd_client::Error::LeaseKeepAliveError(_))) => {
                        shared.connection.failed(member).await;
                        return Ok(KeepAlive { sent: Instant::now(), ttl: None, term: 0 });
                    }
                    Ok(Err(error)) => return Err(shared.connection.stream_failed(member, &error).await),
                    Err(_) => return Err(shared.connection.silent(member, limit).await),
                }
            }
        };
        let Stream { member, mut asks, mut answers, .. } = stream;
        let sent = Instant::now();
        let round = async {
            asks.keep_alive().await?;
            answers.message().await
        };
        match timeout(limit, round).await {
            Ok(Ok(Some(answer))) => {
                let ttl = Some(answer.ttl()).filter(|ttl| *ttl > 0).map(|ttl| Duration::from_secs(ttl.unsigned_abs()));
                let term = answer.header().map_or(0, |header| header.raft_term());
                match ttl {
                    Some(_) => self.stream = Some(Stream { lease, member, asks, answers }),
                    None => shared.connection.failed(member).await,
                }
                Ok(KeepAlive { sent, ttl, term })
            }
            Ok(Ok(None)) => Err(shared.connection.silent(member, Duration::ZERO).await),
            Ok(Err(error)) => Err(shared.connection.stream_failed(member, &error).await),
            Err(_) => Err(shared.connection.silent(member, limit).await),
        }
    }
}

struct LookupResult {
    read: Read,
    revision: u64,
    /// Concern -> epoch of its holder, if that is this session.
    holders: Vec<(String, Option<u64>)>,
}

/// One linearizable look at our record and at what we hold. A key that does not hang on our lease is not ours, whoever wrote it.
async fn read(
    shared: &EtcdState,
    session: i64,
    node: &str,
    held: &[(String, u64)],
) -> Result<LookupResult, DirectoryError> {
    let keys = &shared.connection.keys;
    let lookups: Vec<_> = std::iter::once(node.to_string())
        .chain(held.iter().map(|(concern, _)| keys.key(Key::Lease(concern))))
        .map(|key| TxnOp::get(key, None))
        .collect();
    let answer = shared.txn(|| Txn::new().and_then(lookups.clone())).await?;
    let (term, revision) = answer.header().map_or((0, 0), |header| (header.raft_term(), header.revision()));
    let mut found = answer.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        _ => None,
    });
    let lease = found.next().flatten().map(|record: KeyValue| record.lease());
    let holders = held.iter().map(|(concern, _)| concern.clone());
    let ours = |kv: KeyValue| (kv.lease() == session).then(|| epoch(kv.create_revision()));
    let holders = holders.zip(found.map(|kv| kv.and_then(ours))).collect();
    Ok(LookupResult { read: Read { term, lease }, revision: epoch(revision), holders })
}

async fn revoke(shared: &EtcdState, lease: i64) -> Result<(), DirectoryError> {
    match shared.connection.call(|mut client| async move { client.lease_revoke(lease).await }).await {
        // Gone is what we wanted.
        Err(DirectoryError::Refused { why, .. }) if why.contains("lease not found") => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Puts our record on the lease, unless the name or the PeerId is another's.
async fn put_record(shared: &EtcdState, record: &NodeRecord, lease: i64) -> Result<(), DirectoryError> {
    let keys = &shared.connection.keys;
    let (node, peer) = (keys.key(Key::Node(&record.name)), keys.peer(&record.peer_id));
    // A record always has a JSON form.
    let value = serde_json::to_vec(record).unwrap_or_default();
    // Most register for the first time: what is there is only looked at when that proves wrong.
    let (mut by_name, mut by_peer) = (None, None);
    // Each round after the second means that somebody else wrote this very record meanwhile.
    for _ in 0..6 {
        if let Some(error) = conflict(record, lease, by_name.as_ref(), by_peer.as_ref()) {
            return Err(error);
        }
        let call = shared.txn_patiently(|| {
            let unchanged = |key: &String, seen: &Option<KeyValue>| {
                let revision = seen.as_ref().map_or(0, KeyValue::mod_revision);
                Compare::mod_revision(key.clone(), CompareOp::Equal, revision)
            };
            let put = |key: &String, value: Vec<u8>| {
                TxnOp::put(key.clone(), value, Some(PutOptions::new().with_lease(lease)))
            };
            let when = [unchanged(&node, &by_name), unchanged(&peer, &by_peer)];
            let then = [put(&node, value.clone()), put(&peer, record.name.clone().into_bytes())];
            let look = [TxnOp::get(node.clone(), None), TxnOp::get(peer.clone(), None)];
            Txn::new().when(when).and_then(then).or_else(look)
        });
        let answer = call.await?;
        if answer.succeeded() {
            return Ok(());
        }
        let mut seen = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().cloned(),
            _ => None,
        });
        (by_name, by_peer) = (seen.next().flatten(), seen.next().flatten());
    }
    Err(DirectoryError::Unreachable { why: format!("{} is being registered by others all the time", record.name) })
}

/// Why `record` cannot be registered beside what is there under its name and its PeerId.
fn conflict(
    record: &NodeRecord,
    lease: i64,
    by_name: Option<&KeyValue>,
    by_peer: Option<&KeyValue>,
) -> Option<DirectoryError> {
    if let Some(kv) = by_peer.filter(|kv| kv.lease() != lease && kv.value() != record.name.as_bytes()) {
        let node = String::from_utf8_lossy(kv.value()).into_owned();
        return Some(DirectoryError::PeerTaken { name: record.name.clone(), peer: record.peer_id.to_string(), node });
    }
    let kv = by_name.filter(|kv| kv.lease() != lease)?;
    let other = serde_json::from_slice::<NodeRecord>(kv.value()).ok()?;
    if other.peer_id != record.peer_id {
        return Some(DirectoryError::NameTaken { name: record.name.clone(), by: other.peer_id.to_string() });
    }
    (other.boot > record.boot).then(|| DirectoryError::Superseded { name: record.name.clone(), boot: other.boot })
}
