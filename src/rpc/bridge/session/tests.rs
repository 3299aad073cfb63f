//! Lives of a peer on a clock that the test turns.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn timing() -> Timing {
    Timing { courtesy: 200 * MS, ..Timing::default() }
}

/// A peer that is allowed and has an address.
struct Rig {
    session: Session,
    now: Instant,
}

impl Rig {
    fn new(lower: bool) -> Rig {
        let mut rig = Rig { session: Session::new(timing(), lower), now: Instant::now() };
        rig.step(Event::Allowed(true));
        rig
    }
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.session.step(self.now, 0.5, event)
    }
    /// Ticks in small steps, nothing heard, and gathers what is to be done.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while self.now < end {
            self.now += 250 * MS;
            all.extend(self.step(Event::Tick { heard: None }));
        }
        all
    }
    fn ready(&mut self, conn: u64, by_lower: bool, serial: u64, boot: u64) -> Vec<Action> {
        self.step(Event::Ready { conn, rank: Rank { dialled_by_lower_id: by_lower, serial }, boot })
    }
}

fn beats(actions: &[Action]) -> usize {
    actions.iter().filter(|a| matches!(a, Action::Heartbeat { .. })).count()
}
fn no_beats(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|a| !matches!(a, Action::Heartbeat { .. })).collect()
}

#[test]
fn the_node_with_the_lower_id_dials_first() {
    for (lower, at_once) in [(true, vec![Action::Dial]), (false, vec![])] {
        let mut rig = Rig::new(lower);
        assert_eq!(rig.step(Event::Reachable(true)), at_once, "lower {lower}");
        let later = if lower { vec![] } else { vec![Action::Dial] };
        assert_eq!(rig.pass(250 * MS), later, "lower {lower}");
    }
}

#[test]
fn a_peer_that_is_not_allowed_is_not_dialled_and_not_let_in() {
    let mut rig = Rig::new(true);
    rig.step(Event::Allowed(false));
    assert_eq!(rig.step(Event::Reachable(true)), []);
    assert_eq!(rig.ready(1, false, 1, 1), [Action::Refuse { conn: 1, why: Refused::NotAllowed }]);
    assert_eq!(rig.step(Event::Allowed(true)), [Action::Dial]);
}

#[test]
fn failed_dials_come_less_and_less_often() {
    let mut rig = Rig::new(true);
    assert_eq!(rig.step(Event::Reachable(true)), [Action::Dial]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(rig.step(Event::DialFailed), []);
        let failed = rig.now;
        while rig.pass(250 * MS).is_empty() {}
        waits.push((rig.now - failed).as_millis());
    }
    assert_eq!(waits, [250, 500, 1000, 1750, 3250, 6500, 13000, 15000, 15000]);
    // A new address is a reason to try at once.
    rig.step(Event::DialFailed);
    assert_eq!(rig.step(Event::Reachable(true)), [Action::Dial]);
}

#[test]
fn a_silent_peer_is_suspect_then_down_once() {
    let mut rig = Rig::new(true);
    let begin = [Action::Begin { boot: 7 }, Action::Admit { conn: 1 }, Action::Route { conn: 1 }];
    assert_eq!(rig.ready(1, true, 1, 7), begin);
    assert_eq!(beats(&rig.pass(2750 * MS)), 3);
    assert_eq!(rig.session.state(), PeerState::Up);
    rig.pass(250 * MS);
    assert_eq!(rig.session.state(), PeerState::Suspect);
    let heard = rig.now;
    rig.now += 250 * MS;
    rig.step(Event::Tick { heard: Some(heard) });
    assert_eq!(rig.session.state(), PeerState::Up, "it spoke again");
    let all = no_beats(rig.pass(20_000 * MS));
    assert_eq!(all, [Action::Close { conn: 1 }, Action::Finish(End::Silent)]);
    assert_eq!(rig.session.state(), PeerState::Down);
}

#[test]
fn a_pause_of_this_process_is_not_held_against_the_peer() {
    let mut rig = Rig::new(true);
    rig.ready(1, true, 1, 7);
    rig.pass(1000 * MS);
    rig.now += 60_000 * MS;
    assert_eq!(no_beats(rig.step(Event::Tick { heard: None })), []);
    assert_eq!(rig.session.state(), PeerState::Up);
    assert_eq!(no_beats(rig.pass(9750 * MS)), []);
    assert_eq!(no_beats(rig.pass(250 * MS)), [Action::Close { conn: 1 }, Action::Finish(End::Silent)]);
}

#[test]
fn simultaneous_dials_become_the_same_connection_on_both_sides() {
    // Connection 1 was dialled by the lower id, 2 by the other; the sides see them in either order.
    for first in [1, 2] {
        for lower in [true, false] {
            let mut rig = Rig::new(lower);
            rig.ready(first, first == 1, 1, 7);
            let second = 3 - first;
            let then = rig.ready(second, second == 1, 1, 7);
            let mut expected = vec![Action::Admit { conn: second }];
            if second == 1 {
                expected.push(Action::Route { conn: 1 });
            }
            expected.push(Action::Part { conn: 2 });
            assert_eq!(then, expected, "first {first}, lower {lower}");
            // Closed when both said goodbye, and the life goes on.
            let bye = Event::Goodbye { conn: 2, why: Farewell::Superseded };
            assert_eq!(rig.step(bye), [Action::Close { conn: 2 }]);
            assert_eq!(rig.step(Event::Closed { conn: 2 }), []);
            assert_eq!(rig.session.state(), PeerState::Up);
            assert_eq!(rig.step(Event::Closed { conn: 1 }), [Action::Finish(End::Closed)]);
        }
    }
}

