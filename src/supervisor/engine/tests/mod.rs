//! The engine on a fake clock: a small world carries out its commands and reports back.

mod calls;
mod groups;
mod held;
mod otp;
mod properties;
mod restarts;
mod soak;
mod stops;
mod upgrades;

use super::*;
use std::time::{Duration, Instant};

/// How a child behaves.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Whether a start works; by attempt, the last one for all that follow.
    pub starts: Vec<bool>,
    /// Its start chooses not to run.
    pub ignores: bool,
    pub start_takes: Duration,
    pub stop_takes: Duration,
    /// Does not even die when killed.
    pub stuck: bool,
    /// Its exit when it stops in order.
    pub exit: Exit,
}

impl Default for Way {
    fn default() -> Way {
        let zero = Duration::ZERO;
        Way {
            starts: vec![true],
            ignores: false,
            start_takes: zero,
            stop_takes: zero,
            stuck: false,
            exit: Exit::Shutdown,
        }
    }
}

/// Up, down for a reason, or not started.
type News = Result<(), Result<Exit, String>>;

pub(super) struct World {
    pub engine: Engine<&'static str>,
    pub now: Instant,
    zero: Instant,
    ways: HashMap<&'static str, Way>,
    attempts: HashMap<Key, usize>,
    /// The coming reports of children, by time.
    coming: BTreeMap<(Instant, u64), (Key, Serial, News)>,
    order: u64,
    pub log: Vec<String>,
    pub replies: HashMap<u64, Result<CallAnswer, AdminError>>,
    pub end: Option<End>,
    next_ticket: u64,
}

pub(super) fn flags(strategy: Strategy, intensity: u32, period: u64) -> Flags {
    Flags {
        strategy,
        intensity,
        period: Duration::from_secs(period),
        backoff: RestartBackoff::NONE,
        budget_spent: BudgetSpent::Escalate,
        auto_shutdown: AutoShutdown::Never,
        dynamic: None,
    }
}

pub(super) fn rules(restart: Restart) -> ChildRules {
    ChildRules {
        restart,
        shutdown: Shutdown::Timeout(secs(5)),
        significant: false,
        supervisor: false,
        start_timeout: secs(30),
        required: true,
    }
}

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub(super) fn crash() -> Exit {
    Exit::Panicked("test".into())
}

impl World {
    pub fn new(flags: Flags) -> World {
        let now = Instant::now();
        World {
            engine: Engine::new("root", flags),
            now,
            zero: now,
            ways: HashMap::new(),
            attempts: HashMap::new(),
            coming: BTreeMap::new(),
            order: 0,
            log: Vec::new(),
            replies: HashMap::new(),
            end: None,
            next_ticket: 1,
        }
    }

    /// A static supervisor with permanent children of these ids, begun.
    pub fn with(flags: Flags, ids: &[&'static str]) -> World {
        let mut w = World::new(flags);
        for id in ids {
            w.engine.add((*id).into(), rules(Restart::Permanent), id);
        }
        w.begin();
        w
    }

    pub fn way(&mut self, id: &'static str, way: Way) {
        self.ways.insert(id, way);
    }
    pub fn begin(&mut self) {
        self.feed(Event::Begin);
    }

    pub fn feed(&mut self, ev: Event<&'static str>) {
        let commands = self.engine.step(self.now, ev, 0.0);
        for command in commands {
            self.obey(command);
        }
        self.settle(self.now);
    }

    fn obey(&mut self, command: Command) {
        assert!(self.end.is_none(), "{command:?} after the end");
        let way = |w: &World, key| w.ways.get(w.name(key)).cloned().unwrap_or_default();
        match command {
            Command::Start { key, serial } => {
                self.note("start", key);
                let way = way(self, key);
                let attempt = self.attempts.entry(key).or_default();
                let works = *way.starts.get(*attempt).or(way.starts.last()).unwrap_or(&true);
                *attempt += 1;
                let news = if way.ignores {
                    Err(Ok(Exit::Ignored))
                } else if works {
                    Ok(())
                } else {
                    Err(Err("will not start".to_string()))
                };
                self.report(way.start_takes, key, serial, news);
            }
            Command::Stop { key } => {
                self.note("stop", key);
                let way = way(self, key);
                let serial = self.engine.serial(key).unwrap();
                self.report(way.stop_takes, key, serial, Err(Ok(way.exit)));
            }
            Command::Kill { key } => {
                self.note("kill", key);
                let way = way(self, key);
                let serial = self.engine.serial(key).unwrap();
                self.coming.retain(|_, (k, ..)| *k != key);
                if !way.stuck {
                    self.report(Duration::ZERO, key, serial, Err(Ok(Exit::Killed)));
                }
            }
            Command::Abandon { key } => self.note("abandon", key),
            Command::Removed { .. } => {}
            Command::Up => self.log.push("up".into()),
            Command::Reply { ticket, result } => assert!(self.replies.insert(ticket, result).is_none()),
            Command::End(end) => self.end = Some(end),
        }
    }

    fn report(&mut self, after: Duration, key: Key, serial: Serial, news: News) {
        self.order += 1;
        if after < secs(100_000) {
            self.coming.insert((self.now + after, self.order), (key, serial, news));
        }
    }

    fn note(&mut self, what: &str, key: Key) {
        let line = format!("{what} {}", self.name(key));
        self.log.push(line);
    }

    pub fn name(&self, key: Key) -> &'static str {
        self.engine.payload(key).copied().unwrap_or("gone")
    }

