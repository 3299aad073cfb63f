//! Whether a node of the pool is used: what its last checks found, compared with the clock and with the other nodes.

use crate::chain::ChainEpoch;
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// The bounds of the pool's manual; its names and variables in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Epochs that a node may have left to sync, by its own word (MaxSyncBehind, `FPOOL_MAX_SYNC_BEHIND`).
    pub max_sync_behind: i64,
    /// Epochs that a node may be behind the best one (MaxBehindDiff, `FPOOL_MAX_BEHIND_DIFF`).
    pub max_behind_diff: i64,
    /// Peers that pass on messages (MinMessagePeers, `FPOOL_MIN_MESSAGE_PEERS`); 0: none are needed.
    pub min_message_peers: u64,
    /// Peers that pass on blocks (MinBlockPeers, `FPOOL_MIN_BLOCK_PEERS`); 0: none are needed.
    pub min_block_peers: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { max_sync_behind: 2, max_behind_diff: 2, min_message_peers: 1, min_block_peers: 1 }
    }
}

/// The result of a node's last check.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Health {
    pub node: String,
    /// `None` before the first check and after a failed one.
    pub height: Option<ChainEpoch>,
    /// Unix seconds of the blocks of that head.
    #[serde(default)]
    pub head_at: Option<u64>,
    /// Seconds; of its network.
    #[serde(default)]
    pub block_delay_secs: Option<u64>,
    pub error: Option<String>,
    /// Another network than the configured one: not used.
    pub wrong_network: bool,
    /// Weight of its head's chain, in digits; `None`: it does not tell.
    #[serde(default)]
    pub weight: Option<String>,
    /// Epochs that it has left to sync by its own word; `None`: it does not tell.
    #[serde(default)]
    pub sync_behind: Option<ChainEpoch>,
    /// Peers that pass on messages; `None`: it does not tell.
    #[serde(default)]
    pub message_peers: Option<u64>,
    #[serde(default)]
    pub block_peers: Option<u64>,
    /// Why it is not used; `None`: it is.
    #[serde(default)]
    pub disabled: Option<String>,
    /// Why it would not be used if there were a better one.
    #[serde(default)]
    pub warning: Option<String>,
}

impl Health {
    pub fn of(node: &str) -> Health {
        Health { node: node.to_string(), ..Health::default() }
    }

    pub fn weight(&self) -> Option<BigInt> {
        self.weight.as_ref()?.parse().ok()
    }
}

/// A node whose check was good so many times in a row is used again.
const GOOD_CHECKS: u32 = 2;
/// A node that is lighter at the same height so many times in a row is on a fork of its own: once is a block on its way.
const LIGHT_CHECKS: u32 = 3;

/// A node's record between its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// It was not used after its last check.
    pub disabled: bool,
    pub good: u32,
    pub light: u32,
}

/// Epochs behind the best of `all` on the right network; 0 for the best, `None` without a head.
pub fn behind(all: &[Health], index: usize) -> Option<ChainEpoch> {
    let best = all.iter().filter(|other| !other.wrong_network).filter_map(|other| other.height).max()?;
    Some((best - all.get(index)?.height?).max(0))
}

/// Why the node is not to be used by its last check alone.
fn fault(all: &[Health], index: usize, bounds: &Bounds) -> Option<String> {
    let health = &all[index];
    if let Some(error) = &health.error {
        return Some(error.clone());
    }
    if let Some(behind) = behind(all, index).filter(|behind| *behind > bounds.max_behind_diff) {
        return Some(format!("it is {behind} epochs behind the best node (MaxBehindDiff {})", bounds.max_behind_diff));
    }
    if let Some(behind) = health.sync_behind.filter(|behind| *behind > bounds.max_sync_behind) {
        return Some(format!("it has {behind} epochs left to sync (MaxSyncBehind {})", bounds.max_sync_behind));
    }
    for (peers, least, what, name) in [
        (health.message_peers, bounds.min_message_peers, "messages", "MinMessagePeers"),
        (health.block_peers, bounds.min_block_peers, "blocks", "MinBlockPeers"),
    ] {
        if let Some(peers) = peers.filter(|peers| *peers < least) {
            return Some(format!("{peers} peers pass on {what} to it ({name} {least})"));
        }
    }
    None
}

/// True: most of the other nodes of the right network that tell a weight have a heavier chain at the same height or below.
/// Most, so that one node that claims too much takes no other away.
fn is_lighter(all: &[Health], index: usize) -> bool {
    let (Some(height), Some(weight)) = (all[index].height, all[index].weight()) else { return false };
    let others = all.iter().enumerate().filter(|(other, health)| *other != index && !health.wrong_network);
    let others: Vec<_> = others.filter_map(|(_, health)| Some((health.height?, health.weight()?))).collect();
    let heavier = others.iter().filter(|(theirs, other)| *theirs <= height && *other > weight).count();
    2 * heavier > others.len()
}