#[test]
fn their_goodbye_may_come_before_their_better_connection() {
    let mut rig = Rig::new(true);
    rig.ready(2, false, 1, 7);
    assert_eq!(rig.step(Event::Goodbye { conn: 2, why: Farewell::Superseded }), []);
    let then = rig.ready(1, true, 1, 7);
    let both =
        [Action::Admit { conn: 1 }, Action::Route { conn: 1 }, Action::Part { conn: 2 }, Action::Close { conn: 2 }];
    assert_eq!(then, both);
}

#[test]
fn a_connection_that_breaks_before_both_goodbyes_ends_the_life() {
    for (goodbye, broken, expected) in [
        (false, 2, vec![Action::Close { conn: 1 }, Action::Finish(End::Closed)]),
        (false, 1, vec![Action::Close { conn: 2 }, Action::Finish(End::Closed)]),
        (true, 2, vec![]),
    ] {
        let mut rig = Rig::new(true);
        rig.ready(2, false, 1, 7);
        rig.ready(1, true, 1, 7);
        if goodbye {
            rig.step(Event::Goodbye { conn: 2, why: Farewell::Superseded });
        }
        assert_eq!(rig.step(Event::Closed { conn: broken }), expected, "goodbye {goodbye}, broken {broken}");
    }
}

#[test]
fn two_dials_of_one_side_become_the_later() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 4, 7);
    assert_eq!(rig.ready(2, false, 4, 7), [Action::Refuse { conn: 2, why: Refused::Twice }]);
    let then = rig.ready(3, false, 5, 7);
    assert_eq!(then, [Action::Admit { conn: 3 }, Action::Route { conn: 3 }, Action::Part { conn: 1 }]);
}

#[test]
fn a_restarted_peer_ends_its_earlier_life_and_an_old_boot_does_not_come_back() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 1, 7);
    let then = rig.ready(2, false, 1, 8);
    let mut expected = vec![Action::Close { conn: 1 }, Action::Finish(End::Restarted)];
    expected.extend([Action::Begin { boot: 8 }, Action::Admit { conn: 2 }, Action::Route { conn: 2 }]);
    assert_eq!(then, expected);
    assert_eq!(rig.step(Event::Closed { conn: 1 }), [], "told already");
    assert_eq!(rig.ready(3, false, 9, 7), [Action::Refuse { conn: 3, why: Refused::OldBoot }]);
}

#[test]
fn an_old_boot_is_not_let_in_when_no_life_stands() {
    let ends = [
        Event::Closed { conn: 1 },
        Event::Goodbye { conn: 1, why: Farewell::Leaving },
        Event::Allowed(false), // its record ends with its lease, and comes back with the old process
    ];
    for end in ends {
        let mut rig = Rig::new(true);
        rig.ready(1, false, 1, 8);
        rig.step(end);
        rig.step(Event::Allowed(true));
        assert_eq!(rig.ready(2, false, 9, 7), [Action::Refuse { conn: 2, why: Refused::OldBoot }], "{end:?}");
        assert_eq!(rig.session.state(), PeerState::Down, "{end:?}");
        for boot in [8, 9] {
            let begin = [Action::Begin { boot }, Action::Admit { conn: boot }, Action::Route { conn: boot }];
            assert_eq!(rig.ready(boot, false, 10, boot), begin, "{end:?}");
            rig.step(Event::Closed { conn: boot });
        }
    }
}

#[test]
fn an_old_process_is_dialled_less_and_less_often() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 1, 8);
    rig.step(Event::Closed { conn: 1 });
    assert_eq!(rig.step(Event::Reachable(true)), [Action::Dial]);
    for (conn, wait) in [(2, 200), (3, 400), (4, 800), (5, 1600)] {
        assert_eq!(rig.ready(conn, true, conn, 7), [Action::Refuse { conn, why: Refused::OldBoot }]);
        let refused = rig.now;
        let dials = (0..100).any(|_| {
            rig.now += 50 * MS;
            rig.step(Event::Tick { heard: None }).contains(&Action::Dial)
        });
        // Its wait begins with the first tick.
        assert_eq!((dials, rig.now - refused), (true, (wait + 50) * MS), "connection {conn}");
    }
}

#[test]
fn a_life_ends_once_whatever_ends_it() {
    let cases = [
        (Event::Closed { conn: 1 }, vec![Action::Finish(End::Closed)]),
        (
            Event::Goodbye { conn: 1, why: Farewell::Leaving },
            vec![Action::Close { conn: 1 }, Action::Finish(End::Left)],
        ),
        (Event::Allowed(false), vec![Action::Close { conn: 1 }, Action::Finish(End::NotAllowed)]),
    ];
    for (event, expected) in cases {
        let mut rig = Rig::new(true);
        rig.ready(1, true, 1, 7);
        assert_eq!(rig.step(event), expected, "{event:?}");
        for again in [event, Event::Closed { conn: 1 }, Event::Tick { heard: None }] {
            assert_eq!(rig.step(again), [], "{again:?} after {event:?}");
        }
    }
}

#[test]
fn a_life_without_an_address_waits_to_be_called() {
    let mut rig = Rig::new(true);
    assert_eq!(rig.pass(60_000 * MS), []);
    rig.ready(1, false, 1, 7);
    rig.step(Event::Closed { conn: 1 });
    assert_eq!(rig.pass(60_000 * MS), []);
    rig.ready(2, false, 2, 7);
    assert_eq!(rig.session.state(), PeerState::Up);
}
