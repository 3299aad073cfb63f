//! Which partitions of a deadline go into one proof and one message.

use crate::chain::network_rules::LIMITS;
use crate::chain::types::Partition;
use fvm_ipld_bitfield::BitField;

/// The sectors of a partition to prove: alive, less faulty, plus declared recovering. Sectors that the chain has not
/// yet seen proven count as alive.
pub fn to_prove(partition: &Partition) -> BitField {
    &(&partition.live_sectors - &partition.faulty_sectors) | &partition.recovering_sectors
}

/// Partitions whose proof one message may carry; the miner actor refuses more (policy `posted_partitions_max`).
pub const POSTED_PARTITIONS_MAX: usize = LIMITS.posted_partitions;

/// Partitions in one message, from the setting: 0 is as many as the network takes.
pub fn partition_limit(setting: usize) -> usize {
    if setting == 0 { POSTED_PARTITIONS_MAX } else { setting.min(POSTED_PARTITIONS_MAX) }
}

/// One partition that has something to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub index: u64,
    pub recovering: bool,
}

/// The partitions that have something to prove and are not yet proven in this window.
pub fn due(partitions: &[Partition], already_proven: &BitField) -> Vec<Due> {
    partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| (index as u64, partition))
        .filter(|(index, partition)| !already_proven.get(*index) && !to_prove(partition).is_empty())
        .map(|(index, partition)| Due { index, recovering: !partition.recovering_sectors.is_empty() })
        .collect()
}

/// Groups of at most `max` partitions in order; 0 is no limit. With `single_recovering`, a partition with recovering
/// sectors stands alone.
pub fn batches(due: &[Due], max: usize, single_recovering: bool) -> Vec<Vec<u64>> {
    let max = if max == 0 { usize::MAX } else { max };
    let mut out: Vec<Vec<u64>> = Vec::new();
    let mut open = false;
    for partition in due {
        let alone = single_recovering && partition.recovering;
        match out.last_mut() {
            Some(last) if open && !alone && last.len() < max => last.push(partition.index),
            _ => out.push(vec![partition.index]),
        }
        open = !alone;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(count: u64) -> Vec<Due> {
        (0..count).map(|index| Due { index, recovering: false }).collect()
    }

    fn sizes(count: u64, max: usize) -> Vec<usize> {
        batches(&plain(count), max, false).iter().map(Vec::len).collect()
    }

    #[test]
    fn the_setting_is_held_to_what_the_network_takes() {
        assert_eq!([0, 1, 2, 3, 4, 100].map(partition_limit), [3, 1, 2, 3, 3, 3]);
    }

    #[test]
    fn groups_of_at_most_max() {
        assert_eq!(sizes(5, 1), [1; 5]);
        assert_eq!(sizes(5, 2), [2, 2, 1]);
        assert_eq!(sizes(5, 3), [3, 2]);
        assert_eq!(sizes(5, 0), [5]);
        for (count, expected) in [(0, vec![]), (1, vec![1]), (2, vec![2]), (3, vec![2, 1])] {
            assert_eq!(sizes(count, 2), expected, "{count} partitions");
        }
        assert_eq!(sizes(15, 2), [2, 2, 2, 2, 2, 2, 2, 1]);
        let chain_max = 12_500;
        assert_eq!(sizes(4 * chain_max as u64 + 1, chain_max), [chain_max, chain_max, chain_max, chain_max, 1]);
    }

    #[test]
    fn every_partition_once_in_order() {
        for max in 0..7 {
            let flat: Vec<u64> = batches(&plain(17), max, false).concat();
            assert_eq!(flat, (0..17).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_recovering_partition_may_stand_alone() {
        let mut partitions = plain(6);
        partitions[2].recovering = true;
        assert_eq!(batches(&partitions, 3, true), [vec![0, 1], vec![2], vec![3, 4, 5]]);
        assert_eq!(batches(&partitions, 3, false), [vec![0, 1, 2], vec![3, 4, 5]]);
    }

    fn partition(live: &[u64], faulty: &[u64], recovering: &[u64]) -> Partition {
        let bits = |set: &[u64]| BitField::try_from_bits(set.iter().copied()).unwrap();
        Partition {
            all_sectors: bits(live),
            faulty_sectors: bits(faulty),
            recovering_sectors: bits(recovering),
            live_sectors: bits(live),
            active_sectors: bits(live),
        }
    }

    #[test]
    fn proves_live_less_faulty_plus_recovering() {
        let proven = |p: &Partition| to_prove(p).iter().collect::<Vec<_>>();
        assert_eq!(proven(&partition(&[1, 2, 3], &[], &[])), [1, 2, 3]);
        assert_eq!(proven(&partition(&[1, 2, 3], &[2], &[])), [1, 3]);
        assert_eq!(proven(&partition(&[1, 2, 3], &[2, 3], &[3])), [1, 3]);
        assert_eq!(proven(&partition(&[1], &[1], &[])), Vec::<u64>::new());
    }

    #[test]
    fn leaves_out_what_is_empty_faulty_or_done() {
        let partitions = [
            partition(&[1], &[], &[]),
            partition(&[2], &[2], &[]),
            partition(&[], &[], &[]),
            partition(&[3], &[3], &[3]),
        ];
        let found = due(&partitions, &BitField::new());
        assert_eq!(found, [Due { index: 0, recovering: false }, Due { index: 3, recovering: true }]);
        let done = BitField::try_from_bits([0]).unwrap();
        assert_eq!(due(&partitions, &done), [Due { index: 3, recovering: true }]);
    }
}
