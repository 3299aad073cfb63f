//! An operator's order and the chain's facts -> the messages that carry it out, or the sentence that says why not. Pure.

use crate::chain::lotus_json::address;
use crate::chain::miner_messages::{self as messages, EncodeError, InPartition, MinerCall};
use crate::chain::network_rules::LIMITS;
use crate::chain::types::{DeadlineInfo, MinerFunds, MinerInfo};
use crate::chain::{Address, ChainEpoch, TokenAmount};
use crate::config::values::parse_fil;
use crate::rpc::api::Order;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Protocol;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};
use num_traits::Zero;
use std::collections::BTreeMap;

/// `max_control_addresses`, `max_peer_id_length` and `max_multiaddr_data` of the miner actor's policy.
const MOST_CONTROL: usize = 10;
/// `ADDRESSED_SECTORS_MAX` of the miner actor.
const MOST_SECTORS: usize = LIMITS.addressed_sectors as usize;
const MOST_PEER_ID: usize = 128;
const MOST_MULTIADDRS: usize = 1024;
/// Partitions of one recovery: 10 full ones of 32 GiB sectors are within the 25,000 sectors that a message may address.
const PARTITIONS_AT_ONCE: usize = 10;
/// Sectors that an error names.
const NAMED: usize = 10;

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OrderError {
    #[error("{0}")]
    Address(String),
    #[error("{0} is not on chain: send it some FIL first, then it has an ID")]
    NotOnChain(Address),
    #[error("{0} controls nothing of this miner: it must be the owner, the worker or a control address")]
    NotController(Address),
    #[error("{0:?} is not an amount of FIL such as 5, 0.05 or \"5 FIL\"")]
    Amount(String),
    #[error("{0} of 0 FIL: leave the amount out for all there is")]
    ZeroAmount(&'static str),
    #[error("{asked} FIL are asked for, {available} FIL are available")]
    NotAvailable { asked: TokenAmount, available: TokenAmount },
    #[error("nothing is available to withdraw: {0} FIL; `bulkhead info` shows what is locked")]
    NothingAvailable(TokenAmount),
    #[error("the miner has no fee debt")]
    NoDebt,
    #[error("{0} control addresses: the miner actor takes {MOST_CONTROL} at most")]
    TooManyControl(usize),
    #[error("{0} is named twice")]
    Twice(Address),
    #[error("the control addresses are these already")]
    ControlUnchanged,
    #[error("the worker is {0} already")]
    WorkerUnchanged(Address),
    #[error("the change to worker {0} is proposed already: confirm it from epoch {1} on")]
    WorkerProposed(Address, ChainEpoch),
    #[error(
        "another worker, {0}, is proposed, and the actor ignores a second proposal: confirm that one from epoch {1} on"
    )]
    OtherWorkerProposed(Address, ChainEpoch),
    #[error("worker {0} must be the account of a BLS key (t3..): it signs blocks")]
    WorkerNotBls(Address),
    #[error("no worker change is proposed: `actor propose-change-worker` comes first")]
    NoWorkerProposed,
    #[error("{asked} is not the worker that is proposed, which is {proposed}")]
    NotTheProposedWorker { asked: Address, proposed: Address },
    #[error("the worker change can be confirmed from epoch {from} on; the chain is at epoch {height}")]
    TooEarly { from: ChainEpoch, height: ChainEpoch },
    #[error("the sender must be the owner, {owner}, who proposes, or the new owner, {new}, who confirms")]
    WrongOwnerSender { owner: Address, new: Address },
    #[error("the owner is {0} already")]
    OwnerUnchanged(Address),
    #[error("{0} is proposed as owner already: it confirms with `actor set-owner --really-do-it {0} {0}`")]
    OwnerProposed(Address),
    #[error("{0} is not proposed as owner: the owner comes first, with `actor set-owner --really-do-it {0} {1}`")]
    OwnerNotProposed(Address, Address),
    #[error("{addr:?} is not a multiaddress such as /ip4/203.0.113.7/tcp/24001: {why}")]
    Multiaddr { addr: String, why: String },
    #[error("the multiaddresses take {0} bytes: the miner actor takes {MOST_MULTIADDRS} at most")]
    MultiaddrsTooLong(usize),
    #[error("{0:?} is not a libp2p peer id such as 12D3Koo..")]
    PeerId(String),
    #[error("the full node does not tell the beneficiary")]
    NoBeneficiary,
    #[error("no sector is named")]
    NoSectors,
    #[error("{0} sectors: an order takes {MOST_SECTORS} at most")]
    TooManySectors(usize),
    #[error("not faulty by the chain: sectors {0}")]
    NotFaulty(String),
    #[error("declared recovered already: sectors {0}; the next WindowPoSt of their deadline decides")]
    Recovering(String),
    #[error("too late for {0}: a recovery is declared before the cutoff of its deadline, or after it has closed")]
    TooLate(String),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// An address as the chain knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Party {
    pub id: Address,
    /// `None`: not the account of one key; a multisig, for example.
    pub key: Option<Address>,
    /// The full node's wallet has the key; `None`: it does not tell.
    pub in_wallet: Option<bool>,
}

