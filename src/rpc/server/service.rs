//! The methods of one server, and their callers.

use super::envelope::RpcError;
use crate::rpc::auth::{Auth, Perm};
use crate::rpc::full_node::FullNode;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

/// The methods of one server, and their callers.
#[derive(Clone)]
pub struct Service {
    pub auth: Arc<Auth>,
    /// Without one only the extra methods and those about tokens are there (a storage provider's own API).
    pub node: Option<Arc<dyn FullNode>>,
    pub extras: Option<Arc<dyn ExtraMethods>>,
}

impl Service {
    pub fn of_node(node: Arc<dyn FullNode>, auth: Arc<Auth>) -> Service {
        Service { auth, node: Some(node), extras: None }
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
