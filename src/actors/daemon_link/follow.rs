//! Follows the chain: one subscription, made anew when it closes or falls silent, gaps filled, ChainHead while there is none.

use super::LinkError;
use super::feed::{Feed, FeedStep};
use super::messages::FeedStatus;
use super::messages::HeadUpdate;
use super::pool::Pool;
use super::settings::LinkSettings;
use super::skew::SkewMeter;
use crate::chain::types::{HeadChange, HeadChangeType, NetworkParams};
use crate::rpc::full_node::FullNode;
use crate::util::Repeats;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

const FEED: &str = "the head feed";

/// Asks the node for its network and compares with the configured one.
pub async fn check_network(node: &dyn FullNode, expected: Option<&str>) -> Result<NetworkParams, LinkError> {
    let params = node.state_get_network_params().await?;
    let name = match params.network_name.is_empty() {
        true => node.state_network_name().await?,
        false => params.network_name.clone(),
    };
    match expected {
        Some(expected) if expected != name => {
            Err(LinkError::WrongNetwork { node: node.name(), expected: expected.to_string(), found: name })
        }
        _ => Ok(NetworkParams { network_name: name, ..params }),
    }
}

/// Tries again whatever fails; a node of another network too, whose operator may set it right. Ends only without nodes.
pub async fn follow(
    pool: &Pool,
    settings: &LinkSettings,
    tell: impl FnMut(HeadUpdate),
    status: impl FnMut(&FeedStatus),
) -> LinkError {
    let feed = Feed::new(settings.max_gap, settings.remembered);
    let (now, skew) = (FeedStatus::default(), SkewMeter::default());
    let mut follower = Follower { settings, feed, tell, status, now, skew, unfetched: 0, broke: None };
    let mut failures: u32 = 0;
    let (mut repeats, began) = (Repeats::new(1, 1), Instant::now());
    loop {
        // Before the choice, so that no change after it is missed.
        let changed = pool.shared().watch();
        let Some(node) = pool.pick() else { return LinkError::NoNode };
        let before = follower.now.subscriptions;
        let error = follower.one_subscription(pool, changed, node).await;
        if let LinkError::WrongNetwork { node, .. } = &error {
            pool.exclude(node, error.to_string());
        }
        // A subscription that lived resets the pause.
        failures = if follower.now.subscriptions > before { 1 } else { failures.saturating_add(1) };
        if follower.now.subscriptions > before {
            repeats.over(&FEED);
        }
        follower.broke.get_or_insert_with(Instant::now);
        // A node that cannot push its heads breaks it every time: told at first, then ever more seldom.
        let repeat = repeats.failed(&FEED, &error.to_string(), began.elapsed().as_millis() as u64);
        match (failures, repeat.warning) {
            (1, None) if repeat.times == 1 => tracing::warn!(%error, "the head feed broke; it is made anew"),
            (_, Some(warning)) => tracing::warn!("{warning}"),
            (_, None) => tracing::info!(%error, "the head feed broke; it is made anew"),
        }
        (follower.now.subscribed, follower.now.polling) = (false, false);
        follower.now.last_error = Some(error.to_string());
        follower.publish();
        sleep(settings.pause(failures)).await;
    }
}

/// Subscriptions that try to fill a gap, before the feed jumps over it.
const FETCHES: u32 = 3;

struct Follower<'a, T, S> {
    settings: &'a LinkSettings,
    feed: Feed,
    tell: T,
    status: S,
    now: FeedStatus,
    skew: SkewMeter,
    /// Subscriptions in a row that ended because a tipset of a gap could not be fetched.
    unfetched: u32,
    /// The time since which there is no subscription; `None` while there is one, and before the first.
    broke: Option<Instant>,
}

