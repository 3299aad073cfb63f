//! The journaled sectors of one miner and what runs for them: what is due, what came of it, on disk before it counts.

mod views;

use super::holds::{Holds, Tried, step_of};
use super::journal::Sectors;
use super::machine::{self, Event, FollowUp, Rules};
use super::phase::{Action, Phase, Pool};
use super::plan::Limits;
use super::ready::{Busy, Chosen, Pace, Ready};
use super::room::{Began, Promised};
use super::sector::Sector;
use crate::actors::seal_agent::memory_of;
use crate::chain::proof_types;
use crate::failpoint;
use crate::store::{Record, Store, StoreError, Token};
use crate::util::Repeats;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// How many polling sectors read the chain at each head on the mere chance of news. The others learn theirs from what
/// all share ([`super::head_answers`]) and from the message sender, and read once there is some.
const READS_PER_HEAD: usize = 32;

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
    began: Began,
    /// Bytes that it may take of this host.
    memory: u64,
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

/// Something to carry out now; [`Driver::done`] takes what came of it.
#[derive(Clone, Debug)]
pub struct ActionRun {
    pub sector: Sector,
    pub action: Action,
    /// Tells this run from a later one of the same sector.
    pub run: u64,
    /// How long the last such task took that was done, in milliseconds.
    pub last_took: Option<u64>,
    /// The others' promised room on the disks; only for an action that asks for room.
    pub promised: Promised,
    /// Bytes of memory that the tasks under way here may take in all.
    pub memory: u64,
    /// Set once it does not wait for its turn any more.
    pub began: Began,
    /// A polling sector may read the chain without a sign that it has news for it: at a head a few of them do, in turn.
    pub may_read: bool,
}

pub struct Driver {
    store: Store,
    token: Token,
    scope: String,
    rules: Rules,
    limits: Limits,
    sectors: Sectors,
    /// Kind of task -> how long the last one took that was done. Milliseconds.
    took: HashMap<Action, u64>,
    /// The wishes that still lack a number, and when each was made. The others are on disk only.
    unnumbered: BTreeMap<String, u64>,
    running: HashMap<u64, RunningAction>,
    /// The runs of sectors that do not count as being sealed yet.
    describing: usize,
    /// The runs that take a slot here.
    busy: Busy,
    runs: u64,
    /// The idle sectors, by what they wait for.
    ready: Ready,
    /// Only of sectors of which there is something to know.
    paces: HashMap<u64, Pace>,
    /// Actions that fail in a row, by sector; looks for room that found none, by queue.
    repeats: Repeats<Tried>,
    holds: Holds,
    /// Keys of records that could not be read at the start, with the reason.
    damaged: Vec<(String, String)>,
}

impl Driver {
    /// Reads the journal. `scope` is the miner's address.
    pub fn load(store: Store, token: Token, scope: String, rules: Rules, limits: Limits) -> Result<Driver, StoreError> {
        let prefix = format!("{scope}/");
        let (mut sectors, mut took) = (Sectors::default(), HashMap::new());
        let mut damaged = Vec::new();
        store.each_readable::<Sector>(&prefix, |key, sector| match sector {
            Ok(sector) => {
                // The shortest of those known: a record does not tell how long a task waited for its turn.
                for (action, ms) in durations(&sector) {
                    let known = took.entry(action).or_insert(ms);
                    *known = ms.min(*known);
                }
                sectors.put(sector);
            }
            Err(why) => damaged.push((key.to_owned(), why)),
        })?;
        let (pledges, damaged_pledges) = store.list_readable::<PledgeRecord>(&prefix)?;
        damaged.extend(damaged_pledges);
        for (key, why) in &damaged {
            tracing::error!(key, "its record cannot be read: it is not sealed on, and nothing of it is touched: {why}");
        }
        let pledges = pledges.into_iter().filter(|(_, p)| p.number.is_none());
        let unnumbered = pledges.map(|(key, p)| (key[prefix.len()..].to_owned(), p.made)).collect();
        let mut ready = Ready::default();
        sectors.all_whole().for_each(|sector| ready.place(sector, Pace::default(), 0));
        Ok(Driver {
            store,
            token,
            scope,
            rules,
            limits,
            sectors,
            took,
            unnumbered,
            running: HashMap::new(),
            describing: 0,
            busy: Busy::default(),
            runs: 0,
            ready,
            paces: HashMap::new(),
            repeats: Repeats::new(rules.transient_wait, rules.transient_cap),
            holds: Holds::default(),
            damaged,
        })
    }

    /// Notes anew what the sector waits for.
    fn place(&mut self, number: u64, now: u64) {
        match self.sectors.whole(number) {
            Some(sector) if !self.running.contains_key(&number) => {
                self.ready.place(sector, self.paces.get(&number).copied().unwrap_or_default(), now);
            }
            _ => self.ready.forget(number),
        }
    }

    fn set_running(&mut self, number: u64, started: RunningAction) {
        self.describing += usize::from(started.action == Action::Describe);
        if !started.away {
            *self.busy.pools.entry(started.pool).or_default() += 1;
        }
        self.running.insert(number, started);
    }

