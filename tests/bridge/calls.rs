//! Calls over a real socket: the same asks, tells, errors and monitors as for an actor next door.

use crate::support::bridge::*;
use bulkhead::rpc::bridge::Refusal;
use bulkhead::supervisor::*;
use std::time::Duration;

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

#[tokio::test]
async fn a_hundred_thousand_tells_arrive_in_order_under_back_pressure() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    let mut sum = 0;
    for n in 0..100_000u64 {
        let mut message = Add(n);
        while let Err(back) = away.tell(message) {
            let CallError::Full(it) = back else { panic!("{back:?}") };
            message = it;
            a.bridge.room(b.id()).await;
        }
        sum += n;
    }
    assert_eq!(away.ask(Add(0), SOON).await.unwrap(), sum, "an ask stays behind the tells before it");
}

#[tokio::test]
async fn bodies_of_every_size_come_back_whole() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    for size in [0, 1, 127, 128, 16_383, 65_536, 300_000, 1_000_000] {
        let bytes: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
        assert_eq!(away.ask(Echo(bytes.clone()), SOON).await.unwrap(), bytes, "{size}");
    }
    let over = away.ask(Echo(vec![0; 2 << 20]), SOON).await.unwrap_err();
    assert!(matches!(&over, CallError::Refused(Echo(back), _) if back.len() == 2 << 20), "{over:?}");
    // Many at once, which takes several windows of the connection.
    let all = (0..64).map(|n| away.ask(Echo(vec![n; 200_000]), SOON));
    for (n, answer) in futures::future::join_all(all).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), vec![n as u8; 200_000]);
    }
}

#[tokio::test]
async fn errors_of_the_other_side_come_back_typed() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    let refused = away.ask(Secret, SOON).await.unwrap_err();
    assert!(matches!(&refused, CallError::Refused(Secret, why) if why.contains("takes no message")), "{refused:?}");
    let nobody: Ref<Sum> = Ref::new("/nobody", 1);
    nobody.route_to(Some(a.bridge.carrier(b.id(), 0)));
    assert!(matches!(nobody.ask(Add(3), SOON).await, Err(CallError::NotRunning(Add(3)))));
    assert!(matches!(away.ask(Crash, SOON).await, Err(CallError::Panicked)));
    while away.ask(Add(0), SOON).await.is_err() {} // its successor starts
    assert!(matches!(away.ask(Hang, Duration::from_millis(100)).await, Err(CallError::Timeout)));
    let of_a = b.bridge.peers().into_iter().find(|it| it.peer == a.id()).unwrap();
    let count = |why| of_a.refused.iter().find(|it| it.0 == why).map_or(0, |it| it.1);
    assert_eq!((count(Refusal::UnknownPath), count(Refusal::UnknownMessage)), (1, 1), "{of_a:?}");
}

#[tokio::test]
async fn an_actor_that_was_stopped_is_not_running() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    b.tree.shutdown().await;
    assert!(matches!(a.away(b.bridge.peer_id()).ask(Add(3), SOON).await, Err(CallError::NotRunning(Add(3)))));
}

#[tokio::test]
async fn another_epoch_than_the_one_held_is_fenced() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    b.held.store(5, std::sync::atomic::Ordering::Release);
    let believes = |epoch| far(&a.bridge, b.id(), epoch);
    assert_eq!(believes(5).ask(Add(1), SOON).await.unwrap(), 1);
    assert_eq!(believes(0).ask(Add(1), SOON).await.unwrap(), 2);
    for wrong in [4, 6] {
        assert!(matches!(believes(wrong).ask(Add(9), SOON).await, Err(CallError::Fenced(Add(9)))), "{wrong}");
    }
    believes(4).tell(Add(9)).unwrap();
    assert_eq!(believes(5).ask(Add(1), SOON).await.unwrap(), 3, "a tell of another epoch is dropped");
}

#[tokio::test]
async fn without_a_connection_the_message_comes_back() {
    let a = node(config());
    let stranger = node(config()).id();
    let away = a.away(stranger);
    assert!(matches!(away.ask(Add(1), SOON).await, Err(CallError::NodeDown(Some(Add(1))))));
    assert!(matches!(away.tell(Add(2)), Err(CallError::NodeDown(Some(Add(2))))));
    let (_watchers, me, mut downs) = watcher();
    let _monitor = away.monitor(me.recipient());
    assert_eq!(downs.recv().await.unwrap().reason, Exit::NodeDown);
}

#[tokio::test]
async fn a_monitor_tells_of_an_actors_end_on_the_other_node_once() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    let (_watchers, me, mut downs) = watcher();
    let _monitor = away.monitor(me.recipient());
    let taken_back = away.monitor(me.recipient());
    drop(taken_back);
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 1); // behind the monitors on other lanes: they may still be set
    assert!(matches!(away.ask(Crash, SOON).await, Err(CallError::Panicked)));
    let down = downs.recv().await.unwrap();
    assert_eq!(down.path, PATH);
    assert!(matches!(down.reason, Exit::Panicked(_)) && down.incarnation == 1, "{down:?}");
    let _none = {
        let nobody: Ref<Sum> = Ref::new("/nobody", 1);
        nobody.route_to(Some(a.bridge.carrier(b.id(), 0)));
        nobody.monitor(me.recipient())
    };
    let down = downs.recv().await.unwrap();
    assert_eq!((down.path.as_str(), down.reason), ("/nobody", Exit::NotRunning), "and nothing in between");
}

#[tokio::test]
async fn control_overtakes_bulk() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    let bulk: Vec<_> = (0..24).map(|n| away.ask(Echo(vec![n; 1_000_000]), SOON)).collect();
    let bulk = futures::future::join_all(bulk);
    let hang = away.ask(Crash, SOON);
    // The actor itself takes them in turn; the order of arrival is what counts.
    let (bulk, crash) = futures::join!(bulk, hang);
    assert!(matches!(crash, Err(CallError::Panicked)));
    let answered = bulk.iter().filter(|answer| answer.is_ok()).count();
    assert!(answered >= 12, "the crash came after less than half of the bulk: {answered} were answered by a successor");
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn quic_carries_the_same_calls() {
    let mut configs = [config(), config()];
    for config in &mut configs {
        config.quic = true;
        config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    }
    let [a, b] = configs.map(node);
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    assert_eq!(away.ask(Add(5), SOON).await.unwrap(), 5);
    let bytes = vec![7; 500_000];
    assert_eq!(away.ask(Echo(bytes.clone()), SOON).await.unwrap(), bytes);
}
