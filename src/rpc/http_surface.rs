//! An HTTP server whose connections are limited: what actix-web's own `HttpServer` does, on [`LimitedStream`]s.

use super::connection_limits::{Connection, ConnectionLimiter};
use super::limited_stream::LimitedStream;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_server::Server;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::{Error, HttpRequest};
use std::fmt::Debug;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

/// A request's head must be complete after this long.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The time for the last bytes of a connection that is closed.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Sockets of one worker that wait to be admitted.
const WAITING: usize = 16;

pub struct HttpSurface {
    pub limiter: ConnectionLimiter,
    /// Threads that serve.
    pub workers: usize,
    /// A connection without a request under way ends after this long.
    pub keep_alive: Duration,
    /// Answers under way have this long to finish at an orderly stop.
    pub stop_within_secs: u64,
}

impl HttpSurface {
    /// Listens; the returned server must be polled to run. `app` is called once per worker.
    pub fn serve<F, I, S, B>(self, listener: TcpListener, app: F) -> io::Result<Server>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Service: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        let HttpSurface { limiter, workers, keep_alive, stop_within_secs } = self;
        let addr = listener.local_addr()?;
        // Those that wait to be admitted are few too: beyond that the listener's backlog holds them.
        let accepted = limiter.limits().total / workers + WAITING;
        let builder = Server::build().workers(workers).max_concurrent_connections(accepted);
        let builder = builder.disable_signals().shutdown_timeout(stop_within_secs);
        let stopping = builder.graceful_shutdown_signal();
        let connections = move || {
            let (limiter, stopping) = (limiter.clone(), stopping.clone());
            let accept = fn_service(move |socket: TcpStream| {
                let limiter = limiter.clone();
                async move {
                    let peer = socket.peer_addr().ok();
                    let Some(permit) = limiter.admit_soon(peer.map(|peer| peer.ip())).await else {
                        return Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
                    };
                    let _ = socket.set_nodelay(true); // it only makes answers faster
                    Ok((LimitedStream::new(socket, permit), Protocol::Http1, peer))
                }
            });
            let service = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .keep_alive(keep_alive)
                .client_request_timeout(HEAD_WITHIN)
                .client_disconnect_timeout(DISCONNECT_WITHIN)
                .local_addr(addr)
                .on_connect_ext(|stream: &LimitedStream<TcpStream>, data: &mut actix_http::Extensions| {
                    data.insert(stream.permit().connection().clone());
                });
            let app = app().into_factory().map_err(|e| e.into().error_response());
            let config = AppConfig::__priv_test_new(false, addr.to_string(), addr);
            accept.and_then(service.finish(map_config(app, move |()| config.clone())))
        };
        Ok(builder.listen(format!("http-{addr}"), listener, connections)?.run())
    }
}

/// The caller of `request` has shown a valid token. `false`: no room is left for callers with one.
pub fn identify(request: &HttpRequest) -> bool {
    request.conn_data::<Connection>().is_none_or(Connection::identify)
}
