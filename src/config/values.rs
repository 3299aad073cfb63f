//! How durations and sizes are written in a file, in the environment and on the command line.

use crate::chain::proof_types::SECTOR_SIZES;
use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::path::PathBuf;
use std::time::Duration;

/// `10s`, `500ms`, `1h30m`, or a bare number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        // whole milliseconds: 0.3 s must not become 299.99 ms
        let milliseconds = (number * unit * 1000.0).round();
        if !(0.0..1e15).contains(&milliseconds) {
            return None;
        }
        total = total.checked_add(Duration::from_millis(milliseconds as u64))?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// The shortest form that [`parse_duration`] reads back.
pub fn format_duration(d: Duration) -> String {
    let (mut ms, mut text) = (d.as_millis(), String::new());
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if ms / size > 0 {
            text += &format!("{}{unit}", ms / size);
            ms %= size;
        }
    }
    if text.is_empty() { "0s".to_string() } else { text }
}

/// Decimal FIL as attoFIL: `0.05`, `5`.
pub fn parse_fil(text: &str) -> Option<u128> {
    const DECIMALS: usize = 18;
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let digits = |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 10) || !digits(part, DECIMALS) {
        return None;
    }
    format!("{whole}{part:0<DECIMALS$}").parse().ok()
}

/// `2KiB`, `32GiB`, .. or the same in bytes.
pub fn parse_sector_size(text: &str) -> Result<u64, String> {
    SECTOR_SIZES
        .iter()
        .find(|(name, bytes)| name.eq_ignore_ascii_case(text) || bytes.to_string() == text)
        .map(|(_, bytes)| *bytes)
        .ok_or_else(|| "a sector size is one of 2KiB, 8MiB, 512MiB, 32GiB, 64GiB".to_string())
}

pub fn format_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut step = 0;
    while step + 1 < units.len() && bytes >> (10 * (step + 1)) > 0 {
        step += 1;
    }
    let whole = bytes >> (10 * step);
    if bytes == whole << (10 * step) {
        format!("{whole} {}", units[step])
    } else {
        format!("{:.2} {}", bytes as f64 / (1u64 << (10 * step)) as f64, units[step])
    }
}

/// serde: a duration as text.
pub mod duration {
    use super::*;
    pub fn serialize<S: Serializer>(v: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format_duration(*v))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        parse_duration(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration")))
    }
}

/// serde: an empty text is "not set".
pub mod optional {
    use super::*;
    pub fn serialize<S: Serializer>(v: &Option<String>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(v.as_deref().unwrap_or(""))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(d)?).filter(|text| !text.is_empty()))
    }
}

pub fn is_multiaddr(text: &str) -> bool {
    text.parse::<libp2p::Multiaddr>().is_ok_and(|m| m.iter().count() >= 2)
}

/// A shell does not expand `~` in BULKHEAD_PATH="~/x". `None`: no home directory is known.
pub(super) fn expand_home(path: PathBuf, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    match path.strip_prefix("~") {
        Ok(rest) => Some(PathBuf::from(env("HOME").filter(|home| !home.is_empty())?).join(rest)),
        Err(_) => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        let table = [
            ("10", Some(10_000)),
            ("10s", Some(10_000)),
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("0.3s", Some(300)),
            ("1h30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("2m5s250ms", Some(125_250)),
            ("", None),
            ("-1", None),
            ("s", None),
            ("10 s", None),
            ("10x", None),
            ("1..2s", None),
            ("99999999999999999999d", None),
        ];
        for (text, ms) in table {
            assert_eq!(parse_duration(text).map(|d| d.as_millis() as u64), ms, "{text:?}");
        }
        for ms in [0, 1, 999, 1000, 1001, 59_999, 60_000, 86_400_000, 90_061_001] {
            let d = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(d)), Some(d), "{ms}");
        }
    }

    #[test]
    fn amounts_of_fil_are_read() {
        let table = [
            ("5", Some(5_000_000_000_000_000_000)),
            ("0.05", Some(50_000_000_000_000_000)),
            ("0.000000000000000001", Some(1)),
            ("0", Some(0)),
            ("9999999999", Some(9_999_999_999_000_000_000_000_000_000)),
            ("10000000000", None),
            ("0.0000000000000000001", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("1e3", None),
            ("0.05 FIL", None),
        ];
        for (text, atto) in table {
            assert_eq!(parse_fil(text), atto, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse_sector_size("2kib"), Ok(2048));
        assert_eq!(parse_sector_size("34359738368"), Ok(32 << 30));
        assert!(parse_sector_size("2047").is_err() && parse_sector_size("2049").is_err());
        let table =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1025, "1.00 KiB"), (1536, "1.50 KiB"), (2 << 10, "2 KiB")];
        for (bytes, text) in table {
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(format_size(u64::MAX), "16.00 EiB");
    }
}
