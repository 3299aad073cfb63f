//! What the chain does not have, it says as Lotus or Forest say it; the client takes both for the same answer.

use crate::support::devnet::*;
use bulkhead::chain::lotus_json::WholeCid;
use bulkhead::chain::types::*;
use bulkhead::devnet::Wording;
use bulkhead::devnet::extra_rpc::DevnetMethods;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::lookups::sectors_on_chain;
use bulkhead::rpc::full_node::{FullNode, FullNodeError, HttpFullNode, MessageVerdict};
use bulkhead::rpc::server::{ServerHandle, Service, serve};
use cid::Cid;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use serde_json::{Value, json};
use std::sync::Arc;

const BOTH: [Wording; 2] = [Wording::Lotus, Wording::Forest];

fn nobody() -> Address {
    Address::new_bls(&[5; 48]).unwrap()
}

/// The chain behind its server.
struct Served {
    server: ServerHandle,
    auth: Arc<Auth>,
}

impl Served {
    fn of(net: &Net) -> Served {
        let auth = Arc::new(Auth::with_secret(vec![1; 32]));
        let extras = Arc::new(DevnetMethods(net.devnet.clone()));
        let service = Service { extras: Some(extras), ..Service::of_node(net.devnet.clone(), auth.clone()) };
        Served { server: serve("127.0.0.1:0".parse().unwrap(), service).unwrap(), auth }
    }

    fn client(&self) -> HttpFullNode {
        HttpFullNode::new(ApiInfo::local(self.server.addr(), Some(self.auth.token(&Perm::ALL).unwrap()))).unwrap()
    }

    async fn post(&self, method: &str, params: Value, content_type: Option<&str>) -> (u16, Value) {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": params });
        let url = format!("http://{}/rpc/v1", self.server.addr());
        let mut request = reqwest::Client::new().post(url).body(body.to_string());
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let (_, answer) = self.post(method, params, Some("application/json")).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn error(&self, method: &str, params: Value) -> (i64, String) {
        let (_, answer) = self.post(method, params, Some("application/json")).await;
        let error = &answer["error"];
        assert!(error.is_object(), "{method}: {answer}");
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_string())
    }
}

