//! Random trees of engines, dynamic ones among them, under random exits, hangs, administrative calls and other specs: what
//! must hold after each step.

mod obey;
mod plans;

use super::*;
use plans::{Kid, Op, Plan, ops, plan};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use std::rc::Rc;

struct Sup {
    engine: Engine<Kid>,
    flags: Flags,
    parent: Option<(usize, Key, Serial)>,
    /// The living children by commands and reports, not by the engine's opinion.
    alive: BTreeMap<Key, Serial>,
    nested: BTreeMap<Key, usize>,
    started: BTreeSet<Key>,
    /// Not to be started again but by a call (one_for_one).
    barred: BTreeSet<Key>,
    /// Its thread was lost through another, or it was fenced off: the restart that follows is free.
    spared: BTreeSet<Key>,
    /// Restarts by the rule (one_for_one).
    restarts: VecDeque<Instant>,
    terminating: HashMap<u64, Key>,
    renewing: HashMap<u64, Key>,
    asked: BTreeSet<Key>,
    tickets: u64,
    answered: BTreeSet<u64>,
    /// Its spec was exchanged: what the earlier ones allowed may still come.
    upgraded: bool,
    most_restarts: usize,
    /// Its flags are, or were, to hold down what crashes too often: each child has the budget for itself.
    holds_down: bool,
    /// The bound of a dynamic supervisor, or the number it had when the bound was lowered.
    most_children: usize,
    ended: bool,
    killed: bool,
    began: bool,
}

struct Sim {
    now: Instant,
    sups: Vec<Sup>,
    queue: BTreeMap<(Instant, u64), (usize, EngineEvent<Kid>)>,
    order: u64,
    dice: u64,
}

impl Sim {
    fn new(plan: &Plan, seed: u64) -> Sim {
        let mut sim = Sim { now: Instant::now(), sups: vec![], queue: BTreeMap::new(), order: 0, dice: seed | 1 };
        sim.open(plan, None);
        sim.run(Duration::ZERO);
        sim
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % below
    }

    fn open(&mut self, plan: &Plan, parent: Option<(usize, Key, Serial)>) -> usize {
        let mut engine = Engine::new("sup", plan.flags.clone());
        for (n, (rules, kid)) in plan.children.iter().enumerate() {
            engine.add(n.to_string().into(), rules.clone(), kid.clone());
        }
        self.sups.push(Sup {
            engine,
            flags: plan.flags.clone(),
            parent,
            alive: BTreeMap::new(),
            nested: BTreeMap::new(),
            started: BTreeSet::new(),
            barred: BTreeSet::new(),
            spared: BTreeSet::new(),
            restarts: VecDeque::new(),
            terminating: HashMap::new(),
            renewing: HashMap::new(),
            asked: BTreeSet::new(),
            tickets: 0,
            answered: BTreeSet::new(),
            upgraded: false,
            most_restarts: plan.flags.intensity as usize,
            holds_down: plan.flags.budget_spent != BudgetSpent::Escalate,
            most_children: plan.flags.dynamic.unwrap_or(usize::MAX),
            ended: false,
            killed: false,
            began: false,
        });
        self.later(0, self.sups.len() - 1, EngineEvent::Begin);
        self.sups.len() - 1
    }

