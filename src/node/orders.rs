//! An operator's orders to the miner actor: the chain is asked for what the order needs, [`plan`] decides, and the
//! messages go to the message sender under keys of the order, so that the same order is never sent twice.

#![allow(clippy::result_large_err, reason = "an order fails once, in an operator's time")]

mod locks;
mod plan;
#[cfg(test)]
mod tests;

pub(super) use locks::OrderLocks;

use super::backend::{NodeBackend, ask};
use crate::actors::message_sender::AddressRules;
use crate::actors::message_sender::messages::{
    Cancel, Enqueue, EnqueueAnswer, ListMessages, MessageStatus, OrderAnswer, Pending, Replace, Status as MessageQuery,
};
use crate::chain::miner_messages::method;
use crate::chain::types::{DeadlineInfo, Message, MinerFunds, MinerInfo, TipSetKey};
use crate::chain::{Address, TokenAmount};
use crate::rpc::api::{BackendError, MessageOrder, MessageState, Order, Plan, PlannedMessage};
use crate::rpc::full_node::{FullNode, FullNodeError};
use futures::future::join_all;
use num_traits::Zero;
use plan::{Draft, Facts, Faulty, Party, Planned};
use serde::Serialize;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, BackendError>;

const SENDER: &str = "the message sender";
/// Characters of an order's name that the caller gives.
const MOST_REQUEST: usize = 64;
/// Calls to the full node at a time.
const AT_ONCE: usize = 8;

