//! The settings that a node needs before its tree is built: the configuration in the concerns' own terms.

use super::concern::Concern;
use super::roles::{Role, Roles};
use crate::actors::daemon_link::settings::LinkSettings;
use crate::actors::deal_handler::{AskSettings, MarketSettings};
use crate::actors::message_sender::{AddressRules, SenderSettings};
use crate::actors::seal_scheduler::{Agents, Limits, NoAgents, Place, SealSettings};
use crate::actors::storage::{NoStorages, Storages};
use crate::actors::window_post::settings::WindowPostSettings;
use crate::actors::winning_post::settings::WinningPostSettings;
use crate::chain::TokenAmount;
use crate::config::ConfigError;
use crate::config::{self, Config, DirectoryKind, PlacementConfig};
use crate::proofs::ProverPools;
use crate::supervisor::{Tree, TreeOptions};
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The source of this node's settings, to read them again.
pub trait Origin: Send + Sync {
    /// The configuration that it was started with.
    fn started_with(&self) -> &Config;
    /// Blocks.
    fn read(&self) -> Result<Config, ConfigError>;
    /// In the concerns' terms.
    fn settings(&self, config: &Config) -> NodeSettings {
        NodeSettings::of(config)
    }
    /// Logs by that filter from now on.
    fn log(&self, filter: &str) -> Result<(), String>;
}

#[derive(Clone)]
pub struct NodeSettings {
    pub repo: PathBuf,
    pub api_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// The pool of full nodes is served as one there; `None`: nowhere.
    pub pool_listen: Option<SocketAddr>,
    pub link: LinkSettings,
    pub messages: SenderSettings,
    pub window_post: WindowPostSettings,
    pub winning_post: WinningPostSettings,
    /// Participate in fast finality.
    pub f3: bool,
    pub sealing: SealSettings,
    pub market: MarketSettings,
    /// For the whole tree; the epochs follow from the boot counter.
    pub supervision: TreeOptions,
    /// The roles that may run here.
    pub roles: Roles,
    /// `None`: this node is the whole provider, nothing is asked of others.
    pub cluster: Option<ClusterSettings>,
    /// The agents that seal for this node elsewhere.
    pub agents: Arc<dyn Agents>,
    /// Other nodes with sectors on disk.
    pub storages: Arc<dyn Storages>,
    /// The source of these settings, to read them again; `None`: they never change.
    pub origin: Option<Arc<dyn Origin>>,
    /// Another tree of this process (the devnet's chain) that is shown beside the node's own.
    pub beside: Option<Tree>,
}

/// One node of several that are one provider: the `[cluster]` and `[placement]` sections.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// The cluster's name: part of every key in etcd and of the bridge's handshake.
    pub name: String,
    /// This node's name: unique in the cluster, the same over restarts.
    pub node: String,
    pub directory: DirectorySettings,
    /// Multiaddrs that the bridge listens on, `/ip4/0.0.0.0/tcp/2347`; none: this node only dials out.
    pub listen: Vec<String>,
    /// Multiaddrs that others are told to dial; empty: those that it listens on.
    pub announce: Vec<String>,
    /// How long a silent holder keeps a singleton concern.
    pub lease_ttl: Duration,
    /// How often the bridge sends a keep-alive.
    pub heartbeat: Duration,
    /// Silence of a peer after which it is suspected, and after which it counts as down.
    pub suspect: Duration,
    pub down: Duration,
    /// Peers that may connect besides the nodes that the directory knows.
    pub allow: Vec<PeerId>,
    /// A concern's name (`window-post`) -> the nodes that it prefers, in order. Nodes that are not named come last.
    pub placement: BTreeMap<String, Vec<String>>,
}

/// The directory that knows where everything is.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectorySettings {
    /// This node holds everything that its roles allow.
    Local,
    /// Known by hand: every role has one node, nothing moves by itself.
    Static(Vec<StaticPeer>),
    Etcd(EtcdSettings),
}

/// Another node of a cluster without etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPeer {
    pub name: String,
    pub peer_id: PeerId,
    /// None: it dials us.
    pub addrs: Vec<Multiaddr>,
    pub roles: Roles,
}

/// How to reach etcd, the cluster's one coordination engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdSettings {
    /// `http://10.0.0.1:2379`; any of them will do.
    pub endpoints: Vec<String>,
    /// With its password.
    pub user: Option<(String, String)>,
    pub tls: Option<TlsFiles>,
}

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// The nodes that the configuration prefers for it; `None`: each node has one of its own.
fn preferred(placement: &PlacementConfig, concern: Concern) -> Option<&Vec<String>> {
    match concern {
        Concern::WindowPost => Some(&placement.window_post),
        Concern::WinningPost => Some(&placement.winning_post),
        Concern::Allocator => Some(&placement.sector_allocator),
        Concern::MessageSender => Some(&placement.message_sender),
        Concern::DealHandler => Some(&placement.deal_handler),
        Concern::SealScheduler => None,
    }
}

