//! Numbers in a cluster: a range is leased in the cluster's store before any of it is given out.
//!
//! Two transactions, on purpose. Extending the range must be in the cluster's store before it counts, so it is refused
//! while that cannot be reached. Taking a number of the range may be journaled: whoever takes over meanwhile finds the
//! whole range set aside (a reservation `lost-lease-EPOCH`), given out or not, and never touches it.

use super::allocator::{AllocationRecord, Allocator, store};
use super::machine::{Ledger, NumberSet};
use super::messages::AllocateError;
use crate::store::{Policy, Record, StoreError, lease_of};
use serde::{Deserialize, Serialize};

/// The holder of the ledger's leased range: the allocator's lease in the cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RangeHolder {
    epoch: u64,
}

impl Record for RangeHolder {
    const TABLE: &'static str = "sector_number_leases";
}

impl Ledger {
    /// Somebody else leased a range and may still be giving it out: it is set aside until an operator frees it.
    fn set_lost_range_aside(&mut self, epoch: u64) {
        let taken = self.allocated.union(&self.on_chain);
        let left =
            NumberSet::from_ranges(self.leased.ranges().flatten().filter(|n| !taken.contains(*n)).map(|n| n..=n));
        self.leased = NumberSet::default();
        if left.ranges().next().is_some() {
            // Not through `reserve`: it may overlap a reservation, and each keeps its own when the other is freed.
            self.reserved.push((format!("lost-lease-{epoch}"), left));
        }
    }

    /// Grows the range to `count` numbers that can be given out. What is in it and not known to be used stays in it:
    /// if the answer to this is lost, the old range and the new one are both safe to use.
    fn extend_lease(&mut self, first: u64, count: u64) {
        let used = self.in_use();
        let kept: Vec<_> = self.leased.ranges().flatten().filter(|n| !used.contains(*n)).map(|n| n..=n).collect();
        let missing = count.saturating_sub(kept.len() as u64);
        let kept = NumberSet::from_ranges(kept);
        self.leased = kept.union(&used.union(&kept).lowest_gaps(first, missing));
    }
}

impl Allocator {
    fn ours(&self) -> RangeHolder {
        RangeHolder { epoch: lease_of(self.token.epoch) }
    }

    pub(super) async fn allocate_in_cluster(&self, request: &str) -> Result<u64, AllocateError> {
        let chain = self.on_chain().await;
        if let Some(number) = self.take(request, chain.as_ref().ok()).map_err(store)? {
            return Ok(number);
        }
        let why = match &chain {
            Ok(on_chain) => match self.extend(on_chain) {
                Ok(()) => match self.take(request, Some(on_chain)).map_err(store)? {
                    Some(number) => return Ok(number),
                    None => return Err(AllocateError::Exhausted),
                },
                Err(e @ (StoreError::Unreachable { .. } | StoreError::Refused { .. })) => e.to_string(),
                Err(e) => return Err(store(e)),
            },
            Err(why) => why.clone(),
        };
        Err(AllocateError::ChainUnavailable { why })
    }

    /// A number of our own range, journaled if need be; `None` if the range is not ours, or empty.
    fn take(&self, request: &str, on_chain: Option<&NumberSet>) -> Result<Option<u64>, StoreError> {
        self.store.under(Policy::Journal).transact(&self.token, |tx| {
            if let Some(given) = tx.get::<AllocationRecord>(request)? {
                return Ok(Some(given.0));
            }
            let key = self.ledger_key();
            if tx.get::<RangeHolder>(&key)? != Some(self.ours()) {
                return Ok(None);
            }
            let mut ledger = tx.get::<Ledger>(&key)?.unwrap_or_default();
            if let Some(on_chain) = on_chain {
                ledger.chain_says(on_chain);
            }
            let Some(number) = ledger.next(self.settings.first, false) else { return Ok(None) };
            ledger.take(number);
            tx.put(&key, &ledger)?;
            tx.put(request, &AllocationRecord(number))?;
            Ok(Some(number))
        })
    }

    /// Makes the range ours and full, in the cluster's store.
    pub(super) fn extend(&self, on_chain: &NumberSet) -> Result<(), StoreError> {
        let key = self.ledger_key();
        let (first, lease) = (self.settings.first, self.settings.lease);
        let strict = self.store.under(Policy::Refuse);
        strict.transact(&self.token, |tx| {
            let before = tx.get::<Ledger>(&key)?;
            let mut ledger = before.clone().unwrap_or_default();
            let holder = tx.get::<RangeHolder>(&key)?;
            match &holder {
                Some(holder) if *holder == self.ours() => {}
                Some(other) => ledger.set_lost_range_aside(other.epoch),
                // A single node's range: nobody else ever gave it out.
                None => ledger.leased = NumberSet::default(),
            }
            ledger.chain_says(on_chain);
            ledger.extend_lease(first, lease);
            if holder != Some(self.ours()) {
                tx.put(&key, &self.ours())?;
            }
            if before.as_ref() != Some(&ledger) {
                tx.put(&key, &ledger)?;
            }
            Ok(())
        })
    }

    /// At an orderly end: the next holder need not set our range aside.
    pub fn give_back(&self) -> Result<(), StoreError> {
        let key = self.ledger_key();
        if !self.store.is_replicated() {
            return Ok(());
        }
        self.store.under(Policy::Refuse).transact(&self.token, |tx| {
            if tx.get::<RangeHolder>(&key)? != Some(self.ours()) {
                return Ok(());
            }
            let mut ledger = tx.get::<Ledger>(&key)?.unwrap_or_default();
            ledger.leased = NumberSet::default();
            tx.put(&key, &ledger)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeInclusive;

    fn set(ranges: &[RangeInclusive<u64>]) -> NumberSet {
        NumberSet::from_ranges(ranges.iter().cloned())
    }

    #[test]
    fn a_range_grows_and_never_lets_go_of_what_it_may_have_given() {
        let mut l = Ledger { on_chain: set(&[1..=2]), ..Ledger::default() };
        for (change, leased) in [
            ((|_: &mut Ledger| {}) as fn(&mut Ledger), &[3..=5][..]),
            (|_| {}, &[3..=5]),
            (|l| l.take(3), &[4..=6]),
            (|l| l.on_chain.insert(5), &[4..=4, 6..=7]),
            (|l| l.reserve("mine", NumberSet::from_ranges([4..=4])).unwrap(), &[6..=8]),
            (|l| l.free("mine").unwrap(), &[6..=8]),
        ] {
            change(&mut l);
            l.extend_lease(1, 3);
            assert_eq!(l.leased, set(leased));
        }
    }

    #[test]
    fn a_lost_range_is_set_aside_whatever_became_of_it() {
        let mut l = Ledger { leased: set(&[3..=6]), ..Ledger::default() };
        l.take(3);
        l.on_chain.insert(4);
        l.reserve("mine", set(&[5..=5])).unwrap();
        l.set_lost_range_aside(7);
        assert_eq!(l.reserved[1], ("lost-lease-7".into(), set(&[5..=6])));
        assert_eq!((l.leased.clone(), l.next(1, true)), (set(&[]), Some(1)));
        l.free("mine").unwrap();
        assert!(l.in_use().contains(5), "the other one may have given it out");
        l.set_lost_range_aside(8);
        assert_eq!(l.reserved.len(), 1, "nothing left, nothing set aside");
    }
}