impl<T: FnMut(HeadUpdate), S: FnMut(&FeedStatus)> Follower<'_, T, S> {
    fn publish(&mut self) {
        (self.status)(&self.now);
    }

    /// From connecting to the end of the channel; returns why it ended.
    async fn one_subscription(
        &mut self,
        pool: &Pool,
        changed: watch::Receiver<u64>,
        node: Arc<dyn FullNode>,
    ) -> LinkError {
        match self.try_subscription(pool, changed, &*node).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_subscription(
        &mut self,
        pool: &Pool,
        mut changed: watch::Receiver<u64>,
        node: &dyn FullNode,
    ) -> Result<std::convert::Infallible, LinkError> {
        let params = check_network(node, self.settings.network.as_deref()).await?;
        let block_delay = Duration::from_secs(params.block_delay_secs.max(1));
        self.now.node = Some(node.name());
        self.now.network = Some(params.network_name);
        self.now.block_delay_secs = Some(params.block_delay_secs);

        // A head at once: a node that cannot notify (HTTP only) is followed by polling.
        let step = self.feed.polled(node.chain_head().await?);
        self.carry_out(step, node).await?;
        let mut channel = match node.chain_notify().await {
            Ok(channel) => channel,
            Err(error) => return self.poll(node, block_delay, error.into()).await,
        };
        self.now.subscriptions += 1;
        (self.now.subscribed, self.now.polling) = (true, false);
        self.now.last_error = None;
        self.publish();
        let (node_name, height) = (node.name(), self.now.height);
        match self.broke.take() {
            Some(since) => {
                let away = format!("{:.1} s", since.elapsed().as_secs_f32());
                tracing::info!(node = node_name, height, away, "the head feed is back");
            }
            None => tracing::info!(node = node_name, height, "the head feed is up"),
        }

        let silence = block_delay.saturating_mul(self.settings.silent_block_delays.max(1));
        let (mut silent, mut silent_at) = (false, Instant::now() + silence);
        loop {
            let heard = tokio::select! {
                biased;
                heard = timeout_at(silent_at, channel.recv()) => heard,
                // Every check of the nodes ends here: the feed leaves a node that is not used any more, at once.
                Ok(()) = changed.changed() => {
                    if let Some(better) = pool.better_than(&node_name) {
                        return Err(LinkError::Left { node: node_name, better });
                    }
                    continue;
                }
            };
            silent_at = Instant::now() + silence;
            match heard {
                Ok(Some(batch)) => {
                    silent = false;
                    self.measure(&batch, block_delay);
                    let step = self.feed.batch(batch);
                    self.carry_out(step, node).await?;
                }
                Ok(None) => return Err(LinkError::Closed { node: node.name() }),
                Err(_) if silent => return Err(LinkError::Silent { node: node.name(), after: silence }),
                // A chain that stands still is silent too: only a head that the channel kept from us proves it dead.
                Err(_) => {
                    let head = node.chain_head().await?;
                    let missed = self.feed.head().is_none_or(|told| told.cids != head.cids);
                    let step = self.feed.polled(head);
                    self.carry_out(step, node).await?;
                    if missed {
                        return Err(LinkError::Silent { node: node.name(), after: silence });
                    }
                    silent = true;
                }
            }
        }
    }

    /// Compares this host's clock with the block times of new heads; a change for better or worse is logged once.
    fn measure(&mut self, batch: &[HeadChange], block_delay: Duration) {
        let applied = batch.iter().rfind(|change| change.kind == HeadChangeType::Apply);
        let Some(block) = applied.and_then(|change| change.val.blocks.first()) else { return };
        self.skew.pushed((self.settings.clock.0)(), block.timestamp, block_delay, self.settings.max_lag);
        self.now.clock_offset_ms = self.skew.offset_ms();
        let told = self.skew.skew(block_delay).sentence();
        match (&told, &self.now.clock_skew) {
            (Some(why), None) => tracing::warn!("{why}; set this host's clock (NTP)"),
            (None, Some(_)) => tracing::info!("this host's clock agrees with the chain's again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.now.clock_skew = told;
    }

    /// Without a channel: ChainHead each half block delay for a while, then try to subscribe again.
    async fn poll(
        &mut self,
        node: &dyn FullNode,
        block_delay: Duration,
        error: LinkError,
    ) -> Result<std::convert::Infallible, LinkError> {
        (self.now.subscribed, self.now.polling) = (false, true);
        self.now.last_error = Some(error.to_string());
        self.publish();
        for _ in 0..2 * self.settings.silent_block_delays.max(1) {
            sleep(block_delay / 2).await;
            let step = self.feed.polled(node.chain_head().await?);
            self.carry_out(step, node).await?;
        }
        Err(error)
    }

    /// Another subscription, with another node where there is one, may fetch what this one could not.
    fn may_fetch_again(&mut self) -> bool {
        self.unfetched = (self.unfetched + 1) % FETCHES;
        self.unfetched > 0
    }

    /// An error: the gap up to the head is not filled, nothing of it was told.
    async fn carry_out(&mut self, mut step: FeedStep, node: &dyn FullNode) -> Result<(), LinkError> {
        loop {
            match step {
                FeedStep::Known => return Ok(()),
                FeedStep::Tell(updates) => {
                    self.unfetched = 0;
                    if let Some(head) = updates.last().map(|update| &update.tipset) {
                        self.now.height = Some(head.height);
                        self.now.head_at = head.blocks.first().map(|block| block.timestamp);
                    }
                    self.publish();
                    for update in updates {
                        (self.tell)(update);
                        // A long gap must not overrun the subscribers' mailboxes: let them take each head.
                        tokio::task::yield_now().await;
                    }
                    return Ok(());
                }
                FeedStep::Fetch(key) => {
                    step = match node.chain_get_tip_set(&key).await {
                        Ok(tipset) => self.feed.fetched(tipset),
                        Err(error) if self.may_fetch_again() => return Err(error.into()),
                        Err(error) => {
                            tracing::warn!(%error, "a tipset of the chain cannot be fetched; the feed jumps over it");
                            self.feed.jump()
                        }
                    }
                }
            }
        }
    }
}
