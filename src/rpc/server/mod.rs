//! Serves `Filecoin.*` JSON-RPC 2.0 over HTTP and WebSocket on `/rpc/v0` and `/rpc/v1`, the way Lotus does.
//!
//! * [`envelope`] — requests, answers, errors on the wire; [`dispatch`] — permission, then the method.
//! * [`methods`] — the table of methods that any `FullNode` can answer; [`derived`] — those composed from others.
//! * [`http`], [`channel`] — the two transports; `ChainNotify` needs the second. [`bounds`], [`frames`] — what a
//!   caller may send; [`strangers`] — what those without a token may take.
//!
//! The server has threads of its own: a busy or crashed rest of the process does not stop it, nor it them.

mod bounds;
mod channel;
mod derived;
mod dispatch;
mod envelope;
mod frames;
mod http;
mod json;
mod methods;
mod service;
mod shapes;
mod strangers;

pub use envelope::RpcError;
pub use service::{Channel, ExtraMethods, Service, Upstream};

use crate::rpc::connection_limits::ConnectionLimiter;
use crate::rpc::descriptors::{self, Surface};
use crate::rpc::http_surface::HttpSurface;
use crate::rpc::listener::SharedListener;
use crate::rpc::server_actor::RunningServer;
use actix_web::dev::ServerHandle as ActixHandle;
use actix_web::{App, web};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{addr} is in use by another program{forest}: stop that one, or set another address with {setting}", forest = forest(*addr))]
    InUse { addr: SocketAddr, setting: &'static str },
    #[error("the API cannot listen on {addr}: {why}; set another address with {setting}")]
    Listen { addr: SocketAddr, why: String, setting: &'static str },
    #[error("the API server on {addr} did not start: {why}")]
    Start { addr: SocketAddr, why: String },
}

/// Forest has the same default port, and may run on the same host.
fn forest(addr: SocketAddr) -> &'static str {
    if addr.port() == 2345 { " (Forest listens on 2345 by default)" } else { "" }
}

/// A running server. It ends when this is dropped; [`stop`](ServerHandle::stop) also waits for the end.
pub struct ServerHandle {
    addr: SocketAddr,
    server: ActixHandle,
    stopping: watch::Sender<bool>,
    ended: watch::Receiver<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const WORKERS: usize = 2;
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Port 0 takes a free one: see [`ServerHandle::addr`].
pub fn serve(addr: SocketAddr, service: Service) -> Result<ServerHandle, ServeError> {
    serve_at(&SharedListener::new(addr, "its setting"), service)
}

/// On a socket that outlives this server.
pub fn serve_at(door: &SharedListener, service: Service) -> Result<ServerHandle, ServeError> {
    let (addr, setting) = (door.addr(), door.setting());
    let listener = door.open().map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => ServeError::InUse { addr, setting },
        _ => ServeError::Listen { addr, why: e.to_string(), setting },
    })?;
    let addr = listener.local_addr().map_err(|e| ServeError::Listen { addr, why: e.to_string(), setting })?;
    let (stopping, stop) = watch::channel(false);
    let (started_tx, started) = std::sync::mpsc::channel();
    let (alive, ended) = watch::channel(());
    let run = move || {
        let _alive = alive; // dropped when the thread ends, by a panic too
        actix_web::rt::System::new().block_on(async move {
            let descriptors = descriptors::limit();
            let sockets = ConnectionLimiter::new(Surface::WebSocket.limits(descriptors));
            let shared = web::Data::new(http::ServerState::new(service, sockets, stop));
            let surface = HttpSurface {
                limiter: ConnectionLimiter::new(Surface::JsonRpc.limits(descriptors)),
                workers: WORKERS,
                keep_alive: KEEP_ALIVE,
                stop_within_secs: 1,
            };
            let server = surface.serve(listener, move || {
                App::new().app_data(shared.clone()).service(
                    web::resource("/rpc/{version:v0|v1|v2}")
                        .route(web::get().to(http::upgrade))
                        .route(web::post().to(http::post)),
                )
            });
            match server {
                Ok(server) => {
                    let _ = started_tx.send(Ok(server.handle()));
                    if let Err(error) = server.await {
                        tracing::error!(%addr, %error, "API server ended");
                    }
                }
                Err(e) => {
                    let _ = started_tx.send(Err(e.to_string()));
                }
            }
        });
    };
    let start_error = |why: String| ServeError::Start { addr, why };
    let thread = std::thread::Builder::new()
        .name(format!("api-{}", addr.port()))
        .spawn(run)
        .map_err(|e| start_error(e.to_string()))?;
    let server = started.recv().map_err(|_| start_error("its thread ended".into()))?.map_err(start_error)?;
    tracing::info!(%addr, "serving Filecoin.* JSON-RPC");
    Ok(ServerHandle { addr, server, stopping, ended, thread: Some(thread) })
}

impl ServerHandle {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As if the server had ended by itself.
    #[cfg(test)]
    pub(crate) async fn fall(&self) {
        self.server.stop(false).await;
    }

    /// Answers what is in flight (for a second at most), closes the feeds, frees the port.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        self.server.stop(true).await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl RunningServer for ServerHandle {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
    fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }.boxed()
    }
    async fn stop(self) {
        ServerHandle::stop(self).await;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        let _ = self.stopping.send(true);
        drop(self.server.stop(false)); // the command is sent at once; nobody waits
    }
}
