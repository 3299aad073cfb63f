//! A node's record of itself: name, identity, addresses, roles.

use super::error::{DirectoryError, check_concern, is_name};
use super::text;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Every record has it; a reader takes what it knows of a newer one.
pub const SCHEMA: u16 = 1;

/// One record a node, with all its actors in it: a thousand nodes are a thousand keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    #[serde(default = "schema")]
    pub schema: u16,
    /// Unique in the cluster; the placement names nodes by it.
    pub name: String,
    #[serde(with = "text")]
    pub peer_id: PeerId,
    /// Grows with every start of the node.
    pub boot: u64,
    /// The bridge's listen addresses; empty if it only dials out.
    #[serde(with = "texts")]
    pub addrs: Vec<Multiaddr>,
    #[serde(deserialize_with = "known_roles")]
    pub roles: BTreeSet<Role>,
    pub kind: NodeKind,
    /// Paths of actors that run here and nowhere else, without a lease (`/host-a/storage`).
    #[serde(default)]
    pub serves: BTreeSet<String>,
    pub version: String,
    /// Multiaddr of its StorageMiner JSON-RPC.
    #[serde(default)]
    pub api: Option<String>,
    /// `host:port` of its admin HTTP.
    #[serde(default)]
    pub admin: Option<String>,
    /// An operator's order, not the node's word: the view fills it in.
    #[serde(skip)]
    pub drained: bool,
}

fn schema() -> u16 {
    SCHEMA
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    Node,
    /// A seal agent: serves workers and their storage, holds no concern of the cluster.
    Agent,
}

/// A role: the concerns that a node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    WindowPost,
    WinningPost,
    Sealing,
    Markets,
    Allocator,
    Storage,
    DaemonLink,
    All,
}

impl Role {
    pub const EACH: [Role; 8] = [
        Role::WindowPost,
        Role::WinningPost,
        Role::Sealing,
        Role::Markets,
        Role::Allocator,
        Role::Storage,
        Role::DaemonLink,
        Role::All,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Role::WindowPost => "window-post",
            Role::WinningPost => "winning-post",
            Role::Sealing => "sealing",
            Role::Markets => "markets",
            Role::Allocator => "allocator",
            Role::Storage => "storage",
            Role::DaemonLink => "daemon-link",
            Role::All => "all",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Role, String> {
        Role::EACH.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            let names: Vec<_> = Role::EACH.iter().map(|role| role.name()).collect();
            format!("{text:?} is no role; there are {}", names.join(", "))
        })
    }
}

impl NodeRecord {
    pub fn new(name: impl Into<String>, peer_id: PeerId, boot: u64) -> NodeRecord {
        NodeRecord {
            schema: SCHEMA,
            name: name.into(),
            peer_id,
            boot,
            addrs: Vec::new(),
            roles: BTreeSet::from([Role::All]),
            kind: NodeKind::Node,
            serves: BTreeSet::new(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            api: None,
            admin: None,
            drained: false,
        }
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::All)
    }

    pub fn check(&self) -> Result<(), DirectoryError> {
        if !is_name(&self.name) {
            return Err(DirectoryError::BadName { what: "node", name: self.name.clone() });
        }
        self.serves.iter().try_for_each(|path| check_concern(path))
    }
}

/// Roles of a later version are left out: no concern that this version knows needs them, and the node is there all the same.
fn known_roles<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeSet<Role>, D::Error> {
    Ok(Vec::<String>::deserialize(d)?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// serde: a list by `Display` and `FromStr`; what cannot be read, such as an address of a later version's transport, is
/// left out.
mod texts {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::{fmt::Display, str::FromStr};
    pub fn serialize<T: Display, S: Serializer>(v: &[T], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(T::to_string))
    }
    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<String>::deserialize(d)?.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_json_and_fields_of_later_versions() {
        let mut record = NodeRecord::new("host-a", PeerId::random(), 7);
        record.addrs = vec!["/ip4/10.0.0.1/tcp/4001".parse().unwrap()];
        record.roles = BTreeSet::from([Role::WindowPost, Role::DaemonLink]);
        record.serves = BTreeSet::from(["/host-a/storage".to_string()]);
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["roles"], serde_json::json!(["window-post", "daemon-link"]));
        json["added-later"] = 1.into();
        assert_eq!(serde_json::from_value::<NodeRecord>(json.clone()).unwrap(), record);
        // A node that was updated first must not vanish from the view of those that follow.
        json["roles"].as_array_mut().unwrap().push("snap-deals".into());
        json["addrs"].as_array_mut().unwrap().push("/ip9/x/warp/1".into());
        assert_eq!(serde_json::from_value::<NodeRecord>(json.clone()).unwrap(), record);
        json["roles"] = "all".into();
        assert!(serde_json::from_value::<NodeRecord>(json).is_err(), "no list");
    }

    #[test]
    fn every_role_is_read_as_it_is_written_and_all_is_every_role() {
        for role in Role::EACH {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
            assert!(NodeRecord::new("a", PeerId::random(), 1).has(role));
        }
        assert!("window_post".parse::<Role>().unwrap_err().contains("window-post"));
    }

    #[test]
    fn names_at_their_bounds() {
        for (name, good) in [("a", true), ("", false), ("..", false), ("a/b", false), ("host-1.lan_2", true)] {
            assert_eq!(is_name(name), good, "{name:?}");
        }
        assert!(is_name(&"x".repeat(64)) && !is_name(&"x".repeat(65)));
    }
}
