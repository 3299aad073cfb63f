//! Writes of a cluster's concerns when the cluster's store loses requests and answers, when leases change hands, and
//! when the process dies between the two stores.

mod random;

use crate::support::scripted_replica::{Fault, ScriptedReplica};
use bulkhead::store::replica::Committed;
use bulkhead::store::{Policy, Record, Result, Store, StoreError, Token};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

const SCOPE: &str = "/t01000/window-post";

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Note(u64);
impl Record for Note {
    const TABLE: &'static str = "notes";
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Other(String);
impl Record for Other {
    const TABLE: &'static str = "others";
}

fn token(lease: u64) -> Token {
    Token { path: SCOPE.into(), epoch: lease << 32 | 1 }
}

/// A host: a disk, and the cluster's store as it sees it.
struct Host {
    _dir: tempfile::TempDir,
    path: PathBuf,
    replica: Arc<ScriptedReplica>,
    policy: Policy,
}

impl Host {
    fn new(replica: &Arc<ScriptedReplica>, policy: Policy) -> Host {
        let dir = tempfile::tempdir().unwrap();
        Host { path: dir.path().join("bulkhead.redb"), _dir: dir, replica: replica.clone(), policy }
    }
    /// Waits for the disk of an earlier life: its flusher may still be in a write.
    fn start(&self) -> Store {
        loop {
            match Store::open(&self.path) {
                Ok(store) => return store.replicated(self.replica.clone(), self.policy),
                Err(StoreError::Locked { .. }) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
    }
    fn start_with(&self, lease: u64) -> Store {
        self.replica.give(SCOPE, lease);
        let store = self.start();
        store.acquire(SCOPE, lease).unwrap();
        store
    }
}

fn notes(store: &Store) -> Vec<(String, u64)> {
    store.list::<Note>().unwrap().into_iter().map(|(k, n)| (k, n.0)).collect()
}

/// What another host would find.
fn cluster(replica: &Arc<ScriptedReplica>, lease: u64) -> Vec<(String, u64)> {
    notes(&Host::new(replica, Policy::Refuse).start_with(lease))
}

fn waiting(store: &Store) -> u64 {
    store.scopes().unwrap().iter().map(|s| s.waiting).sum()
}

/// For the flusher's thread.
fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !there() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_write_is_in_both_stores_and_another_host_finds_it() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Refuse).start_with(7);
    assert!(store.is_replicated());
    let t = token(7);
    store.put(&t, "a", &Note(1)).unwrap();
    store
        .transact(&t, |tx| {
            tx.put("b", &Note(2))?;
            tx.put("b", &Note(3))?; // the same row twice in one transaction
            tx.put("c", &Note(4))?;
            assert_eq!(tx.get::<Note>("b")?, Some(Note(3)));
            tx.delete::<Note>("a")?;
            assert_eq!(tx.get::<Note>("a")?, None);
            tx.put("x", &Other("other".into()))?;
            let listed: Vec<_> = tx.list_prefix::<Note>("")?.into_iter().map(|(k, n)| (k, n.0)).collect();
            assert_eq!(listed, [("b".to_owned(), 3), ("c".to_owned(), 4)]);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    let expected = [("b".to_owned(), 3), ("c".to_owned(), 4)];
    assert_eq!(notes(&store), expected);
    assert_eq!(replica.state().landed.len(), 2, "one commit a transaction");
    assert_eq!(cluster(&replica, 8), expected);
    let e = store.put(&t, "d", &Note(5)).unwrap_err();
    assert!(matches!(e, StoreError::Fenced { newer, .. } if newer == 8 << 32), "{e}");
    assert_eq!(store.get::<Note>("d").unwrap(), None);
}

#[test]
fn an_error_of_the_transaction_reaches_neither_store() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    let answer: Result<()> = store.transact(&token(7), |tx| {
        tx.put("a", &Note(1))?;
        Err(StoreError::Io("no".into()))
    });
    assert!(answer.is_err());
    assert_eq!((notes(&store), replica.state().landed.len()), (vec![], 0));
}

#[test]
fn a_write_without_a_lease_is_refused() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start();
    let boot = Token { path: SCOPE.into(), epoch: 3 };
    assert!(matches!(store.put(&boot, "a", &Note(1)), Err(StoreError::Unleased { epoch: 3, .. })));
    assert!(matches!(store.acquire(SCOPE, 0), Err(StoreError::Unleased { .. })));
}

/// One write under each fault and policy: what the actor is told, what is on this disk at once, what the cluster has
/// when all is settled.
#[test]
fn every_fault_under_every_policy() {
    use Fault::*;
    use Policy::*;
    struct Case(Policy, Fault, Told, bool, bool);
    #[derive(Debug, PartialEq)]
    enum Told {
        Ok,
        Unreachable,
        Refused,
    }
    let cases = [
        Case(Refuse, Fault::None, Told::Ok, true, true),
        Case(Refuse, NotSent, Told::Unreachable, false, false),
        Case(Refuse, RequestLost, Told::Unreachable, false, false),
        // Told that it is not known; it landed, so it is in both in the end.
        Case(Refuse, AnswerLost, Told::Unreachable, false, true),
        // Voided before it arrived.
        Case(Refuse, Late, Told::Unreachable, false, false),
        Case(Refuse, Fault::Refused, Told::Refused, false, false),
        Case(Journal, Fault::None, Told::Ok, true, true),
        Case(Journal, NotSent, Told::Ok, true, true),
        Case(Journal, RequestLost, Told::Ok, true, true),
        Case(Journal, AnswerLost, Told::Ok, true, true),
        Case(Journal, Late, Told::Ok, true, true),
        Case(Journal, Fault::Refused, Told::Ok, true, true),
    ];
    for Case(policy, fault, told, at_once, in_the_end) in cases {
        let name = format!("{policy:?} {fault:?}");
        let replica = Arc::new(ScriptedReplica::default());
        let host = Host::new(&replica, policy);
        let store = host.start_with(7);
        store.put(&token(7), "before", &Note(0)).unwrap();
        replica.next([fault]);
        let answer = match store.put(&token(7), "a", &Note(1)) {
            Ok(()) => Told::Ok,
            Err(StoreError::Unreachable { .. }) => Told::Unreachable,
            Err(StoreError::Refused { .. }) => Told::Refused,
            Err(e) => panic!("{name}: {e}"),
        };
        assert_eq!(answer, told, "{name}");
        assert_eq!(store.get::<Note>("a").unwrap().is_some(), at_once, "{name}");
        store.flush(SCOPE).unwrap();
        assert_eq!(waiting(&store), 0, "{name}");
        assert_eq!(store.get::<Note>("a").unwrap().is_some(), in_the_end, "{name}: here");
        // The request that was under way arrives now: it must change nothing.
        assert!(replica.deliver_late().iter().all(|c| matches!(c, Committed::Differs { .. })), "{name}");
        store.put(&token(7), "after", &Note(2)).unwrap();
        let there = cluster(&replica, 8);
        assert_eq!(there.iter().any(|(k, _)| k == "a"), in_the_end, "{name}: there");
        assert_eq!(notes(&store), there, "{name}");
    }
}

#[test]
fn a_journal_is_flushed_in_order_and_survives_the_process() {
    let replica = Arc::new(ScriptedReplica::default());
    let host = Host::new(&replica, Policy::Journal);
    let store = host.start_with(7);
    replica.state().away = true;
    for n in 0..5 {
        store.put(&token(7), "a", &Note(n)).unwrap();
        store.put(&token(7), &format!("k{n}"), &Note(n)).unwrap();
    }
    store.delete::<Note>(&token(7), "k0").unwrap();
    assert_eq!(waiting(&store), 11);
    drop(store);
    let store = host.start();
    assert!(matches!(store.acquire(SCOPE, 7), Err(StoreError::Unreachable { .. })));
    replica.state().away = false;
    let acquired = store.acquire(SCOPE, 7).unwrap();
    assert_eq!((acquired.rows, acquired.kept, acquired.dropped), (0, 11, 0));
    let here = notes(&store);
    assert_eq!(here.len(), 5);
    store.flush(SCOPE).unwrap();
    assert_eq!(waiting(&store), 0);
    assert_eq!(cluster(&replica, 8), here);
    let seqs: Vec<u64> = replica.state().landed.iter().map(|(_, _, m)| m.seq).collect();
    assert_eq!(seqs, [1, 2], "the first as it may have been sent, the others together");
    assert_eq!(store.scopes().unwrap()[0].flushed, 11);
}

/// The next write does not overtake what was journaled before it.
#[test]
fn a_write_after_an_outage_goes_behind_the_journal() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().away = true;
    store.put(&token(7), "a", &Note(1)).unwrap();
    store.put(&token(7), "b", &Note(2)).unwrap();
    replica.state().away = false;
    store.under(Policy::Refuse).put(&token(7), "a", &Note(3)).unwrap();
    assert_eq!(waiting(&store), 0);
    assert_eq!(replica.state().landed.len(), 3);
    let expected = [("a".to_owned(), 3), ("b".to_owned(), 2)];
    assert_eq!(notes(&store), expected);
    assert_eq!(cluster(&replica, 8), expected);
}

