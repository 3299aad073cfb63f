//! When a deadline is to be proven, when its proof may be sent, when both are over. Pure predicates of heights.

use super::settings::WindowPostSettings;
use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use crate::util::Backoff;
use std::time::Duration;

/// Settings in epochs, fitted to the network's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confidence {
    pub challenge: ChainEpoch,
    pub submit: ChainEpoch,
    pub landing: ChainEpoch,
}

impl Confidence {
    /// No confidence may eat more than a quarter of what it delays: on a window of 60 epochs 4 stays 4, on one of 10 it is 2.
    pub fn fitted(settings: &WindowPostSettings, di: &DeadlineInfo) -> Confidence {
        let quarter = (di.w_post_challenge_window / 4).max(0);
        let head_start = di.w_post_challenge_window + di.w_post_challenge_lookback;
        Confidence {
            challenge: settings.challenge_confidence.clamp(0, (head_start / 2).max(0)),
            submit: settings.submit_confidence.clamp(0, quarter),
            landing: settings.landing_time.clamp(0, quarter),
        }
    }
}

/// From Challenge to Close there is work to do.
pub fn is_active(height: ChainEpoch, di: &DeadlineInfo) -> bool {
    height >= di.challenge && height < di.close
}

/// The challenge is deep enough to prove on, and a proof begun now can still land.
pub fn should_start(height: ChainEpoch, di: &DeadlineInfo, confidence: Confidence) -> bool {
    height >= di.challenge + confidence.challenge && height < di.close - confidence.landing
}

/// Open is deep enough, so that no reorganisation brings the message before it, and an epoch is left to land in.
pub fn could_submit(height: ChainEpoch, di: &DeadlineInfo, confidence: Confidence) -> bool {
    height >= di.open + confidence.submit && height < di.close
}

/// The window is over, or the challenge that the proof was made on is gone.
pub fn should_abort(height: ChainEpoch, reverted_to: Option<ChainEpoch>, di: &DeadlineInfo) -> bool {
    height >= di.close || reverted_to.is_some_and(|to| to < di.challenge)
}

/// Pause after the `failures`-th failure in a row (1 for the first).
pub fn backoff(settings: &WindowPostSettings, failures: u32) -> Duration {
    Backoff::doubling(settings.retry_first, settings.retry_cap).after(failures)
}

/// Time until the window closes: what a proof may take at most.
pub fn time_left(height: ChainEpoch, di: &DeadlineInfo, block_delay: Duration) -> Duration {
    block_delay.saturating_mul((di.close - height).clamp(1, u32::MAX as i64) as u32)
}

/// The time that the reading of a batch may take, of what is `left` to Close: a third, less where its `chunks` proofs need
/// the rest, by what the last one took. Never less than an eighth: without reading there is nothing to prove. No more than
/// that once the batch has `waited` for what is late: an attempt that failed later costs no second wait.
pub fn time_to_read(left: Duration, last_chunk: Duration, chunks: usize, waited: bool) -> Duration {
    if waited {
        return left / 8;
    }
    let chunks = u32::try_from(chunks).unwrap_or(u32::MAX).saturating_add(1);
    let proofs = last_chunk.saturating_mul(chunks);
    (left / 3).min(left.saturating_sub(proofs)).max(left / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(window: ChainEpoch, lookback: ChainEpoch) -> DeadlineInfo {
        DeadlineInfo {
            w_post_period_deadlines: 48,
            w_post_proving_period: 48 * window,
            w_post_challenge_window: window,
            w_post_challenge_lookback: lookback,
            fault_declaration_cutoff: lookback + 50,
            ..Default::default()
        }
        .with(0, 1)
    }

    fn confidence(challenge: ChainEpoch, submit: ChainEpoch) -> Confidence {
        Confidence { challenge, submit, landing: 1 }
    }

    #[test]
    fn active_from_challenge_to_close() {
        let di = deadline(60, 20); // challenge 40, open 60, close 120
        let active = [39, 40, 41, 60, 119, 120, 121].map(|h| is_active(h, &di));
        assert_eq!(active, [false, true, true, true, true, false, false]);
    }

    #[test]
    fn starts_confidence_after_the_challenge() {
        let di = deadline(60, 20);
        for conf in [1, 5, 10] {
            let start = [conf - 1, conf, conf + 1].map(|h| should_start(40 + h, &di, confidence(conf, 4)));
            assert_eq!(start, [false, true, true], "confidence {conf}");
        }
        let end = [118, 119, 120].map(|h| should_start(h, &di, confidence(1, 4)));
        assert_eq!(end, [true, false, false], "a proof begun at Close - 1 cannot land");
    }

    #[test]
    fn submits_confidence_after_open_until_close() {
        let di = deadline(60, 20);
        let submit = [63, 64, 65, 119, 120].map(|h| could_submit(h, &di, confidence(1, 4)));
        assert_eq!(submit, [false, true, true, true, false]);
    }

    #[test]
    fn aborts_at_close_or_when_the_challenge_is_reverted() {
        let di = deadline(60, 20);
        let at = [119, 120, 121].map(|h| should_abort(h, None, &di));
        assert_eq!(at, [false, true, true]);
        let back = [39, 40, 41, 59].map(|to| should_abort(60, Some(to), &di));
        assert_eq!(back, [true, false, false, false]);
    }

    #[test]
    fn confidence_fits_short_windows() {
        let settings = WindowPostSettings::default();
        let fitted = |window, lookback| Confidence::fitted(&settings, &deadline(window, lookback));
        assert_eq!(fitted(60, 20), Confidence { challenge: 1, submit: 4, landing: 1 });
        assert_eq!(fitted(16, 4).submit, 4);
        assert_eq!(fitted(15, 4).submit, 3);
        assert_eq!(fitted(10, 4), Confidence { challenge: 1, submit: 2, landing: 1 });
        assert_eq!(fitted(3, 1), Confidence { challenge: 1, submit: 0, landing: 0 });
        // Whatever the window, there is an epoch at which a proof may be sent.
        for window in 1..100 {
            let di = deadline(window, 4);
            let conf = Confidence::fitted(&settings, &di);
            assert!(could_submit(di.open + conf.submit, &di, conf), "window {window}");
            assert!(should_start(di.challenge + conf.challenge, &di, conf), "window {window}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let settings = WindowPostSettings {
            retry_first: Duration::from_secs(1),
            retry_cap: Duration::from_secs(10),
            ..Default::default()
        };
        let pauses = [0, 1, 2, 3, 4, 5, 1000].map(|n| backoff(&settings, n).as_secs());
        assert_eq!(pauses, [1, 1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn reading_gets_a_third_or_what_the_proofs_leave_and_never_nothing() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let read = |last, chunks| time_to_read(minutes(24), minutes(last), chunks, false).as_secs() / 60;
        assert_eq!(
            [(0, 3), (4, 3), (5, 3), (6, 3), (60, 3), (4, usize::MAX)].map(|(l, c)| read(l, c)),
            [8, 8, 4, 3, 3, 3]
        );
        assert_eq!(time_to_read(minutes(24), minutes(0), 3, true), minutes(3));
    }

    #[test]
    fn a_proof_has_until_close() {
        let di = deadline(60, 20);
        let left = [118, 119, 120].map(|h| time_left(h, &di, Duration::from_secs(30)).as_secs());
        assert_eq!(left, [60, 30, 30]);
    }
}
