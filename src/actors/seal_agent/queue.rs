//! The agent's tasks and who has which: pure. A task is with one worker at a time, under a lease that its heartbeats
//! extend; what is furthest goes first, so that sectors finish before others begin.

use super::messages::{AgentTask, JobState, Slots};
use super::resources;
use crate::actors::seal_jobs::{JobFailed, SealJob, StepKind};
use crate::proofs::Output;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The agent's own hands; their tasks end with its process.
pub const OURSELVES: &str = "agent";

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum State {
    Queued,
    Given { to: String },
    Done(Result<Output, JobFailed>),
}

/// As it is journaled.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Entry {
    pub job: SealJob,
    /// Orders tasks of the same kind: Unix milliseconds.
    pub accepted: u64,
    pub state: State,
}

impl Entry {
    /// `name`: of a worker, by its id.
    pub fn shown(&self, name: impl Fn(&str) -> String) -> AgentTask {
        let (state, worker, error) = match &self.state {
            State::Queued => ("queued", None, None),
            State::Given { to } => ("running", Some(name(to)), None),
            State::Done(Ok(_)) => ("done", None, None),
            State::Done(Err(failed)) => ("failed", None, Some(failed.error.clone())),
        };
        AgentTask {
            id: self.job.id(),
            sector: self.job.number,
            task: self.job.step.kind().name().to_string(),
            state: state.to_string(),
            worker,
            accepted: self.accepted,
            error,
        }
    }
}

/// The resources that a worker has free.
#[derive(Clone, Copy, Debug)]
pub struct FreeSlots {
    pub slots: Slots,
    pub memory: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Accept {
    /// New, or one that had failed: write it, with these others gone.
    Write { entry: Box<Entry>, gone: Vec<String> },
    /// The same job is under way or done.
    Known,
}

#[derive(Default)]
pub struct Queue {
    entries: BTreeMap<String, Entry>,
    /// The end of each worker's lease on a task; our own tasks have none. Not the wall clock's time: a step of that would
    /// take every task from workers that go on with it.
    leases: BTreeMap<String, Instant>,
    /// Overtaken while a worker had them: it has to let go before another touches the files. Who, and until when at most;
    /// `None`: until it says so.
    leaving: BTreeMap<String, (String, Option<Instant>)>,
}

impl Queue {
    /// Restores the journal. Workers may still be running their tasks, so each lease is renewed once.
    pub fn load(entries: impl IntoIterator<Item = Entry>, now: Instant, lease: Duration) -> Queue {
        let mut queue = Queue::default();
        for mut entry in entries {
            let id = entry.job.id();
            match &entry.state {
                State::Given { to } if to == OURSELVES => entry.state = State::Queued,
                State::Given { .. } => drop(queue.leases.insert(id.clone(), now + lease)),
                State::Queued | State::Done(_) => {}
            }
            queue.entries.insert(id, entry);
        }
        queue
    }

    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The effect of accepting a job; apply it with [`Queue::accepted`] once it is written. `now`: Unix milliseconds.
    pub fn accept(&self, job: &SealJob, now: u64) -> Accept {
        let id = job.id();
        if let Some(known) = self.entries.get(&id)
            && !matches!(known.state, State::Done(Err(_)))
        {
            return Accept::Known;
        }
        let same_sector = |e: &&Entry| e.job.miner == job.miner && e.job.number == job.number && e.job.id() != id;
        let gone = self.entries.values().filter(same_sector).map(|e| e.job.id()).collect();
        Accept::Write { entry: Box::new(Entry { job: job.clone(), accepted: now, state: State::Queued }), gone }
    }

    pub fn accepted(&mut self, entry: Entry, gone: &[String]) {
        for id in gone {
            let Some(old) = self.entries.remove(id) else { continue };
            if let State::Given { to } = old.state {
                let until = self.leases.remove(id);
                self.leaving.insert(id.clone(), (to, until));
            }
        }
        self.entries.insert(entry.job.id(), entry);
    }

    pub fn remove(&mut self, id: &str) -> bool {
        self.leases.remove(id);
        self.entries.remove(id).is_some()
    }