    fn end_running(&mut self, number: u64) -> Option<RunningAction> {
        let ended = self.running.remove(&number)?;
        self.describing -= usize::from(ended.action == Action::Describe);
        if let (false, Some(busy)) = (ended.away, self.busy.pools.get_mut(&ended.pool)) {
            *busy = busy.saturating_sub(1);
        }
        Some(ended)
    }

    fn sector_key(&self, number: u64) -> String {
        format!("{}/{number:020}", self.scope)
    }

    fn pledge_key(&self, request: &str) -> String {
        format!("{}/{request}", self.scope)
    }

    /// Makes the wish durable. Answers the number if it has one already.
    pub fn pledge(&mut self, request: &str, now: u64) -> Result<Option<u64>, StoreError> {
        if self.unnumbered.contains_key(request) {
            return Ok(None);
        }
        let key = self.pledge_key(request);
        if let Some(known) = self.store.get::<PledgeRecord>(&key)? {
            return Ok(known.number);
        }
        self.store.put(&self.token, &key, &PledgeRecord { made: now, number: None })?;
        self.unnumbered.insert(request.to_owned(), now);
        Ok(None)
    }

    /// Wishes that still lack a number, at most so many.
    pub fn unnumbered(&self, at_most: usize) -> Vec<String> {
        self.unnumbered.keys().take(at_most).cloned().collect()
    }

    /// The allocator's answer: the sector begins to exist, in one transaction with its pledge.
    pub fn numbered(&mut self, request: &str, number: u64, now: u64) -> Result<(), StoreError> {
        let Some(made) = self.unnumbered.get(request).copied() else { return Ok(()) };
        let next = PledgeRecord { made, number: Some(number) };
        let sector = Sector::new(number, request, now);
        failpoint::hit("allocated", number);
        let (sector_key, pledge_key) = (format!("{}/{number:020}", self.scope), format!("{}/{request}", self.scope));
        self.store.transact(&self.token, |tx| {
            tx.put(&pledge_key, &next)?;
            tx.put(&sector_key, &sector)
        })?;
        failpoint::hit("enter", sector.phase);
        self.unnumbered.remove(request);
        self.sectors.put(sector);
        self.place(number, now);
        Ok(())
    }

    /// The work that starts now, marked as running. `head` is the newest known height.
    pub fn due(&mut self, now: u64, head: Option<i64>) -> Vec<ActionRun> {
        for number in self.ready.wake(now) {
            self.place(number, now);
        }
        self.busy.sealing = self.sectors.census.sealing + self.describing;
        self.busy.held = self.holds.at(now);
        let chosen = self.ready.take(head, &self.busy, &self.limits, READS_PER_HEAD);
        chosen.into_iter().filter_map(|chosen| self.begin(chosen, head, now)).collect()
    }

    fn begin(&mut self, Chosen { number, may_read, .. }: Chosen, head: Option<i64>, now: u64) -> Option<ActionRun> {
        let sector = self.sectors.whole(number)?.clone();
        let (action, pool) = (sector.phase.action(), sector.phase.pool());
        self.runs += 1;
        let run = self.runs;
        let away = sector.location.is_some();
        let memory = self.running.values().map(|running| running.memory).sum();
        let size = sector.seal_proof.and_then(proof_types::sector_size).unwrap_or(0);
        let takes = step_of(action).filter(|_| !away).map_or(0, |step| memory_of(step, size));
        let began = Began::default();
        let running = RunningAction { action, pool, run, away, since: now, began: began.clone(), memory: takes };
        self.set_running(number, running);
        if let (true, Some(head)) = (action.is_poll(), head) {
            self.paces.entry(number).or_default().polled = Some(head);
        }
        let promised = match action {
            Action::AddPiece => Promised::of(self.sectors.all_whole(), number),
            _ => Promised::default(),
        };
        let last_took = self.took.get(&action).copied();
        Some(ActionRun { sector, action, run, last_took, promised, memory, began, may_read })
    }

    /// Takes the result of a run: the next record is on disk when this returns. The result of an overtaken run is
    /// ignored. After an error the same action runs again a little later; all of them can.
    pub fn done(&mut self, number: u64, run: u64, event: Event, now: u64) -> Result<(), StoreError> {
        if self.running.get(&number).is_none_or(|r| r.run != run) {
            return Ok(());
        }
        let before = self.sectors.phase(number);
        let ended = self.end_running(number);
        if let Some(pace) = self.paces.get_mut(&number) {
            pace.until = event.not_before();
        }
        // One that did not begin frees nothing: two queues would let each other look again and again.
        let was_done = !matches!(event, Event::NoRoom(_));
        if was_done && ended.as_ref().is_some_and(|ended| ended.action.task().is_some()) {
            self.holds.look_again();
        }
        let pool = ended.as_ref().map(|ended| ended.pool);
        let rules = self.count(number, pool, &event, now);
        let applied = self.apply(number, event, now, &rules);
        // It led on: it was done. An action that failed keeps the phase, or leads to one of failure.
        if let (Some(ended), Some(before), Some(after)) = (ended, before, self.sectors.phase(number))
            && ended.action.task().is_some()
            && after != before
            && after.action() != Action::Retry
        {
            let since_its_turn = ended.began.get().map(|at| at.elapsed().as_millis() as u64);
            self.took.insert(ended.action, since_its_turn.unwrap_or(now.saturating_sub(ended.since)));
        }
        if applied.is_err() {
            self.paces.entry(number).or_default().held = Some(now + self.rules.transient_wait);
        }
        self.place(number, now);
        applied
    }

