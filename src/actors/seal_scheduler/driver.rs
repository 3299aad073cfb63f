//! The journaled sectors of one miner and what runs for them: what is due, what came of it, on disk before it counts.

use super::machine::{self, Event, FollowUp, Rules};
use super::messages::{SealingSummary, SealingTask, SectorDetail, SectorSummary, Slots};
use super::phase::{Action, Phase, Pool};
use super::plan::{Candidate, Limits, admit, due_at};
use super::sector::Sector;
use crate::failpoint;
use crate::store::{Record, Store, StoreError, Token};
use crate::util::Repeats;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A wish for one sector. The number comes once the allocator has given it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PledgeRecord {
    pub made: u64,
    pub number: Option<u64>,
}

impl Record for PledgeRecord {
    const TABLE: &'static str = "pledges";
}

struct RunningAction {
    action: Action,
    pool: Pool,
    run: u64,
    away: bool,
    /// Unix milliseconds.
    since: u64,
}

/// How many sectors are where; kept up to date with each change, so that asking costs nothing.
#[derive(Default)]
struct Census {
    phases: BTreeMap<Phase, u64>,
    failing: u64,
}

impl Census {
    fn count(&mut self, sector: &Sector) {
        *self.phases.entry(sector.phase).or_default() += 1;
        self.failing += u64::from(is_failing(sector));
    }
    fn forget(&mut self, sector: &Sector) {
        if let Some(count) = self.phases.get_mut(&sector.phase) {
            *count = count.saturating_sub(1);
        }
        self.failing = self.failing.saturating_sub(u64::from(is_failing(sector)));
    }
}

/// How long each task of a sector took that was done.
fn durations(sector: &Sector) -> impl Iterator<Item = (Action, u64)> {
    sector.timings.windows(2).filter_map(|pair| {
        let [done, next] = pair else { return None };
        let failed = next.phase.action() == Action::Retry;
        let ended = done.ended.filter(|_| !failed && done.phase.action().task().is_some())?;
        Some((done.phase.action(), ended.saturating_sub(done.started)))
    })
}

/// As [`SectorSummary::failure`].
fn is_failing(sector: &Sector) -> bool {
    sector.reason.is_some() && retry_at(sector).is_some()
}

fn retry_at(sector: &Sector) -> Option<u64> {
    sector.retry.map(|retry| retry.at).or(sector.wait_until)
}

/// A sector whose actions are counted when they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tried(u64);

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

/// Something to carry out now; [`Driver::done`] takes what came of it.
#[derive(Clone, Debug)]
pub struct ActionRun {
    pub sector: Sector,
    pub action: Action,
    /// Tells this run from a later one of the same sector.
    pub run: u64,
}

pub struct Driver {
    store: Store,
    token: Token,
    scope: String,
    rules: Rules,
    limits: Limits,
    sectors: BTreeMap<u64, Sector>,
    census: Census,
    /// Kind of task -> how long the last one took that was done. Milliseconds.
    took: HashMap<Action, u64>,
    pledges: BTreeMap<String, PledgeRecord>,
    running: HashMap<u64, RunningAction>,
    runs: u64,
    /// The head at which a polling sector last asked.
    polled: HashMap<u64, i64>,
    /// After a write that failed: not again before.
    held: HashMap<u64, u64>,
    /// Actions that fail in a row, by sector.
    repeats: Repeats<Tried>,
}

impl Driver {
    /// Reads the journal. `scope` is the miner's address.
    pub fn load(store: Store, token: Token, scope: String, rules: Rules, limits: Limits) -> Result<Driver, StoreError> {
        let prefix = format!("{scope}/");
        let sectors: BTreeMap<u64, Sector> =
            store.list_prefix::<Sector>(&prefix)?.into_iter().map(|(_, s)| (s.number, s)).collect();
        let mut census = Census::default();
        sectors.values().for_each(|sector| census.count(sector));
        let took = sectors.values().flat_map(durations).collect();
        let pledges = store
            .list_prefix::<PledgeRecord>(&prefix)?
            .into_iter()
            .map(|(key, p)| (key[prefix.len()..].to_owned(), p))
            .collect();
        Ok(Driver {
            store,
            token,
            scope,
            rules,
            limits,
            sectors,
            census,
            took,
            pledges,
            running: HashMap::new(),
            runs: 0,
            polled: HashMap::new(),
            held: HashMap::new(),
            repeats: Repeats::new(rules.transient_wait, rules.transient_cap),
        })
    }