/// A partition that has faulty sectors.
#[derive(Clone, Debug)]
pub struct Faulty {
    pub deadline: u64,
    pub partition: u64,
    pub faulty: BitField,
    pub recovering: BitField,
}

/// The chain's facts, as far as the order asks.
pub struct Facts {
    pub info: MinerInfo,
    pub height: ChainEpoch,
    /// The addresses of the order, of the owner, the worker and the beneficiary; without those that are not on chain.
    pub parties: BTreeMap<Address, Party>,
    pub available: TokenAmount,
    pub funds: MinerFunds,
    pub deadline: DeadlineInfo,
    pub faults: Vec<Faulty>,
}

/// A message of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub from: Party,
    pub call: MinerCall,
    pub value: TokenAmount,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Planned {
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
    pub drafts: Vec<Draft>,
}

/// The addresses that must be looked up for an order.
pub fn addresses(order: &Order) -> Result<Vec<Address>, OrderError> {
    let all: Vec<&String> = match order {
        Order::SetControl { addresses } if addresses.len() > MOST_CONTROL => {
            return Err(OrderError::TooManyControl(addresses.len()));
        }
        Order::SetControl { addresses } => addresses.iter().collect(),
        Order::ProposeWorker { worker } | Order::ConfirmWorker { worker } => vec![worker],
        Order::SetOwner { new_owner, sender } => vec![new_owner, sender],
        Order::SetAddresses { from, .. } | Order::RepayDebt { from, .. } => from.iter().collect(),
        Order::SetPeerId { .. } | Order::Withdraw { .. } | Order::RecoverFaults { .. } => vec![],
    };
    all.into_iter().map(|text| parse(text)).collect()
}

fn parse(text: &str) -> Result<Address, OrderError> {
    address::parse(text).map_err(OrderError::Address)
}

impl Facts {
    fn party(&self, who: &Address) -> Result<&Party, OrderError> {
        self.parties.get(who).ok_or(OrderError::NotOnChain(*who))
    }

    fn named(&self, text: &str) -> Result<&Party, OrderError> {
        self.party(&parse(text)?)
    }

    /// Owner, worker or a control address; the worker, if none is named.
    fn controller(&self, from: Option<&String>) -> Result<&Party, OrderError> {
        let Some(text) = from else { return self.party(&self.info.worker) };
        let party = self.named(text)?;
        let info = &self.info;
        match [info.owner, info.worker].contains(&party.id) || info.control_addresses.contains(&party.id) {
            true => Ok(party),
            false => Err(OrderError::NotController(party.id)),
        }
    }
}

pub fn plan(order: &Order, facts: &Facts) -> Result<Planned, OrderError> {
    match order {
        Order::SetControl { addresses } => set_control(addresses, facts),
        Order::ProposeWorker { worker } => propose_worker(worker, facts),
        Order::ConfirmWorker { worker } => confirm_worker(worker, facts),
        Order::SetOwner { new_owner, sender } => set_owner(new_owner, sender, facts),
        Order::SetAddresses { multiaddrs, from } => set_addresses(multiaddrs, from.as_ref(), facts),
        Order::SetPeerId { peer_id } => set_peer_id(peer_id, facts),
        Order::Withdraw { amount, by_beneficiary } => withdraw(amount.as_deref(), *by_beneficiary, facts),
        Order::RepayDebt { amount, from } => repay_debt(amount.as_deref(), from.as_ref(), facts),
        Order::RecoverFaults { sectors } => recover_faults(sectors, facts),
    }
}

fn one(from: &Party, call: MinerCall, changes: Vec<String>) -> Planned {
    let draft = Draft { from: from.clone(), call, value: TokenAmount::zero() };
    Planned { changes, warnings: vec![], drafts: vec![draft] }
}

/// `t0100 (t3abc..)`.
fn said(party: &Party) -> String {
    match &party.key {
        Some(key) => format!("{} ({key})", party.id),
        None => party.id.to_string(),
    }
}

