//! One bare libp2p substream (TCP, noise, yamux): what the transport of the bridge costs before the bridge.

use super::load::Lost;
use super::mux::{Mux, echo};
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::Behaviour;
use std::path::Path;
use std::time::Duration;
use tokio_util::compat::FuturesAsyncReadCompatExt;

const ECHO: StreamProtocol = StreamProtocol::new("/bench/echo/1");

fn swarm(key: Keypair) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("noise")
        .with_behaviour(|_| Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

pub async fn serve(bind: &str, ready: impl FnOnce(String)) {
    let mut swarm = swarm(server_key());
    let mut streams = swarm.behaviour().new_control().accept(ECHO).expect("accepted once");
    tokio::spawn(async move {
        while let Some((_, stream)) = streams.next().await {
            tokio::spawn(echo(stream.compat()));
        }
    });
    swarm.listen_on(multiaddr(bind)).expect("a port");
    let mut ready = Some(ready);
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
            && let Some(ready) = ready.take()
        {
            ready(format!("{address}/p2p/{}", swarm.local_peer_id()));
        }
    }
}

pub async fn connect(address: &str, _: &Path) -> Result<Mux, Lost> {
    let (peer, address) = peer_and_address(address)?;
    let mut swarm = swarm(Keypair::generate_ed25519());
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address)?;
    let (up, is_up) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut up = Some(up);
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => drop(up.take().map(|up| up.send(Ok(())))),
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    drop(up.take().map(|up| up.send(Err(Lost(error.to_string())))));
                }
                _ => {}
            }
        }
    });
    is_up.await.map_err(|_| Lost("the swarm ended".into()))??;
    let stream = control.open_stream(peer, ECHO).await?;
    Ok(Mux::over(stream.compat()))
}

/// The same after a restart of the server, as a node's identity is.
pub fn server_key() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes")
}

/// `127.0.0.1:80` as libp2p writes it.
pub fn multiaddr(bind: &str) -> Multiaddr {
    let (host, port) = bind.rsplit_once(':').expect("HOST:PORT");
    format!("/ip4/{host}/tcp/{port}").parse().expect("a multiaddress")
}

pub fn peer_and_address(text: &str) -> Result<(PeerId, Multiaddr), Lost> {
    let (address, peer) = text.rsplit_once("/p2p/").ok_or(Lost("no peer in the address".into()))?;
    Ok((peer.parse()?, address.parse()?))
}
