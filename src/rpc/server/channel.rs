//! The WebSocket side: concurrent calls on one connection, and channels (`xrpc.ch.val`, `.close`, `xrpc.cancel`).

use super::bounds::Bounds;
use super::dispatch::Dispatch;
use super::envelope::{Request, RpcError, answer, as_v1, read_request};
use super::json::read_json;
use super::shapes;
use crate::chain::types::HeadChange;
use crate::rpc::auth::Perm;
use crate::rpc::json::try_json;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Frames that wait to be written; who produces more waits.
const OUTBOX: usize = 64;
const PING_EVERY: Duration = Duration::from_secs(10);
/// A peer that says nothing, not even a pong, is gone.
const SILENCE: Duration = Duration::from_secs(40);
const WRITE_DEADLINE: Duration = Duration::from_secs(20);

/// The caller at the other end.
#[derive(Clone)]
pub struct Caller {
    pub perms: Vec<Perm>,
    pub version: String,
    pub dispatch: Arc<Dispatch>,
    pub bounds: &'static Bounds,
}

/// A call's output to its connection: a frame to write, and with `done` the end of the call with that key.
struct Out {
    text: Option<String>,
    done: Option<String>,
}

impl Out {
    fn frame(value: Value) -> Out {
        Out { text: Some(value.to_string()), done: None }
    }
    fn last(value: Option<Value>, key: String) -> Out {
        Out { text: value.map(|v| v.to_string()), done: Some(key) }
    }
}

/// One connection's calls.
struct Calls {
    caller: Caller,
    out: mpsc::Sender<Out>,
    /// Running calls by the JSON of the request's id; dropping the sender cancels the call.
    in_flight: HashMap<String, oneshot::Sender<()>>,
    /// Calls so far; also numbers the channels.
    count: u64,
}

pub async fn run(
    mut session: Session,
    mut stream: AggregatedMessageStream,
    caller: Caller,
    mut stop: watch::Receiver<bool>,
) {
    let (out, mut outbox) = mpsc::channel::<Out>(OUTBOX);
    let mut calls = Calls { caller, out, in_flight: HashMap::new(), count: 0 };
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let write = tokio::select! {
            // a stop that was asked for, or a server handle that was dropped
            _ = stop.wait_for(|stopping| *stopping) => break,
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE || !wrote(session.ping(b"")).await {
                    break;
                }
                None
            }
            Some(Out { text, done }) = outbox.recv() => {
                if let Some(key) = done {
                    calls.in_flight.remove(&key);
                }
                text
            }
            message = stream.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(AggregatedMessage::Text(text))) => calls.take(text.as_bytes()),
                    Some(Ok(AggregatedMessage::Binary(bytes))) => calls.take(&bytes),
                    Some(Ok(AggregatedMessage::Ping(bytes))) => {
                        if !wrote(session.pong(&bytes)).await {
                            break;
                        }
                        None
                    }
                    Some(Ok(AggregatedMessage::Pong(_))) => None,
                    Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None => break,
                }
            }
        };
        if let Some(text) = write
            && !wrote(session.text(text)).await
        {
            break;
        }
    }
    drop(calls); // cancels what is still running
    let _ = timeout(Duration::from_secs(1), session.close(None)).await; // the peer may be gone
}

async fn wrote(write: impl Future<Output = Result<(), actix_ws::Closed>>) -> bool {
    matches!(timeout(WRITE_DEADLINE, write).await, Ok(Ok(())))
}

impl Calls {
    /// Starts what a frame asks for; gives the refusal to write when it cannot be started.
    fn take(&mut self, bytes: &[u8]) -> Option<String> {
        let refuse = |id: &Value, error: RpcError| Some(answer(id, Err(error)).to_string());
        let value = match read_json(bytes, self.caller.bounds) {
            Ok(value) => value,
            Err(why) => return refuse(&Value::Null, why),
        };
        let Request { id, method, params } = match read_request(value) {
            Ok(request) => request,
            Err((id, error)) => return refuse(&id, error),
        };
        if method == "xrpc.cancel" {
            if let Some(id) = params.first() {
                self.in_flight.remove(&id.to_string());
            }
            return None;
        }
        self.count += 1;
        let key = id.as_ref().map_or_else(|| format!("notification {}", self.count), Value::to_string);
        let busy = if self.in_flight.len() >= self.caller.bounds.calls {
            Some("too many calls at once on this connection")
        } else {
            self.in_flight.contains_key(&key).then_some("a call with this id is still running")
        };
        if let Some(why) = busy {
            return id.and_then(|id| refuse(&id, RpcError::invalid_request(why)));
        }
        let (keep, cancelled) = oneshot::channel();
        self.in_flight.insert(key.clone(), keep);
        let (caller, out) = (self.caller.clone(), self.out.clone());
        if method == "Filecoin.ChainNotify" {
            tokio::spawn(feed(caller, out, id.unwrap_or_default(), key, self.count, cancelled));
        } else {
            let params = as_v1(&caller.version, &method, params);
            tokio::spawn(async move {
                let outcome = tokio::select! {
                    outcome = caller.dispatch.call(&caller.perms, &method, params) => outcome,
                    _ = cancelled => Err(RpcError::verdict("context canceled")),
                };
                let _ = out.send(Out::last(id.map(|id| answer(&id, outcome)), key)).await;
            });
        }
        None
    }
}

/// One channel: its id as the answer, then each batch, until the feed, the caller or the connection ends.
async fn feed(
    caller: Caller,
    out: mpsc::Sender<Out>,
    id: Value,
    key: String,
    channel: u64,
    mut cancelled: oneshot::Receiver<()>,
) {
    let mut heads = match open(&caller).await {
        Ok(heads) => heads,
        Err(error) => {
            let _ = out.send(Out::last(Some(answer(&id, Err(error))), key)).await;
            return;
        }
    };
    if out.send(Out::frame(answer(&id, Ok(channel.into())))).await.is_err() {
        return;
    }
    loop {
        let batch = tokio::select! {
            batch = heads.recv() => batch,
            _ = &mut cancelled => None,
        };
        let Some(batch) = batch else { break };
        let value = match try_json!({ "jsonrpc": "2.0", "method": "xrpc.ch.val", "params": (channel, batch) }) {
            Ok(value) => shapes::no_empty_lists(value),
            Err(why) => {
                tracing::error!(%why, "a head change has no JSON: its channel ends");
                break;
            }
        };
        if out.send(Out::frame(value)).await.is_err() {
            return;
        }
    }
    let close = try_json!({ "jsonrpc": "2.0", "method": "xrpc.ch.close", "params": [channel] });
    let _ = out.send(Out::last(close.ok(), key)).await;
}

async fn open(caller: &Caller) -> Result<mpsc::Receiver<Vec<HeadChange>>, RpcError> {
    caller.dispatch.permit(&caller.perms, "Filecoin.ChainNotify")?;
    match &caller.dispatch.service.node {
        Some(node) => Ok(node.chain_notify().await?),
        None => Err(RpcError::no_method("Filecoin.ChainNotify")),
    }
}
