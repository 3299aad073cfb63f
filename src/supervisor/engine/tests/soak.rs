//! A million crashes on one engine: nothing that it keeps grows.

use super::*;

#[test]
fn a_million_crashes_over_two_hundred_children_leak_nothing() {
    const CHILDREN: u64 = 200;
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let mut f = flags(strategy, u32::MAX, 1);
        f.period = Duration::from_millis(10);
        let mut engine: Engine<u64> = Engine::new("root", f);
        for n in 0..CHILDREN {
            engine.add(n.to_string().into(), rules(Restart::Permanent), n);
        }
        let mut now = Instant::now();
        // A child reports at once what it is told.
        let run = |engine: &mut Engine<u64>, now: Instant, ev: EngineEvent<u64>| {
            let mut todo = VecDeque::from([ev]);
            while let Some(ev) = todo.pop_front() {
                for cmd in engine.step(now, ev, 0.0) {
                    match cmd {
                        EngineCommand::Start { key, serial } => todo.push_back(EngineEvent::Started { key, serial }),
                        EngineCommand::Stop { key } => {
                            let serial = engine.serial(key).unwrap();
                            todo.push_back(EngineEvent::Down { key, serial, exit: Exit::Shutdown });
                        }
                        EngineCommand::Up => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        };
        run(&mut engine, now, EngineEvent::Begin);
        let crashes: u64 = if strategy == Strategy::OneForOne { 1_000_000 } else { 2_000 };
        for n in 0..crashes {
            now += Duration::from_micros(50);
            // Under rest_for_one the last few children only: else each crash is two hundred stops and starts.
            let key = 1 + if strategy == Strategy::OneForOne { n * 7 % CHILDREN } else { CHILDREN - 1 - n % 5 };
            let serial = engine.serial(key).unwrap();
            run(&mut engine, now, EngineEvent::Down { key, serial, exit: crash() });
            engine.take_touched();
        }
        let counts = engine.count();
        assert_eq!((counts.active, counts.specs), (CHILDREN as usize, CHILDREN as usize));
        assert!(engine.window.len() <= 201, "no older than the period: {}", engine.window.len());
        assert!(engine.timers.is_empty() && engine.deferred.is_empty() && engine.queued.is_empty());
        assert!(engine.moving.is_empty() && engine.out.is_empty() && engine.upgrades.is_empty());
        assert_eq!(engine.alive.len(), CHILDREN as usize);
        let restarts: u64 = (1..=CHILDREN).map(|key| engine.serial(key).unwrap() - 1).sum();
        assert!(restarts >= crashes);
    }
}
