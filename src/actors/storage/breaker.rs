//! How long a storage path is left alone after reads that it did not answer. Pure.

use crate::util::Backoff;
use std::time::Duration;

const PAUSES: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(300));

/// One path's breaker. Times are since any fixed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Breaker {
    /// Reads in a row that gave no sector.
    failures: u32,
    /// No read begins before.
    open_until: Duration,
}

impl Breaker {
    /// Time until the next read may begin; `None`: now.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.open_until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// A read that gave at least one sector.
    pub fn answered(&mut self) {
        *self = Breaker::default();
    }

    /// A read that gave none in its time.
    pub fn hung(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.open_until = now + PAUSES.after(self.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_end_with_an_answer() {
        let mut breaker = Breaker::default();
        let secs = Duration::from_secs;
        assert_eq!(breaker.wait(secs(0)), None);
        let pauses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|_| {
            breaker.hung(secs(1000));
            breaker.wait(secs(1000)).unwrap().as_secs()
        });
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let around = [1299, 1300, 1301].map(|now| breaker.wait(secs(now)).is_some());
        assert_eq!(around, [true, false, false]);
        breaker.answered();
        assert_eq!(breaker.wait(secs(1000)), None);
    }
}
