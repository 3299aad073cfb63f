//! Log lines about callers without a token: few and short, whatever those send.

use crate::util::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
/// Lines in one window.
const LINES: u32 = 10;
/// Characters that are kept of what a caller sent.
const KEPT: usize = 120;

/// One surface's budget of such lines.
pub struct RefusalLog {
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    /// Lines that were left out since the last one that was not.
    left_out: u64,
}

impl Window {
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= WINDOW {
            (self.began, self.lines) = (now, 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Default for RefusalLog {
    fn default() -> Self {
        RefusalLog { window: Mutex::new(Window { began: Instant::now(), lines: 0, left_out: 0 }) }
    }
}

impl RefusalLog {
    /// `Some`: the line may be written, and that many before it were not. `None`: it may not.
    pub fn take(&self) -> Option<u64> {
        lock(&self.window).take(Instant::now())
    }
}

/// The beginning of what a caller sent.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(KEPT) {
        None => text.to_string(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_in_ten_seconds_and_a_count_of_the_rest() {
        let began = Instant::now();
        let mut window = Window { began, lines: 0, left_out: 0 };
        let mut at = |ms: u64| window.take(began + Duration::from_millis(ms));
        assert!((0..10).all(|ms| at(ms) == Some(0)));
        assert_eq!([at(10), at(9_999)], [None, None]);
        assert_eq!([at(10_000), at(10_001)], [Some(2), Some(0)]);
    }

    #[test]
    fn what_was_sent_is_cut_between_characters() {
        for (text, want) in [
            ("", String::new()),
            (&"a".repeat(120)[..], "a".repeat(120)),
            (&"a".repeat(121)[..], format!("{}… (121 bytes)", "a".repeat(120))),
            (&"é".repeat(70_000)[..], format!("{}… (140000 bytes)", "é".repeat(120))),
        ] {
            assert_eq!(shortened(text), want);
        }
    }
}
