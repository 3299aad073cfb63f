//! Errors that repeat: the one place that says how long to pause, when to warn, and what an operator is shown.
//!
//! An actor counts each failed try under a key (a sector, a kind of question), says so when one succeeds, and shows
//! [`Repeats::trouble`] in the supervision tree, from where `info` has it. Pure: the clock is the caller's.

use super::Backoff;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Tries that fail in a row before it is a warning; again after twice as many, four times, ..
const WARN_AFTER: u32 = 3;
/// Milliseconds between two warnings of one actor: a node that is away fails for every sector at once.
const WARN_EVERY: u64 = 60_000;
/// Keys that are counted. One more pauses for the longest, and is not shown.
const MOST_KEYS: usize = 10_000;

/// The answer to one failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Failed tries in a row, this one included.
    pub times: u32,
    /// Milliseconds until the next try.
    pub pause: u64,
    /// The text of a warning that is due now.
    pub warning: Option<String>,
}

#[derive(Clone, Debug)]
struct Row {
    times: u32,
    why: String,
}

/// The errors that repeat under one actor.
#[derive(Debug)]
pub struct Repeats<K> {
    /// Milliseconds after the first failure; doubles up to `cap`.
    first: u64,
    cap: u64,
    rows: BTreeMap<K, Row>,
    /// The key that failed most often.
    worst: Option<K>,
    /// Rows that are worth a warning.
    grave: usize,
    warned_at: Option<u64>,
    /// Warnings that were due and came too soon after another.
    held_back: u32,
}

impl<K: Ord + Clone + Display> Repeats<K> {
    pub fn new(first: u64, cap: u64) -> Repeats<K> {
        Repeats {
            first,
            cap: cap.max(first),
            rows: BTreeMap::new(),
            worst: None,
            grave: 0,
            warned_at: None,
            held_back: 0,
        }
    }

    /// The pause after so many failures in a row.
    pub fn pause(&self, times: u32) -> u64 {
        Backoff::doubling_ms(self.first, self.cap).after_ms(times)
    }

    /// A try failed. `now` in milliseconds of any clock that only grows.
    pub fn failed(&mut self, key: &K, why: &str, now: u64) -> Repeat {
        if self.rows.len() >= MOST_KEYS && !self.rows.contains_key(key) {
            return Repeat { times: 1, pause: self.cap, warning: None };
        }
        let row = self.rows.entry(key.clone()).or_insert(Row { times: 0, why: String::new() });
        row.times = row.times.saturating_add(1);
        row.why.clear();
        row.why.push_str(why);
        let times = row.times;
        self.grave += usize::from(times == WARN_AFTER);
        if self.worst.as_ref().and_then(|worst| self.rows.get(worst)).is_none_or(|worst| worst.times <= times) {
            self.worst = Some(key.clone());
        }
        let due = times.is_multiple_of(WARN_AFTER) && (times / WARN_AFTER).is_power_of_two();
        let warning = due.then(|| self.warning(key, times, why, now)).flatten();
        Repeat { times, pause: self.pause(times), warning }
    }

    fn warning(&mut self, key: &K, times: u32, why: &str, now: u64) -> Option<String> {
        if self.warned_at.is_some_and(|at| now < at.saturating_add(WARN_EVERY)) {
            self.held_back += 1;
            return None;
        }
        self.warned_at = Some(now);
        let others = match std::mem::take(&mut self.held_back) {
            0 => String::new(),
            more => format!(" (and {more} such warnings since the last)"),
        };
        Some(format!("{key} failed {times} times in a row, it is tried again: {why}{others}"))
    }

    /// A try succeeded, or is not made any more.
    pub fn over(&mut self, key: &K) {
        let Some(row) = self.rows.remove(key) else { return };
        self.grave -= usize::from(row.times >= WARN_AFTER);
        if self.worst.as_ref() == Some(key) {
            self.worst = self.rows.iter().max_by_key(|(_, row)| row.times).map(|(key, _)| key.clone());
        }
    }

    /// One line for the tree: what failed most often, once it is worth a warning.
    pub fn trouble(&self) -> Option<String> {
        let key = self.worst.as_ref()?;
        let row = self.rows.get(key).filter(|row| row.times >= WARN_AFTER)?;
        let more = match self.grave {
            0 | 1 => String::new(),
            grave => format!(" (and {} more)", grave - 1),
        };
        Some(format!("{key} failed {} times in a row: {}{more}", row.times, row.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_cap_and_a_success_begins_anew() {
        let mut repeats = Repeats::new(5, 60);
        let pauses: Vec<u64> = (0..6).map(|_| repeats.failed(&"a", "x", 0).pause).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(repeats.failed(&"b", "x", 0).pause, 5, "each key for itself");
        repeats.over(&"a");
        assert_eq!(repeats.failed(&"a", "x", 0).times, 1);
        assert_eq!(Repeats::<u64>::new(u64::MAX, 1).pause(u32::MAX), u64::MAX);
    }

    #[test]
    fn a_few_in_a_row_are_a_warning_then_ever_more_seldom() {
        let mut repeats = Repeats::new(1, 1);
        let warned: Vec<u32> = (0..25)
            .map(|n| repeats.failed(&"the head", "refused", n * WARN_EVERY))
            .filter(|repeat| repeat.warning.is_some())
            .map(|repeat| repeat.times)
            .collect();
        assert_eq!(warned, [3, 6, 12, 24]);
        assert_eq!(repeats.trouble().as_deref(), Some("the head failed 25 times in a row: refused"));
        (0..4).for_each(|_| drop(repeats.failed(&"the purse", "empty", 0)));
        assert_eq!(repeats.trouble().as_deref(), Some("the head failed 25 times in a row: refused (and 1 more)"));
        repeats.over(&"the head");
        assert_eq!(repeats.trouble().as_deref(), Some("the purse failed 4 times in a row: empty"));
        repeats.over(&"the purse");
        assert_eq!(repeats.trouble(), None);
    }

    #[test]
    fn ten_thousand_sectors_that_fail_for_one_reason_are_one_warning_a_minute() {
        let mut repeats = Repeats::new(1, 1);
        let mut round = |now: u64| (0..100u64).filter_map(|n| repeats.failed(&n, "refused", now).warning).count();
        assert_eq!([round(0), round(1), round(2), round(3)], [0, 0, 1, 0]);
        assert_eq!([round(4), round(2 + WARN_EVERY - 1), round(2 + WARN_EVERY)], [0, 0, 0]);
        assert!(repeats.trouble().is_some_and(|text| text.ends_with("(and 99 more)")));
        let mut next = |now: u64| (0..100u64).find_map(|n| repeats.failed(&n, "refused", now).warning);
        let later = (8..14).filter_map(|n| next(n * WARN_EVERY)).next().unwrap_or_default();
        assert!(later.contains("12 times") && later.contains("such warnings since the last"), "{later}");
    }

    #[test]
    fn nothing_is_shown_before_it_repeats_and_keys_are_bounded() {
        let mut repeats = Repeats::new(1, 7);
        assert_eq!(repeats.trouble(), None);
        for n in 0..MOST_KEYS as u64 + 1 {
            repeats.failed(&n, "x", 0);
        }
        assert_eq!((repeats.rows.len(), repeats.trouble()), (MOST_KEYS, None));
        assert_eq!(repeats.failed(&u64::MAX, "x", 0).pause, 7);
    }
}
