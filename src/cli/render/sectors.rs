//! Sectors: the list, and one of them with its log.

use super::table::{Align, table};
use super::time::{elapsed, utc};
use crate::cli::sector_rows::{SectorInfo, SectorLine};
use std::time::Duration;

/// What turns times and epochs into "how long ago" and "in how long".
pub struct Clock {
    /// Unix seconds.
    pub now: u64,
    /// `None`: the head is not known.
    pub height: Option<i64>,
    pub block_delay_secs: Option<u64>,
}

impl Clock {
    /// ` (in 17 d 08 h)`; empty where it cannot be told.
    fn until(&self, epoch: i64) -> String {
        let (Some(height), Some(delay)) = (self.height, self.block_delay_secs) else { return String::new() };
        match u64::try_from(epoch - height) {
            Ok(epochs) => format!(" (in {})", elapsed(Duration::from_secs(epochs.saturating_mul(delay)))),
            Err(_) => " (over)".to_string(),
        }
    }
}

pub fn list(sectors: &[SectorLine], clock: &Clock) -> String {
    if sectors.is_empty() {
        return "no sectors yet; `bulkhead sectors pledge` makes one\n".to_string();
    }
    let columns = [
        ("SECTOR", Align::Right),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("ACTIVATION", Align::Right),
        ("EXPIRATION", Align::Left),
        ("LAST ERROR", Align::Left),
    ];
    let row = |s: &SectorLine| {
        let stays = match s.since {
            0 => "-".to_string(),
            since => elapsed(Duration::from_secs(clock.now.saturating_sub(since / 1000))),
        };
        let expiration = match s.expiration {
            0 => "-".to_string(),
            epoch => format!("{epoch}{}", clock.until(epoch)),
        };
        let activation = if s.activation > 0 { s.activation.to_string() } else { "-".to_string() };
        let error = s.last_error.split_whitespace().collect::<Vec<_>>().join(" ");
        vec![s.number.to_string(), s.state.clone(), stays, activation, expiration, error]
    };
    table(&columns, &sectors.iter().map(row).collect::<Vec<_>>())
}

/// `with_log`: every step that the sector took, and how long it stayed in each.
pub fn status(s: &SectorInfo, with_log: bool) -> String {
    let mut facts = vec![("Sector", s.sector_id.to_string()), ("State", s.state.clone())];
    let mut fact = |name, value: Option<String>| facts.extend(value.filter(|v| !v.is_empty()).map(|v| (name, v)));
    fact("Sealed CID", s.comm_r.clone());
    fact("Unsealed CID", s.comm_d.clone());
    fact("Ticket epoch", s.ticket.as_ref().filter(|t| t.epoch > 0).map(|t| t.epoch.to_string()));
    fact("Seed epoch", s.seed.as_ref().filter(|t| t.epoch > 0).map(|t| t.epoch.to_string()));
    fact("PreCommit message", s.pre_commit_msg.clone());
    fact("ProveCommit message", s.commit_msg.clone());
    fact("Activation", Some(s.activation).filter(|e| *e > 0).map(|e| e.to_string()));
    fact("Expiration", Some(s.expiration).filter(|e| *e > 0).map(|e| e.to_string()));
    fact("Waits for", Some(s.waits_for.clone()));
    fact("Last error", Some(s.last_err.clone()));
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text: String = facts.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
    if with_log {
        let columns =
            [("AT (UTC)", Align::Left), ("AFTER", Align::Right), ("EVENT", Align::Left), ("DETAIL", Align::Left)];
        let mut rows = Vec::new();
        let mut previous = None;
        for entry in &s.log {
            let after =
                previous.map(|p| elapsed(Duration::from_secs(entry.timestamp.saturating_sub(p)))).unwrap_or_default();
            previous = Some(entry.timestamp);
            let detail = entry.message.split_whitespace().collect::<Vec<_>>().join(" ");
            rows.push(vec![utc(entry.timestamp), after, entry.kind.clone(), detail]);
        }
        text += "\n";
        text += &table(&columns, &rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list() {
        let line = |number, state: &str, activation, error: &str| SectorLine {
            number,
            state: state.to_string(),
            activation,
            expiration: if activation > 0 { 2_000 } else { 0 },
            last_error: error.to_string(),
            since: 90_500,
            node: "this node".to_string(),
            waits_for: "the seed of epoch 200".to_string(),
        };
        let lines = [line(0, "Proving", 120, ""), line(11, "PreCommit2", 0, "prover was killed\n(signal 9)")];
        let clock = Clock { now: 100, height: Some(1_880), block_delay_secs: Some(30) };
        let expected = "\
SECTOR  STATE          FOR  ACTIVATION  EXPIRATION          LAST ERROR
     0  Proving     10.0 s         120  2000 (in 1 h 00 m)
    11  PreCommit2  10.0 s           -  -                   prover was killed (signal 9)
";
        assert_eq!(list(&lines, &clock), expected);
        let over = Clock { height: Some(2_001), ..clock };
        assert!(list(&lines, &over).contains("2000 (over)"));
        let unknown = Clock { height: None, ..over };
        assert!(list(&lines, &unknown).contains("  2000\n"));
        assert!(list(&[], &unknown).contains("sectors pledge"));
    }

    #[test]
    fn one_with_its_log_in_lotus_shape() {
        let info: SectorInfo = serde_json::from_value(json!({
            "SectorID": 3, "State": "WaitSeed", "CommR": {"/": "bagboea4b5abc"}, "CommD": null,
            "Ticket": {"Value": "AAAA", "Epoch": 40}, "Seed": {"Value": null, "Epoch": 0},
            "PreCommitMsg": {"/": "bafy2bzace1"}, "CommitMsg": null, "Activation": 0, "Expiration": 0, "LastErr": "",
            "Log": [
                {"Kind": "event;sealing.SectorStartCC", "Timestamp": 951782400, "Trace": "", "Message": ""},
                {"Kind": "PreCommit1", "Timestamp": 951782403, "Trace": "", "Message": "two\nlines"}
            ]
        }))
        .unwrap();
        let expected = "\
Sector             3
State              WaitSeed
Sealed CID         bagboea4b5abc
Ticket epoch       40
PreCommit message  bafy2bzace1

AT (UTC)             AFTER  EVENT                        DETAIL
2000-02-29 00:00:00         event;sealing.SectorStartCC
2000-02-29 00:00:03  3.0 s  PreCommit1                   two lines
";
        assert_eq!(status(&info, true), expected);
        assert_eq!(status(&info, false), expected.split("\n\n").next().unwrap().to_string() + "\n");
    }
}
