//! `proving info` and `proving deadlines`: the proving period as the chain has it, and the answers that an operator wants
//! of it: are there faults, was anything missed, may the node be restarted now. Pure.

use crate::actors::window_post::chunks::LeftOut;
use crate::actors::window_post::messages::{BatchReport, DeadlineReport, WindowPostReport};
use crate::actors::winning_post::messages::{RoundOutcome, RoundReport, WinningReport};
use crate::chain::ChainEpoch;
use crate::chain::types::{DeadlineInfo, Partition};
use fvm_ipld_bitfield::BitField;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A restart is not advised when the next window opens sooner than this: provers load their keys again.
const RESTART_TAKES: Duration = Duration::from_secs(300);
/// Rounds of WinningPoSt in `proving info`.
const ROUNDS_SHOWN: usize = 5;
/// Sector numbers that are named for each faulty partition, and partitions that are named.
const FAULTS_NAMED: usize = 10;
const FAULTY_PARTITIONS_NAMED: usize = 20;
/// Reasons that are named for sectors that proofs leave out.
const LEFT_OUT_NAMED: usize = 50;

/// A deadline's state in the present proving period.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineState {
    #[default]
    Upcoming,
    Open,
    Closed,
}

/// A row of `proving deadlines`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct DeadlineRow {
    pub index: u64,
    pub open: Option<ChainEpoch>,
    pub close: Option<ChainEpoch>,
    pub partitions: u64,
    pub sectors: u64,
    pub faulty: u64,
    pub recovering: u64,
    /// Partitions of this deadline that are proven in the present period.
    pub proven: u64,
    /// Partitions that have something to prove in the present period, or had when the deadline closed.
    pub to_prove: u64,
    /// Partitions that have something to prove when the deadline opens next.
    pub to_prove_next: u64,
    pub state: DeadlineState,
    /// The one that is open now.
    pub current: bool,
}

impl DeadlineRow {
    /// `submitted`: the partitions whose proof the chain has recorded; it forgets them when the deadline closes.
    pub fn of(index: u64, now: &DeadlineInfo, submitted: &BitField, partitions: &[Partition]) -> DeadlineRow {
        let open = now.period_start + index as i64 * now.w_post_challenge_window;
        let close = open + now.w_post_challenge_window;
        let state = match now.current_epoch {
            epoch if epoch < open => DeadlineState::Upcoming,
            epoch if epoch < close => DeadlineState::Open,
            _ => DeadlineState::Closed,
        };
        let count = |is: fn(&Partition) -> bool| partitions.iter().filter(|p| is(p)).count() as u64;
        let (to_prove, proven) = match state {
            DeadlineState::Upcoming => (count(must_be_proven), 0),
            DeadlineState::Open => (count(must_be_proven), submitted.len()),
            // At the close every sector of a partition without a proof becomes faulty, so one that still has power has
            // been proven. A partition with neither holds sectors that were added after the close.
            DeadlineState::Closed => (count(|p| has_power(p) || !p.faulty_sectors.is_empty()), count(has_power)),
        };
        let sum = |of: fn(&Partition) -> u64| partitions.iter().map(of).sum();
        DeadlineRow {
            index,
            open: Some(open),
            close: Some(close),
            partitions: partitions.len() as u64,
            sectors: sum(|p| p.live_sectors.len()),
            faulty: sum(|p| p.faulty_sectors.len()),
            recovering: sum(|p| p.recovering_sectors.len()),
            proven,
            to_prove,
            to_prove_next: count(must_be_proven),
            state,
            current: state == DeadlineState::Open,
        }
    }

    /// Partitions whose proof is still missing; 0 for a deadline that is not open.
    fn owed(&self) -> u64 {
        if self.current { self.to_prove.saturating_sub(self.proven) } else { 0 }
    }
}

/// It has a live sector that is not faulty, or that is declared recovered.
fn must_be_proven(partition: &Partition) -> bool {
    partition.live_sectors.len() > partition.faulty_sectors.len() || !partition.recovering_sectors.is_empty()
}

