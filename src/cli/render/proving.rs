//! `proving info` on one screen: health first, then the open deadline, faults, the next deadline, the last rounds.

use super::table::{Align, table};
use super::time::elapsed;
use crate::actors::window_post::messages::BatchReport;
use crate::actors::winning_post::messages::{RoundOutcome, RoundReport};
use crate::node::proving_report::{DeadlineRow, LeftOutSectors, OpenDeadline, ProvingInfo, Restart, Trouble};
use std::time::Duration;

/// Troubles, batches and partitions with faults that fit on a screen.
const SHOWN: usize = 4;

/// `all`: nothing is cut.
pub fn info(info: &ProvingInfo, all: bool) -> String {
    let shown = if all { usize::MAX } else { SHOWN };
    let mut text = format!("Proving of {} at epoch {}\n\n", info.miner, info.current_epoch);
    let ok = "ok: no faults, nothing missed";
    text += &health(&info.troubles, ok, shown);
    text += &fact("Restart now?", &restart(&info.restart));
    if !info.off.is_empty() {
        text += &fact("Off", &format!("{}: no node of this provider has the role", info.off.join(", ")));
    }
    text += "\n";
    let known = info.deadlines_unknown.is_none();
    match &info.open_deadline {
        Some(open) => text += &open_deadline(open, shown),
        None if known => text += &fact("Open deadline", &format!("none before epoch {}", info.period_start)),
        None => text += &fact("Open deadline", "unknown"),
    }
    text += &fact("Faults", &if known { faults(info) } else { "unknown".to_string() });
    for row in info.faults.iter().take(shown) {
        let numbers: Vec<String> = row.first.iter().map(u64::to_string).collect();
        let more = if row.faulty > row.first.len() as u64 { ", .." } else { "" };
        let (faulty, recovering) = (row.faulty, row.recovering);
        let line = format!(
            "deadline {}, partition {}: {faulty} faulty, {recovering} recovering (sectors {}{more})",
            row.deadline,
            row.partition,
            numbers.join(", ")
        );
        text += &fact("", &line);
    }
    text += &rest(info.faults.len(), shown);
    for (index, group) in info.left_out.iter().take(shown).enumerate() {
        let name = if index == 0 { "Left out" } else { "" };
        text += &fact(name, &left_out(group));
    }
    text += &rest(info.left_out.len(), shown);
    text += &fact("Next deadline", &if known { next_deadline(info) } else { "unknown".to_string() });
    if !info.rounds.is_empty() {
        text += "\n";
        text += &rounds(&info.rounds);
    }
    text
}

/// One line for "all is well", else one for each trouble.
pub fn health(troubles: &[Trouble], ok: &str, shown: usize) -> String {
    if troubles.is_empty() {
        return fact("Health", ok);
    }
    let count = if troubles.len() == 1 { "1 trouble".to_string() } else { format!("{} troubles", troubles.len()) };
    let mut text = fact("Health", &count);
    for Trouble { what, fix } in troubles.iter().take(shown) {
        text += &format!("  ! {}\n    {fix}\n", line(what));
    }
    text + &rest(troubles.len(), shown)
}

pub fn restart(restart: &Restart) -> String {
    let until = restart.seconds.map(|s| elapsed(Duration::from_secs(s)));
    match (restart.safe, until) {
        (true, Some(time)) => format!("yes, for {time}: {}", restart.why),
        (true, None) => format!("yes: {}", restart.why),
        (false, Some(time)) => format!("no: {}, in {time}", restart.why),
        (false, None) => format!("no: {}", restart.why),
    }
}

fn open_deadline(open: &OpenDeadline, shown: usize) -> String {
    let row = &open.row;
    let closes = match open.closes_in_seconds {
        Some(seconds) => format!("closes at epoch {} (in {})", epoch(row.close), elapsed(Duration::from_secs(seconds))),
        None => format!("closes at epoch {}", epoch(row.close)),
    };
    let proven = match (row.to_prove, row.proven) {
        (0, _) => "nothing to prove".to_string(),
        (all, done) => format!("{done} of {all} partitions proven"),
    };
    let mut text = fact("Open deadline", &format!("{} of {}, {closes}: {proven}", row.index, open.of));
    for batch in open.batches.iter().take(shown) {
        text += &fact("", &one_batch(batch));
    }
    text + &rest(open.batches.len(), shown)
}

