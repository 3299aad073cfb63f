//! A channel of a full node, above all `Filecoin.ChainNotify`: go-jsonrpc's channel protocol, over a WebSocket of its own.

use super::{Result, limits::CallLimits, node_client::in_trait_terms};
use crate::chain::types::HeadChange;
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client::{CallErrorKind, ErrorBody, RpcCallError, causes};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Ws};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

const METHOD: &str = "Filecoin.ChainNotify";
const REQUEST_ID: u64 = 1;
/// Batches that wait for the subscriber; further ones wait in the connection.
const BOUND: usize = 64;
const MAX_MESSAGE: usize = 64 << 20;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, asks, and gives the feed once the node has opened the channel.
pub(super) async fn subscribe(info: &ApiInfo, limits: &CallLimits) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
    let opened = open_channel(info, "v1", METHOD, &[], limits).await;
    opened.map_err(|error| in_trait_terms(METHOD, error))
}

/// Calls a method whose result is a channel, and gives the channel once the node has opened it. It ends when the node ends
/// it, when the connection breaks, and when the node says nothing for [`CallLimits::silence`], not even a pong.
pub async fn open_channel<T: DeserializeOwned + Send + 'static>(
    info: &ApiInfo,
    version: &str,
    method: &str,
    params: &[Value],
    limits: &CallLimits,
) -> std::result::Result<mpsc::Receiver<T>, RpcCallError> {
    let opened = timeout(limits.connect, open::<T>(info, version, method, params)).await;
    let (socket, channel) = opened
        .unwrap_or(Err(CallErrorKind::Timeout(limits.connect)))
        .map_err(|kind| RpcCallError { node: info.name(), method: method.into(), kind })?;
    let (tx, rx) = mpsc::channel(BOUND);
    tokio::spawn(pump(info.name(), method.to_string(), socket, channel, tx, *limits));
    Ok(rx)
}

async fn open<T: DeserializeOwned>(
    info: &ApiInfo,
    version: &str,
    method: &str,
    params: &[Value],
) -> std::result::Result<(Socket, Value), CallErrorKind> {
    let unreachable = |e: WsError| CallErrorKind::Unreachable(causes(&e));
    let mut request = info.ws_url(version).into_client_request().map_err(unreachable)?;
    if let Some(token) = &info.token {
        let header = format!("Bearer {token}").parse();
        let header = header.map_err(|_| CallErrorKind::Unauthorized("the token is no header value".into()))?;
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    // Two providers are compiled in; without a choice a wss:// feed panics. Somebody else's earlier choice stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let (mut socket, _) = connect_async_with_config(request, Some(config), true).await.map_err(|e| match &e {
        WsError::Http(answer) => match answer.status().as_u16() {
            401 | 403 => CallErrorKind::Unauthorized(format!("HTTP {}", answer.status())),
            429 | 500..=599 => CallErrorKind::Unreachable(format!("HTTP {}", answer.status())),
            _ => CallErrorKind::BadAnswer(format!("HTTP {} instead of a WebSocket", answer.status())),
        },
        _ => unreachable(e),
    })?;
    let ask = json!({"jsonrpc": "2.0", "id": REQUEST_ID, "method": method, "params": params});
    socket.send(Ws::text(ask.to_string())).await.map_err(unreachable)?;
    loop {
        match socket.next().await {
            Some(Ok(Ws::Text(text))) => match read_frame::<T>(&text) {
                FeedFrame::Opened(channel) => return Ok((socket, channel)),
                FeedFrame::Refused(kind) => return Err(kind),
                FeedFrame::Garbage(why) => return Err(CallErrorKind::BadAnswer(why)),
                FeedFrame::Value { .. } | FeedFrame::Closed(_) | FeedFrame::Other => {}
            },
            Some(Ok(Ws::Close(_))) | None => return Err(CallErrorKind::Unreachable("it closed the connection".into())),
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(unreachable(e)),
        }
    }
}

