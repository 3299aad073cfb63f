//! tonic: unary calls over HTTP/2, plain (h2c) and with mutual TLS; tells are one client stream.

use super::load::{Caller, Lost};
use super::secrets::{HOST, pem};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

include!(concat!(env!("OUT_DIR"), "/bench.Echo.rs"));

const ECHO: u32 = 0;
const SEEN: u32 = 1;
const HANG: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    #[prost(uint32, tag = "2")]
    kind: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Seen {
    #[prost(uint64, tag = "1")]
    count: u64,
}

#[derive(Default)]
struct Echoes {
    seen: AtomicU64,
}

#[tonic::async_trait]
impl echo_server::Echo for Echoes {
    async fn ask(&self, asked: Request<Payload>) -> Result<Response<Payload>, Status> {
        let asked = asked.into_inner();
        let data = match asked.kind {
            SEEN => Bytes::copy_from_slice(&self.seen.load(Ordering::Relaxed).to_be_bytes()),
            HANG => std::future::pending().await,
            _ => asked.data,
        };
        Ok(Response::new(Payload { data, kind: ECHO }))
    }
    async fn tell(&self, told: Request<Streaming<Payload>>) -> Result<Response<Seen>, Status> {
        let mut told = told.into_inner();
        while told.message().await?.is_some() {
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Response::new(Seen { count: self.seen.load(Ordering::Relaxed) }))
    }
}

fn identity(secrets: &Path, who: &str) -> Identity {
    Identity::from_pem(pem(secrets, &format!("{who}.pem")), pem(secrets, &format!("{who}.key")))
}

fn authority(secrets: &Path) -> Certificate {
    Certificate::from_pem(pem(secrets, "ca.pem"))
}

pub async fn serve(bind: &str, secrets: &Path, tls: bool, ready: impl FnOnce(String)) {
    let listener = tokio::net::TcpListener::bind(bind).await.expect("a port");
    ready(listener.local_addr().expect("a bound port").to_string());
    let mut server = Server::builder().tcp_nodelay(true);
    if tls {
        let config = ServerTlsConfig::new().identity(identity(secrets, "server")).client_ca_root(authority(secrets));
        server = server.tls_config(config).expect("a TLS server");
    }
    let incoming = futures::StreamExt::inspect(TcpListenerStream::new(listener), |stream| {
        if let Ok(stream) = stream {
            let _ = stream.set_nodelay(true);
        }
    });
    let service = echo_server::EchoServer::new(Echoes::default());
    server.add_service(service).serve_with_incoming(incoming).await.expect("a gRPC server");
}

#[derive(Clone)]
pub struct Client {
    channel: echo_client::EchoClient<Channel>,
    tells: Arc<OnceCell<mpsc::Sender<Payload>>>,
}

pub async fn connect(address: &str, secrets: &Path, tls: bool) -> Result<Client, Lost> {
    let scheme = if tls { "https" } else { "http" };
    let mut endpoint = Channel::from_shared(format!("{scheme}://{address}"))?.tcp_nodelay(true);
    if tls {
        let config = ClientTlsConfig::new().domain_name(HOST).identity(identity(secrets, "client"));
        endpoint = endpoint.tls_config(config.ca_certificate(authority(secrets)))?;
    }
    let channel = echo_client::EchoClient::new(endpoint.connect().await?);
    Ok(Client { channel, tells: Arc::default() })
}

impl Client {
    async fn call(&self, data: Bytes, kind: u32) -> Result<Bytes, Lost> {
        Ok(self.channel.clone().ask(Request::new(Payload { data, kind })).await?.into_inner().data)
    }
}

impl Caller for Client {
    const HEALS: bool = true;

    async fn ask(&self, payload: Bytes) -> Result<usize, Lost> {
        Ok(self.call(payload, ECHO).await?.len())
    }
    async fn tell(&self, payload: Bytes) -> Result<u64, Lost> {
        let stream = self
            .tells
            .get_or_init(async || {
                let (tx, rx) = mpsc::channel(1024);
                let mut channel = self.channel.clone();
                tokio::spawn(async move { channel.tell(Request::new(ReceiverStream::new(rx))).await });
                tx
            })
            .await;
        stream.send(Payload { data: payload, kind: ECHO }).await.map_err(|_| Lost("the stream ended".into()))?;
        Ok(0)
    }
    async fn seen(&self) -> Result<u64, Lost> {
        let bytes = self.call(Bytes::new(), SEEN).await?;
        Ok(bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)))
    }
    async fn hang(&self) -> Lost {
        match self.call(Bytes::new(), HANG).await {
            Err(lost) => lost,
            Ok(_) => Lost("answered".into()),
        }
    }
}
