//! The distributed miner's flags (`--window-post --winning-post --p2p --sctype --sclisten`) in terms of roles: pure.

use super::CliError;
use crate::config::cluster::multiaddr_of;
use crate::config::{Cluster, DirectoryKind, Overrides};
use crate::node::roles::{Role, Roles};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Each of the first three is `true` where it is not given, or given without a value, as in the distributed miner.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct MinerFlags {
    /// Whether this node may prove windows [default: as cluster.roles says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub window_post: Option<bool>,
    /// Whether this node may win blocks [default: as cluster.roles says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub winning_post: Option<bool>,
    /// Whether this node may take deals [default: as cluster.roles says]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub p2p: Option<bool>,
    /// alloce: this node gives out sector numbers; get: it gets them from the node that does
    #[arg(long, value_name = "alloce|get")]
    pub sctype: Option<ScType>,
    /// With alloce: where the bridge listens, for those that get numbers here; with get and no etcd: where that is
    #[arg(long, value_name = "IP:PORT", value_parser = socket)]
    pub sclisten: Option<SocketAddr>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScType {
    /// Gives out sector numbers; the distributed miner spells it so
    #[value(alias = "alloc")]
    Alloce,
    /// Gets them from the node that does
    Get,
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    let at: SocketAddr = text.parse().map_err(|_| "write it as ip:port, such as 192.168.1.50:1357".to_string())?;
    match at.port() {
        0 => Err("port 0 is nowhere to be reached: write it as ip:port, such as 192.168.1.50:1357".to_string()),
        _ => Ok(at),
    }
}

impl MinerFlags {
    /// The first flag that was given, for where the roles came from.
    fn first(&self) -> Option<&'static str> {
        let given = [
            ("--window-post", self.window_post.is_some()),
            ("--winning-post", self.winning_post.is_some()),
            ("--p2p", self.p2p.is_some()),
            ("--sctype", self.sctype.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// All of them, less what the flags switch off. A node that takes no deals and is one of several (`--sctype`) is a
    /// PoSt miner and seals nothing; deal and seal miners have the same flags, and both seal.
    pub fn roles(&self) -> Option<Roles> {
        self.first()?;
        let mut off = Vec::new();
        if self.window_post == Some(false) {
            off.push(Role::WindowPost);
        }
        if self.winning_post == Some(false) {
            off.push(Role::WinningPost);
        }
        if self.p2p == Some(false) {
            off.push(Role::Markets);
            off.extend(self.sctype.map(|_| Role::Sealing));
        }
        if self.sctype == Some(ScType::Get) {
            off.push(Role::Allocator);
        }
        Some(off.into_iter().fold(Roles::all(), Roles::without))
    }

    /// A combination that can do nothing is refused before anything is read.
    pub fn check(&self) -> Result<(), CliError> {
        let usage = |text: &str| Err(CliError::Usage(text.to_string()));
        match (self.sctype, self.sclisten) {
            (None, Some(_)) => usage(
                "flag --sclisten needs --sctype: alloce on the node that gives out sector numbers, get on the others",
            ),
            (Some(ScType::Get), Some(at)) if at.ip().is_unspecified() => {
                usage("flag --sclisten: with --sctype=get it is the allocator's own address, which 0.0.0.0 is not")
            }
            (Some(ScType::Get), _) if self.roles().is_some_and(|roles| does_nothing(&roles)) => usage(
                "flags --window-post=false --winning-post=false --p2p=false --sctype=get leave this node nothing to do: \
                 leave one of them out",
            ),
            _ => Ok(()),
        }
    }

    /// Refuses an allocator for others that does not know them, or listens at an address that this host lacks.
    pub fn check_cluster(&self, cluster: &Cluster) -> Result<(), CliError> {
        match (self.sctype, self.sclisten, cluster.kind()) {
            (Some(ScType::Alloce), Some(at), DirectoryKind::Local) => Err(CliError::Usage(format!(
                "flag --sclisten: with --sctype=alloce the nodes that get numbers at {at} must be known, and none is: set \
                 cluster.etcd, or list each as [[cluster.peer]] with its name, peer_id (`bulkhead cluster id` there prints \
                 it) and roles, or leave the flag out"
            ))),
            (Some(ScType::Alloce), Some(at), _) if !is_of_this_host(at.ip()) => Err(CliError::Usage(format!(
                "flag --sclisten: {} is no address of this host: with --sctype=alloce it is where this node listens; a node \
                 that gets its numbers from {at} is started with --sctype=get",
                at.ip()
            ))),
            _ => Ok(()),
        }
    }

    /// Deal and seal miners have the same flags. Without etcd the one that every other lists with the role `markets` takes
    /// the deals, and the others only seal.
    fn may_leave_deals(&self) -> bool {
        self.sctype == Some(ScType::Get) && self.p2p != Some(false)
    }

    /// The peer that takes the deals in place of this node; `None`: this node takes them.
    pub fn deals_left_to<'a>(&self, cluster: &'a Cluster) -> Option<&'a str> {
        let peer = cluster.peer_with("markets").filter(|_| self.may_leave_deals() && !cluster.has_role("markets"));
        peer.map(|peer| peer.name.as_str())
    }

    pub fn overrides(&self, base: Overrides) -> Overrides {
        let left_to_peers = self.may_leave_deals().then_some("markets");
        let base = Overrides { left_to_peers, ..base };
        let roles = self.roles().map(|roles| roles.names().join(","));
        let with = base.flag("cluster.roles", self.first().unwrap_or("--sctype"), roles);
        match (self.sctype, self.sclisten) {
            (Some(ScType::Alloce), Some(at)) => {
                with.flag("cluster.listen", "--sclisten", multiaddr_of(&at.to_string()))
            }
            (Some(ScType::Get), Some(at)) => with.flag("cluster.allocator_at", "--sclisten", Some(at)),
            (_, _) => with,
        }
    }
}

/// A socket can be bound there.
fn is_of_this_host(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !matches!(bound, Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// Storage and the link to the full node are there for the others only.
fn does_nothing(roles: &Roles) -> bool {
    ![Role::WindowPost, Role::WinningPost, Role::Sealing, Role::Markets, Role::Allocator]
        .into_iter()
        .any(|role| roles.has(role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: MinerFlags,
    }

    fn parse(line: &str) -> MinerFlags {
        Line::try_parse_from(std::iter::once("run").chain(line.split_whitespace())).unwrap().flags
    }

    /// The command lines of the document, each with what its miner is for.
    #[test]
    fn the_documented_command_lines() {
        let table: [(&str, &[&str]); 8] = [
            (
                "--window-post=true --winning-post=true --p2p=false --sctype=alloce --sclisten=192.168.1.50:1357",
                &["window-post", "winning-post", "allocator", "storage", "daemon-link"],
            ),
            (
                "--window-post=true --winning-post=false --p2p=false --sctype=alloce --sclisten=192.168.1.50:1357",
                &["window-post", "allocator", "storage", "daemon-link"],
            ),
            (
                "--window-post=false --winning-post=true --p2p=false --sctype=get --sclisten=192.168.1.50:1357",
                &["winning-post", "storage", "daemon-link"],
            ),
            (
                "--window-post=false --winning-post=false --p2p=true --sctype=get --sclisten=192.168.10.50:1357",
                &["sealing", "markets", "storage", "daemon-link"],
            ),
            (
                "--window-post --winning-post",
                &["window-post", "winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"],
            ),
            ("--p2p=false", &["window-post", "winning-post", "sealing", "allocator", "storage", "daemon-link"]),
            (
                "--sctype=alloc",
                &["window-post", "winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"],
            ),
            (
                "--window-post=false --p2p",
                &["winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"],
            ),
        ];
        for (line, roles) in table {
            let flags = parse(line);
            assert!(flags.check().is_ok(), "{line}");
            assert_eq!(flags.roles().unwrap().names(), roles, "{line}");
        }
        assert_eq!(parse("").roles(), None, "without a flag the configuration says it");
    }

    #[test]
    fn where_numbers_come_from() {
        let keys = |line: &str| {
            let flags = parse(line).overrides(Overrides::default()).flags;
            flags.into_iter().filter(|(key, ..)| *key != "cluster.roles").map(|(k, _, v)| (k, v)).collect::<Vec<_>>()
        };
        let at = "192.168.1.50:1357";
        let listen = ("cluster.listen", "/ip4/192.168.1.50/tcp/1357".to_string());
        assert_eq!(keys(&format!("--sctype=alloce --sclisten={at}")), [listen]);
        assert_eq!(keys(&format!("--sctype=get --sclisten={at}")), [("cluster.allocator_at", at.to_string())]);
        assert_eq!(keys("--sctype=get"), []);
    }

    #[test]
    fn combinations_that_do_nothing_are_refused_by_name() {
        for (line, part) in [
            ("--sclisten=10.0.0.1:1357", "--sclisten needs --sctype"),
            ("--sctype=get --sclisten=0.0.0.0:1357", "--sclisten: with --sctype=get"),
            ("--window-post=false --winning-post=false --p2p=false --sctype=get", "nothing to do"),
        ] {
            let error = parse(line).check().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(part), "{line}: {error}");
        }
        for line in ["--sctype=give", "--sclisten=here", "--sclisten=10.0.0.1:0", "--window-post=yes"] {
            assert!(Line::try_parse_from(["run", line]).is_err(), "{line}");
        }
        assert!(parse("--sctype=alloce --sclisten=0.0.0.0:1357").check().is_ok());
        assert!(parse("--window-post=false --winning-post=false --p2p=false --sctype=alloce").check().is_ok());
    }

    #[test]
    fn who_gives_out_numbers_at_an_address_knows_others() {
        let alone = crate::config::Config::default().cluster;
        let etcd = Cluster { etcd: vec!["127.0.0.1:2379".into()], ..alone.clone() };
        let peer = crate::config::PeerConfig {
            name: "b".into(),
            peer_id: String::new(),
            addrs: vec![],
            roles: vec!["sealing".into()],
        };
        let peers = Cluster { peer: vec![peer], ..alone.clone() };
        let at = "--sctype=alloce --sclisten=127.0.0.1:1357";
        let error = parse(at).check_cluster(&alone).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("[[cluster.peer]]"), "{error}");
        for (line, cluster) in [(at, &etcd), (at, &peers), ("--sctype=alloce", &alone), ("", &alone)] {
            assert!(parse(line).check_cluster(cluster).is_ok(), "{line}");
        }
        // TEST-NET-1, which no host has
        let error = parse("--sctype=alloce --sclisten=192.0.2.1:1357").check_cluster(&etcd).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 is no address of this host") && error.contains("--sctype=get"), "{error}");
        assert!(parse("--sctype=get --sclisten=192.0.2.1:1357").check_cluster(&etcd).is_ok());
        assert!(parse("--sctype=alloce --sclisten=0.0.0.0:1357").check_cluster(&etcd).is_ok());
    }

    /// Document 0's line of a deal miner, a first and a second seal miner, on hosts without etcd that list one another.
    #[test]
    fn without_etcd_one_takes_deals_and_several_seal() {
        const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let line = "--window-post=false --winning-post=false --p2p=true --sctype=get --sclisten=192.168.10.50:1357";
        let load = |line: &str, peers: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            let mut text = "[cluster]\nnode = \"me\"\n".to_string();
            for (name, roles) in peers {
                text += &format!("[[cluster.peer]]\nname = \"{name}\"\npeer_id = \"{ID}\"\nroles = [{roles}]\n");
            }
            std::fs::write(dir.path().join("config.toml"), text).unwrap();
            let flags = parse(line);
            let base = Overrides { repo: Some(dir.path().to_path_buf()), ..Default::default() };
            crate::config::load(&flags.overrides(base), &|_| None).map(|loaded| (flags, loaded.config.cluster))
        };
        let post = ("post", "\"window-post\", \"winning-post\", \"allocator\"");
        let (flags, first) = load(line, &[post]).unwrap();
        assert_eq!((first.has_role("markets"), first.has_role("sealing")), (true, true));
        assert_eq!(flags.deals_left_to(&first), None);
        let both = ("all-else", "\"window-post\", \"winning-post\", \"allocator\", \"markets\"");
        let (flags, second) = load(line, &[both]).unwrap();
        assert_eq!((second.has_role("markets"), second.has_role("sealing")), (false, true));
        assert_eq!(flags.deals_left_to(&second), Some("all-else"));
        // what cannot be left is refused by the flag that gives it
        for (line, flag, way) in [
            (
                "--window-post=true --winning-post=false --p2p=false --sctype=get",
                "--window-post",
                "--window-post=false",
            ),
            ("--window-post=false --p2p=false --sctype=get", "--winning-post", "--winning-post=false"),
            ("--window-post=false --winning-post=false --sctype=alloce", "--p2p", "--p2p=false"),
            ("--window-post=false --winning-post=false --p2p=false --sctype=alloce", "--sctype", "--sctype=get"),
        ] {
            let error = load(line, &[both]).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("flag {flag}: ")) && error.contains(way), "{line}: {error}");
        }
    }
}
