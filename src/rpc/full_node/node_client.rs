//! One full node at an address: its calls as they are on the wire, its errors in the trait's terms.

use super::capabilities::Probes;
use super::limits::CallLimits;
use super::pool::calls::PooledCalls;
use super::{FullNode, FullNodeError, Result};
use crate::chain::lotus_json::WholeAddress;
use crate::chain::types::TipSetKey;
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client::{CallErrorKind, RpcCallError, RpcClient};
use fvm_shared::address::Address;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// One full node at an address, or a pool of them. Calls share a connection pool; each head feed has a connection of its
/// own.
#[derive(Clone)]
pub struct HttpFullNode {
    pub(super) way: Way,
    pub(super) limits: CallLimits,
    pub(super) probes: Probes,
}

/// Where the calls go.
#[derive(Clone)]
pub(super) enum Way {
    One { info: ApiInfo, client: RpcClient },
    Pool(Arc<PooledCalls>),
}

impl HttpFullNode {
    /// Connects at the first call.
    pub fn new(info: ApiInfo) -> Result<HttpFullNode> {
        HttpFullNode::with_limits(info, CallLimits::default())
    }

    pub fn with_limits(info: ApiInfo, limits: CallLimits) -> Result<HttpFullNode> {
        let client = RpcClient::new(&info, "v1").map_err(|e| in_trait_terms("Filecoin.Version", e))?;
        Ok(HttpFullNode { way: Way::One { info, client }, limits, probes: Probes::default() })
    }

    /// The nodes of a pool as one.
    pub fn pooled(calls: PooledCalls) -> HttpFullNode {
        HttpFullNode { way: Way::Pool(Arc::new(calls)), limits: CallLimits::default(), probes: Probes::default() }
    }

    pub(super) async fn call<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: Params,
    ) -> Result<R> {
        let params = params.map_err(|why| FullNodeError::BadAnswer {
            node: self.name(),
            method,
            why: format!("a parameter cannot be written as JSON: {why}"),
        })?;
        let within = self.limits.deadline(method);
        let answer = match &self.way {
            Way::One { client, .. } => client.call(method, params, within).await,
            Way::Pool(calls) => calls.call(method, params, within).await,
        };
        answer.map_err(|e| in_trait_terms(method, e))
    }
}

/// A method that the node lacks.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Without `Filecoin.`.
    pub method: &'static str,
    /// The substitute for the method, or the function that is missing without it.
    pub instead: &'static str,
}

pub(super) fn lacks(e: &FullNodeError) -> bool {
    e.is_missing_method()
}

pub(super) type Params = std::result::Result<Vec<Value>, serde_json::Error>;

/// `params![a, b]`: each serialized, in order.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        Vec::<serde_json::Result<Value>>::from([$(serde_json::to_value($value)),*]).into_iter().collect::<Params>()
    };
}
pub(super) use params;

/// An empty key is sent as `null`: Forest does not take `[]`.
pub(super) fn key(key: &TipSetKey) -> Option<&TipSetKey> {
    Some(key).filter(|k| !k.0.is_empty())
}

pub(super) fn addr(who: &Address) -> WholeAddress {
    WholeAddress(*who)
}

/// Lotus: the state of an upgrade's epoch is not computed for a caller.
const EXPENSIVE_FORK: i64 = -32002;
const LIMIT_EXCEEDED: i64 = -32005;

/// Nodes say in words that a method has no meaning on the network's version (lotus#13748, forest#7599). The words must be
/// about the method: a sector size or a proof type may be unsupported, too.
fn is_unsupported(method: &str, message: &str) -> bool {
    let short = method.strip_prefix("Filecoin.").unwrap_or(method);
    let words = ["unsupported", "not supported", "no longer supported"].iter().any(|w| message.contains(w));
    words && (message.contains(short) || message.contains("network version"))
}

pub(super) fn in_trait_terms(method: &'static str, e: RpcCallError) -> FullNodeError {
    let node = e.node;
    match e.kind {
        CallErrorKind::Unreachable(why) => FullNodeError::Unreachable { node, why },
        CallErrorKind::Timeout(after) => FullNodeError::Timeout { node, method, after },
        CallErrorKind::Unauthorized(why) => FullNodeError::Unauthorized { node, method, why },
        CallErrorKind::NoSuchMethod => FullNodeError::NoSuchMethod { node, method },
        CallErrorKind::Rpc { code, message: why } if code == EXPENSIVE_FORK || code == LIMIT_EXCEEDED => {
            FullNodeError::NotNow { node, method, code, why }
        }
        CallErrorKind::Rpc { message: why, .. } if is_unsupported(method, &why) => {
            FullNodeError::Unsupported { node, method, why }
        }
        CallErrorKind::Rpc { code, message } => FullNodeError::Rpc { node, method, code, message },
        CallErrorKind::BadAnswer(why) => FullNodeError::BadAnswer { node, method, why },
    }
}
