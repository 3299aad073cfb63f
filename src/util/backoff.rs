//! Waits between tries that fail: the one formula. Pure.

use std::time::Duration;

/// The first wait, then a multiple of it per failure, up to the cap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub cap: Duration,
    /// Each wait is the one before times this.
    pub factor: f64,
    /// Share of a wait by which chance moves it either way; 0: none.
    pub jitter: f64,
}

impl Backoff {
    pub const fn doubling(first: Duration, cap: Duration) -> Backoff {
        Backoff { first, cap, factor: 2.0, jitter: 0.0 }
    }

    /// As [`Backoff::doubling`], in milliseconds.
    pub const fn doubling_ms(first: u64, cap: u64) -> Backoff {
        Backoff::doubling(Duration::from_millis(first), Duration::from_millis(cap))
    }

    pub const fn factor(mut self, factor: f64) -> Backoff {
        self.factor = factor;
        self
    }

    pub const fn jitter(mut self, share: f64) -> Backoff {
        self.jitter = share;
        self
    }

    /// The wait after the `failures`-th failure in a row: 1 for the first, as which 0 counts too.
    pub fn after(&self, failures: u32) -> Duration {
        let grown = self.first.as_secs_f64() * self.factor.powi(failures.saturating_sub(1).min(64) as i32);
        if grown >= self.cap.as_secs_f64() { self.cap } else { Duration::from_secs_f64(grown) }
    }

    /// As [`Backoff::after`], in milliseconds.
    pub fn after_ms(&self, failures: u32) -> u64 {
        u64::try_from(self.after(failures).as_millis()).unwrap_or(u64::MAX)
    }

    /// As [`Backoff::after`], moved by chance: `dice` in -1..=1, the whole jitter at either end.
    pub fn after_by_chance(&self, failures: u32, dice: f64) -> Duration {
        self.after(failures).mul_f64(1.0 + self.jitter * dice.clamp(-1.0, 1.0))
    }

    /// The wait after `wait`, for a loop that does not count.
    pub fn next(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_their_factor_up_to_the_cap() {
        let secs = Duration::from_secs;
        let of = |backoff: Backoff, n: u32| (0..=n).map(|n| backoff.after(n).as_millis()).collect::<Vec<_>>();
        let doubling = Backoff::doubling(secs(2), secs(60));
        assert_eq!(of(doubling, 7), [2000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(of(Backoff::doubling(secs(1), secs(3)).factor(1.5), 5), [1000, 1000, 1500, 2250, 3000, 3000]);
        assert_eq!(of(Backoff::doubling(secs(9), secs(3)), 1), [3000, 3000]);
        assert_eq!(of(Backoff::doubling(secs(0), secs(0)), 1), [0, 0]);
        assert_eq!(doubling.after(u32::MAX), secs(60));
        assert_eq!(Backoff::doubling(Duration::MAX, Duration::MAX).after(9), Duration::MAX);
        let counted: Vec<Duration> = (1..8).map(|n| doubling.after(n)).collect();
        let looped: Vec<Duration> =
            std::iter::successors(Some(secs(2)), |wait| Some(doubling.next(*wait))).take(7).collect();
        assert_eq!(counted, looped);
    }

    #[test]
    fn chance_moves_a_wait_by_its_share_at_most() {
        let backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_secs(10)).jitter(0.2);
        let waits = [-2.0, -1.0, 0.0, 0.5, 1.0, 7.0].map(|dice| backoff.after_by_chance(1, dice).as_millis());
        assert_eq!(waits, [8000, 8000, 10_000, 11_000, 12_000, 12_000]);
    }
}