impl ClusterSettings {
    pub const LEASE_TTL: Duration = Duration::from_secs(10);
    pub const HEARTBEAT: Duration = Duration::from_secs(1);
    pub const SUSPECT: Duration = Duration::from_secs(3);
    pub const DOWN: Duration = Duration::from_secs(10);

    /// A node of that name that holds everything itself, with every default.
    pub fn alone(name: impl Into<String>, node: impl Into<String>) -> ClusterSettings {
        ClusterSettings {
            name: name.into(),
            node: node.into(),
            directory: DirectorySettings::Local,
            listen: Vec::new(),
            announce: Vec::new(),
            lease_ttl: Self::LEASE_TTL,
            heartbeat: Self::HEARTBEAT,
            suspect: Self::SUSPECT,
            down: Self::DOWN,
            allow: Vec::new(),
            placement: BTreeMap::new(),
        }
    }

    /// `None`: the configuration asks for no cluster. Every text in it has passed its key's check.
    pub fn of(config: &Config) -> Option<ClusterSettings> {
        let cluster = &config.cluster;
        let directory = match cluster.kind() {
            DirectoryKind::Local => return None,
            DirectoryKind::Static => DirectorySettings::Static(static_peers(cluster)),
            DirectoryKind::Etcd => DirectorySettings::Etcd(EtcdSettings::of(cluster)),
        };
        let preferred = |concern: Concern| Some((concern.name(), preferred(&config.placement, concern)?));
        let named = Concern::ALL.into_iter().filter_map(preferred).filter(|(_, nodes)| !nodes.is_empty());
        Some(ClusterSettings {
            name: cluster.name.clone(),
            node: cluster.node_name(),
            directory,
            listen: cluster.listen.clone(),
            announce: cluster.announce.clone(),
            lease_ttl: cluster.lease_ttl,
            heartbeat: cluster.heartbeat,
            suspect: cluster.suspect,
            down: cluster.down,
            allow: cluster.allow.iter().filter_map(|peer| peer.parse().ok()).collect(),
            placement: named.map(|(concern, nodes)| (concern.to_string(), nodes.clone())).collect(),
        })
    }
}

