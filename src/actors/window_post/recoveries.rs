//! Which faulty sectors to declare recovered: those whose files are there again, two deadlines before they are due.

use crate::chain::ChainEpoch;
use crate::chain::miner_messages::InPartition;
use crate::chain::network_rules::LIMITS;
use crate::chain::types::{DeadlineInfo, Partition};
use fvm_ipld_bitfield::BitField;
use std::collections::BTreeSet;

/// The deadline to declare for, while a message sent now can still execute before its cutoff.
pub fn target(current: &DeadlineInfo, height: ChainEpoch, landing: ChainEpoch) -> Option<DeadlineInfo> {
    let target = current.ahead(2);
    let executes = height + landing.max(1);
    (current.period_started_at(height) && !target.fault_cutoff_passed_at(executes)).then_some(target)
}

/// Faulty and not declared yet, per partition.
pub fn undeclared(partitions: &[Partition]) -> Vec<(u64, BitField)> {
    let faults = |partition: &Partition| &partition.faulty_sectors - &partition.recovering_sectors;
    let numbered = partitions.iter().enumerate().map(|(index, partition)| (index as u64, faults(partition)));
    numbered.filter(|(_, faults)| !faults.is_empty()).collect()
}

/// Declarations in one message; more are refused (actor policy `declarations_max`).
const DECLARATIONS: usize = LIMITS.addressed_partitions;

/// Partitions in one message, from the setting: 0 is as many as the network takes.
pub fn partition_limit(setting: usize) -> usize {
    if setting == 0 { DECLARATIONS } else { setting.min(DECLARATIONS) }
}

/// One message per `max` partitions (0: all in one) that have something to declare.
pub fn declarations(
    deadline: u64,
    undeclared: &[(u64, BitField)],
    readable: &BTreeSet<u64>,
    max: usize,
) -> Vec<Vec<InPartition>> {
    let found: Vec<InPartition> = undeclared
        .iter()
        .map(|(partition, faults)| (*partition, faults.iter().filter(|number| readable.contains(number))))
        .filter_map(|(partition, numbers)| Some((partition, BitField::try_from_bits(numbers).ok()?)))
        .filter(|(_, sectors)| !sectors.is_empty())
        .map(|(partition, sectors)| InPartition { deadline, partition, sectors })
        .collect();
    let max = if max == 0 { usize::MAX } else { max };
    found.chunks(max).map(<[InPartition]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(set: &[u64]) -> BitField {
        BitField::try_from_bits(set.iter().copied()).unwrap()
    }

    #[test]
    fn declares_two_deadlines_ahead_until_its_cutoff() {
        let di = DeadlineInfo {
            w_post_period_deadlines: 48,
            w_post_proving_period: 2880,
            w_post_challenge_window: 60,
            w_post_challenge_lookback: 20,
            fault_declaration_cutoff: 70,
            ..Default::default()
        }
        .with(0, 47);
        // Open 2820; two ahead is deadline 1 of the next period: open 2940, cutoff 2870.
        assert_eq!(target(&di, 2820, 1).map(|t| (t.index, t.open)), Some((1, 2940)));
        let until = [2868, 2869, 2870].map(|height| target(&di, height, 1).is_some());
        assert_eq!(until, [true, false, false], "a message sent at height executes one later at best");
        let started = [-1, 0, 1].map(|height| target(&di.with(0, 0), height, 1).is_some());
        assert_eq!(started, [false, true, true]);
    }

    #[test]
    fn declares_what_is_faulty_undeclared_and_readable() {
        let undeclared = vec![(0, bits(&[1, 2])), (2, bits(&[3])), (5, bits(&[9]))];
        let readable = BTreeSet::from([1, 3, 4]);
        let found = declarations(7, &undeclared, &readable, 0);
        assert_eq!(found.len(), 1);
        let got: Vec<_> =
            found[0].iter().map(|r| (r.deadline, r.partition, r.sectors.iter().collect::<Vec<_>>())).collect();
        assert_eq!(got, [(7, 0, vec![1]), (7, 2, vec![3])]);
        assert!(declarations(7, &undeclared, &BTreeSet::new(), 0).is_empty());
    }

    #[test]
    fn the_setting_is_held_to_what_the_network_takes() {
        assert_eq!([0, 1, 2999, 3000, 3001].map(partition_limit), [3000, 1, 2999, 3000, 3000]);
    }

    #[test]
    fn limits_partitions_in_one_message() {
        let undeclared: Vec<_> = (0..5).map(|p| (p, bits(&[p]))).collect();
        let readable = (0..5).collect();
        for (max, expected) in [(0, vec![5]), (1, vec![1; 5]), (2, vec![2, 2, 1]), (5, vec![5]), (6, vec![5])] {
            let sizes: Vec<_> = declarations(0, &undeclared, &readable, max).iter().map(Vec::len).collect();
            assert_eq!(sizes, expected, "max {max}");
        }
    }
}
