//! kameo `remote`: libp2p 0.56, its registry and its request-response; the server's address is dialled, no mDNS.

use super::load::{Caller, Lost};
use bytes::Bytes;
use futures::StreamExt;
use kameo::actor::{RemoteActorRef, Spawn};
use kameo::message::{Context, Message};
use kameo::remote::{Behaviour, messaging};
use kameo::{Actor, RemoteActor, Reply, remote_message};
use libp2p_kameo::identity::Keypair;
use libp2p_kameo::swarm::SwarmEvent;
use libp2p_kameo::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const NAME: &str = "echo";

#[derive(Actor, RemoteActor, Default)]
struct Echo {
    seen: u64,
}

#[derive(Serialize, Deserialize, Reply)]
struct Payload(Bytes);
#[derive(Serialize, Deserialize)]
struct Note(Bytes);
#[derive(Serialize, Deserialize)]
struct Seen;
#[derive(Serialize, Deserialize)]
struct Hang;

#[remote_message]
impl Message<Payload> for Echo {
    type Reply = Payload;
    async fn handle(&mut self, payload: Payload, _: &mut Context<Self, Payload>) -> Payload {
        payload
    }
}
#[remote_message]
impl Message<Note> for Echo {
    type Reply = ();
    async fn handle(&mut self, _: Note, _: &mut Context<Self, ()>) {
        self.seen += 1;
    }
}
#[remote_message]
impl Message<Seen> for Echo {
    type Reply = u64;
    async fn handle(&mut self, _: Seen, _: &mut Context<Self, u64>) -> u64 {
        self.seen
    }
}
#[remote_message]
impl Message<Hang> for Echo {
    type Reply = u64;
    async fn handle(&mut self, _: Hang, _: &mut Context<Self, u64>) -> u64 {
        std::future::pending().await
    }
}

fn swarm(key: Keypair) -> Swarm<Behaviour> {
    let config = messaging::Config::default().with_max_concurrent_streams(1024); // 100 refuse 256 calls in flight
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("noise")
        .with_behaviour(|key| Behaviour::new(key.public().to_peer_id(), config))
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    swarm.behaviour().init_global();
    swarm
}

pub async fn serve(bind: &str, ready: impl FnOnce(String)) {
    let key = Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
    let mut swarm = swarm(key);
    let me = *swarm.local_peer_id();
    let address: Multiaddr = super::substream::multiaddr(bind).to_string().parse().expect("a multiaddress");
    swarm.listen_on(address.clone()).expect("a port");
    let (up, is_up) = oneshot::channel();
    tokio::spawn(async move {
        let mut up = Some(up);
        loop {
            if let SwarmEvent::NewListenAddr { .. } = swarm.select_next_some().await {
                let _ = up.take().map(|up| up.send(()));
            }
        }
    });
    let _ = is_up.await;
    let echo = Echo::spawn(Echo::default());
    ready(format!("{address}/p2p/{me}"));
    // It resolves when other nodes were told, or there are none.
    if let Err(error) = echo.register(NAME).await {
        eprintln!("kameo: {error}");
    }
    std::future::pending().await
}

#[derive(Clone)]
pub struct Client(RemoteActorRef<Echo>);

pub async fn connect(address: &str, _: &Path) -> Result<Client, Lost> {
    // One swarm a process, by design of the peer: a reconnect is another dial.
    static DIAL: OnceLock<mpsc::UnboundedSender<(PeerId, Multiaddr)>> = OnceLock::new();
    let dial = DIAL.get_or_init(|| {
        let mut swarm = swarm(Keypair::generate_ed25519());
        let (tx, mut rx) = mpsc::unbounded_channel::<(PeerId, Multiaddr)>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some((peer, address)) = rx.recv() => {
                        swarm.add_peer_address(peer, address.clone()); // or its registry asks nobody
                        drop(swarm.dial(address));
                    }
                    _ = swarm.select_next_some() => {}
                }
            }
        });
        tx
    });
    let (address, peer) = address.rsplit_once("/p2p/").ok_or(Lost("no peer in the address".into()))?;
    let _ = dial.send((peer.parse()?, address.parse()?));
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Ok(Some(echo)) = RemoteActorRef::lookup(NAME).await {
            return Ok(Client(echo));
        }
    }
    Err(Lost("not found".into()))
}

impl Caller for Client {
    const TELLERS: u64 = 64; // acknowledged ones: of the others, an unbounded queue loses what it cannot send

    async fn ask(&self, payload: Bytes) -> Result<usize, Lost> {
        Ok(self.0.ask(&Payload(payload)).await?.0.len())
    }
    async fn tell(&self, payload: Bytes) -> Result<u64, Lost> {
        self.0.tell(&Note(payload)).send_ack().await?;
        Ok(0)
    }
    async fn seen(&self) -> Result<u64, Lost> {
        Ok(self.0.ask(&Seen).await?)
    }
    async fn hang(&self) -> Lost {
        match self.0.ask(&Hang).await {
            Err(lost) => lost.into(),
            Ok(_) => Lost("answered".into()),
        }
    }
}
