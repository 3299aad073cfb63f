//! The clocks as numbers: the wall clock, and this process's own, which only grows.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch; zero on a clock that is set before it.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Seconds since the Unix epoch.
pub fn unix_secs() -> u64 {
    since_epoch().as_secs()
}

/// The zero of this process's clock: when it was first asked.
fn zero() -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(Instant::now)
}

/// Microseconds on this process's clock.
pub fn clock_us() -> u64 {
    u64::try_from(zero().elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds on this process's clock; never 0, which so can stand for "none".
pub fn clock_ms() -> u64 {
    clock_us() / 1000 + 1
}

/// When [`clock_ms`] was, or will be, `ms`.
pub fn instant_of(ms: u64) -> Instant {
    zero() + Duration::from_millis(ms.saturating_sub(1))
}
