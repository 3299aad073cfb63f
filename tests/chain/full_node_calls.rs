//! The client asks the server over real sockets: parameters arrive, answers come back, in Lotus' shapes.

use crate::support::full_node::*;
use async_trait::async_trait;
use bulkhead::chain::lotus_json::*;
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, TokenAmount};
use bulkhead::rpc::auth::Perm;
use bulkhead::rpc::client::RpcClient;
use bulkhead::rpc::full_node::{FullNode, FullNodeError, RandomnessTag};
use bulkhead::rpc::server::{ExtraMethods, RpcError};
use fvm_ipld_bitfield::BitField;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

fn sample<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(samples()[name].clone()).expect(name)
}

#[tokio::test]
async fn every_method_of_the_trait_crosses_the_wire() {
    let served = Served::start();
    let c = served.client();
    let m = Address::new_id(1000);
    let k: TipSetKey = sample::<TipSet>("ChainHead").key();
    let none = TipSetKey::default();
    let said = samples();
    // what was written through the client and the server is what our types write of the example
    macro_rules! check {
        ($name:literal, $ty:ty, $call:expr) => {{
            let expected: $ty = sample($name);
            let got = $call.await.expect($name);
            assert_eq!(as_json(&got), as_json(&expected), $name);
        }};
        ($name:literal, whole $ty:ident, $call:expr) => {{
            let got = $call.await.expect($name);
            assert_eq!(as_json(&$ty(got)), as_json(&sample::<$ty>($name)), $name);
        }};
    }
    let info: SectorPreCommitInfo = sample::<SectorPreCommitOnChainInfo>("StateSectorPreCommitInfo").info;
    let message: Message = sample("GasEstimateMessageGas");
    let block: BlockMsg = sample("MinerCreateBlock");
    let template = BlockTemplate {
        miner: m,
        parents: k.clone(),
        ticket: Ticket { vrf_proof: vec![1; 96] },
        eproof: ElectionProof { win_count: 2, vrf_proof: vec![2; 96] },
        beacon_values: vec![BeaconEntry { round: 5, data: vec![3] }],
        messages: vec![sample("WalletSignMessage")],
        epoch: 9,
        timestamp: 10,
        winning_post_proof: vec![PoStProof { post_proof: 0, proof_bytes: vec![4; 192] }],
    };
    check!("Version", Version, c.version());
    check!("ChainHead", TipSet, c.chain_head());
    check!("ChainHead", TipSet, c.chain_get_tip_set(&k));
    check!("ChainTipSetWeight", whole WholeBigInt, c.chain_tip_set_weight(&k));
    check!("StateNetworkName", String, c.state_network_name());
    check!("StateNetworkVersion", u32, c.state_network_version(&none));
    check!("StateGetNetworkParams", NetworkParams, c.state_get_network_params());
    check!("StateGetActor", Option<OnChainActor>, c.state_get_actor(&m, &none));
    check!("StateLookupID", whole WholeAddress, c.state_lookup_id(&m, &none));
    check!("StateAccountKey", whole WholeAddress, c.state_account_key(&m, &none));
    check!("StateMinerInfo", MinerInfo, c.state_miner_info(&m, &k));
    check!("StateMinerPower", MinerPower, c.state_miner_power(&m, &k));
    check!("StateMinerAvailableBalance", whole WholeToken, c.state_miner_available_balance(&m, &k));
    check!("StateMinerProvingDeadline", DeadlineInfo, c.state_miner_proving_deadline(&m, &k));
    check!("StateMinerDeadlines", Vec<Deadline>, c.state_miner_deadlines(&m, &k));
    check!("StateMinerPartitions", Vec<Partition>, c.state_miner_partitions(&m, 3, &k));
    check!("StateMinerSectors", Vec<SectorOnChainInfo>, c.state_miner_sectors(&m, None, &k));
    let only = BitField::try_from_bits([0, 1, 9]).expect("bits");
    check!("StateMinerSectors", Vec<SectorOnChainInfo>, c.state_miner_sectors(&m, Some(&only), &k));
    check!("StateMinerAllocated", whole WholeBitField, c.state_miner_allocated(&m, &k));
    check!("StateMinerPreCommitDepositForPower", whole WholeToken, c.state_miner_pre_commit_deposit_for_power(&m, &info, &k));
    check!("StateMinerInitialPledgeCollateral", whole WholeToken, c.state_miner_initial_pledge_collateral(&m, &info, &k));
    check!("StateMinerInitialPledgeForSector", whole WholeToken, c.state_miner_initial_pledge_for_sector(9, 2048, 7, &k));
    check!("F3GetOrRenewParticipationTicket", whole WholeBytes, c.f3_get_or_renew_participation_ticket(&m, &[], 5));
    check!("F3Participate", F3Lease, c.f3_participate(&[7]));
    check!("F3GetProgress", F3Progress, c.f3_get_progress());
    check!("F3GetManifest", Option<F3Manifest>, c.f3_get_manifest());
    check!("StateSectorPreCommitInfo", Option<SectorPreCommitOnChainInfo>, c.state_sector_pre_commit_info(&m, 9, &k));
    check!("StateSectorGetInfo", Option<SectorOnChainInfo>, c.state_sector_get_info(&m, 9, &k));
    check!("StateSectorPartition", SectorLocation, c.state_sector_partition(&m, 9, &k));
    check!("MpoolGetNonce", u64, c.mpool_get_nonce(&m));
    check!("MpoolPush", whole WholeCid, c.mpool_push(&sample("WalletSignMessage")));
    check!("MpoolPending", Vec<SignedMessage>, c.mpool_pending(&none));
    check!("MpoolSelect", Vec<SignedMessage>, c.mpool_select(&k, 0.8));
    let fee = TokenAmount::from_atto(7);
    check!("GasEstimateMessageGas", Message, c.gas_estimate_message_gas(&message, &fee, &none));
    check!("GasEstimateMessageGas", Message, c.gas_estimate_message_gas(&message, &TokenAmount::default(), &none));
    check!("WalletHas", bool, c.wallet_has(&m));
    check!("WalletList", whole WholeAddresses, c.wallet_list());
    check!("WalletNew", whole WholeAddress, c.wallet_new("bls"));
    check!("WalletBalance", whole WholeToken, c.wallet_balance(&m));
    check!("WalletDefaultAddress", whole WholeOptAddress, c.wallet_default_address());
    check!("WalletSign", Signature, c.wallet_sign(&m, b"some bytes"));
    check!("MinerGetBaseInfo", Option<MiningBaseInfo>, c.miner_get_base_info(&m, 9, &k));
    check!("MinerCreateBlock", BlockMsg, c.miner_create_block(&template));
    c.sync_submit_block(&block).await.expect("submitted");
    assert_eq!(c.wallet_sign_message(&m, &message).await.expect("signed").message, message);
    assert_eq!(c.chain_get_tip_set_by_height(8, &k).await.expect("tipset").height, 7);
    let found = c.state_search_msg(&none, &block.header.messages, 5, true).await.expect("asked");
    assert_eq!(as_json(&found), as_json(&sample::<Option<MsgLookup>>("StateSearchMsg")));

    let k = as_json(&k);
    let miner = json!(WholeAddress(m));
    for (method, expected) in [
        ("StateMinerPartitions", vec![json!([miner, 3, k])]),
        ("StateMinerSectors", vec![json!([miner, null, k]), json!([miner, [0, 2, 7, 1], k])]),
        ("StateNetworkVersion", vec![json!([[]])]),
        ("StateMinerInitialPledgeCollateral", vec![json!([miner, info, k])]),
        ("StateMinerInitialPledgeForSector", vec![json!([9, 2048, 7, k])]),
        ("F3GetOrRenewParticipationTicket", vec![json!([miner, null, 5])]),
        ("F3Participate", vec![json!(["Bw=="])]),
        ("MpoolSelect", vec![json!([k, 0.8])]),
        ("WalletSign", vec![json!([miner, "c29tZSBieXRlcw=="])]),
        ("WalletNew", vec![json!(["bls"])]),
        ("MinerCreateBlock", vec![json!([template])]),
        ("SyncSubmitBlock", vec![json!([block])]),
        ("GasEstimateMessageGas", vec![json!([message, "7", []]), json!([message, "0", []])]),
        ("StateSearchMsg", vec![json!([[], WholeCid(block.header.messages), 5, true])]),
    ] {
        assert_eq!(served.node.calls_of(method), expected, "{method}");
    }
    assert!(said.len() > 30);
}

