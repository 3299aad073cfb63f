//! The head feed: first `current`, then each change; its end is noticed however it comes; nothing slow ends it.

use crate::support::full_node::*;
use bulkhead::chain::types::{HeadChange, HeadChangeType};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::full_node::{CallLimits, FullNode, FullNodeError, HttpFullNode};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::Message as Ws;

async fn next(feed: &mut Receiver<Vec<HeadChange>>) -> Option<Vec<(HeadChangeType, i64)>> {
    let batch = tokio::time::timeout(Duration::from_secs(20), feed.recv()).await.expect("something within 20 s");
    batch.map(|b| b.iter().map(|c| (c.kind, c.val.height)).collect())
}

#[tokio::test]
async fn current_comes_first_then_each_change() {
    let served = Served::start();
    let mut feed = served.client().chain_notify().await.expect("subscribed");
    let height = FixedNode::tip_set(4863283).height;
    assert_eq!(next(&mut feed).await, Some(vec![(HeadChangeType::Current, height)]));
    served.node.push(HeadChangeType::Apply, 7).await;
    served.node.push(HeadChangeType::Revert, 7).await;
    assert_eq!(next(&mut feed).await, Some(vec![(HeadChangeType::Apply, 7)]));
    assert_eq!(next(&mut feed).await, Some(vec![(HeadChangeType::Revert, 7)]));
    served.node.close_feeds();
    assert_eq!(next(&mut feed).await, None, "the node closed the channel");
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_feed() {
    let served = Served::start();
    let mut feed = served.client().chain_notify().await.expect("subscribed");
    assert!(next(&mut feed).await.is_some());
    let addr = served.server.addr();
    served.server.stop().await;
    assert_eq!(next(&mut feed).await, None);
    let again = HttpFullNode::new(ApiInfo::local(addr, None)).expect("client").chain_notify().await;
    assert!(matches!(again, Err(FullNodeError::Unreachable { .. })), "{again:?}");
    std::net::TcpListener::bind(addr).expect("the port is free again");
}

#[tokio::test]
async fn a_subscriber_that_leaves_is_taken_off_the_node() {
    let served = Served::start();
    let feed = served.client().chain_notify().await.expect("subscribed");
    let subscribers = served.node.subscribers();
    assert_eq!(subscribers.len(), 1);
    drop(feed);
    tokio::time::timeout(Duration::from_secs(20), subscribers[0].closed()).await.expect("cancelled on the server");
}

#[tokio::test]
async fn a_call_that_hangs_times_out_alone() {
    let served = Served::start();
    served.node.set("MpoolPending", json!("hang"));
    let client = served.client_with(brief());
    let mut feed = client.chain_notify().await.expect("subscribed");
    assert!(next(&mut feed).await.is_some());
    let slow = client.mpool_pending(&Default::default()).await;
    match slow {
        Err(FullNodeError::Timeout { method: "Filecoin.MpoolPending", after, .. }) => assert_eq!(after, brief().heavy),
        other => panic!("{other:?}"),
    }
    served.node.push(HeadChangeType::Apply, 9).await;
    assert_eq!(next(&mut feed).await, Some(vec![(HeadChangeType::Apply, 9)]), "the feed went on");
    assert!(client.chain_head().await.is_ok(), "and so did other calls");
}

/// Accepts one WebSocket, opens a channel, then does what `then` says.
async fn odd_node<F: Future<Output = ()> + Send>(
    silence: Duration,
    then: impl FnOnce(tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) -> F + Send + 'static,
) -> HttpFullNode {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepted");
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("upgraded");
        let ask = socket.next().await.expect("a frame").expect("whole").into_text().expect("text");
        let ask: Value = serde_json::from_str(&ask).expect("JSON");
        assert_eq!(ask["method"], "Filecoin.ChainNotify");
        let answer = json!({"jsonrpc": "2.0", "id": ask["id"], "result": 5});
        socket.send(Ws::text(answer.to_string())).await.expect("sent");
        then(socket).await;
    });
    HttpFullNode::with_limits(ApiInfo::local(addr, None), CallLimits { silence, ..brief() }).expect("client")
}

#[tokio::test]
async fn a_node_that_falls_silent_is_noticed() {
    let client = odd_node(Duration::from_millis(300), |socket| async move {
        let _open = socket; // neither a pong nor an end
        std::future::pending::<()>().await
    })
    .await;
    let mut feed = client.chain_notify().await.expect("subscribed");
    assert_eq!(next(&mut feed).await, None);
}

#[tokio::test]
async fn garbage_ends_the_feed_and_other_channels_do_not() {
    let client = odd_node(Duration::from_secs(20), |mut socket| async move {
        let head = json!([{"Type": "current", "Val": FixedNode::tip_set(3)}]);
        for (channel, value) in [(4, json!([])), (5, head), (5, json!({"Type": "current"}))] {
            let frame = json!({"jsonrpc": "2.0", "method": "xrpc.ch.val", "params": [channel, value]});
            socket.send(Ws::text(frame.to_string())).await.expect("sent");
        }
        while socket.next().await.is_some() {}
    })
    .await;
    let mut feed = client.chain_notify().await.expect("subscribed");
    assert_eq!(next(&mut feed).await, Some(vec![(HeadChangeType::Current, 3)]));
    assert_eq!(next(&mut feed).await, None);
}

#[tokio::test]
async fn the_channel_protocol_frame_by_frame() {
    let served = Served::start();
    let url = served.info(None).ws_url("v1");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("connected");
    let send = |v: Value| Ws::text(v.to_string());
    let mut frames = Vec::new();
    socket
        .send(send(json!({"jsonrpc":"2.0","id":"a","method":"Filecoin.ChainNotify","params":[]})))
        .await
        .expect("sent");
    socket
        .send(send(json!({"jsonrpc":"2.0","id":2,"method":"Filecoin.StateNetworkName","params":[]})))
        .await
        .expect("sent");
    socket.send(send(json!({"jsonrpc":"2.0","method":"Filecoin.StateNetworkName","params":[]}))).await.expect("sent");
    socket.send(send(json!({"jsonrpc":"2.0","id":3,"method":"Filecoin.WalletList","params":[]}))).await.expect("sent");
    socket.send(Ws::text("garbage")).await.expect("sent");
    let read = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| loop {
        match socket.next().await.expect("open").expect("whole") {
            Ws::Text(text) => return serde_json::from_str::<Value>(&text).expect("JSON"),
            _ => continue,
        }
    };
    for _ in 0..5 {
        frames.push(read(&mut socket).await);
    }
    let of_id = |id: Value| frames.iter().find(|f| f.get("id") == Some(&id)).cloned().expect("answered");
    let channel = of_id(json!("a"))["result"].as_u64().expect("a number");
    assert_eq!(of_id(json!(2))["result"], json!("lotus"));
    assert!(of_id(json!(3))["error"]["message"].as_str().expect("text").contains("need 'write'"));
    assert_eq!(of_id(json!(null))["error"]["code"], json!(-32700));
    let value = frames.iter().find(|f| f["method"] == "xrpc.ch.val").expect("the current head");
    assert_eq!((&value["params"][0], &value["params"][1][0]["Type"]), (&json!(channel), &json!("current")));
    assert!(value.get("id").is_none());
    // a cancelled channel is closed by the server
    socket.send(send(json!({"jsonrpc":"2.0","method":"xrpc.cancel","params":["a"]}))).await.expect("sent");
    let close = read(&mut socket).await;
    assert_eq!(close, json!({"jsonrpc": "2.0", "method": "xrpc.ch.close", "params": [channel]}));
}
