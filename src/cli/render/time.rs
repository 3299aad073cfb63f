//! Durations for people.

use std::time::Duration;

/// `0.3 s`, `12.3 s`, `2 m 05 s`, `1 h 02 m`, `3 d 04 h`.
pub fn elapsed(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        // 59.95 s would be shown as 60.0
        _ if d < Duration::from_millis(59_950) => format!("{:.1} s", d.as_secs_f64()),
        0..3600 => {
            let s = d.as_secs_f64().round() as u64;
            format!("{} m {:02} s", s / 60, s % 60)
        }
        3600..86_400 => format!("{} h {:02} m", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3600 % 24),
    }
}

/// How long ago `at` was; both Unix seconds. A clock that went back is "now".
pub fn ago(at: u64, now: u64) -> String {
    match now.saturating_sub(at) {
        0 => "now".to_string(),
        s @ 1..60 => format!("{s} s ago"),
        s @ 60..3600 => format!("{} m ago", s / 60),
        s @ 3600..86_400 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}

pub use crate::util::time::unix_secs as unix_now;

/// Unix seconds as `2026-11-21 07:47:31` UTC.
pub fn utc(at: u64) -> String {
    let (days, s) = ((at / 86_400) as i64, at % 86_400);
    // Howard Hinnant's civil_from_days
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_at_its_bounds() {
        let table = [
            (0, "0.0 s"),
            (49, "0.0 s"),
            (51, "0.1 s"),
            (59_949, "59.9 s"),
            (59_950, "1 m 00 s"),
            (60_000, "1 m 00 s"),
            (125_000, "2 m 05 s"),
            (3_599_400, "59 m 59 s"),
            (3_600_000, "1 h 00 m"),
            (86_399_999, "23 h 59 m"),
            (86_400_000, "1 d 00 h"),
        ];
        for (ms, text) in table {
            assert_eq!(elapsed(Duration::from_millis(ms)), text, "{ms}");
        }
        let table = [
            (0, "now"),
            (1, "1 s ago"),
            (59, "59 s ago"),
            (60, "1 m ago"),
            (3599, "59 m ago"),
            (3600, "1 h ago"),
            (86_399, "23 h ago"),
            (86_400, "1 d ago"),
        ];
        for (s, text) in table {
            assert_eq!(ago(1000, 1000 + s), text);
        }
        assert_eq!(ago(1001, 1000), "now");
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_247_251), "2026-11-21 07:47:31");
        assert_eq!(utc(4_102_444_799), "2099-12-31 23:59:59");
    }
}