    fn later(&mut self, after: u64, sup: usize, ev: EngineEvent<Kid>) {
        self.order += 1;
        self.queue.insert((self.now + ms(after), self.order), (sup, ev));
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let tick = (0..self.sups.len())
                .filter(|s| !self.sups[*s].ended)
                .filter_map(|s| Some((self.sups[s].engine.next_deadline()?, s)))
                .min();
            let news = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (news, tick) {
                (Some(at), tick) if at <= until && tick.is_none_or(|(t, _)| at <= t) => {
                    self.now = self.now.max(at);
                    let (_, (sup, ev)) = self.queue.pop_first().unwrap();
                    self.step(sup, ev);
                }
                (_, Some((at, sup))) if at <= until => {
                    self.now = self.now.max(at);
                    self.step(sup, EngineEvent::Tick);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn step(&mut self, s: usize, ev: EngineEvent<Kid>) {
        let now = self.now;
        let sup = &mut self.sups[s];
        if sup.ended {
            return; // its channel is closed
        }
        let mut by_call = false;
        match &ev {
            EngineEvent::Down { key, serial, exit } if sup.alive.get(key) == Some(serial) => {
                sup.alive.remove(key);
                let restart = sup.engine.children.get(key).map(|c| c.rules.restart);
                let up = matches!(sup.engine.phase(*key), Some(ChildPhase::Up { .. }));
                let fenced = matches!(exit, Exit::Fenced(_));
                if up && restart == Some(Restart::Transient) && !exit.is_abnormal() && !fenced {
                    sup.barred.insert(*key);
                }
                if up && fenced {
                    sup.spared.insert(*key);
                }
            }
            EngineEvent::StartFailed { key, serial, .. } | EngineEvent::Ignored { key, serial }
                if sup.alive.get(key) == Some(serial) =>
            {
                sup.alive.remove(key);
            }
            EngineEvent::Lost { key, serial }
                if sup.alive.get(key) == Some(serial)
                    && !matches!(sup.engine.phase(*key), Some(ChildPhase::Ending(e)) if e.by_rule) =>
            {
                sup.spared.insert(*key);
            }
            EngineEvent::Call { .. } => by_call = true,
            EngineEvent::Kill => sup.killed = true,
            _ => {}
        }
        let was_closing = matches!(sup.engine.work, Work::Closing { .. } | Work::Ended);
        let commands = sup.engine.step(now, ev, 0.0);
        sup.engine.take_touched();
        if let Some(keys) = sup.engine.take_rekeyed() {
            self.rekey(s, keys);
        }
        for cmd in commands {
            // One step may restart a child and then find the budget spent: that start is followed by its stop.
            assert!(!(was_closing && matches!(cmd, EngineCommand::Start { .. })), "a start while it shuts down");
            self.obey(s, cmd, by_call);
        }
        self.check(s);
    }

    /// As the shell: whatever names a child by its old key means its new one.
    fn rekey(&mut self, s: usize, keys: Vec<(Option<Key>, Key)>) {
        let now: HashMap<Key, Key> = keys.into_iter().filter_map(|(old, new)| Some((old?, new))).collect();
        let new = |key: Key| now.get(&key).copied().unwrap_or(key);
        let sup = &mut self.sups[s];
        sup.alive = std::mem::take(&mut sup.alive).into_iter().map(|(k, v)| (new(k), v)).collect();
        sup.nested = std::mem::take(&mut sup.nested).into_iter().map(|(k, v)| (new(k), v)).collect();
        for set in [&mut sup.started, &mut sup.barred, &mut sup.spared, &mut sup.asked] {
            *set = std::mem::take(set).into_iter().map(new).collect();
        }
        for calls in [&mut sup.terminating, &mut sup.renewing] {
            calls.values_mut().for_each(|key| *key = new(*key));
        }
        sup.flags = sup.engine.flags.clone();
        sup.upgraded = true;
        sup.restarts.clear();
        sup.most_restarts = sup.most_restarts.max(sup.flags.intensity as usize);
        sup.holds_down |= sup.flags.budget_spent != BudgetSpent::Escalate;
        sup.most_children = sup.flags.dynamic.map_or(usize::MAX, |max| max.max(sup.engine.children.len()));
        for other in &mut self.sups {
            if let Some((parent, key, _)) = &mut other.parent
                && *parent == s
            {
                *key = new(*key);
            }
        }
        for (sup, ev) in self.queue.values_mut().filter(|(sup, _)| *sup == s) {
            debug_assert_eq!(*sup, s);
            if let EngineEvent::Started { key, .. }
            | EngineEvent::StartFailed { key, .. }
            | EngineEvent::Ignored { key, .. }
            | EngineEvent::Down { key, .. }
            | EngineEvent::Hung { key, .. }
            | EngineEvent::Lost { key, .. } = ev
            {
                *key = new(*key);
            }
        }
    }

    fn check(&self, s: usize) {
        let sup = &self.sups[s];
        let counts = sup.engine.count();
        assert_eq!(counts.active, sup.alive.len(), "active is what runs");
        let children = counts.supervisors + counts.workers;
        assert_eq!(counts.specs, if sup.flags.dynamic.is_some() { 1 } else { children });
        assert!(children <= sup.most_children, "{children} children, more than {}", sup.most_children);
        assert_eq!(sup.engine.alive.iter().copied().collect::<Vec<_>>(), sup.alive.keys().copied().collect::<Vec<_>>());
        let (used, budget) = sup.engine.budget(self.now);
        let closing = matches!(sup.engine.work, Work::Closing { .. } | Work::Ended);
        assert!(closing || used <= sup.most_restarts || sup.holds_down, "{used} of {budget} spent, and it goes on");
        // Nothing is forgotten: what waits has a timer, a turn, or something under way that it waits for.
        for (key, child) in &sup.engine.children {
            let waits =
                matches!(child.phase, ChildPhase::Backoff | ChildPhase::Starting { .. } | ChildPhase::Queued { .. });
            assert!(waits || child.held.is_none(), "{:?} in {:?}", child.held, child.phase);
            match &child.phase {
                ChildPhase::Backoff => assert!(child.timer.is_some()),
                ChildPhase::Dead => assert!(sup.engine.deferred.contains(key)),
                ChildPhase::Queued { .. } => assert!(!matches!(sup.engine.work, Work::Running | Work::Ended)),
                ChildPhase::Idle | ChildPhase::Starting { .. } | ChildPhase::Up { .. } | ChildPhase::Ending(_) => {}
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let running: Vec<(usize, Key, Serial)> = (0..self.sups.len())
            .filter(|s| !self.sups[*s].ended)
            .flat_map(|s| self.sups[s].alive.iter().map(move |(k, n)| (s, *k, *n)))
            .filter(|(s, k, _)| matches!(self.sups[*s].engine.payload(*k), Some(Kid::Worker)))
            .collect();
        match op {
            Op::Advance(by) => self.run(ms(by)),
            Op::Exit(who, how) if !running.is_empty() => {
                let (s, key, serial) = running[who % running.len()];
                let exits = [
                    Exit::Normal,
                    Exit::Shutdown,
                    Exit::ShutdownWith("x".into()),
                    crash(),
                    Exit::Segfault,
                    Exit::Fenced("x".into()),
                ];
                // Only one that is up ends by itself.
                if let Some(ChildPhase::Up { .. } | ChildPhase::Ending(_)) = self.sups[s].engine.phase(key) {
                    self.later(0, s, EngineEvent::Down { key, serial, exit: exits[how as usize].clone() });
                }
            }
            Op::Hung(who) if !running.is_empty() => {
                let (s, key, _) = running[who % running.len()];
                self.later(0, s, EngineEvent::Hung { key, what: "x".into() });
            }
            Op::Lost(who) if !running.is_empty() => {
                let (s, key, serial) = running[who % running.len()];
                self.later(0, s, EngineEvent::Lost { key, serial });
            }
            Op::Exit(..) | Op::Hung(_) | Op::Lost(_) => {}
            Op::Call(s, what, child) => {
                let s = s % self.sups.len();
                let sup = &mut self.sups[s];
                let keys: Vec<Key> = sup.engine.children.keys().copied().collect();
                if sup.ended || keys.is_empty() && what < 6 {
                    return;
                }
                let key = keys.get(child % keys.len().max(1)).copied().unwrap_or_default();
                let id = sup.engine.children.get(&key).map(|c| c.id.to_string()).unwrap_or_default();
                let restart = [Restart::Transient, Restart::Permanent, Restart::Temporary][child % 3];
                sup.tickets += 1;
                let ticket = sup.tickets;
                let call = match what {
                    0 | 1 => {
                        sup.terminating.insert(ticket, key);
                        SupervisorCall::Terminate { id }
                    }
                    2 => {
                        if let Some(ChildPhase::Idle) = sup.engine.phase(key) {
                            sup.asked.insert(key);
                            sup.barred.remove(&key);
                        }
                        SupervisorCall::Restart { id }
                    }
                    3 => SupervisorCall::Delete { id },
                    4 => SupervisorCall::Kill { id },
                    5 => {
                        sup.renewing.insert(ticket, key);
                        SupervisorCall::Renew { id }
                    }
                    6 => SupervisorCall::Start {
                        id: format!("new{ticket}").into(),
                        rules: rules(restart),
                        payload: Kid::Worker,
                    },
                    _ => SupervisorCall::Start {
                        id: format!("new{ticket}").into(),
                        rules: ChildRules {
                            supervisor: true,
                            shutdown: Shutdown::Infinity,
                            start_timeout: secs(1_000_000),
                            ..rules(restart)
                        },
                        payload: Kid::Sup(Rc::new(Plan {
                            flags: flags(Strategy::OneForAll, 1, 5),
                            children: vec![(rules(Restart::Permanent), Kid::Worker), (rules(restart), Kid::Worker)],
                        })),
                    },
                };
                self.step(s, EngineEvent::Call { ticket, call });
            }
            Op::Upgrade(s, flags, choices, new) => {
                let s = s % self.sups.len();
                let sup = &mut self.sups[s];
                if sup.ended {
                    return;
                }
                sup.tickets += 1;
                let ticket = sup.tickets;
                let (flags, children) = match sup.flags.dynamic {
                    // It names no children, stays one_for_one, and may have one more.
                    Some(max) => {
                        (Flags { strategy: Strategy::OneForOne, dynamic: Some((max + 1) % 5), ..flags }, vec![])
                    }
                    None => {
                        let kept = sup.engine.children.values().zip(choices.iter().cycle());
                        let kept = kept.filter(|(_, (kept, _))| *kept).map(|(child, (_, changed))| {
                            let rules = match child.rules.supervisor {
                                true => ChildRules { restart: changed.restart, ..child.rules.clone() },
                                false => changed.clone(),
                            };
                            (child.id.clone(), rules, child.payload.clone())
                        });
                        let mut children: Vec<_> = kept.collect();
                        children.reverse();
                        for (n, (_, rules)) in choices.iter().take(new).enumerate() {
                            children.insert(
                                n.min(children.len()),
                                (format!("spec{ticket}-{n}").into(), rules.clone(), Kid::Worker),
                            );
                        }
                        (flags, children)
                    }
                };
                self.step(s, EngineEvent::Call { ticket, call: SupervisorCall::Upgrade { flags, children } });
            }
        }
        self.run(Duration::ZERO);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn otps_invariants_hold_after_each_step(plan in plan(), ops in ops(), seed in any::<u64>()) {
        let mut sim = Sim::new(&plan, seed);
        for op in ops {
            sim.apply(op);
        }
        // A stop always comes to its end, whatever is stuck.
        if !sim.sups[0].ended {
            sim.step(0, EngineEvent::Stop(Exit::Shutdown));
            sim.run(secs(100_000));
        }
        prop_assert!(sim.sups.iter().all(|sup| sup.ended));
    }
}
