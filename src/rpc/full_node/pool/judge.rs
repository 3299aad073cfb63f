//! Whether a node of the pool is used: what its last checks found, compared with the clock and with the other nodes.

use super::ahead;
pub use super::health::Health;
use crate::chain::ChainEpoch;
use std::time::Duration;

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

/// Epochs behind the best of `all` on the right network whose head can be; 0 for the best, `None` without a head.
pub fn behind(all: &[Health], index: usize) -> Option<ChainEpoch> {
    let counts = |other: &&Health| !other.wrong_network && other.ahead.is_none();
    let best = all.iter().filter(counts).filter_map(|other| other.height).max()?;
    Some((best - all.get(index)?.height?).max(0))
}

fn ahead_fault(health: &Health) -> Option<String> {
    let ahead = health.ahead?;
    let height = health.height.unwrap_or_default();
    Some(format!("its head {height} is {ahead} epochs beyond what the chain can have reached by now"))
}

/// Why the node is not to be used by its last check alone.
fn fault(all: &[Health], index: usize, bounds: &Bounds) -> Option<String> {
    let health = &all[index];
    if let Some(error) = &health.error {
        return Some(error.clone());
    }
    if let Some(ahead) = ahead_fault(health) {
        return Some(ahead);
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
    let others = all.iter().enumerate().filter(|(other, _)| *other != index);
    let others = others.filter(|(_, health)| !health.wrong_network && health.ahead.is_none());
    let others: Vec<_> = others.filter_map(|(_, health)| Some((health.height?, health.weight()?))).collect();
    let heavier = others.iter().filter(|(theirs, other)| *theirs <= height && *other > weight).count();
    2 * heavier > others.len()
}

/// The occasion of a judgement.
pub struct Occasion<'a> {
    /// The nodes that were checked just now. The others keep what their own last check gave: each node is checked at a time of
    /// its own, and a head that was seen seconds ago is behind one that is seen now without any fault.
    pub checked: &'a [bool],
    /// The nodes that an operator paused: none of them stands in for another.
    pub paused: &'a [bool],
    /// Time since the Unix epoch.
    pub now: Duration,
}

/// Judges the nodes that were checked; `streaks` is brought up to date, `disabled` of each is set.
///
/// A node that answers is better than none: while no other can be used, one that is behind, short of peers or alone on its
/// chain is used all the same, with `warning` set.
pub fn judge(all: &mut [Health], streaks: &mut [Streak], bounds: &Bounds, occasion: &Occasion) {
    for (health, ahead) in ahead::ahead(all, occasion.now).into_iter().enumerate() {
        all[health].ahead = ahead;
    }
    for index in 0..all.len() {
        let streak = &mut streaks[index];
        let kept = all[index].disabled.take().or(all[index].warning.take());
        let disabled = if occasion.checked[index] {
            streak.light = if is_lighter(all, index) { streak.light.saturating_add(1) } else { 0 };
            let light = (streak.light >= LIGHT_CHECKS).then(|| "its chain is lighter than another node's".to_string());
            after_check(fault(all, index, bounds).or(light), &all[index], streak)
        } else {
            kept.or_else(|| ahead_fault(&all[index]))
        };
        streak.disabled = disabled.is_some();
        all[index].disabled = disabled;
    }
    stand_in(all, occasion.paused);
}

/// Why the node is not used after a check that found `fault`.
fn after_check(fault: Option<String>, health: &Health, streak: &mut Streak) -> Option<String> {
    // A node that was never checked may be used: to try is better than to wait.
    let unknown = health.height.is_none() && health.error.is_none();
    match fault {
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
    }
}

