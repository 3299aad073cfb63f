//! Blocks by the provider: what it is given, what is taken, what is refused and with which words.

use crate::support::devnet::*;
use bulkhead::chain::election::compute_win_count;
use bulkhead::chain::randomness::draw;
use bulkhead::chain::types::*;
use bulkhead::rpc::full_node::{FullNode, RandomnessTag};
use fvm_shared::address::Address;

const START: u64 = 1_700_000_000_000;

/// A chain on which t01000 may mine the next block.
async fn ready() -> Net {
    let net = Net::with_power().await;
    let height = net.height().await;
    net.until(height + net.settings.winning_lookback);
    net
}

/// An honest block for the next epoch; on the rare epochs without a win the chain goes on first.
async fn honest(net: &Net) -> BlockTemplate {
    loop {
        let parents = net.devnet.chain_head().await.unwrap();
        if let Some(template) = round(net, &parents).await {
            return template;
        }
        net.step().await;
    }
}

async fn round(net: &Net, parents: &TipSet) -> Option<BlockTemplate> {
    let epoch = parents.height + 1;
    let info = net.devnet.miner_get_base_info(&net.miner, epoch, &parents.key()).await.unwrap()?;
    assert!(info.eligible_for_mining);
    let base = info.beacon_entries.last().unwrap_or(&info.prev_beacon_entry).data.clone();
    let mut entropy = fvm_ipld_encoding::to_vec(&net.miner).unwrap();
    let input = draw(&base, RandomnessTag::ElectionProofProduction as i64, epoch, &entropy);
    let vrf_proof = net.devnet.wallet_sign(&info.worker_key, &input).await.unwrap().data;
    let win_count = compute_win_count(&vrf_proof, &info.miner_power, &info.network_power);
    if win_count == 0 {
        return None;
    }
    entropy.extend(&parents.min_ticket_block().ticket.as_ref().unwrap().vrf_proof);
    let input = draw(&base, RandomnessTag::TicketProduction as i64, epoch - 1, &entropy);
    let ticket = Ticket { vrf_proof: net.devnet.wallet_sign(&info.worker_key, &input).await.unwrap().data };
    Some(BlockTemplate {
        miner: net.miner,
        parents: parents.key(),
        ticket,
        eproof: ElectionProof { win_count, vrf_proof },
        beacon_values: info.beacon_entries,
        messages: net.devnet.mpool_select(&parents.key(), 1.0).await.unwrap(),
        epoch,
        timestamp: parents.min_ticket_block().timestamp + 10,
        winning_post_proof: vec![PoStProof { post_proof: 0, proof_bytes: GOOD.to_vec() }],
    })
}

