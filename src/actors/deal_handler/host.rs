//! The market's libp2p host: its own key and connection limits; answers identify, ping and asks.

use super::ask::{self, AskRequest, AskResponse, SignedStorageAsk};
use super::codec::AskCodec;
use super::inbound::HostStats;
use super::inbound::Inbound;
use super::runtime::{self, Stop};
pub use super::runtime::{End, Ended};
use super::settings::{MarketSettings, SettingError};
use crate::rpc::descriptors::{self, market_limits};
use futures::StreamExt;
use fvm_shared::address::Address;
use libp2p::connection_limits::{self, ConnectionLimits, Exceeded};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, ping};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The agent version that clients see (`lotus net peers --agent`).
pub const AGENT: &str = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));
/// As every Filecoin host announces itself.
const IDENTIFY_PROTOCOL: &str = "ipfs/0.1.0";
/// Streams that one connection may have in negotiation, or in an ask, at a time; further ones are dropped.
const STREAMS_PER_CONNECTION: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(
        "market: cannot listen on {addr}: {why}; free the address, or set another with --market-listen or market.listen"
    )]
    Listen { addr: Multiaddr, why: String },
    #[error("market: no longer listening on {addrs}: {why}")]
    ListenerLost { addrs: String, why: String },
    #[error("market: the libp2p host could not be made: {0}")]
    Build(String),
    #[error("market: the libp2p host ended before it listened: {0}")]
    Died(String),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    ask: request_response::Behaviour<AskCodec>,
}

/// A running host. Dropping it ends its thread.
pub struct Host {
    pub peer_id: PeerId,
    pub stats: Arc<HostStats>,
    pub addrs: watch::Receiver<Vec<Multiaddr>>,
    stop: Stop,
    panic: mpsc::Sender<()>,
}

impl Host {
    /// Returns when every address is listened on. [`End`] tells how the host's thread ended.
    pub async fn start(
        miner: Address,
        key: Keypair,
        settings: &MarketSettings,
        ask: watch::Receiver<Option<Arc<SignedStorageAsk>>>,
    ) -> Result<(Host, End), HostError> {
        let listen = settings.listen_addrs()?;
        let peer_id = key.public().to_peer_id();
        let stats = Arc::new(HostStats::default());
        let (addrs_tx, addrs) = watch::channel(Vec::new());
        let (ready_tx, ready) = oneshot::channel();
        let (panic, panic_rx) = mpsc::channel(1);
        let (settings, counted) = (settings.clone(), stats.clone());
        let (stop, ended) = runtime::spawn(&format!("market-{miner}"), move |stopped| async move {
            // The swarm is made here: its connections run on the runtime that it is made on.
            let (established, pending) = (settings.max_connections as usize, settings.max_pending_connections as usize);
            let limits = market_limits(established, pending, descriptors::limit());
            let inbound = Inbound::new(limits, counted.clone());
            let codec = AskCodec { bad_requests: counted.bad_requests.clone() };
            let built = build(key, &settings, codec, &inbound, limits.total as u32).and_then(|mut swarm| {
                let waiting = listen_on(&mut swarm, &listen)?;
                Ok((swarm, waiting))
            });
            match built {
                Err(e) => {
                    let _ = ready_tx.send(Err(e));
                    Ok(())
                }
                Ok((swarm, waiting)) => {
                    let (stats, addrs, ready) = (counted, addrs_tx, Some(ready_tx));
                    let serving = Serving { miner, swarm, inbound, ask, stats, addrs, waiting, ready };
                    serving.run(stopped, panic_rx).await
                }
            }
        })
        .map_err(|e| HostError::Build(e.to_string()))?;
        match ready.await {
            Ok(Ok(())) => Ok((Host { peer_id, stats, addrs, stop, panic }, ended)),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(HostError::Died(format!("{:?}", ended.wait().await))),
        }
    }

    /// The thread ends soon after; [`End`] tells when.
    pub fn stop(&mut self) {
        self.stop.now();
    }

    /// For drills and tests: makes the swarm's task panic.
    pub fn panic(&self) {
        let _ = self.panic.try_send(());
    }
}

/// `accepted`: sockets that may wait for [`Inbound`] to look at them.
fn build(
    key: Keypair,
    settings: &MarketSettings,
    codec: AskCodec,
    inbound: &Inbound,
    accepted: u32,
) -> Result<Swarm<Behaviour>, HostError> {
    let built = |e: &dyn std::fmt::Display| HostError::Build(e.to_string());
    let limits = ConnectionLimits::default()
        .with_max_established(Some(settings.max_connections))
        .with_max_established_per_peer(Some(settings.max_connections_per_peer))
        .with_max_pending_incoming(Some(accepted))
        .with_max_pending_outgoing(Some(settings.max_pending_connections));
    let ask_config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(settings.request_timeout_secs))
        .with_max_concurrent_streams(STREAMS_PER_CONNECTION);
    let idle = Duration::from_secs(settings.idle_timeout_secs);
    Ok(libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| Ok(inbound.transport(key)?))
        .map_err(|e| built(&e))?
        .with_behaviour(|key| Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public()).with_agent_version(AGENT.into()),
            ),
            ping: ping::Behaviour::default(),
            ask: request_response::Behaviour::with_codec(
                codec,
                [(StreamProtocol::new(ask::PROTOCOL), ProtocolSupport::Inbound)],
                ask_config,
            ),
        })
        .map_err(|e| built(&e))?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(idle).with_max_negotiating_inbound_streams(STREAMS_PER_CONNECTION)
        })
        .build())
}

