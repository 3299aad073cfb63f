//! Lives of a peer on a clock that the test turns.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn timing() -> SessionTiming {
    SessionTiming { courtesy: 200 * MS, ..SessionTiming::default() }
}

/// A peer that is allowed and has an address.
struct Rig {
    session: SessionState,
    now: Instant,
}

impl Rig {
    fn new(lower: bool) -> Rig {
        let mut rig = Rig { session: SessionState::new(timing(), lower), now: Instant::now() };
        rig.step(SessionEvent::Allowed(true));
        rig
    }
    fn step(&mut self, event: SessionEvent) -> Vec<SessionAction> {
        self.session.step(self.now, 0.5, event)
    }
    /// Ticks in small steps, nothing heard, and gathers what is to be done.
    fn pass(&mut self, time: Duration) -> Vec<SessionAction> {
        let end = self.now + time;
        let mut all = Vec::new();
        while self.now < end {
            self.now += 250 * MS;
            all.extend(self.step(SessionEvent::Tick { heard: None }));
        }
        all
    }
    fn ready(&mut self, conn: u64, by_lower: bool, serial: u64, boot: u64) -> Vec<SessionAction> {
        self.step(SessionEvent::Ready { conn, rank: Rank { dialled_by_lower_id: by_lower, serial }, boot })
    }
}

fn beats(actions: &[SessionAction]) -> usize {
    actions.iter().filter(|a| matches!(a, SessionAction::Heartbeat { .. })).count()
}
fn no_beats(actions: Vec<SessionAction>) -> Vec<SessionAction> {
    actions.into_iter().filter(|a| !matches!(a, SessionAction::Heartbeat { .. })).collect()
}

#[test]
fn the_node_with_the_lower_id_dials_first() {
    for (lower, at_once) in [(true, vec![SessionAction::Dial]), (false, vec![])] {
        let mut rig = Rig::new(lower);
        assert_eq!(rig.step(SessionEvent::Reachable(true)), at_once, "lower {lower}");
        let later = if lower { vec![] } else { vec![SessionAction::Dial] };
        assert_eq!(rig.pass(250 * MS), later, "lower {lower}");
    }
}

#[test]
fn a_peer_that_is_not_allowed_is_not_dialled_and_not_let_in() {
    let mut rig = Rig::new(true);
    rig.step(SessionEvent::Allowed(false));
    assert_eq!(rig.step(SessionEvent::Reachable(true)), []);
    assert_eq!(rig.ready(1, false, 1, 1), [SessionAction::Refuse { conn: 1, why: Refused::NotAllowed }]);
    assert_eq!(rig.step(SessionEvent::Allowed(true)), [SessionAction::Dial]);
}

#[test]
fn failed_dials_come_less_and_less_often() {
    let mut rig = Rig::new(true);
    assert_eq!(rig.step(SessionEvent::Reachable(true)), [SessionAction::Dial]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(rig.step(SessionEvent::DialFailed), []);
        let failed = rig.now;
        while rig.pass(250 * MS).is_empty() {}
        waits.push((rig.now - failed).as_millis());
    }
    assert_eq!(waits, [250, 500, 1000, 1750, 3250, 6500, 13000, 15000, 15000]);
    // A new address is a reason to try at once.
    rig.step(SessionEvent::DialFailed);
    assert_eq!(rig.step(SessionEvent::Reachable(true)), [SessionAction::Dial]);
}

#[test]
fn a_silent_peer_is_suspect_then_down_once() {
    let mut rig = Rig::new(true);
    let begin = [SessionAction::Begin { boot: 7 }, SessionAction::Admit { conn: 1 }, SessionAction::Route { conn: 1 }];
    assert_eq!(rig.ready(1, true, 1, 7), begin);
    assert_eq!(beats(&rig.pass(2750 * MS)), 3);
    assert_eq!(rig.session.state(), PeerState::Up);
    rig.pass(250 * MS);
    assert_eq!(rig.session.state(), PeerState::Suspect);
    let heard = rig.now;
    rig.now += 250 * MS;
    rig.step(SessionEvent::Tick { heard: Some(heard) });
    assert_eq!(rig.session.state(), PeerState::Up, "it spoke again");
    let all = no_beats(rig.pass(20_000 * MS));
    assert_eq!(all, [SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::Silent)]);
    assert_eq!(rig.session.state(), PeerState::Down);
}

