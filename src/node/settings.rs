//! What a node needs to know before its tree is built: the configuration in the concerns' own terms.

use crate::actors::daemon_link::settings::LinkSettings;
use crate::actors::deal_handler::{AskSettings, MarketSettings};
use crate::actors::message_sender::SenderSettings;
use crate::actors::seal_scheduler::{Limits, Runtimes, SealSettings};
use crate::actors::window_post::settings::WindowPostSettings;
use crate::actors::winning_post::settings::WinningPostSettings;
use crate::chain::TokenAmount;
use crate::config::Config;
use crate::supervisor::Tree;
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
    /// Another tree of this process (the devnet's chain) that is shown beside the node's own.
    pub beside: Option<Tree>,
}

impl NodeSettings {
    pub fn of(config: &Config) -> NodeSettings {
        let longest = config.sealing.task_timeout;
        let default = SealSettings::default();
        let capped = |limit: std::time::Duration| limit.min(longest);
        let runtimes = Runtimes {
            add_piece: capped(default.runtimes.add_piece),
            pc1: longest,
            pc2: capped(default.runtimes.pc2),
            c1: capped(default.runtimes.c1),
            c2: capped(default.runtimes.c2),
            verify: capped(default.runtimes.verify),
            finalize: capped(default.runtimes.finalize),
        };
        let atto = |text: &str| TokenAmount::from_atto(text.parse::<num_bigint::BigInt>().unwrap_or_default());
        NodeSettings {
            repo: config.repo.clone(),
            api_listen: config.api.listen,
            admin_listen: config.admin.listen,
            link: LinkSettings::default(),
            messages: SenderSettings::default(),
            window_post: WindowPostSettings::default(),
            winning_post: WinningPostSettings::default(),
            sealing: SealSettings {
                limits: Limits { max_sealing: config.sealing.max_sealing as usize, ..Limits::default() },
                expiration: match config.sealing.sector_lifetime {
                    0 => default.expiration,
                    epochs => epochs,
                },
                runtimes,
                ..default
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
        self
    }
}
