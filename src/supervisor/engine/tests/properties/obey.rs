//! A command of an engine, carried out in the simulated tree, against what the rules allow.

use super::*;

impl Sim {
    pub(super) fn obey(&mut self, s: usize, cmd: EngineCommand, by_call: bool) {
        let sup = &mut self.sups[s];
        assert!(!sup.ended, "{cmd:?} after the end");
        let closing = matches!(sup.engine.work, Work::Closing { .. } | Work::Ended);
        match cmd {
            EngineCommand::Start { key, serial } => {
                assert!(!sup.alive.contains_key(&key), "two incarnations at once");
                let child = &sup.engine.children[&key];
                let (restart, kid) = (child.rules.restart, child.payload.clone());
                let first = sup.started.insert(key);
                // One that waits for its restart is restarted, whatever another spec makes of it.
                assert!(first || restart != Restart::Temporary || sup.upgraded, "a temporary child was restarted");
                let renewed = sup.renewing.values().any(|k| *k == key);
                if renewed {
                    sup.barred.remove(&key);
                }
                let (asked, spared) = (sup.asked.remove(&key) || renewed, sup.spared.remove(&key));
                if sup.flags.strategy == Strategy::OneForOne && !first && !asked {
                    assert!(!sup.barred.contains(&key), "restarted, though it was terminated or ended in order");
                    let (now, period) = (self.now, sup.flags.period);
                    sup.restarts.extend((!spared).then_some(now));
                    while sup.restarts.front().is_some_and(|t| now - *t > period) {
                        sup.restarts.pop_front();
                    }
                    // A backoff may put off restarts that were asked for earlier, so that more than one window's fall into one.
                    let slack = if sup.flags.backoff.first.is_zero() && !sup.upgraded { 1 } else { 2 };
                    let beyond = sup.restarts.len() > slack * sup.most_restarts;
                    assert!(!beyond || sup.holds_down, "beyond the budget");
                }
                sup.barred.remove(&key); // a group's restart takes it along
                sup.alive.insert(key, serial);
                match kid {
                    Kid::Worker => {
                        let (how, after) = (self.roll(10), self.roll(3) * 400);
                        let why = StartFailure { path: "x".into(), why: "x".into() };
                        let ev = match how {
                            0 => EngineEvent::StartFailed { key, serial, why },
                            1 => EngineEvent::Ignored { key, serial },
                            _ => EngineEvent::Started { key, serial },
                        };
                        self.later(after, s, ev);
                    }
                    Kid::Sup(plan) => {
                        let nested = self.open(&plan, Some((s, key, serial)));
                        self.sups[s].nested.insert(key, nested);
                    }
                }
            }
            EngineCommand::Stop { key } => {
                let serial = *sup.alive.get(&key).expect("a stop of one that does not run");
                // Those of a dynamic one stop side by side.
                if closing && !by_call && !sup.killed && sup.flags.dynamic.is_none() {
                    assert_eq!(sup.alive.last_key_value().map(|(k, _)| *k), Some(key), "stopped out of order");
                }
                match sup.engine.payload(key).unwrap().clone() {
                    Kid::Worker => {
                        // What hangs while it stops is found by the watchdog, at some time.
                        let (stuck, after) = (self.roll(6) == 0, self.roll(4) * 1_000);
                        match stuck {
                            true => self.later(after, s, EngineEvent::Hung { key, what: "x".into() }),
                            false => self.later(after, s, EngineEvent::Down { key, serial, exit: Exit::Shutdown }),
                        }
                    }
                    Kid::Sup(_) => {
                        let nested = self.sups[s].nested[&key];
                        self.later(0, nested, EngineEvent::Stop(Exit::Shutdown));
                    }
                }
            }
            EngineCommand::Kill { key } => {
                let serial = *sup.alive.get(&key).expect("a kill of one that does not run");
                match sup.engine.payload(key).unwrap().clone() {
                    Kid::Worker => {
                        if self.roll(8) > 0 {
                            self.later(0, s, EngineEvent::Down { key, serial, exit: Exit::Killed });
                        }
                    }
                    Kid::Sup(_) => {
                        let nested = self.sups[s].nested[&key];
                        self.later(0, nested, EngineEvent::Kill);
                    }
                }
            }
            EngineCommand::Abandon { key } => {
                sup.alive.remove(&key).expect("abandoned, though it does not run");
                if let Some(nested) = sup.nested.get(&key).copied() {
                    self.sups[nested].ended = true;
                }
            }
            EngineCommand::Reply { ticket, result } => {
                assert!(sup.answered.insert(ticket), "two answers to one call");
                sup.renewing.remove(&ticket);
                if let Some(key) = sup.terminating.remove(&ticket)
                    && result == Ok(CallAnswer::Done)
                {
                    sup.barred.insert(key);
                }
            }
            EngineCommand::Removed { key } => assert!(!sup.alive.contains_key(&key), "forgotten while it runs"),
            EngineCommand::Up => {
                sup.began = true;
                if let Some((parent, key, serial)) = sup.parent {
                    self.later(0, parent, EngineEvent::Started { key, serial });
                }
            }
            EngineCommand::End(end) => {
                let spent =
                    matches!(&end, End::Exit(Exit::ShutdownWith(why)) if why.starts_with("restart budget spent"));
                let never = sup.flags.budget_spent == BudgetSpent::HoldDown { escalate_after: None };
                assert!(!(spent && never) || sup.upgraded, "a crash loop ended it, which holds them down");
                assert!(sup.alive.is_empty(), "it left children behind: {:?}", sup.alive);
                sup.ended = true;
                assert_eq!(sup.answered.len() as u64, sup.tickets, "a call without an answer");
                if let Some((parent, key, serial)) = sup.parent {
                    let ev = match end {
                        End::Exit(exit) if sup.began => EngineEvent::Down { key, serial, exit },
                        End::Exit(exit) => {
                            let why = exit.to_string();
                            EngineEvent::StartFailed { key, serial, why: StartFailure { path: "x".into(), why } }
                        }
                        End::NotStarted(why) => EngineEvent::StartFailed { key, serial, why },
                    };
                    self.later(0, parent, ev);
                }
            }
        }
    }
}
