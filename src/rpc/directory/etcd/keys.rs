//! The layout of keys in etcd. The directory's keys lie side by side (`drain/` to `nodes/`), so that one watch sees
//! them all, in the order in which they changed, and nothing of the store's (`state/`) or of who has which PeerId
//! (`peers/`).

use libp2p::PeerId;

/// `/bulkhead/<cluster>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// The subject of a key of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// A node's name.
    Drain(&'a str),
    /// The path of a concern.
    Lease(&'a str),
    Move(&'a str),
    Node(&'a str),
}

impl Keys {
    pub fn new(cluster: &str) -> Keys {
        Keys { prefix: format!("/bulkhead/{cluster}/") }
    }

    pub fn key(&self, key: Key<'_>) -> String {
        // The path of a concern brings its own slash.
        match key {
            Key::Drain(node) => format!("{}drain/{node}", self.prefix),
            Key::Lease(concern) => format!("{}leases{concern}", self.prefix),
            Key::Move(concern) => format!("{}moves{concern}", self.prefix),
            Key::Node(node) => format!("{}nodes/{node}", self.prefix),
        }
    }

    /// The name of the node whose PeerId this is.
    pub fn peer(&self, peer: &PeerId) -> String {
        format!("{}peers/{peer}", self.prefix)
    }

    /// The marker of that concern's last commit.
    pub fn marker(&self, concern: &str) -> String {
        format!("{}seq{concern}", self.prefix)
    }

    /// First key of a folder, and the one after its last.
    pub fn folder(&self, folder: &str) -> (String, String) {
        // '0' follows '/'.
        (format!("{}{folder}/", self.prefix), format!("{}{folder}0", self.prefix))
    }

    /// The folder of a key of this cluster, and the rest with its slash.
    pub fn split<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(&self.prefix)?;
        Some(rest.split_at(rest.find('/')?))
    }

    pub fn parse<'a>(&self, key: &'a str) -> Option<Key<'a>> {
        let (folder, path) = self.split(key)?;
        match folder {
            "drain" => Some(Key::Drain(&path[1..])),
            "leases" => Some(Key::Lease(path)),
            "moves" => Some(Key::Move(path)),
            "nodes" => Some(Key::Node(&path[1..])),
            _ => None,
        }
    }

    /// First key of the directory, and the one after its last.
    pub fn range(&self) -> (String, String) {
        // '0' follows '/'.
        (format!("{}drain/", self.prefix), format!("{}nodes0", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_and_lies_in_the_watched_range() {
        let keys = Keys::new("main");
        let (from, to) = keys.range();
        let path = "/t01000/window-post";
        for key in [Key::Drain("a"), Key::Lease(path), Key::Move(path), Key::Node("zz.9")] {
            let text = keys.key(key);
            assert_eq!(keys.parse(&text), Some(key));
            assert!(from <= text && text < to, "{text}");
        }
        assert_eq!(keys.key(Key::Lease(path)), "/bulkhead/main/leases/t01000/window-post");
        for other in ["peers/12D3KooW", "state/t01000/window-post/x/y", "ca", "nodes0", ""] {
            let text = format!("/bulkhead/main/{other}");
            assert!(!(from <= text && text < to) && keys.parse(&text).is_none(), "{text}");
        }
        assert_eq!(keys.parse("/bulkhead/other/nodes/a"), None);
    }
}
