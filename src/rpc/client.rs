//! Typed JSON-RPC 2.0 calls over HTTP to one node: a full node, or a storage provider's own API.

use crate::rpc::api_info::ApiInfo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The largest answer that is read; any that a provider asks for is smaller (a listing of a million sectors is about
/// 500 MB in JSON).
const MAX_ANSWER: usize = 512 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why one call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {method}: {kind}")]
pub struct RpcCallError {
    /// `host:port`.
    pub node: String,
    pub method: String,
    pub kind: CallErrorKind,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallErrorKind {
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("refused: {0}; check the token")]
    Unauthorized(String),
    #[error("it has no such method")]
    NoSuchMethod,
    /// The node's own verdict.
    #[error("{message}")]
    Rpc { code: i64, message: String },
    #[error("answered something else than expected: {0}")]
    BadAnswer(String),
}

/// A connection pool to one node. Cheap to clone.
#[derive(Clone)]
pub struct RpcClient {
    http: reqwest::Client,
    url: String,
    node: String,
    token: Option<String>,
    next_id: std::sync::Arc<AtomicU64>,
}

impl RpcClient {
    /// `version` is `v0` or `v1`. Connects at the first call.
    pub fn new(info: &ApiInfo, version: &str) -> Result<RpcClient, RpcCallError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if info.is_loopback() {
            builder = builder.no_proxy();
        }
        let (url, node) = (info.http_url(version), info.name());
        let http = builder.build().map_err(|e| RpcCallError {
            node: node.clone(),
            method: "connect".into(),
            kind: CallErrorKind::Unreachable(causes(&e)),
        })?;
        Ok(RpcClient { http, url, node, token: info.token.clone(), next_id: Default::default() })
    }

    /// `host:port`.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// One call. Its whole course, connecting included, ends within `deadline`.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: Vec<Value>,
        deadline: Duration,
    ) -> Result<R, RpcCallError> {
        self.call_with(method, &params, deadline).await
    }

    /// As [`Self::call`], for parameters that are sent more than once.
    pub async fn call_with<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &[Value],
        deadline: Duration,
    ) -> Result<R, RpcCallError> {
        let outcome = match tokio::time::timeout(deadline, self.exchange(method, params)).await {
            Ok(Ok((status, body))) => read_answer(status, &body),
            Ok(Err(kind)) => Err(kind),
            Err(_) => Err(CallErrorKind::Timeout(deadline)),
        };
        outcome.map_err(|kind| RpcCallError { node: self.node.clone(), method: method.into(), kind })
    }

    async fn exchange(&self, method: &str, params: &[Value]) -> Result<(u16, Vec<u8>), CallErrorKind> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut request = self.http.post(&self.url).json(&Request { jsonrpc: "2.0", id, method, params });
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = |e: reqwest::Error| CallErrorKind::Unreachable(causes(&e));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(CallErrorKind::BadAnswer(format!("more than {} MiB", MAX_ANSWER >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

/// A call with a connection of its own, for commands that ask once.
pub async fn call<R: DeserializeOwned>(
    info: &ApiInfo,
    version: &str,
    method: &str,
    params: Vec<Value>,
    deadline: Duration,
) -> Result<R, RpcCallError> {
    RpcClient::new(info, version)?.call(method, params, deadline).await
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a [Value],
}

#[derive(Deserialize)]
struct RpcAnswer<R> {
    result: Option<R>,
    error: Option<ErrorBody>,
}

/// The `error` member of an answer.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl ErrorBody {
    /// Lotus says a missing permission, and a gateway a missing method, in plain words.
    pub(crate) fn kind(self) -> CallErrorKind {
        let ErrorBody { code, message } = self;
        let says_no_method = message.starts_with("method '") && message.ends_with("' not found");
        if code == -32601 || says_no_method {
            CallErrorKind::NoSuchMethod
        } else if message.contains("missing permission to invoke") {
            CallErrorKind::Unauthorized(message)
        } else {
            CallErrorKind::Rpc { code, message }
        }
    }
}

/// The decision over an HTTP answer. go-jsonrpc sends its errors as JSON with status 400 or 500.
fn read_answer<R: DeserializeOwned>(status: u16, body: &[u8]) -> Result<R, CallErrorKind> {
    match status {
        401 | 403 => return Err(CallErrorKind::Unauthorized(format!("HTTP {status}{}", shown(body)))),
        429 | 502..=504 => return Err(CallErrorKind::Unreachable(format!("HTTP {status}{}", shown(body)))),
        _ => {}
    }
    let bad = |why: String| Err(CallErrorKind::BadAnswer(why));
    let why = match serde_json::from_slice::<RpcAnswer<R>>(body) {
        Ok(RpcAnswer { error: Some(error), .. }) => return Err(error.kind()),
        Ok(RpcAnswer { result: Some(result), .. }) if status == 200 => return Ok(result),
        // `"result": null` and no result at all look the same: both are null
        Ok(RpcAnswer { result: None, .. }) if status == 200 => {
            return serde_json::from_value(Value::Null).or_else(|_| bad(format!("no result{}", shown(body))));
        }
        Ok(_) => return bad(format!("HTTP {status}{}", shown(body))),
        Err(why) => why,
    };
    match serde_json::from_slice::<RpcAnswer<Value>>(body) {
        Ok(RpcAnswer { error: Some(error), .. }) => Err(error.kind()),
        _ if status != 200 => bad(format!("HTTP {status}{}", shown(body))),
        _ => bad(format!("{why}{}", shown(body))),
    }
}

/// The start of a body, to say what came instead.
fn shown(body: &[u8]) -> String {
    const MOST: usize = 160;
    let text = String::from_utf8_lossy(&body[..body.len().min(MOST)]);
    let text = text.trim();
    let more = if body.len() > MOST { "…" } else { "" };
    if text.is_empty() { String::new() } else { format!(": {text:?}{more}") }
}

/// An error and what it came from, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallErrorKind::*;

    fn rpc(code: i64, message: &str) -> CallErrorKind {
        Rpc { code, message: message.into() }
    }

    #[test]
    fn answers_and_what_they_mean() {
        let read = |status: u16, body: &str| read_answer::<u64>(status, body.as_bytes());
        assert_eq!(read(200, r#"{"jsonrpc":"2.0","id":1,"result":5}"#), Ok(5));
        assert_eq!(read(200, r#"{"result":5,"error":null}"#), Ok(5));
        assert_eq!(
            read(200, r#"{"id":1,"error":{"code":1,"message":"actor not found"}}"#),
            Err(rpc(1, "actor not found"))
        );
        assert_eq!(
            read(500, r#"{"error":{"code":-32602,"message":"wrong param count"}}"#),
            Err(rpc(-32602, "wrong param count"))
        );
        assert_eq!(
            read(500, r#"{"error":{"code":-32601,"message":"method 'Filecoin.X' not found"}}"#),
            Err(NoSuchMethod)
        );
        assert_eq!(read(200, r#"{"error":{"code":-32601,"message":"Method not found"}}"#), Err(NoSuchMethod));
        assert_eq!(read(200, r#"{"error":{"code":1,"message":"method 'Filecoin.X' not found"}}"#), Err(NoSuchMethod));
        // a result of another type beside an error: the error counts
        assert_eq!(read(200, r#"{"result":{},"error":{"code":7,"message":"m"}}"#), Err(rpc(7, "m")));
        assert!(matches!(
            read(200, r#"{"error":{"code":1,"message":"missing permission to invoke 'WalletNew' (need 'write')"}}"#),
            Err(Unauthorized(_))
        ));
        for status in [401, 403] {
            assert!(matches!(read(status, ""), Err(Unauthorized(_))), "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert!(matches!(read(status, "<html>"), Err(Unreachable(_))), "{status}");
        }
        for (status, body) in [
            (200, ""),
            (200, "hello"),
            (200, "{}"),
            (200, r#"{"result":null}"#),
            (200, r#"{"result":"5"}"#),
            (200, "[1]"),
            (404, "404 page not found"),
            (500, r#"{"result":5}"#),
        ] {
            assert!(matches!(read(status, body), Err(BadAnswer(_))), "{status} {body}");
        }
    }

    #[test]
    fn null_is_a_result_where_it_may_be_one() {
        assert_eq!(read_answer::<Option<u64>>(200, br#"{"result":null}"#), Ok(None));
        assert_eq!(read_answer::<()>(200, br#"{"id":3,"jsonrpc":"2.0","result":null}"#), Ok(()));
        assert_eq!(read_answer::<()>(200, br#"{"id":3,"jsonrpc":"2.0"}"#), Ok(()));
    }
}
