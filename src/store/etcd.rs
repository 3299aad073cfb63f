//! The cluster's store in etcd: one etcd transaction per commit, compared with the scope's lease and marker.
//!
//! Keys under `/bulkhead/<cluster>`: `state/<scope>:<table>/<key>` a row, `seq/<scope>` the marker, `redo/<scope>` a
//! transaction that is committed and not yet spread over its rows. A scope never contains `:`, so that one scope's keys
//! are never in the range of another.
//!
//! etcd takes 128 operations in a transaction. A larger one (up to [`COMMIT_MOST`] bytes) is written as one value under
//! `redo/<scope>` together with its marker, which commits it; then its rows are written in slices, and `redo` is deleted
//! with the last. Who finds a `redo` first finishes it; who reads the scope sees it as done.

use super::replica::{
    COMMIT_MOST, Commit, Committed, Held, Image, Loaded, Marker, Op, ROWS_MOST, Replica, ReplicaError, Row, WriteRight,
    size_of, too_large,
};
use crate::etcd::{CallError, EtcdClient, Who};
use crate::util::lock;
use etcd_client::{Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Rows in one answer while a scope is read, and the largest answer: one of the largest rows that are possible.
const PAGE: i64 = 128;
const ANSWER_MOST: usize = (PAGE as usize + 2) * COMMIT_MOST;
const PAGES_AGAIN: u32 = 3;

#[derive(Clone)]
pub struct EtcdOptions {
    /// `http://host:2379`, …: tried one after another.
    pub endpoints: Vec<String>,
    pub cluster: String,
    /// TLS, user and password.
    pub connect: ConnectOptions,
    pub who: Who,
    /// One member gets so long before the next is asked.
    pub attempt: Duration,
    /// The whole call, over all members.
    pub deadline: Duration,
    /// To read a whole scope, page by page.
    pub load_deadline: Duration,
    /// After a call that found no member, later ones fail at once for so long.
    pub pause: Duration,
}

impl EtcdOptions {
    pub fn new(endpoints: Vec<String>, cluster: impl Into<String>) -> EtcdOptions {
        EtcdOptions {
            endpoints,
            cluster: cluster.into(),
            connect: ConnectOptions::new(),
            who: Who::default(),
            attempt: Duration::from_secs(2),
            deadline: Duration::from_secs(4),
            load_deadline: Duration::from_secs(60),
            pause: Duration::from_secs(2),
        }
    }
}

/// Its calls run on a thread of its own: actors' threads only wait.
pub struct EtcdReplica {
    runtime: Option<Runtime>,
    inner: Arc<Inner>,
}

struct Inner {
    options: EtcdOptions,
    root: String,
    client: EtcdClient,
    paused_until: Mutex<Option<Instant>>,
}

impl EtcdReplica {
    /// Connects at the first call.
    pub fn new(options: EtcdOptions) -> Result<EtcdReplica, ReplicaError> {
        let refused = |why: String| ReplicaError::Refused { endpoint: options.endpoints.join(","), why };
        if options.endpoints.is_empty() {
            return Err(refused("no etcd endpoint is configured".into()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-etcd")
            .enable_all()
            .build()
            .map_err(|e| refused(format!("no thread for it: {e}")))?;
        let inner = Inner {
            root: format!("/bulkhead/{}", options.cluster),
            client: EtcdClient::new(
                options.endpoints.clone(),
                &options.cluster,
                options.connect.clone(),
                options.who.clone(),
            ),
            paused_until: Mutex::new(None),
            options,
        };
        Ok(EtcdReplica { runtime: Some(runtime), inner: Arc::new(inner) })
    }

    /// Runs `f` on our thread; the caller's may belong to another runtime, so it waits on a plain channel.
    fn call<T: Send + 'static, F>(&self, deadline: Duration, f: impl FnOnce(Arc<Inner>) -> F) -> Result<T, ReplicaError>
    where
        F: Future<Output = Result<T, ReplicaError>> + Send + 'static,
    {
        let inner = &self.inner;
        if let Some(why) = inner.paused() {
            return Err(ReplicaError::Unreachable { endpoint: inner.name(), why, sent: false });
        }
        let Some(runtime) = &self.runtime else {
            return Err(ReplicaError::Unreachable { endpoint: inner.name(), why: "closed".into(), sent: false });
        };
        let (tx, rx) = mpsc::sync_channel(1);
        let work = f(inner.clone());
        runtime.spawn(async move {
            // A receiver that is gone does not want it any more.
            let _ = tx.send(tokio::time::timeout(deadline, work).await);
        });
        // A little more than the deadline: our thread may be late itself.
        let answer = match rx.recv_timeout(deadline + Duration::from_secs(1)) {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ReplicaError::Unreachable {
                endpoint: inner.name(),
                why: format!("no answer within {deadline:?}"),
                sent: true,
            }),
        };
        let pause =
            matches!(answer, Err(ReplicaError::Unreachable { .. })).then(|| Instant::now() + inner.options.pause);
        *lock(&inner.paused_until) = pause;
        answer
    }
}

impl Drop for EtcdReplica {
    fn drop(&mut self) {
        // Waiting for it is not allowed where another runtime drops us.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Replica for EtcdReplica {
    fn commit(&self, commit: &Commit) -> Result<Committed, ReplicaError> {
        let bytes = size_of(commit.ops);
        if bytes > COMMIT_MOST {
            return Err(ReplicaError::TooLarge { why: too_large(bytes) });
        }
        let (scope, hold, base, marker, ops) =
            (commit.scope.to_owned(), commit.hold, commit.base, commit.marker, commit.ops.to_vec());
        self.call(self.inner.options.deadline, |inner| async move {
            let commit = Commit { scope: &scope, hold, base, marker, ops: &ops };
            inner.commit(&commit).await
        })
    }

    fn check(&self, scope: &str, hold: WriteRight) -> Result<Held, ReplicaError> {
        let scope = scope.to_owned();
        self.call(self.inner.options.deadline, |inner| async move { inner.check(&scope, hold).await })
    }

    fn load(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError> {
        let scope = scope.to_owned();
        self.call(self.inner.options.load_deadline, |inner| async move { inner.load(&scope, hold).await })
    }

    fn scopes(&self) -> Result<Vec<String>, ReplicaError> {
        self.call(self.inner.options.deadline, |inner| async move { inner.scopes().await })
    }
}

/// The result of one of our guarded transactions.
enum Guarded {
    Done,
    Not(Found),
}

/// The row that stood in the way.
struct Found {
    /// Create revision of the lease's key.
    holder: Option<u64>,
    marker: Option<Marker>,
    redo: Option<Vec<Op>>,
}

impl Inner {
    fn name(&self) -> String {
        self.client.urls()
    }

    fn paused(&self) -> Option<String> {
        let until = *lock(&self.paused_until);
        until.is_some_and(|until| Instant::now() < until).then(|| "it gave no answer a moment ago".to_owned())
    }

    fn lease_key(&self, scope: &str) -> String {
        format!("{}/leases{}", self.root, slashed(scope))
    }
    fn seq_key(&self, scope: &str) -> String {
        format!("{}/seq{}", self.root, slashed(scope))
    }
    fn redo_key(&self, scope: &str) -> String {
        format!("{}/redo{}", self.root, slashed(scope))
    }
    fn state_prefix(&self, scope: &str) -> String {
        format!("{}/state{}:", self.root, slashed(scope))
    }
    fn row_key(&self, scope: &str, op: &Op) -> String {
        format!("{}{}/{}", self.state_prefix(scope), op.table, op.key)
    }

    fn held(&self, scope: &str, hold: WriteRight) -> Option<Compare> {
        let compare = |revision: i64| Compare::create_revision(self.lease_key(scope), CompareOp::Equal, revision);
        match hold {
            WriteRight::Lease(lease) => Some(compare(lease as i64)),
            WriteRight::Nobody => Some(compare(0)),
            WriteRight::Unchecked => None,
        }
    }

    fn is_held(hold: WriteRight, holder: Option<u64>) -> bool {
        match hold {
            WriteRight::Lease(lease) => holder == Some(lease),
            WriteRight::Nobody => holder.is_none(),
            WriteRight::Unchecked => true,
        }
    }

    /// The scope's last commit is `base`, and all of its rows are written.
    fn at(&self, scope: &str, base: Option<Marker>) -> Compare {
        match base {
            Some(marker) => Compare::value(self.seq_key(scope), CompareOp::Equal, marker.to_string()),
            None => Compare::create_revision(self.seq_key(scope), CompareOp::Equal, 0),
        }
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, ReplicaError> {
        let Commit { scope, hold, base, marker, ops } = *commit;
        let large = ops.len() > ROWS_MOST;
        loop {
            let mut then = match large {
                true => vec![TxnOp::put(self.redo_key(scope), encode(&self.redo_key(scope), ops)?, None)],
                false => self.row_ops(scope, ops),
            };
            then.push(TxnOp::put(self.seq_key(scope), marker.to_string(), None));
            let mut when =
                vec![self.at(scope, base), Compare::create_revision(self.redo_key(scope), CompareOp::Equal, 0)];
            when.extend(self.held(scope, hold));
            let found = match self.guarded(scope, when, then).await? {
                Guarded::Done => {
                    if large {
                        // Committed. What cannot be spread now is spread before the next commit.
                        let spread = self.spread(scope, hold, marker, ops).await;
                        spread.unwrap_or_else(|error| tracing::debug!(scope, %error, "rows follow later"));
                    }
                    return Ok(Committed::Landed);
                }
                Guarded::Not(found) => found,
            };
            if !Inner::is_held(hold, found.holder) {
                return Ok(Committed::Fenced { holder: found.holder });
            }
            if let (Some(last), Some(redo)) = (found.marker, found.redo) {
                self.spread(scope, hold, last, &redo).await?;
            }
            match found.marker {
                Some(last) if last == marker => return Ok(Committed::Landed),
                last if last == base => {} // only a redo was in the way
                last => return Ok(Committed::Differs { found: last }),
            }
        }
    }

    /// Writes the rows of a committed transaction; the last slice takes the redo away.
    async fn spread(&self, scope: &str, hold: WriteRight, marker: Marker, ops: &[Op]) -> Result<(), ReplicaError> {
        let slices: Vec<&[Op]> = ops.chunks(ROWS_MOST).collect();
        for (i, slice) in slices.iter().enumerate() {
            let mut then = self.row_ops(scope, slice);
            if i + 1 == slices.len() {
                then.push(TxnOp::delete(self.redo_key(scope), None));
            }
            let redo_is_there = Compare::create_revision(self.redo_key(scope), CompareOp::Greater, 0);
            let mut when = vec![self.at(scope, Some(marker)), redo_is_there];
            when.extend(self.held(scope, hold));
            match self.guarded(scope, when, then).await? {
                Guarded::Done => {}
                // Somebody else did it, or does it.
                Guarded::Not(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn row_ops(&self, scope: &str, ops: &[Op]) -> Vec<TxnOp> {
        let op = |op: &Op| match &op.value {
            Some(value) => TxnOp::put(self.row_key(scope, op), value.clone(), None),
            None => TxnOp::delete(self.row_key(scope, op), None),
        };
        ops.iter().map(op).collect()
    }

    async fn guarded(&self, scope: &str, when: Vec<Compare>, then: Vec<TxnOp>) -> Result<Guarded, ReplicaError> {
        let look = vec![
            TxnOp::get(self.lease_key(scope), Some(GetOptions::new().with_keys_only())),
            TxnOp::get(self.seq_key(scope), None),
            TxnOp::get(self.redo_key(scope), None),
        ];
        let txn = Txn::new().when(when).and_then(then).or_else(look);
        let answer = self.txn(txn).await?;
        if answer.0 {
            return Ok(Guarded::Done);
        }
        let [lease, seq, redo] = <[Vec<KeyValue>; 3]>::try_from(answer.1).map_err(|_| ReplicaError::Damaged {
            key: self.seq_key(scope),
            why: "an answer with parts missing".into(),
        })?;
        Ok(Guarded::Not(Found {
            holder: lease.first().map(|kv| kv.create_revision() as u64),
            marker: seq.first().map(marker_of).transpose()?,
            redo: redo.first().map(decode).transpose()?,
        }))
    }

    /// Sends a transaction that is harmless twice.
    async fn txn(&self, txn: Txn) -> Result<(bool, Vec<Vec<KeyValue>>, i64), ReplicaError> {
        let members = u32::try_from(self.client.members()).unwrap_or(u32::MAX);
        let attempt = self.options.attempt.min(self.options.deadline / members);
        let call = self.client.call(attempt, |client| {
            let (mut client, txn) = (client.kv_client().max_decoding_message_size(ANSWER_MOST), txn.clone());
            async move { client.txn(txn).await }
        });
        let answer = call.await.map_err(|error| match error {
            CallError::Unreachable { why, sent } => ReplicaError::Unreachable { endpoint: self.name(), why, sent },
            CallError::TooLarge { endpoint, why } => {
                ReplicaError::TooLarge { why: format!("{endpoint}: {why} (etcd is set to take less than by default)") }
            }
            CallError::Endpoint { endpoint, why }
            | CallError::Credentials { endpoint, why }
            | CallError::Refused { endpoint, why } => ReplicaError::Refused { endpoint, why },
        })?;
        let revision = answer.header().map_or(0, |h| h.revision());
        let gets = answer.op_responses().into_iter().filter_map(|op| match op {
            TxnOpResponse::Get(mut get) => Some(get.take_kvs()),
            _ => None,
        });
        Ok((answer.succeeded(), gets.collect(), revision))
    }

    async fn check(&self, scope: &str, hold: WriteRight) -> Result<Held, ReplicaError> {
        let when: Vec<Compare> = self.held(scope, hold).into_iter().collect();
        match self.guarded(scope, when, vec![]).await? {
            Guarded::Done => Ok(Held::Yes),
            Guarded::Not(found) => Ok(Held::Fenced { holder: found.holder }),
        }
    }

    /// Pages at one revision. If that was compacted away meanwhile, from the start.
    async fn load(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError> {
        let mut again = 0;
        loop {
            match self.load_once(scope, hold).await {
                Err(ReplicaError::Refused { why, .. }) if why.contains("compacted") && again < PAGES_AGAIN => {
                    again += 1
                }
                answer => return answer,
            }
        }
    }

    async fn load_once(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError> {
        let prefix = self.state_prefix(scope);
        let end = prefix_end(&prefix);
        let look = vec![
            TxnOp::get(self.lease_key(scope), Some(GetOptions::new().with_keys_only())),
            TxnOp::get(self.seq_key(scope), None),
            TxnOp::get(self.redo_key(scope), None),
            TxnOp::get(prefix.clone(), Some(GetOptions::new().with_range(end.clone()).with_limit(PAGE))),
        ];
        let (_, gets, revision) = self.txn(Txn::new().and_then(look)).await?;
        let [lease, seq, redo, mut page] = <[Vec<KeyValue>; 4]>::try_from(gets)
            .map_err(|_| ReplicaError::Damaged { key: prefix.clone(), why: "an answer with parts missing".into() })?;
        let holder = lease.first().map(|kv| kv.create_revision() as u64);
        if !Inner::is_held(hold, holder) {
            return Ok(Loaded::Fenced { holder });
        }
        let mut rows = BTreeMap::new();
        loop {
            let full = page.len() as i64 == PAGE;
            let last = page.last().map(|kv| kv.key().to_vec());
            for kv in page {
                let (name, value) = row_of(&prefix, &kv)?;
                rows.insert(name, value);
            }
            let (true, Some(mut from)) = (full, last) else { break };
            from.push(0);
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
            let (_, mut gets, _) = self.txn(Txn::new().and_then(vec![TxnOp::get(from, Some(options))])).await?;
            page = gets.pop().unwrap_or_default();
        }
        for op in redo.first().map(decode).transpose()?.unwrap_or_default() {
            match op.value {
                Some(value) => rows.insert((op.table, op.key), value),
                None => rows.remove(&(op.table, op.key)),
            };
        }
        let rows = rows.into_iter().map(|((table, key), value)| Row { table, key, value }).collect();
        Ok(Loaded::Image(Image { marker: seq.first().map(marker_of).transpose()?, rows }))
    }

    async fn scopes(&self) -> Result<Vec<String>, ReplicaError> {
        let prefix = format!("{}/seq/", self.root);
        let options = GetOptions::new().with_range(prefix_end(&prefix)).with_keys_only();
        let (_, mut gets, _) = self.txn(Txn::new().and_then(vec![TxnOp::get(prefix.clone(), Some(options))])).await?;
        let keys = gets.pop().unwrap_or_default();
        // The slash that the prefix ends with belongs to the path.
        let path = |kv: &KeyValue| Some(kv.key_str().ok()?.get(prefix.len() - 1..)?.to_owned());
        Ok(keys.iter().filter_map(path).collect())
    }
}

fn slashed(scope: &str) -> String {
    format!("/{}", scope.trim_start_matches('/'))
}

fn marker_of(kv: &KeyValue) -> Result<Marker, ReplicaError> {
    let key = String::from_utf8_lossy(kv.key()).into_owned();
    Marker::parse(kv.value()).ok_or(ReplicaError::Damaged { key, why: "not a marker".into() })
}

fn row_of(prefix: &str, kv: &KeyValue) -> Result<((String, String), Vec<u8>), ReplicaError> {
    let damaged =
        |why: &str| ReplicaError::Damaged { key: String::from_utf8_lossy(kv.key()).into_owned(), why: why.to_owned() };
    let rest = kv.key_str().ok().and_then(|key| key.strip_prefix(prefix)).ok_or_else(|| damaged("not text"))?;
    let (table, key) = rest.split_once('/').ok_or_else(|| damaged("no table in it"))?;
    Ok(((table.to_owned(), key.to_owned()), kv.value().to_vec()))
}

fn encode(key: &str, ops: &[Op]) -> Result<Vec<u8>, ReplicaError> {
    bincode::serde::encode_to_vec(ops, bincode::config::standard())
        .map_err(|e| ReplicaError::Damaged { key: key.to_owned(), why: e.to_string() })
}

fn decode(kv: &KeyValue) -> Result<Vec<Op>, ReplicaError> {
    let config = bincode::config::standard().with_limit::<{ 4 * COMMIT_MOST }>();
    let key = String::from_utf8_lossy(kv.key()).into_owned();
    let decoded = bincode::serde::decode_from_slice(kv.value(), config);
    decoded.map(|(ops, _)| ops).map_err(|e| ReplicaError::Damaged { key, why: e.to_string() })
}

/// The first key after all that start with `prefix`; ours end with `:` or `/`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
