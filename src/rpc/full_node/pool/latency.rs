//! One method at one node: how long it takes there, and whether it fails there.

use std::time::Duration;
use tokio::time::Instant;

/// Answers whose times are kept.
const KEPT: usize = 32;
/// Before so many are known nothing is said of the rest.
const LEAST: usize = 8;
/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// The breaker stays open so long; then one call tries.
const OPEN: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Default)]
pub struct MethodAtNode {
    /// Milliseconds, the last [`KEPT`], in a ring.
    times: Vec<u32>,
    next: usize,
    failures: u32,
    open_until: Option<Instant>,
}

impl MethodAtNode {
    pub fn answered(&mut self, took: Duration) {
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        match self.times.len() < KEPT {
            true => self.times.push(took),
            false => self.times[self.next % KEPT] = took,
        }
        self.next = self.next.wrapping_add(1);
        (self.failures, self.open_until) = (0, None);
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now + OPEN);
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The method is asked at other nodes first.
    pub fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// The time that 19 of 20 answers take at most; `None` while too few are known.
    pub fn p95(&self) -> Option<Duration> {
        if self.times.len() < LEAST {
            return None;
        }
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = (times.len() * 95).div_ceil(100).clamp(1, times.len()) - 1;
        Some(Duration::from_millis(u64::from(times[at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_the_breaker_for_a_while() {
        let mut method = MethodAtNode::default();
        let now = Instant::now();
        for _ in 0..4 {
            method.failed(now);
        }
        method.answered(Duration::from_millis(1));
        for failure in 1..=5 {
            assert!(!method.is_open(now), "after {} failures", failure - 1);
            method.failed(now);
        }
        assert!(method.is_open(now) && method.is_open(now + OPEN / 2) && !method.is_open(now + OPEN));
        method.failed(now + OPEN); // the one that tries
        assert!(method.is_open(now + OPEN));
        method.answered(Duration::ZERO);
        assert!(!method.is_open(now));
    }

    #[test]
    fn the_slow_tail_is_known_after_a_few_answers() {
        let mut method = MethodAtNode::default();
        for took in 1..=7 {
            method.answered(Duration::from_millis(took));
        }
        assert_eq!(method.p95(), None);
        method.answered(Duration::from_millis(1000));
        assert_eq!(method.p95(), Some(Duration::from_secs(1)));
        for _ in 0..KEPT {
            method.answered(Duration::from_millis(5));
        }
        assert_eq!(method.p95(), Some(Duration::from_millis(5)), "the old ones are gone");
    }
}