#[test]
fn a_pause_of_this_process_is_not_held_against_the_peer() {
    let mut rig = Rig::new(true);
    rig.ready(1, true, 1, 7);
    rig.pass(1000 * MS);
    rig.now += 60_000 * MS;
    assert_eq!(no_beats(rig.step(SessionEvent::Tick { heard: None })), []);
    assert_eq!(rig.session.state(), PeerState::Up);
    assert_eq!(no_beats(rig.pass(9750 * MS)), []);
    assert_eq!(
        no_beats(rig.pass(250 * MS)),
        [SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::Silent)]
    );
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
            let mut expected = vec![SessionAction::Admit { conn: second }];
            if second == 1 {
                expected.push(SessionAction::Route { conn: 1 });
            }
            expected.push(SessionAction::Part { conn: 2 });
            assert_eq!(then, expected, "first {first}, lower {lower}");
            // Closed when both said goodbye, and the session goes on.
            let bye = SessionEvent::Goodbye { conn: 2, why: CloseReason::Superseded };
            assert_eq!(rig.step(bye), [SessionAction::Close { conn: 2 }]);
            assert_eq!(rig.step(SessionEvent::Closed { conn: 2 }), []);
            assert_eq!(rig.session.state(), PeerState::Up);
            assert_eq!(rig.step(SessionEvent::Closed { conn: 1 }), [SessionAction::Finish(SessionEnd::Closed)]);
        }
    }
}

#[test]
fn their_goodbye_may_come_before_their_better_connection() {
    let mut rig = Rig::new(true);
    rig.ready(2, false, 1, 7);
    assert_eq!(rig.step(SessionEvent::Goodbye { conn: 2, why: CloseReason::Superseded }), []);
    let then = rig.ready(1, true, 1, 7);
    let both = [
        SessionAction::Admit { conn: 1 },
        SessionAction::Route { conn: 1 },
        SessionAction::Part { conn: 2 },
        SessionAction::Close { conn: 2 },
    ];
    assert_eq!(then, both);
}

#[test]
fn a_connection_that_breaks_before_both_goodbyes_ends_the_life() {
    for (goodbye, broken, expected) in [
        (false, 2, vec![SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::Closed)]),
        (false, 1, vec![SessionAction::Close { conn: 2 }, SessionAction::Finish(SessionEnd::Closed)]),
        (true, 2, vec![]),
    ] {
        let mut rig = Rig::new(true);
        rig.ready(2, false, 1, 7);
        rig.ready(1, true, 1, 7);
        if goodbye {
            rig.step(SessionEvent::Goodbye { conn: 2, why: CloseReason::Superseded });
        }
        assert_eq!(rig.step(SessionEvent::Closed { conn: broken }), expected, "goodbye {goodbye}, broken {broken}");
    }
}

#[test]
fn two_dials_of_one_side_become_the_later() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 4, 7);
    assert_eq!(rig.ready(2, false, 4, 7), [SessionAction::Refuse { conn: 2, why: Refused::Twice }]);
    let then = rig.ready(3, false, 5, 7);
    assert_eq!(
        then,
        [SessionAction::Admit { conn: 3 }, SessionAction::Route { conn: 3 }, SessionAction::Part { conn: 1 }]
    );
}

