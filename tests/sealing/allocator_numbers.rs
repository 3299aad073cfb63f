//! Sector numbers over crashes, outages and other software on the same miner.

use crate::support::fake_chain::{FakeChain, miner};
use crate::support::mortal::Mortal;
use bulkhead::actors::sector_allocator::messages::{AllocateError, ReserveError};
use bulkhead::actors::sector_allocator::{Allocator, AllocatorSettings};
use bulkhead::store::{Store, Token};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

fn book(path: &Path, chain: &Arc<FakeChain>, epoch: u64) -> Allocator {
    Allocator {
        node: chain.clone(),
        store: Store::open(path).unwrap(),
        token: Token { path: "/t01000/sector-allocator".into(), epoch },
        miner: miner(),
        settings: AllocatorSettings { lease: 3, ..AllocatorSettings::default() },
    }
}

#[tokio::test]
async fn lotus_scenario_with_reservations() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::default());
    chain.state().allocated.extend([1, 2]);
    let b = book(&dir.path().join("db"), &chain, 1);
    assert_eq!(b.numbers().await.unwrap().next, Some(3));
    b.reserve("test-reservation", &[3..=10]).await.unwrap();
    assert!(matches!(b.reserve("test-reservation", &[30..=33]).await, Err(ReserveError::Exists(_))));
    assert!(matches!(b.reserve("other", &[7..=12]).await, Err(ReserveError::Reserved { number: 7, .. })));
    assert!(matches!(b.reserve("test/reservation", &[40..=40]).await, Err(ReserveError::Name(_))));
    assert!(matches!(b.reserve("taken", &[2..=2]).await, Err(ReserveError::Allocated(2))));
    assert_eq!(b.numbers().await.unwrap().next, Some(11));
    assert_eq!((b.allocate("a").await, b.allocate("b").await), (Ok(11), Ok(12)));
    b.free("test-reservation").unwrap();
    assert_eq!(b.numbers().await.unwrap().next, Some(3));
    assert_eq!(b.allocate("c").await, Ok(3));
    assert_eq!(b.numbers().await.unwrap().allocated, [3..=3, 11..=12]);
    assert_eq!(b.reserve_count("some", 3).await.unwrap(), [4..=6]);
}

#[tokio::test]
async fn the_same_request_gets_the_same_number_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let chain = FakeChain::new(Arc::default());
    let b = book(&path, &chain, 1);
    assert_eq!((b.allocate("a").await, b.allocate("a").await, b.allocate("b").await), (Ok(1), Ok(1), Ok(2)));
    drop(b);
    let b = book(&path, &chain, 2);
    chain.state().down = true;
    assert_eq!(b.allocate("a").await, Ok(1));
}

#[tokio::test]
async fn a_crash_at_any_point_neither_loses_nor_doubles_a_number() {
    for point in 1..12 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mortal = Arc::new(Mortal::default());
        let chain = FakeChain::new(mortal.clone());
        mortal.die_at(Some(point));
        let b = book(&path, &chain, 1);
        let mut given = BTreeSet::new();
        let died = mortal
            .live(async {
                for n in 0..4 {
                    given.insert(b.allocate(&format!("r{n}")).await.unwrap());
                }
            })
            .await
            .is_none();
        drop(b);
        mortal.die_at(None);
        let b = book(&path, &chain, 2);
        for n in 0..4 {
            given.insert(b.allocate(&format!("r{n}")).await.unwrap());
        }
        assert_eq!(given, BTreeSet::from([1, 2, 3, 4]), "point {point}, died: {died}");
    }
}

#[tokio::test]
async fn while_the_chain_is_down_leased_numbers_serve_and_then_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let chain = FakeChain::new(Arc::default());
    chain.state().allocated.extend([1, 3]);
    let b = book(&dir.path().join("db"), &chain, 1);
    chain.state().down = true;
    assert!(matches!(b.allocate("early").await, Err(AllocateError::ChainUnavailable { .. })));
    assert!(!b.refresh().await.unwrap());
    chain.state().down = false;
    assert!(b.refresh().await.unwrap());
    chain.state().down = true;
    let mut given = vec![];
    for n in 0..3 {
        given.push(b.allocate(&format!("r{n}")).await.unwrap());
    }
    assert_eq!(given, [2, 4, 5]);
    let refused = b.allocate("r3").await.unwrap_err();
    assert!(refused.to_string().contains("no leased number is left"), "{refused}");
    assert!(matches!(b.reserve("x", &[50..=50]).await, Err(ReserveError::ChainUnavailable(_))));
    // Other software used some meanwhile.
    chain.state().allocated.extend([6, 7]);
    chain.state().down = false;
    assert_eq!(b.allocate("r3").await, Ok(8));
}

#[tokio::test]
async fn a_chain_that_does_not_answer_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mortal = Arc::new(Mortal::default());
    let chain = FakeChain::new(mortal.clone());
    let mut b = book(&dir.path().join("db"), &chain, 1);
    assert_eq!(b.allocate("a").await, Ok(1));
    b.settings.chain_deadline = std::time::Duration::from_millis(20);
    mortal.die_at(Some(1));
    assert_eq!(b.allocate("b").await, Ok(2), "from the lease, after the deadline");
}
