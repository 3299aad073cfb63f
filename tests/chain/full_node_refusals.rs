//! Wrong tokens, missing permissions, nodes that are not there or talk nonsense, ports in use: each is named.

use crate::support::full_node::*;
use bulkhead::chain::Address;
use bulkhead::chain::types::TipSetKey;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::{FullNode, FullNodeError, HttpFullNode};
use bulkhead::rpc::server::{ServeError, Service, serve};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn client(info: ApiInfo) -> HttpFullNode {
    HttpFullNode::with_limits(info, brief()).expect("client")
}

#[tokio::test]
async fn a_token_opens_what_it_lists() {
    let served = Served::start();
    let m = Address::new_id(1000);
    let reader = client(served.info(None));
    assert!(reader.chain_head().await.is_ok(), "reading needs no token");
    for (token, may_write, may_sign) in [
        (None, false, false),
        (Some(&[Perm::Read][..]), false, false),
        (Some(&[Perm::Read, Perm::Write]), true, false),
        (Some(&[Perm::Sign]), false, true),
        (Some(&Perm::ALL), true, true),
    ] {
        let c = client(served.info(token));
        for (outcome, may) in
            [(c.wallet_list().await.map(|_| ()), may_write), (c.wallet_sign(&m, b"x").await.map(|_| ()), may_sign)]
        {
            match outcome {
                Ok(()) => assert!(may, "{token:?}"),
                Err(e @ FullNodeError::Unauthorized { .. }) => {
                    assert!(!may, "{token:?}");
                    assert!(e.to_string().contains("FULLNODE_API_INFO"), "{e}");
                }
                other => panic!("{token:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_token_of_another_node_is_refused_for_everything() {
    let served = Served::start();
    let theirs = Auth::with_secret(vec![9; 32]).token(&Perm::ALL).expect("token");
    let c = client(ApiInfo::local(served.server.addr(), Some(theirs)));
    for outcome in [c.chain_head().await.map(|_| ()), c.chain_notify().await.map(|_| ())] {
        assert!(matches!(outcome, Err(FullNodeError::Unauthorized { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_server_may_ask_a_token_of_everyone() {
    let served =
        Served::with(|s| Service { auth: Arc::new(Auth::with_secret(vec![1; 32]).allow_without_token(&[])), ..s });
    let stranger = client(served.info(None));
    assert!(matches!(stranger.chain_head().await, Err(FullNodeError::Unauthorized { .. })));
    assert!(matches!(stranger.chain_notify().await, Err(FullNodeError::Unauthorized { .. })));
    assert!(client(served.info(Some(&[Perm::Read]))).chain_notify().await.is_ok());
}

#[tokio::test]
async fn a_method_that_the_node_lacks_is_told_apart() {
    let served = Served::start();
    served.node.set("StateMinerPower", json!({"error": {"code": -32601, "message": "Method not found"}}));
    let outcome = served.client().state_miner_power(&Address::new_id(1), &TipSetKey::default()).await;
    assert!(
        matches!(outcome, Err(FullNodeError::NoSuchMethod { method: "Filecoin.StateMinerPower", .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("address");
    drop(listener);
    let c = client(ApiInfo::local(addr, None));
    for outcome in [c.chain_head().await.map(|_| ()), c.chain_notify().await.map(|_| ())] {
        match outcome {
            Err(e @ FullNodeError::Unreachable { .. }) => {
                assert!(e.is_transient() && e.to_string().contains(&addr.to_string()), "{e}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Answers every request with these bytes and closes.
async fn parrot(answer: &'static str) -> HttpFullNode {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    client(ApiInfo::local(addr, None))
}

#[tokio::test]
async fn what_is_no_full_node_is_named() {
    let c = parrot("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    match c.chain_head().await {
        Err(FullNodeError::BadAnswer { why, .. }) => assert!(why.contains("hello"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(c.chain_notify().await, Err(FullNodeError::BadAnswer { .. })));
    let c = parrot("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"jsonrpc\":").await;
    assert!(matches!(c.chain_head().await, Err(FullNodeError::Unreachable { .. })), "cut off");
    let c = parrot("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope").await;
    assert!(matches!(c.chain_head().await, Err(FullNodeError::BadAnswer { .. })));
    let c = parrot("SSH-2.0-OpenSSH_9.2\r\n").await;
    let outcome = c.chain_head().await;
    assert!(matches!(outcome, Err(FullNodeError::Unreachable { .. })), "{outcome:?}");
    assert!(c.chain_notify().await.is_err());
}

#[tokio::test]
async fn tls_towards_a_node_that_has_none() {
    let served = Served::start();
    let c = client(ApiInfo { tls: true, ..served.info(None) });
    for outcome in [c.chain_head().await.map(|_| ()), c.chain_notify().await.map(|_| ())] {
        assert!(matches!(outcome, Err(FullNodeError::Unreachable { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_sentence() {
    let served = Served::start();
    let addr = served.server.addr();
    match serve(addr, Service::of_node(FixedNode::new(), served.auth.clone())) {
        Err(e @ ServeError::InUse { .. }) => assert!(e.to_string().starts_with(&format!("{addr} is in use")), "{e}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("two servers on {addr}"),
    }
    assert!(served.client().chain_head().await.is_ok());
}

#[tokio::test]
async fn http_as_any_client_speaks_it() {
    let served = Served::start();
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let url = served.info(None).http_url("v0");
    let unsaid = http.post(&url).body("{}").send().await.expect("answered");
    assert_eq!(unsaid.status().as_u16(), 415, "no content type");
    let post = async |body: &str| {
        let request = http.post(&url).header("Content-Type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("answered");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let (status, answer) = post(r#"{"jsonrpc":"2.0","id":"x","method":"Filecoin.StateNetworkName"}"#).await;
    assert_eq!((status, answer), (200, json!({"jsonrpc": "2.0", "id": "x", "result": "lotus"})));
    let (status, answer) = post(r#"{"id":1,"method":"Filecoin.Nope","params":[]}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32601)));
    assert_eq!(answer["error"]["message"], json!("method 'Filecoin.Nope' not found"));
    for (body, status, code) in [
        ("{", 500, -32700),
        ("", 500, -32700),
        ("7", 500, -32700),
        ("[]", 400, -32600),
        (r#"{"id":1,"method":"Nope.ChainHead","params":[]}"#, 500, -32601),
        (r#"{"id":1,"method":"ChainHead","params":[]}"#, 500, -32601),
        (r#"{"id":1,"method":"Filecoin.ChainNotify","params":[]}"#, 500, -32601),
        (r#"{"id":1,"method":"Filecoin.StateMinerInfo","params":["f01000"]}"#, 500, -32602),
        (r#"{"id":1,"method":"Filecoin.StateMinerInfo","params":["x01000",[]]}"#, 500, -32602),
        (r#"{"id":1,"method":"Filecoin.StateMinerInfo","params":["f01000",[{"/":"nope"}]]}"#, 500, -32602),
        (r#"{"id":1,"method":"Filecoin.StateGetRandomnessFromTickets","params":[10,1,null,[]]}"#, 500, -32602),
        (r#"{"id":1,"method":"Filecoin.StateMinerInfo","params":{"a":1}}"#, 500, -32700),
        (r#"{"id":1,"method":"Filecoin.WalletList","params":[]}"#, 200, 1),
    ] {
        let (said, answer) = post(body).await;
        assert_eq!((said, answer["error"]["code"].as_i64()), (status, Some(code)), "{body}: {answer}");
    }
    let batch =
        r#"[{"id":1,"method":"Filecoin.ChainHead"},{"method":"Filecoin.ChainHead"},{"id":2,"method":"Filecoin.X"}]"#;
    let (status, answers) = post(batch).await;
    assert_eq!((status, answers.as_array().expect("list").len()), (200, 2));
    assert_eq!((&answers[0]["id"], &answers[1]["error"]["code"]), (&json!(1), &json!(-32601)));
    assert_eq!(post(r#"{"method":"Filecoin.ChainHead"}"#).await, (200, Value::Null), "a notification has no answer");
    // the body limit
    let huge = " ".repeat((16 << 20) + 1);
    assert_eq!(post(&huge).await.0, 413);
    // the token in the query, as go-jsonrpc takes it; a header that is no bearer token
    let token = served.auth.token(&Perm::ALL).expect("token");
    let body = r#"{"id":1,"method":"Filecoin.WalletList","params":[]}"#;
    let asked = http.post(format!("{url}?token={token}")).header("Content-Type", "application/json").body(body);
    let answer = asked.send().await.expect("answered");
    let text = answer.text().await.expect("text");
    assert!(text.contains("f01234"), "{text}");
    let answer = http.post(&url).header("Authorization", "Basic x").body(body).send().await.expect("answered");
    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(http.get(served.info(None).http_url("v7")).send().await.expect("answered").status().as_u16(), 404);
}