fn has_power(partition: &Partition) -> bool {
    !partition.active_sectors.is_empty()
}

/// The faults of one partition.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PartitionFaults {
    pub deadline: u64,
    pub partition: u64,
    pub faulty: u64,
    /// The part that is declared recovered, to be proven with the next window.
    pub recovering: u64,
    /// The lowest faulty sector numbers.
    pub first: Vec<u64>,
}

impl PartitionFaults {
    /// The partitions of a deadline that have faults.
    pub fn of(deadline: u64, partitions: &[Partition]) -> Vec<PartitionFaults> {
        let faulty = (0u64..).zip(partitions).filter(|(_, p)| !p.faulty_sectors.is_empty());
        let row = |(partition, p): (u64, &Partition)| PartitionFaults {
            deadline,
            partition,
            faulty: p.faulty_sectors.len(),
            recovering: p.recovering_sectors.len(),
            first: p.faulty_sectors.iter().take(FAULTS_NAMED).collect(),
        };
        faulty.map(row).collect()
    }
}

/// Something that an operator should know of, and what to do about it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Trouble {
    pub what: String,
    pub fix: String,
}

impl Trouble {
    pub fn new(what: impl Into<String>, fix: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), fix: fix.into() }
    }
}

/// Whether the node may be stopped for a while without a proof being late.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Restart {
    pub safe: bool,
    pub why: String,
    /// When `safe`: the epoch by which the node must be up again; else the one at which to look again. `None`: no such epoch.
    pub until_epoch: Option<ChainEpoch>,
    /// Seconds to that epoch; `None` also while the block delay is unknown.
    pub seconds: Option<u64>,
}

/// The rows of one proving period, with what is needed to count in seconds and into the next period.
pub struct Period<'a> {
    pub rows: &'a [DeadlineRow],
    pub now: &'a DeadlineInfo,
    /// `None` until the full node has told it.
    pub block_delay: Option<Duration>,
}

impl Period<'_> {
    fn seconds_to(&self, epoch: ChainEpoch) -> Option<u64> {
        let epochs = u64::try_from(epoch - self.now.current_epoch).unwrap_or(0);
        self.block_delay.map(|delay| delay.as_secs().saturating_mul(epochs))
    }

    fn open(&self) -> Option<&DeadlineRow> {
        self.rows.iter().find(|row| row.current)
    }

    /// The next deadline with something to prove; its epochs are those of the period in which it opens next.
    pub fn next(&self) -> Option<DeadlineRow> {
        let upcoming = self.rows.iter().find(|row| row.state == DeadlineState::Upcoming && row.to_prove > 0);
        let shifted = |row: &DeadlineRow| {
            let later = |epoch: Option<ChainEpoch>| epoch.map(|epoch| epoch + self.now.w_post_proving_period);
            let (open, close, to_prove) = (later(row.open), later(row.close), row.to_prove_next);
            let state = DeadlineState::Upcoming;
            DeadlineRow { open, close, to_prove, proven: 0, current: false, state, ..row.clone() }
        };
        upcoming.cloned().or_else(|| self.rows.iter().find(|row| row.to_prove_next > 0).map(shifted))
    }

    pub fn restart(&self) -> Restart {
        if let Some(open) = self.open().filter(|row| row.owed() > 0) {
            let close = open.close.unwrap_or_default();
            let why = format!(
                "{} of {} partitions of deadline {} are not proven yet; it closes at epoch {close}",
                open.owed(),
                open.to_prove,
                open.index
            );
            return Restart { safe: false, why, until_epoch: Some(close), seconds: self.seconds_to(close) };
        }
        let Some(next) = self.next() else {
            return Restart { safe: true, why: "no deadline has anything to prove".into(), ..Restart::default() };
        };
        let opens = next.open.unwrap_or_default();
        let window = self.now.w_post_challenge_window;
        let (epochs, seconds) = (opens - self.now.current_epoch, self.seconds_to(opens));
        // Short windows: networks for development.
        let enough = match seconds {
            Some(seconds) => {
                let quarter = self.block_delay.unwrap_or_default().as_secs() * (window / 4).max(0) as u64;
                seconds >= quarter.min(RESTART_TAKES.as_secs())
            }
            None => epochs >= window / 4,
        };
        let why = match enough {
            true => format!("deadline {} opens at epoch {opens}", next.index),
            false => format!("deadline {} opens at epoch {opens}: wait until it is proven", next.index),
        };
        let until = if enough { opens } else { next.close.unwrap_or(opens) };
        Restart { safe: enough, why, until_epoch: Some(until), seconds: self.seconds_to(until) }
    }
}

