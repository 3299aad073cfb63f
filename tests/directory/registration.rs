//! Nodes of a cluster see each other come, change, leave and die.

use crate::support::etcd::{Etcds, Options, acquire, record, see, within};
use bulkhead::rpc::directory::{Directory, DirectoryError, LeaseState, NodeRecord, PlacementOrder, Role};
use libp2p::PeerId;

const WINDOW: &str = "/t01000/window-post";

#[tokio::test]
async fn nodes_see_each_other_come_change_and_leave() {
    let etcds = Etcds::start(1, Options { tls: true, users: true }).await;
    let a = etcds.node("a").await;
    let b = etcds.connect().await;
    assert_eq!(b.view().borrow().nodes.len(), 1, "complete from the start, before anything changes");
    let mut me = record("b");
    me.addrs = vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
    me.roles = [Role::Sealing].into();
    b.register(me.clone()).await.unwrap();
    let seen = see(&a, "b", |view| view.nodes.contains_key("b")).await;
    assert_eq!(*seen.nodes["b"], me);
    assert_eq!(seen.peers().len(), 2);
    me.serves = ["/b/storage".to_string()].into();
    b.register(me).await.unwrap();
    see(&a, "what b serves", |view| view.locate("/b/storage").is_some_and(|place| place.node == "b")).await;
    let lease = b.acquire(WINDOW).await.unwrap();
    see(&a, "b as the holder", |view| view.holders.contains_key(WINDOW)).await;
    b.leave().await.unwrap();
    assert_eq!(lease.state(), LeaseState::Lost);
    let seen = see(&a, "b gone", |view| !view.nodes.contains_key("b")).await;
    assert!(seen.holders.is_empty() && seen.vacated.contains_key(WINDOW));
    assert!(matches!(b.acquire(WINDOW).await, Err(DirectoryError::NotRegistered { .. })));
}

#[tokio::test]
async fn a_node_that_dies_is_gone_when_its_lease_expires() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = b.acquire(WINDOW).await.unwrap();
    drop(b);
    assert_eq!(lease.state(), LeaseState::Lost, "nobody keeps it alive any more");
    assert!(matches!(a.acquire(WINDOW).await, Err(DirectoryError::Held { holder, .. }) if holder.node == "b"));
    see(&a, "b gone", |view| !view.nodes.contains_key("b") && view.holders.is_empty()).await;
    assert!(a.acquire(WINDOW).await.unwrap().epoch() > lease.epoch());
}

#[tokio::test]
async fn a_name_belongs_to_one_node_and_a_later_start_takes_over_from_an_earlier_one() {
    let etcds = Etcds::single().await;
    let peer = PeerId::random();
    let (first, second, other) = (etcds.connect().await, etcds.connect().await, etcds.connect().await);
    first.register(NodeRecord::new("a", peer, 1)).await.unwrap();
    let held = first.acquire(WINDOW).await.unwrap();
    let taken = other.register(record("a")).await.unwrap_err();
    assert!(matches!(&taken, DirectoryError::NameTaken { by, .. } if *by == peer.to_string()), "{taken}");
    // As after kill -9: the lease of the first has not expired yet.
    second.register(NodeRecord::new("a", peer, 2)).await.unwrap();
    let lease = second.acquire(WINDOW).await.unwrap();
    assert!(lease.epoch() > held.epoch());
    within("the earlier start is told", held.lost()).await;
    let late = other.register(NodeRecord::new("a", peer, 1)).await.unwrap_err();
    assert_eq!(late, DirectoryError::Superseded { name: "a".into(), boot: 2 });
    assert_eq!(lease.state(), LeaseState::Proven);
}

#[tokio::test]
async fn of_two_copies_of_a_repo_only_one_is_registered_and_the_other_is_told_what_to_do() {
    let etcds = Etcds::single().await;
    let peer = PeerId::random();
    let (a, b) = (etcds.connect().await, etcds.connect().await);
    // At the same time: etcd's transaction decides, not who looked first.
    let results = tokio::join!(a.register(NodeRecord::new("a", peer, 1)), b.register(NodeRecord::new("b", peer, 1)));
    let (first, late, there, error) = match results {
        (Ok(()), Err(error)) => (&a, &b, "a", error),
        (Err(error), Ok(())) => (&b, &a, "b", error),
        other => panic!("{other:?}"),
    };
    let text = error.to_string();
    assert!(matches!(&error, DirectoryError::PeerTaken { node, .. } if node == there), "{text}");
    assert!(text.contains(&peer.to_string()) && text.contains("remove `bridge.key`"), "{text}");
    first.register(NodeRecord::new(there, peer, 1)).await.expect("its own stays its own");
    assert!(late.register(NodeRecord::new("c", peer, 1)).await.is_err());
    late.register(record("c")).await.expect("a key of its own");
    // The same node under a new name, in the same process or after it left.
    first.register(NodeRecord::new("d", peer, 1)).await.unwrap();
    first.leave().await.unwrap();
    late.register(NodeRecord::new("e", peer, 2)).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_lost_is_told_and_the_node_registers_anew() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = a.acquire(WINDOW).await.unwrap();
    let mut client = etcds.client().await;
    let key = client.get("/bulkhead/main/nodes/a", None).await.unwrap();
    client.lease_revoke(key.kvs()[0].lease()).await.unwrap();
    within("the holder is told", lease.lost()).await;
    see(&b, "a gone", |view| view.vacated.contains_key(WINDOW)).await;
    see(&b, "a back", |view| view.nodes.contains_key("a")).await;
    assert!(acquire(&a, WINDOW).await.epoch() > lease.epoch());
}

#[tokio::test]
async fn orders_reach_every_node_and_those_that_make_no_sense_are_refused() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let operator = etcds.connect().await;
    let unknown = operator.order(PlacementOrder::Drain { node: "x".into() }).await.unwrap_err();
    assert_eq!(unknown.to_string(), "no node \"x\" in this cluster; there are: a, b");
    let bad = PlacementOrder::Move { concern: "window-post".into(), node: "b".into() };
    assert!(matches!(operator.order(bad).await, Err(DirectoryError::BadConcern { .. })));
    let held = a.acquire(WINDOW).await.unwrap();
    let to_b = PlacementOrder::Move { concern: WINDOW.into(), node: "b".into() };
    operator.order(to_b.clone()).await.unwrap();
    see(&a, "the move", |view| view.moves.get(WINDOW).is_some_and(|to| to == "b")).await;
    held.release().await.unwrap();
    let _held = acquire(&b, WINDOW).await;
    see(&a, "the move done", |view| view.moves.is_empty() && view.holders[WINDOW].node == "b").await;
    operator.order(PlacementOrder::Drain { node: "b".into() }).await.unwrap();
    see(&operator, "the drain", |view| view.nodes["b"].drained).await;
    assert!(matches!(operator.order(to_b).await, Err(DirectoryError::CannotTake { .. })));
    operator.order(PlacementOrder::Undrain { node: "b".into() }).await.unwrap();
    see(&a, "the drain ended", |view| !view.nodes["b"].drained).await;
}
