//! What a large network does to a provider: blocks of others, a base fee that moves, power that it is a small part of, a
//! mempool that refuses, limits of the actor.

use crate::support::devnet::*;
use bulkhead::chain::types::*;
use bulkhead::devnet::{DevnetSettings, Wording};
use bulkhead::rpc::full_node::FullNode;
use fvm_shared::address::Address;
use fvm_shared::bigint::BigInt;
use fvm_shared::econ::TokenAmount;
use std::collections::BTreeSet;

fn burnt() -> Address {
    Address::new_id(99)
}

async fn offer(net: &Net, nonce: u64, cap: u64, premium: u64) -> SignedMessage {
    let mut message = net.message(net.owner, burnt(), 0, vec![], fil(1));
    (message.nonce, message.gas_limit) = (nonce, 10_000_000);
    (message.gas_fee_cap, message.gas_premium) = (TokenAmount::from_atto(cap), TokenAmount::from_atto(premium));
    net.devnet.wallet_sign_message(&net.owner, &message).await.unwrap()
}

#[tokio::test]
async fn several_blocks_of_one_tipset_carry_the_same_message_once() {
    let net = Net::bare(DevnetSettings { others_blocks: 3, ..settings() });
    let cid = net.push(net.message(net.owner, burnt(), 0, vec![], fil(1))).await;
    net.until(1);
    let including = net.devnet.chain_head().await.unwrap();
    let miners: BTreeSet<Address> = including.blocks.iter().map(|b| b.miner).collect();
    assert_eq!((including.blocks.len(), miners.len(), including.cids.len()), (3, 3, 3));
    assert!(including.blocks.iter().all(|b| b.messages == including.blocks[0].messages));
    assert_eq!(net.receipt(&cid).await.exit_code, 0);
    assert_eq!(net.devnet.state_get_actor(&net.owner, &head()).await.unwrap().unwrap().nonce, 1);
    assert_eq!(net.devnet.wallet_balance(&burnt()).await.unwrap().div_floor(fil(1).atto().clone()).atto(), &1.into());
    net.until(6);
    net.devnet.reorg(3).unwrap();
    let after = net.devnet.chain_head().await.unwrap();
    assert_eq!(after.blocks.len(), 3);
    assert!(after.blocks.iter().all(|b| b.parents.len() == 3));
}

#[tokio::test]
async fn the_base_fee_can_be_driven_up_and_falls_by_an_eighth_an_epoch() {
    let net = Net::bare(settings());
    let fee = async || net.devnet.chain_head().await.unwrap().min_ticket_block().parent_base_fee.clone();
    net.until(1);
    assert_eq!(fee().await, TokenAmount::from_atto(100));
    net.devnet.hold_base_fee(Some(TokenAmount::from_atto(1_000_000_000)));
    net.until(2);
    assert_eq!(fee().await, TokenAmount::from_atto(1_000_000_000));
    // A cap below the base fee is taken by the pool and waits, and so does what stands behind it.
    let low = net.devnet.mpool_push(&offer(&net, 0, 900_000_000, 1_000).await).await.unwrap();
    let high = net.devnet.mpool_push(&offer(&net, 1, 5_000_000_000, 1_000).await).await.unwrap();
    net.until(5);
    for cid in [low, high] {
        assert!(net.devnet.state_search_msg(&head(), &cid, -1, true).await.unwrap().is_none());
    }
    let message = net.message(net.owner, burnt(), 0, vec![], fil(1));
    let estimated = net.devnet.gas_estimate_message_gas(&message, &TokenAmount::default(), &head()).await.unwrap();
    assert!(estimated.gas_fee_cap > TokenAmount::from_atto(3_000_000_000u64), "{}", estimated.gas_fee_cap);
    net.devnet.hold_base_fee(None);
    net.until(6);
    assert_eq!(fee().await, TokenAmount::from_atto(875_000_000));
    net.until(8);
    for cid in [low, high] {
        let found = net.devnet.state_search_msg(&head(), &cid, -1, true).await.unwrap().expect("landed");
        assert_eq!(found.receipt.exit_code, 0);
    }
    net.until(7 + 150);
    assert_eq!(fee().await, TokenAmount::from_atto(100));
}

