//! The pool of full nodes, served as one: what is passed on, to whom, with whose permission; heads and other channels.

use super::pool_calls::{SEED, all, answering, pool, refusing};
use crate::support::full_node::*;
use bulkhead::chain::types::HeadChangeType;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::client::{CallErrorKind, RpcClient};
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::rpc::json_text::JsonText;
use bulkhead::rpc::pool_api::PoolApi;
use bulkhead::rpc::server::{ServerHandle, Service, serve};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Ws;

/// The pool of `nodes` behind its own API.
struct Front {
    api: Arc<PoolApi>,
    server: ServerHandle,
    auth: Arc<Auth>,
    _repo: tempfile::TempDir,
}

impl Front {
    fn of(nodes: &[ApiInfo]) -> Front {
        let repo = tempfile::tempdir().unwrap();
        let api = Arc::new(PoolApi::new(pool(nodes), SEED, repo.path()));
        let auth = Arc::new(Auth::with_secret(vec![3; 32]));
        let service = Service::of_upstream(api.clone(), auth.clone());
        let server = serve("127.0.0.1:0".parse().unwrap(), service).unwrap();
        Front { api, server, auth, _repo: repo }
    }

    fn info(&self, perms: Option<&[Perm]>) -> ApiInfo {
        ApiInfo::local(self.server.addr(), perms.map(|perms| self.auth.token(perms).unwrap()))
    }

    async fn call(&self, version: &str, perms: Option<&[Perm]>, method: &str) -> Result<String, CallErrorKind> {
        let client = RpcClient::new(&self.info(perms), version).unwrap();
        let answer = client.call::<JsonText>(method, vec![json!({"a": [1, "2"]})], Duration::from_secs(20)).await;
        answer.map(|text| text.as_str().to_string()).map_err(|error| error.kind)
    }
}

/// A node that gives every call the same result, and keeps what it was sent.
async fn recording(result: &'static str) -> (ApiInfo, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let kept: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = kept.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            while !text.contains("\"jsonrpc\"") {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer).await {
                    Ok(n) if n > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
                    _ => break,
                }
            }
            keep.lock().unwrap().push(text);
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (ApiInfo { token: Some("nodes.own.token".into()), ..ApiInfo::local(addr, None) }, kept)
}

