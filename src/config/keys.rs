//! Every key of the configuration, described once. Parsing, defaults, environment names, the annotated example and
//! the error texts all come from this table; a test holds it against the typed [`super::Config`].

pub use super::kind::Kind;
use super::values::is_multiaddr;
use super::{cluster, values};
use crate::rpc::full_node::pool::{entries::PoolEntry, routes::RouteChange};
use std::time::Duration;

pub struct Key {
    /// `section.key`.
    pub path: &'static str,
    pub kind: Kind,
    /// As written in the file: TOML.
    pub default: &'static str,
    /// A name that operators know already; else the variable is `BULKHEAD_<SECTION>_<KEY>`.
    pub known_env: Option<&'static str>,
    /// The key's purpose, with its unit.
    pub help: &'static str,
    /// A node that runs takes it over when it reads its configuration anew; the others need a restart.
    pub hot: bool,
}

impl Key {
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
    pub fn env(&self) -> String {
        match self.known_env {
            Some(name) => name.to_string(),
            None => format!("BULKHEAD_{}", self.path.replace('.', "_").to_uppercase()),
        }
    }
}

/// Concerns are written with hyphens everywhere else, so `window-post = [..]` is taken too.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path || (path.contains('-') && key.path == path.replace('-', "_")))
}

/// True for values that must not reach an error text, a log, a bug report.
pub fn is_secret(path: &str) -> bool {
    matches!(path, "full_node.api_info" | "full_node.pool_info" | "cluster.etcd_password")
}

const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn is_empty_or(text: &str, check: impl Fn(&str) -> bool) -> bool {
    text.is_empty() || check(text)
}

/// Only an ID address (`t01000`, `f01000`): the repo's names come from its number.
pub fn is_miner(text: &str) -> bool {
    crate::chain::lotus_json::address::parse(text).is_ok_and(|a| a.id().is_ok())
}