/// With the journal of an hour, a write is acknowledged after two commits, and the rest is flushed behind its back.
#[test]
fn a_write_does_not_wait_for_a_long_journal() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().away = true;
    for n in 0..1000 {
        store.put(&token(7), &format!("k{n:04}"), &Note(n)).unwrap();
    }
    let asked = replica.state().calls;
    assert!(asked < 20, "{asked} calls: while it is away, only the flusher looks whether it is back");
    replica.state().away = false;
    // Whether it is back is the flusher's to find out.
    wait_until("the first commit", || !replica.state().landed.is_empty());
    store.put(&token(7), "now", &Note(1)).unwrap();
    assert_eq!(store.get::<Note>("now").unwrap(), Some(Note(1)));
    wait_until("an empty journal", || waiting(&store) == 0);
    let landed = replica.state().landed.len();
    assert!(landed < 20, "1,001 transactions in {landed} commits");
    let mut expected: Vec<_> = (0..1000).map(|n| (format!("k{n:04}"), n)).collect();
    expected.push(("now".into(), 1));
    assert_eq!(notes(&store), expected);
    assert_eq!(cluster(&replica, 8), expected);
}

/// What must not be done twice is refused for a moment, not kept waiting.
#[test]
fn a_refusing_write_waits_for_a_bounded_part_of_the_journal() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().away = true;
    // Each alone takes most of a commit.
    for n in 0..60 {
        store.put(&token(7), &format!("k{n}"), &Other("x".repeat(800_000))).unwrap();
    }
    replica.state().away = false;
    let refusing = store.under(Policy::Refuse);
    let e = refusing.put(&token(7), "no", &Note(1)).unwrap_err();
    assert!(matches!(e, StoreError::CatchingUp { waiting: 1..60, .. }), "{e}");
    store.flush(SCOPE).unwrap();
    refusing.put(&token(7), "no", &Note(1)).unwrap();
}