/// Forwards until either side ends; dropping `tx` is how the subscriber learns of it.
async fn pump<T: DeserializeOwned>(
    node: String,
    method: String,
    mut socket: Socket,
    channel: Value,
    tx: mpsc::Sender<T>,
    limits: CallLimits,
) {
    let mut pings = interval(limits.silence / 3);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let why = loop {
        let message = tokio::select! {
            _ = tx.closed() => break "the subscriber left".to_string(),
            _ = sleep_until(heard + limits.silence) => break format!("silent for {:?}", limits.silence),
            _ = pings.tick() => {
                match timeout(limits.silence, socket.send(Ws::Ping(Default::default()))).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(e)) => break causes(&e),
                    Err(_) => break "a ping could not be sent".to_string(),
                }
            }
            message = socket.next() => message,
        };
        heard = Instant::now();
        let text = match message {
            Some(Ok(Ws::Text(text))) => text,
            Some(Ok(Ws::Close(_))) | None => break "the node closed the connection".to_string(),
            Some(Ok(_)) => continue, // pings are answered by the library, pongs have been heard
            Some(Err(e)) => break causes(&e),
        };
        match read_frame::<T>(&text) {
            FeedFrame::Value { channel: id, value } if id == channel => {
                match timeout(limits.silence, tx.send(value)).await {
                    Ok(Ok(())) => heard = Instant::now(), // the time that the subscriber took is not the node's silence
                    Ok(Err(_)) => break "the subscriber left".to_string(),
                    Err(_) => break format!("the subscriber took nothing for {:?}", limits.silence),
                }
            }
            FeedFrame::Closed(id) if id == channel => break "the node closed the feed".to_string(),
            FeedFrame::Garbage(why) => break why,
            FeedFrame::Refused(kind) => break kind.to_string(),
            FeedFrame::Value { .. } | FeedFrame::Closed(_) | FeedFrame::Opened(_) | FeedFrame::Other => {}
        }
    };
    tracing::info!(node, method, why, "a channel of a full node ended");
    drop(tx);
    let cancel = json!({"jsonrpc": "2.0", "method": "xrpc.cancel", "params": [REQUEST_ID]});
    let goodbye = async {
        socket.send(Ws::text(cancel.to_string())).await?;
        socket.close(None).await
    };
    let _ = timeout(std::time::Duration::from_secs(1), goodbye).await; // the connection may be gone already
}

#[derive(Debug, PartialEq)]
enum FeedFrame<T> {
    /// The answer to our call: the channel's id.
    Opened(Value),
    Refused(CallErrorKind),
    Value {
        channel: Value,
        value: T,
    },
    Closed(Value),
    Garbage(String),
    Other,
}

/// Interprets one text frame for the one subscription of this connection.
fn read_frame<T: DeserializeOwned>(text: &str) -> FeedFrame<T> {
    #[derive(Deserialize)]
    struct Raw {
        id: Option<Value>,
        method: Option<String>,
        #[serde(default)]
        params: Value,
        #[serde(default)]
        result: Value,
        error: Option<ErrorBody>,
    }
    let raw: Raw = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(e) => return FeedFrame::Garbage(format!("a frame that is no JSON-RPC: {e}")),
    };
    match (raw.method.as_deref(), raw.params) {
        (Some("xrpc.ch.val"), Value::Array(mut params)) if params.len() == 2 => {
            let value = params.pop().unwrap_or_default();
            match serde_json::from_value(value) {
                Ok(value) => FeedFrame::Value { channel: params.pop().unwrap_or_default(), value },
                Err(e) => FeedFrame::Garbage(format!("a value of another type than the method gives: {e}")),
            }
        }
        (Some("xrpc.ch.close"), Value::Array(params)) if params.len() == 1 => {
            FeedFrame::Closed(params.into_iter().next().unwrap_or_default())
        }
        (Some("xrpc.ch.val" | "xrpc.ch.close"), params) => FeedFrame::Garbage(format!("parameters {params}")),
        (Some(_), _) => FeedFrame::Other,
        (None, _) if raw.id != Some(json!(REQUEST_ID)) => FeedFrame::Other,
        (None, _) => match (raw.error, raw.result) {
            (Some(error), _) => FeedFrame::Refused(error.kind()),
            (None, Value::Null) => FeedFrame::Garbage("no channel id".into()),
            (None, channel) => FeedFrame::Opened(channel),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_frame(text: &str) -> FeedFrame<Vec<HeadChange>> {
        super::read_frame(text)
    }

    #[test]
    fn frames_of_the_channel_protocol() {
        let refused = |code, message: &str| FeedFrame::Refused(CallErrorKind::Rpc { code, message: message.into() });
        let cases = [
            (r#"{"jsonrpc":"2.0","id":1,"result":7}"#, FeedFrame::Opened(json!(7))),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"no"}}"#, refused(5, "no")),
            (r#"{"jsonrpc":"2.0","id":2,"result":7}"#, FeedFrame::Other),
            (
                r#"{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[7,[]]}"#,
                FeedFrame::Value { channel: json!(7), value: vec![] },
            ),
            (r#"{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[7]}"#, FeedFrame::Closed(json!(7))),
            (r#"{"jsonrpc":"2.0","method":"Filecoin.Ping","params":[]}"#, FeedFrame::Other),
        ];
        for (text, meaning) in cases {
            assert_eq!(read_frame(text), meaning, "{text}");
        }
        for garbage in [
            "",
            "[]",
            "7",
            r#"{"id":1}"#,
            r#"{"method":"xrpc.ch.val","params":[7]}"#,
            r#"{"method":"xrpc.ch.val","params":[7,{}]}"#,
            r#"{"method":"xrpc.ch.val","params":[7,[{"Type":"sideways","Val":null}]]}"#,
            r#"{"method":"xrpc.ch.close"}"#,
        ] {
            assert!(matches!(read_frame(garbage), FeedFrame::Garbage(_)), "{garbage}: {:?}", read_frame(garbage));
        }
    }
}