fn one_batch(batch: &BatchReport) -> String {
    let partitions: Vec<String> = batch.partitions.iter().map(u64::to_string).collect();
    let many = if partitions.len() == 1 { "partition" } else { "partitions" };
    let mut text = format!("{many} {}: {}", partitions.join(", "), batch.phase);
    if let Some(at) = batch.landed_at {
        text += &format!(" at epoch {at}");
    }
    if batch.attempt > 1 {
        text += &format!(", attempt {}", batch.attempt);
    }
    if let Some(error) = batch.error.as_ref().filter(|_| batch.landed_at.is_none()) {
        text += &format!(", last error: {}", line(error));
    }
    text
}

fn left_out(group: &LeftOutSectors) -> String {
    let numbers: Vec<String> = group.first.iter().take(10).map(u64::to_string).collect();
    let more = if group.count > numbers.len() as u64 { ", .." } else { "" };
    let (sectors, why) = (if group.count == 1 { "sector" } else { "sectors" }, line(&group.why));
    format!("deadline {}: {} {sectors} ({}{more}): {why}", group.deadline, group.count, numbers.join(", "))
}

fn faults(info: &ProvingInfo) -> String {
    match (info.faulty, info.recovering) {
        (0, _) => format!("none of {} sectors", info.sectors),
        (faulty, recovering) => format!("{faulty} of {} sectors, {recovering} of them recovering", info.sectors),
    }
}

fn next_deadline(info: &ProvingInfo) -> String {
    let Some(DeadlineRow { index, open, to_prove, sectors, .. }) = &info.next_deadline else {
        return "none has anything to prove".to_string();
    };
    let time = info.next_opens_in_seconds.map(|s| format!(" (in {})", elapsed(Duration::from_secs(s))));
    let (time, partitions) = (time.unwrap_or_default(), if *to_prove == 1 { "partition" } else { "partitions" });
    let sectors_word = if *sectors == 1 { "sector" } else { "sectors" };
    format!("{index} opens at epoch {}{time}: {to_prove} {partitions}, {sectors} {sectors_word}", epoch(*open))
}

fn rounds(rounds: &[RoundReport]) -> String {
    let columns = [("ROUND", Align::Right), ("TOOK", Align::Right), ("OUTCOME", Align::Left)];
    let row = |round: &RoundReport| {
        vec![round.round.to_string(), elapsed(Duration::from_millis(round.took_ms)), outcome(&round.outcome)]
    };
    table(&columns, &rounds.iter().rev().map(row).collect::<Vec<_>>())
}

pub fn outcome(outcome: &RoundOutcome) -> String {
    match outcome {
        RoundOutcome::NotEligible { why } => format!("not eligible: {}", line(why)),
        RoundOutcome::Lost => "no win drawn".to_string(),
        RoundOutcome::Won { cid: Some(cid), .. } => format!("won, on chain as {cid}"),
        RoundOutcome::Won { cid: None, .. } => "won, not on chain yet".to_string(),
        RoundOutcome::Late { why } => format!("late: {}", line(why)),
        RoundOutcome::Refused { why } => format!("refused: {}", line(why)),
        RoundOutcome::Failed { why } => format!("failed: {}", line(why)),
    }
}

/// `Name           value`, as every line of these screens is laid out.
pub fn fact(name: &str, value: &str) -> String {
    format!("{name:<14} {value}").trim_end().to_string() + "\n"
}

fn rest(len: usize, shown: usize) -> String {
    match len.saturating_sub(shown) {
        0 => String::new(),
        more => fact("", &format!("and {more} more: --all")),
    }
}

fn epoch(epoch: Option<i64>) -> String {
    epoch.map_or("-".to_string(), |epoch| epoch.to_string())
}

