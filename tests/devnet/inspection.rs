//! What can be asked beyond a provider's needs: blocks, messages, receipts, objects, keys, beacon, deposits.

use crate::support::devnet::*;
use bulkhead::chain::types::TipSetKey;
use bulkhead::devnet::DevnetSettings;
use bulkhead::rpc::full_node::FullNode;
use fil_actor_power_state::v18 as power;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::RegisteredPoStProof;

#[tokio::test]
async fn blocks_messages_and_receipts_are_found_where_lotus_has_them() {
    let net = Net::bare(settings());
    let secp = net.devnet.wallet_new("secp256k1").await.unwrap();
    net.must(net.owner, secp, 0, &(), fil(5)).await;
    let bls = net.push(net.message(net.owner, Address::new_id(99), 0, vec![], fil(1))).await;
    let signed = net.push(net.message(secp, Address::new_id(99), 0, vec![], fil(1))).await;
    net.step().await;
    let including = net.devnet.chain_head().await.unwrap();
    let block = net.devnet.chain_get_block_messages(&including.cids[0]).await.unwrap();
    assert_eq!(
        (block["BlsMessages"].as_array().unwrap().len(), block["SecpkMessages"].as_array().unwrap().len()),
        (1, 1)
    );
    assert_eq!(block["Cids"][0]["/"], bls.to_string());
    assert_eq!(block["Cids"][1]["/"], signed.to_string());
    assert_eq!(block["SecpkMessages"][0]["Signature"]["Type"], 1);
    assert_eq!(net.devnet.chain_get_block(&including.cids[0]).await.unwrap(), including.blocks[0]);

    net.step().await;
    let carrying = net.devnet.chain_head().await.unwrap();
    let receipts = net.devnet.chain_get_parent_receipts(&carrying.cids[0]).await.unwrap();
    assert_eq!(receipts.iter().map(|r| r.exit_code).collect::<Vec<_>>(), vec![0, 0]);
    let messages = net.devnet.chain_get_parent_messages(&carrying.cids[0]).await.unwrap();
    assert_eq!(messages[1]["Cid"]["/"], signed.to_string());
    let waited = net.devnet.state_wait_msg(&bls, 0, -1, false).await.unwrap();
    assert_eq!((waited.height, waited.tip_set), (carrying.height, carrying.key()));
    assert!(net.devnet.chain_has_obj(&carrying.cids[0]).await.unwrap());
    assert!(!net.devnet.chain_read_obj(&carrying.cids[0]).await.unwrap().is_empty());
    assert!(net.devnet.chain_has_obj(&sealed_cid(1)).await.is_ok_and(|has| !has));
    assert!(net.devnet.chain_read_obj(&sealed_cid(1)).await.is_err());
    assert_eq!(net.devnet.sync_state().await.unwrap()["ActiveSyncs"][0]["Stage"], 4);
}

#[tokio::test]
async fn waiting_for_a_message_ends_when_it_is_deep_enough() {
    let net = Net::bare(settings());
    let cid = net.push(net.message(net.owner, Address::new_id(99), 0, vec![], fil(1))).await;
    let produce = async {
        let mut feed = net.devnet.chain_notify().await.unwrap();
        for _ in 0..4 {
            net.step().await;
            feed.recv().await.unwrap();
        }
    };
    let (found, ()) = tokio::join!(net.devnet.state_wait_msg(&cid, 2, -1, false), produce);
    assert_eq!(found.unwrap().height, 2);
    assert_eq!(net.height().await, 4);
}

#[tokio::test]
async fn keys_move_between_wallets() {
    let (one, other) = (Net::bare(settings()), Net::bare(settings()));
    for kind in ["bls", "secp256k1"] {
        let key = one.devnet.wallet_new(kind).await.unwrap();
        let exported = one.devnet.wallet_export(&key).await.unwrap();
        assert_eq!(exported["Type"], kind);
        use base64::Engine;
        let secret = exported["PrivateKey"].as_str().unwrap();
        let secret = base64::engine::general_purpose::STANDARD.decode(secret).unwrap();
        assert!(!other.devnet.wallet_has(&key).await.unwrap());
        assert_eq!(other.devnet.wallet_import(kind, &secret).await.unwrap(), key);
        other.devnet.wallet_set_default(&key).await.unwrap();
        assert_eq!(other.devnet.wallet_default_address().await.unwrap(), Some(key));
        assert!(other.devnet.wallet_import(kind, &secret[1..]).await.is_err());
    }
    assert!(one.devnet.wallet_new("rsa").await.is_err());
    assert!(one.devnet.wallet_sign(&Address::new_id(4), b"x").await.is_err());
}

#[tokio::test]
async fn beacon_entries_come_with_their_epoch() {
    let net = Net::bare(settings());
    net.until(3);
    let head = net.devnet.chain_head().await.unwrap();
    assert_eq!(net.devnet.beacon_get_entry(3).await.unwrap(), head.blocks[0].beacon_entries[0]);
    assert!(net.devnet.beacon_get_entry(4).await.is_ok());
    assert!(net.devnet.beacon_get_entry(5).await.is_err());
    assert!(net.devnet.beacon_get_entry(-1).await.is_err());
}

#[tokio::test]
async fn creating_a_miner_costs_the_deposit_where_it_is_asked_for() {
    let net = Net::bare(DevnetSettings { creation_deposit: true, ..settings() });
    net.until(1);
    let deposit = net.devnet.state_miner_creation_deposit(&head()).await.unwrap();
    assert!(deposit > TokenAmount::default());
    let params = power::CreateMinerParams {
        owner: net.owner,
        worker: net.worker,
        window_post_proof_type: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
        peer: vec![],
        multiaddrs: vec![],
    };
    let less = &deposit - TokenAmount::from_atto(1);
    assert_eq!(net.send(net.owner, Address::new_id(4), 2, &params, less).await.exit_code, 19);
    net.must(net.owner, Address::new_id(4), 2, &params, deposit).await;
    assert_eq!(net.devnet.state_list_miners(&TipSetKey::default()).await.unwrap(), vec![net.miner]);
    let wrong =
        power::CreateMinerParams { window_post_proof_type: RegisteredPoStProof::StackedDRGWindow32GiBV1P1, ..params };
    assert_eq!(net.send(net.owner, Address::new_id(4), 2, &wrong, fil(1)).await.exit_code, 16);
}
