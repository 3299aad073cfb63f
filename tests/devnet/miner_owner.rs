//! What an owner changes about a miner: owner, worker and control addresses, debts; by both numbers of each method.

use crate::support::devnet::*;
use bulkhead::chain::types::MinerInfo;
use bulkhead::rpc::full_node::FullNode;
use fil_actor_miner_state::v18 as miner;
use fil_actor_miner_state::v18::Method;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;

const NOTHING: fn() -> TokenAmount = TokenAmount::default;

impl Net {
    async fn info(&self) -> MinerInfo {
        self.devnet.state_miner_info(&self.miner, &head()).await.unwrap()
    }

    async fn id(&self, who: Address) -> Address {
        self.devnet.state_lookup_id(&who, &head()).await.unwrap()
    }
}

fn owner(new_owner: Address) -> miner::ChangeOwnerAddressParams {
    miner::ChangeOwnerAddressParams { new_owner }
}

#[tokio::test]
async fn an_owner_changes_in_two_steps_and_a_proposal_can_be_taken_back() {
    let net = Net::start().await;
    let third = net.devnet.wallet_new("bls").await.unwrap();
    net.must(net.owner, third, 0, &(), fil(10)).await;
    let (old, new, other) = (net.id(net.owner).await, net.id(net.worker).await, net.id(third).await);
    let refusal = net.refusal(net.owner, 23, &owner(third)).await;
    assert!(refusal.contains("owner address must be an ID address"), "{refusal}");
    let refusal = net.refusal(net.worker, 23, &owner(new)).await;
    assert!(refusal.contains("ErrForbidden(18)") || refusal.contains("is not one of supported"), "{refusal}");

    net.must(net.owner, net.miner, 23, &owner(new), NOTHING()).await;
    assert_eq!((net.info().await.owner, net.info().await.pending_owner_address), (old, Some(new)));
    assert!(net.refusal(third, 23, &owner(other)).await.contains("is not one of supported"));
    assert!(net.refusal(net.worker, 23, &owner(other)).await.contains("expected confirmation of"));
    net.must(net.owner, net.miner, 23, &owner(old), NOTHING()).await;
    assert_eq!(net.info().await.pending_owner_address, None, "taken back");

    net.must(net.owner, net.miner, Method::ChangeOwnerAddressExported as u64, &owner(new), NOTHING()).await;
    net.must(net.worker, net.miner, 23, &owner(new), NOTHING()).await;
    let info = net.info().await;
    assert_eq!((info.owner, info.pending_owner_address, info.beneficiary), (new, None, Some(new)));
    // The old one has nothing to say any more.
    assert!(
        net.refusal(net.owner, 16, &miner::WithdrawBalanceParams { amount_requested: fil(1) }).await.contains("18")
    );
}

#[tokio::test]
async fn both_numbers_of_a_method_do_the_same() {
    let net = Net::start().await;
    let (owner, worker) = (net.id(net.owner).await, net.id(net.worker).await);
    let change = miner::ChangeWorkerAddressParams { new_worker: worker, new_control_addresses: vec![owner] };
    net.must(net.owner, net.miner, Method::ChangeWorkerAddressExported as u64, &change, NOTHING()).await;
    let receipt = net.must(net.worker, net.miner, 2, &(), NOTHING()).await;
    let told: miner::GetControlAddressesReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).unwrap();
    assert_eq!((told.owner, told.worker, told.control_addresses), (owner, worker, vec![owner]));
    for (number, amount) in [(16, 1), (Method::WithdrawBalanceExported as u64, 2)] {
        let params = miner::WithdrawBalanceParams { amount_requested: fil(amount) };
        let receipt = net.must(net.owner, net.miner, number, &params, NOTHING()).await;
        let back: miner::WithdrawBalanceReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).unwrap();
        assert_eq!(back.amount_withdrawn, fil(amount), "{number}");
    }
    let receipt = net.send(net.owner, net.miner, 99, &(), NOTHING()).await;
    assert_eq!(receipt.exit_code, 22, "unhandled");
}

#[tokio::test]
async fn a_debt_is_repaid_with_what_comes_along() {
    let net = Net::with_power().await;
    let all = miner::WithdrawBalanceParams { amount_requested: fil(1_000_000) };
    net.must(net.owner, net.miner, 16, &all, NOTHING()).await;
    // Faulty for two periods: the fees exceed what is not locked.
    let closed = net.deadline().await.close;
    net.until(closed + 2 * net.settings.proving_period());
    let funds = |net: &Net| {
        let (devnet, miner) = (net.devnet.clone(), net.miner);
        async move { devnet.state_miner_funds(&miner, &head()).await.unwrap() }
    };
    let before = funds(&net).await;
    assert!(before.fee_debt > NOTHING(), "{before:?}");
    assert!(before.initial_pledge > NOTHING() && before.balance >= before.initial_pledge, "{before:?}");
    let refusal = net.refusal(net.owner, 16, &all).await;
    assert!(refusal.contains("unlocked balance can not repay fee debt"), "{refusal}");

    let third = net.devnet.wallet_new("bls").await.unwrap();
    net.must(net.owner, third, 0, &(), fil(10)).await;
    let stranger = net.send(third, net.miner, 22, &(), fil(1)).await;
    assert_eq!(stranger.exit_code, 18, "only who controls the miner");
    let half = before.fee_debt.div_floor(2);
    net.must(net.worker, net.miner, 22, &(), half.clone()).await;
    let after = funds(&net).await;
    assert!(after.fee_debt > NOTHING() && after.fee_debt <= &before.fee_debt - &half, "{after:?}");
    net.must(net.worker, net.miner, Method::RepayDebtExported as u64, &(), fil(1)).await;
    assert_eq!(funds(&net).await.fee_debt, NOTHING());
    net.must(net.owner, net.miner, 16, &all, NOTHING()).await;
}