/// Judges all nodes after a round of checks; `streaks` is brought up to date, `disabled` of each is set.
///
/// A node that answers is better than none: while no other can be used, one that is behind, short of peers or alone on its
/// chain is used all the same, with `warning` set.
pub fn judge(all: &mut [Health], streaks: &mut [Streak], bounds: &Bounds) {
    for index in 0..all.len() {
        let streak = &mut streaks[index];
        streak.light = if is_lighter(all, index) { streak.light.saturating_add(1) } else { 0 };
        let light = (streak.light >= LIGHT_CHECKS).then(|| "its chain is lighter than another node's".to_string());
        // A node that was never checked may be used: to try is better than to wait.
        let unknown = all[index].height.is_none() && all[index].error.is_none();
        let disabled = match fault(all, index, bounds).or(light) {
            Some(why) => {
                streak.good = 0;
                Some(why)
            }
            None if unknown => None,
            None => {
                streak.good = streak.good.saturating_add(1);
                let waits = streak.disabled && streak.good < GOOD_CHECKS;
                waits.then(|| format!("it is used again after {GOOD_CHECKS} good checks"))
            }
        };
        streak.disabled = disabled.is_some();
        (all[index].disabled, all[index].warning) = (disabled, None);
    }
    if all.iter().all(|health| health.disabled.is_some()) {
        for health in all.iter_mut().filter(|health| health.error.is_none()) {
            health.warning = health.disabled.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: ChainEpoch) -> Health {
        Health { height: Some(height), ..Default::default() }
    }

    /// Which nodes are used after each round of checks.
    fn rounds(rounds: &[Vec<Health>]) -> Vec<Vec<bool>> {
        let mut streaks = vec![Streak::default(); rounds[0].len()];
        let mut told = Vec::new();
        for round in rounds {
            let mut all = round.clone();
            judge(&mut all, &mut streaks, &Bounds::default());
            told.push(all.iter().map(|health| health.disabled.is_none()).collect());
        }
        told
    }

    #[test]
    fn each_bound_disables_a_node() {
        let base = || Health { message_peers: Some(1), block_peers: Some(1), sync_behind: Some(2), ..at(100) };
        for (what, bad, used) in [
            ("good", base(), true),
            ("two epochs behind", Health { height: Some(98), ..base() }, true),
            ("three epochs behind", Health { height: Some(97), ..base() }, false),
            ("still syncing", Health { sync_behind: Some(3), ..base() }, false),
            ("no message peers", Health { message_peers: Some(0), ..base() }, false),
            ("no block peers", Health { block_peers: Some(0), ..base() }, false),
            ("tells nothing of peers", at(100), true),
            ("does not answer", Health { error: Some("refused".into()), ..Health::default() }, false),
            ("never checked", Health::default(), true),
        ] {
            assert_eq!(rounds(&[vec![bad, base()]]), [[used, true]], "{what}");
        }
        let poor = Health { message_peers: Some(0), ..base() };
        assert_eq!(rounds(&[vec![poor.clone(), poor]]), [[true, true]], "none is better");
        let foreign = Health { wrong_network: true, error: Some("another network".into()), ..at(1_000_000) };
        assert_eq!(rounds(&[vec![foreign, at(100)]]), [[false, true]], "a foreign head counts for nobody");
    }

    #[test]
    fn a_node_comes_back_after_two_good_checks() {
        let broken = Health { error: Some("refused".into()), ..Health::default() };
        let told = rounds(&[
            vec![at(1), at(1)],
            vec![broken.clone(), at(2)],
            vec![at(3), at(3)],
            vec![broken, at(4)],
            vec![at(5), at(5)],
            vec![at(6), at(6)],
        ]);
        assert_eq!(told.iter().map(|used| used[0]).collect::<Vec<_>>(), [true, false, false, false, false, true]);
    }

    #[test]
    fn a_node_alone_on_a_lighter_fork_is_found() {
        let weighing = |height, weight: &str| Health { weight: Some(weight.into()), ..at(height) };
        let round = |height| vec![weighing(height, "900"), weighing(height, "1000"), weighing(height - 1, "950")];
        let told = rounds(&[round(10), round(11), round(12)]);
        assert_eq!(told, [[true, true, true], [true, true, true], [false, true, true]]);
        // Heavier again in between: a block was only late.
        let even = vec![weighing(12, "1000"), weighing(12, "1000"), weighing(12, "1000")];
        let told = rounds(&[round(10), round(11), even, round(13), round(14)]);
        assert!(told.iter().all(|used| used[0]), "{told:?}");
        // One node that claims too much, against two.
        let claim = || vec![weighing(12, "1000"), weighing(12, "1000"), weighing(12, "9000")];
        assert_eq!(rounds(&[claim(), claim(), claim()])[2], [true, true, true]);
        // A longer chain that is lighter than a shorter one.
        let longer = || vec![weighing(12, "900"), weighing(11, "1000")];
        assert_eq!(rounds(&[longer(), longer(), longer()])[2], [false, true]);
    }

    #[test]
    fn epochs_behind_the_best() {
        let all = [at(97), Health { wrong_network: true, ..at(500) }, Health::default(), at(100)];
        assert_eq!([0, 2, 3].map(|index| behind(&all, index)), [Some(3), None, Some(0)]);
    }
}
