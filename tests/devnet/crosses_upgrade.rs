//! The migration from network version 28 to 29 while a miner seals and proves: what each side of the epoch answers.

use crate::support::devnet::*;
use bulkhead::chain::types::*;
use bulkhead::devnet::{DevnetSettings, Wording};
use bulkhead::rpc::full_node::{FullNode, FullNodeError};
use fvm_shared::address::Address;
use fvm_shared::bigint::BigInt;
use fvm_shared::econ::TokenAmount;

/// FULL_QA_POWER of `SectorOnChainInfo`'s flags.
const FULL_QA_POWER: u64 = 2;

async fn version(net: &Net) -> u32 {
    net.devnet.state_network_version(&head()).await.unwrap()
}

async fn code_of(net: &Net, who: Address) -> String {
    net.devnet.state_get_actor(&who, &head()).await.unwrap().unwrap().code.to_string()
}

async fn sector(net: &Net, number: u64) -> SectorOnChainInfo {
    net.devnet.state_sector_get_info(&net.miner, number, &head()).await.unwrap().unwrap()
}

fn pre_commit_info(net: &Net, number: u64, now: i64) -> SectorPreCommitInfo {
    SectorPreCommitInfo {
        seal_proof: 5,
        sector_number: number,
        sealed_cid: sealed_cid(number),
        seal_rand_epoch: now - 1,
        deal_ids: vec![],
        expiration: now + net.settings.min_sector_lifetime + 100,
        unsealed_cid: None,
    }
}

/// The pledge for a pre-commit, as it is asked for up to version 28.
async fn pledge_of_pre_commit(net: &Net) -> Result<TokenAmount, FullNodeError> {
    let info = pre_commit_info(net, 9, net.height().await);
    net.devnet.state_miner_initial_pledge_collateral(&net.miner, &info, &head()).await
}

