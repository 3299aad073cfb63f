//! Faulty specs are refused before anything starts, each with the field's name (OTP 9).

use super::*;

struct Nobody;
impl Actor for Nobody {}

fn child(id: &str) -> ChildSpec {
    let address = Ref::<Nobody>::new(format!("/{id}"), 1);
    ChildSpec::actor(id, &address, |_| async { Ok(Nobody) })
}

fn root() -> SupervisorSpec {
    SupervisorSpec::new("root")
}

fn field(spec: SupervisorSpec) -> &'static str {
    match spec.compile("") {
        Err(SpecError::Field { field, id, why, fault }) => {
            assert_eq!(fault.field(), field);
            assert!(!id.is_empty() && !why.is_empty());
            field
        }
        Err(SpecError::DuplicateId { .. }) => "duplicate",
        Ok(_) => "ok",
    }
}

#[test]
fn each_fault_names_its_field() {
    let s = Duration::from_secs;
    let backoff = |first, cap| RestartBackoff { first: s(first), cap: s(cap), reset_after: s(60) };
    let zero = Duration::ZERO;
    let table: Vec<(&str, SupervisorSpec)> = vec![
        ("ok", root()),
        ("ok", root().child(child("a"))),
        ("id", SupervisorSpec::new("")),
        ("id", SupervisorSpec::new("a/b")),
        ("id", root().child(child(""))),
        ("id", root().child(child("a/b"))),
        ("period", root().intensity(3, zero)),
        ("ok", root().intensity(3, Duration::from_nanos(1))),
        ("backoff", root().backoff(backoff(2, 1))),
        ("ok", root().backoff(backoff(1, 1))),
        ("shutdown", root().child(child("a").shutdown(Shutdown::Timeout(zero)))),
        ("ok", root().child(child("a").shutdown(Shutdown::BrutalKill))),
        ("start_timeout", root().child(child("a").start_timeout(zero))),
        ("hang_after", root().child(child("a").hang_after(zero))),
        ("thread", root().child(child("a").on(Thread::Shared("")))),
        ("duplicate", root().child(child("a")).child(child("b")).child(child("a"))),
        ("children", root().dynamic(3).child(child("a"))),
        ("strategy", root().dynamic(3).strategy(Strategy::OneForAll)),
        ("significant", root().auto_shutdown(AutoShutdown::AnySignificant).child(child("a").significant())),
        ("auto_shutdown", root().child(child("a").significant().restart(Restart::Transient))),
        (
            "ok",
            root()
                .auto_shutdown(AutoShutdown::AnySignificant)
                .child(child("a").significant().restart(Restart::Transient)),
        ),
        ("mailbox", root().child(ChildSpec::actor("a", &Ref::new("/a", 0), |_| async { Ok(Nobody) }))),
        ("id", root().child(ChildSpec::supervisor(SupervisorSpec::new("s").child(child(""))))),
    ];
    for (n, (expected, spec)) in table.into_iter().enumerate() {
        assert_eq!(field(spec), expected, "row {n}");
    }
}

#[test]
fn each_fault_is_a_type_of_its_own() {
    let fault = |spec: SupervisorSpec| match spec.compile("") {
        Err(SpecError::Field { fault, .. }) => fault,
        other => panic!("{:?}", other.map(|_| ())),
    };
    let zero = Duration::ZERO;
    let address = Ref::<Nobody>::new("/twice", 1);
    let twice = |id: &str| ChildSpec::actor(id, &address, |_| async { Ok(Nobody) });
    for (expected, spec) in [
        (SpecFault::EmptyId, SupervisorSpec::new("")),
        (SpecFault::SlashInId, SupervisorSpec::new("a/b")),
        (SpecFault::ZeroPeriod, root().intensity(1, zero)),
        (SpecFault::NeverTrips, root().intensity(1_000_000, Duration::from_secs(1)).child(child("a"))),
        (SpecFault::DynamicChildren, root().dynamic(1).child(child("a"))),
        (SpecFault::DynamicStrategy, root().dynamic(1).strategy(Strategy::RestForOne)),
        (SpecFault::SignificantUnderNever, root().child(child("a").significant().restart(Restart::Temporary))),
        (SpecFault::ZeroShutdown, root().child(child("a").shutdown(Shutdown::Timeout(zero)))),
        (SpecFault::ZeroStartTimeout, root().child(child("a").start_timeout(zero))),
        (SpecFault::ZeroHangAfter, root().child(child("a").hang_after(zero))),
        (SpecFault::UnnamedThread, root().child(child("a").on(Thread::Shared("")))),
        (SpecFault::AddressTaken, root().child(twice("a")).child(twice("b"))),
    ] {
        assert_eq!(fault(spec), expected);
    }
}

#[test]
fn an_intensity_that_can_never_trip_is_refused() {
    let ms = Duration::from_millis;
    let with = |intensity, period, crowd: usize| {
        let backoff = RestartBackoff { first: ms(1000), cap: ms(1000), reset_after: ms(60_000) };
        let spec = root().intensity(intensity, ms(period)).backoff(backoff);
        field((0..crowd).fold(spec, |s, n| s.child(child(&n.to_string()))))
    };
    // At the shortest jittered wait of 800 ms, crashes come at 0, 800, 1600, 2400 ms.
    assert_eq!(with(2, 1_600, 1), "ok");
    assert_eq!(with(2, 1_599, 1), "intensity");
    assert_eq!(with(3, 1_600, 1), "intensity");
    // Two children crash twice as often.
    assert_eq!(with(5, 1_600, 2), "ok");
    assert_eq!(with(6, 1_600, 2), "intensity");
    // The first crash needs no wait; no children never crash.
    assert_eq!(with(0, 1, 1), "ok");
    assert_eq!(with(9, 1, 0), "ok");
    // Without a backoff there is always time for one more.
    assert_eq!(field(root().intensity(u32::MAX, ms(1)).backoff(RestartBackoff::NONE)), "ok");
}

#[test]
fn an_address_has_one_owner_at_a_time() {
    let address = Ref::<Nobody>::new("/a", 1);
    let spec = |id: &str| ChildSpec::actor(id, &address, |_| async { Ok(Nobody) });
    assert_eq!(field(root().child(spec("a")).child(spec("b"))), "address");
    let held = root().child(spec("a")).compile("").unwrap();
    assert_eq!(field(root().child(spec("a"))), "address");
    drop(held);
    assert_eq!(field(root().child(spec("a"))), "ok");
}
