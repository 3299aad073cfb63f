//! The journaled sectors of one miner and what runs for them: what is due, what came of it, on disk before it counts.

use super::machine::{self, Event, Follow, Rules};
use super::messages::{SectorDetail, SectorSummary};
use super::plan::{Action, Candidate, Limits, action, admit, due_at};
use super::sector::{Phase, Sector};
use crate::failpoint;
use crate::store::{Record, Store, StoreError, Token};
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

struct Running {
    action: Action,
    run: u64,
    away: bool,
}

/// Something to carry out now; [`Driver::done`] takes what came of it.
#[derive(Clone, Debug)]
pub struct Work {
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
    pledges: BTreeMap<String, PledgeRecord>,
    running: HashMap<u64, Running>,
    runs: u64,
    /// The head at which a polling sector last asked.
    polled: HashMap<u64, i64>,
    /// After a write that failed: not again before.
    held: HashMap<u64, u64>,
}

impl Driver {
    /// Reads the journal. `scope` is the miner's address.
    pub fn load(store: Store, token: Token, scope: String, rules: Rules, limits: Limits) -> Result<Driver, StoreError> {
        let prefix = format!("{scope}/");
        let sectors = store.list_prefix::<Sector>(&prefix)?.into_iter().map(|(_, s)| (s.number, s)).collect();
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
            pledges,
            running: HashMap::new(),
            runs: 0,
            polled: HashMap::new(),
            held: HashMap::new(),
        })
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
        self.sectors.insert(number, sector);
        Ok(())
    }

    /// What starts now, marked as running. `head` is the newest known height.
    pub fn due(&mut self, now: u64, head: Option<i64>) -> Vec<Work> {
        let candidates = self
            .sectors
            .values()
            .filter(|s| !self.running.contains_key(&s.number))
            .filter(|s| due_at(s).is_some_and(|at| at <= now))
            .filter(|s| self.held.get(&s.number).is_none_or(|at| *at <= now))
            .filter(|s| {
                let action = action(s.phase);
                let asked = self.polled.get(&s.number).copied();
                match head {
                    Some(head) => !action.is_poll() || asked.is_none_or(|at| at != head),
                    None => !action.needs_head(),
                }
            })
            .map(|s| Candidate { number: s.number, phase: s.phase, away: s.location.is_some() })
            .collect();
        let running: Vec<Action> = self.running.values().filter(|r| !r.away).map(|r| r.action).collect();
        let sealing = self.sectors.values().filter(|s| s.phase.is_sealing() || self.running.contains_key(&s.number));
        let chosen = admit(candidates, &running, sealing.count(), &self.limits);
        chosen.into_iter().filter_map(|c| self.begin(c.number, head)).collect()
    }

    fn begin(&mut self, number: u64, head: Option<i64>) -> Option<Work> {
        let sector = self.sectors.get(&number)?.clone();
        let action = action(sector.phase);
        self.runs += 1;
        let run = self.runs;
        self.running.insert(number, Running { action, run, away: sector.location.is_some() });
        if let (true, Some(head)) = (action.is_poll(), head) {
            self.polled.insert(number, head);
        }
        Some(Work { sector, action, run })
    }

    /// What came of a run: the next record is on disk when this returns. A run that was overtaken counts for nothing.
    /// After an error the same action runs again a little later; all of them can.
    pub fn done(&mut self, number: u64, run: u64, event: Event, now: u64) -> Result<(), StoreError> {
        if self.running.get(&number).is_none_or(|r| r.run != run) {
            return Ok(());
        }
        self.running.remove(&number);
        self.apply(number, event, now).inspect_err(|_| {
            self.held.insert(number, now + self.rules.soft_wait);
        })
    }

    /// An operator's removal; ends what runs for the sector.
    pub fn remove(&mut self, number: u64, why: &str, even_if_proving: bool, now: u64) -> Result<(), RemoveError> {
        let sector = self.sectors.get(&number).ok_or(RemoveError::Unknown(number))?;
        if sector.phase == Phase::Proving && !even_if_proving {
            return Err(RemoveError::Proving(number));
        }
        self.apply(number, Event::RemoveRequested(why.to_owned()), now)?;
        self.running.remove(&number);
        Ok(())
    }

    fn apply(&mut self, number: u64, event: Event, now: u64) -> Result<(), StoreError> {
        let Some(before) = self.sectors.get(&number) else { return Ok(()) };
        let (after, follow) = machine::next(before, event, now, &self.rules);
        if after == *before {
            return Ok(());
        }
        let moved = after.phase != before.phase;
        let same_place = after.location == before.location;
        let only_reason =
            !moved && same_place && after.log.len() == before.log.len() && after.wait_until == before.wait_until;
        if only_reason && after.gone_since == before.gone_since {
            // Why it waits changes with every head and can be asked again: not worth a disk write.
            self.sectors.insert(number, after);
            return Ok(());
        }
        if moved {
            failpoint::hit("leave", before.phase);
        }
        let sector_key = self.sector_key(number);
        let again = follow.map(|Follow::PledgeAgain { request }| (self.pledge_key(&request), request));
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
        self.sectors.insert(number, after);
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
            retry_at: s.retry.map(|r| r.at).or(s.wait_until),
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
