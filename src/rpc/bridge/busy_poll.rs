//! Busy-polling: a connection's driver polls again for a moment instead of sleeping, because waking a sleeping core
//! takes longer than most calls.
//!
//! So two nodes in conversation stay awake from answer to next call. It never blocks: other tasks and threads run
//! between two polls. It pauses after polling in vain, and on a core that others want. Pure.

use std::time::{Duration, Instant};

/// How long it polls: as long as a call and its answer take when every step must wake a core.
const POLL_TIME: Duration = Duration::from_micros(150);
/// The pause after polling in vain, so that at most a tenth of the time is spent so.
const PAUSE_AFTER_VAIN: Duration = Duration::from_micros(1500);
/// A thread that was off its core for this long shares it with others ...
const PREEMPTED: Duration = Duration::from_micros(100);
/// ... which have it to themselves for this time.
const CONTESTED_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusyPoll {
    /// Sleeps until something comes; polls not before then.
    Sleeping {
        not_before: Option<Instant>,
    },
    Polling {
        until: Instant,
    },
}

impl BusyPoll {
    pub fn new() -> BusyPoll {
        BusyPoll::Sleeping { not_before: None }
    }

    /// When idle; `came`: work arrived since the last call. True: poll again; false: sleep.
    pub fn goes_on(&mut self, now: Instant, came: bool) -> bool {
        *self = match *self {
            BusyPoll::Polling { .. } if came => BusyPoll::Polling { until: now + POLL_TIME },
            BusyPoll::Polling { until } if now < until => BusyPoll::Polling { until },
            BusyPoll::Polling { .. } => BusyPoll::Sleeping { not_before: Some(now + PAUSE_AFTER_VAIN) },
            BusyPoll::Sleeping { not_before } if came && not_before.is_none_or(|then| then <= now) => {
                BusyPoll::Polling { until: now + POLL_TIME }
            }
            asleep @ BusyPoll::Sleeping { .. } => asleep,
        };
        matches!(self, BusyPoll::Polling { .. })
    }

    /// The core was given to whoever else wants it, and came back.
    pub fn gave_way(&mut self, before: Instant, now: Instant) {
        if now.duration_since(before) > PREEMPTED {
            *self = BusyPoll::Sleeping { not_before: Some(now + CONTESTED_PAUSE) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_awake_while_one_thing_leads_to_the_next() {
        let zero = Instant::now();
        let at = |us: u64| zero + Duration::from_micros(us);
        /// Microseconds, whether something came, whether it looks again.
        type Step = (u64, bool, bool);
        let cases: [(&str, &[Step]); 4] = [
            ("nothing ever came", &[(0, false, false), (10, false, false)]),
            (
                "a conversation",
                &[(0, true, true), (90, false, true), (140, true, true), (240, false, true), (280, true, true)],
            ),
            (
                "in vain: a rest",
                &[(0, true, true), (80, false, true), (160, false, false), (1000, true, false), (1700, true, true)],
            ),
            (
                "asleep it stays so until something comes",
                &[(0, true, true), (90, false, true), (151, false, false), (9000, false, false), (9001, true, true)],
            ),
        ];
        for (name, steps) in cases {
            let mut awake = BusyPoll::new();
            for (us, came, looks) in steps {
                assert_eq!(awake.goes_on(at(*us), *came), *looks, "{name}, at {us}: {awake:?}");
            }
        }
    }

    #[test]
    fn a_core_that_others_want_is_left_to_them() {
        let zero = Instant::now();
        let at = |us: u64| zero + Duration::from_micros(us);
        let mut awake = BusyPoll::new();
        assert!(awake.goes_on(at(0), true));
        awake.gave_way(at(1), at(100));
        assert!(awake.goes_on(at(100), false), "nobody wants it");
        awake.gave_way(at(101), at(202));
        assert!(!awake.goes_on(at(203), true), "somebody does");
        assert!(awake.goes_on(at(50_203), true), "and did a while ago");
    }
}
