//! The connections to one peer: which one carries, when it is silent for too long, when to dial again. Pure.
//!
//! A peer's *session* begins with its first connection and ends once: when a connection breaks, when nothing was heard
//! for `down`, when it has restarted, or when it is not allowed any more. Two connections, because both dialled at
//! once, are one session: both sides rank them alike, keep the better one and say goodbye on the other; it is closed
//! once both did, so nothing on its way is lost.

use crate::util::Backoff;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTiming {
    pub heartbeat: Duration,
    pub suspect: Duration,
    pub down: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long the node with the higher PeerId lets the other dial first.
    pub courtesy: Duration,
}

impl Default for SessionTiming {
    fn default() -> SessionTiming {
        SessionTiming {
            heartbeat: Duration::from_secs(1),
            suspect: Duration::from_secs(3),
            down: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(15),
            courtesy: Duration::from_millis(200),
        }
    }
}

/// The connection that ranks higher stays. Both sides see the same ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub dialled_by_lower_id: bool,
    /// The dialler's.
    pub serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Another connection of the same session carries now.
    Superseded,
    /// The node stops, or does not want us.
    Leaving,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    Closed,
    Silent,
    Restarted,
    Left,
    NotAllowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It comes from a process that has a successor.
    OldBoot,
    Twice,
    NotAllowed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SessionEvent {
    /// It is allowed, or not any more.
    Allowed(bool),
    /// Whether there is an address to dial.
    Reachable(bool),
    DialFailed,
    /// Both sides have said hello.
    Ready {
        conn: u64,
        rank: Rank,
        boot: u64,
    },
    Goodbye {
        conn: u64,
        why: CloseReason,
    },
    Closed {
        conn: u64,
    },
    /// When anything was last heard from it.
    Tick {
        heard: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAction {
    Dial,
    /// A session begins.
    Begin {
        boot: u64,
    },
    /// The connection belongs to the present session: its frames count.
    Admit {
        conn: u64,
    },
    Refuse {
        conn: u64,
        why: Refused,
    },
    /// Messages go there from now on.
    Route {
        conn: u64,
    },
    /// Say goodbye on it; nothing is sent there afterwards.
    Part {
        conn: u64,
    },
    Close {
        conn: u64,
    },
    Heartbeat {
        conn: u64,
    },
    /// Pending asks fail, monitors fire.
    Finish(SessionEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It was not met since this node started.
    Connecting,
    Up,
    Suspect,
    Down,
}

impl PeerState {
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Connecting => "connecting",
            PeerState::Up => "up",
            PeerState::Suspect => "suspect",
            PeerState::Down => "down",
        }
    }
}

#[derive(Clone, Debug)]
struct Conn {
    id: u64,
    rank: Rank,
    parted_by_us: bool,
    parted_by_them: bool,
}

#[derive(Clone, Debug)]
struct LiveSession {
    boot: u64,
    conns: Vec<Conn>,
    route: u64,
    heard: Instant,
    next_beat: Instant,
    suspect: bool,
}

#[derive(Clone, Debug)]
pub struct SessionState {
    timing: SessionTiming,
    /// We have the lower PeerId: our dial goes first.
    lower: bool,
    allowed: bool,
    reachable: bool,
    dialling: bool,
    failures: u32,
    next_dial: Option<Instant>,
    last_tick: Option<Instant>,
    was_met: bool,
    /// The highest that was ever let in; kept when its session ends.
    latest_boot: u64,
    live: Option<LiveSession>,
}

impl SessionState {
    pub fn new(timing: SessionTiming, lower: bool) -> SessionState {
        SessionState {
            timing,
            lower,
            allowed: false,
            reachable: false,
            dialling: false,
            failures: 0,
            next_dial: None,
            last_tick: None,
            was_met: false,
            latest_boot: 0,
            live: None,
        }
    }

    pub fn state(&self) -> PeerState {
        match &self.live {
            Some(live) if live.suspect => PeerState::Suspect,
            Some(_) => PeerState::Up,
            None if self.was_met => PeerState::Down,
            None => PeerState::Connecting,
        }
    }

    /// `dice`: of [0, 1), spreads what would else happen at once on many nodes.
    pub fn step(&mut self, now: Instant, dice: f64, event: SessionEvent) -> Vec<SessionAction> {
        let mut todo = Vec::new();
        match event {
            SessionEvent::Allowed(allowed) => {
                self.allowed = allowed;
                if !allowed {
                    self.finish(now, dice, SessionEnd::NotAllowed, &mut todo);
                    self.next_dial = None;
                }
                self.plan_dial(now, dice);
            }
            SessionEvent::Reachable(reachable) => {
                self.reachable = reachable;
                if self.live.is_none() && !self.dialling {
                    self.next_dial = None; // a new address: no reason to wait
                    self.failures = 0;
                }
                self.plan_dial(now, dice);
            }
            SessionEvent::DialFailed => {
                self.dialling = false;
                self.failures = self.failures.saturating_add(1);
                self.next_dial = None;
                self.plan_dial(now, dice);
            }
            SessionEvent::Ready { conn, rank, boot } => self.ready(now, dice, conn, rank, boot, &mut todo),
            SessionEvent::Goodbye { conn, why } => self.goodbye(now, dice, conn, why, &mut todo),
            SessionEvent::Closed { conn } => self.closed(now, dice, conn, &mut todo),
            SessionEvent::Tick { heard } => self.tick(now, dice, heard, &mut todo),
        }
        self.dial_if_due(now, &mut todo);
        todo
    }

    fn plan_dial(&mut self, now: Instant, dice: f64) {
        if !self.allowed || !self.reachable || self.dialling || self.live.is_some() || self.next_dial.is_some() {
            return;
        }
        let courtesy = if self.lower { Duration::ZERO } else { self.timing.courtesy };
        let wait = match self.failures {
            0 => Duration::ZERO,
            n => {
                let waits = Backoff::doubling(self.timing.backoff_min, self.timing.backoff_max).jitter(0.2);
                waits.after_by_chance(n, 2.0 * dice - 1.0)
            }
        };
        self.next_dial = Some(now + courtesy + wait);
    }

    fn dial_if_due(&mut self, now: Instant, todo: &mut Vec<SessionAction>) {
        if self.live.is_none() && !self.dialling && self.next_dial.is_some_and(|at| at <= now) {
            self.next_dial = None;
            self.dialling = true;
            todo.push(SessionAction::Dial);
        }
    }

    fn ready(&mut self, now: Instant, dice: f64, conn: u64, rank: Rank, boot: u64, todo: &mut Vec<SessionAction>) {
        if rank.dialled_by_lower_id == self.lower {
            self.dialling = false; // it was ours
        }
        if !self.allowed {
            return todo.push(SessionAction::Refuse { conn, why: Refused::NotAllowed });
        }
        if boot < self.latest_boot {
            self.failures = self.failures.saturating_add(1); // it stays what it is: less and less often
            return todo.push(SessionAction::Refuse { conn, why: Refused::OldBoot });
        }
        self.latest_boot = boot;
        match &self.live {
            Some(live) if boot == live.boot && live.conns.iter().any(|c| c.rank == rank) => {
                return todo.push(SessionAction::Refuse { conn, why: Refused::Twice });
            }
            Some(live) if boot > live.boot => self.finish(now, dice, SessionEnd::Restarted, todo),
            Some(_) | None => {}
        }
        self.failures = 0;
        self.next_dial = None;
        self.was_met = true;
        let new = Conn { id: conn, rank, parted_by_us: false, parted_by_them: false };
        let beat = self.timing.heartbeat;
        match &mut self.live {
            Some(live) => {
                todo.push(SessionAction::Admit { conn });
                live.conns.push(new);
                live.heard = now;
                live.settle(todo);
            }
            None => {
                todo.extend([
                    SessionAction::Begin { boot },
                    SessionAction::Admit { conn },
                    SessionAction::Route { conn },
                ]);
                let next_beat = now + beat.mul_f64(0.5 + 0.5 * dice);
                self.live =
                    Some(LiveSession { boot, conns: vec![new], route: conn, heard: now, next_beat, suspect: false });
            }
        }
    }

    fn goodbye(&mut self, now: Instant, dice: f64, conn: u64, why: CloseReason, todo: &mut Vec<SessionAction>) {
        let Some(live) = &mut self.live else { return };
        let Some(it) = live.conns.iter_mut().find(|c| c.id == conn) else { return };
        match why {
            CloseReason::Superseded => {
                it.parted_by_them = true;
                if it.parted_by_us {
                    todo.push(SessionAction::Close { conn });
                }
            }
            CloseReason::Leaving => self.finish(now, dice, SessionEnd::Left, todo),
        }
    }

    /// One on which both sides said goodbye was empty; with any other something may be lost, a notice of a monitor for
    /// one, and so the session ends whatever other connection there is.
    fn closed(&mut self, now: Instant, dice: f64, conn: u64, todo: &mut Vec<SessionAction>) {
        let Some(live) = &mut self.live else { return };
        let Some(at) = live.conns.iter().position(|c| c.id == conn) else { return };
        let it = live.conns.remove(at);
        if !it.parted_by_us || !it.parted_by_them {
            self.finish(now, dice, SessionEnd::Closed, todo);
        }
    }

    fn finish(&mut self, now: Instant, dice: f64, end: SessionEnd, todo: &mut Vec<SessionAction>) {
        let Some(live) = self.live.take() else { return };
        todo.extend(live.conns.iter().map(|c| SessionAction::Close { conn: c.id }));
        todo.push(SessionAction::Finish(end));
        self.failures = match end {
            SessionEnd::Restarted => 0,
            SessionEnd::Closed | SessionEnd::Silent | SessionEnd::Left | SessionEnd::NotAllowed => 1, // not all at once after a storm
        };
        self.plan_dial(now, dice);
    }

    fn tick(&mut self, now: Instant, dice: f64, heard: Option<Instant>, todo: &mut Vec<SessionAction>) {
        let gap = self.last_tick.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_tick = Some(now);
        let timing = self.timing;
        let Some(live) = &mut self.live else { return self.plan_dial(now, dice) };
        live.heard = live.heard.max(heard.unwrap_or(live.heard));
        if gap > timing.suspect {
            live.heard = now; // it was this process that stood still: what the peer sent meanwhile is not read yet
        }
        let silent = now.saturating_duration_since(live.heard);
        if silent >= timing.down {
            return self.finish(now, dice, SessionEnd::Silent, todo);
        }
        live.suspect = silent >= timing.suspect;
        if now >= live.next_beat {
            live.next_beat = now + timing.heartbeat;
            todo.push(SessionAction::Heartbeat { conn: live.route });
        }
    }
}

impl LiveSession {
    /// The best connection carries; goodbye on the others, and they close once both sides said it.
    fn settle(&mut self, todo: &mut Vec<SessionAction>) {
        let Some(best) = self.conns.iter().max_by_key(|c| c.rank).map(|c| c.id) else { return };
        if self.route != best {
            self.route = best;
            todo.push(SessionAction::Route { conn: best });
        }
        for conn in self.conns.iter_mut().filter(|c| c.id != best && !c.parted_by_us) {
            conn.parted_by_us = true;
            todo.push(SessionAction::Part { conn: conn.id });
            if conn.parted_by_them {
                todo.push(SessionAction::Close { conn: conn.id });
            }
        }
    }
}

#[cfg(test)]
mod tests;
