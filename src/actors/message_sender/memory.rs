//! The message sender's memory between rounds, which is not stored: all of it is found out again after a restart.

use super::addresses::Candidate;
use super::verdict::Search;
use crate::chain::types::MsgLookup;
use crate::chain::{Address, ChainEpoch, TokenAmount};
use crate::util::lock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

/// Shared by an [`Engine`](super::Engine) and the ones made from it with other settings.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Inner>);

/// Pushes of one signed message that nodes refused, in a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub kind: RefusalKind,
    /// The head of the last of them, and on how many heads there was one.
    pub at: ChainEpoch,
    pub heads: u32,
}

/// The nonce that a line of ours waits for, and that is none of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InFront {
    pub nonce: u64,
    /// The head at which it was first seen there.
    pub since: ChainEpoch,
    /// The head at which the mempool was listed, and the fee cap of its message with that nonce; `None` in it: it has none.
    pub pooled: Option<(ChainEpoch, Option<TokenAmount>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// These bytes can be in no block.
    Invalid,
    Funds,
    /// Others of this nonce are in the mempool.
    FeeTooLow,
    Unknown,
}

#[derive(Debug, Default)]
struct Inner {
    head: Option<ChainEpoch>,
    why: HashMap<String, String>,
    gas_limit: HashMap<String, i64>,
    refused: HashMap<String, Refusal>,
    hold_until: HashMap<String, ChainEpoch>,
    priced: HashMap<String, ChainEpoch>,
    found: HashMap<String, MsgLookup>,
    keys: HashMap<Address, Address>,
    ids: HashMap<Address, Address>,
    has_key: HashSet<Address>,
    missed: HashMap<Address, (ChainEpoch, String)>,
    unusable: HashMap<Address, (ChainEpoch, Candidate)>,
    in_front: HashMap<Address, InFront>,
    alerts: BTreeMap<String, String>,
    /// Open messages whose records cannot be read, with the reason.
    damaged: BTreeMap<String, String>,
    /// Outcomes of which it was said already that they cannot be read.
    set_aside: HashSet<String>,
    urgent: bool,
}

impl Memory {
    /// A round begins: what is kept of messages that are not open any more is dropped.
    pub(super) fn begin(&self, head: ChainEpoch, is_open: impl Fn(&str) -> bool) {
        let mut inner = lock(&self.0);
        let inner = &mut *inner;
        inner.head = inner.head.max(Some(head));
        inner.urgent = false;
        inner.why.retain(|key, _| is_open(key));
        inner.gas_limit.retain(|key, _| is_open(key));
        inner.refused.retain(|key, _| is_open(key));
        inner.hold_until.retain(|key, until| is_open(key) && *until > head);
        inner.priced.retain(|key, _| is_open(key));
        inner.found.retain(|key, _| is_open(key));
    }

    /// The highest head of a round; `None` before the first.
    pub(super) fn head(&self) -> Option<ChainEpoch> {
        lock(&self.0).head
    }

    pub(super) fn why(&self, key: &str) -> String {
        lock(&self.0).why.get(key).cloned().unwrap_or_else(|| "not looked at yet".into())
    }

    pub(super) fn set_why(&self, key: &str, why: String) {
        lock(&self.0).why.insert(key.to_owned(), why);
    }

    /// The gas limit of the last estimate.
    pub(super) fn gas_limit(&self, key: &str) -> Option<i64> {
        lock(&self.0).gas_limit.get(key).copied()
    }

    pub(super) fn set_gas_limit(&self, key: &str, limit: i64) {
        lock(&self.0).gas_limit.insert(key.to_owned(), limit);
    }

    pub(super) fn refusal(&self, key: &str) -> Option<Refusal> {
        lock(&self.0).refused.get(key).cloned()
    }

    /// Counts heads, not tries. `true`: it is the first of its kind.
    pub(super) fn refused(&self, key: &str, kind: RefusalKind, head: ChainEpoch) -> bool {
        let mut inner = lock(&self.0);
        match inner.refused.get_mut(key) {
            Some(last) if last.kind == kind => {
                last.heads += u32::from(head > last.at);
                last.at = head.max(last.at);
                false
            }
            _ => {
                inner.refused.insert(key.to_owned(), Refusal { kind, at: head, heads: 1 });
                true
            }
        }
    }

    pub(super) fn forget_refusal(&self, key: &str) {
        lock(&self.0).refused.remove(key);
    }

    /// The epoch before which the message is not signed again.
    pub(super) fn hold_until(&self, key: &str) -> Option<ChainEpoch> {
        lock(&self.0).hold_until.get(key).copied()
    }

    pub(super) fn hold(&self, key: &str, until: ChainEpoch) {
        lock(&self.0).hold_until.insert(key.to_owned(), until);
    }

    /// The head at which a fresh fee was asked for last.
    pub(super) fn priced(&self, key: &str) -> Option<ChainEpoch> {
        lock(&self.0).priced.get(key).copied()
    }

    pub(super) fn set_priced(&self, key: &str, head: ChainEpoch) {
        lock(&self.0).priced.insert(key.to_owned(), head);
    }