#[tokio::test]
async fn sectors_in_every_phase_cross_the_upgrade() {
    let mut net = Net::start_with(DevnetSettings { upgrade_epoch: 1_000, ..settings() }).await;
    net.seal(1).await;
    net.post(net.location(1).await).await;
    assert_eq!((version(&net).await, net.quality_adjusted().await), (28, BigInt::from(2048)));
    assert_eq!(sector(&net, 1).await.flags & FULL_QA_POWER, 0);
    let old_pledge = pledge_of_pre_commit(&net).await.unwrap();
    net.pre_commit(2).await;
    // One sector is proven, one waits for its seed, one is not begun. The operator sets the epoch of the upgrade.
    let upgrade = net.height().await + 3;
    net.settings.upgrade_epoch = upgrade;
    let net = net.reopen();
    let params = net.devnet.state_get_network_params().await.unwrap().fork_upgrade_params;
    assert_eq!(params["UpgradeSolsticeHeight"], upgrade);
    let (miner_code, power_code) = (code_of(&net, net.miner).await, code_of(&net, Address::new_id(4)).await);
    let balance = net.devnet.state_miner_available_balance(&net.miner, &head()).await.unwrap();

    // At the upgrade's own epoch the old rules hold, and nothing is executed for a caller.
    net.until(upgrade);
    assert_eq!(version(&net).await, 28);
    let message = net.message(net.owner, Address::new_id(99), 0, vec![], fil(1));
    let bound = TokenAmount::default();
    match net.devnet.gas_estimate_message_gas(&message, &bound, &head()).await {
        Err(FullNodeError::Rpc { code: -32002, message, .. }) => {
            assert!(message.contains(&format!("state fork at epoch {upgrade}")), "{message}");
        }
        other => panic!("{other:?}"),
    }
    net.until(upgrade + 1);
    assert_eq!(version(&net).await, 29);
    net.devnet.gas_estimate_message_gas(&message, &bound, &head()).await.unwrap();
    let before = net.devnet.chain_get_tip_set_by_height(upgrade, &head()).await.unwrap().key();
    assert_eq!(net.devnet.state_network_version(&before).await.unwrap(), 28);

    assert_ne!(code_of(&net, net.miner).await, miner_code);
    assert_ne!(code_of(&net, Address::new_id(4)).await, power_code);
    assert_eq!(net.devnet.state_miner_available_balance(&net.miner, &head()).await.unwrap(), balance);
    for wording in [Wording::Lotus, Wording::Forest] {
        net.devnet.speak_as(wording);
        let why = pledge_of_pre_commit(&net).await.unwrap_err().to_string();
        let text = "StateMinerInitialPledgeCollateral is unsupported from network version 29 (FIP-0118): use \
                    StateMinerInitialPledgeForSector";
        assert!(why.contains(text), "{why}");
    }

    // The old sector keeps its quality; one pre-committed before and proven after has the new one.
    assert_eq!(net.quality_adjusted().await, BigInt::from(2048));
    let found = net.devnet.state_sector_pre_commit_info(&net.miner, 2, &head()).await.unwrap().unwrap();
    net.until(found.pre_commit_epoch + net.settings.pre_commit_challenge_delay);
    net.must(net.worker, net.miner, 34, &net.prove_params(2, GOOD), TokenAmount::default()).await;
    net.seal(3).await;
    for number in [2, 3] {
        let new = sector(&net, number).await;
        assert_eq!(new.flags & FULL_QA_POWER, FULL_QA_POWER, "{number}");
        assert!(new.initial_pledge.unwrap() * 11u64 > old_pledge.clone() * 99u64, "{number}");
        let at = net.location(number).await;
        net.until_open(at.deadline).await;
        let (power, quality) = (net.power().await, net.quality_adjusted().await);
        let proof = net.post_params(at, GOOD).await;
        net.must(net.worker, net.miner, 5, &proof, TokenAmount::default()).await;
        assert_eq!(net.power().await - power, BigInt::from(2048), "{number}");
        assert_eq!(net.quality_adjusted().await - quality, BigInt::from(20480), "{number}");
    }

    // A stop afterwards loses nothing of it.
    let (height, quality) = (net.height().await, net.quality_adjusted().await);
    let net = net.reopen();
    assert_eq!((version(&net).await, net.height().await, net.quality_adjusted().await), (29, height, quality));
}

#[tokio::test]
async fn null_rounds_over_the_upgrade_epoch_do_not_skip_the_migration() {
    let net = Net::bare(DevnetSettings { upgrade_epoch: 5, ..settings() });
    let before = code_of(&net, net.owner).await;
    net.until(4);
    net.devnet.null_rounds(3);
    net.until(8);
    assert_eq!((net.height().await, version(&net).await), (8, 29));
    assert_ne!(code_of(&net, net.owner).await, before);
}

#[tokio::test]
async fn a_running_chain_takes_an_upgrade_that_is_to_come_and_never_goes_back() {
    let mut net = Net::bare(DevnetSettings { upgrade_epoch: 1_000, ..settings() });
    net.until(5);
    net.settings.upgrade_epoch = 8;
    let mut net = net.reopen();
    net.until(9);
    assert_eq!(version(&net).await, 29);
    // Neither another epoch nor none at all changes what has happened.
    for upgrade_epoch in [1_000, -1] {
        net.settings.upgrade_epoch = upgrade_epoch;
        net = net.reopen();
        assert_eq!(version(&net).await, 29);
        let params = net.devnet.state_get_network_params().await.unwrap().fork_upgrade_params;
        assert_eq!(params["UpgradeSolsticeHeight"], 8);
    }
}

#[tokio::test]
async fn a_chain_runs_version_29_from_the_start_unless_asked_otherwise() {
    let net = Net::bare(settings());
    assert_eq!(version(&net).await, 29);
    let params = net.devnet.state_get_network_params().await.unwrap().fork_upgrade_params;
    assert_eq!((&params["UpgradeSolsticeHeight"], &params["UpgradeFireHorseHeight"]), (&(-1).into(), &(-2).into()));
}