    /// An action that fails again and again backs off, and is a warning after a few tries. Gives the rules for the transition,
    /// with that pause in them.
    fn count(&mut self, number: u64, pool: Option<Pool>, event: &Event, now: u64) -> Rules {
        let Some(phase) = self.sectors.phase(number) else { return self.rules };
        match event {
            // The wait for another try is neither a failure nor a success.
            Event::RetryDue => {}
            Event::NoRoom(why) => {
                let pool = pool.unwrap_or(phase.pool());
                let repeat = self.repeats.failed(&Tried::Room(pool), why, now);
                if let Some(warning) = repeat.warning {
                    tracing::warn!("{warning}");
                }
                self.holds.hold(pool, now + repeat.pause);
            }
            Event::PreCommitRefused { exit_code, error } | Event::CommitRefused { exit_code, error } => {
                tracing::warn!(sector = number, %phase, exit_code, "a message of a sector was refused: {error}");
            }
            event => match event.failure() {
                Some(why) => {
                    let repeat = self.repeats.failed(&Tried::Sector(number), &format!("{phase}: {why}"), now);
                    if let Some(warning) = repeat.warning {
                        tracing::warn!(sector = number, "{warning}");
                    }
                    return Rules { transient_wait: repeat.pause, ..self.rules };
                }
                None => {
                    self.repeats.over(&Tried::Sector(number));
                    pool.into_iter().for_each(|pool| self.repeats.over(&Tried::Room(pool)));
                }
            },
        }
        self.rules
    }

    /// The sector whose actions fail most often in a row, or a record that cannot be read; `None`: nothing of that.
    pub fn trouble(&self) -> Option<String> {
        let damaged = || {
            let (key, why) = self.damaged.first()?;
            let count = self.damaged.len();
            Some(format!("{count} records cannot be read, the first is {key}: {why}; put a backup of the store back"))
        };
        self.repeats.trouble().or_else(damaged)
    }

    /// An operator's removal; ends what runs for the sector.
    pub fn remove(&mut self, number: u64, why: &str, even_if_proving: bool, now: u64) -> Result<(), RemoveError> {
        let phase = self.sectors.phase(number).ok_or(RemoveError::Unknown(number))?;
        if phase == Phase::Proving && !even_if_proving {
            return Err(RemoveError::Proving(number));
        }
        let rules = self.rules;
        self.apply(number, Event::RemoveRequested(why.to_owned()), now, &rules)?;
        self.end_running(number);
        self.repeats.over(&Tried::Sector(number));
        self.place(number, now);
        Ok(())
    }

    fn apply(&mut self, number: u64, event: Event, now: u64, rules: &Rules) -> Result<(), StoreError> {
        let Some(before) = self.record(number)? else { return Ok(()) };
        let (after, follow) = machine::next(&before, event, now, rules);
        if after == *before {
            return Ok(());
        }
        let moved = after.phase != before.phase;
        let same_place = after.location == before.location;
        let only_reason =
            !moved && same_place && after.log.len() == before.log.len() && after.wait_until == before.wait_until;
        if only_reason && after.gone_since == before.gone_since {
            // Why it waits changes with every head and can be asked again: not worth a disk write.
            self.sectors.put(after);
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
            self.paces.remove(&number);
            self.ready.ends_polling(number);
            failpoint::hit("enter", after.phase);
        }
        if let Some((_, request)) = again {
            self.unnumbered.insert(request, now);
        }
        if let Some(pace) = self.paces.get_mut(&number) {
            pace.held = None;
        }
        self.sectors.put(after);
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
        self.ready.next_time(now).into_iter().chain(self.holds.next_time(now)).min()
    }

    /// How many sectors were looked at so far to find what is due.
    pub fn looked_at(&self) -> u64 {
        self.ready.looked_at()
    }

    /// The record; of a final sector from disk.
    fn record(&self, number: u64) -> Result<Option<Cow<'_, Sector>>, StoreError> {
        match (self.sectors.whole(number), self.sectors.phase(number)) {
            (Some(sector), _) => Ok(Some(Cow::Borrowed(sector))),
            (None, Some(_)) => Ok(self.store.get::<Sector>(&self.sector_key(number))?.map(Cow::Owned)),
            (None, None) => Ok(None),
        }
    }

    pub fn sector(&self, number: u64) -> Result<Option<Sector>, StoreError> {
        Ok(self.record(number)?.map(Cow::into_owned))
    }

    pub fn phase(&self, number: u64) -> Option<Phase> {
        self.sectors.phase(number)
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
