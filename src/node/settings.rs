//! What a node needs to know before its tree is built: the configuration in the concerns' own terms.

use crate::actors::daemon_link::settings::LinkSettings;
use crate::actors::deal_handler::{AskSettings, MarketSettings};
use crate::actors::message_sender::SenderSettings;
use crate::actors::seal_scheduler::{Limits, SealSettings};
use crate::actors::window_post::settings::WindowPostSettings;
use crate::actors::winning_post::settings::WinningPostSettings;
use crate::chain::TokenAmount;
use crate::config::Config;
use crate::supervisor::{Tree, TreeOptions};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone)]
pub struct NodeSettings {
    pub repo: PathBuf,
    pub api_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub link: LinkSettings,
    pub messages: SenderSettings,
    pub window_post: WindowPostSettings,
    pub winning_post: WinningPostSettings,
    pub sealing: SealSettings,
    pub market: MarketSettings,
    /// For the whole tree; the epochs follow from the boot counter.
    pub supervision: TreeOptions,
    /// Another tree of this process (the devnet's chain) that is shown beside the node's own.
    pub beside: Option<Tree>,
}

impl NodeSettings {
    pub fn of(config: &Config) -> NodeSettings {
        let atto = |text: &str| TokenAmount::from_atto(text.parse::<num_bigint::BigInt>().unwrap_or_default());
        NodeSettings {
            repo: config.repo.clone(),
            api_listen: config.api.listen,
            admin_listen: config.admin.listen,
            link: LinkSettings::default(),
            messages: SenderSettings::default(),
            window_post: WindowPostSettings {
                challenge_confidence: config.proving.challenge_confidence,
                submit_confidence: config.proving.submit_confidence,
                max_partitions: config.proving.max_partitions,
                parallel: config.proving.parallel,
                ..WindowPostSettings::default()
            },
            winning_post: WinningPostSettings::default(),
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
                seed_confidence: config.sealing.seed_confidence,
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
            beside: None,
        }
    }

    /// On a chain that reorganises only when told to, waiting for depth is waiting for nothing. Fees bid against nobody.
    pub fn for_devnet(mut self) -> NodeSettings {
        self.messages.rules.confidence = 1;
        self.sealing.seed_confidence = 1;
        self.sealing.commit_confidence = 1;
        self.sealing.rules.retry_first = 5_000;
        self.sealing.rules.soft_wait = 1_000;
        self.window_post.submit_confidence = 1;
        // A window is ten epochs here: a message that the node refuses must come back while it is open.
        self.messages.estimate_tries = 3;
        // No block of anybody else is on its way, and the proof takes most of an epoch on two cores.
        self.winning_post.propagation = Some(std::time::Duration::ZERO);
        self
    }
}
