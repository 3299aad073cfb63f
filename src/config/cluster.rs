//! `[cluster]` and `[placement]`: how this node finds the others, what it may run, and who is preferred for what.

use super::values::{duration, optional};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The roles of a node. `all` stands for every other one.
pub const ROLES: &[&str] =
    &["all", "window-post", "winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"];

/// The directory that the configuration asks for; [`Cluster::kind`] resolves it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryConfig {
    /// etcd where endpoints are given, static where peers are listed, else local.
    Auto,
    Local,
    Static,
    Etcd,
}

/// The source of who else there is, and who holds what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryKind {
    /// Nobody else: everything is held here.
    Local,
    /// The peers of the configuration; roles are divided by hand, nothing moves by itself.
    Static,
    /// Registration, leases and fail-over.
    Etcd,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub name: String,
    /// This node's name; else the host's.
    #[serde(with = "optional")]
    pub node: Option<String>,
    pub directory: DirectoryConfig,
    pub roles: Vec<String>,
    /// Multiaddrs of the bridge; none is one on a free port of all interfaces in a cluster.
    pub listen: Vec<String>,
    /// Multiaddrs at which the others reach the bridge, where these differ from `listen`.
    pub announce: Vec<String>,
    /// `host:port`, or `https://host:port`.
    pub etcd: Vec<String>,
    #[serde(with = "optional")]
    pub etcd_user: Option<String>,
    #[serde(with = "optional")]
    pub etcd_password: Option<String>,
    #[serde(with = "optional")]
    pub etcd_ca: Option<String>,
    #[serde(with = "optional")]
    pub etcd_cert: Option<String>,
    #[serde(with = "optional")]
    pub etcd_key: Option<String>,
    #[serde(with = "duration")]
    pub lease_ttl: Duration,
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    #[serde(with = "duration")]
    pub suspect: Duration,
    #[serde(with = "duration")]
    pub down: Duration,
    /// PeerIds that may connect beside those that the directory knows.
    pub allow: Vec<String>,
    /// `ip:port` of the allocator's bridge, for a cluster without etcd.
    #[serde(with = "optional")]
    pub allocator_at: Option<String>,
    pub peer: Vec<PeerConfig>,
}

/// A node that is known by hand: the allow-list and the directory of a cluster without etcd.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    pub name: String,
    /// The output of `bulkhead cluster id` on that node.
    pub peer_id: String,
    /// Multiaddrs; none where it dials us.
    #[serde(default)]
    pub addrs: Vec<String>,
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Nodes by name, the first that is there and may do it takes it; none given means any, in the order of names.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PlacementConfig {
    pub window_post: Vec<String>,
    pub winning_post: Vec<String>,
    pub sector_allocator: Vec<String>,
    pub message_sender: Vec<String>,
    pub deal_handler: Vec<String>,
}

/// Roles that one node of a cluster without etcd has: (role, the flag that gives it, the flag that takes it away).
const SINGLE_ROLES: [(&str, &str, &str); 4] = [
    ("window-post", "--window-post", "--window-post=false"),
    ("winning-post", "--winning-post", "--winning-post=false"),
    ("markets", "--p2p", "--p2p=false"),
    ("allocator", "--sctype", "--sctype=get"),
];

/// Why the keys of a cluster do not fit together.
pub(super) struct Fault {
    pub key: &'static str,
    pub value: String,
    pub why: String,
    /// The flag at fault where the key's value comes from flags.
    pub flag: Option<&'static str>,
}

impl Fault {
    fn new(key: &'static str, value: String, why: &str) -> Fault {
        Fault { key, value, why: why.to_string(), flag: None }
    }
}

impl Cluster {
    pub fn kind(&self) -> DirectoryKind {
        match self.directory {
            DirectoryConfig::Local => DirectoryKind::Local,
            DirectoryConfig::Static => DirectoryKind::Static,
            DirectoryConfig::Etcd => DirectoryKind::Etcd,
            DirectoryConfig::Auto if !self.etcd.is_empty() => DirectoryKind::Etcd,
            DirectoryConfig::Auto if !self.peer.is_empty() || self.allocator_at.is_some() => DirectoryKind::Static,
            DirectoryConfig::Auto => DirectoryKind::Local,
        }
    }

