//! Admin HTTP: what is up, what restarted and why. Answers when all else hangs.
//!
//! One thread speaks HTTP and answers liveness; all else is read on the threads of `readers`, of which readiness and
//! callers with a token have their own. Handlers read snapshots only: they never ask an actor. Reading is open to whoever reaches the address (loopback by default); what changes something needs the admin token and leaves a
//! line in the audit log. `views` and [`cluster`] decide what is said, `metrics`, `cluster_metrics` and [`provider_metrics`]
//! how Prometheus gets it, `routes`, `orders` and `nodes` are the HTTP shell. Two things leave the process, both with a deadline: the tree of
//! another node, and an order for the cluster.

mod actor;
mod answer;
pub mod cluster;
mod cluster_metrics;
mod metrics;
mod nodes;
mod orders;
pub mod provider;
pub mod provider_metrics;
mod readers;
mod routes;
mod state;
mod views;

pub use crate::rpc::server_actor::WhereIs;
pub use actor::{AdminHttp, Announce, child, child_announcing};
pub use cluster::ClusterView;
pub use views::{
    AdminViews, DeadLettersView, Ended, Readiness, ReloadError, TreeRow, TreeView, Vitals, readiness, stands_by,
};

use crate::rpc::connection_limits::ConnectionLimiter;
use crate::rpc::descriptors::{self, Surface};
use crate::rpc::http_surface::HttpSurface;
use crate::rpc::listener::SharedListener;
use crate::rpc::refusal_log::RefusalLog;
use crate::rpc::server_actor::RunningServer;
use actix_web::dev::ServerHandle;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub use state::AdminCheck;

/// The one token in the repo's `token` file, compared without telling by time how much of it was right.
pub fn only(token: String) -> AdminCheck {
    Arc::new(move |given| {
        let (a, b) = (token.as_bytes(), given.as_bytes());
        let differs = a.iter().zip(b).fold(0u8, |d, (x, y)| d | (x ^ y));
        !a.is_empty() && a.len() == b.len() && differs == 0
    })
}

/// Flag and key of the address.
pub(super) const SETTING: &str = "--admin-listen or admin.listen";

#[derive(Clone)]
pub struct AdminConfig {
    /// `127.0.0.1:2346` by default; port 0 takes any free one.
    pub listen: SocketAddr,
    pub allow: AdminCheck,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminStartError {
    #[error("admin HTTP: {addr} is in use by another program; stop that one, or set another address with {SETTING}")]
    InUse { addr: SocketAddr },
    #[error("admin HTTP: cannot listen on {addr}: {why}; set another address with {SETTING}")]
    Bind { addr: SocketAddr, why: String },
    #[error("admin HTTP: its thread did not start: {0}")]
    Thread(String),
}

/// A running endpoint. Dropping it closes it.
pub struct AdminHandle {
    addr: SocketAddr,
    server: ServerHandle,
    ended: watch::Receiver<()>,
}

impl AdminHandle {
    /// The listen address, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// Lets answers under way finish.
    pub async fn stop(&self) {
        self.server.stop(true).await;
        self.ended().await;
    }
}

impl RunningServer for AdminHandle {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
    fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }.boxed()
    }
    async fn stop(self) {
        AdminHandle::stop(&self).await;
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        // The command is sent by the call; nobody waits for its end.
        drop(self.server.stop(false));
    }
}

/// One thread that speaks HTTP is enough for people and a scraper, and leaves the cores to proofs.
const WORKERS: usize = 1;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const STOP_WITHIN_SECS: u64 = 2;

/// Listens before it returns.
pub fn start(config: AdminConfig, views: AdminViews) -> Result<AdminHandle, AdminStartError> {
    start_at(&SharedListener::new(config.listen, SETTING), config.allow, views)
}

/// On a socket that outlives this endpoint.
pub fn start_at(door: &SharedListener, allow: AdminCheck, views: AdminViews) -> Result<AdminHandle, AdminStartError> {
    let addr = door.addr();
    let listener = door.open().map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => AdminStartError::InUse { addr },
        _ => AdminStartError::Bind { addr, why: e.to_string() },
    })?;
    let bound = listener.local_addr().map_err(|e| AdminStartError::Bind { addr, why: e.to_string() })?;
    if !bound.ip().is_loopback() {
        tracing::warn!(addr = %bound, "admin HTTP is open beyond this host: anyone who reaches it can read the actor tree");
    }
    let limits = Surface::Admin.limits(descriptors::limit());
    let readers = readers::Readers::start(&views, limits.total).map_err(|e| AdminStartError::Thread(e.to_string()))?;
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let (alive, ended) = watch::channel(());
    let run = move || {
        let _alive = alive; // dropped when the thread ends, by a panic too
        actix_web::rt::System::new().block_on(async move {
            let refusals = RefusalLog::default();
            let state = actix_web::web::Data::new(state::AdminState { views, readers, allow, refusals });
            let surface = HttpSurface {
                limiter: ConnectionLimiter::new(limits),
                workers: WORKERS,
                keep_alive: KEEP_ALIVE,
                stop_within_secs: STOP_WITHIN_SECS,
            };
            let server = surface.serve(listener, move || {
                let checked = actix_web::middleware::from_fn(routes::refuse_cross_site);
                actix_web::App::new().app_data(state.clone()).wrap(checked).configure(routes::configure)
            });
            let server = match server {
                Ok(server) => server,
                Err(e) => {
                    let _ = tell.send(Err(AdminStartError::Bind { addr, why: e.to_string() }));
                    return;
                }
            };
            if tell.send(Ok(server.handle())).is_ok()
                && let Err(e) = server.await
            {
                tracing::error!(error = %e, "admin HTTP ended");
            }
        })
    };
    let thread = std::thread::Builder::new().name("admin-http".into()).spawn(run);
    thread.map_err(|e| AdminStartError::Thread(e.to_string()))?;
    let server = told.recv().map_err(|_| AdminStartError::Thread("it ended at once".into()))??;
    tracing::info!(addr = %bound, "admin HTTP listens");
    Ok(AdminHandle { addr: bound, server, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_opens() {
        let check = only("secret".into());
        let cases =
            [("secret", true), ("secre", false), ("secrets", false), ("Secret", false), ("secreT", false), ("", false)];
        for (given, want) in cases {
            assert_eq!(check(given), want, "{given:?}");
        }
        assert!(!only(String::new())(""), "no token set means nobody");
    }
}
