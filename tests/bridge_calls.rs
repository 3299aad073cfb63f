//! Calls over a real socket: the same asks, tells, errors and monitors as for an actor next door.

mod bridge_support;

use bridge_support::*;

#[tokio::test]
async fn an_ask_and_a_tell_reach_an_actor_of_another_node() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    assert_eq!(away.ask(Add(5), SOON).await.unwrap(), 5);
    away.tell(Add(10)).unwrap();
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 16);
    assert_eq!(a.home.ask(Add(0), SOON).await.unwrap(), 0, "another actor of that name, here");
    // and the other way, over the same connection
    assert_eq!(b.away(a.id()).ask(Add(7), SOON).await.unwrap(), 7);
}
