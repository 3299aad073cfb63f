//! A second libp2p host meets the market's: identify, ping, asks right and wrong, streams that are no ask, and limits.

use bls_signatures::{PrivateKey, Serialize as _};
use bulkhead::actors::deal_handler::MarketSettings;
use bulkhead::actors::deal_handler::ask::{AskRequest, AskResponse, PROTOCOL, SignedStorageAsk, StorageAsk};
use bulkhead::actors::deal_handler::codec::AskCodec;
use bulkhead::actors::deal_handler::host::{AGENT, Host};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use fvm_shared::address::Address;
use fvm_shared::crypto::signature::{Signature, SignatureType};
use fvm_shared::econ::TokenAmount;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Message, OutboundFailure, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, noise, ping, tcp, yamux};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;

/// Writes whatever bytes a test gives and reads what comes back to the end. A request that starts with [`DRIP`] is sent
/// without that byte, one byte after the other with a pause between, for as long as the other side takes it.
#[derive(Clone, Default)]
pub struct RawCodec;

const DRIP: u8 = 0xfe;

impl request_response::Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        unreachable!("it only asks")
    }
    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        io.read_to_end(&mut all).await?;
        if all.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(all) }
    }
    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        let Some(slow) = bytes.strip_prefix(&[DRIP]) else { return io.write_all(&bytes).await };
        for byte in slow {
            io.write_all(&[*byte]).await?;
            io.flush().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        unreachable!("it only asks")
    }
}

#[derive(NetworkBehaviour)]
pub struct Client {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    ask: request_response::Behaviour<AskCodec>,
    raw: request_response::Behaviour<RawCodec>,
}

pub fn client() -> Swarm<Client> {
    let outbound = || [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Outbound)];
    let config = || request_response::Config::default().with_request_timeout(Duration::from_secs(20));
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Client {
            identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), key.public())),
            ping: ping::Behaviour::default(),
            ask: request_response::Behaviour::with_codec(AskCodec::default(), outbound(), config()),
            raw: request_response::Behaviour::with_codec(RawCodec, outbound(), config()),
        })
        .unwrap()
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

/// Drives the client until `pick` takes an event.
pub async fn until<T>(
    swarm: &mut Swarm<Client>,
    what: &str,
    mut pick: impl FnMut(SwarmEvent<ClientEvent>) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            if let Some(found) = pick(swarm.select_next_some().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("no {what}"))
}

const MINER: Address = Address::new_id(1000);

pub fn signed_ask(worker: &PrivateKey) -> SignedStorageAsk {
    let ask = StorageAsk {
        price: TokenAmount::from_atto(500_000_000),
        verified_price: TokenAmount::from_atto(0),
        min_piece_size: 256,
        max_piece_size: 2048,
        miner: MINER,
        timestamp: 5,
        expiry: 1_000_005,
        seq_no: 0,
    };
    let bytes = worker.sign(ask.signing_bytes().unwrap()).as_bytes();
    SignedStorageAsk { ask, signature: Signature { sig_type: SignatureType::BLS, bytes } }
}