fn unsigned(party: &Party, what: &str) -> Option<String> {
    let missing = party.in_wallet == Some(false);
    missing.then(|| format!("the full node's wallet does not have the key of {}: {what}", said(party)))
}

fn set_control(addresses: &[String], facts: &Facts) -> Result<Planned, OrderError> {
    if addresses.len() > MOST_CONTROL {
        return Err(OrderError::TooManyControl(addresses.len()));
    }
    let wanted: Vec<&Party> = addresses.iter().map(|text| facts.named(text)).collect::<Result<_, _>>()?;
    let ids: Vec<Address> = wanted.iter().map(|party| party.id).collect();
    if let Some(id) = ids.iter().enumerate().find(|(i, id)| ids[..*i].contains(id)).map(|(_, id)| id) {
        return Err(OrderError::Twice(*id));
    }
    let now = &facts.info.control_addresses;
    if *now == ids {
        return Err(OrderError::ControlUnchanged);
    }
    let removed = now.iter().filter(|id| !ids.contains(id)).map(|id| format!("Remove {id}"));
    let added = wanted.iter().filter(|party| !now.contains(&party.id)).map(|party| format!("Add {}", said(party)));
    let mut changes: Vec<String> = removed.chain(added).collect();
    if changes.is_empty() {
        changes.push(format!("Order {}", ids.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")));
    }
    let warnings = wanted.iter().filter_map(|party| unsigned(party, "it cannot send from here")).collect();
    let call = messages::change_worker_address(facts.info.worker, ids)?;
    Ok(Planned { warnings, ..one(facts.party(&facts.info.owner)?, call, changes) })
}

fn propose_worker(worker: &str, facts: &Facts) -> Result<Planned, OrderError> {
    let (new, info) = (facts.named(worker)?, &facts.info);
    match info.new_worker {
        Some(pending) if pending == new.id => {
            return Err(OrderError::WorkerProposed(new.id, info.worker_change_epoch));
        }
        Some(pending) => return Err(OrderError::OtherWorkerProposed(pending, info.worker_change_epoch)),
        None if info.worker == new.id => return Err(OrderError::WorkerUnchanged(new.id)),
        None => {}
    }
    if new.key.is_none_or(|key| key.protocol() != Protocol::BLS) {
        return Err(OrderError::WorkerNotBls(new.id));
    }
    let changes = vec![
        format!("Propose {} as worker in place of {}", said(new), info.worker),
        "It takes over at a later epoch, which the answer names; until then the present worker works on".to_string(),
    ];
    let once_worker = "once it is the worker, no block can be signed here, and no message of its";
    let warnings = unsigned(new, once_worker).into_iter().collect();
    let call = messages::change_worker_address(new.id, info.control_addresses.clone())?;
    Ok(Planned { warnings, ..one(facts.party(&info.owner)?, call, changes) })
}

fn confirm_worker(worker: &str, facts: &Facts) -> Result<Planned, OrderError> {
    let (new, info) = (facts.named(worker)?, &facts.info);
    let proposed = info.new_worker.ok_or(OrderError::NoWorkerProposed)?;
    if proposed != new.id {
        return Err(OrderError::NotTheProposedWorker { asked: new.id, proposed });
    }
    if facts.height < info.worker_change_epoch {
        return Err(OrderError::TooEarly { from: info.worker_change_epoch, height: facts.height });
    }
    let changes = vec![format!("Worker {} takes over from {}", said(new), info.worker)];
    let warnings = unsigned(new, "no block can be signed here any more").into_iter().collect();
    let call = messages::confirm_change_worker_address();
    Ok(Planned { warnings, ..one(facts.party(&info.owner)?, call, changes) })
}

fn set_owner(new_owner: &str, sender: &str, facts: &Facts) -> Result<Planned, OrderError> {
    let (new, from, info) = (facts.named(new_owner)?, facts.named(sender)?, &facts.info);
    let changes = match (from.id == info.owner, info.pending_owner_address) {
        (true, None) if new.id == info.owner => return Err(OrderError::OwnerUnchanged(new.id)),
        (true, Some(pending)) if new.id == info.owner => vec![format!("Take back the proposal of {pending} as owner")],
        (true, Some(pending)) if new.id == pending => return Err(OrderError::OwnerProposed(new.id)),
        (true, _) => vec![
            format!("Propose {} as owner in place of {}", said(new), info.owner),
            format!("It takes over once it confirms: `actor set-owner --really-do-it {} {}`", new.id, new.id),
        ],
        (false, pending) if from.id == new.id => match pending == Some(new.id) {
            true => vec![format!("{} becomes owner in place of {}", said(new), info.owner)],
            false => return Err(OrderError::OwnerNotProposed(new.id, info.owner)),
        },
        (false, _) => return Err(OrderError::WrongOwnerSender { owner: info.owner, new: new.id }),
    };
    Ok(one(from, messages::change_owner_address(new.id)?, changes))
}

fn set_addresses(multiaddrs: &[String], from: Option<&String>, facts: &Facts) -> Result<Planned, OrderError> {
    let mut bytes = Vec::new();
    let mut shown = Vec::new();
    for text in multiaddrs {
        let bad = |why: String| OrderError::Multiaddr { addr: text.clone(), why };
        let addr: Multiaddr = text.parse().map_err(|e: libp2p::multiaddr::Error| bad(e.to_string()))?;
        // The peer id has a place of its own on chain.
        let addr: Multiaddr = addr.iter().filter(|part| !matches!(part, Part::P2p(_))).collect();
        if addr.is_empty() {
            return Err(bad("it names no address".to_string()));
        }
        shown.push(addr.to_string());
        bytes.push(addr.to_vec());
    }
    let total = bytes.iter().map(Vec::len).sum();
    if total > MOST_MULTIADDRS {
        return Err(OrderError::MultiaddrsTooLong(total));
    }
    let changes = match shown.is_empty() {
        true => vec!["The miner is reached nowhere: its addresses are unset".to_string()],
        false => vec![format!("The miner is reached at {}", shown.join(", "))],
    };
    Ok(one(facts.controller(from)?, messages::change_multiaddrs(bytes)?, changes))
}

fn set_peer_id(peer_id: &str, facts: &Facts) -> Result<Planned, OrderError> {
    let peer: PeerId = peer_id.parse().map_err(|_| OrderError::PeerId(peer_id.to_string()))?;
    let bytes = peer.to_bytes();
    if bytes.len() > MOST_PEER_ID {
        return Err(OrderError::PeerId(peer_id.to_string()));
    }
    let changes = vec![format!("The miner's libp2p peer is {peer}")];
    Ok(one(facts.controller(None)?, messages::change_peer_id(bytes)?, changes))
}

/// FIL, with the unit or without.
pub fn amount(text: &str) -> Result<TokenAmount, OrderError> {
    let lower = text.trim().to_ascii_lowercase();
    let bad = || OrderError::Amount(text.to_string());
    if let Some(atto) = lower.strip_suffix("attofil") {
        return atto.trim().parse::<u128>().map(TokenAmount::from_atto).map_err(|_| bad());
    }
    let number = lower.strip_suffix("fil").unwrap_or(&lower);
    parse_fil(number).map(TokenAmount::from_atto).ok_or_else(bad)
}

fn withdraw(asked: Option<&str>, by_beneficiary: bool, facts: &Facts) -> Result<Planned, OrderError> {
    let (available, info) = (&facts.available, &facts.info);
    if !available.is_positive() {
        return Err(OrderError::NothingAvailable(available.clone()));
    }
    let asked = match asked.map(amount).transpose()? {
        None => available.clone(),
        Some(zero) if zero.is_zero() => return Err(OrderError::ZeroAmount("a withdrawal")),
        Some(asked) if asked > *available => {
            return Err(OrderError::NotAvailable { asked, available: available.clone() });
        }
        Some(asked) => asked,
    };
    // A node that does not tell the beneficiary is older than it: then it is the owner.
    let beneficiary = info.beneficiary.unwrap_or(info.owner);
    let from = match by_beneficiary {
        true => facts.party(&info.beneficiary.ok_or(OrderError::NoBeneficiary)?)?,
        false => facts.party(&info.owner)?,
    };
    let to = match beneficiary == info.owner {
        true => format!("owner {}", info.owner),
        false => format!("beneficiary {beneficiary}"),
    };
    let changes = vec![format!("Withdraw {asked} FIL of {available} FIL available to the {to}")];
    Ok(one(from, messages::withdraw_balance(asked)?, changes))
}

fn repay_debt(asked: Option<&str>, from: Option<&String>, facts: &Facts) -> Result<Planned, OrderError> {
    let debt = &facts.funds.fee_debt;
    let from = facts.controller(from)?;
    let value = match asked.map(amount).transpose()? {
        Some(zero) if zero.is_zero() => return Err(OrderError::ZeroAmount("a repayment")),
        Some(asked) => asked,
        None if debt.is_positive() => debt.clone(),
        None => return Err(OrderError::NoDebt),
    };
    let changes = vec![format!("Pay {value} FIL from {} towards a fee debt of {debt} FIL", said(from))];
    let too_much = (value > *debt).then(|| format!("{} FIL more than the debt stay with the miner", &value - debt));
    let call = messages::repay_debt();
    let draft = Draft { from: from.clone(), call, value };
    Ok(Planned { changes, warnings: too_much.into_iter().collect(), drafts: vec![draft] })
}

fn numbers(sectors: &[u64]) -> String {
    let mut text = sectors.iter().take(NAMED).map(u64::to_string).collect::<Vec<_>>().join(", ");
    if sectors.len() > NAMED {
        text += &format!(" and {} more", sectors.len() - NAMED);
    }
    text
}

/// One message or more for each deadline: a deadline that is too late must not take the others along.
fn recover_faults(sectors: &[u64], facts: &Facts) -> Result<Planned, OrderError> {
    if sectors.is_empty() {
        return Err(OrderError::NoSectors);
    }
    if sectors.len() > MOST_SECTORS {
        return Err(OrderError::TooManySectors(sectors.len()));
    }
    let mut found = BTreeMap::<(u64, u64), Vec<u64>>::new();
    let mut declared = Vec::new();
    let mut left =
        BitField::try_from_bits(sectors.iter().copied()).map_err(|e| OrderError::NotFaulty(e.to_string()))?;
    // Whole bit fields at a time: 25,000 sectors of hundreds of partitions are asked for shortly before a cutoff.
    for partition in &facts.faults {
        let here = &left & &partition.faulty;
        left -= &here;
        declared.extend((&here & &partition.recovering).iter());
        let undeclared: Vec<u64> = (&here - &partition.recovering).iter().collect();
        if !undeclared.is_empty() {
            found.entry((partition.deadline, partition.partition)).or_default().extend(undeclared);
        }
    }
    declared.sort_unstable();
    let strangers: Vec<u64> = left.iter().collect();
    if !strangers.is_empty() {
        return Err(OrderError::NotFaulty(numbers(&strangers)));
    }
    let mut planned = Planned::default();
    if !declared.is_empty() {
        planned.warnings.push(OrderError::Recovering(numbers(&declared)).to_string());
    }
    let mut by_deadline = BTreeMap::<u64, Vec<(u64, Vec<u64>)>>::new();
    for ((deadline, partition), sectors) in found {
        by_deadline.entry(deadline).or_default().push((partition, sectors));
    }
    let (from, mut late) = (facts.controller(None)?, Vec::new());
    for (deadline, partitions) in by_deadline {
        let all: Vec<u64> = partitions.iter().flat_map(|(_, sectors)| sectors.clone()).collect();
        let (start, period) = (facts.deadline.period_start, facts.deadline.w_post_proving_period);
        let this = facts.deadline.with(start, deadline);
        // Once it has closed, its next window is that of the next period.
        let window = if this.has_elapsed_at(facts.height) { this.with(start + period, deadline) } else { this };
        // A message is executed in a later epoch than the one that is looked at.
        if window.fault_cutoff_passed_at(facts.height + 1) {
            late.push(format!(
                "deadline {deadline} (sectors {}), which closes at epoch {}",
                numbers(&all),
                window.close
            ));
            continue;
        }
        for some in partitions.chunks(PARTITIONS_AT_ONCE) {
            let declarations = some.iter().map(|(partition, sectors)| {
                let sectors = BitField::try_from_bits(sectors.iter().copied())
                    .map_err(|e| OrderError::NotFaulty(e.to_string()))?;
                Ok(InPartition { deadline, partition: *partition, sectors })
            });
            let call = messages::declare_faults_recovered(declarations.collect::<Result<_, OrderError>>()?)?;
            planned.drafts.push(Draft { from: from.clone(), call, value: TokenAmount::zero() });
        }
        planned.changes.push(format!(
            "Declare recovered in deadline {deadline}, to be proven from epoch {} on: sectors {}",
            window.open,
            numbers(&all)
        ));
    }
    match (planned.drafts.is_empty(), late.is_empty()) {
        (true, true) => Err(OrderError::Recovering(numbers(&declared))),
        (true, false) => Err(OrderError::TooLate(late.join("; "))),
        (false, _) => {
            planned.warnings.extend(late.iter().map(|late| OrderError::TooLate(late.clone()).to_string()));
            Ok(planned)
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