#[track_caller]
fn said(answer: Result<Option<MsgLookup>, FullNodeError>) -> (i64, Option<MessageVerdict>) {
    match answer {
        Err(e @ FullNodeError::Rpc { code, .. }) => (code, e.of_message()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_that_the_node_never_held_is_an_error() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    let unknown = sealed_cid(9);
    for (wording, code) in [(Wording::Lotus, 1), (Wording::Forest, -32603)] {
        net.devnet.speak_as(wording);
        for replaced in [true, false] {
            let answer = served.client().state_search_msg(&head(), &unknown, -1, replaced).await;
            assert_eq!(said(answer), (code, Some(MessageVerdict::NotHere)), "{wording:?}");
        }
    }
    // One that waits is known, and not found.
    let waiting = net.push(net.message(net.owner, Address::new_id(99), 0, vec![], fil(1))).await;
    assert!(served.client().state_search_msg(&head(), &waiting, -1, true).await.unwrap().is_none());
    // One that was refused for its fee is known too: the node keeps it before its pool decides.
    let (code, text) = served.error("StateSearchMsg", json!([null, WholeCid(unknown), -1, true])).await;
    assert_eq!((code, text.starts_with("failed to load message ")), (-32603, true), "{text}");
}

#[tokio::test]
async fn a_message_whose_nonce_another_one_used_is_an_error_of_lotus_and_nothing_to_forest() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    let call = |value: u64, premium: u64| {
        let mut message = net.message(net.owner, Address::new_id(99), 0, vec![], fil(value));
        (message.gas_limit, message.gas_fee_cap) = (10_000_000, TokenAmount::from_atto(1_000_000));
        message.gas_premium = TokenAmount::from_atto(premium);
        message
    };
    let push = async |message: Message| -> Cid {
        let signed = net.devnet.wallet_sign_message(&net.owner, &message).await.unwrap();
        net.devnet.mpool_push(&signed).await.unwrap()
    };
    let displaced = push(call(1, 1_000)).await;
    let cheap = push(call(2, 10_000)).await;
    let landed = push(call(2, 100_000)).await;
    net.until(3);
    let client = served.client();
    let search = async |cid: Cid, replaced| client.state_search_msg(&head(), &cid, -1, replaced).await;
    for wording in BOTH {
        net.devnet.speak_as(wording);
        assert_eq!(search(landed, false).await.unwrap().unwrap().message, landed);
        assert_eq!(search(cheap, true).await.unwrap().unwrap().message, landed, "the same call with another fee");
        assert!(search(displaced, false).await.unwrap().is_none());
        match wording {
            Wording::Lotus => {
                assert_eq!(said(search(displaced, true).await), (1, Some(MessageVerdict::Displaced)));
                assert!(search(cheap, false).await.unwrap().is_none());
            }
            Wording::Forest => {
                assert!(search(displaced, true).await.unwrap().is_none());
                assert_eq!(said(search(cheap, false).await), (-32603, Some(MessageVerdict::Displaced)));
            }
        }
    }
}

#[tokio::test]
async fn one_unknown_sector_refuses_the_whole_list_and_the_lookup_finds_the_others() {
    let net = Net::start().await;
    net.seal(1).await;
    net.seal(2).await;
    let served = Served::of(&net);
    let client = served.client();
    for wording in BOTH {
        net.devnet.speak_as(wording);
        let refused = client.state_miner_sectors(&net.miner, Some(&bits(&[1, 2, 7])), &head()).await.unwrap_err();
        assert!(refused.names_unknown_sector(), "{refused}");
        let mut asked: Vec<u64> = vec![1, 2];
        asked.extend(50..90);
        let found = sectors_on_chain(&client, &net.miner, &bits(&asked), &head()).await.unwrap();
        let mut numbers: Vec<u64> = found.iter().map(|s| s.sector_number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2], "{wording:?}");
    }
    let (code, text) = served.error("StateMinerSectors", json!(["t01000", [7, 1], null])).await;
    assert_eq!(code, -32603);
    assert!(text.contains("17") && text.contains("sector not found: 7"), "{text}");
    assert_eq!(client.state_miner_sectors(&net.miner, None, &head()).await.unwrap().len(), 2);
    let none = sectors_on_chain(&client, &net.miner, &bits(&[]), &head()).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn an_address_without_an_actor_is_null_or_an_error_and_has_no_nonce() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    let client = served.client();
    assert_eq!(served.ask("StateGetActor", json!([nobody().to_string(), null])).await, Value::Null);
    for wording in BOTH {
        net.devnet.speak_as(wording);
        for who in [nobody(), Address::new_id(7777)] {
            assert!(client.state_get_actor(&who, &head()).await.unwrap().is_none(), "{wording:?}");
            let refused = client.mpool_get_nonce(&who).await.unwrap_err();
            assert!(refused.names_no_actor(), "{refused}");
        }
    }
    net.devnet.speak_as(Wording::Lotus);
    let (code, text) = served.error("StateGetActor", json!([nobody().to_string(), null])).await;
    assert!(code == 1 && text.ends_with("actor not found"), "{code} {text}");
    assert_eq!(client.state_get_actor(&net.owner, &head()).await.unwrap().unwrap().nonce, 0);
    assert_eq!(client.mpool_get_nonce(&net.owner).await.unwrap(), 0);
}

#[tokio::test]
async fn an_empty_tipset_key_is_the_head_everywhere_but_in_chain_get_tip_set() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    for wording in BOTH {
        net.devnet.speak_as(wording);
        for key in [json!(null), json!([])] {
            let (_, text) = served.error("ChainGetTipSet", json!([key])).await;
            assert!(text.contains("NewTipSet called with zero length array of blocks"), "{text}");
            assert_eq!(served.ask("ChainGetTipSetByHeight", json!([0, key])).await["Height"], 0);
        }
    }
}

