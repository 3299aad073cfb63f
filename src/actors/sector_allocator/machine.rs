//! Which number is next: the lowest gap in everything that is taken, as a pure function of the allocator's record.

use super::messages::ReserveError;
use crate::chain::lotus_json::bitfield;
use crate::store::Record;
use fvm_ipld_bitfield::BitField;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Lotus' `abi.MaxSectorNumber`.
pub const MAX_SECTOR_NUMBER: u64 = i64::MAX as u64;

/// Sorted, disjoint, not touching ranges of sector numbers, both ends included.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet(Vec<(u64, u64)>);

impl NumberSet {
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> NumberSet {
        let mut ranges: Vec<(u64, u64)> =
            ranges.into_iter().map(|r| (*r.start(), *r.end())).filter(|(a, b)| a <= b).collect();
        ranges.sort_unstable();
        let mut set: Vec<(u64, u64)> = Vec::new();
        for (a, b) in ranges {
            match set.last_mut() {
                Some(last) if a <= last.1.saturating_add(1) => last.1 = last.1.max(b),
                _ => set.push((a, b)),
            }
        }
        NumberSet(set)
    }

    /// By run lengths: a field may be huge, and have few runs.
    pub fn of_bitfield(field: &BitField) -> NumberSet {
        let mut at = 0u64;
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        // Zeros first.
        for (i, len) in bitfield::to_runs(field).into_iter().enumerate() {
            if i % 2 == 1 && len > 0 {
                ranges.push(at..=at.saturating_add(len - 1));
            }
            at = at.saturating_add(len);
        }
        NumberSet::from_ranges(ranges)
    }

    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(a, b)| *a..=*b)
    }

    pub fn union(&self, other: &NumberSet) -> NumberSet {
        NumberSet::from_ranges(self.ranges().chain(other.ranges()))
    }

    pub fn insert(&mut self, n: u64) {
        *self = NumberSet::from_ranges(self.ranges().chain([n..=n]));
    }

    pub fn contains(&self, n: u64) -> bool {
        let at = self.0.partition_point(|(a, _)| *a <= n);
        at > 0 && self.0[at - 1].1 >= n
    }

    /// The lowest number that both have.
    pub fn first_common(&self, other: &NumberSet) -> Option<u64> {
        self.0
            .iter()
            .flat_map(|(a, b)| other.0.iter().map(move |(c, d)| (*a.max(c), *b.min(d))))
            .filter(|(from, to)| from <= to)
            .map(|(from, _)| from)
            .min()
    }

    /// The lowest number from `first` on that is not in the set.
    pub fn lowest_gap(&self, first: u64) -> Option<u64> {
        let mut candidate = first;
        for (a, b) in &self.0 {
            if candidate < *a {
                break;
            }
            if candidate <= *b {
                candidate = b.checked_add(1)?;
            }
        }
        (candidate <= MAX_SECTOR_NUMBER).then_some(candidate)
    }

    /// The lowest `count` numbers from `first` on that are not in the set; fewer when there are none left.
    pub fn lowest_gaps(&self, first: u64, count: u64) -> NumberSet {
        let mut found = Vec::new();
        let (mut from, mut left) = (first, count);
        let mut taken = self.0.iter().peekable();
        while left > 0 && from <= MAX_SECTOR_NUMBER {
            while taken.next_if(|(_, b)| *b < from).is_some() {}
            match taken.peek() {
                Some((a, b)) if *a <= from => match b.checked_add(1) {
                    Some(next) => from = next,
                    None => break,
                },
                next => {
                    let room = next.map_or(MAX_SECTOR_NUMBER, |(a, _)| a - 1);
                    let end = room.min(from.saturating_add(left - 1)).min(MAX_SECTOR_NUMBER);
                    found.push(from..=end);
                    left -= end - from + 1;
                    from = end + 1;
                }
            }
        }
        NumberSet::from_ranges(found)
    }
}

/// The durable record of one miner's numbers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub allocated: NumberSet,
    /// The chain's own bitfield at the last answer. It only grows.
    pub on_chain: NumberSet,
    pub reserved: Vec<(String, NumberSet)>,
    /// Found free on the chain's last answer, for when it cannot be asked.
    pub leased: NumberSet,
}

impl Record for Ledger {
    const TABLE: &'static str = "sector_numbers";
}

