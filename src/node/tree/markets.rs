//! `markets`: the libp2p host that clients talk to.

use super::{AGAIN, Children, MINUTE, Parts, holding_down};
use crate::actors::deal_handler::{DealHandler, MarketConfig, MarketDeps, WalletSigner};
use crate::actors::wallet::NodeWallet;
use crate::node::concern::Concern;
use crate::supervisor::{ChildSpec, SupervisorSpec, Thread};
use std::sync::Arc;

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    holding_down("markets", 10, MINUTE * 5, AGAIN).children([deal_handler(parts).map(ChildSpec::may_start_later)])
}

fn deal_handler(parts: &Parts) -> Option<ChildSpec> {
    let config = MarketConfig {
        miner: parts.miner,
        key_path: parts.settings.repo.join("libp2p.key"),
        sector_size: parts.sector_size,
        settings: parts.settings.market.clone(),
    };
    let node = parts.links.markets.clone();
    let wallet = Arc::new(NodeWallet(node.clone()));
    let signer = Arc::new(WalletSigner { node, wallet, miner: parts.miner });
    let live = parts.live();
    let child = parts.leased_child(Concern::DealHandler, &parts.refs.market, move |_, store| {
        let deps = MarketDeps { signer: signer.clone(), book: Arc::new(store) };
        let config = MarketConfig { settings: live.load().market.clone(), ..config.clone() };
        async move { DealHandler::start(config, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated))
}