    fn keep(&mut self, sector: Sector) {
        self.census.count(&sector);
        if let Some(old) = self.sectors.insert(sector.number, sector) {
            self.census.forget(&old);
        }
    }

    fn sector_key(&self, number: u64) -> String {
        format!("{}/{number:020}", self.scope)
    }

    fn pledge_key(&self, request: &str) -> String {
        format!("{}/{request}", self.scope)
    }

    /// Makes the wish durable. Answers the number if it has one already.
    pub fn pledge(&mut self, request: &str, now: u64) -> Result<Option<u64>, StoreError> {
        if let Some(known) = self.pledges.get(request) {
            return Ok(known.number);
        }
        let record = PledgeRecord { made: now, number: None };
        self.store.put(&self.token, &self.pledge_key(request), &record)?;
        self.pledges.insert(request.to_owned(), record);
        Ok(None)
    }

    /// Wishes that still lack a number.
    pub fn unnumbered(&self) -> Vec<String> {
        self.pledges.iter().filter(|(_, p)| p.number.is_none()).map(|(r, _)| r.clone()).collect()
    }

    /// The allocator's answer: the sector begins to exist, in one transaction with its pledge.
    pub fn numbered(&mut self, request: &str, number: u64, now: u64) -> Result<(), StoreError> {
        let Some(pledge) = self.pledges.get_mut(request) else { return Ok(()) };
        if pledge.number.is_some() {
            return Ok(());
        }
        let next = PledgeRecord { number: Some(number), ..pledge.clone() };
        let sector = Sector::new(number, request, now);
        failpoint::hit("allocated", number);
        let (sector_key, pledge_key) = (format!("{}/{number:020}", self.scope), format!("{}/{request}", self.scope));
        self.store.transact(&self.token, |tx| {
            tx.put(&pledge_key, &next)?;
            tx.put(&sector_key, &sector)
        })?;
        failpoint::hit("enter", sector.phase);
        *pledge = next;
        self.keep(sector);
        Ok(())
    }

    /// The work that starts now, marked as running. `head` is the newest known height.
    pub fn due(&mut self, now: u64, head: Option<i64>) -> Vec<ActionRun> {
        let candidates = self
            .sectors
            .values()
            .filter(|s| !self.running.contains_key(&s.number))
            .filter(|s| due_at(s).is_some_and(|at| at <= now))
            .filter(|s| self.held.get(&s.number).is_none_or(|at| *at <= now))
            .filter(|s| {
                let action = s.phase.action();
                let asked = self.polled.get(&s.number).copied();
                match head {
                    Some(head) => !action.is_poll() || asked.is_none_or(|at| at != head),
                    None => !action.needs_head(),
                }
            })
            .map(|s| Candidate { number: s.number, phase: s.phase, away: s.location.is_some() })
            .collect();
        let running: Vec<Pool> = self.running.values().filter(|r| !r.away).map(|r| r.pool).collect();
        let sealing = self.sectors.values().filter(|s| s.phase.is_sealing() || self.running.contains_key(&s.number));
        let chosen = admit(candidates, &running, sealing.count(), &self.limits);
        chosen.into_iter().filter_map(|c| self.begin(c.number, head, now)).collect()
    }

    fn begin(&mut self, number: u64, head: Option<i64>, now: u64) -> Option<ActionRun> {
        let sector = self.sectors.get(&number)?.clone();
        let (action, pool) = (sector.phase.action(), sector.phase.pool());
        self.runs += 1;
        let run = self.runs;
        let away = sector.location.is_some();
        self.running.insert(number, RunningAction { action, pool, run, away, since: now });
        if let (true, Some(head)) = (action.is_poll(), head) {
            self.polled.insert(number, head);
        }
        Some(ActionRun { sector, action, run })
    }

