//! What a peer that does not keep to the protocol gets: refused, counted, and nothing allocated for it.

use crate::support::bridge::*;
use bulkhead::rpc::bridge::frame::{self, Call, Head, To};
use bulkhead::rpc::bridge::{Hello, PeerState, Refusal};
use bulkhead::supervisor::wire::Fault;
use bulkhead::wire::codec;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise, tcp, yamux};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

const LIMIT: u32 = 4 << 20;

/// A node that says what it likes.
struct Raw {
    lanes: [SubstreamBox; 2],
}

async fn dial(key: &Keypair, at: Multiaddr) -> io::Result<StreamMuxerBox> {
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default());
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = transport.boxed().dial(at, opts).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(dial.await?.1)
}

async fn open(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    poll_fn(|task| Pin::new(&mut *muxer).poll_outbound(task)).await
}

async fn lanes(lanes: [SubstreamBox; 2], mut muxer: StreamMuxerBox) -> io::Result<Raw> {
    tokio::spawn(async move { while poll_fn(|task| Pin::new(&mut muxer).poll(task)).await.is_ok() {} });
    let mut raw = Raw { lanes };
    raw.send(0, b"C").await?;
    raw.send(1, b"M").await?;
    Ok(raw)
}

async fn connect(key: &Keypair, at: Multiaddr) -> io::Result<Raw> {
    let mut muxer = dial(key, at).await?;
    let both = [open(&mut muxer).await?, open(&mut muxer).await?];
    lanes(both, muxer).await
}

fn hello(boot: u64) -> Hello {
    Hello { versions: (1, 1), boot, cluster: "test".into(), serial: boot, max_frame: LIMIT, schemas: vec![] }
}

fn frame_of(head: &Head, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = frame::begin(&mut bytes, 1, head);
    bytes.extend_from_slice(body);
    frame::finish(&mut bytes, start, LIMIT).unwrap();
    bytes
}

impl Raw {
    async fn send(&mut self, lane: usize, bytes: &[u8]) -> io::Result<()> {
        self.lanes[lane].write_all(bytes).await?;
        self.lanes[lane].flush().await
    }
    /// The next frame on a lane, without its length; an error once the other side has closed.
    async fn next(&mut self, lane: usize) -> io::Result<Vec<u8>> {
        let read = async {
            let mut length = [0; 4];
            self.lanes[lane].read_exact(&mut length).await?;
            let mut bytes = length.to_vec();
            bytes.resize(4 + u32::from_le_bytes(length) as usize, 0);
            self.lanes[lane].read_exact(&mut bytes[4..]).await?;
            Ok(bytes)
        };
        tokio::time::timeout(SOON, read).await.expect("a frame or the end")
    }
    async fn greet(&mut self, boot: u64) -> io::Result<Vec<u8>> {
        self.send(0, &frame_of(&Head::Hello, &hello(boot).encode())).await?;
        self.next(0).await
    }
    /// Until the other side closes.
    async fn end(&mut self) {
        while self.next(0).await.is_ok() {}
    }
}

/// A node, and a raw peer that it has let in.
async fn let_in() -> (Node, Raw) {
    let (a, key) = (node(config()), Keypair::generate_ed25519());
    a.bridge.allow([key.public().to_peer_id()]);
    let mut raw = connect(&key, address(&a.bridge).await).await.unwrap();
    raw.greet(1).await.unwrap();
    up(&a.bridge, key.public().to_peer_id()).await;
    (a, raw)
}

fn refused(a: &Node, why: Refusal) -> u64 {
    let peers = a.bridge.peers();
    peers.iter().flat_map(|it| &it.refused).filter(|it| it.0 == why).map(|it| it.1).sum()
}

fn call(corr: u64, number: u32, path: Option<&str>, message: u32) -> Call<'_> {
    Call { corr, to: To { number, defines: path }, message, schema: 3, epoch: 0, trace: None }
}

