//! Connections that say nothing keep no client out of the market host.

use crate::answers_market_clients::{ask, client, dial, signed_ask, start};
use bls_signatures::PrivateKey;
use bulkhead::actors::deal_handler::MarketSettings;
use libp2p::multiaddr::Protocol;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test]
async fn clients_are_served_while_silent_connections_take_every_place() {
    const SILENT: usize = 120;
    const CLIENTS: usize = 20;
    let worker = PrivateKey::generate(&mut rand::rngs::OsRng);
    let (host, addr) = start(&MarketSettings::default(), Some(signed_ask(&worker))).await;
    let port = addr.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    let at = SocketAddr::from(([127, 0, 0, 1], port.expect("a TCP port")));
    let mut held: Vec<TcpStream> = Vec::new();
    let mut served = 0;
    for n in 0..CLIENTS {
        // They come back as fast as clients come.
        held.extend((0..SILENT / 4).filter_map(|_| TcpStream::connect(at).ok()));
        let mut client = client();
        dial(&mut client, &addr).await;
        assert!(ask(&mut client, host.peer_id, 1000).await.is_ok_and(|answer| answer.ask.is_some()), "client {n}");
        served += 1;
    }
    assert!(held.len() >= SILENT && served == CLIENTS);
    assert_eq!(host.stats.asks_served.load(Relaxed), CLIENTS as u64);
}
