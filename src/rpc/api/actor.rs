//! The API server as a child of the tree; each start leaves its address and the admin's token in the repo.

use super::{MinerBackend, StorageMinerApi};
use crate::rpc::auth::RepoAuth;
use crate::rpc::listener::SharedListener;
use crate::rpc::server::{self, ServerHandle, Service};
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, StartError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

const SETTING: &str = "--api-listen or api.listen";

#[derive(Clone)]
pub struct ApiConfig {
    /// `127.0.0.1:2345` by default; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The folder where `token` and `api` are written.
    pub repo: PathBuf,
    pub auth: Arc<RepoAuth>,
}

pub struct ApiServer {
    /// Taken when it is stopped.
    pub(super) server: Option<ServerHandle>,
    addr: SocketAddr,
    door: SharedListener,
    /// Why the repo does not say where it listens.
    trouble: Option<String>,
}

/// The address that it listens on now.
#[derive(Clone, Copy, Debug)]
pub struct WhereIs;

impl Message for WhereIs {
    type Reply = SocketAddr;
}

pub fn child(config: ApiConfig, backend: Arc<dyn MinerBackend>, address: &Ref<ApiServer>) -> ChildSpec {
    let door = SharedListener::new(config.listen, SETTING);
    ChildSpec::actor("api_server", address, move |_cx| {
        let started = ApiServer::start_at(&config, &door, backend.clone());
        async move { started }
    })
}

impl ApiServer {
    pub fn start(config: &ApiConfig, backend: Arc<dyn MinerBackend>) -> Result<ApiServer, StartError> {
        ApiServer::start_at(config, &SharedListener::new(config.listen, SETTING), backend)
    }

    fn start_at(
        config: &ApiConfig,
        door: &SharedListener,
        backend: Arc<dyn MinerBackend>,
    ) -> Result<ApiServer, StartError> {
        let auth = config.auth.open().map_err(|e| StartError(e.to_string()))?;
        let service = Service { auth: auth.clone(), node: None, extras: Some(Arc::new(StorageMinerApi::new(backend))) };
        let server = server::serve_at(door, service).map_err(|e| StartError(e.to_string()))?;
        let addr = server.addr();
        // For tools on this host: who has the token and the address does without.
        let trouble = auth.write_repo_files(&config.repo, addr).err().map(|e| e.to_string());
        if let Some(why) = &trouble {
            tracing::error!("the API serves, but tools on this host do not find it: {why}");
        }
        Ok(ApiServer { server: Some(server), addr, door: door.clone(), trouble })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Its server ended by itself.
struct ThreadEnded;

impl Message for ThreadEnded {
    type Reply = ();
}

impl Actor for ApiServer {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.trouble(self.trouble.clone());
        if let Some(ended) = self.server.as_ref().map(ServerHandle::ended) {
            cx.spawn(async move {
                ended.await;
                ThreadEnded
            });
        }
        Ok(())
    }

    async fn stopping(&mut self, _cx: &Cx<Self>) {
        self.door.close();
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

impl Handler<ThreadEnded> for ApiServer {
    async fn handle(&mut self, _: ThreadEnded, _cx: &Cx<Self>) -> Result<(), Exit> {
        Err(Exit::failed("the API server's thread ended"))
    }
}

impl Handler<WhereIs> for ApiServer {
    async fn handle(&mut self, _: WhereIs, _cx: &Cx<Self>) -> Result<SocketAddr, Exit> {
        Ok(self.addr)
    }
}
