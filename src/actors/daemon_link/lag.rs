//! How far the chain lags this host's clock: a node that is in sync, was restarted, or hangs shows an old head. Pure.

use std::time::Duration;

/// The age of a head whose blocks carry `head_at` (Unix seconds).
pub fn age(now: Duration, head_at: u64) -> Duration {
    now.saturating_sub(Duration::from_secs(head_at))
}

/// That age, where it is more than `max_lag` epochs; 0 epochs: no limit.
pub fn too_far(now: Duration, head_at: u64, block_delay: Duration, max_lag: u64) -> Option<Duration> {
    let epochs = u32::try_from(max_lag).unwrap_or(u32::MAX);
    let age = age(now, head_at);
    (max_lag > 0 && age > block_delay.saturating_mul(epochs)).then_some(age)
}

/// The sentence for an operator about a head that lags so far that nothing is mined on it.
pub fn sentence(lag: Duration, block_delay: Duration) -> String {
    let epochs = lag.as_secs() / block_delay.as_secs().max(1);
    format!(
        "the full node's head lags the clock by {} s ({epochs} epochs): no block is mined on it until it is in sync",
        lag.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_lags_too_far_beyond_the_limit_only() {
        let delay = Duration::from_secs(30);
        for (age, max_lag, expected) in [
            (0, 10, None),
            (300, 10, None),
            (301, 10, Some(301)),
            (9_000_000, 10, Some(9_000_000)),
            (9_000_000, 0, None),
        ] {
            let found = too_far(Duration::from_secs(10_000_000 + age), 10_000_000, delay, max_lag);
            assert_eq!(found, expected.map(Duration::from_secs), "{age} s old, at most {max_lag} epochs");
        }
        assert_eq!(too_far(Duration::ZERO, 10_000_000, delay, 10), None, "a head of the future does not lag");
    }
}