async fn refused(net: &Net, template: &BlockTemplate) -> String {
    let block = net.devnet.miner_create_block(template).await.unwrap();
    net.devnet.sync_submit_block(&block).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_good_block_with_a_message_waits_for_its_time_and_becomes_the_head() {
    let net = ready().await;
    let to = Address::new_id(99);
    let cid = net.push(net.message(net.owner, to, 0, vec![], fil(1))).await;
    let template = honest(&net).await;
    let block = net.devnet.miner_create_block(&template).await.unwrap();
    net.devnet.sync_submit_block(&block).await.unwrap();
    // Again is no harm.
    net.devnet.sync_submit_block(&block).await.unwrap();
    let before = net.height().await;
    assert_eq!(net.devnet.tick(START + 9_999).unwrap(), Some(START + 10_000));
    assert_eq!(net.height().await, before);
    net.devnet.tick(START + 10_000).unwrap();
    let head = net.devnet.chain_head().await.unwrap();
    assert_eq!((head.height, head.blocks.len()), (template.epoch, 1));
    assert_eq!(head.blocks[0].miner, net.miner);
    assert_eq!(net.receipt(&cid).await.exit_code, 0);
    // The reward is locked in the miner's vesting table.
    let state = net.devnet.state_read_state(&net.miner, &TipSetKey::default()).await.unwrap();
    assert_ne!(state["State"]["LockedFunds"], "0");
}

#[tokio::test]
async fn a_block_after_its_time_moves_the_chain_at_once_and_a_late_one_joins_the_head() {
    let net = ready().await;
    let template = honest(&net).await;
    let block = net.devnet.miner_create_block(&template).await.unwrap();
    net.devnet.set_time(START + 12_000);
    net.devnet.sync_submit_block(&block).await.unwrap();
    assert_eq!(net.height().await, template.epoch);

    // The built-in producer was faster: the provider's block for the same epoch joins its tipset.
    let template = honest(&net).await;
    net.until(template.epoch);
    let alone = net.devnet.chain_head().await.unwrap();
    let block = net.devnet.miner_create_block(&template).await.unwrap();
    net.devnet.sync_submit_block(&block).await.unwrap();
    let joined = net.devnet.chain_head().await.unwrap();
    assert_eq!((joined.height, joined.blocks.len()), (alone.height, 2));

    // Once the chain has moved past it, it is too late.
    let template = honest(&net).await;
    let block = net.devnet.miner_create_block(&template).await.unwrap();
    net.until(template.epoch + 1);
    let late = net.devnet.sync_submit_block(&block).await.unwrap_err().to_string();
    assert!(late.contains("moved past"), "{late}");
}

#[tokio::test]
async fn every_wrong_part_is_refused_with_the_networks_words() {
    let net = ready().await;
    let good = honest(&net).await;
    let before = net.devnet.chain_head().await.unwrap();
    let with = |change: &dyn Fn(&mut BlockTemplate)| {
        let mut template = good.clone();
        change(&mut template);
        template
    };
    let table: [(BlockTemplate, &str); 9] = [
        (with(&|t| t.ticket.vrf_proof[20] ^= 1), "Verifying VRF failed: ticket"),
        (with(&|t| t.eproof.vrf_proof[20] ^= 1), "Verifying VRF failed: election proof"),
        (with(&|t| t.eproof.win_count += 1), "wrong number of wins"),
        (with(&|t| t.eproof.win_count = 0), "not claiming to be a winner"),
        (with(&|t| t.winning_post_proof[0].proof_bytes[0] ^= 1), "Failed to verify winning PoSt"),
        (with(&|t| t.winning_post_proof.clear()), "Failed to verify winning PoSt"),
        (with(&|t| t.beacon_values[0].data[0] ^= 1), "beacon entries"),
        (with(&|t| t.timestamp += 1_000), "wrong timestamp"),
        (with(&|t| t.timestamp -= 11), "wrong timestamp"),
    ];
    for (template, want) in table {
        let got = refused(&net, &template).await;
        assert!(got.contains(want), "{got} does not say {want}");
    }

    // Tampered with after it was signed.
    let block = net.devnet.miner_create_block(&good).await.unwrap();
    let mut forged = block.clone();
    forged.header.timestamp -= 1;
    let got = net.devnet.sync_submit_block(&forged).await.unwrap_err().to_string();
    assert!(got.contains("signature"), "{got}");
    let mut emptied = block.clone();
    emptied.header.messages = emptied.header.parent_state_root;
    assert!(net.devnet.sync_submit_block(&emptied).await.is_err());
    assert_eq!(net.devnet.chain_head().await.unwrap(), before);

    // The honest one is still good; a second, different one of the same epoch is slashable and refused.
    net.devnet.sync_submit_block(&block).await.unwrap();
    let got = refused(&net, &with(&|t| t.timestamp -= 1)).await;
    assert!(got.contains("SLASH FILTER"), "{got}");
}

#[tokio::test]
async fn a_miner_without_power_at_the_lookback_gets_no_base_info() {
    let net = Net::with_power().await;
    let head = net.devnet.chain_head().await.unwrap();
    let info = net.devnet.miner_get_base_info(&net.miner, head.height + 1, &head.key()).await.unwrap();
    assert!(info.is_none_or(|i| !i.eligible_for_mining || i.sectors.is_empty()));
    let empty = net.devnet.miner_get_base_info(&net.miner, head.height + 1, &TipSetKey::default()).await.unwrap_err();
    assert!(empty.to_string().contains("tipset key must not be empty"), "{empty}");
    assert!(net.devnet.miner_get_base_info(&net.owner, head.height + 1, &head.key()).await.is_err());
    assert!(net.devnet.miner_get_base_info(&net.miner, head.height, &head.key()).await.is_err());
}
