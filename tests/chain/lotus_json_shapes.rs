//! What Lotus writes, we read, and write again the same way; CIDs and CBOR match the network's own vectors.

use bulkhead::chain::cbor;
use bulkhead::chain::lotus_json::*;
use bulkhead::chain::types::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;

fn samples() -> HashMap<String, Value> {
    serde_json::from_str(include_str!("../data/lotus_answers.json")).expect("samples are JSON")
}

/// Every member that we write, Lotus' example has with the same value (addresses print for our network: f -> t or back).
fn reads_and_writes<T: DeserializeOwned + Serialize>(name: &str, ours_only: &[&str]) {
    let theirs = samples()[name].clone();
    let read: T = serde_json::from_value(theirs.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let ours = serde_json::to_value(&read).expect(name);
    same(name, &ours, &theirs, ours_only);
}

fn same(at: &str, ours: &Value, theirs: &Value, ours_only: &[&str]) {
    match (ours, theirs) {
        (Value::Object(o), Value::Object(t)) => {
            for (k, v) in o {
                match t.get(k) {
                    Some(tv) => same(&format!("{at}.{k}"), v, tv, ours_only),
                    None => assert!(ours_only.contains(&k.as_str()), "{at}: Lotus has no member {k}"),
                }
            }
        }
        (Value::Array(o), Value::Array(t)) => {
            assert_eq!(o.len(), t.len(), "{at}");
            for (i, (o, t)) in o.iter().zip(t).enumerate() {
                same(&format!("{at}[{i}]"), o, t, ours_only);
            }
        }
        (Value::String(o), Value::String(t)) if o.len() > 1 && o[1..] == t[1..] && "ft".contains(&t[..1]) => {}
        _ => assert_eq!(ours, theirs, "{at}"),
    }
}

#[test]
fn lotus_examples_survive_reading_and_writing() {
    reads_and_writes::<Version>("Version", &[]);
    reads_and_writes::<TipSet>("ChainHead", &[]);
    reads_and_writes::<NetworkParams>("StateGetNetworkParams", &["SupportedProofTypes"]);
    reads_and_writes::<OnChainActor>("StateGetActor", &[]);
    reads_and_writes::<MinerInfo>("StateMinerInfo", &[]);
    reads_and_writes::<MinerPower>("StateMinerPower", &[]);
    reads_and_writes::<DeadlineInfo>("StateMinerProvingDeadline", &[]);
    reads_and_writes::<Vec<Deadline>>("StateMinerDeadlines", &[]);
    reads_and_writes::<Vec<Partition>>("StateMinerPartitions", &[]);
    reads_and_writes::<Vec<SectorOnChainInfo>>("StateMinerSectors", &[]);
    reads_and_writes::<WholeBitField>("StateMinerAllocated", &[]);
    reads_and_writes::<Option<SectorPreCommitOnChainInfo>>("StateSectorPreCommitInfo", &[]);
    reads_and_writes::<Option<SectorOnChainInfo>>("StateSectorGetInfo", &[]);
    reads_and_writes::<SectorLocation>("StateSectorPartition", &[]);
    reads_and_writes::<Option<MsgLookup>>("StateSearchMsg", &[]);
    reads_and_writes::<Option<MiningBaseInfo>>("MinerGetBaseInfo", &[]);
    reads_and_writes::<BlockMsg>("MinerCreateBlock", &[]);
    reads_and_writes::<Vec<SignedMessage>>("MpoolPending", &[]);
    reads_and_writes::<Message>("GasEstimateMessageGas", &[]);
    reads_and_writes::<SignedMessage>("WalletSignMessage", &[]);
    reads_and_writes::<Signature>("WalletSign", &[]);
    reads_and_writes::<WholeCid>("MpoolPush", &[]);
    reads_and_writes::<WholeToken>("WalletBalance", &[]);
    reads_and_writes::<WholeAddresses>("WalletList", &[]);
}

#[test]
fn a_mainnet_tipset_has_the_cids_that_it_says() {
    let tip_set: TipSet = serde_json::from_value(samples()["ChainHead"].clone()).expect("a tipset");
    assert_eq!(cbor::block_cid(&tip_set.blocks[0]).expect("encodes"), tip_set.cids[0]);
}

#[test]
fn headers_and_messages_encode_as_the_network_does() {
    let vectors: Value = serde_json::from_str(include_str!("../data/chain_vectors.json")).expect("vectors are JSON");
    let list = |name: &str| vectors[name].as_array().expect(name).clone();
    for v in list("headers") {
        let header: BlockHeader = serde_json::from_value(v["block"].clone()).expect("a header");
        assert_eq!(json!(hex::encode(cbor::block_header_bytes(&header).expect("encodes"))), v["cbor"]);
        assert_eq!(json!(cbor::block_cid(&header).expect("encodes").to_string()), v["cid"]);
        // the signature is not part of what is signed
        let unsigned = BlockHeader { block_sig: None, ..header.clone() };
        assert_eq!(cbor::block_signing_bytes(&header), cbor::block_header_bytes(&unsigned));
    }
    for v in list("messages") {
        let message: Message = serde_json::from_value(v["message"].clone()).expect("a message");
        assert_eq!(json!(hex::encode(cbor::message_bytes(&message).expect("encodes"))), v["cbor"]);
    }
    for v in list("signed") {
        let message: Message = serde_json::from_value(v["unsigned"].clone()).expect("a message");
        let signature: Signature = serde_json::from_value(v["signature"].clone()).expect("a signature");
        let signed = SignedMessage { message: message.clone(), signature };
        assert_eq!(json!(cbor::message_cid(&message).expect("encodes").to_string()), v["cid"]);
        // BLS: the mempool knows it under the unsigned message's CID
        assert_eq!(cbor::signed_message_cid(&signed), cbor::message_cid(&message));
    }
}

#[test]
fn a_secp_message_is_known_under_the_signed_tuple() {
    let vectors: Value = serde_json::from_str(include_str!("../data/chain_vectors.json")).expect("vectors are JSON");
    let message: Message = serde_json::from_value(vectors["messages"][1]["message"].clone()).expect("a message");
    let signed = SignedMessage { message, signature: Signature { kind: 1, data: vec![0xab; 65] } };
    let expected = format!("82{}584201{}", vectors["messages"][1]["cbor"].as_str().expect("hex"), "ab".repeat(65));
    assert_eq!(hex::encode(cbor::signed_message_bytes(&signed).expect("encodes")), expected);
    let cid = cbor::signed_message_cid(&signed).expect("encodes");
    assert_eq!(cid, cbor::cid_of(&hex::decode(expected).expect("hex")));
    assert_ne!(cid, cbor::message_cid(&signed.message).expect("encodes"));
}

#[test]
fn messages_are_read_with_and_without_what_may_be_missing() {
    let full: Message = serde_json::from_value(samples()["GasEstimateMessageGas"].clone()).expect("a message");
    // Lotus' documentation gives the CID of its example message
    let cid = cbor::message_cid(&full).expect("encodes");
    assert_eq!(json!(WholeCid(cid)), samples()["GasEstimateMessageGas"]["CID"]);
    assert_eq!(json!(full)["CID"], json!(WholeCid(cid)));
    let bare: Message =
        serde_json::from_value(json!({"To": "f01234", "From": "t01000", "Value": "7", "Method": 0, "Params": null}))
            .expect("a message");
    assert_eq!((bare.version, bare.nonce, bare.gas_limit, bare.params.len()), (0, 0, 0, 0));
    assert_eq!(json!(bare)["Params"], Value::Null);
    // forest-filecoin's snapshot of an all-zero message
    let zero: Message =
        serde_json::from_value(json!({"To": "f00", "From": "f00", "Value": "0", "Method": 0})).expect("a message");
    assert_eq!(
        cbor::message_cid(&zero).expect("encodes").to_string(),
        "bafy2bzaced3xdk2uf6azekyxgcttujvy3fzyeqmibtpjf2fxcpfdx2zcx4s3g"
    );
}

#[test]
fn nothing_is_none_in_each_of_the_ways_it_is_written() {
    for text in ["null", "\"\"", "\"<empty>\""] {
        assert_eq!(serde_json::from_str::<WholeOptAddress>(text).expect(text).0, None);
    }
    assert_eq!(json!(WholeOptAddress(None)), json!("<empty>"));
    for text in ["null", "\"\"", "\"0\""] {
        assert_eq!(serde_json::from_str::<WholeToken>(text).expect(text).0.atto().to_string(), "0");
    }
    assert!(serde_json::from_str::<TipSetKey>("null").expect("null").0.is_empty());
    assert_eq!(json!(TipSetKey::default()), json!([]));
    assert!(serde_json::from_str::<WholeBytes>("null").expect("null").0.is_empty());
    let mut info = samples()["StateMinerInfo"].clone();
    for member in ["PeerId", "Multiaddrs", "ControlAddresses"] {
        info[member] = Value::Null;
    }
    info["NewWorker"] = json!("<empty>");
    let info: MinerInfo = serde_json::from_value(info).expect("a miner's info");
    assert!(info.new_worker.is_none() && info.peer_id.is_none() && info.multiaddrs.is_empty());
    let mut sector = samples()["StateSectorGetInfo"].clone();
    for member in ["ExpectedDayReward", "ExpectedStoragePledge", "ReplacedDayReward", "SectorKeyCID", "DailyFee"] {
        sector[member] = Value::Null;
    }
    let sector: SectorOnChainInfo = serde_json::from_value(sector).expect("a sector");
    assert!(sector.expected_day_reward.is_none() && sector.daily_fee.is_none());
}

#[test]
fn bitfields_are_run_lengths_that_start_with_zeros() {
    for (runs, numbers) in [
        (json!([0]), vec![]),
        (json!([]), vec![]),
        (json!([0, 2]), vec![0, 1]),
        (json!([5, 1]), vec![5]),
        (json!([0, 1, 1, 2]), vec![0, 2, 3]),
        (json!([0, 1, 0, 2]), vec![0, 1, 2]),
        (json!([3, 0, 1, 1]), vec![4]),
    ] {
        let field: WholeBitField = serde_json::from_value(runs.clone()).expect("a bitfield");
        assert_eq!(field.0.iter().collect::<Vec<u64>>(), numbers, "{runs}");
    }
    let far: WholeBitField = serde_json::from_value(json!([u64::MAX - 1, 1])).expect("a bitfield");
    assert!(far.0.get(u64::MAX - 1));
    for bad in [json!([u64::MAX, 1]), json!([-1]), json!("x"), json!([0.5])] {
        assert!(serde_json::from_value::<WholeBitField>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn what_is_no_tipset_is_refused() {
    let good = samples()["ChainHead"].clone();
    let empty = json!({"Cids": [], "Blocks": [], "Height": 0});
    let null = json!({"Cids": null, "Blocks": null, "Height": 0});
    let mut bad_cid = good.clone();
    bad_cid["Cids"][0]["/"] = json!("bafyX");
    let mut bad_miner = good.clone();
    bad_miner["Blocks"][0]["Miner"] = json!("f0x");
    for bad in [empty, null, bad_cid, bad_miner, json!({}), json!(null)] {
        assert!(serde_json::from_value::<TipSet>(bad.clone()).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bitfield_survives(bits in proptest::collection::btree_set(0u64..200, 0..60)) {
        let field = fvm_ipld_bitfield::BitField::try_from_bits(bits.iter().copied()).expect("bits");
        let text = json!(WholeBitField(field)).to_string();
        let back: WholeBitField = serde_json::from_str(&text).expect("runs");
        proptest::prop_assert_eq!(back.0.iter().collect::<Vec<_>>(), bits.into_iter().collect::<Vec<_>>(), "{}", text);
    }
}