/// The open deadline: what the chain has, and what WindowPoSt does for it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OpenDeadline {
    #[serde(flatten)]
    pub row: DeadlineRow,
    /// The number of deadlines in a period.
    pub of: u64,
    pub closes_in_seconds: Option<u64>,
    pub batches: Vec<BatchReport>,
    /// Why its partitions could not be read.
    pub error: Option<String>,
}

/// Partitions whose proof did not get on chain in time.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Missed {
    pub deadline: u64,
    pub close: ChainEpoch,
    pub partitions: Vec<u64>,
    pub why: String,
}

fn missed(report: &WindowPostReport) -> Vec<Missed> {
    let of = |deadline: &DeadlineReport| {
        let batches = deadline.batches.iter().filter(|batch| batch.phase == "missed");
        let row = |batch: &BatchReport| Missed {
            deadline: deadline.index,
            close: deadline.close,
            partitions: batch.partitions.clone(),
            why: batch.error.clone().unwrap_or_default(),
        };
        batches.map(row).collect::<Vec<_>>()
    };
    report.deadlines.iter().rev().flat_map(of).collect()
}

/// Sectors that the window proofs of a report leave out.
pub fn left_out_count(report: &WindowPostReport) -> u64 {
    let batches = report.deadlines.iter().flat_map(|deadline| &deadline.batches);
    batches.flat_map(|batch| &batch.left_out).map(|group| group.count).sum()
}

/// Sectors that the proof of a deadline leaves out for the same reason, or that it still waits for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LeftOutSectors {
    pub deadline: u64,
    pub close: ChainEpoch,
    pub count: u64,
    /// The lowest numbers.
    pub first: Vec<u64>,
    pub why: String,
}

/// The newest first.
fn left_out(report: &WindowPostReport) -> Vec<LeftOutSectors> {
    let of = |deadline: &DeadlineReport| {
        let groups = deadline.batches.iter().flat_map(|batch| &batch.left_out);
        let row = |group: &LeftOut| LeftOutSectors {
            deadline: deadline.index,
            close: deadline.close,
            count: group.count,
            first: group.first.clone(),
            why: group.why.clone(),
        };
        groups.map(row).collect::<Vec<_>>()
    };
    report.deadlines.iter().rev().flat_map(of).take(LEFT_OUT_NAMED).collect()
}

/// The answer of `Bulkhead.ProvingInfo`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ProvingInfo {
    pub miner: String,
    pub current_epoch: ChainEpoch,
    pub period_start: ChainEpoch,
    pub proving_period: ChainEpoch,
    /// `7 of 48`.
    pub deadline: String,
    pub deadline_open: ChainEpoch,
    pub deadline_close: ChainEpoch,
    pub sectors: u64,
    pub faulty: u64,
    pub recovering: u64,
    /// Batches of partitions.
    pub missed_lately: u64,
    /// Empty: all is well.
    pub troubles: Vec<Trouble>,
    pub restart: Restart,
    /// `None` between two periods, before the first has begun.
    pub open_deadline: Option<OpenDeadline>,
    /// The next with something to prove; `None`: nothing is to be proven.
    pub next_deadline: Option<DeadlineRow>,
    pub next_opens_in_seconds: Option<u64>,
    /// At most 20 partitions.
    pub faults: Vec<PartitionFaults>,
    /// The newest first.
    pub missed: Vec<Missed>,
    /// Sectors that the window proofs of the last epochs leave out, by deadline and reason, the newest first.
    pub left_out: Vec<LeftOutSectors>,
    /// The last rounds of WinningPoSt, the latest last.
    pub rounds: Vec<RoundReport>,
    /// The parts that no node of this provider runs: `window-post`, `winning-post`.
    pub off: Vec<String>,
    /// Why the full node did not tell the deadlines; what follows from them is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines_unknown: Option<String>,
}