#[tokio::test]
async fn the_mempool_refuses_in_the_words_of_lotus_and_forest() {
    for wording in [Wording::Lotus, Wording::Forest] {
        let net = Net::bare(DevnetSettings { account_fil: 10, ..settings() });
        net.devnet.speak_as(wording);
        let words = |lotus: &'static str, forest: &'static str| match wording {
            Wording::Lotus => lotus,
            Wording::Forest => forest,
        };
        let refused = async |message: SignedMessage, lotus, forest| {
            let why = net.devnet.mpool_push(&message).await.unwrap_err().to_string();
            assert!(why.contains(words(lotus, forest)), "{wording:?}: {why}");
        };
        // 10 FIL; the cap alone would take 10 million x 10^12 attoFIL.
        let funds = "Not enough funds to execute transaction, balance: ";
        let dear = offer(&net, 0, 1_000_000_000_000, 1).await;
        refused(dear, "failed to check balance: not enough funds (required: 11", funds).await;
        let first = offer(&net, 0, 300_000_000_000, 100_000).await;
        net.devnet.mpool_push(&first).await.unwrap();
        let more = offer(&net, 1, 600_000_000_000, 100_000).await;
        refused(more, "not enough funds including pending messages (required: ", funds).await;
        let held = "already in mpool: message with nonce already exists";
        refused(first.clone(), held, "Message with sequence already in mempool").await;
        let low = offer(&net, 0, 300_000_000_000, 110_000).await;
        let rbf = "increase GasPremium to 110001 from 110000 to trigger replace by fee: replace by fee has too low GasPremium";
        refused(low.clone(), rbf, "gas price is lower than min gas price").await;
        // Kept all the same: a search for it is no error.
        let cid = bulkhead::chain::cbor::signed_message_cid(&low).unwrap();
        assert!(net.devnet.state_search_msg(&head(), &cid, -1, false).await.unwrap().is_none());
        net.devnet.mpool_push(&offer(&net, 0, 300_000_000_000, 110_001).await).await.unwrap();
        net.until(2);
        refused(first, "minimum expected nonce is 1, got 0: message nonce too low", "Message sequence too low").await;
        refused(offer(&net, 1, 99, 1).await, "gas fee cap too low", "gas fee cap is too low").await;
    }
}

#[tokio::test]
async fn a_setting_asks_for_more_premium_of_a_replacement() {
    let net = Net::bare(DevnetSettings { replace_percent: 125, ..settings() });
    net.devnet.mpool_push(&offer(&net, 0, 1_000_000, 100_000).await).await.unwrap();
    net.devnet.mpool_push(&offer(&net, 0, 1_000_000, 125_000).await).await.unwrap_err();
    net.devnet.mpool_push(&offer(&net, 0, 1_000_000, 125_001).await).await.unwrap();
}

#[tokio::test]
async fn a_provider_is_a_small_part_of_a_large_network() {
    const OTHERS: u64 = 1 << 60;
    let net = Net::start_with(DevnetSettings { others_power: OTHERS, others_blocks: 2, ..settings() }).await;
    net.seal(1).await;
    net.post(net.location(1).await).await;
    let height = net.height().await;
    net.until(height + net.settings.winning_lookback);
    let parents = net.devnet.chain_head().await.unwrap();
    let info = net.devnet.miner_get_base_info(&net.miner, parents.height + 1, &parents.key()).await.unwrap().unwrap();
    assert_eq!(info.network_power, BigInt::from(OTHERS) + 20480);
    assert!(info.eligible_for_mining);
    let power = net.devnet.state_miner_power(&net.miner, &head()).await.unwrap();
    assert_eq!(power.total_power.quality_adj_power, BigInt::from(OTHERS) + 20480);
    assert_eq!(parents.blocks.len(), 2, "the epochs go on without the provider");
}

#[tokio::test]
async fn one_message_proves_three_partitions_at_most() {
    let net = Net::start().await;
    net.seal(1).await;
    let at = net.location(1).await;
    net.until_open(at.deadline).await;
    let mut params = net.post_params(at, GOOD).await;
    let partition = |index| fil_actor_miner_state::v18::PoStPartition { index, skipped: Default::default() };
    params.partitions = (0..4).map(partition).collect();
    let why = net.refusal(net.worker, 5, &params).await;
    assert!(why.contains("ErrIllegalArgument(16)") && why.contains("too many partitions 4, limit 3"), "{why}");
}

#[tokio::test]
async fn a_partition_may_be_as_large_as_that_of_32_gib_sectors() {
    let net = Net::start_with(DevnetSettings { partition_sectors: 2349, ..settings() }).await;
    let info = net.devnet.state_miner_info(&net.miner, &head()).await.unwrap();
    assert_eq!(info.window_post_partition_sectors, 2349);
    for number in 1..=3 {
        net.seal(number).await;
    }
    // Sectors of 2 KiB go two to a partition otherwise; none of a deadline needs a second one here.
    for number in 1..=3 {
        assert_eq!(net.location(number).await.partition, 0, "{number}");
    }
}

#[test]
fn receipts_of_three_four_and_six_fields_are_read() {
    for receipt in [
        serde_json::json!({ "ExitCode": 0, "Return": null, "GasUsed": 7 }),
        serde_json::json!({ "ExitCode": 0, "Return": "gQE=", "GasUsed": 7, "EventsRoot": null }),
        serde_json::json!({
            "ExitCode": 0, "Return": "gQE=", "GasUsed": 7, "EventsRoot": null, "IpldCodec": 81, "Message": "ok"
        }),
    ] {
        let read: MessageReceipt = serde_json::from_value(receipt.clone()).unwrap();
        assert_eq!((read.exit_code, read.gas_used), (0, 7), "{receipt}");
    }
}