/// The reservation of what was given out before this allocator's time; named after the file that says how far.
pub const FORMER: &str = "sectorid";

impl Ledger {
    pub(super) fn in_use(&self) -> NumberSet {
        let reserved = self.reserved.iter().flat_map(|(_, set)| set.ranges());
        NumberSet::from_ranges(self.allocated.ranges().chain(self.on_chain.ranges()).chain(reserved))
    }

    /// The number that the next allocation returns. Without the chain only leased numbers are returned.
    pub fn next(&self, first: u64, chain_answered: bool) -> Option<u64> {
        let used = self.in_use();
        if chain_answered {
            return used.lowest_gap(first);
        }
        self.leased.ranges().flatten().find(|n| !used.contains(*n))
    }

    /// Sets everything up to `last` aside under [`FORMER`], unless numbers were given out already. True: it was done now.
    pub fn begin_after(&mut self, last: u64) -> bool {
        let begun = self.allocated != NumberSet::default() || self.reserved.iter().any(|(name, _)| name == FORMER);
        if begun || last > MAX_SECTOR_NUMBER {
            return false;
        }
        let free = self.in_use().lowest_gaps(0, last + 1);
        let below = free.ranges().filter(|r| *r.start() <= last).map(|r| *r.start()..=last.min(*r.end()));
        self.reserved.push((FORMER.to_owned(), NumberSet::from_ranges(below)));
        self.leased = NumberSet::default();
        true
    }

    pub fn take(&mut self, n: u64) {
        self.allocated.insert(n);
    }

    /// The chain answered: take over what it says, and lease the next numbers that are free.
    pub fn chain_says(&mut self, on_chain: &NumberSet) {
        self.on_chain = self.on_chain.union(on_chain);
    }

    pub fn lease(&mut self, first: u64, count: u64) {
        self.leased = self.in_use().lowest_gaps(first, count);
    }

    pub fn reserve(&mut self, name: &str, numbers: NumberSet) -> Result<(), ReserveError> {
        check_name(name)?;
        if numbers.ranges().next().is_none() {
            return Err(ReserveError::Numbers("the empty set".into()));
        }
        if let Some(too_high) = numbers.ranges().map(|r| *r.end()).find(|n| *n > MAX_SECTOR_NUMBER) {
            return Err(ReserveError::Numbers(too_high.to_string()));
        }
        if self.reserved.iter().any(|(n, _)| n == name) {
            return Err(ReserveError::Exists(name.to_owned()));
        }
        for (by, set) in &self.reserved {
            if let Some(number) = set.first_common(&numbers) {
                return Err(ReserveError::Reserved { number, by: by.clone() });
            }
        }
        if let Some(number) = self.allocated.union(&self.on_chain).first_common(&numbers) {
            return Err(ReserveError::Allocated(number));
        }
        self.reserved.push((name.to_owned(), numbers));
        Ok(())
    }

    pub fn reserve_count(&mut self, name: &str, first: u64, count: u64) -> Result<NumberSet, ReserveError> {
        let numbers = self.in_use().lowest_gaps(first, count);
        self.reserve(name, numbers.clone())?;
        Ok(numbers)
    }

    pub fn free(&mut self, name: &str) -> Result<(), ReserveError> {
        check_name(name)?;
        let at = self.reserved.iter().position(|(n, _)| n == name);
        at.map(|at| drop(self.reserved.remove(at))).ok_or_else(|| ReserveError::Missing(name.to_owned()))
    }
}

