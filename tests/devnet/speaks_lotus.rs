//! Any HTTP client can ask the devnet and gets Lotus' shapes; the chain goes on from its head after a stop.

use crate::support::operator::*;
use futures::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const JSON: &str = "application/json";
const SOON: Duration = Duration::from_secs(60);

/// Like `curl -d`: no header but what is said.
struct Client {
    url: String,
    token: String,
}

impl Client {
    async fn post(&self, body: String, token: Option<&str>, content_type: Option<&str>) -> (StatusCode, String) {
        let mut request = reqwest::Client::new().post(&self.url).body(body);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        let response = request.send().await.expect("an answer");
        (response.status(), response.text().await.expect("a body"))
    }

    fn body(method: &str, params: Value) -> String {
        json!({ "jsonrpc": "2.0", "id": 7, "method": format!("Filecoin.{method}"), "params": params }).to_string()
    }

    /// Without a token.
    async fn read(&self, method: &str, params: Value) -> Value {
        self.result(method, params, None).await
    }

    async fn sign(&self, method: &str, params: Value) -> Value {
        self.result(method, params, Some(&self.token)).await
    }

    async fn result(&self, method: &str, params: Value, token: Option<&str>) -> Value {
        let (status, text) = self.post(Client::body(method, params), token, Some(JSON)).await;
        assert_eq!(status, StatusCode::OK, "{method}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)), "{method}");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// All of these keys and no other.
#[track_caller]
fn keys(value: &Value, expected: &str) {
    let mut found: Vec<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{value}");
}

/// `{"/": "bafy…"}`.
#[track_caller]
fn is_cid(value: &Value) {
    keys(value, "/");
    assert!(value["/"].as_str().is_some_and(|cid| cid.parse::<cid::Cid>().is_ok()), "{value}");
}

/// A decimal string.
#[track_caller]
fn is_big(value: &Value) {
    let digits = |text: &str| text.trim_start_matches('-').chars().all(|c| c.is_ascii_digit());
    assert!(value.as_str().is_some_and(|text| !text.is_empty() && digits(text)), "{value}");
}

#[track_caller]
fn is_base64(value: &Value) {
    use base64::Engine;
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    assert!(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "{value}");
}

#[track_caller]
fn is_tipset(tipset: &Value) {
    keys(tipset, "Cids Blocks Height");
    assert!(tipset["Height"].is_i64());
    is_cid(&tipset["Cids"][0]);
    assert_eq!(tipset["Cids"].as_array().map(Vec::len), tipset["Blocks"].as_array().map(Vec::len));
    let block = &tipset["Blocks"][0];
    keys(
        block,
        "Miner Ticket ElectionProof BeaconEntries WinPoStProof Parents ParentWeight Height ParentStateRoot \
         ParentMessageReceipts Messages BLSAggregate Timestamp BlockSig ForkSignaling ParentBaseFee",
    );
    for cid in ["ParentStateRoot", "ParentMessageReceipts", "Messages"] {
        is_cid(&block[cid]);
    }
    is_big(&block["ParentWeight"]);
    is_big(&block["ParentBaseFee"]);
    keys(&block["Ticket"], "VRFProof");
    is_base64(&block["Ticket"]["VRFProof"]);
    assert!(block["Miner"].as_str().is_some_and(|miner| miner.starts_with("t0")));
    assert!(block["Timestamp"].is_u64() && block["ForkSignaling"].is_u64());
    if block["Height"] != 0 {
        is_cid(&block["Parents"][0]);
        keys(&block["ElectionProof"], "WinCount VRFProof");
        keys(&block["BlockSig"], "Type Data");
        assert_eq!(block["BlockSig"]["Type"], 2, "BLS");
        keys(&block["BeaconEntries"][0], "Round Data");
        is_base64(&block["BeaconEntries"][0]["Data"]);
    }
}

#[tokio::test]
async fn any_http_client_gets_lotus_shapes_and_the_chain_resumes_at_its_head() {
    let dir = tempfile::tempdir().expect("a folder");
    let (devnet, repo) = (dir.path().join("devnet"), dir.path().join("repo"));
    let chain = Chain::start(&devnet);
    chain.init(&repo);
    let client = Client { url: chain.url(), token: chain.token.clone() };

    let head = client.read("ChainHead", json!([])).await;
    is_tipset(&head);
    assert!(head["Height"].as_i64() > Some(0));
    is_tipset(&client.read("ChainGetGenesis", json!([])).await);
    the_miner(&client).await;
    the_network(&client).await;
    what_is_refused(&client).await;
    notifications(&chain).await;

    // stopped, and started so slow that nothing happens but what is asked for
    let last = client.read("ChainHead", json!([])).await;
    chain.process.stopped();
    let slow = ["--block-delay", "30m", "--warmup-delay", "30m"];
    let chain = Chain::start_at(&devnet, 0, &slow, &[]);
    let client = Client { url: chain.url(), token: chain.token.clone() };
    let resumed = client.read("ChainHead", json!([])).await;
    is_tipset(&resumed);
    assert!(resumed["Height"].as_i64() >= last["Height"].as_i64(), "{resumed}");
    let then = client.read("ChainGetTipSetByHeight", json!([last["Height"], null])).await;
    assert_eq!(then, last, "the chain before the stop is the chain after it");
    the_mempool(&client).await;

    // kill -9: what was acknowledged is there
    chain.process.killed();
    let chain = Chain::start_at(&devnet, 0, &slow, &[]);
    let client = Client { url: chain.url(), token: chain.token.clone() };
    assert_eq!(client.read("ChainHead", json!([])).await, resumed);
    assert_eq!(client.read("MpoolPending", json!([null])).await.as_array().map(Vec::len), Some(1));
}

async fn the_miner(client: &Client) {
    let deadline = client.read("StateMinerProvingDeadline", json!(["t01000", null])).await;
    keys(
        &deadline,
        "CurrentEpoch PeriodStart Index Open Close Challenge FaultCutoff WPoStPeriodDeadlines WPoStProvingPeriod \
         WPoStChallengeWindow WPoStChallengeLookback FaultDeclarationCutoff",
    );
    assert!(deadline.as_object().expect("an object").values().all(Value::is_i64), "{deadline}");
    assert_eq!(deadline["WPoStProvingPeriod"], 60);

    let info = client.read("StateMinerInfo", json!(["t01000", []])).await;
    keys(
        &info,
        "Owner Worker NewWorker ControlAddresses WorkerChangeEpoch PeerId Multiaddrs WindowPoStProofType SectorSize \
         WindowPoStPartitionSectors ConsensusFaultElapsed PendingOwnerAddress Beneficiary BeneficiaryTerm \
         PendingBeneficiaryTerm",
    );
    assert_eq!((&info["SectorSize"], &info["WindowPoStProofType"]), (&json!(2048), &json!(10)));
    assert!(info["Owner"].as_str().is_some_and(|a| a.starts_with("t0")), "{info}");
    assert_eq!(info["NewWorker"], "<empty>");
    assert!(info["PendingOwnerAddress"].is_null() && info["PendingBeneficiaryTerm"].is_null(), "{info}");
    keys(&info["BeneficiaryTerm"], "Quota UsedQuota Expiration");
    is_big(&info["BeneficiaryTerm"]["Quota"]);
    is_big(&client.read("StateMinerAvailableBalance", json!(["t01000", null])).await);
    let power = client.read("StateMinerPower", json!(["t01000", null])).await;
    keys(&power, "MinerPower TotalPower HasMinPower");
    keys(&power["MinerPower"], "RawBytePower QualityAdjPower");
    is_big(&power["MinerPower"]["RawBytePower"]);
}

async fn the_network(client: &Client) {
    let params = client.read("StateGetNetworkParams", json!([])).await;
    for key in
        ["NetworkName", "BlockDelaySecs", "ConsensusMinerMinPower", "PreCommitChallengeDelay", "ForkUpgradeParams"]
    {
        assert!(params.get(key).is_some(), "{key} is missing: {params}");
    }
    is_big(&params["ConsensusMinerMinPower"]);
    assert_eq!(params["NetworkName"], "bulkhead-devnet-1");
    assert_eq!(params["NetworkName"], client.read("StateNetworkName", json!([])).await);
    assert_eq!(client.read("StateNetworkVersion", json!([null])).await, 29);
    assert!(client.read("Version", json!([])).await["APIVersion"].is_u64());
    let wallet = client.sign("WalletList", json!([])).await;
    let wallet: Vec<&str> = wallet.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(wallet.len() == 2 && wallet.iter().all(|a| a.starts_with("t3")), "{wallet:?}");
}

/// One message, pending because no block comes.
async fn the_mempool(client: &Client) {
    assert_eq!(client.read("MpoolPending", json!([null])).await, Value::Null);
    let from = client.sign("WalletDefaultAddress", json!([])).await;
    let message = json!({ "From": from, "To": "t099", "Value": "1", "Method": 0 });
    let sent = client.sign("MpoolPushMessage", json!([message, null])).await;
    let pending = client.read("MpoolPending", json!([null])).await;
    assert_eq!(pending, json!([sent]));
    keys(&sent, "Message Signature CID");
    keys(&sent["Signature"], "Type Data");
    is_base64(&sent["Signature"]["Data"]);
    is_cid(&sent["CID"]);
    let message = &sent["Message"];
    keys(message, "Version To From Nonce Value GasLimit GasFeeCap GasPremium Method Params CID");
    is_cid(&message["CID"]);
    for amount in ["Value", "GasFeeCap", "GasPremium"] {
        is_big(&message[amount]);
    }
    assert!(message["GasLimit"].is_i64() && message["Nonce"].is_u64(), "{message}");
}

async fn what_is_refused(client: &Client) {
    let head = || Client::body("ChainHead", json!([]));
    for (content_type, status) in [
        (None, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (Some("text/plain"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (Some(JSON), StatusCode::OK),
    ] {
        assert_eq!(client.post(head(), None, content_type).await.0, status, "{content_type:?}");
    }
    let (status, _) = client.post(head(), Some("wrong.token.here"), Some(JSON)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let error = |text: String| serde_json::from_str::<Value>(&text).expect("JSON")["error"].clone();
    let (_, text) = client.post(Client::body("WalletList", json!([])), None, Some(JSON)).await;
    let missing = error(text);
    assert!(missing["message"].as_str().is_some_and(|m| m.contains("missing permission")), "{missing}");
    let (_, text) = client.post("{\"jsonrpc\": \"2.0\", garbage".to_string(), None, Some(JSON)).await;
    assert_eq!(error(text)["code"], -32700);
    let (_, text) = client.post(Client::body("NoSuchThing", json!([])), None, Some(JSON)).await;
    let unknown = error(text);
    assert_eq!(unknown["code"], -32601);
    assert_eq!(unknown["message"], "method 'Filecoin.NoSuchThing' not found");
    let (_, text) = client.post(Client::body("StateMinerInfo", json!(["nonsense", null])), None, Some(JSON)).await;
    assert!(error(text)["message"].is_string());
}

/// The `xrpc.ch.val` channel: a number, the head as `current`, every new one as `apply`, closed when cancelled.
async fn notifications(chain: &Chain) {
    let url = chain.url().replace("http://", "ws://");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
    let call = Client::body("ChainNotify", json!([]));
    socket.send(Message::text(call)).await.expect("sent");
    let mut next = async || loop {
        match timeout(SOON, socket.next()).await.expect("soon").expect("open").expect("a frame") {
            Message::Text(text) => return serde_json::from_str::<Value>(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let answer = next().await;
    assert_eq!(answer["id"], 7);
    let channel = answer["result"].clone();
    assert!(channel.is_u64(), "{answer}");
    let mut height = None;
    for expected in ["current", "apply", "apply"] {
        let value = next().await;
        assert_eq!((&value["method"], &value["params"][0]), (&json!("xrpc.ch.val"), &channel), "{value}");
        assert!(value.get("id").is_none(), "a notification: {value}");
        let change = &value["params"][1][0];
        keys(change, "Type Val");
        assert_eq!(change["Type"], expected);
        is_tipset(&change["Val"]);
        assert!(change["Val"]["Height"].as_i64() > height, "{change}");
        height = change["Val"]["Height"].as_i64();
    }
    let cancel = json!({ "jsonrpc": "2.0", "method": "xrpc.cancel", "params": [7] });
    socket.send(Message::text(cancel.to_string())).await.expect("sent");
    loop {
        match timeout(SOON, socket.next()).await.expect("soon").expect("open").expect("a frame") {
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).expect("JSON");
                if value["method"] == "xrpc.ch.close" {
                    assert_eq!(value["params"], json!([channel]));
                    return;
                }
                assert_eq!(value["method"], "xrpc.ch.val");
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
