//! Random writes, leases that wander, and requests that are lost, late or doubled.

use super::{Host, Note, SCOPE, cluster, notes, token};
use crate::support::scripted_replica::{Fault, ScriptedReplica};
use bulkhead::store::Policy;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    /// Host `n` writes, with this fault on the way.
    Write(usize, Fault),
    /// Host `n` gets the lease (and reads the state, if it can).
    Take(usize, bool),
    Restart(usize),
    Flush(usize),
    DeliverLate,
    Away(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::NotSent),
        1 => Just(Fault::RequestLost),
        2 => Just(Fault::AnswerLost),
        2 => Just(Fault::Late),
        1 => Just(Fault::DiesAfter),
        1 => Just(Fault::DiesBefore),
    ];
    prop_oneof![
        8 => (0..2usize, fault).prop_map(|(n, f)| Step::Write(n, f)),
        2 => (0..2usize, prop::bool::weighted(0.8)).prop_map(|(n, answered)| Step::Take(n, answered)),
        1 => (0..2usize).prop_map(Step::Restart),
        2 => (0..2usize).prop_map(Step::Flush),
        2 => Just(Step::DeliverLate),
        1 => any::<bool>().prop_map(Step::Away),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Two hosts, one lease that wanders, requests and answers lost, late and doubled, deaths at the worst place. What
    /// landed is in the order of the leases, one chain without gaps; with `Refuse`, whatever was acknowledged is there
    /// and a host that holds the lease sees exactly what the cluster has.
    #[test]
    fn what_lands_is_linear_by_lease(steps in prop::collection::vec(step(), 1..40), journal in any::<bool>()) {
        let replica = Arc::new(ScriptedReplica::default());
        let policy = if journal { Policy::Journal } else { Policy::Refuse };
        let hosts = [Host::new(&replica, policy), Host::new(&replica, policy)];
        let mut stores = [Some(hosts[0].start()), Some(hosts[1].start())];
        let mut leases = [0u64; 2];
        let (mut last, mut written) = (0, 0u64);
        let mut acknowledged: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Take(n, answered) => {
                    last += 1;
                    replica.give(SCOPE, last);
                    leases[n] = last;
                    if !answered { replica.next([Fault::RequestLost]); }
                    // Without the state it must not start; it stays without the lease's use.
                    if stores[n].as_ref().unwrap().acquire(SCOPE, last).is_err() { leases[n] = 0; }
                    replica.state().script.clear();
                }
                Step::Write(n, fault) => {
                    if leases[n] == 0 { continue }
                    written += 1;
                    replica.next([fault]);
                    let store = stores[n].as_ref().unwrap();
                    let wrote = catch_unwind(AssertUnwindSafe(|| {
                        store.put(&token(leases[n]), &format!("{written:04}"), &Note(written))
                    }));
                    match wrote {
                        Ok(Ok(())) => acknowledged.push(written),
                        Ok(Err(_)) => {}
                        Err(_) => {
                            // The process died: its lease is of no use to the next one before it is acquired.
                            stores[n] = None;
                            stores[n] = Some(hosts[n].start());
                            leases[n] = 0;
                        }
                    }
                    replica.state().script.clear();
                }
                Step::Restart(n) => {
                    stores[n] = None;
                    stores[n] = Some(hosts[n].start());
                    leases[n] = 0;
                }
                Step::Flush(n) => { let _ = stores[n].as_ref().unwrap().flush(SCOPE); }
                Step::DeliverLate => { replica.deliver_late(); }
                Step::Away(away) => replica.state().away = away,
            }
        }
        replica.state().away = false;
        last += 1;
        replica.give(SCOPE, last);
        let store = stores[0].as_ref().unwrap();
        store.acquire(SCOPE, last).unwrap();
        store.flush(SCOPE).unwrap();
        replica.deliver_late();
        let there = cluster(&replica, last + 1);
        prop_assert_eq!(&notes(store), &there);
        let landed = replica.state().landed.clone();
        let holds: Vec<u64> = landed.iter().map(|(_, hold, _)| match hold {
            bulkhead::store::replica::WriteRight::Lease(lease) => *lease,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert!(holds.is_sorted(), "leases of what landed: {:?}", holds);
        let seqs: Vec<u64> = landed.iter().map(|(_, _, m)| m.seq).collect();
        prop_assert_eq!(seqs, (1..=landed.len() as u64).collect::<Vec<_>>());
        if !journal {
            let there: Vec<u64> = there.iter().map(|(_, n)| *n).collect();
            for n in acknowledged {
                prop_assert!(there.contains(&n), "{} was acknowledged", n);
            }
        }
    }
}