#[tokio::test]
async fn none_and_empty_come_back_as_such() {
    let served = Served::start();
    let (c, m, k) = (served.client(), Address::new_id(1000), TipSetKey::default());
    for method in ["StateSectorPreCommitInfo", "StateSectorGetInfo", "MinerGetBaseInfo", "StateSearchMsg"] {
        served.node.set(method, Value::Null);
    }
    assert!(c.state_sector_pre_commit_info(&m, 1, &k).await.expect("asked").is_none());
    assert!(c.state_sector_get_info(&m, 1, &k).await.expect("asked").is_none());
    assert!(c.miner_get_base_info(&m, 1, &k).await.expect("asked").is_none());
    served.node.set("WalletDefaultAddress", json!("<empty>"));
    assert_eq!(c.wallet_default_address().await.expect("asked"), None);
    // what some nodes say instead of null
    let verdict = |m: &str| json!({"error": {"code": 1, "message": m}});
    served.node.set("WalletDefaultAddress", verdict("failed to get default key: key info not found"));
    assert_eq!(c.wallet_default_address().await.expect("asked"), None);
    served.node.set("StateSectorPreCommitInfo", verdict("precommit info does not exist"));
    assert!(c.state_sector_pre_commit_info(&m, 1, &k).await.expect("asked").is_none());
    // members that a node leaves out are asked for elsewhere
    let mut params = samples()["StateGetNetworkParams"].clone();
    params["BlockDelaySecs"] = json!(0);
    params["GenesisTimestamp"] = json!(0);
    served.node.set("StateGetNetworkParams", params);
    let filled = c.state_get_network_params().await.expect("asked");
    assert_eq!((filled.block_delay_secs, filled.genesis_timestamp), (42, 1744204890));
}

