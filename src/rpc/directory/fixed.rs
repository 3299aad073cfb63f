//! A cluster without etcd: the other nodes as the configuration lists them, and who holds what by that list alone. Pure.
//!
//! Every node decides from its own list, and they agree as far as the lists do. Nothing moves by itself: a node that is away
//! still holds what the list gives it.

use super::placement::{self, Placement, Wanted};
use super::{Holder, NodeRecord, Role};
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// Every node but this one.
    pub peers: Vec<NodeRecord>,
    pub placement: Placement,
}

impl Fixed {
    pub fn peer(name: &str, peer_id: PeerId, addrs: Vec<Multiaddr>, roles: BTreeSet<Role>) -> NodeRecord {
        // Its boot is not known: its bridge says it when it connects.
        NodeRecord { addrs, roles, ..NodeRecord::new(name, peer_id, 0) }
    }

    /// The concerns that the others hold. Epoch 0 stands for any, because theirs are not known.
    pub fn holders(&self, me: &NodeRecord) -> BTreeMap<String, Holder> {
        let mut holders = BTreeMap::new();
        let held_by = |peer: &NodeRecord| Holder { node: peer.name.clone(), peer_id: peer.peer_id, boot: 0, epoch: 0 };
        for wanted in &self.placement.concerns {
            match &wanted.pinned {
                Some(node) => {
                    let shards = self.peers.iter().filter(|peer| peer.has(wanted.role));
                    // the same shard of every other node has its path, with that node's name
                    holders.extend(shards.filter_map(|peer| {
                        let path = wanted.path.strip_suffix(node.as_str())?;
                        Some((format!("{path}{}", peer.name), held_by(peer)))
                    }));
                }
                None => {
                    let holder = self.first(wanted, me).filter(|name| *name != me.name);
                    let peer = holder.and_then(|name| self.peers.iter().find(|peer| peer.name == name));
                    holders.extend(peer.map(|peer| (wanted.path.clone(), held_by(peer))));
                }
            }
        }
        holders
    }

    /// The preferred node, else that of the concern that it goes beside, else the one that gives out sector numbers (a
    /// miner has one of these), else the first by name.
    fn first<'a>(&'a self, wanted: &Wanted, me: &'a NodeRecord) -> Option<&'a str> {
        let able = || self.peers.iter().chain([me]).filter(|node| node.has(wanted.role));
        let name = wanted.path.rsplit('/').next().unwrap_or_default();
        let preferred = self.placement.prefer.get(&wanted.path).or_else(|| self.placement.prefer.get(name));
        let named = preferred.into_iter().flatten().find_map(|name| able().find(|node| node.name == *name));
        let beside = || {
            let at = self.first(placement::leader(&self.placement, wanted)?, me)?;
            able().find(|node| node.name == at)
        };
        let server = || able().find(|node| node.has(Role::Allocator));
        named
            .or_else(beside)
            .or_else(server)
            .or_else(|| able().min_by(|a, b| a.name.cmp(&b.name)))
            .map(|node| node.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, roles: &[Role]) -> NodeRecord {
        Fixed::peer(name, PeerId::random(), vec![], roles.iter().copied().collect())
    }

    fn fixed(me: &str, peers: Vec<NodeRecord>, prefer: &[(&str, &str)]) -> Fixed {
        let concerns = vec![
            Wanted::new("/t01000/window-post", Role::WindowPost),
            Wanted::new("/t01000/sector-allocator", Role::Allocator),
            Wanted::new("/t01000/message-sender", Role::DaemonLink).beside("/t01000/window-post"),
            Wanted::pinned(format!("/t01000/seal-scheduler/{me}"), Role::Sealing, me),
        ];
        let prefer = prefer.iter().map(|(c, n)| (c.to_string(), vec![n.to_string()])).collect();
        Fixed { peers, placement: Placement { concerns, prefer, ..Placement::default() } }
    }

    fn held(fixed: &Fixed, me: &NodeRecord) -> Vec<(String, String)> {
        fixed.holders(me).into_iter().map(|(concern, holder)| (concern.replace("/t01000/", ""), holder.node)).collect()
    }

    #[test]
    fn both_sides_of_a_list_agree_on_who_holds_what() {
        let post = node("post", &[Role::WindowPost, Role::Allocator, Role::DaemonLink]);
        let seal = node("seal", &[Role::Sealing, Role::DaemonLink]);
        let text = |a: &str, b: &str| (a.to_string(), b.to_string());
        let of_seal = held(&fixed("seal", vec![post.clone()], &[]), &seal);
        assert_eq!(
            of_seal,
            [text("message-sender", "post"), text("sector-allocator", "post"), text("window-post", "post")]
        );
        assert_eq!(held(&fixed("post", vec![seal.clone()], &[]), &post), [text("seal-scheduler/seal", "seal")]);
        let prefer = [("message-sender", "seal")];
        assert_eq!(
            held(&fixed("post", vec![seal.clone()], &prefer), &post),
            [text("message-sender", "seal"), text("seal-scheduler/seal", "seal")]
        );
        assert!(!held(&fixed("seal", vec![post], &prefer), &seal).contains(&text("message-sender", "post")));
    }

    #[test]
    fn the_messages_are_sent_where_windows_are_proven() {
        let post = node("post", &[Role::WindowPost, Role::DaemonLink]);
        let seal = node("seal", &[Role::Sealing, Role::Allocator, Role::DaemonLink]);
        let sender = |prefer: &[(&str, &str)], post: &NodeRecord| {
            let of_seal = held(&fixed("seal", vec![post.clone()], prefer), &seal);
            let of_post = held(&fixed("post", vec![seal.clone()], prefer), post);
            let at = |held: &[(String, String)]| held.iter().any(|(concern, _)| concern == "message-sender");
            assert_ne!(at(&of_seal), at(&of_post), "one of them, and both know which");
            if at(&of_seal) { "post" } else { "seal" }
        };
        assert_eq!(sender(&[], &post), "post");
        assert_eq!(sender(&[("message-sender", "seal")], &post), "seal");
        assert_eq!(sender(&[], &node("post", &[Role::WindowPost])), "seal", "where it can");
    }

    #[test]
    fn without_an_allocator_the_first_by_name_is_the_one() {
        let (a, b) = (node("a", &[Role::DaemonLink]), node("b", &[Role::DaemonLink]));
        assert!(held(&fixed("a", vec![b.clone()], &[]), &a).is_empty());
        assert_eq!(held(&fixed("b", vec![a], &[]), &b).len(), 1);
        assert!(held(&fixed("b", vec![], &[]), &b).is_empty());
    }
}
