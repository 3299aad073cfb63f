//! Messages: nonces, replacement, funds, signatures, gas, exit codes, and that a failed one changes nothing but its fee.

use crate::support::devnet::*;
use bulkhead::chain::types::TipSetKey;
use bulkhead::devnet::Wording;
use bulkhead::rpc::full_node::FullNode;
use fil_actor_miner_state::v18 as miner;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use std::sync::atomic::Ordering;

fn burnt() -> Address {
    Address::new_id(99)
}

#[tokio::test]
async fn messages_run_in_nonce_order_and_wait_behind_a_gap() {
    let net = Net::bare(settings());
    let send = || net.message(net.owner, burnt(), 0, vec![], fil(1));
    let (first, second) = (net.signed(send(), 0).await, net.signed(send(), 1).await);
    let late = net.devnet.mpool_push(&second).await.unwrap();
    assert_eq!(net.devnet.mpool_get_nonce(&net.owner).await.unwrap(), 0);
    net.until(2);
    assert!(net.devnet.state_search_msg(&head(), &late, -1, false).await.unwrap().is_none());
    assert!(net.devnet.mpool_select(&head(), 1.0).await.unwrap().is_empty());
    let early = net.devnet.mpool_push(&first).await.unwrap();
    assert_eq!(net.devnet.mpool_get_nonce(&net.owner).await.unwrap(), 2);
    assert_eq!(net.devnet.mpool_select(&head(), 1.0).await.unwrap(), vec![first.clone(), second]);
    net.until(4);
    for cid in [early, late] {
        let found = net.devnet.state_search_msg(&head(), &cid, -1, false).await.unwrap().unwrap();
        // The tipset after the including one carries the receipt.
        assert_eq!((found.height, found.receipt.exit_code), (4, 0));
        let carrying = net.devnet.chain_get_tip_set_by_height(4, &head()).await.unwrap();
        assert_eq!(found.tip_set, carrying.key());
    }
    assert!(net.devnet.mpool_pending(&head()).await.unwrap().is_empty());
    let spent = net.devnet.mpool_push(&first).await.unwrap_err();
    assert!(spent.to_string().contains("sequence too low"), "{spent}");
}

#[tokio::test]
async fn a_replacement_needs_more_premium_and_is_found_under_the_old_cid() {
    let net = Net::bare(settings());
    let cheap = net.signed(net.message(net.owner, burnt(), 0, vec![], fil(1)), 0).await;
    let old = net.devnet.mpool_push(&cheap).await.unwrap();
    let again = net.devnet.mpool_push(&cheap).await.unwrap_err().to_string();
    assert!(again.contains("already in mempool"), "{again}");
    let offer = |premium: u64| {
        let mut message = cheap.message.clone();
        message.gas_premium = TokenAmount::from_atto(premium);
        message.gas_fee_cap = TokenAmount::from_atto(500_000);
        message
    };
    let low = net.devnet.wallet_sign_message(&net.owner, &offer(110_000)).await.unwrap();
    let refusal = net.devnet.mpool_push(&low).await.unwrap_err().to_string();
    assert!(refusal.contains("gas price is lower than min gas price"), "{refusal}");
    let high = net.devnet.wallet_sign_message(&net.owner, &offer(110_001)).await.unwrap();
    let new = net.devnet.mpool_push(&high).await.unwrap();
    net.until(2);
    net.devnet.speak_as(Wording::Lotus);
    assert!(net.devnet.state_search_msg(&head(), &old, -1, false).await.unwrap().is_none());
    let found = net.devnet.state_search_msg(&head(), &old, -1, true).await.unwrap().unwrap();
    assert_eq!((found.message, found.receipt.exit_code), (new, 0));
}