    /// Other bounds hold from now on: every message's fee is looked at anew.
    pub(super) fn forget_prices(&self) {
        lock(&self.0).priced.clear();
    }

    /// The execution that was found, to be looked for again only when it is deep enough.
    pub(super) fn found(&self, key: &str) -> Option<MsgLookup> {
        lock(&self.0).found.get(key).cloned()
    }

    pub(super) fn set_found(&self, key: &str, search: &Search) {
        let mut inner = lock(&self.0);
        match search {
            Search::Found(found) => inner.found.insert(key.to_owned(), found.as_ref().clone()),
            Search::NotFound | Search::Displaced => inner.found.remove(key),
        };
    }

    /// The address form that signs; it never changes.
    pub(super) fn key_of(&self, id: &Address) -> Option<Address> {
        lock(&self.0).keys.get(id).copied()
    }

    pub(super) fn set_key(&self, id: Address, key: Address) {
        lock(&self.0).keys.insert(id, key);
    }

    pub(super) fn id_of(&self, address: &Address) -> Option<Address> {
        lock(&self.0).ids.get(address).copied()
    }

    pub(super) fn set_id(&self, address: Address, id: Address) {
        lock(&self.0).ids.insert(address, id);
    }

    pub(super) fn has_key(&self, key: &Address) -> bool {
        lock(&self.0).has_key.contains(key)
    }

    pub(super) fn set_has_key(&self, key: Address) {
        lock(&self.0).has_key.insert(key);
    }

    /// Why the chain told no ID of a named address at this head.
    pub(super) fn missed(&self, address: &Address, head: ChainEpoch) -> Option<String> {
        lock(&self.0).missed.get(address).filter(|(at, _)| *at == head).map(|(_, why)| why.clone())
    }

    pub(super) fn miss(&self, address: Address, head: ChainEpoch, why: String) {
        lock(&self.0).missed.insert(address, (head, why));
    }

    /// An address that can send nothing at this head.
    pub(super) fn unusable(&self, id: &Address, head: ChainEpoch) -> Option<Candidate> {
        lock(&self.0).unusable.get(id).filter(|(at, _)| *at == head).map(|(_, candidate)| candidate.clone())
    }

    pub(super) fn pass_over(&self, candidate: Candidate, head: ChainEpoch) {
        lock(&self.0).unusable.insert(candidate.id, (head, candidate));
    }

    /// Notes that this nonce, which is none of ours, is what ours wait for. Gives what is known of it.
    pub(super) fn in_front(&self, from: Address, nonce: u64, head: ChainEpoch) -> InFront {
        let mut inner = lock(&self.0);
        let known = inner.in_front.entry(from).or_insert(InFront { nonce, since: head, pooled: None });
        if known.nonce != nonce {
            *known = InFront { nonce, since: head, pooled: None };
        }
        known.clone()
    }

    pub(super) fn set_pooled(&self, from: &Address, head: ChainEpoch, cap: Option<TokenAmount>) {
        if let Some(known) = lock(&self.0).in_front.get_mut(from) {
            known.pooled = Some((head, cap));
        }
    }

    /// Forgets what stood in front of the lines of all others.
    pub(super) fn keep_in_front(&self, of: &[Address]) {
        lock(&self.0).in_front.retain(|from, _| of.contains(from));
    }

    pub(super) fn forget_has_key(&self, key: &Address) {
        lock(&self.0).has_key.remove(key);
    }

    /// The alerts of the last round. New ones are logged.
    pub(super) fn set_alerts(&self, alerts: BTreeMap<String, String>) {
        let mut inner = lock(&self.0);
        for (about, text) in &alerts {
            if !inner.alerts.contains_key(about) {
                tracing::warn!("messages: {text}");
            }
        }
        inner.alerts = alerts;
    }

    pub(super) fn alerts(&self) -> Vec<String> {
        let inner = lock(&self.0);
        let damaged = inner.damaged.iter().map(|(key, why)| {
            format!("{key} is neither sent nor watched: {why}; put a backup of the store back, or order it anew")
        });
        inner.alerts.values().cloned().chain(damaged).collect()
    }

    /// New ones are logged.
    pub(super) fn set_damaged(&self, damaged: Vec<(String, String)>) {
        let mut inner = lock(&self.0);
        for (key, why) in &damaged {
            if !inner.damaged.contains_key(key) {
                tracing::error!(key, "an open message is neither sent nor watched: {why}");
            }
        }
        inner.damaged = damaged.into_iter().collect();
    }

    pub(super) fn set_aside(&self, damaged: Vec<(String, String)>) {
        let mut inner = lock(&self.0);
        for (key, why) in damaged {
            if inner.set_aside.insert(key.clone()) {
                tracing::warn!(key, "how a message ended cannot be read: {why}");
            }
        }
    }

    /// A message came that must not wait for a round that is under way.
    pub(super) fn hurry(&self) {
        lock(&self.0).urgent = true;
    }

    pub(super) fn is_urgent(&self) -> bool {
        lock(&self.0).urgent
    }
}
