//! The allocator's I/O: the ledger in the store, the chain's bitfield, and requests that are answered once and for all.

use super::machine::{Ledger, NumberSet};
use super::messages::{AllocateError, Numbers, ReserveError};
use crate::chain::Address;
use crate::chain::types::TipSetKey;
use crate::rpc::full_node::FullNode;
use crate::store::{Policy, Record, Store, StoreError, Token};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct AllocatorSettings {
    /// The lowest number ever given out. Lotus never gives out 0.
    pub first: u64,
    /// How many numbers are kept for when the chain cannot be asked.
    pub lease: u64,
    /// How long an allocation waits for the chain before it takes a leased number.
    pub chain_deadline: Duration,
    /// For the first deployment of a miner whose sectors others have made: numbers up to this one are not given out.
    pub begin_after: Option<u64>,
}

impl Default for AllocatorSettings {
    fn default() -> Self {
        AllocatorSettings { first: 1, lease: 8, chain_deadline: Duration::from_secs(5), begin_after: None }
    }
}

/// Which number a request got.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct AllocationRecord(pub u64);

impl Record for AllocationRecord {
    const TABLE: &'static str = "sector_number_requests";
}

pub struct Allocator {
    pub node: Arc<dyn FullNode>,
    pub store: Store,
    pub token: Token,
    pub miner: Address,
    pub settings: AllocatorSettings,
}

impl Allocator {
    pub(super) fn ledger_key(&self) -> String {
        self.miner.to_string()
    }

    /// The numbers on chain, or why the chain cannot be asked.
    pub(super) async fn on_chain(&self) -> Result<NumberSet, String> {
        let heaviest = TipSetKey::default();
        let ask = self.node.state_miner_allocated(&self.miner, &heaviest);
        let answer = tokio::time::timeout(self.settings.chain_deadline, ask).await;
        let field = answer
            .map_err(|_| format!("the chain did not answer within {:?}", self.settings.chain_deadline))?
            .map_err(|e| e.to_string())?;
        Ok(NumberSet::of_bitfield(&field))
    }

