//! A sector's life on chain: pre-commit, proof, power, faults, recovery, extension, termination, expiry.

use crate::support::devnet::*;
use bulkhead::rpc::full_node::FullNode;
use fil_actor_miner_state::v18 as miner;
use fvm_shared::bigint::BigInt;
use fvm_shared::econ::TokenAmount;

const NOTHING: fn() -> TokenAmount = TokenAmount::default;

#[tokio::test]
async fn a_sector_gets_power_with_its_first_window_post() {
    let net = Net::start().await;
    net.pre_commit(1).await;
    let found = net.devnet.state_sector_pre_commit_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    assert_eq!(found.info.sealed_cid, sealed_cid(1));
    assert!(found.pre_commit_deposit > NOTHING());
    assert_eq!(net.devnet.state_miner_allocated(&net.miner, &head()).await.unwrap(), bits(&[1]));

    // The seed must have been drawn: one epoch earlier is too early.
    let seed = found.pre_commit_epoch + net.settings.pre_commit_challenge_delay;
    net.until(seed - 1);
    let refusal = net.refusal(net.worker, 34, &net.prove_params(1, GOOD)).await;
    assert!(refusal.contains("too early to prove sector"), "{refusal}");
    net.until(seed);
    net.must(net.worker, net.miner, 34, &net.prove_params(1, GOOD), NOTHING()).await;
    assert!(net.devnet.state_sector_pre_commit_info(&net.miner, 1, &head()).await.unwrap().is_none());
    let sector = net.devnet.state_sector_get_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    assert!(sector.initial_pledge.unwrap() > NOTHING());
    assert_eq!(net.power().await, BigInt::from(0));

    let at = net.location(1).await;
    net.post(at).await;
    assert_eq!(net.power().await, BigInt::from(2048));
    let posted = &net.devnet.state_miner_deadlines(&net.miner, &head()).await.unwrap()[at.deadline as usize];
    assert_eq!(posted.post_submissions, bits(&[at.partition]));
    let partition = &net.devnet.state_miner_partitions(&net.miner, at.deadline, &head()).await.unwrap()[0];
    assert_eq!(partition.active_sectors, bits(&[1]));
    // The same partition cannot be proven twice in a window.
    let refusal = net.refusal(net.worker, 5, &net.post_params(at, GOOD).await).await;
    assert!(refusal.contains("partition already proven"), "{refusal}");
}

#[tokio::test]
async fn a_missed_post_is_a_fault_and_a_recovery_brings_the_power_back() {
    let net = Net::with_power().await;
    let at = net.location(1).await;
    let proven = net.deadline().await;
    // Through this window, and through the next one without a proof.
    net.until(proven.close + net.settings.proving_period() - 1);
    assert_eq!(net.power().await, BigInt::from(0));
    assert_eq!(net.devnet.state_miner_faults(&net.miner, &head()).await.unwrap(), vec![1, 1]);

    let recovery = miner::DeclareFaultsRecoveredParams {
        recoveries: vec![miner::RecoveryDeclaration {
            deadline: at.deadline,
            partition: at.partition,
            sectors: bits(&[1]),
        }],
    };
    net.must(net.worker, net.miner, 11, &recovery, NOTHING()).await;
    assert_eq!(net.devnet.state_miner_recoveries(&net.miner, &head()).await.unwrap(), vec![1, 1]);
    net.post(at).await;
    assert_eq!(net.power().await, BigInt::from(2048));
    assert_eq!(net.devnet.state_miner_faults(&net.miner, &head()).await.unwrap(), vec![0]);
}

#[tokio::test]
async fn a_declared_fault_costs_power_at_once_and_a_late_one_is_refused() {
    let net = Net::with_power().await;
    let at = net.location(1).await;
    let faults = miner::DeclareFaultsParams {
        faults: vec![miner::FaultDeclaration { deadline: at.deadline, partition: at.partition, sectors: bits(&[1]) }],
    };
    let refusal = net.refusal(net.worker, 10, &faults).await;
    assert!(refusal.contains("late fault or recovery declaration"), "{refusal}");
    let closed = net.deadline().await.close;
    net.until(closed);
    net.must(net.worker, net.miner, 10, &faults, NOTHING()).await;
    assert_eq!(net.power().await, BigInt::from(0));
}