pub async fn dial(swarm: &mut Swarm<Client>, addr: &Multiaddr) {
    swarm.dial(addr.clone()).unwrap();
    until(swarm, "connection", |e| matches!(e, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
}

pub async fn ask(swarm: &mut Swarm<Client>, peer: PeerId, miner: u64) -> Result<AskResponse, OutboundFailure> {
    swarm.behaviour_mut().ask.send_request(&peer, AskRequest { miner: Address::new_id(miner) });
    until(swarm, "answer", |e| match e {
        SwarmEvent::Behaviour(ClientEvent::Ask(request_response::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(Ok(response)),
        SwarmEvent::Behaviour(ClientEvent::Ask(request_response::Event::OutboundFailure { error, .. })) => {
            Some(Err(error))
        }
        _ => None,
    })
    .await
}

async fn raw(swarm: &mut Swarm<Client>, peer: PeerId, bytes: Vec<u8>) -> Result<Vec<u8>, OutboundFailure> {
    swarm.behaviour_mut().raw.send_request(&peer, bytes);
    until(swarm, "end of the stream", |e| match e {
        SwarmEvent::Behaviour(ClientEvent::Raw(request_response::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(Ok(response)),
        SwarmEvent::Behaviour(ClientEvent::Raw(request_response::Event::OutboundFailure { error, .. })) => {
            Some(Err(error))
        }
        SwarmEvent::ConnectionClosed { .. } => panic!("only the stream may close"),
        _ => None,
    })
    .await
}

pub async fn start(settings: &MarketSettings, ask: Option<SignedStorageAsk>) -> (Host, Multiaddr) {
    let (_keep, served) = watch::channel(ask.map(Arc::new));
    let (host, _ended) = Host::start(MINER, Keypair::generate_ed25519(), settings, served).await.unwrap();
    let addr = host.addrs.borrow()[0].clone();
    (host, addr)
}

#[tokio::test]
async fn identify_ping_and_a_signed_ask() {
    let worker = PrivateKey::generate(&mut rand::rngs::OsRng);
    let (host, addr) = start(&MarketSettings::default(), Some(signed_ask(&worker))).await;
    let mut client = client();
    dial(&mut client, &addr).await;

    let (mut agent, mut pinged) = (None, false);
    until(&mut client, "identify and ping", |e| {
        match e {
            SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received { info, .. })) => {
                assert!(info.protocols.contains(&StreamProtocol::new(PROTOCOL)), "{:?}", info.protocols);
                assert!(info.listen_addrs.contains(&addr), "{:?}", info.listen_addrs);
                agent = Some(info.agent_version);
            }
            SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { result, .. })) => pinged = result.is_ok(),
            _ => {}
        }
        (agent.is_some() && pinged).then_some(())
    })
    .await;
    assert_eq!(agent.as_deref(), Some(AGENT));
    assert_eq!(host.stats.connections.load(Relaxed), 1);

    let got = ask(&mut client, host.peer_id, 1000).await.unwrap().ask.expect("our own miner has an ask");
    assert_eq!(got.ask.miner, MINER);
    let signature = bls_signatures::Signature::from_bytes(&got.signature.bytes).unwrap();
    assert!(worker.public_key().verify(signature, got.ask.signing_bytes().unwrap()), "signed by the worker");

    for other in [999, 1001] {
        assert_eq!(ask(&mut client, host.peer_id, other).await.unwrap().ask, None, "{other} is not ours");
    }
    assert_eq!(host.stats.asks_served.load(Relaxed), 1);
    assert_eq!(host.stats.asks_without_answer.load(Relaxed), 2);
}

#[tokio::test]
async fn before_there_is_an_ask_the_answer_is_null() {
    let (host, addr) = start(&MarketSettings::default(), None).await;
    let mut client = client();
    dial(&mut client, &addr).await;
    assert_eq!(ask(&mut client, host.peer_id, 1000).await.unwrap().ask, None);
}

#[tokio::test]
async fn a_request_that_is_none_closes_its_stream_only() {
    let worker = PrivateKey::generate(&mut rand::rngs::OsRng);
    let (host, addr) = start(&MarketSettings::default(), Some(signed_ask(&worker))).await;
    let mut client = client();
    dial(&mut client, &addr).await;
    let oversized = [&[0x59, 0x10, 0x00][..], &[7; 0x1000]].concat();
    let nested = vec![0x81; 900];
    let bad = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), oversized, nested, vec![0xa0], vec![0xff; 64]];
    let count = bad.len() as u64;
    for bytes in bad {
        let head = hex::encode(&bytes[..bytes.len().min(8)]);
        assert!(raw(&mut client, host.peer_id, bytes).await.is_err(), "{head}");
        let after = ask(&mut client, host.peer_id, 1000).await.unwrap();
        assert!(after.ask.is_some(), "the connection still answers after {head}");
    }
    assert_eq!(host.stats.bad_requests.load(Relaxed), count);
    // The bytes of Go's client.
    let answer = raw(&mut client, host.peer_id, hex::decode("a1654d696e65724300e807").unwrap()).await.unwrap();
    assert_eq!(&answer[..10], b"\xa1\x63Ask\xa2\x63Ask");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off() {
    let settings = MarketSettings { request_timeout_secs: 1, ..Default::default() };
    let (host, addr) = start(&settings, None).await;
    let mut client = client();
    dial(&mut client, &addr).await;
    // 1000 bytes are announced; at this pace they would take 100 s.
    let slow = [&[DRIP, 0x59, 0x03, 0xe8][..], &[0; 1000]].concat();
    assert!(matches!(raw(&mut client, host.peer_id, slow).await, Err(OutboundFailure::Io(_))));
    assert_eq!(host.stats.bad_requests.load(Relaxed), 1);
    assert!(ask(&mut client, host.peer_id, 1000).await.is_ok(), "the connection still answers");
}

#[tokio::test]
async fn connections_beyond_the_limits_are_refused() {
    let settings = MarketSettings { max_connections: 2, max_connections_per_peer: 1, ..Default::default() };
    let (host, addr) = start(&settings, None).await;
    let (mut first, mut second, mut third) = (client(), client(), client());
    dial(&mut first, &addr).await;
    assert!(ask(&mut first, host.peer_id, 1000).await.is_ok());

    // A second connection of the same peer.
    first.dial(libp2p::swarm::dial_opts::DialOpts::unknown_peer_id().address(addr.clone()).build()).unwrap();
    let refused = |e: SwarmEvent<ClientEvent>| match e {
        SwarmEvent::ConnectionClosed { num_established, .. } => Some(num_established),
        SwarmEvent::OutgoingConnectionError { .. } => Some(u32::MAX),
        _ => None,
    };
    assert_ne!(until(&mut first, "refusal", refused).await, 0, "the first connection stays");

    dial(&mut second, &addr).await;
    assert!(ask(&mut second, host.peer_id, 1000).await.is_ok(), "the second peer is within the limit");
    third.dial(addr.clone()).unwrap();
    until(&mut third, "refusal", refused).await;
    assert_eq!(host.stats.connections.load(Relaxed), 2);
    assert_eq!(host.stats.connections_refused.load(Relaxed), 2);
    assert!(ask(&mut first, host.peer_id, 1000).await.is_ok(), "those who are in go on");

    // A place that becomes free is given again.
    drop(second);
    let mut again = client();
    let served = async {
        loop {
            again.dial(addr.clone()).unwrap();
            let up = until(&mut again, "dial", |e| match e {
                SwarmEvent::Behaviour(ClientEvent::Ping(ping::Event { result, .. })) => Some(result.is_ok()),
                other => refused(other).map(|_| false),
            });
            if up.await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.expect("a free place is given again");
}

#[tokio::test]
async fn an_address_in_use_is_named_and_the_host_s_end_frees_it() {
    let (mut host, addr) = start(&MarketSettings::default(), None).await;
    let settings = MarketSettings { listen: vec![addr.to_string()], ..Default::default() };
    let (_tx, served) = watch::channel(None);
    let start_again = || Host::start(MINER, Keypair::generate_ed25519(), &settings, served.clone());
    let why = start_again().await.err().expect("in use").to_string();
    assert!(why.contains(&addr.to_string()) && why.contains("in use") && why.contains("market.listen"), "{why}");
    host.stop();
    drop(host);
    let again = async {
        loop {
            if let Ok(started) = start_again().await {
                return started;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the port is free again");
}