/// The answers of the two concerns; an error text where one does not answer. `None`: no node of this provider runs it.
pub struct Concerns {
    pub window_post: Option<Result<WindowPostReport, String>>,
    pub winning_post: Option<Result<WinningReport, String>>,
}

impl Concerns {
    fn window_post(&self) -> Option<&WindowPostReport> {
        self.window_post.as_ref()?.as_ref().ok()
    }
    fn off(&self) -> Vec<String> {
        let window_post = self.window_post.is_none().then_some("window-post");
        let winning_post = self.winning_post.is_none().then_some("winning-post");
        window_post.into_iter().chain(winning_post).map(String::from).collect()
    }
    fn winning_post(&self) -> Option<&WinningReport> {
        self.winning_post.as_ref()?.as_ref().ok()
    }
}

pub fn proving_info(miner: String, period: &Period, faults: Vec<PartitionFaults>, concerns: &Concerns) -> ProvingInfo {
    let (now, rows) = (period.now, period.rows);
    let sum = |f: fn(&DeadlineRow) -> u64| rows.iter().map(f).sum::<u64>();
    let missed = concerns.window_post().map(missed).unwrap_or_default();
    let open_deadline = period.open().map(|row| {
        let run =
            concerns.window_post().and_then(|report| report.deadlines.iter().find(|run| Some(run.open) == row.open));
        OpenDeadline {
            row: row.clone(),
            of: now.w_post_period_deadlines,
            closes_in_seconds: row.close.and_then(|close| period.seconds_to(close)),
            batches: run.map(|run| run.batches.clone()).unwrap_or_default(),
            error: run.and_then(|run| run.error.clone()),
        }
    });
    let next = period.next();
    let rounds = concerns.winning_post().map(|report| {
        let from = report.rounds.len().saturating_sub(ROUNDS_SHOWN);
        report.rounds[from..].to_vec()
    });
    let mut info = ProvingInfo {
        miner,
        current_epoch: now.current_epoch,
        period_start: now.period_start,
        proving_period: now.w_post_proving_period,
        deadline: format!("{} of {}", now.index, now.w_post_period_deadlines),
        deadline_open: now.open,
        deadline_close: now.close,
        sectors: sum(|r| r.sectors),
        faulty: sum(|r| r.faulty),
        recovering: sum(|r| r.recovering),
        missed_lately: missed.len() as u64,
        troubles: Vec::new(),
        restart: period.restart(),
        next_opens_in_seconds: next.as_ref().and_then(|row| row.open).and_then(|open| period.seconds_to(open)),
        open_deadline,
        next_deadline: next,
        faults: faults.into_iter().take(FAULTY_PARTITIONS_NAMED).collect(),
        missed,
        left_out: concerns.window_post().map(left_out).unwrap_or_default(),
        rounds: rounds.unwrap_or_default(),
        off: concerns.off(),
        deadlines_unknown: None,
    };
    info.troubles = troubles(&info, concerns);
    info
}

/// What the concerns tell where the deadlines cannot be read.
pub fn without_deadlines(miner: String, epoch: ChainEpoch, why: &str, concerns: &Concerns) -> ProvingInfo {
    let (now, rows) = (DeadlineInfo { current_epoch: epoch, ..DeadlineInfo::default() }, []);
    let period = Period { rows: &rows, now: &now, block_delay: None };
    let mut info = proving_info(miner, &period, Vec::new(), concerns);
    info.deadlines_unknown = Some(why.to_string());
    info.deadline = String::new();
    let unknown = "unknown: the deadlines cannot be read".to_string();
    info.restart = Restart { safe: false, why: unknown, ..Restart::default() };
    let place = usize::from(!info.missed.is_empty());
    info.troubles.insert(place, deadlines_trouble(why));
    info
}

