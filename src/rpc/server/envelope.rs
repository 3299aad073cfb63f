//! JSON-RPC 2.0 requests, answers and errors as go-jsonrpc reads and writes them.

use crate::rpc::full_node::FullNodeError;
use crate::rpc::json_text::JsonText;
use serde_json::{Map, Value};

/// The `error` member of an answer. Code 1 is a method's own verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

impl RpcError {
    /// A verdict: the method ran and says no.
    pub fn verdict(message: impl Into<String>) -> RpcError {
        RpcError { code: 1, message: message.into() }
    }
    pub fn parse(message: impl Into<String>) -> RpcError {
        RpcError { code: -32700, message: message.into() }
    }
    pub fn invalid_request(message: impl Into<String>) -> RpcError {
        RpcError { code: -32600, message: message.into() }
    }
    /// `method` with its namespace.
    pub fn no_method(method: &str) -> RpcError {
        RpcError { code: -32601, message: format!("method '{method}' not found") }
    }
    pub fn invalid_params(message: impl Into<String>) -> RpcError {
        RpcError { code: -32602, message: message.into() }
    }

    pub fn no_json(why: &serde_json::Error) -> RpcError {
        RpcError { code: -32603, message: format!("the answer has no JSON: {why}") }
    }

    /// go-jsonrpc: protocol errors are 500, an invalid request is 400, a method's verdict is 200.
    pub fn http_status(&self) -> u16 {
        match self.code {
            -32600 => 400,
            -32768..=-32000 | 0 => 500,
            _ => 200,
        }
    }
}

impl From<FullNodeError> for RpcError {
    fn from(e: FullNodeError) -> Self {
        match e {
            FullNodeError::Rpc { code, message, .. } => RpcError { code, message },
            FullNodeError::NotNow { code, why, .. } => RpcError { code, message: why },
            FullNodeError::Unsupported { why, .. } => RpcError::verdict(why),
            FullNodeError::NoSuchMethod { method, .. } => RpcError::no_method(method),
            other => RpcError::verdict(other.to_string()),
        }
    }
}

/// One call. `id: None` is a notification: it gets no answer.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub id: Option<Value>,
    pub method: String,
    pub params: Vec<Value>,
}

/// A refused request with the id that it could still be answered under.
pub type Refused = (Value, RpcError);

/// The decision over one JSON value that should be a request. Takes it apart without copying.
pub fn read_request(value: Value) -> Result<Request, Refused> {
    let no_request = || Err((Value::Null, RpcError::parse("Parse error")));
    let Value::Object(mut members) = value else { return no_request() };
    let id = match members.remove("id") {
        None | Some(Value::Null) => None,
        Some(id @ (Value::String(_) | Value::Number(_))) => Some(id),
        Some(_) => return Err((Value::Null, RpcError::parse("failed to parse ID: invalid id type"))),
    };
    let method = match members.remove("method") {
        None => String::new(),
        Some(Value::String(method)) => method,
        Some(_) => return no_request(),
    };
    let shown = id.clone().unwrap_or_default();
    let params = match members.remove("params") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err((shown, RpcError::parse("unmarshaling param array: it is no array"))),
    };
    if method.is_empty() {
        return Err((shown, RpcError::invalid_request("Invalid request")));
    }
    Ok(Request { id, method, params })
}

pub fn answer(id: &Value, outcome: Result<Value, RpcError>) -> Value {
    let (name, value) = match outcome {
        Ok(result) => ("result", result),
        Err(e) => {
            let members = [("code", e.code.into()), ("message", e.message.into())];
            (
                "error",
                Value::Object(
                    members.map(|(name, value): (&str, Value)| (name.to_string(), value)).into_iter().collect(),
                ),
            )
        }
    };
    let members = [("jsonrpc", "2.0".into()), ("id", id.clone()), (name, value)];
    Value::Object(members.into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Map<_, _>>())
}

/// The result of a call.
#[derive(Debug, PartialEq)]
pub enum Reply {
    Value(Value),
    Text(JsonText),
}

impl From<Value> for Reply {
    fn from(value: Value) -> Reply {
        Reply::Value(value)
    }
}

/// [`answer`] as text.
pub fn answer_text(id: &Value, outcome: Result<Reply, RpcError>) -> String {
    match outcome {
        Ok(Reply::Text(text)) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, text.as_str()),
        Ok(Reply::Value(value)) => answer(id, Ok(value)).to_string(),
        Err(why) => answer(id, Err(why)).to_string(),
    }
}

/// The API before v1 left out what v1 asks for: `StateSearchMsg(cid)`, `StateWaitMsg(cid, confidence)`.
pub(super) fn as_v1(version: &str, method: &str, mut params: Vec<Value>) -> Vec<Value> {
    match (version, method, params.len()) {
        ("v0", "Filecoin.StateSearchMsg", 1) => {
            params.insert(0, Value::Null);
            params.extend([(-1).into(), true.into()]);
        }
        ("v0", "Filecoin.StateWaitMsg", 2) => params.extend([(-1).into(), true.into()]),
        _ => {}
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests() {
        let request = |id: Option<Value>, params| Request { id, method: "M".into(), params };
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"M","params":[1]}"#, request(Some(json!(1)), vec![json!(1)])),
            (r#"{"id":"a","method":"M","params":null}"#, request(Some(json!("a")), vec![])),
            (r#"{"id":1.5,"method":"M","meta":{"x":"y"}}"#, request(Some(json!(1.5)), vec![])),
            (r#"{"id":null,"method":"M"}"#, request(None, vec![])),
        ] {
            assert_eq!(read_request(serde_json::from_str(text).expect("JSON")), Ok(expected), "{text}");
        }
        for (text, id, code) in [
            ("7", json!(null), -32700),
            (r#"[3,"M"]"#, json!(null), -32700),
            (r#"{"id":[],"method":"M"}"#, json!(null), -32700),
            (r#"{"id":3,"method":"M","params":{"a":1}}"#, json!(3), -32700),
            (r#"{"id":3}"#, json!(3), -32600),
            (r#"{"id":3,"method":7}"#, json!(null), -32700),
        ] {
            let (said_id, error) = read_request(serde_json::from_str(text).expect("JSON")).expect_err(text);
            assert_eq!((said_id, error.code), (id, code), "{text}");
        }
    }

    #[test]
    fn http_status_by_code() {
        for (code, status) in
            [(-32769, 200), (-32768, 500), (-32600, 400), (-32000, 500), (-31999, 200), (0, 500), (1, 200)]
        {
            assert_eq!(RpcError { code, message: String::new() }.http_status(), status, "{code}");
        }
    }

    #[test]
    fn older_parameter_lists() {
        let padded = as_v1("v0", "Filecoin.StateSearchMsg", vec![json!("c")]);
        assert_eq!(padded, [json!(null), json!("c"), json!(-1), json!(true)]);
        assert_eq!(as_v1("v1", "Filecoin.StateSearchMsg", vec![json!("c")]).len(), 1);
        assert_eq!(as_v1("v0", "Filecoin.StateWaitMsg", vec![json!("c"), json!(5)]).len(), 4);
    }
}