#[tokio::test]
async fn every_method_is_passed_on_as_it_came_also_one_that_is_not_known() {
    let odd = r#"{"b":null,"a":[18446744073709551615,-0.5,"é\n",{}],"":""}"#;
    let (node, heard) = recording(odd).await;
    let front = Front::of(&[refusing().await, node]);
    for (version, method) in
        [("v1", "Filecoin.StateUnheardOf"), ("v0", "Filecoin.StateMinerInfo"), ("v2", "Filecoin.ChainGetTipSet")]
    {
        assert_eq!(front.call(version, Some(&Perm::ALL), method).await, Ok(odd.to_string()), "{version} {method}");
        let sent = heard.lock().unwrap().pop().unwrap();
        assert!(sent.starts_with(&format!("POST /rpc/{version} HTTP/1.1\r\n")), "{sent}");
        assert!(sent.contains("nodes.own.token"), "{sent}");
        assert!(sent.contains(&format!(r#""method":"{method}","params":[{{"a":[1,"2"]}}]"#)), "{sent}");
    }
    // A batch, and what the server answers itself.
    let url = front.info(None).http_url("v1");
    let batch = json!([
        {"jsonrpc": "2.0", "id": 7, "method": "Filecoin.ChainHead", "params": []},
        {"jsonrpc": "2.0", "id": "x", "method": "Filecoin.Session", "params": []},
        {"jsonrpc": "2.0", "id": 8, "method": "Filecoin.ChainNotify", "params": []},
    ]);
    let answers: Value = reqwest::Client::new().post(url).json(&batch).send().await.unwrap().json().await.unwrap();
    assert_eq!((&answers[0]["id"], &answers[0]["result"]["a"][2]), (&json!(7), &json!("é\n")), "{answers}");
    assert!(answers[1]["result"].is_string(), "{answers}");
    assert!(answers[2]["error"]["message"].as_str().unwrap().contains("no out channel support"), "{answers}");
}

#[tokio::test]
async fn a_caller_may_do_what_its_token_gives_whatever_the_pools_own_may() {
    let (node, heard) = recording("true").await;
    let front = Front::of(&[node]);
    let write = [Perm::Read, Perm::Write];
    for (perms, method, need) in [
        (None, "Filecoin.ChainHead", None),
        (None, "Filecoin.MpoolPush", Some("write")),
        (Some(&write[..]), "Filecoin.MpoolPush", None),
        (Some(&write[..]), "Filecoin.WalletSign", Some("sign")),
        (Some(&Perm::ALL[..3]), "Filecoin.WalletSign", None),
        (Some(&Perm::ALL[..3]), "Filecoin.WalletExport", Some("admin")),
        (Some(&Perm::ALL[..3]), "Filecoin.Unheard", Some("admin")),
        (Some(&Perm::ALL[..]), "Filecoin.Unheard", None),
    ] {
        let (answer, sent) = (front.call("v1", perms, method).await, heard.lock().unwrap().drain(..).count());
        match need {
            None => assert_eq!((answer, sent), (Ok("true".into()), 1), "{method}"),
            Some(need) => {
                let Err(CallErrorKind::Unauthorized(why)) = answer else { panic!("{method}: {answer:?}") };
                assert!(why.contains(&format!("(need '{need}')")) && sent == 0, "{method}: {why}");
            }
        }
    }
    // A token of somebody else's.
    let foreign = ApiInfo::local(front.server.addr(), Some(Auth::with_secret(vec![4; 32]).token(&Perm::ALL).unwrap()));
    let client = RpcClient::new(&foreign, "v1").unwrap();
    let said = client.call::<JsonText>("Filecoin.ChainHead", vec![], Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(said.kind, CallErrorKind::Unauthorized(_)), "{said}");
}

#[tokio::test]
async fn a_node_that_fails_is_passed_over_for_callers_from_outside_too() {
    let good = Served::start();
    for bad in [
        refusing().await,
        answering(Some("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")).await,
        answering(Some("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad")).await,
        answering(None).await,
    ] {
        let front = Front::of(&[bad, all(&good)]);
        let node = HttpFullNode::new(front.info(Some(&Perm::ALL))).unwrap();
        assert!(node.chain_head().await.is_ok());
    }
    // A node's own verdict stays as it is.
    good.node.set("StateMinerPower", json!({"error": {"code": 7, "message": "no such power"}}));
    let front = Front::of(&[all(&good)]);
    let miner = bulkhead::chain::Address::new_id(1000);
    let node = HttpFullNode::new(front.info(Some(&Perm::ALL))).unwrap();
    let said = node.state_miner_power(&miner, &Default::default()).await.unwrap_err();
    assert!(matches!(said, bulkhead::rpc::full_node::FullNodeError::Rpc { code: 7, .. }), "{said:?}");
}

#[tokio::test]
async fn heads_come_from_the_one_feed_of_the_process() {
    let front = Front::of(&[refusing().await]); // no node is asked
    let at =
        |height| Arc::new(crate::support::scripted::tipset(&format!("t{height}"), height, &format!("t{}", height - 1)));
    front.api.heads().head(&at(10), None);
    let node = HttpFullNode::new(front.info(None)).unwrap();
    let mut first = node.chain_notify().await.unwrap();
    let mut second = node.chain_notify().await.unwrap();
    front.api.heads().head(&at(11), None);
    for heads in [&mut first, &mut second] {
        for expected in [(HeadChangeType::Current, 10), (HeadChangeType::Apply, 11)] {
            let batch = heads.recv().await.unwrap();
            let told: Vec<_> = batch.iter().map(|change| (change.kind, change.val.height)).collect();
            assert_eq!(told, [expected]);
            assert_eq!(batch[0].val, *at(expected.1), "whole");
        }
    }
}

/// A node whose every call opens the channel 7, gives two values, and ends.
async fn channel_node() -> ApiInfo {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let Some(Ok(Ws::Text(asked))) = socket.next().await else { return };
            let asked: Value = serde_json::from_str(&asked).unwrap();
            let id = &asked["id"];
            for frame in [
                json!({"jsonrpc": "2.0", "id": id, "result": 7}),
                json!({"jsonrpc": "2.0", "method": "xrpc.ch.val", "params": [7, {"Asked": asked["params"]}]}),
                json!({"jsonrpc": "2.0", "method": "xrpc.ch.val", "params": [7, null]}),
                json!({"jsonrpc": "2.0", "method": "xrpc.ch.close", "params": [7]}),
            ] {
                socket.send(Ws::text(frame.to_string())).await.unwrap();
            }
        }
    });
    ApiInfo::local(addr, None)
}