pub fn deadlines_trouble(why: &str) -> Trouble {
    Trouble::new(format!("the deadlines cannot be read: {why}"), "see the full node's log")
}

/// Proofs that were missed cost most, and come first of all that is said.
pub fn missed_trouble(missed: &[Missed]) -> Option<Trouble> {
    let last = missed.first()?;
    let what = format!(
        "{} missed lately, the last for deadline {} that closed at epoch {}: {}",
        missed.len(),
        last.deadline,
        last.close,
        last.why
    );
    Some(Trouble::new(what, "see the log of that time"))
}

/// The gravest first.
fn troubles(info: &ProvingInfo, concerns: &Concerns) -> Vec<Trouble> {
    let mut all: Vec<Trouble> = missed_trouble(&info.missed).into_iter().collect();
    if let Some(Err(why)) = &concerns.window_post {
        all.push(Trouble::new(format!("WindowPoSt does not answer: {why}"), "see `bulkhead tree`"));
    }
    if let Some(open) = &info.open_deadline {
        let failing = open.batches.iter().find_map(|batch| {
            // A later phase means that another attempt got over it.
            let error = batch.error.as_ref().filter(|_| matches!(batch.phase.as_str(), "waiting" | "proving"))?;
            Some(format!("deadline {}, partitions {:?}: {error}", open.row.index, batch.partitions))
        });
        let failing = failing.or_else(|| {
            open.error
                .as_ref()
                .map(|error| format!("deadline {}: its partitions cannot be read: {error}", open.row.index))
        });
        all.extend(failing.map(|what| Trouble::new(what, "it is tried again until the deadline closes")));
    }
    // Later they are faults, which are named below; the reasons stay in `left_out`.
    let open = |group: &&LeftOutSectors| group.close > info.current_epoch;
    let groups: Vec<&LeftOutSectors> = info.left_out.iter().filter(open).collect();
    if let Some(first) = groups.first() {
        let count: u64 = groups.iter().map(|group| group.count).sum();
        let (numbers, why) = (&first.first[..first.first.len().min(FAULTS_NAMED)], &first.why);
        let what =
            format!("{count} sectors are left out of window proofs, {numbers:?} of deadline {}: {why}", first.deadline);
        all.push(Trouble::new(what, "those that can be read before the deadline closes are proven; see the log"));
    }
    if info.faulty > info.recovering {
        let what = format!(
            "{} of {} sectors are faulty, {} of them declared recovered",
            info.faulty, info.sectors, info.recovering
        );
        all.push(Trouble::new(what, "bring their files back: they are declared recovered and proven by themselves"));
    } else if info.faulty > 0 {
        let what = format!("{} faulty sectors are declared recovered", info.faulty);
        all.push(Trouble::new(what, "wait: their next windows prove them"));
    }
    match &concerns.winning_post {
        None => {}
        Some(Err(why)) => all.push(Trouble::new(format!("WinningPoSt does not answer: {why}"), "see `bulkhead tree`")),
        Some(Ok(report)) => all.extend(report.rounds.last().and_then(|round| match &round.outcome {
            RoundOutcome::Refused { why } | RoundOutcome::Failed { why } => {
                Some(Trouble::new(format!("the block of round {} was lost: {why}", round.round), "see the log"))
            }
            RoundOutcome::Late { why }
                if info.rounds.iter().all(|r| matches!(r.outcome, RoundOutcome::Late { .. })) =>
            {
                Some(Trouble::new(
                    format!("every round is late: {why}"),
                    "look at the load and the disks of the prover",
                ))
            }
            _ => None,
        })),
    }
    all
}

#[cfg(test)]
#[path = "proving_report_tests.rs"]
mod tests;