fn listen_on(swarm: &mut Swarm<Behaviour>, addrs: &[Multiaddr]) -> Result<HashSet<ListenerId>, HostError> {
    let each = |addr: &Multiaddr| {
        let refused = |why: String| HostError::Listen { addr: addr.clone(), why };
        // libp2p shares a port between listeners of one user: two nodes on it would each get some of the connections.
        if let Some(at) = fixed_port(addr) {
            std::net::TcpListener::bind(at)
                .map_err(|e| refused(crate::util::listen_error(libp2p::TransportError::Other(e))))?;
        }
        swarm.listen_on(addr.clone()).map_err(|e| refused(crate::util::listen_error(e)))
    };
    addrs.iter().map(each).collect()
}

/// The socket address of a TCP multiaddr that names its port.
fn fixed_port(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some((ip, port).into()),
        _ => None,
    }
}

struct Serving {
    miner: Address,
    swarm: Swarm<Behaviour>,
    inbound: Inbound,
    ask: watch::Receiver<Option<Arc<SignedStorageAsk>>>,
    stats: Arc<HostStats>,
    addrs: watch::Sender<Vec<Multiaddr>>,
    /// Listeners that have not told their address yet.
    waiting: HashSet<ListenerId>,
    ready: Option<oneshot::Sender<Result<(), HostError>>>,
}

impl Serving {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>, mut panic: mpsc::Receiver<()>) -> Result<(), HostError> {
        loop {
            tokio::select! {
                _ = &mut stopped => return Ok(()),
                Some(()) = panic.recv() => panic!("a drill: the market host was told to panic"),
                event = self.swarm.select_next_some() => self.on(event)?,
            }
        }
    }

    fn on(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), HostError> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Ask(event)) => self.on_ask(event),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(miner = %self.miner, %address, "market host listens");
                self.addrs.send_modify(|list| list.push(address));
                self.waiting.remove(&listener_id);
                if self.waiting.is_empty()
                    && let Some(ready) = self.ready.take()
                {
                    let _ = ready.send(Ok(()));
                }
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.addrs.send_modify(|list| list.retain(|a| *a != address));
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let addrs = addresses.iter().map(|a| a.to_string()).collect::<Vec<_>>().join(", ");
                let why = reason.err().map_or("it was closed".to_string(), |e| e.to_string());
                return Err(HostError::ListenerLost { addrs, why });
            }
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                if !self.inbound.established(endpoint.get_remote_address()) {
                    self.swarm.close_connection(connection_id);
                }
                self.count_connections();
            }
            SwarmEvent::ConnectionClosed { .. } => self.count_connections(),
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                self.inbound.failed(&send_back_addr);
                if let ListenError::Denied { cause } = &error
                    && cause.downcast_ref::<Exceeded>().is_some()
                {
                    self.stats.connections_refused.fetch_add(1, Relaxed);
                }
                tracing::debug!(miner = %self.miner, peer = %send_back_addr, %error, "market connection refused");
            }
            _ => {}
        }
        Ok(())
    }

    fn count_connections(&self) {
        let established = self.swarm.network_info().connection_counters().num_established();
        self.stats.connections.store(established as u64, Relaxed);
    }

    fn on_ask(&mut self, event: request_response::Event<AskRequest, AskResponse>) {
        match event {
            request_response::Event::Message {
                peer,
                message: request_response::Message::Request { request, channel, .. },
                ..
            } => {
                let response = ask::answer(self.miner, &request, self.ask.borrow().as_deref());
                let counter = match response.ask {
                    Some(_) => &self.stats.asks_served,
                    None => &self.stats.asks_without_answer,
                };
                counter.fetch_add(1, Relaxed);
                tracing::debug!(miner = %self.miner, %peer, asked = %request.miner, answered = response.ask.is_some(), "ask");
                // The asker may be gone already: then there is nobody to tell.
                let _ = self.swarm.behaviour_mut().ask.send_response(channel, response);
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(miner = %self.miner, %peer, %error, "ask stream closed");
            }
            // We ask nobody.
            request_response::Event::Message { .. }
            | request_response::Event::OutboundFailure { .. }
            | request_response::Event::ResponseSent { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_tcp_port_can_be_taken() {
        let cases = [
            ("/ip4/127.0.0.1/tcp/0", None),
            ("/ip4/127.0.0.1/tcp/1", Some("127.0.0.1:1")),
            ("/ip6/::1/tcp/65535", Some("[::1]:65535")),
            ("/ip4/127.0.0.1/udp/7/quic-v1", None),
            ("/dns4/localhost/tcp/7", None),
            ("/ip4/127.0.0.1", None),
        ];
        for (addr, want) in cases {
            let got = fixed_port(&addr.parse().unwrap());
            assert_eq!(got, want.map(|w| w.parse().unwrap()), "{addr}");
        }
    }
}
