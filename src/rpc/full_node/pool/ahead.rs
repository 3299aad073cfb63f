//! Which nodes claim a head that the chain cannot have reached yet: by the clock, or alone against most of the others. Pure.
//!
//! Lotus drops such blocks (`chain/consensus`, `IsEpochBeyondCurrMax`: the wall clock's epoch and five more). A pool must do
//! more: believed, one such head makes every other node count as behind.

use super::health::Health;
use crate::chain::ChainEpoch;
use std::collections::BTreeMap;
use std::time::Duration;

/// Epochs that a head may be beyond this host's clock: as much as the clock may be slow without harm.
const DRIFT: ChainEpoch = 1;

/// A node's head as far as the comparison needs it.
struct Claim {
    index: usize,
    height: ChainEpoch,
    /// Unix seconds of its blocks.
    head_at: i64,
    delay: i64,
    /// Unix seconds of the genesis block; `None`: the node does not tell.
    genesis: Option<i64>,
}

impl Claim {
    fn of((index, health): (usize, &Health)) -> Option<Claim> {
        let signed = |seconds: u64| i64::try_from(seconds).ok();
        let delay = health.block_delay_secs.and_then(signed).filter(|delay| *delay > 0)?;
        if health.wrong_network || health.error.is_some() {
            return None;
        }
        let genesis = health.genesis_at.and_then(signed);
        Some(Claim { index, height: health.height?, head_at: health.head_at.and_then(signed)?, delay, genesis })
    }

    /// The highest epoch that the chain can have by `now`, counted from `height` at the time `at`.
    fn reachable(&self, height: ChainEpoch, at: i64, now: i64) -> ChainEpoch {
        height.saturating_add((now.saturating_sub(at)).max(0) / self.delay).saturating_add(DRIFT)
    }
}

/// For each node the epochs that its head is beyond what can be; `None`: it can be, or nobody can tell.
///
/// `now`: time since the Unix epoch. More than half of the nodes are never beyond the clock: then the clock is slow, or the
/// network does not make its blocks at the times that its rules give (a devnet that catches up).
pub fn ahead(all: &[Health], now: Duration) -> Vec<Option<ChainEpoch>> {
    let claims: Vec<Claim> = all.iter().enumerate().filter_map(Claim::of).collect();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let by = match genesis(&claims) {
        Some(genesis) => by_clock(&claims, genesis, now),
        None => by_others(&claims, now),
    };
    let mut ahead = vec![None; all.len()];
    by.into_iter().for_each(|(index, by)| ahead[index] = Some(by));
    ahead
}

fn is_most(some: usize, of: usize) -> bool {
    2 * some > of
}

/// The time of the genesis block that most of the nodes tell.
fn genesis(claims: &[Claim]) -> Option<i64> {
    let mut told: BTreeMap<i64, usize> = BTreeMap::new();
    claims.iter().filter_map(|claim| claim.genesis).for_each(|genesis| *told.entry(genesis).or_default() += 1);
    let all = told.values().sum();
    told.into_iter().find(|(_, count)| is_most(*count, all)).map(|(genesis, _)| genesis)
}

/// A block's time is its genesis' and its height times the block delay, so that the clock tells how high a chain can be.
fn by_clock(claims: &[Claim], genesis: i64, now: i64) -> Vec<(usize, ChainEpoch)> {
    let is_off = |claim: &&Claim| {
        let expected = claim.height.saturating_mul(claim.delay).saturating_add(genesis);
        claim.head_at.saturating_sub(expected).saturating_abs() > claim.delay
    };
    let beyond = |claim: &Claim| {
        let by = claim.height.saturating_sub(claim.reachable(0, genesis, now));
        (by > 0).then_some((claim.index, by))
    };
    let found: Vec<_> = claims.iter().filter_map(beyond).collect();
    let keeps_time = !is_most(claims.iter().filter(is_off).count(), claims.len());
    if keeps_time && !is_most(found.len(), claims.len()) { found } else { Vec::new() }
}