#[test]
fn a_restarted_peer_ends_its_earlier_life_and_an_old_boot_does_not_come_back() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 1, 7);
    let then = rig.ready(2, false, 1, 8);
    let mut expected = vec![SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::Restarted)];
    expected.extend([
        SessionAction::Begin { boot: 8 },
        SessionAction::Admit { conn: 2 },
        SessionAction::Route { conn: 2 },
    ]);
    assert_eq!(then, expected);
    assert_eq!(rig.step(SessionEvent::Closed { conn: 1 }), [], "told already");
    assert_eq!(rig.ready(3, false, 9, 7), [SessionAction::Refuse { conn: 3, why: Refused::OldBoot }]);
}

#[test]
fn an_old_boot_is_not_let_in_when_no_life_stands() {
    let ends = [
        SessionEvent::Closed { conn: 1 },
        SessionEvent::Goodbye { conn: 1, why: CloseReason::Leaving },
        SessionEvent::Allowed(false), // its record ends with its lease, and comes back with the old process
    ];
    for end in ends {
        let mut rig = Rig::new(true);
        rig.ready(1, false, 1, 8);
        rig.step(end);
        rig.step(SessionEvent::Allowed(true));
        assert_eq!(rig.ready(2, false, 9, 7), [SessionAction::Refuse { conn: 2, why: Refused::OldBoot }], "{end:?}");
        assert_eq!(rig.session.state(), PeerState::Down, "{end:?}");
        for boot in [8, 9] {
            let begin = [
                SessionAction::Begin { boot },
                SessionAction::Admit { conn: boot },
                SessionAction::Route { conn: boot },
            ];
            assert_eq!(rig.ready(boot, false, 10, boot), begin, "{end:?}");
            rig.step(SessionEvent::Closed { conn: boot });
        }
    }
}

#[test]
fn an_old_process_is_dialled_less_and_less_often() {
    let mut rig = Rig::new(true);
    rig.ready(1, false, 1, 8);
    rig.step(SessionEvent::Closed { conn: 1 });
    assert_eq!(rig.step(SessionEvent::Reachable(true)), [SessionAction::Dial]);
    for (conn, wait) in [(2, 200), (3, 400), (4, 800), (5, 1600)] {
        assert_eq!(rig.ready(conn, true, conn, 7), [SessionAction::Refuse { conn, why: Refused::OldBoot }]);
        let refused = rig.now;
        let dials = (0..100).any(|_| {
            rig.now += 50 * MS;
            rig.step(SessionEvent::Tick { heard: None }).contains(&SessionAction::Dial)
        });
        // Its wait begins with the first tick.
        assert_eq!((dials, rig.now - refused), (true, (wait + 50) * MS), "connection {conn}");
    }
}

#[test]
fn a_life_ends_once_whatever_ends_it() {
    let cases = [
        (SessionEvent::Closed { conn: 1 }, vec![SessionAction::Finish(SessionEnd::Closed)]),
        (
            SessionEvent::Goodbye { conn: 1, why: CloseReason::Leaving },
            vec![SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::Left)],
        ),
        (
            SessionEvent::Allowed(false),
            vec![SessionAction::Close { conn: 1 }, SessionAction::Finish(SessionEnd::NotAllowed)],
        ),
    ];
    for (event, expected) in cases {
        let mut rig = Rig::new(true);
        rig.ready(1, true, 1, 7);
        assert_eq!(rig.step(event), expected, "{event:?}");
        for again in [event, SessionEvent::Closed { conn: 1 }, SessionEvent::Tick { heard: None }] {
            assert_eq!(rig.step(again), [], "{again:?} after {event:?}");
        }
    }
}

#[test]
fn a_life_without_an_address_waits_to_be_called() {
    let mut rig = Rig::new(true);
    assert_eq!(rig.pass(60_000 * MS), []);
    rig.ready(1, false, 1, 7);
    rig.step(SessionEvent::Closed { conn: 1 });
    assert_eq!(rig.pass(60_000 * MS), []);
    rig.ready(2, false, 2, 7);
    assert_eq!(rig.session.state(), PeerState::Up);
}
