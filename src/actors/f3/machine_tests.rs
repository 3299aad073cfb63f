//! Every answer of the full node and what follows; at no moment may two leases count.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lease(from: u64, term: u64) -> F3Lease {
    F3Lease { network: "net".into(), issuer: "node".into(), miner_id: 1000, from_instance: from, validity_term: term }
}

fn ticket(from: u64) -> Vec<u8> {
    lease(from, 5).to_ticket().unwrap()
}

fn renew(previous: Vec<u8>) -> Ask {
    Ask::Ticket { previous, instances: 5 }
}

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal, "why".into())
}

/// Holds a lease from instance 10 to 15.
fn holding() -> Participation {
    let mut p = Participation::new(1000, vec![], true);
    assert_eq!(p.begin().ask, Ask::Progress);
    assert_eq!(p.answered(Answer::Progress(10)).ask, renew(vec![]));
    let next = p.answered(Answer::Ticket(ticket(10)));
    assert_eq!((next.save, next.ask), (Some(ticket(10)), Ask::Participate { ticket: ticket(10) }));
    assert_eq!(p.answered(Answer::Lease(lease(10, 5))).ask, Ask::Manifest);
    let next = p.answered(Answer::Manifest(Some(("net".into(), 15 * SECOND))));
    assert_eq!(next.ask, Ask::Participate { ticket: ticket(10) });
    p
}

#[test]
fn a_lease_is_looked_at_again_in_time_and_renewed_with_two_instances_left() {
    let mut p = holding();
    for (left, after, again) in
        [(5, 45, true), (4, 30, true), (3, 15, true), (2, 0, false), (1, 0, false), (0, 0, false)]
    {
        let next = p.answered(Answer::Lease(lease(15 - left, left)));
        let ask = if again { Ask::Participate { ticket: ticket(10) } } else { renew(ticket(10)) };
        assert_eq!((next.after, next.ask), ((after * SECOND).max(LEAST_PAUSE), ask), "{left} left");
        assert_eq!((p.report.state, p.report.instance), (F3State::Participating, Some(15 - left)));
    }
    assert_eq!((p.report.leases, p.report.lease_to), (1, Some(15)));
    p.answered(Answer::Lease(lease(14, 5)));
    assert_eq!((p.report.leases, p.report.lease_to), (2, Some(19)));
}

#[test]
fn what_each_refusal_of_a_ticket_and_of_a_lease_leads_to() {
    use Refusal::*;
    let empty = Vec::new;
    // refusal -> at the ticket, at the lease: the next call, and when
    let table = [
        (Disabled, (Ask::Progress, 300.0), (Ask::Progress, 300.0)),
        (Missing, (Ask::Progress, 300.0), (Ask::Progress, 300.0)),
        (NotReady, (renew(ticket(10)), 1.0), (Ask::Participate { ticket: ticket(10) }, 1.0)),
        (TicketExpired, (renew(empty()), 0.5), (renew(ticket(10)), 0.5)),
        (StartsBeforeExisting, (renew(ticket(10)), 1.0), (renew(ticket(10)), 0.5)),
        (TicketInvalid, (Ask::Progress, 1.0), (Ask::Progress, 1.0)),
        (IssuerMismatch, (Ask::Progress, 1.0), (Ask::Progress, 1.0)),
        (Other, (renew(ticket(10)), 1.0), (Ask::Participate { ticket: ticket(10) }, 1.0)),
    ];
    for (refusal, at_ticket, at_lease) in table {
        let mut p = holding();
        p.answered(Answer::Lease(lease(13, 2)));
        let next = p.answered(refused(refusal));
        assert_eq!((next.ask, next.after.as_secs_f64()), at_ticket, "{refusal:?} at the ticket");
        let mut p = holding();
        let next = p.answered(refused(refusal));
        assert_eq!((next.ask, next.after.as_secs_f64()), at_lease, "{refusal:?} at the lease");
    }
    let mut p = holding();
    p.answered(Answer::Lease(lease(13, 2)));
    let fewer = p.answered(refused(TooManyInstances)).ask;
    assert_eq!(fewer, Ask::Ticket { previous: ticket(10), instances: 4 });
}

