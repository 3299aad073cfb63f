//! The sockets of the market host: taken up to its limits, with a share per remote host, before any handshake.

use super::host::HostStats;
use crate::rpc::connection_limits::{Connection, ConnectionLimiter, ConnectionLimits, ConnectionPermit};
use crate::rpc::limited_stream::LimitedStream;
use crate::util::lock;
use futures::FutureExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, noise, tcp, yamux};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone)]
pub struct Inbound {
    limiter: ConnectionLimiter,
    /// Connections whose handshake is under way, by the remote address and port.
    pending: Arc<Mutex<HashMap<Multiaddr, Connection>>>,
    stats: Arc<HostStats>,
}

impl Inbound {
    pub fn new(limits: ConnectionLimits, stats: Arc<HostStats>) -> Inbound {
        Inbound { limiter: ConnectionLimiter::new(limits), pending: Arc::default(), stats }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Multiaddr, Connection>> {
        lock(&self.pending)
    }

    async fn admit(&self, point: &ConnectedPoint) -> io::Result<ConnectionPermit> {
        let from = point.get_remote_address();
        let Some(permit) = self.limiter.admit_soon(ip_of(from)).await else {
            self.stats.connections_refused.fetch_add(1, Relaxed);
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "too many connections at once"));
        };
        if point.is_listener() {
            self.pending().insert(from.clone(), permit.connection().clone());
        }
        Ok(permit)
    }

    /// The handshake with `from` is done. `false`: its host has its share of connections.
    pub fn established(&self, from: &Multiaddr) -> bool {
        // A connection that was dialled was never pending here.
        let admitted = self.pending().remove(from).is_none_or(|connection| connection.identify());
        if !admitted {
            self.stats.connections_refused.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// The handshake with `from` has failed.
    pub fn failed(&self, from: &Multiaddr) {
        self.pending().remove(from);
    }

    /// TCP, noise, yamux.
    pub fn transport(&self, key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
        let inbound = self.clone();
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        let limited = tcp.and_then(move |socket, point| {
            let inbound = inbound.clone();
            async move { Ok::<_, io::Error>(LimitedStream::new(socket, inbound.admit(&point).await?)) }.boxed()
        });
        let secured = limited.upgrade(Version::V1Lazy).authenticate(noise::Config::new(key)?);
        Ok(secured.multiplex(yamux::Config::default()).boxed())
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}