    /// The task that `worker` gets next, if it has the room for one.
    pub fn next(&self, worker: &str, room: &FreeSlots, size: impl Fn(&SealJob) -> u64) -> Option<&Entry> {
        let taken = |kind: StepKind| {
            let same = |e: &&Entry| e.state.is_given_to(worker) && lane(e.job.step.kind()) == lane(kind);
            self.entries.values().filter(same).count() as u32
        };
        let busy =
            |job: &SealJob| self.leaving.keys().any(|id| id.starts_with(&format!("s-t0{}-{}-", job.miner, job.number)));
        let fits = |e: &&Entry| {
            let kind = e.job.step.kind();
            let light = kind.is_light();
            let slot = if light { worker == OURSELVES } else { taken(kind) < room.slots.of(kind) };
            e.state == State::Queued
                && slot
                && !busy(&e.job)
                && (light || resources::memory(kind, size(&e.job)) <= room.memory)
        };
        let order = |e: &&Entry| (std::cmp::Reverse(e.job.step.kind()), e.accepted, e.job.number);
        self.entries.values().filter(fits).min_by_key(order)
    }

    pub fn given(&mut self, id: &str, worker: &str, now: Instant, lease: Duration) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.state = State::Given { to: worker.to_owned() };
            if worker != OURSELVES {
                self.leases.insert(id.to_owned(), now + lease);
            }
        }
    }

    /// Extends what `worker` has; answers what it has lost.
    pub fn beat(&mut self, worker: &str, running: &[String], now: Instant, lease: Duration) -> Vec<String> {
        let has = |e: Option<&Entry>| e.is_some_and(|e| e.state.is_given_to(worker));
        let (kept, lost): (Vec<_>, Vec<_>) = running.iter().cloned().partition(|id| has(self.entries.get(id)));
        for id in kept {
            self.leases.insert(id, now + lease);
        }
        // What it does not name any more it has let go.
        self.leaving.retain(|id, (who, _)| who != worker || running.contains(id));
        lost
    }

    /// True if the result counts: only the worker that holds the task may finish it.
    pub fn may_finish(&self, worker: &str, id: &str) -> bool {
        self.entries.get(id).is_some_and(|e| e.state.is_given_to(worker))
    }

    pub fn finished(&mut self, id: &str, result: Result<Output, JobFailed>) {
        self.leases.remove(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.state = State::Done(result);
        }
    }

    /// Our own prover has ended a task, done or overtaken. True if its result counts.
    pub fn own_ended(&mut self, id: &str) -> bool {
        self.leaving.remove(id);
        self.may_finish(OURSELVES, id)
    }

    /// Tasks whose worker was silent for a lease: they wait again.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        self.leaving.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        let late: Vec<String> =
            self.leases.iter().filter(|(_, until)| **until <= now).map(|(id, _)| id.clone()).collect();
        for id in &late {
            self.leases.remove(id);
            if let Some(entry) = self.entries.get_mut(id) {
                entry.state = State::Queued;
            }
        }
        late
    }

    pub fn state(&self, id: &str) -> JobState {
        match self.entries.get(id).map(|e| &e.state) {
            None => JobState::Unknown,
            Some(State::Queued) => JobState::Queued,
            Some(State::Given { to }) => JobState::Running { by: to.clone() },
            Some(State::Done(Ok(output))) => JobState::Done(output.clone()),
            Some(State::Done(Err(failed))) => JobState::Failed(failed.clone()),
        }
    }

    pub fn running(&self, worker: &str) -> Vec<String> {
        self.entries.values().filter(|e| e.state.is_given_to(worker)).map(|e| e.job.id()).collect()
    }

    pub fn queued(&self) -> u64 {
        self.entries.values().filter(|e| e.state == State::Queued).count() as u64
    }
}

impl State {
    pub fn is_given_to(&self, worker: &str) -> bool {
        matches!(self, State::Given { to } if to == worker)
    }
}

/// C1 and C2 share a worker's slots.
fn lane(kind: StepKind) -> StepKind {
    if kind == StepKind::C1 { StepKind::C2 } else { kind }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
