//! When the chain moves: a pure decision on time. Its shell is [`super::Devnet::tick`].

use super::settings::DevnetSettings;

/// The inputs of the decision; times in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// When the chain got its head (or was opened).
    pub head_at: u64,
    /// Some miner has power at the lookback: it may make the next block.
    pub provider_ready: bool,
    /// A valid block of a provider for the next epoch waits for its time.
    pub block_held: bool,
    pub stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStep {
    /// Nothing to do before then; `None`: until a switch is turned or a block comes.
    Wait(Option<u64>),
    /// The provider's block becomes the head.
    TakeHeld,
    /// The built-in producer, "the rest of the network", makes the block.
    Produce,
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// The time of the epoch that is `ahead` (at least 1) after the head.
pub fn due(settings: &DevnetSettings, clock: &Clock, ahead: u64) -> u64 {
    let delay = if clock.provider_ready { settings.block_delay } else { settings.warmup_delay };
    clock.head_at.saturating_add(millis(delay).saturating_mul(ahead))
}

/// A provider's block is taken at its epoch's time; for half a block delay after it the producer waits for one.
pub fn next_step(now: u64, settings: &DevnetSettings, clock: &Clock) -> ClockStep {
    let due = due(settings, clock, 1);
    let patience = if clock.provider_ready { millis(settings.block_delay) / 2 } else { 0 };
    if clock.stalled {
        ClockStep::Wait(None)
    } else if now < due {
        ClockStep::Wait(Some(due))
    } else if clock.block_held {
        ClockStep::TakeHeld
    } else if now < due + patience {
        ClockStep::Wait(Some(due + patience))
    } else {
        ClockStep::Produce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_boundary_of_the_clock() {
        let settings = DevnetSettings::default(); // 10 s, before that 2 s
        let warm = Clock { head_at: 1000, provider_ready: false, block_held: false, stalled: false };
        let ready = Clock { provider_ready: true, ..warm };
        let held = Clock { block_held: true, ..ready };
        let stalled = Clock { stalled: true, ..held };
        let table = [
            (warm, 2999, ClockStep::Wait(Some(3000))),
            (warm, 3000, ClockStep::Produce),
            (ready, 10_999, ClockStep::Wait(Some(11_000))),
            (ready, 11_000, ClockStep::Wait(Some(16_000))),
            (ready, 15_999, ClockStep::Wait(Some(16_000))),
            (ready, 16_000, ClockStep::Produce),
            (ready, 99_000, ClockStep::Produce),
            (held, 10_999, ClockStep::Wait(Some(11_000))),
            (held, 11_000, ClockStep::TakeHeld),
            (held, 99_000, ClockStep::TakeHeld),
            (stalled, 99_000, ClockStep::Wait(None)),
        ];
        for (clock, now, want) in table {
            assert_eq!(next_step(now, &settings, &clock), want, "{clock:?} at {now}");
        }
    }
}
