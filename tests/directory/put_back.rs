//! An etcd that is put back to an earlier state under nodes that run.

use crate::support::etcd::{Etcds, TTL, acquire, see, within};
use bulkhead::rpc::directory::{Directory, LeaseState};

const WINDOW: &str = "/t01000/window-post";
const WINNING: &str = "/t01000/winning-post";

/// The epoch of a hold that is gone is above every revision that etcd has now, so no news of the key can tell that.
#[tokio::test]
async fn what_was_held_is_lost_and_held_anew_under_a_lower_epoch_by_one_at_a_time() {
    let mut etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let before = within("a hold from before", acquire(&a, WINNING)).await;
    let copy = etcds.back_up().await;
    etcds.write_on(50).await;
    let lease = within("a hold that the copy does not have", acquire(&a, WINDOW)).await;
    see(&b, "it", |view| view.holders.contains_key(WINDOW)).await;
    assert!(lease.epoch() > 50);
    etcds.put_back(&copy).await;

    // From now on it is free in etcd, and its old holder believes in it until it has asked.
    let (proof, next) = (lease.proof(), within("b's turn", acquire(&b, WINDOW)).await);
    assert_eq!((proof.state(), next.state()), (LeaseState::Lost, LeaseState::Proven), "two holders");
    assert!(next.epoch() < lease.epoch(), "{} after {}", next.epoch(), lease.epoch());
    within("the session of before is over with all of it", before.lost()).await;
    let seen = see(&a, "b as the holder", |view| view.holders.get(WINDOW).is_some_and(|h| h.node == "b")).await;
    assert_eq!(seen.holders[WINDOW].epoch, next.epoch(), "as etcd counts now");

    // It goes on as ever.
    let again = within("a's other hold", acquire(&a, WINNING)).await;
    let lower = next.epoch();
    next.release().await.unwrap();
    let window = within("a's turn", acquire(&a, WINDOW)).await;
    assert!(window.epoch() > lower && again.state() == LeaseState::Proven);
    let until = window.proven_until();
    within("new proofs", async {
        while window.proven_until() <= until {
            tokio::time::sleep(TTL / 50).await; // a proof tells nobody of itself
        }
    })
    .await;
}

/// Somebody wrote over the key: it does not hang on the holder's lease any more, so nothing keeps others from taking it away.
#[tokio::test]
async fn a_key_that_hangs_on_no_lease_of_ours_is_not_held() {
    let etcds = Etcds::single().await;
    let a = etcds.node("a").await;
    let lease = a.acquire(WINDOW).await.unwrap();
    let mut client = etcds.client().await;
    let key = format!("/bulkhead/main/leases{WINDOW}");
    let value = client.get(key.as_str(), None).await.unwrap().kvs()[0].value().to_vec();
    client.put(key.as_str(), value, None).await.unwrap();
    within("the holder is told", lease.lost()).await;
    // The same node's, so it takes it back by itself.
    assert!(within("a new hold", acquire(&a, WINDOW)).await.epoch() > lease.epoch());
}
