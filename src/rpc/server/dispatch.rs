//! From a method's name and a caller's permissions to an outcome.

use super::envelope::{Reply, RpcError, as_v1};
use super::json::{Params, to_json};
use super::service::{Channel, Service};
use super::{derived, methods, shapes};
use crate::chain::lotus_json::WholeBytes;
use crate::chain::types::HeadChange;
use crate::rpc::auth::Perm;
use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

pub struct Dispatch {
    pub service: Service,
    /// `MpoolPushMessage` takes nonces one caller at a time.
    pub pushing: tokio::sync::Mutex<()>,
    /// Changes with every start.
    session: String,
}

/// The methods that concern the server itself.
const OWN: [(&str, Perm); 3] = [("AuthVerify", Perm::Read), ("AuthNew", Perm::Admin), ("Session", Perm::Read)];

fn own(short: &str) -> Option<Perm> {
    OWN.iter().find(|(name, _)| *name == short).map(|(_, perm)| *perm)
}

impl Dispatch {
    pub fn new(service: Service) -> Dispatch {
        let mut id: [u8; 16] = rand::random();
        id[6] = id[6] & 0x0f | 0x40; // UUID version 4
        id[8] = id[8] & 0x3f | 0x80;
        let h = hex::encode(id);
        let session = format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]);
        Dispatch { service, pushing: tokio::sync::Mutex::new(()), session }
    }

    /// The permission that the method needs, or an error if there is no such method.
    pub fn permission(&self, method: &str) -> Result<Perm, RpcError> {
        if let Some(perm) = self.service.extras.as_ref().and_then(|e| e.permission(method)) {
            return Ok(perm);
        }
        let short = method.strip_prefix("Filecoin.");
        let own = short.and_then(own);
        if let Some(upstream) = &self.service.upstream {
            return Ok(own.unwrap_or_else(|| upstream.permission(method)));
        }
        let short = short.ok_or_else(|| RpcError::no_method(method))?;
        let table = || self.service.node.as_ref().and_then(|_| methods::find(short)).map(|m| m.perm);
        let feed = || (short == "ChainNotify" && self.service.node.is_some()).then_some(Perm::Read);
        own.or_else(table).or_else(feed).ok_or_else(|| RpcError::no_method(method))
    }

    pub fn permit(&self, perms: &[Perm], method: &str) -> Result<(), RpcError> {
        let need = self.permission(method)?;
        if need.is_given_by(perms) {
            return Ok(());
        }
        let short = method.strip_prefix("Filecoin.").unwrap_or(method);
        Err(RpcError::verdict(format!("missing permission to invoke '{short}' (need '{}')", need.name())))
    }

    /// A panic in a method is that call's error and nobody else's.
    pub async fn call(
        &self,
        perms: &[Perm],
        version: &str,
        method: &str,
        params: Vec<Value>,
    ) -> Result<Reply, RpcError> {
        self.permit(perms, method)?;
        let run = async {
            let is_own = method.strip_prefix("Filecoin.").is_some_and(|short| own(short).is_some());
            match &self.service.upstream {
                _ if self.opens_channel(method) => Err(RpcError {
                    code: -32601,
                    message: format!("method '{method}' not supported in this mode (no out channel support)"),
                }),
                Some(upstream) if !is_own => upstream.call(version, method, params).await.map(Reply::Text),
                _ => self.run(method, as_v1(version, method, params)).await.map(Reply::Value),
            }
        };
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(method, "an API method panicked");
                Err(RpcError { code: 0, message: format!("fatal error calling '{method}': panic in rpc method") })
            }
        }
    }

    /// The method's result is a channel.
    pub fn opens_channel(&self, method: &str) -> bool {
        match &self.service.upstream {
            Some(upstream) => upstream.opens_channel(method),
            None => method == "Filecoin.ChainNotify" && self.service.node.is_some(),
        }
    }

    pub async fn channel(
        &self,
        perms: &[Perm],
        version: &str,
        method: &str,
        params: Vec<Value>,
    ) -> Result<Channel, RpcError> {
        self.permit(perms, method)?;
        match (&self.service.upstream, &self.service.node) {
            (Some(upstream), _) => upstream.channel(version, method, params).await,
            (None, Some(node)) => {
                let heads = node.chain_notify().await?;
                let heads = stream::unfold(heads, async |mut heads| Some((heads.recv().await?, heads)));
                Ok(heads.scan((), |(), batch| std::future::ready(head_changes(&batch))).boxed())
            }
            (None, None) => Err(RpcError::no_method(method)),
        }
    }

    async fn run(&self, method: &str, mut params: Vec<Value>) -> Result<Value, RpcError> {
        let short = method.strip_prefix("Filecoin.").unwrap_or(method);
        if let Some(extras) = &self.service.extras
            && extras.permission(method).is_some()
        {
            // Kept only where the node could answer instead.
            let spare = self.service.node.as_ref().and_then(|_| methods::find(short)).map(|_| params.clone());
            match (extras.call(method, std::mem::take(&mut params)).await, spare) {
                (Some(outcome), _) if self.service.node.is_some() => return outcome.map(shapes::no_empty_lists),
                (Some(outcome), _) => return outcome,
                (None, Some(spare)) => params = spare,
                (None, None) => return Err(RpcError::no_method(method)),
            }
        }
        let mut params = Params::new(method, params);
        match short {
            "Session" => {
                params.expect(0)?;
                Ok(self.session.clone().into())
            }
            "AuthVerify" => {
                params.expect(1)?;
                let token: String = params.take()?;
                let perms = self.service.auth.verify(&token).map_err(|e| RpcError::verdict(e.to_string()))?;
                to_json(&perms)
            }
            "AuthNew" => {
                params.expect(1)?;
                let perms: Vec<Perm> = params.take()?;
                let token = self.service.auth.token(&perms).map_err(|e| RpcError::verdict(e.to_string()))?;
                to_json(&WholeBytes(token.into_bytes()))
            }
            _ => match (methods::find(short), &self.service.node) {
                (Some(found), Some(node)) => {
                    params.expect(found.arity)?;
                    let answer =
                        (found.call)(derived::Ctx { node: node.as_ref(), pushing: &self.pushing }, params).await;
                    answer.map(shapes::no_empty_lists)
                }
                _ => Err(RpcError::no_method(method)),
            },
        }
    }
}

/// `None` ends the channel.
fn head_changes(batch: &[HeadChange]) -> Option<Arc<str>> {
    match to_json(&batch) {
        Ok(batch) => Some(shapes::no_empty_lists(batch).to_string().into()),
        Err(why) => {
            tracing::error!(%why, "a head change has no JSON: its channel ends");
            None
        }
    }
}