#[tokio::test]
async fn verdicts_keep_code_and_words_and_odd_answers_are_named() {
    let served = Served::start();
    let (c, m, k) = (served.client(), Address::new_id(1000), TipSetKey::default());
    let no_actor = json!({"error": {"code": 11, "message": "actor not found"}});
    served.node.set("StateGetActor", no_actor.clone());
    assert!(c.state_get_actor(&m, &k).await.expect("an answer").is_none());
    served.node.set("StateLookupID", no_actor);
    match c.state_lookup_id(&m, &k).await {
        Err(FullNodeError::Rpc { code: 11, message, method: "Filecoin.StateLookupID", .. }) => {
            assert_eq!(message, "actor not found");
        }
        other => panic!("{other:?}"),
    }
    let tag = RandomnessTag::SealRandomness;
    let ticket = c.state_get_randomness_from_tickets(tag, 4, &[1, 2, 3], &k).await.expect("32 bytes");
    assert_eq!(ticket, [12; 32]);
    let short = c.state_get_randomness_from_beacon(tag, 4, &[], &k).await;
    assert!(matches!(short, Err(FullNodeError::BadAnswer { .. })), "{short:?}");
    // a panic in one call is that call's error
    served.node.set("StateNetworkName", json!("panic"));
    assert!(matches!(c.state_network_name().await, Err(FullNodeError::Rpc { code: 0, .. })));
    assert_eq!(c.mpool_get_nonce(&m).await.expect("the server lives"), 42);
}

#[tokio::test]
async fn methods_composed_from_others() {
    let served = Served::start();
    let rpc = RpcClient::new(&served.info(Some(&Perm::ALL)), "v1").expect("client");
    let ask = async |method: &str, params: Value| -> Value {
        let params = params.as_array().expect("a list").clone();
        rpc.call(&format!("Filecoin.{method}"), params, LONG).await.expect(method)
    };
    assert_eq!(ask("StateMinerFaults", json!(["f01000", null])).await, json!([5, 1]));
    assert_eq!(ask("StateMinerRecoveries", json!(["f01000", null])).await, json!([5, 1]));
    let count = ask("StateMinerSectorCount", json!(["f01000", null])).await;
    assert_eq!(count, json!({"Live": 1, "Active": 1, "Faulty": 1}));
    let active = ask("StateMinerActiveSectors", json!(["f01000", null])).await;
    assert_eq!((active.as_array().expect("list").len(), &active[0]["DealWeight"]), (1, &json!("0")));
    assert_eq!(ask("StateMinerSectorAllocated", json!(["f01000", 0, []])).await, json!(false));
    // 4 is a null round
    assert_eq!(ask("ChainGetTipSetByHeight", json!([4, null])).await["Height"], json!(3));
    assert_eq!(ask("ChainGetTipSetAfterHeight", json!([4, null])).await["Height"], json!(5));
    assert_eq!(ask("ChainGetTipSetAfterHeight", json!([5, null])).await["Height"], json!(5));
    let head = samples()["ChainHead"].clone();
    assert_eq!(ask("ChainGetTipSetAfterHeight", json!([head["Height"], null])).await["Height"], head["Height"]);
    assert_eq!(ask("ChainGetBlock", json!([head["Cids"][0]])).await["Timestamp"], head["Blocks"][0]["Timestamp"]);
    let info = ask("StateMinerInfo", json!(["f01000", null])).await;
    assert_eq!((&info["Beneficiary"], &info["PendingOwnerAddress"]), (&info["Owner"], &info["Owner"]));
    assert!(ask("Version", json!([])).await["Agent"].as_str().expect("text").starts_with("bulkhead"));
    let perms = ask("AuthVerify", json!([served.auth.token(&[Perm::Read]).expect("token")])).await;
    assert_eq!(perms, json!(["read"]));
    let WholeBytes(token) = serde_json::from_value(ask("AuthNew", json!([["read", "sign"]])).await).expect("bytes");
    let token = String::from_utf8(token).expect("text");
    assert_eq!(served.auth.verify(&token).expect("valid"), [Perm::Read, Perm::Sign]);
}