    /// Once, before the first number: what other software has given out need not be on chain yet.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        let Some(last) = self.settings.begin_after else { return Ok(()) };
        self.store.under(Policy::Refuse).transact(&self.token, |tx| {
            let mut ledger = tx.get::<Ledger>(&self.ledger_key())?.unwrap_or_default();
            match ledger.begin_after(last) {
                true => tx.put(&self.ledger_key(), &ledger),
                false => Ok(()),
            }
        })
    }

    /// Durable and idempotent by `request`.
    pub async fn allocate(&self, request: &str) -> Result<u64, AllocateError> {
        let request = format!("{}/{request}", self.miner);
        if let Some(given) = self.store.get::<AllocationRecord>(&request).map_err(store)? {
            return Ok(given.0);
        }
        if self.store.is_replicated() {
            return self.allocate_in_cluster(&request).await;
        }
        let chain = self.on_chain().await;
        let (first, lease) = (self.settings.first, self.settings.lease);
        self.store
            .transact(&self.token, |tx| {
                if let Some(given) = tx.get::<AllocationRecord>(&request)? {
                    return Ok(Ok(given.0));
                }
                let mut ledger = tx.get::<Ledger>(&self.ledger_key())?.unwrap_or_default();
                if let Ok(on_chain) = &chain {
                    ledger.chain_says(on_chain);
                }
                let Some(number) = ledger.next(first, chain.is_ok()) else {
                    return Ok(Err(match &chain {
                        Ok(_) => AllocateError::Exhausted,
                        Err(why) => AllocateError::ChainUnavailable { why: why.clone() },
                    }));
                };
                ledger.take(number);
                if chain.is_ok() {
                    ledger.lease(first, lease);
                }
                tx.put(&self.ledger_key(), &ledger)?;
                tx.put(&request, &AllocationRecord(number))?;
                Ok::<_, StoreError>(Ok(number))
            })
            .map_err(store)?
    }

    /// Keeps the lease filled ahead of an outage; true when the chain (in a cluster: its store, too) answered.
    pub async fn refresh(&self) -> Result<bool, StoreError> {
        let Ok(on_chain) = self.on_chain().await else { return Ok(false) };
        if self.store.is_replicated() {
            return match self.extend(&on_chain) {
                Ok(()) => Ok(true),
                Err(StoreError::Unreachable { .. } | StoreError::Refused { .. } | StoreError::Behind { .. }) => {
                    Ok(false)
                }
                Err(e) => Err(e),
            };
        }
        let mut next = self.store.get::<Ledger>(&self.ledger_key())?.unwrap_or_default();
        let before = next.clone();
        next.chain_says(&on_chain);
        next.lease(self.settings.first, self.settings.lease);
        if next != before {
            // Read again inside: nothing else writes this record, but a transaction costs nothing more.
            self.store.update::<Ledger, _>(&self.token, &self.ledger_key(), |ledger| {
                let mut ledger = ledger.unwrap_or_default();
                ledger.chain_says(&on_chain);
                ledger.lease(self.settings.first, self.settings.lease);
                (ledger, ())
            })?;
        }
        Ok(true)
    }

    pub async fn reserve(&self, name: &str, numbers: &[RangeInclusive<u64>]) -> Result<(), ReserveError> {
        let numbers = NumberSet::from_ranges(numbers.iter().cloned());
        self.change(|ledger| ledger.reserve(name, numbers)).await
    }

    pub async fn reserve_count(&self, name: &str, count: u64) -> Result<Vec<RangeInclusive<u64>>, ReserveError> {
        self.change(|ledger| ledger.reserve_count(name, self.settings.first, count))
            .await
            .map(|set| set.ranges().collect())
    }

    pub fn free(&self, name: &str) -> Result<(), ReserveError> {
        self.write(None, |ledger| ledger.free(name))
    }

    /// A change that must know what the chain has.
    async fn change<T>(&self, f: impl FnOnce(&mut Ledger) -> Result<T, ReserveError>) -> Result<T, ReserveError> {
        let on_chain = self.on_chain().await.map_err(ReserveError::ChainUnavailable)?;
        self.write(Some(&on_chain), f)
    }

    fn write<T>(
        &self,
        on_chain: Option<&NumberSet>,
        f: impl FnOnce(&mut Ledger) -> Result<T, ReserveError>,
    ) -> Result<T, ReserveError> {
        // Names and numbers that are set aside must be known to whoever allocates next.
        self.store
            .under(Policy::Refuse)
            .transact(&self.token, |tx| {
                let mut ledger = tx.get::<Ledger>(&self.ledger_key())?.unwrap_or_default();
                if let Some(on_chain) = on_chain {
                    ledger.chain_says(on_chain);
                }
                let answer = f(&mut ledger);
                if answer.is_ok() {
                    tx.put(&self.ledger_key(), &ledger)?;
                }
                Ok::<_, StoreError>(answer)
            })
            .map_err(|e| ReserveError::Store(e.to_string()))?
    }

    /// The ledger for a person; asks nobody.
    pub(super) fn show(&self) -> serde_json::Value {
        let ledger = match self.store.get::<Ledger>(&self.ledger_key()) {
            Ok(ledger) => ledger.unwrap_or_default(),
            Err(why) => return serde_json::json!({ "error": why.to_string() }),
        };
        let ranges = |set: &NumberSet| set.ranges().map(|r| [*r.start(), *r.end()]).collect::<Vec<_>>();
        let reserved: BTreeMap<&String, Vec<[u64; 2]>> =
            ledger.reserved.iter().map(|(name, set)| (name, ranges(set))).collect();
        serde_json::json!({
            "allocated": ranges(&ledger.allocated), "on_chain": ranges(&ledger.on_chain),
            "leased": ranges(&ledger.leased), "reserved": reserved,
            "lease_size": self.settings.lease, "in_a_cluster": self.store.is_replicated(),
        })
    }

    /// All known numbers; asks the chain, and falls back to its last answer.
    pub async fn numbers(&self) -> Result<Numbers, AllocateError> {
        let chain = self.on_chain().await;
        let mut ledger = self.store.get::<Ledger>(&self.ledger_key()).map_err(store)?.unwrap_or_default();
        if let Ok(on_chain) = &chain {
            ledger.chain_says(on_chain);
        }
        Ok(Numbers {
            next: ledger.next(self.settings.first, chain.is_ok() && !self.store.is_replicated()),
            allocated: ledger.allocated.ranges().collect(),
            on_chain: ledger.on_chain.ranges().collect(),
            leased: ledger.leased.ranges().collect(),
            reserved: ledger.reserved.into_iter().map(|(name, set)| (name, set.ranges().collect())).collect(),
        })
    }
}

pub(super) fn store(e: StoreError) -> AllocateError {
    AllocateError::Store(e.to_string())
}