#[test]
fn a_transaction_that_could_never_land_is_refused_before_it_is_acknowledged() {
    for policy in [Policy::Journal, Policy::Refuse] {
        let replica = Arc::new(ScriptedReplica::default());
        let store = Host::new(&replica, policy).start_with(7);
        for away in [true, false] {
            replica.state().away = away;
            let e = store.put(&token(7), "large", &Other("x".repeat(1_100_000))).unwrap_err();
            assert!(matches!(e, StoreError::TooLarge { .. }), "{policy:?}, away {away}: {e}");
            assert_eq!((waiting(&store), store.get::<Other>("large").unwrap()), (0, None));
        }
        // And it is in nobody's way.
        store.put(&token(7), "a", &Note(1)).unwrap();
        assert_eq!(cluster(&replica, 8), [("a".to_owned(), 1)]);
    }
}

/// etcd that is set to take less than it does by default: told apart only once it answers.
#[test]
fn a_journaled_transaction_that_is_too_large_goes_in_parts() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().away = true;
    store.transact(&token(7), |tx| (0..100u64).try_for_each(|n| tx.put(&format!("k{n:03}"), &Note(n)))).unwrap();
    store.put(&token(7), "after", &Note(1)).unwrap();
    (replica.state().away, replica.state().rows_most) = (false, Some(30));
    store.flush(SCOPE).unwrap();
    assert_eq!(waiting(&store), 0);
    let mut expected = vec![("after".to_owned(), 1)];
    expected.extend((0..100).map(|n| (format!("k{n:03}"), n)));
    assert_eq!(notes(&store), expected);
    // One that it refuses to its face is not acknowledged at all.
    let many = store.transact(&token(7), |tx| (0..40u64).try_for_each(|n| tx.put(&format!("m{n}"), &Note(n))));
    assert!(matches!(many, Err(StoreError::TooLarge { .. })), "{many:?}");
    assert_eq!(cluster(&replica, 8), expected);
}

#[test]
fn the_journal_is_flushed_without_another_write() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().away = true;
    store.put(&token(7), "a", &Note(1)).unwrap();
    replica.state().away = false;
    wait_until("the background flush", || !replica.state().landed.is_empty());
}

