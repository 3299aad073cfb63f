//! The pool of full nodes, served as one full node: workers, other providers and the lotus command line use it with a token
//! of its own.
//!
//! Every method is passed on, known or not, as the pool sends its own calls: to the next node where one fails.
//! [`permissions`] — who may call what; [`heads`] — `ChainNotify` from the one head feed of this process.

pub mod heads;
pub mod permissions;

use crate::rpc::auth::{Auth, AuthError, Perm, RepoAuth};
use crate::rpc::client::{CallErrorKind, RpcCallError};
use crate::rpc::full_node::pool::NodePool;
use crate::rpc::full_node::pool::calls::PooledCalls;
use crate::rpc::full_node::pool::routes::short;
use crate::rpc::full_node::{CallLimits, open_channel};
use crate::rpc::json_text::JsonText;
use crate::rpc::listener::SharedListener;
use crate::rpc::server::{self, Channel, RpcError, ServerHandle, Service, Upstream};
use crate::rpc::server_actor::ServerActor;
use crate::supervisor::{ChildSpec, Ref, StartError};
use crate::util::lock;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use heads::HeadFan;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// In the repo: whoever has a token of the pool has none of the provider's own API.
const SECRET_FILE: &str = "pool-jwt-secret";
const SETTING: &str = "full_node.listen";

/// A caller may wait for an answer as long as a node needs: it can hang up, and a node that hangs is hedged.
const AT_LEAST: Duration = Duration::from_secs(600);
/// A call that waits for something to happen on the chain.
const WAITS: Duration = Duration::from_secs(6 * 3600);

/// Channels of callers that have a connection to a node of their own: each is a descriptor of this process.
const CHANNELS: usize = 64;

/// A subscriber waits so long for the first head after the start.
const FIRST_HEAD: Duration = Duration::from_secs(30);

pub type PoolApiServer = ServerActor<ServerHandle>;

/// The pool as it is served.
pub struct PoolApi {
    pool: NodePool,
    /// Connections of the callers' own: to v0, v1 and v2 of the nodes' API.
    calls: [(&'static str, PooledCalls); 3],
    heads: Arc<HeadFan>,
    channels: Arc<Semaphore>,
    limits: CallLimits,
    auth: RepoAuth,
    /// `None`: it does not listen.
    addr: Mutex<Option<SocketAddr>>,
}

impl PoolApi {
    /// `seed`: the miner whose primary is asked first.
    pub fn new(pool: NodePool, seed: &str, repo: &Path) -> PoolApi {
        PoolApi {
            calls: ["v0", "v1", "v2"].map(|v| (v, PooledCalls::of_version(pool.clone(), seed, v))),
            pool,
            heads: Arc::default(),
            channels: Arc::new(Semaphore::new(CHANNELS)),
            limits: CallLimits::default(),
            auth: RepoAuth::of_file(&repo.join(SECRET_FILE)),
            addr: Mutex::new(None),
        }
    }

    pub fn heads(&self) -> Arc<HeadFan> {
        self.heads.clone()
    }

    fn within(&self, method: &str) -> Duration {
        if crate::rpc::full_node::pool::retry::waits(short(method)) {
            return WAITS;
        }
        self.limits.deadline(method).max(AT_LEAST)
    }

    /// The value of `FULLNODE_API_INFO` for others, with a token of `perm` and all below it.
    pub fn api_info(&self, perm: Perm) -> Result<String, ApiInfoError> {
        let addr = *lock(&self.addr);
        let addr = addr.ok_or(ApiInfoError::NotServed)?;
        let ip = match addr.ip() {
            ip if ip.is_unspecified() => own_address(ip).ok_or(ApiInfoError::NoAddress)?,
            ip => ip,
        };
        let token = self.auth.open()?.token(&perm.up_to())?;
        let version = if ip.is_ipv4() { "ip4" } else { "ip6" };
        Ok(format!("{token}:/{version}/{ip}/tcp/{}/http", addr.port()))
    }

    fn calls(&self, version: &str) -> Result<&PooledCalls, RpcError> {
        let found = self.calls.iter().find(|(name, _)| *name == version);
        found
            .map(|(_, calls)| calls)
            .ok_or_else(|| RpcError::invalid_request(format!("no version {version} of the API")))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApiInfoError {
    #[error("the pool of full nodes is not served here: set full_node.listen, and see `bulkhead tree` if it is set")]
    NotServed,
    #[error("this host's own address is not known: set full_node.listen to it, instead of all addresses")]
    NoAddress,
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// The address with which this host would reach others; nothing is sent.
fn own_address(unspecified: IpAddr) -> Option<IpAddr> {
    let elsewhere = if unspecified.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// As go-jsonrpc gives it to a caller: the node's own verdict as it is, a fault of ours in words.
fn told(error: RpcCallError) -> RpcError {
    match error.kind {
        CallErrorKind::Rpc { code, message } => RpcError { code, message },
        CallErrorKind::NoSuchMethod => RpcError::no_method(&error.method),
        _ => RpcError::verdict(error.to_string()),
    }
}

#[async_trait]
impl Upstream for PoolApi {
    fn permission(&self, method: &str) -> Perm {
        permissions::permission(method)
    }

    async fn call(&self, version: &str, method: &str, params: Vec<Value>) -> Result<JsonText, RpcError> {
        self.calls(version)?.call(method, params, self.within(method)).await.map_err(told)
    }

    fn opens_channel(&self, method: &str) -> bool {
        let channels =
            ["ChainNotify", "Closing", "ChainExport", "SyncIncomingBlocks", "MpoolSub", "SubscribeActorEventsRaw"];
        method.strip_prefix("Filecoin.").is_some_and(|short| channels.contains(&short))
    }

    /// Heads come from this process' own feed, whichever node it follows; any other channel is one node's, and ends with it.
    async fn channel(&self, version: &str, method: &str, params: Vec<Value>) -> Result<Channel, RpcError> {
        match short(method) {
            "ChainNotify" => self.heads.subscribe(FIRST_HEAD).await,
            "Closing" => Ok(stream::pending().boxed()),
            _ => {
                let full =
                    |_| RpcError::verdict("too many channels of the full nodes are open; close some, then try again");
                let place = self.channels.clone().try_acquire_owned().map_err(full)?;
                let none = || RpcError::verdict(self.pool.why_none());
                let node = self.calls(version)?.pinned_for(method).and_then(|one| one.address()).ok_or_else(none)?;
                let opened = open_channel::<JsonText>(&node, version, method, &params, &self.limits).await;
                let values = opened.map_err(told)?;
                let next = stream::unfold((values, place), async |(mut values, place)| {
                    let value = values.recv().await?;
                    Some((Arc::from(value.as_str()), (values, place)))
                });
                Ok(next.boxed())
            }
        }
    }
}

/// The server as a child of the tree.
pub fn child(listen: SocketAddr, api: Arc<PoolApi>, address: &Ref<PoolApiServer>) -> ChildSpec {
    let door = SharedListener::new(listen, SETTING);
    ChildSpec::actor("pool_api", address, move |_cx| {
        let started = start(&api, &door);
        async move { started }
    })
}

fn start(api: &Arc<PoolApi>, door: &SharedListener) -> Result<PoolApiServer, StartError> {
    let failed = |why: &dyn std::fmt::Display| StartError(why.to_string());
    let auth: Arc<Auth> = api.auth.open().map_err(|e| failed(&e))?;
    let server = server::serve_at(door, Service::of_upstream(api.clone(), auth)).map_err(|e| failed(&e))?;
    *lock(&api.addr) = Some(server.addr());
    Ok(ServerActor::new("API of the pool", server, door))
}
