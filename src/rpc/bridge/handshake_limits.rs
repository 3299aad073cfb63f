//! Limits inbound handshakes in progress: in total, and per host. Pure.
//!
//! A connection takes a permit before its peer is known. Hosts of known peers have a quota of their own, which
//! strangers cannot exhaust.

use crate::rpc::connection_limits::{ConnectionLimiter, ConnectionPermit, remote_host};
use crate::rpc::descriptors::{self, Surface};
use libp2p::core::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

pub struct HandshakeLimiter {
    peers: ConnectionLimiter,
    strangers: ConnectionLimiter,
    /// Hosts at which peers can be dialled.
    known: HashSet<IpAddr>,
    /// The host from which a peer was last let in.
    met: HashMap<PeerId, IpAddr>,
}

impl Default for HandshakeLimiter {
    fn default() -> Self {
        HandshakeLimiter::within(descriptors::limit())
    }
}

impl HandshakeLimiter {
    fn within(descriptors: usize) -> HandshakeLimiter {
        HandshakeLimiter {
            peers: ConnectionLimiter::new(Surface::BridgePeers.limits(descriptors)),
            strangers: ConnectionLimiter::new(Surface::BridgeStrangers.limits(descriptors)),
            known: HashSet::new(),
            met: HashMap::new(),
        }
    }

    /// `None`: too many are taken.
    pub fn take(&self, from: Option<IpAddr>) -> Option<ConnectionPermit> {
        let host = remote_host(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let expected = self.known.contains(&host) || self.met.values().any(|it| *it == host);
        let of = if expected { &self.peers } else { &self.strangers };
        of.admit(Some(host))
    }

    /// All addresses at which peers are dialled.
    pub fn know<'a>(&mut self, addresses: impl Iterator<Item = &'a Multiaddr>) {
        self.known = addresses.filter_map(ip_of).map(remote_host).collect();
    }
    /// A peer was let in that came from there.
    pub fn met(&mut self, peer: PeerId, from: IpAddr) {
        self.met.insert(peer, remote_host(from));
    }
    pub fn forget(&mut self, is_peer: impl Fn(&PeerId) -> bool) {
        self.met.retain(|peer, _| is_peer(peer));
    }
}

pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_ALL: usize = 256;
    const FROM_ONE: usize = 32;

    fn take(places: &HandshakeLimiter, from: &str, times: usize) -> Vec<ConnectionPermit> {
        (0..times).filter_map(|_| places.take(Some(from.parse().unwrap()))).collect()
    }

    #[test]
    fn one_host_takes_few_places_and_gives_them_back() {
        let cases = [
            ("10.0.0.1", "10.0.0.1", 0),
            ("10.0.0.1", "10.0.0.2", 1),
            ("10.0.0.1", "::ffff:10.0.0.1", 0),
            ("2001:db8::1", "2001:db8::ffff:2", 0),
            ("2001:db8::1", "2001:db8:0:1::1", 1),
        ];
        for (first, second, more) in cases {
            let places = HandshakeLimiter::within(65_536);
            let held = take(&places, first, 100);
            assert_eq!(held.len(), FROM_ONE, "{first}");
            assert_eq!(take(&places, second, 1).len(), more, "{first}, then {second}");
            drop(held);
            assert_eq!(take(&places, second, 1).len(), 1, "{first}, then {second}, later");
            assert_eq!(places.strangers.open(), 0, "nothing is kept of hosts that are gone");
        }
    }

    #[test]
    fn many_strangers_do_not_take_the_places_of_peers() {
        let mut places = HandshakeLimiter::within(65_536);
        let known: Multiaddr = "/ip4/10.9.0.1/tcp/2347".parse().unwrap();
        places.know([&known].into_iter());
        let (stays, goes) = (PeerId::random(), PeerId::random());
        places.met(stays, "10.9.0.2".parse().unwrap());
        places.met(goes, "10.9.0.3".parse().unwrap());
        places.forget(|peer| *peer == stays);
        let held: Vec<ConnectionPermit> = (0..100).flat_map(|n| take(&places, &format!("10.1.0.{n}"), 100)).collect();
        assert_eq!(held.len(), IN_ALL);
        for (from, expected) in [("10.9.0.1", 200), ("10.9.0.2", 200), ("10.9.0.3", 0), ("10.1.1.1", 0)] {
            assert_eq!(take(&places, from, 200).len(), expected, "{from}");
        }
        let one = take(&places, "10.9.0.1", 200);
        assert_eq!((one.len(), take(&places, "10.9.0.2", 200).len()), (200, IN_ALL - 200), "peers too have a bound");
    }
}
