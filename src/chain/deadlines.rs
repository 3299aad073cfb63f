//! Pure arithmetic on proving deadlines (`go-state-types/dline`): which comes next, what is open, what is too late.
//!
//! A deadline is `[open, close)`; its challenge is drawn `lookback` epochs before it opens; declarations about its
//! sectors are refused from `fault_cutoff` on. All lengths come from the node's [`DeadlineInfo`], never from constants.

use super::ChainEpoch;
use super::types::DeadlineInfo;

impl DeadlineInfo {
    /// The deadline `index` of the period that begins at `period_start`, with the lengths of `self`.
    pub fn with(&self, period_start: ChainEpoch, index: u64) -> DeadlineInfo {
        let (open, close) = if index < self.w_post_period_deadlines {
            let open = period_start.saturating_add((index as i64).saturating_mul(self.w_post_challenge_window));
            (open, open.saturating_add(self.w_post_challenge_window))
        } else {
            // Past the period's last deadline: an instant at its end, as dline has it.
            let end = period_start.saturating_add(self.w_post_proving_period);
            (end, end)
        };
        DeadlineInfo {
            period_start,
            index,
            open,
            close,
            challenge: open.saturating_sub(self.w_post_challenge_lookback),
            fault_cutoff: open.saturating_sub(self.fault_declaration_cutoff),
            ..*self
        }
    }

    /// The deadline `n` places later, over the end of the period where need be.
    pub fn ahead(&self, n: u64) -> DeadlineInfo {
        let count = self.w_post_period_deadlines.max(1);
        let place = self.index.saturating_add(n);
        let periods = (place / count) as i64;
        self.with(self.period_start.saturating_add(periods.saturating_mul(self.w_post_proving_period)), place % count)
    }

    pub fn next(&self) -> DeadlineInfo {
        self.ahead(1)
    }

    /// The first deadline, `self` or later, that has not closed at `height`.
    pub fn not_elapsed_at(&self, height: ChainEpoch) -> DeadlineInfo {
        let mut found = *self;
        // Whole periods first, so that a node that slept for weeks does not count deadlines one by one.
        if height >= found.close && found.w_post_proving_period > 0 {
            let periods = (height - found.close) / found.w_post_proving_period;
            found = found.with(found.period_start + periods * found.w_post_proving_period, found.index);
        }
        while found.has_elapsed_at(height) && found.w_post_challenge_window > 0 {
            found = found.next();
        }
        DeadlineInfo { current_epoch: height, ..found }
    }

    pub fn has_elapsed_at(&self, height: ChainEpoch) -> bool {
        height >= self.close
    }

    pub fn is_open_at(&self, height: ChainEpoch) -> bool {
        height >= self.open && height < self.close
    }

    /// A miner that was just created has its first period ahead of it: nothing is due before.
    pub fn period_started_at(&self, height: ChainEpoch) -> bool {
        height >= self.period_start
    }

    pub fn fault_cutoff_passed_at(&self, height: ChainEpoch) -> bool {
        height >= self.fault_cutoff
    }

    /// The last epoch at which a message may execute and still count.
    pub fn last(&self) -> ChainEpoch {
        self.close - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mainnet() -> DeadlineInfo {
        DeadlineInfo {
            w_post_period_deadlines: 48,
            w_post_proving_period: 2880,
            w_post_challenge_window: 60,
            w_post_challenge_lookback: 20,
            fault_declaration_cutoff: 70,
            ..Default::default()
        }
    }

    #[test]
    fn deadlines_follow_each_other_over_two_periods() {
        let mut di = mainnet().with(0, 0);
        assert_eq!((di.challenge, di.open, di.close, di.fault_cutoff), (-20, 0, 60, -70));
        for step in 1..=96u64 {
            let next = di.next();
            assert_eq!(next.open, di.open + 60);
            assert_eq!(next.close, next.open + 60);
            assert_eq!(next.index, step % 48);
            assert_eq!(next.period_start, 2880 * (step / 48) as i64);
            di = next;
        }
    }

    #[test]
    fn known_deadlines_of_the_network() {
        for (start, index, open, close, challenge) in [
            (1143609, 0, 1143609, 1143669, 1143589),
            (1143609, 10, 1144209, 1144269, 1144189),
            (1142556, 31, 1144416, 1144476, 1144396),
        ] {
            let di = mainnet().with(start, index);
            assert_eq!((di.open, di.close, di.challenge), (open, close, challenge));
        }
        assert_eq!(mainnet().with(1143609, 0).fault_cutoff, 1143539);
    }

    #[test]
    fn the_open_interval_is_half_open() {
        let di = mainnet().with(0, 1);
        let opened = [59, 60, 61, 119, 120, 121].map(|h| di.is_open_at(h));
        assert_eq!(opened, [false, true, true, true, false, false]);
        let elapsed = [119, 120, 121].map(|h| di.has_elapsed_at(h));
        assert_eq!(elapsed, [false, true, true]);
        let cut = [-11, -10, -9].map(|h| di.fault_cutoff_passed_at(h));
        assert_eq!(cut, [false, true, true]);
        let started = [-1, 0, 1].map(|h| di.period_started_at(h));
        assert_eq!(started, [false, true, true]);
    }

    #[test]
    fn the_next_not_elapsed_is_found_from_anywhere_before() {
        let di = mainnet().with(0, 0);
        for (height, open) in
            [(0, 0), (59, 0), (60, 60), (61, 60), (2879, 2820), (2880, 2880), (2881, 2880), (288_000_059, 288_000_000)]
        {
            let found = di.not_elapsed_at(height);
            assert_eq!((found.open, found.current_epoch), (open, height), "height {height}");
            assert_eq!(found.open % 2880, found.index as i64 * 60);
        }
    }

    #[test]
    fn lengths_of_zero_do_not_hang() {
        let di = DeadlineInfo::default();
        assert_eq!(di.not_elapsed_at(10).current_epoch, 10);
        assert_eq!(di.ahead(3).open, 0);
    }
}