#[test]
fn refused_writes_and_journaled_ones_share_a_scope() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Refuse).start_with(7);
    let journal = store.under(Policy::Journal);
    replica.next([Fault::AnswerLost]);
    assert!(store.put(&token(7), "refused", &Note(1)).is_err());
    replica.state().away = true;
    // It follows a write of which nobody knows yet whether it landed.
    journal.put(&token(7), "kept", &Note(2)).unwrap();
    journal.put(&token(7), "refused", &Note(3)).unwrap();
    assert!(matches!(store.put(&token(7), "no", &Note(4)), Err(StoreError::Unreachable { .. })));
    replica.state().away = false;
    store.flush(SCOPE).unwrap();
    let expected = [("kept".to_owned(), 2), ("refused".to_owned(), 3)];
    assert_eq!(notes(&store), expected, "what landed late lies under what was acknowledged later");
    assert_eq!(cluster(&replica, 8), expected);
}

#[test]
fn a_journal_is_void_once_somebody_else_wrote_and_that_is_counted() {
    let replica = Arc::new(ScriptedReplica::default());
    let first = Host::new(&replica, Policy::Journal).start_with(7);
    first.put(&token(7), "a", &Note(1)).unwrap();
    replica.state().away = true;
    first.put(&token(7), "a", &Note(2)).unwrap();
    first.put(&token(7), "b", &Note(3)).unwrap();
    replica.state().away = false;
    let second = Host::new(&replica, Policy::Journal).start_with(8);
    second.put(&token(8), "a", &Note(9)).unwrap();
    assert!(matches!(first.flush(SCOPE), Err(StoreError::Fenced { .. })));
    assert!(matches!(first.put(&token(7), "c", &Note(4)), Err(StoreError::Fenced { .. })));
    replica.give(SCOPE, 9);
    let acquired = first.acquire(SCOPE, 9).unwrap();
    assert_eq!((acquired.kept, acquired.dropped), (0, 2));
    assert_eq!(notes(&first), [("a".to_owned(), 9)]);
    assert_eq!(first.scopes().unwrap()[0].dropped, 2);
    first.put(&token(9), "d", &Note(5)).unwrap();
    assert!(matches!(first.put(&token(7), "e", &Note(6)), Err(StoreError::Fenced { .. })), "an epoch of before");
}

/// The same host gets a new lease and nobody wrote in between: what it acknowledged still holds.
#[test]
fn a_journal_outlives_a_lost_lease_that_nobody_used() {
    let replica = Arc::new(ScriptedReplica::default());
    for (n, lost) in [Fault::RequestLost, Fault::AnswerLost, Fault::Late].into_iter().enumerate() {
        let host = Host::new(&replica, Policy::Journal);
        let (old, new) = (n as u64 * 10 + 1, n as u64 * 10 + 2);
        let store = host.start_with(old);
        replica.next([lost]);
        store.put(&token(old), "a", &Note(old)).unwrap();
        replica.give(SCOPE, new);
        drop(store);
        let store = host.start();
        let acquired = store.acquire(SCOPE, new).unwrap();
        assert_eq!(acquired.dropped, 0, "{lost:?}");
        assert_eq!(acquired.kept, u64::from(lost != Fault::AnswerLost), "{lost:?}");
        assert!(replica.deliver_late().iter().all(|c| matches!(c, Committed::Fenced { .. })), "{lost:?}");
        store.flush(SCOPE).unwrap();
        assert_eq!(store.get::<Note>("a").unwrap(), Some(Note(old)), "{lost:?}");
        assert_eq!(cluster(&replica, new + 1), notes(&store), "{lost:?}");
    }
}

#[test]
fn a_lost_lease_that_nobody_took_fences_too() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    replica.state().leases.clear();
    let e = store.put(&token(7), "a", &Note(1)).unwrap_err();
    assert!(matches!(e, StoreError::Fenced { epoch, newer, .. } if epoch == newer), "{e}");
}

