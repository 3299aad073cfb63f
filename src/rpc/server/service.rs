//! The methods of one server, and their callers.

use super::envelope::RpcError;
use crate::rpc::auth::{Auth, Perm};
use crate::rpc::full_node::FullNode;
use crate::rpc::json_text::JsonText;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;
use std::sync::Arc;

/// The methods of one server, and their callers.
#[derive(Clone)]
pub struct Service {
    pub auth: Arc<Auth>,
    /// Without one only the extra methods and those about tokens are there (a storage provider's own API).
    pub node: Option<Arc<dyn FullNode>>,
    pub extras: Option<Arc<dyn ExtraMethods>>,
    /// Other servers, which get every method that this one does not answer itself.
    pub upstream: Option<Arc<dyn Upstream>>,
}

impl Service {
    pub fn of_methods(extras: Arc<dyn ExtraMethods>, auth: Arc<Auth>) -> Service {
        Service { auth, node: None, extras: Some(extras), upstream: None }
    }

    pub fn of_upstream(upstream: Arc<dyn Upstream>, auth: Arc<Auth>) -> Service {
        Service { auth, node: None, extras: None, upstream: Some(upstream) }
    }

    pub fn of_node(node: Arc<dyn FullNode>, auth: Arc<Auth>) -> Service {
        Service { auth, node: Some(node), extras: None, upstream: None }
    }
}

/// Methods beside the full node's own. They are asked first, so that they can replace one.
#[async_trait]
pub trait ExtraMethods: Send + Sync + 'static {
    /// The permission that `method` (`Filecoin.X`) needs; `None` when this set lacks it.
    fn permission(&self, method: &str) -> Option<Perm>;
    /// `None` when this set lacks the method.
    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>>;
}

/// The values of one channel, each as JSON.
pub type Channel = BoxStream<'static, Arc<str>>;

/// The servers behind a server: methods that it does not know itself are theirs.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// The permission that `method` needs, known or not.
    fn permission(&self, method: &str) -> Perm;
    /// `version`: v0, v1 or v2, as in the caller's path.
    async fn call(&self, version: &str, method: &str, params: Vec<Value>) -> Result<JsonText, RpcError>;
    /// The method's result is a channel: it can be called over a WebSocket only.
    fn opens_channel(&self, method: &str) -> bool;
    async fn channel(&self, version: &str, method: &str, params: Vec<Value>) -> Result<Channel, RpcError>;
}