    /// Takes the result of a run: the next record is on disk when this returns. The result of an overtaken run is
    /// ignored. After an error the same action runs again a little later; all of them can.
    pub fn done(&mut self, number: u64, run: u64, event: Event, now: u64) -> Result<(), StoreError> {
        if self.running.get(&number).is_none_or(|r| r.run != run) {
            return Ok(());
        }
        let before = self.sectors.get(&number).map(|sector| sector.phase);
        let ended = self.running.remove(&number);
        let rules = self.count(number, &event, now);
        let applied = self.apply(number, event, now, &rules);
        // It led on: it was done. An action that failed keeps the phase, or leads to one of failure.
        if let (Some(ended), Some(before), Some(after)) = (ended, before, self.sectors.get(&number))
            && ended.action.task().is_some()
            && after.phase != before
            && after.phase.action() != Action::Retry
        {
            self.took.insert(ended.action, now.saturating_sub(ended.since));
        }
        applied.inspect_err(|_| {
            self.held.insert(number, now + self.rules.transient_wait);
        })
    }

    /// An action that fails again and again backs off, and is a warning after a few tries. Gives the rules for the transition,
    /// with that pause in them.
    fn count(&mut self, number: u64, event: &Event, now: u64) -> Rules {
        let Some(phase) = self.sectors.get(&number).map(|sector| sector.phase) else { return self.rules };
        match event {
            // The wait for another try is neither a failure nor a success.
            Event::RetryDue => {}
            Event::PreCommitRefused { exit_code, error } | Event::CommitRefused { exit_code, error } => {
                tracing::warn!(sector = number, %phase, exit_code, "a message of a sector was refused: {error}");
            }
            event => match event.failure() {
                Some(why) => {
                    let repeat = self.repeats.failed(&Tried(number), &format!("{phase}: {why}"), now);
                    if let Some(warning) = repeat.warning {
                        tracing::warn!(sector = number, "{warning}");
                    }
                    return Rules { transient_wait: repeat.pause, ..self.rules };
                }
                None => self.repeats.over(&Tried(number)),
            },
        }
        self.rules
    }

    /// The sector whose actions fail most often in a row; `None`: none does.
    pub fn trouble(&self) -> Option<String> {
        self.repeats.trouble()
    }

    /// An operator's removal; ends what runs for the sector.
    pub fn remove(&mut self, number: u64, why: &str, even_if_proving: bool, now: u64) -> Result<(), RemoveError> {
        let sector = self.sectors.get(&number).ok_or(RemoveError::Unknown(number))?;
        if sector.phase == Phase::Proving && !even_if_proving {
            return Err(RemoveError::Proving(number));
        }
        let rules = self.rules;
        self.apply(number, Event::RemoveRequested(why.to_owned()), now, &rules)?;
        self.running.remove(&number);
        self.repeats.over(&Tried(number));
        Ok(())
    }

    fn apply(&mut self, number: u64, event: Event, now: u64, rules: &Rules) -> Result<(), StoreError> {
        let Some(before) = self.sectors.get(&number) else { return Ok(()) };
        let (after, follow) = machine::next(before, event, now, rules);
        if after == *before {
            return Ok(());
        }
        let moved = after.phase != before.phase;
        let same_place = after.location == before.location;
        let only_reason =
            !moved && same_place && after.log.len() == before.log.len() && after.wait_until == before.wait_until;
        if only_reason && after.gone_since == before.gone_since {
            // Why it waits changes with every head and can be asked again: not worth a disk write.
            self.keep(after);
            return Ok(());
        }
        if moved {
            failpoint::hit("leave", before.phase);
        }
        let sector_key = self.sector_key(number);
        let again = follow.map(|FollowUp::PledgeAgain { request }| (self.pledge_key(&request), request));
        let pledge = PledgeRecord { made: now, number: None };
        self.store.transact(&self.token, |tx| {
            if let Some((key, _)) = &again {
                tx.put(key, &pledge)?;
            }
            tx.put(&sector_key, &after)
        })?;
        if moved {
            tracing::info!(sector = number, phase = %after.phase, "{}", after.log.last().map_or("", |l| l.text.as_str()));
            self.polled.remove(&number);
            failpoint::hit("enter", after.phase);
        }
        if let Some((_, request)) = again {
            self.pledges.insert(request, pledge);
        }
        self.held.remove(&number);
        self.keep(after);
        Ok(())
    }