/// The empty transaction: the fence that is asked right before a push or a submission.
#[test]
fn an_empty_transaction_asks_whether_the_lease_holds() {
    for (policy, away_is_ok) in [(Policy::Refuse, false), (Policy::Journal, true)] {
        let replica = Arc::new(ScriptedReplica::default());
        let store = Host::new(&replica, policy).start_with(7);
        let ask = |lease| store.transact(&token(lease), |_| Ok::<_, StoreError>(()));
        ask(7).unwrap();
        replica.state().away = true;
        assert_eq!(ask(7).is_ok(), away_is_ok, "{policy:?}");
        replica.state().away = false;
        replica.give(SCOPE, 8);
        assert!(matches!(ask(7), Err(StoreError::Fenced { .. })), "{policy:?}");
        assert_eq!(replica.state().landed.len(), 0, "it writes nothing");
    }
}

#[test]
fn a_second_incarnation_under_the_same_lease_fences_the_first() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Journal).start_with(7);
    let incarnation = |n: u64| Token { path: SCOPE.into(), epoch: 7 << 32 | n };
    store.put(&incarnation(1), "a", &Note(1)).unwrap();
    store.transact(&incarnation(2), |_| Ok::<_, StoreError>(())).unwrap();
    let calls = replica.state().calls;
    assert!(matches!(store.put(&incarnation(1), "a", &Note(2)), Err(StoreError::Fenced { .. })));
    assert_eq!(replica.state().calls, calls, "the cluster was not asked");
}

/// The process dies around the commit: the next one reads what the cluster has.
#[test]
fn a_death_around_the_commit_leaves_what_the_cluster_has() {
    for (death, landed) in [(Fault::DiesBefore, false), (Fault::DiesAfter, true)] {
        for policy in [Policy::Refuse, Policy::Journal] {
            let replica = Arc::new(ScriptedReplica::default());
            let host = Host::new(&replica, policy);
            let store = host.start_with(7);
            store.put(&token(7), "a", &Note(1)).unwrap();
            replica.next([death]);
            let died = catch_unwind(AssertUnwindSafe(|| store.put(&token(7), "b", &Note(2))));
            assert!(died.is_err());
            assert_eq!(notes(&store).len(), 1, "this disk does not have it");
            drop(store);
            let store = host.start();
            assert_eq!(store.acquire(SCOPE, 7).unwrap().rows, 1 + u64::from(landed));
            assert_eq!(store.get::<Note>("b").unwrap().is_some(), landed);
            store.put(&token(7), "c", &Note(3)).unwrap();
            assert_eq!(notes(&store), cluster(&replica, 8));
        }
    }
}

/// Only the actor died, not the process: the mirror is found to be behind at the next write, and read again.
#[test]
fn a_mirror_that_is_behind_is_read_again() {
    let replica = Arc::new(ScriptedReplica::default());
    let store = Host::new(&replica, Policy::Refuse).start_with(7);
    replica.next([Fault::DiesAfter]);
    assert!(catch_unwind(AssertUnwindSafe(|| store.put(&token(7), "a", &Note(1)))).is_err());
    assert_eq!(store.get::<Note>("a").unwrap(), None);
    assert!(matches!(store.put(&token(7), "b", &Note(2)), Err(StoreError::Behind { .. })));
    let seen = store.update::<Note, _>(&token(7), "a", |old| (Note(10), old)).unwrap();
    assert_eq!(seen, Some(Note(1)));
    assert_eq!(notes(&store), [("a".to_owned(), 10)]);
}

#[test]
fn scopes_do_not_touch_each_others_rows() {
    let replica = Arc::new(ScriptedReplica::default());
    let host = Host::new(&replica, Policy::Refuse);
    let store = host.start_with(7);
    let shard = Token { path: "/t01000/window-post/b".into(), epoch: 3 << 32 };
    replica.give(&shard.path, 3);
    store.acquire(&shard.path, 3).unwrap();
    store.put(&token(7), "a", &Note(1)).unwrap();
    store.put(&shard, "b", &Note(2)).unwrap();
    let plain = Store::clone(&store);
    drop(store);
    // Acquired anew, one of them is replaced and the other stays.
    replica.state().rows.clear();
    plain.acquire(SCOPE, 7).unwrap();
    assert_eq!(notes(&plain), [("b".to_owned(), 2)]);
}

#[test]
fn epochs_of_a_single_nodes_time_do_not_fence_leases() {
    let replica = Arc::new(ScriptedReplica::default());
    let host = Host::new(&replica, Policy::Refuse);
    let single = Store::open(&host.path).unwrap();
    single.put(&Token { path: SCOPE.into(), epoch: 500 << 32 }, "old", &Note(1)).unwrap();
    drop(single);
    let store = host.start_with(7);
    store.put(&token(7), "a", &Note(2)).unwrap();
}
