//! Handshakes that others began and have not ended: how many there may be, in all and from one host. Pure.
//!
//! Whoever connects takes a place before it is known who it is. A host from which no peer is expected takes few, and never
//! those of hosts from which one is.

use super::lock;
use libp2p::core::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

/// Of strangers' hosts in all, and as many again of peers'.
const IN_ALL: usize = 256;
const FROM_ONE: usize = 32;

#[derive(Default)]
struct Taken {
    peers: usize,
    strangers: usize,
    of_host: HashMap<IpAddr, usize>,
}

#[derive(Default)]
pub struct Places {
    taken: Arc<Mutex<Taken>>,
    /// Where peers can be dialled.
    known: HashSet<IpAddr>,
    /// Where a peer came from when it last was let in.
    met: HashMap<PeerId, IpAddr>,
}

/// Free again when it is dropped.
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    /// `None`: a peer's.
    stranger: Option<IpAddr>,
}

impl Places {
    /// `None`: too many are taken.
    pub fn take(&self, from: Option<IpAddr>) -> Option<Place> {
        let host = host(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let expected = self.known.contains(&host) || self.met.values().any(|it| *it == host);
        let mut taken = lock(&self.taken);
        if expected {
            if taken.peers >= IN_ALL {
                return None;
            }
            taken.peers += 1;
        } else {
            let of_host = taken.of_host.get(&host).copied().unwrap_or(0);
            if taken.strangers >= IN_ALL || of_host >= FROM_ONE {
                return None;
            }
            taken.strangers += 1;
            taken.of_host.insert(host, of_host + 1);
        }
        Some(Place { taken: self.taken.clone(), stranger: (!expected).then_some(host) })
    }

    /// All addresses at which peers are dialled.
    pub fn know<'a>(&mut self, addresses: impl Iterator<Item = &'a Multiaddr>) {
        self.known = addresses.filter_map(ip_of).map(host).collect();
    }
    /// A peer was let in that came from there.
    pub fn met(&mut self, peer: PeerId, from: IpAddr) {
        self.met.insert(peer, host(from));
    }
    pub fn forget(&mut self, is_peer: impl Fn(&PeerId) -> bool) {
        self.met.retain(|peer, _| is_peer(peer));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let Some(host) = self.stranger else {
            taken.peers = taken.peers.saturating_sub(1);
            return;
        };
        taken.strangers = taken.strangers.saturating_sub(1);
        let left = taken.of_host.get(&host).map_or(0, |n| n.saturating_sub(1));
        if left == 0 {
            taken.of_host.remove(&host);
        } else {
            taken.of_host.insert(host, left);
        }
    }
}

pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// A host of IPv6 has a whole /64.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, from: &str, times: usize) -> Vec<Place> {
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
            let places = Places::default();
            let held = take(&places, first, 100);
            assert_eq!(held.len(), FROM_ONE, "{first}");
            assert_eq!(take(&places, second, 1).len(), more, "{first}, then {second}");
            drop(held);
            assert_eq!(take(&places, second, 1).len(), 1, "{first}, then {second}, later");
            assert!(lock(&places.taken).of_host.is_empty(), "nothing is kept of hosts that are gone");
        }
    }

    #[test]
    fn many_strangers_do_not_take_the_places_of_peers() {
        let mut places = Places::default();
        let known: Multiaddr = "/ip4/10.9.0.1/tcp/2347".parse().unwrap();
        places.know([&known].into_iter());
        let (stays, goes) = (PeerId::random(), PeerId::random());
        places.met(stays, "10.9.0.2".parse().unwrap());
        places.met(goes, "10.9.0.3".parse().unwrap());
        places.forget(|peer| *peer == stays);
        let held: Vec<Place> = (0..100).flat_map(|n| take(&places, &format!("10.1.0.{n}"), 100)).collect();
        assert_eq!(held.len(), IN_ALL);
        for (from, expected) in [("10.9.0.1", 200), ("10.9.0.2", 200), ("10.9.0.3", 0), ("10.1.1.1", 0)] {
            assert_eq!(take(&places, from, 200).len(), expected, "{from}");
        }
        let one = take(&places, "10.9.0.1", 200);
        assert_eq!((one.len(), take(&places, "10.9.0.2", 200).len()), (200, IN_ALL - 200), "peers too have a bound");
    }
}