    /// This node's name in the cluster.
    pub fn node_name(&self) -> String {
        let host = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
            name.trim().split('.').next().filter(|name| is_node_name(name)).map(str::to_string)
        };
        self.node.clone().or_else(host).unwrap_or_else(|| "node".to_string())
    }

    pub fn has_role(&self, role: &str) -> bool {
        has_role(&self.roles, role)
    }

    /// The files for TLS to etcd: (CA, certificate, key).
    pub fn etcd_tls(&self) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
        let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
        (path(&self.etcd_ca), path(&self.etcd_cert), path(&self.etcd_key))
    }

    /// The peer that has `role`, in a cluster without etcd.
    pub fn peer_with(&self, role: &str) -> Option<&PeerConfig> {
        self.peer.iter().find(|peer| self.kind() == DirectoryKind::Static && has_role(&peer.roles, role))
    }

    /// Checks that span several keys.
    pub(super) fn faults(&self) -> Option<Fault> {
        let text = super::values::format_duration;
        let fault = |key, value: String, why: &str| Some(Fault::new(key, value, why));
        if self.suspect <= self.heartbeat {
            let why = format!("it must be above cluster.heartbeat ({})", text(self.heartbeat));
            return fault("cluster.suspect", text(self.suspect), &why);
        }
        if self.down <= self.suspect {
            let why = format!("it must be above cluster.suspect ({})", text(self.suspect));
            return fault("cluster.down", text(self.down), &why);
        }
        if self.etcd_cert.is_some() != self.etcd_key.is_some() {
            let (key, other) = match self.etcd_cert.is_some() {
                true => ("cluster.etcd_cert", "cluster.etcd_key"),
                false => ("cluster.etcd_key", "cluster.etcd_cert"),
            };
            return fault(key, "(set)".into(), &format!("{other} must be set too"));
        }
        if self.etcd_user.is_some() != self.etcd_password.is_some() {
            let why = "cluster.etcd_user and cluster.etcd_password belong together";
            return fault("cluster.etcd_user", "(set)".into(), why);
        }
        match self.kind() {
            DirectoryKind::Local => None,
            DirectoryKind::Etcd if self.etcd.is_empty() => {
                fault("cluster.directory", "\"etcd\"".into(), "cluster.etcd names no endpoint")
            }
            DirectoryKind::Etcd => None,
            DirectoryKind::Static => self.static_faults(),
        }
    }

    /// Without etcd nobody arbitrates: a role that two nodes have would be two holders.
    fn static_faults(&self) -> Option<Fault> {
        let me = self.node_name();
        if self.peer.is_empty() {
            let (key, value) = match &self.allocator_at {
                Some(at) => ("cluster.allocator_at", format!("{at:?}")),
                None => ("cluster.directory", "\"static\"".to_string()),
            };
            let why = "without etcd every other node is listed as [[cluster.peer]] with its name, peer_id (`bulkhead \
                       cluster id` there prints it) and roles, and none is";
            return Some(Fault::new(key, value, why));
        }
        for (i, peer) in self.peer.iter().enumerate() {
            let twice = self.peer[..i].iter().any(|other| other.name == peer.name || other.peer_id == peer.peer_id);
            if twice || peer.name == me {
                let why = "two nodes have this name or peer_id";
                return Some(Fault::new("cluster.peer", format!("{:?}", peer.name), why));
            }
        }
        for (role, flag, without) in SINGLE_ROLES {
            let mine = self.has_role(role);
            let mut holders: Vec<&str> = mine.then_some(me.as_str()).into_iter().collect();
            holders.extend(self.peer.iter().filter(|p| has_role(&p.roles, role)).map(|p| p.name.as_str()));
            if holders.len() > 1 {
                let (key, value) = match mine {
                    true => ("cluster.roles", format!("{:?}", self.roles)),
                    false => ("cluster.peer", format!("{holders:?}")),
                };
                let why = format!(
                    "{} would all run {role}, and without etcd nothing decides between them: leave it to one of them \
                     (roles, or {without})",
                    holders.join(" and ")
                );
                return Some(Fault { flag: Some(flag), ..Fault::new(key, value, &why) });
            }
        }
        if self.allocator_at.is_some() && !self.peer.iter().any(|p| has_role(&p.roles, "allocator")) {
            let why = "no [[cluster.peer]] has the role allocator, so nobody may answer there: add that node with its \
                       name, peer_id (`bulkhead cluster id` there prints it) and roles = [\"allocator\"]";
            let at = self.allocator_at.clone().unwrap_or_default();
            return Some(Fault::new("cluster.allocator_at", format!("{at:?}"), why));
        }
        None
    }
}

