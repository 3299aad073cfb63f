//! Works of several steps: ordered starts, group restarts, stops in reverse.

use super::child::{ChildPhase, Ending, Key};
use super::{AdminError, End, Engine, EngineCommand, Work, WorkStage};
use crate::supervisor::exit::Exit;
use crate::supervisor::policy::{Restart, Shutdown};
use std::time::{Duration, Instant};

impl<P> Engine<P> {
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            match self.phase(key) {
                Some(ChildPhase::Starting { ticket }) => {
                    let start_ticket = *ticket;
                    let limit = self.children.get(&key).map_or(Duration::ZERO, |c| c.rules.start_timeout);
                    let exit = Some(Exit::Failed(format!("its start took longer than {limit:?}")));
                    self.kill(now, key, Ending { was_start: true, start_ticket, exit, ..Ending::by_rule() });
                }
                // Its group stops, or waits: its turn comes with the others'.
                Some(ChildPhase::Backoff) if matches!(self.work, Work::Group { from, stage: WorkStage::Stopping | WorkStage::Waiting { .. }, .. } if key >= from) =>
                {
                    self.set(key, ChildPhase::Queued { ticket: None }, None);
                }
                Some(ChildPhase::Backoff) => self.start(now, key, None),
                Some(ChildPhase::Ending(e)) if e.killed => self.abandon(now, key),
                Some(ChildPhase::Ending(e)) => {
                    let ending = e.clone();
                    self.kill(now, key, ending);
                }
                Some(ChildPhase::Idle | ChildPhase::Queued { .. } | ChildPhase::Up { .. } | ChildPhase::Dead)
                | None => {
                    self.timers.remove(&(at, key));
                }
            }
        }
    }

    /// Does whatever the present work allows next, until it must wait for an event.
    pub(super) fn advance(&mut self, now: Instant) {
        loop {
            let again = match &self.work {
                Work::Idle | Work::Ended => false,
                Work::Beginning => self.start_next(now, 0),
                Work::Running => match self.deferred.pop_front() {
                    Some(key) => {
                        if let Some(ChildPhase::Dead) = self.phase(key) {
                            self.set(key, ChildPhase::Idle, None);
                            self.apply_rule(now, key);
                        }
                        true
                    }
                    None => match self.upgrades.pop_front() {
                        Some(upgrade) => {
                            self.apply_upgrade(upgrade);
                            true
                        }
                        None => false,
                    },
                },
                Work::Group { from, stage, delay } => {
                    let (from, stage, delay) = (*from, *stage, *delay);
                    self.advance_group(now, from, stage, delay)
                }
                Work::Closing { end, asked } => {
                    let (end, asked) = (end.clone(), *asked);
                    self.advance_close(now, end, asked)
                }
            };
            if !again {
                return;
            }
        }
    }

    /// Starts the next queued child from `from` on, one at a time. True: all are up, and the supervisor now runs.
    pub(super) fn start_next(&mut self, now: Instant, from: Key) -> bool {
        if self.moving.range(from..).next().is_some() {
            return false;
        }
        let next = self.queued.range(from..).next().and_then(|key| match self.phase(*key) {
            Some(ChildPhase::Queued { ticket }) => Some((*key, *ticket)),
            _ => None,
        });
        if let Some((key, ticket)) = next {
            self.start(now, key, ticket);
            return false;
        }
        if matches!(self.work, Work::Beginning) {
            self.out.push(EngineCommand::Up);
        } else if !self.queued.is_empty() {
            // Asked for by a call meanwhile, before the part that restarts: its turn is now.
            self.work = Work::Group { from: 0, stage: WorkStage::Starting, delay: Duration::ZERO };
            return true;
        }
        self.work = Work::Running;
        true
    }

    pub(super) fn group(&mut self, from: Key, delay: Duration) {
        self.work = Work::Group { from, stage: WorkStage::Stopping, delay };
    }

    pub(super) fn advance_group(&mut self, now: Instant, from: Key, stage: WorkStage, delay: Duration) -> bool {
        match stage {
            WorkStage::Stopping => {
                if let Some((key, ending)) = self.last_alive(from) {
                    if !ending {
                        self.stop(now, key, Vec::new());
                    }
                    return false;
                }
                for key in self.keys_from(from) {
                    let Some(child) = self.children.get_mut(&key) else { continue };
                    let asked = matches!(child.phase, ChildPhase::Queued { ticket: Some(_) });
                    let parked = std::mem::take(&mut child.parked);
                    if asked || parked {
                        continue;
                    }
                    if child.rules.restart == Restart::Temporary {
                        self.remove(key);
                    } else {
                        self.set(key, ChildPhase::Queued { ticket: None }, None);
                    }
                }
                let stage =
                    if delay.is_zero() { WorkStage::Starting } else { WorkStage::Waiting { until: now + delay } };
                self.work = Work::Group { from, stage, delay };
                true
            }
            WorkStage::Waiting { until } if now < until => false,
            WorkStage::Waiting { .. } => {
                self.work = Work::Group { from, stage: WorkStage::Starting, delay };
                true
            }
            WorkStage::Starting => self.start_next(now, from),
        }
    }

    /// Begins an orderly stop of a child that lives.
    pub(super) fn stop(&mut self, now: Instant, key: Key, tickets: Vec<u64>) {
        let Some(child) = self.children.get(&key) else { return };
        let shutdown = child.rules.shutdown;
        let ending = Ending { tickets, ..Ending::ordered() };
        match (&child.phase, shutdown) {
            (ChildPhase::Up { .. }, Shutdown::Timeout(limit)) => {
                self.set(key, ChildPhase::Ending(ending), now.checked_add(limit));
                self.out.push(EngineCommand::Stop { key });
            }
            (ChildPhase::Up { .. }, Shutdown::Infinity) => {
                self.set(key, ChildPhase::Ending(ending), None);
                self.out.push(EngineCommand::Stop { key });
            }
            (ChildPhase::Starting { ticket }, _) if child.rules.supervisor => {
                let start_ticket = *ticket;
                self.set(key, ChildPhase::Ending(Ending { start_ticket, ..ending }), None);
                self.out.push(EngineCommand::Stop { key });
            }
            (ChildPhase::Up { .. }, Shutdown::BrutalKill) | (ChildPhase::Starting { .. }, _) => {
                if let ChildPhase::Starting { ticket } = child.phase {
                    self.start_was_stopped(ticket);
                }
                self.kill(now, key, ending);
            }
            // A child that was being killed for a fault is now being stopped: the restart rule no longer applies.
            (ChildPhase::Ending(_), _) => {
                if let Some(ChildPhase::Ending(e)) = self.children.get_mut(&key).map(|c| &mut c.phase) {
                    e.by_rule = false;
                    e.tickets.extend(ending.tickets);
                }
            }
            (ChildPhase::Idle | ChildPhase::Queued { .. } | ChildPhase::Backoff | ChildPhase::Dead, _) => {}
        }
    }

    pub(super) fn close(&mut self, end: End) {
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return;
        }
        self.deferred.clear();
        for refused in std::mem::take(&mut self.upgrades) {
            self.reply(refused.ticket, Err(AdminError::ShuttingDown));
        }
        for key in self.keys_from(0) {
            match self.phase(key) {
                Some(ChildPhase::Queued { ticket: Some(t) }) => {
                    let id = t.id;
                    self.set(key, ChildPhase::Idle, None);
                    self.reply(id, Err(AdminError::ShuttingDown));
                }
                Some(ChildPhase::Queued { .. } | ChildPhase::Backoff | ChildPhase::Dead) => {
                    self.set(key, ChildPhase::Idle, None);
                }
                _ => {}
            }
        }
        self.work = Work::Closing { end, asked: false };
    }

    pub(super) fn kill_all(&mut self, now: Instant) {
        self.close(End::Exit(Exit::Killed));
        for key in self.keys_from(0) {
            let killed = matches!(self.phase(key), Some(ChildPhase::Ending(e)) if e.killed);
            if !killed && self.is_alive(key) {
                let ending = match self.set(key, ChildPhase::Idle, None) {
                    ChildPhase::Ending(Ending { tickets, start_ticket, renew, .. }) => {
                        Ending { tickets, start_ticket, renew, ..Ending::ordered() }
                    }
                    ChildPhase::Starting { ticket } => Ending { start_ticket: ticket, ..Ending::ordered() },
                    _ => Ending::ordered(),
                };
                self.kill(now, key, ending);
            }
        }
    }

    pub(super) fn advance_close(&mut self, now: Instant, end: End, asked: bool) -> bool {
        if self.flags.dynamic.is_some() {
            // Dynamic children have no order among themselves: they stop side by side.
            if !asked {
                for key in self.alive.iter().copied().collect::<Vec<_>>() {
                    if !matches!(self.phase(key), Some(ChildPhase::Ending(_))) {
                        self.stop(now, key, Vec::new());
                    }
                }
                self.work = Work::Closing { end: end.clone(), asked: true };
            }
            if !self.alive.is_empty() {
                return false;
            }
        } else if let Some((key, ending)) = self.last_alive(0) {
            if !ending {
                self.stop(now, key, Vec::new());
            }
            return false;
        }
        self.work = Work::Ended;
        self.out.push(EngineCommand::End(end));
        false
    }
}
