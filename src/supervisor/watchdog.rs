//! Finds actors whose thread is stuck inside them, from a thread that shares nothing with theirs.

use super::exit::Exit;
use super::node::{Branch, TreeNode};
use super::supervise::SupervisorMsg;
use crate::util::time::clock_ms;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const TICK: Duration = Duration::from_millis(250);

/// Its rounds, and when the last one was.
pub(super) struct Pulse {
    ticks: AtomicU64,
    /// [`clock_ms`].
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { ticks: AtomicU64::new(0), last: AtomicU64::new(clock_ms()) }
    }
}

impl Pulse {
    fn beat(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.last.store(clock_ms(), Ordering::Relaxed);
    }
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
    pub fn silence(&self) -> Duration {
        Duration::from_millis(clock_ms().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// Runs until the tree has ended.
pub(super) fn run(
    root: Arc<TreeNode>,
    ended: watch::Receiver<Option<Exit>>,
    pulse: Arc<Pulse>,
    at_most: Duration,
) -> io::Result<()> {
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let (mut seen, mut last) = (Seen::new(), Instant::now());
        while ended.borrow().is_none() && ended.has_changed().is_ok() {
            std::thread::sleep(TICK);
            pulse.beat();
            let now = Instant::now();
            let passed = counts(now.saturating_duration_since(last));
            last = now;
            seen = scan(&root, &WatchdogRound { before: &seen, passed, at_most });
        }
    })?;
    Ok(())
}

/// How much of the time between two rounds counts as stuck. If the whole process stood still (stopped, suspended,
/// starved), no actor hung.
fn counts(passed: Duration) -> Duration {
    passed.min(2 * TICK)
}

/// Per actor: its incarnation, the progress it had, and for how long.
type Seen = HashMap<usize, (u64, u64, Duration)>;

fn scan(root: &Arc<TreeNode>, at: &WatchdogRound<'_>) -> Seen {
    let mut seen = Seen::new();
    check(root, None, at, &mut seen);
    seen
}

/// One round, and what the last one saw.
struct WatchdogRound<'a> {
    before: &'a Seen,
    passed: Duration,
    /// Longer than this in one turn is hung, whatever the actor's spec says.
    at_most: Duration,
}

fn check(node: &Arc<TreeNode>, parent: Option<&Branch>, at: &WatchdogRound<'_>, seen: &mut Seen) {
    let WatchdogRound { before, passed, at_most } = *at;
    let meta = &node.meta;
    // Read first: what is seen of an incarnation that was given up must not be held against its successor.
    let incarnation = meta.incarnation.load(Ordering::Acquire);
    let vitals = meta.vitals();
    let progress = vitals.as_ref().map_or(0, |v| v.progress());
    let id = Arc::as_ptr(meta) as usize;
    // Odd: a thread is inside. The same odd number as before: it never left.
    match vitals {
        Some(vitals) if progress & 1 == 1 => {
            let stuck = match before.get(&id) {
                Some((i, p, stuck)) if (*i, *p) == (incarnation, progress) => *stuck + passed,
                _ => Duration::ZERO,
            };
            vitals.stuck_ms.store(stuck.as_millis() as u64, Ordering::Relaxed);
            seen.insert(id, (incarnation, progress, stuck));
            let hang_after = node.hang_after().min(at_most);
            if stuck >= hang_after
                && let Some(parent) = parent
                && let Some(key) = parent.key_of(node)
            {
                let message = vitals.busy().map_or("", |(message, _)| message);
                let what = format!("{hang_after:?} inside one turn, last message {message}");
                parent.hand_over(SupervisorMsg::Hung { key, incarnation, what }); // its supervisor does not run: it is being stopped
            }
        }
        Some(vitals) => vitals.stuck_ms.store(0, Ordering::Relaxed),
        None => {}
    }
    if let Some(branch) = &node.branch {
        for child in branch.children() {
            check(&child, Some(branch), at, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::SupervisorSpec;

    #[test]
    fn a_process_that_stood_still_hangs_nobody() {
        let root = TreeNode::root(SupervisorSpec::new("root").compile("").unwrap());
        let round = |before: &Seen, passed| {
            scan(&root, &WatchdogRound { before, passed: counts(passed), at_most: Duration::MAX })
        };
        let lane = root.meta.lane();
        root.meta.take_over(&lane, 0, || false, || ()).unwrap();
        let stuck = || Duration::from_millis(lane.vitals.stuck_ms.load(Ordering::Relaxed));
        lane.vitals.enter();
        let mut seen = round(&Seen::new(), TICK);
        assert_eq!(stuck(), Duration::ZERO, "seen for the first time");
        // (time since the last round, for how long it is stuck then)
        let day = Duration::from_secs(86_400);
        for (passed, total) in [(TICK, TICK), (TICK / 2, TICK * 3 / 2), (day, TICK * 7 / 2), (TICK, TICK * 9 / 2)] {
            seen = round(&seen, passed);
            assert_eq!(stuck(), total, "{passed:?}");
        }
        lane.vitals.leave();
        lane.vitals.enter();
        seen = round(&seen, TICK);
        assert_eq!(stuck(), Duration::ZERO, "another turn");
        lane.vitals.leave();
        round(&seen, TICK);
        assert_eq!(stuck(), Duration::ZERO);
    }
}