impl EtcdSettings {
    pub fn of(cluster: &config::Cluster) -> EtcdSettings {
        let (ca, cert, key) = cluster.etcd_tls();
        let tls = (ca.is_some() || cert.is_some()).then_some(TlsFiles { ca, cert, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |at: &String| if at.contains("://") { at.clone() } else { format!("{scheme}://{at}") };
        EtcdSettings {
            endpoints: cluster.etcd.iter().map(url).collect(),
            user: cluster.etcd_user.clone().zip(cluster.etcd_password.clone()),
            tls,
        }
    }
}

fn static_peers(cluster: &config::Cluster) -> Vec<StaticPeer> {
    let allocator = cluster.allocator_at.as_ref().and_then(|at| config::cluster::multiaddr_of(at));
    let peer = |peer: &config::PeerConfig| {
        let roles = Roles::parse(peer.roles.iter().map(String::as_str)).ok()?;
        let mut addrs: Vec<Multiaddr> = peer.addrs.iter().filter_map(|addr| addr.parse().ok()).collect();
        let extra = allocator.as_ref().filter(|at| roles.has(Role::Allocator) && !addrs.contains(at)).cloned();
        addrs.extend(extra);
        Some(StaticPeer { name: peer.name.clone(), peer_id: peer.peer_id.parse().ok()?, addrs, roles })
    };
    cluster.peer.iter().filter_map(peer).collect()
}

/// Each text has passed its key's check.
fn address_rules(config: &config::Addresses) -> AddressRules {
    let list = |texts: &[String]| {
        texts.iter().filter_map(|text| crate::chain::lotus_json::address::parse(text).ok()).collect()
    };
    AddressRules {
        pre_commit: list(&config.pre_commit_control),
        commit: list(&config.commit_control),
        terminate: list(&config.terminate_control),
        deal_publish: list(&config.deal_publish_control),
        disable_owner_fallback: config.disable_owner_fallback,
        disable_worker_fallback: config.disable_worker_fallback,
    }
}

impl NodeSettings {
    pub fn of(config: &Config) -> NodeSettings {
        let atto = |text: &str| TokenAmount::from_atto(text.parse::<num_bigint::BigInt>().unwrap_or_default());
        let fil = |text: &str| TokenAmount::from_atto(config::values::parse_fil(text).unwrap_or_default());
        NodeSettings {
            repo: config.repo.clone(),
            api_listen: config.api.listen,
            admin_listen: config.admin.listen,
            pool_listen: config.full_node.listen.as_deref().and_then(|at| at.parse().ok()),
            link: LinkSettings { max_lag: config.proving.max_head_lag, ..LinkSettings::default() },
            messages: SenderSettings {
                max_fee: fil(&config.fees.other),
                window_post_fee: fil(&config.fees.window_post),
                pre_commit_fee: fil(&config.fees.pre_commit),
                commit_fee: fil(&config.fees.commit),
                maximize_window_post: config.fees.maximize_window_post_fee_cap,
                addresses: address_rules(&config.addresses),
                ..SenderSettings::default()
            },
            window_post: WindowPostSettings {
                challenge_confidence: config.proving.challenge_confidence,
                submit_confidence: config.proving.submit_confidence,
                max_partitions: config.proving.max_partitions,
                parallel: config.proving.parallel,
                ..WindowPostSettings::default()
            },
            winning_post: WinningPostSettings {
                max_lag: config.proving.max_head_lag,
                ..WinningPostSettings::default()
            },
            f3: config.proving.f3 == config::Switch::On,
            sealing: SealSettings {
                limits: Limits {
                    max_sealing: config.sealing.max_sealing,
                    pc1: config.sealing.pc1,
                    pc2: config.sealing.pc2,
                    c2: config.sealing.c2,
                    ..Limits::default()
                },
                expiration: config.sealing.sector_lifetime,
                ticket_lookback: config.sealing.ticket_lookback,
                place: match config.sealing.place {
                    config::SealPlace::Here => Place::Here,
                    config::SealPlace::Agents => Place::Agents,
                },
                seed_confidence: config.sealing.seed_confidence,
                keep_free: config.sealing.keep_free << 20,
                ..SealSettings::default()
            },
            market: MarketSettings {
                listen: vec![config.market.listen.clone()],
                max_connections: config.market.max_connections,
                ask: AskSettings {
                    price: atto(&config.market.price),
                    verified_price: atto(&config.market.verified_price),
                    ..AskSettings::default()
                },
                ..MarketSettings::default()
            },
            supervision: TreeOptions::default(),
            // Each has passed the key's check.
            roles: Roles::parse(config.cluster.roles.iter().map(String::as_str)).unwrap_or_default(),
            cluster: ClusterSettings::of(config),
            agents: Arc::new(NoAgents),
            storages: Arc::new(NoStorages),
            origin: None,
            beside: None,
        }
    }

    /// The prover slots that these settings ask for: what a limit of the configuration lets start must find one.
    pub fn prover_pools(window_post: &WindowPostSettings, sealing: &SealSettings) -> ProverPools {
        let Limits { max_sealing: _, add_piece, pc1, pc2, c1, c2, finalize } = sealing.limits;
        let seal = add_piece + pc1 + pc2 + c1 + c2 + finalize;
        ProverPools { window: window_post.parallel, seal, ..ProverPools::default() }
    }

    /// On a chain that reorganises only when told to, waiting for depth is waiting for nothing. Fees bid against nobody.
    pub fn for_devnet(mut self) -> NodeSettings {
        self.messages.rules.confidence = 1;
        self.sealing.seed_confidence = 1;
        self.sealing.commit_confidence = 1;
        self.sealing.rules.retry_first = 5_000;
        self.sealing.rules.transient_wait = 1_000;
        self.sealing.rules.transient_cap = 10_000;
        self.window_post.submit_confidence = 1;
        // A window is ten epochs here: a message that the node refuses must come back while it is open.
        self.messages.estimate_tries = 3;
        // No block of anybody else is on its way, and the proof takes most of an epoch on two cores.
        self.winning_post.propagation = Some(Duration::ZERO);
        // The chain is beside it.
        self.pool_listen = None;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_that_the_configuration_lets_start_has_a_prover_slot() {
        let mut config = Config::default();
        (config.proving.parallel, config.sealing.pc1, config.sealing.pc2, config.sealing.c2) = (3, 4, 2, 5);
        let settings = NodeSettings::of(&config);
        let pools = NodeSettings::prover_pools(&settings.window_post, &settings.sealing);
        // And one each of AddPiece, C1 and Finalize.
        assert_eq!((pools.winning, pools.window, pools.seal, pools.verify), (1, 3, 4 + 2 + 5 + 3, 1));
    }
}
