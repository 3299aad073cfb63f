//! The progress of a devnet as a value; the changes between two of them; when it has shown enough. All pure.

use crate::cli::render::time::elapsed;
use crate::config::values::{format_duration, format_size};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The event that `--exit-after` waits for.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitAfter {
    /// A sector is Proving
    SectorProving,
    /// A WindowPoSt of the provider was accepted
    WindowPost,
    /// A block of the provider is on chain
    Block,
    /// All of these
    All,
}

/// One look at everything. Times are Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    pub keys: Option<KeyProgress>,
    pub head: Option<HeadProgress>,
    pub sectors: Vec<SectorProgress>,
    /// Sealing tasks under way.
    pub tasks: Vec<Task>,
    /// Kind of task -> how many run, and how many may.
    pub slots: BTreeMap<String, (u64, u64)>,
    pub deadline: Option<DeadlineProgress>,
    /// The next one with something to prove.
    pub next_deadline: Option<NextDeadline>,
    pub window_posts_accepted: u64,
    pub blocks_won: u64,
    pub power: Option<Power>,
    /// Over the whole tree.
    pub restarts: u64,
    /// The actor that restarted last and why, for the log line.
    pub last_restart: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyProgress {
    pub name: String,
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeadProgress {
    pub height: i64,
    /// Time to the next epoch: the warm-up's until the provider has power.
    #[serde(rename = "delay_ms", serialize_with = "milliseconds")]
    pub delay: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SectorProgress {
    pub number: u64,
    /// Lotus' name of the state: PreCommit1, WaitSeed, Proving, ..
    pub state: String,
    pub since: u64,
    /// Every state so far with its time of entry, the present one last; may be left empty, then looks decide.
    pub states: Vec<(String, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeadlineProgress {
    pub index: u64,
    pub of: u64,
    pub open: i64,
    pub close: i64,
    pub partitions: u64,
    pub proven: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NextDeadline {
    pub index: u64,
    pub open: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    pub sector: u64,
    /// `pc1`, `c2`, ..
    pub name: String,
    pub since: u64,
    /// How long it should take, in milliseconds: as long as the last one, or as one takes on so many cores. `None`: not known.
    pub expected: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Power {
    pub miner: u64,
    pub total: u64,
}

fn milliseconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(d.as_millis() as u64)
}

/// The state in which a sector earns.
pub const PROVING: &str = "Proving";

pub fn reached(exit_after: ExitAfter, p: &Progress) -> bool {
    let sector = p.sectors.iter().any(|s| s.state == PROVING);
    let (window_post, block) = (p.window_posts_accepted > 0, p.blocks_won > 0);
    match exit_after {
        ExitAfter::SectorProving => sector,
        ExitAfter::WindowPost => window_post,
        ExitAfter::Block => block,
        ExitAfter::All => sector && window_post && block,
    }
}

/// One thing that happened: a log line, a JSON line, or a line above the live screen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProgressEvent {
    /// A step of the start: `chain`, `miner`, `node`; `text` says what is there now.
    Ready {
        what: &'static str,
        text: String,
    },
    Keys {
        key: String,
        done: u64,
        total: u64,
    },
    Head {
        height: i64,
        delay_ms: u64,
    },
    Sector {
        number: u64,
        state: String,
        from: Option<String>,
        after_ms: Option<u64>,
    },
    Deadline {
        index: u64,
        of: u64,
        open: i64,
        close: i64,
        partitions: u64,
    },
    Proven {
        index: u64,
        partitions: u64,
        of: u64,
    },
    WindowPost {
        accepted: u64,
    },
    Block {
        won: u64,
    },
    Power {
        miner: u64,
        total: u64,
    },
    Restart {
        restarts: u64,
        last: Option<String>,
    },
    Stopping {
        why: String,
    },
}

impl ProgressEvent {
    /// Told above the live screen too; the rest is on the screen anyhow.
    pub fn is_news(&self) -> bool {
        match self {
            ProgressEvent::Ready { .. }
            | ProgressEvent::Sector { .. }
            | ProgressEvent::WindowPost { .. }
            | ProgressEvent::Block { .. }
            | ProgressEvent::Restart { .. }
            | ProgressEvent::Stopping { .. } => true,
            ProgressEvent::Keys { .. }
            | ProgressEvent::Head { .. }
            | ProgressEvent::Deadline { .. }
            | ProgressEvent::Proven { .. }
            | ProgressEvent::Power { .. } => false,
        }
    }
}

impl std::fmt::Display for ProgressEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProgressEvent::Ready { what, text } => write!(f, "{what}: {text}"),
            ProgressEvent::Keys { key, done, total } => write!(f, "keys: {key} {} %", tenth(*done, *total) * 10),
            ProgressEvent::Head { height, delay_ms } => {
                write!(f, "chain: epoch {height}, next in {}", format_duration(Duration::from_millis(*delay_ms)))
            }
            ProgressEvent::Sector { number, state, from, after_ms } => {
                write!(f, "sector {number}: {state}")?;
                match (from, after_ms) {
                    (Some(from), Some(ms)) => write!(f, " (after {} of {from})", elapsed(Duration::from_millis(*ms))),
                    _ => Ok(()),
                }
            }
            ProgressEvent::Deadline { index, of, open, close, partitions } => {
                write!(f, "deadline {index} of {of}: open from {open} to {close}, {partitions} to prove")
            }
            ProgressEvent::Proven { index, partitions, of } => {
                write!(f, "deadline {index}: {partitions} of {of} proven")
            }
            ProgressEvent::WindowPost { accepted } => write!(f, "WindowPoSt accepted ({accepted} so far)"),
            ProgressEvent::Block { won } => write!(f, "block won ({won} so far)"),
            ProgressEvent::Power { miner, total } => {
                write!(f, "power: {} of {}", format_size(*miner), format_size(*total))
            }
            ProgressEvent::Restart { restarts, last: Some(last) } => write!(f, "restart: {last} ({restarts} so far)"),
            ProgressEvent::Restart { restarts, last: None } => write!(f, "restart ({restarts} so far)"),
            ProgressEvent::Stopping { why } => write!(f, "stopping: {why}"),
        }
    }
}

fn tenth(done: u64, total: u64) -> u64 {
    (done.saturating_mul(10)).checked_div(total).unwrap_or(0)
}

/// The events between two snapshots, in reading order.
pub fn diff(old: &Progress, new: &Progress) -> Vec<ProgressEvent> {
    let mut events = Vec::new();
    if let Some(k) = &new.keys {
        let step = |k: &KeyProgress| (k.name.clone(), tenth(k.done, k.total));
        if old.keys.as_ref().map(step) != Some(step(k)) {
            events.push(ProgressEvent::Keys { key: k.name.clone(), done: k.done, total: k.total });
        }
    }
    if let Some(head) = new.head.filter(|h| old.head.map(|o| o.height) != Some(h.height)) {
        events.push(ProgressEvent::Head { height: head.height, delay_ms: head.delay.as_millis() as u64 });
    }
    for sector in &new.sectors {
        events.extend(sector_events(old.sectors.iter().find(|s| s.number == sector.number), sector));
    }
    if let Some(power) = new.power.filter(|p| Some(*p) != old.power && p.miner > 0) {
        events.push(ProgressEvent::Power { miner: power.miner, total: power.total });
    }
    if let Some(d) = new.deadline {
        let before = old.deadline.filter(|o| (o.index, o.open) == (d.index, d.open));
        if before.is_none() {
            let DeadlineProgress { index, of, open, close, partitions, .. } = d;
            events.push(ProgressEvent::Deadline { index, of, open, close, partitions });
        }
        if d.proven > before.map_or(0, |b| b.proven) {
            events.push(ProgressEvent::Proven { index: d.index, partitions: d.proven, of: d.partitions });
        }
    }
    if new.window_posts_accepted > old.window_posts_accepted {
        events.push(ProgressEvent::WindowPost { accepted: new.window_posts_accepted });
    }
    if new.blocks_won > old.blocks_won {
        events.push(ProgressEvent::Block { won: new.blocks_won });
    }
    if new.restarts > old.restarts {
        events.push(ProgressEvent::Restart { restarts: new.restarts, last: new.last_restart.clone() });
    }
    events
}

/// A look each second misses short states; the sector's own history has them.
fn sector_events(old: Option<&SectorProgress>, new: &SectorProgress) -> Vec<ProgressEvent> {
    let event = |from: Option<(&str, u64)>, state: &str, at: u64| ProgressEvent::Sector {
        number: new.number,
        state: state.to_string(),
        from: from.map(|(name, _)| name.to_string()),
        after_ms: from.map(|(_, since)| at.saturating_sub(since)),
    };
    if new.states.is_empty() {
        return match old {
            Some(old) if old.state == new.state => vec![],
            _ => vec![event(old.map(|o| (o.state.as_str(), o.since)), &new.state, new.since)],
        };
    }
    let known = old.map_or(0, |o| o.states.len());
    (known..new.states.len())
        .map(|i| {
            let before = i.checked_sub(1).map(|b| (new.states[b].0.as_str(), new.states[b].1));
            event(before, &new.states[i].0, new.states[i].1)
        })
        .collect()
}

/// The live screen, below the news and the keys' bar. `now` in Unix milliseconds.
pub fn screen(p: &Progress, now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(head) = p.head {
        lines.push(format!("chain      epoch {}, a block every {}", head.height, format_duration(head.delay)));
    }
    for s in &p.sectors {
        let since = elapsed(Duration::from_millis(now.saturating_sub(s.since)));
        let left = p.tasks.iter().find(|task| task.sector == s.number).and_then(|task| left(task, now));
        lines.push(format!("sector {:<3} {} for {since}{}", s.number, s.state, left.unwrap_or_default()));
    }
    if let Some(d) = p.deadline {
        let state = match (d.partitions, d.proven) {
            (0, _) => "nothing to prove".to_string(),
            (all, done) if done >= all => "proven".to_string(),
            (all, done) => format!("{done} of {all} proven"),
        };
        let next = p.next_deadline.map(|next| match p.head {
            Some(head) => {
                let epochs = u32::try_from(next.open - head.height).unwrap_or(0);
                format!("; next {} in {}", next.index, elapsed(head.delay.saturating_mul(epochs)))
            }
            None => format!("; next {} at epoch {}", next.index, next.open),
        });
        let next = next.unwrap_or_default();
        lines.push(format!("deadline   {} of {}, open from {} to {}: {state}{next}", d.index, d.of, d.open, d.close));
    }
    if !p.slots.is_empty() {
        let slots: Vec<String> = p.slots.iter().map(|(task, (used, all))| format!("{task} {used}/{all}")).collect();
        lines.push(format!("slots      {}", slots.join(", ")));
    }
    if let Some(power) = p.power {
        lines.push(format!("power      {} of {}", format_size(power.miner), format_size(power.total)));
    }
    if p.head.is_some() {
        let count = |n: u64, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
        lines.push(format!(
            "so far     {}, {}, {}",
            count(p.window_posts_accepted, "WindowPoSt accepted", "WindowPoSts accepted"),
            count(p.blocks_won, "block won", "blocks won"),
            count(p.restarts, "restart", "restarts"),
        ));
    }
    lines
}

/// Time left of a task; `None` for a short one, which is over before anybody has read it.
fn left(task: &Task, now: u64) -> Option<String> {
    const SHORT: u64 = 3_000;
    let expected = task.expected.filter(|expected| *expected >= SHORT)?;
    Some(match expected.checked_sub(now.saturating_sub(task.since)) {
        Some(left) => format!(", about {} left", elapsed(Duration::from_millis(left))),
        None => ", longer than expected".to_string(),
    })
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