/// Without a genesis: two others at least, and most of them, have heads by whose time the chain cannot be so high now.
fn by_others(claims: &[Claim], now: i64) -> Vec<(usize, ChainEpoch)> {
    let beyond = |claim: &Claim| {
        let others = claims.iter().filter(|other| other.index != claim.index);
        let beyond = |other: &Claim| claim.height.saturating_sub(other.reachable(other.height, other.head_at, now));
        let by: Vec<ChainEpoch> = others.map(beyond).collect();
        let against: Vec<ChainEpoch> = by.iter().copied().filter(|by| *by > 0).collect();
        (against.len() >= 2 && is_most(against.len(), by.len() + 1)).then_some((claim.index, *against.iter().min()?))
    };
    claims.iter().filter_map(beyond).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: i64 = 30;
    const GENESIS: i64 = 1_000_000;
    /// The clock is in the middle of epoch 100.
    const NOW: Duration = Duration::from_secs((GENESIS + 100 * DELAY + 15) as u64);

    /// A head whose blocks have the time that `time` (an epoch) gives.
    fn claim(height: ChainEpoch, time: ChainEpoch, genesis: Option<i64>) -> Health {
        let head_at = u64::try_from(GENESIS + time * DELAY).ok();
        let genesis_at = genesis.map(|genesis| genesis as u64);
        Health { height: Some(height), head_at, block_delay_secs: Some(30), genesis_at, ..Health::default() }
    }

    fn found(all: &[Health]) -> Vec<ChainEpoch> {
        ahead(all, NOW).into_iter().map(|by| by.unwrap_or(0)).collect()
    }

    #[test]
    fn the_clock_tells_how_high_a_chain_can_be() {
        let at = |height| claim(height, height, Some(GENESIS));
        let lies = |height| claim(height, 100, Some(GENESIS)); // with a time of now
        for (what, all, expected) in [
            ("at the clock and one beyond", vec![at(100), at(101)], vec![0, 0]),
            ("two beyond", vec![at(100), at(102)], vec![0, 1]),
            ("far beyond, with a time of then", vec![at(5_000), at(100)], vec![4_899, 0]),
            ("far beyond, with a time of now", vec![at(100), lies(5_000)], vec![0, 4_899]),
            ("one alone: nobody to compare with", vec![lies(5_000)], vec![0]),
            ("most of them: the clock is slow", vec![at(110), at(110), at(99)], vec![0, 0, 0]),
            ("half of them", vec![at(110), at(110), at(100), at(99)], vec![9, 9, 0, 0]),
            ("most are stuck: they say nothing of the one that is not", vec![at(90), at(90), at(100)], vec![0, 0, 0]),
            (
                "no block has its time: a devnet",
                vec![claim(500, 100, Some(GENESIS)), claim(480, 96, Some(GENESIS))],
                vec![0, 0],
            ),
            (
                "one tells another genesis",
                vec![at(100), at(100), claim(5_000, 100, Some(GENESIS - 4_900 * DELAY))],
                vec![0, 0, 4_899],
            ),
            (
                "not checked, failed, of another network",
                vec![
                    Health::default(),
                    Health { error: Some("refused".into()), ..lies(5_000) },
                    Health { wrong_network: true, ..lies(5_000) },
                    at(100),
                ],
                vec![0, 0, 0, 0],
            ),
        ] {
            assert_eq!(found(&all), expected, "{what}");
        }
    }

    #[test]
    fn without_a_genesis_most_of_the_others_tell() {
        let at = |height| claim(height, height, None);
        let lies = |height| claim(height, 100, None);
        for (what, all, expected) in [
            ("two against one", vec![at(100), lies(5_000), at(99)], vec![0, 4_899, 0]),
            ("two that are stuck contradict nobody", vec![at(90), at(90), at(100)], vec![0, 0, 0]),
            ("one against one", vec![at(100), lies(5_000)], vec![0, 0]),
            ("two against two", vec![at(100), at(100), lies(5_000), lies(5_000)], vec![0, 0, 0, 0]),
        ] {
            assert_eq!(found(&all), expected, "{what}");
        }
    }
}
