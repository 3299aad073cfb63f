//! The WebSocket side: concurrent calls on one connection, and channels (`xrpc.ch.val`, `.close`, `xrpc.cancel`).

use super::bounds::Bounds;
use super::dispatch::Dispatch;
use super::envelope::{Request, RpcError, answer_text, read_request};
use super::json::read_json;
use super::strangers::{Room, Strangers};
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
    /// It showed a valid token.
    pub known: bool,
    pub strangers: Strangers,
}

/// A call's output to its connection: a frame to write, and with `done` the end of the call with that key.
struct Out {
    text: Option<String>,
    done: Option<String>,
    room: Room,
}

impl Out {
    fn frame(text: String) -> Out {
        Out { text: Some(text), done: None, room: Room::default() }
    }
    fn last(text: Option<String>, key: String) -> Out {
        Out { text, done: Some(key), room: Room::default() }
    }
}

/// The room of answers that are written and perhaps not read yet: a ping goes out behind them, and its pong says that they
/// are.
#[derive(Default)]
struct Unread {
    rooms: Vec<Room>,
    /// How many of them the ping under way is behind; `None`: there is none.
    behind: Option<usize>,
    pings: u32,
}

impl Unread {
    /// The payload of the ping that is to be sent now.
    fn ping(&mut self) -> Option<[u8; 4]> {
        if self.behind.is_some() || self.rooms.is_empty() {
            return None;
        }
        self.behind = Some(self.rooms.len());
        self.pings = self.pings.wrapping_add(1);
        Some(self.pings.to_be_bytes())
    }

    fn pong(&mut self, payload: &[u8]) {
        if payload == self.pings.to_be_bytes()
            && let Some(read) = self.behind.take()
        {
            self.rooms.drain(..read);
        }
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
    let mut unread = Unread::default();
    loop {
        if let Some(payload) = unread.ping()
            && !wrote(session.ping(&payload)).await
        {
            break;
        }
        let write = tokio::select! {
            // a stop that was asked for, or a server handle that was dropped
            _ = stop.wait_for(|stopping| *stopping) => break,
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE || !wrote(session.ping(b"")).await {
                    break;
                }
                None
            }
            Some(Out { text, done, room }) = outbox.recv() => {
                if let Some(key) = done {
                    calls.in_flight.remove(&key);
                }
                if !room.is_none() {
                    unread.rooms.push(room);
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
                    Some(Ok(AggregatedMessage::Pong(payload))) => {
                        unread.pong(&payload);
                        None
                    }
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
                let call = async {
                    let turn = caller.strangers.turn(caller.known, &method).await?;
                    Ok((caller.dispatch.call(&caller.perms, &caller.version, &method, params).await, turn))
                };
                let (outcome, turn) = tokio::select! {
                    done = call => done.map_or_else(|busy| (Err(busy), None), |(outcome, turn)| (outcome, Some(turn))),
                    _ = cancelled => (Err(RpcError::verdict("context canceled")), None),
                };
                let mut last = Out::last(id.as_ref().map(|id| answer_text(id, outcome)), key);
                let bytes = last.text.as_ref().map_or(0, String::len);
                if let Err(full) = caller.strangers.grow(caller.known, &mut last.room, bytes) {
                    last.text = id.map(|id| answer_text(&id, Err(full)));
                }
                drop(turn); // the answer has its room
                let _ = out.send(last).await;
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
    let open = async {
        let turn = caller.strangers.channel(caller.known, &method)?;
        Ok((caller.dispatch.channel(&caller.perms, &caller.version, &method, params).await?, turn))
    };
    let opened = tokio::select! {
        opened = open => opened,
        _ = &mut cancelled => Err(RpcError::verdict("context canceled")),
    };
    // The turn is kept until the channel ends.
    let (mut values, _turn) = match opened {
        Ok(opened) => opened,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_room_until_the_pong_of_a_ping_behind_it() {
        let strangers = Strangers::new();
        let room = || {
            let mut room = Room::default();
            strangers.grow(false, &mut room, 1 << 20).expect("room");
            room
        };
        let mut unread = Unread::default();
        assert_eq!(unread.ping(), None, "nothing is to be known");
        unread.rooms.extend([room(), room()]);
        let first = unread.ping().expect("a ping behind two");
        assert_eq!(unread.ping(), None, "one at a time");
        unread.rooms.push(room());
        for other in [&b""[..], &[0, 0, 0, 9]] {
            unread.pong(other);
            assert_eq!(unread.rooms.len(), 3, "a pong of another ping");
        }
        unread.pong(&first);
        assert_eq!(unread.rooms.len(), 1);
        unread.pong(&first);
        assert_eq!(unread.rooms.len(), 1, "said twice");
        let second = unread.ping().expect("a ping behind the third");
        assert_ne!(second, first);
        unread.pong(&second);
        assert!(unread.rooms.is_empty() && unread.ping().is_none());
    }
}