    /// Lets everything happen that is due by `until`.
    fn settle(&mut self, until: Instant) {
        while self.end.is_none() {
            let news = self.coming.first_key_value().map(|((at, _), _)| *at);
            let tick = self.engine.next_deadline();
            let next = news.into_iter().chain(tick).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            let ev = if news == Some(at) {
                let (_, (key, serial, news)) = self.coming.pop_first().unwrap();
                match news {
                    Ok(()) => Event::Started { key, serial },
                    Err(Ok(Exit::Ignored)) => Event::Ignored { key, serial },
                    Err(Ok(exit)) => Event::Down { key, serial, exit },
                    Err(Err(why)) => {
                        Event::StartFailed { key, serial, why: StartFailure { path: self.name(key).into(), why } }
                    }
                }
            } else {
                Event::Tick
            };
            for command in self.engine.step(self.now, ev, 0.0) {
                self.obey(command);
            }
        }
        self.now = self.now.max(until);
    }

    pub fn advance(&mut self, by: Duration) {
        self.settle(self.now + by);
    }

    /// The child ends by itself.
    pub fn exit(&mut self, id: &str, exit: Exit) {
        let key = self.engine.key_of(id).unwrap();
        let serial = self.engine.serial(key).unwrap();
        self.feed(Event::Down { key, serial, exit });
    }

    pub fn call(&mut self, call: SupervisorCall<&'static str>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.feed(Event::Call { ticket, call });
        ticket
    }
    /// A call whose answer comes without time passing.
    pub fn ask(&mut self, call: SupervisorCall<&'static str>) -> Result<CallAnswer, AdminError> {
        let ticket = self.call(call);
        self.replies.remove(&ticket).expect("an answer at once")
    }
    pub fn start_child(&mut self, id: &'static str, restart: Restart) -> Result<CallAnswer, AdminError> {
        self.ask(SupervisorCall::Start { id: id.into(), rules: rules(restart), payload: id })
    }
    pub fn terminate(&mut self, id: &str) -> Result<CallAnswer, AdminError> {
        self.ask(SupervisorCall::Terminate { id: id.into() })
    }

    /// OTP's [specs, active, supervisors, workers].
    pub fn count(&self) -> [usize; 4] {
        let c = self.engine.count();
        [c.specs, c.active, c.supervisors, c.workers]
    }
    pub fn serial(&self, id: &str) -> Option<Serial> {
        self.engine.key_of(id).and_then(|key| self.engine.serial(key))
    }
    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
    pub fn elapsed(&self) -> Duration {
        self.now - self.zero
    }
    pub fn gave_up(&self) -> bool {
        matches!(&self.end, Some(End::Exit(Exit::ShutdownWith(why))) if why.starts_with("restart budget spent"))
    }
}