#[tokio::test]
async fn what_no_block_may_contain_is_refused_at_the_door() {
    let net = Net::bare(settings());
    let good = net.signed(net.message(net.owner, burnt(), 0, vec![], fil(1)), 0).await;
    let mut forged = good.clone();
    forged.signature.data[10] ^= 1;
    let mut changed = good.clone();
    changed.message.value = fil(2);
    let poor = net.signed(net.message(net.owner, burnt(), 0, vec![], fil(1_000_000)), 0).await;
    let far = net.signed(net.message(net.owner, burnt(), 0, vec![], fil(1)), 65).await;
    let mut no_gas = net.message(net.owner, burnt(), 0, vec![], fil(1));
    no_gas.gas_limit = -1;
    let no_gas = net.signed_raw(no_gas).await;
    let huge = net.signed(net.message(net.owner, burnt(), 0, vec![0; 70_000], fil(1)), 0).await;
    for (message, want) in [
        (forged, "failed to verify signature"),
        (changed, "failed to verify signature"),
        (poor, "Not enough funds"),
        (far, "nonce gap"),
        (no_gas, "gas limit"),
        (huge, "too big"),
    ] {
        let refusal = net.devnet.mpool_push(&message).await.unwrap_err().to_string();
        assert!(refusal.contains(want), "{refusal} does not say {want}");
    }
    assert!(net.devnet.mpool_pending(&head()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bad_proof_leaves_the_state_as_it_was() {
    let net = Net::start().await;
    net.pre_commit(1).await;
    let found = net.devnet.state_sector_pre_commit_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    net.until(found.pre_commit_epoch + net.settings.pre_commit_challenge_delay);
    let state = net.devnet.state_get_actor(&net.miner, &head()).await.unwrap().unwrap().head;
    let refusal = net.refusal(net.worker, 34, &net.prove_params(1, BAD)).await;
    assert!(refusal.contains("ErrIllegalArgument(16)"), "{refusal}");
    assert!(refusal.contains("invalid proof for sector 1 while requiring activation success"), "{refusal}");
    let receipt = net.send(net.worker, net.miner, 34, &net.prove_params(1, BAD), fil(0)).await;
    assert_eq!(receipt.exit_code, 16);
    assert!(receipt.return_data.is_empty() && receipt.gas_used > 80_000_000);
    assert_eq!(net.devnet.state_get_actor(&net.miner, &head()).await.unwrap().unwrap().head, state);

    net.must(net.worker, net.miner, 34, &net.prove_params(1, GOOD), fil(0)).await;
    let at = net.location(1).await;
    net.until_open(at.deadline).await;
    let params = net.post_params(at, BAD).await;
    assert!(net.refusal(net.worker, 5, &params).await.contains("invalid post was submitted"));
    let receipt = net.send(net.worker, net.miner, 5, &params, fil(0)).await;
    assert_eq!(receipt.exit_code, 16);
    assert_eq!(net.power().await, 0.into());
    let mut params = net.post_params(at, GOOD).await;
    params.chain_commit_rand.0[0] ^= 1;
    assert!(net.refusal(net.worker, 5, &params).await.contains("post commit randomness mismatched"));
}

#[tokio::test]
async fn a_missing_proving_key_is_said_when_the_message_is_pushed() {
    let net = Net::start().await;
    net.verifier.no_keys.store(true, Ordering::SeqCst);
    let params = fvm_ipld_encoding::to_vec(&net.prove_params(1, GOOD)).unwrap();
    let message = net.signed(net.message(net.worker, net.miner, 34, params, fil(0)), 0).await;
    let refusal = net.devnet.mpool_push(&message).await.unwrap_err().to_string();
    assert!(refusal.contains("v28-missing.vk") && refusal.contains("bulkhead keys generate"), "{refusal}");
}

#[tokio::test]
async fn a_wrong_post_can_be_disputed_in_its_window() {
    let net = Net::with_power().await;
    let at = net.location(1).await;
    let params = miner::DisputeWindowedPoStParams { deadline: at.deadline, post_index: 0 };
    let refusal = net.refusal(net.owner, 24, &params).await;
    assert!(refusal.contains("only dispute window posts during the dispute window"), "{refusal}");
    net.until(net.deadline().await.close);
    let refusal = net.refusal(net.owner, 24, &params).await;
    assert!(refusal.contains("failed to dispute valid post"), "{refusal}");
    net.verifier.refuse_all.store(true, Ordering::SeqCst);
    net.must(net.owner, net.miner, 24, &params, fil(0)).await;
    assert_eq!(net.power().await, 0.into());
}

#[tokio::test]
async fn estimates_fill_what_is_missing_and_can_be_refused() {
    let net = Net::start().await;
    let message = net.message(net.owner, burnt(), 0, vec![], fil(1));
    let none = TokenAmount::default();
    let filled = net.devnet.gas_estimate_message_gas(&message, &none, &head()).await.unwrap();
    assert!(filled.gas_limit > 0 && filled.gas_premium > none && filled.gas_fee_cap > filled.gas_premium);
    net.devnet.refuse_gas_estimates(true);
    assert!(net.devnet.gas_estimate_message_gas(&message, &none, &head()).await.is_err());
    net.devnet.refuse_gas_estimates(false);
    let unknown = net.message(net.owner, net.miner, 999, vec![], fil(0));
    let refusal = net.devnet.gas_estimate_message_gas(&unknown, &none, &head()).await.unwrap_err().to_string();
    assert!(refusal.contains("ErrUnhandledMessage(22)"), "{refusal}");
    let garbage = net.message(net.worker, net.miner, 28, vec![0xff], fil(0));
    let refusal = net.devnet.gas_estimate_message_gas(&garbage, &none, &head()).await.unwrap_err().to_string();
    assert!(refusal.contains("ErrSerialization(21)"), "{refusal}");
}

#[tokio::test]
async fn an_owner_changes_the_worker_and_withdraws_and_others_may_not() {
    let net = Net::start().await;
    let key = net.devnet.wallet_new("bls").await.unwrap();
    net.must(net.owner, key, 0, &(), fil(10)).await;
    let worker = net.devnet.state_lookup_id(&key, &TipSetKey::default()).await.unwrap();
    let params = miner::ChangeWorkerAddressParams { new_worker: key, new_control_addresses: vec![net.worker] };
    assert!(net.refusal(net.worker, 3, &params).await.contains("ErrForbidden(18)"));
    net.must(net.owner, net.miner, 3, &params, fil(0)).await;
    let info = net.devnet.state_miner_info(&net.miner, &head()).await.unwrap();
    assert_eq!((info.worker, info.new_worker), (net.worker, Some(worker)));
    net.until(info.worker_change_epoch);
    net.must(net.owner, net.miner, 21, &(), fil(0)).await;
    let info = net.devnet.state_miner_info(&net.miner, &head()).await.unwrap();
    assert_eq!((info.worker, info.control_addresses), (worker, vec![net.worker]));

    let peer = libp2p::PeerId::random();
    net.must(worker, net.miner, 4, &miner::ChangePeerIDParams { new_id: peer.to_bytes() }, fil(0)).await;
    let address = fvm_ipld_encoding::BytesDe(vec![4, 127, 0, 0, 1, 6, 0, 80]);
    net.must(worker, net.miner, 18, &miner::ChangeMultiaddrsParams { new_multi_addrs: vec![address] }, fil(0)).await;
    let info = net.devnet.state_miner_info(&net.miner, &head()).await.unwrap();
    assert_eq!((info.peer_id, info.multiaddrs), (Some(peer.to_base58()), vec!["BH8AAAEGAFA=".to_string()]));

    let params = miner::WithdrawBalanceParams { amount_requested: fil(1_000) };
    assert!(net.refusal(worker, 16, &params).await.contains("ErrForbidden(18)"));
    let receipt = net.must(net.owner, net.miner, 16, &params, fil(0)).await;
    let taken: miner::WithdrawBalanceReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).unwrap();
    assert_eq!(taken.amount_withdrawn, fil(100));
}

#[tokio::test]
async fn secp256k1_accounts_send_too() {
    let net = Net::bare(settings());
    let key = net.devnet.wallet_new("secp256k1").await.unwrap();
    net.must(net.owner, key, 0, &(), fil(10)).await;
    let cid = net.push(net.message(key, burnt(), 0, vec![], fil(1))).await;
    assert_eq!(net.receipt(&cid).await.exit_code, 0);
    assert_eq!(
        net.devnet.wallet_balance(&burnt()).await.unwrap().div_floor(fil(1).atto().clone()),
        TokenAmount::from_atto(1)
    );
    let found = net.devnet.chain_get_message(&cid).await.unwrap();
    assert_eq!(found.from, key);
}
