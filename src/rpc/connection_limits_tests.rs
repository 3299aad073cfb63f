//! The shares of a surface's connections.

use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 6,
    strangers: 4,
    strangers_per_host: 3,
    known_per_host: 1,
    when_full: WhenFull::CloseQuietest,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Admits one connection from each host; gives what it closes, or `None` when it is refused.
fn admit(table: &mut Table, from: &str, now_ms: u64) -> Option<(ConnectionId, Option<ConnectionId>)> {
    match table.admit(ip(from), now_ms) {
        Admission::Admitted { id, closes } => Some((id, closes)),
        Admission::Refused => None,
    }
}

#[test]
fn a_full_surface_closes_the_quietest_of_whoever_has_most() {
    // (connections that are there, newcomer, what it closes)
    let cases: [(&[&str], &str, Option<ConnectionId>); 6] = [
        (&[], "10.0.0.1", None),
        (&["10.0.0.1", "10.0.0.1"], "10.0.0.1", None),
        (&["10.0.0.1", "10.0.0.1", "10.0.0.1"], "10.0.0.1", Some(0)),
        (&["10.0.0.1", "10.0.0.1", "10.0.0.1"], "10.0.0.2", None),
        (&["10.0.0.2", "10.0.0.1", "10.0.0.1", "10.0.0.1"], "10.0.0.2", Some(1)),
        (&["10.0.0.2", "10.0.0.1", "10.0.0.1", "10.0.0.1"], "10.0.0.3", Some(1)),
    ];
    for (there, newcomer, closes) in cases {
        let mut table = Table::new(LIMITS);
        for (now, from) in there.iter().enumerate() {
            admit(&mut table, from, now as u64).expect("room");
        }
        let (_, closed) = admit(&mut table, newcomer, 100).expect("room");
        assert_eq!(closed, closes, "{there:?}, then {newcomer}");
    }
}

#[test]
fn who_sends_is_not_the_quietest() {
    let mut table = Table::new(LIMITS);
    for now in 0..3 {
        admit(&mut table, "10.0.0.1", now);
    }
    table.entries[&0].activity.heard_ms.store(50, Ordering::Relaxed);
    assert_eq!(admit(&mut table, "10.0.0.1", 51), Some((3, Some(1))));
}

#[test]
fn nothing_goes_over_the_total_while_the_closed_have_not_left() {
    let mut table = Table::new(LIMITS);
    for now in 0..6 {
        assert!(admit(&mut table, "10.0.0.1", now).is_some(), "{now}: three stay, three are closing");
    }
    assert_eq!(admit(&mut table, "10.0.0.1", 6), None, "the closed ones are still there");
    table.leave(0);
    assert_eq!(admit(&mut table, "10.0.0.1", 7), Some((6, Some(3))));
}

#[test]
fn a_surface_that_refuses_closes_nobody() {
    let mut table = Table::new(ConnectionLimits { when_full: WhenFull::Refuse, ..LIMITS });
    let taken: Vec<bool> = (0..4).map(|now| admit(&mut table, "10.0.0.1", now).is_some()).collect();
    assert_eq!(taken, [true, true, true, false]);
    assert!(admit(&mut table, "10.0.0.2", 5).is_some(), "another host has a share of its own");
    assert_eq!(admit(&mut table, "10.0.0.3", 6), None, "the surface is full");
    table.leave(0);
    assert!(admit(&mut table, "10.0.0.3", 7).is_some());
}

#[test]
fn known_callers_have_room_that_strangers_do_not_take() {
    let mut table = Table::new(LIMITS);
    let (first, _) = admit(&mut table, "10.0.0.1", 0).expect("room");
    let (second, _) = admit(&mut table, "10.0.0.1", 1).expect("room");
    assert!(table.identify(first) && table.identify(first));
    assert!(!table.identify(second), "one host has its share of the known");
    let (third, _) = admit(&mut table, "10.0.0.2", 2).expect("room");
    assert!(table.identify(third));
    let (fourth, _) = admit(&mut table, "10.0.0.3", 3).expect("room");
    assert!(!table.identify(fourth), "total less strangers is the room of the known");
    for now in 4..20 {
        let _ = admit(&mut table, "10.0.0.9", now);
    }
    let known = |table: &Table| table.entries.values().filter(|e| e.standing == Standing::Known).count();
    assert_eq!(known(&table), 2, "no flood of strangers closes a known caller");
    table.leave(first);
    assert!(table.identify(second) || table.entries[&second].standing == Standing::Closing);
}

#[test]
fn nothing_is_kept_of_those_that_left() {
    let cases = [
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("2001:db8::1", "2001:db8::ffff:2", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ];
    for (one, other, same) in cases {
        assert_eq!(remote_host(ip(one)) == remote_host(ip(other)), same, "{one} and {other}");
    }
    let limiter = ConnectionLimiter::new(LIMITS);
    let permits: Vec<_> = (0..5).filter_map(|_| limiter.admit(Some(ip("10.0.0.1")))).collect();
    assert_eq!((permits.len(), limiter.open(), limiter.closed()), (5, 5, 2));
    assert!(permits[4].connection().identify());
    drop(permits);
    let table = limiter.shared.table();
    assert!(table.hosts.is_empty() && (table.strangers, table.known, table.entries.len()) == (0, 0, 0));
}

#[tokio::test]
async fn a_newcomer_waits_for_those_that_are_closing() {
    let limiter = ConnectionLimiter::new(ConnectionLimits { total: 2, strangers: 1, strangers_per_host: 1, ..LIMITS });
    let first = limiter.admit_soon(None).await.expect("room");
    let second = limiter.admit_soon(None).await.expect("room, as the first is told to close");
    assert!(limiter.admit(None).is_none(), "both are still there");
    let third = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.admit_soon(None).await }
    });
    tokio::task::yield_now().await;
    drop(first);
    assert!(third.await.expect("joined").is_some());
    drop(second);
    let refusing = ConnectionLimits { when_full: WhenFull::Refuse, strangers_per_host: 1, ..LIMITS };
    let limiter = ConnectionLimiter::new(refusing);
    let _held = limiter.admit_soon(None).await.expect("room");
    assert!(limiter.admit_soon(None).await.is_none() && limiter.refused() == 1, "nobody is closing: refused at once");
}

#[test]
fn the_closed_connection_is_woken() {
    let limiter = ConnectionLimiter::new(ConnectionLimits { strangers_per_host: 1, ..LIMITS });
    let first = limiter.admit(None).expect("room");
    let (waker, woken) = futures_test_waker();
    let cx = std::task::Context::from_waker(&waker);
    assert!(!first.connection().is_closing(&cx));
    let _second = limiter.admit(None).expect("room");
    assert!(woken.load(Ordering::Relaxed) && first.connection().is_closing(&cx));
}

fn futures_test_waker() -> (std::task::Waker, Arc<AtomicBool>) {
    struct Woken(Arc<AtomicBool>);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(AtomicBool::new(false));
    (Arc::new(Woken(woken.clone())).into(), woken)
}
