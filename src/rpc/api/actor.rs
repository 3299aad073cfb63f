//! The API server as a child of the tree; each start leaves its address and the admin's token in the repo.

use super::{MinerBackend, StorageMinerApi};
use crate::rpc::auth::RepoAuth;
use crate::rpc::listener::SharedListener;
use crate::rpc::server::{self, ServerHandle, Service};
use crate::rpc::server_actor::ServerActor;
use crate::supervisor::{ChildSpec, Ref, StartError};
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

pub type ApiServer = ServerActor<ServerHandle>;

pub fn child(config: ApiConfig, backend: Arc<dyn MinerBackend>, address: &Ref<ApiServer>) -> ChildSpec {
    let door = SharedListener::new(config.listen, SETTING);
    ChildSpec::actor("api_server", address, move |_cx| {
        let started = start_at(&config, &door, backend.clone());
        async move { started }
    })
}

pub fn start(config: &ApiConfig, backend: Arc<dyn MinerBackend>) -> Result<ApiServer, StartError> {
    start_at(config, &SharedListener::new(config.listen, SETTING), backend)
}

fn start_at(
    config: &ApiConfig,
    door: &SharedListener,
    backend: Arc<dyn MinerBackend>,
) -> Result<ApiServer, StartError> {
    let auth = config.auth.open().map_err(|e| StartError(e.to_string()))?;
    let service = Service::of_methods(Arc::new(StorageMinerApi::new(backend)), auth.clone());
    let server = server::serve_at(door, service).map_err(|e| StartError(e.to_string()))?;
    let addr = server.addr();
    let left = auth.write_repo_files(&config.repo, addr);
    Ok(ServerActor::new("API server", server, door).not_found_by_tools(left.err().map(|e| e.to_string())))
}