/// An ask for [`Add`], as the message lane's `serial`th frame.
fn ask(serial: u64, path: Option<&str>, message: u32, body: &[u8]) -> Vec<u8> {
    frame_of(&Head::Ask { call: call(serial << 20, 0, path, message), left_ms: 60_000 }, body)
}

fn add(n: u64) -> Vec<u8> {
    let mut body = Vec::new();
    codec::encode(&Add(n), &mut body).unwrap();
    body
}

fn answer(bytes: &[u8]) -> Result<u64, Fault> {
    let (frame, _) = frame::parse(bytes, LIMIT).unwrap().unwrap();
    match frame.head {
        Head::Reply { .. } => Ok(codec::decode(frame.body).unwrap()),
        Head::Fault { .. } => Err(codec::decode(frame.body).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_peer_id_that_is_not_on_the_list_ends_in_the_handshake() {
    let (a, friend) = (node(config()), Keypair::generate_ed25519());
    a.bridge.allow([friend.public().to_peer_id()]);
    let at = address(&a.bridge).await;
    let stranger = Keypair::generate_ed25519();
    if let Ok(mut raw) = connect(&stranger, at.clone()).await {
        assert!(raw.greet(1).await.is_err(), "no greeting for strangers");
    }
    until(&a.bridge, "it is counted", || a.bridge.strangers() == [(Refusal::UnknownPeer, 1)]).await;
    assert!(a.bridge.peers().is_empty(), "nothing is kept of it");
    assert!(connect(&friend, at).await.unwrap().greet(1).await.is_ok());
}

#[tokio::test]
async fn a_four_gib_length_is_refused_before_anything_is_allocated() {
    for lane in [0, 1] {
        let (a, mut raw) = let_in().await;
        let before = resident_kib();
        raw.send(lane, &[0xff; 4]).await.unwrap();
        raw.end().await;
        until(&a.bridge, "it is counted", || refused(&a, Refusal::TooLong) == 1).await;
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 64 * 1024, "lane {lane}: {grown} KiB");
        until(&a.bridge, "it is cut off", || a.bridge.peers()[0].state == PeerState::Down).await;
    }
}

#[tokio::test]
async fn a_greeting_that_is_none_is_refused() {
    let whole = frame_of(&Head::Hello, &hello(1).encode());
    let cases: [(&str, Vec<u8>); 4] = [
        ("4 GiB", vec![0xff; 4]),
        ("a tell", frame_of(&Head::Tell(call(1, 0, Some(PATH), 1)), &add(1))),
        ("half a hello", frame_of(&Head::Hello, &hello(1).encode()[..5])),
        ("no frame", [&whole[..4], &[9; 64][..]].concat()),
    ];
    for (name, bytes) in cases {
        let (a, key) = (node(config()), Keypair::generate_ed25519());
        a.bridge.allow([key.public().to_peer_id()]);
        let mut raw = connect(&key, address(&a.bridge).await).await.unwrap();
        raw.send(0, &bytes).await.unwrap();
        until(&a.bridge, name, || refused(&a, Refusal::Hello) == 1).await;
        assert_eq!(a.bridge.peers()[0].state, PeerState::Connecting, "{name}");
        assert_eq!(a.home.ask(Add(0), SOON).await.unwrap(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_replayed_ask_is_not_handled_again() {
    let (a, mut raw) = let_in().await;
    let first = ask(1, Some(PATH), 1, &add(5));
    raw.send(1, &first).await.unwrap();
    assert_eq!(answer(&raw.next(1).await.unwrap()), Ok(5));
    raw.send(1, &first).await.unwrap();
    raw.send(1, &frame_of(&Head::Tell(call(1, 0, None, 1)), &add(100))).await.unwrap();
    raw.send(1, &ask(2, None, 1, &add(1))).await.unwrap();
    assert_eq!(answer(&raw.next(1).await.unwrap()), Ok(6));
    assert_eq!(refused(&a, Refusal::Replayed), 2);
}

#[tokio::test]
async fn forged_frames_are_counted_and_change_nothing() {
    let (a, mut raw) = let_in().await;
    let trailing = [add(1), vec![0]].concat();
    let cases: [(&str, usize, Vec<u8>, Refusal); 9] = [
        ("an answer to nothing", 1, frame_of(&Head::Reply { corr: 77 }, &[1]), Refusal::UnknownAsk),
        ("a fault of nothing", 0, frame_of(&Head::Fault { corr: u64::MAX }, &[0]), Refusal::UnknownAsk),
        ("an exit without its reason", 0, frame_of(&Head::Fault { corr: 1 }, &[5]), Refusal::Malformed),
        (
            "a tell to a number without a path",
            1,
            frame_of(&Head::Tell(call(1, 9, None, 1)), &add(1)),
            Refusal::UnknownPath,
        ),
        ("a tell to nobody", 1, frame_of(&Head::Tell(call(2, 0, Some("/nobody"), 1)), &add(1)), Refusal::UnknownPath),
        (
            "a tell of no message",
            1,
            frame_of(&Head::Tell(call(3, 1, Some(PATH), 99)), &add(1)),
            Refusal::UnknownMessage,
        ),
        (
            "a tell with more behind it",
            1,
            frame_of(&Head::Tell(call(4, 1, None, 1)), &trailing),
            Refusal::UnknownMessage,
        ),
        ("another hello", 0, frame_of(&Head::Hello, &hello(9).encode()), Refusal::Misplaced),
        ("a down that cannot be read", 0, frame_of(&Head::Down { corr: 1 }, &[0xff; 30]), Refusal::Malformed),
    ];
    for (name, lane, bytes, why) in cases {
        let before = refused(&a, why);
        raw.send(lane, &bytes).await.unwrap();
        until(&a.bridge, name, || refused(&a, why) == before + 1).await;
    }
    // What an asker is told.
    let fault = |bytes: Vec<u8>| answer(&bytes).unwrap_err();
    raw.send(1, &ask(5, Some("/nobody"), 1, &add(1))).await.unwrap();
    assert_eq!(fault(raw.next(1).await.unwrap()), Fault::NotRunning);
    raw.send(1, &ask(6, Some(PATH), 99, &add(1))).await.unwrap();
    assert!(matches!(fault(raw.next(1).await.unwrap()), Fault::Refused(why) if why.contains("takes no message 0x63")));
    raw.send(1, &ask(7, None, 1, &trailing)).await.unwrap();
    assert!(matches!(fault(raw.next(1).await.unwrap()), Fault::Refused(why) if why.contains("bytes too many")));
    // It is still a peer, and the actor has seen none of it.
    raw.send(1, &ask(8, None, 1, &add(1))).await.unwrap();
    assert_eq!(answer(&raw.next(1).await.unwrap()), Ok(1));
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection() {
    for bytes in
        [vec![3, 0, 0, 0, 1, 99, 0], vec![3, 0, 0, 0, 2, 10, 0], vec![0, 0, 0, 0], vec![3, 0, 0, 0, 1, 10, 0xf0]]
    {
        let (a, mut raw) = let_in().await;
        raw.send(1, &bytes).await.unwrap();
        raw.end().await;
        until(&a.bridge, "it is counted", || refused(&a, Refusal::Malformed) == 1).await;
        until(&a.bridge, "it is cut off", || a.bridge.peers()[0].state == PeerState::Down).await;
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_does_not_stop_the_others() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    a.bridge.allow([b.id(), id]);
    let mut raw = connect(&key, address(&a.bridge).await).await.unwrap();
    raw.greet(1).await.unwrap();
    up(&a.bridge, id).await;
    let deaf = far(&a.bridge, id, 0);
    let full = loop {
        if let Err(full) = deaf.tell(Echo(vec![0; 100_000])) {
            break full;
        }
    };
    assert!(matches!(full, bulkhead::supervisor::CallError::Full(_)), "{full:?}");
    let away = a.away(b.id());
    for n in 1..=100 {
        assert_eq!(away.ask(Add(1), Duration::from_secs(10)).await.unwrap(), n);
    }
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_is_cut_off() {
    let mut small = config();
    small.bounds.answers = 4 << 20;
    let (a, key) = (node(small), Keypair::generate_ed25519());
    let id = key.public().to_peer_id();
    a.bridge.allow([id]);
    let mut raw = connect(&key, address(&a.bridge).await).await.unwrap();
    raw.greet(1).await.unwrap();
    up(&a.bridge, id).await;
    let mut body = Vec::new();
    codec::encode(&Echo(vec![7; 500_000]), &mut body).unwrap();
    let mut sent = 0;
    let asks = async {
        loop {
            sent += 1;
            let call = Call { schema: 1, ..call(sent << 20, 0, (sent == 1).then_some(PATH), 2) };
            if raw.send(1, &frame_of(&Head::Ask { call, left_ms: 60_000 }, &body)).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, asks).await.expect("it is cut off");
    until(&a.bridge, "it is counted", || refused(&a, Refusal::Unread) == 1).await;
    until(&a.bridge, "it is down", || a.bridge.state(id) == PeerState::Down).await;
    assert_eq!(a.home.ask(Add(1), SOON).await.unwrap(), 1);
    // One that reads is a peer again.
    let mut again = connect(&key, address(&a.bridge).await).await.unwrap();
    again.greet(2).await.unwrap();
    again.send(1, &ask(1, Some(PATH), 1, &add(1))).await.unwrap();
    assert_eq!(answer(&again.next(1).await.unwrap()), Ok(2));
}

#[tokio::test]
async fn slow_handshakes_of_one_host_leave_room_for_others() {
    const SLOW: usize = 300;
    let mut patient = config();
    patient.timing.down = Duration::from_secs(600); // and so is its time for a handshake
    let (a, key) = (node(patient), Keypair::generate_ed25519());
    a.bridge.allow([key.public().to_peer_id()]);
    let at = address(&a.bridge).await;
    let port = at.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut held = Vec::new();
    for _ in 0..SLOW {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        held.push(socket.connect(([127, 0, 0, 1], port.unwrap()).into()).await.unwrap());
    }
    let refused = || a.bridge.strangers().iter().find(|it| it.0 == Refusal::TooMany).map_or(0, |it| it.1);
    until(&a.bridge, "all but 32 are refused", || refused() == SLOW as u64 - 32).await;
    let mut raw = connect(&key, at).await.unwrap();
    raw.greet(1).await.unwrap();
    up(&a.bridge, key.public().to_peer_id()).await;
    drop(held);
}

#[tokio::test]
async fn streams_beyond_the_lanes_are_reset() {
    let (a, key) = (node(config()), Keypair::generate_ed25519());
    a.bridge.allow([key.public().to_peer_id()]);
    let mut muxer = dial(&key, address(&a.bridge).await).await.unwrap();
    let both = [open(&mut muxer).await.unwrap(), open(&mut muxer).await.unwrap()];
    let mut more = Vec::new();
    for _ in 0..20 {
        more.push(open(&mut muxer).await.unwrap());
    }
    let mut raw = lanes(both, muxer).await.unwrap();
    raw.greet(1).await.unwrap();
    for stream in &mut more {
        stream.write_all(b"M").await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut last = more.pop().unwrap();
    let ended = tokio::time::timeout(SOON, last.read(&mut [0; 1])).await.expect("it is not kept");
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    raw.send(1, &ask(1, Some(PATH), 1, &add(5))).await.unwrap();
    assert_eq!(answer(&raw.next(1).await.unwrap()), Ok(5), "the lanes go on");
}