#[tokio::test]
async fn a_message_is_estimated_numbered_signed_and_pushed() {
    let served = Served::start();
    let rpc = RpcClient::new(&served.info(Some(&Perm::ALL)), "v0").expect("client");
    let message = json!({"To": "f01234", "From": "f01000", "Value": "1", "Method": 0});
    let uuid = "07070707-0707-0707-0707-070707070707";
    for spec in [json!(null), json!({"MaxFee": "5", "MsgUuid": uuid, "MaximizeFeeCap": true})] {
        let params = vec![message.clone(), spec];
        let signed: SignedMessage = rpc.call("Filecoin.MpoolPushMessage", params, LONG).await.expect("pushed");
        assert_eq!((signed.message.nonce, signed.message.gas_limit), (42, 9));
        assert_eq!(served.node.calls_of("MpoolPush").last().expect("pushed")[0], json!(signed));
    }
    let fees: Vec<_> = served.node.calls_of("GasEstimateMessageGas").iter().map(|c| c[1].clone()).collect();
    assert_eq!(fees, ["0", "5"]);
    let mut numbered = message.clone();
    numbered["Nonce"] = json!(3);
    let refused = rpc.call::<Value>("Filecoin.MpoolPushMessage", vec![numbered, json!(null)], LONG).await;
    assert!(refused.expect_err("a nonce").to_string().contains("nonce to be 0, was 3"));
}

#[tokio::test]
async fn waiting_for_a_message_ends_when_it_is_deep_enough() {
    let served = Served::start();
    let rpc = RpcClient::new(&served.info(Some(&Perm::ALL)), "v0").expect("client");
    let mut found = samples()["StateSearchMsg"].clone();
    found["Height"] = json!(100);
    served.node.set("StateSearchMsg", Value::Null);
    let message = found["Message"].clone();
    let wait = tokio::spawn(async move {
        rpc.call::<MsgLookup>("Filecoin.StateWaitMsg", vec![message, json!(2)], LONG).await // v0: two parameters
    });
    let node = served.node.clone();
    while node.calls_of("StateSearchMsg").is_empty() {
        tokio::task::yield_now().await;
    }
    node.set("StateSearchMsg", found);
    node.push(HeadChangeType::Apply, 101).await; // one epoch deep: not yet
    node.push(HeadChangeType::Apply, 102).await;
    assert_eq!(wait.await.expect("joined").expect("found").height, 100);
}

struct Extra;

#[async_trait]
impl ExtraMethods for Extra {
    fn permission(&self, method: &str) -> Option<Perm> {
        match method {
            "Filecoin.StateListMiners" | "Filecoin.ChainHead" => Some(Perm::Read),
            "Devnet.Reorg" => Some(Perm::Admin),
            _ => None,
        }
    }
    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        match method {
            "Filecoin.StateListMiners" => Some(Ok(json!([["f01000"], params]))),
            "Filecoin.ChainHead" => None, // left to the node
            "Devnet.Reorg" => Some(Err(RpcError::verdict("too deep"))),
            _ => None,
        }
    }
}

#[tokio::test]
async fn extra_methods_stand_beside_the_nodes_own() {
    let served = Served::with(|s| bulkhead::rpc::server::Service { extras: Some(Arc::new(Extra)), ..s });
    let rpc = RpcClient::new(&served.info(None), "v1").expect("client");
    let miners: Value = rpc.call("Filecoin.StateListMiners", vec![json!(1)], LONG).await.expect("listed");
    assert_eq!(miners, json!([["f01000"], [1]]));
    assert!(rpc.call::<TipSet>("Filecoin.ChainHead", vec![], LONG).await.is_ok());
    let refused = rpc.call::<Value>("Devnet.Reorg", vec![], LONG).await.expect_err("no admin").to_string();
    assert!(refused.contains("missing permission to invoke 'Devnet.Reorg' (need 'admin')"), "{refused}");
}
