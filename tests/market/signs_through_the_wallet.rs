//! Asks are signed with the worker's key address, through the full node's JSON-RPC, over the exact bytes that clients check.

use crate::support::full_node::{FixedNode, Served};
use bulkhead::actors::deal_handler::{AskSigner, WalletSigner};
use bulkhead::actors::wallet::NodeWallet;
use bulkhead::chain::Address;
use bulkhead::rpc::full_node::FullNode;
use fvm_shared::crypto::signature::SignatureType;
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn the_worker_s_key_signs_and_errors_name_the_node() {
    let served = Served::start();
    let miner = Address::new_id(1000);
    let node: Arc<dyn FullNode> = Arc::new(served.client());
    let wallet = Arc::new(NodeWallet(node.clone()));
    let signer = WalletSigner { node, wallet, miner };
    served.node.set("ChainHead", json!(FixedNode::tip_set(77)));

    let now = signer.standing().await.unwrap();
    assert_eq!(now.height, 77);
    let info = &served.node.calls_of("StateMinerInfo")[0];
    assert!(info[0].as_str().unwrap().ends_with("01000"), "{info}");
    assert!(!info[1].as_array().unwrap().is_empty(), "asked at the head that was seen: {info}");
    assert_eq!(served.node.calls_of("StateAccountKey").len(), 1);

    served.node.set("WalletSign", json!({"Type": 2, "Data": "AQID"}));
    let signature = signer.sign(&now.worker, b"an ask").await.unwrap();
    assert_eq!((signature.sig_type, signature.bytes), (SignatureType::BLS, vec![1, 2, 3]));
    let call = &served.node.calls_of("WalletSign")[0];
    assert_eq!(call[1], json!("YW4gYXNr"), "the bytes as they are");

    served.node.set("WalletSign", json!({"Type": 3, "Data": "AQID"}));
    assert!(signer.sign(&now.worker, b"x").await.unwrap_err().contains("unknown type 3"));
    served.node.set("WalletSign", json!({"error": {"code": 1, "message": "key not found"}}));
    let why = signer.sign(&now.worker, b"x").await.unwrap_err();
    assert!(why.contains("WalletSign") && why.contains("key not found"), "{why}");
    let addr = served.server.addr();
    served.server.stop().await;
    let why = signer.standing().await.unwrap_err();
    assert!(why.contains(&addr.to_string()) && why.contains("cannot reach"), "{why}");
}