#[test]
fn another_nodes_ticket_is_kept_until_its_last_instance_has_passed() {
    let mut p = holding();
    for instance in 11..=15 {
        p.answered(refused(Refusal::IssuerMismatch));
        assert_eq!(p.report.state, F3State::Waiting);
        let ask = p.answered(Answer::Progress(instance)).ask;
        assert_eq!(ask, renew(ticket(10)), "the same ticket at the same node, instance {instance}");
    }
    p.answered(refused(Refusal::IssuerMismatch));
    assert_eq!(p.answered(Answer::Progress(16)).ask, renew(vec![]));
}

#[test]
fn a_start_renews_its_own_ticket_and_waits_out_what_another_host_may_hold() {
    // (kept, alone) -> the call after the first progress
    let first = |kept: Vec<u8>, alone, instance| {
        let mut p = Participation::new(1000, kept, alone);
        p.begin();
        p.answered(Answer::Progress(instance)).ask
    };
    for alone in [false, true] {
        assert_eq!(first(ticket(10), alone, 10), renew(ticket(10)));
        assert_eq!(first(ticket(10), alone, 15), renew(ticket(10)), "its last instance");
    }
    assert_eq!(first(ticket(10), true, 16), renew(vec![]), "nobody else takes leases");
    assert_eq!(first(ticket(10), false, 16), Ask::Progress);
    assert_eq!(first(vec![], false, 16), Ask::Progress);
    let others = F3Lease { miner_id: 1001, ..lease(10, 5) }.to_ticket().unwrap();
    assert_eq!(first(others, true, 12), renew(vec![]), "another miner's");

    let mut p = Participation::new(1000, vec![], false);
    p.begin();
    for instance in 20..=25 {
        assert_eq!(p.answered(Answer::Progress(instance)).ask, Ask::Progress, "{instance}");
        assert_eq!(p.report.state, F3State::Waiting);
    }
    assert_eq!(p.answered(Answer::Progress(26)).ask, renew(vec![]), "five instances after the start");
}

#[test]
fn thirteen_failures_begin_the_try_again_with_the_same_ticket() {
    let mut p = holding();
    let asks: Vec<Ask> = (0..14).map(|_| p.answered(refused(Refusal::Other)).ask).collect();
    assert!(asks[..13].iter().all(|ask| *ask == Ask::Participate { ticket: ticket(10) }));
    assert_eq!(asks[13], renew(ticket(10)));
    assert_eq!(p.report.failures, 0);
    // One that is no ticket to anybody is given up after as many.
    let mut p = Participation { ticket: vec![1, 2, 3], ..holding() };
    for _ in 0..GIVE_UP_AFTER {
        p.answered(refused(Refusal::TicketInvalid));
        assert_eq!(p.answered(Answer::Progress(11)).ask, renew(vec![1, 2, 3]));
    }
    p.answered(refused(Refusal::TicketInvalid));
    assert_eq!(p.answered(Answer::Progress(11)).ask, renew(vec![]));
}

#[test]
fn pauses_grow_by_half_up_to_a_minute() {
    let pauses = [1, 2, 3, 11, 12, 1000].map(|failures| backoff(failures).as_secs_f64());
    assert_eq!(pauses[..3], [1.0, 1.5, 2.25]);
    assert!((57.0..58.0).contains(&pauses[3]) && pauses[4..] == [60.0, 60.0], "{pauses:?}");
}

/// Forest and Lotus without a static manifest lose it at a restart: a lease whose end is not known is renewed all the same.
#[test]
fn a_manifest_of_another_network_or_none_leads_back_to_the_ticket() {
    let mut p = holding();
    p.answered(Answer::Lease(F3Lease { network: "net/2".into(), ..lease(1, 5) }));
    assert_eq!(p.answered(Answer::Manifest(Some(("net/3".into(), SECOND)))).ask, renew(ticket(10)));
    let mut p = holding();
    for renewed in 1..4 {
        let unknown = F3Lease { network: "net/2".into(), ..lease(renewed, 5) };
        assert_eq!(p.answered(Answer::Lease(unknown)).ask, Ask::Manifest);
        let next = p.answered(Answer::Manifest(None));
        assert_eq!((next.ask, next.after), (renew(ticket(10)), 30 * SECOND));
        assert_eq!((p.report.state, p.report.failures), (F3State::Participating, 0));
        assert_eq!(p.answered(Answer::Ticket(ticket(10))).ask, Ask::Participate { ticket: ticket(10) });
    }
}