#[tokio::test]
async fn an_expired_pre_commit_burns_its_deposit() {
    let net = Net::start().await;
    let burnt = fvm_shared::address::Address::new_id(99);
    net.pre_commit(7).await;
    let found = net.devnet.state_sector_pre_commit_info(&net.miner, 7, &head()).await.unwrap().unwrap();
    let due = found.pre_commit_epoch + net.settings.max_prove_commit_duration();
    // The last epoch on which the proof is taken executes in the block after the head.
    net.until(due);
    let refusal = net.refusal(net.worker, 34, &net.prove_params(7, GOOD)).await;
    assert!(refusal.contains("invalid pre-commit"), "{refusal}");
    let before = net.devnet.state_get_actor(&burnt, &head()).await.unwrap().unwrap().balance;
    net.until(due + net.settings.pre_commit_clean_up_delay + 2 * net.settings.challenge_window);
    assert!(net.devnet.state_sector_pre_commit_info(&net.miner, 7, &head()).await.unwrap().is_none());
    let after = net.devnet.state_get_actor(&burnt, &head()).await.unwrap().unwrap().balance;
    assert_eq!(after - before, found.pre_commit_deposit);
    // The number stays taken.
    assert_eq!(net.devnet.state_miner_allocated(&net.miner, &head()).await.unwrap(), bits(&[7]));
    let refusal = net.refusal(net.worker, 28, &net.pre_commit_params(7).await).await;
    assert!(refusal.contains("already allocated"), "{refusal}");
}

#[tokio::test]
async fn a_sector_is_extended_then_terminated() {
    let net = Net::with_power().await;
    let at = net.location(1).await;
    let old = net.devnet.state_sector_get_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    let extension = |expiration| miner::ExtendSectorExpiration2Params {
        extensions: vec![miner::ExpirationExtension2 {
            deadline: at.deadline,
            partition: at.partition,
            sectors: bits(&[1]),
            sectors_with_claims: vec![],
            new_expiration: expiration,
        }],
    };
    let refusal = net.refusal(net.worker, 32, &extension(old.expiration - 1)).await;
    assert!(refusal.contains("cannot reduce sector 1 expiration"), "{refusal}");
    net.must(net.worker, net.miner, 32, &extension(old.expiration + 100), NOTHING()).await;
    let new = net.devnet.state_sector_get_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    assert_eq!(new.expiration, old.expiration + 100);
    assert_eq!(net.power().await, BigInt::from(2048));

    let termination = miner::TerminateSectorsParams {
        terminations: vec![miner::TerminationDeclaration {
            deadline: at.deadline,
            partition: at.partition,
            sectors: bits(&[1]),
        }],
    };
    let refusal = net.refusal(net.worker, 9, &termination).await;
    assert!(refusal.contains("immutable deadline"), "{refusal}");
    net.until(net.deadline().await.close);
    let receipt = net.must(net.worker, net.miner, 9, &termination, NOTHING()).await;
    let returned: miner::TerminateSectorsReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).unwrap();
    assert!(returned.done);
    assert_eq!(net.power().await, BigInt::from(0));
}

#[tokio::test]
async fn a_sector_expires_on_time_and_frees_its_pledge() {
    let net = Net::with_power().await;
    let sector = net.devnet.state_sector_get_info(&net.miner, 1, &head()).await.unwrap().unwrap();
    let at = net.location(1).await;
    while net.height().await < sector.expiration {
        let close = net.deadline().await.close;
        net.until(close);
        net.post(at).await;
    }
    net.until(sector.expiration + net.settings.proving_period() + 1);
    assert_eq!(net.power().await, BigInt::from(0));
    let state = net.devnet.state_read_state(&net.miner, &head()).await.unwrap();
    assert_eq!(state["State"]["InitialPledge"], "0");
    let count = net.devnet.state_miner_sector_count(&net.miner, &head()).await.unwrap();
    assert_eq!(count["Live"], 0);
}