/// Errors of others come with line breaks, and of any length.
pub fn line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proving_report::{DeadlineState, PartitionFaults};

    fn healthy() -> ProvingInfo {
        let row = DeadlineRow {
            index: 7,
            open: Some(1180),
            close: Some(1240),
            partitions: 2,
            sectors: 4,
            proven: 1,
            to_prove: 2,
            state: DeadlineState::Open,
            current: true,
            ..DeadlineRow::default()
        };
        let batch = |partition, phase: &str| BatchReport {
            partitions: vec![partition],
            phase: phase.to_string(),
            attempt: 1,
            message: None,
            landed_at: (phase == "landed").then_some(1190),
            error: None,
            left_out: vec![],
        };
        let round = |round, outcome| RoundReport { round, base: round - 1, nulls: 0, outcome, took_ms: 1500 };
        ProvingInfo {
            miner: "t01000".to_string(),
            current_epoch: 1200,
            sectors: 12,
            restart: Restart {
                safe: false,
                why: "1 of 2 partitions of deadline 7 are not proven yet; it closes at epoch 1240".to_string(),
                until_epoch: Some(1240),
                seconds: Some(1200),
            },
            next_deadline: Some(DeadlineRow { index: 9, open: Some(1300), current: false, to_prove: 1, ..row.clone() }),
            next_opens_in_seconds: Some(3000),
            open_deadline: Some(OpenDeadline {
                row,
                of: 48,
                closes_in_seconds: Some(1200),
                batches: vec![batch(0, "landed"), batch(1, "proving")],
                error: None,
            }),
            rounds: vec![
                round(1199, RoundOutcome::Lost),
                round(1200, RoundOutcome::Won { win_count: 1, cid: Some("bafy1".to_string()) }),
            ],
            ..ProvingInfo::default()
        }
    }

    #[test]
    fn health_and_the_restart_come_first() {
        let expected = "\
Proving of t01000 at epoch 1200

Health         ok: no faults, nothing missed
Restart now?   no: 1 of 2 partitions of deadline 7 are not proven yet; it closes at epoch 1240, in 20 m 00 s

Open deadline  7 of 48, closes at epoch 1240 (in 20 m 00 s): 1 of 2 partitions proven
               partition 0: landed at epoch 1190
               partition 1: proving
Faults         none of 12 sectors
Next deadline  9 opens at epoch 1300 (in 50 m 00 s): 1 partition, 4 sectors

ROUND   TOOK  OUTCOME
 1200  1.5 s  won, on chain as bafy1
 1199  1.5 s  no win drawn
";
        assert_eq!(info(&healthy(), false), expected);
    }

    #[test]
    fn what_depends_on_deadlines_that_are_not_known_is_said_to_be_unknown() {
        let why = Some("the full node did not tell the deadlines within 40 s".to_string());
        let text = info(&ProvingInfo { deadlines_unknown: why, ..ProvingInfo::default() }, false);
        for line in ["Open deadline  unknown", "Faults         unknown", "Next deadline  unknown"] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }

    #[test]
    fn left_out_sectors_are_named_with_the_reason() {
        let mut info = healthy();
        let group = |count, first: Vec<u64>, why: &str| LeftOutSectors {
            deadline: 7,
            close: 1240,
            count,
            first,
            why: why.to_string(),
        };
        info.left_out = vec![group(600, (0..20).collect(), "late: /mnt/a hangs"), group(1, vec![9], "no such file")];
        let text = super::info(&info, false);
        let expected = "\
Left out       deadline 7: 600 sectors (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..): late: /mnt/a hangs
               deadline 7: 1 sector (9): no such file
";
        assert!(text.contains(expected), "{text}");
    }

    /// However much is wrong, it is one screen; `--all` cuts nothing.
    #[test]
    fn it_is_one_screen_whatever_is_wrong() {
        let mut bad = healthy();
        bad.faulty = 90;
        bad.faults = (0..20)
            .map(|partition| PartitionFaults {
                deadline: 1,
                partition,
                faulty: 30,
                recovering: 0,
                first: (0..10).collect(),
            })
            .collect();
        bad.troubles = (0..9).map(|n| Trouble::new(format!("trouble\n{n} {}", "x".repeat(900)), "do this")).collect();
        let open = bad.open_deadline.as_mut().unwrap();
        open.batches = vec![open.batches[1].clone(); 30];
        bad.rounds = vec![bad.rounds[0].clone(); 5];
        let text = info(&bad, false);
        assert!(text.lines().count() <= 40, "{} lines\n{text}", text.lines().count());
        assert!(text.contains("9 troubles") && text.contains("! trouble 0") && text.contains("and 5 more: --all"));
        assert!(text.contains("and 16 more: --all") && text.contains("90 of 12 sectors, 0 of them recovering"));
        assert!(text.lines().all(|line| line.chars().count() <= 220), "{text}");
        let whole = info(&bad, true);
        assert!(whole.contains("! trouble 8") && !whole.contains("more: --all"), "{whole}");
    }

    #[test]
    fn whether_to_restart_is_said_with_the_time() {
        let restart = |safe, seconds| {
            super::restart(&Restart {
                safe,
                why: "deadline 8 opens at epoch 9".to_string(),
                until_epoch: Some(9),
                seconds,
            })
        };
        assert_eq!(restart(true, Some(750)), "yes, for 12 m 30 s: deadline 8 opens at epoch 9");
        assert_eq!(restart(true, None), "yes: deadline 8 opens at epoch 9");
        assert_eq!(restart(false, Some(40)), "no: deadline 8 opens at epoch 9, in 40.0 s");
        assert_eq!(restart(false, None), "no: deadline 8 opens at epoch 9");
    }
}