/// While none can be used, those that answer are; one whose head cannot be only where all are so.
fn stand_in(all: &mut [Health], paused: &[bool]) {
    if all.iter().zip(paused).any(|(health, paused)| !paused && health.disabled.is_none()) {
        return;
    }
    let answers = |health: &Health| health.error.is_none();
    let is_better = all.iter().zip(paused).any(|(health, paused)| !paused && answers(health) && health.ahead.is_none());
    for (health, _) in all.iter_mut().zip(paused).filter(|(_, paused)| !**paused) {
        if answers(health) && (health.ahead.is_none() || !is_better) {
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

    const NOW: Duration = Duration::from_secs(1_000_000);

    /// A head at the clock's epoch 100 of a network that keeps its block times.
    fn timed(height: ChainEpoch) -> Health {
        let seconds = |epochs: i64| u64::try_from(1_000_000 + 30 * (epochs - 100)).ok();
        let (head_at, genesis_at) = (seconds(height.min(100)), seconds(0));
        Health { head_at, genesis_at, block_delay_secs: Some(30), ..at(height) }
    }

    /// Which nodes are used after each round of checks.
    fn rounds(rounds: &[Vec<Health>]) -> Vec<Vec<bool>> {
        let mut streaks = vec![Streak::default(); rounds[0].len()];
        let mut told = Vec::new();
        for round in rounds {
            let mut all = round.clone();
            let (checked, paused) = (vec![true; all.len()], vec![false; all.len()]);
            judge(
                &mut all,
                &mut streaks,
                &Bounds::default(),
                &Occasion { checked: &checked, paused: &paused, now: NOW },
            );
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

    #[test]
    fn a_head_that_cannot_be_makes_no_other_behind() {
        for (what, all, used) in [
            ("one claims the future", vec![timed(5_000), timed(100)], vec![false, true]),
            (
                "nor does it hide one that is behind",
                vec![timed(5_000), timed(97), timed(100)],
                vec![false, false, true],
            ),
            (
                "it is better than none that is behind",
                vec![timed(5_000), Health { sync_behind: Some(9), ..timed(100) }],
                vec![false, true],
            ),
            (
                "but not than none at all",
                vec![timed(5_000), Health { error: Some("refused".into()), ..timed(100) }],
                vec![true, false],
            ),
        ] {
            assert_eq!(rounds(&[all]), [used], "{what}");
        }
        // It weighs nothing for the others either.
        let weighing = |height, weight: &str| Health { weight: Some(weight.into()), ..timed(height) };
        let all = || vec![weighing(100, "1000"), weighing(5_000, "9000")];
        assert_eq!(rounds(&[all(), all(), all()])[2], [true, false]);
    }

    /// Nodes are checked one by one: only the one that was checked is judged, so that heads of different times are no fault.
    #[test]
    fn a_head_seen_earlier_is_not_behind_one_seen_now() {
        let (mut all, mut streaks) = (vec![at(100), at(104)], vec![Streak::default(); 2]);
        let mut check = |all: &mut Vec<Health>, checked: [bool; 2], paused: [bool; 2]| {
            judge(all, &mut streaks, &Bounds::default(), &Occasion { checked: &checked, paused: &paused, now: NOW });
            all.iter().map(|health| health.disabled.is_none()).collect::<Vec<_>>()
        };
        assert_eq!(check(&mut all, [false, true], [false; 2]), [true, true], "the first was seen a while ago");
        assert_eq!(check(&mut all, [true, false], [false; 2]), [false, true], "and is stuck");
        assert_eq!(check(&mut all, [false, true], [false; 2]), [false, true], "its own last check counts on");
        all[1] = Health { error: Some("refused".into()), ..at(104) };
        assert_eq!(check(&mut all, [false, true], [false; 2]), [true, false], "used for want of a better one");
        assert!(all[0].warning.as_ref().is_some_and(|why| why.contains("4 epochs behind")), "{:?}", all[0]);
        all[1] = at(104);
        assert_eq!(check(&mut all, [false, true], [false, true]), [true, false], "one good check");
        assert_eq!(
            check(&mut all, [false, true], [false, true]),
            [true, true],
            "the better one is paused: no node instead"
        );
    }
}