/// A node that catches up counts from far behind: what it says at the start is no bound for the leases of others.
#[test]
fn a_node_that_catches_up_or_begins_anew_does_not_shorten_the_wait() {
    // What it says look by look -> the looks after which a ticket is taken; never within them: None
    for (said, taken) in [
        (vec![50, 51, 53, 54, 55, 56], Some(6)),
        (vec![50, 56, 80, 99, 100, 101, 102, 103, 104, 105], Some(10)),
        (vec![50, 70, 90, 110], None),
        (vec![50, 53, 56, 59, 62], None),
        (vec![50, 51, 0, 1, 2, 3, 4, 5], None),
        (vec![50, 51, 0, 1, 2, 3, 4, 5, 6], Some(9)),
    ] {
        let mut p = Participation::new(1000, vec![], false);
        p.begin();
        let mut asks = said.iter().map(|instance| p.answered(Answer::Progress(*instance)).ask);
        let found = asks.position(|ask| ask != Ask::Progress).map(|at| at + 1);
        assert_eq!(found, taken, "{said:?}");
    }
}

/// On a quick network more instances pass between two looks than between two of a node that catches up: it looks oftener.
#[test]
fn a_quick_network_is_looked_at_oftener_and_waited_out_all_the_same() {
    let mut p = Participation::new(1000, vec![], false);
    let (mut now, mut next) = (Duration::ZERO, p.begin());
    while next.ask == Ask::Progress {
        now += next.after;
        assert!(now < 300 * SECOND, "it never takes a lease");
        next = p.answered(Answer::Progress(now.as_secs() / 2));
    }
    assert_eq!(next.ask, renew(vec![]));
}

#[test]
fn refusals_are_told_by_lotus_codes_and_by_forests_words() {
    use Refusal::*;
    for (code, want) in [
        (4, Disabled),
        (5, TicketInvalid),
        (6, TicketExpired),
        (7, IssuerMismatch),
        (8, TooManyInstances),
        (9, StartsBeforeExisting),
        (10, NotReady),
        (11, Other),
    ] {
        assert_eq!(Refusal::of(Some(code), "x"), want, "{code}");
    }
    for (text, want) in [
        ("f3 is disabled", Disabled),
        ("the ticket was not issued by the current node", IssuerMismatch),
        ("the previous lease was not issued by this node", IssuerMismatch),
        ("the ticket has been expired", TicketExpired),
        ("the previous lease was issued for a different network", TicketExpired),
        ("the ticket was not issued for the current network", TicketExpired),
        ("the from instance should never decrease", StartsBeforeExisting),
        ("f3 isn't yet ready to participate", NotReady),
        ("connection refused", Other),
    ] {
        assert_eq!(Refusal::of(Some(1), text), want, "{text}");
        assert_eq!(Refusal::of(None, text), want, "{text}");
    }
}

/// The node that gave the lease is not used any more: no lease is taken elsewhere while that one counts.
#[test]
fn at_another_node_the_lease_of_the_first_is_waited_out() {
    let mut p = holding();
    p.answered(Answer::Lease(lease(10, 5)));
    let next = p.moved("other".into());
    assert_eq!((next.ask, p.report.state, p.report.full_node.as_str()), (Ask::Progress, F3State::Waiting, "other"));
    for instance in [11, 12, 15] {
        assert_eq!(p.answered(Answer::Progress(instance)).ask, renew(ticket(10)), "at {instance}");
        assert_eq!(p.answered(refused(Refusal::IssuerMismatch)).ask, Ask::Progress);
    }
    let next = p.answered(Answer::Progress(16));
    assert_eq!((next.ask, next.after), (renew(vec![]), Duration::ZERO));
    // Without a lease there is nothing to wait for.
    let mut p = Participation::new(1000, vec![], true);
    p.begin();
    p.answered(refused(Refusal::Other));
    assert_eq!((p.moved("other".into()).ask, p.report.failures), (Ask::Progress, 0));
    assert_eq!(p.answered(Answer::Progress(3)).ask, renew(vec![]));
}