fn is_atto_fil(text: &str) -> bool {
    !text.is_empty() && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_log_filter(text: &str) -> bool {
    !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Empty, or what may be a path.
fn is_path(text: &str) -> bool {
    !text.contains('\0')
}

const FIL: Kind = Kind::Text("an amount of FIL such as 0.05, 18 decimals at most", |s| values::parse_fil(s).is_some());

const ADDRESSES: Kind = Kind::List("a list of addresses such as t3..., f1... or t01001", |s| {
    crate::chain::lotus_json::address::parse(s).is_ok()
});

/// A list of full nodes, one or more.
fn is_nodes(text: &str) -> bool {
    PoolEntry::parse_list("", text).is_ok_and(|nodes| !nodes.is_empty())
}

fn is_route(text: &str) -> bool {
    text.split_once('=').is_some_and(|(method, route)| is_name(method) && RouteChange::parse(route).is_ok())
}

const NODES: Kind = Kind::List("a list of nodes' names, in order of preference", cluster::is_node_name);

macro_rules! key {
    (hot $path:literal, $kind:expr, $default:literal, $($rest:tt)+) => {
        Key { hot: true, ..key!($path, $kind, $default, $($rest)+) }
    };
    ($path:literal, $kind:expr, $default:literal, $help:literal) => {
        Key { path: $path, kind: $kind, default: $default, known_env: None, help: $help, hot: false }
    };
    ($path:literal, $kind:expr, $default:literal, env $env:literal, $help:literal) => {
        Key { path: $path, kind: $kind, default: $default, known_env: Some($env), help: $help, hot: false }
    };
}

pub static SECTIONS: &[(&str, &str)] = &[
    ("node", "The node itself."),
    ("full_node", "The full node (Lotus, Forest, Venus, the devnet) behind this provider."),
    ("proving", "WindowPoSt and WinningPoSt."),
    ("sealing", "From an empty sector to a proven one."),
    ("market", "The libp2p host that clients talk to."),
    ("fees", "Bounds on what messages may cost (fee cap x gas limit, replacements included), in FIL."),
    (
        "addresses",
        "Which of the miner's addresses sends what. WindowPoSt is sent by the control addresses on chain that are named\n# for nothing here, in their order, else by the worker, else by the owner: the first that can pay.",
    ),
    (
        "cluster",
        "One provider on several hosts. Without it everything runs in this process.\n# Needs a build with `--features cluster` where etcd is used; docs/cluster.md explains it.",
    ),
    (
        "placement",
        "Which node is preferred for a concern that runs once per miner: names of nodes, the first that is there takes it.\n# Nodes without the role never do; an empty list is every node with the role, in the order of names.",
    ),
    ("api", "The StorageMiner JSON-RPC; the CLI uses it. Tokens are in <repo>/token."),
    ("admin", "The admin HTTP: health, the supervision tree, stop."),
    (
        "devnet",
        "The embedded chain of `bulkhead devnet`; a node behind a real full node ignores it.\n# Delays and listen may change at every start; the rest is fixed when the chain is made.",
    ),
];

pub static KEYS: &[Key] = &[
    key!(
        "node.miner",
        Kind::Text("an ID address such as t01000, or empty", |s| is_empty_or(s, is_miner)),
        "\"\"",
        "The miner actor that this repo belongs to. `bulkhead init` writes it; do not change it by hand."
    ),
    key!(
        hot "node.log",
        Kind::Text("a tracing filter such as info or info,bulkhead::actors::window_post=debug", is_log_filter),
        "\"info,actix_server=warn,storage_proofs_core=warn,filecoin_proofs=warn,bellperson=warn\"",
        env "RUST_LOG",
        "What is logged, per subsystem; flag --log-level."
    ),
    key!(
        "node.log_format",
        Kind::Choice(&["pretty", "json"]),
        "\"pretty\"",
        "How log lines are written to stderr; flag --log-format."
    ),
    key!(
        "full_node.api_info",
        Kind::Text("<token>:/ip4/127.0.0.1/tcp/1234/http or <token>:http://host:port", |s| is_empty_or(s, is_nodes)),
        "\"\"",
        env "FULLNODE_API_INFO",
        "Where the full node is, with a token of admin permission (Lotus: `lotus auth api-info --perm admin`); several, with a comma between them, are a pool."
    ),
    key!(
        "full_node.pool_info",
        Kind::Text("<token>:<address>:<hostname>, several with a comma or semicolon between them", |s| is_empty_or(s, is_nodes)),
        "\"\"",
        env "FULLNODE_API_POOL_INFO",
        "Further full nodes of the pool, each <token>:<address>:<hostname>."
    ),
    key!(
        "full_node.use_pool",
        Kind::Bool,
        "true",
        env "FULLNODE_API_USE_POOL",
        "Uses all full nodes that are named; false: the first of api_info alone."
    ),
    key!(
        "full_node.primary_seed",
        Kind::Text("a whole number, or nothing", |s| is_empty_or(s, |s| s.parse::<u64>().is_ok())),
        "\"\"",
        env "FPOOL_PRIMARY_SEED",
        "Which node of the pool is asked first: this number modulo the number of nodes; empty: the miner's number."
    ),
    key!(
        "full_node.default_policy",
        Kind::Choice(&[
            "OneBySeedRound",
            "OneByIdRound",
            "OneByIndexAsc",
            "OneByIndexDesc",
            "OneByChainHeadDesc",
            "OneByMessagePeersDesc",
            "OneByBlockPeersDesc",
            "AllWithFirstSucceed"
        ]),
        "\"OneBySeedRound\"",
        "In which order the nodes of the pool are asked, unless a method has a route of its own."
    ),
    key!(
        "full_node.routes",
        Kind::List("a list of <method>=<policy>,<nohang>,<timeout>, such as ChainHead=OneByIdRound,false,0s", is_route),
        "[]",
        "Methods with a route of their own; a variable <method>_APIRT_CONFIG counts more."
    ),
    key!(
        "full_node.max_sync_behind",
        Kind::Int(0, 100_000),
        "2",
        env "FPOOL_MAX_SYNC_BEHIND",
        "Epochs that a node of the pool may have left to sync; beyond it another one is used."
    ),
    key!(
        "full_node.max_behind_diff",
        Kind::Int(0, 100_000),
        "2",
        env "FPOOL_MAX_BEHIND_DIFF",
        "Epochs that a node of the pool may be behind the best one."
    ),
    key!(
        "full_node.min_message_peers",
        Kind::Int(0, 100_000),
        "1",
        env "FPOOL_MIN_MESSAGE_PEERS",
        "Peers that pass on messages to a node of the pool; with fewer another one is used. A node that does not tell counts as having them."
    ),
    key!(
        "full_node.min_block_peers",
        Kind::Int(0, 100_000),
        "1",
        env "FPOOL_MIN_BLOCK_PEERS",
        "Peers that pass on blocks to a node of the pool, in the same way."
    ),
    key!(
        "full_node.agreement",
        Kind::Bool,
        "false",
        "Takes mining base info and randomness only when two nodes of the pool give the same; a block that they disagree about is lost."
    ),
    key!(
        "full_node.listen",
        Kind::Text("ip:port, or nothing", |s| is_empty_or(s, |s| s.parse::<std::net::SocketAddr>().is_ok())),
        "\"127.0.0.1:2245\"",
        "Where the pool is served as one full node to workers, other providers and the lotus command line (`daemons auth api-info`); empty: nowhere."
    ),
    key!(
        "full_node.miner_api_priority",
        Kind::Choice(&["auto", "true", "false"]),
        "\"auto\"",
        env "FULLNODE_MINER_API_PRIORITY",
        "Whether the pool of the provider at MINER_API_INFO is used as a full node: auto where none is named here, true before those that are named, false never."
    ),
    key!(
        "proving.parameter_cache",
        Kind::Path,
        "\"/var/tmp/filecoin-proof-parameters\"",
        env "FIL_PROOFS_PARAMETER_CACHE",
        "Folder of the proving keys (2 KiB: 1.2 GB, 32 GiB: about 100 GB)."
    ),
    key!(
        hot "proving.challenge_confidence",
        Kind::Int(0, 60),
        "1",
        "Epochs after a deadline's challenge before its proof begins (Lotus: 10; a reorg costs a second proof); less in short windows."
    ),
    key!(
        hot "proving.submit_confidence",
        Kind::Int(0, 60),
        "4",
        "Epochs after a deadline opens before its proof is sent; less in short windows."
    ),
    key!(
        hot "proving.max_partitions",
        Kind::Int(0, 300),
        "3",
        "Partitions in one WindowPoSt message; 0 = as many as the network takes."
    ),
    key!(
        "proving.max_head_lag",
        Kind::Int(0, 2880),
        "10",
        "Epochs that the full node's head may lag the clock for blocks to be mined on it; 0 = any number, for a network on which nobody else mines."
    ),
    key!(
        "proving.gpu_slots",
        Kind::Int(0, 64),
        "0",
        "Tasks that use a GPU at a time, over all Bulkhead processes of this host: WinningPoSt before WindowPoSt before C2 before PC2. With more than one each has a GPU of its own. 0 = as many as the driver shows, in builds with cuda or opencl."
    ),
    key!(
        "proving.gpu_locks",
        Kind::Text("a path, or empty", is_path),
        "\"\"",
        "Folder of the locks on those slots, the same for every Bulkhead process of this host; empty is one in /dev/shm."
    ),
    key!(hot "proving.parallel", Kind::Int(1, 64), "1", "WindowPoSt proofs that run at a time."),
    key!(
        "proving.f3",
        Kind::Choice(&["on", "off"]),
        "\"on\"",
        "Participation in fast finality (F3): the full node signs for the miner under a lease; nothing is lost without."
    ),
    key!(
        hot "sealing.max_sealing",
        Kind::Int(0, 10_000),
        "0",
        "Sectors that are being sealed at a time, further ones wait; 0 = no limit."
    ),
    key!(
        hot "sealing.sector_lifetime",
        Kind::Int(1, 5_256_000),
        "1555200",
        "Epochs from pre-commit to a new sector's expiration (1555200 = 540 days of 30 s; mainnet takes 604950 to 3680640)."
    ),
    key!(
        hot "sealing.ticket_lookback",
        Kind::Int(0, 2880),
        "900",
        "Epochs behind the head that a ticket is drawn from, so that no reorg changes it."
    ),
    key!(
        hot "sealing.seed_confidence",
        Kind::Int(0, 900),
        "6",
        "Epochs on top of the seed's epoch before the seed is drawn."
    ),
    key!(hot "sealing.pc1", Kind::Int(1, 256), "1", "PC1 tasks that run at a time."),
    key!(hot "sealing.pc2", Kind::Int(1, 256), "1", "PC2 tasks that run at a time."),
    key!(hot "sealing.c2", Kind::Int(1, 256), "1", "C2 tasks that run at a time."),
    key!(
        hot "sealing.keep_free",
        Kind::Int(0, 1_000_000),
        "1024",
        "MiB of the repo's disk that sealing here leaves free for the store, messages and proofs: no sector is begun without room for all of it."
    ),
    key!(
        "sealing.place",
        Kind::Choice(&["here", "agents"]),
        "\"here\"",
        "Where new sectors are sealed: in this repo, or at agents (`bulkhead agent`), which is the default beside [SealAgent] EtcdAddrs."
    ),
    key!(
        "market.listen",
        Kind::Text("a multiaddr such as /ip4/0.0.0.0/tcp/24001", is_multiaddr),
        "\"/ip4/127.0.0.1/tcp/0\"",
        "Where the market's libp2p host listens; port 0 takes any free one."
    ),
    key!(
        "market.max_connections",
        Kind::Int(1, 100_000),
        "256",
        "Connections that the market's libp2p host keeps open at a time."
    ),
    key!(
        hot "market.price",
        Kind::Text("a whole number of attoFIL", is_atto_fil),
        "\"500000000\"",
        "Asking price, attoFIL per GiB and epoch."
    ),
    key!(
        hot "market.verified_price",
        Kind::Text("a whole number of attoFIL", is_atto_fil),
        "\"50000000\"",
        "Asking price for verified clients, attoFIL per GiB and epoch."
    ),
    key!(
        hot "fees.window_post",
        FIL,
        "\"5\"",
        "The most that the gas of one WindowPoSt message or one declaration of recoveries may cost."
    ),
    key!(hot "fees.pre_commit", FIL, "\"0.02\"", "The most that the gas of one pre-commit may cost."),
    key!(hot "fees.commit", FIL, "\"0.03\"", "The most that the gas of one proof of replication may cost."),
    key!(hot "fees.other", FIL, "\"0.07\"", "The most that the gas of any other message may cost."),
    key!(
        hot "fees.maximize_window_post_fee_cap",
        Kind::Bool,
        "true",
        "A WindowPoSt's fee cap is fees.window_post from the start; blocks charge base fee and premium only, so a base fee that jumps keeps none out."
    ),
    key!(
        hot "addresses.pre_commit_control",
        ADDRESSES,
        "[]",
        "Control addresses that send pre-commits; the first that can pay and whose key is in the wallet does."
    ),
    key!(hot "addresses.commit_control", ADDRESSES, "[]", "Control addresses that send proofs of replication."),
    key!(hot "addresses.terminate_control", ADDRESSES, "[]", "Control addresses that send terminations."),
    key!(hot "addresses.deal_publish_control", ADDRESSES, "[]", "Control addresses that publish deals."),
    key!(hot "addresses.disable_owner_fallback", Kind::Bool, "false", "Never send from the owner."),
    key!(
        hot "addresses.disable_worker_fallback",
        Kind::Bool,
        "false",
        "Send from the worker only where no control address is there for it."
    ),
    key!(
        "cluster.name",
        Kind::Text("letters, digits, `-`, `_`, `.`; at most 64", is_name),
        "\"bulkhead\"",
        "The cluster's name: clusters of different names share an etcd, and their nodes refuse one another."
    ),
    key!(
        "cluster.node",
        Kind::Text("letters, digits, `-`, `_`, `.`; at most 64; or empty", |s| is_empty_or(s, cluster::is_node_name)),
        "\"\"",
        "This node's name, in placement, in paths and in `cluster nodes`; empty is the host's name."
    ),
    key!(
        "cluster.directory",
        Kind::Choice(&["auto", "local", "static", "etcd"]),
        "\"auto\"",
        "Where a node learns of the others; auto is etcd where endpoints are given, static where peers are listed, else local."
    ),
    key!(
        "cluster.roles",
        Kind::List(
            "a list of all, window-post, winning-post, sealing, markets, allocator, storage, daemon-link",
            cluster::is_role
        ),
        "[\"all\"]",
        "What this node may run; flags --window-post, --winning-post, --p2p, --sctype."
    ),
    key!(
        "cluster.listen",
        Kind::List("a list of multiaddrs such as /ip4/0.0.0.0/tcp/2347", is_multiaddr),
        "[\"/ip4/0.0.0.0/tcp/2347\"]",
        "Where the bridge to the other nodes listens, in a cluster only; empty for a node that only dials out. Flag --sclisten."
    ),
    key!(
        "cluster.announce",
        Kind::List("a list of multiaddrs such as /ip4/203.0.113.7/tcp/2347", is_multiaddr),
        "[]",
        "At which addresses the other nodes reach the bridge, where that is not where it listens."
    ),
    key!(
        "cluster.etcd",
        Kind::List("a list of etcd endpoints, host:port or https://host:port", cluster::is_endpoint),
        "[]",
        "etcd's endpoints; [SealAgent] EtcdAddrs is the same."
    ),
    key!(
        "cluster.etcd_user",
        Kind::Text("a user's name, or empty", |_| true),
        "\"\"",
        "The user of etcd, where it asks for one."
    ),
    key!("cluster.etcd_password", Kind::Text("a password, or empty", |_| true), "\"\"", "That user's password."),
    key!(
        "cluster.etcd_ca",
        Kind::Text("a path, or empty", is_path),
        "\"\"",
        "PEM file of the authority that signed etcd's certificate."
    ),
    key!(
        "cluster.etcd_cert",
        Kind::Text("a path, or empty", is_path),
        "\"\"",
        "PEM file of this node's certificate for etcd."
    ),
    key!("cluster.etcd_key", Kind::Text("a path, or empty", is_path), "\"\"", "PEM file of that certificate's key."),
    key!(
        "cluster.lease_ttl",
        Kind::Duration(secs(2), secs(300)),
        "\"10s\"",
        "After this long without a sign of life what a node held goes to the next one."
    ),
    key!(
        "cluster.heartbeat",
        Kind::Duration(Duration::from_millis(100), secs(60)),
        "\"1s\"",
        "Time between two signs of life on the bridge."
    ),
    key!(
        "cluster.suspect",
        Kind::Duration(Duration::from_millis(200), secs(300)),
        "\"3s\"",
        "A peer that is silent for this long is suspect; it is shown, nothing else."
    ),
    key!(
        "cluster.down",
        Kind::Duration(Duration::from_millis(300), secs(600)),
        "\"10s\"",
        "A peer that is silent for this long is down: what waits for its answers fails."
    ),
    key!(
        "cluster.allow",
        Kind::List("a list of PeerIds", cluster::is_peer_id),
        "[]",
        "PeerIds that may connect beside those that the directory knows."
    ),
    key!(
        "cluster.allocator_at",
        Kind::Text("ip:port, or empty", |s| is_empty_or(s, |s| s.parse::<std::net::SocketAddr>().is_ok())),
        "\"\"",
        "Without etcd: where the sector allocator's bridge listens. Flags --sctype=get --sclisten."
    ),
    key!(
        "cluster.peer",
        Kind::Peers,
        "[]",
        "Without etcd: every other node, as [[cluster.peer]] with name, peer_id (`bulkhead cluster id` prints it), addrs, roles."
    ),
    key!("placement.window_post", NODES, "[]", "WindowPoSt (role window-post)."),
    key!("placement.winning_post", NODES, "[]", "WinningPoSt (role winning-post)."),
    key!("placement.sector_allocator", NODES, "[]", "Sector numbers (role allocator)."),
    key!(
        "placement.message_sender",
        NODES,
        "[]",
        "The miner's messages and their nonces (role daemon-link); an empty list is the node that holds window_post."
    ),
    key!("placement.deal_handler", NODES, "[]", "The market host (role markets)."),
    key!("api.listen", Kind::Socket, "\"127.0.0.1:2345\"", "Address and port; port 0 takes any free one."),
    key!("admin.listen", Kind::Socket, "\"127.0.0.1:2346\"", "Address and port; port 0 takes any free one."),
    key!(
        "devnet.listen",
        Kind::Socket,
        "\"127.0.0.1:1234\"",
        "Address and port of the full node's JSON-RPC; port 0 takes any free one."
    ),
    key!(
        "devnet.network_name",
        Kind::Text("letters, digits, `-`, `_`, `.`; at most 64", is_name),
        "\"bulkhead-devnet-1\"",
        "What StateNetworkName answers."
    ),
    key!(
        "devnet.block_delay",
        Kind::Duration(Duration::from_millis(100), secs(3600)),
        "\"10s\"",
        "Time between two epochs once the provider has power; flag --block-delay."
    ),
    key!(
        "devnet.warmup_delay",
        Kind::Duration(Duration::from_millis(100), secs(3600)),
        "\"2s\"",
        "Time between two epochs before that, so that a first sector need not wait; flag --warmup-delay."
    ),
    key!("devnet.deadlines", Kind::Int(3, 48), "6", "Deadlines in a proving period."),
    key!(
        "devnet.challenge_window",
        Kind::Int(4, 60),
        "10",
        "Epochs that a deadline is open; the proving period is deadlines x challenge_window."
    ),
    key!(
        "devnet.challenge_lookback",
        Kind::Int(1, 20),
        "4",
        "Epochs before a deadline opens from which its challenge comes."
    ),
    key!(
        "devnet.fault_cutoff",
        Kind::Int(0, 70),
        "4",
        "Epochs before a deadline opens in which faults can no longer be declared."
    ),
    key!(
        "devnet.pre_commit_challenge_delay",
        Kind::Int(1, 150),
        "10",
        "Epochs between a pre-commit and its interactive seed."
    ),
    key!("devnet.chain_finality", Kind::Int(5, 900), "20", "Epochs after which a tipset is final."),
    key!(
        "devnet.winning_lookback",
        Kind::Int(1, 900),
        "10",
        "Epochs that a winning sector must have been in the power table."
    ),
    key!(
        "devnet.dispute_window",
        Kind::Int(1, 5000),
        "40",
        "Epochs after a deadline in which its proof can be disputed; must end before the deadline opens again."
    ),
    key!("devnet.account_fil", Kind::Int(1, 1_000_000_000), "100000", "Whole FIL that each genesis account holds."),
    key!(
        "devnet.upgrade_epoch",
        Kind::Int(-1, 1_000_000_000),
        "-1",
        "The last epoch of network version 28, after which the chain migrates to 29; -1: version 29 from the start. Also\n# for a running chain, while the epoch is to come; flag --upgrade-epoch."
    ),
];
