//! Sectors: the list, and one of them with its log.

use super::table::{Align, table};
use super::time::{elapsed, utc};
use crate::cli::sectors::{SectorInfo, SectorLine};
use std::time::Duration;

pub fn list(sectors: &[SectorLine]) -> String {
    if sectors.is_empty() {
        return "no sectors yet; `bulkhead sectors pledge` makes one\n".to_string();
    }
    let columns = [
        ("SECTOR", Align::Right),
        ("STATE", Align::Left),
        ("ACTIVATION", Align::Right),
        ("EXPIRATION", Align::Right),
        ("LAST ERROR", Align::Left),
    ];
    let epoch = |e: i64| if e > 0 { e.to_string() } else { "-".to_string() };
    let rows: Vec<Vec<String>> = sectors
        .iter()
        .map(|s| {
            vec![s.number.to_string(), s.state.clone(), epoch(s.activation), epoch(s.expiration), s.last_error.clone()]
        })
        .collect();
    table(&columns, &rows)
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
        };
        let text = list(&[line(0, "Proving", 120, ""), line(11, "PreCommit2", 0, "prover was killed (signal 9)")]);
        let expected = "\
SECTOR  STATE       ACTIVATION  EXPIRATION  LAST ERROR
     0  Proving            120        2000
    11  PreCommit2           -           -  prover was killed (signal 9)
";
        assert_eq!(text, expected);
        assert!(list(&[]).contains("sectors pledge"));
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
