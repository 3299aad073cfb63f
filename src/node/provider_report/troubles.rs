//! The troubles of the provider, the gravest first, and what to do about each.

use super::{Asked, answered, missing_shards};
use crate::actors::daemon_link::lag;
use crate::actors::daemon_link::pool::is_used;
use crate::actors::seal_agent::messages::AgentReport;
use crate::chain::TokenAmount;
use crate::node::network_report::{NetworkReport, f3_trouble};
use crate::node::proving_report::{self, Trouble};
use crate::supervisor::{ActorInfo, ActorState};
use std::time::Duration;

/// Block delays after which a head that does not change is a trouble.
const HEAD_STANDS: u64 = 5;
/// Epochs after which a message that is not final is a trouble.
const MESSAGE_STANDS: u64 = 30;
/// Alerts of the message sender that are shown.
const ALERTS_SHOWN: usize = 5;

impl Asked {
    /// The gravest first: proofs that were missed, the chain, the rest of proving, then what can wait.
    pub fn troubles(&self) -> Vec<Trouble> {
        let proving = self.proving();
        let mut all = Vec::new();
        all.extend(proving.as_ref().and_then(|proving| proving_report::missed_trouble(&proving.missed)));
        all.extend(self.chain_troubles());
        all.extend(self.network.iter().flat_map(NetworkReport::troubles));
        match proving {
            Some(proving) => all.extend(proving.troubles.into_iter().skip(usize::from(!proving.missed.is_empty()))),
            None => all.extend(self.period.as_ref().err().map(|why| proving_report::deadlines_trouble(why))),
        }
        all.extend(self.tree.iter().filter_map(actor_trouble));
        all.extend(answered(&self.f3).and_then(f3_trouble));
        if let Some(messages) = answered(&self.messages) {
            let stands = messages.oldest_epochs.filter(|epochs| *epochs >= MESSAGE_STANDS);
            all.extend(stands.map(|epochs| {
                let what =
                    format!("{} messages are open, the oldest is not on chain for {epochs} epochs", messages.pushed);
                Trouble::new(what, "compare the network's base fee with fees.* in config.toml")
            }));
            let alerts = messages.alerts.iter().take(ALERTS_SHOWN);
            all.extend(
                alerts.map(|alert| {
                    Trouble::new(alert.clone(), "see `bulkhead tree --inspect root/chain/message_sender`")
                }),
            );
            all.extend(messages.waiting.as_ref().filter(|_| messages.queued > 1).map(|(key, why)| {
                let what = format!("{} messages are not sent, the first is {key}: {why}", messages.queued);
                Trouble::new(what, "see `bulkhead tree --inspect root/chain/message_sender`")
            }));
        }
        let failing: u64 = self.sealing.found.iter().map(|(_, summary)| summary.failing).sum();
        if failing > 0 {
            let what = format!("{failing} sectors fail and are tried again");
            all.push(Trouble::new(what, "see LAST ERROR in `bulkhead sectors list`"));
        }
        all.extend(missing_shards(&self.sealing.missing).map(|why| {
            Trouble::new(format!("the sectors of a node are not known: {why}"), "see `bulkhead cluster nodes`")
        }));
        for (agent, report) in &self.agents {
            all.extend(match report {
                Ok(report) => idle_agent(agent, report),
                Err(why) => {
                    Some(Trouble::new(format!("agent {agent} does not answer: {why}"), "see `bulkhead cluster nodes`"))
                }
            });
        }
        if let Some(debt) = self.balances.get("miner_fee_debt").filter(|atto| *atto != "0") {
            let debt = TokenAmount::from_atto(debt.parse::<num_bigint::BigInt>().unwrap_or_default());
            all.push(Trouble::new(
                format!("the miner owes {debt} FIL of fees: nothing is pre-committed, recovered or withdrawn before that is paid"),
                "bulkhead actor repay-debt",
            ));
        }
        if self.balances.get("worker").is_some_and(|atto| atto == "0") {
            all.push(Trouble::new(
                "the worker has no FIL: no message can be paid",
                "send some to the worker's address",
            ));
        }
        if let Some(error) = answered(&self.market).and_then(|market| market.ask_error.as_ref()) {
            all.push(Trouble::new(
                format!("no new storage ask: {error}"),
                "the worker's key must be in the full node's wallet",
            ));
        }
        all
    }

    fn chain_troubles(&self) -> Vec<Trouble> {
        let fix = "check the full node and FULLNODE_API_INFO";
        let feed = match &self.feed {
            Ok(feed) => feed,
            Err(why) => return vec![Trouble::new(why.clone(), "see `bulkhead tree`")],
        };
        let pool = self.pool.as_deref().unwrap_or_default();
        let away = !pool.is_empty() && !pool.iter().any(is_used);
        let error = pool.iter().find_map(|health| health.error.clone()).or(feed.last_error.clone());
        if away || (feed.last_error.is_some() && !feed.subscribed && !feed.polling) {
            return vec![Trouble::new(format!("the full node is away: {}", error.unwrap_or_default()), fix)];
        }
        let mut all = Vec::new();
        if let Some((head_at, delay)) = feed.head_at.zip(feed.block_delay_secs) {
            let (now, delay) = (Duration::from_secs(self.at), Duration::from_secs(delay.max(1)));
            let lag = lag::too_far(now, head_at, delay, HEAD_STANDS);
            all.extend(lag.map(|lag| {
                let epochs = lag.as_secs() / delay.as_secs();
                let what = format!("the newest head is {} s old: {epochs} epochs behind the clock", lag.as_secs());
                Trouble::new(what, "is the full node in sync? is this host's clock right?")
            }));
        }
        all.extend(feed.clock_skew.clone().map(|what| Trouble::new(what, "set this host's clock (NTP)")));
        all
    }
}

/// An agent whose tasks nobody runs.
fn idle_agent(agent: &str, report: &AgentReport) -> Option<Trouble> {
    let idle = report.queued > 0 && report.workers.is_empty() && !report.works_itself;
    idle.then(|| {
        let what = format!("agent {agent} has no worker for its {} queued tasks", report.queued);
        Trouble::new(what, "start `bulkhead worker`, or the agent without --no-own-work")
    })
}

/// An actor that is down, or says what it tries again.
fn actor_trouble(actor: &ActorInfo) -> Option<Trouble> {
    let see = "see `bulkhead tree` and the log";
    // Its own words are in the chain's troubles.
    let is_link = actor.path.ends_with("/head_feed") || actor.path.ends_with("/daemon_pool");
    match (&actor.trouble, actor.state) {
        (Some(why), _) if !is_link => Some(Trouble::new(format!("{}: {why}", actor.path), see)),
        (_, ActorState::Restarting) => {
            // Held down: why that is. Else it is between two tries of its backoff.
            let why = actor.held.clone().or_else(|| actor.last_exit.as_ref().map(ToString::to_string));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Some(Trouble::new(format!("{} restarts{why}", actor.path), see))
        }
        (_, ActorState::Stopped) if !crate::rpc::admin::stands_by(actor) => {
            let fix = format!("start it: POST /actors/{}/restart", actor.path);
            Some(Trouble::new(format!("{} is stopped", actor.path), fix))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "troubles_tests.rs"]
mod tests;
