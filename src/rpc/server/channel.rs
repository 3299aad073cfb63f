//! The WebSocket side: concurrent calls on one connection, and channels (`xrpc.ch.val`, `.close`, `xrpc.cancel`).

use super::bounds::Bounds;
use super::dispatch::Dispatch;
use super::envelope::{Request, RpcError, answer_text, read_request};
use super::json::read_json;
use crate::rpc::auth::Perm;
use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
use futures::StreamExt;
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
    fn frame(text: String) -> Out {
        Out { text: Some(text), done: None }
    }
    fn last(text: Option<String>, key: String) -> Out {
        Out { text, done: Some(key) }
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
        let refuse = |id: &Value, error: RpcError| Some(answer_text(id, Err(error)));
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
        if caller.dispatch.opens_channel(&method) {
            let asked = Asked { id: id.unwrap_or_default(), method, params, key, channel: self.count };
            tokio::spawn(feed(caller, out, asked, cancelled));
        } else {
            tokio::spawn(async move {
                let outcome = tokio::select! {
                    outcome = caller.dispatch.call(&caller.perms, &caller.version, &method, params) => outcome,
                    _ = cancelled => Err(RpcError::verdict("context canceled")),
                };
                let _ = out.send(Out::last(id.map(|id| answer_text(&id, outcome)), key)).await;
            });
        }
        None
    }
}

/// A call whose result is a channel.
struct Asked {
    id: Value,
    method: String,
    params: Vec<Value>,
    key: String,
    /// The number of the channel on this connection.
    channel: u64,
}

/// One channel: its number as the answer, then each value, until the source, the caller or the connection ends.
async fn feed(caller: Caller, out: mpsc::Sender<Out>, asked: Asked, mut cancelled: oneshot::Receiver<()>) {
    let Asked { id, method, params, key, channel } = asked;
    let opened = tokio::select! {
        opened = caller.dispatch.channel(&caller.perms, &caller.version, &method, params) => opened,
        _ = &mut cancelled => Err(RpcError::verdict("context canceled")),
    };
    let mut values = match opened {
        Ok(values) => values,
        Err(error) => {
            let _ = out.send(Out::last(Some(answer_text(&id, Err(error))), key)).await;
            return;
        }
    };
    if out.send(Out::frame(answer_text(&id, Ok(Value::from(channel).into())))).await.is_err() {
        return;
    }
    loop {
        let value = tokio::select! {
            value = values.next() => value,
            _ = &mut cancelled => None,
        };
        let Some(value) = value else { break };
        let frame = format!(r#"{{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[{channel},{value}]}}"#);
        if out.send(Out::frame(frame)).await.is_err() {
            return;
        }
    }
    let close = format!(r#"{{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[{channel}]}}"#);
    let _ = out.send(Out::last(Some(close), key)).await;
}