    /// For what starts from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// True while a run of this number still counts.
    pub fn is_running(&self, number: u64, run: u64) -> bool {
        self.running.get(&number).is_some_and(|r| r.run == run)
    }

    /// The next moment at which something becomes due by time alone.
    pub fn next_wake(&self, now: u64) -> Option<u64> {
        self.sectors
            .values()
            .filter(|s| !self.running.contains_key(&s.number))
            .filter_map(|s| Some(due_at(s)?.max(self.held.get(&s.number).copied().unwrap_or(0))))
            .filter(|at| *at > now)
            .min()
    }

    pub fn sector(&self, number: u64) -> Option<&Sector> {
        self.sectors.get(&number)
    }

    pub fn list(&self) -> Vec<SectorSummary> {
        self.sectors.values().map(|s| self.summary(s)).collect()
    }

    pub fn detail(&self, number: u64, now: u64) -> Option<SectorDetail> {
        let sector = self.sectors.get(&number)?;
        Some(SectorDetail { summary: self.summary(sector), sector: sector.clone(), durations: sector.durations(now) })
    }

    pub fn counts(&self) -> SealingSummary {
        let mut slots = BTreeMap::<String, Slots>::new();
        let limited = [
            (Action::AddPiece, Pool::AddPiece),
            (Action::Pc1, Pool::Pc1),
            (Action::Pc2, Pool::Pc2),
            (Action::C1, Pool::C1),
            (Action::C2, Pool::C2),
            (Action::Finalize, Pool::Finalize),
        ];
        for (action, pool) in limited {
            let (Some(task), Some(all)) = (action.task(), self.limits.of(pool)) else { continue };
            slots.insert(task.to_string(), Slots { used: 0, all: all as u64 });
        }
        let here = self.running.values().filter(|running| !running.away);
        for slot in here.filter_map(|running| running.action.task()) {
            slots.entry(slot.to_string()).or_default().used += 1;
        }
        let states = self.census.phases.iter().filter(|(_, count)| **count > 0);
        SealingSummary {
            states: states.map(|(phase, count)| (phase.to_string(), *count)).collect(),
            failing: self.census.failing,
            unnumbered: self.pledges.values().filter(|pledge| pledge.number.is_none()).count() as u64,
            slots,
        }
    }

    /// In order of sectors.
    pub fn tasks(&self) -> Vec<SealingTask> {
        let row = |(number, running): (&u64, &RunningAction)| {
            Some(SealingTask {
                sector: *number,
                task: running.action.task()?.to_string(),
                since: running.since,
                agent: self.sectors.get(number).and_then(|sector| sector.location.clone()),
                last_took_ms: self.took.get(&running.action).copied(),
            })
        };
        let mut tasks: Vec<SealingTask> = self.running.iter().filter_map(row).collect();
        tasks.sort_by_key(|task| task.sector);
        tasks
    }

    /// For a person: what runs, how many sectors are where, what waits for what.
    pub fn show(&self) -> serde_json::Value {
        let mut phases = BTreeMap::<String, usize>::new();
        self.sectors.values().for_each(|sector| *phases.entry(sector.phase.to_string()).or_default() += 1);
        let running: BTreeMap<u64, serde_json::Value> = self
            .running
            .iter()
            .map(|(n, r)| {
                (*n, serde_json::json!({ "action": format!("{:?}", r.action), "run": r.run, "away": r.away }))
            })
            .collect();
        let held: BTreeMap<u64, u64> = self.held.iter().map(|(n, until)| (*n, *until)).collect();
        serde_json::json!({
            "limits": self.limits, "sectors": phases, "running": running,
            "pledges_without_number": self.unnumbered(), "held_after_failed_writes": held,
        })
    }

    fn summary(&self, s: &Sector) -> SectorSummary {
        SectorSummary {
            number: s.number,
            phase: s.phase,
            since: s.timings.last().map_or(s.created, |t| t.started),
            working: self.running.contains_key(&s.number),
            reason: s.reason.clone(),
            location: s.location.clone(),
            retry_at: retry_at(s),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no sector {0}")]
    Unknown(u64),
    #[error("sector {0} is proving: without its files it becomes faulty; terminate it first, or insist")]
    Proving(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}