#[tokio::test]
async fn other_channels_are_passed_on_too() {
    let front = Front::of(&[channel_node().await]);
    let (mut socket, _) = tokio_tungstenite::connect_async(front.info(None).ws_url("v1")).await.unwrap();
    let ask = json!({"jsonrpc": "2.0", "id": 5, "method": "Filecoin.MpoolSub", "params": ["p"]});
    socket.send(Ws::text(ask.to_string())).await.unwrap();
    let mut frames = vec![];
    while frames.len() < 4 {
        if let Some(Ok(Ws::Text(text))) = socket.next().await {
            frames.push(serde_json::from_str::<Value>(&text).unwrap());
        }
    }
    assert_eq!((&frames[0]["id"], &frames[0]["result"]), (&json!(5), &json!(1)), "a number of this connection");
    assert_eq!(frames[1]["params"], json!([1, {"Asked": ["p"]}]));
    assert_eq!(frames[2]["params"], json!([1, null]));
    assert_eq!((&frames[3]["method"], &frames[3]["params"]), (&json!("xrpc.ch.close"), &json!([1])));
}

/// Each of these channels has a connection to a node, so a descriptor of this process.
#[tokio::test]
async fn channels_with_a_connection_of_their_own_are_few() {
    // A node that keeps every channel open.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = ApiInfo::local(listener.local_addr().unwrap(), None);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                let Some(Ok(Ws::Text(asked))) = socket.next().await else { return };
                let asked: Value = serde_json::from_str(&asked).unwrap();
                let opened = json!({"jsonrpc": "2.0", "id": asked["id"], "result": 7});
                socket.send(Ws::text(opened.to_string())).await.unwrap();
                while socket.next().await.is_some() {}
            });
        }
    });
    let front = Front::of(&[node]);
    let mut sockets = vec![];
    for (perms, most) in [(None, 16), (Some(&[Perm::Read][..]), 64 - 16)] {
        let mut open = 0;
        for _ in 0..5 {
            let mut socket = connected(&front.info(perms)).await;
            for id in 0..16 {
                let ask = json!({"jsonrpc": "2.0", "id": id, "method": "Filecoin.MpoolSub", "params": []});
                socket.send(Ws::text(ask.to_string())).await.unwrap();
            }
            let mut answered = 0;
            while answered < 16 {
                let Some(Ok(Ws::Text(text))) = socket.next().await else { continue };
                let answer: Value = serde_json::from_str(&text).unwrap();
                open += usize::from(answer["result"].is_number());
                assert!(answer["result"].is_number() || text.contains("too many channels"), "{text}");
                answered += 1;
            }
            sockets.push(socket);
        }
        assert_eq!(open, most, "{perms:?}");
    }
}

async fn connected(
    info: &ApiInfo,
) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = info.ws_url("v1").into_client_request().unwrap();
    if let Some(token) = &info.token {
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.unwrap().0
}