fn check_name(name: &str) -> Result<(), ReserveError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(ReserveError::Name(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ranges: &[RangeInclusive<u64>]) -> NumberSet {
        NumberSet::from_ranges(ranges.iter().cloned())
    }

    fn allocate(l: &mut Ledger) -> u64 {
        let n = l.next(1, true).unwrap();
        l.take(n);
        n
    }

    /// Lotus' own scenario (`itests/sector_numassign_test.go`).
    #[test]
    fn numbers_fill_the_lowest_gap_around_reservations() {
        let genesis = Ledger { on_chain: set(&[1..=2]), ..Ledger::default() };
        let mut l = genesis.clone();
        assert_eq!(l.next(1, true), Some(3));
        assert_eq!((allocate(&mut l), allocate(&mut l)), (3, 4));

        let mut l = genesis;
        l.reserve("test-reservation", set(&[3..=10])).unwrap();
        let again = l.reserve("test-reservation", set(&[30..=33])).unwrap_err();
        assert_eq!(again, ReserveError::Exists("test-reservation".into()));
        let collides = l.reserve("test-reservation-2", set(&[7..=12])).unwrap_err();
        assert_eq!(collides, ReserveError::Reserved { number: 7, by: "test-reservation".into() });
        assert_eq!(l.reserve("test/reservation", set(&[99..=99])), Err(ReserveError::Name("test/reservation".into())));
        assert_eq!(l.next(1, true), Some(11));
        assert_eq!((allocate(&mut l), allocate(&mut l)), (11, 12));
        assert_eq!(l.reserve("taken", set(&[12..=13])), Err(ReserveError::Allocated(12)));
        l.free("test-reservation").unwrap();
        assert_eq!(l.free("test-reservation"), Err(ReserveError::Missing("test-reservation".into())));
        assert_eq!(l.next(1, true), Some(3));
        assert_eq!(allocate(&mut l), 3);
        assert_eq!(l.allocated, set(&[3..=3, 11..=12]));
    }

    #[test]
    fn numbers_of_an_earlier_allocator_are_left_out_once() {
        for last in [1, 2, 3, 100] {
            let mut l = Ledger { on_chain: set(&[1..=2]), ..Ledger::default() };
            assert!(l.begin_after(last));
            assert!(!l.begin_after(last + 50), "once");
            assert_eq!(l.next(1, true), Some(last.max(2) + 1), "after {last}");
        }
        let mut used = Ledger::default();
        assert_eq!(allocate(&mut used), 1);
        assert!(!used.begin_after(100), "not the first deployment");
        assert_eq!(used.next(1, true), Some(2));
    }

    #[test]
    fn without_the_chain_only_the_lease_is_given_out() {
        let mut l = Ledger::default();
        assert_eq!(l.next(1, false), None);
        l.chain_says(&set(&[1..=2, 4..=4]));
        l.lease(1, 3);
        assert_eq!(l.leased, set(&[3..=3, 5..=6]));
        l.reserve("mine", set(&[5..=5])).unwrap();
        let mut given = vec![];
        while let Some(n) = l.next(1, false) {
            l.take(n);
            given.push(n);
        }
        assert_eq!(given, [3, 6]);
        assert_eq!(l.next(1, true), Some(7));
    }

    #[test]
    fn the_last_number_is_given_and_then_no_more() {
        for (taken_to, next) in [(MAX_SECTOR_NUMBER - 1, Some(MAX_SECTOR_NUMBER)), (MAX_SECTOR_NUMBER, None)] {
            let l = Ledger { on_chain: set(&[0..=taken_to]), ..Ledger::default() };
            assert_eq!(l.next(1, true), next);
            assert_eq!(l.on_chain.lowest_gaps(1, 8).ranges().map(|r| *r.start()).next(), next);
        }
        let all = set(&[0..=u64::MAX]);
        assert_eq!((all.lowest_gap(1), all.lowest_gaps(1, 5)), (None, NumberSet::default()));
        let mut l = Ledger::default();
        assert!(matches!(l.reserve("x", set(&[5..=u64::MAX])), Err(ReserveError::Numbers(_))));
        assert!(matches!(l.reserve("x", set(&[])), Err(ReserveError::Numbers(_))));
    }

    proptest! {
        #[test]
        fn gaps_are_those_of_a_plain_set(numbers in prop::collection::vec(0u64..60, 0..40), first in 0u64..10, count in 0u64..20) {
            let plain: BTreeSet<u64> = numbers.iter().copied().collect();
            let set = NumberSet::from_ranges(numbers.iter().map(|n| *n..=*n));
            let free: Vec<u64> = (first..200).filter(|n| !plain.contains(n)).collect();
            prop_assert_eq!(set.lowest_gap(first), free.first().copied());
            let gaps: Vec<u64> = set.lowest_gaps(first, count).ranges().flatten().collect();
            prop_assert_eq!(gaps, free[..count as usize].to_vec());
            for n in 0..70 {
                prop_assert_eq!(set.contains(n), plain.contains(&n));
            }
        }
    }
}