pub fn has_role(roles: &[String], role: &str) -> bool {
    roles.iter().any(|r| r == role || r == "all")
}

pub fn is_role(text: &str) -> bool {
    ROLES.contains(&text)
}

/// It is part of paths and of etcd's keys.
pub fn is_node_name(text: &str) -> bool {
    crate::rpc::directory::is_name(text)
}

/// `ip:port` as the bridge dials it.
pub fn multiaddr_of(socket: &str) -> Option<libp2p::Multiaddr> {
    let at: std::net::SocketAddr = socket.parse().ok()?;
    let version = if at.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{version}/{}/tcp/{}", at.ip(), at.port()).parse().ok()
}

pub fn is_peer_id(text: &str) -> bool {
    text.parse::<libp2p::PeerId>().is_ok()
}

/// `host:port` or `http(s)://host:port`.
pub fn is_endpoint(text: &str) -> bool {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let Some((host, port)) = bare.rsplit_once(':') else { return false };
    let named = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let numeric = |host: &str| host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let host_is_fine = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None if numeric(host) => host.parse::<std::net::Ipv4Addr>().is_ok(),
        None => !host.is_empty() && named(host),
    };
    host_is_fine && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The sound form of a list of `[[cluster.peer]]`.
pub fn accept_peers(value: &toml::Value) -> Option<Vec<PeerConfig>> {
    let peers: Vec<PeerConfig> = value.clone().try_into().ok()?;
    let sound = |peer: &PeerConfig| {
        is_node_name(&peer.name)
            && is_peer_id(&peer.peer_id)
            && peer.addrs.iter().all(|a| super::values::is_multiaddr(a))
            && peer.roles.iter().all(|r| is_role(r))
    };
    peers.iter().all(sound).then_some(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_at_their_bounds() {
        let endpoints = [
            ("127.0.0.1:2379", true),
            ("https://etcd-1.example:2379", true),
            ("http://10.0.0.1:2379", true),
            ("[::1]:2379", true),
            ("etcd:2379", true),
            // as printed in a widely copied guide
            ("218.78,187.146:2379", false),
            ("218.78.187:2379", false),
            ("10.0.0.1", false),
            ("10.0.0.1:0", false),
            ("10.0.0.1:65536", false),
            (":2379", false),
            ("ftp://10.0.0.1:2379", false),
        ];
        for (text, ok) in endpoints {
            assert_eq!(is_endpoint(text), ok, "{text}");
        }
    }

    #[test]
    fn a_directory_follows_from_what_is_given() {
        let base = crate::config::Config::default().cluster;
        let peer = PeerConfig { name: "b".into(), peer_id: String::new(), addrs: vec![], roles: vec![] };
        let etcd = |c: &mut Cluster| c.etcd = vec!["127.0.0.1:2379".into()];
        let peers = |c: &mut Cluster| c.peer = vec![peer.clone()];
        let at = |c: &mut Cluster| c.allocator_at = Some("10.0.0.1:1357".into());
        let kind = |asked, edits: &[&dyn Fn(&mut Cluster)]| {
            let mut cluster = Cluster { directory: asked, ..base.clone() };
            edits.iter().for_each(|edit| edit(&mut cluster));
            cluster.kind()
        };
        assert_eq!(kind(DirectoryConfig::Auto, &[]), DirectoryKind::Local);
        assert_eq!(kind(DirectoryConfig::Auto, &[&peers]), DirectoryKind::Static);
        assert_eq!(kind(DirectoryConfig::Auto, &[&at]), DirectoryKind::Static);
        assert_eq!(kind(DirectoryConfig::Auto, &[&peers, &etcd]), DirectoryKind::Etcd);
        assert_eq!(kind(DirectoryConfig::Local, &[&peers, &etcd]), DirectoryKind::Local);
        assert_eq!(kind(DirectoryConfig::Static, &[&etcd]), DirectoryKind::Static);
        assert_eq!(kind(DirectoryConfig::Etcd, &[&peers]), DirectoryKind::Etcd);
    }
}