#[tokio::test]
async fn a_send_spec_needs_all_its_members() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    let message = json!(net.message(net.owner, Address::new_id(99), 0, vec![], fil(1)));
    let uuid = "07070707-0707-0707-0707-070707070707";
    for (spec, good) in [
        (json!(null), true),
        (json!({ "MaxFee": "0", "MsgUuid": uuid, "MaximizeFeeCap": false }), true),
        (json!({ "MaxFee": "0", "MaximizeFeeCap": false }), false),
        (json!({ "MaxFee": "0", "MsgUuid": uuid }), false),
        (json!({ "MsgUuid": uuid, "MaximizeFeeCap": false }), false),
        (json!({ "MaxFee": "0", "MsgUuid": "07", "MaximizeFeeCap": false }), false),
    ] {
        let (_, answer) =
            served.post("GasEstimateMessageGas", json!([message, spec, null]), Some("application/json")).await;
        assert_eq!(answer.get("error").is_none(), good, "{spec}: {answer}");
        assert!(good || answer["error"]["code"] == -32602, "{spec}: {answer}");
    }
    let bounded = TokenAmount::from_atto(1_000_000);
    let message = net.message(net.owner, Address::new_id(99), 0, vec![], fil(1));
    let estimated = served.client().gas_estimate_message_gas(&message, &bounded, &head()).await.unwrap();
    assert!(&estimated.gas_fee_cap * estimated.gas_limit <= bounded);
}

#[tokio::test]
async fn a_body_that_is_not_said_to_be_json_is_refused() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    for (content_type, status) in [
        (None, 415),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("application/json; charset=latin1"), 415),
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=UTF-8"), 200),
        (Some("application/json-rpc"), 200),
    ] {
        assert_eq!(served.post("ChainHead", json!([]), content_type).await.0, status, "{content_type:?}");
    }
}

#[tokio::test]
async fn empty_lists_are_null() {
    let net = Net::start().await;
    let served = Served::of(&net);
    let info = served.ask("StateMinerInfo", json!(["t01000", null])).await;
    assert!(info["ControlAddresses"].is_null() && info["Multiaddrs"].is_null(), "{info}");
    for (method, params) in [
        ("StateMinerSectors", json!(["t01000", null, null])),
        ("StateMinerPartitions", json!(["t01000", 0, null])),
        ("MpoolPending", json!([null])),
        ("MpoolSelect", json!([null, 1.0])),
    ] {
        assert_eq!(served.ask(method, params).await, Value::Null, "{method}");
    }
    // An empty bitfield is one run of zero zeros, not an empty list.
    assert_eq!(served.ask("StateMinerFaults", json!(["t01000", null])).await, json!([0]));
    let client = served.client();
    let info = client.state_miner_info(&net.miner, &head()).await.unwrap();
    assert!(info.control_addresses.is_empty() && info.multiaddrs.is_empty());
    assert!(client.mpool_pending(&head()).await.unwrap().is_empty());
    assert!(client.state_miner_sectors(&net.miner, None, &head()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_network_parameters_tell_the_heights_of_upgrades() {
    let net = Net::bare(settings());
    let served = Served::of(&net);
    let params = served.ask("StateGetNetworkParams", json!([])).await;
    assert_eq!(params["SupportedProofTypes"], json!([5]));
    let heights = params["ForkUpgradeParams"].as_object().unwrap();
    for past in ["Breeze", "OhSnap", "Dragon", "GoldenWeek", "FireHorse"] {
        assert!(heights[&format!("Upgrade{past}Height")].as_i64().unwrap() < 0, "{past}");
    }
    let order: Vec<i64> = ["Teep", "Tock", "GoldenWeek", "FireHorse"]
        .iter()
        .map(|name| heights[&format!("Upgrade{name}Height")].as_i64().unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    let read = served.client().state_get_network_params().await.unwrap();
    assert_eq!(read.fork_upgrade_params["UpgradeOhSnapHeight"], heights["UpgradeOhSnapHeight"]);
}