/// An account of the miner.
#[derive(Serialize, Clone, Debug)]
pub struct Account {
    /// `owner`, `worker`, `beneficiary`, `control-0`, ..
    pub name: String,
    pub id: String,
    /// `None`: not the account of one key, or not known: see `error`.
    pub key: Option<String>,
    /// The purposes of its messages, in lotus-miner's words.
    #[serde(rename = "use")]
    pub uses: Vec<&'static str>,
    /// attoFIL; `None`: the full node did not tell.
    pub balance: Option<String>,
    /// The full node's wallet can sign for it.
    pub in_wallet: Option<bool>,
    /// Why the full node did not tell the key; `None`: it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The report that `actor control list` shows, and that an order has changed.
#[derive(Serialize, Clone, Debug)]
pub struct ActorReport {
    pub miner: String,
    pub height: i64,
    pub accounts: Vec<Account>,
    /// The worker that was proposed, and the epoch from which on it can take over; `None`, -1: no change is proposed.
    pub new_worker: Option<String>,
    pub worker_change_epoch: i64,
    pub pending_owner: Option<String>,
    pub peer_id: Option<String>,
    pub multiaddrs: Vec<String>,
    /// Named addresses that could not be looked up: what they are for is not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `None`: no such actor. A node says so with an error or with `null`.
async fn look_up(node: &dyn FullNode, who: &Address) -> std::result::Result<Option<Party>, FullNodeError> {
    let head = TipSetKey::default();
    let id = match node.state_lookup_id(who, &head).await {
        Ok(id) => id,
        Err(e) if e.names_no_actor() => return Ok(None),
        Err(e) => return Err(e),
    };
    let key = match node.state_account_key(&id, &head).await {
        Ok(key) => Some(key),
        Err(e) if e.names_no_account() => None,
        Err(e) => return Err(e),
    };
    let in_wallet = match &key {
        Some(key) => node.wallet_has(key).await.ok(),
        None => None,
    };
    Ok(Some(Party { id, key, in_wallet }))
}

/// The chain's facts for an order.
async fn facts(node: &dyn FullNode, miner: &Address, order: &Order) -> Result<Facts> {
    let mut asked = plan::addresses(order).map_err(failed)?;
    let tipset = node.chain_head().await?;
    let (key, height) = (tipset.key(), tipset.height);
    let info = node.state_miner_info(miner, &key).await?;
    asked.extend([info.owner, info.worker]);
    asked.extend(info.beneficiary);
    asked.sort();
    asked.dedup();
    let mut parties = BTreeMap::new();
    for some in asked.chunks(AT_ONCE) {
        let found = join_all(some.iter().map(|who| look_up(node, who))).await;
        for (who, party) in some.iter().zip(found) {
            parties.extend(party?.map(|party| (*who, party)));
        }
    }
    let mut facts = Facts {
        info,
        height,
        parties,
        available: TokenAmount::zero(),
        funds: MinerFunds::default(),
        deadline: DeadlineInfo::default(),
        faults: vec![],
    };
    match order {
        Order::Withdraw { .. } => facts.available = node.state_miner_available_balance(miner, &key).await?,
        Order::RepayDebt { .. } => facts.funds = node.state_miner_funds(miner, &key).await?,
        Order::RecoverFaults { .. } => {
            facts.deadline = node.state_miner_proving_deadline(miner, &key).await?;
            facts.faults = faults(node, miner, facts.deadline.w_post_period_deadlines, &key).await?;
        }
        Order::SetControl { .. }
        | Order::ProposeWorker { .. }
        | Order::ConfirmWorker { .. }
        | Order::SetOwner { .. }
        | Order::SetAddresses { .. }
        | Order::SetPeerId { .. } => {}
    }
    Ok(facts)
}

/// The partitions that have faulty sectors: one call for each deadline, whatever the number of sectors.
async fn faults(node: &dyn FullNode, miner: &Address, deadlines: u64, key: &TipSetKey) -> Result<Vec<Faulty>> {
    let all: Vec<u64> = (0..deadlines).collect();
    let mut found = Vec::new();
    for some in all.chunks(AT_ONCE) {
        let answers = join_all(some.iter().map(|deadline| node.state_miner_partitions(miner, *deadline, key))).await;
        for (deadline, partitions) in some.iter().zip(answers) {
            let faulty = (0u64..).zip(partitions?).filter(|(_, partition)| !partition.faulty_sectors.is_empty());
            found.extend(faulty.map(|(partition, p)| Faulty {
                deadline: *deadline,
                partition,
                faulty: p.faulty_sectors,
                recovering: p.recovering_sectors,
            }));
        }
    }
    Ok(found)
}

fn failed(e: plan::OrderError) -> BackendError {
    BackendError::Failed(e.to_string())
}

/// Why this node cannot send a message of that sender.
fn blocked(from: &Party) -> Option<String> {
    match (&from.key, from.in_wallet) {
        (None, _) => Some(format!("{} is not the account of one key, so nobody can sign for it here", from.id)),
        (Some(key), Some(false)) => Some(format!("the full node's wallet does not have {key}, the key of {}", from.id)),
        (Some(_), Some(true) | None) => None,
    }
}

/// The network's answer to it as it stands now, with the most that its gas costs.
async fn estimate(node: &dyn FullNode, miner: &Address, draft: &Draft) -> Result<PlannedMessage> {
    let from = draft.from.key.unwrap_or(draft.from.id);
    let message = Message {
        version: 0,
        to: *miner,
        from,
        nonce: 0,
        value: draft.value.clone(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::zero(),
        gas_premium: TokenAmount::zero(),
        method: draft.call.method,
        params: draft.call.params.clone(),
    };
    let mut blocked = blocked(&draft.from);
    let gas = match node.gas_estimate_message_gas(&message, &TokenAmount::zero(), &TipSetKey::default()).await {
        Ok(estimated) => &estimated.gas_fee_cap * estimated.gas_limit,
        // Some nodes estimate for accounts of a key only.
        Err(FullNodeError::Rpc { .. }) if draft.from.key.is_none() => TokenAmount::zero(),
        Err(FullNodeError::Rpc { message, .. }) => {
            return Err(BackendError::Failed(format!("the network would refuse it now: {message}")));
        }
        Err(e) => return Err(e.into()),
    };
    if blocked.is_none() {
        let (balance, cost) = (node.wallet_balance(&from).await?, &draft.value + &gas);
        if balance < cost {
            let id = draft.from.id;
            blocked = Some(format!("{id} has {balance} FIL, the message may cost {cost} FIL: send it the rest"));
        }
    }
    Ok(PlannedMessage {
        from: draft.from.id.to_string(),
        from_key: from.to_string(),
        to: miner.to_string(),
        method: draft.call.method,
        method_name: method::name(draft.call.method).unwrap_or_default().to_string(),
        params: hex::encode(&draft.call.params),
        value: draft.value.atto().to_string(),
        gas: gas.atto().to_string(),
        blocked,
    })
}

/// Names the message of an order: `order-withdraw-<request>`, and a number from the second on.
fn key_of(order: &Order, request: &str, index: usize) -> String {
    let key = format!("{}{request}", prefix(order));
    if index == 0 { key } else { format!("{key}.{}", index + 1) }
}

fn prefix(order: &Order) -> String {
    format!("order-{}-", order.name())
}

/// Prefixes of the keys under which nothing may be under way while the order is given: a second one of the same kind is
/// most likely a slip, and each ChangeWorkerAddress sets the control addresses that it was planned with.
fn conflicting(order: &Order) -> Vec<String> {
    let same = match order {
        Order::SetControl { .. } | Order::ProposeWorker { .. } | Order::ConfirmWorker { .. } => {
            vec!["control-set", "propose-change-worker", "confirm-change-worker"]
        }
        // A declaration that is made twice does no harm, and one for other sectors must not miss its cutoff.
        Order::RecoverFaults { .. } => vec![],
        Order::SetOwner { .. }
        | Order::SetAddresses { .. }
        | Order::SetPeerId { .. }
        | Order::Withdraw { .. }
        | Order::RepayDebt { .. } => vec![order.name()],
    };
    same.into_iter().map(|name| format!("order-{name}-")).collect()
}

impl NodeBackend {
    async fn plan_of(&self, order: &Order) -> Result<(Planned, Vec<PlannedMessage>)> {
        let node = self.full_node();
        let facts = facts(node, &self.miner, order).await?;
        let planned = plan::plan(order, &facts).map_err(failed)?;
        let mut messages = Vec::new();
        for draft in &planned.drafts {
            let mut message = estimate(node, &self.miner, draft).await?;
            if matches!(order, Order::RecoverFaults { .. }) {
                // It goes from an address of proving's that can pay, which the message sender chooses.
                message.blocked = None;
            }
            messages.push(message);
        }
        Ok((planned, messages))
    }

    pub(super) async fn plan_order(&self, order: &Order) -> Result<Plan> {
        let (planned, messages) = self.plan_of(order).await?;
        let block_delay_secs = self.feed().await.ok().and_then(|feed| feed.block_delay_secs).unwrap_or_default();
        let Planned { changes, warnings, .. } = planned;
        Ok(Plan { changes, warnings, messages, block_delay_secs })
    }

    pub(super) async fn send_order(&self, order: &Order, request: &str) -> Result<Vec<String>> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if request.is_empty() || request.len() > MOST_REQUEST || !request.chars().all(fits) {
            let what = format!("a request is named by 1 to {MOST_REQUEST} letters, digits and dashes");
            return Err(BackendError::Failed(what));
        }
        let conflicts = conflicting(order);
        let _one_at_a_time = self.ordering.enter(&prefix(order), request, !conflicts.is_empty()).await;
        let known = self.known_keys(order, request).await?;
        if !known.is_empty() {
            return Ok(known);
        }
        let open = ask(&self.refs.messages, SENDER, Pending).await?;
        if let Some((key, _)) = open.iter().find(|(key, _)| conflicts.iter().any(|prefix| key.starts_with(prefix))) {
            return Err(BackendError::Failed(format!(
                "{key} is still under way: follow it with `bulkhead messages status {key}`, then order again"
            )));
        }
        let (planned, messages) = self.plan_of(order).await?;
        if let Some(why) = messages.iter().find_map(|message| message.blocked.clone()) {
            return Err(BackendError::Failed(why));
        }
        let mut keys = Vec::new();
        // The first one last: where it is known, all of the order are.
        let drafts: Vec<_> = planned.drafts.into_iter().enumerate().collect();
        for (index, draft) in drafts.into_iter().rev() {
            let key = key_of(order, request, index);
            let message = Enqueue {
                key: key.clone(),
                to: self.miner,
                method: draft.call.method,
                params: draft.call.params,
                value: draft.value,
                max_fee: TokenAmount::zero(),
                // What proving sends has addresses of its own.
                from: (!matches!(order, Order::RecoverFaults { .. })).then_some(draft.from.id),
                closes: None,
            };
            match ask(&self.refs.messages, SENDER, message).await? {
                EnqueueAnswer::Accepted => keys.push(key),
                EnqueueAnswer::Known(_) => {
                    return Err(BackendError::Failed(format!(
                        "{key} was taken before, other messages of the order were not: order the rest under another --request"
                    )));
                }
                EnqueueAnswer::Refused(why) => return Err(BackendError::Failed(format!("not taken over: {why}"))),
            }
        }
        keys.reverse();
        tracing::info!(target: "audit", order = order.name(), ?keys, "order given to the message sender");
        Ok(keys)
    }

    /// The messages that this order was given to the sender under, when it came before.
    async fn known_keys(&self, order: &Order, request: &str) -> Result<Vec<String>> {
        let mut known = Vec::new();
        loop {
            let key = key_of(order, request, known.len());
            match ask(&self.refs.messages, SENDER, MessageQuery { key: key.clone() }).await? {
                MessageStatus::Unknown => return Ok(known),
                MessageStatus::Queued { .. }
                | MessageStatus::Pushed { .. }
                | MessageStatus::Landed { .. }
                | MessageStatus::Failed { .. } => known.push(key),
            }
        }
    }

    pub(super) async fn state_of_message(&self, key: &str) -> Result<MessageState> {
        Ok(state(ask(&self.refs.messages, SENDER, MessageQuery { key: key.to_string() }).await?))
    }

    pub(super) async fn list_messages(&self, most: u32) -> Result<serde_json::Value> {
        let list = ask(&self.refs.messages, SENDER, ListMessages { most }).await?.map_err(BackendError::Failed)?;
        serde_json::to_value(list).map_err(|e| BackendError::Failed(e.to_string()))
    }

    pub(super) async fn order_replacement(&self, key: &str, max_fee: Option<&str>) -> Result<MessageOrder> {
        let max_fee = max_fee.map(plan::amount).transpose().map_err(failed)?;
        if max_fee.as_ref().is_some_and(TokenAmount::is_zero) {
            return Err(BackendError::Failed("--max-fee 0 pays for no block: name an amount, or leave it out".into()));
        }
        let order = Replace { key: key.to_string(), max_fee };
        Ok(answer(ask(&self.refs.messages, SENDER, order).await?.map_err(BackendError::Failed)?))
    }

    pub(super) async fn order_cancel(&self, key: &str) -> Result<MessageOrder> {
        let order = Cancel { key: key.to_string() };
        Ok(answer(ask(&self.refs.messages, SENDER, order).await?.map_err(BackendError::Failed)?))
    }

    pub(super) async fn actor_report(&self) -> Result<ActorReport> {
        let rules = self.live.load().messages.addresses.clone();
        report(self.full_node(), &self.miner, &rules).await
    }
}

/// An account or a name of the configuration that cannot be looked up takes no other along.
async fn report(node: &dyn FullNode, miner: &Address, rules: &AddressRules) -> Result<ActorReport> {
    let tipset = node.chain_head().await?;
    let info = node.state_miner_info(miner, &tipset.key()).await?;
    let named = named_accounts(&info);
    let (rules, warnings) = Uses::of(node, rules).await;
    let mut accounts = Vec::new();
    for some in named.chunks(AT_ONCE) {
        accounts.extend(join_all(some.iter().map(|(name, who)| account(node, name, who, &info, &rules))).await);
    }
    let multiaddr = |text: &String| {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        Some(libp2p::Multiaddr::try_from(bytes).ok()?.to_string())
    };
    Ok(ActorReport {
        miner: miner.to_string(),
        height: tipset.height,
        accounts,
        new_worker: info.new_worker.map(|a| a.to_string()),
        worker_change_epoch: info.worker_change_epoch,
        pending_owner: info.pending_owner_address.map(|a| a.to_string()),
        peer_id: info.peer_id.clone(),
        multiaddrs: info.multiaddrs.iter().map(|text| multiaddr(text).unwrap_or_else(|| text.clone())).collect(),
        warnings,
    })
}

fn state(status: MessageStatus) -> MessageState {
    match status {
        MessageStatus::Queued { why_waiting } => MessageState::Queued { why: why_waiting },
        MessageStatus::Pushed { cid, nonce, since } => MessageState::Pushed { cid: cid.to_string(), nonce, since },
        MessageStatus::Landed { cid, epoch, return_data, .. } => {
            MessageState::Landed { cid: cid.to_string(), epoch, return_data: hex::encode(return_data) }
        }
        MessageStatus::Failed { exit_code, error } => MessageState::Failed { exit_code, error },
        MessageStatus::Unknown => MessageState::Unknown,
    }
}

fn answer(of_sender: OrderAnswer) -> MessageOrder {
    match of_sender {
        OrderAnswer::Ordered { nonce } => MessageOrder::Ordered { nonce },
        OrderAnswer::Withdrawn => MessageOrder::Withdrawn,
        OrderAnswer::NotSigned => MessageOrder::NotSigned,
        OrderAnswer::Finished(status) => MessageOrder::Finished { message: state(status) },
        OrderAnswer::Unknown => MessageOrder::Unknown,
    }
}

fn named_accounts(info: &MinerInfo) -> Vec<(String, Address)> {
    let mut named = vec![("owner".to_string(), info.owner), ("worker".to_string(), info.worker)];
    named.extend(info.beneficiary.map(|who| ("beneficiary".to_string(), who)));
    named.extend(info.control_addresses.iter().enumerate().map(|(i, who)| (format!("control-{i}"), *who)));
    named
}

/// The ID addresses that the configuration names for something, with lotus-miner's words for what they are for.
struct Uses(Vec<(&'static str, Vec<Address>)>);

impl Uses {
    /// Addresses that are not on chain send nothing. Also says which ones could not be looked up.
    async fn of(node: &dyn FullNode, rules: &AddressRules) -> (Uses, Vec<String>) {
        let lists = [
            ("precommit", &rules.pre_commit),
            ("commit", &rules.commit),
            ("terminate", &rules.terminate),
            ("deals", &rules.deal_publish),
        ];
        let (mut uses, mut warnings) = (Vec::new(), Vec::new());
        for (what, named) in lists {
            let mut ids = Vec::new();
            for who in named {
                match node.state_lookup_id(who, &TipSetKey::default()).await {
                    Ok(id) => ids.push(id),
                    Err(e) if e.names_no_actor() => {}
                    Err(e) => warnings.push(format!("[addresses] names {who} for {what}: {e}")),
                }
            }
            uses.push((what, ids));
        }
        (Uses(uses), warnings)
    }

    /// A control address that is named for nothing sends WindowPoSt.
    fn of_account(&self, id: &Address, info: &MinerInfo) -> Vec<&'static str> {
        let is_control = info.control_addresses.contains(id);
        let named: Vec<&str> = self.0.iter().filter(|(_, ids)| ids.contains(id)).map(|(what, _)| *what).collect();
        let mut uses = Vec::new();
        if *id == info.worker {
            uses.push("other");
        }
        if is_control && named.is_empty() {
            uses.push("post");
        }
        uses.extend(named);
        uses
    }
}

async fn account(node: &dyn FullNode, name: &str, who: &Address, info: &MinerInfo, rules: &Uses) -> Account {
    let unknown = Party { id: *who, key: None, in_wallet: None };
    let (party, error) = match look_up(node, who).await {
        Ok(party) => (party.unwrap_or(unknown), None),
        Err(e) => (unknown, Some(e.to_string())),
    };
    let uses = rules.of_account(&party.id, info);
    Account {
        name: name.to_string(),
        id: party.id.to_string(),
        key: party.key.map(|key| key.to_string()),
        uses,
        balance: node.wallet_balance(who).await.ok().map(|balance| balance.atto().to_string()),
        in_wallet: party.in_wallet,
        error,
    }
}
