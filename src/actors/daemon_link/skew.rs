//! This host's clock against the chain's, as far as heads tell. An honest miner sends a block at its block time, so a head
//! comes soon after it: one that comes before has met a clock that is behind, and if none comes soon, the clock is ahead
//! or heads are late. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Heads that are compared: the quickest of them counts.
const SEEN: usize = 10;
/// Fewer say nothing of a clock that is ahead.
const ENOUGH: usize = 5;
/// Block delays after which a head is one of the past, such as of a node in sync: nothing is mined on it, and how far the
/// chain lags is told in its place (`proving.max_head_lag`).
const PAST: i64 = 10;
/// Lotus' AllowableClockDriftSecs: a block that is further in the future is refused.
const BEHIND: Duration = Duration::from_secs(1);

/// How this host's clock stands against the chain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    Fine,
    /// This clock is behind, by at least this much.
    Behind(Duration),
    /// Every head comes so late that this clock is ahead, or the full node slow.
    Ahead(Duration),
}

impl Skew {
    /// `None`: nothing is wrong.
    pub fn sentence(self) -> Option<String> {
        let seconds = |by: Duration| format!("{:.1} s", by.as_secs_f64());
        match self {
            Skew::Fine => None,
            Skew::Behind(by) => Some(format!(
                "this host's clock is {} behind the chain's: heads come before their time, and our blocks too late",
                seconds(by)
            )),
            Skew::Ahead(by) => Some(format!(
                "every head comes {} after its time or later: this host's clock is ahead, or the full node is slow",
                seconds(by)
            )),
        }
    }
}

/// Milliseconds from a head's block time to its arrival, of the last heads.
#[derive(Clone, Debug, Default)]
pub struct SkewMeter {
    seen: VecDeque<i64>,
}

impl SkewMeter {
    /// A head that the full node pushed. One from the past says nothing of clocks, nor do those before it.
    pub fn pushed(&mut self, now: Duration, head_at: u64, block_delay: Duration) {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let offset = millis(now).saturating_sub(millis(Duration::from_secs(head_at)));
        if offset > millis(block_delay).saturating_mul(PAST) {
            self.seen.clear();
            return;
        }
        self.seen.push_back(offset);
        if self.seen.len() > SEEN {
            self.seen.pop_front();
        }
    }

    /// The least of them; `None` before the first.
    pub fn offset_ms(&self) -> Option<i64> {
        self.seen.iter().min().copied()
    }

    pub fn skew(&self, block_delay: Duration) -> Skew {
        of_offset(self.offset_ms(), self.seen.len() >= ENOUGH, block_delay)
    }
}

/// `enough`: sufficient heads were compared to tell that all of them are late.
pub fn of_offset(offset_ms: Option<i64>, enough: bool, block_delay: Duration) -> Skew {
    let Some(offset) = offset_ms else { return Skew::Fine };
    let by = Duration::from_millis(offset.unsigned_abs());
    match offset < 0 {
        true if by > BEHIND => Skew::Behind(by),
        false if enough && by > block_delay / 3 => Skew::Ahead(by),
        _ => Skew::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(30);
    const AT: u64 = 1_000_000;

    /// Milliseconds after each head's block time.
    fn meter(offsets: &[i64]) -> SkewMeter {
        let mut meter = SkewMeter::default();
        offsets.iter().for_each(|ms| {
            let now = u64::try_from(AT as i64 * 1000 + ms).unwrap();
            meter.pushed(Duration::from_millis(now), AT, DELAY);
        });
        meter
    }

    #[test]
    fn the_quickest_head_tells_the_clock() {
        let ms = Duration::from_millis;
        for (offsets, expected) in [
            (vec![], Skew::Fine),
            (vec![3000; 10], Skew::Fine),
            (vec![-1000], Skew::Fine),
            (vec![3000, -1001, 4000], Skew::Behind(ms(1001))),
            (vec![10_001; 4], Skew::Fine),
            (vec![10_001; 5], Skew::Ahead(ms(10_001))),
            (vec![25_000, 25_000, 9_999, 25_000, 25_000], Skew::Fine),
            (vec![10_000; 10], Skew::Fine),
        ] {
            assert_eq!(meter(&offsets).skew(DELAY), expected, "{offsets:?}");
        }
    }

    #[test]
    fn only_the_last_heads_count_and_none_from_the_past() {
        let mut offsets = vec![-5000];
        offsets.extend([2000; 10]);
        assert_eq!(meter(&offsets).offset_ms(), Some(2000), "a clock that was set right");
        assert_eq!(meter(&[2000, 300_001]).offset_ms(), None, "a node that catches up");
    }

    /// Up to the lag at which nothing is mined any more: in between every block would go out before its time, silently.
    #[test]
    fn a_clock_that_is_minutes_ahead_is_told_until_the_lag_of_the_chain_speaks() {
        for seconds in [11, 59, 61, 100, 149, 151, 299, 300] {
            let by = Duration::from_secs(seconds);
            assert_eq!(meter(&[seconds as i64 * 1000; 5]).skew(DELAY), Skew::Ahead(by), "{seconds} s");
        }
        let lag = crate::actors::daemon_link::lag::too_far(Duration::from_secs(AT + 301), AT, DELAY, 10);
        assert!(lag.is_some(), "from there on the lag speaks");
        let mut caught_up = vec![200_000; 5];
        caught_up.push(2000);
        assert_eq!(meter(&caught_up).skew(DELAY), Skew::Fine, "the first punctual head ends it");
    }
}
