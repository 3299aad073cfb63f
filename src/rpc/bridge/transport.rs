//! libp2p's transports: TCP with noise and yamux, QUIC if wanted. Who is not on the allow-list ends in the handshake.
//!
//! Its swarm is not used: there one task owns a connection, and a frame would wait for that task to wake up.

use super::counters::{Counters, Refusal};
use super::muxer::Yamux;
use crate::util::lock;
use futures::future::BoxFuture;
use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
#[cfg(feature = "cluster")]
use libp2p::quic;
use libp2p::{PeerId, noise, tcp};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Noise by itself reads 8 KiB at a time.
const READ_AT_ONCE: usize = 128 * 1024;

/// The PeerIds that may connect; replaceable at run time.
#[derive(Default)]
pub struct AllowList {
    peers: Mutex<HashSet<PeerId>>,
}

impl AllowList {
    pub fn replace(&self, peers: HashSet<PeerId>) {
        *lock(&self.peers) = peers;
    }
    pub fn has(&self, peer: &PeerId) -> bool {
        lock(&self.peers).contains(peer)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[error("{0} is not on the allow-list")]
    NotAllowed(PeerId),
}

/// Noise, then the allow-list.
#[derive(Clone)]
struct Guarded {
    noise: noise::Config,
    allow: Arc<AllowList>,
    strangers: Arc<Counters>,
}

impl Guarded {
    fn check(&self, peer: PeerId) -> Result<(), HandshakeError> {
        if self.allow.has(&peer) {
            return Ok(());
        }
        self.strangers.refuse(Refusal::UnknownPeer);
        Err(HandshakeError::NotAllowed(peer))
    }
}

impl UpgradeInfo for Guarded {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;
    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for Guarded {
    type Output = (PeerId, noise::Output<T>);
    type Error = HandshakeError;
    type Future = BoxFuture<'static, Result<Self::Output, HandshakeError>>;
    fn upgrade_inbound(self, socket: T, info: Self::Info) -> Self::Future {
        async move {
            let (peer, io) = self.noise.clone().upgrade_inbound(socket, info).await?;
            self.check(peer).map(|()| (peer, io))
        }
        .boxed()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for Guarded {
    type Output = (PeerId, noise::Output<T>);
    type Error = HandshakeError;
    type Future = BoxFuture<'static, Result<Self::Output, HandshakeError>>;
    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        async move {
            let (peer, io) = self.noise.clone().upgrade_outbound(socket, info).await?;
            self.check(peer).map(|()| (peer, io))
        }
        .boxed()
    }
}

pub type Connected = (PeerId, StreamMuxerBox);

pub fn build(
    key: &Keypair,
    with_quic: bool,
    handshake: Duration,
    allow: Arc<AllowList>,
    strangers: Arc<Counters>,
) -> Result<Boxed<Connected>, noise::Error> {
    let guarded = Guarded { noise: noise::Config::new(key)?, allow: allow.clone(), strangers: strangers.clone() };
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|socket, _| BufReader::with_capacity(READ_AT_ONCE, socket))
        .upgrade(Version::V1Lazy)
        .authenticate(guarded)
        .multiplex(Yamux)
        .timeout(handshake)
        .boxed();
    #[cfg(feature = "cluster")]
    if with_quic {
        return Ok(beside_quic(tcp, key, handshake, allow, strangers));
    }
    debug_assert!(!with_quic, "a build without QUIC refuses its addresses before");
    Ok(tcp)
}

/// QUIC has its own handshake: the list is asked as soon as that names the peer.
#[cfg(feature = "cluster")]
fn beside_quic(
    tcp: Boxed<Connected>,
    key: &Keypair,
    handshake: Duration,
    allow: Arc<AllowList>,
    strangers: Arc<Counters>,
) -> Boxed<Connected> {
    use futures::future::Either;
    let mut config = quic::Config::new(key);
    config.handshake_timeout = handshake;
    let quic = quic::tokio::Transport::new(config).and_then(move |(peer, connection), _| {
        let allowed = allow.has(&peer);
        if !allowed {
            strangers.refuse(Refusal::UnknownPeer);
        }
        futures::future::ready(match allowed {
            true => Ok((peer, StreamMuxerBox::new(connection))),
            false => Err(HandshakeError::NotAllowed(peer)),
        })
    });
    let either = tcp.or_transport(quic).map(|it, _| match it {
        Either::Left(it) | Either::Right(it) => it,
    });
    either.boxed()
}
