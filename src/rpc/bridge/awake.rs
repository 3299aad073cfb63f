//! Whether a connection's driver looks again for a moment, or sleeps: where its core sleeps too, waking it takes longer than
//! most calls do.
//!
//! Two sides that wait for each other so stay awake as long as one answer leads to the next call. Nothing blocks: between
//! two looks the thread's other tasks and the core's other threads have their turn. A core that others want, and looking in
//! vain, switch it off for a while. Pure.

use std::time::{Duration, Instant};

/// How long it looks: a call and its answer take so long when every step of them must wake a core.
const MOMENT: Duration = Duration::from_micros(150);
/// After looking in vain: at most a tenth of the time is spent so.
const REST: Duration = Duration::from_micros(1500);
/// A core that does not come back for so long is wanted by others ...
const AWAY: Duration = Duration::from_micros(100);
/// ... who are left in peace for this time.
const CONTESTED: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awake {
    /// Until something comes, and not before then.
    Sleeps {
        not_before: Option<Instant>,
    },
    Looks {
        until: Instant,
    },
}

impl Awake {
    pub fn new() -> Awake {
        Awake::Sleeps { not_before: None }
    }

    /// There is nothing to do now; `came`: there was since the last time. True: look again, false: sleep.
    pub fn goes_on(&mut self, now: Instant, came: bool) -> bool {
        *self = match *self {
            Awake::Looks { .. } if came => Awake::Looks { until: now + MOMENT },
            Awake::Looks { until } if now < until => Awake::Looks { until },
            Awake::Looks { .. } => Awake::Sleeps { not_before: Some(now + REST) },
            Awake::Sleeps { not_before } if came && not_before.is_none_or(|then| then <= now) => {
                Awake::Looks { until: now + MOMENT }
            }
            asleep @ Awake::Sleeps { .. } => asleep,
        };
        matches!(self, Awake::Looks { .. })
    }

    /// The core was given to whoever else wants it, and came back.
    pub fn gave_way(&mut self, before: Instant, now: Instant) {
        if now.duration_since(before) > AWAY {
            *self = Awake::Sleeps { not_before: Some(now + CONTESTED) };
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
            let mut awake = Awake::new();
            for (us, came, looks) in steps {
                assert_eq!(awake.goes_on(at(*us), *came), *looks, "{name}, at {us}: {awake:?}");
            }
        }
    }

    #[test]
    fn a_core_that_others_want_is_left_to_them() {
        let zero = Instant::now();
        let at = |us: u64| zero + Duration::from_micros(us);
        let mut awake = Awake::new();
        assert!(awake.goes_on(at(0), true));
        awake.gave_way(at(1), at(100));
        assert!(awake.goes_on(at(100), false), "nobody wants it");
        awake.gave_way(at(101), at(202));
        assert!(!awake.goes_on(at(203), true), "somebody does");
        assert!(awake.goes_on(at(50_203), true), "and did a while ago");
    }
}
